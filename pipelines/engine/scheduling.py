"""Which split runs when: as many as there are places, those that straggle twice, each with one result."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

PLACE_SECONDS = 45  # without a sign of life of any worker, after which the reason is given
LOOK_SECONDS = 10  # between two looks at the size of the cluster, and at what runs for long
STRAGGLES = 3  # times as long as half of the splits took, and then at least STRAGGLER_SECONDS, is too long
STRAGGLER_SECONDS = 60
END_SECONDS = 30  # for copies that were cancelled


@dataclass(frozen=True)
class Failed:
    """The result of a split that did not happen, for a reason that lies neither in its data nor in our code."""

    error: str


@dataclass
class _Running:
    """One copy of a split: its number, since when, and what to do when it has ended (told whether its worker died)."""

    number: int
    began: float
    release: Callable[[bool], None]


class Run:
    """Hands splits to a crew until each has a result.

    The crew has `room(running)`, `submit(split)`, which returns a reference and what to call when it has ended,
    `starting`, workers that are not ready yet, by reference, `started(reference)`, and `follow(left)`, which looks at
    the cluster.
    `result(ray, reference, split)` returns what came of a split and whether its worker died; `explain(ray, crew)` says
    why nothing runs.
    """

    def __init__(self, ray, crew, splits: list, result: Callable, explain: Callable, *, copies: bool):
        self._ray, self._crew, self._splits, self._copies = ray, crew, splits, copies
        self._result, self._explain = result, explain
        self._waiting = deque(range(len(splits)))
        self._running: dict[Any, _Running] = {}
        self._copies_of: dict[int, set] = {}
        self._copied: set[int] = set()
        self._cancelled: list = []
        self._took: deque[float] = deque(maxlen=1000)
        self._left = len(splits)
        self._looked, self._quiet = time.monotonic(), True

    def results(self) -> Iterator[tuple[Any, Any]]:
        while self._left:
            self._look()
            self._fill()
            for reference in self._ready():
                if reference in self._crew.starting:
                    self._crew.started(reference)
                elif reference in self._running:
                    yield from self._finished(reference)
                self._fill()
        if self._cancelled:  # until they are dead they may hold temporary files
            self._ray.wait(self._cancelled, num_returns=len(self._cancelled), timeout=END_SECONDS)

    def _look(self) -> None:
        """Follow the cluster, and start second copies of stragglers; now and then."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._crew.follow(self._left)
        if self._copies and not self._waiting and len(self._took) >= self._left:
            slow = max(STRAGGLER_SECONDS, STRAGGLES * median(self._took))
            late = [run.number for run in self._running.values() if self._looked - run.began > slow]
            again = [number for number in late if number not in self._copied]
            for number in again[: max(0, self._crew.room(len(self._running)))]:
                self._copied.add(number)
                self._submit(number)

    def _fill(self) -> None:
        for _ in range(min(self._crew.room(len(self._running)), len(self._waiting))):
            self._submit(self._waiting.popleft())

    def _submit(self, number: int) -> None:
        reference, release = self._crew.submit(self._splits[number])
        self._running[reference] = _Running(number, time.monotonic(), release)
        self._copies_of.setdefault(number, set()).add(reference)

    def _ready(self) -> list:
        """All that has come to an end, after a while nothing. One call tells of many: it takes as long as its list."""
        references = [*self._running, *self._crew.starting]
        found, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        # Before anything has run it may be that nothing can: look after a while.
        if not found:
            timeout = PLACE_SECONDS if self._quiet else LOOK_SECONDS
            found, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        if not found and self._quiet:
            self._explain(self._ray, self._crew)
            self._quiet = False
        return found

    def _finished(self, reference) -> Iterator[tuple[Any, Any]]:
        """Yield a split's result: that of the copy that ends first, and ends well unless it is the last."""
        ended, self._quiet = self._running.pop(reference), False
        result, died = self._result(self._ray, reference, self._splits[ended.number])
        ended.release(died)
        others = self._copies_of[ended.number] - {reference}
        if others and isinstance(result, Failed):
            self._copies_of[ended.number] = others
            return
        for other in others:
            self._ray.cancel(other, force=True)
            self._cancelled.append(other)
            del self._running[other]
        del self._copies_of[ended.number]
        self._took.append(time.monotonic() - ended.began)
        self._left -= 1
        yield self._splits[ended.number], result
