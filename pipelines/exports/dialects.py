"""Two JSON formats for dialogues about images: LLaVA's, and ShareGPT's as LLaMA-Factory reads it.

Both mark an image by `<image>` in the text and know no other control words, so what a crawl wrote as text could become
one: such samples are dropped (`control_words`). What else a format cannot hold is dropped, or left out and counted.

- LLaVA: one image, no system's words, turns of human and gpt in turn. A box is [x0, y0, x1, y1] in [0, 1] of the image
  padded to a square, its content centred, as LLaVA-1.5's own data have it (haotian-liu/LLaVA, issue 606). No quads.
- ShareGPT: any number of images, system's words first. Boxes and quads stay in Qwen-VL's notation, as text.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from corpus.formats import Unfit
from corpus.geometry import RANGE
from corpus.pieces import IMAGE, TEXT, Piece
from corpus.tokens import BOX, BOX_END, QUAD, QUAD_END, REF, REF_END
from pipelines.exports.turns import Turn

MARK = "<image>"
_CONTROL = re.compile(r"<(?:image|video|audio)>|<\|[^|<>\s]{1,40}\|>|</?(?:s|ref|box|quad|img)>|<im_(?:start|end)>")
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Dialect:
    """How a format writes dialogues. `shape` writes a box or a quad, given the size of its image, or returns None."""

    name: str
    shape: Callable[[str, str, tuple[int, int] | None], str | None]
    most_images: int | None = None
    system: bool = True
    asks: dict[str, Callable[[str], str]] = field(default_factory=dict)  # by task: its own words for a question
    answers: dict[str, Callable[[str], str]] = field(default_factory=dict)


@dataclass
class Written:
    """A dialogue in a format's own words, and how much of what the sample has was left out."""

    conversations: list[dict]
    lost: Counter


def write(dialect: Dialect, task: str, turns: Sequence[Turn], sizes: Sequence[tuple[int, int]]) -> Written:
    """Write turns about images of `sizes` (width, height in pixels). Raises Unfit for what the format cannot hold."""
    _check(dialect, turns, len(sizes))
    lost = Counter({"system_lost": sum(turn.role == "system" for turn in turns if not dialect.system)})
    said = []
    for turn in turns:
        if turn.role == "system" and not dialect.system:
            continue
        text = _text(dialect, turn.pieces, sizes, lost)
        own = (dialect.asks if turn.role == "user" else dialect.answers).get(task)
        said.append({"from": _NAMES[turn.role], "value": _worded(text, own)})
    return Written(said, lost)


def _check(dialect: Dialect, turns: Sequence[Turn], images: int) -> None:
    if dialect.most_images is not None and images > dialect.most_images:
        raise Unfit("several_images", images, dialect.most_images)
    roles = [turn.role for turn in turns if turn.role != "system"]
    late = any(turn.role == "system" for turn in turns[1:])
    if late or not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise Unfit("turns_out_of_order", detail=", ".join(turn.role for turn in turns)[:200])
    texts = (str(piece.value) for turn in turns for piece in turn.pieces if piece.kind == TEXT)
    if found := _CONTROL.search("\n".join(texts)):
        raise Unfit("control_words", detail=found.group())


def _text(dialect: Dialect, pieces: Sequence[Piece], sizes: Sequence[tuple[int, int]], lost: Counter) -> str:
    """Write a turn's pieces: marks of images, each with a newline, then words with shapes among them."""
    text, kind = "", ""
    for piece in pieces:
        if piece.kind == IMAGE:
            text += f"{MARK}\n"
        elif piece.kind == TEXT and kind in (BOX, QUAD):
            shape = dialect.shape(kind, str(piece.value), sizes[0] if len(sizes) == 1 else None)
            lost.update({"quads_lost" if kind == QUAD else "boxes_lost": shape is None})
            text += "\n" if shape is None else shape
        elif piece.kind == TEXT:
            text += str(piece.value)
        else:
            kind = str(piece.value) if piece.value in (BOX, QUAD) else ""
            text += _reference(dialect, str(piece.value))
    return text


def _reference(dialect: Dialect, name: str) -> str:
    return name if dialect is SHAREGPT and name in (REF, REF_END) else ""


def _worded(text: str, own: Callable[[str], str] | None) -> str:
    """Strip a turn; its first images stay in front of the format's `own` words."""
    marks = len(text) - len(text.removeprefix(f"{MARK}\n"))
    head, words = text[:marks], text[marks:].strip()
    return (head + (own(words) if own else words)).strip()


# --- The two formats ---


def _in_square(kind: str, corners: str, size: tuple[int, int] | None) -> str | None:
    """Write a box as LLaVA does; None for a quad, and where nobody knows the image's size."""
    if kind == QUAD or size is None:
        return None
    side = max(size)
    numbers = [int(number) for number in _NUMBER.findall(corners)]
    padded = [(number / RANGE * size[i % 2] + (side - size[i % 2]) / 2) / side for i, number in enumerate(numbers)]
    return f" [{', '.join(f'{number:.2f}' for number in padded)}]"


def _in_marks(kind: str, corners: str, size: tuple[int, int] | None) -> str:
    opening, closing = (BOX, BOX_END) if kind == BOX else (QUAD, QUAD_END)
    return f"{opening}{corners}{closing}"


LLAVA = Dialect(
    "llava", _in_square, most_images=1, system=False,
    asks={
        "referring": "Please provide the bounding box coordinate of the region this sentence describes: {}".format,
        "region_caption": lambda words: f"Please provide a short description for this region:{words[4:]}",
        "ocr": lambda words: "Read the text in the picture.",
        "grounded_caption": str,
    },
    answers={"region_caption": lambda words: words.removeprefix("is ")},
)  # fmt: skip
SHAREGPT = Dialect("sharegpt", _in_marks)
DIALECTS = {dialect.name: dialect for dialect in (LLAVA, SHAREGPT)}
