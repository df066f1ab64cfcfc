"""Web pages as pixels and visible lines of text with quads (the paper's appendix A.4), offline, in Chromium.

The page is hostile. It is parsed into an inert document and disarmed before it is put in place; its scripts are off;
its document has an opaque origin and a policy that allows inline styles and data: images alone; every request is
refused at the protocol; the browser has no resolver, no proxy and, where the system allows, no network interface; its
profile is new and empty, and every page gets a context of its own. It is never loaded from file://.
"""

import asyncio
import atexit
import hashlib
from dataclasses import dataclass

import numpy as np

from corpus.bugs import raise_ours
from renderers.characters import clean_text, is_wide
from renderers.chromium import LOST, BrowserLost, Chromium
from renderers.ink import Ink
from renderers.inlined import Archive, Inliner
from renderers.lines import Run, merge_runs
from renderers.page import BadDocument, Page, Quad, bounds, turned_quad
from renderers.tab import Tab, doctype
from renderers.themes import draw_look, draw_view

MAX_CHARACTERS = 500_000  # of visible text, on one page


@dataclass(frozen=True)
class HtmlSettings:
    """The viewport and the look of pages, in CSS pixels; the picture ends after `max_height` of its own pixels.

    `width` 0: drawn for every page, so that a line of its text has 20 to 31 em (full-width text: 24 to 40) and the
    picture is 400 to 1,000 pixels wide; a page that is laid out wider is taken as wide as it is, up to `most_width`.
    `plain` is the share of pages that get no theme; 1: what the page itself says is all.
    """

    width: int = 0
    viewport_height: int = 1448  # what "100vh" means to the page: a sheet of paper's proportions
    max_height: int = 16384
    most_width: int = 1600
    plain: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class BrowserLimits:
    """What a page may cost: wall-clock seconds; resident bytes of the browser; pages before it is replaced."""

    page_seconds: float = 30.0
    memory: int = 3 << 30
    pages: int = 200


