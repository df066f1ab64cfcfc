"""The rule that guesses a caption's language: what it finds among labelled lines, and what it must leave alone."""

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.language_lines import counts, made, real
from cleaners import rules
from cleaners.identify import odds
from corpus.languages import read_language
from pipelines.work.datasets import TABLES
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
LIMIT = rules.RULES["other_language"].defaults["min"]


def told(source: str, found: int, foreign: int, lost: int, english: int) -> str:
    return f"| {source} | {found} of {foreign} | {lost} of {english} |"


def cleaned(text: str, language="en") -> dict:
    return rules.clean(pa.table({"text": [text]}), {"other_language": {}}, language=language).to_pylist()[0]


def test_made_up_captions_are_judged_as_the_docs_say():
    found = counts(list(made()), LIMIT)
    assert found[0] >= 0.85 * found[1] and found[2] <= 1
    assert told("made up", *found) in (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is not there")
def test_real_lines_are_judged_as_the_docs_say():
    judged, docs = list(real(DATA)), (ROOT / "docs" / "benchmarks.md").read_text()
    for source, name in {"web": "web pages", "coco": "COCO", "refcoco": "RefCOCO", "textvqa": "TextVQA"}.items():
        found = counts([each for each in judged if each.source == source], LIMIT)
        assert found[2] == 0 and told(name, *found) in docs, (source, found)


def test_a_caption_in_another_language_goes_and_the_ledger_says_which():
    row = cleaned("coque iphone 8 papillon")
    assert (row["outcome"], row["rule"], row["threshold"]) == ("dropped", "other_language", LIMIT)
    assert row["value"] == row["language_odds"] < LIMIT
    assert cleaned("un chien court sur la plage")["detail"] == "fr"
    kept = cleaned("a dog runs along the beach")
    assert kept["outcome"] == "kept" and kept["language_odds"] == 1


def test_chinese_datasets_may_hold_english_and_nothing_else():
    outcomes = [cleaned(text, "zh")["outcome"] for text in ("海滩上的一只狗在奔跑", "a dog runs along the beach")]
    assert outcomes == ["kept", "kept"]
    assert cleaned("un chien court sur la plage", "zh")["outcome"] == "dropped"


def test_a_language_of_ones_own_is_judged_where_the_model_knows_it():
    greek = read_language("el", {"name": "Greek", "characters": ["U+0370-03FF"], "with": ["en"]})
    elvish = read_language("qya", {"name": "Elvish"})
    texts = ["ένας σκύλος τρέχει στην παραλία", "a dog runs along the beach", "un chien court sur la plage"]
    assert [cleaned(text, greek)["outcome"] for text in texts] == ["kept", "kept", "dropped"]
    assert [cleaned(text, elvish)["outcome"] for text in texts] == ["kept"] * 3
    assert cleaned(texts[0], elvish)["language_odds"] is None


def test_it_is_off_until_it_is_named():
    for table in (rules.RULES, TABLES["clean_captions"]):
        assert "other_language" in table and "other_language" not in table.active({})


@given(st.text(max_size=100))
@settings(max_examples=200, deadline=None)
def test_whatever_a_crawl_wrote_has_odds_and_the_same_ones(text):
    value, likeliest = odds(text, ["en"])
    assert 0 <= value <= 1 and not math.isnan(value) and likeliest
    assert odds(text, ["en"]) == (value, likeliest)
