"""Ranks, device meshes, and how a model is cut over them: tensor parallel first, then FSDP2.

One process in float32 uses neither. Everything else goes through FSDP2, a single GPU too: it is what keeps float32
master weights beside bfloat16 computation.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from trainer.stages import Settings


@dataclass(frozen=True)
class World:
    """This process among all. `mesh` has dimensions "dp" and "tp"; None when nothing is distributed."""

    device: torch.device
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    joined: bool = False  # by us; Ray Train joins, and leaves, by itself

    @property
    def dp_rank(self) -> int:
        return self.mesh["dp"].get_local_rank() if self.mesh else 0

    @property
    def dp_size(self) -> int:
        return self.mesh["dp"].size() if self.mesh else 1

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
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def join_world(settings: Settings, device: str) -> World:
    """Join the ranks that torchrun (or Ray Train) started. `device` is "cpu" or "cuda".

    Raises ValueError when the ranks cannot be divided by `tensor_parallel`.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if size % settings.tensor_parallel:
        raise ValueError(f"{size} ranks cannot be divided into tensor-parallel groups of {settings.tensor_parallel}")
    local = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(local)
    if size == 1 and settings.precision == "fp32":
        return World(local)
    joined = not dist.is_initialized()
    if joined:
        store = {} if size > 1 else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30), **store)
    shape = (size // settings.tensor_parallel, settings.tensor_parallel)
    return World(local, rank, size, init_device_mesh(device, shape, mesh_dim_names=("dp", "tp")), joined)


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
    lone = world.dp_size == 1
    policy = MixedPrecisionPolicy()
    if settings.precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    # A lone rank need not gather anything: its frozen parts stay plain bfloat16, its trained ones unsharded.
    ignored = {p for p in model.parameters() if not p.requires_grad} if lone else set()
    units = [*model.vision.transformer.resblocks, model.vision, model.adapter, *_layers(model), model]
    for unit in units:
        if not lone or any(p.requires_grad for p in unit.parameters()):
            fully_shard(
                unit, mesh=world.mesh["dp"], mp_policy=policy, ignored_params=ignored, reshard_after_forward=not lone
            )
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Gradients are sums over all ranks; the loop divides by the step's supervised tokens. A plain sum, since
            # gloo has no other.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


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
