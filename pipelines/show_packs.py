#!/usr/bin/env python
"""Show packs of a stage folder as a person wants to see them: in the terminal, and as one HTML page with the pictures.

Everything shown is decoded back from the stored TOKENS: supervised ones are coloured, image slots stand as [image N],
and boxes and quads are drawn from the coordinates in the text, so that a wrong mask or coordinate is seen at once.
"""

import argparse
import base64
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import jinja2
import numpy as np
from rich.console import Console
from rich.text import Text

from corpus.packs import Pack, StageFolder, WrongCorpus
from corpus.parsing import parse_tokens
from corpus.tokens import Tokenizer
from pipelines.engine.thumbnails import thumbnail

_EXAMPLE = "python pipelines/show_packs.py demo/stage2 --task ocr --count 3 --html ocr.html"
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6")
_IMAGE_SIDE = 448


@dataclass
class Run:
    """A stretch of a sample's text: supervised or not; `image` is the number of the picture whose slot it is."""

    text: str
    supervised: bool
    image: int | None = None


@dataclass
class Shape:
    """A box or quad in the format's integers: SVG points, what it is called, its colour, the image it lies on."""

    points: str
    label: str
    colour: str
    image: int


@dataclass
class ShownSample:
    """One sample of a pack, decoded."""

    key: str
    dataset: str
    tokens: int
    supervised: int
    runs: list[Run]
    shapes: list[Shape]
    images: list[int]
    problems: list[str] = field(default_factory=list)


def main() -> None:
    args = make_parser().parse_args()
    folder = StageFolder(args.folder)
    tokenizer = folder.tokenizer()
    numbers = list(_choose(folder, args.task, args.count, args.seed)) if args.pack is None else [args.pack]
    console = Console(highlight=False, soft_wrap=True)
    shown = []
    for number in numbers:
        pack = folder[number]
        samples = [show_sample(pack, sample, tokenizer, folder.queries) for sample in pack.samples]
        shown.append((number, pack, samples))
        if not args.quiet:
            _print_pack(console, number, pack, samples, folder.max_tokens)
    if args.html:
        Path(args.html).write_text(page(folder, shown), encoding="utf-8")
        print(f"page: {args.html}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", help="stage folder, made by build_stage.py: local path or fsspec URL")
    parser.add_argument("--task", metavar="TASK", help="only packs of this task")
    parser.add_argument("--count", type=int, default=3, metavar="N", help="packs of each task; default: 3")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which packs; default: 0")
    parser.add_argument("--pack", type=int, metavar="I", help="this pack alone, by its number")
    parser.add_argument("--html", metavar="FILE", help="write a page with the pictures")
    parser.add_argument("--quiet", action="store_true", help="no text in the terminal")
    return parser


def _choose(folder: StageFolder, task: str | None, count: int, seed: int) -> Iterator[int]:
    """Yield numbers of packs, up to `count` of each task, spread over the task's packs."""
    if task is not None and task not in folder.tasks:
        raise WrongCorpus(f"{folder.path} has no task {task!r}; its tasks are {', '.join(folder.tasks)}")
    start, by_task = 0, {}
    for shard in folder.record["shards"]:
        by_task.setdefault(shard["task"], []).extend(range(start, start + shard["packs"]))
        start += shard["packs"]
    for name, numbers in by_task.items():
        if task in (None, name):
            chosen = np.random.default_rng(seed).permutation(len(numbers))[:count]
            yield from (numbers[i] for i in sorted(chosen.tolist()))


