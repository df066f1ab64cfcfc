"""What a root holds of a recipe's steps, told by records beside them, and what is to be done with each.

A step's record is written before it begins and after it has ended. A folder that other settings made is moved to
`superseded/`, from where it comes back when they do.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.recipe.steps import Step

RECORDS, SUPERSEDED, PLAN = "steps", "superseded", "plan.json"
DONE, GO_ON, NEW, AGAIN, BACK, GONE = "done", "go on", "new", "again", "back", "gone"
SIGNS = {DONE: "=", GO_ON: "~", NEW: "+", AGAIN: "-/+", BACK: "<", GONE: "-"}


class Busy(Exception):
    """Another run is at work in the same root."""


@dataclass
class Record:
    """What is known of a step's folder. `made` and `key`: see `steps.keys_of`; `state`: begun, done or failed."""

    name: str
    made: str
    key: str
    state: str
    made_of: dict
    seconds: float = 0.0
    pid: int = 0


@dataclass(frozen=True)
class Task:
    """A step, what is to be done with it (DONE, GO_ON, ...), and why."""

    step: Step
    keys: tuple[str, str]
    todo: str
    why: str = ""


class State:
    """The records below a root."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def record(self, name: str) -> Record | None:
        """Return a step's record, None where it has none."""
        return _read(self.root / RECORDS / f"{_file(name)}.json")

    def records(self) -> list[Record]:
        """Return all records, by the names of their steps."""
        found = [_read(path) for path in sorted((self.root / RECORDS).glob("*.json"))]
        return [record for record in found if record]

    def write(self, record: Record) -> None:
        """Write a record, whole or not at all."""
        write_whole(self.root / RECORDS / f"{_file(record.name)}.json", json.dumps(asdict(record), indent=1))

    def tasks(self, steps: Sequence[Step], keys: Mapping[str, tuple[str, str]]) -> Iterator[Task]:
        """Yield what is to be done with each step, and with folders of steps that the recipe no longer has."""
        for step in steps:
            yield Task(step, keys[step.name], *self._todo(step, *keys[step.name]))

    def gone(self, steps: Sequence[Step]) -> list[str]:
        """Return the names of steps that have a record and are in the recipe no more."""
        return sorted({record.name for record in self.records()} - {step.name for step in steps})

    def _todo(self, step: Step, made: str, key: str) -> tuple[str, str]:
        there, record = (self.root / step.name).exists(), self.record(step.name)
        if record and record.key == key and there:
            whole = record.state == "done" and (self.root / step.name / step.mark).exists()
            return (
                (DONE, "") if whole else (GO_ON, "stopped before its end" if record.state != "failed" else "it failed")
            )
        if self._aside(step.name, key).exists():
            return BACK, "made before, with these settings"
        if not there:
            return NEW, ""
        if record is None:
            return GO_ON, "a folder without a record; its job looks whether it is its own"
        if record.made == made and step.grows:
            return GO_ON, "its raw data changed"
        why = "; ".join(list(_differences(record.made_of, json.loads(json.dumps(step.made_of))))[:3])
        return AGAIN, why or "what it is made from changed"

    def _aside(self, name: str, key: str) -> Path:
        return self.root / SUPERSEDED / f"{_file(name)}-{key[:12]}"

    def put_aside(self, name: str) -> None:
        """Move a step's folder and record to `superseded/`."""
        record, folder = self.record(name), self.root / name
        if record and folder.exists():
            aside = self._aside(name, record.key)
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            write_whole(Path(f"{aside}.json"), json.dumps(asdict(record), indent=1))
            os.replace(folder, aside)
        (self.root / RECORDS / f"{_file(name)}.json").unlink(missing_ok=True)

    def bring_back(self, name: str, key: str) -> None:
        """Move a step's folder and record back from `superseded/`."""
        self.put_aside(name)
        aside, folder = self._aside(name, key), self.root / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        record = _read(Path(f"{aside}.json"))
        os.replace(aside, folder)
        if record:
            self.write(record)
        Path(f"{aside}.json").unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the root for one run. Raises Busy. Yields a descriptor: steps that inherit it hold the root as well."""
        (self.root / RECORDS).mkdir(parents=True, exist_ok=True)
        with open(self.root / RECORDS / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"{self.root}: another run, or a step of one that was killed, is still at work here"
                ) from None
            yield file.fileno()


def _file(name: str) -> str:
    return name.replace("/", "--")


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _read(path: Path) -> Record | None:
    """A record; one that cannot be read is none, and its step's own job looks at the folder."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _differences(there, now, path: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for name in sorted(there.keys() | now.keys()):
            yield from _differences(there.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif there != now:
        yield f"{path.removeprefix('entry.').removeprefix('flags.')}: {there!r} there, {now!r} now"
