"""Pure text as training samples: split at paragraphs, then at tokens, into parts that fit."""

import re
from collections.abc import Iterator

import numpy as np

from corpus.pieces import Encoded
from corpus.tokens import Tokenizer

# From a line break to the last one before the next word. Qwen's pattern for words never reaches across its end, so
# paragraphs encoded one by one give the tokens of the whole text.
_PARAGRAPH_END = re.compile(r"[\r\n](?:\s*[\r\n])?")


def split_text(text: str, tokenizer: Tokenizer, limit: int) -> list[Encoded]:
    """Split a text into samples of 2 to `limit` tokens, `limit` >= 3; a blank text gives none.

    A part ends with the last paragraph that fits, or, where none does, after `limit` tokens. Only the last part ends
    with `<eos>`: elsewhere the text goes on. The parts' tokens, put together, are those of the text.
    """
    paragraphs = list(_paragraphs(text.strip(), tokenizer))
    if not paragraphs:
        return []
    tokens = np.concatenate(paragraphs)
    ends = np.cumsum([len(paragraph) for paragraph in paragraphs])
    parts, start = [], 0
    while start < len(tokens):
        cut = _cut(start, ends, limit, len(tokens))
        parts.append(_encoded(tokens[start:cut]))
        start = cut
    return parts


def _cut(start: int, ends: np.ndarray, limit: int, total: int) -> int:
    # A part of one token would teach nothing: the first token of a sample is never a target.
    last = int(np.searchsorted(ends, start + limit, side="right")) - 1
    cut = int(ends[last]) if last >= 0 and ends[last] > start + 1 else start + limit
    return cut if total - cut != 1 else cut - 1


def _paragraphs(text: str, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    start = 0
    for match in _PARAGRAPH_END.finditer(text):
        yield np.array(tokenizer.encode(text[start : match.end()]), np.int32)
        start = match.end()
    if start < len(text):
        yield np.array([*tokenizer.encode(text[start:]), tokenizer.eos], np.int32)


def _encoded(tokens: np.ndarray) -> Encoded:
    loss = np.ones(len(tokens), bool)
    loss[0] = False
    return Encoded(tokens, loss, [])
