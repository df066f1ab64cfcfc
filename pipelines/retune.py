#!/usr/bin/env python
"""Move thresholds of a cleaned folder without computing or fetching anything again.

Rows are judged anew from the scores in the ledger, and kept samples are copied byte for byte. A loosened threshold can
need samples that were not kept, and scores of rules that never saw them: the input splits concerned are named, and
only those are read and cleaned again.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from cleaners import rules
from corpus.catalog import Dataset, find, load_catalog
from corpus.folder import OutputFolder
from corpus.ledger import DROPPED, KEPT
from corpus.shards import IndexedShard
from corpus.splits import Sink, Split
from pipelines.clean_laion import clean_split, rule_settings
from pipelines.engine import job

_EXAMPLE = "python pipelines/retune.py cleaned/laion-en --set clip_score.min=0.30 --output cleaned/laion-en-030"


def main() -> None:
    args = _parser().parse_args()
    old = OutputFolder(args.folder)
    settings = old.settings()
    if settings.get("job") != "clean_laion":
        maker = settings.get("job")
        raise job.UserError(f"{args.folder} was made by {maker}; retune.py works on folders of clean_laion.py")
    changed = _changed_rules(settings["rules"], args.set)
    manifests = old.manifests()
    table = any(f"{split}.urls.parquet" in old.names() for split in manifests)
    again = {split for split in manifests if _must_read_again(_ledger(old, split), changed)}
    _announce(again, manifests)
    args.dataset, args.limit = settings["dataset"], settings["limit"]
    splits = [Split(name, manifest.source, manifest.input) for name, manifest in manifests.items()]
    new_settings = {k: v for k, v in settings.items() if k not in ("job", "version", "dataset", "limit")}
    new_settings |= rule_settings(changed)
    dataset = _dataset(args, settings, changed)

    def retune(split: Split, sink: Sink) -> None:
        if split.id in again:
            clean_split(split, sink, dataset, limit=args.limit, decode=settings["decode"], images=args.images)
        else:
            retune_split(split, sink, old, changed, table)

    job.run("clean_laion", args, splits, new_settings, retune, scores=rules.SCORES, table=table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of clean_laion.py")
    parser.add_argument("--set", nargs="+", required=True, metavar="RULE.PARAMETER=VALUE")
    parser.add_argument("--output", required=True, metavar="DIR2")
    parser.add_argument("--catalog", metavar="FILE", help="default: the catalog.yaml of this checkout")
    parser.add_argument("--images", metavar="DIR", help="as for clean_laion.py, where splits must be read again")
    parser.add_argument("--workers", type=int, metavar="N", help="0: in this process; default: every core")
    parser.add_argument("--overwrite", action="store_true", help="remove what another run left in --output")
    return parser


def _changed_rules(settings: Mapping[str, Mapping], changes: list[str]) -> dict[str, dict]:
    """Return the rules with `RULE.PARAMETER=VALUE` applied. UserError for anything that is no threshold."""
    changed = {name: dict(parameters) for name, parameters in settings.items()}
    for change in changes:
        name, _, value = change.partition("=")
        rule, _, parameter = name.partition(".")
        if rule not in changed:
            raise job.UserError(f"--set {change}: the folder was made with the rules {', '.join(changed)}")
        if parameter not in rules.RULES[rule].limits:
            known = [f"{r}.{p}" for r in changed for p in rules.RULES[r].limits]
            raise job.UserError(f"--set {change}: {name!r} is no threshold; thresholds are {', '.join(known)}")
        changed[rule][parameter] = yaml.safe_load(value)
    try:
        rules.validate(changed)
    except ValueError as error:
        raise job.UserError(f"--set: {error}") from None
    return changed


def _announce(again: set[str], manifests: Mapping) -> None:
    if again:
        names = "\n".join(f"  {split}: {manifests[split].source['url']}" for split in sorted(again)[:20])
        more = f"\n  and {len(again) - 20} more" if len(again) > 20 else ""
        print(f"{len(again)} of {len(manifests)} splits hold rows that may now be kept; reading again:\n{names}{more}")


def _dataset(args, settings: dict, changed: Mapping) -> Dataset:
    entry = find(load_catalog(args.catalog), settings["dataset"])
    return Dataset(
        name=entry.name, language=settings["language"], licence=entry.licence, job=entry.job, reader=entry.reader,
        tasks=entry.tasks, columns=settings["columns"], rules=changed,
    )  # fmt: skip


def _ledger(folder: OutputFolder, split: str, columns: list[str] | None = None) -> pa.Table:
    with folder.fs.open(folder.path(f"{split}.parquet"), "rb") as file:
        return pq.read_table(file, columns=columns)


def judge(ledger: pa.Table, settings: Mapping[str, Mapping]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Judge ledger rows by their scores: (rule that fails or None, value, threshold, was its dropping rule passed)."""
    size = ledger.num_rows
    failing, value, limit = np.full(size, None, object), np.full(size, np.nan), np.full(size, np.nan)
    for name, parameters in settings.items():
        for parameter, bound in rules.RULES[name].limits.items():
            score = ledger[bound.score].to_numpy(zero_copy_only=False).astype(float)
            threshold = {**rules.RULES[name].defaults, **parameters}[parameter]
            fails = (score < threshold if bound.bound == "min" else score > threshold) & np.equal(failing, None)
            failing[fails], value[fails], limit[fails] = name, score[fails], threshold
    # A rule without a threshold (a missing score, no text) has no score to judge by: its verdict stands.
    dropped = pc.equal(ledger["outcome"], DROPPED).to_numpy(zero_copy_only=False)
    return failing, value, limit, dropped & np.equal(failing, None) & _by_threshold(ledger)


def _by_threshold(ledger: pa.Table) -> np.ndarray:
    with_score = ledger["value"].is_valid().to_numpy() & ledger["threshold"].is_valid().to_numpy()
    known = np.isin(ledger["rule"].to_numpy(zero_copy_only=False).astype(str), list(rules.RULES))
    return with_score & known


def _must_read_again(ledger: pa.Table, settings: Mapping[str, Mapping]) -> bool:
    return bool(judge(ledger, settings)[3].any())


def retune_split(split: Split, sink: Sink, old: OutputFolder, settings: Mapping[str, Mapping], table: bool) -> None:
    """Judge a split's ledger anew and copy the samples that stay."""
    rows = _ledger(old, split.id, ["row", "key"]).sort_by("row")
    sink.expects(rows["row"].to_numpy(), lambda row: dict(zip(*rows.to_pydict().values(), strict=True))[row])
    ledger = _ledger(old, split.id)
    failing, value, limit, _ = judge(ledger, settings)
    was_kept = pc.equal(ledger["outcome"], KEPT).to_numpy(zero_copy_only=False)
    falls = was_kept & ~np.equal(failing, None)
    moves = ~was_kept & ~np.equal(failing, None) & pc.equal(ledger["outcome"], DROPPED).to_numpy(zero_copy_only=False)
    stays = np.flatnonzero(~falls[was_kept])
    if table:
        with fsspec.open(f"{old.url}/{split.id}.urls.parquet", "rb") as file:
            sink.write_table(pq.read_table(file).take(pa.array(stays)))
    else:
        shard = IndexedShard(f"{old.url}/{split.id}.tar")
        for i in stays:
            key, members = shard[int(i)]
            sink.write_members(key, members.items())
    sink.rows(_with_verdicts(ledger, falls | moves, failing, value, limit))


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
