"""Pages per second per core: the whole HTML job against a bare loop of Chromium load + screenshot.

  python -m benchmarks.render_html --input 'pages/**/*.html'

CPU seconds of this process, the browser and all that belongs to it, both sides in one run and alternating. The bare
loop gives every page a context of its own too, sets the document and takes a PNG of the same height; it has no
isolation, reads no text and writes nothing. It runs with our flags, and once more as pyppeteer launches a browser,
which draws a window of its own for each page. The job's figure holds everything up to the run report. Also prints the
wall-clock time that reading the lines takes inside the page.
"""

import argparse
import asyncio
import base64
import contextlib
import ctypes
import glob
import os
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from pyppeteer import launch

from corpus.splits import Split
from pipelines.engine import job
from pipelines.render_html import render_split
from pipelines.work import pages
from renderers import rules
from renderers.charset import decode_html
from renderers.chromium import Chromium
from renderers.encoded import OutputSettings
from renderers.html import BrowserLimits, HtmlRenderer, HtmlSettings
from renderers.tab import Tab
from renderers.windows import Budget

PR_SET_CHILD_SUBREAPER = 36
SETTINGS = HtmlSettings(width=1024, max_height=8192, plain=1.0)
LIMITS = BrowserLimits(page_seconds=120)
OUTPUT = OutputSettings(budget=Budget(height=SETTINGS.viewport_height), rules=dict.fromkeys(rules.HTML_RULES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, metavar="GLOB")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    paths = sorted(glob.glob(args.input, recursive=True))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    reading: list[float] = []
    Tab.call = timed(Tab.call, reading)
    whole_job(paths[:1])  # imports and caches, which a job of any size pays once
    ratios = []
    for _ in range(args.rounds):
        launched, bare, whole = (_cpu(work, paths) for work in (launched_loop, bare_loop, whole_job))
        ratios.append(bare / whole)
        num_pages = len(paths)
        print(
            f"{num_pages} pages: as launched {launched / num_pages:.3f} s, bare {bare / num_pages:.3f} s, job "
            f"{whole / num_pages:.3f} s of CPU a page; {num_pages / whole:.2f} pages/s per core; "
            f"ratios {launched / whole:.3f} and {bare / whole:.3f}",
            flush=True,
        )
    quantiles = statistics.quantiles(reading, n=20)
    print(f"median ratio {statistics.median(ratios):.3f}")
    print(f"reading the lines: median {1000 * quantiles[9]:.0f} ms, 95 % {1000 * quantiles[18]:.0f} ms of wall clock")


def timed(call, times: list[float]):
    """Wrap `Tab.call`: note how long reading the lines takes, as seen from outside the browser."""

    async def call_and_note(self, name: str, *arguments):
        started = asyncio.get_running_loop().time()
        result = await call(self, name, *arguments)
        if name == "read":
            times.append(asyncio.get_running_loop().time() - started)
        return result

    return call_and_note


def _cpu(work, paths: list[str]) -> float:
    before = _used()
    work(paths)
    for _ in range(50):  # a process counts when it is reaped, also one whose own parent is gone
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.1)
    return _used() - before


def _used() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)  # the sentry reaps the browser, and we the sentry
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def bare_loop(paths: list[str]) -> None:
    """Load and photograph every page, each in a context of its own."""
    asyncio.run(_photograph([decode_html(Path(path).read_bytes())[0] for path in paths]))


def launched_loop(paths: list[str]) -> None:
    """The same with a browser as pyppeteer launches it."""
    asyncio.run(_photograph([decode_html(Path(path).read_bytes())[0] for path in paths], ours=False))


async def _photograph(documents: list[str], ours: bool = True) -> None:
    chromium = Chromium()
    if ours:
        await chromium.start()
    browser = chromium.browser or await launch(executablePath=chromium.executable, args=["--no-sandbox"])
    for document in documents:
        context = await browser.createIncognitoBrowserContext()
        page = await context.newPage()
        await page.setJavaScriptEnabled(False)
        await page.setViewport({"width": SETTINGS.width, "height": SETTINGS.viewport_height})
        frame = (await page._client.send("Page.getFrameTree"))["frameTree"]["frame"]["id"]
        await page._client.send("Page.setDocumentContent", {"frameId": frame, "html": document})
        metrics = await page._client.send("Page.getLayoutMetrics")
        height = max(1, min(int(metrics["cssContentSize"]["height"]), SETTINGS.max_height))
        await page.setViewport({"width": SETTINGS.width, "height": height})
        clip = {"x": 0, "y": 0, "width": SETTINGS.width, "height": height, "scale": 1}
        shot = await page._client.send("Page.captureScreenshot", {"format": "png", "clip": clip})
        base64.b64decode(shot["data"])
        await context.close()
    await (chromium.stop() if ours else browser.close())


def whole_job(paths: list[str]) -> None:
    """Run the job over the same pages, in this process, into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        args = argparse.Namespace(
            dataset="bench", output=folder, overwrite=False, limit=None, workers=0, max_quarantined=1
        )
        renderer = HtmlRenderer(SETTINGS, LIMITS)
        work = partial(render_split, dataset="bench", output=OUTPUT, limit=None)
        splits = [Split("00000", {"url": paths[0], "urls": paths})]
        job.run("bench", args, splits, {"bench": True}, work, scores=pages.SCORES, setup=lambda: renderer)
        renderer.close()


if __name__ == "__main__":
    main()
