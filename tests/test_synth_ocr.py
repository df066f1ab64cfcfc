"""Whole images: labels against the ink that is there, options, determinism."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from corpus.legibility import Legibility
from synth_ocr import layout, settings, textures
from synth_ocr.document import NoText, compose, word_bounds
from synth_ocr.fonts import choose, read_manifest
from synth_ocr.geometry import longest_visible
from synth_ocr.glyphs import load_face
from tests.every_face import every_face

PLAIN = settings.undistorted(settings.Settings())
TILTED = replace(PLAIN, page=replace(settings.Page(), noise=(0, 0), texture_alpha=(0, 0), elastic_alpha=(0, 0)))
ENGLISH = "The quick brown fox jumps over the lazy dog; pack my box with five dozen jugs (12,345 of them). " * 90
CHINESE = "数学是研究数量、结构、变化以及空间等概念的一门学科，从某种角度看属于形式科学的一种。OCR 2024年。" * 90
WHITE = np.full((64, 64, 3), 255, np.uint8)


@cache
def typefaces(language):
    every_face()
    return [load_face(*pair) for pair in choose(read_manifest(), language)]


@cache
def papers():
    return [textures.crumpled_paper(np.random.default_rng([1, i]), (144, 192)) for i in range(2)]


def make(seed, recipe=PLAIN, text=ENGLISH, language="en", photo=WHITE):
    return compose([7, seed], text, photo, papers(), typefaces(language), recipe)


def ink_of(picture):
    return cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY) < 200


def filled(quads, shape, margin=0.0):
    """Return the mask of quads, each grown by `margin` pixels."""
    mask = np.zeros(shape, np.uint8)
    for quad in quads:
        cv2.fillConvexPoly(mask, np.round((quad - 0.5) * 16).astype(np.int32), 1, shift=4)
    if margin:
        size = 2 * int(margin) + 1
        mask = cv2.dilate(mask, np.ones((size, size), np.uint8))
    return mask.astype(bool)


def check_ink(picture):
    """All ink lies in a quad (so none in a ring around one), and every quad has ink within two pixels of each edge."""
    ink = ink_of(picture)
    outside = ink & ~filled([line.quad for line in picture.lines], ink.shape, margin=1)
    assert outside.sum() <= 0.0005 * ink.sum(), f"{outside.sum()} of {ink.sum()} ink pixels outside every quad"
    for line in picture.lines:
        width = round(np.hypot(*(line.quad[1] - line.quad[0])))
        height = round(np.hypot(*(line.quad[3] - line.quad[0])))
        corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
        matrix = cv2.getPerspectiveTransform(line.quad.astype(np.float32) - 0.5, corners - np.float32(0.5))
        patch = cv2.warpPerspective(ink.astype(np.uint8) * 255, matrix, (width, height)) > 80
        rows, columns = np.nonzero(patch.any(1))[0], np.nonzero(patch.any(0))[0]
        assert len(rows), f"no ink in the quad of {line.text!r}"
        slack = (rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1])
        assert max(slack) <= 2, f"{line.text!r}: free margins {slack} in a quad of {width} x {height}"


@given(seed=st.integers(0, 10_000), tilted=st.booleans(), chinese=st.booleans())
@hypothesis_settings(max_examples=24)
def test_quads_hug_the_ink_and_all_ink_is_labelled(seed, tilted, chinese):
    text, language = (CHINESE, "zh") if chinese else (ENGLISH, "en")
    recipe = replace(PLAIN, page=replace(TILTED.page, texture_alpha=(0, 0))) if tilted else PLAIN
    check_ink(make(seed, replace(recipe, straight=True), text, language))


def test_default_settings_keep_every_quad_on_the_canvas_and_every_label_drawable():
    for seed in range(12):
        picture = make(seed, settings.Settings())
        height, width = picture.pixels.shape[:2]
        assert picture.cut == 0
        for line in picture.lines:
            assert (line.quad >= 0).all() and (line.quad <= [width, height]).all()
            assert line.text == line.text.strip() and line.text
            face = next(f for f in typefaces("en") if f.face.name == line.face)
            assert face.lacking(line.text) == ""


def test_quads_are_clockwise_from_top_left():
    for line in make(3, settings.Settings()).lines:
        top_left, top_right, bottom_right, bottom_left = line.quad
        assert top_left[0] < top_right[0] and bottom_left[0] < bottom_right[0]
        assert top_left[1] < bottom_left[1] and top_right[1] < bottom_right[1]


def test_lines_continue_the_passage_in_reading_order():
    picture = make(1)
    text = "".join(line.text for line in picture.lines).replace(" ", "")
    assert text in ENGLISH.replace(" ", "")


def test_same_arguments_same_image_and_another_seed_another():
    first, again, other = make(5, settings.Settings()), make(5, settings.Settings()), make(6, settings.Settings())
    assert np.array_equal(first.pixels, again.pixels)
    assert first.pixels.shape != other.pixels.shape or not np.array_equal(first.pixels, other.pixels)


def test_words_are_inside_their_line_and_change_nothing_else():
    plain, labelled = make(2), make(2, replace(PLAIN, words=True))
    assert np.array_equal(plain.pixels, labelled.pixels)
    for before, line in zip(plain.lines, labelled.lines, strict=True):
        assert np.array_equal(before.quad, line.quad) and not before.words
        assert [word.text for word in line.words] == line.text.split()
        for word in line.words:
            assert (word.quad >= line.quad.min(0) - 1e-6).all() and (word.quad <= line.quad.max(0) + 1e-6).all()
        lefts = [word.quad[0, 0] for word in line.words]
        assert lefts == sorted(lefts)


def test_words_hold_all_ink_of_their_line():
    picture = make(4, replace(PLAIN, words=True), CHINESE, "zh")
    ink = ink_of(picture)
    words = [word.quad for line in picture.lines for word in line.words]
    assert (ink & ~filled(words, ink.shape, margin=2)).sum() <= 0.01 * ink.sum()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two", ["one", "two"]),
        ("数学is研究", ["数", "学", "is", "研", "究"]),
        ("a，b", ["a", "，", "b"]),
        ("x", ["x"]),
    ],
)
def test_word_bounds(text, words):
    assert [text[start:end] for start, end in word_bounds(text, 0, len(text))] == words


def test_vertical_pages_run_down_and_from_right_to_left():
    found = 0
    for seed in range(6):
        picture = make(seed, replace(PLAIN, vertical=1.0), CHINESE, "zh")
        check_ink(picture)
        for line in picture.lines:
            assert line.vertical and "Noto" in line.face
            size = line.box.max(0) - line.box.min(0)
            found += len(line.text) > 3 and size[1] > 2 * size[0]
        assert picture.lines[0].quad[:, 0].mean() >= picture.lines[-1].quad[:, 0].mean()
    assert found > 20


def test_straight_pages_have_the_same_labels():
    bent = make(8, settings.Settings())
    straight = make(8, settings.Settings(straight=True))
    assert [line.text for line in bent.lines] == [line.text for line in straight.lines]
    assert not np.array_equal(bent.pixels, straight.pixels)


def test_text_beyond_the_canvas_is_not_labelled():
    """A page that grows beyond the canvas: what is labelled can be seen, and what is whole is labelled."""
    grown = ((1.0, 1.5),) * 4
    recipe = replace(
        TILTED, page=replace(TILTED.page, fullscreen=1.0, tilts=(grown,), tilt_weights=(1.0,)), straight=True
    )
    cut = 0
    for seed in range(12):
        picture = make(seed, recipe)
        cut += picture.cut
        height, width = picture.pixels.shape[:2]
        for line in picture.lines:
            assert (line.quad >= 0).all() and (line.quad <= [width, height]).all()
            assert line.text in ENGLISH
        ink = ink_of(picture)
        labelled = filled([line.quad for line in picture.lines], ink.shape, margin=1)
        loose = (ink & ~labelled).astype(np.uint8)
        # What is left over belongs to lines that the edge cuts: it hangs together with the canvas' border.
        count, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(loose, np.ones((25, 25), np.uint8)))
        for left, top, w, h, _ in boxes[1:count]:
            assert left == 0 or top == 0 or left + w == width or top + h == height
    assert cut > 10


def test_text_that_no_face_covers_is_skipped_or_refused():
    with pytest.raises(NoText, match="none of which covers") as refused:
        make(0, text="汉字" * 4000)
    assert refused.value.kind == "no_face_covers"
    mixed = make(0, text="汉字" * 100 + ENGLISH)
    assert mixed.skipped >= 128 and all(ord(char) < 0x2E80 for line in mixed.lines for char in line.text)
    with pytest.raises(NoText) as empty:
        make(0, text=" \n ")
    assert empty.value.kind == "no_text"


def test_chinese_pages_take_english_too():
    lines = make(0, text=ENGLISH, language="zh").lines
    assert sum(len(line.text) for line in lines) > 50


def test_a_face_without_latin_letters_borrows_them():
    droid = [face for face in typefaces("zh") if face.companion is not None]
    assert droid[0].face.name == "Droid Sans Fallback Regular"
    picture = compose([1, 1], "汉字 abc 汉字 xyz。" * 500, WHITE, papers(), droid, PLAIN)
    assert any("abc" in line.text for line in picture.lines)
    check_ink(picture)


def test_zero_width_and_blank_characters_never_reach_a_label():
    text = "zero\u200bwidth soft\u00adhyphen no\u00a0break e\u0301 wide\u3000blank \u202eabc " * 200
    joined = "".join(line.text for line in make(0, text=text).lines)
    assert joined and not set(joined) & set("\u200b\u00ad\u00a0\u0301\u3000\u202e")


@given(seed=st.integers(0, 10_000), width=st.floats(200, 2000), height=st.floats(200, 2000))
@hypothesis_settings(max_examples=60)
def test_cells_lie_in_the_box_and_do_not_overlap(seed, width, height):
    grids = layout.stack_grids(np.random.default_rng(seed), 10, 20, width, height, settings.Layout())
    cells = [cell for grid in grids for cell in grid]
    assert cells
    for cell in cells:
        assert cell.left >= 10 - 1e-6 and cell.left + cell.width <= 10 + width + 1e-6
        assert cell.top >= 20 - 1e-6 and cell.top + cell.height <= 20 + height + 1e-6
    for i, a in enumerate(cells):
        for b in cells[i + 1 :]:
            across = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
            down = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
            assert min(across, down) <= 1e-6


def test_longest_visible():
    assert longest_visible([True, False, True, True]) == (2, 4)
    assert longest_visible([False]) == (0, 0)
    assert longest_visible([True] * 3) == (0, 3)


def test_settings_survive_json_and_refuse_the_unknown():
    changed = replace(settings.Settings(), vertical=0.3)
    assert settings.from_json(settings.to_json(changed)) == changed
    assert settings.from_json({"page": {"margin": [0, 0.2]}}).page.margin == (0, 0.2)
    with pytest.raises(ValueError, match="did you mean 'margin'"):
        settings.from_json({"page": {"margn": [0, 1]}})
    with pytest.raises(ValueError, match="shape"):
        settings.from_json({"page": {"margin": 3}})


@pytest.mark.parametrize("language, text", [("en", ENGLISH), ("zh", CHINESE)])
@pytest.mark.parametrize("train_size", [224, 448])
def test_every_printed_line_can_be_read_at_the_training_size(language, text, train_size):
    legible = Legibility(train_size)
    lines = 0
    for seed in range(12):
        picture = make(seed, replace(settings.Settings(), legibility=legible), text, language)
        height, width = picture.pixels.shape[:2]
        for line in picture.lines:
            advance, ink = legible.measure(line.text, line.quad.tolist(), width, height)
            assert advance >= 0.97 * legible.advance and ink >= 0.97 * legible.ink, line.text
        lines += len(picture.lines)
    assert lines > 40


def test_without_a_training_size_rows_are_as_small_as_synthdog_s():
    off = replace(settings.Settings(), legibility=Legibility(advance=0, ink=0))
    heights = [
        [np.hypot(*(line.quad[3] - line.quad[0])) for seed in range(6) for line in make(seed, recipe).lines]
        for recipe in (off, settings.Settings())
    ]
    assert np.median(heights[0]) < 0.9 * np.median(heights[1])
