"""A trained model that answers prompts and holds dialogues."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from corpus.parsing import Parsed, parse_tokens
from corpus.pieces import Encoder
from corpus.tokens import EOS, IM_END, IM_START, IMG, IMG_END, IMG_PAD, Tokenizer
from trainer.batch import resize
from trainer.decoding import Options, confidences, decode
from trainer.load import load_run
from trainer.model import VisionLanguageModel
from trainer.prompts import BadPrompt, Prompt, dialogue, read_image
from trainer.quantise import quantise_blocks


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
    def load(
        cls, run: str | Path, device: str = "cpu", dtype: torch.dtype | None = None, quantise: str | None = None
    ) -> "Assistant":
        """Load a run, an export or a folder of the released Qwen-VL; bfloat16 on a GPU unless `dtype` says otherwise.

        quantise: "nf4" or "int8", for the language model's blocks. Raises exports.WrongModel when the folder is none
        of these.
        """
        dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
        model, tokenizer, image_size, stage = load_run(Path(run), device, dtype)
        quantise_blocks(model.language, quantise)
        return cls(model, tokenizer, image_size, stage)

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
