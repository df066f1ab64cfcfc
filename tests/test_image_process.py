"""Images behind locks: the same answers to the byte, and nothing that a captured decoder could do but answer."""

import io
import json
import os
import random
import threading

import numpy as np
import pytest
from PIL import Image

from corpus import records
from corpus.records import BadImage, decode_image, image_header, verify_image
from pipelines.engine import job
from renderers import image_process
from renderers.confined import Nonsense
from renderers.image_process import ImageProcess, check_answer, lock_up_images
from tests.fuzz import blot, cut, flip
from tests.test_clean_laion import CAPTION, clean, shard
from tests.test_job import contents
from tests.test_sandbox import DEADLY, FILES, play  # noqa: F401


@pytest.fixture
def locked():
    """The images of this process are read behind locks."""
    lock_up_images(True)
    yield image_process._decoder
    lock_up_images(False)


def encoded(mode: str, kind: str, side: int = 40, **options) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 4), np.uint8)
    deep = mode == "I;16"
    image = Image.fromarray(pixels[..., 0] * np.uint16(257)) if deep else Image.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images() -> list[bytes]:
    whole = [
        encoded("RGB", "JPEG", comment=b"said"), encoded("L", "JPEG"), encoded("CMYK", "JPEG"), encoded("RGB", "PNG"),
        encoded("RGBA", "PNG"), encoded("P", "PNG", transparency=3), encoded("LA", "PNG"), encoded("1", "PNG"),
        encoded("I;16", "PNG"), encoded("RGB", "WEBP"), encoded("RGBA", "WEBP"),
        encoded("RGB", "PNG", icc_profile=b"profile"), encoded("RGB", "JPEG", progressive=True),
    ]  # fmt: skip
    rng = random.Random(0)
    broken = [rng.choice([flip, cut, blot])(rng.choice(whole), rng) for _ in range(60)]
    return [*whole, *broken, b"", b"GIF89a", encoded("P", "GIF")]


def answers(data: bytes) -> list:
    """What the functions of corpus.records say of an image."""
    found = []
    for ask in (image_header, _written, verify_image, lambda data: verify_image(data, image_header(data)[1:])):
        try:
            found.append(ask(data))
        except BadImage as error:
            found.append((error.kind, str(error)))
    return found


def _written(data: bytes) -> list[bytes]:
    """The pixels of an image, and the files that are made of it."""
    image = decode_image(data)
    files = [io.BytesIO(), io.BytesIO()]
    image.save(files[0], "JPEG"), image.save(files[1], "PNG")
    return [image.tobytes(), *(file.getvalue() for file in files)]


def test_every_answer_is_the_one_of_this_process(locked):
    there = [answers(data) for data in images()]
    lock_up_images(False)
    assert there == [answers(data) for data in images()]
    assert sum(isinstance(found[1], list) for found in there) >= 13


def test_what_is_said_of_an_image_is_the_same_in_every_run():
    with pytest.raises(BadImage, match="damaged header: no image can be made of it"):
        image_header(b"\xff\xd8\xff" + b"a" * 50)


def outcomes(play: dict) -> dict[str, str]:  # noqa: F811
    with pytest.raises(BadImage) as answer:
        image_header(json.dumps(play).encode())
    assert answer.value.kind == "report", answer.value
    return json.loads(str(answer.value))


def test_a_captured_decoder_can_do_nothing_but_compute_and_answer(play, monkeypatch, request):  # noqa: F811
    monkeypatch.setattr(image_process, "WORKER", "tests.hostile_decoder")
    request.getfixturevalue("locked")
    before = sorted(os.listdir(play["folder"]))
    found = outcomes(play)
    assert len(found) == 69 and [name for name, outcome in found.items() if outcome == "done"] == []
    assert sorted(os.listdir(play["folder"])) == before
    with pytest.raises(BadImage, match="SIGSYS"):
        image_header(json.dumps(play | {"only": DEADLY[0]}).encode())


@pytest.mark.parametrize(
    ("played", "said"), [({"abort": 1}, "crash, its process ended: SIGABRT"), ({"spin": 1}, "timeout, more than 1 s"),
                         ({"say": "00" * 20, "spin": 1}, "no message")]
)  # fmt: skip
def test_a_crash_or_a_hang_costs_one_image(played, said, monkeypatch):
    monkeypatch.setattr(image_process, "WORKER", "tests.hostile_decoder")
    monkeypatch.setattr(image_process, "SECONDS", 1)
    decoder = ImageProcess()
    with pytest.raises(BadImage, match=said) as error:
        decoder.image_header(json.dumps(played).encode(), 100)
    assert error.value.kind == "undecodable_image"
    assert decoder.decode_image(encoded("RGB", "PNG"), 1600).size == (40, 40)
    decoder.stop()


def test_a_process_that_is_gone_is_replaced_and_threads_take_turns(locked):
    data = encoded("RGB", "JPEG")
    locked._process.kill()
    locked._process.wait()
    expected, found = decode_image(data).tobytes(), []
    threads = [threading.Thread(target=lambda: found.append(decode_image(data).tobytes())) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8


GOOD = {"size": [2, 3], "info": [], "ext": "png"}


@pytest.mark.parametrize(
    ("question", "answer", "blobs"),
    [
        ("header", GOOD | {"ext": "exe"}, []), ("header", GOOD | {"size": [2, 999]}, []), ("verify", {}, [b"x"]),
        ("header", GOOD | {"size": [0, 3]}, []), ("header", GOOD | {"size": [2.0, 3]}, []), ("header", GOOD, [b""]),
        ("decode", GOOD, [bytes(17)]), ("decode", GOOD, []), ("decode", GOOD | {"info": ["exif"]}, [bytes(18), b""]),
        ("decode", GOOD | {"info": ["comment"]}, [bytes(18)]), ("header", [], []), ("header", {"failed": "A b"}, []),
        ("header", {"failed": "a", "detail": "x" * 10_001}, []), ("decode", {"bug": 3}, []),
    ],
)  # fmt: skip
def test_answers_that_are_none_of_ours_are_nonsense(question, answer, blobs):
    check_answer("header", 100, GOOD, [])
    check_answer("decode", 100, GOOD | {"info": ["comment"]}, [bytes(18), b"x"])
    with pytest.raises(Nonsense):
        check_answer(question, 100, answer, blobs)


def test_a_wall_that_cannot_be_built_stops_the_job_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(image_process, "WORKER", "tests.refused_parser")
    tar = shard(tmp_path / "a.tar", [(encoded("RGB", "JPEG"), CAPTION, {})])
    with pytest.raises(SystemExit, match="(?s)refuses to lock up the image decoder.*without --sandbox-images"):
        job.main(lambda: clean(tmp_path, tar, "--sandbox-images"))
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_ends_with_the_same_bytes_and_reads_no_image_itself(workers, tmp_path, monkeypatch):
    pairs = [(data, f"{CAPTION}, {i}", {}) for i, data in enumerate(images()) if data]
    tar = shard(tmp_path / "a.tar", pairs)
    clean(tmp_path, tar, "--decode", output="free")
    monkeypatch.setattr(records, "_open", None)  # of this process: the one behind locks has its own
    clean(tmp_path, tar, "--decode", "--sandbox-images", "--workers", str(workers), output="locked")
    lock_up_images(False)
    assert contents(tmp_path / "locked") == contents(tmp_path / "free")
