"""Two runs over the same input, or two stage folders: what became of the same rows, and what differs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.folder import OutputFolder
from corpus.ledger import BASE
from corpus.packs import StageFolder
from corpus.verdicts import ERROR, KEPT

EXAMPLES = 5  # of each change of fate, and of captions that read differently
LONGEST = 300  # characters of an example
_TOLD = ("key", "outcome", "rule", "text_before", "text_after")
_SEEN = ("fate_a", "fate_b", "reads_a", "reads_b", "key")


@dataclass
class Drift:
    """How a score differs in rows that both runs measured."""

    rows: int = 0
    moved: int = 0
    total: float = 0.0  # of absolute differences
    most: float = 0.0
    only_a: int = 0  # rows that one run alone measured
    only_b: int = 0

    @property
    def mean(self) -> float:
        """The mean absolute difference over all rows that both measured."""
        return self.total / self.rows if self.rows else 0.0


@dataclass
class Runs:
    """Two runs over the same input. A fate is "kept", a rule, or "error: " and its kind."""

    matrix: Counter = field(default_factory=Counter)  # (fate in A, fate in B) -> rows
    only_a: int = 0  # rows of splits or records that one folder alone has
    only_b: int = 0
    reread: int = 0  # kept by both, with captions that read differently
    drift: dict[str, Drift] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    captions: list[dict] = field(default_factory=list)

    @property
    def changes(self) -> list[tuple[tuple[str, str], int]]:
        """Changes of fate with their rows, the most frequent first."""
        moved = [(fates, rows) for fates, rows in self.matrix.items() if fates[0] != fates[1]]
        return sorted(moved, key=lambda each: (-each[1], each[0]))


def compare_runs(a: OutputFolder, b: OutputFolder) -> Runs:
    """Compare the ledgers of two folders by their rows' keys, split by split."""
    found, of_a, of_b = Runs(), a.manifests(), b.manifests()
    found.only_a = sum(of_a[split].counts.rows for split in of_a.keys() - of_b.keys())
    found.only_b = sum(of_b[split].counts.rows for split in of_b.keys() - of_a.keys())
    for split in [split for split in of_a if split in of_b]:
        _add(found, _rows(a, of_a[split], "a"), _rows(b, of_b[split], "b"))
    return found


