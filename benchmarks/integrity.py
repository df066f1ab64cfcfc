"""What it costs that every sample is verified when it is read, and how fast verify.py reads.

    python benchmarks/integrity.py [--images 'coco/val2017/*.jpg'] [--before CHECKOUT]

CPU seconds of this process, one thread, everything in the page cache: a disk only makes the share smaller. The same
shard is read with its index and with one of version 1, which has no checksums, in turn; the least of several rounds
counts. `--before`: a checkout from before the checksums, whose reader is timed on the same tar, too. The last lines
read and decode the packs of a stage, as a worker of the trainer does.
"""

import argparse
import glob
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks import synthetic_stage  # noqa: E402
from corpus.packs import StageFolder  # noqa: E402
from corpus.shards import IndexedShard, ShardWriter  # noqa: E402
from trainer.batch import collate, make_row  # noqa: E402

SIZES = (4_000, 40_000, 137_000, 400_000)
BYTES = 80_000_000
ROUNDS = 7
READ_BEFORE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from corpus.shards import IndexedShard
shard, best = IndexedShard(sys.argv[2]), 9e9
for _ in range(int(sys.argv[3])):
    began = time.process_time()
    for i in range(len(shard)):
        shard[i]
    best = min(best, (time.process_time() - began) / len(shard))
print(best)
"""


def write(folder: Path, images: list[bytes]) -> Path:
    """Write a shard of samples as a cleaning job does, and beside it the same with an index of version 1."""
    for name in ("with", "without"):
        with open(folder / f"{name}.tar", "wb") as file:
            writer = ShardWriter(file)
            for i, image in enumerate(images):
                writer.write(f"set/00000/{i:06d}", [("jpg", image), ("txt", b"a caption " * 6), ("json", b"{}" * 200)])
            writer.close()
        (folder / f"{name}.idx").write_bytes(writer.index())
    offsets = IndexedShard(str(folder / "with.tar"))._index.offsets
    (folder / "without.idx").write_bytes(np.asarray(offsets, "<u8").tobytes())
    return folder


def seconds(work, items) -> float:
    began = time.process_time()
    for item in items:
        work(item)
    return (time.process_time() - began) / len(items)


def least(*works) -> list[float]:
    """The least seconds per item of each (function, items), run in turn."""
    rounds = [[seconds(work, items) for work, items in works] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def reading(images: list[bytes], name: str, before: str | None) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root), images)
        checked, unchecked = (IndexedShard(str(folder / f"{name}.tar")) for name in ("with", "without"))
        order = range(len(images))
        with_sums, without = least((checked.__getitem__, order), (unchecked.__getitem__, order))
        line = f"{name:<22}{without * 1e6:>12.1f}{with_sums * 1e6:>12.1f}{(with_sums - without) * 1e6:>10.1f}"
        if before:
            command = [sys.executable, "-c", READ_BEFORE, before, str(folder / "without.tar"), str(ROUNDS)]
            old = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            line += f"{old * 1e6:>12.1f}{100 * (with_sums / old - 1):>+10.1f} %"
        print(line)


def packs(photos) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        for stage, size in ((1, 224), (2, 448)):
            folder = StageFolder(synthetic_stage.make(Path(root) / str(stage), stage, 256, 48, photos))
            form = {"image_size": size, "attention": "isolated", "queries": 256}
            form["image_token"] = folder.tokenizer().image_pad
            shard = folder._shard(0)
            samples = [shard._sample(i) for i in range(48)]
            check, whole = least(
                (lambda i, shard=shard, samples=samples: shard._index.matches(i, samples[i]), range(48)),
                (lambda i, f=folder, form=form, size=size: collate([make_row(f[i], **form)], size), range(48)),
            )
            told = f"{check * 1e6:.0f} of {whole * 1e6:,.0f} microseconds: {100 * check / whole:.2f} %"
            print(f"a pack of stage {stage}, read and decoded: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="GLOB", help="JPEG photos; default: made up")
    parser.add_argument("--before", metavar="CHECKOUT", help="a checkout from before the checksums, to compare with")
    args = parser.parse_args()
    print(f"{'microseconds a sample':<22}{'unchecked':>12}{'checked':>12}{'the check':>10}", end="")
    print(f"{'before':>12}{'checked':>12}" if args.before else "")
    rng = np.random.default_rng(0)
    for size in SIZES:
        images = [rng.bytes(size) for _ in range(min(2000, BYTES // size))]
        reading(images, f"{size // 1000} kB", args.before)
    folder = Path(glob.glob(args.images)[0]).parent if args.images else None
    photos = synthetic_stage.photos(64, folder)
    reading([photo.data for photo in photos] * 8, "photos", args.before)
    packs(photos)


if __name__ == "__main__":
    main()
