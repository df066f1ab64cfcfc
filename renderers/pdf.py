"""PDF pages as pixels and visible lines of text with quads (the paper's appendix A.4), on PyMuPDF.

MuPDF is C code that crawled files crash and hang: jobs call `renderers.pdf_process`, which runs this module in a
process of its own. PyMuPDF is not safe under threads either.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pymupdf

from corpus.bugs import raise_ours
from renderers import glyphs
from renderers.ink import Ink
from renderers.lines import JOIN_GAP, merge_runs
from renderers.order import reading_order
from renderers.page import BadDocument, Page
from renderers.witness import runs_of

# Ligatures are expanded ("fi", not U+FB01), undecodable glyphs become U+FFFD rather than arbitrary letters, and boxes
# come from the glyphs' outlines rather than from the font's ascent and descent. A file's own replacement texts
# (ActualText) are for ears, not eyes, and often swallow text that shows.
TEXT_FLAGS = (
    (pymupdf.TEXTFLAGS_WORDS & ~pymupdf.TEXT_PRESERVE_LIGATURES & ~pymupdf.TEXT_CID_FOR_UNKNOWN_UNICODE)
    | pymupdf.TEXT_ACCURATE_BBOXES
    | pymupdf.TEXT_IGNORE_ACTUALTEXT
)
_beyond_latin = re.compile(
    "[^\0-\xff\u0152-\u0192\u02c6-\u02dc\u2010-\u2044\u20ac\u2122\u2212\ufb01\ufb02\ufffd]"
).match
_SIMPLE_FONTS = ("TrueType", "Type1", "MMType1")
_BGR = pymupdf.Colorspace(pymupdf.mupdf.FzColorspace(pymupdf.mupdf.FzColorspace.Fixed_BGR))
_SLANT = math.sin(math.radians(1.5))  # a line that leans less is upright

MAX_CHARACTERS = 200_000  # on one page; a book page has 3,000, a page of a telephone directory 15,000


@dataclass(frozen=True)
class PdfSettings:
    """How to draw: `dpi`, less where the longest side would exceed `longest_side` pixels; the file's order of lines."""

    dpi: int = 144
    longest_side: int = 2048
    file_order: bool = False


def open_pdf(data: bytes) -> pymupdf.Document:
    """Open a document. Raises BadDocument: empty, not_a_pdf, damaged, password, no_pages, memory."""
    if not data:
        raise BadDocument("empty", "no bytes")
    try:
        document = pymupdf.open(stream=data, filetype="pdf")
        if not document.is_pdf:  # MuPDF goes by content: pictures, HTML and e-books would open as well
            raise BadDocument("not_a_pdf", f"first bytes {data[:12]!r}")
        if document.needs_pass:
            raise BadDocument("password", "needs a password to open")
        pages = document.page_count
    except (RuntimeError, ValueError, MemoryError) as error:
        raise BadDocument(_open_kind(data, error), f"{type(error).__name__}: {error}"[:200]) from None
    if pages == 0:
        detail = "repaired, but no page found" if document.is_repaired else "its page tree is empty"
        raise BadDocument("no_pages" if _has_header(data) else "not_a_pdf", detail)
    return document


def _has_header(data: bytes) -> bool:
    return b"%PDF" in data[:1024]  # MuPDF repairs some files without it, so this is asked only after a failure


def _open_kind(data: bytes, error: Exception) -> str:
    return error_kind(error, "damaged" if _has_header(data) else "not_a_pdf")


def error_kind(error: Exception, otherwise: str) -> str:
    """Return "memory" for MuPDF's and Python's ways to say that memory ran out, else `otherwise`."""
    ran_out = isinstance(error, MemoryError) or "malloc" in str(error) or "out of memory" in str(error)
    return "memory" if ran_out else otherwise


def render_page(document: pymupdf.Document, number: int, settings: PdfSettings) -> Page:
    """Render page `number` (from 0). Raises BadDocument: bad_page, page_too_large, too_much_text, memory."""
    try:
        page = document[number]
        scale = page_scale(page.rect, settings)
        # Interpreted once for both uses; a display list is in the rotated, cropped frame of the picture, so that
        # boxes need no other transform than the scale.
        drawing = page.get_displaylist()
        pixels = _pixels(drawing, scale)
        words = pymupdf.TextPage(drawing.get_textpage(TEXT_FLAGS))
        lines, faint, hidden = _lines(words.extractRAWDICT()["blocks"], misdrawn_counter(page), pixels, scale)
        lines = lines if settings.file_order else reading_order(lines)
    except BadDocument:
        raise
    except Exception as error:  # MuPDF raises its own FzError classes, RuntimeError, ValueError, ...
        raise_ours(error)
        raise BadDocument(error_kind(error, "bad_page"), f"{type(error).__name__}: {error}"[:200]) from None
    return Page(number, pixels, lines, hidden, faint)


