"""The causal language model: any that transformers knows, ordinarily Qwen2's architecture."""

from pathlib import Path

import torch


def build_language(fields: dict):
    """Build the model a transformers config describes, on the current default device, in float32.

    SDPA is asked for by name: a boolean block mask is right there and silently wrong under the eager kernel.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.use_cache = False
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


def language_config(name_or_folder: str) -> dict:
    """Read a language model's config fields from a folder or the hub; Qwen v1's become Qwen2's.

    Raises ValueError when the folder holds no config.json.
    """
    from transformers import AutoConfig

    folder = Path(name_or_folder)
    if folder.is_dir():
        import json

        path = folder / "config.json"
        if not path.exists():
            raise ValueError(f"{folder} is no model folder: it has no config.json")
        fields = json.loads(path.read_text())
        if fields.get("model_type") == "qwen":
            from trainer.convert import qwen_to_qwen2_config

            return qwen_to_qwen2_config(fields)
    config = AutoConfig.from_pretrained(name_or_folder)  # never remote code
    return {**config.to_dict(), "model_type": config.model_type}


def language_weights(name_or_folder: str) -> dict[str, torch.Tensor]:
    """Load a causal language model's tensors under transformers' names, in the dtype they are stored in."""
    if _is_qwen_v1(name_or_folder):
        from trainer.convert import qwen_to_qwen2, read_safetensors

        return qwen_to_qwen2(read_safetensors(Path(name_or_folder)))
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name_or_folder, dtype="auto").state_dict()


def _is_qwen_v1(name_or_folder: str) -> bool:
    path = Path(name_or_folder) / "config.json"
    if not path.exists():
        return False
    import json

    return json.loads(path.read_text()).get("model_type") == "qwen"
