"""Where passages come from: files too large to hold, read at random places.

A passage starts at a byte drawn uniformly from all files, so a long article is met as often as its length says, and its
beginning no more often than its end. Text files and JSON lines are read at that byte; nothing is scanned or indexed.
"""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from pydoc_data.topics import topics

import fsspec
import numpy as np

from corpus.damage import CorruptSample
from corpus.shards import IndexedShard
from synth_ocr.fonts import everyday_chinese

TEXT_SUFFIXES = (".txt", ".jsonl", ".tar")
_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 26
# The rest of a word that the reading began in; scripts without blanks have no such rest.
_REST_OF_WORD = re.compile(r"^[^\s\u2e80-\uffef]{1,40}\s+")


class BadCorpus(Exception):
    """Text that cannot be read. `kind` is the ledger's error kind; the message names the file."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class Corpus:
    """Text files (UTF-8), JSON lines with a `text`, or cleaned text shards: local paths or fsspec URLs."""

    def __init__(self, files: Sequence[str]):
        for file in files:
            if not file.endswith(TEXT_SUFFIXES):
                raise BadCorpus("unsupported_corpus", f"{file}: a corpus is {', '.join(TEXT_SUFFIXES)}, not compressed")
        self._files = [(*fsspec.core.url_to_fs(file), file) for file in files]
        self._ends = list(accumulate(fs.size(path) for fs, path, _ in self._files))
        if not self._ends or not self._ends[-1]:
            raise BadCorpus("empty_corpus", f"the corpus has no text: {', '.join(files) or 'no files'}")

    def passage(self, rng: np.random.Generator, length: int) -> tuple[str, dict]:
        """Return `length` characters from a random place on, and where that was: file name and byte."""
        at = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, at, side="right"))
        offset = at - (self._ends[number - 1] if number else 0)
        place = {"corpus": Path(self._files[number][2]).name, "byte": offset}
        pieces, total = [], 0
        for piece in self._from(number, offset):
            pieces.append(piece)
            total += len(piece) + 1
            if total >= length:
                return "\n".join(pieces)[:length], place
        if not any(piece.strip() for piece in pieces):
            raise BadCorpus("empty_corpus", f"{self._files[number][2]} and the files after it hold nothing but blanks")
        repeats = -(-length // total)  # a corpus shorter than a page is read again from its start
        return "\n".join(pieces * repeats)[:length], place

    def _from(self, number: int, offset: int) -> Iterator[str]:
        """Yield pieces of text from a place on, through the following files and once around."""
        for step in range(len(self._files) + 1):
            fs, path, url = self._files[(number + step) % len(self._files)]
            read = {".txt": _read_text, ".jsonl": _read_json_lines, ".tar": _read_shard}[Path(path).suffix]
            yield from read(fs, path, url, offset if step == 0 else 0)


def _read_text(fs, path: str, url: str, offset: int) -> Iterator[str]:
    with fs.open(path, "rb") as file:
        file.seek(offset)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := file.read(_BLOCK):
            text = decoder.decode(data)
            if text.count("\ufffd") > 8 + len(text) // 50:
                raise BadCorpus("corpus_not_utf8", f"{url} is not UTF-8 text near byte {offset}")
            text = text.replace("\ufffd", "")
            yield _REST_OF_WORD.sub("", text, count=1) if offset else text
            offset = 0


def _read_json_lines(fs, path: str, url: str, offset: int) -> Iterator[str]:
    with fs.open(path, "rb") as file:
        start = _line_start(file, offset)
        file.seek(start)
        share = None
        while line := file.readline(_LONGEST_LINE):
            if not line.strip():
                continue
            text = _text_of(line, f"{url}, the line at byte {file.tell() - len(line)}")
            if share is None:
                share = (offset - start) / len(line)
                text = _cut(text, share)
            yield text


def _text_of(line: bytes, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadCorpus("bad_corpus_line", f"{where}: no JSON object with a `text` ({error})") from None
    if not isinstance(text, str):
        raise BadCorpus("bad_corpus_line", f"{where}: its `text` is {type(text).__name__}")
    return text


def _line_start(file, offset: int) -> int:
    end = offset
    while end > 0:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _read_shard(fs, path: str, url: str, offset: int) -> Iterator[str]:
    shard = _open_shard(url)
    place = offset / max(fs.size(path), 1) * len(shard)
    for i in range(int(place), len(shard)):
        try:
            key, members = shard[i]
        except CorruptSample as error:
            raise BadCorpus(error.kind, str(error)) from None
        if "txt" in members:
            text = members["txt"].decode("utf-8", "replace")
        elif "json" in members:
            text = _text_of(members["json"], f"{url}, sample {key}")
        else:
            raise BadCorpus("bad_corpus_line", f"{url}, sample {key}: no txt and no json member")
        yield _cut(text, place % 1) if i == int(place) else text


@lru_cache(maxsize=16)
def _open_shard(url: str) -> IndexedShard:
    try:
        return IndexedShard(url)
    except FileNotFoundError:
        raise BadCorpus("shard_without_index", f"{url} has no .idx beside it, so it is no shard of ours") from None


def built_in_corpus(language: str) -> str:
    """Return the URL of a corpus that needs no download: Python's own documentation, or invented Chinese.

    The Chinese is everyday characters in random order, with punctuation: good enough to look at, not to train on.
    """
    makers = {"en": lambda: "\n".join(topics.values()), "zh": lambda: _invented_chinese(50_000)}
    if language not in makers:
        raise BadCorpus("no_corpus", f"no text in {language!r} comes with this checkout: name a --corpus")
    text = makers[language]()
    fsspec.filesystem("memory").pipe_file(f"/synth_ocr/{language}.txt", text.encode())
    return f"memory://synth_ocr/{language}.txt"


def _invented_chinese(length: int) -> str:
    rng = np.random.default_rng(20260103)
    signs = np.array(list(everyday_chinese()))
    text = signs[rng.integers(len(signs), size=length)]
    ends = np.cumsum(rng.integers(4, 16, length // 4))
    text[ends[ends < length]] = "，"
    text[ends[::3][ends[::3] < length]] = "。"
    return "".join(text)


def _cut(text: str, share: float) -> str:
    at = int(len(text) * share)
    return _REST_OF_WORD.sub("", text[at:], count=1) if at else text
