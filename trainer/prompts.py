"""What a model is asked: the pieces of a training sample up to where its answer begins, and its images in order.

The text formats stand in `corpus.formats` and nowhere else: a prompt is a sample made up for its task, cut where the
loss would start. The user's words stay plain text, so `<|im_end|>` or `<box>` typed by a user is never a control token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from corpus.formats import BadSample, Unfit, format_sample
from corpus.geometry import RANGE
from corpus.pieces import IMAGE, SPECIAL, TEXT, Piece
from corpus.records import BadImage, EncodedImage, Sample, decode_image
from corpus.tokens import Tokenizer

TASKS = ("plain", "caption", "grounded_caption", "vqa", "referring", "region_caption", "ocr")
_ANSWER = "\0answer\0"  # stands for the assistant's words; no text can hold it, records come from JSON or a terminal
_PICTURE = EncodedImage(b"", "png")


class BadPrompt(ValueError):
    """A prompt or an image that cannot be asked about; the message says what to change."""


@dataclass(slots=True)
class Prompt:
    """`images` are encoded bytes, one for each image slot of `pieces`. `begin`: special tokens the answer starts with,
    given to the model and read as part of its answer."""

    pieces: list[Piece]
    images: list[bytes] = field(default_factory=list)
    begin: tuple[str, ...] = ()


def ask(task: str, images: Sequence[bytes], text: str = "", box=None, language: str = "en") -> Prompt:
    """Return the prompt of a task of Appendix B.1. `text` is the question (vqa), the phrase (referring) or, for plain,
    all that follows the images; `box` (region_caption) holds the format's integers in [0, 1000).

    Raises BadPrompt when the task lacks what it needs.
    """
    if task == "plain":
        slots = [Piece(IMAGE, i, False) for i in range(len(images))]
        return Prompt([*slots, Piece(TEXT, text, False)], list(images))
    if task not in TASKS:
        raise BadPrompt(f"no task {task!r}; tasks are {', '.join(TASKS)}")
    if task == "region_caption" and box is None:
        raise BadPrompt("region_caption needs the region: a box x0,y0,x1,y1 of integers in [0, 1000)")
    sample = Sample(
        key="", dataset="", task=task, language=language, text="?", width=RANGE, height=RANGE,
        images=[_PICTURE] * len(images), annotations=_annotations(text, box),
    )  # fmt: skip
    return Prompt(list(takewhile(lambda piece: not piece.supervised, _format(sample))), list(images))


def _annotations(text: str, box) -> dict:
    """What a format may ask for. Width and height are RANGE, so that a box in the format's integers stays as it is."""
    anywhere = [0, 0, RANGE // 2, RANGE // 2]
    quad = [[0, 0], [RANGE // 2, 0], [RANGE // 2, RANGE // 2], [0, RANGE // 2]]
    return {
        "question": text, "answer": "?",
        "regions": [{"text": text or "?", "span": [0, 1], "boxes": [list(box or anywhere)]}],
        "lines": [{"text": "?", "quad": quad}],
    }  # fmt: skip


def _format(sample: Sample) -> list[Piece]:
    try:
        (made,) = format_sample(sample, sample.task)
    except BadSample as error:
        raise BadPrompt(str(error)) from None
    if isinstance(made, Unfit):
        raise BadPrompt(f"{sample.task}: {made.kind.replace('_', ' ')} {made}".strip())
    return made.pieces


def dialogue(turns: Sequence[dict], images: Sequence[bytes], tokenizer: Tokenizer) -> Prompt:
    """Return the prompt for the next answer of a ChatML dialogue.

    `turns` are a chat sample's ({"role", "text", "images"}), the assistant's with the "tokens" it generated, which go
    back as they were: read again from text, a box of its own would no longer be a box.
    """
    shown = [t | {"text": _ANSWER, "regions": []} if t["role"] == "assistant" else t for t in turns]
    sample = Sample(
        key="", dataset="", task="chat", language="en", images=[_PICTURE] * len(images),
        annotations={"turns": [*shown, {"role": "assistant", "text": _ANSWER}]},
    )  # fmt: skip
    answers = [as_pieces(t["tokens"], tokenizer) for t in turns if t["role"] == "assistant"]
    return Prompt(list(_with_answers(_format(sample), answers)), list(images))


def _with_answers(pieces: list[Piece], answers: list[list[Piece]]) -> Iterator[Piece]:
    """Put the answers in their places; the place after the last of them is where the model goes on."""
    left = iter(answers)
    for piece in pieces:
        if piece != (TEXT, _ANSWER, True):
            yield piece
            continue
        answer = next(left, None)
        if answer is None:
            return
        yield from answer


def as_pieces(tokens: Sequence[int], tokenizer: Tokenizer) -> list[Piece]:
    """Turn generated tokens back into pieces, the special ones among them as such."""
    segments = tokenizer.segments(tokens)
    return [Piece(SPECIAL, name, True) if name else Piece(TEXT, text, True) for name, text in segments]


def read_image(path: str | Path) -> bytes:
    """Read an image file and make sure that it can be decoded. Raises BadPrompt, saying what is wrong with it."""
    try:
        data = Path(path).read_bytes()
        decode_image(data)
    except FileNotFoundError:
        raise BadPrompt(f"{path}: no such file") from None
    except OSError as error:
        raise BadPrompt(f"{path}: {error.strerror}") from None
    except BadImage as error:
        raise BadPrompt(f"{path}: {error.kind.replace('_', ' ')}: {error}") from None
    return data
