"""Can the text of OCR samples be read at the size the trainer squashes them to? By geometry, and by tesseract.

  python -m benchmarks.legibility rendered/pdf rendered/html ocr/en [--train-size 448] [--read 40] [--sheets DIR]

Reads finished folders of any OCR job. Geometry, over every line: the advance for each character and the height of the
ink at training size; raw, without the allowances for short and low lines that the jobs make. Reading: of `--read`
samples of each folder, spread evenly, every labelled line is cut out, at full size and after the squash, scaled to the
height tesseract likes, and read (`--psm 7`); `kept` is the character accuracy at training size over the accuracy at
full size. Needs tesseract with eng, chi_sim, chi_tra, jpn, jpn_vert, ara, heb for the languages found; others are
skipped. `--sheets` writes the windows with their quads drawn, at full size and squashed.
"""

import argparse
import collections
import io
import os
import subprocess
import tempfile
import unicodedata
from pathlib import Path

os.environ.setdefault("OMP_THREAD_LIMIT", "1")

import cv2
import numpy as np
from PIL import Image, ImageDraw

from corpus.folder import OutputFolder
from corpus.legibility import is_column, is_full_width, squashed, widths
from corpus.records import Sample, from_members
from corpus.shards import IndexedShard
from trainer.evaluation.metrics import edit_distance

MODELS = {"en": "eng", "und": "eng", "zh": "chi_sim", "ja": "jpn", "ar": "ara", "he": "heb"}
HEIGHT = 48  # pixels a line is scaled to
COLOURS = ((220, 0, 0), (0, 130, 0), (0, 0, 230))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--train-size", type=int, default=448, metavar="PIXELS")
    parser.add_argument("--read", type=int, default=0, metavar="N", help="samples of each folder for tesseract")
    parser.add_argument("--sheets", type=Path, metavar="DIR")
    args = parser.parse_args()
    print(
        "| folder | samples | characters | lines | advance < 5 (CJK 8) | ink < 8 | either | images mostly so | > 3:1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in args.folders:
        print(geometry(folder, args.train_size), flush=True)
    if args.read:
        print()
        print_head("folder", "language", "lines", "characters", "full size", "at training size", "kept")
        for folder in args.folders:
            for row in reading(folder, args.train_size, args.read):
                print(row, flush=True)
    if args.sheets:
        for folder in args.folders:
            draw_sheets(folder, args.sheets, args.train_size)


def print_head(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))


