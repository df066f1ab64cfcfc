"""Errors of committed files that are no longer as they were written, and how they are mended."""


class Damaged(ValueError):
    """A file of ours was cut, altered or replaced. The message names it and what to run."""


class CorruptSample(Damaged):
    """One sample of a shard does not match its checksum; its neighbours may. `kind` is the ledger's kind of error."""

    kind = "corrupt_sample"


def how_to_mend(path: str) -> str:
    """Return what to run when the file at `path`, in an output folder, is damaged."""
    folder = path.rpartition("/")[0] or "."
    return f"run `python pipelines/verify.py {folder} --discard`, then the command that made the folder, again"
