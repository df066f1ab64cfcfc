"""A trained model out of a folder: a run's export, its newest checkpoint, an exported folder, or a released Qwen-VL."""

from dataclasses import replace
from pathlib import Path

import torch

from corpus.packs import TOKENIZER
from corpus.tokens import Tokenizer, load_tokenizer
from trainer import checkpoint, exports, lora
from trainer.model import VisionLanguageModel
from trainer.parallel import World
from trainer.quantise import quantise_blocks
from trainer.sizes import ModelConfig
from trainer.stages import Settings, freeze, read_settings
from trainer.weights import materialise

# Model, tokenizer, pixels per side, the stage it was trained in last (None: unknown).
Loaded = tuple[VisionLanguageModel, Tokenizer, int, int | None]


def load_run(folder: Path, device: str, dtype: torch.dtype) -> Loaded:
    """Load what a folder holds, in evaluation mode. Raises exports.WrongModel, saying what is missing."""
    if not folder.is_dir():
        raise exports.WrongModel(f"{folder}: no such folder")
    if (folder / "export").is_dir():
        return _load_export(folder / "export", device, dtype)
    if (folder / exports.CONFIG).exists():
        return _load_export(folder, device, dtype)
    if found := checkpoint.latest(folder):
        return _load_checkpoint(found, device, dtype)
    raise exports.WrongModel(
        f"{folder} is neither a training run (no export, no checkpoints in it) nor an exported model (no config.json)"
    )


def _load_export(folder: Path, device: str, dtype: torch.dtype) -> Loaded:
    config, rest = exports.read_config(folder)
    tokenizer = load_tokenizer(folder)
    if rest.get("tokenizer_fingerprint") not in (None, tokenizer.fingerprint):
        raise exports.WrongModel(
            f"{folder}: its tokenizer (fingerprint {tokenizer.fingerprint}) is not the one the model was trained with "
            f"({rest['tokenizer_fingerprint']}): export the model again"
        )
    history = rest.get("history", {})
    model = exports.load_model(folder, device, dtype)
    return model, tokenizer, exports.image_size_of(history), history.get("settings", {}).get("stage")


def _load_checkpoint(folder: Path, device: str, dtype: torch.dtype) -> Loaded:
    if wrong := checkpoint.damage(folder):
        before = [path.name for path in sorted(folder.parent.glob("step-*")) if path.name < folder.name]
        rest = (
            f"name an earlier one in {folder.parent}/latest ({', '.join(before)})" if before else "it is the only one"
        )
        raise exports.WrongModel(f"{'; '.join(wrong)}: this checkpoint is damaged; {rest}")
    state = checkpoint.read_state(folder)
    settings, corpus = read_settings(state["settings"]), state["corpus"]["path"]
    tokenizer = load_tokenizer(f"{corpus}/{TOKENIZER}")
    config = ModelConfig.from_dict(state["model"])
    model = _as_trained(folder, config, settings, device)
    if settings.lora:
        tensors = lora.merged(checkpoint.full_tensors(model, World(torch.device(device))), settings)
        model = _empty(config, replace(settings, lora=None), device)
        model.load_state_dict(tensors)
    return model.to(dtype).eval().requires_grad_(False), tokenizer, settings.image_size, settings.stage


def _as_trained(folder: Path, config: ModelConfig, settings: Settings, device: str) -> VisionLanguageModel:
    """With its adapters, and quantised where it was: that is what they have learned beside."""
    model = _empty(config, settings, device)
    checkpoint.load_weights(folder, model)
    freeze(model, settings)
    quantise_blocks(model.language, settings.quantise)
    return model


def _empty(config: ModelConfig, settings: Settings, device: str) -> VisionLanguageModel:
    with torch.device("meta"):
        model = VisionLanguageModel(config, image_rows=settings.image_rows)
        lora.add(model, settings)
    materialise(model, device)
    return model
