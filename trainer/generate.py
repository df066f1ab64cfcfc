"""Ask a trained model: about images, in one of the training formats or as a chat; boxes in its answer can be drawn.

RUN is the folder of a training run (its export, else its newest checkpoint), an exported folder, or one of the
released Qwen-VL.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from corpus.languages import shipped_codes
from corpus.records import decode_image
from trainer.prompts import TASKS, BadPrompt, ask, read_image

if TYPE_CHECKING:  # torch takes seconds, which a --help or a mistyped flag should not cost
    from trainer.assistant import Answer, Assistant

EXAMPLE = """\
examples:
  python -m trainer.generate --model runs/stage2 --image cat.jpg --task caption
  python -m trainer.generate --model runs/stage2 --image cat.jpg --task referring --prompt "the left ear" --draw out.png
  python -m trainer.generate --model runs/stage3 --chat
"""
HELP = "a line is a question; /image PATH shows a picture, /draw PATH draws the last answer's boxes, /new starts anew"


def chat_loop(assistant: "Assistant", lines: Iterable[str], images: Sequence[str], options: dict) -> None:
    """Hold a dialogue with whoever types `lines`; `images` are shown with the first question."""
    history, pending, answer = [], [{"image": path} for path in images], None
    print(HELP)
    for line in map(str.strip, lines):
        command, _, argument = line.partition(" ")
        try:
            if command == "/new":
                history, pending, answer = [], [], None
            elif command == "/image":
                pending.append({"image": read_image(argument.strip())})
            elif command == "/draw":
                draw_last(history, answer, argument.strip())
            elif line:
                answer, history = assistant.chat([*pending, {"text": line}], history, **options)
                pending = []
                print(answer.text, flush=True)
        except BadPrompt as error:  # a mistyped path must not end the dialogue
            print(f"! {error}", flush=True)


def draw_last(history: Sequence[dict], answer: "Answer | None", path: str) -> None:
    """Draw an answer's regions into the dialogue's last picture, as the released model does."""
    images = [data for turn in history for data in turn.get("data", ())]
    if answer is None or not images or not path:
        raise BadPrompt("/draw PATH needs an answer about a picture, and where to write it")
    draw(images[-1], answer, path)


def draw(image: bytes, answer: "Answer", path: str) -> None:
    """Write the picture with the answer's boxes and quads."""
    from trainer.draw import draw_regions

    try:
        draw_regions(decode_image(image), answer.parsed).save(path)
    except (OSError, ValueError) as error:  # Pillow: ValueError for an extension it does not know
        raise BadPrompt(f"{path}: cannot be written: {error}") from None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.generate", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", required=True, metavar="RUN")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="may be given several times")
    parser.add_argument("--prompt", default="", help="question, phrase, or whole prompt, by task")
    parser.add_argument("--task", choices=(*TASKS, "chat"), help="default: chat after stage 3, else plain")
    parser.add_argument("--box", help="x0,y0,x1,y1 in [0, 1000), for region_caption")
    parser.add_argument("--language", choices=shipped_codes(), default="en", help="of a caption")
    parser.add_argument("--chat", action="store_true", help="a dialogue, question by question from standard input")
    parser.add_argument("--draw", metavar="FILE", help="write the last image with the answer's boxes and quads")
    parser.add_argument("--max-tokens", type=int, default=256, help="of the answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quantise", choices=("nf4", "int8"), help="hold the language model's blocks in 4 or 8 bits")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        _run(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"trainer.generate: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args) -> None:
    import torch

    from trainer.assistant import Assistant

    images = [read_image(path) for path in args.image]  # before the model: a wrong path should not cost a minute
    if args.draw and not images:
        raise BadPrompt("--draw needs an --image to draw into")
    options = {name: getattr(args, name) for name in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    assistant = Assistant.load(args.model, device, quantise=args.quantise)
    if args.chat:
        chat_loop(assistant, sys.stdin, args.image, options)
        return
    task = args.task or ("chat" if assistant.stage == 3 else "plain")
    if task == "chat":
        answer, _ = assistant.chat([*({"image": data} for data in images), {"text": args.prompt}], **options)
    else:
        (answer,) = assistant.generate([ask(task, images, args.prompt, _box(args.box), args.language)], **options)
    print(answer.text)
    if args.draw:
        draw(images[-1], answer, args.draw)


def _box(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        raise BadPrompt(f"--box {text}: four integers x0,y0,x1,y1 in [0, 1000) are needed") from None
    return [x0, y0, x1, y1]


if __name__ == "__main__":
    sys.exit(main())
