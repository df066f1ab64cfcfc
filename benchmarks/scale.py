"""What very many splits cost, and what an object store that fails costs: time, memory and requests.

python benchmarks/scale.py folders --splits 500000          # a resume that finds nothing to do, and a report
python benchmarks/scale.py store --splits 5000              # the same on an S3 that answers after 30 ms
python benchmarks/scale.py planning --objects 100000        # from a glob to names and marks of files
python benchmarks/scale.py workers --splits 200000          # what scheduling adds to 30 s a split on 10,000 workers
python benchmarks/scale.py requests                         # what a shard, a sample and a pack more ask of a store
python benchmarks/scale.py chaos --splits 40 --workers 2    # 3 % of requests fail, a file is refused, a split kills
python benchmarks/scale.py stage --samples 4000             # build_stage.py from a local disk and from that S3
python benchmarks/scale.py loader --workers 8               # the trainer's packs from that S3
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa

from benchmarks import scale_reading, scale_requests
from benchmarks.fake_ray import overhead
from benchmarks.fake_s3 import FakeS3
from benchmarks.processes import measured, run
from corpus.folder import VERSION, OutputFolder, digest
from corpus.ledger import Fuse
from corpus.splits import URLS, Sink, Split
from pipelines.engine import job
from pipelines.make_demo_crawl import make_pair, write_shard

SCORES = {"length": pa.int32(), "clip_score": pa.float64()}
ROWS = 100
_LINKS = 60_000  # of one file: ext4 allows 65,000


def planned(number: int) -> Iterator[Split]:
    """Yield splits as a job plans them from a listing."""
    for i in range(number):
        mark = {"size": 1000 + i, "etag": f"{i:032x}"}
        yield Split(f"part-{i:06d}-{i * 7919 % 2**48:012x}", {"url": f"s3://crawl/part-{i:06d}.parquet"}, mark)


def work(split: Split, sink: Sink) -> None:
    """Keep the even rows."""
    rows = np.arange(ROWS)
    sink.expects(rows)
    keys = [f"many/{split.id}/{row:06d}" for row in rows]
    kept = rows % 2 == 0
    table = {"key": keys, "row": rows, "outcome": np.where(kept, "kept", "dropped"),
             "rule": pa.array(np.where(kept, "", "odd"), mask=kept), "length": rows.astype("int32"),
             "clip_score": rows / 100}  # fmt: skip
    sink.rows(pa.table(table))
    sink.write_table(pa.table({"key": keys, "row": rows}).filter(pa.array(kept)))


def make_folder(where: Path, number: int) -> None:
    """Commit one split, and `number - 1` more with its files: hard links, and manifests of their own."""
    folder = OutputFolder(str(where))
    settings = {"job": "synthetic", "version": VERSION, "dataset": "many", "limit": None}
    folder.prepare(settings)
    splits = planned(number)
    first = next(splits)
    options = {"scores": SCORES, "settings_digest": digest(settings), "fuse": Fuse(), "table": URLS}
    with Sink(folder, first, **options) as sink:
        work(first, sink)
        manifest = sink.commit()
    source = first.id
    for i, split in enumerate(splits):
        if i % _LINKS == _LINKS - 1:
            source = _copied(where, manifest.files, source, split.id)
        else:
            for suffix in manifest.files:
                os.link(where / f"{source}.{suffix}", where / f"{split.id}.{suffix}")
        told = replace(manifest, split=split.id, input=split.fingerprint, source=split.source)
        (where / f"{split.id}.json").write_bytes(told.to_json())


def _copied(where: Path, suffixes, source: str, target: str) -> str:
    for suffix in suffixes:
        (where / f"{target}.{suffix}").write_bytes((where / f"{source}.{suffix}").read_bytes())
    return target


_RESUME = """
from benchmarks import scale
scale.resume({where!r}, {number})
"""
_REPORT = """
from corpus.folder import OutputFolder
from pipelines.engine.report import write_report
write_report(OutputFolder({where!r}))
"""
_PLANNING = """
from corpus.inputs import fingerprint, names
from pipelines.engine.inputs import find_inputs
found = find_inputs(["s3://crawl/raw/*.tar"])
assert len(set(names(found).values())) == {number} and all(fingerprint(url)["size"] for url in found)
"""
_CHAOS = """
import os, sys
from pipelines import clean_laion
from pipelines.engine import job
from pipelines.make_demo_crawl import make_pair, write_shard
real = clean_laion.clean_split
def deadly(split, sink, *rest, **options):
    if {killing!r} and split.id.startswith({killing!r}):
        os._exit(9)
    return real(split, sink, *rest, **options)
clean_laion.clean_split = deadly
sys.argv = ["clean_laion.py", "--dataset", "laion-en", "--input", "s3://crawl/raw/*.tar", "--max-quarantined", "10",
            "--output", {output!r}, "--workers", "{workers}"]
