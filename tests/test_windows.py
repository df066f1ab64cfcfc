"""Windows: nothing lost, nothing cut through, everything within the budget, coordinates that still point at the ink."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.legibility import Legibility
from renderers.characters import estimate_tokens
from renderers.crops import window_pixels
from renderers.page import Line, bounds, rect_quad
from renderers.parts import _pieces, item_of, rejoined
from renderers.windows import Budget, cut

WIDTH, HEIGHT = 1000, 1400
whatever_size = partial(Budget, advance=0, ink=0, longest=1e9)


def grid(columns: int, rows: int, text: str = "some words of a line") -> list[Line]:
    """Lines in columns, column by column, with a gutter of 40 pixels and 10 pixels between lines."""
    wide = (WIDTH - 40 * (columns + 1)) / columns
    boxes = [
        (40 + column * (wide + 40), 20 + row * 30, 40 + column * (wide + 40) + wide, 40 + row * 30)
        for column in range(columns)
        for row in range(rows)
    ]
    return [Line(f"{text} {number}", rect_quad(box)) for number, box in enumerate(boxes)]


def test_a_page_that_fits_is_one_uncropped_window():
    lines = grid(1, 10)
    (window,) = cut(lines, WIDTH, HEIGHT, whatever_size(tokens=1000))
    assert window.box == (0, 0, WIDTH, HEIGHT)
    assert window.lines == lines


def test_tokens_are_the_exact_sum_on_every_python():
    """The built-in sum of floats differs between 3.11 and 3.12, and with it what a ledger says of the same page."""
    lines = [replace(line, text="汉" * (2 * i % 7) + "a") for i, line in enumerate(grid(1, 40))]
    (window,) = cut(lines, WIDTH, HEIGHT, whatever_size(tokens=10_000))
    costs = [Fraction(36 + estimate_tokens(line.text)) for line in lines]
    assert window.tokens == float(sum(costs)) == math.fsum(reversed(list(map(float, costs))))


def test_two_columns_are_cut_at_the_gutter_first():
    left, right = cut(grid(2, 20), WIDTH, HEIGHT, whatever_size(tokens=1000))
    assert [line.text for line in left.lines + right.lines] == [line.text for line in grid(2, 20)]
    assert left.box[2] <= right.box[0]


def test_a_title_over_two_columns_gets_a_window_of_its_own():
    title = Line("A title across both columns", rect_quad((40, 2, 960, 18)))
    parts = cut([title, *grid(2, 30)], WIDTH, HEIGHT, whatever_size(tokens=1000))
    assert all(title.text == line.text for line in parts[0].lines) or len(parts[0].lines) > 1
    assert sum(len(part.lines) for part in parts) == 61


def test_a_tall_page_is_cut_into_pages():
    lines = grid(1, 200)
    parts = cut(lines, WIDTH, 6100, whatever_size(tokens=1e9, height=1400))
    assert len(parts) >= 5
    assert all(part.box[3] - part.box[1] <= 1400 for part in parts)


def test_one_line_over_the_budget_is_a_window_over_the_budget():
    parts = cut([Line("x" * 9000, rect_quad((0, 0, 900, 20))), *grid(1, 3)], WIDTH, HEIGHT, whatever_size(tokens=1000))
    assert [len(part.lines) for part in parts if part.tokens > 1000] == [1]


def test_overlapping_lines_end_in_windows_all_the_same():
    lines = [Line(f"line number {i}", rect_quad((i, i, i + 500, i + 500))) for i in range(100)]
    parts = cut(lines, WIDTH, HEIGHT, whatever_size(tokens=1000))
    assert sorted(line.text for part in parts for line in part.lines) == sorted(line.text for line in lines)


box = st.tuples(
    st.floats(0, 950), st.floats(0, 1350), st.floats(5, 400), st.floats(5, 60)
).map(lambda b: (b[0], b[1], min(b[0] + b[2], WIDTH), min(b[1] + b[3], HEIGHT)))  # fmt: skip


@settings(max_examples=60)
@given(st.lists(box, max_size=120), st.integers(60, 1500))
def test_every_line_appears_once_and_points_at_the_same_pixels(boxes, tokens):
    lines = [Line(f"line {i}", rect_quad(b)) for i, b in enumerate(boxes)]
    parts = cut(lines, WIDTH, HEIGHT, whatever_size(tokens=tokens))
    back = {}
    for part in parts:
        x, y = part.box[:2]
        assert part.tokens <= tokens or len(part.lines) == 1
        for line in part.lines:
            assert line.text not in back
            back[line.text] = tuple((px + x, py + y) for px, py in line.quad)
            inside = bounds(line.quad)
            assert inside[0] >= 0 and inside[1] >= 0
            assert inside[2] <= part.box[2] - x and inside[3] <= part.box[3] - y
    assert set(back) == {line.text for line in lines}
    for line in lines:
        assert sum(back[line.text], ()) == pytest.approx(sum(line.quad, ()), abs=1e-6)


def test_crops_of_a_clean_layout_show_no_line_of_another_window():
    lines = grid(3, 40)
    for part in cut(lines, WIDTH, HEIGHT, whatever_size(tokens=900)):
        own = {line.text for line in part.lines}
        x0, y0, x1, y1 = part.box
        for line in lines:
            bx = bounds(line.quad)
            touches = bx[0] < x1 and bx[2] > x0 and bx[1] < y1 and bx[3] > y0
            assert (line.text in own) == touches


def long_lines(rows: int, left: float = 60) -> list[Line]:
    """A ragged column of lines of 100 characters, 8 pixels each: too long to be read at 448 pixels as they are."""
    words = ["words", "and", "more", "words", "to", "read", ""] * 6
    lines = []
    for row in range(rows):
        text = " ".join(words[row % 5 :])[:100].strip()
        breaks = tuple((i, left + 8 * i, left + 8 * i + 8) for i, char in enumerate(text) if char == " ")
        box = (left, 20 + row * 30, left + 8 * len(text), 42 + row * 30)
        lines.append(Line(text, rect_quad(box), breaks))
    return lines


def legible(window, train_size=448) -> bool:
    width, height = window.box[2] - window.box[0], window.box[3] - window.box[1]
    measured = [Legibility(train_size).measure(line.text, line.quad, width, height) for line in window.lines]
    return min(a for a, _ in measured) >= 5.999 and min(ink for _, ink in measured) >= 9.999


@pytest.mark.parametrize("train_size", [224, 448, 896])
def test_windows_are_legible_at_the_training_size_and_not_elongated(train_size):
    parts = cut(grid(2, 45), WIDTH, HEIGHT, Budget(train_size=train_size))
    assert sum(len(part.lines) for part in parts) == 90
    for part in parts:
        width, height = part.box[2] - part.box[0], part.box[3] - part.box[1]
        assert max(width, height) <= 3 * min(width, height) + 2
        assert train_size == 224 or legible(part, train_size)


def test_lines_too_long_to_be_read_are_divided_between_words_at_one_seam():
    lines = long_lines(20)
    assert not legible(cut(lines, WIDTH, HEIGHT, whatever_size())[0])
    parts = cut(lines, WIDTH, HEIGHT, Budget())
    assert all(legible(part) for part in parts)
    pieces = [line.text for part in parts for line in part.lines]
    assert sorted(" ".join(pieces).split()) == sorted(" ".join(line.text for line in lines).split())
    assert len(parts) <= 4


def test_parts_of_a_line_that_share_a_window_are_one_line_again():
    long = long_lines(8)[3:4]  # too long for any square: its column is divided, and the lines below it with it
    below = [
        Line(text, rect_quad((60, 60 + 30 * row, 60 + 8 * len(text), 82 + 30 * row)), breaks)
        for row in range(8)
        for text, breaks in [("words of a line that fits into one square as it stands", ())]
    ]
    below = [
        Line(line.text, line.quad, tuple((i, 60 + 8 * i, 68 + 8 * i) for i, c in enumerate(line.text, 1) if c == " "))
        for line in below
    ]
    parts = cut([*long, *below], WIDTH, HEIGHT, Budget())
    texts = [[line.text for line in part.lines] for part in parts]
    assert sum(found.count(below[0].text) for found in texts) >= 6
    assert not any({"stands", below[0].text.removesuffix(" stands")} <= set(found) for found in texts)
    assert all(legible(part) for part in parts)


def test_a_line_divided_twice_keeps_the_order_of_its_parts():
    items = [item_of(order, line, Budget()) for order, line in enumerate(long_lines(2))]
    parts = [again for item in items for part in _pieces(item, [300.0], Budget())
             for again in _pieces(part, [150.0, 450.0], Budget())]  # fmt: skip
    parts = sorted(parts, key=lambda part: part.order)
    found = [word for part in parts for word in part.line.text.split()]
    assert found == [word for line in long_lines(2) for word in line.text.split()]
    whole = rejoined(parts, long_lines(2), 1, 1, Budget())
    assert [part.line.text for part in whole] == [line.text for line in long_lines(2)]


def test_a_line_that_cannot_be_divided_is_left_for_the_rule():
    (line,) = long_lines(1)
    (part,) = cut([Line(line.text, line.quad)], WIDTH, HEIGHT, Budget())
    assert not legible(part) and part.lines[0].text == line.text


def test_a_crop_shows_no_text_that_is_not_in_its_label():
    pixels = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    lines = long_lines(6)
    for line in lines:
        x0, y0, x1, y1 = map(int, bounds(line.quad))
        pixels[y0:y1, x0:x1:3] = 0
        for _, end, start in line.breaks:
            pixels[y0:y1, int(end) : int(start)] = 250
    for part in cut(lines, WIDTH, HEIGHT, Budget()):
        crop, left = window_pixels(pixels, part)
        assert left == 0
        for line in part.lines:
            x0, y0, x1, y1 = map(int, bounds(line.quad))
            assert (crop[y0:y1, x0:x1] == 0).any()
            crop[y0:y1, max(x0 - 3, 0) : x1 + 3] = 250
        assert (crop == 250).all()


def test_text_that_is_in_no_label_is_covered_in_every_crop():
    pixels = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    faint = (700.0, 5.0, 760.0, 18.0)
    pixels[6:17, 701:759:2] = 230
    for page in (grid(1, 3), grid(2, 30)):
        for part in cut(page, WIDTH, HEIGHT, whatever_size(tokens=1000), [faint]):
            crop, left = window_pixels(pixels, part)
            assert left == 0 and (crop == 250).all()


def test_text_that_cannot_be_covered_is_counted():
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    part = next(part for part in cut(long_lines(6), WIDTH, HEIGHT, Budget()) if part.others)
    assert window_pixels(pixels, part)[1] > 0
