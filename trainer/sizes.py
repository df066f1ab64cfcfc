"""The four model sizes, and the configuration of a model, which is what an exported folder's config.json records.

Plain data: importing this module costs nothing, so a command line can list sizes without loading torch.
"""

from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A CLIP vision tower without its class token. `name` is what open_clip calls it; our own have other names."""

    name: str
    width: int
    layers: int
    heads: int
    mlp_width: int
    patch: int = 14  # pixels
    image_size: int = 224  # pixels the stored position table was made for
    quick_gelu: bool = False
    ln_pre: bool = True
    # Qwen-VL runs open_clip's weights, trained with 1e-5, with this.
    layer_norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Side of the stored position table, in patches."""
        return self.image_size // self.patch


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model. `language` holds the fields of the language model's transformers config."""

    size: str
    vision: VisionConfig
    language: dict = field(hash=False)
    queries: int = 256
    adapter_heads: int = 32
    # Ids of <imgpad>, whose positions the adapter's output replaces, and of <img> and </img> around them; None until
    # a tokenizer is known.
    image_token: int | None = None
    image_marks: tuple[int, int] | None = None

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        marks = values.get("image_marks")
        return cls(
            **{**values, "vision": VisionConfig(**values["vision"]), "image_marks": tuple(marks) if marks else None}
        )


TOWERS = {
    tower.name: tower
    for tower in (
        VisionConfig(name="tiny-14", width=96, layers=2, heads=3, mlp_width=384, image_size=112),
        VisionConfig(name="small-14", width=384, layers=12, heads=6, mlp_width=1536),
        VisionConfig(name="ViT-L-14", width=1024, layers=24, heads=16, mlp_width=4096),
        VisionConfig(name="ViT-bigG-14", width=1664, layers=48, heads=16, mlp_width=8192),
    )
}

QWEN_VOCABULARY = 151936  # rows of the embedding; the tokenizer uses 151860 of them


def qwen2(hidden: int, layers: int, heads: int, mlp_width: int, vocabulary: int, initial: float = 0.02) -> dict:
    """Qwen2's config fields for Qwen v1's architecture: as many key as query heads, biases on q, k, v alone.

    `initial` is the standard deviation of random weights. 0.02 suits widths of thousands; a narrow model's signals
    vanish with it, and it does not learn to look at its images: give hidden ** -0.5 there.
    """
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": mlp_width,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "initializer_range": initial,
    }


@dataclass(frozen=True, kw_only=True)
class Size:
    """A named model, and what follows from how big it is rather than from the stage.

    image_sizes: pixels per side in stages 1, 2, 3. micro_packs: the most packs in one forward pass.
    exchange: see stages.Settings; of the three stages.
    lr_scale: multiplies Table 8's learning rates of the three stages, which are those of a 9.6B model that starts from
    trained weights.
    steps, batch: of the three stages, instead of Table 8's.
    """

    config: ModelConfig
    image_sizes: tuple[int, int, int] = (224, 448, 448)
    micro_packs: int
    exchange: tuple[str, str, str] = ("step", "step", "step")
    lr_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    steps: tuple[int, int, int] | None = None
    batch: tuple[int, int, int] | None = None


def _config(name, tower, language, queries, adapter_heads) -> ModelConfig:
    return ModelConfig(size=name, vision=TOWERS[tower], language=language, queries=queries, adapter_heads=adapter_heads)


# tiny and small start from random weights, so they take larger steps on smaller batches than Table 8.
SIZES = {
    "tiny": Size(
        config=_config("tiny", "tiny-14", qwen2(128, 2, 4, 352, 0, 128**-0.5), 16, 4),
        image_sizes=(112, 112, 112),
        micro_packs=4,
        lr_scale=(7.5, 30.0, 50.0),
        steps=(40, 40, 20),
        batch=(16, 16, 8),
    ),
    "small": Size(
        config=_config("small", "small-14", qwen2(512, 8, 8, 1408, 0, 512**-0.5), 64, 8),
        image_sizes=(224, 224, 224),
        micro_packs=8,
        lr_scale=(3.0, 12.0, 10.0),
        steps=(2000, 4000, 500),
        batch=(256, 128, 32),
    ),
    "2b": Size(config=_config("2b", "ViT-L-14", qwen2(2048, 24, 16, 5504, QWEN_VOCABULARY), 256, 16), micro_packs=4),
    "qwen-vl": Size(
        config=_config("qwen-vl", "ViT-bigG-14", qwen2(4096, 32, 32, 11008, QWEN_VOCABULARY), 256, 32),
        micro_packs=1,
        # Whole gradients beside whole weights do not fit where the language model trains.
        exchange=("step", "micro", "micro"),
    ),
}


def with_vocabulary(config: ModelConfig, rows: int) -> ModelConfig:
    """Give the language model at least `rows` rows, rounded up to a multiple of 64 where it had fewer (or none)."""
    if config.language["vocab_size"] >= rows:
        return config
    return replace(config, language={**config.language, "vocab_size": -(-rows // 64) * 64})
