"""PDF pages from a process of their own: a crash, a hang or a flood of memory costs one page.

MuPDF runs C code over crawled bytes. The process it runs in is locked up (`renderers.confine`): it can compute and
answer, has a cap on memory, a cap on CPU time per page that the kernel enforces inside C code, and dies with the job.
It speaks JSON and JPEG, never pickle, and what it answers is checked: a captured parser may send anything.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from corpus.bugs import Bug
from renderers import answers, confine, frames
from renderers.encoded import OutputSettings
from renderers.page import BadDocument
from renderers.pdf import PdfSettings

WORKER = "renderers.pdf_worker"
_ROOT = Path(__file__).resolve().parent.parent
# Every page allocates and frees the same few megabytes. glibc's default hands them back to the kernel each time and
# pays for fresh pages again: a fifth of the whole rendering time. 32 MiB is the most that glibc accepts.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the locks bind one
_START_SECONDS = 120  # of wall clock, for a process on a busy machine to come up


@dataclass(frozen=True)
class Limits:
    """What one document may cost.

    `page_seconds` and `document_seconds` are CPU time; a page that sleeps is ended after `wall_factor` times as much
    wall clock and ten seconds more. `memory` caps the process's address space in bytes, about 400 MB of which are
    Python and its libraries. `crashes` is how many lost processes a document may cost before the rest is given up.
    """

    page_seconds: float = 10.0
    document_seconds: float = 300.0
    wall_factor: float = 4.0
    memory: int = 2 << 30
    max_bytes: int = 100 << 20
    max_pages: int = 2000
    crashes: int = 20
    documents: int = 500  # after so many the process is replaced, as hygiene against leaks


@dataclass(frozen=True)
class Rendered:
    """A page: `described` and `images` as `encode_page` returns them."""

    number: int
    described: dict
    images: list[bytes]


@dataclass(frozen=True)
class Failed:
    """A page (or, where `number` is None, a document) that could not be rendered, and the kind of error."""

    number: int | None
    kind: str
    detail: str


class _Lost(Exception):
    """The process is gone. `kind` says how: crash, timeout, memory, too_much_output."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class PdfProcess:
    """One rendering process, restarted as needed. Use as a context manager, from one thread that outlives it.

    `sandbox` False leaves out the locks and keeps the limits: for trusted files where the system refuses the locks.
    """

    def __init__(
        self,
        drawing: PdfSettings | None = None,
        output: OutputSettings | None = None,
        limits=None,
        sandbox: bool = True,
    ):
        self._open_message = {
            "do": "open", "drawing": asdict(drawing or PdfSettings()), "output": asdict(output or OutputSettings()),
        }  # fmt: skip
        self.limits, self._sandbox = limits or Limits(), sandbox
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self.walls: dict | None = None  # of the sandbox, as the running process found them
        self._opened = 0

    def __enter__(self) -> "PdfProcess":
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def render(self, data: bytes, announce: Callable[[int], None] = lambda parts: None) -> Iterator[Rendered | Failed]:
        """Yield every page of a document once, rendered or failed, in order; one Failed when it does not open.

        `announce` hears how many these will be, before the first of several.
        """
        if len(data) > self.limits.max_bytes:
            yield Failed(None, "too_large", f"{len(data)} bytes, more than {self.limits.max_bytes}")
            return
        try:
            num_pages, seconds = self._open(data)
        except BadDocument as error:
            yield Failed(None, error.kind, str(error))
            return
        rendered = min(num_pages, self.limits.max_pages)
        announce(rendered + (num_pages > rendered))
        yield from self._pages(data, rendered, seconds)
        if num_pages > rendered:
            yield Failed(None, "too_many_pages", f"{num_pages} pages, of which {rendered} are rendered")

    def stop(self) -> None:
        """End the process; the next document starts another."""
        if self._process is None:
            return
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def _pages(self, data: bytes, num_pages: int, seconds: float) -> Iterator[Rendered | Failed]:
        crashes, given_up = 0, None
        for number in range(num_pages):
            if given_up is None and seconds > self.limits.document_seconds:
                given_up = "document_timeout", f"{seconds:.0f} s of CPU time spent on the pages before"
            if given_up is None and crashes > self.limits.crashes:
                given_up = "given_up", f"{crashes} of the pages before ended their process"
            if given_up:
                yield Failed(number, *given_up)
                continue
            try:
                if self._process is None:
                    seconds += self._open(data)[1]
                described, images = self._ask({"do": "page", "page": number})
            except (_Lost, BadDocument) as error:
                crashes += 1
                seconds += self.limits.page_seconds if error.kind == "timeout" else 0
                yield Failed(number, error.kind, str(error))
                continue
            seconds += self._spent
            if "failed" in described:
                yield Failed(number, described["failed"], described["detail"])
                if described["failed"] == "memory":  # MuPDF is not trusted to go on after a failed allocation
                    self.stop()
            else:
                yield Rendered(number, described, images)

    def _open(self, data: bytes) -> tuple[int, float]:
        """Return (number of pages, CPU seconds). Raises BadDocument."""
        if self._opened >= self.limits.documents:
            self.stop()
        try:
            if self._process is None:
                self._start()
            self._opened += 1
            reply, _ = self._ask(self._open_message, [data])
        except _Lost as error:
            raise BadDocument(error.kind, str(error)) from None
        if "failed" in reply:
            raise BadDocument(reply["failed"], reply["detail"])
        return reply["pages"], self._spent

    def _ask(self, message: dict, blobs: list[bytes] = ()) -> tuple[dict, list[bytes]]:
        wall = self.limits.wall_factor * self.limits.page_seconds + 10
        try:
            started, before = time.monotonic(), confine.cpu_seconds(self._process.pid)
            reply, images = self._exchange(message, blobs, started + wall)
            answers.check(message["do"], reply, images)
            if "bug" in reply:
                raise Bug(reply["bug"])
            # By our own clocks, as a captured parser says what it likes; asleep it pays by the wall clock.
            asleep = (time.monotonic() - started) / max(1, self.limits.wall_factor)
            self._spent = max(confine.cpu_seconds(self._process.pid) - before, asleep)
            return reply, images
        except _Lost as error:
            lost = error
        except answers.Nonsense as error:
            lost = _Lost("crash", str(error))
        except ProcessLookupError as error:
            lost = self._post_mortem(error)
        self.stop()
        raise lost

    def _exchange(self, message: dict, blobs: list[bytes], deadline: float) -> tuple[dict, list[bytes]]:
        try:
            frames.send(self._socket, message, blobs, deadline)
            return frames.receive(self._socket, deadline)
        except TimeoutError:
            raise _Lost("timeout", "no answer within the wall-clock limit") from None
        except frames.TooMuch as error:
            raise _Lost("too_much_output", str(error)) from None
        except frames.Malformed as error:
            raise _Lost("crash", str(error)) from None
        except frames.Closed as error:
            raise self._post_mortem(error) from None

    def _post_mortem(self, error: Exception) -> _Lost:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return _Lost("crash", f"closed its socket: {error!r}")
        if status == -signal.SIGXCPU:
            return _Lost("timeout", f"more than {self.limits.page_seconds} s of CPU time")
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return _Lost("crash", f"its process ended: {name}")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {key: os.environ[key] for key in ("PATH", "LANG", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            cwd=_ROOT,
            env=environment | _MALLOC | _ONE_THREAD | {"PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket, self._opened = ours, 0
        hello = {"memory": self.limits.memory, "page_seconds": self.limits.page_seconds, "sandbox": self._sandbox}
        try:
            reply, _ = self._exchange(hello, [], time.monotonic() + _START_SECONDS)
        except _Lost:
            self.stop()
            raise
        if "bug" in reply:
            self.stop()
            raise Bug(reply["bug"])
        if "refused" in reply:
            self.stop()
            raise confine.NotConfined(
                f"this system refuses to lock up the PDF parser ({reply['refused']}). Crawled files are parsed behind "
                "locks only: run where the kernel and the container allow them (docs/rendering.md says what is "
                "needed), or add --unsandboxed if every input is trusted."
            )
        self.walls = reply["walls"]
