"""How often each cleaned sample enters a stage: the catalog's numbers, applied by hash.

A sample's fate depends on its key, the task and the seed alone, not on the order or the grouping of reading. A larger
weight keeps all that a smaller one chose: 10 % of a dataset is a subset of 20 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from corpus.catalog import Dataset


@dataclass(frozen=True)
class Share:
    """What a stage wants of one dataset for one task. `weight` is copies per cleaned sample, 0 where there are none."""

    dataset: str
    task: str
    listed: int  # samples in the catalog
    wanted: int  # samples after scaling to the size asked for
    available: int  # cleaned samples
    weight: float

    @property
    def expected(self) -> int:
        """Cleaned samples, copies counted, that enter the stage, up to the chance of the hash."""
        return round(self.available * self.weight)


def shares(
    catalog: Mapping[str, Dataset],
    stage: int,
    available: Mapping[str, int],
    samples: int | None = None,
    *,
    of_present: bool = False,
) -> list[Share]:
    """Return the stage's mixture. `available` is the number of cleaned samples by dataset, absent ones left out.

    Without `samples` the catalog's own numbers are wanted, as far as the data goes: nothing is repeated. With it they
    are scaled to that many over all the stage's datasets, absent ones included: what an absent dataset would have given
    is missing, never made up from others; what is there and too small is repeated. `of_present`: scaled to that many
    over the datasets that are there, in the proportions of the catalog.
    """
    listed = [(d, task, number) for d in catalog.values() for task, number in d.stages.get(stage, {}).items()]
    counted = [number for d, _, number in listed if available.get(d.name) or not of_present]
    scale = 1.0 if samples is None else samples / max(1, sum(counted))
    return [
        _share(
            dataset.name, task, int(number), number * scale, available.get(dataset.name, 0), repeat=samples is not None
        )
        for dataset, task, number in listed
        if number > 0
    ]


def _share(dataset: str, task: str, listed: int, wanted: float, available: int, repeat: bool) -> Share:
    weight = wanted / available if available else 0.0
    # Rounded so that the settings in job.json show it whole.
    return Share(dataset, task, listed, round(wanted), available, round(weight if repeat else min(weight, 1.0), 6))


def positions(keys: Sequence[str], task: str, seed: int) -> np.ndarray:
    """Return each sample's place in [0, 1), float64 [n], by hash."""
    prefix = f"{seed}/{task}/".encode()
    raw = b"".join(blake2b(prefix + key.encode(), digest_size=8).digest() for key in keys)
    return (np.frombuffer(raw, "<u8") >> np.uint64(11)) * 2.0**-53


def copies(places: np.ndarray, weight: float) -> np.ndarray:
    """Return how often each sample is taken, int64 [n]: weight 2.3 takes all twice and 30 % a third time."""
    whole = int(weight)
    return whole + (places < weight - whole)
