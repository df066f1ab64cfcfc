"""Reports of an output folder, finished or not, made from its ledgers and shards."""

import base64
import functools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.damage import CorruptSample
from corpus.folder import Listing, Manifest, OutputFolder
from corpus.folder_index import Total, entries
from corpus.ledger import BASE, DROPPED, ERROR, KEPT, OF_FILES, Counts
from corpus.records import from_members
from corpus.remote import AHEAD, prefetched
from corpus.shards import IndexedShard
from pipelines.engine.drawing import outlines, words
from pipelines.engine.quarantine import told
from pipelines.engine.thumbnails import SIDE, thumbnail

EXAMPLES_PER_RULE = 12
SAMPLED_ROWS = 200_000  # histograms are drawn from at most this many rows
BINS = 40
_FILES_NAMED = 5
_SPLITS_LOOKED_AT = 20  # examples come from splits spread evenly over the folder


@dataclass
class Summary:
    """What a report shows: counts, funnel, histograms of measured values, examples by rule."""

    settings: dict
    counts: Counts
    splits: int
    seconds: float
    changed: int  # rows whose text a cleaner changed
    funnel: list[dict]  # rule, rows_in, dropped, percent of rows_in, unjudged
    histograms: list[dict] = field(default_factory=list)  # name, counts [BINS], low, high, thresholds
    examples: dict[str, list[dict]] = field(default_factory=dict)  # outcome or rule -> rows with thumbnails
    unreadable: list[str] = field(default_factory=list)  # what the ledger says of files, at most a few
    quarantined: list[str] = field(default_factory=list)  # how many splits, then why, of the first of them

    @property
    def warnings(self) -> list[str]:
        """What looks like a pass and is none: splits in quarantine, rules that had nothing to judge in any row."""
        idle = [line for line in self.funnel if line["rows_in"] and line["unjudged"] == line["rows_in"]]
        found = list(self.quarantined)
        found += [f"{line['rule']} judged none of {line['rows_in']:,} rows: they have no value for it" for line in idle]
        if lost := self.counts.unread:
            share = _percent(self.counts.kept, self.counts.rows + lost)
            found.append(f"{lost:,} more rows lie where nobody could read them: with those, {share} % are kept")
        return found + [f"not read: {detail}" for detail in self.unreadable]


def summarise(folder: OutputFolder, listing: Listing | None = None) -> Summary:
    """Read the index, a few ledgers and samples; check the conservation law over the whole folder."""
    listing, total, seconds, changed, torn = listing or folder.listing(), Total(), 0.0, 0, []
    settings = folder.settings()
    for entry in entries(folder, listing):
        total.add(told_counts := json.loads(entry.counts))
        seconds, changed = seconds + entry.seconds, changed + entry.changed
        torn += [entry.split] if told_counts["errors"].keys() & OF_FILES else []
    counts = total.counts()
    counts.check(folder.url)
    summary = Summary(settings, counts, len(listing.marks), seconds, changed, funnel(counts, settings))
    summary.unreadable = list(islice(_unreadable(folder, sorted(torn)), _FILES_NAMED))
    summary.quarantined = told(folder, listing.sizes)
    looked_at = _spread(list(listing.marks), _SPLITS_LOOKED_AT)
    rows_each = SAMPLED_ROWS // max(1, len(looked_at))
    ledgers = {split: _ledger_head(folder, folder.manifest(split), rows_each) for split in looked_at}
    if ledgers:
        rows = pa.concat_tables(ledgers.values())
        summary.histograms = _histograms(rows, settings.get("thresholds", {}))
        summary.examples = {"kept": list(_kept_examples(folder, listing, ledgers))} | _ledger_examples(rows, settings)
    return summary


