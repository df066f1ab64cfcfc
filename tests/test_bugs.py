"""A mistake in our own code stops the job; it is never counted as the data's."""

import ast
import io
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pymupdf
import pytest
from PIL import Image
from warcio.warcwriter import WARCWriter

from corpus import bugs, records
from corpus.bugs import Bug, raise_ours
from corpus.readers.boundary import made_of
from pipelines import render_pdf
from pipelines.engine import job
from pipelines.work import documents
from renderers import pdf
from renderers.page import BadDocument
from synth_ocr import textures

ROOT = Path(__file__).resolve().parent.parent


def caught(function, *arguments) -> Exception:
    with pytest.raises(Exception) as info:
        function(*arguments)
    return info.value


def a_mistake(*arguments):
    return None + 1


def a_name(*arguments):
    return undefined  # noqa: F821


def a_claim(*arguments):
    raise AssertionError


def a_module(*arguments):
    import no_such_module  # noqa: F401


@pytest.mark.parametrize("mistake", [a_mistake, a_name, a_claim, a_module, lambda: "".no_such_method()])
def test_a_mistake_of_ours_is_a_bug_with_its_traceback(mistake):
    with pytest.raises(Bug, match=r"(?s)test_bugs\.py.*(Error|Assertion)"):
        raise_ours(caught(mistake))


def test_what_a_library_raises_or_any_code_may_raise_is_data():
    raise_ours(caught(textwrap.wrap, 3))  # an AttributeError, but out of a line of the library's
    raise_ours(caught(int, "three"))
    raise_ours(TypeError("never raised"))


def test_packages_in_the_checkout_are_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(bugs, "ROOT", tmp_path)
    assert bugs._in_checkout(str(tmp_path / "renderers" / "pdf.py"))
    assert not bugs._in_checkout(str(tmp_path / ".venv" / "lib" / "site-packages" / "pymupdf" / "__init__.py"))


def test_a_bug_passes_every_boundary_it_meets():
    inner = caught(raise_ours, caught(a_mistake))
    with pytest.raises(Bug) as outer:
        raise_ours(inner)
    assert outer.value is inner


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(stream, "PNG")
    return stream.getvalue()


def page(text: str = "one line") -> bytes:
    made = pymupdf.open()
    made.new_page(width=300, height=200).insert_text((40, 60), text)
    return made.tobytes()


@pytest.mark.parametrize(
    ("work", "module", "name"),
    [
        (records.image_header, records.Image, "open"),
        (records.decode_image, records, "to_rgb"),
        (lambda data: records.verify_image(data, (32, 24)), records.Image, "open"),
        (textures.decode_photo, textures, "max"),
    ],
)
def test_the_boundaries_of_images_let_a_bug_through(monkeypatch, work, module, name):
    monkeypatch.setattr(module, name, a_mistake, raising=False)
    assert isinstance(caught(work, picture()), Bug)


def test_the_boundary_of_pdf_pages_lets_a_bug_through_and_keeps_what_mupdf_raises(monkeypatch):
    document = pdf.open_pdf(page())
    with monkeypatch.context() as planted:
        planted.setattr(pdf, "reading_order", a_mistake)
        assert isinstance(caught(pdf.render_page, document, 0, pdf.PdfSettings()), Bug)
    error = caught(pdf.render_page, document, 7, pdf.PdfSettings())
    assert isinstance(error, BadDocument) and error.kind == "bad_page"


def test_the_boundary_of_archives_lets_a_bug_through(monkeypatch, tmp_path):
    with open(tmp_path / "a.warc", "wb") as file:
        writer = WARCWriter(file, gzip=False)
        writer.write_record(writer.create_warc_record("http://a.example/", "resource", payload=io.BytesIO(b"text")))
    monkeypatch.setattr(documents, "_bounded", a_mistake)
    kind = documents.Kind((".txt",), ("application/",), "foreign", 100)
    found = lambda: list(documents.read([str(tmp_path / "a.warc")], kind))  # noqa: E731
    assert isinstance(caught(found), Bug)


ROOMS = ("corpus", "cleaners", "renderers", "synth_ocr", "pipelines/work", "pipelines/fetch")
# Makes no rows: what a user's module raises while it is loaded stops the job, and what is no store's fault is raised.
NO_ROWS = {"corpus/plugins.py", "corpus/patience.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_boundary_that_catches_everything_asks_whose_mistake_it_is(room):
    for file in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler) and ast.unparse(node.type or ast.Name("Exception")) == "Exception":
                place = f"{file.relative_to(ROOT)}:{node.lineno}"
                asks = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
                assert asks & {"raise_ours", "bug_in", "why_data"} or place.partition(":")[0] in NO_ROWS, place


def test_a_bug_in_the_pdf_process_stops_the_job_and_names_its_line(tmp_path):
    for room in ("corpus", "renderers"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "renderers" / "encoded.py", "a") as file:
        file.write("\n\ndef encode_page(*arguments):\n    return None.planted\n")
    (tmp_path / "page.pdf").write_bytes(page())
    code = (
        "from renderers.pdf_process import PdfProcess\n"
        "with PdfProcess() as process: print(list(process.render(open('page.pdf', 'rb').read())))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "corpus.bugs.Bug" in done.stderr and "in encode_page\n" in done.stderr and "AttributeError" in done.stderr


def test_a_job_ends_with_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "page.pdf").write_bytes(page())
    monkeypatch.setattr(render_pdf, "PdfProcess", _BuggyProcess)
    argv = ["render_pdf.py", "--input", str(tmp_path / "page.pdf"), "--output", str(tmp_path / "out"), "--workers", "0"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match=r"(?s)a mistake in Gristmill, not in the data.*test_bugs\.py"):
        job.main(render_pdf.main)
    assert not list((tmp_path / "out").glob("*.parquet"))


class _BuggyProcess:
    def __init__(self, *arguments, **options):
        pass

    def render(self, *arguments):
        try:
            yield a_mistake()
        except Exception as error:
            raise_ours(error)


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (OSError("Unexpected end of stream"), "data"), (pa.ArrowMemoryError("malloc of size 2**60"), "data"),
        (RecursionError("too deep"), "data"), (EOFError("cut"), "data"), (UnicodeError("no UTF-8"), "data"),
        (OSError(28, "No space left on device"), "system"), (ConnectionError("reset"), "system"),
        (TimeoutError("no answer"), "system"), (MemoryError(), "system"), (KeyboardInterrupt(), "system"),
    ],
)  # fmt: skip
def test_one_place_tells_the_data_s_errors_from_the_system_s(error, whose):
    def parse(record):
        raise error

    if whose == "data":
        (row,) = made_of({}, parse)
        assert row.kind == "bad_record" and type(error).__name__ in row.detail
    else:
        with pytest.raises(type(error)):
            made_of({}, parse)
    with pytest.raises(Bug, match="a_mistake"):
        made_of({}, a_mistake)
