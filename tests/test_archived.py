"""Style sheets and pictures of archived pages: taken from where the page was saved, and from nowhere else."""

import io
import zipfile

import cv2
import numpy as np
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipelines.work import documents
from pipelines.work.resources import Folder
from renderers.boilerplate import boilerplate_share
from renderers.html import BrowserLimits, HtmlRenderer, HtmlSettings
from renderers.inlined import MAX_BYTES, Inliner
from renderers.rules import HTML_RULES

RED = cv2.imencode(".png", np.full((40, 60, 3), (0, 0, 255), np.uint8))[1].tobytes()
PAGE = b"""<!doctype html><html><head><link rel=stylesheet href="look/a.css"><link rel=stylesheet href=gone.css></head>
<body><p>styled words of the page</p><img src="look/red.png?v=1" width=60 height=40><img src=gone.png></body></html>"""
SHEET = b"@import 'b.css'; body { background: url(red.png) no-repeat right top; margin: 0 }"
IMPORTED = b"p { background: #00ff00; font-size: 30px; margin: 0 }"
MEMBERS = {"look/a.css": SHEET, "look/b.css": IMPORTED, "look/red.png": RED, "look/page.html": b"no style sheet"}


def warc(path) -> str:
    with open(path, "wb") as file:
        writer = WARCWriter(file, gzip=True)
        bodies = {"page.html": ("text/html", PAGE),
                  "look/a.css": ("text/css", SHEET), "look/b.css": ("text/css", IMPORTED),
                  "look/red.png?v=1": ("image/png", RED), "look/red.png": ("image/png", RED)}  # fmt: skip
        for name, (kind, body) in bodies.items():
            headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.1")
            address = f"http://site.example/{name}"
            writer.write_record(writer.create_warc_record(address, "response", io.BytesIO(body), http_headers=headers))
    return str(path)


def zipped(path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"page.html": PAGE, **{n: d for n, d in MEMBERS.items() if n != "look/page.html"}}.items():
            archive.writestr(f"saved/{name}", data)
    return str(path)


def folder(path) -> str:
    for name, data in {"page.html": PAGE, **MEMBERS}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path / "page.html")


@pytest.mark.parametrize("kind", ["folder", "zip", "warc"])
def test_a_page_looks_as_it_was_archived(tmp_path, browser, kind):
    make = {"folder": folder, "zip": lambda p: zipped(p / "a.zip"), "warc": lambda p: warc(p / "a.warc.gz")}[kind]
    reader = documents.read([make(tmp_path)], documents.HTML)  # held: archives are open as long as it is
    document = next(found for found in reader if found.name.endswith("page.html"))
    with HtmlRenderer(HtmlSettings(width=600), BrowserLimits(page_seconds=120)) as renderer:
        page, facts = renderer.render(document.data.decode(), "a", document.archive)
    assert [line.text for line in page.lines] == ["styled words of the page"]
    assert facts["look"] == {"theme": "plain", "viewport": 600, "scale": 1.0, "archived": 2}
    assert page.pixels[3, 300].tolist() == [0, 255, 0]  # the paragraph's own background, of the imported sheet
    assert page.pixels[60, 20].tolist() == [0, 0, 255] and page.pixels[60, 100].tolist() == [255, 255, 255]


def test_nothing_outside_the_folder_is_found(tmp_path):
    secret = tmp_path / "secret.css"
    secret.write_text("p { color: red }")
    inside = tmp_path / "pages"
    inside.mkdir()
    (inside / "link.css").symlink_to(secret)
    (inside / "own.css").write_text("p { color: blue }")
    (inside / "notes.txt").write_text("words")
    found = Folder(str(inside / "page.html")).find
    assert found("file:///own.css") == b"p { color: blue }"
    refused = ["file:///link.css", "file:///../secret.css", f"file://{secret}", "file:///%2e%2e/secret.css", "file:///"]
    for address in [*refused, "file:///notes.txt", "http://site.example/own.css", "file:///own.css\0", "own.css", ""]:
        assert found(address) is None, address
    assert Folder(f"file://{inside}/page.html").find("file:///link.css") is None


class Held(dict):
    address = "http://site.example/"
    find = dict.get


def test_what_is_handed_to_the_page_asks_for_nothing():
    held = Held({
        "http://site.example/a.css": b"@import url(http://other.example/x.css) print; @import 'a.css';"
        b"p { background: url('pixel.gif'), url(http://other.example/x.png), url( data:image/png;base64,AA== ) }",
        "http://site.example/pixel.gif": b"GIF89a....",
        "http://site.example/drawn.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><text>words</text></svg>",
        "http://site.example/page.css": b"<!doctype html><p>404",
        "http://site.example/large.png": RED + bytes(MAX_BYTES),
    })  # fmt: skip
    inliner = Inliner(held)
    style = inliner.style("http://site.example/a.css#top")
    assert "http" not in style and "@import" not in style and style.count("data:image/gif;base64,") == 4
    assert style.count('url("data:,")') == 4  # the sheet imports itself, and that three times
    assert inliner.style("http://site.example/page.css") is None
    for name in ("drawn.svg", "large.png", "gone.png"):
        assert inliner.picture(f"http://site.example/{name}") is None
    assert Inliner(None).answer({"styles": ["http://site.example/a.css"], "pictures": [""]}) == {
        "styles": {},
        "pictures": {},
    }


def test_a_page_gets_no_more_than_its_share():
    held = Held({f"http://site.example/{i}.png": RED + bytes(MAX_BYTES - len(RED)) for i in range(9)})
    answered = Inliner(held).answer({"styles": [], "pictures": list(held)})
    assert len(answered["pictures"]) == 4


NOTICES = [
    "JavaScript is disabled in your browser. Please enable JavaScript to proceed.",
    "Example Shop Home About Contact JavaScript is disabled. To view this page please enable JavaScript in your "
    "browser and reload. © 2024 Example",
    "404 Not Found nginx/1.18.0",
    "Not Found The requested URL /foo.html was not found on this server. Apache/2.4.41 (Ubuntu) Server Port 80",
    "We use cookies to improve your experience. Accept all cookies Manage your cookie settings Reject all Imprint",
    "Just a moment... Checking your browser before accessing example.com. DDoS protection by Cloudflare Ray ID: 5f3",
    'Access Denied You don\'t have permission to access "http://www.example.com/" on this server. Reference #18.2f',
    "您访问的页面不存在 返回首页",
    "Seite nicht gefunden Die von Ihnen angeforderte Seite wurde nicht gefunden. Zur Startseite",
]


@pytest.mark.parametrize("text", NOTICES)
def test_notices_and_nothing_else_are_dropped(text):
    assert boilerplate_share(text) > HTML_RULES["boilerplate"]
    article = "The bakery opened again on Monday, and its cookies were gone by noon. " * 20
    assert boilerplate_share(f"{article} {text}") < HTML_RULES["boilerplate"] / 2
    assert boilerplate_share(article) == 0 == boilerplate_share("")
