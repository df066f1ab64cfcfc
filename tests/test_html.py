"""Web pages: every visible line where its ink is, nothing that is hidden, and no way out."""

import base64
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from corpus.bugs import Bug
from renderers import chromium, html
from renderers.browsers import NoBrowser
from renderers.html import BrowserLimits, HtmlRenderer, HtmlSettings, doctype
from renderers.ink import ink_report, luminance
from renderers.page import BadDocument, bounds
from renderers.sentry import Allowed, allowed, descendants, resident_bytes

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.usefixtures("browser")

PLAIN = HtmlSettings(width=1024, max_height=8192, plain=1.0)


@pytest.fixture(scope="module")
def renderer():
    with HtmlRenderer(PLAIN, limits=BrowserLimits(page_seconds=60)) as made:
        yield made


def lines(renderer, html: str) -> list[str]:
    return [line.text for line in renderer.render(html)[0].lines]


def test_lines_wrap_and_inline_elements_are_one_line(renderer):
    page, _ = renderer.render(
        "<!doctype html><body style='width:260px;font:16px serif'><p>Hello <b>big</b> <i>wide</i> world of wrapped"
        " lines, of which there are <u>three</u> or so in this one paragraph.</p><p>Second paragraph.</p>"
    )
    assert page.lines[0].text.startswith("Hello big wide world")
    assert len(page.lines) >= 4 and page.lines[-1].text == "Second paragraph."
    report = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    assert report["caught"] > 0.98 and report["inside"] > 0.15


def test_chinese_wraps_between_any_two_characters(renderer):
    text = "我国集成电路进口突破三千亿美元产业结构扭曲没将产品作为中心"
    found = lines(renderer, f"<p style='width:170px;font-size:16px'>{text}</p>")
    assert len(found) >= 3 and "".join(found) == text


def test_tables_and_lists_keep_their_cells_apart(renderer):
    found = lines(renderer, "<table><tr><td>one<td>two<tr><td>three<td>four</table><ul><li>five<li>six</ul>")
    assert found == ["one", "two", "three", "four", "five", "six"]


@pytest.mark.parametrize(
    "style",
    [
        "display:none", "visibility:hidden", "opacity:0", "color:transparent", "color:white",
        "position:absolute;left:-9999px", "font-size:0", "clip-path:inset(100%)",
        "position:absolute;width:1px;height:1px;overflow:hidden;clip:rect(0 0 0 0)",
        "height:0;overflow:hidden", "text-indent:-9999px", "transform:scale(0)",
    ],
)  # fmt: skip
def test_hidden_text_is_left_out(renderer, style):
    found = lines(renderer, f"<p>before</p><div style='{style}'>secret words</div><p>after</p>")
    assert found == ["before", "after"]


def test_covered_and_clipped_text_is_left_out(renderer):
    paint = "<div style='position:absolute;inset:0;background:#fff'></div>"
    cover = f"<div style='position:relative'>covered words{paint}</div>"
    glass = "<div style='position:relative'>under glass<a style='position:absolute;inset:0'></a></div>"
    clip = "<div style='width:60px;overflow:hidden;white-space:nowrap'>clipped words that run on and on</div>"
    found = lines(renderer, f"<p>before</p>{cover}{glass}{clip}<p>after</p>")
    assert found[0] == "before" and found[1] == "under glass" and found[-1] == "after" and len(found) == 4
    assert "clipped words that run on and on".startswith(found[2]) and 3 < len(found[2]) < 20


def test_text_that_is_in_no_text_node_does_not_show(renderer):
    html = (
        "<style>p::before{content:'generated text'}</style><p></p><input value='typed text'><img alt='alternative'"
        " src='http://x.invalid/a.png'><select><option>chosen</select><p style='margin-top:200px'>real</p>"
    )
    page, _ = renderer.render(html)
    assert [line.text for line in page.lines] == ["real"]
    top = int(bounds(page.lines[0].quad)[1])
    report = ink_report(luminance(page.pixels), [((0, top - 60), (999, top - 60), (999, top - 4), (0, top - 4))])
    assert report["inside"] == 0


