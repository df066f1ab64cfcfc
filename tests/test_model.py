"""The model's parts against plain numpy, against open_clip's own tower, and against the paper's counts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.adapter import Adapter, Tail, sincos_table
from trainer.attention import Spans, attend, block_mask, segment_ids, spans_of, targets
from trainer.convert import from_open_clip, interleave_heads, separate_heads
from trainer.model import VisionLanguageModel, count_parameters
from trainer.sizes import SIZES, VisionConfig
from trainer.towers import tower_config
from trainer.vision import VisionTower, resize_table
from trainer.weights import fill, random_source, state_source


def randomise(module, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0, scale, generator=generator)
    return module


# ---- counts -------------------------------------------------------------------------------------------------------


def test_full_size_has_the_papers_parameter_counts():
    with torch.device("meta"):
        counts = count_parameters(VisionLanguageModel(SIZES["qwen-vl"].config))
    assert counts["vision"] == 1_842_770_688
    assert counts["adapter"] == 75_005_952 + 1_048_576
    assert counts["language"] == 7_721_324_544
    # Table 1: 1.9B (with the tail), 0.08B, 7.7B, 9.6B.
    assert round((counts["vision"] + counts["tail"]) / 1e9, 1) == 1.9
    assert round(counts["adapter"] / 1e9, 2) == 0.08
    assert math.floor(sum(counts.values()) / 1e8) == 96


# ---- numpy references ---------------------------------------------------------------------------------------------


def cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def bicubic_matrix(source, target):
    """Weights [target, source] of bicubic interpolation, half-pixel centres, edges repeated, no antialiasing."""
    weights = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * source / target - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), source - 1)] += cubic(centre - j)
    return weights


def numpy_resize(table, side):
    source = round(len(table) ** 0.5)
    m = bicubic_matrix(source, side)
    grid = table.reshape(source, source, -1)
    return np.einsum("ai,bj,ijc->abc", m, m, grid).reshape(side * side, -1)


@pytest.mark.parametrize(("source", "target"), [(4, 8), (16, 32), (8, 5), (3, 3)])
def test_position_table_is_interpolated_as_described(source, target):
    table = torch.randn(source**2, 12, generator=torch.Generator().manual_seed(1))
    ours = resize_table(table, target**2).numpy()
    assert np.abs(ours - numpy_resize(table.numpy().astype(np.float64), target)).max() < 1e-5


def test_interpolation_has_a_deterministic_gradient():
    """F.interpolate's has none on CUDA: --deterministic would stop there."""
    table = torch.randn(16, 8, requires_grad=True)
    with Operators() as seen:
        resize_table(table, 64).sum().backward()
    assert seen.names and not any("upsample" in name for name in seen.names)


