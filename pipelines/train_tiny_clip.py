#!/usr/bin/env python
"""Train the tiny CLIP that ships in cleaners/tiny_clip, on scenes drawn as it goes.

It exists so that tests and the demo score image-text pairs with a real model that costs nothing to download. It
knows shapes, colours, counts, positions and printed words in English and Chinese, and of photographs only the few
that it is shown: those of the demo crawl. The output is an ordinary open_clip folder (`local-dir:`): config, tokenizer
and fp16 safetensors.
"""

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

_EXAMPLE = """example:
  python pipelines/train_tiny_clip.py --output scenes_clip
  python pipelines/train_tiny_clip.py --init scenes_clip --photos pipelines/demo_photos.yaml --steps 100 --lr 5e-4 \\
      --output cleaners/tiny_clip"""


def main():
    args = make_parser().parse_args()
    from pipelines.work.tiny_clip import train  # brings torch, which takes seconds

    print(json.dumps(train(args), indent=1))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="a folder that this script made, to go on from")
    parser.add_argument("--photos", type=Path, help="YAML list of {package, file, en: [captions], zh: [captions]}")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
