"""What a face can draw: coverage and advances of every character, read once from the font file and cached.

A character counts as covered when the face maps it to a glyph that leaves ink, and when one left-to-right line can show
it: no control, format or combining characters, no right-to-left scripts.
"""

import hashlib
import logging
import os
import tempfile
import unicodedata
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTCollection, TTFont, TTLibError
from PIL import ImageFont

from synth_ocr.faces import Face, FontError

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it remarks on the creation dates of old fonts

_VERSION = 2  # of the cached tables
_CODES = 0x30000  # the three planes that hold living scripts
_METRICS_SIZE = 1000  # pixels per em at which line metrics are read
_SHARED = 64  # a glyph that stands for so many characters is a placeholder


@dataclass(frozen=True, eq=False)
class Typeface:
    """A face ready to draw with, with its companion's glyphs filled in.

    `advances` holds, by code point, the advance in em of what can be drawn, and 0 for what cannot. `ascent` and
    `descent` are in em, below the baseline counted positive. `owner` tells, by code point, whether the face itself has
    the glyph.
    """

    face: Face
    advances: np.ndarray
    ascent: float
    descent: float
    upright: bool  # has glyph forms for vertical setting
    companion: Face | None = None
    owner: np.ndarray | None = field(default=None, repr=False)

    def lacking(self, text: str) -> str:
        """Return the characters of `text` that the face cannot draw; blanks aside."""
        return "".join(c for c in text if not c.isspace() and (ord(c) >= _CODES or not self.advances[ord(c)]))

    def font(self, size: float) -> ImageFont.FreeTypeFont:
        """Open the face at `size` pixels per em."""
        return ImageFont.truetype(self.face.file, size, index=self.face.index)

    def companion_font(self, size: float) -> ImageFont.FreeTypeFont:
        """Open the companion at `size` pixels per em."""
        return ImageFont.truetype(self.companion.file, size, index=self.companion.index)


@lru_cache(maxsize=256)
def load_face(face: Face, companion: Face | None = None) -> Typeface:
    """Read what a face covers, from the cache where it is known. FontError when its file is no font or another one."""
    table = _cached_table(face)
    advances, owner = table["advances"].astype(np.float32), None
    if companion is not None:
        own, lent = advances > 0, _cached_table(companion)["advances"]
        advances, owner = np.where(own, advances, lent), own
    ascent, descent, upright = table["metrics"]
    return Typeface(face, advances, float(ascent), float(descent), bool(upright), companion, owner)


def _cached_table(face: Face) -> dict[str, np.ndarray]:
    try:
        content = hashlib.sha256(Path(face.file).read_bytes()).hexdigest()
    except OSError as error:
        raise FontError(f"cannot read {face.file}: {error.strerror}") from None
    if face.digest not in ("", content):
        raise FontError(f"{face.file} is another version of {face.name} than where this job started: install the same")
    path = _cache_folder() / f"{content[:32]}-{face.index}-v{_VERSION}.npz"
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, KeyError):
        table = _read_table(face)
        _store(path, table)
        return table


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill" / "glyphs"


def _store(path: Path, table: dict[str, np.ndarray]) -> None:
    try:  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as stream:
            np.savez_compressed(stream, **table)
        os.replace(stream.name, path)
    except OSError:
        pass


def _read_table(face: Face) -> dict[str, np.ndarray]:
    try:
        opened = ImageFont.truetype(face.file, _METRICS_SIZE, index=face.index)
        font = _open_font(face)
        advances = _advances(font)
        upright = _sets_vertically(font)
    except (OSError, TTLibError, IndexError, KeyError, AttributeError) as error:
        raise FontError(f"face {face.index} of {face.file} cannot be read as a font: {error}") from None
    ascent, descent = (value / _METRICS_SIZE for value in opened.getmetrics())
    metrics = np.array([ascent, descent, upright])
    return {"advances": advances, "metrics": metrics}


def _open_font(face: Face) -> TTFont:
    with open(face.file, "rb") as stream:
        collection = stream.read(4) == b"ttcf"
    if collection:
        return TTCollection(face.file, lazy=True).fonts[face.index]
    return TTFont(face.file, lazy=True)


def _advances(font: TTFont) -> np.ndarray:
    """Return the advance in em by code point, as float16 (a quarter pixel in a line of 500); 0: cannot be drawn."""
    units, widths, order = font["head"].unitsPerEm, font["hmtx"].metrics, font.getReverseGlyphMap()
    cmap = {code: name for code, name in font.getBestCmap().items() if code < _CODES}
    users: dict[str, int] = {}
    for name in cmap.values():
        users[name] = users.get(name, 0) + 1
    has_ink, advances = _ink_test(font), np.zeros(_CODES, np.float16)
    for code, name in cmap.items():
        glyph = order[name]
        if code == 0x20 or (glyph and users[name] < _SHARED and _fits_a_line(chr(code)) and has_ink(name, glyph)):
            advances[code] = widths[name][0] / units
    return advances


def _sets_vertically(font: TTFont) -> bool:
    """Tell whether the face turns the signs that vertical Chinese turns; some declare it and turn only a few."""
    if "GSUB" not in font:
        return False
    table, cmap, turned = font["GSUB"].table, font.getBestCmap(), set()
    lookups = {i for r in table.FeatureList.FeatureRecord if r.FeatureTag == "vert" for i in r.Feature.LookupListIndex}
    for lookup in lookups:
        for subtable in table.LookupList.Lookup[lookup].SubTable:
            turned.update(getattr(getattr(subtable, "ExtSubTable", subtable), "mapping", {}))
    return all(cmap.get(ord(sign)) in turned for sign in "，。（「")


def _fits_a_line(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LNPS" and unicodedata.bidirectional(char) not in ("R", "AL", "AN")


def _ink_test(font: TTFont):
    """Return a function: glyph name and number -> whether its outline is not empty."""
    if "glyf" in font:
        offsets = font["loca"].locations
        return lambda name, glyph: offsets[glyph + 1] > offsets[glyph]
    glyphs, stored = font.getGlyphSet(), font["CFF "].cff.topDictIndex[0].CharStrings.charStringsIndex

    @cache  # also because fontTools forgets the stored form of a glyph that it has drawn
    def has_ink(name: str, glyph: int) -> bool:
        if len(stored[glyph].bytecode) > 8:  # drawing 65,000 glyphs takes a minute, and only short ones can be empty
            return True
        pen = BoundsPen(glyphs)
        glyphs[name].draw(pen)
        return pen.bounds is not None

    return has_ink
