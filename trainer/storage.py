"""What a run's storage did to it, in words: whatever library was writing when it happened."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint import CheckpointException

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTHING = 1 << 20  # bytes left on a disk that is full


def explain(error: BaseException, run: Path) -> str | None:
    """Say what the storage did and what to do about it; None for an error of another kind.

    A full disk comes as an OSError, as safetensors' text of one, or as torch's remark that it is not where it meant
    to be in a file; those of other ranks come inside a CheckpointException.
    """
    chain = list(_all(error))
    numbers = [each.errno for each in chain if isinstance(each, OSError) and each.errno is not None]
    if any(number in _FULL for number in numbers) or any(_tells_of_a_full_disk(each, run) for each in chain):
        return f"the disk is full: make room on that of {run}, then {_go_on(run)}"
    if numbers:
        return f"{os.strerror(numbers[0])}: {error}. Mend it, then {_go_on(run)}"
    return None


@contextmanager
def told_once(run: Path) -> Iterator[None]:
    """Keep quiet what storage does to other threads: what waits for them, TensorBoard's writer too, raises the same."""
    before = threading.excepthook
    threading.excepthook = lambda met: None if met.exc_value and explain(met.exc_value, run) else before(met)
    try:
        yield
    finally:
        threading.excepthook = before


def _all(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, CheckpointException):
            for inner, _ in error.failures.values():
                yield from _all(inner)
        error = error.__cause__ or error.__context__


def _tells_of_a_full_disk(error: BaseException, run: Path) -> bool:
    text = str(error)
    if type(error).__name__ == "SafetensorError":
        return any(f"(os error {number})" in text for number in _FULL)
    in_zip = isinstance(error, RuntimeError) and ("inline_container" in text or "PytorchStreamWriter" in text)
    return in_zip and shutil.disk_usage(run).free < _NOTHING


def _go_on(run: Path) -> str:
    pointer = Path(run) / "checkpoints" / "latest"
    where = f"from {pointer.read_text().strip()}" if pointer.exists() else "at the first step"
    return f"give the same command with --resume auto: it goes on {where}"
