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
from renderers.characters import clean_text
from renderers.ink import Ink
from renderers.lines import Run, merge_runs, sort_lines
from renderers.page import BadDocument, Page, Quad, Rect, turned_quad

# Ligatures are expanded ("fi", not U+FB01), undecodable glyphs become U+FFFD rather than arbitrary letters, and boxes
# come from the glyphs' outlines rather than from the font's ascent and descent. A file's own replacement texts
# (ActualText) are for ears, not eyes, and often swallow text that shows.
TEXT_FLAGS = (
    (pymupdf.TEXTFLAGS_WORDS & ~pymupdf.TEXT_PRESERVE_LIGATURES & ~pymupdf.TEXT_CID_FOR_UNKNOWN_UNICODE)
    | pymupdf.TEXT_ACCURATE_BBOXES
    | pymupdf.TEXT_IGNORE_ACTUALTEXT
)
_PAINTED = 16 | 32 | 64  # char_flags: filled, stroked, or a clip for something painted later; none = invisible text
_beyond_latin = re.compile(
    "[^\0-\xff\u0152-\u0192\u02c6-\u02dc\u2010-\u2044\u20ac\u2122\u2212\ufb01\ufb02\ufffd]"
).findall
_SIMPLE_FONTS = ("TrueType", "Type1", "MMType1")
_BGR = pymupdf.Colorspace(pymupdf.mupdf.FzColorspace(pymupdf.mupdf.FzColorspace.Fixed_BGR))
_SLANT = math.sin(math.radians(1.5))  # a line that leans less is upright
_SLACK = 0.08  # of the font size: how far outlines may stick out of the box MuPDF gives (hinting, stroke width)

MAX_CHARACTERS = 200_000  # on one page; a book page has 3,000, a page of a telephone directory 15,000


@dataclass(frozen=True)
class PdfSettings:
    """How to draw: `dpi`, less where the longest side would exceed `longest_side` pixels; sort lines or keep order."""

    dpi: int = 144
    longest_side: int = 2048
    sort: bool = False


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
        blocks = [block["lines"] for block in words.extractDICT()["blocks"] if "lines" in block]
        boxes = inked_boxes(words) if spaces_overlap(blocks) else {}
        lines, hidden = _lines(blocks, boxes, drawing, pixels, scale)
        lines = sort_lines(lines) if settings.sort else lines
        misdrawn = misdrawn_characters(page, blocks)
    except BadDocument:
        raise
    except Exception as error:  # MuPDF raises its own FzError classes, RuntimeError, ValueError, ...
        raise_ours(error)
        raise BadDocument(error_kind(error, "bad_page"), f"{type(error).__name__}: {error}"[:200]) from None
    return Page(number, pixels, lines, hidden, misdrawn)


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


def _pixels(drawing: pymupdf.DisplayList, scale: float) -> np.ndarray:
    picture = drawing.get_pixmap(matrix=pymupdf.Matrix(scale, scale), colorspace=_BGR, alpha=False)
    return np.frombuffer(picture.samples, np.uint8).reshape(picture.height, picture.width, 3)


def _lines(blocks, boxes, drawing: pymupdf.DisplayList, pixels: np.ndarray, scale: float):
    """Return the visible lines, merged, in pixels, and the number of lines without ink."""
    page_ink = Ink(pixels)
    runs, hidden, characters = [], 0, 0
    slanted: list[Quad] | None = None
    lines = ((b, n, line) for b, block in enumerate(blocks) for n, line in enumerate(block))
    for number, (block_number, line_number, line) in enumerate(lines):
        spans = [span for span in line["spans"] if span["alpha"] and span["char_flags"] & _PAINTED]
        raw = "".join(span["text"] for span in spans)
        characters += len(raw)
        if characters > MAX_CHARACTERS:
            raise BadDocument("too_much_text", f"more than {MAX_CHARACTERS} characters on one page")
        text_of_line = clean_text(raw.replace("\xad", "-"))
        if not text_of_line:
            continue
        size = max(span["size"] for span in spans) * scale
        turns = quarter_turns(line["dir"])
        if turns is None:
            slanted = slanted or char_quads(drawing, scale)
            run = _slanted_run(text_of_line, slanted[number], size, page_ink)
        else:
            box = boxes.get((block_number, line_number), line["bbox"])
            run = _upright_run(text_of_line, raw, box, turns - line["wmode"], line["wmode"], size, page_ink, scale)
        hidden += run is None
        if run is not None:
            runs.append(run)
    return merge_runs(runs, pixels.shape[1], pixels.shape[0]), hidden