def write_report(folder: OutputFolder, listing: Listing | None = None) -> Summary:
    """Write report.html and report.json into the folder; `listing`, where there is one, says what it holds."""
    summary = summarise(folder, listing)
    numbers = asdict(summary) | {"examples": None}
    folder.write("report.json", json.dumps(numbers, indent=1, ensure_ascii=False).encode())
    folder.write("report.html", _template().render(report=summary, bins=BINS).encode())
    return summary


def print_funnel(summary: Summary) -> None:
    """Print the funnel as a table: rule, rows in, dropped, per cent, not judged; then errors and what was kept."""
    counts = summary.counts
    title = f"{'not judged':>14}" if counts.unjudged else ""
    print(f"\n{'rule':<22}{'in':>14}{'dropped':>14}{'%':>8}{title}")
    for line in summary.funnel:
        unjudged = f"{line['unjudged']:>14,}" if line["unjudged"] else ""
        print(f"{line['rule']:<22}{line['rows_in']:>14,}{line['dropped']:>14,}{line['percent']:>8.2f}{unjudged}")
    if summary.changed:
        print(f"{'(cleaners changed)':<36}{summary.changed:>14,}{_percent(summary.changed, counts.rows):>8.2f}")
    for kind, number in counts.errors.items():
        print(f"{'error: ' + kind:<36}{number:>14,}{_percent(number, counts.rows):>8.2f}")
    print(f"{'kept':<22}{counts.rows:>14,}{counts.kept:>14,}{_percent(counts.kept, counts.rows):>8.2f}")
    paper = summary.settings.get("paper") or {}
    if paper.get("original"):
        share = _percent(paper["cleaned"], paper["original"])
        print(f"{'the paper kept':<22}{paper['original']:>14,}{paper['cleaned']:>14,}{share:>8.2f}")
    for warning in summary.warnings:
        print(f"warning: {warning}")


