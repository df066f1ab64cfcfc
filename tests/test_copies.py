"""What is a copy of a picture, and what only looks like one to a hash."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from cleaners.copies import compare, prepare
from cleaners.dedup import Groups, Rows, first_of_each, near_pairs, probe_keys
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


def marked(image: Image.Image) -> Image.Image:
    """Letters all over the picture, whose corners are the strongest that there are."""
    image, size = image.copy(), image.width // 9
    for line in range(3):
        place = (10, image.height * (2 + line) // 6)
        ImageDraw.Draw(image, "RGBA").text(place, "SAMPLE PHOTO LIBRARY", fill=(255, 255, 255, 150), font_size=size)
    return image


COPIES = {
    "crop": lambda image: cut(image, 0.06, 0.02, 0.04, 0.08), "side": lambda image: cut(image, 0.15, 0, 0, 0),
    "letterbox": lambda image: ImageOps.expand(image, (0, 60), "black"), "flip": ImageOps.mirror,
    "border": lambda image: ImageOps.expand(image, 30, "navy"), "grey": lambda image: image.convert("L"),
    "turned": lambda image: image.rotate(3, Image.BICUBIC, fillcolor="white"),
    "square": lambda image: image.resize((224, 224)), "watermark": lambda image: marked(image),
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


def logo(*, colour="red", left=90, more="", word="MILL") -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(image)
    pen.regular_polygon((left + 60, 110, 60), 5, fill=colour)
    pen.rectangle((230, 60, 330, 130), fill="navy")
    pen.text((120, 200), word, fill="black", font_size=48)
    pen.text((300, 250), more, fill="black", font_size=30)
    return image


@pytest.mark.parametrize("kind", ["crop", "side", "letterbox", "flip", "border", "grey", "turned", "square"])
def test_copies_of_a_graphic_are_copies(kind):
    assert compare(prepare(logo()), prepare(recompress(COPIES[kind](logo()), 70))).copies


@pytest.mark.parametrize(
    "change", [{"colour": "green"}, {"colour": "black"}, {"left": 60}, {"more": "50%"}, {"word": "MALL"}]
)
def test_a_graphic_with_another_colour_place_or_word_is_another(change):
    found = compare(prepare(logo()), prepare(recompress(logo(**change), 70)))
    assert not found.copies


def test_two_shapes_of_one_kind_are_no_copies_wherever_they_are():
    def cross(colour: str, x: int, y: int) -> Image.Image:
        image = Image.new("RGB", (224, 224), (235, 235, 225))
        for box in ((x + 20, y, x + 40, y + 60), (x, y + 20, x + 60, y + 40)):
            ImageDraw.Draw(image).rectangle(box, fill=colour)
        return image

    one = prepare(cross("red", 20, 20))
    for other in (cross("green", 20, 20), cross("black", 20, 20), cross("red", 60, 40), cross("red", 20, 140)):
        assert not compare(one, prepare(other)).copies


def test_nearly_empty_pages_are_told_apart_by_their_heading():
    def chapter(heading: str) -> Image.Image:
        image = Image.new("RGB", (636, 900), "white")
        for line in (20, 860):
            ImageDraw.Draw(image).line((45, line, 590, line), fill="black", width=2)
        ImageDraw.Draw(image).text((48, 88), heading, fill="black", font_size=22)
        return image

    assert compare(prepare(chapter("Chapter 1")), prepare(recompress(chapter("Chapter 1"), 50))).copies
    assert not compare(prepare(chapter("Chapter 1")), prepare(chapter("Paragraph 1.1"))).copies


@pytest.mark.parametrize("angle", [-3, 3])
def test_a_page_that_lies_askew_is_a_candidate(angle):
    words = "call me Ishmael some years ago never mind how long precisely having little or no money in my purse"
    one = ImageOps.expand(page(words).crop((0, 0, 620, 500)), 70, "white")
    turned = hash_views(recompress(one.rotate(angle, Image.BICUBIC, fillcolor="white"), 70))
    assert distance(hash_views(one).long, turned.long[0]).min() <= dedup.CANDIDATE // 2
    both = [hash_views(one), turned]
    probes, long = np.stack([probe_keys(each) for each in both]), np.stack([each.long.ravel() for each in both])
    pairs, _ = near_pairs(Rows(probes), Rows(long))
    assert len(pairs) == 1


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
