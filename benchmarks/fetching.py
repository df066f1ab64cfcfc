"""Images per CPU second of the downloader, beside img2dataset, against a server on loopback; memory over many URLs.

The server runs in a process of its own and its CPU is not counted; neither is start-up: the numbers are the slope
between a short and a long run.

    python benchmarks/fetching.py --img2dataset /path/to/venv/bin/img2dataset
    python benchmarks/fetching.py --memory 100000
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from PIL import Image, ImageChops  # noqa: E402

from pipelines.proof.scenes.scene import scene  # noqa: E402

SHORT, LONG = 500, 2500


def photo(seed: int, side: int) -> bytes:
    """A JPEG about as heavy as a photograph of that size: a scene with grain."""
    image = scene(seed, side).image
    grain = Image.effect_noise(image.size, 24).convert("RGB")
    file = io.BytesIO()
    ImageChops.add(image, grain, scale=2).save(file, "JPEG", quality=85)
    return file.getvalue()


class Photos(asyncio.Protocol):
    """Answers any GET with one of the photos, on kept connections."""

    answers: list[bytes] = []

    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        while b"\r\n\r\n" in self.seen:
            head, _, self.seen = self.seen.partition(b"\r\n\r\n")
            number = int(head.split(b" ")[1].rsplit(b"/", 1)[1].split(b".")[0])
            self.transport.write(self.answers[number % len(self.answers)])


def serve(side: int, port) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    Photos.answers = [head % len(body) + body for body in (photo(i, side) for i in range(64))]

    async def run():
        server = await asyncio.get_running_loop().create_server(Photos, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


def start_server(side: int) -> tuple[multiprocessing.Process, int]:
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=serve, args=(side, port), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.05)
    return process, port.value


def url_list(folder: Path, port: int, count: int) -> Path:
    path = folder / f"urls{count}.parquet"
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(count)]
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"a caption of image {i}" for i in range(count)]}), path)
    return path


def ours(source: Path, output: Path) -> list[str]:
    return [sys.executable, str(ROOT / "pipelines/fetch_images.py"), "--dataset", "laion-en", "--input", str(source),
            "--output", str(output), "--workers", "0", "--allow-private", "--per-host", "64",
            "--connections", "64"]  # fmt: skip


def theirs(program: str, source: Path, output: Path, *options: str) -> list[str]:
    return [program, "--url_list", str(source), "--input_format", "parquet", "--url_col", "URL",
            "--caption_col", "TEXT", "--output_format", "webdataset", "--output_folder", str(output),
            "--processes_count", "1", "--thread_count", "64", *options]  # fmt: skip


def cost(command: list[str], output: Path) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of a command with its children."""
    shutil.rmtree(output, ignore_errors=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(output, ignore_errors=True)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - started


def compare(program: str | None, side: int) -> None:
    server, port = start_server(side)
    folder = Path(tempfile.mkdtemp(prefix="fetching-"))
    lists = {count: url_list(folder, port, count) for count in (SHORT, LONG)}
    tools = {"fetch_images.py": lambda source: ours(source, folder / "out")}
    if program:
        passing = ("--resize_mode", "no", "--skip_reencode", "True")
        tools["img2dataset, pass-through"] = lambda source: theirs(program, source, folder / "out", *passing)
        tools["img2dataset, default (256)"] = lambda source: theirs(program, source, folder / "out")
    size = sum(len(photo(i, side)) for i in range(8)) / 8
    print(f"{side} x {side} JPEG of {size / 1000:.0f} kB, {LONG:,} against {SHORT} URLs, one process each")
    print(f"{'':<28}{'images/CPU s':>14}{'images/s, start-up too':>24}{'start-up CPU s':>16}")
    for name, command in tools.items():
        cpu_short, wall_short = cost(command(lists[SHORT]), folder / "out")
        cpu_long, wall_long = cost(command(lists[LONG]), folder / "out")
        per_image = (cpu_long - cpu_short) / (LONG - SHORT)
        speed = LONG / wall_long
        print(f"{name:<28}{1 / per_image:>14.0f}{speed:>24.0f}{cpu_short - SHORT * per_image:>16.1f}", flush=True)
    shutil.rmtree(folder)
    server.terminate()


def memory(count: int) -> None:
    """Resident memory of one worker while it fetches `count` URLs."""
    server, port = start_server(64)
    folder = Path(tempfile.mkdtemp(prefix="fetching-"))
    command = ours(url_list(folder, port, count), folder / "out")
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples, watched = [], psutil.Process(process.pid)
    watcher = threading.Thread(target=process.wait)
    watcher.start()
    while watcher.is_alive():
        done = len(list((folder / "out").glob("*-*.json"))) if (folder / "out").exists() else 0
        try:
            samples.append((done, watched.memory_info().rss / 2**20))
        except psutil.Error:
            break
        time.sleep(0.2)
    watcher.join()
    print(f"{count} URLs in {time.monotonic() - started:.0f} s, exit {process.returncode}; MiB resident, at most:")
    for done in sorted({d for d, _ in samples}):
        print(f"  {done:>3} splits done  {max(m for d, m in samples if d == done):8.0f}")
    shutil.rmtree(folder)
    server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", metavar="PROGRAM", help="its command, from an environment of its own")
    parser.add_argument("--side", type=int, default=512, help="pixels of the images served")
    parser.add_argument("--memory", type=int, metavar="URLS", help="watch the memory over so many URLs instead")
    args = parser.parse_args()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    if args.memory:
        memory(args.memory)
    else:
        compare(args.img2dataset, args.side)


if __name__ == "__main__":
    main()
