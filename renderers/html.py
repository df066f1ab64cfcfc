"""Web pages as pixels and visible lines of text with quads (the paper's appendix A.4), offline, in Chromium.

The page is hostile. It is parsed into an inert document and disarmed before it is put in place; its scripts are off;
its document has an opaque origin and a policy that allows inline styles and data: images alone; every request is
refused at the protocol; the browser has no resolver, no proxy and, where the system allows, no network interface; its
profile is new and empty, and every page gets a context of its own. It is never loaded from file://.
"""

import asyncio
import atexit
import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from corpus.bugs import raise_ours
from renderers.characters import clean_text, is_wide
from renderers.chromium import LOST, BrowserLost, Chromium
from renderers.ink import Ink
from renderers.lines import Run, merge_runs
from renderers.page import BadDocument, Page, Quad, bounds, turned_quad
from renderers.themes import draw_look, draw_view

# Installed into every page, in a world that the page's own scripts (were they on) could not see.
_EXTRACT = (Path(__file__).parent / "extract.js").read_text()
_ORIGIN = "http://page.invalid/"  # reserved: resolves nowhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; sandbox"
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

    def render(self, html: str, key: str = "") -> tuple[Page, dict]:
        """Return the page and its facts: `lang`, `title`, `width` and `height` of the whole layout, `cut_off`, `look`.

        The look of the page is drawn from the seed and `key`.

        Raises BadDocument: timeout, crash, memory, too_much_text, bad_page; NoBrowser when none comes up.
        """
        page, facts, _ = self._run(html, key, with_text=False)
        return page, facts

    def render_with_inner_text(self, html: str, key: str = "") -> tuple[Page, dict, str]:
        """The same, with the document's innerText: for measuring how much of it the lines hold."""
        return self._run(html, key, with_text=True)

    def _run(self, html: str, key: str, *, with_text: bool) -> tuple[Page, dict, str]:
        self._loop.run_until_complete(self._have_browser())  # on no page's time
        try:
            work = self._render(html, key, with_text=with_text)
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

    async def _render(self, html: str, key: str, *, with_text: bool) -> tuple[Page, dict, str]:
        self._rendered += 1
        context = await self._chromium.browser.createIncognitoBrowserContext()
        tab = _Tab((await context.newPage())._client)
        crashed = asyncio.get_running_loop().create_future()
        tab.client.on("Inspector.targetCrashed", lambda _: crashed.done() or crashed.set_result(None))
        work = asyncio.ensure_future(self._picture(tab, html, key, with_text))
        await asyncio.wait((work, crashed), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            raise BrowserLost("crash", "the page's process crashed")
        result = work.result()
        await context.close()
        return result

    async def _picture(self, tab: "_Tab", html: str, key: str, with_text: bool) -> tuple[Page, dict, str]:
        wanted = self.settings
        scale, ems = draw_view(_seed(wanted.seed, key)) if not wanted.width else (1.0, 0.0)
        tab.scale = scale  # from the beginning: text that is laid out for another one keeps a fraction of a pixel of it
        await tab.open(doctype(html), wanted.width or 800, wanted.viewport_height)
        look = draw_look(_seed(wanted.seed, key), plain=wanted.plain, **await tab.call("put", html))
        width = _viewport(wanted, scale, ems, **await tab.call("wear", look.css))
        await tab.resize(width, wanted.viewport_height)
        facts, height = await tab.call("fit"), wanted.viewport_height
        for _ in range(3):  # a page that measures itself by the viewport grows with it, some without end
            fitting = min(_whole(facts["height"]), int(wanted.max_height / scale) // 4 * 4)
            if fitting == height:
                break
            height = fitting
            await tab.resize(width, height)
            facts |= await tab.call("settle")
        width = max(width, min(_whole(facts["width"]), wanted.most_width))
        text = await tab.call("text") if with_text else ""
        found = await tab.call("read", width, height, MAX_CHARACTERS)
        if found["overflow"]:
            raise BadDocument("too_much_text", f"more than {MAX_CHARACTERS} characters of visible text")
        pixels = await tab.screenshot(width, height)
        facts["cut_off"] = facts["height"] > height
        facts["look"] = {"theme": look.name, "viewport": width, "scale": scale}
        lines, hidden = _lines(found["pieces"], pixels, pixels.shape[1] / width)
        return Page(0, pixels, lines, hidden + found["hidden"]), facts, text


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


class _Tab:
    """One page of its own context, seen through the protocol: pyppeteer's own `goto` waits for frames for ever."""

    def __init__(self, client):
        self.client, self.scale = client, 1.0
        self._world = None

    async def open(self, declaration: str, width: int, height: int) -> None:
        """Put an empty document with this doctype declaration in place; refuse every other request from now on."""
        send = self.client.send
        shell = f"{declaration}<html><head></head><body></body></html>"
        self.client.on("Fetch.requestPaused", lambda event: asyncio.ensure_future(self._answer(event, shell)))
        loaded = asyncio.get_running_loop().create_future()
        self.client.on("Page.loadEventFired", lambda _: loaded.done() or loaded.set_result(None))
        await asyncio.gather(
            send("Emulation.setScriptExecutionDisabled", {"value": True}),
            send("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),
            send("Network.setBypassServiceWorker", {"bypass": True}),
            self.resize(width, height),
        )
        navigation = await send("Page.navigate", {"url": _ORIGIN})
        await loaded
        # Nothing that the page itself could ask for is left to answer; whatever slips through finds the line dead.
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        await send("Network.emulateNetworkConditions", offline)
        world = await send("Page.createIsolatedWorld", {"frameId": navigation["frameId"], "worldName": "gristmill"})
        self._world = world["executionContextId"]
        await self._evaluate("Runtime.evaluate", {"expression": _EXTRACT, "contextId": self._world})

    async def _answer(self, event: dict, shell: str) -> None:
        request = {"requestId": event["requestId"]}
        if event["request"]["url"] == _ORIGIN and event["resourceType"] == "Document" and self._world is None:
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
            answer = {
                "responseCode": 200, "body": base64.b64encode(shell.encode("utf-8", "replace")).decode(),
                "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
            }  # fmt: skip
            await self.client.send("Fetch.fulfillRequest", request | answer)
        else:
            await self.client.send("Fetch.failRequest", request | {"errorReason": "BlockedByClient"})

    async def resize(self, width: int, height: int) -> None:
        """Set the viewport, in CSS pixels, each of which is `scale` pixels of the picture wide and high."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": self.scale, "mobile": False}
        await self.client.send("Emulation.setDeviceMetricsOverride", metrics)

    async def call(self, name: str, *arguments):
        """Call a function of extract.js. Raises BadDocument where the page breaks it."""
        return await self._evaluate("Runtime.callFunctionOn", {
            "functionDeclaration": f"(...all) => gristmill.{name}(...all)", "executionContextId": self._world,
            "arguments": [{"value": argument} for argument in arguments],
        })  # fmt: skip

    async def _evaluate(self, method: str, parameters: dict):
        reply = await self.client.send(method, parameters | {"returnByValue": True, "awaitPromise": True})
        if failure := reply.get("exceptionDetails"):
            text = failure.get("exception", {}).get("description") or failure.get("text", "")
            raise BadDocument("bad_page", text[:200])
        return reply["result"].get("value")

    async def screenshot(self, width: int, height: int) -> np.ndarray:
        """Return uint8 [height, width, 3], BGR. PNG, so that the one lossy step is the sample's own JPEG."""
        shot = await self.client.send("Page.captureScreenshot", {
            "format": "png", "optimizeForSpeed": True,
            "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
        })  # fmt: skip
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"])), formats=("PNG",))
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


def doctype(html: str) -> str:
    """Return the page's doctype declaration, which decides between quirks and standards layout; "" when it has none.

    Scanned by hand: a regular expression for what may stand before it takes quadratic time on hostile pages.
    """
    at = 0
    while at < len(html):
        if html[at].isspace() or html[at] == "\ufeff":
            at += 1
        elif html.startswith("<!--", at):
            at = _after(html, "-->", at + 4)
        elif html.startswith("<?", at):
            at = _after(html, ">", at + 2)
        else:
            break
    declaration = html[at : _after(html, ">", at)] if html[at : at + 9].lower() == "<!doctype" else ""
    return declaration if "<" not in declaration[1:] and len(declaration) < 1000 else ""


def _after(text: str, end: str, start: int) -> int:
    found = text.find(end, start)
    return len(text) if found < 0 else found + len(end)


def _lines(pieces: list, pixels: np.ndarray, scale: float):
    """Return the visible lines, merged, in pixels, and the number of pieces without ink."""
    ink, runs, hidden = Ink(pixels), [], 0
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
            continue
        quad = quad if turns is None else turned_quad(fitted, turns)
        spaced = (raw[:1].isspace(), raw[-1:].isspace())
        runs.append(Run(text, quad, size, turns, upright_column, spaced, block))
    return merge_runs(runs, pixels.shape[1], pixels.shape[0]), hidden


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
