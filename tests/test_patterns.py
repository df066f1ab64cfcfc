"""The patterns of rules 7 and 8: their own examples, and that every shortcut finds what the slow way finds."""

import random
import sys
import unicodedata
from pathlib import Path
from unittest.mock import patch

import ftfy
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from cleaners.rules import RULES
from cleaners.text import removal as text_pattern
from cleaners.text.html import HTML
from cleaners.text.patterns import GROUPS, PATTERNS, patterns_for
from cleaners.text.removal import MAX_ROUNDS, clean_texts
from cleaners.text.unicode import NOT_NFC

ALL = {pattern.name: pattern for pattern in (*HTML, *PATTERNS.values())}
EVERYTHING = {language: (HTML, *patterns_for(language)) for language in ("en", "zh")}


def language_of(pattern) -> str:
    return "en" if pattern.languages is None or "en" in pattern.languages else "zh"


def clean(text: str, language: str = "en", groups=None) -> str:
    return clean_texts(pa.array([text]), groups or EVERYTHING[language])[0].as_py()


@pytest.mark.parametrize("name", ALL)
def test_pattern_cleans_its_example_and_keeps_its_counter_example(name):
    pattern = ALL[name]
    dirty, expected = pattern.cleans
    assert clean(dirty, language_of(pattern)) == expected
    assert clean(pattern.keeps, language_of(pattern)) == pattern.keeps
    # It is this pattern that cleans it: with the others alone something else is left.
    others = tuple(tuple(p for p in group if p.name != name) for group in EVERYTHING[language_of(pattern)])
    assert clean(dirty, groups=others) != expected


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("<a href='http://x.org/y'>Yale </a>Ribbon", "Yale Ribbon"),
        ("toy <font><b>Car</b></font>s", "toy Cars"),
        ('<img alt="a > b" src=x.png>a cap', "a cap"),
        ('cut in <a href="http://exa', "cut in"),
        ("&amp;amp;lt;b&amp;amp;gt;bold", "bold"),
        ("<<b>b>nested", "nested"),
        ("<script>if (a<b) c()</script>seen<!-- unseen -->", "seen"),
        ("<o:p>Word</o:p> text", "Word text"),
        ("Rock &Amp; Roll &copy 2010 &#39;x&#x27;", "Rock & Roll © 2010 'x'"),
        ('lost start" width="300" height="20" />', "lost start"),
        ("I <i>love</i> <BR>NY", "I love NY"),
        ("cafe\u0301 &#195;&#169;", "café é"),
        ("go to https://example.com/a-b_c?d=e&f=g, then rest", "go to, then rest"),
        ("photo Ox Cheeks 4_zpszvubq49w.jpg", "photo Ox Cheeks 4"),
        ("Volvo S60 (View 16 of 20)", "Volvo S60"),
        ("Image is loading NWT-Dress red", "NWT-Dress red"),
        ("Thumbnail Volvo S60", "Volvo S60"),
        ("A man in the rain (REUTERS/Jayanta Shaw/Files)", "A man in the rain"),
        ("A man in the rain REUTERS/Jayanta Shaw/Files", "A man in the rain"),
        ("Adele on stage (Photo by Kevin Winter/Getty Images)", "Adele on stage"),
        ("Red dress with belt - Lyst", "Red dress with belt"),
        ("img - for The Long Walk", "The Long Walk"),
        ("Blue vase (# 1139010)", "Blue vase"),
        ("Shop at our online store, oferer.com.", "Shop at our online store."),
        ("A view of the lake © Jane Doe", "A view of the lake"),
        ("Zimmer - \u200b - IMG_20190304_123456.jpg", "Zimmer"),
    ],
)
def test_cleaners_together(dirty, expected):
    assert clean(dirty) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c", "I <3 you", "<PERSON> and <PERSON> at <LOCATION>", "if a<b then c>d", "x <b you", "AT&T, R&D",
        "Food&region Q&A", "5 < 6 and 7 > 3", "well-known 10-year-old", "$1,000.50 on 2014-06-20", "10:30 p.m.",
        "Hampton Inn® by Hilton™ ©", "3.75-inch (95 mm) #1", "Who? Me! Yes: no; maybe...", "don't \"quote\" me",
        "3.14159265 on a wall", "Sold for $1,250,000 on 2014-06-20", "A bill of $12345678", "AC/DC live in Munich",
        "pop. 4067175, area 1234567 km2", "The Priceline.com Arena", "our online store, Oferer.com.",
        "SAM-450 and DJI-900", "Family photo 2014", "© 2015 a view of the sea", "credit cards. Credit is good",
        "portrait by John Smith",
        "C++ vs C#", "e.g. Mr. Smith vs. U.S.A.", "1/2 cup", "É. Zola's café", "state-of-the-art 19th-century house",
    ],
)  # fmt: skip
def test_ordinary_captions_stay(text):
    assert clean(text) == text


