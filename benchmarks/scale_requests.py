"""What one more shard, sample or pack asks of an object store, for benchmarks/scale.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.fake_s3 import FakeS3
from benchmarks.processes import run
from pipelines.make_demo_crawl import make_pair, write_shard

_COMMAND = """
import sys
from pipelines import {name}
from pipelines.engine import job
sys.argv = ["{name}.py", "--workers", "0", *{words!r}]
job.main({name}.main)
"""
_PACKS = """
from corpus.packs import StageFolder
folder = StageFolder({where!r})
for i in range(len(folder)):
    folder[i]
"""


def requests(
    server: FakeS3, raw: Path, shards: tuple[int, int], samples: tuple[int, int]
) -> Iterator[tuple[str, dict]]:
    """Yield the requests that a shard more costs clean_laion.py, a sample more build_stage.py, a pack more its reader.

    By the difference of two runs each, so that what a run asks for once does not count.
    """
    clean, build, read, packs = [], [], [], []
    for number in shards:
        _upload(server, raw / str(number), f"raw-{number}", number)
        words = ["--dataset", "laion-en", "--input", f"s3://crawl/raw-{number}/*.tar",
                 "--output", f"s3://crawl/cleaned-{number}/laion-en"]  # fmt: skip
        clean.append(_asked(server, _COMMAND, name="clean_laion", words=words))
    yield "clean_laion.py, a shard", _more(clean, shards)
    for number in samples:
        words = ["--stage", "1", "--data", f"s3://crawl/cleaned-{shards[1]}", "--output", f"s3://crawl/stage-{number}",
                 "--samples", str(number), "--of", "present", "--dataset", "laion-en"]  # fmt: skip
        build.append(_asked(server, _COMMAND, name="build_stage", words=words))
        read.append(_asked(server, _PACKS, where=f"s3://crawl/stage-{number}"))
        packs.append(json.loads(server.objects[f"stage-{number}/corpus.json"]))
    yield "build_stage.py, a sample", _more(build, [each["samples"] for each in packs])
    yield "a reader of stages, a pack", _more(read, [each["packs"] for each in packs])


def _upload(server: FakeS3, raw: Path, prefix: str, number: int) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    for shard in range(number):
        write_shard(raw, shard, [make_pair(3, shard * 100 + i, "en") for i in range(100)])
    server.objects.update({f"{prefix}/{path.name}": path.read_bytes() for path in raw.iterdir()})


def _asked(server: FakeS3, code: str, **names) -> dict[str, int]:
    server.requests.clear()
    done = run(code, server.environment, **names)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(server.requests)


def _more(asked: Sequence[Mapping[str, int]], numbers: Sequence[int]) -> dict[str, float]:
    """Return what each of the second run's surplus asked for, by operation."""
    (few, many), surplus = asked, numbers[1] - numbers[0]
    each = {name: round((many.get(name, 0) - few.get(name, 0)) / surplus, 2) for name in few | many}
    return {name: number for name, number in each.items() if number}
