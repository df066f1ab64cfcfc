"""Real lines that captions can look like, read out of the folder of real data and named by keys.

Nothing of these texts is kept in the project: the labels (`caption_labels.tsv`) name a line by its key and say by
character positions what should become of it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq

LONGEST = 250  # characters; a line of running text beyond that is no caption
UNUSUAL = re.compile(r"\d{5}|@|#|\.(?:com|org|net)|www|\d\.\d|photo|image|credit|[^\x00-\x7f“”‘’–—é]|\|", re.IGNORECASE)
UNUSUAL_ZH = re.compile(r"[A-Za-z0-9]{4}|图|[・·•|/]|[À-ɏΑ-ωぁ-ヶ]")

CREDITS = re.compile(
    r"(?i)photo|foto|\bimage|credit|©|getty|reuters|\bafp\b|click|thumbnail|\bzoom|图片|图[：:/]|来源[:：]|摄|点击|https?:"
    r"|\.jpe?g|\.png|@\w|#\w|source:|quelle|stock|全文|转载|资料图|视频"
)


@dataclass(frozen=True)
class Line:
    """A line: "SOURCE:ORDINAL" (from 0, as read), the language of its data set, and what it says."""

    key: str
    language: str
    text: str

    @property
    def digest(self) -> str:
        """Twelve hex digits that the text alone decides."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


class _Alternatives(HTMLParser):
    """Collects the alternative texts of a page's images."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "img" and (alt := dict(attrs).get("alt")):
            self.found.append(" ".join(alt.split()))


def _alternatives(root: Path, folder: str) -> Iterator[str]:
    for file in sorted((root / "html" / folder).iterdir()):
        page = _Alternatives()
        page.feed(file.read_bytes().decode("utf-8", "replace"))
        yield from page.found


class _Texts(HTMLParser):
    """Collects the pieces of text that a page shows."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if not self._hidden and CREDITS.search(text) and (" " in text or not text.isascii()):
            self.found.append(text)


def _text_nodes(root: Path, folders: tuple[str, ...]) -> Iterator[str]:
    for file in [file for folder in folders for file in sorted((root / "html" / folder).iterdir())]:
        page = _Texts()
        page.feed(file.read_bytes().decode("utf-8", "replace"))
        yield from page.found


def _sentences(root: Path, name: str) -> Iterator[str]:
    for article in (root / "text" / name).read_text(encoding="utf-8").splitlines():
        yield from (each.strip() for each in re.split(r"(?<=[.!?] )|(?<=[。！？])", article))


def _documents(root: Path, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        for row in (root / "text" / name).read_text(encoding="utf-8").splitlines():
            yield from (each.strip() for each in json.loads(row)["text"].splitlines())


def _json(root: Path, name: str, pick: Callable) -> Iterator[str]:
    yield from pick(json.loads((root / name).read_text(encoding="utf-8")))


def _web(root: Path) -> Iterator[str]:
    yield from pq.read_table(root / "image_text/web_urls/img2dataset_test_0000_0679.parquet")["TEXT"].to_pylist()


def _coco_cn(root: Path) -> Iterator[str]:
    rows = (root / "image_text/coco_cn/coco-cn_ext.icap2020.txt").read_text(encoding="utf-8").splitlines()
    yield from (row.split("\t")[1] for row in rows)


def _zh_web(root: Path) -> Iterator[str]:
    for file in sorted((root / "image_text/zh_web_pairs").glob("*.txt")):
        yield file.read_text(encoding="utf-8").strip()


_ENGLISH = (
    "c4_demo.jsonl",
    "redpajama-c4-refined.jsonl",
    "redpajama-cc-2023-06-refined.jsonl",
    "cc_en_head-0174.jsonl",
)

# name -> (language, lines drawn, of those unusual, how to read it)
SOURCES: dict[str, tuple[str, int | None, int, Callable[[Path], Iterator[str]]]] = {
    "web": ("en", None, 0, _web),
    "zh_web": ("zh", None, 0, _zh_web),
    "alt_en": ("en", 50, 30, partial(_alternatives, folder="en")),
    "alt_zh": ("zh", 45, 25, partial(_alternatives, folder="zh")),
    "enwiki": ("en", 50, 38, partial(_sentences, name="enwiki.txt")),
    "zhwiki": ("zh", 30, 20, partial(_sentences, name="zhwiki.txt")),
    "pages": ("en", 65, 52, partial(_documents, names=_ENGLISH)),
    "node_en": ("en", 60, 60, partial(_text_nodes, folders=("en", "charset"))),
    "node_zh": ("zh", 32, 32, partial(_text_nodes, folders=("zh",))),
    "coco": ("en", 15, 0, partial(
        _json, name="image_text/coco/captions_train2017.json",
        pick=lambda data: [each["caption"] for each in data["annotations"]])),
    "coco_cn": ("zh", 15, 0, _coco_cn),
    "textvqa": ("en", 10, 0, partial(
        _json, name="annotations/textvqa/val_questions_vqa_format.json",
        pick=lambda data: [each["question"] for each in data["questions"]])),
    "refcoco": ("en", 10, 0, partial(
        _json, name="annotations/refcoco/sample_expressions_testA.json",
        pick=lambda data: [each["sent"] for each in data["predictions"]])),
    "ocrbench": ("en", 15, 9, partial(
        _json, name="annotations/ocrbench/OCRBench.json", pick=lambda data: [_first(row["answers"]) for row in data])),
}  # fmt: skip


def _first(answers: str | list[str]) -> str:
    return answers if isinstance(answers, str) else str(answers[0])


def lines(root: Path) -> dict[str, Line]:
    """Return all lines of the sources under `root`, the folder of real data, by key."""
    found = {}
    for name, (language, _, _, read) in SOURCES.items():
        for ordinal, text in enumerate(read(root)):
            found[f"{name}:{ordinal}"] = Line(f"{name}:{ordinal}", language, text)
    return found


def drawn(root: Path) -> list[Line]:
    """Return the lines to label: all web rows, and of each other source so many by the hash of their text."""
    chosen = []
    for name, (_, wanted, unusual, _) in SOURCES.items():
        here = [line for line in lines(root).values() if line.key.startswith(f"{name}:")]
        if wanted is None:
            chosen += here
            continue
        fit = {line.text: line for line in here if 4 <= len(line.text) <= LONGEST}.values()
        by_hash = sorted(fit, key=lambda line: line.digest)
        odd = [line for line in by_hash if is_unusual(line)][:unusual]
        chosen += odd + [line for line in by_hash if line not in odd][: wanted - len(odd)]
    return chosen


def is_unusual(line: Line) -> bool:
    """Say whether a line holds what a pattern may stumble over."""
    if line.key.startswith("node"):
        return True
    return bool((UNUSUAL_ZH if line.language == "zh" else UNUSUAL).search(line.text))