@pytest.mark.parametrize("direction, number", [("ltr", 40), ("rtl", 40), ("rtl", 90)])
def test_text_that_sticks_out_of_the_page_is_labelled_where_it_is(renderer, direction, number):
    wide = "<pre style='width:1400px;font-size:24px;background:#eee'>one end of a wide line " + "x " * number
    page, _ = renderer.render(f"<!doctype html><html dir={direction}><p>words</p>{wide}</pre><p>more words</p>")
    assert page.width >= 1400
    begins = "one" if number == 40 else "x"  # a wider line is cut off on the left
    assert [line.text.split()[0] for line in page.lines] == ["words", begins, "more"]
    report = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    assert report["caught"] > 0.98 and report["inside"] > 0.1


def test_a_missing_picture_leaves_its_place_empty(renderer):
    page, _ = renderer.render("<p>words</p><img src='http://x.invalid/a.png' width=300 height=200 border=2>")
    assert page.height > 200 and (page.pixels[60:] == 255).all()


def test_spaces_between_chinese_links_are_kept_where_they_show(renderer):
    style = "<style>a{text-decoration:underline}</style>"
    found = lines(renderer, f"{style}<p><a>使用百度前必读</a> <a>意见反馈</a><a>京公网</a> 安备</p>")
    assert found == ["使用百度前必读 意见反馈京公网 安备"]


def test_text_too_faint_for_a_label_is_known(renderer):
    page, _ = renderer.render("<p>words</p><p style='color:#e6e6e6'>grey on white</p><p style='color:#fff'>white</p>")
    assert [line.text for line in page.lines] == ["words"]
    assert len(page.faint) == 1 and page.hidden == 2


def test_turned_text_has_turned_quads(renderer):
    page, _ = renderer.render(
        "<div style='position:absolute;left:200px;top:200px;transform:rotate(30deg);font-size:24px'>downhill</div>"
        "<div style='position:absolute;left:500px;top:300px;transform:rotate(90deg);font-size:24px'>downwards</div>"
        "<div style='writing-mode:vertical-rl;position:absolute;left:700px;top:100px;font-size:24px'>春と修羅</div>"
    )
    slanted, down, column = page.lines
    (x0, y0), (x1, y1) = slanted.quad[:2]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(0.577, abs=0.03)
    assert down.quad[0][0] == bounds(down.quad)[2]  # read downwards: it begins at the top right
    assert column.text == "春と修羅" and column.quad[0] == bounds(column.quad)[:2]
    report = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    assert report["caught"] > 0.97


def test_case_and_soft_hyphens_are_as_drawn(renderer):
    found = lines(
        renderer, "<p style='text-transform:uppercase'>shout</p><p style='width:50px'>hy&shy;phen&shy;ation</p>"
    )
    assert found[0] == "SHOUT" and "".join(found[1:]).replace("-", "") == "hyphenation" and found[1].endswith("-")


def test_tall_pages_are_cut_off_and_say_so(renderer):
    page, facts = renderer.render("<div style='height:1000000px'>top</div><p>bottom")
    assert page.height == renderer.settings.max_height and facts["cut_off"]
    assert [line.text for line in page.lines] == ["top"]


@pytest.mark.parametrize("mode", ["<!doctype html>", ""])
@pytest.mark.parametrize("style", ["height:100vh", "min-height:50vh", "height:100%"])
def test_what_is_measured_by_the_viewport_does_not_grow_with_the_page(renderer, mode, style):
    tall = "<p>filler</p>" * 100
    page, _ = renderer.render(
        f"{mode}<style>html,body{{height:100%}}</style><div style='{style}'>top</div><p>below</p>{tall}"
    )
    below = next(line for line in page.lines if line.text == "below")
    assert bounds(below.quad)[1] < renderer.settings.viewport_height + 60


def test_percentages_of_quirks_mode_do_not_grow_with_the_page_either(renderer):
    page, facts = renderer.render("<div><img height='100%' width=20 style='display:block'>" + "<p>words</p>" * 100)
    first, last = bounds(page.lines[0].quad), bounds(page.lines[-1].quad)
    assert len(page.lines) == 100 and first[1] < 1500 and page.height - last[3] < 60 and not facts["cut_off"]


def test_the_doctype_decides_the_layout_mode_and_takes_linear_time():
    assert doctype(" <!-- a --><?xml a?>\n<!DOCTYPE html><p>") == "<!DOCTYPE html>"
    assert doctype("<p><!doctype html>") == ""
    started = time.monotonic()
    assert doctype("<!--" * 200_000) == doctype(" " * 500_000) == ""
    assert time.monotonic() - started < 2


