#!/usr/bin/env python
"""What this machine lacks, in one line per thing: what it is for and how to get it.

Nothing here is needed to clean, pack and train. Fonts and a browser come from the system; `--install` asks apt-get for
what is missing, as root or through a sudo that asks for no password, and goes on where it may not.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from PIL import features

from corpus.languages import shipped
from renderers import browsers
from synth_ocr import fonts

BROWSER, FRIBIDI = "a browser", "the library FriBiDi, which Pillow loads"


@dataclass(frozen=True)
class Lack:
    """Something that is not here. `packages` are Debian's: each one name, or several over the releases, `a|b`."""

    what: str
    purpose: str
    otherwise: str  # how to get it without a package
    packages: Sequence[str] = ()


def lacks() -> Iterator[Lack]:
    """Yield what this machine lacks."""
    faces = fonts.read_manifest()
    found = fonts.locate(faces)
    for language, name in ((code, spoken.name) for code, spoken in shipped().items()):
        own = [face for face in faces if face.language == language]
        missing = [face for face in own if face.name not in found]
        if missing:
            yield Lack(
                f"{len(missing)} of {len(own)} {name} faces",
                f"synthetic OCR (make_ocr.py --language {language}; --available-faces draws with those that are here)",
                "copy the fonts to ~/.local/share/fonts",
                sorted({face.package for face in missing}),
            )
    if not features.check("raqm"):
        yield Lack(
            FRIBIDI, "setting text in synthetic OCR (make_ocr.py)", "or the library of your system", ["libfribidi0"]
        )
    try:
        browsers.find_browser()
    except FileNotFoundError:
        packages = [browsers.package()] if browsers.package() else []
        otherwise = "or set $CHROMIUM to a browser's path"
        hint = otherwise if packages else f"{browsers.how_to_get()}, {otherwise}"
        yield Lack(BROWSER, "pages of HTML (render_html.py)", hint, packages)


def sentence(lack: Lack) -> str:
    """One line: what is missing, what it is for, how to get it."""
    apt = f"apt-get install {' '.join(name.partition('|')[0] for name in lack.packages)}"
    ways = [f"{'' if _is_root() else 'as root '}{apt}"] if lack.packages and shutil.which("apt-get") else []
    return f"missing: {lack.what}, for {lack.purpose}. To get it: {', '.join([*ways, lack.otherwise])}"


def install(packages: Iterable[str]) -> bool:
    """Install the packages that this release knows under one of their names; return whether apt-get did."""
    if shutil.which("apt-get") is None or not (_is_root() or shutil.which("sudo")):
        return False
    update = [*_sudo(), "apt-get", "update", "-qq"]
    get = [*_sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "-y",
           "--no-install-recommends"]  # fmt: skip
    if subprocess.run(update, capture_output=True).returncode:
        return False
    firsts = (next(filter(_is_known, names.split("|")), None) for names in sorted(set(packages)))
    known = [package for package in firsts if package]
    print("installing system packages:", *known, flush=True)
    return subprocess.run([*get, *known], capture_output=True).returncode == 0


def _is_known(package: str) -> bool:
    """Whether this release has a package of this name, not only others that mention it."""
    done = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True)
    return "Candidate:" in done.stdout and "Candidate: (none)" not in done.stdout


def _is_root() -> bool:
    return os.geteuid() == 0


def _sudo() -> list[str]:
    return [] if _is_root() else ["sudo", "-n"]


def main() -> None:
    args = make_parser().parse_args()
    missing = list(lacks())
    wanted = [package for lack in missing for package in lack.packages]
    if args.install and wanted and install(wanted):
        missing = list(lacks())
    for lack in missing:
        print(sentence(lack))
    if not missing:
        print("nothing is missing: fonts and a browser are here")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python pipelines/doctor.py --install",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--install", action="store_true", help="ask apt-get for what is missing first")
    return parser


if __name__ == "__main__":
    main()
