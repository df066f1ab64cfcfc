"""Train one stage of a vision-language model on a stage folder made by pipelines/build_stage.py."""

import argparse
import os
import sys
from pathlib import Path

from corpus.stages import STAGES
from trainer.sizes import SIZES

EXAMPLE = """\
example, three stages in a row on the CPU:
  python -m trainer --stage 1 --data demo/stage1 --size tiny --output runs/stage1
  python -m trainer --stage 2 --data demo/stage2 --init runs/stage1 --output runs/stage2
  python -m trainer --stage 3 --data demo/stage3 --init runs/stage2 --output runs/stage3
stage 3 on one small GPU:
  python -m trainer --stage 3 --data DIR --init runs/stage2 --output runs/chat --lora r=64 --quantise nf4 \\
    --activation-checkpointing --micro-packs 1
on eight GPUs:
  torchrun --nproc-per-node 8 -m trainer --stage 2 --data s3://bucket/stage2 --init runs/stage1 --output runs/stage2
"""

# Flags that override a stage's or a size's default: name -> (type, help).
SETTINGS = {
    "steps": (int, "training steps"),
    "batch": (int, "samples per step, over all ranks"),
    "peak-lr": (float, "highest learning rate"),
    "min-lr": (float, "last learning rate"),
    "warmup": (int, "warm-up steps"),
    "layer-decay": (float, "layer-wise learning-rate decay of the vision tower"),
    "beta1": (float, "AdamW"),
    "beta2": (float, "AdamW"),
    "eps": (float, "AdamW"),
    "weight-decay": (float, "AdamW"),
    "clip": (float, "largest gradient norm"),
    "accumulation": (int, "micro-batches per step, unless memory asks for more"),
    "micro-packs": (int, "packs in one forward pass; overrides --accumulation"),
    "image-size": (int, "pixels per side"),
    "tensor-parallel": (int, "ranks that share each layer of tower and language model"),
    "shard-ranks": (int, "ranks that share one copy of what trains; default: those of a node"),
    "seed": (int, "of initial weights and of the order of packs"),
    "workers": (int, "processes that read and decode, per rank; default: 4 on cuda, none on cpu"),
    "save-every": (int, "steps between checkpoints"),
    "keep": (int, "checkpoints to keep"),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", type=int, choices=sorted(STAGES), required=True)
    parser.add_argument("--data", required=True, metavar="DIR", help="stage folder: a path or an fsspec URL")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of this run")
    parser.add_argument("--size", choices=sorted(SIZES), help="default: that of --init, else tiny")
    text = "a run, its export, or the released Qwen-VL (folder or hub name)"
    parser.add_argument("--init", metavar="RUN", help=text)
    parser.add_argument("--resume", choices=("auto",), help="go on from the newest checkpoint in RUN, if there is one")
    text = "with --resume: --steps, --warmup, --peak-lr and --min-lr may differ from the run's, from the next step on"
    parser.add_argument("--reschedule", action="store_true", help=text)
    parser.add_argument("--vision", metavar="NAME", help="another tower: any plain ViT open_clip knows by name")
    parser.add_argument("--vision-weights", metavar="TAG_OR_FILE", help="open_clip's tag, .safetensors or .pt")
    parser.add_argument("--language", metavar="DIR_OR_NAME", help="a causal language model of transformers, or Qwen-7B")
    parser.add_argument(
        "--queries", type=int, help="the adapter's queries; default: those that the stage folder was built with"
    )
    text = "where packs of --data in an object store are kept for a while; default: the folder for temporary files"
    parser.add_argument("--cache-dir", metavar="DIR", help=text)
    parser.add_argument("--cache-gb", type=float, default=32, metavar="GB", help="the most that they take; default: 32")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    group = parser.add_argument_group("watching", "what the run shows on the way, of data that it does not train on")
    group.add_argument("--watch-every", type=int, default=500, metavar="STEPS", help="default: 500, and at the end")
    group.add_argument("--watch-data", metavar="DIR", help="stage folder: the loss of its first packs")
    group.add_argument("--watch-packs", type=int, default=64, help="so many; default: 64")
    text = "cleaned shards: some of their questions are asked and scored, some answers drawn"
    group.add_argument("--watch-shards", nargs="+", action="extend", default=[], metavar="GLOB", help=text)
    group.add_argument("--watch-questions", type=int, default=64, help="so many; default: 64")
    group = parser.add_argument_group("settings", "defaults: Table 8 of the paper, changed for tiny and small")
    for name, (kind, text) in SETTINGS.items():
        group.add_argument(f"--{name}", type=kind, help=text)
    group.add_argument("--attention", choices=("causal", "isolated"), help="what samples of a pack see of each other")
    group.add_argument(
        "--trains", nargs="+", action="extend", choices=("vision", "adapter", "language"), help="parts that train"
    )
    group.add_argument("--tail-with", choices=("vision", "adapter"), help="part that ln_post and proj train with")
    group.add_argument("--image-rows", action="store_const", const=True, help="train <img>, </img> in stage 1")
    group.add_argument("--precision", choices=("bf16", "fp32"), help="default: bf16 on cuda, else fp32")
    text = "when ranks send weights and gradients: once a step (default), or in each micro-batch, for less memory"
    group.add_argument("--exchange", choices=("step", "micro"), help=text)
    group.add_argument("--reduce", choices=("fp32", "bf16"), help="in which ranks sum their gradients; default: fp32")
    text = "train the language model through low-rank adapters alone: r=64[,alpha=16][,dropout=0.05]"
    group.add_argument("--lora", metavar="r=N", help=text)
    group.add_argument("--quantise", choices=("nf4", "int8"), help="hold its frozen blocks in 4 or 8 bits")
    group.add_argument("--optimizer-bits", type=int, choices=(32, 8), help="of AdamW's moments; default: 32")
    for name in ("activation-checkpointing", "compile", "deterministic"):
        group.add_argument(f"--{name}", action="store_const", const=True)
    return parser


def flags_of(args: argparse.Namespace) -> dict:
    """The settings that were given on the command line."""
    names = [name.replace("-", "_") for name in SETTINGS]
    names += ["attention", "trains", "tail_with", "image_rows", "precision", "exchange", "reduce"]
    names += ["lora", "quantise", "optimizer_bits"]
    names += ["activation_checkpointing", "compile", "deterministic"]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def job_of(args: argparse.Namespace, device: str):
    """The run that parsed arguments describe."""
    from trainer.run import Job

    own: tuple[str, ...] = ("stage", "data", "output", "size", "init", "resume", "reschedule", "vision")
    own += ("vision_weights", "language", "queries", "cache_dir", "cache_gb")
    return Job(
        **{name: getattr(args, name) for name in own}, device=device, flags=flags_of(args), watch=_watch_of(args)
    )


def _watch_of(args: argparse.Namespace):
    from trainer.watch import Watch

    if not (args.watch_data or args.watch_shards):
        return None
    return Watch(every=args.watch_every, data=args.watch_data, packs=args.watch_packs,
                 shards=tuple(args.watch_shards), questions=args.watch_questions)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    # cuBLAS is deterministic only with a workspace chosen before it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    from torch.distributed.checkpoint import CheckpointException

    from trainer.loop import NonFiniteLoss
    from trainer.run import run_stage
    from trainer.storage import explain, told_once

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with told_once(args.output):
            run_stage(job_of(args, device))
    except (ValueError, FileNotFoundError, NonFiniteLoss) as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    except (Exception, CheckpointException) as error:  # torch's is a BaseException
        if (text := explain(error, args.output)) is None:
            raise
        print(f"trainer: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
