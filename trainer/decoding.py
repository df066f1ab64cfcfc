"""Token by token: greedy and sampled decoding of a batch with a key-value cache, and the confidence in given answers.

Shapes: B prompts, L tokens of the longest, N images, S pixels per side, V rows of the vocabulary, D width.
Prompts are padded on the left, so that all of them end, and go on, in the same column.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.attention import block_mask
from trainer.model import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Options:
    """temperature 0 is greedy. Otherwise tokens are drawn from the `top_k` likeliest (0: all) of those that hold the
    first `top_p` of the probability, each prompt from its own random numbers (seed, place in the batch)."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@torch.inference_mode()
def decode(
    model: VisionLanguageModel, prompts: Sequence[np.ndarray], pixels, allowed, stops: Collection[int], options: Options
) -> list[list[int]]:
    """Continue each prompt until one of `stops`, which is left out, or `options.max_tokens`.

    prompts: B arrays of tokens. pixels: uint8 [N, 3, S, S] of all their images in order, or None.
    allowed: bool [V], the tokens that may be generated.
    """
    from transformers import DynamicCache

    tokens, segments = pad_left(prompts, allowed.device)
    positions = (segments.cumsum(1) - 1).clamp(min=0)
    inputs, mask, cache = model.embed(tokens, pixels), block_mask(segments), DynamicCache()
    answers, running = [[] for _ in prompts], [True] * len(prompts)
    draws = [torch.Generator(allowed.device).manual_seed(options.seed * 1_000_003 + i) for i in range(len(prompts))]
    for _ in range(options.max_tokens):
        hidden = model.language.base_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        chosen = choose(next_logits(model, hidden, allowed), options, draws)
        for i, token in enumerate(chosen.tolist()):
            running[i] = running[i] and token not in stops
            if running[i]:
                answers[i].append(token)
        if not any(running):
            break
        # The one new token of each row sees all of it but the padding.
        inputs, positions = model.embed(chosen[:, None]), positions[:, -1:] + 1
        segments = torch.cat([segments, torch.ones_like(segments[:, :1])], dim=1)
        mask = (segments == 1)[:, None, None]
    return answers


def pad_left(prompts: Sequence[np.ndarray], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and segments [B, L]; padding is token 0 in segment 0, prompts are segment 1."""
    length = max(map(len, prompts))
    tokens = np.zeros((len(prompts), length), np.int64)
    segments = np.zeros_like(tokens)
    for i, prompt in enumerate(prompts):
        tokens[i, length - len(prompt) :], segments[i, length - len(prompt) :] = prompt, 1
    return torch.from_numpy(tokens).to(device), torch.from_numpy(segments).to(device)


def next_logits(model: VisionLanguageModel, hidden, allowed):
    """[B, D] -> float32 [B, V], minus infinity where a token is not allowed."""
    return model.language.get_output_embeddings()(hidden).float().masked_fill(~allowed, -torch.inf)


def choose(logits, options: Options, draws: Sequence[torch.Generator]):
    """[B, V] -> the next token of each row, int64 [B]."""
    if options.temperature <= 0:
        return logits.argmax(-1)
    ordered, tokens = (logits / options.temperature).sort(-1, descending=True)
    weights = ordered.softmax(-1)
    before = weights.cumsum(-1) - weights  # the likeliest token has nothing before it and always stays
    weights = weights.masked_fill(before >= options.top_p, 0)
    if options.top_k:
        weights[:, options.top_k :] = 0
    places = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(weights, draws, strict=True)]
    return tokens.gather(1, torch.stack(places)).flatten()


@torch.inference_mode()
def confidences(
    model: VisionLanguageModel, prompt: np.ndarray, pixels, answers: Sequence[Sequence[int]]
) -> list[float]:
    """Return the mean log-probability per token of each answer after the prompt, as Qwen-VL compares options."""
    device = model.vision.conv1.weight.device
    start = model.embed(torch.as_tensor(prompt, dtype=torch.int64, device=device)[None], pixels)
    length = max(map(len, answers))
    padded = np.zeros((len(answers), length), np.int64)
    for i, answer in enumerate(answers):
        padded[i, : len(answer)] = answer
    rest = torch.from_numpy(padded).to(device)
    # Padding stands behind every token that counts, so plain causal attention never sees it.
    inputs = torch.cat([start.expand(len(answers), -1, -1), model.embed(rest)], dim=1)
    hidden = model.language.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    logits = model.language.get_output_embeddings()(hidden[:, len(prompt) - 1 : -1]).float()
    taken = logits.log_softmax(-1).gather(-1, rest[..., None])[..., 0]
    return [float(row[: len(answer)].mean()) for row, answer in zip(taken, answers, strict=True)]
