"""What the sandbox costs: building its walls, rendering PDF pages behind them, reading images behind them.

  python -m benchmarks.sandbox --input 'pdfs/*.pdf' --copies 4
  python -m benchmarks.sandbox --images 'photos/*.jpg'

The walls are timed inside fresh processes that have imported nothing else; pages in CPU seconds of the job and its
parser together, with and without locks, alternating, so that a busy machine hits both; images likewise, where without
locks there is no second process either.
"""

import argparse
import glob
import resource
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from corpus.records import decode_image, image_header, verify_image
from renderers import image_process
from renderers.confine import cpu_seconds
from renderers.image_process import lock_up_images
from renderers.pdf_process import PdfProcess, Rendered

ROOT = Path(__file__).resolve().parent.parent
_BUILD = """
import os, socket, time
from renderers import confine
answers = socket.socket(fileno=1)
os.listdir("/proc/self/task")
wall, cpu = time.perf_counter(), time.process_time()
{walls}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
answers.send(f"{1000 * wall} {1000 * cpu}".encode())
"""
_WALLS = {
    "all walls": "confine.lock_up(1, os.getppid(), 2 << 30)",
    "limits alone": "confine.die_with_parent(os.getppid()); confine.limit_process(2 << 30)",
    "empty network namespace": "confine.drop_network()",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", metavar="GLOB", help="PDF documents")
    parser.add_argument("--images", metavar="GLOB")
    parser.add_argument("--copies", type=int, default=1, help="how often to read the input in one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name, walls in _WALLS.items():
        times = [_start(walls) for _ in range(30)]
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name}: {wall:.2f} ms a start, {cpu:.2f} ms of CPU (medians of {len(times)})")
    if args.images:
        images([Path(path).read_bytes() for path in sorted(glob.glob(args.images))] * args.copies, args.rounds)
    if args.input:
        documents_behind_locks(args)


def documents_behind_locks(args) -> None:
    documents = [Path(path).read_bytes() for path in sorted(glob.glob(args.input))] * args.copies
    pages(documents[: len(documents) // args.copies], True)
    ratios = []
    for _ in range(args.rounds):
        (count, free), locked = pages(documents, False), pages(documents, True)[1]
        ratios.append(locked / free)
        print(f"{count} pages: {1000 * free / count:.2f} ms free, {1000 * locked / count:.2f} ms locked")
    print(f"locked / free: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def _start(walls: str) -> tuple[float, float]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", _BUILD.replace("{walls}", walls)]
        subprocess.run(command, cwd=ROOT, stdout=theirs, check=True)
        wall, cpu = map(float, ours.recv(1000).split())
    return wall, cpu


def pages(documents: list[bytes], sandbox: bool) -> tuple[int, float]:
    """Render everything; return the number of pages and the CPU seconds, but for those of the parser's start."""
    with PdfProcess(sandbox=sandbox) as process:
        list(process.render(b""))  # the process comes up
        before = _used(process)
        count = sum(isinstance(result, Rendered) for data in documents for result in process.render(data))
        return count, _used(process) - before


def images(files: list[bytes], rounds: int) -> None:
    """Print the CPU time of each way of reading images, here and behind locks: medians of alternating rounds."""
    for name, work in _WAYS.items():
        times = {locked: [] for locked in (False, True)}
        for _ in range(rounds):
            for locked, spent in times.items():
                lock_up_images(locked)
                before = _of_images()
                for data in files:
                    work(data)
                spent.append((_of_images() - before) / len(files))
        lock_up_images(False)
        free, locked = map(statistics.median, times.values())
        cost = f"{1000 * free:.2f} and {1000 * locked:.2f} ms, {100 * (locked / free - 1):+.1f} %"
        print(f"{len(files)} images, {name}: {1 / free:,.0f} a second of CPU here, {1 / locked:,.0f} locked ({cost})")


_WAYS = {
    "header": image_header,
    "header and check (--decode)": lambda data: (image_header(data), verify_image(data)),
    "header and pixels": lambda data: (image_header(data), decode_image(data)),
}


def _of_images() -> float:
    process = image_process._decoder._process
    return time.process_time() + (cpu_seconds(process.pid) if process else 0)


def _used(process: PdfProcess) -> float:
    ours = resource.getrusage(resource.RUSAGE_SELF)
    return ours.ru_utime + ours.ru_stime + cpu_seconds(process._process.pid)


if __name__ == "__main__":
    main()
