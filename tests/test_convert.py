"""Conversions against an independent implementation of Qwen v1, and against the released checkpoint's names."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from trainer.convert import (
    SafetensorsFolder,
    open_clip_weights,
    qwen_to_qwen2,
    qwen_to_qwen2_config,
    qwen_vl_place,
    read_place,
    to_qwen_vl,
)
from trainer.language import build_language, language_config, language_weights
from trainer.model import VisionLanguageModel
from trainer.sizes import TOWERS, ModelConfig, VisionConfig, qwen2
from trainer.weights import fill, state_source

HIDDEN, LAYERS, HEADS, MLP, VOCABULARY = 32, 2, 4, 48, 60
CONFIG = {
    "model_type": "qwen",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * MLP,
    "vocab_size": VOCABULARY,
    "rotary_emb_base": 10000,
    "layer_norm_epsilon": 1e-6,
}


def qwen_v1_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def w(*shape):
        return torch.randn(*shape, generator=generator) * 0.2

    state = {"transformer.wte.weight": w(VOCABULARY, HIDDEN), "transformer.ln_f.weight": 1 + w(HIDDEN)}
    for i in range(LAYERS):
        h = f"transformer.h.{i}"
        state |= {f"{h}.ln_1.weight": 1 + w(HIDDEN), f"{h}.ln_2.weight": 1 + w(HIDDEN)}
        state |= {f"{h}.attn.c_attn.weight": w(3 * HIDDEN, HIDDEN), f"{h}.attn.c_attn.bias": w(3 * HIDDEN)}
        state |= {f"{h}.attn.c_proj.weight": w(HIDDEN, HIDDEN), f"{h}.mlp.c_proj.weight": w(HIDDEN, MLP)}
        state |= {f"{h}.mlp.w1.weight": w(MLP, HIDDEN), f"{h}.mlp.w2.weight": w(MLP, HIDDEN)}
    return state | {"lm_head.weight": w(VOCABULARY, HIDDEN)}


def rms(x, weight):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x):
    """[L, head_dim], pairing channel i with i + head_dim / 2."""
    half = x.shape[1] // 2
    angles = torch.arange(len(x))[:, None] * 10000 ** (-torch.arange(half) / half)[None]
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=1)


def qwen_v1_logits(state, tokens):
    """Qwen-7B's architecture, one head at a time, straight from its tensors' names."""
    x, dim = state["transformer.wte.weight"][tokens], HIDDEN // HEADS
    future = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for i in range(LAYERS):
        p = {k.removeprefix(f"transformer.h.{i}."): v for k, v in state.items()}
        qkv = rms(x, p["ln_1.weight"]) @ p["attn.c_attn.weight"].T + p["attn.c_attn.bias"]
        out = []
        for h in range(HEADS):
            q, k, v = (qkv[:, j * HIDDEN + h * dim : j * HIDDEN + (h + 1) * dim] for j in range(3))
            scores = (rotate(q) @ rotate(k).T / math.sqrt(dim)).masked_fill(future, -torch.inf)
            out.append(scores.softmax(-1) @ v)
        x = x + torch.cat(out, dim=1) @ p["attn.c_proj.weight"].T
        y = rms(x, p["ln_2.weight"])
        gated = (y @ p["mlp.w1.weight"].T) * torch.nn.functional.silu(y @ p["mlp.w2.weight"].T)
        x = x + gated @ p["mlp.c_proj.weight"].T
    return rms(x, state["transformer.ln_f.weight"]) @ state["lm_head.weight"].T


def test_converted_qwen_gives_the_same_logits():
    state, tokens = qwen_v1_weights(), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 59])
    model = build_language(qwen_to_qwen2_config(CONFIG))
    model.load_state_dict(qwen_to_qwen2(state), strict=True)
    logits = model(tokens[None]).logits[0]
    expected = qwen_v1_logits(state, tokens)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()

    swapped = {k.replace("w1", "w9").replace("w2", "w1").replace("w9", "w2"): v for k, v in state.items()}
    model.load_state_dict(qwen_to_qwen2(swapped), strict=True)
    assert (model(tokens[None]).logits[0] - expected).abs().max() > 0.01


def test_a_qwen_folder_is_read_as_a_language_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(qwen_v1_weights(), tmp_path / "model.safetensors")
    model = build_language(language_config(str(tmp_path)))
    fill(model, [state_source(language_weights(str(tmp_path)))])
    assert torch.equal(model.lm_head.weight, qwen_v1_weights()["lm_head.weight"])


def test_a_transformers_folder_is_read_as_a_language_model(tmp_path):
    model = build_language(qwen2(HIDDEN, 1, HEADS, MLP, VOCABULARY))
    model.save_pretrained(tmp_path)
    fields = language_config(str(tmp_path))
    assert (fields["hidden_size"], fields["vocab_size"]) == (HIDDEN, VOCABULARY)
    assert torch.equal(language_weights(str(tmp_path))["lm_head.weight"], model.lm_head.weight)


def test_quantised_checkpoints_are_refused():
    with pytest.raises(ValueError, match="not a plain Qwen-7B checkpoint.*g_idx"):
        qwen_to_qwen2(qwen_v1_weights() | {"transformer.h.0.mlp.w1.g_idx": torch.zeros(1)})


def released_names(path):
    """The names of the unquantised release, from those of its 4-bit version (which adds zero biases)."""
    names = {n for n in json.loads(path.read_text())["weight_map"] if not n.endswith(("qzeros", "scales", "g_idx"))}
    zero = ("attn.c_proj.bias", "mlp.c_proj.bias", "mlp.w1.bias", "mlp.w2.bias")
    in_llm = {n for n in names if n.startswith("transformer.h.") and n.endswith(zero)}
    return {n.replace("qweight", "weight") for n in names - in_llm}


def test_names_are_those_of_the_released_qwen_vl(shared_data):
    from trainer.sizes import SIZES

    with torch.device("meta"):
        model = VisionLanguageModel(SIZES["qwen-vl"].config)
    expected = released_names(shared_data("tokenizer/qwen_vl_weight_names.json"))
    assert set(to_qwen_vl(model.state_dict())) == expected


def tiny_model(seed=0):
    config = ModelConfig(
        size="test",
        vision=VisionConfig(**{**TOWERS["tiny-14"].__dict__, "width": 32, "mlp_width": 64}),
        language=qwen2(HIDDEN, LAYERS, HEADS, MLP, VOCABULARY),
        queries=4,
        adapter_heads=4,
    )
    model = VisionLanguageModel(config)
    generator = torch.Generator().manual_seed(seed)
    fill(model, [lambda name, shape: torch.randn(shape, generator=generator)])
    return model


def test_qwen_vl_layout_round_trip(tmp_path):
    model = tiny_model()
    save_file({k: v.contiguous() for k, v in to_qwen_vl(model.state_dict()).items()}, tmp_path / "model.safetensors")
    released = SafetensorsFolder(tmp_path)
    assert len(released["transformer.h.0.attn.c_attn.weight"]) == 3 * HIDDEN
    for name, tensor in model.state_dict().items():
        assert torch.equal(read_place(released, qwen_vl_place(name)), tensor), name


def test_pickles_are_refused_and_tags_listed(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickled"):
        SafetensorsFolder(tmp_path)
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match="neither a file nor a tag.*laion2b_s39b_b160k"):
        open_clip_weights("ViT-bigG-14", "no_such_tag")


def test_open_clip_weights_from_local_files(tmp_path):
    state = {"visual.conv1.weight": torch.ones(2)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "clip.pt")
    save_file(state, tmp_path / "clip.safetensors")
    for file in ("clip.pt", "clip.safetensors"):
        assert torch.equal(open_clip_weights("ViT-L-14", str(tmp_path / file))["visual.conv1.weight"], torch.ones(2))
