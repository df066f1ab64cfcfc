"""The README's and --help's own commands, one after another: cleaned folders, stages, trainings, an answer."""

import re
from pathlib import Path
from unittest.mock import patch

import pytest

from pipelines import build_stage
from tests.cleaned import drawn, sample, write_cleaned
from trainer import __main__ as train
from trainer import generate

ROOT = Path(__file__).resolve().parent.parent
FAST = ["--steps", "1", "--batch", "2", "--warmup", "0", "--image-size", "28"]


def words_of(command: str) -> list[str]:
    """A documented command's words after its name, as it stands there."""
    pages = (ROOT / "README.md").read_text() + train.EXAMPLE
    (found,) = set(re.findall(rf"{re.escape(command)}(.*?)(?:\n|`)", pages))
    return found.split()


@pytest.mark.timeout(200)
def test_build_stage_and_the_trainer_agree_without_a_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for dataset, task in (("coco-caption", "caption"), ("gqa", "vqa")):
        write_cleaned(tmp_path / "cleaned", dataset, [sample(dataset, task, i) for i in range(8)])
    for stage in ("1", "2"):
        built = words_of("python pipelines/build_stage.py")
        built = [*built[: built.index("--stage") + 1], stage, "--data", "cleaned", "--output", f"stage{stage}"]
        with patch("sys.argv", ["build_stage.py", *built, "--workers", "0"]):
            build_stage.main()
    assert train.main([*words_of("`python -m trainer"), *FAST]) == 0
    assert train.main([*words_of("torchrun --nproc-per-node 8 -m trainer --stage 2 --data stage2"), *FAST,
                       "--stage", "2", "--data", "stage2"]) == 0  # fmt: skip
    (tmp_path / "cat.jpg").write_bytes(drawn(1)[0].data)
    asked = generate.EXAMPLE.splitlines()[1].partition("trainer.generate ")[2].split()
    assert generate.main([*asked, "--max-tokens", "3"]) == 0
    assert capsys.readouterr().out


def test_another_number_of_queries_says_what_to_build(tmp_path, capsys):
    write_cleaned(tmp_path / "cleaned", "coco-caption", [sample("coco-caption", "caption", i) for i in range(4)])
    argv = [
        "build_stage.py",
        "--stage",
        "1",
        "--data",
        f"{tmp_path}/cleaned",
        "--output",
        f"{tmp_path}/s",
        "--workers",
        "0",
    ]
    with patch("sys.argv", argv):
        build_stage.main()
    wrong = ["--stage", "1", "--data", f"{tmp_path}/s", "--output", f"{tmp_path}/run", "--queries", "16"]
    assert train.main([*wrong, *FAST]) == 1
    assert "build the stage again with --queries 16, or choose a model with 256" in capsys.readouterr().err
