"""Passages and photos drawn from files."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpus.records import BadImage, Sample, to_members
from corpus.shards import ShardWriter
from synth_ocr.passages import BadCorpus, Corpus, built_in_corpus
from synth_ocr.photos import Photos, load_papers
from tests.test_shards import flip


def rng(*seed):
    return np.random.default_rng(seed)


def lines(count=2000):
    return [f"line{i:05d} " + "word " * 12 for i in range(count)]


def starts(corpus, draws=600):
    """Return, of many passages, the share of the corpus that lies before them."""
    found = []
    for i in range(draws):
        text, _ = corpus.passage(rng(i), 400)
        found.append(int(text[text.index("line") + 4 :][:5]) / 2000)
    return np.array(found)


def write_shard(path, texts):
    with open(path, "wb") as stream:
        writer = ShardWriter(stream)
        for i, text in enumerate(texts):
            sample = Sample(key=f"wiki/0/{i}", dataset="wiki", task="text", language="en", text=text)
            writer.write(sample.key, to_members(sample))
        writer.close()
    path.with_suffix(".idx").write_bytes(writer.index())
    return str(path)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "one_line.txt", "tar"])
def test_passages_start_anywhere_alike(tmp_path, kind):
    path = tmp_path / f"corpus.{kind}"
    if kind == "txt":
        path.write_text("\n".join(lines()))
    elif kind == "one_line.txt":
        path.write_text(" ".join(lines()))
    elif kind == "jsonl":
        # One long document and many short ones: each is met as often as it is long.
        documents = ["\n".join(lines()[:1000]), *lines()[1000:]]
        path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    else:
        write_shard(path, lines())
    shares = starts(Corpus([str(path)]))
    counts, _ = np.histogram(shares, bins=5, range=(0, 1))
    assert counts.min() > 80 and counts.max() < 165, counts


def test_passages_have_the_length_asked_for_and_come_back_the_same(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines()))
    corpus = Corpus([str(path)])
    text, place = corpus.passage(rng(3), 5000)
    assert len(text) == 5000 and corpus.passage(rng(3), 5000) == (text, place)
    assert place["corpus"] == "a.txt" and 0 <= place["byte"] < path.stat().st_size


def test_a_passage_goes_on_in_the_next_file_and_a_small_corpus_repeats(tmp_path):
    (tmp_path / "a.txt").write_text("one two three")
    (tmp_path / "b.txt").write_text("four five")
    text, _ = Corpus([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]).passage(rng(0), 300)
    assert len(text) == 300 and text.count("four") > 5 and text.count("three") > 5


def test_characters_are_never_cut_in_the_middle(tmp_path):
    path = tmp_path / "zh.txt"
    path.write_text("汉字測試" * 40_000, encoding="utf-8")
    corpus = Corpus([str(path)])
    for i in range(20):
        text, _ = corpus.passage(rng(i), 30_000)  # across several blocks
        assert set(text) <= set("汉字測試\n")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("empty.txt", b"", "empty_corpus"),
        ("blank.txt", b" \n\t \n" * 50, "empty_corpus"),
        ("gbk.txt", "中文数据清洗" .encode("gbk") * 500, "corpus_not_utf8"),
        ("bad.jsonl", b'{"text": "good"}\n{"text": \n' * 50, "bad_corpus_line"),
        ("other.jsonl", b'{"content": "no text"}\n' * 50, "bad_corpus_line"),
        ("number.jsonl", b'{"text": 5}\n' * 50, "bad_corpus_line"),
        ("wiki.txt.gz", b"\x1f\x8b", "unsupported_corpus"),
        ("foreign.tar", b"\0" * 1024, "shard_without_index"),
    ],
)  # fmt: skip
def test_a_bad_corpus_is_named(tmp_path, name, content, kind):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadCorpus, match=name.replace(".", r"\.")) as refused:
        Corpus([str(path)]).passage(rng(0), 1000)
    assert refused.value.kind == kind


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_built_in_corpus_is_text(language):
    text, _ = Corpus([built_in_corpus(language)]).passage(rng(0), 2000)
    assert len(text) == 2000 and len(set(text)) > 40


def test_photos_are_drawn_evenly_from_files_and_shards(tmp_path):
    for name, level in (("a.jpg", 10), ("b.png", 90)):
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / name)
    with open(tmp_path / "c.tar", "wb") as stream:
        writer = ShardWriter(stream)
        for i in range(2):
            writer.write(f"p/{i}", [("jpg", (tmp_path / "a.jpg").read_bytes())])
        writer.close()
    (tmp_path / "c.idx").write_bytes(writer.index())
    photos = Photos([str(tmp_path / name) for name in ("a.jpg", "b.png", "c.tar")])
    names = [photos.pick(rng(i))[1] for i in range(400)]
    counts = [names.count(name) for name in ("a.jpg", "b.png", "c.tar sample 0", "c.tar sample 1")]
    assert sum(counts) == 400 and min(counts) > 70
    assert photos.pick(rng(0))[0].shape == (8, 8, 3)


def test_photos_and_passages_that_rotted_are_errors_of_the_image_that_draws_them(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    path = Path(write_shard(tmp_path / "c.tar", ["hello"] * 20))
    with open(tmp_path / "p.tar", "wb") as stream:
        writer = ShardWriter(stream)
        writer.write("p/0", [("jpg", (tmp_path / "a.jpg").read_bytes())])
        writer.close()
    (tmp_path / "p.idx").write_bytes(writer.index())
    photos, corpus = Photos([str(tmp_path / "p.tar")]), Corpus([str(path)])
    flip(tmp_path / "p.tar", 5000)
    flip(path, 5000)
    with pytest.raises(BadImage, match="sample 0 is damaged") as refusal:
        photos.pick(rng(0))
    assert refusal.value.kind == "corrupt_sample"
    with pytest.raises(BadCorpus, match="sample 0 is damaged"):
        corpus.passage(rng(0), 300)


def test_a_tar_of_photos_needs_no_index(tmp_path):
    with tarfile.open(tmp_path / "coco.tar", "w") as tar:
        for i in range(3):
            Image.new("RGB", (8, 8), (i * 80,) * 3).save(tmp_path / f"{i}.JPG")
            (tmp_path / f"{i}.json").write_text("{}")
            tar.add(tmp_path / f"{i}.JPG", f"train/{i}.JPG")
            tar.add(tmp_path / f"{i}.json", f"train/{i}.json")
    photos = Photos([str(tmp_path / "coco.tar")])
    assert {int(photos.pick(rng(i))[0].mean()) // 70 for i in range(30)} == {0, 1, 2}
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(BadImage, match=r"bad\.tar"):
        Photos([str(tmp_path / "bad.tar")])


def test_photos_behave_on_real_and_on_broken_files(shared_data):
    good = sorted(map(str, shared_data("photos").glob("*.jpg")))
    photos = Photos(good)
    for i in range(40):
        photo, _ = photos.pick(rng(i))
        assert photo.dtype == np.uint8 and photo.shape[2] == 3 and max(photo.shape) <= 2048
    broken = sorted(str(path) for path in shared_data("images_bad").iterdir() if path.suffix in (".jpg", ".png"))
    refused = 0
    for path in broken:
        try:
            assert max(Photos([path]).pick(rng(0))[0].shape) <= 2048
        except BadImage as error:
            refused += 1
            assert path.rpartition("/")[2] in str(error)
    assert refused >= 3


def test_built_in_photos_are_colourful_and_plenty():
    photos = Photos([])
    names = {photos.pick(rng(i))[1] for i in range(120)}
    assert len(names) > 15 and any(name.startswith("clouds") for name in names)


def test_papers_are_grey_and_a_broken_one_is_named(tmp_path):
    assert all(paper.ndim == 2 for paper in load_papers([]))
    (tmp_path / "paper.jpg").write_bytes(b"\xff\xd8 nothing")
    with pytest.raises(BadImage, match=r"paper\.jpg"):
        load_papers([str(tmp_path / "paper.jpg")])
