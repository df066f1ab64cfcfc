"""The settings of one run of a stage.

A run's settings are Table 8, changed where the model's size asks for it, changed by flags; all of it ends up in one
flat, JSON-able record, which the checkpoint keeps and a resume compares.
"""

from collections.abc import Set
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from corpus.stages import STAGES
from trainer.sizes import SIZES

# Of a quantised weight, its share of the scales included.
BITS = {"nf4": 4.13, "int8": 8.0}


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapters of rank `r`, scaled by alpha / r; the defaults are the authors' of Qwen-VL."""

    r: int = 64
    alpha: int = 16
    dropout: float = 0.05

    @classmethod
    def parse(cls, text: str) -> "Lora":
        """Read "r=64" or "r=64,alpha=16,dropout=0.05". Raises ValueError on anything else."""
        kinds = {"r": int, "alpha": int, "dropout": float}
        try:
            pairs = [part.split("=") for part in text.split(",")]
            lora = cls(**{name.strip(): kinds[name.strip()](value) for name, value in pairs})
        except (KeyError, ValueError):
            raise ValueError(f"--lora {text}: r=64, or r=64,alpha=16,dropout=0.05, is what it looks like") from None
        if lora.r < 1 or not 0 <= lora.dropout < 1:
            raise ValueError(f"--lora {text}: r must be 1 or more, dropout from 0 to below 1")
        return lora


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the numbers of a run, and a few things that do not (see MAY_CHANGE).

    tail_with: whether Qwen-VL's ln_post and proj train with the "vision" tower or with the "adapter". It matters in
    stage 3 alone. Table 1's counts and the authors' fine-tuning code say "vision" (frozen in stage 3).
    image_rows: whether the embeddings of <img> and </img>, which a text model never trained, learn in stage 1
    although its language model is frozen. The paper freezes the whole language model.
    exchange: when ranks send weights and gradients: once a "step", or in every "micro" batch, which takes less memory.
    shard_ranks: ranks that share one copy of what trains; None: those of a node. reduce: precision in which gradients
    are summed over ranks in bf16 runs.
    lora: the language model trains through low-rank adapters alone, as Lora.parse reads it. quantise: "nf4" or "int8",
    the form of what is frozen in its blocks. optimizer_bits: 32 or 8, of the optimizer's moments.
    order: of the packs, a name of corpus.order.ORDERS: "blocks" in runs that begin now, "packs" in older ones.
    micro_packs: packs in one forward pass; None follows from the batch and `accumulation`, up to the size's limit.
    """

    stage: int
    size: str
    trains: tuple[str, ...]
    attention: str
    image_size: int
    peak_lr: float
    min_lr: float
    layer_decay: float
    steps: int
    warmup: int
    batch: int
    accumulation: int
    tensor_parallel: int
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip: float
    tail_with: str = "vision"
    image_rows: bool = False
    seed: int = 0
    order: str = "packs"
    precision: str = "fp32"
    reduce: str = "fp32"
    exchange: str = "step"
    shard_ranks: int | None = None
    deterministic: bool = False
    lora: str | None = None
    quantise: str | None = None
    optimizer_bits: int = 32
    micro_packs: int | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    workers: int = 0
    save_every: int = 500
    keep: int = 2

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """Names of the model's trained children, the tail put where `tail_with` says."""
        parts = [part for part in self.trains if part != "image_rows"]
        parts += ["tail"] if self.tail_with in self.trains else []
        return tuple(parts + (["image_rows"] if self.image_rows else []))

    @property
    def adapted_parts(self) -> tuple[str, ...]:
        """Those of `trained_parts` whose own weights stay as they are."""
        return ("language",) if self.lora else ()

    def to_dict(self) -> dict:
        return asdict(self)


# What a resumed run may change: none of it changes which numbers are computed from which samples (compilation and
# recomputation change rounding at most).
MAY_CHANGE = {"workers", "save_every", "keep", "micro_packs", "accumulation", "tensor_parallel", "compile",
              "exchange", "shard_ranks", "activation_checkpointing"}  # fmt: skip

SCHEDULE = frozenset({"steps", "warmup", "peak_lr", "min_lr"})  # what --reschedule may change from the next step on


