"""A pack becomes a row of arrays; rows become a batch of tensors.

Shapes: L tokens of one pack, T of a batch, n images of one pack, N of a batch (at least 1), S pixels per side,
Q queries per image, Y supervised targets of the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch

from corpus.packs import Pack
from corpus.pixels import squash
from corpus.records import decode_image
from trainer import attention as attn


class BadPack(ValueError):
    """A pack whose arrays contradict each other: the corpus is damaged or not for this model. Never replaced."""


@dataclass
class Row:
    """One pack, ready to be batched. `spans`: lengths of the stretches that attend, L in all."""

    key: str
    task: str
    tokens: np.ndarray  # int32 [L]
    spans: list[int]
    targets: np.ndarray  # int64 [L], attn.IGNORED where there is none
    slots: np.ndarray  # [n * Q], positions of <imgpad>
    pixels: np.ndarray  # uint8 [n, 3, S, S]
    samples: int

    @property
    def pairs(self) -> int:
        """(query, key) pairs that attention computes, for counting FLOPs."""
        return sum(n * (n + 1) // 2 for n in self.spans)


def make_row(pack: Pack, *, image_size: int, attention: str, image_token: int, queries: int) -> Row:
    """Decode a pack. Raises corpus.records.BadImage for an image that cannot be used, BadPack for a broken pack."""
    lengths = [sample["length"] for sample in pack.samples]
    starts = [sample["start"] for sample in pack.samples]
    if not lengths or starts != [0, *np.cumsum(lengths[:-1])] or sum(lengths) != len(pack.tokens):
        raise BadPack(f"pack {pack.key}: its samples do not cover its {len(pack.tokens)} tokens without gaps")
    slots = np.flatnonzero(pack.tokens == image_token)
    used = [i for sample in pack.samples for i in sample["images"]]
    if len(slots) != queries * len(used) or any(not 0 <= i < len(pack.images) for i in used):
        raise BadPack(
            f"pack {pack.key}: {len(slots)} image positions and {len(pack.images)} images for {len(used)} image slots "
            f"of {queries} queries"
        )
    return Row(
        key=pack.key,
        task=pack.task,
        tokens=pack.tokens,
        spans=attn.spans_of(lengths, attention),
        targets=attn.targets(pack.tokens, pack.loss, attn.segment_ids(lengths)),
        slots=slots,
        pixels=np.stack([resize(pack.images[i], image_size) for i in used]) if used else _no_images(0, image_size),
        samples=len(lengths),
    )


def resize(data: bytes, size: int) -> np.ndarray:
    """Decode and squash to size x size, bicubic, as CLIP's preprocessing does but without a crop: uint8 [3, S, S]."""
    return squash(decode_image(data), size)


def _no_images(count: int, size: int) -> np.ndarray:
    return np.zeros((count, 3, size, size), dtype=np.uint8)


def collate(rows: list[Row], image_size: int, pad_to: int = 8) -> dict:
    """Rows -> a batch: tensors for the model and, under "rows", what the loop counts and names.

    The packs lie end to end: tokens, positions [1, T], T a multiple of `pad_to`. supervised, labels, owners [Y]: flat
    positions, what they must predict, and the pack they are of. slots [N * Q], flat; pixels uint8 [N, 3, S, S]; spans:
    who attends to whom. Without any image, N is 1: a black one with no slot. Without any row, nothing is supervised.
    """
    used = sum(len(row.tokens) for row in rows)
    length = max(-(-used // pad_to), 1) * pad_to
    lengths = [n for row in rows for n in row.spans]
    lengths += _padding_spans(length - used, max(lengths, default=length))
    tokens = np.zeros(length, dtype=np.int64)
    targets = np.full(length, attn.IGNORED, dtype=np.int64)
    starts = np.cumsum([0, *(len(row.tokens) for row in rows)])
    for start, row in zip(starts, rows, strict=False):
        tokens[start : start + len(row.tokens)] = row.tokens
        targets[start : start + len(row.tokens)] = row.targets
    slots = [row.slots + start for start, row in zip(starts, rows, strict=False)]
    supervised = np.flatnonzero(targets != attn.IGNORED)
    pixels = np.concatenate([row.pixels for row in rows] or [_no_images(0, image_size)])
    return {
        "tokens": torch.from_numpy(tokens)[None],
        "positions": torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        "spans": attn.Spans.of(lengths),
        "supervised": torch.from_numpy(supervised),
        "labels": torch.from_numpy(targets[supervised]),
        "owners": torch.from_numpy(np.searchsorted(starts, supervised, side="right") - 1),
        "slots": torch.from_numpy(np.concatenate([*slots, np.zeros(0, dtype=np.int64)]).astype(np.int64)),
        "pixels": torch.from_numpy(pixels if len(pixels) else _no_images(1, image_size)),
        "rows": [count_row(row) for row in rows],
        "padded": length,
    }


def _padding_spans(count: int, longest: int) -> list[int]:
    """Padding attends to padding, in spans no longer than the batch's own."""
    return [longest] * (count // longest) + ([count % longest] if count % longest else [])


def count_row(row: Row) -> dict:
    """What the loop reports about a row."""
    return {
        "key": row.key,
        "task": row.task,
        "tokens": len(row.tokens),
        "supervised": int((row.targets != attn.IGNORED).sum()),
        "images": len(row.pixels),
        "samples": row.samples,
        "pairs": row.pairs,
    }
