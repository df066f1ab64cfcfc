#!/usr/bin/env python
"""Turn PDFs into page images with every visible line of text and its quad (Qwen-VL A.4).

Inputs: .pdf files, and .tar, .zip (Common Crawl's untruncated set) and .warc archives of them. Each worker renders in
a locked-up process of its own, so that a page that crashes or hangs the parser costs one ledger row. A dense page is
cut into windows that fit a training sample. Ledger: one row per page (a kept page: one per window), and one per
document that could not be opened.
"""

import argparse
import sys
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
from renderers.pdf import PdfSettings
from renderers.pdf_process import Failed, Limits, PdfProcess

_EXAMPLE = "python pipelines/render_pdf.py --dataset common-crawl-pdf --input 'crawl/*.zip' --output rendered/pdf"
# Crawled PDFs fail by the dozen; a whole split of failures still means that the setup is broken.
_FUSE = Fuse(in_a_row=2000, share=0.95)


def main() -> None:
    args = make_parser().parse_args()
    clean_each("render_pdf", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    thresholds = page_rules.thresholds(rules_of(dataset), dataset.rules)
    drawing = PdfSettings(args.dpi, args.longest_side, args.file_order)
    output = pages.output_settings(args, thresholds)
    limits = Limits(args.page_seconds, args.document_seconds, memory=args.memory << 20, max_pages=args.max_pages)
    settings = {
        "drawing": asdict(drawing), "output": asdict(output), "limits": asdict(limits),
        **rule_settings(rules_of(dataset), dataset.rules),
    }  # fmt: skip
    work = partial(render_split, dataset=args.dataset, thresholds=thresholds, rules=dataset.rules, limit=args.limit)
    splits = list(documents.plan(job.find_inputs(args.input), args.by_content))
    start = partial(PdfProcess, drawing, output, limits, sandbox=not args.unsandboxed)
    judged_by = {"scores": pages.SCORES, "rules": rules_of(dataset)}
    job.run("render_pdf", args, splits, settings, work, setup=start, fuse=_FUSE, **judged_by)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="common-crawl-pdf", from_catalog=True)
    parser.add_argument("--dpi", type=int, default=PdfSettings.dpi, help="default: %(default)s")
    parser.add_argument(
        "--longest-side", type=int, default=PdfSettings.longest_side, metavar="PIXELS",
        help="cap on a page's longer side; larger pages are drawn at fewer dpi (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--file-order", action="store_true", help="lines as the file has them, not as they are read")
    parser.add_argument(
        "--page-seconds", type=float, default=Limits.page_seconds, help="CPU time (default: %(default)s)"
    )
    parser.add_argument(
        "--document-seconds", type=float, default=Limits.document_seconds, help="CPU time (default: %(default)s)"
    )
    parser.add_argument("--max-pages", type=int, default=Limits.max_pages, help="of a document (default: %(default)s)")
    parser.add_argument(
        "--memory",
        type=int,
        default=Limits.memory >> 20,
        metavar="MIB",
        help="of a parser process (default: %(default)s)",
    )
    parser.add_argument("--unsandboxed", action="store_true", help="parse without locks; for trusted files alone")
    pages.add_flags(parser)
    add_rule_flag(parser)
    return parser


def render_split(
    split: Split, sink: Sink, process: PdfProcess, *, dataset: str, thresholds: dict,
    rules: Mapping | None = None, limit: int | None,
) -> None:  # fmt: skip
    """Render the documents of a split, at most `limit`."""
    sink.expects(documents.held(split.source["urls"], documents.PDF), limit=limit)
    writer = pages.PageWriter(sink, split, dataset, thresholds, rules)
    for ordinal, document in enumerate(islice(documents.read(split.source["urls"], documents.PDF), limit)):
        if document.data is None:
            writer.document_failed(ordinal, document, document.kind, document.detail, dropped=document.dropped)
            continue
        for result in process.render(document.data, partial(sink.splits, ordinal)):
            if isinstance(result, Failed) and result.number is None:
                writer.document_failed(ordinal, document, result.kind, result.detail)
            elif isinstance(result, Failed):
                writer.page_failed(ordinal, document, result.number, result.kind, result.detail)
            else:
                writer.page(ordinal, document, result.number, result.described, result.images)


if __name__ == "__main__":
    job.main(main)
