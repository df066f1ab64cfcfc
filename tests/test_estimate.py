"""The estimator against what ranks really allocate, and against its own promises."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import synthetic_stage
from corpus.tokens import load_tokenizer
from tests.test_parallel import free_port
from trainer.estimate import GPUS, estimate, fits, main, propose, traffic
from trainer.footprint import Shape, activations, memory, parameters
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import make_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage", "flags"),
    [(1, {}), (2, {}), (2, {"activation_checkpointing": True, "exchange": "micro"})],
    ids=["stage 1", "stage 2", "stage 2 recomputing"],
)
def test_memory_is_what_two_ranks_allocate(stage, flags, tmp_path):
    """At `small` in float32, within 15 %."""
    tokenizer = load_tokenizer()
    config = with_vocabulary(SIZES["small"].config, tokenizer.vocab_size)
    config = replace(config, image_token=tokenizer.image_pad)
    settings = make_settings(stage, "small", micro_packs=1, steps=100, **flags)
    synthetic_stage.make(tmp_path / "stage", stage, config.queries, 8, synthetic_stage.photos(4))
    spec = {"config": config.to_dict(), "settings": settings.to_dict(), "data": str(tmp_path / "stage"),
            "packs_per_step": 4, "out": str(tmp_path / "out.json")}  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    found = allocated(tmp_path / "spec.json", tmp_path / "out.json")
    saved = activations(config, settings, Shape(**found["shape"]))
    expected = sum(memory(config, settings, 2, found["micro_batches"], saved).values())
    assert expected == pytest.approx(found["peak"], rel=0.15)


def allocated(spec: Path, out: Path, ranks: int = 2) -> dict:
    base = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(ranks)}
    base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.memory_worker", str(spec)]
    processes = [subprocess.Popen(command, env=base | {"RANK": str(rank)}, cwd=ROOT) for rank in range(ranks)]
    assert [process.wait(timeout=850) for process in processes] == [0] * ranks
    return json.loads(out.read_text())


def test_a_configuration_that_does_not_fit_is_refused_with_one_that_does(capsys):
    assert main(["--size", "2b", "--stage", "2", "--gpus", "8", "--micro-packs", "8"]) == 1
    told = capsys.readouterr()
    assert "assumed: packs of 2048 tokens" in told.out
    assert "does not fit: " in told.err and "this does: --micro-packs " in told.err
    assert main(["--size", "2b", "--stage", "2", "--gpus", "8", "--micro-packs", "4"]) == 0


def test_what_is_proposed_fits_and_what_cannot_fit_is_said(capsys):
    for size, stage in (("2b", 1), ("2b", 2), ("qwen-vl", 3)):
        one = propose(size, stage, 8, GPUS["h100"])
        assert one.peak < 80e9 and fits(one, GPUS["h100"])
    assert main(["--size", "qwen-vl", "--stage", "3", "--gpus", "1"]) == 1
    assert "more or larger GPUs are needed" in capsys.readouterr().err


def test_defaults_of_the_big_sizes_fit_on_eight_gpus():
    for size in ("2b", "qwen-vl"):
        for stage in (1, 2, 3):
            one = estimate(size, stage, 8, GPUS["h100"])
            assert fits(one, GPUS["h100"]), (size, stage, one.peak)


def test_recomputation_and_traffic_go_the_right_way():
    plain, again = (estimate("2b", 2, 8, GPUS["h100"], activation_checkpointing=flag) for flag in (False, True))
    assert again.memory["activations"] < plain.memory["activations"] / 3 and again.seconds > plain.seconds
    settings = make_settings(2, "2b", precision="bf16")
    trained, frozen, _ = parameters(SIZES["2b"].config, settings)
    assert frozen == 0 and traffic(settings, trained, 8, 8).inside == trained * (2 + 4)
    each = traffic(replace(settings, exchange="micro"), trained, 8, 8)
    assert each.inside == trained * 8 * (2 * 2 + 4) and each.outside == 0
    assert traffic(settings, trained, 64, 8).outside == 2 * 4 * trained / 8
