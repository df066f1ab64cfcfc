"""Synthetic OCR against upstream SynthDoG: CPU seconds per image, where ours go, and whether the images are alike.

    python benchmarks/synth_ocr.py --upstream DONUT/synthdog --images 300
    python benchmarks/synth_ocr.py --upstream DONUT/synthdog --language zh --font uming.ttc

Upstream's template runs unmodified (its own resources, its own `generate`, on synth_ocr/compat.py); ours gets the same
fonts, corpus, photos and paper. Images alternate, so both see the same load of the machine; JPEG encoding is included.
"""

import argparse
import cProfile
import io
import os
import pstats
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from PIL import Image
from scipy.stats import ks_2samp

from synth_ocr.compat import import_synthtiger
from synth_ocr.document import compose
from synth_ocr.fonts import Face
from synth_ocr.glyphs import load_face
from synth_ocr.settings import Settings
from synth_ocr.textures import decode_photo

STAGES = {  # function -> what it does
    "_set_text": "lay out and draw the text",
    "_print": "paper, elastic distortion, ink, noise",
    "background": "stretch and blur the photo",
    "warp": "tilt the page onto the photo",
    "finish": "tint, shadow, contrast, blurs",
    "_label": "quads",
    "encode": "JPEG",
}


def main() -> None:
    """Run both, print times and the table of statistics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, type=Path, metavar="PATH", help="the synthdog folder of donut")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--font", action="append", metavar="FILE", help="for both, in place of upstream's own fonts")
    parser.add_argument("--images", type=int, default=40, help="of each; default: 40")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    fonts = args.font or sorted(
        map(str, (args.upstream / "resources" / "font" / args.language).resolve().glob("*.[to]tf"))
    )
    if not fonts:
        sys.exit(f"error: upstream's checkout has no fonts for {args.language}: name some with --font")
    ours, theirs = _ours(args.upstream, args.language, fonts), _theirs(args.upstream, args.language, fonts)
    ours(0), theirs(0)  # imports, caches
    seconds, rows = {"ours": 0.0, "upstream": 0.0}, {"ours": [], "upstream": []}
    for i in range(args.images):
        for name, make in (("ours", ours), ("upstream", theirs)):
            started = time.process_time()
            made = make(i)
            seconds[name] += time.process_time() - started
            rows[name].append(_measure(*made))
    _print_speed(seconds, args.images)
    _print_stages(ours, min(args.images, 40))
    _print_statistics(rows)


def _ours(upstream: Path, language: str, fonts: list[str]):
    resources = upstream / "resources"
    faces = [load_face(Face(Path(file).stem, language, "", "", file)) for file in fonts]
    text = (resources / "corpus" / f"{language}wiki.txt").read_text(encoding="utf-8")
    photos = [decode_photo(path.read_bytes()) for path in sorted((resources / "background").iterdir())]
    papers = [decode_photo(path.read_bytes(), grey=True) for path in sorted((resources / "paper").iterdir())]

    def make(i: int):
        at, photo = np.random.default_rng([i, 9]).integers((len(text) - 8192, len(photos)))
        picture = compose([0, i], text[at : at + 8192], photos[photo], papers, faces, Settings())
        encode(picture.pixels, picture.jpeg_quality)
        return picture.pixels, [line.text for line in picture.lines], [line.box for line in picture.lines]

    return make


def _theirs(upstream: Path, language: str, fonts: list[str]):
    synthtiger = import_synthtiger()
    os.chdir(upstream)  # its configuration names its resources so
    sys.path.insert(0, str(upstream.resolve()))
    from template import SynthDoG

    config = synthtiger.read_config(f"config_{language}.yaml")
    config["document"]["content"]["font"] |= {"paths": fonts, "weights": [1] * len(fonts)}
    template = SynthDoG(config)
    inner, kept = template.document.generate, {}

    def keep(size):
        kept["paper"], kept["layers"], kept["texts"] = inner(size)
        return kept["paper"], kept["layers"], kept["texts"]

    template.document.generate = keep  # the layers' quads, which generate() moves on and then forgets

    def make(i: int):
        synthtiger.set_global_random_seed(i)
        data = template.generate()
        pixels = data["image"][..., :3].astype(np.uint8)
        encode(pixels, int(data["quality"]))
        return pixels, kept["texts"], [layer.quad for layer in kept["layers"]]

    return make


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """Compress as both do."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _measure(pixels: np.ndarray, texts: list[str], quads: list[np.ndarray]) -> dict[str, float]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    row = {"width": width, "height": height, "mean grey level": grey.mean(), "contrast (deviation)": grey.std()}
    row["lines per image"] = len(texts)
    if texts:
        quads = np.array(quads, np.float64)
        top, left = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
        row["characters per line (mean)"] = np.mean([len(text) for text in texts])
        row["characters per image"] = sum(map(len, texts))
        row["text height, px (median)"] = np.median(np.hypot(*left.T))
        row["text height, px (smallest)"] = np.hypot(*left.T).min()
        row["line length, px (median)"] = np.median(np.hypot(*top.T))
        row["angle, degrees (median)"] = np.median(np.degrees(np.arctan2(top[:, 1], top[:, 0])))
    row["sharpness (Laplacian)"] = cv2.Laplacian(grey, cv2.CV_32F).std()
    return row


def _print_speed(seconds: dict[str, float], images: int) -> None:
    print("| | CPU seconds per image | images per second and core |\n|---|---|---|")
    for name in ("upstream", "ours"):
        print(f"| {name} | {seconds[name] / images:.3f} | {images / seconds[name]:.2f} |")
    print(f"\nratio: {seconds['upstream'] / seconds['ours']:.1f} ({images} images each)\n")


def _print_stages(make, images: int) -> None:
    profile = cProfile.Profile()
    profile.runcall(lambda: [make(i) for i in range(images)])
    stats = pstats.Stats(profile).stats
    total = sum(own for _, _, own, _, _ in stats.values())
    print("| stage | share of our time |\n|---|---|")
    for function, what in STAGES.items():
        spent = sum(s[3] for (_, _, name), s in stats.items() if name == function)
        print(f"| {what} | {100 * spent / total:.0f} % |")


def _print_statistics(rows: dict[str, list[dict]]) -> None:
    print("\n| per image | upstream | ours | KS statistic | p |\n|---|---|---|---|---|")
    for name in rows["ours"][0]:
        a, b = ([row[name] for row in rows[who] if name in row] for who in ("upstream", "ours"))
        test = ks_2samp(a, b)
        cells = [f"{np.mean(x):.3g} ± {np.std(x):.3g}" for x in (a, b)]
        print(f"| {name} | {cells[0]} | {cells[1]} | {test.statistic:.3f} | {test.pvalue:.3f} |")


if __name__ == "__main__":
    main()
