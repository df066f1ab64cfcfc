"""What is a copy of a picture, and what only looks like one to a hash."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from cleaners.copies import compare, prepare
from cleaners.dedup import Groups, first_of_each
from cleaners.phash import distance, hash_views, without_bars
from corpus.records import EncodedImage, to_members
from corpus.shards import ShardWriter
from pipelines import dedup
from tests.cleaned import sample
from tests.folders import of_split
from tests.published import outcomes, run_job
from tests.test_dedup import cut, recompress


def photo(shared_data) -> Image.Image:
    return Image.open(shared_data("photos/coco_000000022892.jpg")).convert("RGB")


COPIES = {
    "crop": lambda image: cut(image, 0.06, 0.02, 0.04, 0.08), "side": lambda image: cut(image, 0.15, 0, 0, 0),
    "letterbox": lambda image: ImageOps.expand(image, (0, 60), "black"), "flip": ImageOps.mirror,
    "border": lambda image: ImageOps.expand(image, 30, "navy"), "grey": lambda image: image.convert("L"),
    "turned": lambda image: image.rotate(3, Image.BICUBIC, fillcolor="white"),
    "square": lambda image: image.resize((224, 224)),
}  # fmt: skip


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_photo_are_copies(shared_data, kind):
    image = photo(shared_data)
    found = compare(prepare(image), prepare(recompress(COPIES[kind](image), 60)))
    assert found.copies and found.value >= found.threshold


def test_another_photo_is_no_copy(shared_data):
    other = Image.open(shared_data("photos/coco_000000037666.jpg")).convert("RGB")
    assert not compare(prepare(photo(shared_data)), prepare(other)).copies


def page(words: str) -> Image.Image:
    image = Image.new("RGB", (620, 800), "white")
    for line in range(30):
        ImageDraw.Draw(image).text(
            (60, 40 + 24 * line), " ".join(words.split()[line % 7 :])[:60], fill="black", font_size=16
        )
    return image


def test_pages_of_one_layout_are_different_pages():
    one = page("it is a truth universally acknowledged that a single man in possession of a good fortune must be")
    two = page("call me Ishmael some years ago never mind how long precisely having little or no money in my purse")
    assert compare(prepare(one), prepare(recompress(one, 50))).copies
    assert not compare(prepare(one), prepare(two)).copies


def emblem(colour: str, wide: int) -> Image.Image:
    image = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(image).ellipse((50, 50, 50 + wide, 250), fill=colour)
    return image


@pytest.mark.parametrize(("colour", "wide"), [("red", 120), ("green", 200), ("blue", 200)])
def test_flat_graphics_differ_by_shape_and_by_colour(colour, wide):
    assert compare(prepare(emblem("red", 200)), prepare(recompress(emblem("red", 200), 80))).copies
    assert not compare(prepare(emblem("red", 200)), prepare(emblem(colour, wide))).copies


@pytest.mark.parametrize("bars", [(0, 40), 19, (30, 0)])
@pytest.mark.parametrize("shade", ["black", "navy", "gold"])
def test_flat_graphics_are_found_behind_bars_whose_edge_jpeg_has_blurred(bars, shade):
    image, other = emblem("red", 200), emblem("red", 120)
    barred = recompress(ImageOps.expand(image, bars, shade), 70)
    assert without_bars(np.asarray(barred.convert("L"))).shape == (300, 300)
    assert distance(hash_views(barred).long[0], hash_views(image).long).min() <= dedup.CANDIDATE // 2
    assert compare(prepare(image), prepare(barred)).copies
    assert not compare(prepare(other), prepare(barred)).copies


def test_bars_are_trimmed_and_an_image_that_is_all_bar_stays():
    inner = np.random.default_rng(0).integers(0, 256, (80, 90), np.uint8)
    assert without_bars(np.pad(inner, ((20, 25), (10, 0)))).shape == (80, 90)
    assert without_bars(np.full((50, 60), 7, np.uint8)).shape == (50, 60)
    assert without_bars(inner).shape == inner.shape
    picture = np.pad(inner, ((0, 0), (20, 20)), constant_values=200)  # its own ground, which the bars are not of
    assert without_bars(np.pad(picture, ((15, 15), (0, 0)))).shape == picture.shape


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 3), (2000, 17)])
def test_slivers_are_hashed_and_compared_without_an_error(size):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8))
    hash_views(image)
    compare(prepare(image), prepare(image))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_groups_grow_as_components(pairs):
    groups = Groups()
    for a, b in pairs:
        groups.join(a, b)
    expected = first_of_each(31, np.array(pairs, np.int64).reshape(-1, 2)).tolist()
    assert [groups.first(i) for i in range(31)] == expected


def test_look_alikes_stay_copies_go_and_the_ledger_says_why(tmp_path, shared_data):
    image = photo(shared_data)
    grey = Image.open(shared_data("photos/coco_000000037666.jpg")).convert("L")
    tinted = [ImageOps.colorize(grey, "black", "white", mid=colour) for colour in ((192, 64, 64), (64, 100, 200))]
    made = [image, cut(image, 0.15, 0, 0, 0), *tinted]
    samples = [sample("laion-en", "caption", i) for i in range(len(made))]
    for one, picture in zip(samples, made, strict=True):
        file = io.BytesIO()
        picture.save(file, "PNG")
        one.images, one.width, one.height = [EncodedImage(file.getvalue(), "png")], *picture.size
    with (tmp_path / "in.tar").open("wb") as file:
        writer = ShardWriter(file)
        for one in samples:
            writer.write(one.key, to_members(one))
        writer.close()
    run_job(dedup, "--input", tmp_path / "in.tar", "--each-other", "--output", tmp_path / "out")
    assert outcomes(tmp_path / "out") == {"kept": 3, "near_duplicate": 1}
    rows = pq.read_table(of_split(tmp_path / "out", "parquet")).to_pylist()
    assert rows[1]["outcome"] == "dropped" and rows[1]["pair_distance"] <= 80 and rows[1]["likeness"] > 0.5
    assert "of sample 0 of split" in rows[1]["detail"] and "compared as photo" in rows[1]["detail"]
    shown = Image.open(io.BytesIO(rows[1]["thumbnail"]))
    assert shown.width > 200 and shown.height <= 128  # both, side by side
    assert rows[3]["outcome"] == "kept" and rows[3]["likeness"] == -1 and "not a copy of sample 2" in rows[3]["detail"]
