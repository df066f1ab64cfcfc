#!/usr/bin/env python
"""Near-duplicates: what is found of planted copies, and what is merged that should not be, by kind of picture.

    python benchmarks/near_duplicates.py --photos 'photos/*.jpg' --pdf 'pdf/*.pdf'

Every picture and its copies go through the hashes, the buckets and the comparison of `dedup.py --each-other`. Recall is
told by kind of copy; false merges are pairs of different pictures, of all originals together, taken for copies.
"""

import argparse
import glob
import io
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import pymupdf  # noqa: E402
from PIL import Image, ImageDraw, ImageFilter, ImageOps  # noqa: E402

from cleaners.copies import compare, prepare  # noqa: E402
from cleaners.dedup import Rows, near_pairs, probe_keys  # noqa: E402
from cleaners.phash import hash_views  # noqa: E402
from pipelines.dedup import CANDIDATE  # noqa: E402
from pipelines.proof.scenes.scene import scene  # noqa: E402

LEAST_SIDE, MOST_SIDE = 100, 640


def photos(pattern: str) -> list[Image.Image]:
    """Read photos of at least 100 pixels, made smaller than 640; one of those that are the same pixel by pixel."""
    found = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if "exif_orientation" in path:  # one picture, turned
            continue
        image = Image.open(path).convert("RGB")
        if min(image.size) >= LEAST_SIDE:
            image.thumbnail((MOST_SIDE, MOST_SIDE))
            found.append(image)
    return _distinct(found)


def pages(pattern: str, count: int) -> list[Image.Image]:
    """Render the first pages of documents, eight of each at most; one of those that are the same pixel by pixel."""
    found: list[Image.Image] = []
    for path in sorted(glob.glob(pattern)):
        try:
            document = pymupdf.open(path)
            for number in range(0 if document.needs_pass else min(8, len(document))):
                longest = max(document[number].rect[2:])
                scale = 900 / longest if 100 < longest < 3000 else None
                if scale:
                    pixels = document[number].get_pixmap(matrix=pymupdf.Matrix(scale, scale), alpha=False)
                    found.append(Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples))
        except (pymupdf.FileDataError, pymupdf.EmptyFileError, RuntimeError, ValueError):
            continue
    return _distinct(found)[:count]


def _distinct(images: list[Image.Image]) -> list[Image.Image]:
    return list({(image.size, image.tobytes()): image for image in images}.values())


def drawings(count: int) -> list[Image.Image]:
    """Draw scenes, all kinds in turn."""
    kinds = ("several", "sign")
    return [scene(i, 256, kinds=(kinds[i % 2],)).image.convert("RGB") for i in range(count)]


def products(count: int) -> list[Image.Image]:
    """Draw shots as shops have them: one shaded body of two colours on white, of many shapes, places and sizes."""
    return [_product(random.Random(seed)) for seed in range(count)]


def _product(rng: random.Random) -> Image.Image:
    image, shade = Image.new("RGB", (400, 400), "white"), ImageDraw.Draw
    body = Image.new("L", image.size, 0)
    corners = [(rng.randint(60, 340), rng.randint(60, 340)) for _ in range(rng.randint(3, 7))]
    shade(body).polygon(corners, fill=255)
    x, y, r = rng.randint(120, 280), rng.randint(120, 280), rng.randint(30, 110)
    shade(body).ellipse((x - r, y - r, x + r, y + r), fill=255)
    ramp = np.linspace(0, 1, 400)[:, None, None] * (np.array(_colour(rng)) - (low := np.array(_colour(rng)))) + low
    grain = np.random.default_rng(rng.randint(0, 1 << 30)).normal(0, 6, (400, 400, 1))
    surface = Image.fromarray(np.broadcast_to(ramp + grain, (400, 400, 3)).clip(0, 255).astype(np.uint8))
    image.paste(surface, mask=body.filter(ImageFilter.GaussianBlur(1)))
    return image


def _colour(rng: random.Random) -> list[int]:
    return [rng.randint(0, 230) for _ in range(3)]