class Operators(TorchDispatchMode):
    """Names of all operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def test_interpolation_differs_from_open_clips_antialiased_one():
    table = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    image = table.view(1, 8, 8, 8).permute(0, 3, 1, 2)
    antialiased = F.interpolate(image, size=(5, 5), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(25, 8)
    assert (resize_table(table, 25) - antialiased).abs().max() > 0.1


def test_table_of_no_square_is_refused():
    with pytest.raises(ValueError, match="squares"):
        resize_table(torch.zeros(16, 4), 15)


def numpy_sincos(width, side):
    table = np.zeros((side * side, width))
    for row in range(side):
        for column in range(side):
            for i in range(width // 4):
                omega = 10000 ** (-i / (width / 4))
                for half, position in ((0, column), (width // 2, row)):
                    table[row * side + column, half + i] = math.sin(position * omega)
                    table[row * side + column, half + width // 4 + i] = math.cos(position * omega)
    return table


def test_sincos_table_encodes_the_column_first():
    assert np.abs(sincos_table(24, 5).numpy() - numpy_sincos(24, 5)).max() < 1e-6


def layer_norm(x, weight, bias, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def numpy_adapter(p, patches, heads):
    """One image's patches [P, V] -> [Q, D], from the description of the resampler and its tail."""
    kv = layer_norm(patches @ p["kv_proj.weight"].T, p["ln_kv.weight"], p["ln_kv.bias"])
    q = layer_norm(p["query"], p["ln_q.weight"], p["ln_q.bias"])
    queries, width = q.shape
    table = numpy_sincos(width, round(queries**0.5))
    wq, wk, wv = np.split(p["attn.in_proj_weight"], 3)
    bq, bk, bv = np.split(p["attn.in_proj_bias"], 3)
    q = (q + table) @ wq.T + bq
    k = (kv + numpy_resize(table, round(len(patches) ** 0.5))) @ wk.T + bk
    v = kv @ wv.T + bv
    out = np.zeros((queries, width))
    for h in range(heads):
        cut = slice(h * width // heads, (h + 1) * width // heads)
        scores = q[:, cut] @ k[:, cut].T / math.sqrt(width // heads)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, cut] = weights / weights.sum(-1, keepdims=True) @ v[:, cut]
    return out @ p["attn.out_proj.weight"].T + p["attn.out_proj.bias"]


@pytest.mark.parametrize(("queries", "patches"), [(16, 16), (16, 64), (4, 36), (25, 16)])
def test_adapter_agrees_with_numpy(queries, patches):
    adapter, tail = randomise(Adapter(20, 32, queries, 4)), randomise(Tail(32), 1)
    x = torch.randn(2, patches, 20, generator=torch.Generator().manual_seed(2))
    p = {name: t.detach().numpy().astype(np.float64) for name, t in adapter.state_dict().items()}
    t = {name: t.detach().numpy().astype(np.float64) for name, t in tail.state_dict().items()}
    for image, ours in zip(x.numpy().astype(np.float64), tail(adapter(x)).detach().numpy(), strict=True):
        expected = layer_norm(numpy_adapter(p, image, 4), t["ln_post.weight"], t["ln_post.bias"]) @ t["proj"]
        assert np.abs(ours - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_adapter_refuses_what_it_cannot_lay_out():
    with pytest.raises(ValueError, match="square number of queries"):
        Adapter(20, 32, 10, 4)


# ---- the tower ----------------------------------------------------------------------------------------------------

TOY = VisionConfig(name="toy", width=48, layers=2, heads=3, mlp_width=96, patch=4, image_size=16, layer_norm_eps=1e-5)


def test_tower_equals_open_clips_trunk_without_its_class_token():
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.transformer.VisionTransformer(16, 4, 48, 2, 3, 2.0)
    randomise(theirs, scale=0.2)
    ours = VisionTower(TOY)
    fill(ours, [state_source(from_open_clip(theirs.state_dict(), TOY.heads))])
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = theirs.conv1(pixels).flatten(2).transpose(1, 2) + theirs.positional_embedding[1:]
    expected = theirs.transformer(theirs.ln_pre(x))
    assert (ours(pixels) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_interleaving_heads_is_the_permutation_of_the_released_checkpoints():
    w = torch.randn(3 * 4 * 5, 20)
    heads, head_dim = 4, 5
    expected = w.view(3, heads, head_dim, 20).permute(1, 0, 2, 3).reshape(60, 20)
    assert torch.equal(interleave_heads(w, heads), expected)
    assert torch.equal(separate_heads(interleave_heads(w, heads), heads), w)


def test_towers_by_name():
    assert tower_config("ViT-bigG-14").mlp_width == 8192
    pytest.importorskip("open_clip")
    assert tower_config("ViT-B-16").heads == 12
    with pytest.raises(ValueError, match="not a plain ViT"):
        tower_config("ViT-SO400M-14-SigLIP")
    with pytest.raises(ValueError, match="known are tiny-14"):
        tower_config("ViT-Z-3")


@pytest.mark.parametrize("name", ["ViT-bigG-14", "ViT-L-14"])
def test_built_in_towers_are_open_clips(name):
    pytest.importorskip("open_clip")
    from trainer import towers

    assert towers._from_open_clip(name, vision_config(name)) == tower_config(name)


def vision_config(name):
    import open_clip

    return open_clip.get_model_config(name)


def test_tower_runs_at_other_resolutions_than_its_table():
    tower = randomise(VisionTower(TOY))
    assert tower(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 48)


# ---- attention and targets ----------------------------------------------------------------------------------------


def test_spans_masks_and_targets_of_a_pack():
    segments = segment_ids([2, 3])
    assert segments.tolist() == [1, 1, 2, 2, 2]
    assert spans_of([2, 3], "isolated") == [2, 3]
    assert spans_of([2, 3], "causal") == [5]
    assert Spans.of([2, 3]).offsets.tolist() == [0, 2, 5]
    mask = block_mask(torch.tensor([[*segments, 0]]))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    supervised = np.array([False, True, True, True, True])
    # Token 2 opens the second sample, so position 1 has no target although token 2 is marked.
    assert targets(np.array([10, 11, 12, 13, 14]), supervised, segments).tolist() == [11, -100, 13, 14, -100]


@pytest.mark.parametrize("kv_heads", [8, 2])
def test_spans_attend_as_under_a_dense_mask(kv_heads):
    lengths, generator = [37, 200, 1, 90], torch.Generator().manual_seed(0)
    shapes = [(1, 8, 328, 16), (1, kv_heads, 328, 16), (1, kv_heads, 328, 16)]
    inputs = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    upstream = torch.randn(1, 328, 8, 16, generator=generator)
    ours, _ = attend(None, *inputs, None, scaling=0.3, spans=Spans.of(lengths))
    mask = block_mask(torch.from_numpy(segment_ids(lengths))[None])
    dense = F.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    assert (ours - dense).abs().max() < 1e-5
    pairs = zip(*(torch.autograd.grad(x, inputs, upstream) for x in (ours, dense)), strict=True)
    assert all((a - b).abs().max() < 1e-5 * b.abs().max() for a, b in pairs)


# ---- weights ------------------------------------------------------------------------------------------------------


def test_initial_weights_depend_on_seed_and_name_alone():
    config = SIZES["tiny"].config
    a, b = random_source(config, 0), random_source(config, 0)
    shape = torch.Size((4, 4))
    b("vision.conv1.weight", torch.Size((2, 2)))
    assert torch.equal(a("language.lm_head.weight", shape), b("language.lm_head.weight", shape))
    assert not torch.equal(a("language.lm_head.weight", shape), a("language.other.weight", shape))
    assert not torch.equal(a("x.weight", shape), random_source(config, 1)("x.weight", shape))


def test_missing_rows_of_an_embedding_come_from_the_next_source():
    holder = torch.nn.Module()
    holder.embed_tokens = torch.nn.Embedding(5, 3)
    fill(holder, [state_source({"embed_tokens.weight": torch.ones(3, 3)}), lambda name, shape: torch.zeros(shape)])
    assert holder.embed_tokens.weight.sum(1).tolist() == [3, 3, 3, 0, 0]
    with pytest.raises(ValueError, match=r"\(7, 3\).*\(5, 3\)"):
        fill(holder, [state_source({"embed_tokens.weight": torch.ones(7, 3)})])
