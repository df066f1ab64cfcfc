"""PDF pages from a process of their own: a crash, a hang or a flood of memory costs one page.

MuPDF runs C code over crawled bytes. The process it runs in is locked up (`renderers.confine`): it can compute and
answer, has a cap on memory, a cap on CPU time per page that the kernel enforces inside C code, and dies with the job.
It speaks JSON and JPEG, never pickle, and what it answers is checked: a captured parser may send anything.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from renderers import answers
from renderers.confined import ConfinedProcess, Lost
from renderers.encoded import OutputSettings
from renderers.page import BadDocument
from renderers.pdf import PdfSettings

WORKER = "renderers.pdf_worker"
_REFUSED = (
    "this system refuses to lock up the PDF parser ({why}). Crawled files are parsed behind locks only: run where the "
    "kernel and the container allow them (docs/rendering.md says what is needed), or add --unsandboxed if every input "
    "is trusted."
)


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


class PdfProcess(ConfinedProcess):
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
        self.limits = limits or Limits()
        super().__init__(
            seconds=self.limits.page_seconds, wall_factor=self.limits.wall_factor, memory=self.limits.memory,
            sandbox=sandbox, refused=_REFUSED,
        )  # fmt: skip
        self._opened, self._spent = 0, 0.0

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
                described, images = self._question({"do": "page", "page": number})
            except (Lost, BadDocument) as error:
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
            reply, _ = self._question(self._open_message, [data])
        except Lost as error:
            raise BadDocument(error.kind, str(error)) from None
        if "failed" in reply:
            raise BadDocument(reply["failed"], reply["detail"])
        return reply["pages"], self._spent

    def _question(self, message: dict, blobs: list[bytes] = ()) -> tuple[dict, list[bytes]]:
        reply, images, self._spent = self._ask(message, blobs, partial(answers.check, message["do"]))
        return reply, images

    def _worker(self) -> str:
        return WORKER

    def _start(self) -> None:
        super()._start()
        self._opened = 0
