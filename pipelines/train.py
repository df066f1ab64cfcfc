#!/usr/bin/env python
"""Train one stage on a Ray cluster: the same run as `python -m trainer`, its ranks started by Ray Train."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines.engine import cluster
from trainer import __main__ as trainer

EXAMPLE = """\
example, on a cluster with 16 GPUs and a file system that all nodes share:
  ray job submit --working-dir . -- pipelines/train.py --ranks 16 --device cuda \\
    --stage 1 --data s3://bucket/stage1 --size qwen-vl --output /shared/runs/stage1
A rank or node that dies starts the run again from its last checkpoint, up to --retries times.
"""


def make_parser() -> argparse.ArgumentParser:
    """The trainer's flags and two more."""
    parser = trainer.make_parser()
    parser.prog, parser.description, parser.epilog = "pipelines/train.py", __doc__, EXAMPLE
    parser.add_argument("--ranks", type=int, default=1, help="processes; with --device cuda one GPU each")
    parser.add_argument("--retries", type=int, default=3, help="restarts from the last checkpoint")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if cluster.in_uploaded_folder() and not args.output.is_absolute():
        parser.error(f"--output {args.output} is relative: it would be lost with Ray's copy of this folder")
    args.resume = "auto"  # a restart must go on, and must not need another command
    args.output = args.output.absolute()
    device = args.device or "cpu"
    try:
        run = trainer.job_of(args, device)
        cluster.train(run_rank, run, ranks=args.ranks, gpu=device == "cuda", retries=args.retries,
                      logs=args.output / "ray")  # fmt: skip
    except cluster.SplitFailed as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    return 0


def run_rank(job) -> None:
    """One rank's share of a run."""
    from trainer.run import run_stage

    run_stage(job)


if __name__ == "__main__":
    sys.exit(main())
