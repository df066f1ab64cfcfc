"""Run by tests/test_estimate.py in one process per rank: two steps; the most bytes of tensors alive at once."""

import json
import sys

import torch
from torch.profiler import ProfilerActivity, profile

from corpus.packs import StageFolder
from trainer import parallel
from trainer.data import PackBatches, Plan, batches
from trainer.loop import Run, train_step
from trainer.run import build_model
from trainer.sizes import ModelConfig
from trainer.stages import Settings
from trainer.weights import fill, random_source


def peak_bytes(events) -> int:
    """The highest sum of the allocator's own events, which the profiler records."""
    alive = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def main(spec: dict) -> None:
    config = ModelConfig.from_dict(spec["config"])
    settings = Settings(**spec["settings"] | {"trains": tuple(spec["settings"]["trains"])})
    world = parallel.join_world(settings, "cpu")
    folder = StageFolder(spec["data"])
    plan = Plan(spec["packs_per_step"], settings.micro_packs, world.dp_rank, world.dp_size)
    dataset = PackBatches(folder, seed=0, image_size=settings.image_size, attention=settings.attention,
                          image_token=config.image_token)  # fmt: skip
    stream = list(batches(dataset, plan, 0, 2, 0, False))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model = build_model(config, settings, world)
        fill(model, [random_source(config, 0)])
        parallel.optimise(model, settings)
        run = Run(model, settings, world, plan)
        for step in range(2):
            train_step(run, iter(stream[step * plan.micro_batches :]), step)
    fullest = max(stream, key=lambda batch: batch["padded"])
    shape = {"tokens": fullest["padded"], "images": len(fullest["pixels"]), "supervised": len(fullest["labels"])}
    if world.rank == 0:
        with open(spec["out"], "w") as file:
            json.dump({"peak": peak_bytes(seen.profiler.kineto_results.events()), "shape": shape,
                       "micro_batches": plan.micro_batches}, file)  # fmt: skip
    parallel.leave_world(world)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as spec:
        main(json.load(spec))
