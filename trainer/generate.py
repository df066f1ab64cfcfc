"""Ask a trained model: about images, in one of the training formats or as a chat; boxes in its answer can be drawn.

RUN is the folder of a training run (its export, else its newest checkpoint), an exported folder, or one of the
released Qwen-VL.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from corpus.parsing import Parsed, parse_tokens
from corpus.pieces import Encoder
from corpus.records import decode_image
from corpus.tokens import EOS, IM_END, IM_START, IMG, IMG_END, IMG_PAD, Tokenizer
from trainer.batch import resize
from trainer.decoding import Options, confidences, decode
from trainer.draw import draw_regions
from trainer.load import load_run
from trainer.model import VisionLanguageModel
from trainer.prompts import TASKS, BadPrompt, Prompt, ask, dialogue, read_image

EXAMPLE = """\
examples:
  python -m trainer.generate --model runs/stage2 --image cat.jpg --task caption
  python -m trainer.generate --model runs/stage2 --image cat.jpg --task referring --prompt "the left ear" --draw out.png
  python -m trainer.generate --model runs/stage3 --chat
"""
HELP = "a line is a question; /image PATH shows a picture, /draw PATH draws the last answer's boxes, /new starts anew"


@dataclass(slots=True)
class Answer:
    """`text` names special tokens, as the released model's answers do; `parsed` is it without them, with regions."""

    tokens: list[int]
    text: str
    parsed: Parsed


class Assistant:
    """A model that answers prompts and holds dialogues. `image_size` is in pixels per side."""

    def __init__(self, model: VisionLanguageModel, tokenizer: Tokenizer, image_size: int, stage: int | None = None):
        self.model, self.tokenizer, self.image_size, self.stage = model, tokenizer, image_size, stage
        self._encoder = Encoder(tokenizer, model.config.queries)
        self._stops = frozenset(tokenizer.special[name] for name in (EOS, IM_END, IM_START))
        self._device = model.vision.conv1.weight.device
        self._allowed = self._allowed_tokens()

    @classmethod
    def load(cls, run: str | Path, device: str = "cpu", dtype: torch.dtype | None = None) -> "Assistant":
        """Load a run, an export or a folder of the released Qwen-VL; bfloat16 on a GPU unless `dtype` says otherwise.

        Raises export.WrongModel when the folder is none of these.
        """
        return cls(*load_run(Path(run), device, dtype or (torch.bfloat16 if device == "cuda" else torch.float32)))

    def _allowed_tokens(self) -> torch.Tensor:
        """Tokens of images and rows without a token are never answers."""
        allowed = torch.zeros(self.model.config.language["vocab_size"], dtype=torch.bool)
        allowed[: self.tokenizer.vocab_size] = True
        allowed[[self.tokenizer.special[name] for name in (IMG, IMG_END, IMG_PAD)]] = False
        return allowed.to(self._device)

    def generate(self, prompts: Sequence[Prompt], **options) -> list[Answer]:
        """Answer a batch of prompts; `options` are those of decoding.Options. Raises BadPrompt for one too long."""
        settings = Options(**options)
        encoded = [self._encode(prompt, settings.max_tokens) for prompt in prompts]
        images = [image for prompt in prompts for image in prompt.images]
        found = decode(self.model, encoded, self._pixels(images), self._allowed, self._stops, settings)
        return [self._answer(prompt, tokens) for prompt, tokens in zip(prompts, found, strict=True)]

    def confidences(self, prompt: Prompt, answers: Sequence[str]) -> list[float]:
        """Return the mean log-probability per token of each answer to a prompt."""
        tokens = [self.tokenizer.encode(answer) for answer in answers]
        encoded = self._encode(prompt, max(map(len, tokens)))
        return confidences(self.model, encoded, self._pixels(prompt.images), tokens)

    def chat(self, query: Sequence[dict], history: Sequence[dict] = (), **options) -> tuple[Answer, list[dict]]:
        """Ask one question of a dialogue; return the answer and the dialogue with both, to be handed in next time.

        `query`: {"image": path or encoded bytes} and {"text": str}, in any number; images stand before the words.
        """
        images = [data for turn in history for data in turn.get("data", ())]
        new = [q["image"] if isinstance(q["image"], bytes) else read_image(q["image"]) for q in query if "image" in q]
        text = "\n".join(q["text"] for q in query if "text" in q)
        turn = {"role": "user", "text": text, "data": new}
        turn["images"] = list(range(len(images), len(images) + len(new)))
        prompt = dialogue([*history, turn], images + new, self.tokenizer)
        (answer,) = self.generate([prompt], **options)
        said = {"role": "assistant", "text": answer.text, "tokens": answer.tokens}
        return answer, [*history, turn, said]

    def _encode(self, prompt: Prompt, room: int) -> np.ndarray:
        tokens = self._encoder.encode(prompt.pieces).tokens
        limit = self.model.config.language["max_position_embeddings"]
        if len(tokens) + room > limit:
            raise BadPrompt(f"the prompt has {len(tokens)} tokens; with {room} for the answer the limit is {limit}")
        if not len(tokens):
            raise BadPrompt("the prompt is empty: give an image or some words")
        return np.append(tokens, [self.tokenizer.special[name] for name in prompt.begin]).astype(np.int64)

    def _pixels(self, images: Sequence[bytes]) -> torch.Tensor | None:
        if not images:
            return None
        return torch.from_numpy(np.stack([resize(image, self.image_size) for image in images])).to(self._device)

    def _answer(self, prompt: Prompt, tokens: list[int]) -> Answer:
        tokens = [*(self.tokenizer.special[name] for name in prompt.begin), *tokens]
        return Answer(tokens, self.tokenizer.decode(tokens).strip(), parse_tokens(tokens, self.tokenizer))


def chat_loop(assistant: Assistant, lines: Iterable[str], images: Sequence[str], options: dict) -> None:
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


def draw_last(history: Sequence[dict], answer: Answer | None, path: str) -> None:
    """Draw an answer's regions into the dialogue's last picture, as the released model does."""
    images = [data for turn in history for data in turn.get("data", ())]
    if answer is None or not images or not path:
        raise BadPrompt("/draw PATH needs an answer about a picture, and where to write it")
    draw(images[-1], answer, path)


def draw(image: bytes, answer: Answer, path: str) -> None:
    """Write the picture with the answer's boxes and quads."""
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
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of a caption")
    parser.add_argument("--chat", action="store_true", help="a dialogue, question by question from standard input")
    parser.add_argument("--draw", metavar="FILE", help="write the last image with the answer's boxes and quads")
    parser.add_argument("--max-tokens", type=int, default=256, help="of the answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
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
    images = [read_image(path) for path in args.image]  # before the model: a wrong path should not cost a minute
    if args.draw and not images:
        raise BadPrompt("--draw needs an --image to draw into")
    options = {name: getattr(args, name) for name in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    assistant = Assistant.load(args.model, args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
