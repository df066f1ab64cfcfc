"""Rates and prices as data: `rates.yaml` says what a unit of work takes and where that was measured, `prices.yaml`
what it costs. A file of the user's is laid over each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from corpus.marked import Document
from corpus.rules import hint, listed
from pipelines.engine.inputs import UserError

NEVER, BY_DESIGN = "never", "by design"
# What a step takes: its name in a unit -> (what it is counted in, how many of these it is).
RESOURCES = {
    "core-microsecond": ("core-hours", 1e-6 / 3600), "core-millisecond": ("core-hours", 1e-3 / 3600),
    "core-second": ("core-hours", 1 / 3600), "core-hour": ("core-hours", 1.0),
    "GPU-second": ("GPU-hours", 1 / 3600), "GPU-hour": ("GPU-hours", 1.0),
    "GET": ("GETs", 1.0), "PUT": ("PUTs", 1.0), "LIST": ("LISTs", 1.0),
    "byte read": ("TB read", 1e-12), "byte written": ("TB written", 1e-12), "byte downloaded": ("TB downloaded", 1e-12),
}  # fmt: skip
COUNTED = tuple(dict.fromkeys(name for name, _ in RESOURCES.values()))
# What a step is given: rows it reads and keeps, their images and these images' bytes, files it makes, ...
AMOUNTS = (
    "row", "kept row", "image", "kept image", "image byte", "kept image byte", "file", "page", "character", "sample",
    "text", "pack",
)  # fmt: skip
_HERE = Path(__file__).resolve().parent
_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Rate(_Shape):
    """One rate. `measured`: words of docs/benchmarks.md with the value; or never, or by design, as `source` tells.

    `up_to`: of the amount in its unit, the most that it was measured for.
    """

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unit: str
    measured: str
    source: str = ""
    up_to: _Number | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> "Rate":
        if self.measured in (NEVER, BY_DESIGN) and not self.source:
            raise ValueError("a rate that was not measured has a source: who says so, or why it is assumed")
        return self


class Taken(Rate):
    """A rate of a step: RESOURCE per AMOUNT, or AMOUNT per RESOURCE."""

    @field_validator("unit")
    @classmethod
    def _is_known(cls, unit: str) -> str:
        _parsed(unit)
        return unit

    @property
    def resource(self) -> str:
        """What it takes, as COUNTED has it."""
        return _parsed(self.unit)[0]

    @property
    def amount(self) -> str:
        """What it is a rate of."""
        return _parsed(self.unit)[1]

    @property
    def each(self) -> float:
        """How much of the resource one of the amount takes."""
        _, _, factor, inverse = _parsed(self.unit)
        return factor / self.value if inverse else factor * self.value


def _parsed(unit: str) -> tuple[str, str, float, bool]:
    """Return (resource, amount, how many of the resource a unit is, whether the amount stands first)."""
    left, _, right = unit.partition(" per ")
    left = _SINGULAR.get(left, left)
    if left in RESOURCES and right in AMOUNTS:
        return RESOURCES[left][0], right, RESOURCES[left][1], False
    if left in AMOUNTS and right in RESOURCES:
        return RESOURCES[right][0], left, RESOURCES[right][1], True
    raise ValueError(f"no unit {unit!r}: one of {listed(RESOURCES)} per one of {listed(AMOUNTS)}, or the reverse")


def _plural(name: str) -> str:
    return name.replace("byte ", "bytes ", 1) if name.startswith("byte ") else f"{name}s"


_SINGULAR = {_plural(name): name for name in (*RESOURCES, *AMOUNTS)}
# What a dataset is like where nobody says, and the unit that it is told in.
ASSUMED = {
    "image bytes": "bytes per image", "rows per shard": "rows per file", "rows per table": "rows per file",
    "characters": "characters per text", "kept pairs": "share", "answering links": "share", "kept images": "share",
    "unlike images": "share", "kept others": "share", "windows of a PDF page": "samples per page",
    "windows of a web page": "samples per page",
}  # fmt: skip


class Rates(_Shape):
    """`rates.yaml`: what datasets are like, and what each step takes."""

    assumed: dict[str, Rate]
    steps: dict[str, list[Taken]]

    @field_validator("assumed")
    @classmethod
    def _are_known(cls, assumed: dict[str, Rate]) -> dict[str, Rate]:
        for name, rate in assumed.items():
            if name not in ASSUMED:
                raise ValueError(f"nothing is assumed of {name!r}{hint(name, ASSUMED)}; known: {listed(ASSUMED)}")
            if rate.unit != ASSUMED[name]:
                raise ValueError(f"{name} is told in {ASSUMED[name]}, not in {rate.unit!r}")
            if rate.unit == "share" and rate.value > 1:
                raise ValueError(f"{name} is a share, at most 1, not {rate.value:g}")
        return assumed

    def of(self, step: str) -> Sequence[Taken]:
        """Return the rates of a step. UserError for one that has none."""
        if step not in self.steps:
            raise UserError(f"no rate is known of {step!r}: give its own under `steps` of a file for --rates")
        return self.steps[step]


class Prices(_Shape):
    """`prices.yaml`, in its currency."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=lambda name: name.replace("_", " "))
    as_of: str
    currency: str
    core_hour: _Number = Field(alias="core-hour")
    gpu_hour: dict[str, _Number] = Field(alias="GPU-hour")
    gets: _Number = Field(alias="1000 GETs")
    puts: _Number = Field(alias="1000 PUTs")
    lists: _Number = Field(alias="1000 LISTs")
    tb_read: _Number = Field(alias="TB read")
    tb_written: _Number = Field(alias="TB written")
    tb_downloaded: _Number = Field(alias="TB downloaded")
    tb_stored: _Number = Field(alias="TB stored for a month")
    months: _Number = Field(alias="months stored")

    def of(self, resource: str, gpu: str) -> float:
        """Return the price of one of a resource; what is written is paid for as long as it is stored."""
        prices = {
            "core-hours": self.core_hour, "GPU-hours": self.gpu_hour.get(gpu, 0.0), "GETs": self.gets / 1000,
            "PUTs": self.puts / 1000, "LISTs": self.lists / 1000, "TB read": self.tb_read,
            "TB written": self.tb_written + self.tb_stored * self.months, "TB downloaded": self.tb_downloaded,
        }  # fmt: skip
        return prices[resource]


