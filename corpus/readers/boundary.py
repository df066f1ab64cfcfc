"""Where records from outside meet the readers: whatever is wrong with one becomes its error row, and no more than that.

A mistake of ours and the system's errors are raised: corpus/bugs.py tells them apart.
"""

from collections.abc import Callable, Iterable, Iterator

from corpus.bugs import why_data
from corpus.readers.rows import BadFile, BadRow
from corpus.readers.slices import Slice, held
from corpus.shapes import misfit


def made_of(record, parse: Callable[[object], Iterable], shape: type | None = None) -> list:
    """Return what `parse` makes of a record of `shape`, or the one BadRow that says why it makes nothing of it."""
    if isinstance(record, BadRow):
        return [record]
    if shape is not None and (why := misfit(record, shape)):
        return [BadRow("bad_record", why)]
    try:
        return list(parse(record))
    except BadFile:
        raise
    except Exception as error:
        return [BadRow("bad_record", why_data(error))]


def looked_up(make: Callable[[], object]) -> tuple[object, str | None]:
    """Return (the tables that a file's records are looked up in, None), or (None, why the file has none)."""
    try:
        return make(), None
    except BadFile as error:
        return None, str(error)
    except Exception as error:
        return None, why_data(error)


def lost(piece: Slice, why: str) -> Iterator[tuple[int, BadRow]]:
    """Yield, in the place of a slice's records, the one row that speaks for all of them."""
    ordinals = held(piece)
    if len(ordinals):
        yield int(ordinals[0]), BadRow("unreadable_file", why, rows=int(ordinals[-1] - ordinals[0]) + 1)
