"""Pages per second per core: the whole PDF job against a bare loop of PyMuPDF render + words + JPEG in one process.

  python -m benchmarks.render_pdf --input 'pdfs/*.pdf' --copies 4

CPU seconds of this process and its children, both sides in one run and alternating, so that a busy machine hits both.
The job's figure holds everything: process and pipes, line merging, ink, rules, windows, JPEG, shard, ledger, digests,
run report. Documents that do not open are left out of both.
"""

import argparse
import glob
import io
import resource
import statistics
import tempfile
from functools import partial
from pathlib import Path

import pymupdf
from PIL import Image

from corpus.splits import Split
from pipelines.engine import job
from pipelines.render_pdf import render_split
from pipelines.work import pages
from renderers import rules
from renderers.encoded import OutputSettings
from renderers.page import BadDocument
from renderers.pdf import PdfSettings, open_pdf, page_scale
from renderers.pdf_process import PdfProcess

# Filters off: both sides must encode every page.
NO_RULES = dict.fromkeys(rules.PDF_RULES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, metavar="GLOB")
    parser.add_argument("--copies", type=int, default=1, help="how often to read the input in one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    pymupdf.TOOLS.mupdf_display_errors(False)
    paths = [path for path in sorted(glob.glob(args.input)) if _opens(path)] * args.copies
    bare_loop(paths[:5])
    whole_job(paths[:5])  # imports and caches, which a job of any size pays once
    ratios = []
    for _ in range(args.rounds):
        (num_pages, bare), whole = _cpu(bare_loop, paths), _cpu(whole_job, paths)[1]
        ratios.append(bare / whole)
        print(
            f"{num_pages} pages: bare {1000 * bare / num_pages:.1f} ms, job {1000 * whole / num_pages:.1f} ms a page; "
            f"{num_pages / bare:.1f} and {num_pages / whole:.1f} pages/s per core; ratio {bare / whole:.3f}"
        )
    print(f"median ratio {statistics.median(ratios):.3f}")


def _opens(path: str) -> bool:
    try:
        open_pdf(Path(path).read_bytes())
        return True
    except BadDocument:
        return False


def _cpu(work, paths):
    """Return (result, CPU seconds with those of children that have ended)."""
    before = _used()
    result = work(paths)
    return result, _used() - before


def _used() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def bare_loop(paths: list[str]) -> int:
    """Render, extract words, encode; nothing else. Return the number of pages."""
    settings, num_pages = PdfSettings(), 0
    for path in paths:
        document = pymupdf.open(stream=Path(path).read_bytes(), filetype="pdf")
        for page in document:
            scale = page_scale(page.rect, settings)
            picture = page.get_pixmap(matrix=pymupdf.Matrix(scale, scale), alpha=False)
            page.get_text("words")
            image = Image.frombytes("RGB", (picture.width, picture.height), picture.samples)
            image.save(io.BytesIO(), "JPEG", quality=OutputSettings.quality)
            num_pages += 1
    return num_pages


def whole_job(paths: list[str]) -> None:
    """Run the job over the same documents, in process, into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        args = argparse.Namespace(
            dataset="bench", output=folder, overwrite=False, limit=None, workers=0, max_quarantined=1
        )
        process = PdfProcess(output=OutputSettings(rules=NO_RULES))
        work = partial(render_split, dataset="bench", thresholds=NO_RULES, limit=None)
        splits = [Split("00000", {"url": paths[0], "urls": paths})]
        settings = {"bench": True}
        job.run("bench", args, splits, settings, work, scores=pages.SCORES, setup=lambda: process)
        process.stop()  # only the time of children that have ended is counted


if __name__ == "__main__":
    main()
