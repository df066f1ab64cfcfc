"""The two rendering jobs from end to end: every document in the ledger, samples that open, the same bytes again."""

import argparse
import io
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pymupdf
import pytest
from PIL import Image

from corpus.formats import ocr
from corpus.pieces import IMAGE, TEXT
from corpus.records import from_members
from corpus.rules import WrongRule
from corpus.shards import IndexedShard
from pipelines import render_pdf
from pipelines.engine import job
from pipelines.work import documents, page_rules, pages
from pipelines.work.datasets import JOBS, changed_rules
from renderers import rules
from renderers.encoded import OutputSettings
from renderers.ink import ink_report, luminance
from renderers.pdf_process import Failed, PdfProcess
from tests.folders import of_split

ROOT = Path(__file__).resolve().parent.parent


def pdf_document(*texts: str) -> bytes:
    made = pymupdf.open()
    for text in texts:
        made.new_page(width=500, height=400).insert_textbox((40, 40, 460, 380), text, fontsize=9)
    return made.tobytes()


def words(count: int) -> str:
    return " ".join(f"word{i * 7919 % 10007}" for i in range(count))


def archive(tmp_path, members: dict[str, bytes]) -> Path:
    path = tmp_path / "documents.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return path


def run_pdf(tmp_path, path: Path, name: str = "out", **changed) -> tuple[list[dict], list]:
    """Run the PDF job in this process; return the ledger's rows and the samples."""
    thresholds = rules.PDF_RULES | changed
    places = {"dataset": "pdfs", "output": str(tmp_path / name), "overwrite": False}
    args = argparse.Namespace(**places, limit=None, workers=0, max_quarantined=1)
    work = partial(render_pdf.render_split, dataset="pdfs", thresholds=thresholds, limit=None)
    with PdfProcess(output=OutputSettings(rules=thresholds)) as process:
        splits = list(documents.plan([str(path)]))
        job.run("render_pdf", args, splits, {}, work, scores=pages.SCORES, setup=lambda: process)
    return read_back(tmp_path / name)


def read_back(folder: Path) -> tuple[list[dict], list]:
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    samples = []
    for path in sorted(folder.glob("*.tar")):
        shard = IndexedShard(path)
        samples += [from_members(shard[i][1]) for i in range(len(shard))]
    return rows, samples


def test_every_document_and_page_is_accounted_for(tmp_path):
    path = archive(tmp_path, {
        "good.pdf": pdf_document(words(40), words(41)),
        "dense.pdf": pdf_document(words(250)),
        "again.pdf": pdf_document(words(40)),
        "short.pdf": pdf_document("short"),
        "extended.pdf": pdf_document("x"),
        "blank.pdf": pdf_document(""),
        "junk.pdf": b"not a PDF at all",
        "empty.pdf": b"",
        "../../escape.pdf": pdf_document(words(42)),
    })  # fmt: skip
    rows, samples = run_pdf(tmp_path, path)
    outcome = {(row["document"], row["page"], row["window"]): row["rule"] or "kept" for row in rows}
    assert outcome["junk.pdf", None, None] == "not_a_pdf" and outcome["empty.pdf", None, None] == "empty"
    assert outcome["short.pdf", 0, None] == "too_few_characters" and outcome["blank.pdf", 0, None] == "blank"
    assert outcome["again.pdf", 0, None] == "duplicate"
    assert outcome["good.pdf", 0, 0] == outcome["good.pdf", 1, 0] == outcome["../../escape.pdf", 0, 0] == "kept"
    windows = [row for row in rows if row["document"] == "dense.pdf"]
    assert len(windows) == windows[0]["windows"] >= 2
    kept = [row["key"] for row in rows if row["outcome"] == "kept"]
    assert kept == [sample.key for sample in samples] and all(key.startswith("pdfs/") for key in kept)
    assert not list(tmp_path.parent.glob("escape*"))


def test_samples_hold_honest_coordinates_and_fit_a_training_sample(tmp_path, shared_data):
    from corpus.tokens import load_tokenizer

    tokenizer = load_tokenizer(shared_data("tokenizer/qwen.tiktoken"))
    rows, samples = run_pdf(tmp_path, shared_data("pdf/pdfminer_issue-1061-colour-space-stack.pdf"))
    assert len(samples) > 30
    caught = []
    for sample in samples:
        image = np.asarray(Image.open(io.BytesIO(sample.images[0].data)))
        assert image.shape == (sample.height, sample.width, 3)
        quads = [line["quad"] for line in sample.annotations["lines"]]
        caught.append(ink_report(luminance(image), quads)["caught"])
        assert max(image.shape[:2]) <= 3.02 * min(image.shape[:2])
        pieces = [piece for piece in ocr(sample).pieces if piece.kind != IMAGE]
        assert 258 + sum(len(tokenizer.encode(p.value)) if p.kind == TEXT else 1 for p in pieces) <= 2048
    assert np.mean(caught) > 0.98 and min(caught) > 0.7  # a table's rules are ink outside the labels


