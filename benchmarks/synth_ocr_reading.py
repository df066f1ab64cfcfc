"""Read synthetic OCR labels with an engine nobody here wrote: tesseract, line by line, face by face.

    python benchmarks/synth_ocr_reading.py --language en --corpus enwiki.txt --lines 24

Each face sets undistorted pages from the corpus; every labelled quad is cut out, rectified and read on its own. Needs
Debian's tesseract-ocr with eng and chi_sim. Chinese passages are those that GB 2312 can write: chi_sim knows no other
characters. Text is compared after Unicode compatibility normalisation (NFKC), Chinese without blanks.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

os.environ.setdefault("OMP_THREAD_LIMIT", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from PIL import Image

from synth_ocr.document import compose
from synth_ocr.fonts import MANIFEST, choose, read_manifest
from synth_ocr.glyphs import load_face
from synth_ocr.settings import Settings, undistorted
from trainer.evaluation.metrics import edit_distance

MODELS = {"en": "eng", "zh": "chi_sim"}
HEIGHT = 48  # pixels a line is scaled to, as tesseract likes it
WHITE = np.full((64, 64, 3), 255, np.uint8)


def main() -> None:
    """Print a table: character accuracy by face, worst first, with an example of what was misread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=MODELS, required=True)
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="text, UTF-8")
    parser.add_argument("--fonts", default=MANIFEST, metavar="FILE")
    parser.add_argument("--lines", type=int, default=24, metavar="N", help="lines per face; default: 24")
    args = parser.parse_args()
    if shutil.which("tesseract") is None:
        sys.exit(
            "error: no tesseract here; Debian: apt-get install tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim"
        )
    known = read_manifest(args.fonts)
    text = _passages(args.corpus.read_text(encoding="utf-8"), args.language)
    results = []
    for face, companion in choose(known, args.language):
        typeface = load_face(face, companion)
        labels, patches = _lines(typeface, text, args.lines)
        results.append((face.name, *_score(labels, _read(patches, args.language), args.language)))
        print(f"{results[-1][0]}: {results[-1][1]:.1%}", file=sys.stderr, flush=True)
    _print(results)


def _passages(text: str, language: str) -> str:
    if language == "en":
        return text
    sentences = text.replace("\n", "").split("。")
    return "。".join(s for s in sentences if s.encode("gb2312", "ignore").decode("gb2312") == s)


def _lines(typeface, text: str, count: int) -> tuple[list[str], list[np.ndarray]]:
    """Return labels and rectified grey patches of the first `count` lines of three characters or more."""
    labels, patches, seed = [], [], 0
    while len(labels) < count:
        at = int(np.random.default_rng([seed, 5]).integers(max(len(text) - 8192, 1)))
        picture = compose([11, seed], text[at : at + 8192], WHITE, [WHITE[..., 0]], [typeface], undistorted(Settings()))
        grey = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY)
        long = [line for line in picture.lines if len(line.text) > 2][:8]  # few of each page: many text sizes
        labels += [line.text for line in long]
        patches += [_rectify(grey, line.quad) for line in long]
        seed += 1
    return labels[:count], patches[:count]


def _rectify(grey: np.ndarray, quad: np.ndarray) -> np.ndarray:
    width, height = np.hypot(*(quad[1] - quad[0])), np.hypot(*(quad[3] - quad[0]))
    size = max(round(width * HEIGHT / height), 1), HEIGHT
    corners = np.float32([[0, 0], [size[0], 0], size, [0, size[1]]])
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32) - 0.5, corners - np.float32(0.5))
    patch = cv2.warpPerspective(grey, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cv2.copyMakeBorder(patch, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=255)


def _read(patches: list[np.ndarray], language: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{i:04d}.png" for i in range(len(patches))]
        for name, patch in zip(names, patches, strict=True):
            Image.fromarray(patch).save(name, dpi=(300, 300))
        (Path(folder) / "list.txt").write_text("\n".join(names))
        command = ["tesseract", f"{folder}/list.txt", "-", "-l", MODELS[language], "--psm", "7"]
        read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return read.split("\f")[: len(patches)]


def _score(labels: list[str], read: list[str], language: str) -> tuple[float, int, str]:
    """Return character accuracy, characters, and the worst line as "label -> read"."""
    pairs = [(_plain(a, language), _plain(b, language)) for a, b in zip(labels, read, strict=True)]
    wrong = [edit_distance(a, b) for a, b in pairs]
    characters = sum(len(a) for a, _ in pairs)
    worst = pairs[int(np.argmax([w / len(a) for w, (a, _) in zip(wrong, pairs, strict=True)]))]
    return 1 - sum(wrong) / characters, characters, f"{worst[0]} → {worst[1]}"


def _plain(text: str, language: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(str.maketrans("‘’“”—–", "''\"\"--"))
    return ("" if language == "zh" else " ").join(text.split())


def _print(results: list[tuple[str, float, int, str]]) -> None:
    print("| face | character accuracy | characters | worst line |\n|---|---|---|---|")
    for name, accuracy, characters, worst in sorted(results, key=lambda result: result[1]):
        print(f"| {name} | {accuracy:.1%} | {characters} | {worst.replace('|', '¦')} |")
    total = sum(r[2] for r in results)
    print(f"\nall faces: {sum(r[1] * r[2] for r in results) / total:.1%} of {total} characters")


if __name__ == "__main__":
    main()
