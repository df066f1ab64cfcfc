"""What reading samples and packs from an object store costs, for benchmarks/scale.py: requests, and rates by clock."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.fake_s3 import FakeS3
from benchmarks.processes import run
from benchmarks.synthetic_stage import photos
from corpus.folder import OutputFolder
from corpus.ledger import Fuse
from corpus.records import Sample
from corpus.splits import Sink, Split

DATASET = "coco-caption"
_STAGE = """
import json, resource, sys, time
from pipelines import build_stage
sys.argv = ["build_stage.py", "--stage", "1", "--data", {data!r}, "--output", {output!r}, "--workers", "0"]
began, cpu = time.monotonic(), time.process_time()
build_stage.main()
seconds = [round(time.monotonic() - began, 2), round(time.process_time() - cpu, 2)]
print(json.dumps(seconds + [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
"""


def put(server: FakeS3, prefix: str, folder: Path) -> None:
    """Copy a folder to the store."""
    files = (path for path in folder.rglob("*") if path.is_file())
    server.objects.update({f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in files})


def make_cleaned(root: Path, number: int, splits: int = 2) -> None:
    """Write a cleaned folder of captioned photos of 640 x 480."""
    folder, pictures = OutputFolder(str(root / DATASET)), photos()
    folder.prepare({"job": "benchmark", "guard": {"sets": {}, "exclude": [], "unguarded": []}})
    for split in range(splits):
        with Sink(folder, Split(f"{split:05d}", {}), scores={}, settings_digest="", fuse=Fuse()) as sink:
            sink.expects(np.arange(number // splits))
            for row in range(number // splits):
                key, image = f"{DATASET}/{split:05d}/{row:06d}", pictures[row % len(pictures)]
                text = f"Photo {row} of a street with people, taken on a rainy day in autumn."
                sink.keep(Sample(key=key, dataset=DATASET, task="caption", language="en", text=text, images=[image],
                                 width=640, height=480), row)  # fmt: skip
            sink.commit()


def stage(server: FakeS3, where: Path, number: int) -> Iterator[tuple[str, dict]]:
    """Yield samples per second, start-up aside, and requests per sample of building a stage, locally and on the store.

    Raises AssertionError where the two differ in a byte.
    """
    make_cleaned(where / "cleaned", number)
    put(server, "cleaned", where / "cleaned")
    yield "stage, local", _built(server, where / "cleaned", where / "stage", number)
    server.requests.clear()
    cost = _built(server, "s3://crawl/cleaned", "s3://crawl/stage", number)
    cost |= {"requests": server.requests.total(), "per sample": round(server.requests.total() / number, 4)}
    for path in [*(where / "stage").glob("*.tar"), *(where / "stage").glob("*.parquet")]:
        assert server.objects[f"stage/{path.name}"] == path.read_bytes(), path
    yield "stage, store", cost


def _built(server: FakeS3, data: Path | str, output: Path | str, number: int) -> dict[str, float]:
    done = run(_STAGE, server.environment, data=str(data), output=str(output))
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return {"samples/s": round(number / seconds, 1), "CPU ms/sample": round(1000 * cpu / number, 2), "MB": memory}