def funnel(counts: Counts, settings: dict) -> list[dict]:
    """Return, for every rule in order, rows in, dropped, per cent of rows in and rows not judged."""
    on = {name for name, given in settings.get("rules", {}).items() if given is not False}
    configured = on & set(settings.get("order", []))
    rules = _in_order(configured | counts.dropped.keys(), settings)
    left, lines = counts.rows - sum(counts.errors.values()), []
    for rule in rules:
        dropped = counts.dropped.get(rule, 0)
        line = {"rule": rule, "rows_in": left, "dropped": dropped, "percent": _percent(dropped, left)}
        lines.append(line | {"unjudged": counts.unjudged.get(rule, 0)})
        left -= dropped
    return lines


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _spread(items: list, number: int) -> list:
    if len(items) <= number:
        return items
    return [items[i * len(items) // number] for i in range(number)]


def _ledger_head(folder: OutputFolder, manifest: Manifest, rows: int) -> pa.Table:
    parquet = pq.ParquetFile(pa.BufferReader(folder.verified(manifest, "parquet")))
    batches = []
    for batch in parquet.iter_batches(batch_size=min(rows, 65_536), use_threads=False):
        batches.append(batch)
        if sum(b.num_rows for b in batches) >= rows:
            break
    return pa.Table.from_batches(batches, schema=parquet.schema_arrow)


def _unreadable(folder: OutputFolder, splits: Sequence[str]) -> Iterator[str]:
    """Yield what the ledgers of some splits say of files that could not be read, or not to their end."""
    for split in splits:
        rows = folder.table(folder.manifest(split), columns=["rule", "detail"])
        details = rows.filter(pc.is_in(rows["rule"], pa.array(sorted(OF_FILES))))["detail"].to_pylist()
        yield from (f"{detail} (split {split})" for detail in details)


def _histograms(rows: pa.Table, thresholds: dict) -> list[dict]:
    numeric = [f.name for f in rows.schema if f.name not in BASE.names and pa.types.is_floating(f.type)]
    numeric += [f.name for f in rows.schema if f.name not in BASE.names and pa.types.is_integer(f.type)]
    made = [histogram(name, rows[name], thresholds.get(name, [])) for name in numeric]
    return [histogram for histogram in made if histogram]


def histogram(name: str, column: pa.ChunkedArray, thresholds: list[float]) -> dict | None:
    """Return a score's counts in BINS bins from `low` to `high`, which hold 99 % of its values and all thresholds."""
    values = column.drop_null().to_numpy().astype(float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(low, *thresholds, high), max(high, *thresholds, low)
    high = high if high > low else low + 1
    counts, _ = np.histogram(values.clip(low, high), bins=BINS, range=(low, high))
    return {
        "name": name, "counts": counts.tolist(), "low": float(low), "high": float(high),
        "thresholds": thresholds, "rows": len(values),
    }  # fmt: skip


def _ledger_examples(rows: pa.Table, settings: dict) -> dict[str, list[dict]]:
    """Rows that cleaners changed, rows dropped by each rule in the order of the funnel, and errors by kind."""
    rows = rows.select([name for name in BASE.names if name != "row" and name in rows.column_names])
    is_kept = pc.equal(rows["outcome"], KEPT)
    examples = {"kept, after cleaning": _examples(rows.filter(pc.and_(is_kept, pc.is_valid(rows["text_after"]))))}
    for outcome, title in ((DROPPED, "{}"), (ERROR, "error: {}")):
        of_outcome = rows.filter(pc.equal(rows["outcome"], outcome))
        for rule in _in_order(pc.unique(of_outcome["rule"]).to_pylist(), settings):
            examples[title.format(rule)] = _examples(of_outcome.filter(pc.equal(of_outcome["rule"], rule)))
    return examples


def _in_order(rules: Collection[str], settings: dict) -> list[str]:
    order = settings.get("order", [])
    return [rule for rule in order if rule in rules] + sorted(set(rules) - set(order))


def _examples(table: pa.Table) -> list[dict]:
    # Rows with a picture first: few have one.
    first = pc.sort_indices(pc.is_null(table["thumbnail"]))[:EXAMPLES_PER_RULE]
    return [_example(row) for row in table.take(first).to_pylist()]


def _example(row: dict) -> dict:
    data = row.pop("thumbnail")
    return row | {"image": _data_uri(data) if data else None, "shapes": []}


def _kept_examples(folder: OutputFolder, listing: Listing, ledgers: dict[str, pa.Table]) -> Iterator[dict]:
    shown = 0
    for split, ledger in ledgers.items():
        if f"{split}.tar" not in listing.sizes:
            kept = ledger.filter(pc.equal(ledger["outcome"], KEPT)).select(["key", "text_before", "text_after"])
            yield from ({"image": None, "shapes": [], **row} for row in kept.slice(0, 2).to_pylist())
            continue
        shard = IndexedShard(f"{folder.url}/{split}.tar")
        some = _spread(list(range(len(shard))), max(1, 2 * EXAMPLES_PER_RULE // len(ledgers)))
        some = some[: 2 * EXAMPLES_PER_RULE - shown]
        shown += len(some)
        yield from prefetched(functools.partial(_kept_example, shard), some, 0 if shard.local else AHEAD)


def _kept_example(shard: IndexedShard, i: int) -> dict:
    try:
        members = shard[i][1]
        sample = from_members(members)
    except CorruptSample as error:
        print(f"warning: {error}")
        return {"key": "", "text_before": str(error), "image": None, "shapes": []}
    except ValueError:  # a pack, not a sample: show_packs.py shows those
        return {"key": "", "text_before": str(sorted(members)), "image": None, "shapes": []}
    side = 2 * SIDE if sample.annotations else SIDE
    image = thumbnail(sample.images[0].data, side) if sample.images else None
    return {
        "key": sample.key, "text_before": words(sample)[:600], "image": _data_uri(image) if image else None,
        "width": sample.width, "height": sample.height,
        "shapes": [points for points, _ in outlines(sample.annotations)],
    }  # fmt: skip


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html.jinja")
