"""Images read by a process of their own, behind the locks of the PDF parser: libjpeg, libpng, zlib and libwebp are C.

Answers are checked for shape and size, and are what `corpus.records` would have said here, to the byte.
"""

import re
import threading
from functools import partial

from PIL import Image

from corpus import records
from corpus.records import IMAGE_EXTENSIONS, MAX_PIXELS, BadImage
from renderers.confined import ConfinedProcess, Lost, Nonsense

WORKER = "renderers.image_worker"
SECONDS = 30.0  # of CPU time for one image: the largest takes three
MEMORY = 4 << 30  # of address space: the largest, with transparency, takes two
_REFUSED = (
    "this system refuses to lock up the image decoder ({why}). Run where the kernel and the container allow it "
    "(docs/rendering.md says what is needed), or without --sandbox-images."
)


class ImageProcess(ConfinedProcess):
    """One decoder behind locks for all of this process, whatever its threads: a `corpus.records.Decoder`.

    A crash, a hang or a flood of memory is an `undecodable_image`, and the next image finds a new process.
    """

    def __init__(self):
        super().__init__(seconds=SECONDS, wall_factor=4.0, memory=MEMORY, sandbox=True, refused=_REFUSED)
        self._turn = threading.Lock()

    def image_header(self, data: bytes, max_pixels: int) -> tuple[str, int, int]:
        """As `corpus.records.image_header`."""
        reply, _ = self._question({"do": "header", "max_pixels": max_pixels}, data)
        return reply["ext"], *reply["size"]

    def decode_image(self, data: bytes, max_pixels: int) -> Image.Image:
        """As `corpus.records.decode_image`; of `info`, what Pillow writes into files is kept."""
        reply, (pixels, *values) = self._question({"do": "decode", "max_pixels": max_pixels}, data)
        image = Image.frombytes("RGB", tuple(reply["size"]), pixels)
        image.info.update(zip(reply["info"], values, strict=True))
        return image

    def verify_image(self, data: bytes, size: tuple[int, int] | None) -> None:
        """As `corpus.records.verify_image`."""
        self._question({"do": "verify", "size": size, "max_pixels": MAX_PIXELS}, data)

    def start(self) -> None:
        """Start the process if it does not run. Raises NotConfined where the system refuses a wall."""
        if self._process is not None and self._process.poll() is not None:  # its thread has ended, and it with that
            self.stop()
        if self._process is None:
            self._start()

    def _question(self, message: dict, data: bytes) -> tuple[dict, list[bytes]]:
        check = partial(check_answer, message["do"], message["max_pixels"])
        try:
            with self._turn:
                self.start()
                reply, blobs, _ = self._ask(message, [data], check)
        except Lost as error:
            raise BadImage("undecodable_image", f"the decoder's process: {error.kind}, {error}"[:200]) from None
        if "failed" in reply:
            raise BadImage(reply["failed"], reply["detail"])
        return reply, blobs

    def _worker(self) -> str:
        return WORKER


def check_answer(question: str, max_pixels: int, answer: dict, blobs: list[bytes]) -> None:
    """Raise Nonsense unless `answer` is one of ours to "header", "decode" or "verify"."""
    try:
        holds = _is_ours(question, max_pixels, answer, blobs)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Nonsense(f"no answer of ours: {type(error).__name__} {error}"[:200]) from None
    if not holds:
        raise Nonsense(f"no answer of ours to {question}")


def _is_ours(question: str, max_pixels: int, answer: dict, blobs: list[bytes]) -> bool:
    if "bug" in answer:
        return len(answer["bug"].encode()) < 1 << 20
    if "failed" in answer:
        return bool(re.fullmatch("[a-z_]{1,40}", answer["failed"])) and len(answer["detail"].encode()) < 10_000
    if question == "verify":
        return not blobs
    width, height = answer["size"]
    sized = type(width) is type(height) is int and width > 0 < height and width * height <= max_pixels
    if question == "header":
        return sized and answer["ext"] in IMAGE_EXTENSIONS and not blobs
    info = answer["info"]
    named = all(name in KEPT_INFO for name in info) and len(set(info)) == len(info) == len(blobs) - 1
    return sized and named and len(blobs[0]) == 3 * width * height


KEPT_INFO = ("comment", "icc_profile")  # what Pillow writes into a JPEG or PNG that is made of an image


_decoder = ImageProcess()


def lock_up_images(wanted: bool) -> None:
    """Have all images of this process read behind locks from now on, or (False) here again. Raises NotConfined."""
    if wanted:
        _decoder.start()
        records.read_images_by(_decoder)
    else:
        records.read_images_by(None)
        _decoder.stop()