def copies(image: Image.Image, rng: random.Random) -> Iterator[tuple[str, Image.Image]]:
    """Yield (kind, copy): what crawls hold of one picture."""
    width, height = image.size
    x, y, sides = rng.uniform(0, 0.1), rng.uniform(0, 0.1), [0.15, 0, 0, 0]
    rng.shuffle(sides)
    yield "JPEG 20", _jpeg(image, 20)
    yield "half size", _jpeg(image.resize((max(64, width // 2), max(64, height // 2))))
    yield "grey", _jpeg(image.convert("L"))
    yield "square", _jpeg(image.resize((224, 224)))
    yield "crop 10 %, anywhere", _jpeg(_cut(image, x, y, 0.1 - x, 0.1 - y))
    yield "one side 15 %", _jpeg(_cut(image, *sides))
    yield "letterbox", _jpeg(ImageOps.expand(image, (0, round(height * 0.12)), "black"))
    yield "border", _jpeg(ImageOps.expand(image, round(width * 0.06), rng.choice(["white", "black", "navy"])))
    yield "flip", _jpeg(ImageOps.mirror(image))
    yield "rotation 3 degrees", _jpeg(image.rotate(rng.choice([-3, 3]), Image.BICUBIC, fillcolor="white"))
    yield "watermark", _jpeg(_marked(image))


def _cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom))))


def _marked(image: Image.Image) -> Image.Image:
    """Write a line across the middle, a fourteenth of the width high, 55 % opaque."""
    marked = image.copy()
    place, size = (image.width * 0.08, image.height * 0.46), max(12, image.width // 14)
    ImageDraw.Draw(marked, "RGBA").text(place, "SAMPLE PHOTO LIBRARY", fill=(255, 255, 255, 140), font_size=size)
    return marked


def _jpeg(image: Image.Image, quality: int = 70) -> Image.Image:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def pairs_of(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (candidates [m, 3], which of the images have hashes, milliseconds an image)."""
    started = time.process_time()
    hashes = [hash_views(image) for image in images]
    spent = 1000 * (time.process_time() - started) / len(images)
    hashed = np.array([i for i, found in enumerate(hashes) if found is not None])
    probes = np.stack([probe_keys(found) for found in hashes if found is not None])
    long = np.stack([found.long.ravel() for found in hashes if found is not None])
    pairs, _ = near_pairs(Rows(probes), Rows(long), within=CANDIDATE)
    pairs[:, :2] = hashed[pairs[:, :2]]
    return pairs, hashed, spent


def false_merges(named: dict[str, list[Image.Image]]) -> None:
    """Print which pairs of different pictures are candidates, and which are merged."""
    images = [image for found in named.values() for image in found]
    kinds = [kind for kind, found in named.items() for _ in found]
    pairs, _, spent = pairs_of(images)
    print(f"{len(images)} different pictures, {spent:.1f} ms each to hash")
    for kind in named:
        of_kind = [(a, b) for a, b, _ in pairs.tolist() if kind in (kinds[a], kinds[b])]
        merged = [(a, b) for a, b in of_kind if compare(prepare(images[a]), prepare(images[b])).copies]
        counts = f"{len(named[kind]):>5} pictures{len(of_kind):>6} candidates{len(merged):>6} merged"
        print(f"  {kind:<10}{counts}", merged[:4])


def recall(named: dict[str, list[Image.Image]], every: dict[str, int]) -> None:
    """Print by kind of copy how many are candidates and how many are found, of every n-th picture of a kind."""
    for kind, images in named.items():
        counts: dict[str, list[int]] = {}
        rng, spent, compared = random.Random(1), 0.0, 0
        for image in images[:: every[kind]]:
            made = list(copies(image, rng))
            pairs, _, _ = pairs_of([image, *(copy for _, copy in made)])
            near = {b for a, b, _ in pairs.tolist() if a == 0}
            whole = prepare(image)
            for number, (name, copy) in enumerate(made, 1):
                started = time.process_time()
                found = number in near and compare(whole, prepare(copy)).copies
                spent, compared = spent + time.process_time() - started, compared + (number in near)
                counts.setdefault(name, []).append((number in near) + found)
        print(
            f"\n{kind}: {len(images[:: every[kind]])} pictures, {1000 * spent / max(1, compared):.0f} ms a comparison"
        )
        for name, found in counts.items():
            print(
                f"  {name:<22}{sum(n > 0 for n in found):>4} candidates{sum(n > 1 for n in found):>5} of {len(found)}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, metavar="GLOB", help="natural photos; ** looks into folders")
    parser.add_argument("--pdf", required=True, metavar="GLOB", help="documents whose pages are rendered")
    parser.add_argument("--drawings", type=int, default=481, metavar="N")
    parser.add_argument("--pages", type=int, default=200, metavar="N")
    parser.add_argument("--products", type=int, default=100, metavar="N")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="copies of every N-th page, drawing, product")
    args = parser.parse_args()
    named = {
        "photo": photos(args.photos), "drawing": drawings(args.drawings), "product": products(args.products),
        "page": pages(args.pdf, args.pages),
    }  # fmt: skip
    false_merges(named)
    recall(named, {"photo": 1, "drawing": 2 * args.every, "product": args.every, "page": args.every})


if __name__ == "__main__":
    main()
