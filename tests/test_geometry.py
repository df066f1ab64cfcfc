"""The one normaliser, clipping, and what counts as a box or a quad."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.geometry import (
    clip_box,
    iou,
    normalise,
    normalise_box,
    normalise_quad,
    pixels,
    signed_area,
    xywh_to_xyxy,
)

SIZES = st.integers(1, 20_000)


@given(st.floats(-1e6, 1e6), SIZES)
def test_normalise_is_the_formula(value, size):
    assert normalise(value, size) == min(max(math.floor(1000 * value / size), 0), 999)


@pytest.mark.parametrize(
    ("value", "size", "expected"), [(0, 640, 0), (639.99, 640, 999), (640, 640, 999), (-3, 640, 0), (320, 640, 500)]
)
def test_normalise_at_the_borders(value, size, expected):
    assert normalise(value, size) == expected


@given(st.integers(0, 999), SIZES)
def test_pixels_undoes_normalise(number, size):
    assert normalise(pixels(number, size), size) == number


@given(st.floats(0, 1, exclude_max=True), SIZES)
def test_pixels_is_within_half_a_step(share, size):
    assert abs(pixels(normalise(share * size, size), size) - share * size) <= size / 2000 + 1e-6 * size


@given(st.lists(st.floats(-2000, 4000), min_size=4, max_size=4), SIZES, SIZES)
def test_a_normalised_box_has_area_and_lies_in_the_image(box, width, height):
    clipped, normal = clip_box(box, width, height), normalise_box(box, width, height)
    if clipped:
        assert 0 <= clipped[0] < clipped[2] <= width and 0 <= clipped[1] < clipped[3] <= height
    if normal:
        assert clipped and 0 <= normal[0] < normal[2] <= 999 and 0 <= normal[1] < normal[3] <= 999


@pytest.mark.parametrize(
    "box", [[9, 0, 1, 5], [0, 0, 0, 5], [200, 0, 300, 5], [math.nan, 0, 1, 1], [0, 1], None, "abcd"]
)
def test_boxes_without_area(box):
    assert normalise_box(box, 100, 100) is None


def test_a_box_too_thin_for_the_format_is_none():
    assert normalise_box([10.1, 0, 10.9, 50], 4000, 100) is None


def test_quads():
    square = [[10, 10], [20, 10], [20, 20], [10, 20]]
    assert normalise_quad(square, 100, 100) == ((100, 100), (200, 100), (200, 200), (100, 200))
    assert normalise_quad(square[::-1], 100, 100) is None  # counter-clockwise
    assert normalise_quad([[x + 500, y] for x, y in square], 100, 100) is None  # outside
    assert normalise_quad([[10, 10]] * 4, 100, 100) is None
    assert normalise_quad(square[:3], 100, 100) is None
    assert normalise_quad("quad", 100, 100) is None
    turned = square[2:] + square[:2]  # upside-down text keeps its own top-left first
    assert normalise_quad(turned, 100, 100)[0] == (200, 200)
    assert signed_area(square) == 100


def test_xywh_and_iou():
    assert xywh_to_xyxy([10, 20, 5, 6]) == (10, 20, 15, 26)
    assert iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert iou([0, 0, 1, 1], [5, 5, 6, 6]) == 0 == iou([0, 0, 0, 0], [0, 0, 0, 0])
