"""What a step of the GPU day knows, and how its result is kept.

A result is RESULTS/NAME.json: outcome ("done", "wrong", "failed", "skipped", "stopped"), seconds, values, checks
(name -> whether it held), reason, and the machine it came from.
"""

import json
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

OURS = {"benchmarks", "cleaners", "corpus", "pipelines", "renderers", "synth_ocr", "trainer"}
FINAL = ("done", "wrong", "skipped")  # what another run does not try again


@dataclass(frozen=True)
class Day:
    """prepared: made by `gpu_day.py prepare`. results: a folder of JSON. tiny: every step in its form for a CPU."""

    prepared: Path
    results: Path
    tiny: bool = False

    @property
    def device(self) -> str:
        return "cpu" if self.tiny else "cuda"

    def stage_folder(self, stage: int, queries: int) -> Path:
        return self.prepared / f"stage{stage}-{queries}"

    def scratch(self, name: str) -> Path:
        """A folder for what a step writes; it stays, so that a stopped step goes on from there."""
        path = self.results.parent / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def result(self, name: str) -> dict:
        path = self.results / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def values(self, name: str) -> dict:
        """What a step found; empty where it has not been done."""
        found = self.result(name)
        return found["values"] if found.get("outcome") in ("done", "wrong") else {}

    def write(self, name: str, **found) -> dict:
        self.results.mkdir(parents=True, exist_ok=True)
        temporary = self.results / f".{name}.tmp"
        temporary.write_text(json.dumps({"step": name} | found, indent=1))
        temporary.rename(self.results / f"{name}.json")
        return found


@dataclass(frozen=True)
class Step:
    """`work(day, **flags)` returns the step's values; those under "checks" are what must hold. limit: seconds."""

    name: str
    what: str
    work: Callable[..., dict]
    limit: int
    flags: dict = field(default_factory=dict)


def do(step: Step, day: Day) -> dict:
    """Run a step in this process and write its result. A package that is missing skips it, all else fails it."""
    began = time.monotonic()
    values, reason = {}, None
    try:
        values = step.work(day, **step.flags)
        checks = values.pop("checks", {})
        outcome = "done" if all(checks.values()) else "wrong"
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        checks, outcome, reason = {}, "skipped", f"{error.name} is not installed here"
    except Exception:
        checks, outcome, reason = {}, "failed", traceback.format_exc()[-3000:]
    seconds = round(time.monotonic() - began, 1)
    return day.write(step.name, outcome=outcome, seconds=seconds, values=values, checks=checks, reason=reason,
                     machine=machine(day))  # fmt: skip


def machine(day: Day) -> dict:
    import torch
    import transformers

    name = "cpu" if day.device == "cpu" else torch.cuda.get_device_name()
    libraries = {module.__name__: module.__version__ for module in (torch, transformers)}
    return {"device": name, "python": platform.python_version(), **libraries}
