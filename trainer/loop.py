"""The training loop: one for all stages, sizes and numbers of ranks."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from corpus.records import TASKS
from trainer.attention import to_device
from trainer.data import Plan
from trainer.flops import peak_flops, step_flops
from trainer.optim import gradient_norm, learning_rate, make_optimizer, scale_gradients, set_learning_rate
from trainer.parallel import World
from trainer.stages import Settings

_COUNTS = ("tokens", "supervised", "images", "samples", "pairs")


class NonFiniteLoss(RuntimeError):
    """A loss or gradient that is no number. The step it happened in has not changed the model."""


@dataclass
class Run:
    """A model and what is needed to take steps with it."""

    model: torch.nn.Module
    settings: Settings
    world: World
    plan: Plan
    optimizer: torch.optim.Optimizer = None
    trained: list = field(default_factory=list)

    def __post_init__(self):
        self.optimizer = make_optimizer(self.model, self.settings)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]


def train_step(run: Run, batches: Iterator[dict], step: int, stop: bool = False) -> dict:
    """Take step `step` (from 0): all its micro-batches, then one update. Return its metrics.

    `stop` is this rank's wish to end; the record's "stop" tells whether any rank has it.

    The loss is the sum of cross-entropies over the step's supervised tokens, of all ranks and micro-batches, divided by
    their number. Gradients are accumulated as sums and divided once, so nothing has to be counted in advance.
    Raises NonFiniteLoss, before the update, naming the packs.
    """
    began = time.perf_counter()
    torch.manual_seed(run.settings.seed * 1_000_003 + step)  # the random state is a function of the step
    rates = set_learning_rate(run.optimizer, learning_rate(step, run.settings))
    run.optimizer.zero_grad(set_to_none=True)
    rows, losses, wait, padded, replaced = _accumulate(run, batches)
    totals = _totals(run, rows, losses, padded, replaced, wait, stop)
    if not totals["finite"]:
        raise NonFiniteLoss(_blame(run, step, rows, losses))
    factor = 1 / max(totals["supervised"], 1)
    norm = gradient_norm(run.trained) * factor
    if not torch.isfinite(norm):
        raise NonFiniteLoss(_blame(run, step, rows, losses))
    clip = torch.clamp(run.settings.clip / (norm + 1e-6), max=1.0)
    scale_gradients(run.trained, clip * factor)
    run.optimizer.step()
    record = _record(run, step, totals, rates, norm.item(), time.perf_counter() - began)
    if totals["replaced"]:
        told = {entry["pack"]: entry for entries in run.world.gather(replaced) for entry in entries}
        record["replaced_packs"] = sorted(told.values(), key=lambda entry: entry["pack"])
    return record


def _accumulate(run: Run, batches: Iterator[dict]):
    """Forward and backward of a step's micro-batches; return rows, their summed losses, and what was counted."""
    rows, losses, replaced = [], [], []
    wait, padded = 0.0, 0
    for _ in range(run.plan.micro_batches):
        asked = time.perf_counter()
        batch = next(batches)
        wait += time.perf_counter() - asked
        sums = run.model(to_device(batch, run.world.device), run.settings.attention)
        sums.sum().backward()
        rows += batch["rows"]
        replaced += batch["replaced"]
        losses.append(sums.detach()[: len(batch["rows"])])
        padded += batch["padded"] if batch["rows"] else 0
    return rows, torch.cat(losses).double().cpu(), wait, padded, replaced


def _totals(run: Run, rows, losses, padded: int, replaced: list, wait: float, stop: bool) -> dict:
    """Sums over all ranks, in one reduction."""
    values = [sum(row[name] for row in rows) for name in _COUNTS] + [padded, len(replaced), wait, stop]
    for task in TASKS:
        of_task = [i for i, row in enumerate(rows) if row["task"] == task]
        values += [losses[of_task].sum().item(), sum(rows[i]["supervised"] for i in of_task)]
    total = run.world.sum(torch.tensor(values, dtype=torch.float64, device=run.world.device)).tolist()
    n = len(_COUNTS)
    totals = dict(zip((*_COUNTS, "padded", "replaced", "wait", "stop"), total[: n + 4], strict=True))
    pairs = list(zip(total[n + 4 :: 2], total[n + 5 :: 2], strict=True))
    totals["loss_sum"] = sum(loss for loss, _ in pairs)
    totals["tasks"] = {task: loss / count for task, (loss, count) in zip(TASKS, pairs, strict=True) if count}
    totals["finite"] = bool(torch.isfinite(torch.tensor(totals["loss_sum"])))
    return totals


def _blame(run: Run, step: int, rows, losses) -> str:
    bad = [row["key"] for row, loss in zip(rows, losses, strict=True) if not torch.isfinite(loss)]
    everywhere = [key for keys in run.world.gather(bad) for key in keys]
    if everywhere:
        packs = ", ".join(dict.fromkeys(everywhere))
        return f"step {step + 1}: the loss of pack {packs} is not finite; the model is as it was before this step"
    keys = [key for keys in run.world.gather([row["key"] for row in rows]) for key in keys]
    return (
        f"step {step + 1}: the gradient is not finite though every loss is; packs {', '.join(keys)}; the model is as "
        "it was before this step"
    )


def _record(run: Run, step: int, totals: dict, rates: dict, norm: float, seconds: float) -> dict:
    flops = step_flops(run.model.config, run.settings.image_size, totals, run.settings.trained_parts)
    device = run.world.device
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return {
        "step": step + 1,
        "loss": totals["loss_sum"] / max(totals["supervised"], 1),
        "loss_per_task": totals["tasks"],
        "lr": rates,
        "grad_norm": norm,
        "seconds": seconds,
        "samples": int(totals["samples"]),
        "tokens": int(totals["tokens"]),
        "supervised": int(totals["supervised"]),
        "images": int(totals["images"]),
        "tokens_per_second": totals["tokens"] / seconds,
        "images_per_second": totals["images"] / seconds,
        "samples_per_second": totals["samples"] / seconds,
        "padding": 1 - totals["tokens"] / max(totals["padded"], 1),
        "data_wait": totals["wait"] / run.world.dp_size / seconds,
        "replaced": int(totals["replaced"]),
        "stop": totals["stop"] > 0,
        "flops_per_second": flops / seconds,
        "mfu": flops / seconds / peak / run.world.size if peak else None,
    }
