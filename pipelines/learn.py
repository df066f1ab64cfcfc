#!/usr/bin/env python
"""The learning proof: a model that learned to name, to point and to read from nothing but this project's jobs.

Scenes whose content is known are drawn and packed, three stages train on them from random weights, and held-out scenes
are asked after each. Beside it runs the same chain on shuffled labels, where every picture has the labels of another.
Two chains run side by side. Every step is a command that can be run by itself; started again, finished steps are
skipped. The end is OUTPUT/report.html, and status 1 where a task does not beat both baselines.

example:
  python pipelines/learn.py --form short --output learn-short
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines.proof.forms import FORMS, Form
from pipelines.proof.report import write_report

ROOT = Path(__file__).resolve().parent.parent
CHAINS = ("learned", "shuffled")


def main() -> None:
    args = make_parser().parse_args()
    out = args.output if Path.cwd() == ROOT else args.output.resolve()  # the steps run in the checkout
    sys.exit(0 if learn(FORMS[args.form], out) else 1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=sorted(FORMS), default="cpu", help="how much is learned; default: cpu")
    parser.add_argument("--output", type=Path, default=Path("learn"), metavar="DIR", help="default: learn")
    return parser


def learn(form: Form, out: Path) -> bool:
    """Run every step of a form into `out`. Return whether each task beats both baselines."""
    began = time.monotonic()
    side_by_side([[step] for step in drawings(form, out)], out, form.chains)
    side_by_side([[tokenizer(form, out)]], out, 1)
    side_by_side([list(chain(form, out, name)) for name in CHAINS], out, form.chains)
    side_by_side([[asking(form, out, out / folder)] for folder in runs(form).values()], out, form.chains)
    proven = write_report(out, runs(form), [f"learned/run{number}" for number in form.stages])
    print(f"\nDone in {time.monotonic() - began:.0f} s. Look at {out}/report.html")
    return proven


def drawings(form: Form, out: Path) -> Iterator[str]:
    """The jobs that draw training pictures, those with shuffled labels, and held-out ones."""
    scenes = f"python pipelines/make_scenes.py --level {form.level} --workers 0"
    for task, count in form.pictures.items():
        name = f"scenes-{task.replace('_', '-')}"
        for labels, flag in zip(CHAINS, ("", " --shuffled"), strict=True):
            yield f"{scenes} --dataset {name} --count {count} --output {out}/{labels}/train/{name}{flag}"
        asked = form.questions * (2 if task == "chat" else 1)  # half of the dialogues ask for boxes
        yield f"{scenes} --dataset {name} --count {asked} --part val --output {out}/val/{name}"


def tokenizer(form: Form, out: Path) -> str:
    shards = f"--shards '{out}/learned/train/*/*.tar'"
    return f"python pipelines/train_tokenizer.py {shards} --rows {form.rows} --output {out}/words.tiktoken"


def chain(form: Form, out: Path, name: str) -> Iterator[str]:
    """Pack and train the stages in a row, on true or on shuffled labels."""
    here = f"{out}/{name}"
    for number in form.stages:
        yield packing(form, out, number, f"{here}/train", f"{here}/stage{number}")
        start = f"--init {here}/run{number - 1}" if number > 1 else f"--size {form.size} --queries {form.queries}"
        yield training(form, number, f"{here}/stage{number}", start, f"{here}/run{number}")
        if number == 1 and name == "learned":
            untrained = "--steps 2 --warmup 1 --peak-lr 0 --min-lr 0 --batch 8 --resume auto"
            yield f"python -m trainer --stage 1 --data {here}/stage1 {start} --output {out}/untrained/run {untrained}"


def packing(form: Form, out: Path, number: int, data: str, to: str) -> str:
    stage = form.stages[number]
    return (
        f"python pipelines/build_stage.py --stage {number} --catalog pipelines/scenes.yaml --data {data} "
        f"--samples {stage.samples} --queries {form.queries} --max-tokens {form.max_tokens} "
        f"--tokenizer {out}/words.tiktoken --workers 0 --output {to}"
    )


def training(form: Form, number: int, data: str, start: str, to: str) -> str:
    stage = form.stages[number]
    return (
        f"python -m trainer --stage {number} --data {data} {start} --output {to} --steps {stage.steps} "
        f"--batch {stage.batch} --micro-packs {form.micro_packs} --peak-lr {stage.peak_lr} "
        f"--min-lr {stage.peak_lr / 20:g} --warmup {stage.warmup} --eps 1e-8 --seed {number} --resume auto"
        + (f" {stage.flags}" if stage.flags else "")
    )


def runs(form: Form) -> dict[str, str]:
    """The models that are asked, by what the report calls them: folders inside the output. Baselines come first."""
    shuffled = {f"shuffled labels, stage {number}": f"shuffled/run{number}" for number in list(form.stages)[-2:]}
    return {"untrained": "untrained/run"} | shuffled | {f"stage {n}": f"learned/run{n}" for n in form.stages}


def asking(form: Form, out: Path, run: Path) -> str:
    return (
        f"python -m trainer.evaluate --model {run} --shards '{out}/val/*/*.tar' "
        f"--output {run}/scores --max-tokens {form.answer_tokens} --batch 64"
    )


class StepFailed(Exception):
    """A command that did not end well; the message holds the end of its output."""


def side_by_side(lanes: Sequence[list[str]], out: Path, at_once: int) -> None:
    """Run lanes of commands, `at_once` of them at a time with their share of the cores each.

    Where one fails, the others are stopped and the program ends; started again, it goes on from there.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    threads, running = max(1, (os.cpu_count() or 1) // at_once), set()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for lane in as_completed([pool.submit(_run_lane, lane, out, threads, running) for lane in lanes]):
                lane.result()
        except (StepFailed, KeyboardInterrupt) as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            sys.exit(str(error) or "stopped; the same command goes on from there")


def _run_lane(lane: list[str], out: Path, threads: int, running: set) -> None:
    for command in lane:
        words = [sys.executable if word == "python" else word for word in shlex.split(command)]
        began, log = time.monotonic(), out / "logs" / f"{_name(words, out)}.log"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment)
        running.add(process)
        status = process.wait()
        running.discard(process)
        if status:
            end = log.read_text(errors="replace")[-2000:]
            raise StepFailed(f"this step failed with status {status}:\n$ {command}\n{log} ends with:\n{end}")
        print(f"{time.monotonic() - began:5.0f} s  $ {command}", flush=True)


def _name(words: list[str], out: Path) -> str:
    return str(Path(words[words.index("--output") + 1]).relative_to(out)).replace("/", "-")


if __name__ == "__main__":
    main()
