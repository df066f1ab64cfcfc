"""Evaluation sets and their lists: what must stay out of training data, `evaluation/sets.yaml` and `evaluation/lists/`.

A set names the pools that its images come from; a dataset of the catalog names its own. Where they share one, the
dataset may hold the set's images, and a list of them, or a rule about their names, is what tells.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from corpus.seals import digest

ROOT = Path(__file__).resolve().parent.parent / "evaluation"
OWNERS = {"coco": "coco", "vg": "visual-genome", "openimages": "openimages", "flickr": "flickr"}  # of ids -> their pool
POOLS = ("coco", "visual-genome", "flickr", "openimages", "vizwiz")
ANY = "any"  # of a set that was added without saying where its images come from


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A set; `listed` tells whether a list of it is here, `complete` that the rule `names` alone knows its images."""

    name: str
    says: str = ""
    pools: tuple[str, ...] = (ANY,)
    files: str = ""
    names: str | None = None
    complete: bool = False
    listed: bool = False

    def known(self) -> bool:
        """Tell whether its images can be told."""
        return self.listed or self.complete

    def shares(self, pools: Iterable[str]) -> bool:
        """Tell whether a dataset whose images come from `pools` may hold some of its images."""
        return ANY in self.pools or not set(self.pools).isdisjoint(pools)

    def mark(self) -> str:
        """Return what identifies the guard: the digest of its list and rule."""
        held = list_path(self.name).read_text(encoding="utf-8") if self.listed else ""
        return digest([held, self.names])


def list_path(name: str) -> Path:
    """Return the place of a set's list, as the process that asks sees the checkout."""
    return ROOT / "lists" / f"{name}.txt"


def evaluation_sets() -> dict[str, EvaluationSet]:
    """Return all sets by name: those of sets.yaml, and those that only have a list."""
    told = yaml.safe_load((ROOT / "sets.yaml").read_text(encoding="utf-8")) or {}
    listed = {path.stem for path in (ROOT / "lists").glob("*.txt")}
    return {
        name: EvaluationSet(name=name, listed=name in listed, **_checked(name, told.get(name) or {}))
        for name in [*told, *sorted(listed - told.keys())]
    }


def _checked(name: str, entry: dict) -> dict:
    pools = tuple(entry.get("pools", (ANY,)))
    if strange := set(pools) - {*POOLS, ANY}:
        raise ValueError(f"evaluation/sets.yaml: {name}: no pool {min(strange)!r}; pools are {', '.join(POOLS)}")
    re.compile(entry.get("names", ""))
    return entry | {"pools": pools}


def named_as(file_name: str, sets: Mapping[str, EvaluationSet]) -> Iterator[str]:
    """Yield the sets that a file's name gives away."""
    for one in sets.values():
        if one.names and re.search(one.names, file_name):
            yield one.name
