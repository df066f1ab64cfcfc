"""What lies beside the weights in the released Qwen-VL's layout: its config.json, tokenizer and generation settings.

Fields and names are those of the released folder (Qwen/Qwen-VL), whose code is not copied.
"""

import math
from pathlib import Path

from corpus.tokens import EOS, Tokenizer
from trainer.checkpoint import write_json
from trainer.sizes import ModelConfig


def write_released_files(folder: Path, config: ModelConfig, tokenizer: Tokenizer, image_size: int, dtype: str) -> None:
    """Write config.json, generation_config.json and the tokenizer, as qwen.tiktoken where it is one of ranks."""
    write_json(folder / "config.json", released_config(config, image_size, dtype))
    write_json(folder / "generation_config.json", {
        "do_sample": False, "max_new_tokens": 512, "eos_token_id": tokenizer.special[EOS],
        "pad_token_id": tokenizer.special[EOS], "chat_format": "raw",
    })  # fmt: skip
    tokenizer.save(folder)
    if (ranks := folder / "ranks.tiktoken").exists():
        ranks.rename(folder / "qwen.tiktoken")
        write_json(folder / "tokenizer_config.json", {
            "model_max_length": 8192, "tokenizer_class": "QWenTokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
        })  # fmt: skip


def released_config(config: ModelConfig, image_size: int, dtype: str) -> dict:
    """Return the released model's config.json for our configuration. Its intermediate_size counts w1 and w2 together.

    Raises ValueError for a language model that is not of Qwen v1's architecture (shared key heads).
    """
    language, vision = config.language, config.vision
    rope = language.get("rope_parameters") or language
    hidden, heads = language["hidden_size"], language["num_attention_heads"]
    if language.get("num_key_value_heads", heads) != heads or language["model_type"] != "qwen2":
        raise ValueError("the released layout is that of Qwen-7B: a Qwen2 architecture with as many key as query heads")
    return {
        "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "tokenizer_type": "QWenTokenizer",
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig", "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "hidden_size": hidden, "intermediate_size": 2 * language["intermediate_size"], "kv_channels": hidden // heads,
        "num_hidden_layers": language["num_hidden_layers"], "num_attention_heads": heads,
        "vocab_size": language["vocab_size"], "seq_length": 2048,
        "max_position_embeddings": language["max_position_embeddings"],
        "layer_norm_epsilon": language["rms_norm_eps"], "initializer_range": language.get("initializer_range", 0.02),
        "rotary_pct": 1.0, "rotary_emb_base": rope.get("rope_theta", 10000.0), "scale_attn_weights": True,
        "tie_word_embeddings": language.get("tie_word_embeddings", False), "no_bias": True, "attn_dropout_prob": 0.0,
        "emb_dropout_prob": 0.0, "onnx_safe": None, "use_cache": True, "use_dynamic_ntk": True, "use_logn_attn": True,
        "use_flash_attn": "auto", "bf16": dtype == "bfloat16", "fp16": dtype == "float16", "fp32": dtype == "float32",
        "torch_dtype": dtype,
        "visual": {
            "image_size": image_size, "patch_size": vision.patch, "width": vision.width, "layers": vision.layers,
            "heads": vision.heads, "output_dim": hidden,
            "mlp_ratio": math.ceil(1e4 * vision.mlp_width / vision.width) / 1e4,
            "n_queries": config.queries, "image_start_id": (config.image_marks or (151857,))[0], **_unlike(config),
        },
    }  # fmt: skip


def _unlike(config: ModelConfig) -> dict:
    """Return what the released code takes for granted and this model has otherwise; our own loader reads it."""
    vision, heads = config.vision, config.language["hidden_size"] // 128
    taken = {"size": "qwen-vl", "adapter_heads": heads, "table_size": 224, "quick_gelu": False, "ln_pre": True}
    here = {"size": config.size, "adapter_heads": config.adapter_heads, "table_size": vision.image_size,
            "quick_gelu": vision.quick_gelu, "ln_pre": vision.ln_pre}  # fmt: skip
    return {name: value for name, value in here.items() if value != taken[name]}


def unloadable(config: ModelConfig) -> str:
    """Say why the released code cannot load the model; "" where it can."""
    wrong = [f"{name} {value}" for name, value in _unlike(config).items() if name != "size"]
    wrong += [f"{config.queries} queries"] * (config.queries != 256)
    return f"the released code loads models of its own shape; this one has {', '.join(wrong)}" if wrong else ""
