"""Other layouts of the same weights: Qwen-7B, the released Qwen-VL, open_clip. All conversions are exact.

Conversions are written as maps from OUR parameter name to where the tensor lies in the other layout, so that a folder
can be read one tensor at a time.
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from trainer.sizes import ModelConfig, VisionConfig

_LAYER = {
    "self_attn.o_proj": "attn.c_proj",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    # Qwen computes w1(x) * silu(w2(x)): its w1 is the up projection, its w2 the gate.
    "mlp.up_proj": "mlp.w1",
    "mlp.gate_proj": "mlp.w2",
    "mlp.down_proj": "mlp.c_proj",
}
_TOP = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "lm_head.weight": "lm_head.weight",
}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def qwen_place(name: str) -> tuple[str, int | None]:
    """Qwen2's parameter name -> (Qwen v1's name, which third of it; None for all of it)."""
    if name in _TOP:
        return _TOP[name], None
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        raise ValueError(f"{name!r} is no parameter of a Qwen2 model")
    layer, module, kind = match.groups()
    if module in _QKV:
        return f"transformer.h.{layer}.attn.c_attn.{kind}", _QKV.index(module)
    return f"transformer.h.{layer}.{_LAYER[module]}.{kind}", None


def qwen_vl_place(name: str) -> tuple[str, int | None]:
    """Our parameter or buffer name -> (the released Qwen-VL's name, which third of it; None for all of it)."""
    part, _, rest = name.partition(".")
    if part == "language":
        return qwen_place(rest)
    prefix = {"vision": "transformer.visual.", "tail": "transformer.visual."}
    return prefix.get(part, "transformer.visual.attn_pool.") + rest, None


def read_place(state: Mapping[str, torch.Tensor], place: tuple[str, int | None]) -> torch.Tensor:
    """The tensor at a place: all of a tensor, or one third of its rows."""
    name, third = place
    return state[name] if third is None else state[name].chunk(3)[third]


def qwen_to_qwen2(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Qwen v1's tensors -> those of transformers' Qwen2ForCausalLM.

    Raises ValueError on tensors that a plain Qwen model does not have (a vision tower, quantised weights).
    """
    layers = 1 + max(int(m[1]) for name in state if (m := re.match(r"transformer\.h\.(\d+)\.", name)))
    names = [*_TOP]
    for i in range(layers):
        names += [f"model.layers.{i}.{qkv}.{kind}" for qkv in _QKV for kind in ("weight", "bias")]
        names += [f"model.layers.{i}.{module}.weight" for module in _LAYER]
    used = {qwen_place(name)[0] for name in names}
    # Rotary frequencies, which old checkpoints carry, are computed, not learned.
    if unknown := sorted(name for name in set(state) - used if not name.endswith("inv_freq")):
        raise ValueError(f"not a plain Qwen-7B checkpoint: it has {len(unknown)} more tensors, first {unknown[0]!r}")
    return {name: read_place(state, qwen_place(name)) for name in names}


def to_qwen_vl(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our state dict -> the released Qwen-VL's names and layout."""
    out = {}
    for name, tensor in state.items():
        place, third = qwen_vl_place(name)
        if third is None:
            out[place] = tensor
        elif third == 0:
            rest = [state[name.replace("q_proj", other)] for other in ("k_proj", "v_proj")]
            out[place] = torch.cat([tensor, *rest])
    return out


def qwen_to_qwen2_config(fields: dict) -> dict:
    """Qwen v1's config.json -> the fields of a Qwen2 config. Its intermediate_size counts w1 and w2 together."""
    return {
        "model_type": "qwen2",
        "hidden_size": fields["hidden_size"],
        "num_hidden_layers": fields["num_hidden_layers"],
        "num_attention_heads": fields["num_attention_heads"],
        "num_key_value_heads": fields["num_attention_heads"],
        "intermediate_size": fields["intermediate_size"] // 2,
        "vocab_size": fields["vocab_size"],
        "max_position_embeddings": fields.get("max_position_embeddings", 8192),
        "rms_norm_eps": fields.get("layer_norm_epsilon", 1e-6),
        "rope_theta": float(fields.get("rotary_emb_base", 10000)),
        "tie_word_embeddings": fields.get("tie_word_embeddings", False),
        "initializer_range": fields.get("initializer_range", 0.02),
    }


def qwen_vl_config(fields: dict) -> ModelConfig:
    """The released Qwen-VL's config.json -> our configuration. Its position table is that of 224 pixels, whatever
    resolution the config names, and <imgpad> and </img> follow <img>. What only models of another shape need is ours:
    `size`, `table_size`, `adapter_heads`, `quick_gelu`, `ln_pre`."""
    visual = fields["visual"]
    width, start = visual["width"], visual["image_start_id"]
    return ModelConfig(
        size=visual.get("size", "qwen-vl"),
        vision=VisionConfig(
            name="ViT-bigG-14",
            width=width,
            layers=visual["layers"],
            heads=visual["heads"],
            mlp_width=int(width * visual["mlp_ratio"]),
            patch=visual["patch_size"],
            image_size=visual.get("table_size", 224),
            quick_gelu=visual.get("quick_gelu", False),
            ln_pre=visual.get("ln_pre", True),
        ),
        language=qwen_to_qwen2_config(fields),
        queries=visual.get("n_queries", 256),
        adapter_heads=visual.get("adapter_heads", visual["output_dim"] // 128),
        image_token=start + 2,
        image_marks=(start, start + 1),
    )


def interleave_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """in_proj rows [q of all heads; k; v] (open_clip) -> per head [q; k; v] (Qwen-VL, ours). Weight or bias."""
    return tensor.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)


def separate_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of `interleave_heads`."""
    return tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def from_open_clip(state: Mapping[str, torch.Tensor], heads: int) -> dict[str, torch.Tensor]:
    """open_clip's tensors (of a whole CLIP model or of its tower) -> our `VisionTower`'s.

    The class token and its position, ln_post and proj are dropped. Raises ValueError when there is no plain ViT.
    """
    prefix = "visual." if any(name.startswith("visual.") for name in state) else ""
    tower = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if "class_embedding" not in tower or "conv1.weight" not in tower:
        raise ValueError(f"no open_clip ViT among {len(state)} tensors: class_embedding or conv1 is missing")
    out = {}
    for name, tensor in tower.items():
        if name == "positional_embedding":
            out[name] = tensor[1:]
        elif ".attn.in_proj_" in name:
            out[name.replace("in_proj_", "in_proj.")] = interleave_heads(tensor, heads)
        elif name.startswith(("conv1.", "ln_pre.", "transformer.")):
            out[name] = tensor
    return out


class SafetensorsFolder(Mapping):
    """The tensors of a model folder (or of one .safetensors file), read one at a time.

    Raises FileNotFoundError when there is no safetensors file: pickled weights can run code and are refused.
    """

    def __init__(self, path: Path):
        path = Path(path)
        files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
        if not files or files[0].suffix != ".safetensors":
            raise FileNotFoundError(f"{path}: no .safetensors file (pickled weights are not read)")
        from safetensors import safe_open

        self._files = [safe_open(str(file), framework="pt") for file in files]
        self._where = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._where[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def read_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    """All tensors of a model folder or file, lazily."""
    return SafetensorsFolder(path)


def read_weights(folder: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a model folder: its safetensors, else its pytorch_model*.bin, of which nothing is run.

    Raises FileNotFoundError where there are neither, ValueError for a .bin that holds more than tensors.
    """
    folder = Path(folder)
    pickled = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("pytorch_model*.bin"))
    return {name: tensor for file in pickled for name, tensor in _unpickled(file).items()} or SafetensorsFolder(folder)


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{file} is no file of tensors alone, and is not read: {error}") from None


def open_clip_weights(name: str, tag_or_file: str) -> dict[str, torch.Tensor]:
    """open_clip's tensors for a tower: from a local file (.safetensors, .pt without code) or by tag.

    A tag (`laion2b_s39b_b160k`) is downloaded to open_clip's cache. Raises ValueError for an unknown tag.
    """
    path = Path(tag_or_file)
    if not path.exists():
        import open_clip

        found = open_clip.get_pretrained_cfg(name, tag_or_file)
        if not found:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise ValueError(f"{tag_or_file!r} is neither a file nor a tag of open_clip's {name!r}; its tags: {tags}")
        path = Path(open_clip.download_pretrained(found))
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}
