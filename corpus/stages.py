"""The stages of training as data (Table 8 of the paper). A stage is an entry here, and nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One column of Table 8. Lengths in tokens, image sizes in pixels, batch in samples."""

    number: int
    trains: tuple[str, ...]
    attention: str
    image_size: int
    max_tokens: int
    peak_lr: float
    min_lr: float
    layer_decay: float
    steps: int
    warmup: int
    batch: int
    accumulation: int
    tensor_parallel: int
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.05
    clip: float = 1.0


STAGES = {
    1: Stage(
        number=1, trains=("vision", "adapter"), attention="isolated", image_size=224, max_tokens=512,
        peak_lr=2e-4, min_lr=1e-6, layer_decay=0.95, steps=50_000, warmup=500, batch=30720, accumulation=6,
        tensor_parallel=1,
    ),
    2: Stage(
        number=2, trains=("vision", "adapter", "language"), attention="causal", image_size=448, max_tokens=2048,
        peak_lr=5e-5, min_lr=1e-5, layer_decay=0.95, steps=19_000, warmup=400, batch=4096, accumulation=8,
        tensor_parallel=2,
    ),
    # The paper writes a layer-wise decay of 0 for a ViT that does not train; here it is merely unused.
    3: Stage(
        number=3, trains=("adapter", "language"), attention="isolated", image_size=448, max_tokens=2048,
        peak_lr=1e-5, min_lr=1e-6, layer_decay=0.0, steps=8_000, warmup=3_000, batch=128, accumulation=8,
        tensor_parallel=2,
    ),
}  # fmt: skip
