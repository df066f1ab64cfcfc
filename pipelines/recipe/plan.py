"""From a recipe to what would be done: read, checked, compared with what its root holds, and printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.doctor import Lack
from pipelines.recipe import checks, state
from pipelines.recipe.read import Reading, WrongRecipe, read
from pipelines.recipe.state import State, Task
from pipelines.recipe.steps import keys_of, steps_of


@dataclass
class Plan:
    """What would be done for a recipe. `gone`: steps that the recipe no longer has; `raw`: bytes of raw data."""

    reading: Reading
    state: State
    tasks: list[Task]
    gone: list[str]
    left_out: list[str]
    lacks: list[Lack]
    raw: int

    @property
    def root(self) -> str:
        assert self.reading.recipe is not None
        return self.reading.recipe.output.rstrip("/")


def make_plan(path: str | Path, changes: Sequence[str] = ()) -> Plan:
    """Read and check a recipe. Raises WrongRecipe with all that is wrong, before anything is written."""
    reading = read(path, changes)
    if reading.recipe is None:
        raise WrongRecipe(reading.problems)
    here = State(reading.recipe.output)
    missing, optional = checks.lacking(reading)
    left_out = _left_out(reading, here, optional)
    steps = steps_of(reading, left_out)
    raw = checks.check(reading, steps, missing, {each.name for each in here.records() if each.state == "done"})
    reading.refuse()
    tasks = list(here.tasks(steps, keys_of(steps)))
    return Plan(reading, here, tasks, here.gone(steps), left_out, missing, raw)


def _left_out(reading: Reading, here: State, lacking: Sequence[str]) -> list[str]:
    """Optional datasets to do without. What was packed stays what it was, so that a run goes on from there."""
    assert reading.recipe is not None
    packed = any(record.name.startswith("stage") for record in here.records())
    optional = [name for name, part in reading.recipe.datasets.items() if part.optional]
    return [name for name in optional if (here.record(f"cleaned/{name}") is None if packed else name in lacking)]


def print_plan(plan: Plan) -> None:
    """Print a line for each step: what would be done, and why."""
    print(f"{plan.reading.document.path} -> {plan.root}\n")
    for task in plan.tasks:
        why = task.why or (task.step.title if task.todo == state.NEW else "")
        print(f"{state.SIGNS[task.todo]:>4} {task.step.name:<34} {task.todo:<6} {why}".rstrip())
    for name in plan.gone:
        print(f"{state.SIGNS[state.GONE]:>4} {name:<34} {state.GONE:<6} no longer in the recipe; moved to superseded/")
    for name in plan.left_out:
        print(f"     {name:<34} left out: this machine lacks what it needs, or did when the rest was packed")
    for note in plan.reading.notes:
        print(f"     {note}")
    done = sum(task.todo == state.DONE for task in plan.tasks)
    print(f"\n{len(plan.tasks)} steps: {done} done, {len(plan.tasks) - done} to do; {_size(plan.raw)} of raw data")
    if any(task.todo == state.AGAIN for task in plan.tasks):
        print(f"-/+ what is there was made with other settings: it is moved to {plan.root}/{state.SUPERSEDED}/ first")


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
