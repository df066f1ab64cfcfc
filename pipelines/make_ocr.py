#!/usr/bin/env python
"""Make synthetic OCR images with a quad for every line (SynthDoG, Qwen-VL A.4).

Image i is a pure function of (seed, i, settings): any worker, any order, any number of restarts, same bytes. Without
--corpus, --backgrounds and --papers it uses what is installed anyway: Python's documentation (for Chinese: invented
text), the photos of scikit-image, generated clouds and crumpled paper.
"""

import argparse
import io
import json
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import cv2
import fsspec
import numpy as np
import pyarrow as pa
from PIL import Image, features

from corpus.catalog import find
from corpus.folder import OutputFolder, digest
from corpus.languages import number_of
from corpus.ledger import Counts
from corpus.legibility import Legibility
from corpus.records import BadImage, EncodedImage, Sample
from corpus.shards import IndexedShard
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.work.datasets import whole_catalog
from synth_ocr import fonts, settings
from synth_ocr.document import Line, NoText, Picture, compose
from synth_ocr.glyphs import Typeface, load_face
from synth_ocr.passages import BadCorpus, Corpus, built_in_corpus
from synth_ocr.photos import SUFFIXES, Photos, load_papers

PASSAGE = 8192  # characters; the smallest text on the largest page needs about 6,000
SCORES = {
    "width": pa.int32(),
    "height": pa.int32(),
    "lines": pa.int32(),
    "characters": pa.int32(),
    "text_height": pa.float32(),  # median over the lines, pixels
    "skipped_characters": pa.int32(),  # of the passage, in a script that no face covers
    "cut_lines": pa.int32(),  # by the canvas' edge
    "unprinted_lines": pa.int32(),  # too small to be read at the training size
    "advance": pa.float32(),  # least of the lines after the squash: pixels for a half-width character
    "ink_height": pa.float32(),  # and pixels of ink across the line
}
_EXAMPLE = "python pipelines/make_ocr.py --language en --count 1000 --corpus 'wiki/*.txt' --output ocr/en"


@dataclass(frozen=True)
class Sources:
    """What a worker draws from."""

    corpus: Corpus
    photos: Photos
    papers: list[np.ndarray]
    faces: list[Typeface]


