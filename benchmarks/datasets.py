#!/usr/bin/env python
"""Time what the jobs over annotated datasets spend their time on, in CPU seconds of one core."""

import argparse
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not benchmarks/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cleaners.captions import CANDIDATE, longest_per_image
from cleaners.dedup import PROBE_VIEWS, Rows, near_pairs
from cleaners.documents import mend, signature
from cleaners.grounding import boxes_in, exact, greedy, group
from cleaners.phash import LONG_BYTES, VIEWS, hash_views
from corpus.readers.boundary import made_of
from corpus.readers.grounding import GritPair, grit, read_grit
from corpus.readers.json_scan import scan
from corpus.readers.slices import plan
from corpus.records import decode_image

CAPTIONS = 100_000


def timed(work: Callable) -> tuple[float, object]:
    """Return (CPU seconds, result)."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def grit_phrases(rng: random.Random) -> tuple[list, list]:
    """Invent noun chunks and referring expressions in GRIT's shape: expressions reach from a chunk over later ones."""
    chunks, expressions, spans, at = [], [], [], 0
    for _ in range(rng.randint(1, 6)):
        spans.append((at, at + rng.randint(4, 18)))
        at = spans[-1][1] + rng.randint(1, 12)
    for i, (start, end) in enumerate(spans):
        boxes = [[rng.random() * 0.5, rng.random() * 0.5, 0.9, 0.9, 0.7] for _ in range(rng.choice([1, 1, 1, 1, 2, 3]))]
        last = spans[min(len(spans) - 1, i + rng.choice([0, 0, 1, 2]))][1]
        chunks += [[start, end, *box] for box in boxes]
        expressions += [[start, last, *box] for box in boxes[: rng.randint(1, len(boxes))]]
    return chunks, expressions


def grit_file(path: Path) -> None:
    rng = random.Random(1)
    rows = [grit_phrases(rng) for _ in range(CAPTIONS)]
    kind = pa.list_(pa.list_(pa.float64()))
    table = {"caption": ["x" * 200] * CAPTIONS, "id": range(CAPTIONS), "url": ["u"] * CAPTIONS, "key": ["k"] * CAPTIONS}
    columns = {name: pa.array(values) for name, values in table.items()}
    columns |= {n: pa.array([r[i] for r in rows], kind) for i, n in enumerate(("noun_chunks", "ref_exps"))}
    pq.write_table(pa.table(columns), path)


def time_grit(folder: Path) -> None:
    path = folder / "grit.parquet"
    grit_file(path)
    (piece,) = plan(str(path), CAPTIONS)
    rows = lambda: (made_of(record, lambda r: grit(r, {}, ""), GritPair)[0] for _, record in read_grit(piece))  # noqa: E731
    seconds, _ = timed(lambda: sum(len(row.phrases) for row in rows()))
    print(f"GRIT, read rows            {60 * CAPTIONS / seconds:>14,.0f} captions a minute")
    phrases = [[(p.start, p.end, p.box, p.score) for p in row.phrases] for row in rows()]
    for choose in (greedy, exact):
        seconds, chosen = timed(lambda choose=choose: [choose(group(items)) for items in phrases])
        boxes = sum(map(boxes_in, chosen))
        print(f"GRIT, {choose.__name__:<21}{60 * CAPTIONS / seconds:>14,.0f} captions a minute, {boxes:,} boxes kept")


def time_images(paths: list[str]) -> None:
    data = [Path(path).read_bytes() for path in paths]
    decoding, images = timed(lambda: [decode_image(item) for item in data])
    hashing, _ = timed(lambda: [hash_views(image) for image in images])
    print(f"decode a photo             {1000 * decoding / len(data):>14.1f} ms")
    print(f"hash its {VIEWS} views         {1000 * hashing / len(data):>14.1f} ms")


def time_pairs() -> None:
    for count in (25_000, 50_000, 100_000):
        rng = np.random.default_rng(1)
        probes = rng.integers(0, 1 << 21, (count, len(PROBE_VIEWS)), np.uint64)
        long = rng.integers(0, 256, (count, VIEWS * LONG_BYTES), np.uint8)
        seconds, _ = timed(lambda probes=probes, long=long: near_pairs(Rows(probes), Rows(long)))
        print(f"near pairs of {count:>7,}      {1e6 * seconds / count:>14.1f} us an image")


def time_texts() -> None:
    rng = random.Random(2)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20_000)]
    texts = [" ".join(rng.choices(words, k=600)) for _ in range(400)]
    size = sum(map(len, texts)) / 1e6
    for name, work in (("mend documents", mend), ("MinHash signatures", signature)):
        seconds, _ = timed(lambda work=work: [work(text) for text in texts])
        print(f"{name:<27}{size / seconds:>14.1f} M characters a second")


def time_json_and_longest() -> None:
    notes = [{"id": i, "image_id": i // 5, "caption": f"a photo of thing {i} on a table"} for i in range(400_000)]
    data = json.dumps({"images": [], "annotations": notes}).encode()
    seconds, _ = timed(lambda: sum(1 for _ in scan(io.BytesIO(data))))
    print(f"scan JSON                  {len(data) / seconds / 1e6:>14.0f} MB a second")
    rng = np.random.default_rng(3)
    splits = []
    for _ in range(10):
        found = np.empty(200_000, CANDIDATE)
        found["image"] = rng.integers(0, 1 << 18, 200_000, np.uint64) << np.uint64(46)
        found["length"], found["row"] = rng.integers(5, 100, 200_000), np.arange(200_000)
        splits.append(np.sort(found, order=["image", "row"]))
    seconds, _ = timed(lambda: longest_per_image(splits))
    print(f"longest text of an image   {2e6 / seconds / 1e6:>14.1f} M texts a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", nargs="*", action="extend", default=[], metavar="FILE", help="photos to decode and hash"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_grit(Path(folder))
    if args.images:
        time_images(args.images)
    time_pairs()
    time_texts()
    time_json_and_longest()


if __name__ == "__main__":
    main()
