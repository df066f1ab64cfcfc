"""AdamW's parameter groups, the learning-rate schedule, and the gradient norm of a sharded model."""

import math
import re
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate

from trainer.stages import Settings

# Not decayed, as in BEiT and open_clip: vectors (biases, norms), positions, and the adapter's queries.
_UNDECAYED = ("positional_embedding", "adapter.query")


def make_optimizer(model: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW over the trained parameters, grouped by part, learning-rate scale and weight decay."""
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.partition(".")[0]
        scale = lr_scale(name, model.config.vision.layers, settings.layer_decay)
        decay = 0.0 if parameter.ndim < 2 or name.endswith(_UNDECAYED) else settings.weight_decay
        group = {"params": [], "part": part, "lr_scale": scale, "weight_decay": decay}
        groups.setdefault((part, scale, decay), group)["params"].append(parameter)
    common: dict[str, Any] = {"lr": settings.peak_lr, "betas": (settings.beta1, settings.beta2), "eps": settings.eps}
    cuda = next(model.parameters()).device.type == "cuda"
    if settings.optimizer_bits == 8:
        return _make_8_bit(list(groups.values()), common, compiled=cuda)
    return torch.optim.AdamW(list(groups.values()), **common, fused=cuda)


def _make_8_bit(groups: list[dict], common: dict, compiled: bool) -> torch.optim.Optimizer:
    """torchao's AdamW, its moments in blocks of 256 with a scale each (Dettmers et al. 2021). It compiles its kernel,
    which on a CPU takes longer than it saves."""
    from torchao.optim import AdamW8bit

    optimizer = AdamW8bit(groups, **common)
    if not compiled:
        optimizer.step = torch.compiler.set_stance("force_eager")(optimizer.step)
    return optimizer


def lr_scale(name: str, layers: int, decay: float) -> float:
    """Layer-wise decay of the tower: decay ** (layers - i) in block i, one power more below the blocks, else 1."""
    if not name.startswith("vision."):
        return 1.0
    block = re.search(r"resblocks\.(\d+)\.", name)
    return decay ** (layers - int(block[1])) if block else decay ** (layers + 1)


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up to the peak at step `warmup` - 1, then a cosine that ends at the minimum. `step` counts from 0."""
    if step < settings.warmup:
        return settings.peak_lr * (step + 1) / settings.warmup
    done = (step - settings.warmup + 1) / (settings.steps - settings.warmup)
    return settings.min_lr + (settings.peak_lr - settings.min_lr) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> dict[str, float]:
    """Set each group's rate; return the highest per part."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        own = rate * group["lr_scale"]
        rates[group["part"]] = max(rates.get(group["part"], 0.0), own)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
    return rates


def gradient_norm(parameters) -> torch.Tensor:
    """The L2 norm over all gradients, whatever mesh each is sharded on; one reduction per kind of sharding."""
    sums: dict[tuple, torch.Tensor] = {}
    groups: dict[tuple, list] = {}
    for parameter in parameters:
        grad = parameter.grad
        if grad is None:
            continue
        local, sharded = (grad.to_local(), _sharding_groups(grad)) if isinstance(grad, DTensor) else (grad, [])
        key = tuple(id(group) for group in sharded)
        groups[key] = sharded
        # In float32 the sum over a big embedding is off in the fifth digit, and differently for each sharding.
        square = torch.linalg.vector_norm(local, dtype=torch.float64).square()
        sums[key] = sums.get(key, 0.0) + square
    for key, sharded in groups.items():
        for group in sharded:
            torch.distributed.all_reduce(sums[key], group=group)
    return sum(sums.values()).sqrt().float()


def _sharding_groups(grad: DTensor) -> list:
    """Process groups over which a gradient is cut: their ranks hold different pieces, not copies."""
    mesh = grad.device_mesh
    return [mesh.get_group(i) for i, p in enumerate(grad.placements) if not isinstance(p, Replicate)]


@torch.no_grad()
def scale_gradients(parameters, factor: torch.Tensor) -> None:
    """Multiply all gradients, in place."""
    grads = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(grads, factor)
