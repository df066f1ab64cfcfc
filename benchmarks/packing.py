"""Packing on real length distributions: share of a pack that is not padding, packs, and time of planning.

Compares corpus.packing with next-fit and first-fit-decreasing, and shows what the split size costs. Lengths come from
files of captions and texts, tokenised with a given tokenizer; planning a million resamples them.

    python benchmarks/packing.py --data DIR [--tokenizer qwen.tiktoken] [--queries 256]

DIR holds, as the project's real test data does: image_text/coco_captions_only/*.json (COCO captions),
image_text/coco_cn/coco-cn_ext.icap2020.txt, image_text/web_urls/*.parquet (alt texts), text/* (articles and pages).
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from corpus.formats import format_sample  # noqa: E402
from corpus.packing import best_fit, lower_bound, plan_packs  # noqa: E402
from corpus.pieces import Encoder  # noqa: E402
from corpus.records import EncodedImage, Sample  # noqa: E402
from corpus.texts import split_text  # noqa: E402
from corpus.tokens import load_tokenizer  # noqa: E402

CAP, MILLION = 2048, 1_000_000
SPLIT_SIZES = (100, 300, 1_000, 3_000, 10_000, 100_000)


def caption_lengths(texts: list[str], encoder: Encoder, language: str) -> np.ndarray:
    """Tokens of caption samples; those over the 512 of stage 1 are left out, as build_stage.py does."""
    pixel, lengths = EncodedImage(b"", "jpg"), []
    for text in texts:
        sample = Sample(key="k", dataset="d", task="caption", language=language, text=text, images=[pixel])
        if text.strip():
            lengths.append(len(encoder.encode(format_sample(sample, "caption")[0].pieces).tokens))
    lengths = np.array(lengths)
    return lengths[lengths <= 512]


def text_lengths(folder: Path, encoder: Encoder) -> np.ndarray:
    documents = []
    for path in sorted(folder.iterdir()):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        documents += [json.loads(line).get("text", "") if path.suffix == ".jsonl" else line for line in lines if line]
    return np.array([len(part.tokens) for text in documents for part in split_text(text, encoder.tokenizer, CAP)])


def distributions(data: Path, encoder: Encoder) -> dict[str, tuple[np.ndarray, int]]:
    """Name -> (lengths, images of each)."""
    coco, by_image = [], {}
    for file in sorted((data / "image_text/coco_captions_only").glob("*.json")):
        for note in json.loads(file.read_text())["annotations"]:
            coco.append(note["caption"])
            by_image.setdefault(note["image_id"], []).append(note["caption"])
    chinese = [line.split("\t")[-1] for line in (data / "image_text/coco_cn/coco-cn_ext.icap2020.txt").open()]
    web = [text for f in sorted((data / "image_text/web_urls").glob("*_test_*.parquet")) for text in _texts(f)]
    long = [text for text in web if len(encoder.tokenizer.encode(text)) >= 20]
    return {
        "captions: COCO": (caption_lengths(coco, encoder, "en"), 1),
        "captions: COCO, an image's five": (
            caption_lengths([" ".join(c) for c in by_image.values()], encoder, "en"),
            1,
        ),
        "captions: COCO-CN": (caption_lengths(chinese, encoder, "zh"), 1),
        "captions: web alt texts": (caption_lengths(web, encoder, "en"), 1),
        "captions: web, 20 tokens or more": (caption_lengths(long, encoder, "en"), 1),
        "text: articles and pages": (text_lengths(data / "text", encoder), 0),
    }


def _texts(file: Path) -> list[str]:
    table = pq.read_table(file)
    name = next(n for n in table.column_names if n.lower() in ("caption", "text"))
    return [text for text in table[name].to_pylist() if text]


def next_fit(lengths: np.ndarray, images: np.ndarray, max_images: int) -> int:
    """Packs of next-fit in the order given: a pack is closed by the first sample that does not fit."""
    packs, tokens, pictures = 1, 0, 0
    for length, image in zip(lengths.tolist(), images.tolist(), strict=True):
        if tokens + length > CAP or pictures + image > max_images:
            packs, tokens, pictures = packs + 1, 0, 0
        tokens, pictures = tokens + length, pictures + image
    return packs


def first_fit_decreasing(lengths: np.ndarray, images: np.ndarray, max_images: int) -> int:
    """Packs of first-fit-decreasing, by a tree of the largest room below each node."""
    leaves = 1 << max(1, (len(lengths) - 1).bit_length())
    room, pictures, opened = [CAP] * (2 * leaves), [max_images] * leaves, 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length, node = int(lengths[i]), 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        pack = node - leaves
        opened = max(opened, pack + 1)
        pictures[pack] -= int(images[i])
        # A pack without room for another image takes no more (every sample here has as many images as the next).
        room[node] = room[node] - length if pictures[pack] >= int(images[i]) else 0
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return opened


def compare(name: str, lengths: np.ndarray, each: int, max_images: int) -> None:
    images, total = np.full(len(lengths), each), lengths.sum() / CAP
    plans = {
        "next-fit": next_fit(lengths, images, max_images),
        "FFD": first_fit_decreasing(lengths, images, max_images),
        "BFD": int(best_fit(lengths, images, CAP, max_images).max()) + 1,
        "ours": int(plan_packs(lengths, images, CAP, max_images).max()) + 1,
        "bound": lower_bound(lengths, images, CAP, max_images),
    }
    shares = "".join(f"{100 * total / packs:>10.2f}" for packs in plans.values())
    print(f"{name:<34}{len(lengths):>9,}{lengths.mean():>8.0f}{shares}")


def by_split_size(name: str, lengths: np.ndarray, each: int, max_images: int) -> None:
    shares = []
    for size in SPLIT_SIZES:
        parts = [lengths[i : i + size] for i in range(0, min(len(lengths), 200_000) // size * size, size)]
        packs = sum(int(plan_packs(p, np.full(size, each), CAP, max_images).max()) + 1 for p in parts)
        shares.append(100 * sum(p.sum() for p in parts) / CAP / packs)
    print(f"{name:<34}" + "".join(f"{share:>10.2f}" for share in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer")
    parser.add_argument("--queries", type=int, default=256)
    args = parser.parse_args()
    encoder = Encoder(load_tokenizer(args.tokenizer), args.queries)
    max_images = CAP // (args.queries + 2)
    real = distributions(args.data, encoder)
    rng = np.random.default_rng(0)
    columns = "".join(f"{title:>10}" for title in ("next-fit", "FFD", "BFD", "ours", "bound"))
    print(f"\nnon-padding share, %\n{'lengths':<34}{'samples':>9}{'mean':>8}{columns}")
    for name, (lengths, each) in real.items():
        compare(name, rng.permutation(lengths), each, max_images)
    print("\nresampled to 200,000 samples")
    million = {name: (rng.choice(lengths, MILLION), each) for name, (lengths, each) in real.items()}
    for name, (lengths, each) in million.items():
        compare(name, lengths[:200_000], each, max_images)
    print(f"\nnon-padding share by split size, %\n{'':<34}" + "".join(f"{s:>10,}" for s in SPLIT_SIZES))
    for name, (lengths, each) in million.items():
        by_split_size(name, lengths, each, max_images)
    print("\nCPU seconds to plan a million samples")
    for name, (lengths, each) in million.items():
        start = time.process_time()
        plan_packs(lengths, np.full(MILLION, each), CAP, max_images)
        print(f"{name:<34}{time.process_time() - start:>10.2f}")


if __name__ == "__main__":
    main()
