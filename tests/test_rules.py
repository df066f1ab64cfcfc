"""The eight rules as a whole: every reason, every bad input, and the properties that hold for all of them."""

import re
import time

import hypothesis.extra.numpy as hnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from emoji import EMOJI_DATA, emoji_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cleaners import grounded_text, rule_batch, rules
from cleaners.grounding import Span
from cleaners.text import scripts
from cleaners.text.arrays import as_utf8, count_words, rows_with_run
from cleaners.text.emoji import MARKS, TEXT_FIRST, count_emoji
from corpus.bugs import Bug
from corpus.languages import shipped
from corpus.rules import Parameter, Rule, RuleTable, failing, isolated

ALL = {name: {} for name in rules.RULES if name != "special_tags"}
GOOD = "A red barn beside the lake"


def clean(texts, settings=ALL, language="en", only=None, **columns) -> list[dict]:
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = pa.array(texts, pa.string())
    return rules.clean(pa.table({"text": texts, **columns}), settings, language=language, rules=only).to_pylist()


def one(text=GOOD, settings=ALL, language="en", **columns) -> dict:
    return clean([text], settings, language, **{name: pa.array([value]) for name, value in columns.items()})[0]


def reason(*args, **kwargs) -> tuple:
    row = one(*args, **kwargs)
    return row["outcome"], row["rule"], row["value"], row["threshold"], row["detail"]


# --- One caption per rule and reason ---

KEPT = ("kept", None, None, None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, KEPT),
        ({"width": 640, "height": 480, "clip_score": 0.31}, KEPT),
        ({"width": 900, "height": 290}, ("dropped", "aspect_ratio", 900 / 290, 3.0, None)),
        ({"width": 200, "height": 601}, ("dropped", "aspect_ratio", 601 / 200, 3.0, None)),
        ({"width": 600, "height": 200}, KEPT),
        ({"width": 400, "height": 199}, ("dropped", "image_size", 199, 200, None)),
        ({"clip_score": 0.279}, ("dropped", "clip_score", 0.279, 0.28, None)),
        ({"clip_score": 0.28}, KEPT),
        ({"text": "A дом beside the lake"}, ("dropped", "language", 3, 0, "дом")),
        ({"text": "A house 房子 beside the lake"}, ("dropped", "language", 2, 0, "房子")),
        ({"text": "A red barn \U0001f600 and ❤"}, ("dropped", "emoji", 2, 0, "\U0001f600❤")),
        ({"text": "Barn"}, ("dropped", "text_length", 4, 6, "min_characters")),
        ({"text": "Red barns"}, ("dropped", "text_length", 2, 3, "min_words")),
        ({"text": "barn " * 257}, ("dropped", "text_length", 1284, 1000, "max_characters")),
        ({"text": "a b " * 150}, ("dropped", "text_length", 300, 256, "max_words")),
        ({"text": None}, ("dropped", "no_text", 0, 1, "null caption")),
        ({"text": ""}, ("dropped", "no_text", 0, 1, "empty caption")),
        ({"text": "http://example.com/a.jpg"}, ("dropped", "no_text", 0, 1, "empty after cleaning")),
    ],
)
def test_each_rule_names_its_reason(arguments, expected):
    assert reason(**arguments) == pytest.approx(expected)


def test_missing_clip_scores_follow_their_policy():
    drop = ALL | {"clip_score": {"missing": "drop"}}
    assert one(clip_score=None)["outcome"] == "kept"
    assert one(clip_score=None)["clip_score"] is None
    assert reason(settings=drop, clip_score=None) == ("dropped", "clip_score", None, 0.28, "no score")
    assert reason(settings=drop, clip_score=float("nan"))[4] == "no score"
    assert reason(settings=drop) == ("dropped", "clip_score", None, 0.28, "no score")


