"""What an export holds for transformers beside the weights: modelling code, processor, tokenizer, generation settings.

The code is the trainer's own source; only the names of its modules change, since they lie side by side in an export.
"""

import re
from pathlib import Path

from corpus.pieces import IMAGE, SPECIAL
from corpus.tokens import EOS, IM_END, IM_START, IMG, IMG_END, IMG_PAD, Tokenizer
from trainer.checkpoint import write_json
from trainer.prompts import Prompt, ask, dialogue
from trainer.sizes import ModelConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "trainer/hub/configuration_gristmill.py", "trainer/hub/modeling_gristmill.py",
    "trainer/hub/processing_gristmill.py", "trainer/sight.py", "trainer/adapter.py", "trainer/vision.py",
    "trainer/sizes.py", "corpus/pixels.py",
)  # fmt: skip
CONFIG_FIELDS = {
    "architectures": ["GristmillForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_gristmill.GristmillConfig",
        "AutoModelForCausalLM": "modeling_gristmill.GristmillForCausalLM",
        "AutoProcessor": "processing_gristmill.GristmillProcessor",
    },
}
_OURS = re.compile(r"^(\s*from )(?:trainer|corpus)\.(?:hub\.)?(\w+) import ", re.MULTILINE)
_WORDS = "{text}"
_MOST_IMAGES = 4  # in one prompt
_TASKS = {
    "plain": ("plain", "en"), "vqa": ("vqa", "en"), "referring": ("referring", "en"), "ocr": ("ocr", "en"),
    "caption": ("caption", "en"), "caption_zh": ("caption", "zh"),
    "grounded_caption": ("grounded_caption", "en"), "grounded_caption_zh": ("grounded_caption", "zh"),
}  # fmt: skip


def write_hub_files(folder: Path, config: ModelConfig, tokenizer: Tokenizer, image_size: int) -> None:
    """Write all but config.json and the weights into an export that holds its tokenizer already."""
    for source in SOURCES:
        code = (ROOT / source).read_text(encoding="utf-8")
        (folder / Path(source).name).write_text(standing_alone(code), encoding="utf-8")
    tokenizer.save_fast(folder)
    write_json(folder / "processor_config.json", processor_fields(config, tokenizer, image_size))
    write_json(folder / "generation_config.json", generation_fields(config, tokenizer))


def standing_alone(code: str) -> str:
    """Return a module's source with its imports of ours taken from beside it."""
    return _OURS.sub(r"\1.\2 import ", code)


def generation_fields(config: ModelConfig, tokenizer: Tokenizer) -> dict:
    """Return what trainer.generate does: greedy, up to a token that ends, never an image's or a row without a token."""
    without = range(tokenizer.vocab_size, config.language["vocab_size"])
    image = [tokenizer.special[name] for name in (IMG, IMG_END, IMG_PAD)]
    return {
        "do_sample": False, "max_new_tokens": 256, "eos_token_id": _stops(tokenizer),
        "pad_token_id": tokenizer.special[EOS], "suppress_tokens": sorted({*image, *without}),
    }  # fmt: skip


def processor_fields(config: ModelConfig, tokenizer: Tokenizer, image_size: int) -> dict:
    """Return the processor's configuration: pixels, ids, and the prompts as `trainer.prompts` makes them."""
    special = tokenizer.special
    return {
        "processor_class": "GristmillProcessor", "auto_map": CONFIG_FIELDS["auto_map"], "image_size": image_size,
        "slot": [special[IMG], *[special[IMG_PAD]] * config.queries, special[IMG_END]],
        "stops": _stops(tokenizer), "special": dict(special), "prompts": _prompts(tokenizer),
    }  # fmt: skip


def _stops(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.special[name] for name in (EOS, IM_END, IM_START)]


def _prompts(tokenizer: Tokenizer) -> dict[str, dict[str, list]]:
    """Return task -> number of images -> pieces."""
    found: dict[str, dict[str, list]] = {name: {} for name in (*_TASKS, "chat")}
    for count in range(_MOST_IMAGES + 1):
        images = [b""] * count
        for name, (task, language) in _TASKS.items():
            if task == "plain" or count == 1:
                found[name][str(count)] = _pieces(ask(task, images, _WORDS, language=language))
        turn = {"role": "user", "text": _WORDS, "images": list(range(count))}
        found["chat"][str(count)] = _pieces(dialogue([turn], images, tokenizer))
    return found


def _pieces(prompt: Prompt) -> list[list[str]]:
    told = [[kind, "" if kind == IMAGE else str(value)] for kind, value, _ in prompt.pieces]
    return told + [[SPECIAL, name] for name in prompt.begin]
