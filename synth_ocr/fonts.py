"""The faces text is set in: a manifest, and a command that installs and checks them.

    python -m synth_ocr.fonts --install        # Debian packages, through apt-get; needs root
    python -m synth_ocr.fonts --check          # one line per face

The manifest is a CSV file with the columns face, language (en or zh), package (Debian), licence, file, index (of the
face in a collection) and companion (the face that lends what this one has no glyphs for, such as Latin letters).
"""

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MANIFEST = Path(__file__).with_name("faces.csv")
LANGUAGES = ("en", "zh")
_COLUMNS = ("face", "language", "package", "licence", "file", "index", "companion")


class FontError(Exception):
    """A face that cannot be used; the message says how to get it."""


@dataclass(frozen=True)
class Face:
    """One face of a font file. `name` is the family and style that the file itself declares."""

    name: str
    language: str
    package: str
    licence: str
    file: str
    index: int = 0
    companion: str = ""


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
    if row["language"] not in LANGUAGES:
        raise FontError(f"{path}:{line}: language {row['language']!r}; languages are {', '.join(LANGUAGES)}")
    if not row["index"].isdigit():
        raise FontError(f"{path}:{line}: index {row['index']!r} is no number; 0 is the first face of a file")
    values = [row[name].strip() for name in _COLUMNS]
    return Face(*values[:5], index=int(row["index"]), companion=values[6])


def choose(faces: Sequence[Face], language: str) -> list[Face]:
    """Return the faces for a language, all installed. FontError lists what is missing and how to install it."""
    chosen = [face for face in faces if face.language == language]
    if not chosen:
        raise FontError(f"the manifest has no face for language {language!r}")
    companions = [companion_of(face, faces) for face in chosen if face.companion]
    missing = [face for face in chosen + companions if not Path(face.file).is_file()]
    if missing:
        names = ", ".join(f"{face.name} ({face.file})" for face in missing[:5])
        packages = " ".join(sorted({face.package for face in missing if face.package}))
        raise FontError(
            f"{len(missing)} of {len(chosen)} faces are not installed: {names}. Install them with "
            f"`python -m synth_ocr.fonts --install` (Debian packages {packages}) or give --fonts another manifest"
        )
    return chosen


def companion_of(face: Face, faces: Sequence[Face]) -> Face:
    """Return the face that fills `face`'s gaps. FontError when the manifest lacks it."""
    for other in faces:
        if other.name == face.companion:
            return other
    raise FontError(f"face {face.name!r} names the companion {face.companion!r}, which the manifest does not have")


def check(face: Face, faces: Sequence[Face]) -> str:
    """Return "" when a face is usable for its language, otherwise what is wrong with it."""
    from synth_ocr.glyphs import load_face

    if not Path(face.file).is_file():
        return f"missing: install {face.package}"
    try:
        typeface = load_face(face, companion_of(face, faces) if face.companion else None)
    except FontError as error:
        return str(error)
    if typeface.declared_name != face.name:
        return f"face {face.index} of {face.file} calls itself {typeface.declared_name!r}"
    lacking = typeface.lacking(_required(face.language))
    return f"no glyphs for {lacking[:20]!r} and {len(lacking)} in all" if lacking else ""


def _required(language: str) -> str:
    ascii_text = "".join(map(chr, range(0x21, 0x7F)))
    if language == "en":
        return ascii_text
    return ascii_text + everyday_chinese()


def everyday_chinese() -> str:
    """Return the 3,755 characters of GB 2312 level 1: rows 16 to 55 of its table, the last one not full."""
    rows = b"".join(bytes((row, column)) for row in range(0xB0, 0xD8) for column in range(0xA1, 0xFF))
    return rows.decode("gb2312", errors="ignore")


def install(faces: Sequence[Face]) -> None:
    """Install the Debian packages of missing faces. FontError when that cannot be done here."""
    packages = sorted({face.package for face in faces if face.package and not Path(face.file).is_file()})
    if not packages:
        return print("every face is installed")
    if shutil.which("apt-get") is None:
        raise FontError(f"no apt-get here: install {' '.join(packages)} by hand and list their files in a manifest")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    print("+", " ".join(command), flush=True)
    if subprocess.run(command).returncode:
        raise FontError("apt-get failed; it needs root and a fresh package list (apt-get update)")


def main() -> None:
    """Install or check the faces of a manifest; exits with status 1 when one cannot be used."""
    parser = argparse.ArgumentParser(description="Install and check the faces of synthetic OCR.")
    parser.add_argument("--fonts", default=MANIFEST, metavar="FILE", help="default: the 41 + 11 faces of this checkout")
    parser.add_argument("--install", action="store_true", help="install Debian packages of missing faces (root)")
    parser.add_argument("--check", action="store_true", help="open every face and look for what it must cover")
    args = parser.parse_args()
    try:
        faces = read_manifest(args.fonts)
        if args.install:
            install(faces)
        sys.exit(0 if _print_check(faces) else 1)
    except FontError as error:
        sys.exit(f"error: {error}")


def _print_check(faces: Sequence[Face]) -> bool:
    wrong = 0
    for face in faces:
        problem = check(face, faces)
        wrong += bool(problem)
        print(f"{'ok   ' if not problem else 'WRONG'} {face.language}  {face.name:32} {face.licence:50} {problem}")
    print(f"{len(faces) - wrong} of {len(faces)} faces are usable")
    return not wrong


if __name__ == "__main__":
    main()