def test_special_tags_are_counted_before_html_and_survive_it():
    tagged = "<PERSON> and <PERSON> on <b>stage</b> tonight"
    assert reason(tagged, ALL | {"special_tags": {}}) == ("dropped", "special_tags", 2, 0, None)
    assert one(tagged)["text_after"] == "<PERSON> and <PERSON> on stage tonight"


def test_sizes_that_are_unknown_are_left_to_a_later_run():
    first = clean([GOOD] * 4, width=pa.array([None, 0, 900, 500]), height=pa.array([100, 100, 100, 500]))
    assert [row["rule"] for row in first] == [None, None, "aspect_ratio", None]
    assert [row["short_side"] for row in first] == [None, None, None, 500]
    later = clean([GOOD], only=rules.IMAGE_RULES, width=pa.array([100]), height=pa.array([100]))
    assert later[0]["rule"] == "image_size"


def test_chinese_counts_characters_and_allows_both_languages():
    assert one("一只小狗，在 Starbucks 门口（2019年）", language="zh")["outcome"] == "kept"
    assert one("一个男人在冲浪", language="zh")["text_after"] == "一个男人在冲浪"
    assert reason("小狗跑", language="zh") == ("dropped", "text_length", 3, 6, "min_characters")
    assert reason("赤いドレスの女性です", language="zh")[:2] == ("dropped", "language")
    assert reason("白色的小狗睡在沙发上 ไทย", language="zh")[4] == "ไทย"


def test_scores_stay_null_after_the_rule_that_dropped():
    row = one("A red barn \U0001f600 here", width=640, height=480, clip_score=0.1)
    assert (row["aspect_ratio"], row["foreign_characters"], row["emoji_count"]) == (640 / 480, 0, 1)
    assert (row["characters"], row["words"], row["clip_score"]) == (None, None, None)
    assert set(rules.SCORES) >= row.keys() - {"outcome", "rule", "value", "threshold", "detail", "text_after"}


# --- Language and emoji ---


@pytest.mark.parametrize(
    "text",
    ["café naïve Brontë ŒUVRE", "“quoted” – it’s… ©®™ № 5", "20 °C × ½ €5 ¥", "→ ✓ ★ ♥ ▶", "5 µm² E = mc²", "10′ 5″ ‰"],
)
def test_english_has_typography_and_accents(text):
    assert one(text, {"language": {}})["outcome"] == "kept"


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("Ελλάδα", "Ελλά"),
        ("Москва", "Москва"),
        ("ab\ufffdcd", "\ufffd"),
        ("\ue000", "\ue000"),
        ("ａｂ", "ａｂ"),
        ("x、y", "、"),
    ],
)
def test_foreign_characters_of_english(text, foreign):
    assert one(text, {"language": {}})["detail"] == foreign


NAMED = [
    "Dvořák at Škoda", "Erdoğan and Wałęsa", "Große Tōkyō tower", "an α-helix model", "a 5 kΩ resistor",
    "・a red flower", "a 5 \u2126 resistor", "Nguyễn Văn An",
]  # fmt: skip


@pytest.mark.parametrize("text", NAMED)
def test_names_units_and_bullets_are_english_but_not_to_the_letter(text):
    assert one(text, {"patterns": {}, "language": {}})["outcome"] == "kept"
    strict = one(text, {"patterns": {}, "language": {"strict_latin": True}})
    assert strict["outcome"] == ("kept" if {"\u2126", "Ω"} & set(text) else "dropped")


def test_shipped_scores_drop_what_they_accuse_and_judge_nothing_else():
    table = pa.table({"text": list("abcd"), "nsfw": [0.9, 0.5, None, 0.1], "watermark": [0.1, 0.8, None, 0.81]})
    found = rules.clean(table, {"nsfw": {}, "watermark": {}}, language="en").to_pylist()
    assert [row["rule"] for row in found] == ["nsfw", None, None, "watermark"]
    assert [row["nsfw"] for row in found] == [0.9, 0.5, None, 0.1]
    assert found[3]["threshold"] == 0.8