def samples(folder: str, count: int | None = None):
    """Yield the samples of a finished folder; `count`: so many, spread evenly."""
    output = OutputFolder(folder)
    shards = [IndexedShard(output.path(f"{split}.tar")) for split in output.manifests()]
    places = [(shard, i) for shard in shards for i in range(len(shard))]
    step = max(len(places) // count, 1) if count else 1
    for shard, i in places[::step][:count]:
        yield from_members(shard[i][1])


def geometry(folder: str, train_size: int) -> str:
    counts = collections.Counter()
    for sample in samples(folder):
        bad = [verdict(line, sample, train_size) for line in sample.annotations["lines"]]
        counts["samples"] += 1
        counts["characters"] += sum(len(line["text"]) for line in sample.annotations["lines"])
        counts["lines"] += len(bad)
        counts["narrow"] += sum(narrow for narrow, _ in bad)
        counts["low"] += sum(low for _, low in bad)
        counts["either"] += sum(narrow or low for narrow, low in bad)
        counts["mostly"] += sum(narrow or low for narrow, low in bad) > len(bad) / 2
        counts["long"] += max(sample.width, sample.height) > 3.01 * min(sample.width, sample.height)
    lines, images = max(counts["lines"], 1), max(counts["samples"], 1)
    shares = [f"{counts[name] / lines:.1%}" for name in ("narrow", "low", "either")]
    return " | ".join(
        [f"| {folder}", *(str(counts[name]) for name in ("samples", "characters", "lines")), *shares,
         f"{counts['mostly'] / images:.1%}", f"{counts['long']} |"]
    )  # fmt: skip


def verdict(line: dict, sample: Sample, train_size: int) -> tuple[bool, bool]:
    """Return (too narrow, too low) of a line by the plain measure; 5 pixels, or 8 for a full-width character."""
    narrow, wide = widths(line["text"])
    along, across = squashed(line["text"], line["quad"], train_size / sample.width, train_size / sample.height)
    return along < 5 * narrow + 8 * wide, across < 8


def reading(folder: str, train_size: int, count: int):
    """Yield a table row for every language: tesseract's accuracy at full size and at training size."""
    lines = collections.defaultdict(list)
    for sample in samples(folder, count):
        pixels = cv2.imdecode(np.frombuffer(sample.images[0].data, np.uint8), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(pixels, (train_size, train_size), interpolation=cv2.INTER_AREA)
        scale = np.array([train_size / sample.width, train_size / sample.height])
        for line in sample.annotations["lines"]:
            if len(line["text"]) < 3 or is_column(line["text"], line["quad"]):
                continue
            quad = np.array(line["quad"])
            language = sample.language if sample.language in MODELS else ""
            lines[language].append((line["text"], rectified(pixels, quad), rectified(small, quad * scale, quad)))
    for language, found in sorted(lines.items()):
        if not language:
            continue
        found = found[:: max(len(found) // 400, 1)][:400]
        labels = [plain(text) for text, _, _ in found]
        whole, small = (read([row[i] for row in found], MODELS[language]) for i in (1, 2))
        a, b = accuracy(labels, whole), accuracy(labels, small)
        counts = f"{len(found)} | {sum(map(len, labels))}"
        yield f"| {folder} | {language} | {counts} | {a:.3f} | {b:.3f} | {b / max(a, 1e-6):.3f} |"


def rectified(grey: np.ndarray, quad: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
    """Cut a quad out, upright, HEIGHT pixels high, in the proportions that `shape` has."""
    shape = quad if shape is None else shape
    width, height = np.hypot(*(shape[1] - shape[0])), np.hypot(*(shape[3] - shape[0]))
    size = min(max(round(width * HEIGHT / max(height, 1)), 8), 4000), HEIGHT
    corners = np.float32([[0, 0], [size[0], 0], size, [0, size[1]]])
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32) - np.float32(0.5), corners - np.float32(0.5))
    patch = cv2.warpPerspective(grey, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    paper = int(np.median(patch))
    patch = cv2.copyMakeBorder(patch, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=paper)
    return patch if paper > 127 else 255 - patch


def read(patches: list[np.ndarray], model: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{i:04d}.png" for i in range(len(patches))]
        for name, patch in zip(names, patches, strict=True):
            Image.fromarray(patch).save(name, dpi=(300, 300))
        (Path(folder) / "list.txt").write_text("\n".join(names))
        command = ["tesseract", f"{folder}/list.txt", "-", "-l", model, "--psm", "7"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [plain(text) for text in found.split("\f")[: len(patches)]]


def plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(str.maketrans("‘’“”—–", "''\"\"--"))
    blank = "" if any(map(is_full_width, text)) else " "
    return blank.join(text.split())


def accuracy(labels: list[str], found: list[str]) -> float:
    wrong = sum(min(edit_distance(a, b), len(a)) for a, b in zip(labels, found, strict=True))
    return 1 - wrong / max(sum(map(len, labels)), 1)


def draw_sheets(folder: str, target: Path, train_size: int, count: int = 24) -> None:
    """Write contact sheets of six samples each: quads drawn, the first corner dotted, and the squash beside it."""
    target.mkdir(parents=True, exist_ok=True)
    cells = []
    for sample in samples(folder, count):
        image = Image.open(io.BytesIO(sample.images[0].data)).convert("RGB")
        small = image.resize((train_size, train_size), Image.Resampling.BOX)
        pen = ImageDraw.Draw(image)
        for number, line in enumerate(sample.annotations["lines"]):
            quad = [tuple(point) for point in line["quad"]]
            pen.polygon(quad, outline=COLOURS[number % 3])
            pen.ellipse((quad[0][0] - 3, quad[0][1] - 3, quad[0][0] + 3, quad[0][1] + 3), fill=(255, 0, 255))
            pen.text((quad[0][0], quad[0][1] - 9), str(number), fill=(255, 0, 255))
        image.thumbnail((760, train_size + 152))
        cell = Image.new("RGB", (760 + train_size, train_size + 170), (90, 90, 90))
        cell.paste(image, (0, 16))
        cell.paste(small, (760, 16))
        ImageDraw.Draw(cell).text((2, 2), sample.key[-60:] + f"  {sample.width} x {sample.height}", fill=(255, 255, 0))
        cells.append(cell)
    for start in range(0, len(cells), 3):
        part = cells[start : start + 3]
        sheet = Image.new("RGB", (part[0].width, part[0].height * len(part)))
        for i, cell in enumerate(part):
            sheet.paste(cell, (0, i * cell.height))
        sheet.save(target / f"{Path(folder).name}-{start // 3:03d}.png")


if __name__ == "__main__":
    main()
