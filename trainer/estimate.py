"""What a training run would take, without a GPU: memory of a rank by kind, work, traffic, time.

Refuses a configuration that does not fit, and proposes one that does. docs/training.md has the table of all sizes.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import product

from corpus.stages import STAGES
from trainer.flops import step_flops
from trainer.footprint import MAX_IMAGES, NODE, TOKENS, Shape, activations, memory, parameters
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import BITS, Settings, make_settings

EXAMPLE = """\
examples:
  python -m trainer.estimate --size 2b --stage 2 --gpus 8 --gpu h100
  python -m trainer.estimate --size qwen-vl --stage 2 --gpus 8 --micro-packs 2
  python -m trainer.estimate --size qwen-vl --stage 3 --gpus 1 --gpu l4 --lora r=64 --quantise nf4
  python -m trainer.estimate --table
"""
ASSUMED = """\
assumed: packs of 2048 tokens, 7 images in the fullest (memory), {images:g} in the mean (time); products run at {mm:.0%}
of the peak; an activation goes {touch} times between memory and cores; inside a node {inside:.0f} GB/s per GPU, between
nodes {outside:.0f}; what is sent hides behind the work of one micro-batch; {share:.0%} of the memory is usable"""
# What a proposal leaves as it was asked for: it changes the numbers, or what is trained.
FIXED = ("reduce", "shard_ranks", "trains", "lora", "quantise", "optimizer_bits")
PRODUCTS, TOUCHES, USABLE = 0.65, 6, 0.92
INSIDE, OUTSIDE = 300e9, 50e9  # bytes/s: NVLink and InfiniBand as collectives reach them
# Samples and images of a mean pack: stage 1 has pairs of 325 tokens, stage 2 the shapes of Table 3's mixture.
PACK = {1: (6.0, 6.0), 2: (5.25, 5.25), 3: (5.0, 5.0)}
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """memory in bytes, peak of dense bf16 products in FLOP/s, memory bandwidth in bytes/s."""

    memory: float
    peak: float
    bandwidth: float


GPUS = {
    "h100": Gpu(80e9, 989e12, 3.35e12),
    "h200": Gpu(141e9, 989e12, 4.8e12),
    "a100": Gpu(80e9, 312e12, 2.0e12),
    "l40s": Gpu(48e9, 362e12, 0.86e12),
    "l4": Gpu(24e9, 121e12, 0.3e12),
}


@dataclass(frozen=True)
class Estimate:
    settings: Settings
    micro_packs: int
    micro_batches: int
    memory: dict[str, float]
    flops: float  # of a step and rank
    sent: float  # bytes of a step and rank
    seconds: float
    mfu: float

    @property
    def peak(self) -> float:
        return sum(self.memory.values())


def estimate(size: str, stage: int, gpus: int, gpu: Gpu, **flags) -> Estimate:
    """Estimate one configuration; `flags` as for make_settings, micro_packs and all."""
    flags = {"precision": "bf16"} | {name: value for name, value in flags.items() if value is not None}
    packs = flags.pop("micro_packs", None) or SIZES[size].micro_packs
    settings = make_settings(stage, size, micro_packs=packs, **flags)
    config = with_vocabulary(SIZES[size].config, 8192)
    samples, images = PACK.get(stage, PACK[3])
    per_rank = settings.batch / samples / gpus
    packs = max(1, min(packs, round(per_rank)))
    micro_batches = max(1, -(-round(per_rank) // packs))
    spans = [TOKENS / samples] * int(samples) if settings.attention == "isolated" else [TOKENS]
    counts = {
        "tokens": TOKENS, "supervised": TOKENS - 258 * images if images * 258 < TOKENS else TOKENS // 2,
        "images": images, "pairs": sum(n * n / 2 for n in spans),
    }  # fmt: skip
    of_pack = step_flops(config, settings.image_size, counts, settings.trained_parts, settings.adapted_parts)
    flops = of_pack * per_rank
    saved = activations(config, settings, Shape()).times(packs)
    held = memory(config, settings, gpus, micro_batches, saved)
    sent = traffic(settings, parameters(config, settings)[0], gpus, micro_batches)
    touched = saved.all_blocks(config) * images / MAX_IMAGES
    seconds = _seconds(settings, gpu, of_pack * packs, touched, sent, micro_batches)
    return Estimate(settings, packs, micro_batches, held, flops, sent.total, seconds, flops / seconds / gpu.peak)


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank gathers and reduces in a step: the whole of a gathered or reduced tensor counts."""

    inside: float
    outside: float

    @property
    def total(self) -> float:
        return self.inside + self.outside


def traffic(settings: Settings, trained: int, gpus: int, micro_batches: int) -> Traffic:
    """Inside a node weights are gathered and gradients reduced; between nodes each rank reduces its own piece, once."""
    if gpus == 1:
        return Traffic(0.0, 0.0)
    compute = 2 if settings.precision == "bf16" else 4
    reduced = 2 if settings.precision == "bf16" and settings.reduce == "bf16" else 4
    step = settings.exchange == "step"
    inside = trained * ((1 if step else 2) * compute + reduced) * (1 if step else micro_batches)
    shard = min(settings.shard_ranks or NODE, gpus)
    return Traffic(float(inside), 2.0 * reduced * trained / shard if gpus > shard else 0.0)


