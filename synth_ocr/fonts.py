"""The faces text is set in: a manifest, and a command that looks at each of them.

    python -m synth_ocr.fonts        # one line per face; `python pipelines/doctor.py --install` fetches what is missing

The manifest is a CSV file with the columns face (the family and style that the file itself declares), language (its
code, as in corpus/languages.yaml), package (Debian's, or several names of it over the releases, the first known one is
taken: `a|b`), licence, file (its name, wherever it lies; a path is taken as it is) and companion (the face that lends
what this one has no glyphs for, such as Latin letters).
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpus.languages import is_code, shipped
from synth_ocr import font_files
from synth_ocr.faces import Face, FontError

MANIFEST = Path(__file__).with_name("faces.csv")
_COLUMNS = ("face", "language", "package", "licence", "file", "companion")


def read_manifest(path: str | Path = MANIFEST) -> list[Face]:
    """Read a manifest. FontError names the file and line of a mistake."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [_face(row, path, line) for line, row in enumerate(csv.DictReader(stream), start=2)]
    except (FileNotFoundError, IsADirectoryError):
        raise FontError(f"{path}: no such manifest of faces") from None
    except UnicodeDecodeError as error:
        raise FontError(f"{path}: a manifest is a CSV file in UTF-8 ({error})") from None


def _face(row: dict, path: str | Path, line: int) -> Face:
    if missing := [name for name in _COLUMNS if row.get(name) is None]:
        raise FontError(f"{path}:{line}: no {', '.join(missing)}; columns are {', '.join(_COLUMNS)}")
    if not is_code(row["language"].strip()):
        raise FontError(f"{path}:{line}: {row['language']!r} is no code of a language, such as en")
    return Face(*(row[name].strip() for name in _COLUMNS))


def locate(faces: Sequence[Face], folders: Sequence[str | Path] = ()) -> dict[str, Face]:
    """Return name -> face for those that are on this machine; `folders` are looked at before the system's."""
    found: dict[str, Face] = {}
    for folder in (*folders, *font_files.font_folders()):
        missing = [face for face in faces if face.name not in found]
        files = font_files.files_named({face.file for face in missing}, Path(folder)) if missing else {}
        for face in missing:
            if place := font_files.find(face.name, _candidates(face, files)):
                found[face.name] = replace(face, file=place[0], index=place[1], digest=font_files.sha256(place[0]))
    return found


def _candidates(face: Face, files: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if not Path(face.file).is_absolute():
        return files.get(face.file.lower(), ())
    names = list(font_files.names_in(face.file))
    if face.name not in names and Path(face.file).is_file():
        raise FontError(f"{face.file} has no face {face.name!r}; it has {', '.join(names) or 'none at all: no font'}")
    return [face.file]


def choose(
    faces: Sequence[Face], language: str, folders: Sequence[str | Path] = (), *, available: bool = False
) -> list[tuple[Face, Face | None]]:
    """Return the faces for a language and the companion of each, all found on this machine.

    FontError lists what is missing and how to install it; with `available`, only where not one face is there.
    """
    wanted = [(face, companion_of(face, faces)) for face in faces if face.language == language]
    if not wanted:
        raise FontError(f"the manifest has no face for language {language!r}")
    needed = {face.name: face for pair in wanted for face in pair if face}
    found = locate(list(needed.values()), folders)
    there = [
        (found[face.name], other and found[other.name])
        for face, other in wanted
        if found.keys() >= {part.name for part in (face, other) if part}
    ]
    if not there or (len(there) < len(wanted) and not available):
        raise FontError(_missing([face for name, face in needed.items() if name not in found], len(needed)))
    return there


def _missing(faces: Sequence[Face], wanted: int) -> str:
    names = ", ".join(f"{face.name} ({face.file})" for face in faces[:5])
    packages = " ".join(sorted({face.package.partition("|")[0] for face in faces if face.package}))
    return (
        f"{len(faces)} of {wanted} faces are not installed: {names}{', ...' if len(faces) > 5 else ''}. Install them "
        f"with `python pipelines/doctor.py --install` (Debian packages {packages}), name a folder that has them "
        "(--font-dir), draw with those that are there (--available-faces) or give --fonts another manifest"
    )


def companion_of(face: Face, faces: Sequence[Face]) -> Face | None:
    """Return the face that fills `face`'s gaps, None where it needs none. FontError when the manifest lacks it."""
    if not face.companion:
        return None
    for other in faces:
        if other.name == face.companion:
            return other
    raise FontError(f"face {face.name!r} names the companion {face.companion!r}, which the manifest does not have")


def check(face: Face, companion: Face | None) -> str:
    """Return "" when a face that was found is usable for its language, otherwise what is wrong with it."""
    from synth_ocr.glyphs import load_face

    try:
        typeface = load_face(face, companion)
    except FontError as error:
        return str(error)
    lacking = typeface.lacking(_required(face.language))
    return f"no glyphs for {lacking[:20]!r} and {len(lacking)} in all" if lacking else ""


def _required(language: str) -> str:
    ascii_text = "".join(map(chr, range(0x21, 0x7F)))
    wanted = shipped()[language].faces if language in shipped() else ""
    return ascii_text + (everyday_chinese() if wanted == "gb2312" else wanted)


def everyday_chinese() -> str:
    """Return the 3,755 characters of GB 2312 level 1: rows 16 to 55 of its table, the last one not full."""
    rows = b"".join(bytes((row, column)) for row in range(0xB0, 0xD8) for column in range(0xA1, 0xFF))
    return rows.decode("gb2312", errors="ignore")


def main() -> None:
    """Look at every face of a manifest; exits with status 1 when one cannot be used."""
    args = make_parser().parse_args()
    try:
        faces = read_manifest(args.fonts)
        sys.exit(0 if _print_check(faces, args.font_dir) else 1)
    except FontError as error:
        sys.exit(f"error: {error}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Open every face of synthetic OCR and look for what it must cover.")
    parser.add_argument("--fonts", default=MANIFEST, metavar="FILE", help="default: the 41 + 11 faces of this checkout")
    add_folder_flag(parser)
    return parser


def add_folder_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--font-dir DIR`, which may be given several times."""
    parser.add_argument(
        "--font-dir", nargs="+", action="extend", default=[], metavar="DIR", help="look for fonts here first"
    )


def _print_check(faces: Sequence[Face], folders: Sequence[str]) -> bool:
    found, wrong = locate(faces, folders), 0
    for face in faces:
        here, other = found.get(face.name), companion_of(face, faces)
        if here is None or (other and other.name not in found):
            problem = f"missing: install {face.package}"
        else:
            problem = check(here, other and found[other.name])
        wrong += bool(problem)
        print(f"{'ok   ' if not problem else 'WRONG'} {face.language}  {face.name:32} {face.licence:50} {problem}")
    print(f"{len(faces) - wrong} of {len(faces)} faces are usable")
    return not wrong


if __name__ == "__main__":
    main()
