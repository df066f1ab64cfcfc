"""retune.py: moved thresholds give the folder that a run with them would have given, without reading the input."""

import sys
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from pipelines import retune
from pipelines.engine import job
from tests.test_clean_laion import CAPTION, clean, jpeg, outcomes, read_folder, shard


def rows_of(scores):
    return [(jpeg(), CAPTION, {"similarity": score}) for score in scores]


def run(tmp_path, *changes, output="retuned", more=()):
    argv = ["retune.py", str(tmp_path / "out"), "--output", str(tmp_path / output), "--workers", "0", *more]
    argv += ["--set", *changes]
    with patch.object(sys, "argv", argv):
        retune.main()
    return read_folder(tmp_path / output)


@pytest.fixture
def cleaned(tmp_path):
    shard(tmp_path / "a.tar", [*rows_of([0.29, 0.35, 0.40]), (jpeg(), "A man", {}), (b"", CAPTION, {})])
    shard(tmp_path / "b.tar", rows_of([0.31, 0.20, 0.45]))
    clean(tmp_path, tmp_path / "*.tar")
    return tmp_path


def test_a_tighter_threshold_needs_no_input(cleaned):
    for tar in cleaned.glob("*.tar"):
        tar.unlink()
    rows, samples = run(cleaned, "clip_score.min=0.33")
    first, second = ["clip_score", "kept", "kept", "text_length", "not_an_image"], ["clip_score", "clip_score", "kept"]
    assert outcomes(rows) == first + second
    assert [rows[i]["threshold"] for i in (0, 5, 6)] == [0.33, 0.33, 0.33]
    assert list(samples) == [row["key"] for row in rows if row["outcome"] == "kept"]


def test_a_looser_threshold_reads_only_the_splits_concerned(cleaned, capsys):
    (cleaned / "a.tar").unlink()
    rows, samples = run(cleaned, "clip_score.min=0.19")
    assert outcomes(rows)[5:] == ["kept", "kept", "kept"]
    assert len(samples) == 6
    assert "1 of 2 splits" in capsys.readouterr().out


def test_the_same_samples_as_a_fresh_run(cleaned):
    run(cleaned, "clip_score.min=0.33")
    fresh = Path(cleaned) / "mine.yaml"
    text = (Path(retune.__file__).parent.parent / "catalog.yaml").read_text()
    fresh.write_text(text.replace("clip_score: {min: 0.28}         #", "clip_score: {min: 0.33} #"))
    clean(cleaned, cleaned / "*.tar", "--catalog", str(fresh), output="fresh")
    for name in ("00000.tar", "00001.tar", "00000.idx", "job.json"):
        assert (cleaned / "fresh" / name).read_bytes() == (cleaned / "retuned" / name).read_bytes()


def test_metadata_folders_too(tmp_path):
    from tests.test_clean_laion import url_table

    pq.write_table(url_table(), tmp_path / "part.parquet")
    clean(tmp_path, tmp_path / "part.parquet")
    rows, _ = run(tmp_path, "clip_score.min=0.315")
    assert outcomes(rows) == ["clip_score", "kept", "no_text", "image_size"]
    assert pq.read_table(tmp_path / "retuned" / "00000.urls.parquet")["URL"].to_pylist() == ["u1"]


@pytest.mark.parametrize(
    "change, message",
    [
        ("clip.min=1", "made with the rules"),
        ("clip_score.mim=1", "no threshold; thresholds are .*clip_score.min"),
        ("clip_score.min=high", "must be a number"),
        ("clip_score.missing=drop", "no threshold"),
    ],
)
def test_what_cannot_be_retuned_says_why(cleaned, change, message):
    with pytest.raises(job.UserError, match=message):
        run(cleaned, change)
