"""Vision tower -> adapter -> language model.

Shapes: B rows of L tokens (training has one row, packs end to end), N images, Q queries per image, P patches, D width
of the language model, Y supervised tokens in the batch.
"""

import torch
from torch import nn

from trainer.adapter import Adapter, Tail
from trainer.language import build_language
from trainer.loss import summed_cross_entropy
from trainer.sight import SeesImages
from trainer.sizes import ModelConfig
from trainer.vision import VisionTower

PARTS = ("vision", "adapter", "tail", "language")


class VisionLanguageModel(SeesImages, nn.Module):
    """The whole model; its children are the four parts that a stage freezes or trains."""

    def __init__(self, config: ModelConfig, image_rows: bool = False):
        """`image_rows`: give <img> and </img> embeddings of their own, which can train while the language model does
        not; an export puts them back into its table."""
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.language = build_language(config.language)
        width = self.language.config.hidden_size
        self.adapter = Adapter(config.vision.width, width, config.queries, config.adapter_heads)
        self.tail = Tail(width)
        self.image_rows = nn.Parameter(torch.empty(len(config.image_marks), width)) if image_rows else None

    def forward(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross-entropy of the batch's supervised tokens, and that of each, [Y], without gradient.

        `batch` is what `batch.collate` makes. Sums, not means: only the loop knows how many supervised tokens the whole
        step has.
        """
        hidden = self.language.base_model(
            inputs_embeds=self.embed(batch["tokens"], batch["pixels"], batch["slots"]),
            position_ids=batch["positions"],
            use_cache=False,
            spans=batch["spans"],
        ).last_hidden_state
        supervised = hidden.flatten(0, 1).index_select(0, batch["supervised"])
        return summed_cross_entropy(self.language.get_output_embeddings(), supervised, batch["labels"])

    def word_embeddings(self, tokens):
        """Token embeddings [B, L, D], `image_rows` in the places of <img> and </img>."""
        embeddings = self.language.get_input_embeddings()(tokens)
        if self.image_rows is not None:
            for row, token in zip(self.image_rows, self.config.image_marks, strict=True):
                embeddings = torch.where((tokens == token)[..., None], row.to(embeddings.dtype), embeddings)
        return embeddings


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of each part, tied ones once; the adapter's fixed position table counts, as in the paper."""
    parts = dict(model.named_children())
    counts = {name: sum(p.numel() for p in parts[name].parameters()) for name in PARTS}
    counts["adapter"] += parts["adapter"].pos_embed.numel()
    return counts


def part_of(parameter: str) -> str:
    """The part that a parameter, named as in the model's state dict, belongs to."""
    return parameter.partition(".")[0]
