"""Speed of training at real sizes on one device: random weights, synthetic shards, the real loader and loop.

    python benchmarks/train_gpu.py                                   # 2b stages 1 and 2, qwen-vl stage 1
    python benchmarks/train_gpu.py --runs 2b:2 --micro-packs 4 8 16 --compile --profile
    python benchmarks/train_gpu.py --runs tiny:1 tiny:2 --device cpu --steps 3     # that it works

Prints one JSON line per run: MFU (docs/training.md has the formula), rates, memory, share of the time spent waiting
for data. With --profile also where the time of one step goes.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from benchmarks import synthetic_stage  # noqa: E402
from corpus.packs import StageFolder  # noqa: E402
from trainer import parallel  # noqa: E402
from trainer.data import PackBatches, Plan, batches  # noqa: E402
from trainer.loop import Run, train_step  # noqa: E402
from trainer.run import build_model  # noqa: E402
from trainer.sizes import SIZES, with_vocabulary  # noqa: E402
from trainer.stages import make_settings  # noqa: E402
from trainer.weights import fill, random_source  # noqa: E402

RUNS = ("2b:1", "2b:2", "qwen-vl:1")
WARM_UP = 2  # steps that compile and fill caches, left out of the averages


def measure(args, size: str, stage: int, micro_packs: int) -> dict:
    """Take WARM_UP + args.steps steps and average."""
    settings = make_settings(
        stage, size, steps=1000, precision="bf16" if args.device == "cuda" else "fp32", tensor_parallel=1,
        compile=args.compile, activation_checkpointing=args.activation_checkpointing,
    )  # fmt: skip
    world = parallel.join_world(settings, args.device)
    with tempfile.TemporaryDirectory() as root:
        folder = make_folder(Path(root) / "stage", size, stage)
        config = with_vocabulary(SIZES[size].config, folder.tokenizer().vocab_size)
        config = replace(config, image_token=folder.tokenizer().image_pad)
        model = build_model(config, settings, world)
        fill(model, [random_source(config, 0, world.device)])
        parallel.optimise(model, settings)
        run = Run(model, settings, world, Plan(micro_packs * args.accumulation, micro_packs))
        stream = open_stream(args, folder, run)
        records = [train_step(run, stream, step) for step in range(WARM_UP + args.steps)][WARM_UP:]
        if args.profile:
            profile(run, stream)
        out = summary(args, size, stage, micro_packs, records)
        parallel.leave_world(world)
        return out


def make_folder(path: Path, size: str, stage: int) -> StageFolder:
    queries = SIZES[size].config.queries
    return StageFolder(synthetic_stage.make(path, stage, queries, 64, synthetic_stage.photos()))


def open_stream(args, folder: StageFolder, run: Run):
    dataset = PackBatches(
        folder, seed=0, image_size=run.settings.image_size, attention=run.settings.attention,
        image_token=run.model.config.image_token,
        pad_to=folder.max_tokens * run.plan.micro_packs if args.compile else 8,
    )  # fmt: skip
    return batches(dataset, run.plan, 0, 10_000, args.workers, args.device == "cuda")


def summary(args, size, stage, micro_packs, records) -> dict:
    seconds = sum(r["seconds"] for r in records)
    mean = {name: sum(r[name] for r in records) / seconds for name in ("tokens", "images", "samples")}
    flops = sum(r["flops_per_second"] * r["seconds"] for r in records) / seconds
    cuda = args.device == "cuda"
    return {
        "size": size, "stage": stage, "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__, "micro_packs": micro_packs, "accumulation": args.accumulation,
        "compile": args.compile, "activation_checkpointing": args.activation_checkpointing,
        "mfu": round(sum(r["mfu"] * r["seconds"] for r in records) / seconds, 4) if records[0]["mfu"] else None,
        "tflops": round(flops / 1e12, 3), "seconds_per_step": round(seconds / len(records), 3),
        **{f"{name}_per_second": round(value, 1) for name, value in mean.items()},
        "data_wait": round(sum(r["data_wait"] * r["seconds"] for r in records) / seconds, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
        "loss": round(records[-1]["loss"], 3),
    }  # fmt: skip


GROUPS = {
    "matrix products": ("gemm", "cutlass", "nvjet", "cublas", "mm"),
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "optimizer": ("adam", "multi_tensor"),
    "copies and casts": ("copy", "memcpy", "memset", "cat"),
    "norms": ("norm",),
}


def profile(run: Run, stream) -> None:
    """Print how the device time of one step divides among kinds of kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = run.world.device.type == "cuda"
    began = time.perf_counter()
    with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as events:
        train_step(run, stream, WARM_UP)
    wall = time.perf_counter() - began
    totals = dict.fromkeys([*GROUPS, "rest"], 0.0)
    for event in events.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        kind = next((k for k, words in GROUPS.items() if any(w in event.key.lower() for w in words)), "rest")
        totals[kind] += spent / 1e6
    for kind, seconds in totals.items():
        print(f"  {kind:18} {seconds:8.3f} s  {seconds / wall:6.1%}")
    print(f"  {'not on the device':18} {wall - sum(totals.values()):8.3f} s  {1 - sum(totals.values()) / wall:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", action="extend", metavar="SIZE:STAGE", help="default: " + " ".join(RUNS))
    parser.add_argument("--micro-packs", nargs="+", action="extend", type=int, help="default: the size's own")
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    for name in args.runs or RUNS:
        size, stage = name.split(":")
        for micro_packs in args.micro_packs or [SIZES[size].micro_packs]:
            try:
                print(json.dumps(measure(args, size, int(stage), micro_packs)), flush=True)
            except torch.OutOfMemoryError as error:
                print(json.dumps({"size": size, "stage": int(stage), "micro_packs": micro_packs,
                                  "error": f"out of memory: {error}"[:200]}), flush=True)  # fmt: skip
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
