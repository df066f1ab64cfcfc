"""Two gloo processes on the CPU against one: the same losses and gradients, however the work is divided."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from corpus.tokens import load_tokenizer
from tests.parallel_worker import run_case
from tests.tiny_stage import QUERIES, make_stage
from trainer.progress import read_metrics
from trainer.run import Job, run_stage
from trainer.sizes import SIZES, qwen2
from trainer.stages import make_settings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent


def small_config():
    tokenizer = load_tokenizer()
    rows = -(-tokenizer.vocab_size // 64) * 64
    config = SIZES["tiny"].config
    vision = replace(config.vision, width=32, heads=2, mlp_width=64, image_size=56)
    return replace(
        config, vision=vision, language=qwen2(32, 2, 4, 64, rows), queries=QUERIES, adapter_heads=4,
        image_token=tokenizer.image_pad, image_marks=(tokenizer.image_start, tokenizer.image_end),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    tasks = ("caption", "text", "ocr", "referring")
    return make_stage(tmp_path_factory.mktemp("corpus") / "stage", tasks=tasks, per_task=4, per_pack=2)


def case(folder, data, name: str, *, micro_packs=1, packs=4, steps=2, stage=2, disturb=False, **flags) -> dict:
    """What tests/parallel_worker.py is to do.

    A large epsilon keeps AdamW from blowing rounding noise in a tiny gradient up to a full step.
    """
    settings = make_settings(stage, "tiny", **{"image_size": 56, "steps": 100, "peak_lr": 1e-3, "eps": 1e-3, **flags})
    return {
        "config": small_config().to_dict(), "settings": settings.to_dict(), "data": str(data), "steps": steps,
        "packs_per_step": packs, "micro_packs": micro_packs, "out": str(folder / f"{name}.pt"),
        "disturb": disturb,
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(folder, cases: list[dict], ranks: int) -> None:
    """Run the cases one after another in `ranks` processes."""
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    base = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(ranks)}
    base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.parallel_worker", str(path)]
    processes = [
        subprocess.Popen(command, env=base | {"RANK": str(rank)}, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=250)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)[-4000:]


def assert_same(a: dict, b: dict, tolerance=1e-5):
    for x, y in zip(a["records"], b["records"], strict=True):
        assert abs(x["loss"] - y["loss"]) < tolerance
        assert abs(x["grad_norm"] - y["grad_norm"]) < tolerance * max(1, x["grad_norm"])
        assert (x["samples"], x["supervised"]) == (y["samples"], y["supervised"])
        assert x["loss_per_task"].keys() == y["loss_per_task"].keys()
    assert a["gradients"].keys() == b["gradients"].keys()
    for name, gradient in a["gradients"].items():
        assert (gradient - b["gradients"][name]).abs().max() < tolerance, name


CASES = {
    "data parallel": {},
    "every micro-batch": {"exchange": "micro"},
    "tensor parallel": {"tensor_parallel": 2},
    "tensor parallel, compiled": {"tensor_parallel": 2, "compile": True},
    "tensor parallel, disturbed": {"tensor_parallel": 2, "disturb": True},
    "eight micro-batches": {"packs": 16, "steps": 1},
    "eight micro-batches, every one": {"packs": 16, "steps": 1, "exchange": "micro"},
    "eight micro-batches, frozen": {"packs": 16, "steps": 1, "stage": 1},
    "uneven": {"packs": 3},
    "frozen language model": {"stage": 1, "image_rows": True},
    "frozen tower": {"stage": 3, "activation_checkpointing": True},
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, data):
    """All cases, by two ranks."""
    folder = tmp_path_factory.mktemp("two")
    launch(folder, [case(folder, data, name, **options) for name, options in CASES.items()], 2)
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in CASES}


@pytest.fixture
def one_rank(tmp_path, data):
    """Return a function that runs a case in this process."""

    def run(**options):
        run_case(case(tmp_path, data, "one", **options))
        return torch.load(tmp_path / "one.pt", weights_only=True)

    return run


def test_one_rank_accumulating_4_equals_two_ranks_accumulating_2(one_rank, two_ranks):
    alone = one_rank()
    assert_same(alone, two_ranks["data parallel"])
    assert_same(alone, two_ranks["every micro-batch"])
    assert max(g.abs().max() for g in alone["gradients"].values()) > 1e-3  # there was something to compare


def test_tensor_parallel_equals_one_rank(one_rank, two_ranks):
    assert_same(one_rank(), two_ranks["tensor parallel"])
    assert_same(one_rank(), two_ranks["tensor parallel, compiled"])


def test_what_tensor_parallel_ranks_hold_whole_stays_the_same_on_both(two_ranks):
    first, second = two_ranks["tensor parallel, disturbed"]["norms"]
    assert len(first) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = two_ranks["tensor parallel"]["norms"][0]
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))  # it was disturbed


def moved(result, *kinds) -> int:
    return sum(n for name, n in result["bytes"].items() if name in kinds)


def size_of(result) -> int:
    """Bytes of the float32 gradients: of what trains."""
    return sum(g.nbytes for g in result["gradients"].values())


def test_ranks_exchange_weights_and_gradients_once_a_step(two_ranks):
    once, each = two_ranks["eight micro-batches"], two_ranks["eight micro-batches, every one"]
    assert_same(once, each)
    assert moved(once, *once["bytes"]) < moved(each, *each["bytes"]) / 4
    assert size_of(once) <= moved(once, "_allgather_base_") < 1.1 * size_of(once)
    assert size_of(once) <= moved(once, "_reduce_scatter_base_") < 1.1 * size_of(once)


def test_nothing_that_is_frozen_is_sent(two_ranks):
    frozen = two_ranks["eight micro-batches, frozen"]
    assert {name.partition(".")[0] for name in frozen["gradients"]} == {"vision", "adapter", "tail"}
    assert size_of(frozen) <= moved(frozen, "_allgather_base_") < 1.1 * size_of(frozen)


def test_micro_batches_of_any_size_are_the_same_step(one_rank):
    assert_same(one_rank(), one_rank(micro_packs=4))
    assert_same(one_rank(), one_rank(activation_checkpointing=True))


def test_a_step_that_ranks_cannot_share_evenly(one_rank, two_ranks):
    assert_same(one_rank(packs=3), two_ranks["uneven"])


def test_frozen_language_model_with_trained_image_rows(one_rank, two_ranks):
    alone = one_rank(stage=1, image_rows=True)
    assert_same(alone, two_ranks["frozen language model"])
    assert {name.partition(".")[0] for name in alone["gradients"]} == {"vision", "adapter", "tail", "image_rows"}


def test_frozen_tower_with_recomputation(one_rank, two_ranks):
    alone = one_rank(stage=3)
    assert_same(alone, two_ranks["frozen tower"])
    assert {name.partition(".")[0] for name in alone["gradients"]} == {"adapter", "language"}


def test_bf16_computes_beside_float32_master_weights(one_rank, two_ranks):
    exact, rounded = one_rank(), two_ranks["bf16"]
    assert {t.dtype for t in rounded["weights"].values()} == {torch.float32}
    for x, y in zip(exact["records"], rounded["records"], strict=True):
        assert 0 < abs(x["loss"] - y["loss"]) < 0.02


def test_two_by_two_ranks(tmp_path, data, one_rank):
    """Data parallel over tensor parallel, where a tensor is cut twice along one dimension; and two copies of two."""
    forms = {"layers": {"tensor_parallel": 2}, "copies": {"shard_ranks": 2},
             "copies, every micro-batch": {"shard_ranks": 2, "exchange": "micro"}}  # fmt: skip
    launch(tmp_path, [case(tmp_path, data, name, packs=8, **form) for name, form in forms.items()], 4)
    alone = one_rank(packs=8)
    for form in forms:
        four = torch.load(tmp_path / f"{form}.pt", weights_only=True)
        assert_same(alone, four)
        assert ("allreduce_" in four["bytes"]) and moved(four, "_reduce_scatter_base_")
        for name, tensor in alone["weights"].items():
            assert (tensor - four["weights"][name]).abs().max() < 1e-5, name


def test_a_run_of_one_rank_goes_on_with_two(tmp_path, data):
    flags = {"steps": 6, "save_every": 3, "batch": 8, "keep": 2, "eps": 1e-3, "image_size": 56}
    whole = Job(stage=2, data=str(data), output=tmp_path / "whole", flags=flags)
    run_stage(whole)
    shutil.copytree(whole.output, tmp_path / "half")
    (tmp_path / "half" / "checkpoints" / "latest").write_text("step-00000003")
    command = f"--stage 2 --data {data} --output {tmp_path / 'half'} --resume auto --device cpu " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in flags.items()
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, "-m", "trainer", *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 3" in done.stdout
    for x, y in zip(read_metrics(whole.output), read_metrics(tmp_path / "half"), strict=True):
        assert (x["step"], x["samples"], x["supervised"]) == (y["step"], y["samples"], y["supervised"])
        assert abs(x["loss"] - y["loss"]) < 1e-5 and abs(x["grad_norm"] - y["grad_norm"]) < 1e-4


def test_ranks_must_be_divisible_by_tensor_parallel():
    from trainer.parallel import join_world

    with pytest.raises(ValueError, match="1 ranks cannot be divided"):
        join_world(make_settings(2, "tiny", tensor_parallel=2), "cpu")
