"""A process behind locks, and the job that asks it: both ends of one socket.

C code over crawled bytes runs in a process of its own, locked up (`renderers.confine`): it can compute and answer, has
a cap on memory, a cap on CPU time per question that the kernel enforces inside C code, and dies with the job. It speaks
JSON and raw bytes, never pickle, and what it answers is checked: a captured one may send anything.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from corpus import verdicts
from corpus.bugs import Bug, bug_in
from renderers import confine, frames

_ROOT = Path(__file__).resolve().parent.parent
# Every page or image allocates and frees the same few megabytes. glibc's default hands them back to the kernel each
# time and pays for fresh pages again: a fifth of the whole rendering time. 32 MiB is the most that glibc accepts.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the locks bind one
_START_SECONDS = 120  # of wall clock, for a process on a busy machine to come up


class Lost(Exception):
    """The process is gone. `kind` says how: crash, timeout, memory, too_much_output."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class Nonsense(Exception):
    """An answer that our own code would never give."""


class ConfinedProcess:
    """One process behind locks, started as `python -m WORKER SOCKET_FD PARENT_PID`; it dies with the thread that does.

    `seconds` of CPU time is what one question may cost; asleep it is ended after `wall_factor` times as much wall clock
    and ten seconds more. `memory` caps its address space in bytes. `refused` says what is wrong, and what to do, where
    the system refuses the locks. `sandbox` False leaves out the locks and keeps the limits.
    """

    def __init__(self, *, seconds: float, wall_factor: float, memory: int, sandbox: bool, refused: str):
        self._seconds, self._wall_factor, self._refused = seconds, wall_factor, refused
        self._hello = {"memory": memory, "page_seconds": seconds, "sandbox": sandbox}
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self.walls: dict | None = None  # of the sandbox, as the running process found them

    def stop(self) -> None:
        """End the process; the next question starts another."""
        if self._process is None or self._socket is None:
            return
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def _worker(self) -> str:
        raise NotImplementedError

    def _ask(
        self, message: dict, blobs: list[bytes], check: Callable[[dict, list[bytes]], None]
    ) -> tuple[dict, list[bytes], float]:
        """Return the answer, its blobs and its cost in seconds. Raises Lost; Bug for a mistake of ours in there."""
        assert self._process
        process = self._process.pid
        try:
            started, before = time.monotonic(), confine.cpu_seconds(process)
            wall = self._wall_factor * self._seconds + 10
            reply, answered = self._exchange(message, blobs, started + wall)
            check(reply, answered)
            if "bug" in reply:
                raise Bug(reply["bug"])
            # By our own clocks, as a captured process says what it likes; asleep it pays by the wall clock.
            asleep = (time.monotonic() - started) / max(1, self._wall_factor)
            return reply, answered, max(confine.cpu_seconds(process) - before, asleep)
        except Lost as error:
            lost = error
        except Nonsense as error:
            lost = Lost("crash", str(error))
        except ProcessLookupError as error:
            lost = self._post_mortem(error)
        self.stop()
        raise lost

    def _exchange(self, message: dict, blobs: list[bytes], deadline: float) -> tuple[dict, list[bytes]]:
        assert self._socket
        try:
            frames.send(self._socket, message, blobs, deadline)
            return frames.receive(self._socket, deadline)
        except TimeoutError:
            raise Lost("timeout", "no answer within the wall-clock limit") from None
        except frames.TooMuch as error:
            raise Lost("too_much_output", str(error)) from None
        except frames.Malformed as error:
            raise Lost("crash", str(error)) from None
        except frames.Closed as error:
            raise self._post_mortem(error) from None

    def _post_mortem(self, error: Exception) -> Lost:
        assert self._process
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return Lost("crash", f"closed its socket: {error!r}")
        if status == -signal.SIGXCPU:
            return Lost("timeout", f"more than {self._seconds} s of CPU time")
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Lost("crash", f"its process ended: {name}")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {key: os.environ[key] for key in ("PATH", "LANG", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._worker(), str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            cwd=_ROOT,
            env=environment | _MALLOC | _ONE_THREAD | {"PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        try:
            reply, _ = self._exchange(self._hello, [], time.monotonic() + _START_SECONDS)
        except Lost:
            self.stop()
            raise
        if "bug" in reply:  # in the rehearsal, before anything crawled
            self.stop()
            raise Bug(reply["bug"])
        if "refused" in reply:
            self.stop()
            raise confine.NotConfined(self._refused.format(why=reply["refused"]))
        self.walls = reply["walls"]


def serve(rehearse: Callable[[], None], answer: Callable[[dict, list[bytes]], tuple[dict, list[bytes]]]) -> None:
    """In the process: settle, then answer until the other side closes; `answer` raises verdicts.Lost for bad data."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    job = socket.socket(fileno=descriptor)
    try:
        limits = _settle(job, descriptor, parent, rehearse)
        gc.freeze()
        gc.disable()  # thousands of characters at once look like a leak to it; between answers it costs nothing
        while True:
            request, blobs = frames.receive(job)
            confine.limit_cpu(limits["page_seconds"])
            frames.send(job, *_answered(answer, request, blobs))
            gc.collect()
    except frames.Closed:
        os._exit(0)  # a library's own cleanup may crash on what a hostile file left behind


def _answered(answer: Callable, request: dict, blobs: list[bytes]) -> tuple[dict, list[bytes]]:
    try:
        return answer(request, blobs)
    except verdicts.Lost as error:
        return {"failed": error.kind, "detail": str(error)}, []
    except Exception as error:
        if (bug := bug_in(error)) is None:
            raise
        return {"bug": str(bug)}, []


def _settle(job: socket.socket, descriptor: int, parent: int, rehearse: Callable[[], None]) -> dict:
    """Rehearse, build the walls, tell the job. Return the limits that it gave."""
    limits, _ = frames.receive(job)
    try:
        rehearse()
    except Exception as error:
        frames.send(job, {"bug": str(bug_in(error) or "".join(traceback.format_exception(error)))})
        os._exit(1)
    try:
        walls: dict = {}
        if limits["sandbox"]:
            walls = confine.lock_up(descriptor, parent, limits["memory"])
        else:
            confine.die_with_parent(parent)
            confine.limit_process(limits["memory"])
    except confine.NotConfined as error:
        frames.send(job, {"refused": str(error)})
        os._exit(1)
    frames.send(job, {"walls": walls})
    return limits
