#!/usr/bin/env python
"""Clean dialogues for supervised fine-tuning: ShareGPT and LLaVA JSON, OpenAI-style messages, alpaca, Qwen-VL's own.

The layouts are told apart row by row. Images may stand anywhere in a turn and may be several; build_stage.py writes
"Picture N:" before each and the rest of ChatML.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa

from corpus.catalog import Dataset, find, load_catalog
from corpus.readers.chat import dialogue
from corpus.readers.rows import BadRow, ChatRow
from corpus.readers.slices import plan, read
from corpus.records import BadImage, Sample
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.work import annotated

ROWS_PER_SPLIT = 10_000
SCORES = {"turns": pa.int32(), "pictures": pa.int32(), "characters": pa.int32()}
_EXAMPLE = (
    "python pipelines/clean_chat.py --dataset chat-sft --input 'sft/*.json' --images llava/images --output cleaned/chat"
)


def main() -> None:
    args = _parser().parse_args()
    dataset = find(load_catalog(args.catalog), args.dataset, job="clean_chat")
    with annotated.user_errors():
        annotated.check_images(args, needed=False)
        slices = [piece for path in job.find_inputs(args.input) for piece in plan(path, ROWS_PER_SPLIT)]
        splits = annotated.as_splits(slices)
    options = {"max_images": args.max_images}
    work = annotated.as_work(
        clean_split, dataset=dataset, limit=args.limit, **options, pictures=annotated.image_options(args)
    )  # fmt: skip
    settings = annotated.common_settings(dataset, [*annotated.GUARD_RULES, "too_many_images"])
    job.run("clean_chat", args, splits, settings | annotated.image_settings(args) | options, work, scores=SCORES)


def _parser():
    parser = job.parser(__doc__, _EXAMPLE, dataset="chat-sft")
    annotated.add_image_flags(parser)
    parser.add_argument(
        "--max-images", type=int, default=7, metavar="N",
        help="drop dialogues with more images (default: 7, what 2048 tokens hold at 256 a picture)",
    )  # fmt: skip
    return parser


def clean_split(
    split: Split, sink: Sink, *, dataset: Dataset, pictures: Mapping,
    max_images: int, limit: int | None = None,
) -> None:  # fmt: skip
    """Clean one slice of dialogues: every row goes to the sink once, in input order."""
    finder = annotated.Pictures(**pictures)
    for row, record in annotated.limited(read(annotated.slice_of(split)), limit):
        result = record if isinstance(record, BadRow) else dialogue(record)
        key = annotated.key_of(dataset, split, row)
        if isinstance(result, BadRow):
            sink.error(key, row, result.kind, result.detail)
        else:
            _clean(result, key, row, sink, dataset, finder, max_images)


def _clean(chat: ChatRow, key: str, row: int, sink: Sink, dataset: Dataset, pictures, max_images: int) -> None:
    turns = list(turns_of(chat))
    text = "\n".join(f"{turn['role']}: {turn['text']}" for turn in turns)
    columns = {"turns": len(turns), "pictures": len(chat.images), "characters": sum(len(t["text"]) for t in turns)}
    if len(chat.images) > max_images:
        sink.drop(
            key, row, "too_many_images", value=len(chat.images), threshold=max_images, text_before=text[:500], **columns
        )  # fmt: skip
        return
    try:
        found = [pictures.load(ref) for ref in chat.images]
    except annotated.Banned as banned:
        annotated.drop_banned(sink, key, row, banned, text_before=text[:500], **columns)
    except BadImage as error:
        sink.error(key, row, error.kind, str(error), text_before=text[:500], **columns)
    else:
        sample = Sample(
            key=key, dataset=dataset.name, task="chat", language=dataset.language,
            width=found[0].width if found else None, height=found[0].height if found else None,
            images=[picture.image for picture in found], source={**chat.source, "row": row},
            annotations={"turns": turns},
        )  # fmt: skip
        sink.keep(sample, row, **columns)


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
