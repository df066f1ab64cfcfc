"""From what a user types after --input to files: paths, globs, URLs, and lists of them."""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import fsspec

from corpus.inputs import listed

_LOOKED_AT = 10_000  # files of a folder, for a hint
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def find_inputs(patterns: Sequence[str]) -> list[str]:
    """Expand globs, URLs and `@FILE`s of them to a sorted list of absolute paths or URLs.

    UserError when one matches nothing, with what would.
    """
    found: set[str] = set()
    remote = {}
    for pattern in _spelt_out(patterns):
        if "://" in pattern and not glob.has_magic(pattern):
            fs, path = fsspec.core.url_to_fs(pattern)
            remote.setdefault(fs, {})[path] = pattern
            continue
        matches = _remote_matches(pattern) if "://" in pattern else _local_matches(pattern)
        if not matches:
            raise UserError(f"--input {pattern!r} {_why_nothing(pattern)}")
        found.update(matches)
    for fs, paths in remote.items():
        found.update(_remote_files(fs, paths))
    return sorted(found)


def is_there(pattern: str) -> bool:
    """Tell whether a path, a glob, a URL or a `@FILE` matches files."""
    try:
        return bool(find_inputs([pattern]))
    except UserError:
        return False


def _spelt_out(patterns: Iterable[str]) -> Iterator[str]:
    """Replace every `@FILE` by the lines of the file; empty ones and those that begin with # are none."""
    for pattern in patterns:
        if not pattern.startswith("@"):
            yield pattern
            continue
        try:
            with fsspec.open(pattern[1:], "rt", encoding="utf-8", compression="infer") as file:
                lines = [line.strip() for line in file]
        except FileNotFoundError:
            raise UserError(f"--input {pattern}: there is no file {pattern[1:]}") from None
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise UserError(f"--input {pattern}: the file names no inputs")
        yield from _spelt_out(lines)


def _local_matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or Path(pattern).is_file():
        return [str(Path(pattern).resolve())] if Path(pattern).is_file() else []
    return [str(Path(path).resolve()) for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]


def _remote_matches(pattern: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(pattern)
    return [fs.unstrip_protocol(match) for match in fs.glob(path)]


def _remote_files(fs, paths: dict[str, str]) -> Iterator[str]:
    """Yield the URLs of files named one by one; folders that many of them share are listed, not asked file by file."""
    folders = Counter(path.rpartition("/")[0] for path in paths)
    for folder in [folder for folder, files in folders.items() if files > 1]:
        if fs.isdir(folder):
            fs.ls(folder, detail=True)  # into the file system's own cache, which isfile and info look into
    for path, pattern in paths.items():
        if (listed(fs, path) or {}).get("type") != "file" and not fs.isfile(path):
            raise UserError(f"--input {pattern!r} {_why_nothing(pattern)}")
        yield fs.unstrip_protocol(path)


def _why_nothing(pattern: str) -> str:
    """Say why a pattern matches no file, and which would."""
    fs, path = fsspec.core.url_to_fs(pattern)
    if fs.isdir(path):
        return f"is a folder, not a file or a glob: {_globs(fs, path, pattern.rstrip('/'))}"
    # Up to the first part with a wildcard; below a file's name, its folder.
    whole = list(PurePosixPath(path).parts)
    fixed = next((i for i, part in enumerate(whole) if glob.has_magic(part)), len(whole) - 1)
    folder = str(PurePosixPath(*whole[:fixed])) if fixed else "."
    if not fs.isdir(folder):
        return f"matches no file: there is no folder {folder}"
    return f"matches no file: {_globs(fs, folder, folder)}"


def _globs(fs, folder: str, shown: str) -> str:
    """Name the globs that would match files of a folder, those with most files first."""
    found = Counter()
    for inside, _, files in fs.walk(folder, maxdepth=3):
        deeper = "" if inside.rstrip("/") == folder.rstrip("/") else "**/"
        found.update(f"{deeper}*{_suffix(file)}" for file in files)
        if found.total() > _LOOKED_AT:
            break
    if not found:
        return "it holds no files"
    ways = [f"'{shown}/{way}' ({count:,} file{'s' * (count > 1)})" for way, count in found.most_common(3)]
    return f"try {' or '.join(ways)}, in quotes"


def _suffix(file: str) -> str:
    suffixes = PurePosixPath(file).suffixes
    return "".join(suffixes[-2:] if suffixes and suffixes[-1] in _COMPRESSED else suffixes[-1:])
