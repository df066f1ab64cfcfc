"""pipelines/train.py: the command line's run, started by Ray Train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import train
from pipelines.engine import cluster
from tests.tiny_stage import make_stage
from trainer.progress import read_metrics

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def arguments(tmp_path):
    data = make_stage(tmp_path / "stage", stage=1, tasks=("caption",), per_task=8, per_pack=2)
    return ["--stage", "1", "--data", str(data), "--output", str(tmp_path / "run"), "--steps", "2", "--batch", "4"]


def test_flags_become_the_same_run_and_a_restart_goes_on(arguments, tmp_path, monkeypatch):
    asked = {}

    def in_process(work, job, **options):
        asked.update(options, job=job)
        work(job)

    monkeypatch.setattr(cluster, "train", in_process)
    for _ in range(2):  # the second time there is a finished run, which is no error
        assert train.main([*arguments, "--ranks", "3", "--retries", "1"]) == 0
    assert (asked["ranks"], asked["gpu"], asked["retries"]) == (3, False, 1)
    assert asked["job"].resume == "auto"
    assert [r["step"] for r in read_metrics(tmp_path / "run")] == [1, 2]


def test_a_relative_output_in_an_uploaded_folder_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "in_uploaded_folder", lambda: True)
    with pytest.raises(SystemExit):
        train.main(["--stage", "1", "--data", "D", "--output", "runs/1"])
    assert "runs/1 is relative: it would be lost with Ray's copy" in capsys.readouterr().err


def test_help_comes_without_torch_or_ray():
    code = "import sys, pipelines.train; sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_two_ranks_under_ray_train(arguments, tmp_path):
    command = [sys.executable, str(ROOT / "pipelines" / "train.py"), *arguments, "--ranks", "2", "--device", "cpu"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r["samples"] for r in read_metrics(tmp_path / "run")] == [4, 4]
    assert json.loads((tmp_path / "run" / "export" / "config.json").read_text())["size"] == "tiny"
