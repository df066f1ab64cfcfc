"""What a run shows on the way, of data that it does not train on: loss, scores, and answers with their boxes drawn.

Nothing of it changes what is trained: the random state is set anew in every step.
"""

import glob
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.distributed.fsdp import FSDPModule

from corpus.packs import StageFolder, WrongCorpus
from corpus.parsing import parse_text
from corpus.records import TASKS, decode_image
from trainer.attention import to_device
from trainer.data import PackBatches, Plan
from trainer.loop import Run, per_pack


@dataclass(frozen=True, kw_only=True)
class Watch:
    """every: steps between looks. data: a stage folder whose first `packs` are held out; shards: globs of cleaned
    shards, of which `questions` are asked and `shown` drawn."""

    every: int = 500
    data: str | None = None
    packs: int = 64
    shards: tuple[str, ...] = ()
    questions: int = 64
    shown: int = 8


@dataclass
class Watcher:
    """Looks at a run. `pictures` of the last look: (task, question's key, picture as an array, text)."""

    run: Run
    watch: Watch
    folder: StageFolder | None
    questions: list
    assistant: object
    pictures: list[tuple] = field(default_factory=list)

    def look(self, step: int) -> dict:
        """Metrics of what is due after `step` steps: "held_out" (nats per token, by task and in all), "scores"."""
        if step % self.watch.every and step != self.run.settings.steps:
            return {}
        with _whole(self.run.model):
            found = {"held_out": held_out_loss(self.run, self.folder, self.watch.packs)} if self.folder else {}
            return found | ({"scores": self._ask()} if self.questions else {})

    def _ask(self) -> dict:
        from trainer.evaluate import ModelPredictor
        from trainer.evaluation.predictions import answers
        from trainer.evaluation.scores import score_all

        predictor = ModelPredictor(self.assistant, 64)
        found = {record["key"]: record for q in self.questions for record in answers([q], predictor, None)}
        usable = [question for question in self.questions if "error" not in found[question.key]]
        every = max(1, len(usable) // self.watch.shown)
        self.pictures = [_picture(q, found[q.key]["answer"]) for q in usable[::every][: self.watch.shown]]
        return {task: row["score"] for task, row in score_all(usable, found)["results"].items()}


def open_watcher(run: Run, watch: Watch | None, folder: StageFolder, stage: int) -> Watcher | None:
    """Read what is to be watched. Raises ValueError for held-out packs of another tokenizer or number of queries."""
    if watch is None:
        return None
    from trainer.assistant import Assistant

    held_out = StageFolder(watch.data) if watch.data else None
    if held_out:
        held_out.require(queries=folder.queries)
        if held_out.tokenizer_fingerprint != folder.tokenizer_fingerprint:
            raise WrongCorpus(f"{held_out.path} was made with another tokenizer than {folder.path}: build it again")
    assistant = Assistant(run.model, folder.tokenizer(), run.settings.image_size, stage)
    return Watcher(run, watch, held_out, _questions(watch), assistant)


def _questions(watch: Watch) -> list:
    """So many questions, evenly spread over all that there are."""
    from trainer.evaluation.questions import load_shards

    if nothing := [pattern for pattern in watch.shards if not glob.glob(pattern)]:
        raise ValueError(f"--watch-shards {' '.join(nothing)}: no such files")
    found = load_shards(sorted({path for pattern in watch.shards for path in glob.glob(pattern)}))
    return found[:: max(1, len(found) // watch.questions)][: watch.questions]


@contextmanager
def _whole(model):
    """The model as it is used rather than trained: no dropout, and its sharded weights whole on every rank."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model.eval()
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
        model.train()


@torch.no_grad()
def held_out_loss(run: Run, folder: StageFolder, packs: int) -> dict[str, float]:
    """Mean cross-entropy per supervised token over a folder's first packs, dealt to the ranks: "all", and by task."""
    s, world = run.settings, run.world
    dataset = PackBatches(
        folder, seed=0, image_size=s.image_size, attention=s.attention, image_token=run.model.config.image_token
    )
    plan = Plan(min(packs, len(folder)), run.plan.micro_packs, world.dp_rank, world.dp_size)
    sums = torch.zeros(2, len(TASKS), dtype=torch.float64, device=world.device)
    for positions in plan.step(0):
        batch = dataset[positions]
        inputs = to_device(batch, world.device)
        _, each = run.model(inputs)
        for row, loss in zip(batch["rows"], per_pack(each, inputs["owners"], len(batch["rows"])), strict=True):
            sums[:, TASKS.index(row["task"])] += torch.stack([loss, torch.full_like(loss, row["supervised"])])
    losses, counts = world.sum(sums).tolist()
    found = {task: loss / count for task, loss, count in zip(TASKS, losses, counts, strict=True) if count}
    return {"all": sum(losses) / max(sum(counts), 1)} | found


def _picture(question, answer: str) -> tuple:
    """A question's last picture with the answer's regions drawn, and what was asked, answered and wanted."""
    import numpy as np

    from trainer.draw import draw_regions
    from trainer.evaluation.predictions import images_of

    images, _ = images_of(question, None)
    drawn = np.asarray(draw_regions(decode_image(images[-1]), parse_text(answer))) if images else None
    text = f"{question.text}\n\nanswered: {answer}\n\nwanted: {question.references}"
    return question.task, question.key, drawn, text
