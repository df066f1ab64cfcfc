"""The output folders that are looked at: what made each, what became of its rows, and which thresholds can move."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corpus import packs
from corpus.catalog import CatalogError
from corpus.folder import JOB, Manifest, OutputFolder
from corpus.ledger import BASE, Counts
from corpus.packs import StageFolder
from corpus.rules import RuleTable, WrongRule
from corpus.tokens import Tokenizer
from pipelines.engine.inputs import UserError
from pipelines.work.datasets import changed_rules, rules_of_folder

_DEEPEST = 4  # folders below DIR that are looked into
_READERS = 16


@dataclass(frozen=True, eq=False)
class Opened:
    """An output folder that the page may show. What costs a listing or a file is read when it is asked for."""

    number: int
    folder: OutputFolder
    settings: Mapping
    catalog: str | None = None

    @cached_property
    def splits(self) -> list[str]:
        """The committed splits, in order."""
        return self.folder.splits()

    @cached_property
    def manifests(self) -> list[Manifest]:
        """The manifests of the splits."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.folder.manifest, self.splits))

    @cached_property
    def counts(self) -> Counts:
        """What became of all rows."""
        return sum((manifest.counts for manifest in self.manifests), Counts())

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the ledgers, by the first of them."""
        return self.footer(0).schema_arrow if self.splits else BASE

    @cached_property
    def scores(self) -> list[str]:
        """The ledger's columns that are numbers a job measured."""
        number = lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind)  # noqa: E731
        return [column.name for column in self.schema if column.name not in BASE.names and number(column.type)]

    @cached_property
    def table(self) -> RuleTable:
        """The rules that judged the rows; none where the job has none, or its catalog is not at hand."""
        try:
            return rules_of_folder(self.settings, self.catalog) or RuleTable("", [])
        except CatalogError:
            return RuleTable("", [])

    @cached_property
    def stage(self) -> StageFolder | None:
        """The packs, of a stage folder that is finished."""
        there = self.folder.fs.exists(self.folder.path(packs.CORPUS))
        return StageFolder(self.folder.url) if there else None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of a stage folder's packs."""
        return self.packs.tokenizer()

    @property
    def packs(self) -> StageFolder:
        """The packs. ValueError for a folder without."""
        if self.stage is None:
            raise ValueError(f"{self.folder.url} holds no packs")
        return self.stage

    def footer(self, split: int) -> pq.ParquetFile:
        """Open the ledger of a split, by number; its columns are read when they are asked for."""
        return pq.ParquetFile(self.folder.fs.open(self.folder.path(f"{self.splits[split]}.parquet"), "rb"))

    def active(self, changes: Iterable[str] = ()) -> dict[str, dict]:
        """Return rule -> parameters for the rules with thresholds, `RULE.PARAMETER=VALUE` applied. Raises WrongRule."""
        rules = changed_rules(self.table, self.settings.get("rules", {}), changes)
        self.table.check({name: given for name, given in rules.items() if name in self.table})
        return {name: given for name, given in self.table.active(rules).items() if self._measured(name)}

    def _measured(self, rule: str) -> bool:
        return bool(self.table[rule].limits) and {*self.table[rule].measures} <= {*self.scores}

    def sliders(self) -> Iterator[dict]:
        """Yield the thresholds that can move: rule, parameter, score, bound and value."""
        for rule, parameters in self.active().items():
            for parameter, limit in self.table[rule].limits.items():
                about = {"rule": rule, "parameter": parameter, "score": limit.score, "bound": limit.bound}
                yield about | {"value": parameters[parameter], "says": self.table[rule].says}

    def check(self, changes: Iterable[str]) -> None:
        """Raise WrongRule for a change that is none of the sliders'."""
        known = {f"{each['rule']}.{each['parameter']}" for each in self.sliders()}
        for change in changes:
            if (name := change.partition("=")[0]) not in known:
                raise WrongRule(f"no threshold {name!r}", (name, None))


def open_folders(paths: Iterable[str], catalog: str | None = None) -> list[Opened]:
    """Open the output folders at or below `paths`. Raises UserError where there is none."""
    urls = [url for path in paths for url in _found(path if "://" in path else str(Path(path).resolve()))]
    if not urls:
        raise UserError(
            f"{' '.join(paths)}: no output folder of ours there, nor in the folders below (none has a {JOB})"
        )
    folders = [OutputFolder(url) for url in dict.fromkeys(urls)]
    return [Opened(i, folder, folder.settings(), catalog) for i, folder in enumerate(folders)]


def _found(url: str, depth: int = 0) -> Iterator[str]:
    folder = OutputFolder(url)
    if not folder.fs.isdir(folder.root):
        raise UserError(f"{url}: no such folder")
    entries = folder.fs.ls(folder.root, detail=True)
    names = {entry["name"].rstrip("/").rpartition("/")[2]: entry["type"] for entry in entries}
    if JOB in names:
        yield url
    elif depth < _DEEPEST:
        inside = sorted(name for name, kind in names.items() if kind == "directory" and not name.startswith("."))
        for name in inside:
            yield from _found(f"{url}/{name}", depth + 1)
