"""What the readers yield: typed rows as the owners publish them, or a BadRow with the reason.

Nothing here is cleaned, chosen or converted: answers are still ten, boxes still in the owner's convention.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that cannot be used. `kind` is the ledger's error kind, `detail` says what was found.

    One that stands for several, in a part of a file that nobody can read, says for how many.
    """

    kind: str
    detail: str
    rows: int = 1


class BadFile(Exception):
    """A file that is not what its reader expects, so that no record of it can be trusted.

    Among the files of a job it costs an error row; a job of which no file can be read stops.
    """


class WrongKind(BadFile):
    """A file whose name says that it is none of a reader's: stops the job, since whoever named it meant another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image as an annotation names it.

    `names` are file names to try in turn (folders in them only tell namesakes apart), `ids` are the owners' ids as
    "coco:458752", "vg:2331963", which exclusion lists refer to; `data` are the bytes themselves where a row holds them.
    """

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    url: str | None = None
    data: bytes | None = None


@dataclass(slots=True, kw_only=True)
class CaptionRow:
    """One text for one image."""

    image: ImageRef
    text: str
    source: dict = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class VqaRow:
    """A question with all its answers, each with its confidence ("yes", "maybe", "no" or None where none is published).

    `labels` are texts to draw into the image before the question can be answered (AI2D), with their rectangles
    [x0, y0, x1, y1] in pixels.
    """

    image: ImageRef
    question: str
    answers: list[tuple[str, str | None]]
    preferred: str | None = None  # VQAv2's multiple_choice_answer
    split: str = "train"
    labels: list[tuple[str, list[float]]] = field(default_factory=list)
    source: dict = field(default_factory=dict)


class Phrase(NamedTuple):
    """A phrase with one box; a phrase of several boxes is several of these with one span.

    `start` and `end` are characters of the row's caption, or None where there is no caption; `box` is in the row's
    convention. `expression`: its owner wrote it to point at the box; else it is a part of the caption.
    """

    text: str
    box: tuple[float, float, float, float]
    start: int | None = None
    end: int | None = None
    score: float = 1.0
    expression: bool = False


@dataclass(slots=True, kw_only=True)
class GroundingRow:
    """The phrases of one image with their boxes, in `convention` (see cleaners/boxes.py)."""

    image: ImageRef
    phrases: list[Phrase]
    convention: str
    caption: str | None = None
    split: str = "train"
    source: dict = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TextRow:
    """One document of pure text."""

    text: str
    source: dict = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Turn:
    """One message of a dialogue; `pieces` holds strings and integers, an integer being an index into the row's
    images."""

    role: str
    pieces: list


@dataclass(slots=True, kw_only=True)
class ChatRow:
    """One dialogue and the images it shows, in the order of their first mention."""

    turns: list[Turn]
    images: list[ImageRef] = field(default_factory=list)
    source: dict = field(default_factory=dict)
