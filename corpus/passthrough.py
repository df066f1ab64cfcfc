"""A user's own columns (licence, photographer, id), carried from the input into samples and ledgers as they are.

No rule reads them. A value is a text, a number, true, false or null; anything else, and a text too long for a label,
becomes null, and the row's `detail` says so.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from corpus.readers.rows import BadRow
from corpus.rules import hint, listed
from corpus.tars import RawSample
from corpus.values import load_json, valid

PASSTHROUGH = "passthrough"  # the key in a sample's `source`, in `job.json` and in a catalog; the ledger's column
LONGEST = 1000  # characters


class NoSuchColumn(ValueError):
    """Not one record of a split has a column that the catalog passes through."""


def ledger_column(names: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the ledger's column: a struct with one text for each of `names`; nothing for none."""
    return {PASSTHROUGH: pa.struct([(name, pa.string()) for name in names])} if names else {}


def columns_of(record) -> Mapping:
    """Return the columns of a record as the readers yield it; none of a line of text.

    A pair is (id, record), a sample of a tar has its columns in its JSON; one of ours, where an earlier job put them.
    """
    if isinstance(record, tuple):
        record = record[-1]
    if isinstance(record, RawSample):
        record = _json_of(record)
    found = record if isinstance(record, Mapping) else getattr(record, "columns", None)
    found = found if isinstance(found, Mapping) else {}
    source = found.get("source")
    ours = source.get(PASSTHROUGH) if isinstance(source, Mapping) else None
    return ours if isinstance(ours, Mapping) else found


def _json_of(sample: RawSample):
    try:
        return load_json(sample.members.get("json", b"{}"))
    except ValueError:  # whoever reads the sample says so
        return {}


class Passthrough:
    """What the rows of a split have in the columns `names`, from when a row is read until it is written."""

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)
        self._values: dict[int, dict] = {}
        self._unfit: dict[int, str] = {}
        self._missing, self._has, self._records = dict.fromkeys(self.names), dict[str, None](), 0

    def take(self, row: int, record) -> None:
        """Note the columns of a row; one that could not be read has none."""
        if not self.names or record is None or isinstance(record, BadRow):
            return
        columns = columns_of(record)
        found = {name: _held(columns.get(name)) for name in self.names}
        self._values[row] = {name: value for name, (value, _) in found.items()}
        if unfit := [f"{name} {why}" for name, (_, why) in found.items() if why]:
            self._unfit[row] = f"{PASSTHROUGH}: {', '.join(unfit)}"
        self._records += 1
        if self._missing:
            self._missing = {name: None for name in self._missing if name not in columns}
            self._has |= dict.fromkeys(map(str, list(columns)[: 50 - len(self._has)]))

    def of_sample(self, row: int | None) -> dict:
        """Return what a row adds to its sample's `source`."""
        return {PASSTHROUGH: self._values[row]} if row in self._values else {}

    def of_row(self, row: int, detail: str | None = None) -> dict:
        """Return what a row adds to its ledger row, whose detail so far is `detail`."""
        if row not in self._values:
            return {}
        told = {name: _spelt(value) for name, value in self._values[row].items()}
        return {PASSTHROUGH: told} | self._with_unfit(row, detail)

    def of_table(self, table: pa.Table) -> pa.Table:
        """Return ledger rows with what they add; their values are forgotten, for each row comes once."""
        if not self.names or PASSTHROUGH in table.column_names:
            return table
        details = table["detail"].to_pylist() if "detail" in table.column_names else [None] * table.num_rows
        rows = table["row"].to_pylist()
        added = [self.of_row(row, detail) for row, detail in zip(rows, details, strict=True)]
        told = pa.array([each.get(PASSTHROUGH) for each in added], ledger_column(self.names)[PASSTHROUGH])
        details = pa.array([each.get("detail", was) for each, was in zip(added, details, strict=True)], pa.string())
        for row in rows:
            self._values.pop(row, None)
        if "detail" in table.column_names:
            table = table.drop_columns("detail")
        return table.append_column("detail", details).append_column(PASSTHROUGH, told)

    def _with_unfit(self, row: int, detail: str | None) -> dict:
        unfit = self._unfit.get(row)
        if unfit is None or (detail and unfit in detail):  # an earlier run's row, told already
            return {}
        return {"detail": f"{detail}; {unfit}" if detail else unfit}

    def check(self) -> None:
        """Raise NoSuchColumn where not one of the records had a column."""
        if self._records and self._missing:
            raise NoSuchColumn(f"none of {self._records} records has {no_such(self._missing, self._has)}")


def no_such(names: Iterable[str], there: Collection[str]) -> str:
    """Say which columns are asked for, and what there is instead."""
    hints = "".join(hint(name, there) for name in names)
    return f"{listed(list(names))}, which `{PASSTHROUGH}` names{hints}; columns are {listed(list(there))}"


def _held(value) -> tuple[object, str | None]:
    """Return a value as a sample and a ledger can hold it, and why it is null where it was something."""
    if isinstance(value, (dict, list, tuple)):
        return None, f"is {'an object' if isinstance(value, dict) else 'a list'}"
    if isinstance(value, (bytes, bytearray)):
        return None, "is bytes"
    held = valid(value)
    if isinstance(held, str) and len(held) > LONGEST:
        return None, f"has {len(held):,} characters, more than {LONGEST:,}"
    return held, f"is {value}" if held is None and value is not None else None


def _spelt(value) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
