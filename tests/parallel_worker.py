"""Run by tests/test_parallel.py in one process per rank: a few steps of each case, results written to files."""

import json
import sys

import torch

from corpus.packs import StageFolder
from trainer import checkpoint, parallel
from trainer.data import PackBatches, Plan, batches
from trainer.loop import Run, train_step
from trainer.run import build_model
from trainer.sizes import ModelConfig
from trainer.stages import Settings
from trainer.weights import fill, random_source


def run_case(spec: dict) -> parallel.World:
    """Take `steps` steps; rank 0 saves the records, the last gradients and the weights to `out`."""
    config = ModelConfig.from_dict(spec["config"])
    values = {**spec["settings"], "trains": tuple(spec["settings"]["trains"])}
    settings = Settings(**values)
    world = parallel.join_world(settings, "cpu")
    model = build_model(config, settings, world)
    fill(model, [random_source(config, 0)])
    parallel.optimise(model, settings)
    plan = Plan(spec["packs_per_step"], spec["micro_packs"], world.dp_rank, world.dp_size)
    run = Run(model, settings, world, plan)
    folder = StageFolder(spec["data"])
    dataset = PackBatches(
        folder, seed=0, image_size=settings.image_size, attention=settings.attention, image_token=config.image_token
    )
    stream = batches(dataset, plan, 0, spec["steps"], 0, False)
    records = [train_step(run, stream, step) for step in range(spec["steps"])]
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    full = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in gradients.items()}
    weights = checkpoint.full_tensors(model, world)
    if world.rank == 0:
        torch.save({"records": records, "gradients": full, "weights": weights}, spec["out"])
    return world


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as cases:
        worlds = [run_case(case) for case in json.load(cases)]
    parallel.leave_world(worlds[0])
