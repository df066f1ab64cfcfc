"""Text that cannot be what the page shows: codes that stand for other letters, bytes read in a wrong encoding."""

import string

import numpy as np
import pytest

from renderers import rules
from renderers.plausible import letter_surprise, mojibake, rare_han_share

SENTENCES = {
    "en": "The committee has considered the report of the working group and approved its main conclusions. ",
    "de": "Der Ausschuss hat den Bericht der Arbeitsgruppe geprüft und dessen Schlussfolgerungen gebilligt. ",
    "fr": "Le comité a examiné le rapport du groupe de travail et approuvé ses principales conclusions. ",
    "tr": "Komisyon çalışma grubunun raporunu inceledi ve başlıca sonuçlarını onayladı. ",
    "names": "John Smith, Maria Garcia, Wei Zhang, Olga Petrova, Ahmed Hassan, Yuki Tanaka, Lars Svensson. ",
    "code": "def main(args): parser.add_argument('--input', required=True); return parser.parse_args(args) ",
}
CHINESE = "数学是研究数量、结构、变化以及空间等概念的一门学科，从某种角度看属于形式科学的一种。" * 4
LIMIT = rules.PDF_RULES


def shifted(text: str, by: int) -> str:
    lower, upper = string.ascii_lowercase, string.ascii_uppercase
    return text.translate(str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by]))


@pytest.mark.parametrize("name", SENTENCES)
def test_real_text_is_plausible_in_any_language(name):
    assert 0 < letter_surprise(SENTENCES[name] * 5) < LIMIT["scrambled_letters"]
    assert mojibake(SENTENCES[name]) < LIMIT["mojibake"]


@pytest.mark.parametrize("by", [-1, 1, 3, 13])
@pytest.mark.parametrize("name", ["en", "de", "fr"])
def test_shifted_letters_are_not(name, by):
    assert letter_surprise(shifted(SENTENCES[name] * 5, by)) > LIMIT["scrambled_letters"]


def test_permuted_letters_are_not():
    for seed in range(10):
        order = "".join(np.random.default_rng(seed).permutation(list(string.ascii_lowercase)))
        text = (SENTENCES["en"] * 5).lower().translate(str.maketrans(string.ascii_lowercase, order))
        assert letter_surprise(text) > LIMIT["scrambled_letters"]


@pytest.mark.parametrize("wrong", ["gbk", "big5", "shift_jis"])
def test_chinese_read_in_a_wrong_encoding_has_rare_characters(wrong):
    assert rare_han_share(CHINESE) < 0.02
    assert rare_han_share(CHINESE.encode().decode(wrong, "ignore")) > LIMIT["rare_han"]


def test_western_mojibake():
    text = "Größen für Straße, schön früh, déjà vu, garçon"
    assert mojibake(text.encode().decode("latin-1")) > LIMIT["mojibake"] > mojibake(text)


def test_undecodable_characters_are_the_matter_of_another_rule():
    assert mojibake("\ufffd" * 600 + "und sonst ein schöner Satz, der länger ist") == 0


def test_too_little_text_is_not_judged():
    assert letter_surprise("Lnqqhrnm") == rare_han_share("鐩鐨") == mojibake("") == 0


def test_codes_in_a_chinese_page_are_not_judged_as_letters():
    codes = "xq zvk pwtf hjr " * 20
    assert letter_surprise(codes) > LIMIT["scrambled_letters"]
    assert letter_surprise("我国集成电路进口突破三千亿美元" * 100 + codes) == 0
