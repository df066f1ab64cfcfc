"""Drawn scenes: what the caption, the boxes and the quads say is what the pixels show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipelines.proof.scenes.names import BACKGROUNDS, COLOURS, NUMBERS, SHAPES
from pipelines.proof.scenes.scene import KINDS, scene

seeds = st.integers(0, 10**9)


def foreground(drawn):
    """Mask of the pixels that are not background (the corner pixel is always background)."""
    pixels = np.asarray(drawn.image).astype(int)
    return np.abs(pixels - pixels[0, 0]).max(axis=2) > 12


@settings(max_examples=60)
@given(seeds)
def test_everything_drawn_lies_in_a_box_or_quad_and_touches_its_edges(seed):
    drawn = scene(seed, max_tilt=20)
    mask, cover = foreground(drawn), Image.new("L", drawn.image.size)
    for box in [o.box for o in drawn.objects] + [bounds(w.quad) for w in drawn.words]:
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= 224 and 0 <= y0 < y1 <= 224
        ImageDraw.Draw(cover).rectangle([x0 - 1, y0 - 1, x1 + 1, y1 + 1], fill=255)
    assert not mask[np.asarray(cover) == 0].any()
    for thing in drawn.objects:
        inside = mask[int(thing.box[1]) : int(thing.box[3]) + 1, int(thing.box[0]) : int(thing.box[2]) + 1]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert rows[0] <= 2 and columns[0] <= 2
        assert rows[-1] >= inside.shape[0] - 4 and columns[-1] >= inside.shape[1] - 4


@settings(max_examples=60)
@given(seeds)
def test_captions_name_what_is_there_and_spans_point_at_the_phrases(seed):
    drawn = scene(seed)
    for caption, regions in ((drawn.caption_en, drawn.regions_en), (drawn.caption_zh, drawn.regions_zh)):
        assert regions
        for region in regions:
            start, end = region["span"]
            assert caption[start:end].lower() == region["text"].lower()
    for thing in drawn.objects:
        assert thing.colour in drawn.caption_en and COLOURS[thing.colour][0] in drawn.caption_zh
        if thing.name != "sign":
            assert thing.name in drawn.caption_en and SHAPES[thing.name] in drawn.caption_zh
    for word in drawn.words:
        assert f'"{word.text}"' in drawn.caption_en and word.text in drawn.caption_zh
    boxes = sorted(tuple(b) for r in drawn.regions_en for b in r["boxes"])
    assert boxes == sorted([o.box for o in drawn.objects] + [bounds(w.quad) for w in drawn.words])


@settings(max_examples=40)
@given(seeds)
def test_objects_do_not_overlap(seed):
    boxes = [o.box for o in scene(seed, kinds=["group", "several", "pair"]).objects]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_counts_and_relations_are_true():
    for seed in range(60):
        group = scene(seed, kinds=["group"])
        number = NUMBERS[len(group.objects)]
        assert number[0] in group.caption_en.lower() and number[1] + "个" in group.caption_zh
        first, second = scene(seed, kinds=["pair"]).objects
        caption = scene(seed, kinds=["pair"]).caption_en
        if " to the left of " in caption:
            assert first.box[2] < second.box[0]
        elif " above " in caption:
            assert first.box[3] < second.box[1]


def test_colours_are_the_named_ones():
    for seed in range(40):
        drawn = scene(seed, kinds=["single"], shapes=["square"])
        x0, y0, x1, y1 = drawn.objects[0].box
        pixel = np.array(drawn.image.getpixel((int(x0 + x1) // 2, int(y0 + y1) // 2)))
        nearest = min(COLOURS, key=lambda name: np.abs(pixel - np.array(COLOURS[name][1])).sum())
        assert nearest == drawn.objects[0].colour
        backdrop = np.array(drawn.image.getpixel((0, 0)))
        assert min(BACKGROUNDS, key=lambda n: np.abs(backdrop - np.array(BACKGROUNDS[n][1])).sum()) == drawn.background


def test_a_tilted_quad_goes_clockwise_from_the_text_s_own_top_left():
    drawn = next(s for s in (scene(i, kinds=["word"], max_tilt=30) for i in range(50)) if tilt(s.words[0].quad) > 15)
    quad = drawn.words[0].quad
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(quad, quad[1:] + quad[:1], strict=True)) / 2
    assert area > 0  # clockwise with y pointing down
    mask, cover = foreground(drawn), Image.new("L", drawn.image.size)
    ImageDraw.Draw(cover).polygon(quad, fill=255)
    ImageDraw.Draw(cover).line([*quad, quad[0]], fill=255, width=4)  # smoothing reaches one pixel beyond the quad
    for thing in drawn.objects:
        ImageDraw.Draw(cover).rectangle(grown(thing.box), fill=255)
    assert not mask[np.asarray(cover) == 0].any()


def test_a_scene_is_a_pure_function_of_its_seed():
    for kind in KINDS:
        a, b = scene("x", kinds=[kind]), scene("x", kinds=[kind])
        assert a.image.tobytes() == b.image.tobytes() and a.caption_en == b.caption_en and a.objects == b.objects
    assert len({scene(i).image.tobytes() for i in range(50)}) == 50


@pytest.mark.parametrize("size", [48, 112, 448])
def test_other_sizes(size):
    drawn = scene(3, size, kinds=["several"], colours=["red", "blue"], shapes=["circle"])
    assert drawn.image.size == (size, size)
    assert {o.colour for o in drawn.objects} == {"red", "blue"}


def grown(box):
    return [box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1]


def bounds(quad):
    xs, ys = [p[0] for p in quad], [p[1] for p in quad]
    return (min(xs), min(ys), max(xs), max(ys))


def tilt(quad):
    return np.degrees(np.arctan2(quad[0][1] - quad[1][1], quad[1][0] - quad[0][0]))
