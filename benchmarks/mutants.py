"""Plant deliberate one-line bugs, one at a time, and see whether the tests that should notice do.

Each bug of mutants.yaml is planted in a copy of the checkout, and its tests run there until one fails. Survivors are
printed; the exit status is 1 when fewer than 95 % are caught.

    python benchmarks/mutants.py                       # all of them, two at a time
    python benchmarks/mutants.py --only cleaners/      # those of some files
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".yaml")
SHARE = 0.95
SECONDS = 600  # of one bug's tests; a bug that makes them hang is caught


class Mutant(NamedTuple):
    """A bug: in `file`, `becomes` in place of `was`; the names of the tests that should see it."""

    file: str
    was: str
    becomes: str
    tests: str

    def planted(self, folder: Path) -> str:
        """Return the file's text with the bug. ValueError when the place is not there, or not alone."""
        text = (folder / self.file).read_text(encoding="utf-8")
        if text.count(self.was) != 1:
            raise ValueError(f"{self.file}: {self.was!r} stands there {text.count(self.was)} times, expected once")
        return text.replace(self.was, self.becomes)


def load_mutants() -> list[Mutant]:
    """Read the list; ValueError names every entry whose place is not in the checkout."""
    mutants = [Mutant(*entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))]
    for mutant in mutants:
        mutant.planted(ROOT)
    return mutants


def caught(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Run a bug's tests in a copy of the checkout: (was it noticed, the last line of the run)."""
    path, original = folder / mutant.file, (folder / mutant.file).read_text(encoding="utf-8")
    tests = [f"tests/{name}.py" for name in mutant.tests.split()]
    path.write_text(mutant.planted(folder), encoding="utf-8")
    try:
        done = _pytest(folder, tests)
    except subprocess.TimeoutExpired:
        return True, f"no end within {SECONDS} s"
    finally:
        path.write_text(original, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest itself failed on {mutant.file}: {done.stdout[-2000:]}{done.stderr[-500:]}")
    return done.returncode == 1, done.stdout.strip().rpartition("\n")[2]


def _pytest(folder: Path, tests: Iterable[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, env=_environment())


def require_green(mutants: Sequence[Mutant], folder: Path) -> None:
    """Exit when a test of the list fails without any bug: it would seem to catch them all."""
    done = _pytest(folder, sorted({f"tests/{name}.py" for mutant in mutants for name in mutant.tests.split()}))
    if done.returncode != 0:
        sys.exit(f"the tests fail without any bug planted:\n{done.stdout[-3000:]}{done.stderr[-500:]}")


def _environment() -> dict[str, str]:
    data = os.environ.get("GRISTMILL_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    return os.environ | {"GRISTMILL_TEST_DATA": data}


def _copies(parent: str, number: int) -> SimpleQueue:
    ignored = shutil.ignore_patterns(".git", ".venv", "demo", "learn", "out", "runs", "__pycache__")
    copies: SimpleQueue = SimpleQueue()
    for i in range(number):
        shutil.copytree(ROOT, Path(parent) / f"copy{i}" / ROOT.name, ignore=ignored)
        copies.put(Path(parent) / f"copy{i}" / ROOT.name)
    return copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="bugs whose file or line holds this text")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="bugs tried side by side (default: 2)")
    args = parser.parse_args()
    mutants = [m for m in load_mutants() if args.only in m.file or args.only in m.was]
    started, survivors = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="mutants-") as parent, ThreadPoolExecutor(args.at_once) as pool:
        copies = _copies(parent, args.at_once)
        require_green(mutants, control := copies.get())
        copies.put(control)

        def run(mutant: Mutant) -> tuple[Mutant, bool, str]:
            folder = copies.get()
            try:
                return mutant, *caught(mutant, folder)
            finally:
                copies.put(folder)

        for mutant, noticed, line in pool.map(run, mutants):
            print(
                f"{'caught ' if noticed else 'ALIVE  '} {mutant.file}: {mutant.was} -> {mutant.becomes}  [{line}]",
                flush=True,
            )
            survivors += [] if noticed else [mutant]
    score, seconds = 1 - len(survivors) / max(1, len(mutants)), time.monotonic() - started
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} caught ({100 * score:.1f} %) in {seconds:.0f} s")
    sys.exit(score < SHARE)


if __name__ == "__main__":
    main()
