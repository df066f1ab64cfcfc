#!/usr/bin/env python
"""Clean dialogues for supervised fine-tuning: ShareGPT and LLaVA JSON, OpenAI-style messages, alpaca, Qwen-VL's own.

The layouts are told apart row by row. Images may stand anywhere in a turn and may be several; build_stage.py writes
"Picture N:" before each and the rest of ChatML.

Boxes written in the words stay words, whatever they look like, unless you vouch for the file: --notation says how its
owner writes them, and they become regions, which build_stage.py writes with the control ids of grounding.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa

from corpus.catalog import Dataset
from corpus.ledger import Fuse
from corpus.readers.boundary import made_of
from corpus.readers.chat import Dialogue, dialogue
from corpus.readers.notation import COORDINATES, NOTATIONS, grounded
from corpus.readers.rows import BadRow, ChatRow
from corpus.readers.slices import plan, plan_all
from corpus.records import Sample
from corpus.splits import Sink, Split
from corpus.verdicts import Lost
from pipelines.engine import job
from pipelines.engine.thumbnails import Thumbnails, thumbnail
from pipelines.work import annotated
from pipelines.work.datasets import add_rule_flag, rules_of
from pipelines.work.places import clean_each

ROWS_PER_SPLIT = 10_000
SCORES = {"turns": pa.int32(), "pictures": pa.int32(), "characters": pa.int32()}
_EXAMPLE = (
    "python pipelines/clean_chat.py --dataset chat-sft --input 'sft/*.json' --images llava/images --output cleaned/chat"
)


def main() -> None:
    args = make_parser().parse_args()
    args.rule += [f"too_many_images.max={args.max_images}"] if args.max_images is not None else []
    if args.coordinates and not args.notation:
        raise job.UserError("--coordinates says how the boxes of --notation are meant: give both")
    clean_each("clean_chat", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    with annotated.user_errors():
        annotated.check_images(args, dataset, needed=False)
        slices = plan_all(job.find_inputs(args.input), lambda path: plan(path, ROWS_PER_SPLIT))
        splits = annotated.as_splits(args, slices)
    pictures = annotated.image_options(args, dataset)
    written = {"notation": args.notation, "coordinates": args.coordinates}
    work = annotated.as_work(clean_split, dataset=dataset, limit=args.limit, pictures=pictures, **written)
    settings = annotated.common_settings(dataset) | annotated.image_settings(args, dataset) | written
    table = rules_of(dataset)
    job.run(
        "clean_chat", args, splits, settings, work, scores=table.scores() | SCORES, rules=table, fuse=Fuse(alike=3)
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="chat-sft", from_catalog=True, reads_images=True)
    annotated.add_image_flags(parser)
    parser.add_argument(
        "--max-images", type=int, metavar="N",
        help="short for --rule too_many_images.max=N (default: 7, what 2048 tokens hold at 256 a picture)",
    )  # fmt: skip
    parser.add_argument(
        "--notation", choices=sorted(NOTATIONS),
        help="how the owner of these dialogues, whom you trust, writes boxes into the words (default: not at all)",
    )  # fmt: skip
    parser.add_argument(
        "--coordinates", choices=sorted(COORDINATES),
        help="what the numbers of the boxes are (default: what --notation is published with)",
    )  # fmt: skip
    add_rule_flag(parser)
    return parser


def clean_split(
    split: Split, sink: Sink, *, dataset: Dataset, pictures: Mapping, limit: int | None = None,
    notation: str | None = None, coordinates: str | None = None,
) -> None:  # fmt: skip
    """Clean one slice of dialogues: every row goes to the sink once, in input order."""
    cleaner = _Cleaner(sink, dataset, annotated.Pictures(**pictures), notation, coordinates)
    for row, record in annotated.records(split, sink, limit):
        (result,) = made_of(record, lambda record: [dialogue(record)], Dialogue)
        key = annotated.key_of(dataset, split, row)
        if isinstance(result, BadRow):
            sink.error(key, row, result.kind, result.detail)
        else:
            cleaner.clean(result, key, row)


class _Cleaner:
    """Judges the dialogues of a split and writes what becomes of them."""

    def __init__(
        self, sink: Sink, dataset: Dataset, pictures: annotated.Pictures,
        notation: str | None, coordinates: str | None,
    ):  # fmt: skip
        self._notation, self._coordinates = notation, coordinates
        self._sink, self._dataset, self._pictures = sink, dataset, pictures
        self._table, self._thumbnails = rules_of(dataset), Thumbnails()
        self._active = self._table.active(dataset.rules)

    def clean(self, chat: ChatRow, key: str, row: int) -> None:
        """Write a dialogue's sample, or why there is none."""
        turns = list(turns_of(chat))
        columns: dict[str, float] = {"turns": len(turns), "pictures": len(chat.images)}
        columns["characters"] = sum(len(turn["text"]) for turn in turns)
        try:
            words = "\n".join(turn["text"] for turn in turns)
            columns |= self._table.of_words(self._active, words, self._dataset.language)
            if verdict := self._table.judge(self._active, columns):
                raise Lost(verdict)
            found = [self._pictures.load(ref) for ref in chat.images]
            if self._notation:
                sizes = [(picture.width, picture.height) for picture in found]
                turns = grounded(turns, sizes, self._notation, self._coordinates)
        except Lost as lost:
            text = "\n".join(f"{turn['role']}: {turn['text']}" for turn in turns)[:500]
            self._sink.lose(key, row, lost.verdict, text_before=text, thumbnail=self._shown(chat, lost.kind), **columns)
            return
        sample = Sample(
            key=key, dataset=self._dataset.name, task="chat", language=self._dataset.language,
            width=found[0].width if found else None, height=found[0].height if found else None,
            images=[picture.image for picture in found], source={**chat.source, "row": row},
            annotations={"turns": turns},
        )  # fmt: skip
        self._sink.keep(sample, row, **columns)

    def _shown(self, chat: ChatRow, rule: str) -> bytes | None:
        """A thumbnail of the first picture of a dialogue that a rule of the table drops."""
        if rule not in self._active or not chat.images or not self._thumbnails.wanted(rule):
            return None
        try:
            return thumbnail(self._pictures.load(chat.images[0]).image.data)
        except Lost:
            return None


def turns_of(chat: ChatRow) -> Iterator[dict]:
    """Yield turns as samples hold them: role, text, indices of images, which the format puts before the text.

    Where an image stood between words, its name takes its place: "Compare Picture 1 with Picture 2."
    """
    shown = 0
    for turn in chat.turns:
        images = [piece for piece in turn.pieces if isinstance(piece, int)]
        text, number, named = "", shown, False
        for i, piece in enumerate(turn.pieces):
            if isinstance(piece, str):
                text += " " * (named and piece[:1].isalnum()) + piece
                named = False
                continue
            number += 1
            named = _between_words(turn.pieces, i)
            if named:
                text = f"{text.rstrip()} Picture {number}"
        shown += len(images)
        yield {"role": turn.role, "text": text.strip(), "images": images}


def _between_words(pieces: list, i: int) -> bool:
    """Tell whether text stands before an image and after it, in its own turn, so that it is part of a sentence."""
    before = any(isinstance(p, str) and p.strip() for p in pieces[:i])
    after = any(isinstance(p, str) and p.strip() for p in pieces[i + 1 :])
    return before and after


if __name__ == "__main__":
    job.main(main)
