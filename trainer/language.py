"""The causal language model: any that transformers knows, ordinarily Qwen2's architecture."""

import json
from pathlib import Path

import torch

from trainer.attention import SPANS, attend
from trainer.convert import qwen_to_qwen2, qwen_to_qwen2_config, read_safetensors
from trainer.quantise import hush_torchao


def build_language(fields: dict):
    """Build the model a transformers config describes, on the current default device, in float32.

    Its attention is ours (see trainer.attention). Raises ValueError for an architecture that would not hand it what
    it needs, and would silently let samples see each other.
    """
    hush_torchao()  # transformers imports it
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    AttentionInterface.register(SPANS, attend)
    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.use_cache = False
    model = AutoModelForCausalLM.from_config(config, attn_implementation=SPANS, dtype=torch.float32)
    if not model._supports_attention_backend:
        raise ValueError(
            f"{type(model).__name__} does not take an attention function: packs cannot be kept apart in it"
        )
    return model


def language_config(name_or_folder: str) -> dict:
    """Read a language model's config fields from a folder or the hub; Qwen v1's become Qwen2's.

    Raises ValueError when the folder holds no config.json.
    """
    from transformers import AutoConfig

    folder = Path(name_or_folder)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise ValueError(f"{folder} is no model folder: it has no config.json")
    if _is_qwen_v1(folder):
        return qwen_to_qwen2_config(json.loads((folder / "config.json").read_text()))
    config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
    return {**config.to_dict(), "model_type": config.model_type}


def language_weights(name_or_folder: str) -> dict[str, torch.Tensor]:
    """Load a causal language model's tensors under transformers' names, in the dtype they are stored in."""
    if _is_qwen_v1(Path(name_or_folder)):
        return qwen_to_qwen2(read_safetensors(Path(name_or_folder)))
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name_or_folder, dtype="auto", trust_remote_code=False).state_dict()


def _is_qwen_v1(folder: Path) -> bool:
    path = folder / "config.json"
    return path.exists() and json.loads(path.read_text()).get("model_type") == "qwen"
