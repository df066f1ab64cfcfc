"""Records of a JSON file of any size, with their byte positions, in memory bounded by the largest record.

The file is decoded as Latin-1 for the scan, so that one character is one byte and positions found are positions in the
file; a record that is not ASCII is decoded again, as UTF-8.
"""

from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import BinaryIO, NamedTuple

from corpus.readers.rows import BadFile
from corpus.values import load_json, raw_value

CHUNK = 4 << 20
MAX_RECORD = 256 << 20
_SPACE = " \t\r\n"


class CutJson(Exception):
    """The file ends, or stops being JSON, in the middle; the message says at which byte."""


class Found(NamedTuple):
    """A record: the top-level key it stands under (an array's key, or its own key in an object), its bytes, its value.

    In an object of records the bytes include the key: `"id": {...}`. `array` is the byte at which the array begins that
    holds it: a key, and so an array under it, may stand twice in a file.
    """

    key: str | None
    start: int
    stop: int
    value: object
    array: int | None


def scan(file: BinaryIO) -> Iterator[Found]:
    """Yield the elements of a top-level array; of an object, its arrays' elements and its other members.

    Raises CutJson after the last whole record of a damaged file, BadFile for what is no JSON array or object.
    """
    cursor = _Cursor(file)
    first = cursor.peek()
    if first == "[":
        yield from _elements(cursor, None)
    elif first == "{":
        yield from _object(cursor)
    else:
        raise BadFile(f"not a JSON array or object: it starts with {first!r}")


def _object(cursor: "_Cursor") -> Iterator[Found]:
    cursor.take("{")
    if cursor.peek() == "}":
        return
    while True:
        start, _, key = cursor.value()
        if not isinstance(key, str):
            raise CutJson(f"byte {start}: a key was expected")
        cursor.take(":")
        if cursor.peek() == "[":
            yield from _elements(cursor, key)
        else:
            _, stop, value = cursor.value()
            yield Found(key, start, stop, value, array=None)
        if cursor.take(",}") == "}":
            return


def _elements(cursor: "_Cursor", key: str | None) -> Iterator[Found]:
    cursor.take("[")
    array = cursor.position
    if cursor.peek() == "]":
        cursor.take("]")
        return
    while True:
        start, stop, value = cursor.value()
        yield Found(key, start, stop, value, array)
        if cursor.take(",]") == "]":
            return


def _reread(raw: bytes) -> object:
    try:
        return load_json(raw)
    except ValueError:  # nested too deep
        return None


class _Cursor:
    def __init__(self, file: BinaryIO):
        self._file, self._text, self._base, self._at, self._ended = file, "", 0, 0, False
        self._grow(max(CHUNK, 4))
        if self._text.startswith(("\xff\xfe", "\xfe\xff")):
            raise BadFile("UTF-16 text; convert it to UTF-8 first")
        if self._text.startswith("\xef\xbb\xbf"):
            self._at = 3

    @property
    def position(self) -> int:
        """The byte that comes next."""
        return self._base + self._at

    def peek(self) -> str:
        """Return the next character that is no white space, or "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow(CHUNK):
                return ""

    def take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            what = "the file ends" if not found else f"{found!r} stands"
            raise CutJson(f"{what} at byte {self.position}, where one of {expected!r} was expected")
        self._at += 1
        return found

    def value(self) -> tuple[int, int, object]:
        """Read one value: (first byte, byte after it, value)."""
        self.peek()
        while True:
            try:
                value, stop = raw_value(self._text, self._at)
            except JSONDecodeError as error:
                if not self._may_be_unfinished(error) or not self._grow(max(CHUNK, len(self._text) - self._at)):
                    raise CutJson(f"{error.msg} at byte {self._base + error.pos}") from None
                continue
            if stop == len(self._text) and self._grow(CHUNK):  # a number may go on
                continue
            raw = self._text[self._at : stop]
            if not raw.isascii() or "\\u" in raw:
                value = _reread(raw.encode("latin-1"))
            start, self._at = self._at, stop
            return self._base + start, self._base + stop, value

    def _may_be_unfinished(self, error: JSONDecodeError) -> bool:
        if len(self._text) - self._at > MAX_RECORD:
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 12

    def _grow(self, size: int) -> bool:
        data = b"" if self._ended else self._file.read(size)
        self._ended = not data
        self._base += self._at
        self._text, self._at = self._text[self._at :] + data.decode("latin-1"), 0
        return bool(data)
