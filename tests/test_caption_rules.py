"""The caption rules against lines labelled by hand: how often they are right, and how much they find."""

import pytest

from benchmarks.caption_lines import Line
from benchmarks.caption_rules import HALVES, Label, measure, on_the_way, read_labels, shared


@pytest.fixture(scope="module")
def labels():
    from tests.conftest import SHARED

    if not (SHARED / "image_text/web_urls").exists():
        pytest.skip(f"real test data not found: {SHARED} (set GRISTMILL_TEST_DATA to its folder)")
    return read_labels(SHARED)


@pytest.mark.parametrize("half", HALVES)
def test_patterns_are_right_and_find_what_is_labelled(labels, half):
    patterns, dropping = measure([label for label in labels if label.half == half])
    assert patterns.edits.total() > 100
    assert patterns.precision >= 0.98, patterns.notes
    assert patterns.recall >= 0.90, patterns.notes
    assert dropping.precision >= 0.98, dropping.notes
    assert dropping.recall >= 0.95, dropping.notes


def test_every_web_row_and_400_other_lines_are_labelled_and_halved_by_their_text(labels):
    keys = [label.line.key for label in labels]
    assert sum(key.startswith("web:") for key in keys) == 680
    assert len(keys) == len(set(keys)) == 1080
    assert 500 < sum(label.half == "tuning" for label in labels) < 580


def test_the_measure_tells_right_from_wrong_and_found_from_missed():
    label = Label(Line("web:0", "en", "Red barn - Google Search"), [("site_suffix", [(8, 24, "")])])
    good, _ = measure([label])
    assert (good.precision, good.recall) == (1, 1)
    wrong, _ = measure([Label(label.line)])  # the label keeps what the pattern takes
    assert wrong.precision == 0
    missed, _ = measure([Label(label.line, [("x", [(0, 4, "")])])])
    assert missed.recall == 0


def test_distances_of_texts():
    assert shared("abcbdab", "bdcaba") == 4
    assert on_the_way("a b c", "a c", "c")
    assert not on_the_way("a b c", "b c", "a c")
