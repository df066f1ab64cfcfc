"""Killed anywhere, any number of times, then run again: the folder ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.make_demo_crawl import make_pair, write_shard
from pipelines.proof.crashes import children, wait_until_gone
from pipelines.proof.jobs import contents

ROOT = Path(__file__).resolve().parent.parent
SHARDS, PAIRS = 10, 40


def command(folder, output, workers) -> list[str]:
    inputs = ["--dataset", "laion-en", "--input", f"{folder}/raw/*"]
    return [sys.executable, "pipelines/clean_laion.py", *inputs, "--output", str(output), "--workers", str(workers)]


def start(folder, output, workers) -> subprocess.Popen:
    with open(f"{output}.log", "w") as log:
        streams = {"stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command(folder, output, workers), cwd=ROOT, start_new_session=True, **streams)


def finish(folder, output, workers) -> None:
    done = subprocess.run(command(folder, output, workers), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crawl")
    (folder / "raw").mkdir()
    for shard in range(SHARDS):
        write_shard(folder / "raw", shard, [make_pair(7, shard * PAIRS + i, "en") for i in range(PAIRS)])
    began = time.monotonic()
    finish(folder, folder / "whole", 0)
    return folder, contents(folder / "whole"), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_driver_is_killed_at_random_moments(crawl, tmp_path):
    folder, whole, seconds = crawl
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng, output, interrupted = random.Random(seed), tmp_path / "out", 0
    for _ in range(22):
        for manifest in rng.sample(sorted(output.glob("*-*.json")), k=min(3, len(list(output.glob("0*.json"))))):
            manifest.unlink()  # so that later kills find work too
        driver = start(folder, output, 0)
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        os.killpg(driver.pid, signal.SIGKILL)
        interrupted += driver.wait() == -signal.SIGKILL
    assert interrupted > 5, "the kills came too late to prove anything"
    finish(folder, output, 0)
    assert contents(output) == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_drivers_and_workers_are_killed_at_random_moments(crawl, tmp_path):
    folder, whole, _ = crawl
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng, output = random.Random(seed), tmp_path / "out"
    for _ in range(2):  # the driver, with the whole local Ray behind it
        driver = start(folder, output, 2)
        time.sleep(rng.uniform(2, 8))
        left = children(driver.pid)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert wait_until_gone(left) == []
    for manifest in output.glob("*-*.json"):
        manifest.unlink()
    driver = start(folder, output, 2)
    try:
        killed = kill_workers(driver, rng, 5)
        assert driver.wait(timeout=200) == 0 and killed, Path(f"{output}.log").read_text()
    finally:
        driver.kill()
    assert contents(output) == whole


def kill_workers(driver: subprocess.Popen, rng: random.Random, number: int) -> int:
    """Kill up to `number` workers that are at work on a split, under a driver that lives."""
    killed = 0
    while driver.poll() is None and killed < number:
        time.sleep(rng.uniform(0.05, 0.3))
        if workers := [child for child in children(driver.pid) if _name(child).startswith("ray::split")]:
            rng.choice(workers).kill()
            killed += 1
    return killed


def _name(process):
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_poison_split_and_a_killed_driver_leave_the_other_splits_whole(crawl, tmp_path):
    folder, whole, _ = crawl
    output, poison = tmp_path / "out", "00003-"
    environment = os.environ | {"GRISTMILL_POISON": poison}
    code = f"""
import os, runpy, sys
from pipelines import clean_laion
real = clean_laion.clean_split
def poisoned(split, sink, *rest, **options):
    if split.id.startswith(os.environ["GRISTMILL_POISON"]):
        os._exit(9)
    return real(split, sink, *rest, **options)
clean_laion.clean_split = poisoned
sys.argv = {command(folder, output, 2)[1:]!r}
clean_laion.job.main(clean_laion.main)
"""
    words = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not list(output.glob("*-*.json")):
        time.sleep(0.05)
    left = children(driver.pid)
    driver.kill()
    driver.wait()
    wait_until_gone(left)
    done = subprocess.run([sys.executable, "-c", code], **words)
    assert done.returncode == 3 and "its worker died 6 times" in done.stderr, done.stderr
    found = contents(output)
    assert [name for name in found if "quarantined" in name] and len(list(output.glob("*.tar"))) == SHARDS - 1
    rest = {name: data for name, data in found.items() if "quarantined" not in name and not name.startswith("report")}
    assert rest == {name: whole[name] for name in rest} and f"{poison}" not in "".join(rest)
    finish(folder, output, 2)
    assert contents(output) == whole
