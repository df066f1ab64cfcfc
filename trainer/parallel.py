"""Ranks, device meshes, and how a model is cut over them: tensor parallel first, then FSDP2.

One process in float32 uses neither. Everything else goes through FSDP2, a single GPU too: it is what keeps float32
master weights beside bfloat16 computation. What is frozen is whole on every rank, and never sent.

Dimensions of the mesh: "replicate" x "shard" x "tp". Ranks of one "shard" group hold pieces of one copy of what trains;
"replicate" groups hold the same piece of different copies; both together are the data-parallel ranks.
"""

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from trainer.stages import Settings


@dataclass(frozen=True)
class World:
    """This process among all. `mesh` is None when nothing is distributed; `group` None is torch's default group."""

    device: torch.device
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    joined: bool = False  # by us; Ray Train joins, and leaves, by itself
    group: dist.ProcessGroup | None = None

    @property
    def tp_size(self) -> int:
        return self.mesh["tp"].size() if self.mesh else 1

    @property
    def dp_rank(self) -> int:
        return self.rank // self.tp_size

    @property
    def dp_size(self) -> int:
        return self.size // self.tp_size

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the data-parallel ranks. The reduction goes over all, so that all get the very same numbers."""
        if self.size > 1:
            dist.all_reduce(values)
        return values / (self.size // self.dp_size)

    def gather(self, value) -> list:
        """Every rank's `value`, a picklable object."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.group)

    def apart(self) -> "World":
        """The same ranks with a group of their own, over the CPU, for another thread. All ranks call it."""
        return replace(self, group=cast("dist.ProcessGroup", dist.new_group(backend="gloo"))) if self.mesh else self


