"""Pieces, what a sample is made of before it is tokens: plain text, special tokens and image slots.

Plain text is encoded apart from special tokens, so data that contains `<img>` or `<|im_end|>` as text never turns into
control tokens.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from corpus.tokens import IMG, IMG_END, IMG_PAD, Tokenizer

TEXT, SPECIAL, IMAGE = "text", "special", "image"


class Piece(NamedTuple):
    """`value` is plain text, a special token's name, or the index of an image in `sample.images`, by `kind`."""

    kind: str
    value: str | int
    supervised: bool


@dataclass(slots=True)
class Encoded:
    """Tokens (int32 [L]), which of them are supervised targets (bool [L]), and the images in order of their slots."""

    tokens: np.ndarray
    loss: np.ndarray
    images: list[int]


class Encoder:
    """Turns pieces into tokens; an image slot is `<img>`, `queries` times `<imgpad>`, `</img>`."""

    def __init__(self, tokenizer: Tokenizer, queries: int):
        self.tokenizer, self.queries = tokenizer, queries
        special = tokenizer.special
        self._slot = [special[IMG], *[special[IMG_PAD]] * queries, special[IMG_END]]
        # Prompts, role names and short answers come again and again.
        self._short = functools.lru_cache(maxsize=8192)(tokenizer.encode)

    def encode(self, pieces: Sequence[Piece]) -> Encoded:
        """Encode one sample. Its first token is never a target, whatever its piece says (see corpus.packs)."""
        tokens, runs, images = [], [], []
        for kind, value, supervised in pieces:
            before = len(tokens)
            if kind == TEXT:
                tokens += self._short(value) if len(value) < 40 else self.tokenizer.encode(value)
            elif kind == SPECIAL:
                tokens.append(self.tokenizer.special[value])
            else:
                tokens += self._slot
                images.append(value)
            if supervised:
                runs.append((before, len(tokens)))
        loss = np.zeros(len(tokens), bool)
        for start, end in runs:
            loss[start:end] = True
        loss[:1] = False
        return Encoded(np.asarray(tokens, np.int32), loss, images)


def text_of(pieces: Sequence[Piece]) -> str:
    """Return pieces as the paper prints them: image slots as `<img>P</img>`, special tokens by name."""
    return "".join(f"{IMG}P{IMG_END}" if p.kind == IMAGE else str(p.value) for p in pieces)
