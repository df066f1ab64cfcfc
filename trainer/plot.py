"""Draw the convergence of one run or of several in a row (the paper's Figure 6): loss over samples seen."""

import argparse
from pathlib import Path

from trainer.progress import read_metrics


def main() -> None:
    args = make_parser().parse_args()
    target = args.to or args.runs[0] / "convergence.png"
    draw([(run.name or str(run), read_metrics(run)) for run in args.runs], target, args.smooth)
    print(target)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.plot", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; each gets a panel")
    parser.add_argument("--to", type=Path, help="picture to write; default: convergence.png in the first run")
    parser.add_argument("--smooth", type=int, default=0, help="steps to average over; default: a fiftieth of the run")
    return parser


def draw(runs: list[tuple[str, list[dict]]], target: Path, smooth: int = 0) -> None:
    """Draw one panel per (name, metrics). Raises ValueError for a run without metrics."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(runs), figsize=(6.5 * len(runs), 4.5), squeeze=False, layout="constrained")
    for panel, (name, records) in zip(panels[0], runs, strict=True):
        if not records:
            raise ValueError(f"{name} has no metrics yet")
        _draw_panel(panel, name, records, smooth or max(1, len(records) // 50))
    figure.savefig(target, dpi=120)
    plt.close(figure)


def _draw_panel(panel, name: str, records: list[dict], smooth: int) -> None:
    seen, total = [], 0
    for record in records:
        total += record["samples"]
        seen.append(total)
    for task in sorted({task for record in records for task in record["loss_per_task"]}):
        told = [(x, r["loss_per_task"].get(task)) for x, r in zip(seen, records, strict=True)]
        xs, ys = zip(*[(x, y) for x, y in told if y is not None], strict=True)
        panel.plot(xs, moving_mean(ys, smooth), linewidth=1, alpha=0.7, label=task)
    panel.plot(seen, moving_mean([r["loss"] for r in records], smooth), color="black", linewidth=2, label="all tasks")
    panel.set(title=name, xlabel="samples seen", ylabel="loss (nats per supervised token)")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)


def moving_mean(values, width: int) -> list[float]:
    """The mean of each value and up to `width` - 1 before it."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]


if __name__ == "__main__":
    main()
