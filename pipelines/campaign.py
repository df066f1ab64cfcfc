#!/usr/bin/env python
"""Kill, freeze and starve every job at random moments; each has to end with the bytes of a run left alone.

In bouts: a job is struck a few times (its driver killed, Ray workers killed inside a split, everything stopped for a
while, the disk full), some of its manifests are lost in between, it is run to its end, and its folder is compared. Run
again with the same --output, the campaign goes on; the same seed strikes in the same order. Ends with a table, and with
status 1 where anything was wrong.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines.proof import crashes
from pipelines.proof.crashes import Bout, Job


def jobs(out: Path) -> list[Job]:
    """Every job whose input the demo's crawl or an earlier job of this list gives."""
    raw = out / "raw"
    return [Job(command.partition(".py")[0], command) for command in (
        f"clean_laion.py --dataset laion-en --decode --input '{raw}/en/*'",
        f"clean_captions.py --dataset cc12m --input '{raw}/en/*.tar'",
        f"clean_text.py --input '{raw}/texts/*.txt'",
        f"clean_chat.py --dataset chat-sft --input {raw}/dialogues/chat.json --images {raw}/dialogues/images",
        f"render_pdf.py --dataset common-crawl-pdf --input '{raw}/documents/*.pdf'",
        "make_scenes.py --dataset scenes-vqa --count 200 --samples-per-shard 20",
        f"dedup.py --each-other --input '{out}/jobs/clean_laion/whole/*.tar'",
    )]  # fmt: skip


def main() -> None:
    args = _parser().parse_args()
    out, deadline = Path(args.output).resolve(), time.monotonic() + 60 * args.minutes
    prepare(out)
    journal = out / "bouts.jsonl"
    done = {row["bout"] for row in _rows(journal)}
    for name, job, kind in plan(jobs(out), args.only):
        if time.monotonic() > deadline:
            break
        if name not in done:
            row = {"bout": name, "job": job.name, "kind": kind, **asdict(fight(job, kind, out, f"{args.seed}/{name}"))}
            with open(journal, "a") as file:
                file.write(json.dumps(row) + "\n")
    sys.exit(show(list(_rows(journal))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python pipelines/campaign.py --output campaign --minutes 60",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", default="campaign", metavar="DIR", help="default: campaign")
    parser.add_argument(
        "--minutes", type=float, default=60, metavar="N", help="start no bout after so many; default: 60"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--only", nargs="+", action="extend", metavar="JOB", help="only these jobs; default: all")
    return parser


def prepare(out: Path) -> None:
    """Make the crawl that the jobs read."""
    if (out / "raw" / "texts").exists():
        return
    command = [sys.executable, "pipelines/make_demo_crawl.py", "--output", str(out / "raw"), "--pairs", "100"]
    subprocess.run(command, cwd=crashes.ROOT, check=True, stdout=subprocess.DEVNULL)
    texts, rng = out / "raw" / "texts", random.Random(0)
    texts.mkdir()
    for number in range(6):
        lines = [" ".join(f"word{rng.randrange(3000)}" for _ in range(rng.randrange(5, 300))) for _ in range(200)]
        (texts / f"{number}.txt").write_text("\n".join(lines))


def plan(table: list[Job], only: list[str] | None) -> Iterator[tuple[str, Job, str]]:
    """Yield (name, job, kind of strike) without end, round after round."""
    chosen = [job for job in table if not only or job.name in only]
    kinds = [kind for kind in crashes.STRIKE if kind != "disk" or (os.geteuid() == 0 and shutil.which("unshare"))]
    for turn in count():
        yield from ((f"{turn}/{job.name}/{kind}", job, kind) for job in chosen for kind in kinds)


def fight(job: Job, kind: str, out: Path, seed: str) -> Bout:
    """Strike a job, let it finish, compare. The first time it is run alone, to have what to compare with."""
    folder = out / "jobs" / job.name
    whole, output, log, timing = folder / "whole", folder / "out", folder / "log", folder / "seconds"
    if not timing.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(whole, ignore_errors=True)
        began = time.monotonic()
        if crashes.start(job.argv(whole), log).wait():
            sys.exit(f"error: {job.name} fails when left alone: {log.read_text()[-500:]}")
        timing.write_text(str(time.monotonic() - began))
    shutil.rmtree(output, ignore_errors=True)
    log.unlink(missing_ok=True)
    bout = crashes.STRIKE[kind](job, output, log, float(timing.read_text()), random.Random(seed))
    bout.wrong += tuple(crashes.finish(job, output, whole, log))
    if "Traceback" in log.read_text():
        bout.wrong += (f"a traceback: {log}",)
    print(f"{seed}: {bout.hits} of {bout.strikes} hit, {len(bout.wrong)} wrong", *bout.wrong, flush=True)
    return bout


def _rows(journal: Path) -> Iterator[dict]:
    if journal.exists():
        yield from map(json.loads, journal.read_text().splitlines())


def show(rows: list[dict]) -> int:
    """Print the table: hits and what was wrong, by job and kind of strike. Return the exit status."""
    hits, wrong = defaultdict(int), defaultdict(int)
    for row in rows:
        hits[row["job"], row["kind"]] += row["hits"]
        wrong[row["job"], row["kind"]] += len(row["wrong"])
    print(f"\n{'job':16}" + "".join(f"{kind:>16}" for kind in crashes.STRIKE))
    for name in sorted({name for name, _ in hits}):
        cells = [f"{hits[name, kind]} hit, {wrong[name, kind]} wrong" for kind in crashes.STRIKE]
        print(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells))
    print(f"{len(rows)} bouts, {sum(hits.values())} hits, {sum(wrong.values())} wrong")
    return 1 if sum(wrong.values()) or not sum(hits.values()) else 0


if __name__ == "__main__":
    main()
