"""Licences as data, and the cards of a stage folder: what they say is what the folder holds."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from corpus.catalog import load_catalog
from corpus.licences import Licence, allowed, clashes, read_licence
from pipelines.engine.inputs import UserError
from pipelines.work.licensing import licensed
from tests.cleaned import sample, write_cleaned
from tests.explored import cleaned as crawled  # noqa: F401 - a fixture
from tests.test_build_stage import build


@pytest.mark.parametrize(
    "text, name, scope, note, spdx",
    [
        ("CC-BY-4.0 (metadata); images have owners", "CC-BY-4.0", "metadata", "images have owners", "CC-BY-4.0"),
        ("MS-PL", "MS-PL", "", "", "MS-PL"),
        ("research use; after registration", "research use", "", "after registration", "LicenseRef-research-use"),
        ("yours (generated)", "yours", "generated", "", "LicenseRef-yours"),
        ("|||", "|||", "", "", "LicenseRef-unknown"),
    ],
)  # fmt: skip
def test_a_licence_is_read(text, name, scope, note, spdx):
    found = read_licence(text)
    assert (found, found.spdx) == (Licence(name, scope, note), spdx)


@pytest.mark.parametrize(
    "patterns, names",
    [
        ("CC-BY-*", {"CC-BY-4.0"}),
        ("cc-by", {"CC-BY-4.0"}),
        ("CC-BY*", {"CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0"}),
        ("CC-BY-*,CC0", {"CC-BY-4.0", "CC0-1.0"}),
        ("MIT, CC-BY-NC-4.0", {"MIT", "CC-BY-NC-4.0"}),
        ("GPL", {"GPL-3.0"}),
        ("BY", set()),
    ],
)
def test_patterns_name_licences(patterns, names):
    known = ("CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0", "MIT", "GPL-3.0", "yours")
    assert {name for name in known if allowed(Licence(name), patterns.split(","))} == names


def test_every_licence_of_the_catalog_is_understood():
    for dataset in load_catalog().values():
        licence = read_licence(dataset.licence)
        assert not set("();") & set(licence.name + licence.scope + licence.note), dataset.name


@pytest.mark.parametrize(
    "names, said",
    [
        (("CC-BY-4.0", "CC-BY-NC-4.0"), 0),
        (("CC-BY-SA-4.0", "CC-BY-NC-4.0"), 1),
        (("CC-BY-SA-4.0", "research use"), 1),
        (("GPL-3.0", "research use", "CC-BY-SA-4.0"), 2),
        (("GPL-3.0", "CC-BY-SA-4.0", "MIT"), 0),
        (("CC-BY-ND-4.0",), 1),
    ],
)
def test_what_cannot_be_met_together_is_told(names, said):
    assert len(list(clashes({f"set-{i}": Licence(name) for i, name in enumerate(names)}))) == said


def test_a_licence_that_no_dataset_has_is_refused():
    with pytest.raises(UserError, match=r"--licences MPL: no dataset .* theirs are CC-BY-4.0, "):
        licensed(load_catalog(), "MPL")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("cards")
    for dataset, task in (("gqa", "vqa"), ("docvqa", "vqa"), ("dvqa", "vqa"), ("in-house-text", "text")):
        write_cleaned(made / "cleaned", dataset, [sample(dataset, task, i) for i in range(6)], splits=2)
    return made


@pytest.fixture(scope="module")
def stage(root):
    return build(root / "cleaned", root / "stage2")


def test_only_what_is_licensed_so_is_taken(root):
    of = load_catalog()
    names = sorted({read_licence(of[name].licence).name for name in ("gqa", "dvqa")})
    assert names == ["CC-BY-4.0", "CC-BY-NC-4.0"]
    taken = build(root / "cleaned", root / "free", "--licences", "CC-BY-*")
    assert set(taken.record["datasets"]) == {
        name
        for name in ("gqa", "docvqa", "dvqa", "in-house-text")
        if read_licence(of[name].licence).name == "CC-BY-4.0"
    }
    assert "--licences CC-BY-*" in (root / "free" / "DATACARD.md").read_text()


def test_the_card_tells_what_the_folder_holds(stage):
    text = (Path(stage.path) / "DATACARD.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "other" and header["language"] == ["en", "zh"]
    assert header["size_categories"] == ["n<1K"] and "visual-question-answering" in header["task_categories"]
    for name, tasks in stage.record["datasets"].items():
        for task, counts in tasks.items():
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |") and f"| {task} |" in line]
            assert row.endswith(f"| {counts['samples']:,} | {counts['tokens']:,} |")
    assert stage.digest in text and stage.tokenizer_fingerprint in text
    assert str(Path(stage.path).parent) not in text


def test_same_data_same_cards(stage, root):
    again = build(root / "cleaned", root / "elsewhere" / "again")
    for name in ("DATACARD.md", "croissant.json"):
        assert (Path(again.path) / name).read_text().replace("stage2", "") == (
            (Path(stage.path) / name).read_text().replace("stage2", "")
        )
    assert build(root / "cleaned", root / "elsewhere" / "again").digest == stage.digest


def test_rules_thresholds_and_rows_come_from_the_cleaned_folder(crawled, tmp_path):  # noqa: F811
    made = build(crawled["laion-en"].parent, tmp_path / "stage1", stage=1)
    text = (Path(made.path) / "DATACARD.md").read_text()
    assert "| clip_score.min | 0.22 | the catalog or a flag |" in text
    assert "| emoji.max | 0 | Qwen-VL A.1: none at all |" in text
    report = json.loads((crawled["laion-en"] / "report.json").read_text())["counts"]
    assert f"{report['rows']} rows in, {report['kept']} kept" in text
    for rule, rows in report["dropped"].items():
        assert f"| {rule} | {rows} |" in text
    assert "python pipelines/clean_laion.py --dataset laion-en" in text


def test_incompatible_licences_are_said_aloud(root, capsys):
    for dataset in ("docvqa", "gqa"):
        write_cleaned(root / "mixed", dataset, [sample(dataset, "vqa", i) for i in range(3)])
    catalog = root / "mixed.yaml"
    catalog.write_text("extends: default\ndocvqa: {licence: CC-BY-SA-4.0}\ngqa: {licence: research use}\n")
    build(root / "mixed", root / "mixed-stage", "--catalog", str(catalog))
    said = " ".join(capsys.readouterr().out.split())
    assert "LICENCES share-alike: docvqa (CC-BY-SA-4.0); non-commercial: gqa (research use):" in said
    assert "**Cannot be met together**" in (root / "mixed-stage" / "DATACARD.md").read_text()


def test_croissant_lists_every_shard_with_its_digest(stage):
    told = json.loads((Path(stage.path) / "croissant.json").read_text())
    files = {each["@id"]: each for each in told["distribution"] if each["@type"] == "cr:FileObject"}
    tars = sorted(Path(stage.path).glob("*.tar"))
    assert sorted(files) == [tar.name for tar in tars]
    for tar in tars:
        assert files[tar.name]["sha256"] == hashlib.sha256(tar.read_bytes()).hexdigest()
        assert files[tar.name]["contentSize"] == f"{tar.stat().st_size} B"


CHECK = """
import sys, mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
assert not issues.errors, issues.report()
print(*(each.name for each in dataset.metadata.file_objects))
"""


@pytest.mark.slow
def test_mlcroissant_validates_it(stage, tmp_path):
    """In an environment of its own: GRISTMILL_MLCROISSANT names its Python, else one is made."""
    python = os.environ.get("GRISTMILL_MLCROISSANT") or other_python(tmp_path, "mlcroissant==1.1.1")
    done = subprocess.run(
        [python, "-c", CHECK, f"{stage.path}/croissant.json"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [f"{shard['id']}.tar" for shard in stage.record["shards"]]


def other_python(folder: Path, *packages: str) -> str:
    """Make a virtual environment with packages; the test is skipped where they cannot be had."""
    uv = Path(sys.executable).parent / "uv"
    python = folder / "venv" / "bin" / "python"
    for command in ([uv, "venv", "-q", "--python", sys.executable, folder / "venv"],
                    [uv, "pip", "install", "-q", "--python", python, *packages]):  # fmt: skip
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=280)
        if done.returncode:
            pytest.skip(f"{' '.join(packages)} cannot be installed beside: {done.stderr[-300:]}")
    return str(python)


def test_rows_have_licences_of_their_own(tmp_path):
    """A column named by `columns: {licence: ...}`: filtered by row, counted in the card."""
    terms = ["CC-BY-4.0", "CC-BY-NC-4.0", None, "CC0-1.0 (images); as given", "", "CC-BY-4.0"]
    rows = [sample("gqa", "vqa", i, source={"passthrough": {"terms": term}}) for i, term in enumerate(terms)]
    write_cleaned(tmp_path / "cleaned", "gqa", rows, splits=2)
    (tmp_path / "mine.yaml").write_text("extends: default\ngqa: {licence: MIT, columns: {licence: terms}}\n")
    flags = ["--catalog", str(tmp_path / "mine.yaml")]
    every = build(tmp_path / "cleaned", tmp_path / "every", *flags)
    counted = every.record["licences"]["gqa"]
    assert {name: counts["samples"] for name, counts in counted.items()} == {
        "CC-BY-4.0": 2, "CC-BY-NC-4.0": 1, "CC0-1.0": 1, "MIT": 2,
    }  # fmt: skip
    card = (tmp_path / "every" / "DATACARD.md").read_text()
    assert "| gqa | by row, below |" in card and f"| CC-BY-4.0 | 2 | {counted['CC-BY-4.0']['tokens']:,} |" in card
    assert json.loads((tmp_path / "every" / "croissant.json").read_text())["license"] == sorted(counted)
    some = build(tmp_path / "cleaned", tmp_path / "some", "--licences", "CC-BY,CC0", *flags)
    assert set(some.record["licences"]["gqa"]) == {"CC-BY-4.0", "CC0-1.0"} and some.record["samples"] == 3
    assert "- 3 left out: licence\n" in (tmp_path / "some" / "DATACARD.md").read_text()
    plain = build(tmp_path / "cleaned", tmp_path / "plain")
    assert "licences" not in plain.record and plain.record["samples"] == 6