def join_world(settings: Settings, device: str) -> World:
    """Join the ranks that torchrun (or Ray Train) started. `device` is "cpu" or "cuda".

    Raises ValueError when the ranks cannot be divided by `tensor_parallel`, or what is left by `shard_ranks`.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    shape = mesh_shape(settings, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    local = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(local)
    if size == 1 and settings.precision == "fp32":
        return World(local)
    joined = not dist.is_initialized()
    if joined:
        store = {} if size > 1 else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30), **store)
    mesh = init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard", "tp"))
    return World(local, rank, size, mesh, joined)


def mesh_shape(settings: Settings, size: int, node: int) -> tuple[int, int, int]:
    """Copies, ranks that share a copy, ranks that share a layer; of `size` ranks in nodes of `node`.

    By default the ranks of a node share a copy, where that divides the ranks evenly; else all do.
    """
    tp = settings.tensor_parallel
    if size % tp:
        raise ValueError(f"{size} ranks cannot be divided into tensor-parallel groups of {tp}")
    dp, of_node = size // tp, max(1, node // tp)
    shard = settings.shard_ranks or (of_node if dp % of_node == 0 else dp)
    if dp % shard:
        raise ValueError(f"--shard-ranks {shard} does not divide the {dp} data-parallel ranks")
    return dp // shard, shard, tp


def leave_world(world: World) -> None:
    if world.joined:
        dist.destroy_process_group()


# Column-wise layers are cut by heads or by hidden units, row-wise ones sum the pieces up again. Norms, the adapter
# and the embeddings stay whole on every rank.
_LANGUAGE_PLAN = {
    **{f"self_attn.{name}_proj": ColwiseParallel for name in "qkv"},
    "self_attn.o_proj": RowwiseParallel,
    "mlp.gate_proj": ColwiseParallel,
    "mlp.up_proj": ColwiseParallel,
    "mlp.down_proj": RowwiseParallel,
}
_VISION_PLAN = {
    "attn.in_proj": ColwiseParallel,
    "attn.out_proj": RowwiseParallel,
    "mlp.c_fc": ColwiseParallel,
    "mlp.c_proj": RowwiseParallel,
}


def cut(model, settings: Settings, world: World) -> None:
    """Distribute a model, which may lie on the meta device, over the world. Call after `stages.freeze`."""
    if world.mesh is None:
        return
    if settings.tensor_parallel > 1:
        _cut_tensors(model, settings.tensor_parallel, world.mesh["tp"])
    _cut_data_parallel(model, settings, world)


def _cut_tensors(model, ways: int, mesh: DeviceMesh) -> None:
    language = model.language.config
    heads = {"vision": model.config.vision.heads, "language": language.num_attention_heads,
             "language key/value": language.num_key_value_heads}  # fmt: skip
    for what, count in heads.items():
        if count % ways:
            raise ValueError(f"tensor parallel {ways} does not divide the {count} {what} heads")
    for blocks, plan in ((model.vision.transformer.resblocks, _VISION_PLAN), (_layers(model), _LANGUAGE_PLAN)):
        for block in blocks:
            parallelize_module(block, mesh, {name: style() for name, style in plan.items()})


def _layers(model):
    layers = getattr(model.language.base_model, "layers", None)
    if layers is None:
        raise ValueError(f"{type(model.language).__name__} keeps its blocks elsewhere than in `layers`: one rank only")
    return layers


def _cut_data_parallel(model, settings: Settings, world: World) -> None:
    policy = MixedPrecisionPolicy()
    if settings.precision == "bf16":
        reduce = torch.bfloat16 if settings.reduce == "bf16" else torch.float32
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=reduce)
    mesh = world.mesh["replicate", "shard"] if world.mesh["replicate"].size() > 1 else world.mesh["shard"]
    frozen = {p for p in model.parameters() if not p.requires_grad}
    gather_again = settings.exchange == "micro" and world.dp_size > 1
    for unit in [*model.vision.transformer.resblocks, model.vision, model.adapter, *_layers(model), model]:
        if any(p.requires_grad for p in unit.parameters()):
            fully_shard(unit, mesh=mesh, mp_policy=policy, ignored_params=frozen, reshard_after_forward=gather_again)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Gradients are sums over all ranks; the loop divides by the step's supervised tokens. A plain sum, since
            # gloo has no other.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def before_micro_batch(model, settings: Settings, world: World, last: bool) -> None:
    """Say whether this is a step's last micro-batch, after which the ranks exchange gradients.

    exchange "step": weights are gathered in the first micro-batch and kept, gradients reduced in the last. "micro":
    weights are gathered and gradients reduced over the copy's ranks in each; over other copies, in the last. A lone
    rank has nothing to send, and adds each gradient to its float32 sum at once.
    """
    if not isinstance(model, FSDPModule):
        return
    model.set_is_last_backward(last)
    if settings.exchange == "step":
        model.set_requires_gradient_sync(last or world.dp_size == 1)
        model.set_reshard_after_backward(last)
    else:
        model.set_requires_all_reduce(last)


@torch.no_grad()
def agree(parameters, world: World) -> None:
    """Average over tensor-parallel ranks the gradients of what each of them holds whole: norms, adapter, embeddings.

    They compute the same in theory; rounding that differs would let the copies drift apart over a long run.
    """
    if world.tp_size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None or _is_cut_by_layer(parameter.grad):
            continue
        grad = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
        dist.all_reduce(grad, group=world.mesh.get_group("tp"))
        grad /= world.tp_size


def _is_cut_by_layer(tensor) -> bool:
    """Whether tensor-parallel ranks hold different pieces of it. The biases of row-wise layers are whole on each."""
    if not isinstance(tensor, DTensor) or "tp" not in tensor.device_mesh.mesh_dim_names:
        return False
    return not tensor.placements[tensor.device_mesh.mesh_dim_names.index("tp")].is_replicate()


def cast_frozen(model, settings: Settings) -> None:
    """In bf16 runs frozen parameters need no float32 master. Parameters alone: rotary frequencies stay exact."""
    if settings.precision == "bf16":
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)


def optimise(model, settings: Settings) -> None:
    """Switch on recomputation and compilation, block by block. FSDP's hooks stay outside what is compiled."""
    if settings.activation_checkpointing:
        model.vision.activation_checkpointing = True
        # transformers 6 renames it.
        old = model.language.gradient_checkpointing_enable
        getattr(model.language, "activation_checkpointing_enable", old)({"use_reentrant": False})
    if settings.compile:
        for block in [*model.vision.transformer.resblocks, *_layers(model)]:
            block.forward = torch.compile(block.forward)
