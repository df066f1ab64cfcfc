"""A cleaning job without flags cleans what the catalog says is there, says what it skips, and shows its forms."""

import importlib
import sys
from unittest.mock import patch

import pytest

from corpus.folder import OutputFolder
from pipelines import clean_laion, clean_vqa
from pipelines.engine import cluster, job
from pipelines.work.datasets import JOBS
from tests.test_clean_laion import CAPTION, jpeg, shard

CATALOG = """\
extends: default
laion-en: {rules: {clip_score: null}}
coyo: {reader: columns, columns: {text: TEXT}, rules: {clip_score: null}}
"""
CLEANING = [name for name in JOBS if name.startswith(("clean_", "render_"))]


def run(module, *flags):
    with patch.object(sys, "argv", [module.__name__, *map(str, flags), "--workers", "0"]):
        module.main()


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "raw" / "laion-en").mkdir(parents=True)
    shard(tmp_path / "raw" / "laion-en" / "00000.tar", [(jpeg(), CAPTION, {})])
    path = tmp_path / "mine.yaml"
    path.write_text(CATALOG + f"data: {tmp_path}\n")
    return path


def kept(folder) -> int:
    return sum(manifest.counts.kept for manifest in OutputFolder(str(folder)).manifests().values())


def test_without_a_flag_all_that_is_there_is_cleaned_and_the_rest_is_named(catalog, tmp_path, capsys):
    (tmp_path / "raw" / "coyo").mkdir()
    shard(tmp_path / "raw" / "coyo" / "a.tar", [(jpeg(), CAPTION, {}), (jpeg(), CAPTION, {})])
    run(clean_laion, "--catalog", catalog)
    assert (kept(tmp_path / "cleaned" / "laion-en"), kept(tmp_path / "cleaned" / "coyo")) == (1, 2)
    said = capsys.readouterr().out
    assert f"cleaning coyo to {tmp_path}/cleaned/coyo" in said
    assert f"skipping laion-zh: no file matches {tmp_path}/raw/laion-zh/*.tar or " in said
    assert sorted(each.name for each in (tmp_path / "cleaned").iterdir()) == ["coyo", "laion-en"]


def test_a_dataset_alone_takes_its_places_from_its_entry_and_a_flag_overrides_them(catalog, tmp_path):
    run(clean_laion, "--catalog", catalog, "--dataset", "laion-en")
    run(clean_laion, "--catalog", catalog, "--dataset", "laion-en", "--output", tmp_path / "elsewhere")
    assert kept(tmp_path / "cleaned" / "laion-en") == kept(tmp_path / "elsewhere") == 1
    with pytest.raises(job.UserError, match="--input is missing, and laion-zh: no file matches .*/raw/laion-zh"):
        run(clean_laion, "--catalog", catalog, "--dataset", "laion-zh")
    with pytest.raises(job.UserError, match="--dataset is missing"):
        run(clean_laion, "--catalog", catalog, "--input", "x.tar")


def test_what_the_user_must_mend_in_one_keeps_no_other_waiting(catalog, tmp_path):
    (tmp_path / "raw" / "coyo").mkdir()
    (tmp_path / "raw" / "coyo" / "a.parquet").write_bytes(b"no parquet")
    catalog.write_text(catalog.read_text() + "datacomp: {input: raw/laion-en/*.tar, output: last}\n")
    with pytest.raises(job.UserError, match="1 of 3 datasets were not cleaned:\n  coyo: "):
        run(clean_laion, "--catalog", catalog)
    assert kept(tmp_path / "cleaned" / "laion-en") == 1 and (tmp_path / "last" / "report.html").exists()


def test_images_come_from_the_entry_too(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: default\nvqav2: {input: q.json, images: pictures}\n")
    (tmp_path / "q.json").write_text("{}")
    with pytest.raises(job.UserError, match=f"{tmp_path}/pictures"):
        run(clean_vqa, "--catalog", tmp_path / "mine.yaml", "--dataset", "vqav2")


@pytest.mark.parametrize("name", CLEANING)
def test_with_nothing_there_every_cleaning_job_shows_one_complete_example_of_each_form(name, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: default\ndata: {tmp_path}\n")
    module = importlib.import_module(f"pipelines.{name}")
    with pytest.raises(job.UserError) as told:
        run(module, "--catalog", tmp_path / "mine.yaml")
    lines = str(told.value).splitlines()
    assert lines[0].startswith(f"there are no raw data of any {name} dataset.")
    commands = [line.strip() for line in lines if line.startswith(f"  python pipelines/{name}.py")]
    assert len(commands) == 3 and "--input" in str(told.value) and commands[2].endswith(f"{name}.py")
    assert "usage:" not in str(told.value)


def test_places_inside_rays_own_copy_are_refused(tmp_path, monkeypatch):
    copy = tmp_path / "working_dir_files" / "copy"
    (copy / "raw").mkdir(parents=True)
    shard(copy / "raw" / "a.tar", [(jpeg(), CAPTION, {})])
    (copy / "mine.yaml").write_text("extends: default\nlaion-en: {input: raw/a.tar, rules: {clip_score: null}}\n")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(cluster, "ROOT", copy)
    with pytest.raises(job.UserError, match="lies in Ray's own copy.*or say `data: /path`"):
        run(clean_laion, "--catalog", "mine.yaml", "--dataset", "laion-en")
    with pytest.raises(job.UserError, match="Ray's own copy.*`data: /path`"):
        run(clean_laion, "--catalog", "mine.yaml", "--dataset", "laion-zh")