@settings(max_examples=300)
@given(
    st.lists(st.text(max_size=12) | st.text("αβΩ aé、ж", max_size=12), min_size=1, max_size=6),
    st.sampled_from(["en", "zh"]),
)
def test_language_counts_every_character_outside_its_table(texts, language):
    spoken = shipped()[language]
    ranges = scripts.COMMON + spoken.characters + spoken.lenient + scripts.GREEK
    greek = re.compile(f"[{''.join(f'{chr(a)}-{chr(b)}' for a, b in scripts.GREEK)}]{{3,}}")
    expected = [
        sum(not any(a <= ord(c) <= b for a, b in ranges) for c in text) + sum(map(len, greek.findall(text)))
        for text in texts
    ]
    found = clean(texts, {"language": {"max_foreign": 1e9}}, language)
    assert [row["foreign_characters"] or 0 for row in found] == expected


def test_every_emoji_counts_once():
    keys = [key for key in EMOJI_DATA if key not in TEXT_FIRST and key.rstrip("\ufe0f") not in MARKS]
    counts = count_emoji(pa.array([f"a {key} b" for key in keys]))
    assert [key for key, count in zip(keys, counts, strict=True) if count != 1] == []


def test_what_is_not_emoji():
    texts = [*MARKS, *(mark + "\ufe0f" for mark in MARKS), *TEXT_FIRST, *"0123456789#*", "1\ufe0f", "\u200d", "\ufe0f"]
    assert count_emoji(pa.array(texts)).tolist() == [0] * len(texts)


EMOJI_TEXT = st.lists(
    st.sampled_from([*list(EMOJI_DATA)[::97], *"©1#❤☎aé的", "™\ufe0f", "❤\ufe0f", "☎\ufe0f", "\U0001f3fd"])
)


@settings(max_examples=400)
@given(EMOJI_TEXT)
def test_emoji_agree_with_the_emoji_library(pieces):
    # A skin tone or joiner after another emoji joins it, which the library sees only in sequences it knows.
    text = " ".join(pieces)
    found = [match["emoji"] for match in emoji_list(text)]
    expected = [e for e in found if e not in TEXT_FIRST and e.rstrip("\ufe0f") not in MARKS]
    assert count_emoji(pa.array([text])).tolist() == [len(expected)]


# --- Properties of any set of rules ---

SOME = st.sampled_from([GOOD, "<b>x</b>", "дом", "\U0001f600 a b c", "a b c d e f", "hi", "好看的小狗在沙发上"])
CAPTIONS = st.lists(st.none() | SOME | st.text(max_size=30), min_size=1, max_size=12)
SIZES = hnp.arrays(np.int32, 12, elements=st.integers(-1, 2000))


@settings(max_examples=40)
@given(CAPTIONS, SIZES, SIZES, st.lists(st.none() | st.floats(0, 0.6), min_size=12, max_size=12))
def test_every_row_has_one_outcome_in_the_same_order(texts, width, height, scores):
    n = len(texts)
    columns = {"width": pa.array(width[:n]), "height": pa.array(height[:n])}
    columns |= {"clip_score": pa.array(scores[:n], pa.float64())}
    together = clean(texts, **columns)
    assert len(together) == n
    for row in together:
        assert (row["outcome"] == "kept") == (row["rule"] is None) == (row["threshold"] is None)
        assert row["rule"] in (None, "no_text", *rules.RULES)
    alone = [clean([texts[i]], **{k: v.slice(i, 1) for k, v in columns.items()})[0] for i in range(n)]
    assert together == alone
    # Cleaning what was kept, again, keeps it as it is.
    kept = [row for row in together if row["outcome"] == "kept"]
    if kept:
        again = clean([row["text_after"] for row in kept])
        assert [(row["outcome"], row["text_after"]) for row in again] == [("kept", row["text_after"]) for row in kept]