def _rows(folder: OutputFolder, manifest, side: str) -> pa.Table:
    table = folder.table(manifest)
    measured = [name for name in table.column_names if name not in BASE.names and _is_number(table[name].type)]
    table = table.select([*_TOLD, *measured])
    return table.rename_columns([name if name == "key" else f"{name}_{side}" for name in table.column_names])


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _add(found: Runs, a: pa.Table, b: pa.Table) -> None:
    rows = a.join(b, "key", join_type="full outer", use_threads=False).sort_by("key")
    there_a, there_b = rows["outcome_a"].is_valid(), rows["outcome_b"].is_valid()
    found.only_a += pc.sum(pc.invert(there_b)).as_py() or 0
    found.only_b += pc.sum(pc.invert(there_a)).as_py() or 0
    rows = rows.filter(pc.and_(there_a, there_b))
    for side, other in (("a", "b"), ("b", "a")):
        rows = rows.append_column(f"fate_{side}", _fate(rows, side)).append_column(
            f"reads_{side}",
            pc.coalesce(rows[f"text_after_{side}"], rows[f"text_before_{side}"], rows[f"text_before_{other}"]),
        )
    counted = rows.group_by(["fate_a", "fate_b"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    found.matrix.update({(each["fate_a"], each["fate_b"]): each["count_all"] for each in counted})
    _collect(found, rows)
    for name in [column.removesuffix("_a") for column in a.column_names if column.removesuffix("_a") not in _TOLD]:
        if f"{name}_b" in rows.column_names:
            _measure(found.drift.setdefault(name, Drift()), rows[f"{name}_a"], rows[f"{name}_b"])


def _fate(rows: pa.Table, side: str) -> pa.ChunkedArray:
    outcome, rule = rows[f"outcome_{side}"], pc.fill_null(rows[f"rule_{side}"], "")
    error = pc.binary_join_element_wise("error: ", rule, "")
    return pc.if_else(pc.equal(outcome, KEPT), KEPT, pc.if_else(pc.equal(outcome, ERROR), error, rule))


def _collect(found: Runs, rows: pa.Table) -> None:
    """Keep examples of rows whose fate or caption changed, and count captions of rows that both kept."""
    for row in rows.filter(pc.not_equal(rows["fate_a"], rows["fate_b"])).select(_SEEN).to_pylist():
        kept = found.examples.setdefault((row["fate_a"], row["fate_b"]), [])
        if len(kept) < EXAMPLES:
            kept.append(_cut(row))
    both = rows.filter(pc.and_(pc.equal(rows["fate_a"], KEPT), pc.equal(rows["fate_b"], KEPT)))
    differ = both.filter(pc.fill_null(pc.not_equal(both["reads_a"], both["reads_b"]), False))
    found.reread += differ.num_rows
    wanted = max(0, EXAMPLES - len(found.captions))
    found.captions += [_cut(row) for row in differ.select(_SEEN).slice(0, wanted).to_pylist()]


def _cut(row: Mapping) -> dict:
    return {name: value[:LONGEST] if isinstance(value, str) else value for name, value in row.items()}


def _measure(drift: Drift, a: pa.ChunkedArray, b: pa.ChunkedArray) -> None:
    one, other = (pc.fill_null(each.cast(pa.float64()), np.nan).to_numpy() for each in (a, b))
    both = ~np.isnan(one) & ~np.isnan(other)
    apart = np.abs(one[both] - other[both])
    drift.rows += int(both.sum())
    drift.moved += int((apart > 0).sum())
    drift.total += float(apart.sum())
    drift.most = max(drift.most, float(apart.max(initial=0.0)))
    drift.only_a += int((~np.isnan(one) & np.isnan(other)).sum())
    drift.only_b += int((np.isnan(one) & ~np.isnan(other)).sum())


@dataclass
class Line:
    """A dataset and task of two stage folders: samples, tokens, and how many samples both hold."""

    dataset: str
    task: str
    samples: tuple[int, int]
    tokens: tuple[int, int]
    both: int


def compare_stages(a: StageFolder, b: StageFolder) -> list[Line]:
    """Compare two stage folders by dataset and task. A sample is its key, the number of its copy included."""
    kept = [_kept(stage) for stage in (a, b)]
    lines = []
    for dataset, task in sorted({*_pairs(a), *_pairs(b)}):
        counts = [stage.record["datasets"].get(dataset, {}).get(task, {}) for stage in (a, b)]
        keys = [each.get((dataset, task), pa.array([], pa.string())) for each in kept]
        both = int(pc.sum(pc.is_in(keys[0], value_set=keys[1])).as_py() or 0)
        samples, tokens = ((counts[0].get(name, 0), counts[1].get(name, 0)) for name in ("samples", "tokens"))
        lines.append(Line(dataset, task, samples, tokens, both))
    return lines


def _pairs(stage: StageFolder) -> Iterator[tuple[str, str]]:
    return ((dataset, task) for dataset, tasks in stage.record["datasets"].items() for task in tasks)


def _kept(stage: StageFolder) -> dict[tuple[str, str], pa.Array]:
    folder = OutputFolder(stage.path)
    parts: dict[tuple[str, str], list[pa.Array]] = {}
    for split, manifest in folder.manifests().items():
        table = folder.table(manifest, columns=["key", "outcome", "dataset"])
        table = table.filter(pc.equal(table["outcome"], KEPT))
        for dataset in pc.unique(table["dataset"]).to_pylist():
            keys = table.filter(pc.equal(table["dataset"], dataset))["key"]
            parts.setdefault((dataset, split.rpartition("-")[0]), []).extend(keys.chunks)
    return {name: pa.concat_arrays(chunks) for name, chunks in parts.items()}
