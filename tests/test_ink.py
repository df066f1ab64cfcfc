"""Ink: boxes drawn in to what shows, nothing where nothing shows, and a report that tells good boxes from bad ones."""

import numpy as np
import pytest

from renderers.ink import Ink, ink_report, luminance
from renderers.page import rect_quad


def paper(colour=(255, 255, 255)) -> np.ndarray:
    pixels = np.empty((100, 200, 3), np.uint8)
    pixels[:] = colour
    return pixels


@pytest.mark.parametrize("ground, text", [((255, 255, 255), (0, 0, 0)), ((20, 20, 90), (255, 255, 255))])
def test_a_box_is_drawn_in_to_the_ink(ground, text):
    pixels = paper(ground)
    pixels[40:50, 60:120] = text
    assert Ink(pixels).fit((30.5, 20, 180, 80)) == (60, 40, 120, 50)


def test_a_box_on_a_coloured_panel_is_drawn_in_as_well():
    pixels = paper()
    pixels[20:80, 20:180] = (200, 40, 40)
    pixels[40:50, 60:120] = 255
    assert Ink(pixels).fit((30, 30, 170, 70)) == (60, 40, 120, 50)


def test_no_box_without_ink():
    pixels = paper()
    pixels[40:50, 60:120] = 250  # white on white, nearly
    assert Ink(pixels).fit((30, 20, 180, 80)) is None
    assert Ink(pixels).fit((300, 20, 380, 80)) is None


def test_the_report_tells_where_the_ink_lies():
    pixels = paper()
    pixels[40:50, 60:120:3] = 0  # strokes: in text most of a box is paper
    grey = luminance(pixels)
    good = ink_report(grey, [rect_quad((60, 40, 120, 50))])
    shifted = ink_report(grey, [rect_quad((60, 44, 120, 54))])
    assert good["caught"] == 1.0 and good["inside"] > 0.25 and good["outside"] == 0.0
    assert shifted["caught"] < 0.9 and shifted["outside"] > 0.1