def show_sample(pack: Pack, sample: dict, tokenizer: Tokenizer, queries: int) -> ShownSample:
    """Decode one sample of a pack: runs of text by mask, shapes by the image before them, and what looks wrong."""
    tokens = pack.tokens[sample["start"] : sample["start"] + sample["length"]]
    loss = pack.loss[sample["start"] : sample["start"] + sample["length"]]
    shown = ShownSample(sample["key"], sample["dataset"], len(tokens), int(loss.sum()), [], [], sample["images"])
    slots = list(_slots(tokens, tokenizer))
    if len(slots) != len(sample["images"]):
        shown.problems.append(f"{len(slots)} image slots, {len(sample['images'])} images")
    at = 0
    for number, (start, end) in enumerate(slots):
        shown.runs += _runs(tokens[at:start], loss[at:start], tokenizer)
        inside = int((tokens[start:end] == tokenizer.image_pad).sum())
        shown.runs.append(Run("", False, sample["images"][number] if number < len(sample["images"]) else -1))
        if inside != queries:
            shown.problems.append(f"image slot of {inside} tokens, expected {queries}")
        if loss[start:end].any():
            shown.problems.append("supervised tokens inside an image slot")
        at = end
    shown.runs += _runs(tokens[at:], loss[at:], tokenizer)
    if loss[:1].any():
        shown.problems.append("the first token is supervised")
    shown.shapes = list(_shapes(tokens, slots, sample["images"], tokenizer))
    return shown


def _slots(tokens: np.ndarray, tokenizer: Tokenizer) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of every image slot, its `<img>` and `</img>` included."""
    ends = np.flatnonzero(tokens == tokenizer.image_end)
    for start in np.flatnonzero(tokens == tokenizer.image_start):
        after = ends[ends > start]
        yield int(start), int(after[0]) + 1 if len(after) else len(tokens)


def _runs(tokens: np.ndarray, loss: np.ndarray, tokenizer: Tokenizer) -> Iterator[Run]:
    borders = np.flatnonzero(np.diff(loss)) + 1
    for ids, mask in zip(np.split(tokens, borders), np.split(loss, borders), strict=True):
        if len(ids):
            yield Run(tokenizer.decode(ids), bool(mask[0]))


def _shapes(tokens: np.ndarray, slots: list, images: list[int], tokenizer: Tokenizer) -> Iterator[Shape]:
    ends = [end for _, end in slots]
    for image, start, end in zip(images, ends, [*ends[1:], len(tokens)], strict=False):
        for i, region in enumerate(parse_tokens(tokens[start:end], tokenizer).regions):
            colour = _COLOURS[i % len(_COLOURS)]
            for x0, y0, x1, y1 in region.boxes:
                yield Shape(f"{x0},{y0} {x1},{y0} {x1},{y1} {x0},{y1}", region.text, colour, image)
            for quad in region.quads:
                yield Shape(" ".join(f"{x},{y}" for x, y in quad), region.text, colour, image)


def _print_pack(console: Console, number: int, pack: Pack, samples: list[ShownSample], max_tokens: int) -> None:
    used, supervised = len(pack.tokens), int(pack.loss.sum())
    console.rule(f"pack {number}  {pack.key}  {pack.task}", align="left")
    counts = (
        f"{len(samples)} samples, {len(pack.images)} images, {used} of {max_tokens} tokens, {supervised} supervised"
    )
    console.print(counts, style="dim")
    for sample in samples:
        console.print(f"\n{sample.key} ({sample.dataset}): {sample.tokens} tokens", style="cyan")
        console.print(_terminal_text(sample, colours=console.is_terminal))
        for problem in sample.problems:
            console.print(f"  WRONG: {problem}", style="bold red")
    console.print()


def _terminal_text(sample: ShownSample, colours: bool) -> Text:
    text = Text()
    for run in sample.runs:
        if run.image is not None:
            text.append(f"[image {run.image}]", style="magenta")
        elif run.supervised:
            # Where there are no colours (a file, a pipe), brackets show what is supervised.
            text.append(run.text if colours else f"⟦{run.text}⟧", style="bold green")
        else:
            text.append(run.text, style="dim")
    return text


def page(folder: StageFolder, shown: list[tuple[int, Pack, list[ShownSample]]]) -> str:
    """Return the HTML page: self-contained, nothing fetched, all data escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures = {number: [_data_uri(image) for image in pack.images] for number, pack, _ in shown}
    return environment.get_template("show_packs.html.jinja").render(folder=folder, shown=shown, pictures=pictures)


def _data_uri(data: bytes) -> str:
    small = thumbnail(data, _IMAGE_SIDE)
    return "data:image/jpeg;base64," + base64.b64encode(small).decode() if small else ""


if __name__ == "__main__":
    try:
        main()
    except (WrongCorpus, IndexError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        sys.exit(1)
