#!/usr/bin/env python
"""Move thresholds of a folder that any cleaning job made, without computing or fetching anything again.

Rows are judged anew from the scores in the ledger, and kept samples are copied byte for byte. A loosened threshold can
need samples that were not kept, and scores of rules that never saw them: the input splits concerned are named; of
clean_laion.py's folders those are read and cleaned again, for others the job has to run.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.catalog import Dataset, find
from corpus.damage import CorruptSample
from corpus.folder import OutputFolder
from corpus.ledger import BASE
from corpus.passthrough import PASSTHROUGH
from corpus.rules import RuleTable, WrongRule
from corpus.shards import IndexedShard
from corpus.splits import URLS, Sink, Split
from corpus.verdicts import DROPPED, ERROR
from pipelines.clean_laion import clean_split
from pipelines.engine import job
from pipelines.work.datasets import TABLES, changed_rules, rule_settings, rules_of_folder, whole_catalog
from pipelines.work.judged import judge

_EXAMPLE = "python pipelines/retune.py cleaned/laion-en --set clip_score.min=0.30 --output cleaned/laion-en-030"


def main() -> None:
    args = make_parser().parse_args()
    old = OutputFolder(args.folder)
    settings = old.settings()
    table = _table(args, settings)
    changed = _changed_rules(table, settings["rules"], args.set)
    manifests, names = old.manifests(), set(old.names())
    rows_of_urls = any(f"{split}.{URLS}" in names for split in manifests)
    again = _splits_to_read_again(args, old, settings, table, changed)
    args.dataset, args.limit = settings["dataset"], settings["limit"]
    splits = [Split(name, manifest.source, manifest.input) for name, manifest in manifests.items()]
    new_settings = {k: v for k, v in settings.items() if k not in ("job", "version", "dataset", "limit")}
    new_settings |= rule_settings(table, changed)
    dataset = _dataset(args, settings, changed) if again else None

    def retune(split: Split, sink: Sink) -> None:
        if split.id in again:
            clean_split(split, sink, dataset, limit=args.limit, decode=settings["decode"], images=args.images)
        else:
            retune_split(split, sink, old, table, changed, rows_of_urls)

    scores = _scores(old, next(iter(manifests), None))
    job.run(
        settings["job"],
        args,
        splits,
        new_settings,
        retune,
        scores=scores,
        rules=table,
        table=URLS if rows_of_urls else None,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of a cleaning job")
    parser.add_argument("--set", nargs="+", required=True, action="extend", metavar="RULE.PARAMETER=VALUE")
    parser.add_argument("--output", required=True, metavar="DIR2")
    parser.add_argument("--catalog", metavar="FILE", help="default: the catalog.yaml of this checkout")
    parser.add_argument("--images", metavar="DIR", help="as for clean_laion.py, where splits must be read again")
    parser.add_argument("--workers", type=int, metavar="N", help="0: in this process; default: every core")
    parser.add_argument("--overwrite", action="store_true", help="remove what another run left in --output")
    job.add_quarantine_flag(parser)
    return parser


def _table(args, settings: Mapping) -> RuleTable:
    """Return the rules that the folder's rows were judged by; a user's own come from the catalog."""
    table = rules_of_folder(settings, args.catalog)
    if table is None:
        made = f"{args.folder} was made by {settings.get('job')}"
        raise job.UserError(f"{made}; retune.py works on folders of {', '.join(TABLES)}")
    return table


def _changed_rules(table: RuleTable, settings: Mapping[str, Mapping], changes: list[str]) -> dict:
    """Return the rules with `RULE.PARAMETER=VALUE` applied. UserError for anything that is no threshold."""
    active = table.active(settings)
    for change in changes:
        name = change.partition("=")[0]
        rule, _, parameter = name.partition(".")
        if rule not in active:
            raise job.UserError(f"--set {change}: the folder was made with the rules {', '.join(active)}")
        if parameter not in table[rule].limits:
            known = [f"{r}.{p}" for r in active for p in table[r].limits]
            raise job.UserError(f"--set {change}: {name!r} is no threshold; thresholds are {', '.join(known)}")
    try:
        changed = changed_rules(table, settings, changes)
        table.check(changed)
    except WrongRule as error:
        raise job.UserError(f"--set: {error}") from None
    return changed


def _splits_to_read_again(args, old: OutputFolder, settings: Mapping, table: RuleTable, changed: Mapping) -> set[str]:
    """Return the splits with rows that may now be kept. UserError where no ledger can say what becomes of them."""
    manifests, again, falls, compared = old.manifests(), set(), 0, 0
    comparing = [name for name, rule in table.items() if rule.compares]
    for split in manifests:
        found = judge(_ledger(old, split), table, changed)
        again |= {split} if found.passed.any() else set()
        falls += int((found.fails & found.kept).sum())
        compared += sum(manifests[split].counts.dropped.get(name, 0) for name in comparing)
    flags = " ".join(f"--rule {change}" for change in args.set)
    if falls and compared:
        raise job.UserError(
            f"{compared} rows were dropped in favour of others ({', '.join(comparing)}), and {falls} fall now: "
            f"run {settings['job']}.py again with {flags}"
        )
    if again and settings["job"] != "clean_laion":
        raise job.UserError(
            f"{len(again)} of {len(manifests)} splits hold rows that may now be kept, and their samples are not in "
            f"{args.folder}: run {settings['job']}.py again with {flags}"
        )
    _announce(again, manifests)
    return again


def _announce(again: set[str], manifests: Mapping) -> None:
    if again:
        names = "\n".join(f"  {split}: {manifests[split].source['url']}" for split in sorted(again)[:20])
        more = f"\n  and {len(again) - 20} more" if len(again) > 20 else ""
        print(f"{len(again)} of {len(manifests)} splits hold rows that may now be kept; reading again:\n{names}{more}")


def _dataset(args, settings: Mapping, changed: Mapping) -> Dataset:
    entry = find(whole_catalog(args.catalog), settings["dataset"])
    told = {"language": settings["language"], "columns": settings["columns"]}
    return replace(entry, **told, passthrough=tuple(settings.get(PASSTHROUGH, ())), rules=changed)


def _scores(folder: OutputFolder, split: str | None) -> dict[str, pa.DataType]:
    """Return the columns that the job measured: those of its ledgers beyond the ones that every ledger has."""
    schema = _ledger(folder, split).schema if split else pa.schema([])
    return {column.name: column.type for column in schema if column.name not in BASE.names}


def _ledger(folder: OutputFolder, split: str, columns: list[str] | None = None) -> pa.Table:
    return folder.table(folder.manifest(split), columns=columns)


def retune_split(
    split: Split, sink: Sink, old: OutputFolder, table: RuleTable, settings: Mapping[str, Mapping], rows_of_urls: bool
) -> None:
    """Judge a split's ledger anew and copy the samples that stay."""
    rows = _ledger(old, split.id, ["row", "key"]).sort_by("row")
    sink.expects(rows["row"].to_numpy(), lambda row: dict(zip(*rows.to_pydict().values(), strict=True))[row])
    ledger = _ledger(old, split.id)
    found = judge(ledger, table, settings)
    falls = found.kept & found.fails
    stays = np.flatnonzero(~falls[found.kept])
    if rows_of_urls:
        sink.write_table(old.table(old.manifest(split.id), URLS).take(pa.array(stays)))
    else:
        shard = IndexedShard(f"{old.url}/{split.id}.tar")
        ledger = _copy_samples(shard, stays, np.flatnonzero(found.kept), sink, ledger)
    moves = falls | (found.dropped & found.fails)
    sink.rows(_with_verdicts(ledger, moves, found.rule, found.value, found.threshold))


