"""Who attends to whom in a pack, and which token is predicted where.

A pack is a row of whole samples, each a segment numbered from 1; padding at the end is segment 0.
"""

import numpy as np
import torch

ATTENTION = ("causal", "isolated")
# What a position without a target holds in `targets`.
IGNORED = -100


def block_mask(segments):
    """[B, L] segment ids -> boolean [B, 1, L, L]: true where a query (row) may see a key: earlier, in its sample.

    Padding sees padding, so that no row of the softmax is empty.
    """
    same = segments[:, :, None] == segments[:, None, :]
    return same.tril().unsqueeze(1)


def segment_ids(lengths: list[int]) -> np.ndarray:
    """Segment ids of a pack of samples of these lengths."""
    return np.repeat(np.arange(1, len(lengths) + 1), lengths)


def position_ids(lengths: list[int], attention: str) -> np.ndarray:
    """Rotary positions: from 0 in each sample when isolated; running through the pack when causal."""
    if attention == "isolated":
        return np.concatenate([np.arange(n) for n in lengths])
    return np.arange(sum(lengths))


def targets(tokens: np.ndarray, supervised: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """What each position must predict: the next token where that is supervised and of the same sample.

    The first token of a sample is never a target: the sample before it says nothing about it.
    """
    out = np.full(len(tokens), IGNORED, dtype=np.int64)
    wanted = supervised[1:] & (segments[1:] == segments[:-1])
    out[:-1][wanted] = tokens[1:][wanted]
    return out


def to_device(batch: dict, device) -> dict:
    """Move a batch's tensors, leaving the rest (keys, tasks, counts) behind."""
    return {k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, torch.Tensor)}