job.main(clean_laion.main)
"""


def resume(where: str, number: int) -> None:
    """Run the job over a folder in which nothing is left to do."""
    args = argparse.Namespace(dataset="many", output=where, overwrite=False, limit=None, workers=0, max_quarantined=1)
    job.run("synthetic", args, list(planned(number)), {}, _never, scores=SCORES, table=URLS)


def _never(split: Split, sink: Sink) -> None:
    raise AssertionError(f"{split.id} is done already")


def folders(where: Path, number: int) -> Iterator[tuple[str, dict]]:
    """Yield what a report and a resume cost, of a folder without an index and then with one."""
    if not where.exists():
        make_folder(where, number)
    for index in ("writing the index", "from the index"):
        yield f"report, {index}", measured(_REPORT, where=str(where))
        yield f"resume, {index}", measured(_RESUME, where=str(where), number=number)


def store(server: FakeS3, where: Path, number: int) -> Iterator[tuple[str, dict]]:
    """Yield what a resume with nothing to do costs on an object store, without an index and then with one."""
    make_folder(where, number)
    server.objects.update({f"out/{path.name}": path.read_bytes() for path in where.iterdir()})
    for index in ("writing the index", "from the index"):
        server.requests.clear()
        cost = measured(_RESUME, server.environment, where="s3://crawl/out", number=number)
        requests = server.requests.total()
        yield f"resume, {index}", cost | {"requests": requests, "per 100 splits": round(100 * requests / number, 2)}


def planning(server: FakeS3, number: int) -> dict:
    """Return what it costs to plan `number` objects, and the requests by operation."""
    server.objects.update({f"raw/{i:07d}.tar": b"x" for i in range(number)})
    return measured(_PLANNING, server.environment, number=number) | {"requests": dict(server.requests)}


def chaos(server: FakeS3, raw: Path, number: int, workers: int, failing: float = 0.03) -> dict:
    """Clean a crawl on a store that fails, with a file that is refused and, given workers, a split that kills them.

    Returns what came of it: the exit status, the splits in quarantine, and the files that differ from a quiet run's,
    before and after the store is well again and the command was run once more.
    """
    for shard in range(number):
        write_shard(raw, shard, [make_pair(3, shard * 10 + i, "en") for i in range(10)])
    server.objects.update({f"raw/{path.name}": path.read_bytes() for path in raw.iterdir()})
    names = {"workers": workers, "killing": ""}
    quiet = run(_CHAOS, server.environment, output="s3://crawl/quiet", **names)
    if quiet.returncode:
        raise RuntimeError(quiet.stderr)
    server.failing, server.poison = failing, ("raw/00002.tar",)
    server.requests.clear()
    names["killing"] = "00001-" if workers else ""
    told = run(_CHAOS, server.environment, output="s3://crawl/chaos", **names)
    requests, wrong = dict(server.requests), _differences(server)
    server.failing, server.poison = 0.0, ()
    again = run(_CHAOS, server.environment, output="s3://crawl/chaos", workers=workers, killing="")
    return {
        "status": told.returncode, "said": told.stderr, "requests": requests, "different": wrong,
        "then": again.returncode, "different then": _differences(server),
    }  # fmt: skip


def _differences(server: FakeS3) -> list[str]:
    """The files of the two runs that differ, but for the report and the seconds that manifests tell."""
    quiet, chaotic = ({key.rpartition("/")[2]: _timeless(key, data) for key, data in server.objects.items()
                       if key.startswith(run) and "/report." not in key} for run in ("quiet/", "chaos/"))  # fmt: skip
    return sorted(name for name in quiet | chaotic if quiet.get(name) != chaotic.get(name))


def _timeless(key: str, data: bytes) -> bytes:
    return json.dumps(json.loads(data) | {"seconds": 0}).encode() if key.endswith(".json") else data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("folders", "store", "planning", "workers", "requests", "chaos", "stage", "loader")
    )
    parser.add_argument("--splits", type=int, default=5000, metavar="N")
    parser.add_argument("--objects", type=int, default=100_000, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--samples", type=int, default=4000, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the folder is made, or was")
    args = parser.parse_args()
    temporary = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        with FakeS3() as server:
            for name, cost in _results(args, server, temporary):
                print(f"{name}: {cost}", flush=True)
    finally:
        shutil.rmtree(temporary)


def _about_30_seconds(split: int, copy: int) -> float:
    return random.Random(f"{split} {copy}").uniform(24, 36)


def _results(args: argparse.Namespace, server: FakeS3, temporary: Path) -> Iterator[tuple[str, dict]]:
    if args.what == "folders":
        yield from folders(args.keep or temporary / "folder", args.splits)
        return
    if args.what == "workers":
        yield "workers", {"overhead": round(overhead(10_000, args.splits, _about_30_seconds), 4)}
        return
    server.latency = 0.03 if args.what not in ("chaos", "requests") else 0.0
    if args.what == "store":
        yield from store(server, temporary / "folder", args.splits)
    elif args.what == "planning":
        yield "planning", planning(server, args.objects)
    elif args.what == "stage":
        yield from scale_reading.stage(server, temporary, args.samples)
    elif args.what == "requests":
        yield from scale_requests.requests(server, temporary, (4, 8), (60, 240))
    elif args.what == "loader":
        yield from scale_reading.loader(server, temporary, args.workers)
    else:
        yield "chaos", chaos(server, temporary, args.splits, args.workers)


if __name__ == "__main__":
    main()