def _copy_samples(shard: IndexedShard, stays: np.ndarray, rows: np.ndarray, sink: Sink, ledger: pa.Table) -> pa.Table:
    """Copy the samples that stay; return the ledger, in which those that rotted since they were written are errors."""
    outcome, rule, detail = (ledger[name].to_pylist() for name in ("outcome", "rule", "detail"))
    for i in stays.tolist():
        try:
            key, members = shard[i]
            sink.write_members(key, members.items())
        except CorruptSample as error:
            outcome[rows[i]], rule[rows[i]], detail[rows[i]] = ERROR, error.kind, str(error)
    for name, column in (("outcome", outcome), ("rule", rule), ("detail", detail)):
        ledger = ledger.set_column(ledger.column_names.index(name), name, pa.array(column, pa.string()))
    return ledger


def _with_verdicts(ledger: pa.Table, changed: np.ndarray, failing, value, limit) -> pa.Table:
    mask = pa.array(changed)
    new = {
        "outcome": pa.array(np.full(len(changed), DROPPED)), "rule": pa.array(failing, pa.string()),
        "value": pa.array(value), "threshold": pa.array(limit),
    }  # fmt: skip
    for name, column in new.items():
        merged = pc.if_else(mask, column, ledger[name])
        ledger = ledger.set_column(ledger.column_names.index(name), name, merged)
    return ledger


if __name__ == "__main__":
    job.main(main)
