"""Small stage folders of drawn scenes, in the format that build_stage.py writes, for tests of the trainer."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from corpus.formats import format_sample
from corpus.packs import CORPUS, FORMAT, TOKENIZER, corpus_digest, pack_members
from corpus.pieces import Encoder
from corpus.records import TASKS, EncodedImage, Sample
from corpus.shards import ShardWriter
from corpus.tokens import load_tokenizer
from pipelines.proof.scenes.scene import scene

QUERIES = 16
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
ARTICLE = "A {} stands beside a {}. Nothing else is in the picture, and the light is even. "


def sample(task: str, number: int) -> Sample:
    """One drawn sample of any task; a pure function of its arguments."""
    kinds = {"ocr": ("sign",), "grounded_caption": ("single",), "referring": ("single",), "region_caption": ("single",)}
    drawn = scene(f"{task}/{number}", 112, kinds=kinds.get(task, ("pair", "several")))
    buffer = io.BytesIO()
    drawn.image.save(buffer, "JPEG", quality=90)
    out = Sample(
        key=f"scenes/{task}/{number:04d}", dataset="scenes", task=task, language="en", text=drawn.caption_en,
        width=112, height=112, images=[EncodedImage(buffer.getvalue(), "jpg")],
    )  # fmt: skip
    things = [f"{thing.colour} {thing.name}" for thing in drawn.objects]
    out.annotations = {
        "regions": drawn.regions_en,
        "lines": [{"text": word.text, "quad": word.quad} for word in drawn.words],
        "question": f"Is there a {things[0]}?" if things else "What is it?",
        "answer": f"Yes, number {number}.",
        "turns": [
            {"role": "user", "text": "What is this?", "images": [0]},
            {"role": "assistant", "text": drawn.caption_en},
        ],
    }
    return out


def encode(task: str, number: int, encoder: Encoder):
    """(tokens, loss, images) of one sample."""
    if task == "text":
        drawn = scene(f"text/{number}", 32, kinds=("pair",))
        # The first token is given, never predicted; a letter of its own makes all that follows predictable.
        names = [f"{thing.colour} {thing.name}" for thing in drawn.objects[:2]]
        text = f"{LETTERS[number % len(LETTERS)]} {ARTICLE.format(*names)}{drawn.caption_en}"
        ids = [*encoder.tokenizer.encode(text), encoder.tokenizer.eos]
        return np.array(ids, np.int32), np.array([False] + [True] * (len(ids) - 1)), []
    made = sample(task, number)
    encoded = encoder.encode(format_sample(made, task)[0].pieces)
    return encoded.tokens, encoded.loss, made.images


def make_stage(
    folder: Path,
    *,
    stage: int = 2,
    tasks=TASKS,
    per_task: int = 8,
    per_pack: int = 4,
    queries: int = QUERIES,
    tokenizer=None,
    shards: int = 2,
    spoil=lambda key, i, image: image,
) -> Path:
    """Write a stage folder of `per_task` samples of each task, `per_pack` of them in a pack.

    `spoil(pack key, image index, EncodedImage) -> EncodedImage` may damage images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    tokens = load_tokenizer(tokenizer)
    tokens.save(folder / TOKENIZER)
    encoder = Encoder(tokens, queries)
    packs = [
        _pack(task, range(first, min(first + per_pack, per_task)), encoder, f"{task}-{first:04d}", spoil)
        for task in tasks
        for first in range(0, per_task, per_pack)
    ]
    entries = [_write_shard(folder, f"mixed-{i:05d}", packs[i::shards]) for i in range(shards)]
    record = {
        "format": FORMAT, "stage": stage, "queries": queries, "max_tokens": 2048, "max_images": 7, "tasks": {},
        "packs": len(packs), "samples": sum(n for *_, n in packs),
        "tokenizer": {"fingerprint": tokens.fingerprint}, "shards": entries,
    }  # fmt: skip
    record["digest"] = corpus_digest(record)
    (folder / CORPUS).write_text(json.dumps(record))
    return folder


def _pack(task: str, numbers, encoder: Encoder, key: str, spoil):
    samples, tokens, loss, images = [], [], [], []
    for number in numbers:
        ids, supervised, own = encode(task, number, encoder)
        start = sum(len(t) for t in tokens)
        used = list(range(len(images), len(images) + len(own)))
        samples.append(
            {"key": f"{task}/{number}", "dataset": "scenes", "start": start, "length": len(ids), "images": used}
        )
        tokens.append(ids)
        loss.append(supervised)
        images += own
    images = [spoil(key, i, image) for i, image in enumerate(images)]
    return key, pack_members(task, samples, np.concatenate(tokens), np.concatenate(loss), images), len(samples)


def _write_shard(folder: Path, name: str, packs) -> dict:
    with open(folder / f"{name}.tar", "wb") as file:
        writer = ShardWriter(file)
        for key, members, _ in packs:
            writer.write(key, members)
        writer.close()
    (folder / f"{name}.idx").write_bytes(writer.index())
    digest = hashlib.sha256((folder / f"{name}.tar").read_bytes()).hexdigest()
    (folder / f"{name}.json").write_text(json.dumps({"files": {"tar": digest}}))
    return {"id": name, "packs": len(packs), "sha256": digest}
