"""retune.py: moved thresholds give the folder that a run with them would have given, without reading the input."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from pipelines import (
    clean_captions,
    clean_chat,
    clean_grounding,
    clean_laion,
    clean_text,
    clean_vqa,
    render_pdf,
    retune,
)
from pipelines.engine import job
from tests.folders import of_split, split_ids
from tests.published import grit, put_images, run_job
from tests.test_accounted import captions, dialogues, image_pairs, pdfs, questions, texts, words
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
    first, second = split_ids(cleaned / "fresh")
    for name in (f"{first}.tar", f"{second}.tar", f"{first}.idx", "job.json"):
        assert (cleaned / "fresh" / name).read_bytes() == (cleaned / "retuned" / name).read_bytes()


def test_metadata_folders_too(tmp_path):
    from tests.test_clean_laion import url_table

    pq.write_table(url_table(), tmp_path / "part.parquet")
    clean(tmp_path, tmp_path / "part.parquet")
    rows, _ = run(tmp_path, "clip_score.min=0.315")
    assert outcomes(rows) == ["clip_score", "kept", "no_text", "image_size"]
    assert pq.read_table(of_split(tmp_path / "retuned", "urls.parquet"))["URL"].to_pylist() == ["u1"]


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


# --- Folders of every job: retuned, and made anew with the same rule, they agree ---


def bees(tmp_path):
    images = put_images(tmp_path / "images", ["000000000.jpg"])
    return "--dataset", "grit", "--images", images, "--input", grit(tmp_path / "grit.parquet")


OTHERS = {
    "clean_captions": (clean_captions, captions, (), "image_size=100", "image_size.min_side=250"),
    "clean_vqa": (clean_vqa, questions, (), "agreement.min=0.5", "agreement.min=1.1"),
    "clean_chat": (clean_chat, dialogues, (), "too_many_images=9", "too_many_images.max=-1"),
    "clean_text": (clean_text, texts, ("--duplicates", "keep"), "too_short=5", "too_short.min_characters=600"),
    "clean_grounding": (clean_grounding, bees, (), "text_length.min_words=1", "text_length.max_words=5"),
    "clean_laion": (clean_laion, image_pairs, (), "image_size=100", "image_size.min_side=250"),
}


def verdicts(folder) -> list[tuple]:
    columns = ["key", "row", "outcome", "rule", "value", "threshold"]
    paths = [path for path in sorted(folder.glob("*.parquet")) if "urls" not in path.name]
    return [tuple(row.values()) for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


@pytest.mark.parametrize("name", OTHERS)
def test_folders_of_every_cleaning_job_can_be_retuned(name, tmp_path):
    module, make, more, first, change = OTHERS[name]
    flags = [*make(tmp_path), *more]
    run_job(module, *flags, "--rule", first, "--output", tmp_path / "out")
    run_job(module, *flags, "--rule", first, "--rule", change, "--output", tmp_path / "fresh")
    run(tmp_path, change)
    assert verdicts(tmp_path / "retuned") == verdicts(tmp_path / "fresh") != verdicts(tmp_path / "out")
    for path in (tmp_path / "fresh").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "retuned" / path.name).read_bytes()


def test_what_no_ledger_can_say_is_refused_with_the_command_that_can(tmp_path):
    flags = texts(tmp_path)
    run_job(clean_text, *flags, "--output", tmp_path / "out")
    with pytest.raises(job.UserError, match=r"may now be kept.*run clean_text.py again with --rule too_short.min_ch"):
        run(tmp_path, "too_short.min_characters=3")
    rows = [json.dumps({"text": text}) for text in (words(80), words(80), words(90))]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    run_job(clean_text, *flags, "--output", tmp_path / "copies")
    (tmp_path / "out").rename(tmp_path / "before")
    (tmp_path / "copies").rename(tmp_path / "out")
    with pytest.raises(job.UserError, match=r"2 rows were dropped in favour of others .*, and 1 fall now"):
        run(tmp_path, "too_short.min_characters=6000")


def test_rendered_pages_can_be_retuned_by_what_their_ledger_holds(tmp_path):
    run_job(render_pdf, *pdfs(tmp_path), "--output", tmp_path / "out")
    _, samples = read_folder(tmp_path / "out")
    run(tmp_path, "too_few_characters.threshold=400")
    rows, fewer = read_folder(tmp_path / "retuned")
    assert 0 < len(fewer) < len(samples)
    assert {row["rule"] for row in rows if row["value"] and row["value"] < 400} == {"too_few_characters"}
