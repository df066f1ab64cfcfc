"""How images get into the language model's input: features in the places of <imgpad>.

Shapes: B rows of L tokens, N images, Q queries per image, D width of the language model, S pixels per side.
"""

import torch
from torch import nn

from trainer.vision import normalise


class SeesImages:
    """What the model that trains and the one that transformers loads share. They have the parts `vision`, `adapter`,
    `tail` and `language`, and `config.image_token`."""

    def embed(self, tokens, pixels=None, slots=None):
        """Token embeddings [B, L, D] with image features in their slots; feed it to `language(inputs_embeds=...)`.

        tokens: int64 [B, L]. pixels: uint8 [N, 3, S, S], or None for text. slots: int64 [N * Q], the flat positions
        (row * L + column) that the features replace, image by image; None finds the <imgpad> tokens in order. Pixels
        without slots at all (a batch of pure text carries one black image) are computed and weigh zero, so that
        every rank runs, and reduces the gradients of, the same modules.
        """
        embeddings = self.word_embeddings(tokens)
        if pixels is None:
            return embeddings
        if slots is None:
            slots = (tokens.flatten() == self.config.image_token).nonzero().flatten()
        features = self.image_features(pixels).to(embeddings.dtype)
        if slots.numel() == 0:
            return embeddings + features.sum() * 0
        if slots.numel() != features.shape[0] * features.shape[1]:
            raise ValueError(
                f"{slots.numel()} image positions for {features.shape[0]} images of {features.shape[1]} queries"
            )
        return embeddings.flatten(0, 1).index_copy(0, slots, features.flatten(0, 1)).view_as(embeddings)

    def word_embeddings(self, tokens):
        """Token embeddings [B, L, D]."""
        return self.language.get_input_embeddings()(tokens)

    def image_features(self, pixels):
        """uint8 [N, 3, S, S] -> [N, Q, D]."""
        pixels = normalise(pixels).to(self.vision.conv1.weight.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and _is_trained(self.vision)):
            patches = self.vision(pixels)
        return self.tail(self.adapter(patches))


def _is_trained(part: nn.Module) -> bool:
    return any(p.requires_grad for p in part.parameters())
