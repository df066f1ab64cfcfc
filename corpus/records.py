"""The one sample type, its WebDataset members, and guarded access to crawled image bytes.

Coordinates anywhere in a sample are pixels of the stored image: floats, origin top-left, x to the right, y down.
Images are taken as stored: an EXIF orientation is not applied, as COCO's annotations and torchvision's loader have it.
"""

import io
import json
import re
import warnings
from dataclasses import dataclass, field
from typing import NotRequired, Protocol

from PIL import Image, UnidentifiedImageError
from typing_extensions import TypedDict

from corpus.bugs import raise_ours
from corpus.pixels import to_rgb
from corpus.shapes import misfit
from corpus.values import load_json
from corpus.verdicts import Lost, failed

TASKS = ("caption", "vqa", "ocr_vqa", "grounded_caption", "referring", "region_caption", "ocr", "text", "chat")
IMAGE_EXTENSIONS = ("jpg", "png", "webp")
# The cap of Pillow and of LAION's downloader; a larger declared size is taken for a decompression bomb.
MAX_PIXELS = 89_478_485

_EXTENSION_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_READABLE = ("JPEG", "PNG", "WEBP")


class BadImage(Lost):
    """Image bytes that cannot be used: an error of `kind`, with what was seen."""

    def __init__(self, kind: str, message: str):
        super().__init__(failed(kind, message))

    def __reduce__(self):  # crosses process borders, where an exception is rebuilt from its arguments
        return type(self), (self.kind, str(self))


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The original bytes of an image, their extension ("jpg", "png" or "webp"), the owners' ids ("coco:458752")."""

    data: bytes
    ext: str
    ids: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Sample:
    """A kept sample. `key` is dataset/split/row, without dots; `width` and `height` are those of the first image.

    `annotations` holds, by task, `regions`, `lines`, `question` and `answer`, or `turns`, whose "images" are indices
    into `images`.
    """

    key: str
    dataset: str
    task: str
    language: str
    text: str = ""
    width: int | None = None
    height: int | None = None
    images: list[EncodedImage] = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    source: dict = field(default_factory=dict)
    annotations: dict = field(default_factory=dict)


_OUR_KEY = re.compile(r"[\w-]+/[\w-]+/[\w-]+", re.ASCII)


class _Record(TypedDict):
    """The JSON member of a sample of ours."""

    key: str
    dataset: str
    task: str
    language: str
    text: NotRequired[str]
    width: NotRequired[int | None]
    height: NotRequired[int | None]
    scores: NotRequired[dict]
    source: NotRequired[dict]
    annotations: NotRequired[dict]
    image_ids: NotRequired[list[list[str]]]  # of each image, where any has one


_JSON_FIELDS = (
    "key", "dataset", "task", "language", "width", "height", "text", "scores", "source", "annotations",
)  # fmt: skip


def to_members(sample: Sample) -> list[tuple[str, bytes]]:
    """Return the sample's WebDataset members as (extension, bytes): images first, then the text, then the JSON."""
    if sample.task not in TASKS:
        raise ValueError(f"sample {sample.key!r} has task {sample.task!r}; tasks are {', '.join(TASKS)}")
    if len(sample.images) == 1:
        members = [(sample.images[0].ext, sample.images[0].data)]
    else:
        members = [(f"{i:03d}.{image.ext}", image.data) for i, image in enumerate(sample.images)]
    if sample.text:
        members.append(("txt", sample.text.encode()))
    record = {name: getattr(sample, name) for name in _JSON_FIELDS}
    if any(image.ids for image in sample.images):
        record["image_ids"] = [list(image.ids) for image in sample.images]
    members.append(("json", json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()))
    return members


def from_shard(key: str, members: dict[str, bytes]) -> Sample:
    """Rebuild a sample that a job of ours wrote under `key`. Raises ValueError for any other."""
    sample = from_members(members)
    if sample.key != key or not _OUR_KEY.fullmatch(key):
        raise ValueError(
            f"not a sample of ours: its name in the tar is {key!r}, its json says {str(sample.key)[:200]!r}"
        )
    return sample


