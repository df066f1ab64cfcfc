#!/usr/bin/env python
"""Clean pure text: plain text (a document per line, or per file), jsonl, csv and parquet.

Broken Unicode is mended or the document dropped, too short and too long ones are dropped, and of exact and of near
duplicates (MinHash) the first is kept, over the whole dataset.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa

from cleaners.dedup import Rows, first_of_each, first_of_equals
from cleaners.documents import PERMUTATIONS, broken_share, exact_key, mend, signature, similar_pairs
from corpus.catalog import Dataset
from corpus.folder import OutputFolder
from corpus.readers.boundary import made_of
from corpus.readers.rows import BadRow, TextRow
from corpus.readers.slices import Slice, detect, plan, plan_all
from corpus.readers.text import document
from corpus.records import Sample
from corpus.rules import RAISED
from corpus.splits import Sink, Split
from corpus.verdicts import Verdict, dropped, failed
from pipelines.engine import job, two_pass
from pipelines.work import annotated
from pipelines.work.datasets import add_rule_flag, rules_of
from pipelines.work.places import clean_each

ROWS_PER_SPLIT = 20_000
ROWS_AT_ONCE = 256
SCORES = {"characters": pa.int64(), "broken": pa.float64()}
KEEP, EXACT, NEAR = 0, 1, 2  # decisions on a row
_RULES = {EXACT: "exact_duplicate", NEAR: "near_duplicate"}
_DECISION = [("row", "<i8"), ("what", "u1"), ("of_row", "<i8")]
_FIRST_PASS = pa.schema(
    [("key", pa.string()), ("row", pa.int64()), ("exact", pa.int64()), ("signature", pa.binary(4 * PERMUTATIONS))]
)
_FLAGS = {
    "min_characters": "too_short.min_characters",
    "max_characters": "too_long.max_characters",
    "max_broken": "broken_unicode.max",
}  # short for a rule's parameter
_EXAMPLE = "python pipelines/clean_text.py --dataset in-house-text --input 'wiki/*.txt' --output cleaned/text"


def main() -> None:
    args = make_parser().parse_args()
    given = {parameter: getattr(args, name) for name, parameter in _FLAGS.items()}
    args.rule += [f"{parameter}={value}" for parameter, value in given.items() if value is not None]
    if args.duplicates == "keep":
        args.rule += ["exact_duplicate=off", "near_duplicate=off"]
    clean_each("clean_text", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    with annotated.user_errors():
        inputs = job.find_inputs(args.input)
        splits = annotated.as_splits(args, plan_all(inputs, lambda path: _slices(path, args.document)))
    settings = annotated.common_settings(dataset) | {"document": args.document}
    options, table = {"dataset": dataset, "limit": args.limit}, rules_of(dataset)
    judged_by = {"scores": table.scores() | SCORES, "rules": table}
    if not {"exact_duplicate", "near_duplicate"}.isdisjoint(table.active(dataset.rules)):
        measure = annotated.as_work(measure_split, **options)
        folder = two_pass.first_pass("documents", args, splits, settings, measure, part_of="clean_text", **judged_by)
        splits = two_pass.decided(folder, splits, _decide(folder, splits))
        options["decisions"] = folder.url
    job.run("clean_text", args, splits, settings, annotated.as_work(clean_split, **options), **judged_by)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="in-house-text", from_catalog=True)
    add = parser.add_argument
    add(
        "--document", choices=("line", "file"), default="line", help="what is a document in a .txt file (default: line)"
    )
    add("--min-characters", type=int, metavar="N", help="short for --rule too_short.min_characters=N (default: 200)")
    add("--max-characters", type=int, metavar="N", help="short for --rule too_long.max_characters=N (default: 1000000)")
    add("--max-broken", type=float, metavar="SHARE", help="short for --rule broken_unicode.max=SHARE (default: 0.001)")
    add("--duplicates", choices=("drop", "keep"), default="drop", help="exact and near duplicates (default: drop)")
    add_rule_flag(parser)
    return parser


def _slices(path: str, unit: str) -> Iterator[Slice]:
    if unit == "file" and detect(path) == "lines":
        yield Slice((path,), "document")
    else:
        yield from plan(path, ROWS_PER_SPLIT)


@dataclass(slots=True)
class _Judged:
    """A document after the rules that need no other: its text, or the verdict on it."""

    key: str
    row: int
    document: TextRow | None = None
    text: str = ""
    verdict: Verdict | None = None
    columns: dict = field(default_factory=dict)

    def record(self, sink: Sink) -> None:
        before = {"text_before": self.document.text[:500]} if self.document else {}
        sink.lose(self.key, self.row, self.verdict, **before, **self.columns)


def judge(split: Split, sink: Sink, *, dataset: Dataset, limit: int | None = None) -> Iterator[_Judged]:
    """Yield every document of a split, mended and measured, in order."""
    columns, table = dict(dataset.columns), rules_of(dataset)
    active = table.active(dataset.rules)
    records = annotated.records(split, sink, limit)
    while batch := list(islice(records, ROWS_AT_ONCE)):
        judged = [_read(annotated.key_of(dataset, split, row), row, record, columns) for row, record in batch]
        whole = [each for each in judged if each.verdict is None]
        texts = {"text": pa.array([each.text for each in whole], pa.string())}
        own, raised = table.measured(active, texts, dataset.language)
        for i, each in enumerate(whole):
            each.columns |= {name: None if np.isnan(values[i]) else float(values[i]) for name, values in own.items()}
            each.verdict = table.judge(active, each.columns) if each.text else dropped("no_text", 0, 1)
            if i in raised and each.verdict is None:
                each.verdict = failed(RAISED, raised[i])
        yield from judged


def _read(key: str, row: int, record, columns: dict) -> _Judged:
    (found,) = made_of(record, lambda record: [document(record, columns)])
    if isinstance(found, BadRow):
        return _Judged(key, row, verdict=failed(found.kind, found.detail))
    text = mend(found.text)
    return _Judged(key, row, found, text, columns={"characters": len(text), "broken": broken_share(text)})


def measure_split(split: Split, sink: Sink, **options) -> None:
    """First pass: write the exact hash and the MinHash signature of every document that the other rules keep."""
    waiting = []
    for judged in judge(split, sink, **options):
        if judged.verdict is not None:
            judged.record(sink)
        else:
            waiting.append(
                {"key": judged.key, "row": judged.row, "exact": exact_key(judged.text),
                 "signature": signature(judged.text).tobytes()}
            )  # fmt: skip
    two_pass.keep_rows(sink, waiting, _FIRST_PASS)


def _decide(folder: OutputFolder, splits: Sequence[Split]) -> Iterator[tuple[str, np.ndarray]]:
    """Decide which documents go. Memory: 40 bytes a document, and the copies of one MinHash band."""
    with (
        two_pass.stored(folder, splits, lambda _, table: _identities(table)) as identities,
        two_pass.stored(folder, splits, lambda _, table: _signatures(table)) as signatures,
    ):
        owner, names = identities.owners(), identities.names()
        row, exact = np.array(identities.rows["row"]), np.array(identities.rows["exact"])
        first = first_of_equals(exact)
        unique = np.flatnonzero(first == np.arange(len(first)))
        near = first_of_each(len(unique), similar_pairs(Rows(signatures.rows, unique))) if len(unique) else unique
    what = np.full(len(first), EXACT, np.uint8)
    what[unique] = np.where(near == np.arange(len(unique)), KEEP, NEAR)
    kept_instead = first.copy()
    kept_instead[unique] = unique[near]
    for split, here in identities.cut(np.arange(len(first))):
        here = here[what[here] != KEEP]
        decision = np.empty(len(here), [*_DECISION, ("of_split", names.dtype)])
        decision["row"], decision["what"], decision["of_row"] = row[here], what[here], row[kept_instead[here]]
        decision["of_split"] = names[owner[kept_instead[here]]]
        yield split, decision


def _identities(table: pa.Table) -> np.ndarray:
    found = np.empty(table.num_rows, [("row", "<i8"), ("exact", "<i8")])
    if table.num_rows:
        found["row"], found["exact"] = table["row"].to_numpy(), table["exact"].to_numpy()
    return found


def _signatures(table: pa.Table) -> np.ndarray:
    values = table["signature"].to_pylist() if table.num_rows else []
    return np.frombuffer(b"".join(values), np.uint32).reshape(-1, PERMUTATIONS)


def clean_split(split: Split, sink: Sink, *, dataset: Dataset, decisions: str | None = None, **options) -> None:
    """Second pass, or the only one: write the documents of a split and a ledger row for every one of it."""
    losers, active = {}, rules_of(dataset).active(dataset.rules)
    if decisions:
        found = two_pass.decision_of(split, decisions)
        losers = {int(d["row"]): d for d in found if _RULES.get(int(d["what"])) in active}
    for judged in judge(split, sink, dataset=dataset, **options):
        if judged.verdict is not None:
            judged.record(sink)
        elif judged.row in losers:
            decision = losers[judged.row]
            copy_of = f"of {dataset.name}/{decision['of_split']}/{int(decision['of_row']):06d}"
            judged.verdict = dropped(_RULES[int(decision["what"])], detail=copy_of)
            judged.record(sink)
        else:
            sample = Sample(
                key=judged.key, dataset=dataset.name, task="text", language=dataset.language, text=judged.text,
                source={**judged.document.source, "row": judged.row},
            )  # fmt: skip
            changed = judged.text != judged.document.text
            before = {"text_before": judged.document.text[:500], "text_after": judged.text[:500]} if changed else {}
            sink.keep(sample, judged.row, **judged.columns, **before)


if __name__ == "__main__":
    job.main(main)