def test_chinese_punctuation_stays():
    text = "中心城市-特区-山区你好……世界——真的？《红楼梦》【图】（一）"
    assert clean(text, "zh") == text


def test_what_was_escaped_stays_text():
    assert clean("1 &lt; 2, a &lt; b &gt; c, &lt;3, &lt;PERSON&gt;") == "1 < 2, a < b > c, <3, <PERSON>"


# --- Fast path equals slow path ---

SOME = (
    [text for pattern in ALL.values() for text in (*pattern.cleans, pattern.keeps)]
    + list("<>&#@_-.,!?'\"()[]|:;/%=~* \t\n\u00a0\u200b\u200d\ufe0f\u3000。，！★éÃ©â€œßżж的哈가ก")
    + list("\U0001f600\x00\x1b\x92\u0301")
    + ["&amp;", "&lt;", "b>", "<b", "<a href=", '""', "stock photo", "click to ", "http://", "www.", ".com", ".jpg"]
    + ["IMG_", "2034", "1234567", "aaaaa", "deadbeef", "%20", "code: ", "#a", "@b", " - ", "a", "b c", "\U0001f1e8"]
)
PIECES = st.sampled_from(SOME)
TEXTS = st.lists(st.lists(PIECES | st.text(max_size=4), max_size=7).map("".join), min_size=1, max_size=8)


def slowly(text: str, groups) -> str:
    """The definition: each row alone, every pattern asked, no gates."""
    for _ in range(MAX_ROUNDS):
        before = text
        for group in groups:
            found = [pattern for pattern in group if pattern.rows or matches(pattern.find, text)]
            for pattern in found:
                change = pattern.change or (lambda t, p=pattern: pc.replace_substring_regex(t, p.find, p.replace))
                text = change(pa.array([text]))[0].as_py()
        if text == before:
            break
    return text


def matches(pattern: str, text: str) -> bool:
    return pc.match_substring_regex(pa.array([text]), pattern)[0].as_py()


@settings(max_examples=50)
@given(TEXTS, st.sampled_from(["en", "zh"]))
def test_fast_path_equals_slow_path_on_every_row(texts, language):
    slow = [slowly(text, EVERYTHING[language]) for text in texts]
    for few in (0, 2_000):  # with the gates of every group in every round, and as small tables go
        with patch.object(text_pattern, "FEW", few):
            assert clean_texts(pa.array(texts), EVERYTHING[language]).to_pylist() == slow


@settings(max_examples=60)
@given(TEXTS, st.sampled_from(["en", "zh"]))
def test_cleaning_twice_changes_nothing(texts, language):
    once = clean_texts(pa.array(texts), EVERYTHING[language])
    assert clean_texts(once, EVERYTHING[language]).to_pylist() == once.to_pylist()


