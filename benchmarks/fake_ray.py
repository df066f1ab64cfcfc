"""A Ray without processes and with a clock of its own: ten thousand workers, nodes that come and go, workers that die.

Time passes by what the driver computes (measured), by what Ray's calls take (as reference figures of Ray 2.60 have it),
and by the seconds that splits are said to take.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace

from pipelines.engine import cluster, scheduling

SUBMIT, GET, WAIT_EACH = 140e-6, 50e-6, 0.35e-6  # seconds; ray.wait takes so much for each reference it looks at


class RayError(Exception):
    """Of Ray itself."""


class RayTaskError(RayError):
    """Of the work."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """What cluster.py uses of Ray. `seconds(split, copy)` is how long the copy-th try of a split takes.

    `workers_at`: second -> how many workers there are from then on; what runs on a worker that goes is begun anew.
    """

    __version__ = "2.60.0"

    def __init__(self, seconds: Callable[[object, int], float], workers_at: Mapping[float, int], nodes: int = 2):
        self.seconds, self.now, self._nodes = seconds, 0.0, nodes
        self._changes = deque(sorted(workers_at.items()))
        self._workers, self._queue, self._busy, self._ended = 0, deque(), [], {}
        self._tries: dict = {}
        self.copies = self.cancelled = 0
        self.dying: Callable | None = None  # what a task still does when it is cancelled
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self._left_at = time.process_time()
        self._pass(0.0)

    # --- The clock ---

    @contextmanager
    def _call(self, takes: float) -> Iterator[None]:
        """Let the time pass that the driver has computed since the last call, and that of this one."""
        self._pass(self.now + time.process_time() - self._left_at + takes)
        try:
            yield
        finally:
            self._left_at = time.process_time()

    def _pass(self, until: float) -> None:
        while (at := self._next()) is not None and at <= until:
            self.now = max(self.now, at)
            if self._changes and self._changes[0][0] <= at:
                self._resize(self._changes.popleft()[1])
            else:
                self._end(heapq.heappop(self._busy)[2])
            self._start()
        self.now = max(self.now, until)

    def _next(self) -> float | None:
        times = [self._changes[0][0]] if self._changes else []
        return min(times + ([self._busy[0][0]] if self._busy else []), default=None)

    def _resize(self, workers: int) -> None:
        self._workers = workers
        while len(self._busy) > workers:  # the node with the longest work goes: the worst case
            lost = max(self._busy)
            self._busy.remove(lost)
            heapq.heapify(self._busy)
            self._queue.appendleft(lost[2])

    def _start(self) -> None:
        while self._queue and len(self._busy) < self._workers:
            task = self._queue.popleft()
            if not task.cancelled:
                heapq.heappush(self._busy, (self.now + task.takes, id(task), task))

    def _end(self, task) -> None:
        if not task.cancelled:
            self._ended[task] = None

    # --- What Ray offers ---

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict]:
        return [{"Alive": True}] * self._nodes

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self._workers)}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": float(self._workers - len(self._busy))}

    def remote(self, **options):
        def submitted(work, split):
            with self._call(SUBMIT):
                number = self._tries[str(split)] = self._tries.get(str(split), 0) + 1
                self.copies += number > 1
                task = Task(work, split, self.seconds(split, number))
                self._queue.append(task)
                self._start()
                return task

        return lambda work: SimpleNamespace(
            options=lambda **named: SimpleNamespace(remote=lambda split: submitted(work, split))
        )

    def wait(self, references: list, num_returns: int, timeout: float | None) -> tuple[list, list]:
        with self._call(WAIT_EACH * len(references)):
            until = float("inf") if timeout is None else self.now + timeout
            while len(self._ended) < num_returns and (at := self._next()) is not None and at <= until:
                self._pass(at)
            if timeout and len(self._ended) < num_returns:
                self._pass(until)
            found = [task for task in self._ended if not task.cancelled or task in references][:num_returns]
            for task in found:
                del self._ended[task]
            return found, []

    def get(self, task):
        with self._call(GET):
            if task.cancelled:
                raise RayError("cancelled")
            try:
                return task.work(task.split)
            except Exception as error:
                raise RayTaskError(error) from None

    def cancel(self, task, force: bool) -> None:
        with self._call(SUBMIT):
            task.cancelled = True
            self.cancelled += 1
            if self.dying is not None:
                self.dying(task)
            self._ended[task] = None
            self._busy = [each for each in self._busy if each[2] is not task]
            heapq.heapify(self._busy)
            self._start()


class Task:
    """One try of a split: a reference, as far as the driver sees."""

    def __init__(self, work: Callable, split, takes: float):
        self.work, self.split, self.takes, self.cancelled = work, split, takes, False


@contextmanager
def in_place_of_ray(fake: FakeRay) -> Iterator[FakeRay]:
    """Let cluster.run_splits run on a fake, by its clock."""
    real = cluster._start_ray, scheduling.time
    cluster._start_ray, scheduling.time = lambda workers: fake, SimpleNamespace(monotonic=lambda: fake.now)
    try:
        yield fake
    finally:
        cluster._start_ray, scheduling.time = real


def overhead(workers: int, splits: int, seconds: Callable[[object, int], float]) -> float:
    """Return what scheduling adds to the time of so many splits, as a share of what it takes with none."""
    with in_place_of_ray(FakeRay(seconds, {0.0: workers})) as fake:
        done = sum(1 for _ in cluster.run_splits(lambda split: None, range(splits)))
    assert done == splits
    free = [0.0] * workers
    for split in range(splits):
        heapq.heapreplace(free, free[0] + seconds(split, 1))
    return fake.now / max(free) - 1
