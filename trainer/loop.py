"""The training loop: one for all stages, sizes and numbers of ranks."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from corpus.records import TASKS
from trainer.attention import to_device
from trainer.data import Plan
from trainer.flops import peak_flops, step_flops
from trainer.optim import gradient_norm, learning_rate, make_optimizer, scale_gradients, set_learning_rate
from trainer.parallel import World, agree, before_micro_batch
from trainer.stages import Settings

_COUNTS = ("tokens", "supervised", "images", "samples", "pairs")
_OTHERS = ("padded", "replaced", "wait", "stop")


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
    done = _accumulate(run, batches)
    agree(run.trained, run.world)
    totals = _sum_over_ranks(run, done, stop)
    factor = 1 / totals[_COUNTS.index("supervised")].clamp(min=1)
    norm = gradient_norm(run.trained) * factor
    scale_gradients(run.trained, torch.clamp(run.settings.clip / (norm + 1e-6), max=1.0) * factor)
    told = _tell(torch.cat([totals, norm[None]]).tolist())  # the step's one wait for the device
    if not math.isfinite(told["loss_sum"]) or not math.isfinite(told["norm"]):
        raise NonFiniteLoss(_blame(run, step, done))
    run.optimizer.step()
    record = _record(run, step, told, rates, time.perf_counter() - began)
    if told["replaced"]:
        by_pack = {entry["pack"]: entry for entries in run.world.gather(done.replaced) for entry in entries}
        record["replaced_packs"] = sorted(by_pack.values(), key=lambda entry: entry["pack"])
    return record


@dataclass
class _Done:
    """A step's micro-batches: their packs, each pack's summed loss (on the device), and what was counted."""

    rows: list[dict] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    replaced: list[dict] = field(default_factory=list)
    wait: float = 0.0
    padded: int = 0


def _accumulate(run: Run, batches: Iterator[dict]) -> _Done:
    """Forward and backward of a step's micro-batches."""
    done = _Done()
    for i in range(run.plan.micro_batches):
        asked = time.perf_counter()
        batch = next(batches)
        done.wait += time.perf_counter() - asked
        inputs = to_device(batch, run.world.device)
        before_micro_batch(run.model, run.settings, run.world, last=i + 1 == run.plan.micro_batches)
        loss, each = run.model(inputs)
        loss.backward()
        done.losses.append(per_pack(each, inputs["owners"], len(batch["rows"])))
        done.rows += batch["rows"]
        done.replaced += batch["replaced"]
        done.padded += batch["padded"] if batch["rows"] else 0
    return done


def per_pack(each: torch.Tensor, owners: torch.Tensor, packs: int) -> torch.Tensor:
    """Sums of losses [Y] by owner [Y], float64 [packs]. Not index_add: its additions on a GPU have no fixed order."""
    mine = owners == torch.arange(packs, device=owners.device)[:, None]
    return torch.where(mine, each.double(), 0.0).sum(1)


def _sum_over_ranks(run: Run, done: _Done, stop: bool) -> torch.Tensor:
    """float64: _COUNTS, _OTHERS, the tasks' losses, supervised tokens and samples; on the device, in one reduction."""
    of_task, of_tasks = [[row["task"] == task for row in done.rows] for task in TASKS], []
    counts = [sum(row[name] for row in done.rows) for name in _COUNTS]
    counts += [done.padded, len(done.replaced), done.wait, stop]
    for name in ("supervised", "samples"):
        of_tasks += [sum(row[name] for row in done.rows if row["task"] == task) for task in TASKS]
    device = run.world.device
    mine = torch.tensor(of_task, device=device).view(len(TASKS), len(done.rows))
    losses = torch.where(mine, torch.cat(done.losses), 0.0).sum(1)
    counts, of_tasks = (torch.tensor(v, dtype=torch.float64, device=device) for v in (counts, of_tasks))
    return run.world.sum(torch.cat([counts, losses, of_tasks]))


def _tell(values: list[float]) -> dict:
    """The numbers of `_sum_over_ranks` and the gradient norm, by name."""
    names = (*_COUNTS, *_OTHERS)
    told = dict(zip(names, values[: len(names)], strict=True))
    rest, told["norm"] = values[len(names) : -1], values[-1]
    losses, counts, samples = (rest[i : i + len(TASKS)] for i in range(0, len(rest), len(TASKS)))
    told["mix"] = {task: int(n) for task, n in zip(TASKS, samples, strict=True) if n}
    told["loss_sum"] = sum(losses)
    told["tasks"] = {t: loss / n for t, loss, n in zip(TASKS, losses, counts, strict=True) if n}
    return told


def _blame(run: Run, step: int, done: _Done) -> str:
    losses = torch.cat(done.losses).tolist()
    bad = [row["key"] for row, loss in zip(done.rows, losses, strict=True) if not math.isfinite(loss)]
    everywhere = [key for keys in run.world.gather(bad) for key in keys]
    if everywhere:
        packs = ", ".join(dict.fromkeys(everywhere))
        return f"step {step + 1}: the loss of pack {packs} is not finite; the model is as it was before this step"
    keys = [key for keys in run.world.gather([row["key"] for row in done.rows]) for key in keys]
    return (
        f"step {step + 1}: the gradient is not finite though every loss is; packs {', '.join(keys)}; the model is as "
        "it was before this step"
    )


def _record(run: Run, step: int, totals: dict, rates: dict, seconds: float) -> dict:
    s = run.settings
    flops = step_flops(run.model.config, s.image_size, totals, s.trained_parts, s.adapted_parts)
    device = run.world.device
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return {
        "step": step + 1,
        "loss": totals["loss_sum"] / max(totals["supervised"], 1),
        "loss_per_task": totals["tasks"],
        "lr": rates,
        "grad_norm": totals["norm"],
        "seconds": seconds,
        "samples": int(totals["samples"]),
        "samples_per_task": totals["mix"],
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
