"""The GPU day: every step in its form for a CPU, what goes on where, and that nothing wrong is called done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_day
from benchmarks.gpu import parity
from benchmarks.gpu.day import Day, Step, do
from benchmarks.gpu_day import in_a_process, run, write_page
from tests.tiny_stage import make_stage

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_step_runs_and_a_missing_package_skips_its_steps_alone(tmp_path):
    """Ray and open_clip are hidden, as they are missing on a bare GPU machine."""
    prepared = tmp_path / "day"
    gpu_day.prepare(prepared, tiny=True, pictures=64, photos=None)
    for name in ("ray", "open_clip"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name={name!r})")
    command = [sys.executable, str(ROOT / "benchmarks/gpu_day.py"), "run", "--tiny", "--output", str(prepared)]
    where = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--minutes", "20"], env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    day = Day(prepared / "prepared", prepared / "results", tiny=True)
    outcomes = {step.name: day.result(step.name)["outcome"] for step in gpu_day.steps()}
    skipped = {name for name, outcome in outcomes.items() if outcome == "skipped"}
    assert skipped == {"clip-L", "clip-bigG"} and set(outcomes.values()) == {"done", "skipped"}
    assert all(day.result(name)["checks"] for name in ("parity", "resume", "jpeg"))
    assert day.values("resume")["steps"] == 6 and day.values("learn")["scores"]["stage 1"].keys() == {"caption"}
    for name in ("2b-1", "2b-2", "qwen-vl-1", "2b-2-compiled"):
        assert day.values(name)["tflops"] > 0 and day.values(name)["estimated_gib"] > 0
    page = (prepared / "page.md").read_text()
    assert "open_clip is not installed here" in page and page.count("\n## ") == len(outcomes)
    again = subprocess.run(command, env=where, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, "")  # nothing is left to do


def test_a_path_that_computes_something_else_is_found_out(tmp_path, monkeypatch):
    day = Day(tmp_path / "prepared", tmp_path / "results", tiny=True)
    make_stage(day.stage_folder(2, 16), tasks=("caption",), per_task=4, per_pack=2)
    step = Step("parity", "", parity.compare, 60)
    assert do(step, day)["outcome"] == "done"

    def leaky(query, key, value, spans, scaling):  # each span also sees the one before it
        whole = parity.attention.Spans.of((sum(spans.lengths),))
        return parity.dense(query, key, value, whole, scaling)

    monkeypatch.setattr(parity.attention, "span_by_span", leaky)
    found = do(step, day)
    assert found["outcome"] == "wrong" and not found["checks"]["isolated: cpu, span by span"]
    assert "**NO**" in page_of(day, monkeypatch, step)


def page_of(day, monkeypatch, *steps):
    monkeypatch.setattr(gpu_day, "steps", lambda: list(steps))
    write_page(day)
    return (day.results.parent / "page.md").read_text()


def test_close_judges_bfloat16_by_what_the_cpu_loses():
    half = parity.Way("cuda", torch.bfloat16)
    off = {parity.CPU_HALF: {"logits": 0.02}, "good": {"logits": 0.03}, "bad": {"logits": 0.05}}
    assert parity.close(off, "good", half) and not parity.close(off, "bad", half)
    assert not parity.close({"x": {"logits": 2e-4}}, "x", parity.Way("cuda"))


def test_what_failed_or_was_stopped_is_tried_again_and_what_is_done_is_not(tmp_path, monkeypatch):
    day = Day(tmp_path / "prepared", tmp_path / "results", tiny=True)
    asked = []

    def pretend(step, day, seconds):
        asked.append(step.name)
        return day.write(step.name, outcome=step.flags["outcome"], seconds=1, values={}, checks={}, reason="why")

    outcomes = ("done", "wrong", "skipped", "failed", "stopped")
    steps = [Step(name, "", None, 1, {"outcome": name}) for name in outcomes]
    monkeypatch.setattr(gpu_day, "in_a_process", pretend)
    monkeypatch.setattr(gpu_day, "steps", lambda: steps)
    assert not run(day, 1, None, again=False) and asked == list(outcomes)
    asked.clear()
    run(day, 1, None, again=False)
    assert asked == ["failed", "stopped"]
    asked.clear()
    run(day, 1, ["done"], again=True)
    assert asked == ["done"]
    asked.clear()
    run(day, 0, None, again=True)
    assert asked == []  # no time


def test_a_step_over_its_time_is_stopped_with_all_its_processes(tmp_path, monkeypatch):
    script = tmp_path / "slow.py"
    script.write_text("import subprocess, sys\nsubprocess.run(['sleep', '60'])\nsys.exit(3)")
    monkeypatch.setattr(gpu_day, "__file__", str(script))
    day = Day(tmp_path / "prepared", tmp_path / "results", tiny=True)
    day.results.mkdir()
    assert in_a_process(Step("slow", "", None, 1), day, 0.5)["outcome"] == "stopped"
    script.write_text("import sys\nprint('no such thing')\nsys.exit(3)")
    found = in_a_process(Step("broken", "", None, 1), day, 30)
    assert found["outcome"] == "failed" and "no such thing" in found["reason"]
    assert json.loads((day.results / "broken.json").read_text())["step"] == "broken"


def test_a_missing_module_of_ours_is_no_skip(tmp_path):
    day = Day(tmp_path / "prepared", tmp_path / "results", tiny=True)
    for name, expected in (("ray.train", "skipped"), ("trainer.gone", None)):

        def work(day, name=name):
            raise ModuleNotFoundError(name, name=name)

        if expected:
            assert do(Step("s", "", work, 1), day)["outcome"] == expected
        else:
            with pytest.raises(ModuleNotFoundError):
                do(Step("s", "", work, 1), day)
