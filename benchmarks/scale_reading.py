"""What reading samples and packs from an object store costs, for benchmarks/scale.py: requests, and rates by clock."""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import synthetic_stage
from benchmarks.fake_s3 import FakeS3
from benchmarks.processes import run
from benchmarks.synthetic_stage import photos
from corpus.blocks import BlockCache
from corpus.folder import OutputFolder
from corpus.ledger import Fuse
from corpus.packs import CORPUS, FORMAT, StageFolder, corpus_digest, pack_members, write_corpus
from corpus.records import Sample
from corpus.shards import ShardWriter
from corpus.splits import Sink, Split
from corpus.tokens import load_tokenizer

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
_LOADER = """
import json, sys, time
from benchmarks import scale_reading
print(json.dumps(scale_reading.read_packs({data!r}, {cache!r}, {packs}, {workers}, {decode})))
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


def loader(server: FakeS3, where: Path, workers: int) -> Iterator[tuple[str, dict]]:
    """Yield packs per second and requests per pack of the trainer's loader on the store, with an empty cache each time.

    Packs of six photos; then more packs than are shuffled with one another, without images, in shards of a thousand.
    """
    photo_packs = synthetic_stage.make(where / "photos", 2, 256, 600, photos())
    put(server, "photos", photo_packs)
    for decode in (False, True):
        what = "read and decoded" if decode else "read"
        yield f"loader, photos, {what}", _loaded(server, where, "photos", 600, workers, decode)
    put(server, "texts", make_texts(where / "texts", 40, 1000))
    yield "loader, 40,000 texts, 24,000 read", _loaded(server, where, "texts", 24_000, workers, False)


def _loaded(server: FakeS3, where: Path, data: str, packs: int, workers: int, decode: bool) -> dict[str, float]:
    server.requests.clear()
    cache = where / "cache"
    names = {"packs": packs, "workers": workers, "decode": decode}
    done = run(_LOADER, server.environment, data=f"s3://crawl/{data}", cache=str(cache), **names)
    if done.returncode:
        raise RuntimeError(done.stderr)
    shutil.rmtree(cache)
    requests = server.requests.total()
    rate = round(packs / json.loads(done.stdout.splitlines()[-1]), 1)
    return {"packs/s": rate, "requests": requests, "per pack": round(requests / packs, 4)}


def read_packs(data: str, cache: str, packs: int, workers: int, decode: bool) -> float:
    """Read the first packs of a corpus in the order of training, as the trainer does; return the seconds it took."""
    from trainer.data import PackBatches, Plan, batches

    class Reading(PackBatches):
        def __getitem__(self, positions: tuple[int, ...]) -> dict:
            if decode:
                return {"packs": len(super().__getitem__(positions)["rows"])}
            self.begin(positions)
            return {"packs": sum(len(self.folder[self.pack(p)].tokens) > 0 for p in positions)}

    folder = StageFolder(data, BlockCache(cache, 32 << 30))
    form = {"image_size": 448, "attention": "isolated", "image_token": load_tokenizer().image_pad}
    dataset = Reading(folder, seed=0, order="blocks", **form)
    began = time.monotonic()
    found = sum(batch["packs"] for batch in batches(dataset, Plan(40, 8), 0, packs // 40, workers, False))
    assert found == packs, found
    return time.monotonic() - began


def make_texts(folder: Path, shards: int, packs: int) -> Path:
    """Write a stage folder of packs without images."""
    folder.mkdir()
    tokenizer, entries, rng = load_tokenizer(), [], np.random.default_rng(0)
    for number in range(shards):
        name, file = f"text-{number:05d}", io.BytesIO()
        writer = ShardWriter(file)
        for i in range(packs):
            samples = [{"key": f"{number}/{i}", "dataset": "d", "start": 0, "length": 64, "images": []}]
            writer.write(f"{name}/{i:06d}", pack_members("text", samples, rng.integers(0, 99, 64), np.ones(64), ()))
        writer.close()
        (folder / f"{name}.tar").write_bytes(file.getvalue())
        (folder / f"{name}.idx").write_bytes(writer.index())
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        (folder / f"{name}.json").write_text(json.dumps({"files": {"tar": digest}}))
        entries.append({"id": name, "packs": packs, "sha256": digest})
    record = {
        "format": FORMAT, "stage": 2, "queries": 256, "max_tokens": 2048, "max_images": 7, "tasks": {},
        "packs": shards * packs, "samples": shards * packs, "tokenizer": {"fingerprint": tokenizer.fingerprint},
        "shards": entries,
    }  # fmt: skip
    (folder / CORPUS).write_bytes(write_corpus(record | {"digest": corpus_digest(record)}))
    return folder
