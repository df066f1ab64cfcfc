"""The learning proof's form for a GPU (pipelines/learn.py): its pictures are drawn and packed beforehand."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.day import Day
from pipelines import learn
from pipelines.proof.forms import FORMS, Form
from pipelines.proof.report import write_report


def form_of(pictures: int, tiny: bool) -> Form:
    """The form `gpu` with so many pictures of each task, and as many samples and questions less; tiny: `short`, cut."""
    if tiny:
        short = FORMS["short"]
        first = replace(short.stages[1], samples=64, steps=4, batch=8, warmup=1)
        return replace(short, pictures={"caption": 64}, questions=8, stages={1: first})
    full = FORMS["gpu"]
    share = pictures / max(full.pictures.values())
    stages = {n: replace(stage, samples=round(stage.samples * share)) for n, stage in full.stages.items()}
    return replace(full, pictures=dict.fromkeys(full.pictures, pictures), stages=stages,
                   questions=min(full.questions, max(50, pictures // 20)))  # fmt: skip


def prepare(out: Path, pictures: int, tiny: bool) -> None:
    """Draw, make the tokenizer, and pack every stage of both chains. The drawn training pictures are then removed."""
    form = form_of(pictures, tiny)
    learn.side_by_side([[step] for step in learn.drawings(form, out)], out, 2)
    learn.side_by_side([[learn.tokenizer(form, out)]], out, 1)
    learn.side_by_side([packings(form, out, name) for name in learn.CHAINS], out, 2)
    for name in learn.CHAINS:
        shutil.rmtree(out / name / "train")
    (out / "form.json").write_text(json.dumps({"pictures": pictures, "tiny": tiny}))


def packings(form: Form, out: Path, name: str) -> list[str]:
    here = f"{out}/{name}"
    return [learn.packing(form, out, number, f"{here}/train", f"{here}/stage{number}") for number in form.stages]


def train_and_ask(day: Day) -> dict:
    """Train both chains and ask all models. Stopped and started again, it goes on where it was."""
    asked = json.loads((day.prepared / "learn/form.json").read_text())
    form, out = form_of(**asked), day.scratch("learn")
    shutil.copytree(day.prepared / "learn", out, dirs_exist_ok=True)
    learn.side_by_side([list(trainings(form, out, name)) for name in learn.CHAINS], out, 2)
    asking = [[learn.asking(form, out, out / folder)] for folder in learn.runs(form).values()]
    learn.side_by_side(asking, out, 2)
    proven = write_report(out, learn.runs(form), [f"learned/run{number}" for number in form.stages])
    scores = json.loads((out / "scores.json").read_text())["runs"]
    found = {name: {task: row["score"] for task, row in tasks.items()} for name, tasks in scores.items()}
    return {**asked, "scores": found, "checks": {} if day.tiny else {"beats both baselines": proven}}


def trainings(form: Form, out: Path, name: str) -> Iterator[str]:
    return (command for command in learn.chain(form, out, name) if command.startswith("python -m trainer"))
