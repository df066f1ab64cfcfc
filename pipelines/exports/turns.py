"""A training sample as turns: from a cleaned sample's pieces, or back from a pack's tokens.

Both ways meet in pieces (corpus/pieces.py), so that a dialogue says what the trainer of this project would learn.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from corpus.formats import Unfit
from corpus.pieces import IMAGE, SPECIAL, TEXT, Piece
from corpus.tokens import EOS, IM_END, IM_START, IMG, IMG_END, IMG_PAD, Tokenizer

_PICTURE = re.compile(r"(^|\n)Picture \d+: $")
_QUESTIONS = ("vqa", "ocr_vqa")


@dataclass
class Turn:
    """What one side says: "system", "user" or "assistant", in pieces."""

    role: str
    pieces: list[Piece] = field(default_factory=list)


def pieces_of(tokens: np.ndarray, loss: np.ndarray, tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yield the pieces of one sample of a pack, the way back of `Encoder.encode`; images are numbered as they come."""
    borders = np.flatnonzero(np.diff(loss)) + 1
    pictures = 0
    for ids, mask in zip(np.split(tokens, borders), np.split(loss, borders), strict=True):
        for name, text in tokenizer.segments(ids):
            if name == IMG:
                yield Piece(IMAGE, pictures, False)
                pictures += 1
            elif name not in (IMG_PAD, IMG_END):
                yield Piece(SPECIAL, name, bool(mask[0])) if name else Piece(TEXT, text, bool(mask[0]))


def turns_of(task: str, pieces: Sequence[Piece]) -> list[Turn]:
    """Return a sample's turns, image slots included. Unfit for pure text, which nobody asked for."""
    if task == "text":
        raise Unfit("no_dialogue", detail="pure text has no question")
    if task == "chat":
        return _chat(_joined(pieces))
    said = [piece for piece in pieces if piece != Piece(SPECIAL, EOS, True)]
    asked = Turn("user", [piece for piece in said if not piece.supervised])
    if task in _QUESTIONS:
        asked.pieces[-1] = asked.pieces[-1]._replace(value=str(asked.pieces[-1].value).removesuffix(" Answer:"))
    return [asked, Turn("assistant", [piece for piece in said if piece.supervised])]


def _chat(pieces: list[Piece]) -> list[Turn]:
    """Cut ChatML into turns; the name of a role ends at the first newline, "Picture N: " goes with its image slot."""
    turns: list[Turn] = []
    open_turn = False
    for piece in pieces:
        if piece.kind == SPECIAL and piece.value == IM_START:
            turns.append(Turn(""))
            open_turn = True
        elif piece.kind == SPECIAL and piece.value == IM_END:
            open_turn = False
        elif open_turn:
            _hear(turns[-1], piece)
    return turns


def _hear(turn: Turn, piece: Piece) -> None:
    if not turn.role and piece.kind == TEXT:
        turn.role, _, text = str(piece.value).partition("\n")
        piece = piece._replace(value=text)
    if piece.kind == IMAGE and turn.pieces:
        last = turn.pieces[-1]
        turn.pieces[-1] = last._replace(value=_PICTURE.sub("", str(last.value)))
    elif piece.kind == TEXT and turn.pieces and turn.pieces[-1].kind == IMAGE:
        piece = piece._replace(value=str(piece.value).removeprefix("\n"))
    turn.pieces.append(piece)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring texts, of whichever mask: where a role's name ends is told by its newline."""
    joined = []
    for text, run in groupby(pieces, lambda piece: piece.kind == TEXT):
        found = list(run)
        joined += [Piece(TEXT, "".join(str(each.value) for each in found), False)] if text else found
    return joined
