"""The CLIP flags that jobs share, and what they mean to the job: settings, and a model in every worker."""

import argparse
from collections.abc import Callable
from functools import partial

from cleaners import clip
from pipelines.engine import job


def add_flags(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add --clip and the flags that say how the model runs."""
    add = parser.add_argument
    add("--clip", required=required, metavar="MODEL", help=f"score pairs with {clip.SPEC_HELP}")
    add("--device", default="cpu", metavar="cpu|cuda", help="cuda: one GPU per worker; --workers is the pool's size")
    add("--precision", choices=clip.PRECISIONS, help="default: fp32 on the CPU, fp16 on a GPU")
    add("--batch", type=int, metavar="N", help="pairs at a time; default: 32 on the CPU, 256 on a GPU")
    add("--decoders", type=int, default=2, metavar="N", help="threads that decode images, per worker")


def settings(args: argparse.Namespace) -> dict:
    """What the scores depend on, for `job.json`. UserError when there is no such model."""
    if not args.clip:
        return {}
    try:
        return {"clip": clip.fingerprint(args.clip), "precision": args.precision or "default", "device": args.device}
    except ValueError as error:
        raise job.UserError(f"--clip: {error}") from None


def options(args: argparse.Namespace) -> dict:
    """What `job.run` needs so that every worker holds a model: `setup` and `gpus_per_worker`."""
    if not args.clip:
        return {}
    if args.device != "cpu" and args.workers is None:
        args.workers = 1
    return {"setup": _loader(args), "gpus_per_worker": 0 if args.device == "cpu" else 1}


def _loader(args: argparse.Namespace) -> Callable[[], clip.Clip]:
    return partial(_load, args.clip, args.device, args.precision, args.batch)


def _load(spec: str, device: str, precision: str | None, batch: int | None) -> clip.Clip:
    import torch

    if device == "cpu":
        # One thread: workers share the cores already, and the order of additions must not depend on their number.
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        raise job.UserError(f"--device {device}: no GPU is visible to this worker")
    try:
        return clip.load(spec, device=device, precision=precision, batch=batch)
    except ValueError as error:
        raise job.UserError(f"--clip: {error}") from None
