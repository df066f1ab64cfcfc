"""What the learning proof loses or gains when one thing is changed: the paper's ablations, and three deliberate bugs.

Reads the folder that `make learn` left; every variant trains again from its data, or from its stage 1, and is asked the
same held-out questions. The table is printed, and joins the proof's report.

example:
  make learn && python -m benchmarks.learning --learn learn
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.learn import asking, packing, runs, side_by_side, training  # noqa: E402
from pipelines.proof import report as learn_report  # noqa: E402
from pipelines.proof.forms import FORMS, Form  # noqa: E402
from pipelines.proof.report import VARIANTS_FILE  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A changed chain of stages 1 and 2. `steps`: of stage 1 (0: the proof's own is taken) and of stage 2.

    patch: of benchmarks.learning_patches, in place for the parts in `patched`.
    """

    what: str
    steps: tuple[int, int]
    flags: str = ""
    queries: int | None = None
    patch: str | None = None
    patched: tuple[str, ...] = ("train", "ask")


SHORT, FRESH = (0, 1000), (600, 1000)
FULL = FORMS["cpu"].stages[2].steps
VARIANTS = {
    "bug-swapped": Variant(what="bug: boxes x/y swapped", steps=(0, FULL), patch="boxes_swapped", patched=("pack",)),
    "bug-mask": Variant(what="bug: loss mask off by one", steps=(0, FULL), patch="mask_off_by_one"),
    "bug-positions": Variant(
        what="bug: no adapter positions", steps=(FORMS["cpu"].stages[1].steps, FULL), patch="no_positions"
    ),
    "causal": Variant(what="stage 2 as in the paper: causal packs, all trained", steps=SHORT),
    "isolated": Variant(what="isolated packs", steps=SHORT, flags="--attention isolated"),
    "frozen-vision": Variant(what="ViT frozen in stage 2", steps=SHORT, flags="--trains adapter language"),
    "frozen-language": Variant(what="LLM frozen in stage 2", steps=SHORT, flags="--trains vision adapter"),
    "queries-16": Variant(what="16 queries, global attention", steps=FRESH),
    "queries-4": Variant(what="4 queries", steps=FRESH, queries=4),
    "queries-36": Variant(what="36 queries", steps=FRESH, queries=36),
    "windows": Variant(what="window attention, 4 x 4 patches", steps=FRESH, patch="windows"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn", type=Path, default=Path("learn"), metavar="DIR", help="where `make learn` wrote")
    parser.add_argument("--only", nargs="+", action="extend", choices=VARIANTS, help="default: all")
    args = parser.parse_args()
    form, out = FORMS["cpu"], args.learn
    side_by_side([list(commands(form, out, name)) for name in args.only or VARIANTS], out, form.chains)
    table = collect(out, args.only or VARIANTS)
    (out / VARIANTS_FILE).write_text(json.dumps(table, indent=1))
    learn_report.write_report(out, runs(form), [f"learned/run{number}" for number in form.stages])
    _print(table)


def commands(form: Form, out: Path, name: str) -> Iterator[str]:
    """The steps of one variant, in order."""
    variant, here = VARIANTS[name], out / "variants" / name
    form = _changed(form, variant)
    start = f"--init {out}/learned/run1"
    for number in (1, 2):
        if not form.stages[number].steps:
            continue
        stage = out / "learned" / f"stage{number}"
        if variant.queries or "pack" in variant.patched and variant.patch:
            stage = here / f"stage{number}"
            yield _patched(packing(form, out, number, f"{out}/learned/train", str(stage)), variant, "pack")
        if number == 1:
            start = f"--size {form.size} --queries {form.queries}"
        tail = variant.flags if number == 2 else ""
        run = f"{here}/run{number}"
        yield _patched(f"{training(form, number, str(stage), start, run)} {tail}", variant, "train")
        start = f"--init {run}"
    yield _patched(asking(form, out, here / "run2"), variant, "ask")


def _changed(form: Form, variant: Variant) -> Form:
    """The form with the variant's steps and queries; the batch, and with it the mixture, stays."""
    stages = {n: replace(form.stages[n], steps=variant.steps[n - 1]) for n in (1, 2)}
    return replace(form, stages=stages, queries=variant.queries or form.queries)


def _patched(command: str, variant: Variant, part: str) -> str:
    if variant.patch is None or part not in variant.patched:
        return command
    module = command.replace("pipelines/build_stage.py", "-m pipelines.build_stage")
    return module.replace("python -m", f"python -m benchmarks.learning_patches {variant.patch}", 1)


def collect(out: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """The scores of the proof's stage 2 and of each variant, by task."""
    folders = {"the proof, stage 2": out / "learned/run2"}
    for name in names:
        folders[f"{VARIANTS[name].what} ({VARIANTS[name].steps[1]} steps)"] = out / "variants" / name / "run2"
    found = {what: json.loads((at / "scores/scores.json").read_text())["results"] for what, at in folders.items()}
    return {what: {task: row["score"] for task, row in results.items() if task != "chat"}
            for what, results in found.items()}  # fmt: skip


def _print(table: dict[str, dict[str, float]]) -> None:
    """A Markdown table: a line per variant, a column per task."""
    tasks = list(next(iter(table.values())))
    print("| variant |", " | ".join(tasks), "|\n|---|" + "---|" * len(tasks))
    for what, scores in table.items():
        print(f"| {what} |", " | ".join(f"{scores[task]:.1f}" for task in tasks), "|")


if __name__ == "__main__":
    main()
