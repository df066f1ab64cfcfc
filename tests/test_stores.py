"""Object stores: what is read together and ahead, and that a stage built from one is the stage built from a disk."""

import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scale_reading
from benchmarks.fake_s3 import FakeS3
from corpus import remote
from corpus.damage import CorruptSample, Damaged
from corpus.folder import OutputFolder
from corpus.remote import BLOCK_BYTES, GAP_BYTES, prefetched, runs
from corpus.shards import IndexedShard
from pipelines import build_stage
from pipelines.work import slices
from tests.cleaned import sample, write_cleaned
from tests.test_build_stage import build

SIZES = st.sampled_from([1, 1000, GAP_BYTES - 1, GAP_BYTES, GAP_BYTES + 1, BLOCK_BYTES, 3 * BLOCK_BYTES])


@given(st.lists(st.tuples(SIZES, st.booleans()), max_size=60))
def test_runs_are_what_one_request_reads(samples):
    offsets, indices = [0], [i for i, (_, chosen) in enumerate(samples) if chosen]
    for size, _ in samples:
        offsets.append(offsets[-1] + size)
    found = list(runs(offsets, indices))
    assert [i for run in found for i in run] == indices
    for run in found:
        assert len(run) == 1 or offsets[run[-1] + 1] - offsets[run[0]] <= BLOCK_BYTES
        assert all(offsets[b] - offsets[a + 1] <= GAP_BYTES for a, b in zip(run, run[1:], strict=False))
    for one, after in zip(found, found[1:], strict=False):
        apart = offsets[after[0]] - offsets[one[-1] + 1] > GAP_BYTES
        assert apart or offsets[after[0] + 1] - offsets[one[0]] > BLOCK_BYTES


def test_prefetching_keeps_the_order_and_is_so_far_ahead_and_no_farther():
    asked, gate = [], threading.Event()

    def items():
        for i in range(50):
            asked.append(i)
            yield i

    found = prefetched(lambda i: i if i == 0 else gate.wait(10) and i, items(), 3)
    assert next(found) == 0 and asked == [0, 1, 2, 3]
    gate.set()
    assert list(found) == list(range(1, 50))


def test_an_error_comes_in_its_turn_and_ends_the_reading():
    begun = []

    def work(i):
        begun.append(i)
        return 1 / (i - 5)

    found = prefetched(work, range(1000), 4)
    assert [next(found) for _ in range(5)] == [1 / (i - 5) for i in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert len(begun) <= 10


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    root = tmp_path_factory.mktemp("cleaned")
    for dataset, task in (("coco-caption", "caption"), ("gqa", "vqa"), ("in-house-text", "text"), ("chat-sft", "chat")):
        write_cleaned(root, dataset, [sample(dataset, task, i) for i in range(30)], splits=3)
    tar = root / "gqa/00001.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1  # a sample that does not match its checksum
    tar.write_bytes(data)
    return root


@pytest.fixture
def memory(cleaned):
    """The cleaned folders on a store."""
    store = fsspec.filesystem("memory")
    store.put(str(cleaned), "/stores/cleaned", recursive=True)
    yield "memory://stores"
    store.rm("/stores", recursive=True)


@pytest.mark.parametrize("flags", [(), ("--samples", "40"), ("--samples", "250", "--of", "present"), ("--limit", "4")])
@pytest.mark.parametrize("stage", [2, 3])
def test_a_stage_built_from_a_store_is_the_stage_built_from_a_disk(
    cleaned, memory, tmp_path, monkeypatch, flags, stage
):
    monkeypatch.setattr(build_stage, "SAMPLES_PER_SPLIT", 25)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 30_000)
    monkeypatch.setattr(remote, "GAP_BYTES", 2_000)
    build(cleaned, tmp_path / "local", *flags, stage=stage)
    build(f"{memory}/cleaned", f"{memory}/stage", *flags, stage=stage)
    local, store = OutputFolder(str(tmp_path / "local")), OutputFolder(f"{memory}/stage")
    names = [name for name in local.names() if name.endswith((".tar", ".idx", ".parquet")) or name == "corpus.json"]
    assert len(names) > 3 and names == [name for name in store.names() if name in names]
    assert [name for name in names if local.read(name) != store.read(name) and not name.endswith(".parquet")] == []
    for name in (name for name in names if name.endswith(".parquet")):
        assert _ledger(local, name, str(cleaned)) == _ledger(store, name, f"{memory}/cleaned")


