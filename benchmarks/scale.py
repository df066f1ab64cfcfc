"""What folders of very many splits cost: a resume that finds nothing to do, and a report; time and memory, by splits.

python benchmarks/scale.py folders --splits 500000 --keep /tmp/many
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa

from corpus.folder import VERSION, OutputFolder, digest
from corpus.ledger import Fuse
from corpus.splits import Sink, Split
from pipelines.engine import job

SCORES = {"length": pa.int32(), "clip_score": pa.float64()}
SETTINGS = {"job": "synthetic", "dataset": "many", "rules": {}}
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
    folder, settings = (
        OutputFolder(str(where)),
        {"job": "synthetic", "version": VERSION, "dataset": "many", "limit": None},
    )
    folder.prepare(settings)
    splits = planned(number)
    first = next(splits)
    options = {"scores": SCORES, "settings_digest": digest(settings), "fuse": Fuse(), "table": True}
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
import argparse, sys
sys.path.insert(0, {root!r})
from benchmarks import scale
scale.resume({where!r}, {number})
"""
_REPORT = """
import sys
sys.path.insert(0, {root!r})
from corpus.folder import OutputFolder
from pipelines.engine.report import write_report
print(write_report(OutputFolder({where!r})).counts)
"""


def resume(where: str, number: int) -> None:
    """Run the job over a folder in which nothing is left to do."""
    args = argparse.Namespace(dataset="many", output=where, overwrite=False, limit=None, workers=0, max_quarantined=1.0)
    job.run("synthetic", args, list(planned(number)), {}, _never, scores=SCORES, table=True)


def _never(split: Split, sink: Sink) -> None:
    raise AssertionError(f"{split.id} is done already")


def measured(code: str, **names) -> dict:
    """Run code in a process of its own; return its wall and CPU seconds and its peak memory in MB."""
    code = code.format(root=str(Path(__file__).resolve().parent.parent), **names)
    wrapped = f"{code}\nimport resource, json\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
    wrapped += "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": round(time.monotonic() - began, 1), "CPU s": round(cpu, 1), "MB": round(memory)}


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), int(sys.argv[2])
    if not where.exists():
        began = time.monotonic()
        make_folder(where, number)
        print("made in", time.monotonic() - began)
    print("report", measured(_REPORT, where=str(where)))
    print("resume", measured(_RESUME, where=str(where), number=number))
