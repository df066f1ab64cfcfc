"""Right-to-left lines: glyphs in their places give back the logical text that Unicode's algorithm set them from."""

import pytest
from bidi.algorithm import get_display

from renderers.bidi import logical_order

SIZE = 10


def set_line(logical: str) -> list:
    """Glyphs as they stand on the page, one every SIZE pixels, in the order of the places from left to right."""
    visual = get_display(logical, base_dir="R")
    return [(char, (i * SIZE, 0, i * SIZE + SIZE, SIZE)) for i, char in enumerate(visual)]


def read(clusters: list) -> str:
    return "".join(text for text, _ in logical_order(clusters, SIZE))


@pytest.mark.parametrize(
    "line",
    [
        "שלום עולם",
        "סעיף 15 לחוק",
        "מחיר 3.50 שקל",
        "הספר Hello World נמכר",
        "نص عربي مع 2024 رقم",
        "اسم PDF file هنا",
        "בן 12, בת 14.",
    ],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_way_back_from_visual_to_logical_order(line, shuffled):
    clusters = set_line(line)
    assert read(clusters[::2] + clusters[1::2] if shuffled else clusters) == line


def test_brackets_are_read_by_meaning_whichever_way_the_file_names_them():
    meant = "חוק (ב) שלום"
    by_meaning = set_line(meant)
    by_shape = [(text.translate(str.maketrans("()", ")(")), box) for text, box in by_meaning]
    assert read(by_meaning) == read(by_shape) == meant


def test_a_few_hebrew_words_in_an_english_line():
    visual = get_display("the word שלום means peace", base_dir="L")
    assert read([(char, (i * SIZE, 0, i * SIZE + SIZE, SIZE)) for i, char in enumerate(visual)]) == (
        "the word שלום means peace"
    )


def test_gaps_become_spaces_and_kerning_does_not():
    boxes = [("ב", (0, 0, 10, 10)), ("א", (10.5, 0, 20, 10)), ("ש", (24, 0, 34, 10))]
    assert read(boxes) == "ש אב"
