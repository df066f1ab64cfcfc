"""A seeded share of benchmarks/hostile_documents.py: whatever comes in, something accountable comes out."""

import random
import time

import pytest

from benchmarks.hostile_documents import malicious_pages, mutate
from renderers.html import BrowserLimits, HtmlRenderer
from renderers.page import BadDocument
from renderers.pdf_process import Failed, Limits, PdfProcess, Rendered


@pytest.mark.slow
def test_mutated_pdfs_are_rendered_or_refused(shared_data):
    originals = [path.read_bytes() for path in sorted(shared_data("pdf").glob("*.pdf")) if path.stat().st_size < 60_000]
    outcomes = set()
    with PdfProcess(limits=Limits(page_seconds=5)) as process:
        for seed in range(60):
            results = list(process.render(mutate(originals, random.Random(seed))))
            numbers = [result.number for result in results]
            assert numbers == [None] or numbers == list(range(len(numbers)))
            outcomes.update(type(result) for result in results)
    assert outcomes == {Rendered, Failed}


HANGING = ("deep", "deep-tables", "million-tall", "million-wide", "script-loop", "refresh", "frames", "use-bomb", "nul")


@pytest.mark.slow
def test_malicious_pages_end_in_time(browser):
    pages = malicious_pages()
    with HtmlRenderer(limits=BrowserLimits(page_seconds=15)) as renderer:
        for name in HANGING:
            started = time.monotonic()
            try:
                page, _ = renderer.render(pages[name].decode("latin-1"))
                assert page.height <= renderer.settings.max_height, name
            except BadDocument as error:
                assert error.kind in ("timeout", "crash", "memory", "too_much_text", "bad_page"), name
            assert time.monotonic() - started < 60, name
        page, _ = renderer.render("<p>after all that</p>")
        assert [line.text for line in page.lines] == ["after all that"]
