"""A run that is killed and goes on must have the numbers of one left alone, also where a device has several kernels."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.day import Day
from trainer.progress import read_metrics

ROOT = Path(__file__).resolve().parents[2]
TINY = "--size tiny --image-size 168 --steps 6 --batch 6"
FULL = "--size small --image-size 448 --steps 30 --batch 12 --micro-packs 1 --compile"
SAME = ("loss", "grad_norm", "loss_per_task", "tokens")


def kill_and_go_on(day: Day) -> dict:
    """Train twice with --deterministic, kill one with SIGKILL, and compare losses, norms and exports bit by bit."""
    scratch = day.scratch("resume")
    whole, killed = command(day, scratch / "whole"), command(day, scratch / "killed")
    run(whole)
    kill_at(killed, scratch / "killed", 3)
    at_kill = len(read_metrics(scratch / "killed"))
    run(killed)
    alone, again = (read_metrics(scratch / name) for name in ("whole", "killed"))
    return {
        "steps": len(alone), "killed after": at_kill,
        "checks": {
            "killed on the way": 3 <= at_kill < len(alone),
            "metrics are the same": [known(r) for r in alone] == [known(r) for r in again],
            "weights are the same": weights(scratch / "whole") == weights(scratch / "killed"),
        },
    }  # fmt: skip


def command(day: Day, output: Path) -> list[str]:
    """Stage 2, its images larger than the tower's position table, which is then interpolated."""
    queries, flags = (16, TINY) if day.tiny else (64, FULL)
    flags += f" --stage 2 --device {day.device} --save-every 2 --deterministic --resume auto"
    data = ["--data", str(day.stage_folder(2, queries)), "--output", str(output)]
    return [sys.executable, "-m", "trainer", *flags.split(), *data]


def run(words: list[str]) -> None:
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}")


def kill_at(words: list[str], output: Path, step: int) -> None:
    """Start a run and kill it, its loaders and all, as soon as it has told of `step` steps."""
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and len(read_metrics(output)) < step:
        time.sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def known(record: dict) -> dict:
    return {name: record[name] for name in SAME}


def weights(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((output / "export").glob("*.safetensors"))]
