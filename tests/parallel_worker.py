"""Run by tests/test_parallel.py in one process per rank: a few steps of each case, results written to files."""

import json
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corpus.packs import StageFolder
from trainer import checkpoint, loop, parallel
from trainer.data import PackBatches, Plan, batches
from trainer.loop import Run, train_step
from trainer.run import build_model
from trainer.sizes import ModelConfig
from trainer.stages import Settings
from trainer.weights import fill, random_source


class Traffic(TorchDispatchMode):
    """Counts the bytes of tensors that this rank puts into or gets out of collectives, by kind."""

    def __init__(self):
        super().__init__()
        self.bytes = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if function.namespace in ("c10d", "_c10d_functional") and "wait" not in name and "barrier" not in name:
            tensors = [x for x in tree_leaves(args) if isinstance(x, torch.Tensor)]
            self.bytes[name] = self.bytes.get(name, 0) + max(t.nbytes for t in tensors)
        return function(*args, **(kwargs or {}))


@contextmanager
def disturbed():
    """Let the gradients of vectors differ from rank to rank, as rounding would, before the ranks agree on them."""

    def disturb(parameters, world):
        for parameter in parameters:
            if parameter.ndim == 1:
                parameter.grad.mul_(1 + world.rank)
        parallel.agree(parameters, world)

    loop.agree = disturb
    yield
    loop.agree = parallel.agree


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
    with Traffic() as traffic, disturbed() if spec["disturb"] else nullcontext():
        records = [train_step(run, stream, step) for step in range(spec["steps"])]
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    full = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in gradients.items()}
    weights = checkpoint.full_tensors(model, replace(world, rank=0))  # on every rank
    norms = world.gather([tensor for name, tensor in weights.items() if "layernorm" in name])
    if world.rank == 0:
        torch.save({"records": records, "gradients": full, "weights": weights, "bytes": traffic.bytes, "norms": norms},
                   spec["out"])  # fmt: skip
    return world


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as cases:
        worlds = [run_case(case) for case in json.load(cases)]
    parallel.leave_world(worlds[0])
