"""Boxes written into dialogues: structured where the file is trusted, text where it is not, refused where wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.formats import Unfit, format_sample
from corpus.geometry import normalise_box
from corpus.pieces import SPECIAL, text_of
from corpus.readers.notation import grounded
from corpus.records import EncodedImage, Sample
from corpus.verdicts import Lost

SIZES = [(640, 480), (300, 900)]


def turn(text: str, role: str = "assistant", images: tuple = ()) -> dict:
    return {"role": role, "text": text, "images": list(images)}


def one(text: str, notation: str = "qwen-vl", coordinates: str | None = None, sizes=((640, 480),)) -> dict:
    return grounded([turn(text)], list(sizes), notation, coordinates)[0]


def formatted(turns: list[dict]) -> str:
    sample = Sample(
        key="k", dataset="d", task="chat", language="en", text=None, width=640, height=480, source={},
        images=[EncodedImage(b"", "jpg"), EncodedImage(b"", "jpg")], annotations={"turns": turns},
    )  # fmt: skip
    return format_sample(sample, "chat")[0]


def test_qwens_notation_becomes_control_ids_and_says_the_same_numbers():
    asked = turn("Where is the dog in Picture 2?", "user", (0, 1))
    said = "There: <ref>the dog</ref><box>(10,20),(500,999)</box><box>(0,0),(7,8)</box>, see."
    turns = grounded([asked, turn(said)], SIZES, "qwen-vl", None)
    (region,) = turns[1]["regions"]
    assert turns[1]["text"] == "There: the dog, see." and region["span"] == [7, 14]
    assert region["image"] == 1 and region["size"] == [300, 900]
    assert normalise_box(region["boxes"][0], 300, 900) == (10, 20, 500, 999)
    pieces = formatted(turns).pieces
    assert said in text_of(pieces)
    assert [p.value for p in pieces if p.kind == SPECIAL and "box" in p.value] == ["<box>", "</box>"] * 2


def test_without_trust_the_same_words_are_words():
    turns = [turn("Where?", "user", (0, 1)), turn("<ref>a</ref><box>(1,1),(2,2)</box>")]
    pieces = formatted(turns).pieces
    assert not [p for p in pieces if p.kind == SPECIAL and p.value in ("<box>", "<ref>")]


@given(st.tuples(*[st.integers(0, 999)] * 4), st.integers(1, 5000), st.integers(1, 5000))
def test_every_box_per_mille_is_written_as_it_was(numbers, width, height):
    x0, y0, x1, y1 = numbers
    text = f"<box>({x0},{y0}),({x1},{y1})</box>"
    if x0 < x1 and y0 < y1:
        (region,) = one(text, sizes=[(width, height)])["regions"]
        assert normalise_box(region["boxes"][0], width, height) == numbers
    else:
        with pytest.raises(Lost, match="no area"):
            one(text, sizes=[(width, height)])


@pytest.mark.parametrize(
    ("text", "notation", "coordinates", "box"),
    [
        ("the dog [0.1,0.2,0.5,0.6]", "shikra", None, [64, 96, 320, 288]),
        ("<ref>dog</ref><box>(64,96),(320,288)</box>", "qwen-vl", "pixel", [64, 96, 320, 288]),
        ("<ref>dog</ref><box>(0.1,0.2),(0.5,0.6)</box>", "qwen-vl", "unit", [64, 96, 320, 288]),
        ("<object><patch_index_0000><patch_index_1023></object>", "kosmos2", None, [10, 7.5, 630, 472.5]),
        ("<phrase>dog</phrase><object><patch_index_0000><patch_index_0001></object>", "kosmos2", None, [0, 0, 40, 15]),
    ],
)  # fmt: skip
def test_every_notation_says_pixels(text, notation, coordinates, box):
    (region,) = one(text, notation, coordinates)["regions"]
    assert region["boxes"][0] == pytest.approx(box)


def test_several_boxes_of_shikra_and_a_quad_of_qwen():
    assert len(one("cats [0.1,0.1,0.2,0.2;0.3,0.3,0.4,0.4]", "shikra")["regions"][0]["boxes"]) == 2
    (region,) = one("<ref>STOP</ref><quad>(1,1),(9,1),(9,9),(1,9)</quad>")["regions"]
    assert len(region["quads"][0]) == 4 and not region["boxes"]
    text = text_of(formatted([turn("q", "user", (0, 1)), turn("STOP") | {"regions": [region]}]).pieces)
    assert "<ref>STOP</ref><quad>(1,1),(9,1),(9,9),(1,9)</quad>" in text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<box>(1,2),(3,1001)</box>", "bad_box"),
        ("<box>(-1,2),(3,4)</box>", "bad_box"),
        ("<box>(1,2),(3)</box>", "bad_box"),
        ("<box>(5,5),(5,9)</box>", "bad_box"),
        ("<quad>(1,9),(9,9),(9,1),(1,1)</quad>", "bad_box"),
        ("<ref>the dog</ref> is there", "bad_notation"),
        ("<ref>the dog<box>(1,1),(2,2)</box>", "bad_notation"),
    ],
)
def test_what_is_wrong_is_refused_with_its_kind(text, kind):
    with pytest.raises(Lost) as lost:
        one(text)
    assert lost.value.kind == kind


def test_a_box_must_know_its_picture():
    with pytest.raises(Lost, match="none is named"):
        grounded([turn("Where?", "user", (0, 1)), turn("<box>(1,1),(2,2)</box>")], SIZES, "qwen-vl", None)
    said = "Picture 1 has <box>(1,1),(2,2)</box>, Picture 2 <box>(1,1),(2,2)</box>"
    assert [r["image"] for r in grounded([turn(said)], SIZES, "qwen-vl", None)[0]["regions"]] == [0, 1]


def test_regions_that_overlap_or_have_no_area_do_not_train():
    bare = {"image": 0, "size": [640, 480], "boxes": [[1, 1, 99, 99]]}
    turns = [turn("q", "user", (0, 1)), turn("a dog") | {"regions": [bare | {"span": [0, 3]}, bare | {"span": [2, 5]}]}]
    with pytest.raises(Lost) as lost:
        formatted(turns)
    assert lost.value.kind == "bad_dialogue"
    flat = [turn("q", "user", (0, 1)), turn("a dog") | {"regions": [bare | {"span": [0, 5], "boxes": [[9, 9, 9, 9]]}]}]
    assert isinstance(formatted(flat), Unfit)