@settings(max_examples=30)
@given(CAPTIONS, SIZES, SIZES)
def test_text_first_and_images_later_keep_what_both_at_once_keep(texts, width, height):
    n = len(texts)
    columns = {"width": pa.array(width[:n]), "height": pa.array(height[:n])}
    once = [row["text_after"] for row in clean(texts, **columns) if row["outcome"] == "kept"]
    first = clean(texts, only=rules.TEXT_RULES)
    rows = [i for i, row in enumerate(first) if row["outcome"] == "kept"]
    assume(rows)
    sizes = {name: column.take(pa.array(rows)) for name, column in columns.items()}
    later = clean([first[i]["text_after"] for i in rows], only=rules.IMAGE_RULES, **sizes)
    assert [row["text_after"] for row in later if row["outcome"] == "kept"] == once


LIMITS = [(rule.name, name, limit.bound) for rule in rules.RULES.values() for name, limit in rule.limits.items()]


@settings(max_examples=60)
@given(CAPTIONS, SIZES, SIZES, st.sampled_from(LIMITS), st.floats(0, 50), st.floats(0, 50))
def test_a_tighter_threshold_keeps_no_more(texts, width, height, limit, a, b):
    name, parameter, bound = limit
    tight, loose = (max(a, b), min(a, b)) if bound == "min" else (min(a, b), max(a, b))
    n = len(texts)
    columns = {"width": pa.array(width[:n]), "height": pa.array(height[:n])}
    columns |= {"clip_score": pa.array(width[:n] / 40.0)}
    keeps = [
        {i for i, row in enumerate(clean(texts, {name: {parameter: value}}, **columns)) if row["outcome"] == "kept"}
        for value in (tight, loose)
    ]
    assert keeps[0] <= keeps[1]


# --- Bad input ---


@pytest.mark.parametrize(
    "column",
    [
        pa.array([GOOD, None], pa.large_string()), pa.array([GOOD, None]).dictionary_encode(),
        pa.array([GOOD.encode(), None], pa.binary()), pa.array([GOOD.encode(), None], pa.large_binary()),
        pa.chunked_array([[GOOD], [None]]), pa.chunked_array([["other", GOOD]]).slice(1),
        pa.array(["x", GOOD, None]).slice(1),
    ],
)  # fmt: skip
def test_any_text_column_will_do(column):
    rows = clean(column)
    assert rows[0]["text_after"] == GOOD
    assert [row["rule"] for row in rows] == [None, "no_text"][: len(rows)]


def test_null_and_empty_tables():
    assert [row["detail"] for row in clean(pa.nulls(2))] == ["null caption"] * 2
    assert clean([]) == []
    assert rules.clean(pa.table({"text": pa.array([], pa.string())}), ALL, language="en").schema.names[0] == "outcome"
    with pytest.raises(TypeError, match="string or binary column, not int64"):
        clean(pa.array([1]))
    with pytest.raises(ValueError, match="need a column 'text'; the table has width"):
        rules.clean(pa.table({"width": [1]}), ALL, language="en")


def test_invalid_utf8_becomes_replacement_characters_that_the_language_rule_drops():
    raw = pa.array([b"caf\xe9 noir in town", GOOD.encode()], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    for column in (broken, broken.cast(pa.binary()), broken.cast(pa.large_binary())):
        rows = clean(column)
        assert (rows[0]["rule"], rows[0]["detail"]) == ("language", "\ufffd")
        assert rows[0]["text_after"] == "caf\ufffd noir in town"
        assert rows[1]["outcome"] == "kept"
    assert as_utf8(broken).to_pylist()[1] == GOOD


HUGE = [
    "a" * 1_000_000, "<" * 1_000_000, "<b " * 300_000, '<b "' * 200_000, "&amp;" * 200_000, "&am" * 300_000 + "p;" * 9,
    "!" * 1_000_000, "( " * 400_000, "a-" * 500_000, "a.com" * 200_000, "#a " * 300_000, "1" * 1_000_000,
    "Ã©" * 300_000, "e\u0301" * 300_000, "\u200d" * 300_000, "\U0001f468\u200d" * 150_000, " " * 1_000_000,
    "的" * 330_000, "\x00" * 1_000_000, "_" * 1_000_000, "http://" * 140_000, "stock photo " * 80_000,
    '"' * 1_000_000, "- - " * 250_000, "@a" * 400_000,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HUGE)))
