"""Where weights come from, and how they get into a model whose tensors may be sharded.

A source is a function: parameter name -> full tensor, or None when it has none of that name. A model is built on the
meta device, sharded, and only then filled, one full tensor at a time: no rank ever holds the whole model twice.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trainer.adapter import sincos_table
from trainer.sizes import ModelConfig

Source = Callable[[str, torch.Size], torch.Tensor | None]
_ROWS_PER_TOKEN = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_out.weight")


def random_source(config: ModelConfig, seed: int, device="cpu") -> Source:
    """Initial weights as a pure function of (seed, name, shape), whatever the sharding and the order of asking."""

    def read(name: str, shape: torch.Size) -> torch.Tensor:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))
        return _initial(name, shape, config, generator, device)

    return read


def _initial(name, shape, config, generator, device) -> torch.Tensor:
    last = name.rpartition(".")[2]
    if last in {"bias", "in_proj_bias"}:
        return torch.zeros(shape, device=device)
    if len(shape) == 1:
        return torch.ones(shape, device=device)
    if name == "vision.positional_embedding":
        return sincos_table(shape[1], round(shape[0] ** 0.5), device)
    out = torch.empty(shape, device=device)
    if name == "adapter.attn.in_proj_weight":
        return nn.init.xavier_uniform_(out, generator=generator)
    if name.startswith("adapter."):
        return nn.init.trunc_normal_(out, std=_language_std(config), generator=generator)
    return out.normal_(0, _std(name, shape, config), generator=generator)


def _std(name, shape, config) -> float:
    """CLIP's own initialisation for the tower but its positions, GPT-2's for the language model."""
    width, layers = config.vision.width, config.vision.layers
    if name == "tail.proj":
        return shape[0] ** -0.5
    if not name.startswith("vision."):
        return _language_std(config)
    if name.endswith("conv1.weight"):
        return (3 * config.vision.patch**2) ** -0.5
    if name.endswith("c_fc.weight"):
        return (2 * width) ** -0.5
    if name.endswith(("out_proj.weight", "c_proj.weight")):
        return width**-0.5 * (2 * layers) ** -0.5
    return width**-0.5


def _language_std(config) -> float:
    """0.02 in Qwen-VL's adapter too; where the language model is narrow and takes more, so does the adapter."""
    return config.language.get("initializer_range", 0.02)


def state_source(state: Mapping[str, torch.Tensor], prefix: str = "") -> Source:
    """Tensors at hand, named without the `prefix` that the model's names begin with."""

    def read(name: str, shape: torch.Size) -> torch.Tensor | None:
        return state.get(name.removeprefix(prefix)) if name.startswith(prefix) else None

    return read


def fill(model: nn.Module, sources: Iterable[Source]) -> None:
    """Copy every parameter from the first source that has it. Raises ValueError on a shape that does not fit.

    An embedding with fewer rows than the model (a tokenizer with added tokens) is completed from later sources.
    """
    sources = list(sources)
    for name, parameter in model.named_parameters():
        copy_into(parameter, _read(name, parameter.shape, sources))


def _read(name: str, shape: torch.Size, sources: list[Source]) -> torch.Tensor:
    for i, source in enumerate(sources):
        full = source(name, shape)
        if full is None:
            continue
        if full.shape == shape:
            return full
        if name.endswith(_ROWS_PER_TOKEN) and full.shape[1:] == shape[1:] and len(full) < shape[0]:
            rest = _read(name, shape, sources[i + 1 :])[len(full) :]
            return torch.cat([full.to(rest.dtype), rest.to(full.device)])
        raise ValueError(f"{name} has shape {tuple(full.shape)} in the weights, {tuple(shape)} in the model")
    raise ValueError(f"no weights for {name}")


@torch.no_grad()
def copy_into(parameter: torch.Tensor, full: torch.Tensor) -> None:
    """Copy this rank's piece of a full tensor, without communication."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(full)
        return
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(full.shape, parameter.device_mesh, parameter.placements)
    piece = full[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    parameter.to_local().copy_(piece)


def materialise(model: nn.Module, device) -> None:
    """Give a meta model memory, and compute again what is no parameter: position tables, rotary frequencies."""
    model.to_empty(device=device)
    model.adapter.fill_buffers()
    for module in model.language.modules():
        if hasattr(module, "inv_freq"):
            module.__init__(module.config)
            module.to(device)
    if model.language.config.tie_word_embeddings:
        model.language.tie_weights()
