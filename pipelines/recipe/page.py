"""What became of a recipe: a table of its steps, and one page with the funnel from raw rows to packs to loss."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from pipelines.recipe import state
from pipelines.recipe.state import State, write_whole
from trainer.progress import read_metrics

PAGE = "report.html"
_CURVE = (300, 90)  # pixels


@dataclass
class Line:
    """A step as a person wants to see it. `rows` in and `kept` of a job; `facts` of packs and of a training."""

    name: str
    title: str
    state: str
    seconds: float = 0.0
    dataset: str = ""
    report: str | None = None
    rows: int | None = None
    kept: int | None = None
    funnel: list[tuple[str, int]] = field(default_factory=list)
    packs: dict = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    @property
    def curve(self) -> str:
        """The losses as points of an SVG polyline, at most one or two a pixel."""
        wide, tall = _CURVE
        shown = self.losses[:: max(1, len(self.losses) // wide)]
        low, high = min(shown), max(shown)
        return " ".join(
            f"{i * wide / max(1, len(shown) - 1):.1f},{tall * (high - loss) / (high - low or 1):.1f}"
            for i, loss in enumerate(shown)
        )


def lines(root: str | Path) -> Iterator[Line]:
    """Yield the steps of the newest run in a root, in order. FileNotFoundError where none was."""
    here = State(root)
    plan = json.loads((here.root / state.PLAN).read_text(encoding="utf-8"))
    for step in plan["steps"]:
        record = here.record(step["name"])
        current = record is not None and record.key == step["key"]
        line = Line(
            step["name"], step["title"], record.state if record and current else "waits", dataset=step["dataset"]
        )
        if record and current:
            line.seconds = record.seconds
            _look(here.root, line)
        yield line


def _look(root: Path, line: Line) -> None:
    """Fill in what a step's folder tells."""
    folder = root / line.name
    line.report = f"{line.name}/report.html" if (folder / "report.html").exists() else None
    counted = _json(folder / "report.json").get("counts")
    if counted:
        lost = {**counted["dropped"], **{f"error: {kind}": number for kind, number in counted["errors"].items()}}
        line.rows = counted["kept"] + sum(lost.values())
        line.kept, line.funnel = counted["kept"], sorted(lost.items(), key=lambda each: -each[1])
    line.packs = _json(folder / "corpus.json")
    line.losses = [record["loss"] for record in read_metrics(folder)]


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def write(root: str | Path) -> Path:
    """Write the one page that links every report; return where it is."""
    found = list(lines(root))
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("page.html.jinja")
    steps = [line for line in found if line.rows is not None and not line.packs]
    page = template.render(
        root=str(root), lines=found, cleaned=steps, packed=[line for line in found if line.packs],
        trained=[line for line in found if line.losses], size=_CURVE,
        most=max([line.rows or 0 for line in steps] or [1]),
    )  # fmt: skip
    write_whole(Path(root) / PAGE, page)
    return Path(root) / PAGE


def print_status(root: str | Path) -> None:
    """Print a line for each step: done, begun, failed or waiting, and what came of it."""
    found = list(lines(root))
    for line in found:
        print(f"{line.state:<7} {line.name:<34} {_facts(line)}".rstrip())
    done = sum(line.state == "done" for line in found)
    print(f"\n{done} of {len(found)} steps done" + (f"; {Path(root) / PAGE}" if (Path(root) / PAGE).exists() else ""))


def _facts(line: Line) -> str:
    if line.packs:
        return f"{line.packs['samples']:,} samples in {line.packs['packs']:,} packs"
    if line.losses:
        return f"loss {line.losses[0]:.3f} -> {line.losses[-1]:.3f} in {len(line.losses):,} steps"
    return f"{line.kept:,} of {line.rows:,} rows kept" if line.rows is not None else ""