class HtmlRenderer:
    """Renders pages in one browser, which is started when needed and replaced when it grows, hangs or crashes.

    Use as a context manager, from one thread that is not running an event loop.
    """

    def __init__(self, settings: HtmlSettings | None = None, limits: BrowserLimits | None = None, executable=None):
        self.settings, self.limits = settings or HtmlSettings(), limits or BrowserLimits()
        self._chromium = Chromium(executable, self.limits.memory)
        self._loop = asyncio.new_event_loop()
        # Futures that a lost browser leaves behind fail after nobody waits for them any more.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._rendered = 0
        atexit.register(self.close)

    def __enter__(self) -> "HtmlRenderer":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and everything that belongs to it."""
        if not self._loop.is_closed():
            self.stop()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def stop(self) -> str:
        """End the browser; the next page starts another. Returns why it had ended before: "memory", "crash" or ""."""
        self._rendered = 0
        return self._loop.run_until_complete(self._chromium.stop())

    def render(self, html: str, key: str = "", archive: Archive | None = None) -> tuple[Page, dict]:
        """Return the page and its facts: `lang`, `title`, `width` and `height` of the whole layout, `cut_off`, `look`.

        The look of the page is drawn from the seed and `key`, unless its own style sheets are in its `archive`.

        Raises BadDocument: timeout, crash, memory, too_much_text, bad_page; NoBrowser when none comes up.
        """
        page, facts, _ = self._run(html, key, archive, with_text=False)
        return page, facts

    def render_with_inner_text(self, html: str, key: str = "") -> tuple[Page, dict, str]:
        """The same, with the document's innerText: for measuring how much of it the lines hold."""
        return self._run(html, key, None, with_text=True)

    def _run(self, html: str, key: str, archive: Archive | None, *, with_text: bool) -> tuple[Page, dict, str]:
        self._loop.run_until_complete(self._have_browser())  # on no page's time
        try:
            work = self._render(html, key, archive, with_text=with_text)
            return self._loop.run_until_complete(asyncio.wait_for(work, self.limits.page_seconds))
        except TimeoutError:
            ended = self.stop()
            detail = f"not rendered within {self.limits.page_seconds} s"
            raise BadDocument(ended if ended == "memory" else "timeout", detail) from None
        except (BrowserLost, *LOST) as error:
            ended = self.stop()
            raise_ours(error)
            raise BadDocument(
                ended or getattr(error, "kind", "crash"), f"{type(error).__name__}: {error}"[:200]
            ) from None

    async def _have_browser(self) -> None:
        if self._rendered >= self.limits.pages or (self._chromium.browser and not self._chromium.running):
            await self._chromium.stop()
            self._rendered = 0
        if self._chromium.browser is None:
            await self._chromium.start()

    async def _render(self, html: str, key: str, archive: Archive | None, *, with_text: bool) -> tuple[Page, dict, str]:
        self._rendered += 1
        context = await self._chromium.browser.createIncognitoBrowserContext()
        tab = Tab((await context.newPage())._client)
        crashed = asyncio.get_running_loop().create_future()
        tab.client.on("Inspector.targetCrashed", lambda _: crashed.done() or crashed.set_result(None))
        work = asyncio.ensure_future(self._picture(tab, html, key, archive, with_text))
        await asyncio.wait((work, crashed), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            raise BrowserLost("crash", "the page's process crashed")
        result = work.result()
        await context.close()
        return result

    async def _picture(
        self, tab: Tab, html: str, key: str, archive: Archive | None, with_text: bool
    ) -> tuple[Page, dict, str]:
        wanted = self.settings
        scale, ems = draw_view(_seed(wanted.seed, key)) if not wanted.width else (1.0, 0.0)
        tab.scale = scale  # from the beginning: text that is laid out for another one keeps a fraction of a pixel of it
        await tab.open(doctype(html), wanted.width or 800, wanted.viewport_height)
        asked = await tab.call("parse", html, archive.address if archive else "")
        found = Inliner(archive).answer(asked)
        plain = 1.0 if found["styles"] else wanted.plain
        look = draw_look(_seed(wanted.seed, key), plain=plain, **await tab.call("put", found))
        width = _viewport(wanted, scale, ems, **await tab.call("wear", look.css))
        width, height, facts = await _laid_out(tab, width, wanted)
        text = await tab.call("text") if with_text else ""
        read = await tab.call("read", width, height, MAX_CHARACTERS)
        if read["overflow"]:
            raise BadDocument("too_much_text", f"more than {MAX_CHARACTERS} characters of visible text")
        pixels = await tab.screenshot(read["left"], width, height)
        facts["cut_off"] = facts["height"] > height
        archived = len(found["styles"]) + len(found["pictures"])
        facts["look"] = {"theme": look.name, "viewport": width, "scale": scale, "archived": archived}
        lines, faint, hidden = _lines(read["pieces"], pixels, pixels.shape[1] / width)
        return Page(0, pixels, lines, hidden + read["hidden"], faint), facts, text


async def _laid_out(tab: Tab, width: int, wanted: HtmlSettings) -> tuple[int, int, dict]:
    """Lay the page out at this width and make the viewport as large as it is; return that size and the page's facts.

    What sticks out of the page on the right, or on the left where it runs to the left, must lie within the viewport:
    only there can the browser be asked what is on top.
    """
    await tab.resize(width, wanted.viewport_height)
    facts, height = await tab.call("fit"), wanted.viewport_height
    wide = min(_whole(facts["width"]), wanted.most_width)
    if wide > width:
        await tab.call("hold", wide)
        width, height = wide, 0
    for _ in range(3):  # a page that measures itself by the viewport grows with it, some without end
        fitting = min(_whole(facts["height"]), int(wanted.max_height / tab.scale) // 4 * 4)
        if fitting == height:
            break
        height = fitting
        await tab.resize(width, height)
        facts |= await tab.call("settle")
    return width, height, facts


def _seed(seed: int, key: str) -> list[int]:
    return [seed % 2**64, *hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8]]


def _whole(length: float) -> int:
    """Round up to a length that has whole pixels at every scale: others are resampled, each time a little otherwise."""
    return max(int(-(-length // 4)) * 4, 4)


def _viewport(wanted: HtmlSettings, scale: float, ems: float, em: float, wide: float) -> int:
    """Return the viewport's width in CSS pixels."""
    if wanted.width:
        return wanted.width
    low, high = (24, 40) if wide > 0.3 else (20, 31)
    least, most = max(400 / scale, 320), 1000 / scale
    return min(_whole(min(max(em * (low + (high - low) * ems), least), most)), int(most) // 4 * 4)


def _lines(pieces: list, pixels: np.ndarray, scale: float):
    """Return the visible lines, merged, in pixels; the boxes of faint ones; and the number of pieces without ink."""
    ink, runs, faint, hidden = Ink(pixels), [], [], 0
    for raw, left, top, right, bottom, size, block, vertical, linear in pieces:
        text = clean_text(raw)
        if not text:
            continue
        box, size = tuple(side * scale for side in (left, top, right, bottom)), size * scale
        turns, upright_column = _orientation(text, vertical, linear)
        quad = _slanted_quad(box, linear, size) if turns is None else turned_quad(box, turns)
        fitted = ink.fit(bounds(quad))
        if fitted is None:
            hidden += 1
            if ink.is_faint(bounds(quad)):
                faint.append(bounds(quad))
            continue
        quad = quad if turns is None else turned_quad(fitted, turns)
        spaced = (raw[:1].isspace(), raw[-1:].isspace())
        runs.append(Run(text, quad, size, turns, upright_column, spaced, block))
    return merge_runs(runs, pixels.shape[1], pixels.shape[0]), faint, hidden


def _orientation(text: str, vertical: int, linear: list[float] | None) -> tuple[int | None, bool]:
    """Return (clockwise quarter turns of the glyphs, None when slanted; whether glyphs stand upright in a column).

    `vertical`: 0 horizontal, 1 upright column, 2 column whose Latin text is turned clockwise, 3 counterclockwise.
    """
    column = vertical == 1 or (vertical == 2 and is_wide(text[0]))
    turns = 0 if column else {2: 1, 3: 3}.get(vertical, 0)
    if linear is None:
        return turns, column
    a, b, c, d = linear
    length = (a * a + b * b) ** 0.5 or 1.0
    cos, sin = a / length, b / length
    skewed = abs(a * c + b * d) > 0.03 * length * ((c * c + d * d) ** 0.5 or 1.0)
    if skewed or min(abs(cos), abs(sin)) > 0.03:
        return None, column
    quarter = (0 if cos > 0 else 2) if abs(cos) > abs(sin) else (1 if sin > 0 else 3)
    return (turns + quarter) % 4, column


def _slanted_quad(box, linear: list[float], size: float) -> Quad:
    """Recover the quad of transformed text from the upright box around it and the linear part of its transform.

    Both have the same centre. With width w and height h before the transform (a, b, c, d), the box is |a|w + |c|h
    wide and |b|w + |d|h high; where that cannot be solved (turns of 45 degrees), h is taken from the font size.
    """
    a, b, c, d = linear
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    wide, high = box[2] - box[0], box[3] - box[1]
    determinant = abs(a * d) - abs(b * c)
    if abs(determinant) > 0.2 * abs(a * d - b * c):
        w = (abs(d) * wide - abs(c) * high) / determinant
        h = (abs(a) * high - abs(b) * wide) / determinant
    else:
        h = 1.15 * size
        w = (wide + high - (abs(c) + abs(d)) * h) / max(abs(a) + abs(b), 1e-6)
    w, h = max(w, 0.0) / 2, max(h, 0.0) / 2
    return tuple(
        (x + a * u * w + c * v * h, y + b * u * w + d * v * h) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    )
