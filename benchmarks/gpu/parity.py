"""The same numbers on both devices: logits, losses and gradients, for each path that attention can take.

The reference is the CPU in float32 with a dense mask, which no path of the trainer's uses.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
import torch.nn.functional as F

from benchmarks.gpu.day import Day
from corpus.packs import StageFolder
from trainer import attention, parallel
from trainer.data import PackBatches
from trainer.run import build_model
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import make_settings
from trainer.weights import fill, random_source

# Largest relative difference: of float32's rounding over a dozen layers, of bfloat16's on the CPU, and how much more
# than that another way in bfloat16 may be off.
FLOAT, HALF, TIMES = 1e-4, 0.1, 2.0
CPU_HALF = "cpu, bf16"


@dataclass(frozen=True)
class Way:
    """One way to compute: a device, a precision, an attention function (None: the trainer's own choice)."""

    device: str
    dtype: torch.dtype = torch.float32
    path: Callable | None = None
    compiled: bool = False


def dense(query, key, value, spans, scaling):
    """SDPA under a boolean mask [T, T]: slow, simple, and independent of how spans are cut."""
    of = torch.repeat_interleave(torch.arange(len(spans.lengths)), torch.tensor(spans.lengths)).to(query.device)
    mask = (of[:, None] == of).tril()
    gqa = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=gqa)
    return out[0].transpose(0, 1)


REFERENCE = Way("cpu", path=dense)


def ways(day: Day) -> dict[str, Way]:
    spans, kernel, half = attention.span_by_span, attention.one_kernel, torch.bfloat16
    found = {"cpu, span by span": Way("cpu", path=spans), CPU_HALF: Way("cpu", half, spans)}
    if day.tiny:
        return found
    return found | {
        "cuda, span by span": Way("cuda", path=spans),
        "cuda, bf16, span by span": Way("cuda", half, spans),
        "cuda, bf16, one kernel": Way("cuda", half, kernel),
        "cuda, bf16, one kernel, compiled": Way("cuda", half, kernel, compiled=True),
        "cuda, bf16, dense mask": Way("cuda", half, dense),
    }


def compare(day: Day) -> dict:
    """Relative differences by way and kind of attention: |x - reference| over |reference|, in the L2 norm."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    values, checks = {}, {}
    for kind in attention.ATTENTION:
        batch, make = setting(day, kind)
        wanted = outputs(make, REFERENCE, batch)
        off = {}
        for name, way in ways(day).items():
            found = outputs(make, way, batch)
            off[name] = {part: relative(found[part], wanted[part]) for part in wanted}
        values[kind] = off
        checks |= {f"{kind}: {name}": close(off, name, way) for name, way in ways(day).items()}
    return values | {"checks": checks}


def close(off: dict, name: str, way: Way) -> bool:
    if way.dtype == torch.float32:
        return max(off[name].values()) < FLOAT
    if name == CPU_HALF:
        return max(off[name].values()) < HALF
    return all(value < TIMES * off[CPU_HALF][part] for part, value in off[name].items())


def setting(day: Day, kind: str):
    """A batch of two packs, and a function that makes the model; the tower's position table is interpolated."""
    size = "tiny" if day.tiny else "small"
    settings = make_settings(2, size, attention=kind, image_size=168 if day.tiny else 448)
    config = SIZES[size].config
    folder = StageFolder(str(day.stage_folder(2, config.queries)))
    tokenizer = folder.tokenizer()
    config = replace(with_vocabulary(config, tokenizer.vocab_size), image_token=tokenizer.image_pad)
    dataset = PackBatches(
        folder, seed=0, image_size=settings.image_size, attention=kind, image_token=tokenizer.image_pad
    )

    def make():
        model = build_model(config, settings, parallel.World(torch.device("cpu")))
        fill(model, [random_source(config, 0)])
        return model

    return dataset[(0, 1)], make


def outputs(make, way: Way, batch: dict) -> dict[str, torch.Tensor]:
    """Logits, losses and each part's gradients, float32 on the CPU."""
    model, logits = make().to(way.device, way.dtype), []
    if way.compiled:
        parallel.optimise(model, make_settings(2, "tiny", compile=True))
    head = model.language.get_output_embeddings()
    with head.register_forward_hook(lambda _, __, out: logits.append(out.detach())), chosen(way):
        total, each = model(attention.to_device(batch, way.device))
        total.backward()
    grads = {name: [p.grad.flatten() for p in part.parameters()] for name, part in model.named_children()}
    found = {"logits": torch.cat(logits), "losses": each} | {
        f"gradients of {name}": torch.cat(parts) for name, parts in grads.items()
    }
    return {name: tensor.float().cpu() for name, tensor in found.items()}


def chosen(way: Way):
    return patch.object(attention, "path_for", (lambda _: way.path) if way.path else attention.path_for)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()
