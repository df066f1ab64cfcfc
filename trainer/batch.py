"""A pack becomes a row of arrays; rows become a batch of tensors.

Shapes: L tokens of one pack or of the longest in a batch, B rows, n images of one pack, N of a batch (at least 1), S
pixels per side, Q queries per image, T supervised targets of the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from corpus.packs import Pack
from corpus.records import decode_image
from trainer import attention as attn


class BadPack(ValueError):
    """A pack whose arrays contradict each other: the corpus is damaged or not for this model. Never replaced."""


@dataclass
class Row:
    """One pack, ready to be batched. `pairs`: (query, key) pairs that attention computes, for counting FLOPs."""

    key: str
    task: str
    tokens: np.ndarray  # int32 [L]
    segments: np.ndarray  # [L], from 1
    positions: np.ndarray  # [L]
    targets: np.ndarray  # int64 [L], attn.IGNORED where there is none
    slots: np.ndarray  # [n * Q], positions of <imgpad>
    pixels: np.ndarray  # uint8 [n, 3, S, S]
    samples: int
    pairs: int


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
    segments = attn.segment_ids(lengths)
    spans = lengths if attention == "isolated" else [sum(lengths)]
    return Row(
        key=pack.key,
        task=pack.task,
        tokens=pack.tokens,
        segments=segments,
        positions=attn.position_ids(lengths, attention),
        targets=attn.targets(pack.tokens, pack.loss, segments),
        slots=slots,
        pixels=np.stack([resize(pack.images[i], image_size) for i in used]) if used else _no_images(0, image_size),
        samples=len(lengths),
        pairs=sum(n * (n + 1) // 2 for n in spans),
    )


def resize(data: bytes, size: int) -> np.ndarray:
    """Decode and squash to size x size, bicubic, as CLIP's preprocessing does but without a crop: uint8 [3, S, S]."""
    image = decode_image(data).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def _no_images(count: int, size: int) -> np.ndarray:
    return np.zeros((count, 3, size, size), dtype=np.uint8)


def collate(rows: list[Row], image_size: int, pad_to: int = 8) -> dict:
    """Rows -> a batch: tensors for the model and, under "rows", what the loop counts and names.

    tokens, segments, positions [B, L]; supervised, labels [T] (flat positions row * L + column, and what they must
    predict); slots [N * Q], flat; pixels uint8 [N, 3, S, S]. L is a multiple of `pad_to`. Without any image, N is 1:
    a black one with no slot. Without any row, B is 1 and nothing is supervised.
    """
    length = max([len(row.tokens) for row in rows], default=1)
    length = -(-length // pad_to) * pad_to
    tokens, segments = (np.zeros((max(len(rows), 1), length), dtype=np.int64) for _ in range(2))
    # Padding counts on: positions that jump back would make transformers look for packed samples on its own.
    positions = np.tile(np.arange(length, dtype=np.int64), (len(tokens), 1))
    targets = np.full(tokens.shape, attn.IGNORED, dtype=np.int64)
    slots = []
    for i, row in enumerate(rows):
        n = len(row.tokens)
        tokens[i, :n], segments[i, :n], positions[i, :n] = row.tokens, row.segments, row.positions
        targets[i, :n] = row.targets
        slots.append(row.slots + i * length)
    supervised = np.flatnonzero(targets != attn.IGNORED)
    pixels = np.concatenate([row.pixels for row in rows] or [_no_images(0, image_size)])
    return {
        "tokens": torch.from_numpy(tokens),
        "segments": torch.from_numpy(segments),
        "positions": torch.from_numpy(positions),
        "supervised": torch.from_numpy(supervised),
        "labels": torch.from_numpy(targets.reshape(-1)[supervised]),
        "slots": torch.from_numpy(np.concatenate([*slots, np.zeros(0, dtype=np.int64)]).astype(np.int64)),
        "pixels": torch.from_numpy(pixels if len(pixels) else _no_images(1, image_size)),
        "rows": [count_row(row) for row in rows],
        "padded": tokens.size,
    }


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
