"""From rendered pages to samples and ledger rows: what render_pdf and render_html have in common."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from corpus.records import EncodedImage, Sample
from corpus.splits import Sink, Split
from corpus.verdicts import Lost
from pipelines.engine.thumbnails import Thumbnails
from pipelines.work.documents import Document
from pipelines.work.page_rules import COLUMN_OF_RULE, WORDS
from renderers import rules
from renderers.encoded import OutputSettings
from renderers.windows import Budget

THUMBNAILS_PER_RULE = 6  # in each split

# The ledger's columns. A kept page has one row per window, which is one sample; any other page has one row.
SCORES = {
    "document": pa.string(),
    "page": pa.int32(),
    "window": pa.int32(),
    "width": pa.int32(),  # of the page's image, in pixels
    "height": pa.int32(),
    "short_side": pa.int32(),
    "lines": pa.int32(),
    "characters": pa.int32(),
    "latin_extended": pa.int32(),
    "private_use": pa.int32(),
    "undecodable": pa.int32(),
    "missing_font": pa.int32(),
    "letter_surprise": pa.float32(),  # mean bits; 0: too few letters to judge
    "rare_han_share": pa.float32(),
    "mojibake": pa.float32(),  # signs in 100 characters
    "boilerplate_share": pa.float32(),  # of a web page's characters
    "hidden_lines": pa.int32(),
    "windows": pa.int32(),
    "tokens": pa.int32(),  # of the window, estimated
    "covered_lines": pa.int32(),  # of other windows, in the corners of this one
    "advance": pa.float32(),  # least of a window's lines after the squash: pixels for a half-width character
    "ink_height": pa.float32(),  # and pixels of ink across the line
    "aspect": pa.float32(),  # of the window, the longer side over the shorter
    "language": pa.string(),
    **WORDS.scores(),
}


def add_flags(parser) -> None:
    """Add the flags that shape samples and name rules: what both rendering jobs share."""
    parser.add_argument(
        "--quality", type=int, default=OutputSettings.quality, help="of the JPEG (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=float, default=Budget.tokens, metavar="N",
        help="most tokens of text and quads in a sample, estimated; a denser page is cut (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--train-size", type=int, default=Budget.train_size, metavar="PIXELS",
        help="the square that the trainer squashes images to; windows are legible there (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--per-page", action="store_true",
        help="an undecodable, private-use or Latin Extended character drops its page, as in the paper, not its window",
    )  # fmt: skip


def output_settings(args, found: Mapping[str, float | None], height: int | None = None) -> OutputSettings:
    """Return what the flags and the thresholds of the rules ask of windows; a rule that is off asks for nothing."""
    budget = Budget(
        args.tokens, height=height, longest=found["elongated"] or 1e9, train_size=args.train_size,
        advance=found["narrow_text"] or 0, ink=found["low_text"] or 0,
    )  # fmt: skip
    return OutputSettings(args.quality, budget, dict(found), args.per_page)


class PageWriter:
    """Writes the rows and samples of one split; counts duplicates and the thumbnails already taken.

    `found` holds the thresholds of the rules about what is drawn, `given` what is set of all rules.
    """

    def __init__(
        self, sink: Sink, split: Split, dataset: str, found: Mapping[str, float | None], given: Mapping | None = None
    ):
        self._sink, self.prefix, self._dataset = sink, f"{dataset}/{split.id}", dataset
        self._words = WORDS.active(given or {})
        self._duplicate = found.get("duplicate")
        self._seen, self._thumbnails = Counter(), Thumbnails(THUMBNAILS_PER_RULE)

    def document_failed(self, ordinal: int, document: Document, kind: str, detail: str, *, dropped=False) -> None:
        """Record a document that yields no pages."""
        key = f"{self.prefix}/{ordinal:06d}"
        if dropped:
            self._sink.drop(key, ordinal, kind, detail=detail, document=document.name)
        else:
            self._sink.error(key, ordinal, kind, detail, document=document.name)

    def page_failed(self, ordinal: int, document: Document, page: int, kind: str, detail: str) -> None:
        """Record a page that could not be rendered."""
        key = f"{self.prefix}/{ordinal:06d}-{page:04d}"
        self._sink.error(key, ordinal, kind, detail, document=document.name, page=page)

    def page(self, ordinal: int, document: Document, page: int, described: dict, images: list[bytes]) -> None:
        """Record a rendered page: its samples, one per window, or the rule that drops it."""
        key = f"{self.prefix}/{ordinal:06d}-{page:04d}"
        columns = _columns(described) | {"document": document.name, "page": page}
        verdict = described["verdict"] or self._duplicate_verdict(described["digest"])
        if verdict:
            rule, value, threshold = verdict
            columns["thumbnail"] = self._thumbnail(rule, images[0]) if described["verdict"] else None
            self._sink.drop(key, ordinal, rule, value=value, threshold=threshold, **columns)
            return
        if not images:  # `blank` may be switched off, but nothing can be made of a page without lines
            self._sink.drop(key, ordinal, "blank", value=0, **columns)
            return
        self._sink.splits(ordinal, len(images))
        for number, (window, image) in enumerate(zip(described["windows"], images, strict=True)):
            row_columns = columns | _window_columns(window) | {"window": number}
            self._window(f"{key}-{number:02d}", ordinal, window, image, described["language"], document, row_columns)

    def _window(
        self, key: str, row: int, window: dict, image: bytes, language: str, document: Document, columns: dict
    ) -> None:
        if window["verdict"]:
            rule, value, threshold = window["verdict"]
            limits = {"value": value, "threshold": threshold, "thumbnail": self._thumbnail(rule, image)}
            self._sink.drop(key, row, rule, **limits, **columns)
            return
        try:
            columns |= WORDS.of_words(self._words, "\n".join(text for text, _ in window["lines"]), language)
            if verdict := WORDS.judge(self._words, columns):
                raise Lost(verdict)
        except Lost as lost:
            self._sink.lose(key, row, lost.verdict, **columns)
            return
        x0, y0, x1, y1 = window["box"]
        source = {"document": document.name, "page": columns["page"], "box": window["box"]} | document.source
        sample = Sample(
            key=key, dataset=self._dataset, task="ocr", language=language, width=x1 - x0, height=y1 - y0,
            images=[EncodedImage(image, "jpg")], scores={"tokens": window["tokens"]}, source=source,
            annotations={"lines": [{"text": text, "quad": _quad(flat)} for text, flat in window["lines"]]},
        )  # fmt: skip
        self._sink.keep(sample, row, **columns)

    def _duplicate_verdict(self, digest: str):
        seen = self._seen[digest]
        self._seen[digest] += 1
        if self._duplicate is not None and seen >= self._duplicate:
            return "duplicate", seen, self._duplicate
        return None

    def _thumbnail(self, rule: str, image: bytes) -> bytes | None:
        return image if self._thumbnails.wanted(rule) else None


def _columns(described: dict) -> dict:
    values = described["values"]
    width, height = described["size"]
    return {
        "width": width, "height": height, "short_side": values["too_small"], "lines": values["blank"],
        "characters": values["too_few_characters"], "hidden_lines": described["hidden"],
        "windows": len(described["windows"]), "language": described["language"],
        "boilerplate_share": values.get("boilerplate"),
    } | _text_columns(values)  # fmt: skip


def _text_columns(values: dict) -> dict:
    return {COLUMN_OF_RULE[name]: values[name] for name in (*rules.GLYPH_RULES, *rules.TEXT_RULES)}


def _window_columns(window: dict) -> dict:
    values = window["values"]
    return {
        "tokens": window["tokens"], "covered_lines": window["covered"], "advance": values["narrow_text"],
        "ink_height": values["low_text"], "aspect": values["elongated"],
        **_text_columns(values),
    }  # fmt: skip


def _quad(flat: list[float]) -> list[list[float]]:
    return [flat[i : i + 2] for i in range(0, 8, 2)]
