"""The confined PDF process: a crash, a hang or a flood of memory costs one page, and nothing outlives the job."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pymupdf
import pytest

from renderers import confine, pdf_process
from renderers.encoded import OutputSettings
from renderers.pdf_process import Failed, Limits, PdfProcess, Rendered
from renderers.rules import PDF_RULES

ROOT = Path(__file__).resolve().parent.parent
EVERYTHING = OutputSettings(rules=dict.fromkeys(PDF_RULES))


def document(*texts: str) -> bytes:
    made = pymupdf.open()
    for text in texts:
        made.new_page(width=300, height=200).insert_text((40, 60), text)
    return made.tobytes()


@pytest.fixture
def process():
    with PdfProcess(output=EVERYTHING) as made:
        yield made


def texts(results) -> list[str]:
    return [
        result.kind if isinstance(result, Failed) else result.described["windows"][0]["lines"][0][0]
        for result in results
    ]


def test_pages_come_in_order_and_the_process_is_reused(process):
    assert texts(process.render(document("one", "two", "three"))) == ["one", "two", "three"]
    worker = process._process.pid
    assert texts(process.render(document("four"))) == ["four"]
    assert process._process.pid == worker


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_costs_one_page(process, number):
    results = process.render(document("one", "two", "three", "four"))
    assert isinstance(next(results), Rendered)
    os.kill(process._process.pid, number)
    rest = list(results)
    assert [result.number for result in rest] == [1, 2, 3]
    assert texts(rest) == ["crash", "three", "four"]
    assert number.name in rest[0].detail


def test_a_page_that_hangs_is_ended_and_the_rest_goes_on():
    with PdfProcess(output=EVERYTHING, limits=Limits(page_seconds=1, wall_factor=-7)) as process:  # 3 s of wall clock
        results = process.render(document("one", "two", "three"))
        assert isinstance(next(results), Rendered)
        os.kill(process._process.pid, signal.SIGSTOP)
        rest = texts(results)
    assert rest == ["timeout", "three"]


def endless_page() -> bytes:
    """A page whose content draws the same form, which draws another nine times, and so on: 9 ** 12 lines."""
    made = pymupdf.open()
    page = made.new_page()
    page.draw_line((0, 0), (9, 9))
    forms = [made.get_new_xref() for _ in range(13)]
    for level, xref in enumerate(forms):
        inner = b"0 0 m 9 9 l S" if level == 12 else b"/F Do " * 9
        resources = "" if level == 12 else f"/Resources<</XObject<</F {forms[level + 1]} 0 R>>>>"
        made.update_object(xref, f"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]{resources}>>")
        made.update_stream(xref, inner, new=True)
    made.xref_set_key(page.xref, "Resources", f"<</XObject<</F {forms[0]} 0 R>>>>")
    xref = page.get_contents()[0]
    made.update_stream(xref, made.xref_stream(xref) + b"\n/F Do")
    made.new_page().insert_text((40, 60), "after")
    return made.tobytes()


def test_an_endless_page_costs_its_cpu_time_or_its_memory_and_no_more():
    started = time.monotonic()
    with PdfProcess(output=EVERYTHING, limits=Limits(page_seconds=1.5, memory=1 << 30)) as process:
        found = texts(process.render(endless_page()))
    assert found[0] in ("timeout", "memory", "crash") and found[1] == "after"
    assert time.monotonic() - started < 60


def test_a_document_may_not_cost_more_than_its_share():
    limits = Limits(document_seconds=0.0)
    with PdfProcess(output=EVERYTHING, limits=limits) as process:
        assert texts(process.render(document("one", "two")))[-1] == "document_timeout"


def test_too_large_documents_and_too_many_pages_are_refused():
    with PdfProcess(output=EVERYTHING, limits=Limits(max_bytes=100)) as process:
        assert texts(process.render(document("one"))) == ["too_large"]
    with PdfProcess(output=EVERYTHING, limits=Limits(max_pages=2)) as process:
        assert texts(process.render(document("one", "two", "three"))) == ["one", "two", "too_many_pages"]


def test_memory_is_capped():
    with PdfProcess(output=EVERYTHING, limits=Limits(memory=3 << 30)) as process:
        list(process.render(document("one")))
        limits = Path(f"/proc/{process._process.pid}/limits").read_text()
    assert re.search(rf"Max address space +{3 << 30} +{3 << 30} ", limits)


def test_an_ordinary_user_without_network_may_still_make_namespaces():
    """Chromium's own sandbox is one; without a user of its own in the first namespace it could not start."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):  # as root: be nobody, and not one that only root may look at
            os.setgid(65534), os.setuid(65534), confine._libc.prctl(4, 1)
        alone = confine.drop_network()
        again = confine._libc.unshare(confine._CLONE_NEWUSER) == 0
        os._exit(2 if not alone else 0 if again else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 2:
        pytest.skip("this machine gives an ordinary user no namespaces")
    assert status == 0


def test_the_process_dies_with_a_job_that_is_killed():
    code = (
        "import sys, time; from renderers.pdf_process import PdfProcess; import pymupdf\n"
        "made = pymupdf.open(); made.new_page(); made = made.tobytes()\n"
        "process = PdfProcess(); list(process.render(made)); print(process._process.pid, flush=True); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    worker = int(job.stdout.readline())
    assert psutil.pid_exists(worker)
    job.kill()
    job.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(worker)


def test_a_rule_drops_a_page_and_leaves_a_thumbnail():
    with PdfProcess() as process:
        (page,) = process.render(document("short"))
    assert page.described["verdict"][0] == "too_few_characters"
    assert page.images[0].startswith(b"\xff\xd8") and len(page.images[0]) < 5000


def test_no_module_imports_a_pickle_across_the_border():
    source = Path(pdf_process.__file__).parent
    for name in ("frames.py", "pdf_process.py", "pdf_worker.py"):
        assert "pickle" not in (source / name).read_text().replace("never pickle", "")
