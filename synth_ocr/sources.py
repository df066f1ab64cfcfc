"""Where passages and photos come from: files too large to hold, read at random places.

A passage starts at a byte drawn uniformly from all files, so a long article is met as often as its length says, and its
beginning no more often than its end. Text files and JSON lines are read at that byte; nothing is scanned or indexed.
"""

import codecs
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from pydoc_data.topics import topics

import fsspec
import numpy as np

from corpus.records import BadImage
from corpus.shards import IndexedShard
from synth_ocr.fonts import everyday_chinese
from synth_ocr.textures import colour_clouds, crumpled_paper, decode_photo

TEXT_SUFFIXES = (".txt", ".jsonl", ".tar")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 26
_CACHED_BYTES = 256 << 20  # of decoded photos, in each worker
# The rest of a word that the reading began in; scripts without blanks have no such rest.
_REST_OF_WORD = re.compile(r"^[^\s\u2e80-\uffef]{1,40}\s+")
_PHOTOS_IN_SKIMAGE = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


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
        key, members = shard[i]
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
    text = "\n".join(topics.values()) if language == "en" else _invented_chinese(50_000)
    fsspec.filesystem("memory").pipe_file(f"/synth_ocr/{language}.txt", text.encode())
    return f"memory://synth_ocr/{language}.txt"


def _invented_chinese(length: int) -> str:
    rng = np.random.default_rng(20260103)
    signs = np.array(list(everyday_chinese()))
    text = signs[rng.integers(len(signs), size=length)]
    ends = np.cumsum(rng.integers(4, 16, length // 16))
    text[ends[ends < length]] = "，"
    text[ends[::3][ends[::3] < length]] = "。"
    return "".join(text)


def _cut(text: str, share: float) -> str:
    at = int(len(text) * share)
    return _REST_OF_WORD.sub("", text[at:], count=1) if at else text


class Photos:
    """Photos to lie behind the page, from image files and shards; without any, scikit-image's and coloured clouds.

    Decoded photos are kept, the most recently used ones, up to a fixed number of bytes.
    """

    def __init__(self, files: Sequence[str]):
        self._shards = {file: _open_shard(file) for file in files if file.endswith(".tar")}
        self._files = list(files) or _built_in()
        self._ends = list(accumulate(len(self._shards[f]) if f in self._shards else 1 for f in self._files))
        if not self._ends[-1]:
            raise BadImage("no_backgrounds", f"the background shards are empty: {', '.join(files)}")
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def pick(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Return a random photo (uint8, height x width x 3) and its name. BadImage names the photo at fault."""
        chosen = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, chosen, side="right"))
        inner = chosen - (self._ends[number - 1] if number else 0)
        name = Path(self._files[number]).name + (f" sample {inner}" if self._files[number] in self._shards else "")
        if chosen not in self._cache:
            try:
                self._remember(chosen, self._decode(self._files[number], inner))
            except BadImage as error:
                raise BadImage(error.kind, f"background {name}: {error}") from None
        self._cache.move_to_end(chosen)
        return self._cache[chosen], name

    def _decode(self, file: str, inner: int) -> np.ndarray:
        if file.startswith("clouds-"):
            return colour_clouds(np.random.default_rng([20260101, int(file[7:])]))
        if file not in self._shards:
            with fsspec.open(file, "rb") as stream:
                return decode_photo(stream.read())
        key, members = self._shards[file][inner]
        for ext, data in members.items():
            if f".{ext}".endswith(PHOTO_SUFFIXES):
                return decode_photo(data)
        raise BadImage("not_an_image", f"sample {key} has no image member")

    def _remember(self, chosen: int, photo: np.ndarray) -> None:
        self._cache[chosen] = photo
        self._bytes += photo.nbytes
        while self._bytes > _CACHED_BYTES and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes


def _built_in() -> list[str]:
    """Name the photos in scikit-image's wheel (which synthtiger depends on) and as many clouds."""
    folder = Path(find_spec("skimage").submodule_search_locations[0]) / "data"
    photos = [str(folder / name) for name in _PHOTOS_IN_SKIMAGE if (folder / name).is_file()]
    return photos + [f"clouds-{i}" for i in range(len(photos))]


def load_papers(files: Sequence[str]) -> list[np.ndarray]:
    """Decode paper textures to grey (uint8, height x width); without files, crumple six sheets. BadImage names one."""
    if not files:
        return _crumpled_papers()
    papers = []
    for file in files:
        try:
            with fsspec.open(file, "rb") as stream:
                papers.append(decode_photo(stream.read(), grey=True))
        except BadImage as error:
            raise BadImage(error.kind, f"paper {file}: {error}") from None
    return papers


@cache
def _crumpled_papers() -> list[np.ndarray]:
    return [crumpled_paper(np.random.default_rng([20260102, i])) for i in range(6)]
