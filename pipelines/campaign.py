#!/usr/bin/env python
"""Kill, freeze and starve every job at random moments; each has to end with the bytes of a run left alone.

In bouts: a job is struck a few times (its driver killed, Ray workers killed inside a split, everything stopped for a
while, the disk full, the server of its images failing), some of its manifests are lost in between, it is run to its
end, and its folder is compared. Run again with the same --output, the campaign goes on; the same seed strikes in the
same order. Ends with a table, and with status 1 where anything was wrong.
"""

import argparse
import json
import random
import shutil
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
from pipelines.proof.crashes import Bout
from pipelines.proof.jobs import Job, prepare, table


def main() -> None:
    args = make_parser().parse_args()
    out, deadline = Path(args.output).resolve(), time.monotonic() + 60 * args.minutes
    journal = out / "bouts.jsonl"
    with prepare(out) as server:
        done, jobs = {row["bout"] for row in _rows(journal)}, table(out, server)
        for name, job, kind in plan(jobs, args.only, args.kinds):
            if time.monotonic() > deadline:
                break
            if name not in done:
                bout = fight(job, kind, jobs, out, f"{args.seed}/{name}")
                with open(journal, "a") as file:
                    file.write(json.dumps({"bout": name, "job": job.name, "kind": kind, **asdict(bout)}) + "\n")
    sys.exit(show(list(_rows(journal))))


def make_parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--kinds", nargs="+", action="extend", choices=crashes.STRIKE, help="only these strikes; default: all"
    )
    return parser


def plan(table: list[Job], only: list[str] | None, kinds: list[str] | None) -> Iterator[tuple[str, Job, str]]:
    """Yield (name, job, kind of strike) without end, round after round."""
    chosen = [(job, kind) for job in table if not only or job.name in only
              for kind in job.kinds() if not kinds or kind in kinds]  # fmt: skip
    for turn in count() if chosen else ():
        yield from ((f"{turn}/{job.name}/{kind}", job, kind) for job, kind in chosen)


def quiet(job: Job, table: list[Job], out: Path) -> float:
    """Run a job alone, once, after those that it needs, to have what to compare with; return the seconds it took."""
    folder = out / "jobs" / job.name
    timing = folder / "seconds"
    if not timing.exists():
        for needed in (other for other in table if other.name in job.needs):
            quiet(needed, table, out)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "whole", ignore_errors=True)
        ended = crashes.left_alone(job, folder / "whole", folder / "log")
        if ended.wrong:
            sys.exit(f"error: {job.name} fails when left alone: {'; '.join(ended.wrong)}")
        timing.write_text(str(ended.seconds))
    return float(timing.read_text())


def fight(job: Job, kind: str, table: list[Job], out: Path, seed: str) -> Bout:
    """Strike a job, let it finish, compare."""
    folder, seconds = out / "jobs" / job.name, quiet(job, table, out)
    output, log = folder / "out", folder / "log"
    shutil.rmtree(output, ignore_errors=True)
    log.unlink(missing_ok=True)
    bout = crashes.STRIKE[kind](job, output, log, seconds, random.Random(seed))
    ended = crashes.finish(job, output, folder / "whole", log)
    bout.cpu_seconds, bout.megabytes = ended.cpu_seconds, ended.megabytes
    bout.wrong += ended.wrong
    if "Traceback" in log.read_text():
        bout.wrong += (f"a traceback: {log}",)
    if bout.wrong:
        shutil.copy(log, folder / f"{kind}-{time.time():.0f}.log")
    print(f"{seed}: {bout.hits} of {bout.strikes} hit, {len(bout.wrong)} wrong", *bout.wrong, flush=True)
    return bout


def _rows(journal: Path) -> Iterator[dict]:
    if journal.exists():
        yield from map(json.loads, journal.read_text().splitlines())


def show(rows: list[dict]) -> int:
    """Print the table: hits and what was wrong, by job and kind of strike. Return the exit status."""
    hits, wrong = defaultdict(int), defaultdict(int)
    most: dict[str, tuple[float, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        hits[row["job"], row["kind"]] += row["hits"]
        wrong[row["job"], row["kind"]] += len(row["wrong"])
        most[row["job"]] = max(most[row["job"]][0], row["cpu_seconds"]), max(most[row["job"]][1], row["megabytes"])
    print(f"\n{'hits (wrong)':18}" + "".join(f"{kind:>10}" for kind in crashes.STRIKE) + "   most CPU s, MB")
    for name in sorted({name for name, _ in hits}):
        cells = [
            f"{hits[name, kind]} ({wrong[name, kind]})" if (name, kind) in hits else "-" for kind in crashes.STRIKE
        ]
        print(f"{name:18}" + "".join(f"{cell:>10}" for cell in cells) + "{:9.1f}{:7}".format(*most[name]))
    print(f"{len(rows)} bouts, {sum(hits.values())} hits, {sum(wrong.values())} wrong")
    return 1 if sum(wrong.values()) or not sum(hits.values()) else 0


if __name__ == "__main__":
    main()
