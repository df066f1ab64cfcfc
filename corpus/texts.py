"""Pure text as training samples: split at paragraphs, then at tokens, into parts that fit."""

import re
from collections.abc import Iterator

import numpy as np

from corpus.formats import Encoded
from corpus.tokens import Tokenizer

# Blank space that ends in a line break. Qwen's pattern for words never reaches across its end, so paragraphs encoded
# one by one give the tokens of the whole text.
_PARAGRAPH_END = re.compile(r"\s*[\r\n]+")


def split_text(text: str, tokenizer: Tokenizer, limit: int) -> list[Encoded]:
    """Split a text into samples of 2 to `limit` tokens, `limit` >= 3; a blank text gives none.

    Paragraphs are put together while they fit. One that is longer than `limit` is cut at token boundaries. Only the
    last part ends with `<eos>`: elsewhere the text goes on. The parts' tokens, put together, are those of the text.
    """
    parts, part = [], []
    for paragraph in _paragraphs(text.strip(), tokenizer):
        if len(part) > 1 and len(part) + len(paragraph) > limit:
            parts.append(part)
            part = []
        part = part + paragraph
        while len(part) > limit:
            # A part of one token would teach nothing: the first token of a sample is never a target.
            cut = limit if len(part) > limit + 1 else limit - 1
            parts.append(part[:cut])
            part = part[cut:]
    return [_encoded(part) for part in [*parts, part] if part]


def _paragraphs(text: str, tokenizer: Tokenizer) -> Iterator[list[int]]:
    start = 0
    for match in _PARAGRAPH_END.finditer(text):
        yield tokenizer.encode(text[start : match.end()])
        start = match.end()
    if start < len(text):
        yield [*tokenizer.encode(text[start:]), tokenizer.eos]


def _encoded(tokens: list[int]) -> Encoded:
    loss = np.ones(len(tokens), bool)
    loss[0] = False  # nothing predicts the first token of a sample
    return Encoded(np.asarray(tokens, np.int32), loss, [])
