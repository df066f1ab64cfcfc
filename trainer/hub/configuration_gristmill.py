"""The configuration of an exported model, as transformers reads it. Part of the export: it needs no trainer."""

from transformers import AutoConfig, PreTrainedConfig

from trainer.sizes import VisionConfig


class GristmillConfig(PreTrainedConfig):
    """The fields of trainer.sizes.ModelConfig: `vision` and `language` as mappings, queries, adapter_heads and the ids
    of image tokens."""

    model_type = "gristmill"

    @property
    def tower(self) -> VisionConfig:
        """The vision tower's configuration."""
        return VisionConfig(**self.vision)

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """The language model's own configuration: generation asks it for layers and heads."""
        if not hasattr(self, "language"):  # transformers builds an empty one, to see what is at its default
            return self
        fields = dict(self.language)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
