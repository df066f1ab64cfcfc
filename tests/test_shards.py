"""Shards: what is written is read back, damage never ends a shard in silence, the index gives random access."""

import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.shards import IndexedShard, ShardWriter, read_shard

NAMES = st.text("abcdef0123456789_-", min_size=1, max_size=120)
MEMBERS = st.lists(st.tuples(st.sampled_from(["jpg", "txt", "json", "000.png"]), st.binary(max_size=1500)),
                   min_size=1, max_size=3, unique_by=lambda member: member[0])  # fmt: skip
SAMPLES = st.lists(st.tuples(NAMES, MEMBERS), max_size=6, unique_by=lambda sample: sample[0])


def written(samples) -> tuple[bytes, bytes]:
    file = io.BytesIO()
    writer = ShardWriter(file)
    for key, members in samples:
        writer.write(key, members)
    writer.close()
    return file.getvalue(), writer.index()


@given(SAMPLES)
@settings(max_examples=60, deadline=None)
def test_samples_survive_the_round_trip(samples):
    tar, _ = written(samples)
    assert [(raw.key, raw.members, raw.problem) for raw in read_shard(io.BytesIO(tar))] == [
        (key, dict(members), None) for key, members in samples
    ]
    assert written(samples)[0] == tar


def test_other_readers_open_our_shards(tmp_path):
    tar, _ = written([("set/00000/000000", [("jpg", b"J"), ("json", b"{}")]), ("b", [("txt", b"x")])])
    path = tmp_path / "00000.tar"
    path.write_bytes(tar)
    with tarfile.open(path) as opened:
        assert opened.getnames() == ["set/00000/000000.jpg", "set/00000/000000.json", "b.txt"]
    assert [s["__key__"] for s in webdataset.WebDataset(str(path), shardshuffle=False)] == ["set/00000/000000", "b"]


def test_index_gives_every_sample(tmp_path):
    samples = [(f"k{i}", [("txt", b"x" * (i * 400)), ("json", b"{}")]) for i in range(5)]
    tar, index = written(samples)
    (tmp_path / "s.tar").write_bytes(tar)
    (tmp_path / "s.idx").write_bytes(index)
    shard = IndexedShard(str(tmp_path / "s.tar"))
    assert len(shard) == 5
    assert [shard[i] for i in (4, 0, 2)] == [(samples[i][0], dict(samples[i][1])) for i in (4, 0, 2)]


def test_damage_under_an_index_names_the_shard(tmp_path):
    tar, index = written([("a", [("txt", b"x" * 2000)])])
    (tmp_path / "s.tar").write_bytes(tar[:900])
    (tmp_path / "s.idx").write_bytes(index)
    with pytest.raises(ValueError, match="s.tar: sample 0 cannot be read"):
        IndexedShard(str(tmp_path / "s.tar"))[0]


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1536, 2560, 3000])
def test_a_truncated_tar_ends_with_a_problem(cut):
    tar, _ = written([("a", [("txt", b"x" * 600)]), ("b", [("txt", b"y" * 600)])])
    problems = [raw.problem for raw in read_shard(io.BytesIO(tar[:cut]))]
    assert problems[-1] == "truncated_shard"
    assert problems.count("truncated_shard") == 1


def test_a_key_that_comes_back_is_a_problem():
    tar, _ = written([("a", [("txt", b"1")]), ("b", [("txt", b"2")]), ("a", [("json", b"3")])])
    assert [raw.problem for raw in read_shard(io.BytesIO(tar))] == [None, None, "duplicate_key"]


def test_a_member_that_claims_gigabytes_is_stepped_over():
    info = tarfile.TarInfo("a.jpg")
    info.size = 5 << 30
    problems = [raw.problem for raw in read_shard(io.BytesIO(info.tobuf() + b"short"))]
    assert problems[0] == "member_too_large"


def test_long_names_of_other_writers():
    file, name = io.BytesIO(), "folder/" + "k" * 150
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            info = tarfile.TarInfo(name + ".txt")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        (raw,) = read_shard(io.BytesIO(file.getvalue()))
        assert (raw.key, raw.members) == (name, {"txt": b"x"})


def test_a_key_with_a_dot_is_refused():
    with pytest.raises(ValueError, match="dot"):
        ShardWriter(io.BytesIO()).write("a.b", [("txt", b"")])
