"""Stage folders of the shape that real ones have, for timing the trainer: only the numbers of things matter."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from corpus.packs import CORPUS, FORMAT, TOKENIZER, corpus_digest, pack_members
from corpus.records import EncodedImage
from corpus.shards import ShardWriter
from corpus.tokens import load_tokenizer

# (task, samples per pack, images per sample, text tokens per sample, share of them supervised). Stage 1: 500B tokens
# of 1.5B samples are 258 + 67 each. Stage 2: packs of 2048 with the 5 images that Table 3's mixture comes to.
SHAPES = {
    1: [("caption", 6, 1, 67, 0.9)],
    2: [("vqa", 6, 1, 60, 0.3), ("ocr", 3, 1, 420, 0.98), ("caption", 6, 1, 80, 0.9), ("referring", 6, 1, 30, 0.6)],
}


def photos(count: int = 16, folder: Path | None = None) -> list[EncodedImage]:
    """JPEG files: those of a folder, or pictures of 640 x 480 made up of smooth noise."""
    if folder is not None:
        return [EncodedImage(path.read_bytes(), "jpg") for path in sorted(folder.rglob("*.jpg"))[:count]]
    out = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        out.append(EncodedImage(buffer.getvalue(), "jpg"))
    return out


def make(folder: Path, stage: int, queries: int, packs: int, images: list[EncodedImage]) -> Path:
    """Write a stage folder of `packs` packs, the shapes of the stage in turn."""
    folder.mkdir(parents=True)
    tokenizer = load_tokenizer()
    tokenizer.save(folder / TOKENIZER)
    shapes = SHAPES[stage]
    rng = np.random.default_rng(0)
    with open(folder / "mixed-00000.tar", "wb") as file:
        writer = ShardWriter(file)
        for i in range(packs):
            writer.write(f"pack-{i:06d}", _pack(shapes[i % len(shapes)], queries, tokenizer, images, rng))
        writer.close()
    (folder / "mixed-00000.idx").write_bytes(writer.index())
    digest = hashlib.sha256((folder / "mixed-00000.tar").read_bytes()).hexdigest()
    (folder / "mixed-00000.json").write_text(json.dumps({"files": {"tar": digest}}))
    _write_record(folder, stage, queries, tokenizer, packs, digest)
    return folder


def _pack(shape, queries: int, tokenizer, images, rng) -> list[tuple[str, bytes]]:
    task, count, per_sample, text, share = shape
    samples, tokens, loss, used = [], [], [], []
    for _ in range(count):
        slot = [tokenizer.image_start, *[tokenizer.image_pad] * queries, tokenizer.image_end]
        ids = slot * per_sample + rng.integers(0, 5000, text).tolist()
        samples.append(
            {"key": "k", "dataset": "d", "start": len(tokens), "length": len(ids),
             "images": list(range(len(used), len(used) + per_sample))}
        )  # fmt: skip
        used += [images[rng.integers(len(images))] for _ in range(per_sample)]
        tokens += ids
        loss += [False] * (len(ids) - round(share * text)) + [True] * round(share * text)
    return pack_members(task, samples, np.array(tokens), np.array(loss), used)


def _write_record(folder: Path, stage: int, queries: int, tokenizer, packs: int, digest: str) -> None:
    shapes = SHAPES[stage]
    record = {
        "format": FORMAT, "stage": stage, "queries": queries, "max_tokens": 2048, "max_images": 7, "tasks": {},
        "packs": packs, "samples": sum(shapes[i % len(shapes)][1] for i in range(packs)),
        "tokenizer": {"fingerprint": tokenizer.fingerprint},
        "shards": [{"id": "mixed-00000", "packs": packs, "sha256": digest}],
    }  # fmt: skip
    record["digest"] = corpus_digest(record)
    (folder / CORPUS).write_text(json.dumps(record))
