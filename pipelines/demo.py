#!/usr/bin/env python
"""The whole chain on one machine, without network: a raw crawl is cleaned, packed and trained on.

Every step is a command that you can run yourself; it is printed before it runs. Run again, finished steps are skipped.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def steps(out: str) -> Iterator[tuple[str, str]]:
    """Yield (title, command) of the demo."""
    jobs = "python pipelines"
    yield "A raw crawl: photos, drawings, captions, and dirt", f"{jobs}/make_demo_crawl.py --output {out}/raw"
    for language in ("en", "zh"):
        yield (
            f"Clean the {language} pairs by the eight rules (Qwen-VL A.1)",
            f"{jobs}/clean_laion.py --dataset laion-{language} --input '{out}/raw/{language}/*' "
            f"--output {out}/cleaned/laion-{language} --decode{' --clip tiny' if language == 'en' else ''}",
        )
    yield (
        "Draw synthetic text to read (A.4)",
        f"{jobs}/make_ocr.py --language en --count 48 --images-per-shard 24 --output {out}/cleaned/synthdog-en",
    )
    yield (
        "Clean dialogues",
        f"{jobs}/clean_chat.py --dataset chat-sft --input {out}/raw/dialogues/chat.json "
        f"--images {out}/raw/dialogues/images --output {out}/cleaned/chat-sft",
    )
    for stage in (1, 2, 3):
        yield (
            f"Pack the samples of stage {stage}",
            f"{jobs}/build_stage.py --stage {stage} --data {out}/cleaned --output {out}/stage{stage} --queries 16",
        )
        start = f"--init {out}/runs/stage{stage - 1}" if stage > 1 else "--size tiny"
        yield (
            f"Train stage {stage}",
            f"python -m trainer --stage {stage} --data {out}/stage{stage} {start} --output {out}/runs/stage{stage} "
            "--steps 20 --batch 16 --warmup 4 --resume auto",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="demo", metavar="DIR", help="default: demo")
    out, began = parser.parse_args().output, time.monotonic()
    for title, command in steps(out):
        print(f"\n\033[1m{title}\033[0m\n$ {command}", flush=True)
        if title.startswith("A raw crawl") and (ROOT / out / "raw" / "dialogues" / "chat.json").exists():
            print("there already")
        else:
            run(command)
    print(f"\nDone in {time.monotonic() - began:.0f} s. Look at {out}/cleaned/laion-en/report.html")


def run(command: str) -> None:
    """Run a command with this interpreter; stop the demo where it fails."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=ROOT)
    if done.returncode:
        sys.exit(f"this step failed with status {done.returncode}; mended, `make demo` goes on from here")


if __name__ == "__main__":
    main()
