"""Samples per second and core of building a stage, the tokenizer's share of it, and a bare loop that only tokenises.

Writes a cleaned folder of N captions (or texts) into a temporary folder, builds its packs in this process and counts
CPU seconds. Pictures and captions are taken in turn from the files given, with keys of their own.

    python benchmarks/build_stage.py --images 'coco/val2017/*.jpg' --captions coco/annotations/captions_val2017.json \\
        --texts 'wiki/*.txt' [--tokenizer qwen.tiktoken] [--samples 2000]
"""

import argparse
import contextlib
import glob
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpus.folder import OutputFolder  # noqa: E402
from corpus.ledger import Fuse  # noqa: E402
from corpus.records import EncodedImage, Sample  # noqa: E402
from corpus.shards import IndexedShard, ShardWriter  # noqa: E402
from corpus.splits import Sink, Split  # noqa: E402
from corpus.tokens import Tokenizer, load_tokenizer  # noqa: E402
from pipelines.build_stage import MAX_TOKENS  # noqa: E402
from pipelines.work import stage  # noqa: E402


class Stopwatch:
    """Adds up the CPU seconds spent inside wrapped functions; a function inside a timed one counts for the outer."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._busy = False

    @contextlib.contextmanager
    def around(self, owner, name: str, label: str):
        original = getattr(owner, name)

        def timed(*args, **kwargs):
            if self._busy:
                return original(*args, **kwargs)
            self._busy, start = True, time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                self._busy = False
                self.seconds[label] = self.seconds.get(label, 0) + time.process_time() - start

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)


def samples(args) -> dict[str, list[Sample]]:
    """Task -> samples."""
    images = [Path(path).read_bytes() for path in sorted(glob.glob(args.images))]
    captions = [note["caption"] for note in json.loads(Path(args.captions).read_text())["annotations"]]
    texts = [line for path in sorted(glob.glob(args.texts)) for line in Path(path).read_text().splitlines() if line]
    pairs = [
        Sample(
            key=f"bench/0/{i:06d}", dataset="bench", task="caption", language="en",
            text=captions[i % len(captions)], images=[EncodedImage(images[i % len(images)], "jpg")],
        )
        for i in range(args.samples)
    ]  # fmt: skip
    documents = [
        Sample(key=f"bench/0/{i:06d}", dataset="bench", task="text", language="en", text=texts[i % len(texts)])
        for i in range(args.samples // 2)
    ]
    return {"caption": pairs, "text": documents}


def write_cleaned(root: Path, rows: list[Sample]) -> dict:
    folder = OutputFolder(str(root / "bench"))
    folder.prepare({"job": "bench"})
    with Sink(folder, Split("00000", {}), scores={}, settings_digest="", fuse=Fuse()) as sink:
        sink.expects(range(len(rows)))
        for row, sample in enumerate(rows):
            sink.keep(sample, row)
        sink.commit()
    return {
        "folder": folder.url,
        "dataset": "bench",
        "split": "00000",
        "start": 0,
        "stop": len(rows),
        "weight": 1.0,
        "copy": 0,
    }


def build(root: Path, task: str, piece: dict, tokenizer: str | None) -> float:
    """Build the packs; return CPU seconds."""
    loaded = load_tokenizer(tokenizer)
    recipe = stage.Recipe(tokenizer, loaded.fingerprint, 256, MAX_TOKENS, MAX_TOKENS, 7, 0)
    folder = OutputFolder(str(root / f"out-{task}"))
    folder.prepare({"job": "bench"})
    start = time.process_time()
    split = Split(f"{task}-00000", {"task": task, "slices": [piece]})
    with Sink(folder, split, scores=stage.SCORES, settings_digest="", fuse=Fuse()) as sink:
        stage.build_split(split, sink, recipe)
        sink.commit()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--tokenizer")
    parser.add_argument("--samples", type=int, default=2000)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.tokenizer)
    for task, rows in samples(args).items():
        start = time.process_time()
        tokens = sum(len(tokenizer.encode(row.text)) for row in rows)
        bare = time.process_time() - start
        with tempfile.TemporaryDirectory() as temporary:
            piece = write_cleaned(Path(temporary), rows)
            seconds = build(Path(temporary), task, piece, args.tokenizer)
            watch = Stopwatch()
            with (
                watch.around(Tokenizer, "encode", "tokenizer"),
                watch.around(stage, "_check_images", "decoding pictures to check them"),
                watch.around(IndexedShard, "__getitem__", "reading"),
                watch.around(ShardWriter, "write", "writing and hashing"),
                watch.around(stage, "plan_packs", "planning"),
            ):
                timed = build(Path(temporary) / "again", task, piece, args.tokenizer)
        print(f"\n{task}: {len(rows):,} samples, {tokens:,} tokens of text")
        print(f"  building       {len(rows) / seconds:>10,.0f} samples/s/core")
        print(f"  bare tokeniser {len(rows) / bare:>10,.0f} samples/s/core, {tokens / bare:,.0f} tokens/s")
        for label, spent in sorted(watch.seconds.items(), key=lambda item: -item[1]):
            print(f"  {100 * spent / timed:>6.1f} %  {label}")
        print(f"  {100 * (1 - sum(watch.seconds.values()) / timed):>6.1f} %  the rest")


if __name__ == "__main__":
    main()
