"""An exported model in another precision, or under the names and with the config of the released Qwen-VL.

A run writes its export itself (RUN/export), which transformers loads as it is. The released layout lacks the released
code: put its .py files into the folder, and transformers loads it with trust_remote_code.
"""

import argparse
import sys
from pathlib import Path

EXAMPLE = """\
example:
  python -m trainer.export runs/stage3/export --to qwen-vl --layout qwen-vl
"""


def main() -> int:
    """Convert an export; return the exit status."""
    args = make_parser().parse_args()
    from trainer.exports import convert  # torch takes seconds, which a --help should not cost

    try:
        print(convert(args.source, args.to, args.layout, args.dtype))
    except (ValueError, FileNotFoundError) as error:
        print(f"trainer.export: {error}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.export", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", type=Path, help="an exported folder, such as RUN/export")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument("--layout", choices=("ours", "qwen-vl"), default="qwen-vl")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    return parser


if __name__ == "__main__":
    sys.exit(main())
