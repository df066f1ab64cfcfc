"""Rule 5 of Qwen-VL A.1: emoji in captions, counted by one RE2 pattern made from the `emoji` library's table.

The library itself takes 75 microseconds a caption; the tests hold this pattern against it on every sequence it knows.
A sequence counts once: joined families, flags, keycaps, skin tones. Characters whose ordinary form is text (an arrow,
a chess piece, a check mark) count only where U+FE0F asks for the picture, as Unicode says; the few hearts, faces and
hands among them that people type for emoji count always. Copyright, registered and trade mark signs, digits and `#`
never count.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from emoji import EMOJI_DATA

from cleaners.text.arrays import rows_matching, rows_not_ascii

MARKS = "©®™"
HEARTS_FACES_HANDS = "❤❣☺☹☠☝✌✍⛹☃"


def _ranges(characters: set[str]) -> tuple[tuple[int, int], ...]:
    """Return the sorted, inclusive code point ranges of a set of characters."""
    ranges: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return tuple((first, last) for first, last in ranges)


def character_class(characters: set[str]) -> str:
    """Return the inside of an RE2 bracket expression for a set of characters."""
    return range_class(_ranges(characters))


def range_class(ranges) -> str:
    """Return the inside of an RE2 bracket expression for (first, last) code points."""
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in sorted(ranges))


_SINGLE = {key for key in EMOJI_DATA if len(key) == 1 and not key.isascii()} - set(MARKS)
# Beyond the BMP every symbol is a picture, whatever its default form.
TEXT_FIRST = {key for key in _SINGLE if key + "\ufe0f" in EMOJI_DATA and ord(key) < 0x10000} - set(HEARTS_FACES_HANDS)
PICTURES = _SINGLE - TEXT_FIRST
_REGIONAL = {chr(point) for point in range(0x1F1E6, 0x1F200)}
EMOJI_RANGES = _ranges({key for key in _SINGLE if ord(key) > 0xFFFF} | _REGIONAL)

_TONE = r"[\x{1F3FB}-\x{1F3FF}]"
_TAGS = r"[\x{E0020}-\x{E007F}]*"
_PICTURE, _TEXT_FIRST, _ANY_REGIONAL = map(character_class, (PICTURES, TEXT_FIRST, _REGIONAL))
_FIRST = rf"(?:[{_PICTURE}]\x{{FE0F}}?|[{_TEXT_FIRST}](?:\x{{FE0F}}|{_TONE})){_TONE}?{_TAGS}"
_NEXT = rf"\x{{200D}}[{_PICTURE}{_TEXT_FIRST}]\x{{FE0F}}?{_TONE}?"
_KEYCAP = r"[0-9#*]\x{FE0F}?\x{20E3}"
EMOJI = rf"[{_ANY_REGIONAL}]{{1,2}}|{_KEYCAP}|{_FIRST}(?:{_NEXT})*"
# Every emoji holds one of these.
ANY_EMOJI = rf"[{_PICTURE}{_ANY_REGIONAL}\x{{20E3}}\x{{FE0F}}]|[{_TEXT_FIRST}][\x{{1F3FB}}-\x{{1F3FF}}]"


def count_emoji(texts: pa.StringArray) -> np.ndarray:
    """Return each caption's number of emoji sequences."""
    counts = np.zeros(len(texts), np.int64)
    rows = rows_not_ascii(texts)
    if len(rows):
        rows = rows[rows_matching(texts.take(pa.array(rows)), ANY_EMOJI)]
    if len(rows):
        counts[rows] = pc.count_substring_regex(texts.take(pa.array(rows)), EMOJI).to_numpy(zero_copy_only=False)
    return counts


def list_emoji(texts: pa.StringArray) -> pa.StringArray:
    """Return the characters that make emoji, without the text between; for the ledger."""
    parts = rf"{_PICTURE}{_TEXT_FIRST}{_ANY_REGIONAL}\x{{20E3}}\x{{FE0F}}\x{{200D}}\x{{E0020}}-\x{{E007F}}"
    return pc.replace_substring_regex(texts, f"[^{parts}]+", "")
