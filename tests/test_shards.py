"""Shards: what is written is read back, damage never ends a shard in silence, the index gives random access."""

import gzip
import io
import random
import struct
import tarfile

import fsspec
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.damage import CorruptSample, Damaged
from corpus.shards import IndexedShard, ShardWriter, read_samples, read_shard

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
@settings(max_examples=60)
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


def stored(folder, samples) -> tuple:
    """Write a shard and its index; return their paths."""
    tar, index = written(samples)
    (folder / "s.tar").write_bytes(tar)
    (folder / "s.idx").write_bytes(index)
    return folder / "s.tar", folder / "s.idx"


def flip(path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


FIVE = [(f"k{i}", [("txt", b"x" * (i * 400)), ("json", b"{}")]) for i in range(5)]
OFFSETS = [0, 1536, 3584, 6144, 9216, 12800]


def test_a_flipped_bit_costs_its_sample_alone(tmp_path):
    tar, _ = stored(tmp_path, FIVE)
    shard = IndexedShard(str(tar))
    rng = random.Random(5)
    for bit in [*rng.sample(range(OFFSETS[-1] * 8), 40), 0]:  # bit 0: a key, so that only the checksum can tell
        flip(tar, bit)
        hit = next(i for i in range(5) if bit // 8 < OFFSETS[i + 1])
        with pytest.raises(CorruptSample, match=f"s.tar: sample {hit} is damaged.*verify.py {tmp_path} --discard"):
            shard[hit]
        assert [shard.whole(i) for i in range(5)] == [i != hit for i in range(5)]
        read = list(read_samples(str(tar)))
        assert [raw.problem for raw in read] == [None if i != hit else "corrupt_sample" for i in range(5)]
        assert [raw.members for i, raw in enumerate(read) if i != hit] == [
            dict(m) for i, (_, m) in enumerate(FIVE) if i != hit
        ]
        flip(tar, bit)


def test_an_index_that_is_cut_or_altered_is_refused(tmp_path):
    tar, index = stored(tmp_path, FIVE)
    whole = index.read_bytes()
    for size in range(len(whole)):
        index.write_bytes(whole[:size])
        for read in (IndexedShard, lambda path: list(read_samples(path))):
            with pytest.raises(Damaged, match="s.idx .* is cut or altered"):
                read(str(tar))
    index.write_bytes(whole)
    for bit in range(len(whole) * 8):
        flip(index, bit)
        with pytest.raises(Damaged, match="s.idx .* is cut or altered"):
            IndexedShard(str(tar))
        flip(index, bit)


@pytest.mark.parametrize("harm", [lambda tar: tar[:-1], lambda tar: tar[:900], lambda tar: tar + b"x", lambda tar: b""])
def test_a_tar_of_another_length_than_its_index_says(tmp_path, harm):
    tar, _ = stored(tmp_path, FIVE)
    tar.write_bytes(harm(tar.read_bytes()))
    for read in (IndexedShard, lambda path: list(read_samples(path))):
        with pytest.raises(Damaged, match="s.tar has .* bytes, its .idx says 13824"):
            read(str(tar))


def test_an_altered_end_marker_is_noticed(tmp_path):
    tar, _ = stored(tmp_path, FIVE)
    flip(tar, OFFSETS[5] * 8 + 1234)
    with pytest.raises(Damaged, match="no end marker"):
        IndexedShard(str(tar))


def test_an_index_without_checksums_is_still_read(tmp_path):
    tar, index = stored(tmp_path, FIVE)
    index.write_bytes(struct.pack("<6Q", *OFFSETS))  # version 1
    shard = IndexedShard(str(tar))
    assert [shard[i] for i in range(5)] == [(key, dict(members)) for key, members in FIVE]
    assert [raw.key for raw in read_samples(str(tar))] == [key for key, _ in FIVE]
    index.write_bytes(struct.pack("<6Q", *OFFSETS[:4], 9217, OFFSETS[5]))
    with pytest.raises(Damaged, match="s.idx"):
        IndexedShard(str(tar))


def test_an_index_of_others_is_left_alone(tmp_path):
    tar, index = stored(tmp_path, FIVE)
    index.write_text("v1.2 5\njpg 512 4\n")
    assert [raw.key for raw in read_samples(str(tar))] == [key for key, _ in FIVE]


def test_a_remote_shard_is_verified(tmp_path):
    tar, index = written(FIVE)
    fs = fsspec.filesystem("memory")
    fs.pipe("/integrity/s.idx", index)
    fs.pipe("/integrity/s.tar", tar)
    assert [IndexedShard("memory://integrity/s.tar")[i][0] for i in range(5)] == [key for key, _ in FIVE]
    fs.pipe("/integrity/s.tar", tar[:600] + b"!" + tar[601:])
    with pytest.raises(CorruptSample, match="sample 0"):
        IndexedShard("memory://integrity/s.tar")[0]
    assert next(read_samples("memory://integrity/s.tar")).problem == "corrupt_sample"


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


def test_adjacent_samples_of_one_key_are_refused():
    writer = ShardWriter(io.BytesIO())
    for _ in range(2):
        writer.write("a", [("txt", b"")])
    with pytest.raises(ValueError, match="two samples have the key 'a'"):
        writer.close()


def archived(entries, form=tarfile.GNU_FORMAT) -> bytes:
    """A tar of (name, type, data) as other programs write it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, kind, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "elsewhere" * 20 if kind == tarfile.SYMTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def problems(data: bytes) -> list[tuple[str, str | None]]:
    return [(raw.key, raw.problem) for raw in read_shard(io.BytesIO(data))]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_and_fifos_are_problems_and_keep_their_names(form):
    long = "set/" + "l" * 150
    entries = [
        ("set", tarfile.DIRTYPE, b""), (f"{long}.jpg", tarfile.SYMTYPE, b""), ("set/b.jpg", tarfile.REGTYPE, b"B"),
        ("set/c.jpg", tarfile.FIFOTYPE, b""), ("set/d.jpg", tarfile.LNKTYPE, b""), ("set/d.txt", tarfile.REGTYPE, b"D"),
    ]  # fmt: skip
    assert problems(archived(entries, form)) == [
        (long, "not_a_file"), ("set/b", None), ("set/c", "not_a_file"), ("set/d", "not_a_file"),
    ]  # fmt: skip


def test_names_that_differ_in_case_alone_are_one_member_twice():
    entries = [("a.jpg", tarfile.REGTYPE, b"1"), ("a.JPG", tarfile.REGTYPE, b"2"), ("b.JPG", tarfile.REGTYPE, b"3")]
    assert problems(archived(entries)) == [("a", "duplicate_member"), ("b", None)]


def test_a_negative_size_is_a_problem():
    info = tarfile.TarInfo("a.jpg")
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 11 + b"\x9c"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    assert problems(bytes(header) + bytes(5000)) == [("", "truncated_shard")]


def test_compressed_shards_cut_or_with_a_wrong_checksum(tmp_path):
    whole = gzip.compress(written([(f"k{i}", [("txt", random.Random(i).randbytes(900))]) for i in range(8)])[0])
    path = tmp_path / "s.tar.gz"
    path.write_bytes(whole)
    assert [raw.problem for raw in read_samples(str(path))] == [None] * 8
    path.write_bytes(whole[: len(whole) // 2])
    found = [raw.problem for raw in read_samples(str(path))]
    assert set(found[:-1]) == {None} and found[-1] == "truncated_shard"
    path.write_bytes(whole[:-6] + b"\1\2" + whole[-4:])
    assert [raw.problem for raw in read_samples(str(path))] == [None] * 8 + ["damaged_stream"]
    path.write_bytes(b"\x1f\x8b but no more")
    assert [raw.problem for raw in read_samples(str(path))] == ["damaged_stream"]


def test_a_tar_behind_a_tar_is_not_passed_over_in_silence():
    one, two = written(FIVE[:1])[0], written(FIVE[1:])[0]
    assert problems(one + bytes(1 << 14)) == [("k0", None)]
    assert problems(one + two) == [("k0", None), ("", "data_after_end")]


def test_errors_of_the_system_are_not_taken_for_damage():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        list(read_shard(Broken()))