def main() -> None:
    args = make_parser().parse_args()
    args.dataset = args.dataset or f"synthdog-{args.language}"
    language = find(whole_catalog(args.catalog), args.dataset, job="make_ocr").language
    if language != args.language:
        raise job.UserError(f"dataset {args.dataset!r} is {language}, but --language is {args.language}")
    recipe, faces, files = _recipe(args), _faces(args, language), _files(args)
    make_sources = lambda: open_sources(faces, *files)  # noqa: E731 - Ray refuses partial objects
    _try(make_sources)
    seed, limit, dataset = args.seed, args.limit, args.dataset
    counts = job.run(
        "make_ocr", args, _plan(args.count, args.images_per_shard), _settings(args, recipe, faces, files),
        lambda split, sink, sources: make_split(split, sink, sources, dataset, language, seed, recipe, limit),
        scores=SCORES, setup=make_sources,
    )  # fmt: skip
    if args.donut:
        write_donut(args.output, args.donut)
    _refuse_nothing(counts)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="", reads_input=False)
    parser.add_argument("--language", metavar="CODE", required=True, help="whose faces to use: en, zh, ...")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="images 0 to N - 1; may grow later")
    parser.add_argument(
        "--corpus", nargs="+", action="extend", default=[], metavar="GLOB", help=".txt, .jsonl, or cleaned text shards"
    )
    parser.add_argument(
        "--backgrounds", nargs="+", action="extend", default=[], metavar="GLOB", help="photos: files, folders, shards"
    )
    parser.add_argument(
        "--papers", nargs="+", action="extend", default=[], metavar="GLOB", help="photos of paper, taken as grey"
    )
    parser.add_argument("--fonts", default=fonts.MANIFEST, metavar="FILE", help="manifest (see synth_ocr/faces.csv)")
    fonts.add_folder_flag(parser)
    parser.add_argument("--available-faces", action="store_true", help="draw with the faces that are here, if not all")
    parser.add_argument("--settings", metavar="FILE", help="JSON that changes settings (see synth_ocr/settings.py)")
    parser.add_argument("--images-per-shard", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument(
        "--train-size", type=int, metavar="PIXELS",
        help="the square that the trainer squashes images to: all lines can be read there; 0: whatever (default: 448)",
    )  # fmt: skip
    parser.add_argument("--vertical", type=float, metavar="P", help="share of pages in vertical columns; default: 0")
    parser.add_argument("--words", action="store_true", help="also label words (Chinese: characters)")
    parser.add_argument("--straight", action="store_true", help="no elastic distortion: no line is bent at all")
    parser.add_argument("--donut", metavar="DIR", help="also write images and text_sequence labels for Donut")
    return parser


def _try(function):
    try:
        return function()
    except (fonts.FontError, BadCorpus, BadImage) as error:
        raise job.UserError(str(error)) from None


def _recipe(args) -> settings.Settings:
    try:
        text = Path(args.settings).read_text(encoding="utf-8") if args.settings else "{}"
        recipe = settings.from_json(json.loads(text))
    except (OSError, ValueError) as error:
        raise job.UserError(f"--settings {args.settings}: {error}") from None
    if args.train_size is not None:
        size, off = args.train_size or recipe.legibility.train_size, {} if args.train_size else {"advance": 0, "ink": 0}
        recipe = replace(recipe, legibility=replace(recipe.legibility, train_size=size, **off))
    if args.vertical is not None:
        recipe = replace(recipe, vertical=args.vertical)
    return replace(recipe, words=recipe.words or args.words, straight=recipe.straight or args.straight)


def _faces(args, language: str) -> list[tuple[fonts.Face, fonts.Face | None]]:
    def choose():
        known = fonts.read_manifest(args.fonts)
        return fonts.choose(known, language, args.font_dir, available=args.available_faces)

    return _try(choose)


def _files(args) -> tuple[list[str], list[str], list[str]]:
    """Return the files of corpus, backgrounds and papers; empty: built in."""
    corpus = job.find_inputs(args.corpus) if args.corpus else []
    return corpus, _photos(args.backgrounds), _photos(args.papers)


def _photos(patterns: list[str]) -> list[str]:
    found = []
    for pattern in patterns:
        if "://" not in pattern and Path(pattern).is_dir():
            inside = sorted(p for p in Path(pattern).rglob("*") if p.suffix.lower() in (*SUFFIXES, ".tar"))
            if not inside:
                raise job.UserError(f"{pattern} holds no photos ({', '.join(SUFFIXES)}) and no shards")
            found += [str(path.resolve()) for path in inside]
        else:
            found += job.find_inputs([pattern])
    return sorted(set(found))


def open_sources(faces, corpus: list[str], backgrounds: list[str], papers: list[str]) -> Sources:
    """Open all that images are made from. Raises FontError, BadCorpus or BadImage."""
    if not features.check("raqm"):
        raise fonts.FontError(
            "Pillow cannot set text: it was built without Raqm, or finds no FriBiDi (python pipelines/doctor.py)"
        )
    cv2.setNumThreads(1)  # one worker, one core
    language = faces[0][0].language
    typefaces = [load_face(face, companion) for face, companion in faces]
    return Sources(Corpus(corpus or [built_in_corpus(language)]), Photos(backgrounds), load_papers(papers), typefaces)


def _settings(args, recipe: settings.Settings, faces, files) -> dict:
    """Return all that the images depend on. Pixels differ between versions of the drawing libraries, so these count."""
    corpus, backgrounds, papers = files
    return {
        "language": args.language,
        "seed": args.seed,
        "images_per_shard": args.images_per_shard,
        "recipe": settings.to_json(recipe),
        "faces": {face.name: face.digest for face, _ in faces},
        "companions": {companion.name: companion.digest for _, companion in faces if companion},
        "corpus": _named_sizes(corpus or [built_in_corpus(args.language)]),
        "backgrounds": digest(_named_sizes(backgrounds)) if backgrounds else "built in",
        "papers": digest(_named_sizes(papers)) if papers else "built in",
        "libraries": _libraries(),
        "thresholds": {"advance": [recipe.legibility.advance], "ink_height": [recipe.legibility.ink]},  # in the report
    }


def _libraries() -> dict[str, str]:
    drawing = {name: features.version(name) for name in ("pil", "freetype2", "raqm", "jpg")}
    return {"numpy": np.__version__, "opencv": cv2.__version__, "scikit-image": version("scikit-image"), **drawing}


def _named_sizes(files: list[str]) -> dict[str, int]:
    return {f"{i} {Path(file).name}": fsspec.core.url_to_fs(file)[0].size(file) for i, file in enumerate(files)}


def _plan(count: int, images_per_shard: int) -> list[Split]:
    if count < 1 or images_per_shard < 1:
        raise job.UserError("--count and --images-per-shard are at least 1")
    splits = []
    for number, first in enumerate(range(0, count, images_per_shard)):
        source = {"first": first, "end": min(first + images_per_shard, count)}
        splits.append(Split(f"{number:05d}", source, source))
    return splits


def make_split(
    split: Split, sink: Sink, sources: Sources, dataset: str, language: str, seed: int, recipe, limit: int | None = None
) -> None:
    """Make the images of one split, in order."""
    first, end = split.source["first"], split.source["end"]
    sink.expects(np.arange(end - first), limit=limit)
    for row, i in enumerate(range(first, end if limit is None else min(end, first + limit))):
        key = f"{dataset}/{split.id}/{row:06d}"
        try:
            picture, place = make_image(seed, i, sources, language, recipe)
        except (NoText, BadCorpus, BadImage) as error:
            sink.error(key, row, error.kind, f"image {i}: {error}")
            continue
        source = {"image": i, "seed": seed, **place}
        sink.keep(_sample(key, dataset, language, picture, source), row, **_scores(picture, recipe.legibility))


def make_image(seed: int, i: int, sources: Sources, language: str, recipe: settings.Settings) -> tuple[Picture, dict]:
    """Make image `i`; also returns where its text and its photo come from. Raises NoText, BadCorpus or BadImage."""
    entropy = [seed % 2**64, number_of(language), i]
    text, place = sources.corpus.passage(np.random.default_rng([*entropy, 2]), PASSAGE)
    photo, name = sources.photos.pick(np.random.default_rng([*entropy, 3]))
    picture = compose(entropy, text, photo, sources.papers, sources.faces, recipe)
    return picture, {**place, "background": name, "faces": picture.faces}


def _sample(key: str, dataset: str, language: str, picture: Picture, source: dict) -> Sample:
    stream = io.BytesIO()
    Image.fromarray(picture.pixels).save(stream, "JPEG", quality=picture.jpeg_quality)
    height, width = picture.pixels.shape[:2]
    return Sample(
        key=key, dataset=dataset, task="ocr", language=language, text="\n".join(line.text for line in picture.lines),
        width=width, height=height, images=[EncodedImage(stream.getvalue(), "jpg")], source=source,
        annotations={"lines": [_line(line) for line in picture.lines]},
    )  # fmt: skip


def _line(line: Line) -> dict:
    record = {"text": line.text, "quad": _points(line.quad)}
    if line.vertical:
        record["vertical"] = True
    if line.words:
        record["words"] = [{"text": word.text, "quad": _points(word.quad)} for word in line.words]
    return record


def _points(quad: np.ndarray) -> list[list[float]]:
    return [[round(float(x), 2), round(float(y), 2)] for x, y in quad]


def _scores(picture: Picture, legibility: Legibility) -> dict:
    height, width = picture.pixels.shape[:2]
    measured = [legibility.measure(line.text, line.quad.tolist(), width, height) for line in picture.lines]
    heights = [np.hypot(*(line.quad[3] - line.quad[0])) for line in picture.lines]
    return {
        "width": width,
        "height": height,
        "lines": len(picture.lines),
        "characters": sum(len(line.text) for line in picture.lines),
        "text_height": float(np.median(heights)),
        "skipped_characters": picture.skipped,
        "cut_lines": picture.cut,
        "unprinted_lines": picture.unprinted,
        "advance": min(legibility.train_size, *(advance for advance, _ in measured)),
        "ink_height": min(legibility.train_size, *(ink for _, ink in measured)),
    }


def write_donut(output: str, target: str) -> None:
    """Write committed shards as Donut reads them: folders train, validation and test (8 : 1 : 1 by image number)."""
    folder = OutputFolder(output)
    for split in folder.manifests():
        shard = IndexedShard(folder.path(f"{split}.tar") if folder.local else f"{folder.url}/{split}.tar")
        labels: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for i in range(len(shard)):
            _, members = shard[i]
            record = json.loads(members["json"])
            part = (["train"] * 8 + ["validation", "test"])[record["source"]["image"] % 10]
            name = f"image_{record['source']['image']}.jpg"
            _write(Path(target) / part / split / name, members["jpg"])
            labels[part].append(_donut_label(name, record["text"]))
        for part, lines in labels.items():
            if lines:
                _write(Path(target) / part / split / "metadata.jsonl", "".join(lines).encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _donut_label(name: str, text: str) -> str:
    truth = json.dumps({"gt_parse": {"text_sequence": " ".join(text.split())}}, ensure_ascii=False)
    return json.dumps({"file_name": name, "ground_truth": truth}, ensure_ascii=False) + "\n"


def _refuse_nothing(counts: Counts) -> None:
    if counts.rows and not counts.kept:
        kinds = ", ".join(f"{kind}: {number}" for kind, number in counts.errors.items())
        raise job.UserError(f"not one of {counts.rows} images could be made ({kinds}); the ledger says why for each")


if __name__ == "__main__":
    job.main(main)
