"""Questions and images for an exported model, and its answers as text. Part of the export: it needs no trainer."""

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from corpus.pixels import squash, to_rgb


class GristmillProcessor(ProcessorMixin):
    """Makes model inputs of a question and images, in the text formats that the model was trained with.

    `prompts` holds, by task and number of images, the pieces of a prompt: ["text", ...] with {text} for the user's
    words, ["special", name] and ["image", ""].
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(self, tokenizer=None, image_size=448, slot=(), stops=(), special=None, prompts=None, **kwargs):
        super().__init__(tokenizer)
        self.image_size, self.slot, self.stops = image_size, list(slot), list(stops)
        self.special, self.prompts = dict(special or {}), dict(prompts or {})

    def __call__(self, images=None, text="", task="plain", **kwargs) -> BatchFeature:
        """Return input_ids and attention_mask, int64 [1, L], and with images pixel_values, uint8 [N, 3, S, S].

        images: a Pillow image, or a list of them. `task`: plain (the images, then the words), caption, vqa, referring,
        ocr, chat (the first question of a dialogue), ...; the words never turn into control tokens.
        """
        images = images if isinstance(images, (list, tuple)) else [] if images is None else [images]
        forms = self.prompts.get(task, {})
        if str(len(images)) not in forms:
            known = "; ".join(f"{name} with {' or '.join(forms)} images" for name, forms in self.prompts.items())
            raise ValueError(f"no prompt {task!r} with {len(images)} images; there are: {known}")
        ids = [i for kind, value in forms[str(len(images))] for i in self._tokens(kind, value, text)]
        tokens = torch.tensor([ids], dtype=torch.int64)
        made = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if images:
            pixels = np.stack([squash(to_rgb(image), self.image_size) for image in images])
            made["pixel_values"] = torch.from_numpy(pixels)
        return BatchFeature(made)

    def answers(self, generated, inputs) -> list[str]:
        """Return the text of what `generate` added to the inputs, special tokens by name, up to where it stopped."""
        new = generated[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._text(tokens) for tokens in new]

    def _text(self, tokens) -> str:
        end = next((i for i, token in enumerate(tokens) if token in self.stops), len(tokens))
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return self.tokenizer.decode(tokens[:end], **options).strip()

    def _tokens(self, kind, value, text) -> list[int]:
        if kind == "image":
            return self.slot
        return [self.special[value]] if kind == "special" else self._plain(value.replace("{text}", text))

    def _plain(self, text) -> list[int]:
        """Tokens of words alone: `<box>` in them is five characters."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(text, split_special_tokens=True))
        backend.encode_special_tokens = True
        return backend.encode(text, add_special_tokens=False).ids
