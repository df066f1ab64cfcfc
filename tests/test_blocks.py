"""The cache of blocks on a node, and the trainer's packs from a store through it."""

import errno
import multiprocessing
import os
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from benchmarks import scale_reading
from corpus import cached_shard, order, packs, patience
from corpus.blocks import BlockCache, Fetchers, NoRoom
from corpus.damage import CorruptSample
from corpus.packs import StageFolder, WrongCorpus
from tests.test_stores import s3  # noqa: F401
from tests.tiny_stage import make_stage
from trainer import checkpoint, data
from trainer.data import PackBatches, Plan, batches
from trainer.progress import read_metrics
from trainer.run import Job, run_stage
from trainer.stages import differing, make_settings, read_settings

FORM = {"image_size": 112, "attention": "isolated"}


def nobody() -> bytes:
    raise AssertionError("it is there already")


def test_a_block_is_fetched_once_and_read_in_pieces(tmp_path):
    cache = BlockCache(tmp_path / "new" / "cache", 1000)
    assert not cache.holds("a") and cache.read("a", lambda: b"0123456789", 2, 5) == b"234"
    assert cache.holds("a") and cache.read("a", nobody, 8, 10) == b"89" and cache.read("a", nobody) == b"0123456789"
    cache.drop("a")
    assert cache.read("a", lambda: b"other") == b"other"


def test_above_the_bound_the_one_goes_that_was_used_least_lately(tmp_path):
    cache = BlockCache(tmp_path, 100)
    for number, name in enumerate("abc"):
        cache.read(name, lambda: bytes(30))
        os.utime(tmp_path / name, (number, number))
    cache.read("a", nobody, 0, 1)
    cache.read("d", lambda: bytes(30))
    assert [cache.holds(name) for name in "abcd"] == [True, False, True, True]
    cache.read("e", lambda: bytes(500))  # larger than the bound: it is used, and goes next
    assert [cache.holds(name) for name in "abcde"] == [False] * 4 + [True]
    cache.clear("e")
    assert not cache.holds("e")


