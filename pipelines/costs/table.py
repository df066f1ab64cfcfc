"""A plan's costs as people and as machines read them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pipelines.costs.amounts import Project
from pipelines.costs.costing import Cost, Part, summed
from pipelines.costs.rates import COUNTED, NEVER, Tables

MARKED = 0.05  # the share of a number from which on it is marked
SHOWN = 8  # rates that were never measured, those first that most money rests on
_REQUESTS, _MOVED = ("GETs", "PUTs", "LISTs"), ("TB read", "TB written", "TB downloaded")
_COLUMNS = (("core-hours", ("core-hours",)), ("GPU-hours", ("GPU-hours",)), ("requests", _REQUESTS),
            ("TB moved", _MOVED), ("TB stored", ("TB written",)))  # fmt: skip


def lines_of(project: Project, costs: Sequence[Cost], tables: Tables) -> Iterator[str]:
    """Yield the lines of a terminal: datasets, steps, totals, what dominates, and what was never measured."""
    currency = tables.prices.currency
    yield f"{'dataset':<22}{'rows':>9}{'kept':>9}  rows are those of"
    for source in project.sources:
        yield f"{source.name:<22}{short(source.rows):>9}{short(source.kept):>9}  {source.told}"
    yield ""
    yield f"{'step':<32}{'rows':>9}" + "".join(f"{name:>12}" for name, _ in _COLUMNS) + f"{currency:>12}"
    for step, of_step in by_step(costs).items():
        yield _line(step, sum(cost.work.amounts.get("row", 0.0) for cost in of_step), of_step)
    yield _line("all", None, costs)
    yield ""
    yield from _dominating(costs, currency)
    yield from _unmeasured(costs, currency)
    assumed = ", ".join(
        f"{name} {rate.value:,g}" for name, rate in tables.rates.assumed.items() if rate.measured == NEVER
    )
    yield f"Assumed of datasets that nobody described: {assumed}"
    yield (
        f"Prices: {tables.prices.as_of}, {tables.gpu} by the hour, storage for {tables.prices.months:g} months; "
        "nobody's quotation. Put in your own: --prices FILE"
    )


def by_step(costs: Sequence[Cost]) -> dict[str, list[Cost]]:
    """Return the costs by step; stages stand for themselves."""
    found: dict[str, list[Cost]] = {}
    for cost in costs:
        stage = f", {cost.work.what}" if cost.work.what.startswith("stage ") else ""
        found.setdefault(f"{cost.work.step}{stage}", []).append(cost)
    return found


def _line(name: str, rows: float | None, costs: Sequence[Cost]) -> str:
    parts = [part for cost in costs for part in cost.parts]
    cells = [_cell([(p.number, p) for p in parts if p.resource in resources]) for _, resources in _COLUMNS]
    cells.append(_cell([(part.paid, part) for part in parts]))
    return f"{name:<32}{short(rows) if rows else '':>9}" + "".join(f"{cell:>12}" for cell in cells)


def _cell(numbers: Sequence[tuple[float, Part]]) -> str:
    """A sum, marked where more than MARKED of it is shaky, or any of it stretched."""
    total, shaky = sum(number for number, _ in numbers), sum(number for number, part in numbers if part.shaky)
    stretched = any(part.stretched for number, part in numbers if number)
    return short(total) + (" *" if shaky > MARKED * total or stretched else "  ")


def short(number: float) -> str:
    """A number in three digits: 1.42 B, 850, 0.0123."""
    for size, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if 0.9995 * size <= number < 999.5 * size:
            return f"{number / size:#.3g}".rstrip(".") + letter
    return "0" if number == 0 else f"{number:.3g}"


def _dominating(costs: Sequence[Cost], currency: str) -> Iterator[str]:
    total = summed(costs)
    for name, unit in (("paid", currency), ("core-hours", "core-hours"), ("GPU-hours", "GPU-hours")):
        steps = {step: summed(of_step)[name] for step, of_step in by_step(costs).items()}
        most = max(steps, key=lambda step: steps[step], default="")
        if most and total[name]:
            yield f"Most {unit}: {most}, {steps[most] / total[name]:.0%} of {short(total[name])}"


def _unmeasured(costs: Sequence[Cost], currency: str) -> Iterator[str]:
    """What is marked: what is used for more than it was measured for, then that on which most money rests."""
    paid: dict[str, float] = {}
    shaky = [part for cost in costs for part in cost.parts if part.shaky]
    for part in shaky:
        paid[part.shaky] = paid.get(part.shaky, 0.0) + part.paid
    if not paid:
        return
    yield (
        f"* more than {MARKED:.0%} of it rests on rates that were never measured, or not at this size. Of all, "
        f"{short(sum(paid.values()))} of {short(summed(costs)['paid'])} {currency} do:"
    )
    stretched = {part.shaky for part in shaky if part.stretched}
    ranked = sorted(paid, key=lambda told: (told not in stretched, -paid[told], told))
    for told in ranked[:SHOWN]:
        yield f"{short(paid[told]):>10} {currency}  {told}"
    if len(ranked) > SHOWN:
        yield f"{'':>10}    and {len(ranked) - SHOWN} more: --json has them all"


def record_of(project: Project, costs: Sequence[Cost], tables: Tables) -> dict:
    """Return all of it for machines: datasets, every step with its amounts and the parts that it is made of, totals."""
    steps = [
        {"step": cost.work.step, "of": cost.work.what, "amounts": dict(cost.work.amounts), "paid": cost.paid,
         **{name: cost.number(name) for name in COUNTED}, "parts": [asdict(part) for part in cost.parts]}
        for cost in costs
    ]  # fmt: skip
    sources = [
        {"name": s.name, "rows": s.rows, "kept": s.kept, "image bytes": s.image_bytes, "rows are those of": s.told}
        for s in project.sources
    ]
    assumed = {name: rate.model_dump() for name, rate in tables.rates.assumed.items()}
    prices = tables.prices.model_dump(by_alias=True)
    return {"datasets": sources, "steps": steps, "total": summed(costs), "gpu": tables.gpu, "prices": prices,
            "assumed": assumed}  # fmt: skip