def from_members(members: dict[str, bytes]) -> Sample:
    """Rebuild a sample from its members by extension. Raises ValueError when there is no valid `json` member."""
    if "json" not in members:
        raise ValueError(f"not a sample of ours: it has members {sorted(members)}, but no json")
    record = load_json(members["json"])
    if (why := misfit(record, _Record)) or not isinstance(record, dict):
        raise ValueError(f"not a sample of ours: {why}")
    names = [name for name in sorted(members) if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    ids = [*record.pop("image_ids", []), *([] for _ in names)]
    images = [
        EncodedImage(members[name], name.rpartition(".")[2], tuple(of_image))
        for name, of_image in zip(names, ids, strict=False)
    ]
    try:
        return Sample(images=images, **record)
    except TypeError as error:
        raise ValueError(f"not a sample of ours: {error}") from None


class Decoder(Protocol):
    """Another place than this process to read images in: each method is as the function of that name below."""

    def image_header(self, data: bytes, max_pixels: int) -> tuple[str, int, int]: ...
    def decode_image(self, data: bytes, max_pixels: int) -> Image.Image: ...
    def verify_image(self, data: bytes, size: tuple[int, int] | None) -> None: ...


_elsewhere: Decoder | None = None


def read_images_by(decoder: Decoder | None) -> None:
    """Have all images of this process read by `decoder`, or (None) here."""
    global _elsewhere
    _elsewhere = decoder


def image_header(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """Read (extension, width, height in pixels) from an image's header, without decoding its pixels.

    Raises BadImage: `not_an_image`, `unsupported_image`, `truncated_image` (its end marker is missing) or
    `image_too_large` (more than `max_pixels`).
    """
    if _elsewhere:
        return _elsewhere.image_header(data, max_pixels)
    image = _open(data)
    width, height = image.size
    ext = _EXTENSION_OF_FORMAT[image.format]
    if width * height > max_pixels:
        raise BadImage("image_too_large", f"{width} x {height} pixels, more than {max_pixels}")
    if not _has_end(data, ext):
        raise BadImage("truncated_image", f"{ext} without its end marker")
    if ext == "jpg" and len(data) * 8 < (width // 8) * (height // 8):
        # Huffman coding spends at least a bit on each 8 x 8 block; decoders fill what is not there with grey.
        raise BadImage("truncated_image", f"{len(data)} bytes cannot hold {width} x {height} pixels")
    return ext, width, height


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode to an RGB Pillow image (transparency over white). Raises BadImage, also `undecodable_image`."""
    if _elsewhere:
        return _elsewhere.decode_image(data, max_pixels)
    image_header(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(data)
            image.load()
            return to_rgb(image)
    except BadImage:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ZeroDivisionError, ...
        raise_ours(error)
        raise BadImage("undecodable_image", f"{type(error).__name__}: {error}"[:200]) from None


def verify_image(data: bytes, size: tuple[int, int] | None = None) -> None:
    """Decode an image to see that it can be. Raises BadImage.

    With the (width, height) of its header, a JPEG is decoded at an eighth of it, which reads all its data all the same.
    """
    if _elsewhere:
        _elsewhere.verify_image(data, size)
    elif size:
        _skim(data, *size)
    else:
        decode_image(data)


def _skim(data: bytes, width: int, height: int) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=_READABLE) as image:
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ZeroDivisionError, ...
        raise_ours(error)
        raise BadImage("undecodable_image", f"{type(error).__name__}: {error}"[:200]) from None


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=_READABLE)
    except Image.DecompressionBombError as error:
        raise BadImage("image_too_large", str(error)) from None
    except Exception as error:
        raise_ours(error)
        raise BadImage(*_why_not_an_image(data, error)) from None


def _why_not_an_image(data: bytes, error: Exception) -> tuple[str, str]:
    if not data:
        return "not_an_image", "no bytes"
    head = bytes(data[:12])
    if head.startswith((b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0")) or head[4:8] == b"ftyp":
        return "unsupported_image", f"first bytes {head!r}; readable formats are JPEG, PNG and WebP"
    if head.startswith(b"RIFF") and not _has_end(data, "webp"):
        return "truncated_image", f"webp of {len(data)} bytes that declares more"
    if head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF")):
        # Pillow's own message names an address in memory, which is another in every run.
        what = "no image can be made of it" if isinstance(error, UnidentifiedImageError) else error
        return "undecodable_image", f"damaged header: {what}"[:200]
    return "not_an_image", f"first bytes {head!r}"


def _has_end(data: bytes, ext: str) -> bool:
    if ext == "jpg":  # cameras append data after the end marker, so the tail need not be the marker itself
        return data.rfind(b"\xff\xd9") > 2
    if ext == "png":
        return data.rfind(b"IEND") >= 0
    return len(data) >= 8 + int.from_bytes(data[4:8], "little")
