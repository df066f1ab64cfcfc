"""Model FLOPs of a step: what the samples need, whatever the hardware does. The formula is in docs/training.md.

A matrix product of [m, k] with [k, n] counts 2 m k n. Forward counts once; the gradient of the input once more where
anything before it trains; the gradient of the weight once more where the weight trains. Recomputation, padding and
logits of unsupervised positions count nothing.
"""

from trainer.sizes import ModelConfig

# Dense bf16 peak, without sparsity, from the vendors' data sheets; matched against the device's name.
PEAK = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def forward_flops(config: ModelConfig, image_size: int, counts: dict) -> dict[str, float]:
    """Forward FLOPs per part. `counts`: tokens, supervised, images, pairs (query-key pairs that attention computes)."""
    vision, language = config.vision, config.language
    width, layers = language["hidden_size"], language["num_hidden_layers"]
    patches, queries = (image_size // vision.patch) ** 2, config.queries
    head_dim = language.get("head_dim") or width // language["num_attention_heads"]
    attention_width = language["num_attention_heads"] * head_dim
    kv_width = language.get("num_key_value_heads", language["num_attention_heads"]) * head_dim

    block = 2 * patches * (4 * vision.width**2 + 2 * vision.width * vision.mlp_width) + 4 * patches**2 * vision.width
    stem = 2 * patches * 3 * vision.patch**2 * vision.width
    keys = 2 * patches * (vision.width * width + 2 * width**2)
    adapter = keys + 2 * queries * width**2 + 4 * queries * patches * width  # queries are projected once, not per image
    per_token = 2 * (2 * width * attention_width + 2 * width * kv_width + 3 * width * language["intermediate_size"])
    return {
        "vision": counts["images"] * (stem + vision.layers * block),
        "adapter": counts["images"] * adapter,
        "tail": counts["images"] * 2 * queries * width**2,
        "language": layers * (counts["tokens"] * per_token + 4 * counts["pairs"] * attention_width)
        + 2 * counts["supervised"] * width * language["vocab_size"],
    }


def step_flops(
    config: ModelConfig, image_size: int, counts: dict, trained: tuple[str, ...], adapted: tuple[str, ...] = ()
) -> float:
    """Forward and backward FLOPs of a step in which the parts `trained` train, those `adapted` by adapters alone.

    The adapters' own products, a hundredth of those beside them, count nothing.
    """
    total = 0.0
    below_trains = False
    for part, flops in forward_flops(config, image_size, counts).items():
        trains = part in trained
        below_trains = below_trains or trains
        total += flops * (1 + below_trains + (trains and part not in adapted))
    return total


def peak_flops(device_name: str) -> float | None:
    """The device's dense bf16 peak in FLOP/s, or None for one that is not in the table (a CPU)."""
    return next((peak for name, peak in PEAK.items() if name in device_name), None)
