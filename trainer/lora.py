"""Low-rank adapters (Hu et al. 2021) in the language model, by peft: its products stay frozen, and beside each of them
the product of two thin matrices trains.

Which products: those of the authors' fine-tuning of Qwen-VL, `c_attn, attn.c_proj, w1, w2`: all of attention, and the
gated MLP's first two, not its last.
"""

import hashlib

import torch

from trainer.quantise import hush_torchao
from trainer.stages import Lora, Settings
from trainer.weights import Source

TARGETS = r".*\.(self_attn\.[qkvo]_proj|mlp\.(up|gate)_proj)"
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add(model, settings: Settings) -> None:
    """Put adapters into a model, which may lie on the meta device, where the settings ask for them.

    Raises ValueError for a language model that names its layers otherwise than Qwen2 and Llama do.
    """
    if settings.lora is None:
        return
    hush_torchao()
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import

    lora = Lora.parse(settings.lora)
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=TARGETS)
    inject_adapter_in_model(config, model.language)


def sources(weights: list[Source], seed: int) -> list[Source]:
    """Sources of a model with adapters: adapters that do nothing yet, and the sources of the model without."""
    return [_fresh(seed), *(_renamed(source) for source in weights)]


def _fresh(seed: int) -> Source:
    """LoRA's initial weights: uniform below, zeros above; a function of seed and name."""

    def read(name: str, shape: torch.Size) -> torch.Tensor | None:
        if name.endswith(_UP):
            return torch.zeros(shape)
        if not name.endswith(_DOWN):
            return None
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return torch.empty(shape).uniform_(-(shape[1] ** -0.5), shape[1] ** -0.5, generator=generator)

    return read


def _renamed(source: Source) -> Source:
    return lambda name, shape: source(name.replace(_BASE, "."), shape)


def merged(tensors: dict[str, torch.Tensor], settings: Settings) -> dict[str, torch.Tensor]:
    """A state dict without adapters that computes the same: each is multiplied out and added to its weight."""
    if settings.lora is None:
        return tensors
    lora, out = Lora.parse(settings.lora), {}
    for name, tensor in tensors.items():
        stem = name.removesuffix(f"{_BASE}weight")
        if stem != name:
            up, down = tensors[stem + _UP].float(), tensors[stem + _DOWN].float()
            tensor = tensor.float() + lora.alpha / lora.r * (up @ down)
        if not name.endswith((_DOWN, _UP)):
            out[name.replace(_BASE, ".")] = tensor
    return out