def render(data: bytes, settings: PdfSettings | None = None) -> Iterator[Page]:
    """Yield the pages of a document in this process: for trusted files and for tests."""
    document = open_pdf(data)
    for number in range(document.page_count):
        yield render_page(document, number, settings or PdfSettings())


def page_scale(rect: pymupdf.Rect, settings: PdfSettings) -> float:
    """Return pixels per point, decided before anything is drawn. Raises BadDocument for a page without an area."""
    longest = max(rect.width, rect.height)
    if not (rect.width > 0 and rect.height > 0 and math.isfinite(longest)):
        raise BadDocument("bad_page", f"page box {tuple(rect)} has no area")
    return min(settings.dpi / 72, settings.longest_side / longest)


class _Samples:
    """A picture's memory, as NumPy's array interface has it: arrays over it keep the picture alive, without a copy."""

    def __init__(self, picture: pymupdf.Pixmap):
        self._picture = picture
        self.__array_interface__ = {
            "version": 3, "shape": (picture.height, picture.width, 3), "typestr": "|u1",
            "data": (picture.samples_ptr, False), "strides": (picture.stride, 3, 1),
        }  # fmt: skip


def _pixels(drawing: pymupdf.DisplayList, scale: float) -> np.ndarray:
    picture = drawing.get_pixmap(matrix=pymupdf.Matrix(scale, scale), colorspace=_BGR, alpha=False)
    return np.asarray(_Samples(picture))


def _lines(blocks: list[dict], misdrawn_of, pixels: np.ndarray, scale: float):
    """Return the visible lines, merged, in pixels; the boxes of faint ones; and the number of pieces without ink."""
    page_ink = Ink(pixels)
    pieces = glyphs.pieces_of(blocks, scale, quarter_turns, misdrawn_of)
    if sum(len(piece.texts) for piece in pieces) > MAX_CHARACTERS:
        raise BadDocument("too_much_text", f"more than {MAX_CHARACTERS} characters on one page")
    glyphs.settle_columns(pieces, page_ink)
    pieces = glyphs.join_columns(glyphs.without_overprints(pieces), JOIN_GAP)
    pieces = glyphs.join_right_to_left(pieces, JOIN_GAP)
    runs = runs_of(pieces, page_ink)
    lines = merge_runs([run for run in runs if run], pixels.shape[1], pixels.shape[0])
    hidden = [glyphs.bounds_of(piece) for piece, run in zip(pieces, runs, strict=True) if run is None]
    return lines, [box for box in hidden if page_ink.is_faint(box)], len(hidden)


def misdrawn_counter(page: pymupdf.Page):
    """Return a function that counts the characters of a span whose picture is wrong: the substitute of a font that is
    not in the file has no such glyph.

    MuPDF replaces a missing simple font by Helvetica and draws its glyphs at the codes; the text, from the file's
    ToUnicode table, stays right. Missing CID fonts get a CJK font with the right glyphs, and the standard symbol
    fonts are built in.
    """
    fonts: list[set[str]] = []

    def count(span: dict) -> int:
        beyond = sum(bool(_beyond_latin(char["c"])) for char in span["chars"] if not char["c"].isascii())
        if beyond and not fonts:
            fonts.append(_substituted_fonts(page))
        return beyond if beyond and span["font"] in fonts[0] else 0

    return count


def _substituted_fonts(page: pymupdf.Page) -> set[str]:
    """Names of fonts that only exist outside the file; some producers list a font both embedded and not."""
    missing, embedded = set(), set()
    for _, extension, kind, name, *_ in page.get_fonts():
        simple_and_absent = extension == "n/a" and kind in _SIMPLE_FONTS
        (missing if simple_and_absent else embedded).add(name.rpartition("+")[2])
    return {name for name in missing - embedded if not re.search("symbol|dingbat", name, re.IGNORECASE)}


def quarter_turns(direction: tuple[float, float]) -> int | None:
    """Return how often a line's direction (x, y down) is turned clockwise by 90 degrees; None for a slanted line."""
    x, y = direction
    if abs(y) <= _SLANT:
        return 0 if x > 0 else 2
    if abs(x) <= _SLANT:
        return 1 if y > 0 else 3
    return None
