"""A run of a recipe: what is not done is done, a command per step; started again, it goes on from there."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

import yaml

from corpus.catalog import Dataset
from pipelines.doctor import sentence
from pipelines.engine import quarantine
from pipelines.recipe import page, state
from pipelines.recipe.jobs import ROOT, words_of
from pipelines.recipe.plan import Plan
from pipelines.recipe.state import Record, Task
from pipelines.recipe.steps import CATALOG, Step

NO_WORKERS = ("make_demo_crawl", "trainer", "train")  # those whose --workers means another thing, or that have none
AT_ONCE = 8  # steps, on a cluster; on one machine each has it to itself


class StepFailed(Exception):
    """A step that did not end well."""


def run(plan: Plan, ray: str | None = None, workers: int | None = None) -> None:
    """Do what is to be done; `workers` is the jobs' own flag.

    Raises StepFailed; state.Busy where another run has the root.
    """
    began = time.monotonic()
    with plan.state.lock() as lock:
        _prepare(plan)
        _Run(plan, lock, ray, workers).steps()
        where = page.write(plan.state.root)
    print(f"\nDone in {time.monotonic() - began:.0f} s. Look at {where}")
    for lack in plan.lacks:
        print(sentence(lack))


def _prepare(plan: Plan) -> None:
    """Write what the steps read, and move away what the recipe no longer has."""
    reading, root = plan.reading, plan.state.root
    if reading.catalog != reading.base:
        state.write_whole(root / CATALOG, _catalog_text(reading.catalog))
    steps = [{"name": task.step.name, "title": task.step.title, "dataset": task.step.dataset, "mark": task.step.mark,
              "key": task.keys[1], "needs": task.step.needs} for task in plan.tasks]  # fmt: skip
    told = {"recipe": str(reading.document.path), "steps": steps}
    state.write_whole(root / state.PLAN, json.dumps(told, indent=1))
    for name in plan.gone:
        plan.state.put_aside(name)


def _catalog_text(catalog: dict[str, Dataset]) -> str:
    entries = {name: _entry(dataset) for name, dataset in catalog.items()}
    plugins = next((list(dataset.plugins) for dataset in catalog.values() if dataset.plugins), None)
    own = {code: spoken.entry() for dataset in catalog.values() for code, spoken in dataset.languages.items()}
    whole = ({"plugins": plugins} if plugins else {}) | ({"languages": own} if own else {})
    text = yaml.safe_dump(entries | whole, sort_keys=False, allow_unicode=True)
    return f"# Written by gristmill from a recipe: the catalog with the recipe's datasets laid over it.\n{text}"


def _entry(dataset: Dataset) -> dict:
    told = json.loads(json.dumps({key: value for key, value in asdict(dataset).items() if value not in (None, {}, ())}))
    told |= {"stages": {stage: dict(weights) for stage, weights in dataset.stages.items()}} if dataset.stages else {}
    return {key: value for key, value in told.items() if key not in ("name", "plugins", "languages")}


class _Run:
    def __init__(self, plan: Plan, lock: int, ray: str | None, workers: int | None):
        self.plan, self.lock, self.workers = plan, lock, workers
        self.ray = ray or os.environ.get("RAY_ADDRESS")
        self.at_once = AT_ONCE if self.ray else 1
        self.running: set[subprocess.Popen] = set()

    def steps(self) -> None:
        """Run every step once those that it needs are done; where one fails, the others are stopped."""
        waiting, finished = list(self.plan.tasks), set[str]()
        futures: dict[Future, str] = {}
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on from there"))
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                while waiting or futures:
                    ready = [task for task in waiting if finished.issuperset(task.step.needs)]
                    for task in ready[: self.at_once - len(futures)]:
                        waiting.remove(task)
                        futures[pool.submit(self._one, task)] = task.step.name
                    finished.update(_ended(futures))
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        for process in list(self.running):
            process.terminate()

    def _one(self, task: Task) -> None:
        step, here = task.step, self.plan.state
        print(f"\n\033[1m{step.title}\033[0m\n$ {shown(words := self._words(step))}", flush=True)
        todo = task.todo
        if todo == state.BACK:
            here.bring_back(step.name, task.keys[1])
            todo = next(here.tasks([step], {step.name: task.keys})).todo
        if todo == state.DONE:
            print("there already", flush=True)
            return
        if todo == state.AGAIN:
            here.put_aside(step.name)
        began = time.monotonic()
        record = Record(step.name, *task.keys, "begun", step.made_of, pid=os.getpid())
        here.write(record)
        status = self._call(step, words)
        record.state, record.seconds = "failed" if status else "done", round(time.monotonic() - began, 1)
        here.write(record)
        if status:
            log = f"; its output is in {self._log(step)}" if self.ray else ""
            how = "left splits in quarantine" if status == quarantine.STATUS else f"failed with status {status}"
            raise StepFailed(f"{step.name} {how}{log}; mended, the same command goes on from here")

    def _words(self, step: Step) -> list[str]:
        own = self.workers is None or step.job in NO_WORKERS or "--workers" in step.words
        return step.words if own else [*step.words, "--workers", str(self.workers)]

    def _call(self, step: Step, words: list[str]) -> int:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path} | ({"RAY_ADDRESS": self.ray} if self.ray else {})
        words = [sys.executable, *words_of(step.job), *words[1:]]
        if not self.ray:
            return self._wait(subprocess.Popen(words, env=environment, pass_fds=[self.lock]))
        log = self._log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(
                words, env=environment, pass_fds=[self.lock], stdout=out, stderr=subprocess.STDOUT
            )
            status = self._wait(process)
        print(f"{'failed' if status else 'done'}: {step.name} ({log})", flush=True)
        return status

    def _wait(self, process: subprocess.Popen) -> int:
        self.running.add(process)
        status = process.wait()
        self.running.discard(process)
        return status

    def _log(self, step: Step) -> Path:
        return self.plan.state.root / "logs" / f"{step.name.replace('/', '--')}.log"


def _ended(futures: dict[Future, str]) -> Sequence[str]:
    """Wait for a step to end; return the names of those that have. Raises what they raised."""
    done, _ = wait(futures, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return [futures.pop(future) for future in done]


def shown(words: list[str]) -> str:
    """A step's job and its flags as one would type them where one is."""
    job, *rest = words
    if Path.cwd() != ROOT:
        return shlex.join(["gristmill", job, *rest])
    command = [os.path.relpath(word, ROOT) if word.startswith("/") else word for word in words_of(job) if word != "-P"]
    return shlex.join(["python", *command, *rest])
