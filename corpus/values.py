"""Values from outside made such that everything after can hold them: text that UTF-8 can spell, numbers of 64 bits.

JSON can spell lone surrogates, NUL, integers of any length, numbers beyond a float and nesting beyond any stack; a
Parquet file bytes that are no UTF-8. One of these in one row would stop whatever writes the row, far from where it
came in.
"""

import json
import math
import re

MAX_DEPTH = 100  # of brackets in brackets; fixed, since what Python's own decoder bears depends on who calls it
TOO_DEEP = f"nested deeper than {MAX_DEPTH}"
_UNFIT = re.compile("[\0\ud800-\udfff]")
_LONG_NUMBER = re.compile(r"[0-9](?:[0-9]{17}|[eE]\+?[0-9]{3})")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def load_json(data: bytes | str) -> object:
    """Decode JSON (bytes: UTF-8) to values that any ledger, shard or Parquet file can hold.

    Lone surrogates and NUL become U+FFFD, integers beyond 64 bits their digits as text, NaN and infinities None.
    Raises ValueError for what is no JSON and for what is nested deeper than MAX_DEPTH.
    """
    text = (data.decode("utf-8", "replace") if isinstance(data, bytes) else data).removeprefix("\ufeff")
    try:
        value = (_careful if _LONG_NUMBER.search(text) else _plain).decode(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if _may_be_deep(text) and depth(value) > MAX_DEPTH:
        raise ValueError(TOO_DEEP)
    return valid(value) if "\\u" in text or "\0" in text else value


def is_hard(text: str) -> bool:
    """Tell whether JSON may spell what cannot be held: escapes, long numbers, NUL, many brackets."""
    return "\\u" in text or "\0" in text or _may_be_deep(text) or _LONG_NUMBER.search(text) is not None


def _may_be_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > MAX_DEPTH


def raw_value(text: str, start: int) -> tuple[object, int]:
    """Decode the value at `start`: (value, its end). None for one nested too deep for Python's stack.

    Raises JSONDecodeError for what is no JSON or ends too soon.
    """
    try:
        return _plain.raw_decode(text, start)
    except RecursionError:
        if end := _end_of(text, start):
            return None, end
        raise json.JSONDecodeError("Unterminated string: brackets that do not close", text, start) from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # more digits than Python turns into a number
        return _careful.raw_decode(text, start)


def depth(value) -> int:
    """Return how deep lists and objects are nested."""
    levels, here = 0, [value] if isinstance(value, (dict, list)) else []
    while here:
        inside = [child for each in here for child in (each.values() if isinstance(each, dict) else each)]
        here = [child for child in inside if isinstance(child, (dict, list))]
        levels += 1
    return levels


def _end_of(text: str, start: int) -> int | None:
    """Return where the object or array that opens at `start` closes, however deep it is; None: not in this text."""
    level = 0
    for token in _BRACKETS.finditer(text, start):
        level += (token.group() in "[{") - (token.group() in "]}")
        if level == 0:
            return token.end()
    return None


def valid(value) -> object:
    """Return a value of a row in which text, numbers and types are such that they can be written."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(str(key)): valid(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [valid(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, bytes)):
        return value
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else valid_text(str(value))


def valid_text(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold, and NUL, which no path can, by U+FFFD."""
    return _UNFIT.sub("\ufffd", text)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 19 or (len(digits) < 21 and -(2**63) <= int(digits) < 2**63) else digits


def _real(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_plain = json.JSONDecoder(parse_constant=lambda name: None, strict=False)
_careful = json.JSONDecoder(parse_constant=lambda name: None, parse_int=_integer, parse_float=_real, strict=False)
