"""Which exceptions are mistakes in our own code: the one rule of every boundary that turns exceptions into error rows.

A damaged file makes the libraries that read it raise almost anything, so such a boundary catches Exception. What only
a mistake in code raises, raised by a line of ours, says nothing about the file: counted as the data's it would hide.

    except Exception as error:
        raise_ours(error)
        raise BadImage("undecodable_image", ...) from None
"""

import traceback
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MISTAKES = (TypeError, AttributeError, NameError, AssertionError, ImportError)


class Bug(Exception):
    """A mistake in our code, met while a row was worked on; the message is its traceback. It stops the job."""


def raise_ours(error: BaseException) -> None:
    """Raise Bug when `error` is a mistake of ours; return when it may be the data's."""
    if bug := bug_in(error):
        raise bug from None


def bug_in(error: BaseException) -> Bug | None:
    """Return the Bug that `error` is: a mistake that a line of this checkout, no library's, raised."""
    if isinstance(error, Bug):
        return error
    ours = isinstance(error, MISTAKES) and _in_checkout(_raiser(error))
    if not ours and not isinstance(error, ImportError):  # what cannot be imported, whoever asks for it, is no data
        return None
    return Bug("".join(traceback.format_exception(error)).strip())


def _raiser(error: BaseException) -> str:
    """The file of the module that raised: generated code (of a dataclass, say) has no file of its own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__file__") or "" if frames else ""


@lru_cache
def _in_checkout(file: str) -> bool:
    path = Path(file).resolve()
    return bool(file) and path.is_relative_to(ROOT) and "site-packages" not in path.parts
