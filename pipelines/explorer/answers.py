"""One function for each question that the page asks: (session, the address's parameters) -> what is sent."""

import math
import shlex
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import yaml

from pipelines.engine import report
from pipelines.explorer import details, queries
from pipelines.explorer.database import Database
from pipelines.explorer.folders import Opened
from pipelines.explorer.ledgers import Ledgers
from pipelines.explorer.queries import Filter

Asked = Mapping[str, Sequence[str]]
_OPEN_LEDGERS = 3  # folders whose rows are kept in memory, besides what --memory says


class Forbidden(Exception):
    """Something outside the folders that were opened."""


class Session:
    """The folders that one server shows, and the rows of those looked at last. `memory` in MB bounds the rows."""

    def __init__(self, opened: Sequence[Opened], memory: int):
        self.opened, self.database = opened, Database(memory)
        self._ledgers: OrderedDict[int, Ledgers] = OrderedDict()
        self._searches: OrderedDict[tuple[int, str], tuple[str, int]] = OrderedDict()
        self._lock, self._searching = threading.Lock(), threading.Lock()

    def ledgers(self, opened: Opened) -> Ledgers:
        """Return a folder's rows, read or being read; those looked at longest ago are forgotten."""
        with self._lock:
            if opened.number not in self._ledgers:
                while len(self._ledgers) >= _OPEN_LEDGERS:
                    self._ledgers.popitem(last=False)[1].stop()
                ledgers = Ledgers(opened, self.database)
                ledgers.start()
                self._ledgers[opened.number] = ledgers
            self._ledgers.move_to_end(opened.number)
            return self._ledgers[opened.number]

    def search(self, opened: Opened, text: str) -> tuple[str, int]:
        """Return the table of the places where a text was found, and how many splits were searched."""
        with self._searching:
            if (opened.number, text) not in self._searches:
                while len(self._searches) >= _OPEN_LEDGERS:
                    self.database.drop(self._searches.popitem(last=False)[1][0])
                found, searched = details.search(opened, text)
                name = f"found {opened.number} {text}"
                self.database.add(name, found)
                self._searches[opened.number, text] = name, searched
            return self._searches[opened.number, text]

    def close(self) -> None:
        """Stop reading."""
        for ledgers in self._ledgers.values():
            ledgers.stop()
        self.database.close()


def folders(session: Session, asked: Asked) -> dict:
    """Name the folders."""
    known = [
        {"number": each.number, "path": each.folder.url, "job": each.settings.get("job"), "dataset": _dataset(each)}
        for each in session.opened
    ]
    return {"folders": known}


def _dataset(opened: Opened) -> str:
    dataset = opened.settings.get("dataset")
    if isinstance(dataset, str):
        return dataset
    stage = opened.settings.get("stage")
    return f"stage {stage}" if stage else opened.folder.url.rpartition("/")[2]


def folder(session: Session, asked: Asked) -> dict:
    """Tell what is known of a folder at once: the funnel as it was, by its manifests, and the thresholds that move."""
    opened = _opened(session, asked)
    ledgers, counts = session.ledgers(opened), opened.counts
    stage = opened.stage
    packs = {"packs": len(stage), "tasks": _places_of_tasks(stage.record["shards"])} if stage else None
    return {
        "number": opened.number, "path": opened.folder.url, "dataset": _dataset(opened), "job": opened.settings["job"],
        "splits": len(opened.splits), "rows": counts.rows, "kept": counts.kept, "dropped": counts.dropped,
        "errors": counts.errors, "funnel": report.funnel(counts, dict(opened.settings)),
        "sliders": list(opened.sliders()), "scores": opened.scores,
        "histograms": queries.histograms(ledgers), "stage": packs, **ledgers.seen(True)[1],
    }  # fmt: skip


def _places_of_tasks(shards: Sequence[Mapping]) -> dict[str, list[list[int]]]:
    places: dict[str, list[list[int]]] = {}
    start = 0
    for shard in shards:
        places.setdefault(shard["task"], []).append([start, start + shard["packs"]])
        start += shard["packs"]
    return places


def count(session: Session, asked: Asked) -> dict:
    """Count the funnel at moved thresholds."""
    opened, changes = _changes(session, asked)
    return queries.count(session.ledgers(opened), changes, _exact(asked))


def edge(session: Session, asked: Asked) -> dict:
    """Show the rows nearest to a threshold."""
    opened, changes = _changes(session, asked)
    rule, parameter = _one(asked, "rule"), _one(asked, "parameter")
    opened.check([f"{rule}.{parameter}"])
    found = queries.edge(session.ledgers(opened), changes, rule, parameter, _exact(asked))
    return found | {side: details.cards(opened, found[side]) for side in ("falls", "stays")}