@dataclass(frozen=True)
class Tables:
    """Rates, prices, and the kind of GPU that is paid for."""

    rates: Rates
    prices: Prices
    gpu: str


def read_tables(rates: str | None = None, prices: str | None = None, gpu: str = "h100") -> Tables:
    """Read both tables, files of the user's laid over them. UserError says what is wrong, each with its line."""
    known = _checked(Rates, _HERE / "rates.yaml", {})
    found = _checked(Rates, rates, known.model_dump()) if rates else known
    usual = _checked(Prices, _HERE / "prices.yaml", {})
    paid = _checked(Prices, prices, usual.model_dump(by_alias=True)) if prices else usual
    if unknown := [step for step in found.steps if step not in known.steps and not step.startswith("clip ")]:
        raise UserError(f"{rates}: no step {unknown[0]!r}{hint(unknown[0], known.steps)}; known: {listed(known.steps)}")
    if gpu not in paid.gpu_hour:
        raise UserError(f"no price of a GPU-hour of {gpu!r}; prices are known of {listed(paid.gpu_hour)}")
    return Tables(found, paid, gpu)


def _checked(shape, path: str | Path, below: Mapping):
    """Read a file, laid over `below` by the keys of its first two levels, and check its shape."""
    try:
        document = Document(path)
    except (ValueError, OSError) as error:
        raise UserError(str(error) if isinstance(error, ValueError) else f"{path}: {error.strerror}") from None
    if document.twice:
        raise UserError("\n".join(document.twice))
    if not isinstance(document.tree, dict):
        raise UserError(f"{path}: expected a mapping: {listed(below) or 'rates or prices'}")
    try:
        return shape.model_validate(_laid_over(below, document.tree))
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise UserError(
            "\n".join(f"{document.place(e['loc'])}: {_dotted(e['loc'])}: {e['msg']}" for e in found)
        ) from None


def _laid_over(below: Mapping, tree: Mapping) -> dict:
    both = {key: {**below[key], **tree[key]} for key in below.keys() & tree.keys()
            if isinstance(below[key], dict) and isinstance(tree[key], dict)}  # fmt: skip
    return {**below, **tree, **both}


def _dotted(path: Sequence) -> str:
    return ".".join(map(str, path))