def spaces_overlap(blocks: list[list[dict]]) -> bool:
    """Whether the white space at an end of some line may lie over the text of another line beside it."""
    lines = [line for block in blocks for line in block]
    ragged = [_is_ragged(line["spans"]) for line in lines]
    if not any(ragged):
        return False
    boxes = np.array([line["bbox"] for line in lines])
    upright = np.array([abs(line["dir"][0]) >= abs(line["dir"][1]) for line in lines])
    boxes = np.where(upright[:, None], boxes, boxes[:, [1, 0, 3, 2]])  # now x runs along every line
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = high - low
    height = boxes[:, 3] - boxes[:, 1]
    beside = (common[..., 0] > 1) & (common[..., 1] > 0.5 * np.minimum(height[:, None], height[None, :]))
    beside &= upright[:, None] == upright[None, :]
    np.fill_diagonal(beside, False)
    return bool(beside[ragged].any())


def _is_ragged(spans: list[dict]) -> bool:
    return spans[0]["text"][:1].isspace() or spans[-1]["text"][-1:].isspace()


def inked_boxes(text: pymupdf.TextPage) -> dict[tuple[int, int], Rect]:
    """Return the box around the characters of each line that are not white space, in points, by (block, line).

    A line's own box takes in the white space at its ends. Drawing the box in to the ink mends that, except in files
    whose white space lies over the next piece of text. Slow: asked for only where `spaces_overlap`.
    """
    boxes: dict[tuple[int, int], Rect] = {}
    blocks = (block["lines"] for block in text.extractRAWDICT()["blocks"] if "lines" in block)
    for place, line in (((b, n), line) for b, lines in enumerate(blocks) for n, line in enumerate(lines)):
        inked = [char["bbox"] for span in line["spans"] for char in span["chars"] if not char["c"].isspace()]
        if inked:
            x0, y0, x1, y1 = zip(*inked, strict=True)
            boxes[place] = min(x0), min(y0), max(x1), max(y1)
    return boxes


def _upright_run(text, raw, box, turns, wmode, size, page_ink, scale) -> Run | None:
    slack = _SLACK * size
    x0, y0, x1, y1 = (side * scale for side in box)
    box = page_ink.fit((x0 - slack, y0 - slack, x1 + slack, y1 + slack))
    if box is None:
        return None
    spaced = (raw[:1].isspace(), raw[-1:].isspace())
    return Run(text, turned_quad(box, turns), size, turns % 4, bool(wmode), spaced)


def _slanted_run(text, quad: Quad, size, page_ink) -> Run | None:
    xs, ys = [x for x, _ in quad], [y for _, y in quad]
    visible = page_ink.fit((min(xs), min(ys), max(xs), max(ys)))
    return Run(text, quad, size, None, False, (False, False)) if visible else None


def misdrawn_characters(page: pymupdf.Page, blocks: list[list[dict]]) -> int:
    """Count characters whose picture is wrong: their font is not in the file and its substitute has no such glyph.

    MuPDF replaces a missing simple font by Helvetica and draws its glyphs at the codes; the text, from the file's
    ToUnicode table, stays right. Missing CID fonts get a CJK font with the right glyphs, and the standard symbol
    fonts are built in.
    """
    fonts = None
    wrong = 0
    for span in (span for lines in blocks for line in lines for span in line["spans"]):
        if span["text"].isascii() or not (beyond := _beyond_latin(span["text"])):
            continue
        fonts = _substituted_fonts(page) if fonts is None else fonts
        wrong += len(beyond) if span["font"] in fonts else 0
    return wrong


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


def char_quads(drawing: pymupdf.DisplayList, scale: float) -> list[Quad]:
    """Return the quad of every line of the page, in pixels, from its characters' own quads.

    Slow, and only needed where a line is slanted: outline boxes are upright, so here boxes come from the font's
    ascent and descent, which turn with the text.
    """
    quads = []
    words = drawing.get_textpage(TEXT_FLAGS & ~pymupdf.TEXT_ACCURATE_BBOXES)  # must outlive its blocks: C memory
    for block in words:
        if block.m_internal.type != pymupdf.mupdf.FZ_STEXT_BLOCK_TEXT:
            continue
        for line in block:
            corners = _inked_corners(line)
            direction = (line.m_internal.dir.x, line.m_internal.dir.y)
            quads.append(_turned_box(corners, direction, scale) if corners else ((0.0, 0.0),) * 4)
    return quads


def _inked_corners(line) -> list[tuple[float, float]]:
    corners = []
    for (
        char
    ) in line:  # a loop, as in PyMuPDF itself: its iterators are not iterable, which comprehensions of 3.13 ask for
        if chr(char.m_internal.c).strip():
            quad = char.m_internal.quad
            corners += [(corner.x, corner.y) for corner in (quad.ul, quad.ur, quad.lr, quad.ll)]
    return corners


def _turned_box(corners, direction, scale: float) -> Quad:
    """The smallest box around the corners whose sides run along the direction."""
    cos, sin = direction
    along = [x * cos + y * sin for x, y in corners]
    across = [y * cos - x * sin for x, y in corners]
    a0, a1, b0, b1 = min(along), max(along), min(across), max(across)
    return tuple(((a * cos - b * sin) * scale, (a * sin + b * cos) * scale)
                 for a, b in ((a0, b0), (a1, b0), (a1, b1), (a0, b1)))  # fmt: skip
