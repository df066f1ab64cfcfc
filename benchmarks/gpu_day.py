#!/usr/bin/env python
"""Everything to be learned from half an hour on one GPU, the most valuable first.

    python benchmarks/gpu_day.py prepare --output DAY           # beforehand, on any machine: shards, photos, packs
    python benchmarks/gpu_day.py run --output DAY --minutes 9   # again and again: it goes on where it was
    python benchmarks/gpu_day.py page --output DAY              # DAY/page.md and DAY/results/*.json
    python benchmarks/gpu_day.py prepare --tiny --output DAY && python benchmarks/gpu_day.py run --tiny --output DAY

No step takes 9 minutes; one that is stopped goes on, or begins again, at the next run, one that failed too. Needed are
torch and transformers; Ray is not, and a step whose package is missing (open_clip for CLIP, pydantic for the proof)
says so and is skipped. Where a folder has to travel to the GPU, keep --pictures low: 1,000 make some 40 MB.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.day import FINAL, Day, Step, do  # noqa: E402

PACKS, PHOTOS = 24, 48
SHAPES = ((1, 256), (2, 256), (2, 64))  # (stage, queries) of the packs that steps take
TINY_SHAPES = ((1, 16), (2, 16))


def steps() -> list[Step]:
    """By value: is it right, how fast is it, does it resume; then what is nice to know."""
    from benchmarks.gpu import images, machine, parity, resume, speed

    compiled = {"compile": True}
    return [
        Step("machine", "what the machine can do at best", machine.look, 60),
        Step("parity", "the same numbers as the CPU, on each path of attention", parity.compare, 300),
        Step("2b-2", "2b, stage 2", speed.measure, 240, {"size": "2b", "stage": 2}),
        Step("2b-2-compiled", "2b, stage 2, compiled", speed.measure, 420, {"size": "2b", "stage": 2} | compiled),
        Step("resume", "killed and resumed, with --deterministic", resume.kill_and_go_on, 420),
        Step("2b-1", "2b, stage 1", speed.measure, 240, {"size": "2b", "stage": 1}),
        Step("qwen-vl-1", "qwen-vl, stage 1", speed.measure, 360, {"size": "qwen-vl", "stage": 1}),
        Step("profile", "where the time of the slower stage of 2b goes", speed.profile_worst, 240),
        Step("2b-1-compiled", "2b, stage 1, compiled", speed.measure, 420, {"size": "2b", "stage": 1} | compiled),
        Step("2b-2-packs", "2b, stage 2, twice the packs", speed.measure, 240,
             {"size": "2b", "stage": 2, "micro_packs": 8}),
        Step("jpeg", "JPEGs decoded on the device", images.decode_on_the_device, 120),
        Step("clip-L", "CLIP ViT-L/14, pipeline and bare pass", images.clip_pipeline, 240, {"model": "ViT-L-14"}),
        Step("clip-bigG", "CLIP ViT-bigG/14, the same", images.clip_pipeline, 300, {"model": "ViT-bigG-14"}),
        Step("learn", "the learning proof's form for a GPU", learn_step, 530),
    ]  # fmt: skip


def learn_step(day: Day) -> dict:
    import pydantic  # noqa: F401  # checks the records that the model is asked about: better missed before the training

    from benchmarks.gpu import learning  # its report draws, which not every machine can

    return learning.train_and_ask(day)


def prepare(output: Path, tiny: bool, pictures: int, photos: Path | None) -> None:
    """Make OUTPUT/prepared; what is there already stays."""
    from benchmarks import synthetic_stage
    from benchmarks.gpu import learning

    root = output / "prepared"
    images = synthetic_stage.photos(6 if tiny else PHOTOS, photos)
    (root / "photos").mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (root / "photos" / f"{i:03d}.jpg").write_bytes(image.data)
    for stage, queries in TINY_SHAPES if tiny else SHAPES:
        folder = root / f"stage{stage}-{queries}"
        if not folder.exists():
            synthetic_stage.make(folder, stage, queries, 4 if tiny else PACKS, images[:16])
    if not (root / "learn/form.json").exists():
        learning.prepare(root / "learn", pictures, tiny)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(f"{root}: {size / 1e6:.0f} MB")


def run(day: Day, minutes: float, names: list[str] | None, again: bool) -> bool:
    """Run what is not done and fits into the time. Return whether every step that ran is done or skipped."""
    end, fine = time.monotonic() + 60 * minutes, True
    for step in steps():
        if names and step.name not in names or not again and day.result(step.name).get("outcome") in FINAL:
            continue
        if time.monotonic() + min(step.limit, 60) > end:
            print(f"{step.name}: no time left; the same command goes on with it")
            return fine
        found = in_a_process(step, day, min(step.limit, end - time.monotonic()))
        reason = (found.get("reason") or "").strip().rpartition("\n")[2]
        print(f"{step.name}: {found['outcome']}, {found['seconds']:.0f} s {reason}", flush=True)
        fine = fine and found["outcome"] in ("done", "skipped")
    write_page(day)
    return fine


def in_a_process(step: Step, day: Day, seconds: float) -> dict:
    """A process of its own: memory is given back, and what hangs or crashes costs this step alone."""
    command = [sys.executable, __file__, "step", step.name, "--output", str(day.results.parent)]
    (day.results / f"{step.name}.json").unlink(missing_ok=True)
    began, log = time.monotonic(), day.scratch("logs") / f"{step.name}.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command + ["--tiny"] * day.tiny, stdout=file, stderr=file, start_new_session=True)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_group(process)
    if found := day.result(step.name):
        return found
    spent, outcome = time.monotonic() - began, "stopped" if process.returncode in (-15, -9) else "failed"
    return day.write(step.name, outcome=outcome, seconds=round(spent, 1), values={}, checks={},
                     reason=log.read_text(errors="replace")[-3000:])  # fmt: skip


def end_group(process: subprocess.Popen) -> None:
    """SIGTERM, at which the trainer saves; SIGKILL after ten seconds."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_page(day: Day) -> None:
    """All results, one table a step: OUTPUT/page.md."""
    lines = ["# A day on one device", ""]
    for step in steps():
        found = day.result(step.name)
        outcome = f"{found['outcome']}, {found['seconds']:.0f} s" if found else "not run yet"
        lines += [f"## {step.name}: {step.what}", "", f"{outcome}. {device_line(found)}".strip(), ""]
        if rows := [*flat(found.get("values", {})), *flat(found.get("checks", {}))]:
            lines += ["| | |", "|---|---|", *(f"| {name} | {shown(value)} |" for name, value in rows), ""]
        if found.get("reason"):
            lines += ["```", found["reason"].strip()[-1500:], "```", ""]
    (day.results.parent / "page.md").write_text("\n".join(lines))


