"""Speed of training at real sizes on one device: random weights, synthetic shards, the real loader and loop."""

import time
from dataclasses import replace

import torch

from benchmarks.gpu.day import Day
from corpus.packs import StageFolder
from trainer import parallel
from trainer.data import PackBatches, Plan, batches
from trainer.estimate import GIB, GPUS, estimate
from trainer.loop import Run, train_step
from trainer.run import build_model
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import make_settings
from trainer.weights import fill, random_source

WARM_UP = 2  # steps that compile and fill caches, left out of the averages
STEPS = 6
ACCUMULATION = 4
GROUPS = {
    "matrix products": ("gemm", "cutlass", "nvjet", "cublas", "mm"),
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "optimizer": ("adam", "multi_tensor"),
    "copies and casts": ("copy", "memcpy", "memset", "cat"),
    "norms": ("norm",),
}


def measure(day: Day, size: str, stage: int, micro_packs: int | None = None, **flags) -> dict:
    """Average a few steps: MFU (docs/training.md has the formula), rates, memory, share of the time spent waiting."""
    size = "tiny" if day.tiny else size
    run, stream = start(day, size, stage, micro_packs or SIZES[size].micro_packs, **flags)
    try:
        records = [train_step(run, stream, step) for step in range(WARM_UP + (1 if day.tiny else STEPS))]
        return {"size": size, "stage": stage, **flags, **summary(run, records[WARM_UP:])}
    finally:
        parallel.leave_world(run.world)


def profile(day: Day, size: str, stage: int, **flags) -> dict:
    """How the device time of one step divides among kinds of kernels, in seconds and in shares of the wall time."""
    size = "tiny" if day.tiny else size
    run, stream = start(day, size, stage, SIZES[size].micro_packs, **flags)
    try:
        for step in range(WARM_UP):
            train_step(run, stream, step)
        return {"size": size, "stage": stage, **flags, **where_time_goes(run, stream)}
    finally:
        parallel.leave_world(run.world)


def profile_worst(day: Day) -> dict:
    """Profile the measured run of `2b` that reached the lowest MFU; stage 2 where none was measured."""
    measured = [values for name in ("2b-1", "2b-2") if (values := day.values(name)) and values["mfu"]]
    worst = min(measured, key=lambda values: values["mfu"], default={"stage": 2})
    return profile(day, "2b", worst["stage"])


def start(day: Day, size: str, stage: int, micro_packs: int, **flags):
    """A model with random weights and the stream of its batches."""
    settings = make_settings(stage, size, steps=1000, precision="fp32" if day.tiny else "bf16", **flags)
    world = parallel.join_world(settings, day.device)
    folder = StageFolder(str(day.stage_folder(stage, SIZES[size].config.queries)))
    config = with_vocabulary(SIZES[size].config, folder.tokenizer().vocab_size)
    config = replace(config, image_token=folder.tokenizer().image_pad)
    model = build_model(config, settings, world)
    fill(model, [random_source(config, 0, world.device)])
    parallel.optimise(model, settings)
    run = Run(model, settings, world, Plan(micro_packs * (1 if day.tiny else ACCUMULATION), micro_packs))
    return run, open_stream(day, folder, run)


def open_stream(day: Day, folder: StageFolder, run: Run):
    dataset = PackBatches(
        folder, seed=0, image_size=run.settings.image_size, attention=run.settings.attention,
        image_token=run.model.config.image_token,
        pad_to=folder.max_tokens * run.plan.micro_packs if run.settings.compile else 8,
    )  # fmt: skip
    return batches(dataset, run.plan, 0, 10_000, 0 if day.tiny else 12, day.device == "cuda")


def summary(run: Run, records: list[dict]) -> dict:
    seconds = sum(record["seconds"] for record in records)
    flops = sum(record["flops_per_second"] * record["seconds"] for record in records)
    cuda = run.world.device.type == "cuda"
    return {
        "micro_packs": run.plan.micro_packs, "micro_batches": run.plan.micro_batches,
        "mfu": records[0]["mfu"] and mean(records, "mfu"),
        "tflops": flops / seconds / 1e12, "seconds_per_step": seconds / len(records),
        **{f"{name}_per_second": sum(r[name] for r in records) / seconds for name in ("tokens", "images", "samples")},
        "data_wait": mean(records, "data_wait"),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "estimated_gib": expected_gib(run), "loss": records[-1]["loss"],
    }  # fmt: skip


def mean(records: list[dict], name: str) -> float:
    """Weighted by time."""
    return sum(r[name] * r["seconds"] for r in records) / sum(r["seconds"] for r in records)


def expected_gib(run: Run) -> float:
    """What trainer.estimate says of the same run; its packs are the fullest that there are."""
    s = run.settings
    one = estimate(s.size, s.stage, 1, GPUS["h200"], precision=s.precision, micro_packs=run.plan.micro_packs,
                   activation_checkpointing=s.activation_checkpointing, exchange=s.exchange)  # fmt: skip
    return one.peak / GIB


def where_time_goes(run: Run, stream) -> dict:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = run.world.device.type == "cuda"
    began = time.perf_counter()
    with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as events:
        train_step(run, stream, WARM_UP)
    wall = time.perf_counter() - began
    totals = dict.fromkeys([*GROUPS, "rest"], 0.0)
    for event in events.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        totals[kind_of(event.key)] += spent / 1e6
    totals["not on the device"] = wall - sum(totals.values())
    out = {f"{kind}, s": seconds for kind, seconds in totals.items()}
    return out | {f"{kind}, share": seconds / wall for kind, seconds in totals.items()}


def kind_of(kernel: str) -> str:
    return next((kind for kind, words in GROUPS.items() if any(word in kernel.lower() for word in words)), "rest")
