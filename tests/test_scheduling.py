"""Which split runs when, on a Ray with a clock of its own: many workers, stragglers, nodes that come and go."""

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.fake_ray import FakeRay, in_place_of_ray, overhead
from pipelines.engine import cluster
from pipelines.engine.scheduling import Failed
from tests import test_job

ROOT = Path(__file__).resolve().parent.parent
TWO_NODES = """
import os, sys, time
sys.path.insert(0, os.getcwd())
from ray.cluster_utils import Cluster
from pipelines.engine import cluster, scheduling
scheduling.LOOK_SECONDS, scheduling.STRAGGLER_SECONDS = 1, 2
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = nodes.address
os.environ["PYTHONPATH"] = os.getcwd()
mark = sys.argv[1]
def work(split):
    if split == 3:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return split
        import time
        time.sleep(600)
    return split
began = time.monotonic()
found = sorted(result for _, result in cluster.run_splits(work, range(6), copies=True))
print(found, time.monotonic() - began < 100, flush=True)
cluster.stop()
nodes.shutdown()
"""


def about(seconds: float):
    """So many seconds a split, give or take a fifth; always the same for the same split."""
    return lambda split, copy: random.Random(f"{split} {copy}").uniform(0.8 * seconds, 1.2 * seconds)


def run(fake: FakeRay, splits: int, work=lambda split: split, **options) -> dict:
    with in_place_of_ray(fake):
        found = list(cluster.run_splits(work, range(splits), **options))
    assert sorted(split for split, _ in found) == list(range(splits))  # each once
    return dict(found)


def test_scheduling_costs_less_than_a_twentieth():
    assert overhead(4_000, 8_000, about(8)) < 0.05  # more ends a second than of 10,000 workers at 30 s


def test_a_straggler_is_run_again_beside_itself_and_counts_once():
    fake = FakeRay(lambda split, copy: 10_000 if split == 7 and copy == 1 else 30, {0.0: 10})
    assert run(fake, 100, copies=True)[7] == 7
    assert fake.now < 500 and fake.copies == fake.cancelled == 1


@pytest.mark.parametrize("options, nodes", [({"copies": False}, 2), ({"copies": True}, 1)])
def test_no_copy_where_none_may_be_or_helps(options, nodes):
    fake = FakeRay(lambda split, copy: 1_000 if split == 7 and copy == 1 else 30, {0.0: 10}, nodes)
    run(fake, 100, **options)
    assert fake.now >= 1_000 and fake.copies == 0


def test_nothing_is_copied_that_takes_no_longer_than_others():
    fake = FakeRay(about(600), {0.0: 10})
    run(fake, 35, copies=True)
    assert fake.copies == 0


def test_a_slow_split_that_ends_before_its_copy_is_the_result():
    fake = FakeRay(lambda split, copy: (200 if copy == 1 else 10_000) if split == 7 else 30, {0.0: 10})
    run(fake, 20, copies=True)
    assert fake.copies == fake.cancelled == 1 and fake.now < 300


def test_a_copy_that_fails_leaves_the_word_to_the_other():
    tries = []

    def work(split):
        if split != 7:
            return split
        tries.append(split)
        return Failed("no memory") if len(tries) == 1 else split

    fake = FakeRay(lambda split, copy: (400 if copy == 1 else 50) if split == 7 else 30, {0.0: 10})
    assert run(fake, 20, work, copies=True)[7] == 7 and len(tries) == 2


def test_a_split_of_which_every_copy_fails_has_failed():
    fake = FakeRay(lambda split, copy: (400 if copy == 1 else 50) if split == 7 else 30, {0.0: 10})
    found = run(fake, 20, lambda split: Failed("no memory") if split == 7 else split, copies=True)
    assert found[7] == Failed("no memory") and fake.copies == 1


def test_a_bug_in_a_copy_stops_the_job():
    fake = FakeRay(lambda split, copy: 30, {0.0: 10})
    with pytest.raises(ZeroDivisionError):
        run(fake, 20, lambda split: 1 / (split - 7))


