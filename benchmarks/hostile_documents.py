"""Mutated and malicious documents through the whole jobs: they end, account for everything and stay within memory.

  python -m benchmarks.hostile_documents pdf  --seeds 'pdfs/*.pdf'    --mutants 1000
  python -m benchmarks.hostile_documents html --seeds 'pages/*.html'  --mutants 300

Mutants are seeded: bit flips, truncation, objects spliced from other files, swapped halves, repeated slices. To the
HTML come pages built to hang: endless tables, 10,000-deep nesting, 100 MB of text, a 1,000,000-pixel-tall page.
"""

import argparse
import collections
import glob
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("pdf", "html"))
    parser.add_argument("--seeds", required=True, metavar="GLOB")
    parser.add_argument("--mutants", type=int, required=True)
    parser.add_argument("--page-seconds", type=float, default=5.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = write_mutants(Path(folder), args.kind, sorted(glob.glob(args.seeds, recursive=True)), args.mutants)
        run(Path(folder), args.kind, made, args.page_seconds)


def write_mutants(folder: Path, kind: str, seeds: list[str], count: int) -> int:
    """Write `count` mutants (for HTML the malicious pages among them); return how many documents there are."""
    originals = [Path(seed).read_bytes() for seed in seeds]
    extra = malicious_pages() if kind == "html" else {}
    for name, data in extra.items():
        (folder / f"{name}.html").write_bytes(data)
    for number in range(count - len(extra)):
        (folder / f"mutant-{number:04d}.{kind}").write_bytes(mutate(originals, random.Random(number)))
    return count


def mutate(originals: list[bytes], rng: random.Random) -> bytes:
    """Damage one of the files in one of seven ways."""
    data, other = bytearray(rng.choice(originals)), rng.choice(originals)
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 2000)
    damage = rng.randrange(7)
    if damage == 0:
        for _ in range(rng.choice((1, 10, 100, 1000))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif damage == 1:
        del data[at:]
    elif damage == 2:
        start = rng.randrange(len(other))
        data[at : at + length] = other[start : start + length]
    elif damage == 3:
        data = data[at:] + data[:at]
    elif damage == 4:
        data[at:at] = data[at : at + length] * rng.randrange(2, 200)
    elif damage == 5:
        for digit in rng.sample(range(len(data)), min(200, len(data))):
            if 48 <= data[digit] <= 57:
                data[digit] = 48 + rng.randrange(10)
    else:
        data[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(data)


def malicious_pages() -> dict[str, bytes]:
    """Pages that hang, flood or overgrow a browser."""
    style = "<style>div{display:flex;flex-wrap:wrap}</style>"
    return {
        "deep": b"<div>" * 10_000 + b"bottom",
        "deep-tables": b"<table><tr><td>" * 3_000 + b"bottom",
        "deep-flex": style.encode() + b"<div>" * 400 + b"bottom of a flex box",
        "text-100mb": b"<p>" + b"many words without an end " * 4_000_000,
        "text-4mb": b"<p>" + b"many words without an end " * 160_000,
        "no-spaces": b"<p>" + b"x" * 4_000_000,
        "million-tall": b"<div style='height:1000000px;background:linear-gradient(red,blue)'>top</div><p>bottom",
        "million-wide": b"<div style='width:1000000px'>wide</div>",
        "cells": b"<table>" + (b"<tr>" + b"<td>x" * 100) * 5_000,
        "script-loop": b"<script>while(1);</script><p>text of a page with a loop in its script",
        "refresh": b"<meta http-equiv=refresh content='0'><p>text of a page that reloads itself for ever",
        "frames": b"<iframe srcdoc='" + b"&lt;iframe srcdoc=x>" * 500 + b"'></iframe><p>text beside many frames",
        "svg": b"<svg>" + b"<g transform='rotate(1)'>" * 2_000 + b"<text y=20>turned and turned</text>",
        "use-bomb": b"<svg><g id=a><text y=9>lol lol</text></g>"
        + b"".join(b"<g id=%c>" % c + b"<use href='#%c'/>" % (c - 1) * 10 + b"</g>" for c in range(98, 108)),
        "filters": b"<style>*{filter:blur(50px);animation:a 1s infinite}@keyframes a{to{rotate:9deg}}</style>"
        + b"<p>blurred text" * 3_000,
        "entities": b"<p>" + b"&amp;" * 500_000,
        "big-image": b'<img src=\'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="60000" '
        b'height="60000"/>\'><p>text under a picture that is far too large',
        "columns": b"<style>body{columns:2000 1px}</style>" + b"word " * 50_000,
        "counters": b"<style>p::before{content:counter(x)}p{counter-increment:x 999999999}</style>" + b"<p>x" * 20_000,
        "nul": b"\0" * 1_000_000,
        "bom16": b"\xff\xfe" + "<p>sixteen bits of every letter</p>".encode("utf-16-le") * 100,
    }


def run(folder: Path, kind: str, count: int, page_seconds: float) -> None:
    """Run the job over the folder; print what became of the documents, and the most memory a process tree held."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, str(ROOT / f"pipelines/render_{kind}.py"), "--input", f"{folder}/*", "--output", output,
            "--workers", "0", "--page-seconds", str(page_seconds),
        ]  # fmt: skip
        started = time.monotonic()
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peaks = collections.Counter()
        threading.Thread(target=watch, args=(job.pid, peaks), daemon=True).start()
        _, errors = job.communicate()
        if job.returncode:
            sys.exit(f"the job failed with status {job.returncode}:\n{errors[-3000:]}")
        rows = [row for path in sorted(Path(output).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    documents = {row["document"] for row in rows}
    outcomes = collections.Counter(row["rule"] or row["outcome"] for row in rows)
    print(f"{count} documents, {len(documents)} in the ledger, {len(rows)} rows, {time.monotonic() - started:.0f} s")
    print("  ".join(f"{name} {number}" for name, number in outcomes.most_common()))
    print("most resident memory, MiB: " + "  ".join(f"{name} {value >> 20}" for name, value in peaks.items()))
    if len(documents) != count:
        sys.exit("documents are missing from the ledger")


def watch(root: int, peaks: collections.Counter) -> None:
    """Note the most memory held by the job itself and by all processes below it together."""
    while True:
        try:
            job = psutil.Process(root)
            below = [process.memory_info() for process in job.children(recursive=True)]
            peaks["job"] = max(peaks["job"], job.memory_info().rss)
            peaks["below"] = max(peaks["below"], sum(info.rss - info.shared for info in below))
        except psutil.NoSuchProcess:
            if not psutil.pid_exists(root):
                return
        time.sleep(0.3)


if __name__ == "__main__":
    main()
