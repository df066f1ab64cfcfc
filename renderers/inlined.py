"""Style sheets and pictures of an archived page, made part of the page, so that nothing has to be asked for.

The page keeps all its walls: it may use inline styles and `data:` pictures only, before and after. What is not in the
archive stays missing.
"""

import base64
import re
from typing import Protocol
from urllib.parse import urldefrag, urljoin

MAX_BYTES = 2 << 20  # of a style sheet or picture
MAX_PAGE_BYTES = 8 << 20  # of all of a page
_DEEPEST = 3  # style sheets that import style sheets
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}  # fmt: skip
_CHARSET = re.compile(rb'@charset "([A-Za-z0-9_-]{1,40})";')
_IMPORT = re.compile(r"""@import\s+(?:url\(\s*)?["']?([^"')\s;]{1,2000})["']?\s*\)?([^;{}]{0,200});""", re.IGNORECASE)
_URL = re.compile(r"""url\(\s*(["']?)([^"')]{1,2000})\1\s*\)""", re.IGNORECASE)


class Archive(Protocol):
    """What a page was saved with."""

    @property
    def address(self) -> str:
        """The absolute address of the page itself."""

    def find(self, address: str) -> bytes | None:
        """Return what lies under an absolute address, None where nothing does."""


class Inliner:
    """Answers what one page wants, from its archive alone, until the page has had enough."""

    def __init__(self, archive: Archive | None):
        self._archive, self._left = archive, MAX_PAGE_BYTES

    def answer(self, wanted: dict[str, list[str]]) -> dict[str, dict[str, str]]:
        """Return address -> text of the `styles` and address -> `data:` address of the `pictures` that are there."""
        styles = {address: self.style(address) for address in wanted["styles"]}
        pictures = {address: self.picture(address) for address in wanted["pictures"]}
        return {
            "styles": {address: text for address, text in styles.items() if text is not None},
            "pictures": {address: data for address, data in pictures.items() if data is not None},
        }

    def style(self, address: str, depth: int = 0) -> str | None:
        """Return a style sheet with all that it imports and shows; None: the archive has none."""
        data = self._bytes(address)
        if data is None or b"\0" in data or data.lstrip()[:1] == b"<":  # an error page in its place
            return None
        declared = _CHARSET.match(data)
        text = _decoded(data, declared[1].decode() if declared else "utf-8")

        def imported(found: re.Match) -> str:
            inner = self.style(urljoin(address, found[1]), depth + 1) if depth < _DEEPEST else None
            media = found[2].strip()
            return "" if inner is None else f"@media {media} {{ {inner} }}" if media else inner

        def shown(found: re.Match) -> str:
            if found[2].startswith("data:"):
                return found[0]
            return f'url("{self.picture(urljoin(address, found[2].strip())) or "data:,"}")'

        return _URL.sub(shown, _IMPORT.sub(imported, text))

    def picture(self, address: str) -> str | None:
        """Return a picture as a `data:` address; None: the archive has none, or it is no picture that may be shown."""
        data = self._bytes(address)
        kind = _picture_kind(data) if data else None
        return f"data:{kind};base64,{base64.b64encode(data).decode()}" if data and kind else None

    def _bytes(self, address: str) -> bytes | None:
        data = self._archive.find(urldefrag(address).url) if self._archive and address else None
        if data is None or len(data) > min(MAX_BYTES, self._left):
            return None
        self._left -= len(data)
        return data


def _decoded(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset, "replace").removeprefix("\ufeff")
    except LookupError:
        return data.decode("utf-8", "replace")


def _picture_kind(data: bytes) -> str | None:
    """The type that the bytes say, whatever the archive claims. No SVG: it holds text that no label would know."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _PICTURES.items() if data.startswith(magic)), None)
