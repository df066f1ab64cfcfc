"""Splits that an error of the system kept from happening: set aside and told of, while the job goes on with others.

A record `ID.quarantined.json` beside the manifests holds the split's source and the error. It goes when the split
happens, or is planned no more. A bug of ours and a full disk are nobody's quarantine: they stop the job.
"""

import errno
import json
import shlex
import sys
from collections.abc import Callable, Collection
from dataclasses import InitVar, dataclass

from corpus.bugs import LONGEST, bug_in, is_system
from corpus.folder import QUARANTINED, OutputFolder
from corpus.patience import Result, patiently
from corpus.splits import Split
from pipelines.engine.cluster import Failed, SplitFailed

STATUS = 3  # of a job that ends with splits in quarantine
SHARE = 1.0  # per cent of the splits
_SHOWN = 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Quarantined(Exception):
    """The job has done all it could, and splits are left. The message says which, why, and what tries them again."""


def attempted(work: Callable[[], Result]) -> Result | Failed:
    """Return `work()`, or Failed where an error of the system outlives its tries. What else it raises passes."""
    try:
        return patiently(work)
    except Exception as error:
        if bug_in(error) or not is_system(error) or getattr(error, "errno", None) in _FULL:
            raise
        return Failed(f"{type(error).__name__}: {error}"[:LONGEST])


@dataclass
class Quarantine:
    """The quarantine of an output folder while a job runs that has `splits` of them; `share` is in per cent."""

    folder: OutputFolder
    splits: int
    share: float
    names: InitVar[Collection[str]]  # of the folder's files

    def __post_init__(self, names: Collection[str]) -> None:
        self.held = set(_recorded(names))
        self.errors: dict[str, str] = {}

    def tidy(self, waiting: Collection[str]) -> bool:
        """Forget splits that are not waiting: they happened after all, or are planned no more. Were there any?"""
        for split in (idle := self.held - set(waiting)):
            self.release(split)
        return bool(idle)

    def add(self, split: Split, failed: Failed) -> None:
        """Set a split aside. Raises SplitFailed when there are more than the share."""
        self.errors[split.id] = failed.error
        record = {"split": split.id, "source": split.source, "error": failed.error}
        self.folder.write(f"{split.id}.{QUARANTINED}", json.dumps(record, indent=1, sort_keys=True).encode())
        self.held.add(split.id)
        if len(self.errors) > self._most():
            raise SplitFailed(
                f"{len(self.errors)} of {self.splits} splits failed for reasons outside their data, more than "
                f"--max-quarantined {self.share:g} (per cent) allows. The last, {split.id}: {failed.error}. "
                "Mend the cause and run the same command again; committed splits are kept."
            )

    def _most(self) -> int:
        return max(1, int(self.share * self.splits / 100)) if self.share else 0

    def release(self, split: str) -> None:
        """Remove the record of a split, if there is one."""
        if split in self.held:
            self.folder.remove([f"{split}.{QUARANTINED}"])
            self.held.remove(split)

    def close(self, name: str) -> None:
        """Raise Quarantined when splits of this run are left."""
        if self.errors:
            shown = [f"  {split}: {error}" for split, error in sorted(self.errors.items())[:_SHOWN]]
            more = [f"  and {len(self.errors) - _SHOWN} more"] if len(self.errors) > _SHOWN else []
            raise Quarantined("\n".join([
                f"{name}: {len(self.errors)} of {self.splits} splits are quarantined in {self.folder.url}:",
                *shown, *more, f"to try them again, and only them:\n  {command()}",
            ]))  # fmt: skip


def held_in(names: Collection[str]) -> list[str]:
    """Return the splits that are in quarantine, by the names of a folder's files: those that have no manifest too."""
    return [split for split in _recorded(names) if f"{split}.json" not in names]


def _recorded(names: Collection[str]) -> list[str]:
    end = f".{QUARANTINED}"
    return sorted(name.removesuffix(end) for name in names if name.endswith(end))


def command() -> str:
    """Return the command line of this process as one may type it again: without --overwrite, which would start anew."""
    words = [word for word in sys.argv if not (word.startswith("--ov") and "--overwrite".startswith(word))]
    return shlex.join(["python", *words])


def lacks(folder: OutputFolder) -> list[str]:
    """Say what a folder lacks of its input, for those who build on it: splits to come, splits in quarantine."""
    planned, listing = folder.planned(), folder.listing()
    coming = [f"{len(listing.marks):,} of {planned:,} splits are there, its job is not finished"] if planned else []
    return coming + _counted(held_in(listing.sizes))


def told(folder: OutputFolder, names: Collection[str]) -> list[str]:
    """Say what is in a folder's quarantine: how many splits, and why, of the first of them."""
    held = held_in(names)
    return _counted(held) + [_record(folder, split) for split in held[:_SHOWN]]


def _counted(held: Collection[str]) -> list[str]:
    are = "split is" if len(held) == 1 else "splits are"
    return [f"{len(held):,} {are} in quarantine, and not in these numbers"] if held else []


def _record(folder: OutputFolder, split: str) -> str:
    try:
        record = json.loads(folder.read(f"{split}.{QUARANTINED}"))
        url = record["source"].get("url")
        return f"{split}{url and f' ({url})' or ''}: {record['error']}"
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{split}: its record cannot be read ({error})"