def device_line(found: dict) -> str:
    told = found.get("machine", {})
    return ", ".join(f"{name} {value}" if name != "device" else value for name, value in told.items())


def flat(values: dict, above: str = ""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}: ")
        else:
            yield f"{above}{name}", value


def shown(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**NO**"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "run", "step", "page"):
        command = commands.add_parser(name)
        command.add_argument("--output", type=Path, required=True, metavar="DAY")
        command.add_argument("--tiny", action="store_true", help="every step in its form for a CPU")
        if name == "prepare":
            command.add_argument("--pictures", type=int, default=40000, help="of each task, for the learning proof")
            command.add_argument("--photos", type=Path, metavar="DIR", help="JPEG files; default: made up")
        if name == "run":
            command.add_argument("--minutes", type=float, default=9.0, help="of this call")
            command.add_argument("--steps", nargs="+", action="extend", metavar="NAME", help="these alone")
            command.add_argument("--again", action="store_true", help="also what is done")
        if name == "step":
            command.add_argument("name", help="one step, in this process")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    output = args.output.resolve()
    day = Day(output / "prepared", output / "results", args.tiny)
    if args.command == "prepare":
        prepare(output, args.tiny, args.pictures, args.photos)
        return 0
    if args.command == "page":
        write_page(day)
        return 0
    if args.command == "step":
        (step,) = [step for step in steps() if step.name == args.name]
        return 0 if do(step, day)["outcome"] in ("done", "skipped") else 1
    return 0 if run(day, args.minutes, args.steps, args.again) else 1


if __name__ == "__main__":
    sys.exit(main())
