#!/usr/bin/env python
"""Make a small raw crawl of image-text pairs without network or downloads, as img2dataset would have left it.

Photos ship inside installed libraries (scikit-image, matplotlib, imgaug) and are cropped anew for every pair; drawn
images come from pipelines/proof/scenes. Captions are English in OUTPUT/en and Chinese in OUTPUT/zh. About a third of
the pairs carry the dirt that the eight cleaning rules exist for, and a few images are damaged. OUTPUT/dialogues holds
chat.json, dialogues about drawn scenes in LLaVA's form, and their images; OUTPUT/documents has pages as PDF and HTML.
"""

import argparse
import io
import json
import random
import sys
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from matplotlib.figure import Figure
from PIL import Image

from corpus.shards import ShardWriter
from pipelines.proof.scenes.scene import scene

PHOTOS = yaml.safe_load((Path(__file__).parent / "demo_photos.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class RawPair:
    """One pair of the crawl: image bytes as served, caption as found; `status` as the downloader records it."""

    image: bytes
    caption: str | None
    status: str = "success"
    error: str = ""


def make_pair(seed: int, index: int, language: str) -> RawPair:
    """Return pair `index` of the crawl: a pure function of its arguments."""
    rng = random.Random(f"{seed}/{language}/{index}")
    image, caption = _photo(rng, language) if rng.random() < 0.35 else _drawn(rng, language)
    pair = RawPair(_jpeg(image, rng), caption)
    if rng.random() < 0.65:
        return pair
    return rng.choice(_DIRT)(pair, image, rng, language)


def _photo(rng: random.Random, language: str) -> tuple[Image.Image, str]:
    entry = rng.choice(PHOTOS)
    photo = _load(entry["package"], entry["file"])
    share = rng.uniform(0.7, 1.0)
    width, height = round(photo.width * share), round(photo.height * share)
    x, y = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
    scale = rng.uniform(260, 480) / min(width, height)
    crop = photo.crop((x, y, x + width, y + height)).resize((round(width * scale), round(height * scale)))
    return crop, rng.choice(entry[language])


@lru_cache
def _load(package: str, name: str) -> Image.Image:
    return Image.open(Path(find_spec(package).origin).parent / name).convert("RGB")


def _drawn(rng: random.Random, language: str) -> tuple[Image.Image, str]:
    drawn = scene(rng.getrandbits(48), rng.choice((224, 256, 288)))
    return drawn.image, drawn.caption_en if language == "en" else drawn.caption_zh


def _jpeg(image: Image.Image, rng: random.Random) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(70, 92))
    return file.getvalue()


# --- Dirt: each takes (pair, its picture, rng, language) and returns the pair as the web would have it ---


def _banner(pair, image, rng, language):
    return replace(pair, image=_jpeg(image.resize((rng.randint(700, 900), rng.randint(200, 220))), rng))


def _icon(pair, image, rng, language):
    return replace(pair, image=_jpeg(image.resize((rng.randint(32, 120),) * 2), rng))


def _tags(pair, image, rng, language):
    wrap = rng.choice(("<p>{}</p>", "<a href='http://example.com/view?id=9'>{}</a>", "<b>{}</b><br/>",
                       "{} &amp; more &ndash; 2019", '<div class="cap">{}</div>'))  # fmt: skip
    return replace(pair, caption=wrap.format(pair.caption))


def _litter(pair, image, rng, language):
    end = rng.choice((" - IMG_2034.jpg", " | www.example-photos.com", " !!!!!!!", " ......", " #photo #nice",
                      " @shutterfan", " - royalty free stock photo", "\u200b \u200b",
                      " 4f3c9a7d0b1e2f8a6c5d"))  # fmt: skip
    return replace(pair, caption=pair.caption + end)


def _mojibake(pair, image, rng, language):
    return replace(pair, caption=f"{pair.caption} – it’s ‘lovely’".encode().decode("cp1252", "replace"))


def _emoji(pair, image, rng, language):
    return replace(pair, caption=pair.caption + rng.choice((" 😍😍", " 👨‍👩‍👧", " 🇫🇷", " 👍🏽", " ❤️")))


def _foreign(pair, image, rng, language):
    foreign = ("Красивая картинка на стене", "صورة جميلة جدا", "きれいな写真です", "아름다운 사진", "สวยมาก")
    return replace(pair, caption=rng.choice(foreign))


def _short(pair, image, rng, language):
    return replace(pair, caption=rng.choice(("cat", "img", "1", "图", "foto")))


def _long(pair, image, rng, language):
    return replace(pair, caption=" ".join([pair.caption] * rng.randint(40, 60)))


def _empty(pair, image, rng, language):
    return replace(pair, caption=rng.choice((None, "", "   ", "<br>", "IMG_0042.JPG")))


def _mismatched(pair, image, rng, language):
    return replace(pair, caption=_drawn(random.Random(rng.random()), language)[1])


def _cut(pair, image, rng, language):
    return replace(pair, image=pair.image[: len(pair.image) // 2])


def _page(pair, image, rng, language):
    return replace(pair, image=b"<!DOCTYPE html><title>404 Not Found</title><h1>Not Found</h1>")


def _bomb(pair, image, rng, language):
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bytes.fromhex("0802000000")
    chunk = len(header[4:]).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return replace(pair, image=b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IEND\xae\x42\x60\x82")


def _gone(pair, image, rng, language):
    return replace(pair, status="failed_to_download", error=rng.choice(("HTTP Error 404: Not Found", "timed out")))


_DIRT: tuple[Callable[..., RawPair], ...] = (
    _banner, _icon, _tags, _tags, _litter, _litter, _mojibake, _emoji, _foreign, _short, _long, _empty,
    _mismatched, _mismatched, _cut, _page, _bomb, _gone,
)  # fmt: skip


def write_shard(folder: Path, shard: int, pairs: list[RawPair]) -> None:
    """Write SHARD.tar and SHARD.parquet in img2dataset's layout."""
    rows = []
    with open(folder / f"{shard:05d}.tar", "wb") as file:
        writer = ShardWriter(file)
        for i, pair in enumerate(pairs):
            row = {"key": f"{shard:05d}{i:04d}", "caption": pair.caption, "url": f"https://crawl.invalid/{shard}/{i}.jpg",
                   "status": pair.status, "error_message": pair.error or None}  # fmt: skip
            rows.append(row)
            if pair.status == "success":
                text = (pair.caption or "").encode()
                writer.write(row["key"], [("jpg", pair.image), ("json", json.dumps(row).encode()), ("txt", text)])
        writer.close()
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")


def write_dialogues(folder: Path, seed: int, number: int) -> None:
    """Write chat.json and images/: questions and answers about drawn scenes, every fifth dialogue without an image."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    dialogues = []
    for i in range(number):
        drawn = scene(f"{seed}/dialogue/{i}", 224)
        turns = [("human", "<image>\nWhat do you see?"), ("gpt", drawn.caption_en + "."),
                 ("human", "And the background?"), ("gpt", f"It is {drawn.background}.")]  # fmt: skip
        entry = {"id": str(i), "image": f"{i:04d}.jpg"}
        if i % 5 == 4:
            turns = [("human", f"What is {i} plus {i % 7}?"), ("gpt", f"{i} plus {i % 7} is {i + i % 7}.")]
            entry = {"id": str(i)}
        else:
            drawn.image.save(folder / "images" / entry["image"], quality=88)
        entry["conversations"] = [{"from": speaker, "value": text} for speaker, text in turns]
        dialogues.append(entry)
    (folder / "chat.json").write_text(json.dumps(dialogues, indent=1))


def write_documents(folder: Path, seed: int, number: int) -> None:
    """Write PDFs of a page, and HTML pages, that list what drawn scenes show."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        lines = [f"{n + 1}. {scene(f'{seed}/document/{i}/{n}', 64).caption_en}." for n in range(20)]
        paragraphs = "".join(f"<p>{line}" for line in lines)
        (folder / f"{i:04d}.html").write_text(f"<!doctype html><title>List {i}</title><h1>List {i}</h1>{paragraphs}")
        sheet = Figure(figsize=(8.27, 11.69))
        sheet.text(0.08, 0.95, "\n\n".join(textwrap.fill(line, 88) for line in lines), va="top", fontsize=9)
        sheet.savefig(folder / f"{i:04d}.pdf", metadata={"CreationDate": None})


def main() -> None:
    args = make_parser().parse_args()
    for language in ("en", "zh"):
        folder = Path(args.output) / language
        folder.mkdir(parents=True, exist_ok=True)
        for shard in range(args.shards):
            first = shard * args.pairs
            write_shard(folder, shard, [make_pair(args.seed, first + i, language) for i in range(args.pairs)])
    write_dialogues(Path(args.output) / "dialogues", args.seed, args.pairs)
    write_documents(Path(args.output) / "documents", args.seed, max(1, args.pairs // 20))
    print(f"raw crawl: {2 * args.shards} shards, {2 * args.shards * args.pairs} pairs in {args.output}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example:\n  python pipelines/make_demo_crawl.py --output demo/raw",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--shards", type=int, default=3, help="per language; default: 3")
    parser.add_argument("--pairs", type=int, default=200, help="per shard; default: 200")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