def make_settings(stage: int, size: str, **flags) -> Settings:
    """Settings of a stage for a size; `flags` that are None count as not given.

    A given `steps` without a `warmup` scales the warm-up along. Raises ValueError on settings that exclude each other.
    """
    base, model = STAGES[stage], SIZES[size]
    values = asdict(base) | {"stage": stage, "size": size, "order": "blocks"}
    # Table 8 cuts layers over two ranks in stages 2 and 3; FSDP alone moves less on GPUs of 80 GB.
    values |= {
        "image_size": _of(model.image_sizes, stage),
        "exchange": _of(model.exchange, stage),
        "tensor_parallel": 1,
    }
    values |= {name: values[name] * _of(model.lr_scale, stage) for name in ("peak_lr", "min_lr")}
    for name in ("steps", "batch"):
        if getattr(model, name):
            values |= {name: _of(getattr(model, name), stage), "accumulation": 1}
    given = {name: value for name, value in flags.items() if value is not None}
    values |= given
    if values["steps"] != base.steps and "warmup" not in given:
        values["warmup"] = max(1, round(base.warmup * values["steps"] / base.steps))
    known = {field.name for field in fields(Settings)}
    return _checked(Settings(**{name: value for name, value in values.items() if name in known}))


def _of(values: tuple, stage: int):
    """The value of a stage; stages beyond those that a size speaks of follow the last."""
    return values[min(stage, len(values)) - 1]


def _checked(settings: Settings) -> Settings:
    if settings.image_rows and "language" in settings.trains:
        raise ValueError("--image-rows trains two rows of a frozen language model, but this stage trains all of it")
    if settings.warmup >= settings.steps:
        raise ValueError(f"a warm-up of {settings.warmup} steps leaves nothing of {settings.steps} steps")
    if settings.image_size % SIZES[settings.size].config.vision.patch:
        raise ValueError(f"--image-size {settings.image_size} is not a multiple of the patch size")
    _check_adapters(settings)
    return replace(settings, trains=tuple(settings.trains))


def _check_adapters(settings: Settings) -> None:
    language = "language" in settings.trains
    if settings.lora is not None:
        Lora.parse(settings.lora)
        if not language:
            raise ValueError("--lora trains the language model, but this stage does not: add language to --trains")
        if settings.tensor_parallel > 1:
            raise ValueError("--lora and --tensor-parallel exclude each other: shard over data-parallel ranks alone")
    if settings.quantise and language and settings.lora is None:
        raise ValueError("--quantise freezes the language model, but this stage trains all of it: give --lora r=64")
    if settings.quantise and settings.tensor_parallel > 1:
        raise ValueError("--quantise and --tensor-parallel exclude each other")


def freeze(model, settings: Settings) -> None:
    """Leave gradients to the trained parts alone. Raises ValueError naming a part the model does not have."""
    parts = dict(model.named_children()) | ({"image_rows": model.image_rows} if settings.image_rows else {})
    if unknown := set(settings.trained_parts) - set(parts):
        raise ValueError(f"stage {settings.stage} trains {sorted(unknown)}; the model has {sorted(parts)}")
    for name, part in parts.items():
        part.requires_grad_(name in settings.trained_parts)
    if settings.lora:
        for name, parameter in model.language.named_parameters():
            parameter.requires_grad_(".lora_" in name)


def read_settings(saved: dict) -> Settings:
    """Settings as a checkpoint or an export has them; older ones lack newer settings."""
    known = {field.name for field in fields(Settings)}
    values: dict[str, Any] = {name: value for name, value in saved.items() if name in known}
    return Settings(**values | {"trains": tuple(values["trains"])})


def differing(saved: dict, now: Settings, may_change: Set[str] = frozenset()) -> list[str]:
    """Names of the settings that a resume must not change and that differ; `may_change` may be changed too."""
    here = {name: list(v) if isinstance(v, tuple) else v for name, v in now.to_dict().items()}
    before = {field.name: field.default for field in fields(Settings)} | saved  # older runs lack newer settings
    return [f"{n}: {before[n]} -> {v}" for n, v in here.items() if n not in MAY_CHANGE | may_change and before[n] != v]
