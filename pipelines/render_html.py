#!/usr/bin/env python
"""Turn saved web pages into page images with every visible line of text and its quad (Qwen-VL A.4).

Inputs: .html files, and .tar, .zip and .warc archives of them. Each worker keeps one Chromium, without network, and
replaces it when it grows, hangs or crashes. Scripts are off; style sheets and pictures come from the archive or folder
that the page lies in, and from nowhere else. A tall page is cut into page-like windows between its lines.
Ledger: one row per page (a kept page: one per window).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus.catalog import Dataset
from corpus.ledger import Fuse
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.work import documents, page_rules, pages
from pipelines.work.datasets import add_rule_flag, rule_settings, rules_of
from pipelines.work.places import clean_each
from renderers import sentry
from renderers.browsers import find_browser
from renderers.charset import decode_html
from renderers.encoded import OutputSettings, encode_page
from renderers.html import BrowserLimits, HtmlRenderer, HtmlSettings
from renderers.page import BadDocument
from renderers.themes import installed_families

_EXAMPLE = (
    "python pipelines/render_html.py --dataset common-crawl-html --input 'crawl/*.warc.gz' --output rendered/html"
)
_NO_SANDBOX = (
    "warning: this system does not let Chromium build its sandbox, so that pages are drawn without it "
    "(docs/rendering.md says what is needed)"
)
_FUSE = Fuse(in_a_row=1000, share=0.95)


def main() -> None:
    args = make_parser().parse_args()
    clean_each("render_html", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    thresholds = page_rules.thresholds(rules_of(dataset), dataset.rules)
    drawing = HtmlSettings(
        args.width, args.viewport_height, args.max_height, plain=1.0 if args.no_themes else HtmlSettings.plain,
        seed=args.seed,
    )  # fmt: skip
    output = pages.output_settings(args, thresholds, args.window_height)
    limits = BrowserLimits(args.page_seconds, args.memory << 20)
    settings = {
        "drawing": asdict(drawing), "families": installed_families(), "output": asdict(output),
        "limits": asdict(limits), **rule_settings(rules_of(dataset), dataset.rules),
    }  # fmt: skip
    try:
        executable = find_browser(args.chromium)
    except FileNotFoundError as error:
        raise job.UserError(str(error)) from None
    if not sentry.allowed(executable, tempfile.gettempdir()).sandboxed:
        print(_NO_SANDBOX, file=sys.stderr)
    work = partial(render_split, dataset=args.dataset, output=output, rules=dataset.rules, limit=args.limit)
    splits = list(documents.plan(job.find_inputs(args.input), args.by_content))
    start = partial(HtmlRenderer, drawing, limits, args.chromium)
    judged_by = {"scores": pages.SCORES, "rules": rules_of(dataset)}
    job.run("render_html", args, splits, settings, work, setup=start, fuse=_FUSE, **judged_by)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="common-crawl-html", from_catalog=True)
    parser.add_argument(
        "--chromium", metavar="PATH", help="default: $CHROMIUM, Chromium, Chrome, a snap's or Playwright's"
    )
    numbers = {
        "--width": (HtmlSettings.width, "of the viewport, in pixels; 0: drawn for each page, by its font size"),
        "--viewport-height": (HtmlSettings.viewport_height, "what 100vh means to a page, in pixels"),
        "--max-height": (HtmlSettings.max_height, "what lies lower on a page is left out, in pixels"),
        "--window-height": (HtmlSettings.viewport_height, "tallest crop of a page, in pixels"),
        "--memory": (BrowserLimits.memory >> 20, "of a browser, in MiB"),
    }
    for flag, (default, meaning) in numbers.items():
        parser.add_argument(flag, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)")
    parser.add_argument(
        "--page-seconds", type=float, default=BrowserLimits.page_seconds, help="wall clock (default: %(default)s)"
    )
    parser.add_argument("--no-themes", action="store_true", help="pages in their own style only")
    pages.add_flags(parser)
    add_rule_flag(parser)
    return parser


def render_split(
    split: Split, sink: Sink, renderer: HtmlRenderer, *, dataset: str, output: OutputSettings,
    rules: Mapping | None = None, limit: int | None,
) -> None:  # fmt: skip
    """Render the pages of a split, at most `limit`."""
    sink.expects(documents.held(split.source["urls"], documents.HTML), limit=limit)
    writer = pages.PageWriter(sink, split, dataset, output.rules, rules)
    for ordinal, document in enumerate(islice(documents.read(split.source["urls"], documents.HTML), limit)):
        if document.data is None:
            writer.document_failed(ordinal, document, document.kind, document.detail, dropped=document.dropped)
        elif not document.data.strip():
            writer.document_failed(ordinal, document, "empty", "no bytes")
        else:
            _render_one(writer, ordinal, document, renderer, output)


def _render_one(writer, ordinal: int, document: documents.Document, renderer: HtmlRenderer, output) -> None:
    text, charset = decode_html(document.data, document.source.get("content_type", ""))
    document.source["charset"] = charset
    try:
        page, facts = renderer.render(text, f"{writer.prefix}/{ordinal:06d}", document.archive)
    except BadDocument as error:
        writer.document_failed(ordinal, document, error.kind, str(error))
        return
    document.source.update(cut_off=facts["cut_off"], title=facts["title"], **facts["look"])
    writer.page(ordinal, document, 0, *encode_page(page, output))


if __name__ == "__main__":
    job.main(main)
