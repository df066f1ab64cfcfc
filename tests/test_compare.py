"""compare.py: the changes it tells are those between the two ledgers, row by row."""

from collections import Counter
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from pipelines import clean_laion, compare, retune
from pipelines.engine.inputs import UserError
from tests.cleaned import sample, write_cleaned
from tests.explored import HOSTILE, pairs
from tests.published import run_job
from tests.test_build_stage import build


def told(a, b, *more, capsys):
    with patch("sys.argv", ["compare.py", str(a), str(b), *map(str, more)]):
        compare.main()
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, the same with a tighter threshold, and the same input without the cleaner of markup."""
    root = tmp_path_factory.mktemp("compared")
    first = pairs(root, "laion-en", 7)
    run_job(retune, str(first), "--set", "clip_score.min=0.3", "--output", root / "tighter")
    flags = ("--rule", "image_size=150", "--rule", "clip_score=0.22", "--rule", "text_length.max_words=40")
    raw = ("--dataset", "laion-en", "--input", root / "*.tar", "--output", root / "raw", *flags, "--rule", "html=off")
    run_job(clean_laion, *raw)
    return first, root / "tighter", root / "raw"


def ledgers(folder):
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return {row["key"]: row for row in rows}


def fate(row):
    return row["rule"] if row["outcome"] == "dropped" else f"error: {row['rule']}" if row["rule"] else "kept"


@pytest.mark.parametrize("other", [1, 2])
def test_the_matrix_is_that_of_the_ledgers(other, runs):
    a, b = ledgers(runs[0]), ledgers(runs[other])
    found = compare.compare_runs(*(compare.OutputFolder(str(runs[i])) for i in (0, other)))
    assert found.matrix == Counter((fate(a[key]), fate(b[key])) for key in a) and not found.only_a + found.only_b
    assert found.changes or other == 2
    for fates, rows in found.examples.items():
        assert all((fate(a[row["key"]]), fate(b[row["key"]])) == fates for row in rows)


def test_captions_that_read_differently_and_scores_that_drifted(runs):
    a, b = ledgers(runs[0]), ledgers(runs[2])
    found = compare.compare_runs(*(compare.OutputFolder(str(runs[i])) for i in (0, 2)))
    both = [key for key in a if a[key]["outcome"] == b[key]["outcome"] == "kept"]
    assert found.reread == sum(a[key]["text_after"] != b[key]["text_after"] for key in both) > 0
    assert all(row["reads_a"] != row["reads_b"] for row in found.captions)
    for name in ("characters", "clip_score"):
        measured = [(a[k][name], b[k][name]) for k in a if None not in (a[k][name], b[k][name])]
        apart = [abs(x - y) for x, y in measured]
        drift = found.drift[name]
        assert (drift.rows, drift.moved) == (len(apart), sum(each > 0 for each in apart))
        assert (drift.most, drift.mean) == (max(apart), pytest.approx(sum(apart) / len(apart)))
    assert found.drift["characters"].moved and not found.drift["clip_score"].moved


def test_a_run_compared_with_itself_has_nothing_to_tell(runs, capsys):
    out = told(runs[0], runs[0], capsys=capsys)
    assert "120 rows in both, 0 with another fate; 0 in A alone, 0 in B" in out and "\n0 rows that both kept" in out


def test_the_page_is_self_contained_and_escaped(runs, tmp_path, capsys):
    told(runs[0], runs[2], "--html", tmp_path / "page.html", capsys=capsys)
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html and HOSTILE not in html


def test_stages_by_dataset_and_sample(tmp_path, capsys):
    write_cleaned(tmp_path / "cleaned", "in-house-text", [sample("in-house-text", "text", i) for i in range(12)])
    a = build(tmp_path / "cleaned", tmp_path / "a")
    b = build(tmp_path / "cleaned", tmp_path / "b", "--samples", "6", "--of", "present")
    (line,) = compare.compare_stages(a, b)
    assert line.samples == (a.num_samples, b.num_samples) and 0 < line.both == b.num_samples < a.num_samples
    assert line.tokens == (a.record["tokens"], b.record["tokens"])
    assert "in-house-text" in told(a.path, b.path, capsys=capsys)


def test_what_cannot_be_compared_says_why(runs, tmp_path):
    write_cleaned(tmp_path / "cleaned", "in-house-text", [sample("in-house-text", "text", i) for i in range(3)])
    stage = build(tmp_path / "cleaned", tmp_path / "stage")
    with patch("sys.argv", ["compare.py", str(runs[0]), stage.path]), pytest.raises(UserError, match="one is a stage"):
        compare.main()
    other = str(tmp_path / "cleaned" / "in-house-text")
    with patch("sys.argv", ["compare.py", str(runs[0]), other]), pytest.raises(UserError, match="no row in common"):
        compare.main()
