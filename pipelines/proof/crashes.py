"""Jobs killed, frozen and starved at random moments, then run again: the folder must end as if nothing had happened."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipelines.proof.jobs import ROOT, Job

FINISH_SECONDS = 600  # of wall clock, on a machine that others use too
MOST_SECONDS = 60  # of CPU, of all processes of a run to its end
PATIENCE = 90  # seconds for what a killed driver started: Ray's agents look after their raylet now and then
STRIKES = 4  # of one bout, before the job may finish; Ray gives a split up that loses more than five workers
DRIVER_STRIKES = 8  # killing a driver is cheap: the run that follows is not
_CACHES = "torchinductor_"  # what a library keeps among temporary files on purpose
_MARK = uuid.uuid4().hex
# A process of its own, and a small one: what a process may have resident begins with what its parent has.
_MEASURED = """\
import json, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss // 1024], open(sys.argv[1], "w"))
sys.exit(status)"""


@dataclass(frozen=True)
class Ended:
    """How a run left alone ended: its exit status (None: it did not), what it took, and all that was wrong."""

    status: int | None
    seconds: float
    cpu_seconds: float
    megabytes: int
    wrong: tuple[str, ...] = ()


@dataclass
class Bout:
    """What came of some strikes at one job: how many hit it at work, and all that was wrong afterwards."""

    strikes: int = 0
    hits: int = 0
    wrong: tuple[str, ...] = ()
    cpu_seconds: float = 0
    megabytes: int = 0


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The files that are not as in the folder of a run that nothing happened to."""
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def start(argv: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """Start a command in a session of its own; it and what it starts carry `_MARK`."""
    threads = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with open(log, "a") as file:
        return subprocess.Popen(argv, cwd=ROOT, start_new_session=True, stdout=file, stderr=subprocess.STDOUT,
                                env=os.environ | threads | {"GRISTMILL_STRUCK": _MARK} | environment)  # fmt: skip


def left_alone(job: Job, output: Path, log: Path) -> Ended:
    """Run a job to its end, and say how it ended and what it took."""
    scratch = log.parent / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    began, said = time.monotonic(), log.stat().st_size if log.exists() else 0
    used = log.with_suffix(".used")
    process = start([sys.executable, "-c", _MEASURED, str(used), *job.argv(output)], log, TMPDIR=str(scratch))
    try:
        status = process.wait(FINISH_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Ended(None, FINISH_SECONDS, 0, 0, (f"not finished within {FINISH_SECONDS} s",))
    wrong = [f"{name} outlived the job" for name in wait_until_gone(marked())]
    wrong += [
        f"left in the temporary folder: {path.name}" for path in scratch.iterdir() if not path.name.startswith(_CACHES)
    ]
    took = Ended(status, time.monotonic() - began, *json.loads(used.read_text()))
    if took.status:
        wrong.append(f"exit status {took.status}: {log.read_text()[said:][-200:]}")
    if took.cpu_seconds > MOST_SECONDS or took.megabytes > job.most_megabytes:
        wrong.append(f"took {took.cpu_seconds:.0f} CPU seconds and {took.megabytes} MB")
    return replace(took, wrong=tuple(wrong))


def children(process: int) -> list[psutil.Process]:
    """All descendants of a process; none when it is gone."""
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def marked() -> list[psutil.Process]:
    """All processes that a command of this campaign started, whoever is their parent by now."""
    return [process for process in psutil.process_iter() if _environment(process).get("GRISTMILL_STRUCK") == _MARK]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def wait_until_gone(processes: list[psutil.Process]) -> list[str]:
    """The children of a killed driver end by themselves; return the names of those that do not, and end them."""
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    names = [process.name() for process in alive]
    for process in alive:
        process.kill()
    return names


def finish(job: Job, output: Path, whole: Path, log: Path) -> Ended:
    """Run the job to its end; say what is wrong with how it ends, with its files, and with what it leaves.

    The files are compared however it ends: whether a run that died at the very end had done its work.
    """
    ended = left_alone(job, output, log)
    different = differences(job.contents(output), job.contents(whole))
    return replace(ended, wrong=(*ended.wrong, *(f"{name} differs" for name in different)))


def kill_driver(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """SIGKILL to the driver and all that shares its session, again and again."""
    bout = Bout()
    for _ in range(DRIVER_STRIKES):
        job.lose(output, rng)
        driver = start(job.argv(output), log)
        time.sleep(rng.uniform(0.3, 0.9) * seconds)
        left = children(driver.pid)
        os.killpg(driver.pid, signal.SIGKILL)
        bout.strikes += 1
        bout.hits += driver.wait() == -signal.SIGKILL
        left += marked()
        bout.wrong += tuple(f"{name} outlived its driver" for name in wait_until_gone(left))
    return bout


def kill_workers(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """SIGKILL to Ray workers that are at work on a split, under a driver that lives and has to finish."""
    job.lose(output, rng)
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
    job.lose(output, rng)
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
    size = sum(path.stat().st_size for path in (output.parent / "whole").rglob("*") if path.is_file())
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


def trouble_server(job: Job, output: Path, log: Path, seconds: float, rng: random.Random) -> Bout:
    """Kill the driver while the server fails every other request; what failed is fetched again when it is well."""
    assert job.server is not None
    try:
        job.server.trouble = 0.5
        bout = kill_driver(job, output, log, seconds, rng)
        status = start(job.argv(output), log).wait(timeout=FINISH_SECONDS)
    finally:
        job.server.trouble = 0.0
    again = start([*job.argv(output), "--retry-failed"], log).wait(timeout=FINISH_SECONDS)
    if status or again:
        bout.wrong += (f"with a bad server: exit status {status}, then {again}: {log.read_text()[-200:]}",)
    return bout


STRIKE = {"driver": kill_driver, "workers": kill_workers, "freeze": freeze, "disk": fill_disk,
          "server": trouble_server}  # fmt: skip


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