def test_threads_and_processes_fetch_a_block_once(tmp_path):
    cache, log = BlockCache(tmp_path / "cache", 10_000), tmp_path / "log"

    def fetch() -> bytes:
        with open(log, "a") as file:
            file.write("x")
        threading.Event().wait(0.05)
        return bytes(100)

    def read() -> None:
        assert cache.read("block", fetch, 10, 20) == bytes(10)

    workers = [multiprocessing.get_context("fork").Process(target=read) for _ in range(4)]
    workers += [threading.Thread(target=read) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert log.read_text() == "x"


def test_what_killed_processes_left_goes_and_what_others_write_stays(tmp_path):
    cache = BlockCache(tmp_path, 100)
    for name, age in (("left.tmp", 7200), ("being-written.tmp", 5)):
        (tmp_path / name).write_bytes(bytes(90))
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cache.read("a", lambda: bytes(90))
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {"a", "being-written.tmp"}


def test_a_full_disk_is_told_of_and_leaves_nothing(tmp_path, monkeypatch):
    cache = BlockCache(tmp_path, 10**9)

    def full(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NoRoom, match="the disk is full: .* another --cache-dir, or less than --cache-gb 1$"):
        cache.read("a", lambda: b"data")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == []


def test_fetchers_forget_what_fails_and_what_there_is_no_room_for():
    gate, done = threading.Event(), []
    fetchers = Fetchers(1, 2)
    fetchers.ask("a", lambda: gate.wait(10))
    while not fetchers._waiting.empty():
        pass
    fetchers.ask("a", lambda: done.append("twice"))
    for name in "bcd":
        fetchers.ask(name, lambda name=name: done.append(name) if name == "c" else 1 / 0)
    gate.set()
    while not done:
        pass
    assert done == ["c"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("blocks") / "stage", stage=2, tasks=("caption", "text"), per_task=24)


@pytest.fixture
def small(monkeypatch):
    """Windows of 2 blocks of 3 packs, so that a small corpus has several."""
    for name, value in {"BLOCK": 3, "WINDOW": 2, "LANES": 2, "_WINDOW": 6, "_SLOTS": 1}.items():
        monkeypatch.setattr(order, name, value)
    monkeypatch.setattr(packs, "BLOCK", 3)


@pytest.fixture
def stored(stage):
    """The stage folder on a store."""
    store = fsspec.filesystem("memory")
    store.put(str(stage), "/blocks/stage", recursive=True)
    yield "memory://blocks/stage"
    store.rm("/blocks", recursive=True)


def stream(folder: StageFolder, steps: int, first: int = 0, plan: Plan | None = None, order: str = "blocks") -> list:
    image_token = folder.tokenizer().image_pad
    dataset = PackBatches(folder, seed=1, order=order, image_token=image_token, **FORM)
    return list(batches(dataset, plan or Plan(4, 2), first, steps, 0, False))


def same(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x["tokens"], y["tokens"]) and torch.equal(x["pixels"], y["pixels"]) and x["rows"] == y["rows"]
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("bound", [10**9, 1])
def test_training_sees_the_same_from_a_store_as_from_a_disk(stage, stored, small, tmp_path, bound):
    """However small the cache is; and from any step on."""
    local = stream(StageFolder(str(stage)), 9)
    remote = StageFolder(stored, BlockCache(tmp_path / "cache", bound))
    assert same(local, stream(remote, 9)) and same(local[10:], stream(remote, 9, first=5))
    assert len({row["key"] for batch in local for row in batch["rows"]}) == min(36, len(remote))


def test_loader_workers_read_through_the_cache(stage, s3, tmp_path):  # noqa: F811
    scale_reading.put(s3, "stage", Path(stage))
    folder = StageFolder("s3://crawl/stage", BlockCache(tmp_path / "cache", 10**9))
    dataset = PackBatches(folder, seed=1, order="blocks", image_token=folder.tokenizer().image_pad, **FORM)
    s3.requests.clear()
    found = list(batches(dataset, Plan(4, 2), 0, 6, 2, False))
    assert same(found, stream(StageFolder(str(stage)), 6))
    shards, blocks = len(folder.record["shards"]), -(-len(folder) // order.BLOCK)
    assert s3.requests.total() <= 3 * shards + blocks + shards, s3.requests  # a block may lie in two shards
    s3.requests.clear()
    stream(StageFolder("s3://crawl/stage", BlockCache(tmp_path / "cache", 10**9)), 6)
    assert s3.requests["GET"] - _of_start(folder, s3) <= 1, s3.requests


def test_blocks_are_fetched_long_before_their_turn_but_not_beyond_the_end(stage, stored, small, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "AHEAD", 12)
    folder, asked = StageFolder(stored, BlockCache(tmp_path, 10**9)), []
    real = folder.expect
    monkeypatch.setattr(folder, "expect", lambda packs: real(asked.append(tuple(packs)) or asked[-1]))
    dataset = PackBatches(folder, seed=1, order="blocks", image_token=0, **FORM)
    now, later = (folder.index(1, position, "blocks") for position in (0, 12))
    for dataset.until in (None, 12, 13):
        dataset.begin((0,))
    assert asked == [(now,), (now,), (now, later)] and now // 3 != later // 3
    deadline = time.monotonic() + 20
    while len(_blocks(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert folder[now] and folder[later] and len(_blocks(tmp_path)) == 2
    folder.forget()
    assert _blocks(tmp_path) == []


def _blocks(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name[0] != "." and path.suffix not in (".idx", ".tmp")]


def test_ranks_keep_to_their_lanes_whatever_a_step_takes():
    for rank in range(4):
        positions = [p for step in range(9) for micro in Plan(7, 1, rank, 4).step(step) for p in micro]
        assert positions == list(range(rank, 63, 4))


def _of_start(folder: StageFolder, server) -> int:
    """Requests of opening a folder and its tokenizer."""
    before = server.requests["GET"]
    StageFolder(folder.path).tokenizer()
    return server.requests["GET"] - before


def test_a_block_that_rots_on_the_node_is_fetched_again(stage, stored, small, tmp_path):
    folder = StageFolder(stored, BlockCache(tmp_path, 10**9))
    whole = [folder[i].tokens for i in range(len(folder))]
    for path in tmp_path.iterdir():
        if not path.name.startswith(".lock"):
            held = bytearray(path.read_bytes())
            held[len(held) // 2] ^= 1
            path.write_bytes(held[: len(held) - 600 if path.suffix != ".idx" else None])
    again = StageFolder(stored, BlockCache(tmp_path, 10**9))
    assert all(np.array_equal(whole[i], again[i].tokens) for i in range(len(again)))


def test_damage_and_mistakes_in_the_store_are_seen_through_the_cache(stage, stored, small, tmp_path):
    store, folder = fsspec.filesystem("memory"), StageFolder(stored, BlockCache(tmp_path, 10**9))
    tar = f"/blocks/stage/{folder.record['shards'][0]['id']}.tar"
    altered = bytearray(store.cat_file(tar))
    altered[600] ^= 1
    store.pipe(tar, bytes(altered))
    with pytest.raises(CorruptSample, match="sample 0 is damaged"):
        folder[0]
    assert len(folder[1].tokens)
    last = folder.record["shards"][-1]["id"]
    store.pipe(f"/blocks/stage/{last}.json", b'{"files": {"tar": "another"}}')
    with pytest.raises(WrongCorpus, match=f"{last}.tar is not the shard"):
        folder[len(folder) - 1]


def test_a_store_that_fails_for_a_while_does_not_end_the_run(stage, stored, small, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "_pauses", lambda: iter([0.01] * 50))
    failures, real = iter([ConnectionResetError, TimeoutError, None] * 99), cached_shard.get

    def get(*asked):
        if error := next(failures):
            raise error
        return real(*asked)

    monkeypatch.setattr(cached_shard, "get", get)
    folder = StageFolder(stored, BlockCache(tmp_path, 10**9))
    assert all(np.array_equal(folder[i].tokens, StageFolder(str(stage))[i].tokens) for i in range(7))
    assert next(failures) is ConnectionResetError


@pytest.mark.slow
def test_a_run_goes_on_in_the_order_it_began_in(stage, small, tmp_path):
    """Runs of earlier versions had every pack anywhere."""
    torch.set_num_threads(1)
    flags = {"batch": 4, "steps": 4, "save_every": 2, "deterministic": True, "keep": 3}
    job = {"stage": 2, "data": str(stage)}
    run_stage(Job(output=tmp_path / "old", flags=flags | {"order": "packs"}, **job))
    run_stage(Job(output=tmp_path / "new", flags=flags, **job))
    told = {name: _state(tmp_path / name, 4) for name in ("old", "new")}
    assert [told[name]["settings"]["order"] for name in ("old", "new")] == ["packs", "blocks"]
    for name, state in told.items():
        (tmp_path / name / "checkpoints/latest").write_text("step-00000002")
        losses = _losses(tmp_path / name)
        run_stage(Job(output=tmp_path / name, flags=flags, resume="auto", **job))
        assert _state(tmp_path / name, 4)["settings"]["order"] == state["settings"]["order"]
        assert _losses(tmp_path / name)[-2:] == losses[-2:]
    assert _losses(tmp_path / "old") != _losses(tmp_path / "new")


@pytest.mark.slow
def test_a_run_from_a_store_is_the_run_from_a_disk(stage, s3, small, tmp_path):  # noqa: F811
    torch.set_num_threads(1)
    scale_reading.put(s3, "stage", Path(stage))
    job = {"stage": 2, "cache_dir": str(tmp_path / "cache"), "flags": {"batch": 4, "steps": 3, "deterministic": True}}
    run_stage(Job(data=str(stage), output=tmp_path / "disk", **job))
    assert not (tmp_path / "cache").exists()
    run_stage(Job(data="s3://crawl/stage", output=tmp_path / "store", **job))
    assert _losses(tmp_path / "disk") == _losses(tmp_path / "store")
    assert [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".lock")] == []


def _state(run: Path, step: int) -> dict:
    return checkpoint.read_state(run / f"checkpoints/step-{step:08d}")


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run)]


def test_settings_without_an_order_are_of_the_time_before():
    now = make_settings(1, "tiny")
    older = {name: value for name, value in checkpoint.json_form(now.to_dict()).items() if name != "order"}
    assert now.order == "blocks" and read_settings(older).order == "packs"
    assert differing(older, now) == ["order: packs -> blocks"]
