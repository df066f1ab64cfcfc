"""Whose fault an exception is: the one rule of every boundary that turns exceptions into error rows.

A damaged file makes the libraries that read it raise almost anything, so such a boundary catches Exception. What only
a mistake in code raises, raised by a line of ours, says nothing about the file: counted as the data's it would hide.
Nor does a full disk, a lost connection or an empty memory. All else is the data's.

    except Exception as error:
        raise BadImage("undecodable_image", why_data(error)) from None
"""

import traceback
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MISTAKES = (TypeError, AttributeError, NameError, AssertionError, ImportError)


_SYSTEM = (  # subclasses of OSError that have no errno where a library raises them
    BlockingIOError, ChildProcessError, ConnectionError, FileExistsError, FileNotFoundError, InterruptedError,
    IsADirectoryError, NotADirectoryError, PermissionError, ProcessLookupError, TimeoutError,
)  # fmt: skip
_REMOTE = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs", "urllib3"}
LONGEST = 300  # characters of a detail


class Bug(Exception):
    """A mistake in our code, met while a row was worked on; the message is its traceback. It stops the job."""


def raise_ours(error: BaseException) -> None:
    """Raise Bug when `error` is a mistake of ours; return when it may be the data's."""
    if bug := bug_in(error):
        raise bug from None


def why_data(error: BaseException) -> str:
    """Say in a line what an exception says of the data; raise what is not theirs: a Bug, or the system's error."""
    raise_ours(error)
    if is_system(error):
        raise error
    return f"{type(error).__name__}: {error}"[:LONGEST].encode("utf-8", "replace").decode()


def is_system(error: BaseException) -> bool:
    """Tell whether an exception speaks of the machine or the network, whatever was read.

    Arrow and the decompressors raise OSError too, without an errno, for damage; Arrow's is a MemoryError as well where
    a damaged page asks for more bytes than there are.
    """
    library = type(error).__module__.partition(".")[0]
    if library in _REMOTE or not isinstance(error, Exception):
        return True
    if isinstance(error, OSError):
        return error.errno is not None or isinstance(error, _SYSTEM)
    # By name: importing pyarrow starts a thread, and the PDF parser's locks bind one alone.
    return isinstance(error, MemoryError) and library != "pyarrow"


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
