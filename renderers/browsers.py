"""Which browser renders: $CHROMIUM, or the first of the system's Chromium, Chrome, a snap's Chromium and Playwright's.

Each is asked for its version first: Ubuntu's `chromium-browser` is a script that only says what to install.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

CHROMIUM = ("chromium", "chromium-browser")
CHROME = ("google-chrome", "google-chrome-stable", "chrome")
MAC = ("/Applications/Chromium.app/Contents/MacOS/Chromium",
       "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")  # fmt: skip
# The program itself, not /snap/bin/chromium: a snap's wrapper sees neither our profile nor our network namespace.
SNAP = "/snap/chromium/current/usr/lib/chromium-browser/chrome"
_PLAYWRIGHT = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*")


class NoBrowser(Exception):
    """The browser does not come up: nothing that a page could do, so that no page is to blame."""


def find_browser(path: str | None = None) -> str:
    """Return the path of a browser that starts. FileNotFoundError says what to install."""
    if wanted := path or os.environ.get("CHROMIUM"):
        found = shutil.which(wanted)
        if not found or not starts(found):
            raise FileNotFoundError(f"{wanted} ({'--chromium' if path else '$CHROMIUM'}) is no browser that starts")
        return os.path.abspath(found)
    for candidate in candidates():
        if starts(candidate):
            return os.path.abspath(candidate)
    raise FileNotFoundError(f"no browser found (Chromium or Chrome): {how_to_get()}, or set $CHROMIUM to one's path")


def candidates() -> Iterator[str]:
    """Yield the browsers that seem to be here, in the order of preference."""
    named = [found for name in (*CHROMIUM, *CHROME) if (found := shutil.which(name))]
    yield from (found for found in named if not found.startswith("/snap/"))
    yield from (path for path in (*MAC, SNAP) if os.access(path, os.X_OK))
    yield from _playwrights()


def how_to_get() -> str:
    """What to type on this system to get a browser."""
    if package():
        return f"apt-get install {package()}"
    if _system() == "ubuntu":  # its packages of this name only install the snap
        return "sudo snap install chromium"
    return "install Chromium or Google Chrome"


def package() -> str:
    """The package that apt-get installs a browser with; "" where there is none."""
    return "chromium" if shutil.which("apt-get") and _system() != "ubuntu" else ""


@lru_cache
def starts(path: str) -> bool:
    """Whether the browser tells its version."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(re.search(rb"Chrom\w+ \d", done.stdout))


def _playwrights() -> list[str]:
    """The browsers of Playwright, the newest first."""
    default = "Library/Caches/ms-playwright" if platform.system() == "Darwin" else ".cache/ms-playwright"
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / default)
    found = [path for pattern in _PLAYWRIGHT for path in folder.glob(pattern)]
    revision = lambda path: int(re.search(r"chromium-(\d*)", str(path))[1] or 0)  # noqa: E731
    return [str(path) for path in sorted(found, key=revision, reverse=True)]


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return platform.system().lower()