class Listener:
    """A server on loopback that counts connections."""

    def __enter__(self) -> "Listener":
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def __exit__(self, *error) -> None:
        self.socket.close()


def tricks(url: str, secret: str) -> dict[str, str]:
    """Ways for a page to reach the network or a file, by name."""
    file = f"file://{secret}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink"'
    svg = f'<svg {spaces}><image x:href="{url}/n"/></svg>'
    nested = base64.b64encode(f"<img src='{url}/nested'><iframe src='{file}'></iframe>".encode()).decode()
    return {
        "image": f"<img src='{url}/i.png'><img srcset='{url}/s.png 2x'><picture><source srcset='{url}/p'></picture>",
        "script": f"<script src='{url}/x.js'></script><script>fetch('{url}/f');new Image().src='{url}/g'</script>"
        f"<img src=x onerror=\"fetch('{url}/h')\"><svg onload=\"fetch('{url}/o')\"></svg>",
        "module": f"<link rel=modulepreload href='{url}/m.js'><script type=module>import '{url}/n.js'</script>",
        "refresh": f"<meta http-equiv=refresh content='0;url={url}/r'><meta http-equiv='Refresh' content='0;{file}'>",
        "hints": "".join(
            f"<link rel='{rel}' href='{url}/{rel}' as=image>"
            for rel in (
                "prefetch",
                "preload",
                "preconnect",
                "dns-prefetch",
                "prerender",
                "icon",
                "manifest",
                "stylesheet",
            )
        ),
        "speculation": f'<script type="speculationrules">{{"prefetch":[{{"urls":["{url}/sp"]}}]}}</script>',
        "frames": f"<iframe src='{file}'></iframe><iframe src='{url}/if'></iframe>"
        f"<frameset><frame src='{file}'></frameset>"
        f"<iframe srcdoc=\"<iframe src='{file}'></iframe><img src='{url}/sd'>\"></iframe>",
        "plugins": f"<object data='{file}'></object><embed src='{file}'><object data='{url}/ob'></object>"
        f"<portal src='{url}'>",
        "styles": f"<style>@import '{url}/c.css';@font-face{{font-family:x;src:url({url}/w.woff)}}"
        f"body{{font-family:x;background:url({url}/b.png);list-style-image:url({url}/l);cursor:url({url}/c),auto}}"
        f"p::after{{content:url({url}/a)}}@namespace url({url}/ns);</style><p style='background:url({file})'>x",
        "svg": f"<svg width=300 height=90><image href='{url}/si'/><use href='{url}/u#a'/><feImage href='{url}/fe'/>"
        f"<foreignObject width=300 height=90><iframe src='{file}'></iframe><img src='{url}/fo'></foreignObject></svg>",
        "data": f"<img src='data:image/svg+xml,{svg}'><iframe src='data:text/html;base64,{nested}'></iframe>",
        "base": f"<base href='{url}/'><img src=relative.png><link rel=stylesheet href=relative.css>",
        "forms": f"<form action='{url}/post' id=f><input autofocus onfocus='f.submit()'>"
        f"<input type=image src='{url}/b'></form><script>f.submit()</script>",
        "media": f"<video src='{url}/v.mp4' poster='{url}/po' autoplay></video>"
        f"<audio src='{url}/a.mp3' autoplay></audio><track src='{url}/t'><video><source src='{url}/vs'></video>",
        "body": f"<body background='{url}/bg'><table background='{url}/tb'><tr><td>x</table>",
        "ping": f"<a href='{url}/h' ping='{url}/pi'>link</a><math href='{url}/ma'></math>",
        "xslt": f"<?xml-stylesheet href='{url}/x.xsl' type='text/xsl'?>",
        "template": f"<div><template shadowrootmode=open><img src='{url}/shadow'></template></div>",
        "srcset": f"<img loading=lazy src='{url}/lazy'><img src='data:image/png;base64,x' srcset='{url}/ss'>",
        "websocket": f"<script>new WebSocket('{url.replace('http', 'ws')}');navigator.sendBeacon('{url}/be')</script>",
    }


SECRET = "TOP SECRET FILE CONTENT"


