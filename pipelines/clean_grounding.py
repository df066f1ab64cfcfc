#!/usr/bin/env python
"""Clean grounding sets (Qwen-VL A.3): GRIT, Visual Genome regions, RefCOCO, RefCOCO+, RefCOCOg, COCO instances.

A row becomes one sample with its phrases and their boxes; build_stage.py makes the tasks of it: grounded captions
(GRIT), referring expressions and region captions. GRIT's recursive boxes are resolved so that most boxes stay in the
caption; its own referring expressions are kept beside it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa
import pyarrow.compute as pc

from cleaners.boxes import CONVENTIONS, Watch, in_pixels
from cleaners.grounded_text import Grounded, clean_grounded, join_by_text
from cleaners.grounding import METHODS, boxes_in, exact, group
from corpus.catalog import Dataset
from corpus.folder import OutputFolder
from corpus.readers import grounding, slices
from corpus.readers.boundary import looked_up, lost
from corpus.readers.rows import BadFile, BadRow, GroundingRow
from corpus.readers.slices import UNREADABLE
from corpus.records import Sample
from corpus.splits import Sink, Split
from corpus.verdicts import DROPPED, ERROR, Lost, Verdict, dropped, failed
from pipelines.engine import job
from pipelines.engine.thumbnails import Thumbnails
from pipelines.work import annotated
from pipelines.work.datasets import add_rule_flag, rules_of
from pipelines.work.places import clean_each

ROWS_AT_ONCE = 512
SCORES = annotated.IMAGE_SCORES | {
    "phrases": pa.int32(),  # kept
    "boxes": pa.int32(),  # kept
    "expressions": pa.int32(),  # GRIT's referring expressions, for referring and region captions
    "expression_boxes": pa.int32(),  # theirs
    "boxes_recursive": pa.int32(),  # given up, because their phrase overlaps another
    "boxes_below_optimum": pa.int32(),  # of those, how many the exact optimum would have kept
    "boxes_outside": pa.int32(),  # without area inside the image
}
_EXAMPLE = (
    "python pipelines/clean_grounding.py --dataset refcoco --images coco/train2014 --output cleaned/refcoco \\\n"
    "      --input 'refcoco/refs(unc).p' refcoco/instances.json --exclude 'refcocog/refs(umd).p'"
)


def main() -> None:
    args = make_parser().parse_args()
    clean_each("clean_grounding", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        annotated.check_images(args, dataset, needed=True)
        annotated.check_owners(args, dataset, inputs)
        reader, rows, beside = divide(inputs, dataset.reader)
        splits = annotated.as_splits(args, grounding.READERS[reader].slices(rows), beside)
    options = {"method": args.method, "convention": args.boxes, "keep": tuple(annotated.kept_splits(args))}
    work = annotated.as_work(
        clean_split, dataset=dataset, reader=reader, limit=args.limit, **options,
        pictures=annotated.image_options(args, dataset),
    )  # fmt: skip
    known = rules_of(dataset)
    settings = (
        annotated.common_settings(dataset) | annotated.image_settings(args, dataset) | options | {"layout": reader}
    )
    job.run("clean_grounding", args, splits, settings, work, scores=SCORES | known.scores(), rules=known)
    _print_audit(OutputFolder(args.output), args.method)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, from_catalog=True, reads_images=True)
    annotated.add_image_flags(parser)
    annotated.add_split_flag(parser)
    add_rule_flag(parser)
    parser.add_argument(
        "--method", choices=METHODS, default="greedy", help="how overlapping phrases are resolved (default: greedy)"
    )  # fmt: skip
    parser.add_argument(
        "--boxes", choices=CONVENTIONS, help="how the boxes are written, if not as the dataset's owners write them"
    )  # fmt: skip
    return parser


def divide(inputs: list[str], reader: str) -> tuple[str, list[str], list[str]]:
    """Return (layout, files with the rows, files that these are looked up in), telling RefCOCO's two layouts apart.

    Raises BadFile when a needed kind is missing, naming it.
    """
    if otherwise := grounding.READERS[reader].without_pickles:
        pickles = [path for path in inputs if path.endswith(".p")]
        if not pickles:
            return otherwise, inputs, []
        instances = [path for path in inputs if path not in pickles]
        if not instances:
            raise BadFile("--input lacks instances.json, which holds the boxes of the refs")
        return reader, pickles, instances
    beside = [path for path in inputs if path.endswith(f"/{annotated.VG_IMAGES}")]
    rows = [path for path in inputs if path not in beside]
    if not rows:
        raise BadFile("--input holds no file with annotations")
    return reader, rows, beside


def clean_split(
    split: Split, sink: Sink, *, dataset: Dataset, reader: str, pictures: Mapping, method: str,
    convention: str | None, keep: tuple[str, ...], limit: int | None = None,
) -> None:  # fmt: skip
    """Clean one slice of annotations: every row goes to the sink once, in input order."""
    cleaner = _Cleaner(split, sink, dataset, annotated.Pictures(**pictures), method, keep)
    layout = grounding.READERS[reader]
    read, url = layout.read, split.source["url"]
    if layout.picks_columns:
        read = partial(read, carried=dataset.carried)
    if annotated.slice_of(split).format == UNREADABLE:
        tables, read = {}, slices.read
    elif layout.own_tables:
        tables, why = looked_up(lambda: annotated.opened(layout.tables, (url,), str(split.fingerprint["files"])))
        read = read if why is None else partial(lost, why=why)
    else:
        paths, content = tuple(split.source["beside"]), str(split.fingerprint["beside"])
        tables = annotated.opened(layout.tables, paths, content) if layout.tables and paths else {}
    records = annotated.records(split, sink, limit, read)
    for row, part, result in annotated.parts(records, lambda r: layout.parse(r, tables, url), sink, layout.shape):
        if isinstance(result, GroundingRow) and convention:
            result.convention = convention
        cleaner.add(result, annotated.key_of(dataset, split, row, part), row)
    cleaner.flush()


class _Cleaner:
    """Resolves phrases row by row, cleans texts in batches, and writes what becomes of each row, in order."""

    def __init__(self, split: Split, sink: Sink, dataset: Dataset, pictures, method: str, keep: Sequence[str]):
        self._sink, self._dataset, self._pictures, self._keep = sink, dataset, pictures, keep
        self._choose, self._watches, self._batch = METHODS[method], {}, []
        self._known, self._thumbnails = rules_of(dataset), Thumbnails()

    def add(self, row: GroundingRow | BadRow, key: str, number: int) -> None:
        """Take one row; its outcome may be written with a later one."""
        columns = {}
        try:
            result = self._resolve(row, columns)
        except Lost as lost:
            result = lost.verdict
        self._batch.append((key, number, result, columns))
        if len(self._batch) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Clean the texts of the rows that are waiting, and write them."""
        batch, self._batch = self._batch, []
        resolved = [result for _, _, result, _ in batch if isinstance(result, _Resolved)]
        cleaned = self._cleaned([result.grounded for result in resolved])
        said = self._cleaned([result.expressions for result in resolved])
        for key, number, result, columns in batch:
            if isinstance(result, Verdict):
                self._sink.lose(key, number, result, **columns)
            else:
                _, result.said, _ = next(said)
                self._write(key, number, result, *next(cleaned), columns)

    def _cleaned(self, grounded: Sequence[Grounded]) -> Iterator[tuple[str, list[dict], dict]]:
        return iter(clean_grounded(grounded, self._dataset.rules, self._dataset.spoken, self._known))

    def _resolve(self, row: GroundingRow | BadRow, columns: dict) -> "_Resolved":
        """Return what a row says of its image, filling its ledger columns. Raises Lost."""
        if isinstance(row, BadRow):
            raise Lost(failed(row.kind, row.detail))
        columns["text_before"] = row.caption or "; ".join(dict.fromkeys(p.text for p in row.phrases))[:500]
        if row.split not in self._keep:
            raise Lost(dropped("split", detail=row.split))
        if not row.phrases:
            raise Lost(dropped("no_phrase", 0, 1))
        picture = self._pictures.load(row.image)
        columns |= {"width": picture.width, "height": picture.height}
        return self._with_boxes(row, picture, columns)

    def _with_boxes(self, row: GroundingRow, picture, columns: dict) -> "_Resolved":
        watch = self._watches.setdefault(row.convention, Watch(row.convention))
        phrases, outside = [], 0
        for phrase in row.phrases:
            watch.see(phrase.box, picture.width, picture.height)
            box = in_pixels(phrase.box, row.convention, picture.width, picture.height)
            outside += box is None
            if box is not None:
                phrases.append((phrase, box))
        columns["boxes_outside"] = outside
        if not phrases:
            raise Lost(dropped("no_valid_box", 0, 1))
        if row.caption is None:
            return _Resolved(row, picture, join_by_text((p.text, box) for p, box in phrases))
        candidates = group((p.start, p.end, box, p.score) for p, box in phrases)
        chosen, best = self._choose(candidates), boxes_in(exact(candidates))
        columns["boxes_recursive"] = boxes_in(candidates) - boxes_in(chosen)
        columns["boxes_below_optimum"] = best - boxes_in(chosen)
        expressions = join_by_text((p.text, box) for p, box in phrases if p.expression)
        return _Resolved(row, picture, Grounded(row.caption, chosen), expressions)

    def _write(
        self, key: str, number: int, result: "_Resolved", text: str, regions: list, verdict: dict, columns
    ) -> None:
        before = columns.pop("text_before")
        columns |= {"phrases": len(regions), "boxes": sum(len(region["boxes"]) for region in regions)}
        said = [len(expression["boxes"]) for expression in result.said]
        columns |= {"expressions": len(said), "expression_boxes": sum(said)}
        columns |= {name: value for name, value in verdict.items() if name not in ("outcome", "rule")}
        if verdict["outcome"] == ERROR:
            self._sink.error(key, number, verdict["rule"], text_before=before, **columns)
            return
        if verdict["outcome"] == DROPPED or not regions:
            rule = verdict["rule"] or "no_phrase"
            shown = self._thumbnails.of(rule, result.picture.image.data)
            self._sink.drop(key, number, rule, text_before=before, thumbnail=shown, **columns)
            return
        changed = {"text_before": before, "text_after": text} if text and text != before else {}
        dataset, picture = self._dataset, result.picture
        sample = Sample(
            key=key, dataset=dataset.name, task=dataset.tasks[0], language=dataset.language, text=text,
            width=picture.width, height=picture.height, images=[picture.image],
            source={**result.row.source, "split": result.row.split, "row": number},
            annotations={"regions": regions} | ({"expressions": result.said} if result.said else {}),
        )  # fmt: skip
        self._sink.keep(sample, number, **columns, **changed)


_NONE = Grounded(None, [])


class _Resolved:
    """A row with its image and what it says of it."""

    def __init__(self, row: GroundingRow, picture, grounded: Grounded, expressions: Grounded = _NONE):
        self.row, self.picture, self.grounded, self.expressions = row, picture, grounded, expressions
        self.said: list[dict] = []  # the expressions after cleaning


def _print_audit(folder: OutputFolder, method: str) -> None:
    """Print how many boxes the choice of phrases kept, and how many the exact optimum would have kept."""
    names = ("boxes", "boxes_below_optimum", "expressions", "expression_boxes")
    sums = dict.fromkeys(names, 0)
    for manifest in folder.manifests().values():
        table = folder.table(manifest, columns=list(names))
        sums = {name: total + (pc.sum(table[name]).as_py() or 0) for name, total in sums.items()}
    kept, lost = sums["boxes"], sums["boxes_below_optimum"]
    if kept:
        share = 100 * lost / (kept + lost)
        print(f"boxes kept: {kept:,} ({method}); the exact optimum would keep {lost:,} more ({share:.3f} %)")
    if sums["expressions"]:
        print(f"referring expressions: {sums['expressions']:,} with {sums['expression_boxes']:,} boxes")


if __name__ == "__main__":
    job.main(main)
