#!/usr/bin/env python
"""The whole chain on one machine, without network: a raw crawl is cleaned, packed and trained on.

Every step is a command that you can run yourself; it is printed before it runs. Run again, finished steps are skipped.
What only root can install is not needed: text is drawn in the faces that are here, web pages are rendered where there
is a browser, and what was left out is said at the end.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines.doctor import BROWSER, FRIBIDI, Lack, lacks, sentence

ROOT = Path(__file__).resolve().parent.parent
# What is made from what this machine has is not made again when it has more: script -> the file that it ends with.
ONCE = {"make_demo_crawl.py": "raw/documents/0009.pdf", "make_ocr.py": "cleaned/synthdog-en/report.json"}


def steps(out: str, *, drawn_text: bool, web_pages: bool) -> Iterator[tuple[str, str]]:
    """Yield (title, command) of the demo."""
    jobs = "python pipelines"
    yield "A raw crawl: photos, drawings, captions, pages, and dirt", f"{jobs}/make_demo_crawl.py --output {out}/raw"
    for language in ("en", "zh"):
        yield (
            f"Clean the {language} pairs by the eight rules (Qwen-VL A.1)",
            f"{jobs}/clean_laion.py --dataset laion-{language} --input '{out}/raw/{language}/*' "
            f"--output {out}/cleaned/laion-{language} --decode{' --clip tiny' if language == 'en' else ''}",
        )
    if drawn_text:
        yield (
            "Draw synthetic text to read (A.4)",
            f"{jobs}/make_ocr.py --language en --count 48 --images-per-shard 24 --available-faces "
            f"--output {out}/cleaned/synthdog-en",
        )
    for kind in ("pdf", "html") if web_pages else ("pdf",):
        yield (
            f"Render pages of {kind.upper()} with every line's place (A.4)",
            f"{jobs}/render_{kind}.py --dataset common-crawl-{kind} --input '{out}/raw/documents/*.{kind}' "
            f"--output {out}/cleaned/common-crawl-{kind}",
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
    left_out = list(lacks())
    drawn_text = _makes("synthdog-en", ROOT / out, FRIBIDI, left_out)
    web_pages = _makes("common-crawl-html", ROOT / out, BROWSER, left_out)
    for title, command in steps(out, drawn_text=drawn_text, web_pages=web_pages):
        print(f"\n\033[1m{title}\033[0m\n$ {command}", flush=True)
        if any((ROOT / out / done).exists() for script, done in ONCE.items() if f"/{script} " in command):
            print("there already")
        else:
            run(command)
    print(f"\nDone in {time.monotonic() - began:.0f} s. Look at {out}/cleaned/laion-en/report.html")
    for lack in left_out:
        print(sentence(lack))


def _makes(dataset: str, out: Path, need: str, left_out: list[Lack]) -> bool:
    """Whether to make a dataset: what an earlier run packed stays what it was, so that this one goes on from there."""
    if (out / "stage1").exists():
        return (out / "cleaned" / dataset).exists()
    return need not in {lack.what for lack in left_out}


def run(command: str) -> None:
    """Run a command with this interpreter; stop the demo where it fails."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=ROOT)
    if done.returncode:
        sys.exit(f"this step failed with status {done.returncode}; mended, `make demo` goes on from here")


if __name__ == "__main__":
    main()