def rows(session: Session, asked: Asked) -> dict:
    """Show a page of the rows that a filter wants."""
    opened = _opened(session, asked)
    wanted, searched = _filter(session, opened, asked)
    page = min(int(_one(asked, "page", "0")), 1_000_000)
    found = queries.rows(session.ledgers(opened), wanted, _one(asked, "order", "row"), max(0, page), _exact(asked))
    return found | {"cards": details.cards(opened, found.pop("places")), "searched": searched}


def plane(session: Session, asked: Asked) -> dict:
    """Count the rows by two scores."""
    opened = _opened(session, asked)
    wanted, _ = _filter(session, opened, asked)
    x, y = (
        {"name": _one(asked, axis), **{end: _number(_one(asked, f"{axis}_{end}")) for end in ("low", "high")}}
        for axis in ("x", "y")
    )
    return queries.plane(session.ledgers(opened), wanted, x, y, _exact(asked))


def copy(session: Session, asked: Asked) -> dict:
    """Write what the moved thresholds are as a command and as lines of a catalog."""
    opened, changes = _changes(session, asked)
    url = opened.folder.url
    rules: dict[str, dict] = {}
    for change in changes:
        name, _, value = change.partition("=")
        rule, _, parameter = name.partition(".")
        rules.setdefault(rule, {})[parameter] = yaml.safe_load(value)
    given = {name: {**(opened.settings.get("rules", {}).get(name) or {}), **each} for name, each in rules.items()}
    command = f"python pipelines/retune.py {shlex.quote(url)} --set {shlex.join(changes)} --output {shlex.quote(url)}-2"
    lines = yaml.safe_dump({_dataset(opened): {"rules": given}}, sort_keys=False, allow_unicode=True)
    return {"retune": command if changes else "", "catalog": lines if changes else ""}


def pack(session: Session, asked: Asked) -> dict:
    """Show a pack of a stage folder."""
    return details.pack(*_pack(session, asked))


def picture(session: Session, asked: Asked) -> bytes | None:
    """Return a row's picture."""
    opened = _opened(session, asked)
    split, at = int(_one(asked, "split")), int(_one(asked, "at"))
    if not 0 <= split < len(opened.splits):
        raise Forbidden("no such split")
    try:
        return details.picture(opened, split, at, max(0, int(_one(asked, "image", "0"))), "large" in asked)
    except IndexError:
        raise Forbidden("no such row") from None


def pack_picture(session: Session, asked: Asked) -> bytes | None:
    """Return a picture of a pack."""
    opened, number = _pack(session, asked)
    try:
        return details.pack_picture(opened, number, max(0, int(_one(asked, "image"))))
    except IndexError:
        raise Forbidden("no such picture") from None


def _pack(session: Session, asked: Asked) -> tuple[Opened, int]:
    opened, number = _opened(session, asked), int(_one(asked, "pack"))
    if opened.stage is None or not 0 <= number < len(opened.stage):
        raise Forbidden("no such pack")
    return opened, number


def _opened(session: Session, asked: Asked) -> Opened:
    number = _one(asked, "folder")
    if not number.isdecimal() or int(number) >= len(session.opened):
        raise Forbidden("no such folder")
    return session.opened[int(number)]


def _changes(session: Session, asked: Asked) -> tuple[Opened, list[str]]:
    opened, changes = _opened(session, asked), list(asked.get("set", ()))
    opened.check(changes)
    for change in changes:
        _number(change.partition("=")[2])
    return opened, changes


def _filter(session: Session, opened: Opened, asked: Asked) -> tuple[Filter, int | None]:
    """Return what rows are asked for, and how many splits were searched for its text."""
    outcome, text = _one(asked, "outcome", ""), _one(asked, "text", "").strip()
    if outcome and outcome not in queries.OUTCOMES:
        raise ValueError(f"no outcome {outcome!r}")
    ranges = []
    for each in asked.get("range", ()):
        score, low, high = each.rsplit(":", 2)
        ranges.append((score, _number(low or "-inf"), _number(high or "inf")))
    places, searched = session.search(opened, text[:500]) if text else (None, None)
    rule = _one(asked, "rule", "") or None
    return Filter(outcome or None, rule, "changed" in asked, ranges, places), searched


def _exact(asked: Asked) -> bool:
    return _one(asked, "exact", "1") == "1"


def _one(asked: Asked, name: str, default: str | None = None) -> str:
    if name in asked:
        return asked[name][0]
    if default is None:
        raise ValueError(f"{name} is missing")
    return default


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError(f"{text} is no number")
    return value
