"""Legibility: one measure for all sources, in pixels of the square that the trainer squashes images to."""

import pytest

from corpus.legibility import Legibility, is_column, widths


def box(width: float, height: float, x: float = 0, y: float = 0):
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def test_latin_needs_six_pixels_a_character_and_chinese_ten():
    legible = Legibility()
    assert legible.measure("ten letter", box(100, 20), 896, 448) == (5.0, 20.0)
    advance, _ = legible.measure("十个汉字十个汉字十个", box(100, 10), 448, 448)
    assert advance == pytest.approx(6.0)  # ten pixels for each


def test_the_squash_acts_on_each_axis_alone():
    wide = Legibility().measure("ten letter", box(100, 20), 1792, 448)
    tall = Legibility().measure("ten letter", box(100, 20), 448, 1792)
    assert wide == (2.5, 20.0) and tall == (10.0, 5.0)


def test_turned_text_and_columns_are_measured_along_their_own_direction():
    upwards = ((0, 100), (0, 0), (20, 0), (20, 100))
    assert Legibility().measure("ten letter", upwards, 896, 448) == (10.0, 10.0)
    column = box(10, 100)
    assert is_column("十个汉字十个汉字十个", column) and not is_column("ten letter", column)
    assert Legibility().measure("十个汉字十个汉字十个", column, 448, 896) == (pytest.approx(3.0), 10.0)


def test_short_and_low_lines_are_judged_by_what_they_are():
    legible = Legibility()
    assert legible.needs("1")[0] == 0 and legible.needs("\u2014")[1] == 0
    assert legible.needs("sea")[1] < legible.needs("Sea")[1] == 10


def test_marks_take_no_room():
    assert widths("e\u0301a") == (2, 0) and widths("漢字ab") == (2, 2)
