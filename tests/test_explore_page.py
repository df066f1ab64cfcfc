"""The page in a real browser: sliders, keyboard, brush and a hostile caption; at a phone's width, in both schemes."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pyppeteer import launch

from tests.cleaned import sample, write_cleaned
from tests.explored import HOSTILE, pairs
from tests.test_build_stage import build

ROOT = Path(__file__).resolve().parent.parent
FOUND = "[...document.querySelectorAll('.card')]"
LONG = "x" * 1_000_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve a folder of pairs and a stage folder; yield (address, number of the pairs' folder, of the stage's)."""
    root = tmp_path_factory.mktemp("served")
    pairs(root / "crawl", "laion-en", 5)
    kept = [sample("gqa", "vqa", i, annotations={"question": HOSTILE + LONG[:500], "answer": "yes"}) for i in range(3)]
    write_cleaned(root / "cleaned", "gqa", kept)
    build(root / "cleaned", root / "stage2")
    command = [sys.executable, "pipelines/explore.py", str(root / "crawl" / "laion-en"), str(root / "stage2")]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    server.stdout.readline()
    yield server.stdout.readline().strip()
    server.terminate()
    server.wait()


def in_browser(browser, address, *steps, width=1300, scheme="light"):
    """Open the page, run `steps` on it and return what each gave. A script's error or a load from elsewhere fails."""

    async def run():
        chromium = await launch(
            executablePath=browser, args=["--no-sandbox", "--disable-gpu"], handleSIGINT=False, handleSIGTERM=False
        )
        said = []
        try:
            page = await chromium.newPage()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on(
                "request",
                lambda request: None if request.url.startswith("http://127.0.0.1:") else said.append(request.url),
            )
            await page.setViewport({"width": width, "height": 800})
            wanted = [{"name": "prefers-color-scheme", "value": scheme}]
            await page._client.send("Emulation.setEmulatedMedia", {"features": wanted})
            await page.goto(address)
            found = [await step(page) for step in steps]
            assert [each for each in said if not each.startswith("data:")] == []
            return found
        finally:
            await chromium.close()

    return asyncio.new_event_loop().run_until_complete(run())


async def text(page, selector):
    await page.waitForSelector(selector, timeout=10_000)
    return await page.evaluate("s => document.querySelector(s).textContent", selector)


async def until(page, script, *given):
    await page.waitForFunction(script, {"timeout": 10_000}, *given)


def view(name, folder=0):
    async def go(page):
        await page.evaluate(f"() => {{ location.hash = 'folder={folder}&view={name}' }}")
        await until(page, f"() => document.title.endsWith(': {name}')")

    return go


def kept(said: str) -> int:
    return int(re.search(r"[\d,]+", said)[0].replace(",", ""))


async def moved_by_keyboard(page):
    before = kept(await text(page, "#kept"))
    await page.focus('[id="slider-clip_score.min"]')
    for _ in range(60):
        await page.keyboard.press("ArrowRight")
    await page.waitForSelector("#delta", timeout=10_000)
    await until(page, "() => document.querySelector('#copy pre')")
    await until(page, "() => document.querySelector('.card.moves')")
    return before, kept(await text(page, "#kept")), await text(page, "#copy pre"), await text(page, "#total .badge")


def test_a_slider_moves_by_the_keyboard_and_all_is_counted_again(served, browser):
    ((before, after, command, badge),) = in_browser(browser, served, moved_by_keyboard)
    assert after < before and badge.startswith("exact: all 120 rows")
    assert re.search(r"retune.py .*--set clip_score.min=0\.\d+ --output", command)


async def reset(page):
    await page.click('[aria-label="reset clip_score.min"]')
    await until(page, "() => !document.querySelector('#delta')")
    return kept(await text(page, "#kept"))


def test_reset_brings_back_what_was_made(served, browser):
    (before, *_), again = in_browser(browser, served, moved_by_keyboard, reset)
    assert again == before


async def hostile_rows(page):
    await page.evaluate("() => { document.forms[0].elements.text.value = 'onerror' }")
    await page.click("form button[type=submit]")
    await until(
        page,
        f"() => {FOUND}.length && {FOUND}.every(each => each.textContent.includes('onerror='))",
    )
    said = await text(page, ".card .text")
    await page.focus(".card")
    await page.keyboard.press("Enter")
    await page.waitForSelector("dialog[open]")
    shown = await text(page, "dialog[open]")
    await page.keyboard.press("Escape")
    await until(page, "() => !document.querySelector('dialog[open]')")
    return (
        said,
        shown,
        await page.evaluate(
            "() => [document.title, document.scripts.length, document.querySelectorAll('.text img').length]"
        ),
    )


def test_a_hostile_caption_is_text(served, browser):
    _, (said, shown, state) = in_browser(browser, served, view("rows"), hostile_rows)
    assert "<script>" in said and "<script>" in shown
    assert state == ["laion-en: rows", 1, 0]


async def brushed(page):
    await until(page, "() => document.querySelector('#plane-says .badge')")
    box = await page.evaluate("() => Object.values(document.querySelector('canvas').getBoundingClientRect().toJSON())")
    await page.mouse.move(box[0] + 5, box[1] + 5)
    await page.mouse.down()
    await page.mouse.move(box[0] + box[2] - 5, box[1] + box[3] - 5)
    await page.mouse.up()
    return await text(page, "#brushed .total-rows"), await page.evaluate("() => document.forms[0].elements.x1.value")


def test_what_is_brushed_on_the_plane_is_shown_as_rows(served, browser):
    _, (rows, edge) = in_browser(browser, served, view("plane"), brushed)
    assert kept(rows) > 0 and float(edge) > 0


async def packs(page):
    shown = await text(page, "#pack pre")
    await until(page, "() => document.querySelector('#pack img').naturalWidth > 0")
    return shown, await page.evaluate("() => document.querySelectorAll('#pack .on').length")


def test_packs_show_what_is_supervised(served, browser):
    _, (shown, supervised) = in_browser(browser, served, view("packs", folder=1), packs)
    assert shown.startswith(f"image 0{HOSTILE}") and supervised == 3


async def fits(page):
    await asyncio.sleep(0.5)
    return await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(scheme, served, browser):
    steps = [fits]
    for name, folder in (("rows", 0), ("plane", 0), ("packs", 1)):
        steps += [view(name, folder), fits]
    found = in_browser(browser, served, *steps, width=400, scheme=scheme)
    assert [each for each in found if each is not None] == [True] * 4


async def colours(page):
    return await page.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )


def test_light_and_dark_are_two(served, browser):
    (light,), (dark,) = (in_browser(browser, served, colours, scheme=scheme) for scheme in ("light", "dark"))
    assert light != dark
