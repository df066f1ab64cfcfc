"""The stream of batches: a pure function of (corpus, seed, packs per step, packs consumed).

Every step takes the next `packs_per_step` packs of the corpus's order (corpus/order.py); rank r of R takes those whose
position leaves r when divided by R, in micro-batches. Workers get positions in that order and hold no state, so their
number changes nothing, and a resume costs one multiplication.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from corpus.damage import CorruptSample
from corpus.packs import StageFolder
from corpus.records import BadImage
from trainer.batch import Row, collate, make_row

# A pack that is damaged is replaced by its neighbour in the shard (of the same task, as a rule); so many neighbours in
# a row are no accident, and neither are so many in a run that rotted after build_stage wrote them.
MAX_REPLACEMENTS = 16
MAX_CORRUPT = 8
AHEAD = 4096  # positions: so long before its turn a pack's block is fetched, where the corpus lies in an object store


@dataclass(frozen=True)
class Plan:
    """How a step's packs are dealt out. Every rank runs the same number of micro-batches, empty ones if need be."""

    packs_per_step: int
    micro_packs: int
    rank: int = 0
    ranks: int = 1

    @property
    def micro_batches(self) -> int:
        """Micro-batches per step on each rank."""
        return -(-self.packs_per_step // (self.ranks * self.micro_packs))

    def step(self, step: int) -> Iterator[tuple[int, ...]]:
        """This rank's micro-batches of a step, as positions in the corpus's order."""
        first = step * self.packs_per_step
        mine = range(first + (self.rank - first) % self.ranks, first + self.packs_per_step, self.ranks)
        for i in range(self.micro_batches):
            yield tuple(mine[i * self.micro_packs : (i + 1) * self.micro_packs])


class PackBatches(Dataset):
    """Maps a tuple of positions in the corpus's order to a batch (see `batch.collate`).

    `order`: a name of corpus.order.ORDERS. `until`: the position where reading ends, None when nobody knows.
    """

    until: int | None = None

    def __init__(
        self, folder: StageFolder, *, seed: int, image_size: int, attention: str, image_token: int, pad_to=8,
        order: str = "packs",
    ):  # fmt: skip
        self.folder, self.seed, self.pad_to, self.order = folder, seed, pad_to, order
        self.form = {"image_size": image_size, "attention": attention, "image_token": image_token}
        self.form["queries"] = folder.queries

    def __getitem__(self, positions: tuple[int, ...]) -> dict:
        rows, replaced = [], []
        self.begin(positions)
        for position in positions:
            row, bad = read_row(self.folder, self.pack(position), self.form)
            rows.append(row)
            replaced += bad
        return collate(rows, self.form["image_size"], self.pad_to) | {"replaced": replaced}

    def begin(self, positions: tuple[int, ...]) -> None:
        """Have the packs fetched that stand at these positions, and those that stand AHEAD of them."""
        self.folder.expect(map(self.pack, self._soon(positions)))

    def pack(self, position: int) -> int:
        """Return the number of the pack at a position."""
        return self.folder.index(self.seed, position, self.order)

    def _soon(self, positions: tuple[int, ...]) -> Iterator[int]:
        yield from positions
        yield from (p + AHEAD for p in positions if p + AHEAD < (self.until or 0))


def read_row(folder: StageFolder, i: int, form: dict) -> tuple[Row, list[dict]]:
    """Read pack `i`; where it or an image of it is damaged, the next pack that is whole, and what was wrong with each.

    Raises ValueError naming the pack when MAX_REPLACEMENTS packs in a row are damaged.
    """
    bad = []
    for k in range(MAX_REPLACEMENTS + 1):
        number = (i + k) % len(folder)
        name = folder.where(number)
        try:
            pack = folder[number]
            name = pack.key
            row = make_row(pack, **form)
        except (BadImage, CorruptSample) as error:
            bad.append({"pack": name, "error": error.kind, "detail": str(error)})
            continue
        return row, [entry | {"by": pack.key} for entry in bad]
    raise ValueError(
        f"{folder.path}: {MAX_REPLACEMENTS + 1} packs in a row cannot be decoded, from {bad[0]['pack']} "
        f"({bad[0]['detail']}) to {bad[-1]['pack']}: is the corpus damaged?"
    )


def refuse_rot(folder: StageFolder, rotten: dict[str, str], replaced: list[dict]) -> None:
    """Remember in `rotten` (pack -> detail) which packs of a step did not match their checksums.

    Raises ValueError above MAX_CORRUPT of them: then the disk is at fault, and the corpus is no longer what it was.
    """
    rotten |= {entry["pack"]: entry["detail"] for entry in replaced if entry["error"] == CorruptSample.kind}
    if len(rotten) > MAX_CORRUPT:
        raise ValueError(
            f"{folder.path}: {len(rotten)} packs do not match their checksums: {next(iter(rotten.values()))}"
        )


class _Positions:
    """The sampler: all micro-batches of the steps that are left."""

    def __init__(self, plan: Plan, first_step: int, last_step: int):
        self.plan, self.steps = plan, range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps) * self.plan.micro_batches

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for step in self.steps:
            yield from self.plan.step(step)


def batches(dataset: PackBatches, plan: Plan, first_step: int, last_step: int, workers: int, pin: bool) -> Iterator:
    """Yield the batches of steps [first_step, last_step), decoded by `workers` processes (0: in this one)."""
    dataset.until = last_step * plan.packs_per_step
    loader = DataLoader(
        dataset,
        sampler=_Positions(plan, first_step, last_step),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
    return iter(loader)


def packs_per_step(batch: int, mean_samples_per_pack: float) -> int:
    """A batch in samples, in packs."""
    return max(1, round(batch / mean_samples_per_pack))


def micro_packs(packs: int, ranks: int, accumulation: int, limit: int) -> int:
    """Packs in one forward pass, such that a step takes `accumulation` of them, or more where `limit` asks for it."""
    return max(1, min(limit, -(-packs // (ranks * accumulation))))
