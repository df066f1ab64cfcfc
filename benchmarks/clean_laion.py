#!/usr/bin/env python
"""Time clean_laion.py as a whole, as a user runs it: one process, start-up, ledger, commit and report included.

Metadata mode over parquet of LAION-like rows; image mode over shards of real JPEGs beside a bare tarfile-to-tarfile
copy of the same shards; start-up alone. CPU seconds (user + system) of the child process, from the operating system.

    python benchmarks/clean_laion.py --rows 2000000
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not benchmarks/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.text_rules import corpus
from pipelines.make_demo_crawl import make_pair, write_shard

ROOT = Path(__file__).resolve().parent.parent
_COPY = "import sys; from benchmarks.clean_laion import copy; copy(*sys.argv[1:])"


def copy(source: str, target: str) -> None:
    """Copy every member of the tars in `source` with the standard library, as bare as it gets."""
    for path in sorted(Path(source).glob("*.tar")):
        with tarfile.open(path) as old, tarfile.open(Path(target) / path.name, "w") as new:
            for member in old:
                new.addfile(member, old.extractfile(member))


def child(*command: str) -> tuple[float, float, float]:
    """Run a command; return (CPU seconds, wall seconds, peak MiB)."""
    began = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors.decode())
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024


def clean(source: Path, output: Path, *more: str) -> tuple[float, float, float]:
    job = (sys.executable, "pipelines/clean_laion.py", "--dataset", "laion-en", "--workers", "0")
    return child(*job, "--input", f"{source}/*", "--output", str(output), *more)


def metadata(folder: Path, rows: int, times: int) -> None:
    """All text and metadata rules, parquet to ledger and cleaned parquet; then the same rows `times` times over."""
    (folder / "urls").mkdir()
    table = corpus(rows, 0)
    table = table.rename_columns({"text": "TEXT", "width": "WIDTH", "height": "HEIGHT", "clip_score": "similarity"})
    urls = pa.array([f"https://images.example.com/{i:09d}.jpg" for i in range(rows)])
    pq.write_table(table.append_column("URL", urls), folder / "urls" / "000.parquet", row_group_size=131_072)
    del table, urls
    for repeat in (1, times) if times > 1 else (1,):
        for i in range(1, repeat):
            os.link(folder / "urls" / "000.parquet", folder / "urls" / f"{i:03d}.parquet")
        seconds, wall, peak = clean(folder / "urls", folder / f"cleaned{repeat}")
        done = rows * repeat
        speed = f"{done:,} rows, {seconds:.1f} CPU s ({wall:.1f} s), {done / seconds:,.0f} rows/s/core"
        print(f"metadata mode: {speed}, peak {peak:,.0f} MiB", flush=True)


def images(folder: Path, shards: int, pairs: int) -> None:
    """Image mode from local shards against a bare copy of them, three times each in turn."""
    (folder / "raw").mkdir()
    (folder / "copy").mkdir()
    first = [make_pair(0, i, "en") for i in range(pairs)]
    for shard in range(shards):
        write_shard(folder / "raw", shard, first)
    total = shards * pairs
    ratios = []
    for i in range(3):
        copied, _, _ = child(sys.executable, "-c", _COPY, str(folder / "raw"), str(folder / "copy"))
        cleaned, _, peak = clean(folder / "raw", folder / f"images{i}")
        ratios.append(copied / cleaned)
        speed = f"clean {cleaned:.2f} CPU s ({total / cleaned:,.0f} pairs/s/core, peak {peak:,.0f} MiB)"
        print(f"image mode: {total:,} pairs: copy {copied:.2f} CPU s, {speed}, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {sorted(ratios)[1]:.2f}")


def start_up(folder: Path) -> None:
    """One row in, one row out."""
    (folder / "one").mkdir()
    write_shard(folder / "one", 0, [make_pair(0, 0, "en")])
    seconds, wall, _ = clean(folder / "one", folder / "one-out")
    print(f"start to finish over one row with --workers 0: {wall:.1f} s ({seconds:.1f} CPU s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--times", type=int, default=1, help="the same file so many times, for memory")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start_up(Path(folder))
        images(Path(folder), args.shards, args.pairs)
        metadata(Path(folder), args.rows, args.times)


if __name__ == "__main__":
    main()