def _ledger(folder: OutputFolder, name: str, root: str) -> list[dict]:
    """The rows of a ledger, in order; where the damaged shard lies is told in one."""
    rows = pq.read_table(pa.BufferReader(folder.read(name))).to_pylist()
    return [row | {"detail": (row["detail"] or "").replace(root, "")} for row in rows]


def test_images_are_fetched_once(cleaned, memory, monkeypatch, tmp_path):
    asked = []
    real = remote.get

    def get(fs, path, start=None, end=None):
        asked.append((path.rpartition("/")[2], start, end))
        return real(fs, path, start, end)

    monkeypatch.setattr("corpus.shards.get", get)
    slices.kept_keys.cache_clear()
    build(f"{memory}/cleaned", tmp_path / "stage", "--dataset", "coco-caption")
    of_tars = [(name, end - start) for name, start, end in asked if name.startswith("0000") and name.endswith(".tar")]
    ends = [(name, size) for name, size in of_tars if size == 1025]
    assert sorted(name for name, _ in ends) == ["00000.tar", "00001.tar", "00002.tar"]
    assert sorted(name for name, size in of_tars if size > 1025) == ["00000.tar", "00001.tar", "00002.tar"]


def test_what_was_fetched_is_read_from_the_spool_and_verified_again(cleaned, memory):
    shard, other = (IndexedShard(f"{memory}/cleaned/gqa/00000.tar") for _ in range(2))
    run = next(iter(shard.spool().runs([0, 1, 2, 5])))
    assert [shard.unpack(i, data) for i, data in zip(run, shard.fetch(run), strict=True)] == [shard[i] for i in run]
    store = fsspec.filesystem("memory")
    store.pipe("/stores/cleaned/gqa/00000.tar", b"gone")
    assert shard[5][0] == "gqa/00000/000015" and shard.whole(2)
    for broken in (lambda: other[5], lambda: shard[4]):  # number 4 was fetched with the others, but not asked for
        with pytest.raises(CorruptSample):
            broken()


@pytest.fixture
def s3(monkeypatch):
    """A bucket of our own S3, which counts."""
    s3fs = pytest.importorskip("s3fs")
    with FakeS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_shard_is_opened_by_two_requests_whatever_its_length(s3, cleaned):
    tar, index = (Path(f"{cleaned}/gqa/00000{suffix}").read_bytes() for suffix in (".tar", ".idx"))
    s3.objects |= {"a/00000.tar": tar, "a/00000.idx": index}
    assert len(IndexedShard("s3://crawl/a/00000.tar")) == 10 and dict(s3.requests) == {"GET": 2}
    for harm in (tar[:-1], tar[:-1024], tar[: len(tar) // 2], tar + b"x", b""):
        s3.objects["a/00000.tar"] = harm
        with pytest.raises(Damaged, match=f"has {len(harm)} bytes, its .idx says {len(tar)}"):
            IndexedShard("s3://crawl/a/00000.tar")
    s3.objects["a/00000.tar"] = tar[:-9] + b"x" + tar[-8:]
    with pytest.raises(Damaged, match="no end marker"):
        IndexedShard("s3://crawl/a/00000.tar")
    del s3.objects["a/00000.tar"]
    with pytest.raises(FileNotFoundError):
        IndexedShard("s3://crawl/a/00000.tar")


def test_samples_of_a_slice_take_less_than_a_tenth_of_a_request(s3, tmp_path):
    scale_reading.make_cleaned(tmp_path, 240, splits=2)
    scale_reading.put(s3, "cleaned", tmp_path)
    pieces = [{"folder": "s3://crawl/cleaned/coco-caption", "dataset": "coco-caption", "split": split, "start": 0,
               "stop": 120, "weight": 1.0, "copy": 0} for split in ("00000", "00001")]  # fmt: skip
    slices.kept_keys.cache_clear()
    found = [data for _, some in slices.read_slices(pieces, "caption", 0, None) for data in some or ()]
    assert len(found) == 240 and s3.requests.total() < 24, s3.requests