@pytest.mark.slow
def test_no_page_reaches_the_network_or_a_file(renderer, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    with Listener() as listener:
        pages = tricks(listener.url, str(secret))
        for name, html in {**pages, "all of them": "".join(pages.values())}.items():
            page, _ = renderer.render(f"<html><body><p>visible before</p>{html}<p>visible after</p></body></html>")
            texts = [line.text for line in page.lines]
            assert "visible before" in texts or "<frameset>" in html, name
            assert not any(SECRET in text for text in texts), name
        time.sleep(0.5)
        assert listener.connections == 0
        # The same pages do reach out where nothing stops them: the listener and the tricks are real.
        socket.create_connection(listener.socket.getsockname()).close()
        time.sleep(0.2)
        assert listener.connections == 1


def test_file_content_is_not_in_the_picture(renderer, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("\u2588" * 2000)
    frame = f"<iframe style='width:600px;height:300px;border:0' src='file://{secret}'></iframe>"
    with_frame, _ = renderer.render(f"<body bgcolor=white>{frame}")
    assert (luminance(with_frame.pixels) < 128).mean() < 0.001


def test_a_mistake_of_ours_is_no_lost_browser(monkeypatch):
    monkeypatch.setattr(html, "_lines", lambda pieces, pixels, scale: None.planted)
    with HtmlRenderer() as made, pytest.raises(Bug, match="None.planted"):
        made.render("<p>first")


def test_without_the_interception_the_other_walls_hold(tmp_path):
    """Each layer is worth something only if it holds alone: here the browser's own requests run free."""
    with Listener() as listener, HtmlRenderer(limits=BrowserLimits(page_seconds=60)) as bare:
        bare._loop.run_until_complete(bare._chromium.start())
        browser = bare._chromium.browser

        async def visit():
            tab = (await (await browser.createIncognitoBrowserContext()).newPage())._client
            await tab.send("Page.navigate", {"url": f"{listener.url}/direct"})
            await tab.send("Page.navigate", {"url": f"http://localhost:{listener.socket.getsockname()[1]}/name"})

        bare._loop.run_until_complete(visit())
        time.sleep(1)
        assert listener.connections == 0


@pytest.mark.slow
def test_a_hanging_page_is_ended_and_the_next_one_renders():
    with HtmlRenderer(limits=BrowserLimits(page_seconds=20)) as made:
        assert lines(made, "<p>first") == ["first"]
        browser = descendants(made._chromium._sentry.pid)
        for pid in browser:
            with contextlib.suppress(ProcessLookupError):  # helpers come and go
                os.kill(pid, signal.SIGSTOP)
        made.limits = BrowserLimits(page_seconds=2)
        with pytest.raises(BadDocument) as caught:
            made.render("<p>second")
        assert caught.value.kind == "timeout"
        assert not any(map(alive, browser))
        made.limits = BrowserLimits(page_seconds=30)
        assert lines(made, "<p>third") == ["third"]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_crashed_browser_is_replaced():
    with HtmlRenderer(limits=BrowserLimits(page_seconds=30)) as made:
        assert lines(made, "<p>first") == ["first"]
        for pid in descendants(made._chromium._sentry.pid):
            with contextlib.suppress(ProcessLookupError):  # the rest may die with the first
                os.kill(pid, signal.SIGKILL)
        try:
            assert lines(made, "<p>second") == ["second"]
        except BadDocument as error:
            assert error.kind == "crash"
        assert lines(made, "<p>third") == ["third"]


def test_a_browser_that_grows_is_ended(renderer):
    assert lines(renderer, "<p>first") == ["first"]
    small = sum(resident_bytes(process) for process in descendants(renderer._chromium._sentry.pid))
    limits = BrowserLimits(page_seconds=60, memory=small + (30 << 20))
    with HtmlRenderer(limits=limits) as made, pytest.raises(BadDocument) as caught:
        for _ in range(20):
            made.render("<p>words</p>" * 20_000)
            time.sleep(0.3)
    assert caught.value.kind == "memory"


def test_chromium_keeps_its_own_sandbox_and_is_never_root(renderer):
    may = allowed(renderer._chromium.executable, tempfile.gettempdir())
    assert lines(renderer, "<p>first") == ["first"]
    family = [Path(f"/proc/{process}") for process in descendants(renderer._chromium._sentry.pid)]
    shown = []
    for folder in family:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # helpers come and go
            if "=renderer" in (folder / "cmdline").read_text():
                shown.append((folder / "status").read_text())
    locks = [re.search(r"Seccomp:\s(\d)", status)[1] for status in shown]
    assert shown and locks == ["2" if may.sandboxed else "0"] * len(shown)
    assert not any(re.search(r"Uid:\s0\s", status) for status in shown) or not may.unprivileged


def test_a_browser_that_nobody_may_run_gets_no_sandbox(tmp_path):
    assert allowed(str(tmp_path / "missing"), tempfile.gettempdir()) == Allowed(False, False)


def test_nothing_outlives_a_job_that_is_killed():
    code = (
        "import time; from renderers.html import HtmlRenderer; made = HtmlRenderer(); made.render('<p>x')\n"
        "print(made._chromium._sentry.pid, flush=True); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    sentry = int(job.stdout.readline())
    profile = next(part for part in psutil.Process(sentry).cmdline() if "gristmill-chromium-" in part)
    family = [sentry, *descendants(sentry)]
    assert len(family) > 3 and Path(profile).is_dir()
    job.kill()
    job.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, family))
    assert not Path(profile).exists()


def test_a_long_path_for_temporary_files_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    with HtmlRenderer() as made:
        assert lines(made, "<p>first") == ["first"]


def test_a_browser_that_does_not_come_up_is_no_fault_of_a_page(tmp_path):
    (browser := tmp_path / "chromium").write_text("#!/bin/sh\necho Chromium 100.0\n")
    browser.chmod(0o755)
    with HtmlRenderer(executable=str(browser)) as made, pytest.raises(NoBrowser, match="did not start"):
        made.render("<p>first")


def test_profiles_of_jobs_that_are_gone_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(chromium, "_place", lambda: str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale, own = (tmp_path / f"gristmill-chromium-{owner}-x" for owner in (gone.pid, os.getpid()))
    stale.mkdir()
    own.mkdir()
    chromium.sweep_profiles()
    assert own.is_dir() and not stale.exists()


@pytest.mark.parametrize("name", ["en/readability_simplyfound-1", "zh/generalnewse_baijiahao_2"])
def test_boxes_of_real_pages_hug_the_ink(renderer, shared_data, name):
    page, _ = renderer.render(shared_data(f"html/{name}.html").read_text())
    assert len(page.lines) > 15
    report = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    assert report["caught"] > 0.95 and report["inside"] > 0.15


ARTICLE = "<h1>A title of some length</h1>" + "<p>Several words of running text in a paragraph. " * 40


def looks(settings: HtmlSettings, keys: list[str]) -> list[tuple]:
    with HtmlRenderer(settings, limits=BrowserLimits(page_seconds=60)) as made:
        rendered = [made.render(ARTICLE, key) for key in keys]
    return [(page.pixels.tobytes(), facts["look"], page) for page, facts in rendered]


def test_every_page_has_a_look_of_its_own_and_the_same_one_again():
    keys = [f"pages/{i}" for i in range(6)]
    first, second = looks(HtmlSettings(), keys), looks(HtmlSettings(), keys[::-1])[::-1]
    assert [pixels for pixels, *_ in first] == [pixels for pixels, *_ in second]
    assert len({pixels for pixels, *_ in first}) == len(keys)
    for _, look, page in first:
        assert 400 <= page.width <= 1000 and look["viewport"] * look["scale"] == pytest.approx(page.width, abs=2)
        text = " ".join(line.text for line in page.lines)
        assert text.count("Several words of running text in a paragraph.") == 40


def test_a_theme_hides_nothing_and_yields_to_the_page():
    page_style = "<body style='background:#fff'><p style='color:#000'>"
    with HtmlRenderer(HtmlSettings(plain=0.0), limits=BrowserLimits(page_seconds=60)) as made:
        for key in range(8):
            page, _ = made.render(f"{page_style}black on white{ARTICLE}", str(key))
            assert page.hidden == 0 and page.lines[0].text.startswith("black on white")


def test_what_scripts_would_have_shown_or_taken_away(renderer):
    hidden = "<html><body style='visibility:hidden;opacity:0'><p>ready</p><noscript>JavaScript is disabled</noscript>"
    assert lines(renderer, hidden) == ["ready"]
