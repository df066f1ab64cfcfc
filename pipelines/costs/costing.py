"""From amounts to what is taken and paid: every step's resources, each with the rate that it rests on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.costs.amounts import Project, Training, Work, works
from pipelines.costs.rates import COUNTED, NEVER, Tables
from pipelines.engine.inputs import UserError

ROOFLINE = "trainer.estimate, a roofline: no GPU has run it"


@dataclass(frozen=True)
class Part:
    """So much of a resource, by one rate. `rests_on`: where that was measured; `shaky`: why it may be wrong, or "".

    `stretched`: measured, for far less than this.
    """

    resource: str
    number: float
    paid: float
    rests_on: str
    shaky: str = ""
    stretched: bool = False


@dataclass(frozen=True)
class Cost:
    """What one step takes."""

    work: Work
    parts: Sequence[Part]

    def number(self, resource: str) -> float:
        """How much of a resource of rates.COUNTED it takes."""
        return sum(part.number for part in self.parts if part.resource == resource)

    @property
    def paid(self) -> float:
        return sum(part.paid for part in self.parts)

    @property
    def shaky(self) -> bool:
        return any(part.shaky for part in self.parts)


def costs_of(project: Project, tables: Tables) -> list[Cost]:
    """Return the cost of every step of a project, in the order in which they run."""
    found = [Cost(work, list(_parts(work, tables))) for work in works(project, tables.rates)]
    return found + [_training(training, project, tables) for training in project.trainings]


def _parts(work: Work, tables: Tables) -> Iterator[Part]:
    for rate in tables.rates.of(work.step):
        amount = work.amounts.get(rate.amount, 0.0)
        number = amount * rate.each
        stretched = rate.up_to is not None and amount > rate.up_to
        shaky, rests_on = "", rate.measured
        if rate.measured == NEVER:
            shaky = rests_on = f"never measured; {rate.source}"
        elif stretched:
            shaky = f"measured for {rate.up_to:,.0f} {rate.amount}s at most"
        if amount:
            told = f"{work.step}: {rate.value:,.12g} {rate.unit}: "
            paid = number * tables.prices.of(rate.resource, tables.gpu)
            yield Part(rate.resource, number, paid, told + rests_on, shaky and told + shaky, stretched)


def _training(training: Training, project: Project, tables: Tables) -> Cost:
    """GPU-hours by trainer.estimate; requests and bytes by the rates of `train`, for the packs that it reads."""
    from trainer import estimate

    kinds = {*estimate.FIXED, "micro_packs", "exchange", "activation_checkpointing", "steps", "batch"}
    flags = {name.replace("-", "_"): value for name, value in training.flags.items()}
    flags = {name: value for name, value in flags.items() if name in kinds}
    try:
        one = estimate.estimate(training.size, training.stage, training.gpus, estimate.GPUS[tables.gpu], **flags)
    except (KeyError, ValueError) as error:
        raise UserError(f"stage {training.stage} of size {training.size}: {error}") from None
    samples = one.settings.steps * one.settings.batch
    packs = samples / estimate.PACK.get(training.stage, estimate.PACK[3])[0]
    size = _image_bytes(project, training.stage) * samples
    work = Work("train", f"stage {training.stage}", {"sample": samples, "pack": packs, "image byte": size})
    hours = one.seconds * one.settings.steps * training.gpus / 3600
    told = f"train {work.what}: {one.seconds:.3g} s a step on {training.gpus} x {tables.gpu}: {ROOFLINE}"
    gpu = Part("GPU-hours", hours, hours * tables.prices.of("GPU-hours", tables.gpu), told, told)
    return Cost(work, [gpu, *_parts(work, tables)])


def _image_bytes(project: Project, stage: int) -> float:
    """Bytes of images of a stage's mean sample."""
    mixture = project.stages.get(stage, {})
    sizes = {source.name: source.image_bytes for source in project.sources}
    total = sum(sum(tasks.values()) for tasks in mixture.values())
    held = sum(
        sizes[name] * count for name, tasks in mixture.items() for task, count in tasks.items() if task != "text"
    )
    return held / total if total else 0.0


def summed(costs: Iterable[Cost]) -> dict[str, float]:
    """Return the total of every resource, and `paid`."""
    costs = list(costs)
    return {name: sum(cost.number(name) for cost in costs) for name in COUNTED} | {"paid": sum(c.paid for c in costs)}
