"""An exported model, as transformers loads it. Part of the export: it needs no trainer.

Shapes: B rows of L tokens, N images, S pixels per side.
"""

from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from trainer.adapter import Adapter, Tail
from trainer.hub.configuration_gristmill import GristmillConfig
from trainer.sight import SeesImages
from trainer.vision import VisionTower


class GristmillForCausalLM(SeesImages, PreTrainedModel, GenerationMixin):
    """Vision tower -> adapter -> language model. `generate` takes what the export's processor makes."""

    config_class = GristmillConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: GristmillConfig):
        super().__init__(config)
        language = config.get_text_config()
        self.vision = VisionTower(config.tower)
        self.language = AutoModelForCausalLM.from_config(language)
        self.adapter = Adapter(config.tower.width, language.hidden_size, config.queries, config.adapter_heads)
        self.tail = Tail(language.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        """The table of word embeddings."""
        return self.language.get_input_embeddings()

    def get_output_embeddings(self):
        """The head that turns hidden states into logits."""
        return self.language.get_output_embeddings()

    def forward(self, input_ids=None, pixel_values=None, inputs_embeds=None, **kwargs):
        """input_ids int64 [B, L], each image a slot of <imgpad> tokens; pixel_values uint8 [N, 3, S, S] of all rows'
        images in order. The rest is the language model's own (attention_mask, past_key_values, labels, ...)."""
        if inputs_embeds is None:
            # While it generates, only the first step holds image slots.
            shown = pixel_values is not None and bool((input_ids == self.config.image_token).any())
            inputs_embeds = self.embed(input_ids, pixel_values if shown else None)
        return self.language(inputs_embeds=inputs_embeds, **kwargs)