@pytest.mark.parametrize("name", ALL)
def test_no_shortcut_of_a_pattern_misses_what_it_finds(name):
    pattern = ALL[name]
    rng = random.Random(name)
    near = [*pattern.cleans[0].split(" "), *pattern.cleans[0], pattern.keeps, " ", "a", ".", "x1"]
    made = ["".join(rng.choices(near if i % 2 else SOME, k=rng.randint(1, 9))) for i in range(4_000)]
    texts = pa.array([pattern.cleans[0], *made])
    found = pc.match_substring_regex(texts, pattern.find).to_numpy(zero_copy_only=False)
    assert found.any()
    if pattern.gate:
        gate = pc.match_substring_regex(texts, pattern.gate).to_numpy(zero_copy_only=False)
        assert [texts[i].as_py() for i in (found & ~gate).nonzero()[0]] == []
    for i in found.nonzero()[0]:
        text = texts[int(i)].as_py()
        assert not pattern.needs or set(text) & set(pattern.needs)
        assert not pattern.beyond_ascii or not text.isascii()


# --- Pre-filters of the exact libraries ---

BAD = st.text(st.sampled_from("ÃÂâ€™œ©®«»¡¿\u00a0\u0092 ØÙ×²³à¹°Œœ√≈‚ÄâвЂГўС•±žšŸ–—abeE ¦¨¬¯"), max_size=8)


@settings(max_examples=100)
@given(st.lists(BAD, min_size=20, max_size=20))
def test_mojibake_that_ftfy_would_fix_is_found(texts):
    found = pc.match_substring_regex(pa.array(texts), PATTERNS["mojibake"].find).to_pylist()
    for text, hit in zip(texts, found, strict=True):
        assert hit or not (is_bad(text) or ftfy.fix_encoding(text) != text)


@pytest.mark.parametrize("text", ["café", "naïve – “yes”", "“你好”——世界", "Straße für Ödön", "Ελλάδα", "Россия"])
def test_ordinary_text_is_not_sent_to_ftfy(text):
    assert not matches(PATTERNS["mojibake"].find, text)


def test_all_characters_that_are_not_nfc_are_found():
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    flags = pc.match_substring_regex(pa.array(characters), NOT_NFC).to_pylist()
    found = {character for character, flag in zip(characters, flags, strict=True) if flag}
    for character in characters:
        if unicodedata.combining(character) or unicodedata.normalize("NFC", character) != character:
            assert character in found, hex(ord(character))
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):  # the second part may compose with what stands before
            assert chr(int(parts[1], 16)) in found, hex(ord(character))


# --- A real HTML parser as referee ---

WORDS = st.text("abc xyz", min_size=1, max_size=6)
ATTRIBUTES = st.sampled_from(["", " class=x", ' href="http://a.b/c?d=e&f"', " title='a > b'", ' style="x:y" nowrap'])


def element(name: str, attributes: str, inside: str) -> str:
    return f"<{name}{attributes}>{inside}</{name}>"


MARKED_UP = st.recursive(
    WORDS | st.sampled_from(["&amp;", "&copy;", "&#233;", "<br>", "<!-- x -->", "<hr/>"]),
    lambda inner: st.builds(
        element, st.sampled_from(["b", "i", "span", "font", "div", "em", "H1"]), ATTRIBUTES,
        st.lists(inner, max_size=3).map("".join),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(MARKED_UP, max_size=4).map("".join))
def test_html_leaves_what_a_browser_shows(text):
    node = LexborHTMLParser(f"<div>{text}</div>").body
    shown = "".join((node.text() if node else "").split())
    assert "".join(clean(text, groups=(HTML,)).split()) == shown


def test_every_pattern_and_rule_is_documented():
    text = (Path(__file__).parent.parent / "docs" / "rules.md").read_text()
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert documented == set(ALL)
    for rule in RULES.values():
        assert f"| `{rule.name}` |" in text
        for parameter, default in rule.defaults.items():
            assert f"`{parameter}: {list(default) if default == () else default}`" in text


def test_groups_hold_no_name_twice():
    names = [pattern.name for group in GROUPS for pattern in group]
    assert len(names) == len(set(names))
