"""Weights of the language model's blocks in 4 or 8 bits, by torchao: frozen ones beside adapters, or a model for use.

nf4: blocks of 64 weights, each in one of 16 steps of a normal distribution (Dettmers et al. 2023), 4.1 bits a weight.
int8: one scale per row.
"""

import logging

import torch
from torch import nn

_BLOCK, _SCALES = 64, 256


def quantise_blocks(language, kind: str | None) -> None:
    """Replace, one at a time and in place, the frozen weights of all products in a language model's blocks."""
    if kind is None:
        return
    for block in language.base_model.layers:
        for module in block.modules():
            if isinstance(module, nn.Linear) and not module.weight.requires_grad:
                module.weight = nn.Parameter(_quantised(module.weight.detach(), kind), requires_grad=False)


def _quantised(weight: torch.Tensor, kind: str) -> torch.Tensor:
    hush_torchao()
    from torchao.quantization import Int8Tensor, NF4Tensor, PerRow  # a second to import

    if kind == "int8":
        return Int8Tensor.from_hp(weight, PerRow())
    blocks, rest = divmod(weight.numel(), _BLOCK)
    if rest:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} is not made of blocks of {_BLOCK}: use int8")
    return NF4Tensor.from_tensor(weight, _BLOCK, _largest_share(blocks))


def hush_torchao() -> None:
    """It registers classes in a way that torch 2.15 complains of at every import."""
    logging.getLogger("torch.utils._pytree").addFilter(_not_of_enums)


def _not_of_enums(record: logging.LogRecord) -> bool:
    return "register_constant() on Enum" not in record.getMessage()


def _largest_share(blocks: int) -> int:
    """The most scales, a power of two, that can be quantised together."""
    return min(_SCALES, blocks & -blocks)


def dequantised(tensor: torch.Tensor) -> torch.Tensor:
    """What a quantised tensor stands for; any other as it is."""
    if hasattr(tensor, "get_original_weight"):
        return tensor.get_original_weight()
    return tensor.dequantize() if hasattr(tensor, "qdata") else tensor