def _seconds(
    settings: Settings, gpu: Gpu, micro_flops: float, touched: float, sent: Traffic, micro_batches: int
) -> float:
    """Of a step: arithmetic and memory of each micro-batch, and what of the traffic does not hide behind one."""
    again = 4 / 3 if settings.activation_checkpointing else 1.0
    work = again * (micro_flops / (gpu.peak * PRODUCTS) + TOUCHES * touched / gpu.bandwidth)
    inside, outside = sent.inside / INSIDE, sent.outside / OUTSIDE
    if settings.exchange == "step":
        return micro_batches * work + max(0.0, inside + outside - work)
    return micro_batches * max(work, inside / micro_batches) + max(0.0, outside - work)


def propose(size: str, stage: int, gpus: int, gpu: Gpu, **flags) -> Estimate | None:
    """The fastest configuration that fits, of those that compute the same numbers up to rounding."""
    choices = product((16, 8, 4, 2, 1), (False, True), ("step", "micro"))
    found = [
        estimate(size, stage, gpus, gpu, **flags | {"micro_packs": p, "activation_checkpointing": a, "exchange": e})
        for p, a, e in choices
    ]
    fitting = [one for one in found if fits(one, gpu)]
    return max(
        fitting, key=lambda one: (round(one.mfu, 2), one.settings.exchange == "step", one.micro_packs), default=None
    )


def fits(one: Estimate, gpu: Gpu) -> bool:
    return one.peak <= gpu.memory * USABLE


def describe(one: Estimate) -> str:
    lines = [f"  {kind:18} {size / GIB:8.2f} GiB" for kind, size in one.memory.items()]
    lines.append(f"  {'peak of a rank':18} {one.peak / GIB:8.2f} GiB ({one.peak / 1e9:.1f} GB)")
    lines.append(
        f"  {one.micro_batches} micro-batches of {one.micro_packs} packs a step; {one.flops / 1e12:,.0f} TFLOP and "
        f"{one.sent / 1e9:.2f} GB sent per rank; {one.seconds:.2f} s, MFU {one.mfu:.0%}"
    )
    return "\n".join(lines)


def flags_of(one: Estimate) -> str:
    """The command-line flags that ask for this configuration."""
    s = one.settings
    flags = [f"--micro-packs {one.micro_packs}", f"--exchange {s.exchange}"]
    return " ".join(flags + (["--activation-checkpointing"] if s.activation_checkpointing else []))


def table(gpu: Gpu) -> str:
    """Markdown: the proposed configuration of each size and stage on 1, 8 and 64 GPUs."""
    lines = ["| size | stage | GPUs | flags | peak, GB | step, s | MFU |", "|---|---|---|---|---|---|---|"]
    for size, stage, gpus in product(SIZES, STAGES, (1, 8, 64)):
        one = propose(size, stage, gpus, gpu)
        if one is None:
            lines.append(f"| {size} | {stage} | {gpus} | does not fit | | | |")
        else:
            numbers = f"{one.peak / 1e9:.1f} | {one.seconds:.2g} | {one.mfu:.0%}"
            lines.append(f"| {size} | {stage} | {gpus} | `{flags_of(one)}` | {numbers} |")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.estimate", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--size", choices=sorted(SIZES), default="2b")
    parser.add_argument("--stage", type=int, choices=sorted(STAGES), default=2)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100")
    parser.add_argument("--micro-packs", type=int)
    parser.add_argument("--exchange", choices=("step", "micro"))
    parser.add_argument("--reduce", choices=("fp32", "bf16"))
    parser.add_argument("--shard-ranks", type=int)
    parser.add_argument("--activation-checkpointing", action="store_const", const=True)
    parser.add_argument("--trains", nargs="+", action="extend", choices=("vision", "adapter", "language"))
    parser.add_argument("--lora", metavar="r=N")
    parser.add_argument("--quantise", choices=sorted(BITS))
    parser.add_argument("--optimizer-bits", type=int, choices=(32, 8))
    parser.add_argument("--table", action="store_true", help="every size and stage on 1, 8 and 64 of this GPU")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    gpu = GPUS[args.gpu]
    if args.table:
        print(table(gpu))
        return 0
    fixed = {name: getattr(args, name) for name in FIXED}
    flags = fixed | {name: getattr(args, name) for name in ("micro_packs", "exchange", "activation_checkpointing")}
    one = estimate(args.size, args.stage, args.gpus, gpu, **flags)
    print(f"{args.size}, stage {args.stage}, {args.gpus} x {args.gpu}: {flags_of(one)}\n{describe(one)}")
    numbers = {"mm": PRODUCTS, "touch": TOUCHES, "inside": INSIDE / 1e9, "outside": OUTSIDE / 1e9, "share": USABLE}
    print(ASSUMED.format(images=PACK.get(args.stage, PACK[3])[1], **numbers))
    if fits(one, gpu):
        return 0
    print(f"does not fit: {one.peak / 1e9:.1f} GB of {gpu.memory * USABLE / 1e9:.1f}", file=sys.stderr)
    better = propose(args.size, args.stage, args.gpus, gpu, **fixed)
    if better is None:
        print(f"nothing does on {args.gpus} x {args.gpu}: more or larger GPUs are needed", file=sys.stderr)
    else:
        print(f"this does: {flags_of(better)}\n{describe(better)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
