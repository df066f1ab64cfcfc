"""Records: members and back, image headers without decoding, guarded decoding."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corpus.records import BadImage, EncodedImage, Sample, decode_image, from_members, image_header, to_members

# What readers let in (corpus.values): no lone surrogates, no NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@given(TEXT, TEXT, st.lists(st.sampled_from([("jpg", b"J"), ("png", b"P"), ("webp", b"W")]), max_size=3))
@settings(max_examples=50)
def test_a_sample_survives_its_members(text, answer, images):
    sample = Sample(key="set/00000/000001", dataset="set", task="vqa", language="en", text=text, width=3, height=4,
                    images=[EncodedImage(data, ext) for ext, data in images], scores={"clip": 0.25},
                    source={"row": 1}, annotations={"question": "?", "answer": answer})  # fmt: skip
    members = to_members(sample)
    assert from_members(dict(members)) == sample
    assert [name for name, _ in members][-1] == "json"


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="'captions'; tasks are caption, vqa"):
        to_members(Sample(key="a/0/0", dataset="a", task="captions", language="en"))


@pytest.mark.parametrize("members", [{"jpg": b""}, {"json": b"{}"}, {"json": b"[1]"}, {"json": b"{"}])
def test_members_that_are_no_sample(members):
    with pytest.raises((ValueError, TypeError)):
        from_members(members)


@pytest.mark.parametrize("kind, ext", [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_header_gives_the_size(kind, ext):
    assert image_header(encoded(Image.new("RGB", (37, 21), "red"), kind)) == (ext, 37, 21)


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", "not_an_image"),
        (b"<html></html>", "not_an_image"),
        (encoded(Image.new("RGB", (9, 9)), "GIF"), "unsupported_image"),
        (encoded(Image.new("RGB", (9, 9)), "BMP"), "unsupported_image"),
        (encoded(Image.new("RGB", (90, 90)), "JPEG")[:-2], "truncated_image"),
        (encoded(Image.new("RGB", (90, 90)), "PNG")[:-12], "truncated_image"),
        (encoded(Image.new("RGB", (90, 90)), "WEBP")[:-5], "truncated_image"),
        (b"\xff\xd8\xff\xe0 and then nothing", "undecodable_image"),
        (encoded(Image.new("1", (20_000, 20_000))), "image_too_large"),
    ],
)
def test_bad_headers_name_their_kind(data, kind):
    with pytest.raises(BadImage) as caught:
        image_header(data)
    assert caught.value.kind == kind
    again = pickle.loads(pickle.dumps(caught.value))  # errors cross process borders
    assert (again.kind, str(again)) == (kind, str(caught.value))


def test_transparency_lies_over_white():
    assert decode_image(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    deep = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert decode_image(encoded(deep)).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA"])
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_image(encoded(Image.new(mode, (5, 5)), kind)).mode == "RGB"


def test_orientation_is_left_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert image_header(data)[1:] == decode_image(data).size == (40, 20)


def test_odd_photos_of_the_real_world(shared_data):
    for path in sorted(shared_data("photos").rglob("*.jp*g"))[:40]:
        data = path.read_bytes()
        try:
            ext, width, height = image_header(data)
            assert decode_image(data).size == (width, height)
        except BadImage as error:
            pytest.fail(f"{path.name}: {error.kind} {error}")


def test_a_jpeg_too_small_for_the_size_it_declares_is_truncated():
    data = bytearray(encoded(Image.new("RGB", (64, 64), "red"), "JPEG"))
    at = data.index(b"\xff\xc0") + 5  # the frame header: height and width, two bytes each
    data[at : at + 4] = (8000).to_bytes(2, "big") * 2
    with pytest.raises(BadImage, match="bytes cannot hold 8000 x 8000 pixels"):
        image_header(bytes(data))