def test_the_same_input_gives_the_same_bytes(tmp_path):
    path = archive(tmp_path, {"a.pdf": pdf_document(words(40), words(251)), "b.pdf": b"junk"})
    run_pdf(tmp_path, path, "one")
    run_pdf(tmp_path, path, "two")
    for suffix in ("tar", "parquet", "idx"):
        assert of_split(tmp_path / "one", suffix).read_bytes() == of_split(tmp_path / "two", suffix).read_bytes()


def test_rules_are_switchable_and_unknown_ones_are_refused(tmp_path):
    path = archive(tmp_path, {"short.pdf": pdf_document("short"), "again.pdf": pdf_document("short")})
    rows, _ = run_pdf(tmp_path, path, too_few_characters=None, duplicate=None)
    assert [row["outcome"] for row in rows] == ["kept", "kept"]
    known = JOBS["render_pdf"].rules
    found = page_rules.thresholds(known, changed_rules(known, {}, ["too_small=300", "duplicate=off"]))
    assert found["too_small"] == 300 and found["duplicate"] is None and found["blank"] == 0
    with pytest.raises(WrongRule, match=r"no rule 'to_small' \(did you mean 'too_small'\?\)"):
        known.check(changed_rules(known, {}, ["to_small=300"]))


def run_script(script: str, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "pipelines" / script), *flags, "--workers", "0"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_the_pdf_script_runs_and_help_ends_with_an_example(tmp_path):
    path = archive(tmp_path, {f"{i}.pdf": pdf_document(words(40 + i), words(50 + i)) for i in range(3)})
    done = run_script("render_pdf.py", "--input", str(path), "--output", str(tmp_path / "out"), "--limit", "2")
    assert done.returncode == 0, done.stderr
    rows = {(row["row"], row["page"]) for row in read_back(tmp_path / "out")[0]}
    assert rows == {(0, 0), (0, 1), (1, 0), (1, 1)}
    shown = run_script("render_pdf.py", "--help").stdout
    assert shown.strip().splitlines()[-1].strip().startswith("python pipelines/render_pdf.py")


def test_the_html_job_renders_a_tar(tmp_path, browser):
    html = {
        "good.html": f"<p>{words(60)}".encode(),
        "tall.html": "".join(f"<p>Paragraph {i}: {words(20)}" for i in range(90)).encode(),
        "chinese.html": f"<meta charset=gbk><p>{'我国集成电路进口突破三千亿美元' * 5}".encode("gbk"),
        "icons.html": f"<p>{words(60)} \ue001".encode(),
        "empty.html": b"",
        "blank.html": b"<p></p>",
    }
    with tarfile.open(tmp_path / "pages.tar", "w") as made:
        for name, data in html.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    done = run_script("render_html.py", "--input", str(tmp_path / "pages.tar"), "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows, samples = read_back(tmp_path / "out")
    outcomes = {(row["document"], row["rule"] or "kept") for row in rows}
    assert outcomes == {
        ("good.html", "kept"), ("tall.html", "kept"), ("chinese.html", "kept"), ("icons.html", "private_use"),
        ("empty.html", "empty"), ("blank.html", "blank"),
    }  # fmt: skip
    tall = [sample for sample in samples if sample.source["document"] == "tall.html"]
    assert len(tall) >= 3 and all(sample.height <= 1448 for sample in tall)
    lines = [line["text"] for sample in tall for line in sample.annotations["lines"]]
    assert sum(line.startswith("Paragraph ") for line in lines) == 90
    assert next(sample.language for sample in samples if sample.source["document"] == "chinese.html") == "zh"


def test_every_page_rule_is_declared():
    for name, defaults in (("render_pdf", rules.PDF_RULES), ("render_html", rules.HTML_RULES)):
        assert page_rules.thresholds(JOBS[name].rules, {}) == defaults
    assert "latin_extended" not in JOBS["render_html"].rules


def test_a_page_that_cannot_be_rendered_is_one_error_row(tmp_path, monkeypatch):
    render = PdfProcess.render

    def second_page_fails(self, *arguments):
        for result in render(self, *arguments):
            yield Failed(1, "bad_page", "out of paper") if result.number == 1 else result

    monkeypatch.setattr(PdfProcess, "render", second_page_fails)
    path = archive(tmp_path, {"a.pdf": pdf_document(words(40), words(41), words(42))})
    rows, samples = run_pdf(tmp_path, path)
    assert [(row["page"], row["rule"], row["detail"]) for row in rows if row["outcome"] == "error"] == [
        (1, "bad_page", "out of paper")
    ]
    assert {sample.source["page"] for sample in samples} == {0, 2}
