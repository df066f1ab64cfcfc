"""What reading and decoding packs costs: packs per second of one worker, and where its time goes.

    python benchmarks/loader.py [--images DIR] [--packs 48]

CPU seconds of this process, one thread. `--images`: a folder of JPEG photos (COCO's, say); without it, pictures of
640 x 480 that are made up. The last column is what one worker can feed: how fast a device may take a step before it
waits for it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from benchmarks import synthetic_stage  # noqa: E402
from corpus.packs import StageFolder  # noqa: E402
from corpus.records import decode_image  # noqa: E402
from trainer.batch import collate, make_row, resize  # noqa: E402


def clock(work, items) -> tuple[float, list]:
    """CPU seconds per item, and the results."""
    began = time.process_time()
    results = [work(item) for item in items]
    return (time.process_time() - began) / len(items), results


def measure(folder: StageFolder, packs: int, image_size: int) -> dict:
    """CPU seconds per pack of each part, and images per pack."""
    form = {
        "image_size": image_size, "attention": "isolated", "queries": folder.queries,
        "image_token": folder.tokenizer().image_pad,
    }  # fmt: skip
    order = [folder.index(0, i) for i in range(packs)]
    folder[order[0]]  # opens the shard
    read, found = clock(folder.__getitem__, order)
    images = [data for pack in found for data in pack.images]
    decode, _ = clock(lambda data: decode_image(data).load(), images)
    both, _ = clock(lambda data: resize(data, image_size), images)
    row, rows = clock(lambda pack: make_row(pack, **form), found)
    batch, _ = clock(lambda row: collate([row], image_size), rows)
    per_pack = len(images) / packs
    return {
        "images": per_pack, "read": read, "decode": decode * per_pack, "resize": (both - decode) * per_pack,
        "all": read + row + batch,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--packs", type=int, default=48)
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = synthetic_stage.photos(64, args.images)
    print(f"{len(photos)} photos, {sum(len(p.data) for p in photos) / len(photos) / 1000:.0f} kB on average")
    print("stage  pixels  images/pack   ms/pack: read  decode  resize     all   packs/s  images/s")
    with tempfile.TemporaryDirectory() as root:
        for stage, size in ((1, 224), (2, 448)):
            folder = StageFolder(synthetic_stage.make(Path(root) / str(stage), stage, 256, args.packs, photos))
            t = measure(folder, args.packs, size)
            ms = "  ".join(f"{t[name] * 1000:6.1f}" for name in ("read", "decode", "resize", "all"))
            rate = 1 / t["all"]
            print(f"{stage:5}  {size:6}  {t['images']:11.1f}  {'':7} {ms}  {rate:8.1f}  {rate * t['images']:8.0f}")


if __name__ == "__main__":
    main()