def test_workers_that_come_later_work_too():
    few, more = FakeRay(about(30), {0.0: 10}), FakeRay(about(30), {0.0: 10, 60.0: 100})
    run(few, 1000)
    run(more, 1000)
    assert few.now > 2_900 and more.now < 60 + 900 * 30 / 100 * 1.3


def test_workers_that_go_cost_what_they_had_begun():
    fake = FakeRay(about(30), {0.0: 100, 60.0: 10, 300.0: 100})
    run(fake, 1000)
    assert fake.now < 700


def test_a_given_number_of_workers_stays():
    fake = FakeRay(about(30), {0.0: 10, 60.0: 100})
    run(fake, 100, workers=5)
    assert fake.now > 550


@pytest.mark.parametrize("dying", [lambda task: None, lambda task: task.work(task.split), "half a split"])
def test_a_folder_is_the_same_whatever_copies_were_begun(tmp_path, monkeypatch, dying):
    """The copy that is cancelled does nothing more, or commits the split a second time, or leaves a temporary file."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i}.txt").write_text("k one\nd two\n" * (i + 1) + "?\n")
    quiet = test_job.run(tmp_path, "--output", f"{tmp_path}/quiet")
    fake = FakeRay(lambda split, copy: 5_000 if split.id.startswith("7-") and copy == 1 else 30, {0.0: 4})
    halves = lambda task: (tmp_path / "out" / ".7.tar.0.tmp").write_bytes(b"half a split")  # noqa: E731
    fake.dying = halves if dying == "half a split" else dying
    args = test_job.arguments(tmp_path)
    monkeypatch.setattr(test_job, "arguments", lambda *_: SimpleNamespace(**vars(args) | {"workers": None}))
    with in_place_of_ray(fake):
        counts = test_job.run(tmp_path)
    assert fake.copies == fake.cancelled == 1 and fake.now < 500 and counts == quiet
    assert test_job.contents(tmp_path / "out") == test_job.contents(tmp_path / "quiet")


def test_what_is_read_again_from_its_own_folder_is_never_copied(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(cluster, "run_splits", lambda *_, **options: told.update(options) or iter(()))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.txt").write_text("k one\n")
    test_job.run(tmp_path, redo=["none"])
    assert told["copies"] is False
    test_job.run(tmp_path)
    assert told["copies"] is True


def test_a_pool_grows_with_its_cluster_and_never_beyond_the_work():
    actor = SimpleNamespace(is_ready=SimpleNamespace(remote=object))
    ray = SimpleNamespace(remote=lambda **options: lambda cls: SimpleNamespace(remote=lambda: actor))
    places = [2]
    pool = cluster._Actors(ray, None, None, 2, 0, lambda: places[0])
    for there, left, workers in ((2, 100, 2), (5, 100, 5), (3, 100, 5), (50, 7, 7)):
        places[0] = there
        pool.follow(left)
        assert len(pool.starting) == workers == pool.slots
    fixed = cluster._Actors(ray, None, None, 2, 0, None)
    fixed.follow(100)
    assert len(fixed.starting) == 2


def test_a_cluster_is_asked_for_more_than_it_has_so_that_it_grows(monkeypatch):
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 100.0, "GPU": 4.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster._wanted(ray, 0) == 100 and cluster._wanted(ray, 0.5) == 8
    monkeypatch.setenv("RAY_ADDRESS", "here:1")
    assert cluster._wanted(ray, 0) == 111 and cluster._wanted(ray, 0.5) == 9


@pytest.mark.slow
def test_a_real_cluster_ends_a_split_that_hangs_on_one_of_its_nodes(tmp_path):
    words = [sys.executable, "-c", TWO_NODES, str(tmp_path / "begun")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert "[0, 1, 2, 3, 4, 5] True" in done.stdout, done.stdout + done.stderr
