"""Which file of this machine a face is: one of its file name whose own family and style say so.

Where a release of a system keeps its fonts is its own business: Debian 12 has Liberation Sans in `liberation2`, Debian
13 in `liberation`. Folders that the caller names come first, then the user's, the system's, and matplotlib's DejaVu.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import matplotlib
from fontTools.ttLib import TTFont
from PIL import ImageFont


def font_folders() -> list[Path]:
    """The folders that hold fonts here, the user's before the system's; some may not exist."""
    home = Path.home()
    if sys.platform == "darwin":
        system = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    else:
        user = os.environ.get("XDG_DATA_HOME") or str(home / ".local/share")
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        system = [home / ".fonts", *(Path(folder, "fonts") for folder in (user, *shared.split(":")) if folder)]
    return [*system, Path(matplotlib.get_data_path(), "fonts/ttf")]


def files_named(names: Iterable[str], folder: Path) -> dict[str, list[str]]:
    """Return the files below a folder by lower-case name, for those of `names` that are there."""
    wanted, found = {name.lower() for name in names}, {}
    for parent, _, files in os.walk(folder):
        for file in files:
            if file.lower() in wanted:
                found.setdefault(file.lower(), []).append(os.path.join(parent, file))
    return found


def find(name: str, files: Sequence[str]) -> tuple[str, int] | None:
    """Return (file, index in it) of the face that calls itself `name`; of several versions the newest."""
    places = [(file, index) for file in sorted(files) for index, own in enumerate(names_in(file)) if own == name]
    return max(places, key=lambda place: _revision(*place)) if len(places) > 1 else next(iter(places), None)


def names_in(file: str) -> Iterator[str]:
    """Yield family and style of each face of a file; nothing where it is no font."""
    for index in count():
        try:  # not ImageFont.truetype, which takes any other file of that name where this one fails
            font = ImageFont.FreeTypeFont(file, 8, index)
        except OSError:
            return
        yield " ".join(filter(None, font.getname()))


def sha256(file: str) -> str:
    """Return the digest of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _revision(file: str, index: int) -> float:
    with TTFont(file, fontNumber=index, lazy=True) as font:
        return font["head"].fontRevision
