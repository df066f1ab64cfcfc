"""The memory of one rank, counted without a device: what it holds by kind, and what autograd keeps of a forward pass.

The forward pass runs on fake CPU tensors (their kernels keep about what CUDA's do), with few blocks: all are alike.
"""

import functools
from dataclasses import dataclass, replace

from trainer.sizes import ModelConfig
from trainer.stages import BITS, Settings

NODE = 8  # ranks of a node, which share one copy of what trains
TOKENS, MAX_IMAGES = 2048, 7  # of the fullest pack


@dataclass(frozen=True)
class Shape:
    """What a micro-batch holds; by default one pack, as full as packs get."""

    tokens: int = TOKENS
    images: int = MAX_IMAGES
    supervised: int = TOKENS // 2


@dataclass(frozen=True)
class Saved:
    """Bytes that one block keeps for the backward pass, what its input takes, and all that lies outside of blocks."""

    block: dict[str, float]
    input: dict[str, float]
    rest: float

    def times(self, packs: int) -> "Saved":
        grown = ({kind: size * packs for kind, size in sizes.items()} for sizes in (self.block, self.input))
        return Saved(*grown, self.rest * packs)

    def all_blocks(self, config: ModelConfig) -> float:
        """Of the whole model, nothing recomputed."""
        return sum(count * self.block[kind] for kind, count in blocks_of(config).items()) + self.rest


@functools.lru_cache
def parameters(config: ModelConfig, settings: Settings) -> tuple[int, int, int]:
    """Numbers of trained and frozen parameters, and of the largest trained block's."""
    model = _meta(config, settings)
    trained, frozen = (sum(p.numel() for p in model.parameters() if p.requires_grad == t) for t in (True, False))
    blocks = [*model.vision.transformer.resblocks, *model.language.base_model.layers, model.language.lm_head]
    return trained, frozen, max(sum(p.numel() for p in b.parameters() if p.requires_grad) for b in blocks)


@functools.lru_cache
def in_products(config: ModelConfig, settings: Settings) -> tuple[int, int]:
    """Frozen weights of the products in the language model's blocks, which can be quantised: all, and the largest."""
    from torch import nn

    layers = _meta(config, settings).language.base_model.layers
    sizes = [m.weight.numel() for m in layers.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad]
    return sum(sizes), max(sizes, default=0)


def _frozen_bytes(config: ModelConfig, settings: Settings, frozen: int, compute: int) -> tuple[float, float]:
    """Of the frozen weights, and of the largest quantised one while it is multiplied."""
    if settings.quantise is None:
        return compute * frozen, 0.0
    held, largest = in_products(config, settings)
    return compute * (frozen - held) + held * BITS[settings.quantise] / 8, compute * largest


def blocks_of(config: ModelConfig) -> dict[str, int]:
    return {"vision": config.vision.layers, "language": config.language["num_hidden_layers"]}


def _meta(config: ModelConfig, settings: Settings):
    import torch

    from trainer import lora
    from trainer.model import VisionLanguageModel
    from trainer.stages import freeze

    with torch.device("meta"):
        model = VisionLanguageModel(config)
        lora.add(model, settings)
    freeze(model, settings)
    return model


def activations(config: ModelConfig, settings: Settings, shape: Shape) -> Saved:
    """Run the forward pass on fake tensors, with one and with two blocks of a kind, and see what autograd keeps."""
    same = replace(settings, micro_packs=None, activation_checkpointing=False, exchange="step", reduce="fp32")
    return _activations(config, same, shape)


@functools.lru_cache
def _activations(config: ModelConfig, settings: Settings, shape: Shape) -> Saved:
    def saved(vision: int, language: int) -> float:
        short = replace(
            config, vision=replace(config.vision, layers=vision),
            language={k: v for k, v in config.language.items() if k != "layer_types"} | {"num_hidden_layers": language},
        )  # fmt: skip
        return _saved_bytes(short, settings, shape)

    base = saved(1, 1)
    block = {"vision": saved(2, 1) - base, "language": saved(1, 2) - base}
    size = 2 if settings.precision == "bf16" else 4
    patches = shape.images * (settings.image_size // config.vision.patch) ** 2
    trains = set(settings.trained_parts)
    inputs = {
        "vision": size * patches * config.vision.width if "vision" in trains else 0,
        "language": size * shape.tokens * config.language["hidden_size"],
    }
    return Saved(block, inputs, base - sum(block.values()))


def _saved_bytes(config: ModelConfig, settings: Settings, shape: Shape) -> float:
    """Bytes of all storages that autograd keeps in a forward pass, parameters left out."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from trainer.attention import Spans

    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    model = _meta(config, settings)
    with FakeTensorMode():
        _give_memory(model, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
        queries, side = config.queries, settings.image_size
        spans = Spans((shape.tokens,), torch.zeros(2, dtype=torch.int32))
        batch = {
            "tokens": torch.zeros(1, shape.tokens, dtype=torch.long),
            "positions": torch.zeros(1, shape.tokens, dtype=torch.long),
            "spans": spans,
            "pixels": torch.zeros(shape.images, 3, side, side, dtype=torch.uint8),
            "slots": torch.zeros(shape.images * queries, dtype=torch.long),
            "supervised": torch.zeros(shape.supervised, dtype=torch.long),
            "labels": torch.zeros(shape.supervised, dtype=torch.long),
        }
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(batch)
        return sum(size for storage, (size, _) in kept.items() if storage not in own)


def _give_memory(model, dtype) -> None:
    """Put a meta model's tensors where new ones are made. Not `to_empty`, which cannot do it for fake tensors."""
    import torch
    from torch import nn

    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=dtype), p.requires_grad)
        for name, b in module._buffers.items():
            module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)


def memory(config: ModelConfig, settings: Settings, gpus: int, micro_batches: int, saved: Saved) -> dict[str, float]:
    """Bytes that a rank holds at the peak of its backward pass, by kind."""
    trained, frozen, largest = parameters(config, settings)
    half = settings.precision == "bf16"
    compute, dp = (2 if half else 4), gpus
    shard = min(settings.shard_ranks or NODE, dp)
    plain = dp == 1 and not half  # no FSDP at all
    whole = settings.exchange == "step" or dp == 1
    reduced = 2 if half and settings.reduce == "bf16" else 4
    accumulates = settings.exchange == "step" and dp > 1 and micro_batches > 1
    kept = saved.all_blocks(config)
    if settings.activation_checkpointing:
        inputs = sum(count * saved.input[kind] for kind, count in blocks_of(config).items())
        kept = inputs + max(saved.block.values()) + saved.rest
    vocabulary, width = config.language["vocab_size"], config.language["hidden_size"]
    head = compute * vocabulary * width if "language" in settings.trains and not settings.lora else 0
    on_its_way = 0 if plain else (compute + reduced) * largest
    fixed, unpacked = _frozen_bytes(config, settings, frozen, compute)
    return {
        "trained weights": 4 * trained / shard,
        "frozen weights": fixed,
        "optimizer": 2 * settings.optimizer_bits / 8 * trained / shard,
        "gathered weights": 0 if plain else compute * (trained if whole else 2 * largest),
        "gradients": 4 * trained / shard + (reduced * trained if accumulates else 0),
        "activations": kept,
        # The logits of one chunk and their gradients; the head's gradient; a block's gradient on its way.
        "working space": 512 * vocabulary * (8 + 2 * compute) + head + unpacked + on_its_way,
    }