def test_a_megabyte_is_no_trouble(number):
    start = time.process_time()
    row = one(HUGE[number])
    assert (row["outcome"], row["rule"]) == ("dropped", "text_length")
    assert time.process_time() - start < 1
    # Without text_length nothing shields the cleaners; they must stay near linear all the same.
    clean([HUGE[number][:100_000]], {"html": {}, "patterns": {}, "language": {}, "emoji": {}})
    assert time.process_time() - start < 8


# --- Settings ---


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            {"aspect": {}},
            "no rule 'aspect' (did you mean 'aspect_ratio'?); rules are special_tags, html, patterns, aspect_ratio",
        ),
        ({"emoji": {"min": 1}}, "rule 'emoji' has no parameter 'min'; it has max"),
        ({"html": {"x": 1}}, "rule 'html' has no parameter 'x'; it has none"),
        ({"image_size": {"min_side": "200"}}, "image_size.min_side must be a number, not '200'"),
        ({"image_size": {"min_side": True}}, "must be a number, not True"),
        ({"clip_score": {"min": float("nan")}}, "must be a number, not nan"),
        ({"clip_score": {"missing": "maybe"}}, "must be 'keep' or 'drop', not 'maybe'"),
        ({"patterns": {"skip": ["urls"]}}, "a list of patterns (mojibake"),
        ({"patterns": {"skip": "url"}}, "must be a list of patterns"),
        ({"special_tags": {"tags": "<("}}, "special_tags.tags must be an RE2 pattern"),
    ],
)
def test_wrong_settings_name_the_known_ones(settings_, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rules.RULES.check(settings_)


def test_unknown_languages_are_named():
    with pytest.raises(ValueError, match="no characters known for language 'de'; languages are en, zh"):
        clean([GOOD], language="de")


def test_rules_that_are_absent_are_off_and_null_parameters_are_defaults():
    assert one("дом", {})["outcome"] == "kept"
    assert one("<b>дом</b>", {"html": None})["text_after"] == "дом"
    assert one("a_b #c", {"patterns": {"skip": ["underscores"]}})["text_after"] == "a_b c"
    rules.RULES.check({"html": None, "text_length": {"min_words": 2}})


def test_thresholds_of_a_setting():
    found = rules.RULES.thresholds({"text_length": {"min_words": 5}, "clip_score": {}, "html": None})
    assert found == {"characters": [6, 1000], "words": [5, 256], "clip_score": [0.28]}


# --- Pieces ---


@settings(max_examples=200)
@given(st.lists(st.text(st.sampled_from("ab é的\U0001f600\t"), max_size=12), max_size=6))
def test_words_are_runs_of_what_is_not_space(texts):
    assert count_words(pa.array(texts, pa.string())).tolist() == [len(text.split()) for text in texts]


@settings(max_examples=200)
@given(st.lists(st.text(st.sampled_from("é的ж\U0001f600a"), max_size=12), min_size=1, max_size=5))
def test_no_run_is_overlooked(texts):
    found = set(rows_with_run(pa.array(texts), 3).tolist())
    for row, text in enumerate(texts):
        if any(c * 3 in text for c in "é的ж\U0001f600"):
            assert row in found


# --- Real captions ---


def test_real_web_captions(shared_data):
    table = pq.read_table(shared_data("image_text/web_urls/img2dataset_test_0000_0679.parquet"))
    rows = clean(table["TEXT"])
    by_rule = {name: sum(row["rule"] == name for row in rows) for name in (None, "language", "text_length", "emoji")}
    assert len(rows) == 680
    assert 600 < by_rule[None] < 665
    assert by_rule["language"] > 3
    texts = {row["text_after"] for row in rows}
    assert "Orchid Jungle Hawaiian Dresses 100% Rayon" in texts
    assert "Scorching June 14 for Alabama" in texts
    assert "Yale-New Haven Children's Hospital Ribbon Cutting Ceremony." in texts


def test_captions_that_people_wrote_are_left_alone(shared_data):
    lines = shared_data("image_text/coco_cn/coco-cn_ext.icap2020.txt").read_text().splitlines()
    texts = [line.split("\t")[1] for line in lines]
    rows = clean(texts, language="zh")
    assert sum(row["outcome"] == "kept" for row in rows) > 0.99 * len(rows)
    assert sum(row["text_after"] == text for row, text in zip(rows, texts, strict=True)) > 0.98 * len(rows)


# --- Thresholds of any table ---


@pytest.mark.parametrize(
    ("bound", "dropped"), [("min", [True, False, False]), ("max", [False, False, True]), ("above", [True, True, False])]
)
def test_a_value_at_its_threshold_passes_unless_it_must_lie_above(bound, dropped):
    limit = Parameter(default=5, score="length", bound=bound)
    table = RuleTable("document", [Rule(name="long", on=True, parameters={"limit": limit})])
    active = table.active({})
    assert [table.judge(active, {"length": value}) is not None for value in (4, 5, 6)] == dropped
    found, _, _ = failing(table["long"], active["long"], {"length": np.array([4.0, 5.0, 6.0, np.nan])})
    assert found.tolist() == [*dropped, False]
    assert table.judge(active, {"length": None}) is None


# --- A rule that raises ---


@given(st.sets(st.integers(0, 40)), st.integers(1, 41))
def test_what_raises_is_isolated_to_its_rows(bad, size):
    bad = {row for row in bad if row < size}

    def judge(rows):
        if bad & set(rows.tolist()):
            raise ValueError("one of these")
        return rows * 2

    found = list(isolated(judge, np.arange(size)))
    assert np.concatenate([rows for rows, *_ in found]).tolist() == list(range(size))
    assert [rows.tolist() for rows, _, why in found if why] == [[row] for row in sorted(bad)]
    assert {why for *_, why in found} <= {None, "ValueError: one of these"}
    assert all((judged == rows * 2).all() for rows, judged, why in found if why is None)


def test_a_mistake_of_ours_in_a_rule_and_a_full_disk_are_no_rows():
    def no_space(rows):
        raise OSError(28, "No space left on device")

    with pytest.raises(Bug):
        list(isolated(lambda rows: None + 1, np.arange(3)))
    with pytest.raises(OSError, match="No space"):
        list(isolated(no_space, np.arange(3)))


def test_a_cleaner_that_raises_costs_the_captions_that_make_it_raise(monkeypatch):
    real = rule_batch.clean_texts

    def cleaning(texts, groups, among):
        if among[2]:
            raise ValueError("poison")
        return real(texts, groups, among=among)

    monkeypatch.setattr(rule_batch, "clean_texts", cleaning)
    found = clean(["<b>A red</b> barn", GOOD, "<i>Poison</i> in a barn", "Two dogs <b>at</b> a lake"], {"html": {}})
    assert [row["outcome"] for row in found] == ["kept", "kept", "error", "kept"]
    assert [row["text_after"] for row in found] == ["A red barn", GOOD, "<i>Poison</i> in a barn", "Two dogs at a lake"]
    assert (found[2]["rule"], found[2]["detail"]) == ("rule_raised", "html: ValueError: poison")
    phrases = grounded_text.Grounded(None, [Span(i, i + 1, ()) for i in range(3)], ("a", "b", "c"))
    [(_, _, verdict)] = grounded_text.clean_grounded([phrases], {"html": {}, "patterns": {}}, "en")
    assert verdict == {"outcome": "error", "rule": "rule_raised", "detail": "html and patterns: ValueError: poison"}
