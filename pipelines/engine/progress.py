"""A live progress bar on a terminal, quiet single lines elsewhere."""

import sys
import time

from corpus.ledger import Counts

SECONDS_BETWEEN_LINES = 10


class Progress:
    """Splits and rows done, rows/s, kept %, errors, time left. `earlier` splits, of `counts`, were done before."""

    def __init__(self, name: str, splits: int, earlier: int, counts: Counts):
        self._name, self._splits, self._earlier = name, splits, earlier
        self._counts = counts
        self._finished, self._new_rows, self._failed = earlier, 0, 0
        self._started = self._printed = time.monotonic()
        self._bar = None

    def __enter__(self) -> "Progress":
        if self._earlier:
            print(f"{self._name}: {self._earlier} of {self._splits} splits are done already", file=sys.stderr)
        if sys.stderr.isatty():
            self._bar = _terminal_bar()
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._splits, completed=self._finished, state="")
        return self

    def __exit__(self, kind, *_):
        if self._bar:
            self._bar.stop()
        elif kind is None:
            print(self._line(), file=sys.stderr, flush=True)

    def add(self, counts: Counts) -> None:
        """Count one finished split."""
        self._finished += 1
        self._new_rows += counts.rows
        self._counts += counts
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self._finished, state=self._state())
        elif now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            print(self._line(), file=sys.stderr, flush=True)

    def fail(self, split: str, error: str) -> None:
        """Count one split that goes into quarantine, and say why."""
        self._failed += 1
        print(f"{self._name}: split {split} is quarantined: {error}", file=sys.stderr, flush=True)
        if self._bar:
            self._bar.update(self._task, state=self._state())

    def _state(self) -> str:
        rows, errors = self._counts.rows, sum(self._counts.errors.values())
        speed = self._new_rows / max(1e-9, time.monotonic() - self._started)
        kept = 100 * self._counts.kept / rows if rows else 0
        failed = f", {self._failed:,} splits quarantined" if self._failed else ""
        return f"{rows:,} rows, {speed:,.0f}/s, {kept:.1f} % kept, {errors:,} errors{failed}"

    def _line(self) -> str:
        new = self._finished - self._earlier
        left = (self._splits - self._finished) * (time.monotonic() - self._started) / new if new else 0
        return f"{self._name}: {self._finished}/{self._splits} splits, {self._state()}, {left:.0f} s left"


def _terminal_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}")
    return Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
