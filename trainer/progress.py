"""What a run tells: metrics.jsonl (one line per step), TensorBoard, a progress line.

Loss is the mean cross-entropy per supervised token, in nats. Rates are per second of wall time, over all ranks.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

METRICS = "metrics.jsonl"


def read_metrics(run: Path) -> list[dict]:
    """A run's metrics, one record per step. A last line cut off by a crash is left out."""
    path = Path(run) / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for i, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if i + 1 < len(lines):
                raise ValueError(f"{path}, line {i + 1} is no JSON") from None
    return records


class Progress:
    """Writes metrics; use as a context manager. Only rank 0 makes one."""

    def __init__(self, run: Path, first_step: int, steps: int):
        self.run, self.first_step, self.steps = Path(run), first_step, steps
        self._mix: Counter = Counter()
        self._totals: Counter = Counter()
        self.run.mkdir(parents=True, exist_ok=True)
        self._forget_lost_steps()
        self._file = open(self.run / METRICS, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._board = _tensorboard(self.run, first_step)
        self._line = _Bar(steps, first_step) if sys.stderr.isatty() else _Lines(steps)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
        self._board.close()
        self._line.close()

    def step(self, record: dict) -> None:
        """Record one step; `record` has scalars, and dicts of scalars for what is told per task or per part."""
        self._count(record)
        record = record | {"so_far": self._so_far()}
        self._file.write(json.dumps(record) + "\n")
        for name, value in _flat(record):
            self._board.add_scalar(name, value, record["step"])
        for bad in record.get("replaced_packs", ()):
            self.note(f"pack {bad['pack']}: {bad['error']} ({bad['detail']}); {bad['by']} took its place")
        self._line.show(record)

    def show(self, step: int, pictures) -> None:
        """Show answers in TensorBoard: (task, key, picture [height, width, 3] or None, text) each."""
        for task, key, picture, text in pictures:
            self._board.add_text(f"{task}/{key}", text, step)
            if picture is not None:
                self._board.add_image(f"{task}/{key}", picture, step, dataformats="HWC")

    def note(self, text: str) -> None:
        self._line.print(text)

    def _count(self, record: dict) -> None:
        self._mix.update(record.get("samples_per_task", {}))
        self._totals.update({name: record[name] for name in ("samples", "tokens", "images", "seconds")})

    def _so_far(self) -> dict:
        """Of all steps of the run: samples, each task's share of them, and tokens and images per second."""
        total, seconds = sum(self._mix.values()), max(self._totals["seconds"], 1e-9)
        rates = {f"{name}_per_second": self._totals[name] / seconds for name in ("tokens", "images")}
        return {"samples": total, **rates, **{f"share_{task}": count / total for task, count in self._mix.items()}}

    def _forget_lost_steps(self) -> None:
        # A killed run has written metrics of steps that its last checkpoint does not hold; they are done again.
        kept = [record for record in read_metrics(self.run) if record["step"] <= self.first_step]
        for record in kept:
            self._count(record)
        text = "".join(json.dumps(record) + "\n" for record in kept)
        (self.run / METRICS).write_text(text)


def _flat(record: dict):
    for name, value in record.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{key}", inner) for key, inner in value.items())
        elif isinstance(value, (int, float)) and name != "step":
            yield name, value


def _tensorboard(run: Path, first_step: int):
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    return SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1 if first_step else None)


def describe(record: dict, steps: int) -> str:
    """One line: where the run is and how fast."""
    rate = max(record["lr"].values())
    speed = f"MFU {record['mfu']:.1%}" if record["mfu"] is not None else f"{record['flops_per_second'] / 1e9:,.0f} GF/s"
    parts = [
        f"step {record['step']}/{steps}",
        f"loss {record['loss']:.3f}",
        f"lr {rate:.1e}",
        f"{record['tokens_per_second']:,.0f} tok/s",
        f"{record['images_per_second']:,.1f} img/s",
        speed,
        f"data wait {record['data_wait']:.0%}",
    ]
    if held_out := record.get("held_out"):
        parts.insert(2, f"held out {held_out['all']:.3f}")
    return "  ".join(parts + ([f"replaced {record['replaced']}"] if record["replaced"] else []))


class _Lines:
    """Plain lines, a few per minute, for logs."""

    EVERY = 10.0  # seconds

    def __init__(self, steps: int):
        self.steps, self._next = steps, 0.0

    def show(self, record: dict) -> None:
        if time.monotonic() >= self._next or record["step"] == self.steps:
            self._next = time.monotonic() + self.EVERY
            print(describe(record, self.steps), flush=True)

    def print(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        pass


class _Bar:
    """A live line."""

    def __init__(self, steps: int, first_step: int):
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
        self.steps = steps
        self._progress = RichProgress(*columns)
        self._task = self._progress.add_task("starting", total=steps, completed=first_step)
        self._progress.start()

    def show(self, record: dict) -> None:
        self._progress.update(self._task, completed=record["step"], description=describe(record, self.steps))

    def print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()
