"""Who attends to whom in a pack, and which token is predicted where.

A batch is one row: packs laid end to end. Within it spans attend, each to itself and causally: the samples of a pack
where attention is isolated, the whole pack where it is causal. No mask is ever made of them.

Shapes: H heads, T tokens of the batch, D width of a head.
"""

import inspect
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn

ATTENTION = ("causal", "isolated")
# What language models call this module's attention; transformers makes no mask for a name it has no mask of.
SPANS = "gristmill_spans"
# Called is_causal in early versions.
_WINDOWS = "window_size" in inspect.signature(varlen_attn).parameters
_CAUSAL = {"window_size": (-1, 0)} if _WINDOWS else {"is_causal": True}
# What a position without a target holds in `targets`.
IGNORED = -100


@dataclass
class Spans:
    """The stretches of a batch that attend, end to end: their lengths, and on the batch's device where they begin.

    offsets: int32 [n + 1], from 0 to T.
    """

    lengths: tuple[int, ...]
    offsets: torch.Tensor

    @classmethod
    def of(cls, lengths) -> "Spans":
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        offsets[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
        return cls(tuple(lengths), offsets)

    def to(self, device, non_blocking: bool = False) -> "Spans":
        return Spans(self.lengths, self.offsets.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Spans":
        return Spans(self.lengths, self.offsets.pin_memory())


def attend(module, query, key, value, attention_mask, scaling=None, spans: Spans | None = None, **kwargs):
    """Attention for `transformers.AttentionInterface`: [1, H, T, D] each -> [1, T, H, D].

    Without spans (decoding, which brings its own 4-D masks) this is transformers' SDPA. A 2-D mask of padding does not
    get here: transformers drops it for a name of ours.
    """
    if spans is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return path_for(query)(query, key, value, spans, scaling).unsqueeze(0), None


def path_for(query):
    """One kernel for all spans where there is one: on CUDA, in half precision."""
    return one_kernel if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) else span_by_span


@torch.compiler.disable
def span_by_span(query, key, value, spans: Spans, scaling):
    """SDPA of one span after another: [T, H, D]."""
    parts = [x[0].split(spans.lengths, dim=1) for x in (query, key, value)]
    gqa = query.shape[1] != key.shape[1]
    outs = [
        F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=scaling, enable_gqa=gqa)[0]
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outs, dim=1).transpose(0, 1)


def one_kernel(query, key, value, spans: Spans, scaling):
    """torch's variable-length attention: [T, H, D]. Key and value heads are repeated, since old versions ask for it."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    longest = max(spans.lengths)
    return varlen_attn(q, k, v, spans.offsets, spans.offsets, longest, longest, scale=scaling, **_CAUSAL)


def block_mask(segments):
    """[B, L] segment ids -> boolean [B, 1, L, L]: true where a query (row) may see a key: earlier, in its sample.

    For decoding alone, whose prompts are few and padded on the left.

    Padding sees padding, so that no row of the softmax is empty.
    """
    same = segments[:, :, None] == segments[:, None, :]
    return same.tril().unsqueeze(1)


def spans_of(lengths: list[int], attention: str) -> list[int]:
    """Lengths of the spans of a pack of samples of these lengths: its samples when isolated, all of it when causal."""
    return list(lengths) if attention == "isolated" else [sum(lengths)]


def segment_ids(lengths: list[int]) -> np.ndarray:
    """Which sample each token of a pack belongs to, from 1."""
    return np.repeat(np.arange(1, len(lengths) + 1), lengths)


def targets(tokens: np.ndarray, supervised: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """What each position must predict: the next token where that is supervised and of the same sample.

    The first token of a sample is never a target: the sample before it says nothing about it.
    """
    out = np.full(len(tokens), IGNORED, dtype=np.int64)
    wanted = supervised[1:] & (segments[1:] == segments[:-1])
    out[:-1][wanted] = tokens[1:][wanted]
    return out


def to_device(batch: dict, device) -> dict:
    """Move a batch's tensors and spans, leaving the rest (keys, tasks, counts) behind."""
    return {k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, (torch.Tensor, Spans))}
