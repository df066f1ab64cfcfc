"""Jobs killed, frozen and starved at random moments, then run again: the folder must end as if nothing had happened."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
FINISH_SECONDS = 900
STRIKES = 4  # of one bout, before the job may finish
_LOST = 0.4  # of the manifests, before a strike, so that it finds work


@dataclass(frozen=True)
class Job:
    """A command below `pipelines/` without --output and --workers."""

    name: str
    command: str

    def argv(self, output: Path, workers: int = 0) -> list[str]:
        return [sys.executable, *shlex.split(f"pipelines/{self.command}"), "--output", str(output),
                "--workers", str(workers)]  # fmt: skip


@dataclass
class Bout:
    """What came of some strikes at one job: how many hit it at work, and all that was wrong afterwards."""

    strikes: int = 0
    hits: int = 0
    wrong: tuple[str, ...] = ()


def contents(output: Path) -> dict[str, bytes]:
    """Every file below a job's folder, but for the report; manifests without their timing."""
    found = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file() and not path.name.startswith("report")):
        data = path.read_bytes()
        if path.suffix == ".json":
            data = json.dumps(json.loads(data) | {"seconds": 0}).encode()
        found[str(path.relative_to(output))] = data
    return found


def differences(output: Path, whole: Path) -> list[str]:
    """The files that are not as in the folder of a run that nothing happened to."""
    found, expected = contents(output), contents(whole)
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def start(argv: list[str], log: Path) -> subprocess.Popen:
    """Start a command in a session of its own."""
    with open(log, "a") as file:
        return subprocess.Popen(argv, cwd=ROOT, start_new_session=True, stdout=file, stderr=subprocess.STDOUT)


def children(process: int) -> list[psutil.Process]:
    """All descendants of a process; none when it is gone."""
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until_gone(processes: list[psutil.Process]) -> list[str]:
    """The children of a killed driver end by themselves; return the names of those that do not, and end them."""
    _, alive = psutil.wait_procs(processes, timeout=90)  # Ray's agents look after their raylet now and then
    names = [process.name() for process in alive]
    for process in alive:
        process.kill()
    return names


def finish(job: Job, output: Path, whole: Path, log: Path) -> list[str]:
    """Run the job to its end; return what is wrong with how it ends and with what it leaves."""
    try:
        status = start(job.argv(output), log).wait(timeout=FINISH_SECONDS)
    except subprocess.TimeoutExpired:
        return [f"not finished within {FINISH_SECONDS} s"]
    if status:
        return [f"exit status {status}: {log.read_text()[-200:]}"]
    return [f"{name} differs" for name in differences(output, whole)]


def kill_driver(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """SIGKILL to the driver and all that shares its session, again and again."""
    bout = Bout()
    for _ in range(STRIKES):
        lose_manifests(output, rng)
        driver = start(job.argv(output), log)
        time.sleep(rng.uniform(0.4, 1.0) * seconds)
        left = children(driver.pid)
        os.killpg(driver.pid, signal.SIGKILL)
        bout.strikes += 1
        bout.hits += driver.wait() == -signal.SIGKILL
        bout.wrong += tuple(f"{name} outlived its driver" for name in wait_until_gone(left))
    return bout


def kill_workers(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """SIGKILL to Ray workers that are at work on a split, under a driver that lives and has to finish."""
    lose_manifests(output, rng)
    driver, bout = start(job.argv(output, workers=2), log), Bout()
    for worker in _workers_at_work(driver, rng):
        worker.kill()
        bout.strikes += 1
        bout.hits += 1
        if bout.strikes == STRIKES:
            break
    if status := driver.wait(timeout=FINISH_SECONDS):
        bout.wrong += (f"with workers killed: exit status {status}: {log.read_text()[-200:]}",)
    return bout


def freeze(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """SIGSTOP to everything, SIGCONT a while later; the job has to end well by itself."""
    lose_manifests(output, rng)
    driver, bout = start(job.argv(output), log), Bout()
    while bout.strikes < STRIKES:
        time.sleep(rng.uniform(0.1, 0.4) * seconds)
        if driver.poll() is not None:
            break
        os.killpg(driver.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0.2, 2))
        os.killpg(driver.pid, signal.SIGCONT)
        bout.strikes += 1
        bout.hits += 1
    if status := driver.wait(timeout=FINISH_SECONDS):
        bout.wrong += (f"frozen: exit status {status}: {log.read_text()[-200:]}",)
    return bout


def fill_disk(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """Run on a disk that is too small, then again after room was made. Root alone may mount such a disk."""
    size = sum(len(data) for data in contents(output.parent / "whole").values())
    disk, job_log = output.parent / "disk", log.with_suffix(".disk.log")
    disk.mkdir(exist_ok=True)
    command = shlex.join(job.argv(disk / "out"))
    script = (
        f"mount -t tmpfs -o size={int(rng.uniform(0.2, 0.9) * size)} none {disk} && {{ {command}; echo status $?; "
        f"mount -o remount,size={10 * size + (64 << 20)} {disk} && {command} && cp -a {disk}/out/. {output}; }}"
    )
    output.mkdir(exist_ok=True)
    job_log.unlink(missing_ok=True)
    status = start(["unshare", "--mount", "sh", "-c", script], job_log).wait(timeout=FINISH_SECONDS)
    said = job_log.read_text()
    full, wrong = "status 1" in said and "disk is full" in said, []
    if status or "Traceback" in said or not (full or "status 0" in said):
        wrong.append(f"full disk: exit status {status}: {said[-300:]}")
    return Bout(strikes=1, hits=int(full), wrong=tuple(wrong))


STRIKE = {"driver": kill_driver, "workers": kill_workers, "freeze": freeze, "disk": fill_disk}


def lose_manifests(output: Path, rng: random.Random) -> None:
    """Remove some manifests, as a disk may, so that the next run finds work to do."""
    for manifest in sorted(output.rglob("*.json")):
        if manifest.name != "job.json" and rng.random() < _LOST:
            manifest.unlink()


def _workers_at_work(driver: subprocess.Popen, rng: random.Random) -> Iterator[psutil.Process]:
    while driver.poll() is None:
        time.sleep(rng.uniform(0.05, 0.3))
        if busy := [child for child in children(driver.pid) if _is_at_work(child)]:
            yield rng.choice(busy)


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return process.name().startswith(("ray::split", "ray::Worker.run"))
    except psutil.NoSuchProcess:
        return False
