"""Stages, settings, schedule and parameter groups against Table 8 of the paper."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from corpus.stages import STAGES
from trainer.__main__ import flags_of, make_parser
from trainer.attention import Spans
from trainer.data import Plan, micro_packs, packs_per_step
from trainer.flops import forward_flops, peak_flops, step_flops
from trainer.model import VisionLanguageModel
from trainer.optim import gradient_norm, learning_rate, lr_scale, make_optimizer, scale_gradients
from trainer.sizes import SIZES
from trainer.stages import differing, freeze, make_settings

TABLE_8 = """
number          1       2       3
image_size      224     448     448
max_tokens      512     2048    2048
beta1           0.9     0.9     0.9
beta2           0.98    0.98    0.98
eps             1e-6    1e-6    1e-6
peak_lr         2e-4    5e-5    1e-5
min_lr          1e-6    1e-5    1e-6
layer_decay     0.95    0.95    0
weight_decay    0.05    0.05    0.05
clip            1.0     1.0     1.0
steps           50000   19000   8000
warmup          500     400     3000
batch           30720   4096    128
accumulation    6       8       8
tensor_parallel 1       2       2
"""


def test_stages_are_table_8():
    for line in TABLE_8.split("\n")[1:-1]:
        name, *values = line.split()
        assert [getattr(STAGES[i + 1], name) for i in range(3)] == [float(v) for v in values], name
    assert [set(STAGES[i].trains) for i in (1, 2, 3)] == [
        {"vision", "adapter"},
        {"vision", "adapter", "language"},
        {"adapter", "language"},
    ]
    assert [STAGES[i].attention for i in (1, 2, 3)] == ["isolated", "causal", "isolated"]


@pytest.mark.parametrize("size", ["2b", "qwen-vl"])
def test_big_sizes_train_with_the_papers_numbers(size):
    for number, stage in STAGES.items():
        settings = make_settings(number, size)
        for name in ("peak_lr", "min_lr", "steps", "warmup", "batch", "accumulation", "image_size", "layer_decay"):
            assert getattr(settings, name) == getattr(stage, name)


def test_flags_override_and_a_shorter_run_warms_up_for_less():
    settings = make_settings(3, "2b", steps=80, peak_lr=3e-4, beta2=None)
    assert (settings.steps, settings.warmup, settings.peak_lr, settings.beta2) == (80, 30, 3e-4, 0.98)
    with pytest.raises(ValueError, match="leaves nothing"):
        make_settings(1, "2b", steps=10, warmup=10)
    with pytest.raises(ValueError, match="frozen language model"):
        make_settings(2, "tiny", image_rows=True)
    with pytest.raises(ValueError, match="patch"):
        make_settings(2, "tiny", image_size=100)


def test_every_flag_reaches_the_settings():
    line = "--stage 2 --data D --output R --beta2 0.9 --tail-with adapter --compile --trains language --keep 5"
    settings = make_settings(2, "2b", **flags_of(make_parser().parse_args(line.split())))
    assert (settings.beta2, settings.tail_with, settings.compile, settings.keep) == (0.9, "adapter", True, 5)
    assert settings.trained_parts == ("language",)


def test_what_a_resume_may_change():
    settings = make_settings(1, "tiny", workers=0)
    saved = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.to_dict().items()}
    assert differing(saved, make_settings(1, "tiny", workers=3, micro_packs=1)) == []
    assert differing(saved, make_settings(1, "tiny", peak_lr=1.0)) == [f"peak_lr: {settings.peak_lr} -> 1.0"]


# ---- freezing -----------------------------------------------------------------------------------------------------


def meta_model(size="tiny", device="meta", **kwargs):
    from dataclasses import replace

    from trainer.sizes import with_vocabulary

    config = replace(with_vocabulary(SIZES[size].config, 1000), image_marks=(7, 8))
    with torch.device(device):
        return VisionLanguageModel(config, **kwargs)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"stage": 1}, {"vision", "adapter", "tail"}),
        ({"stage": 2}, {"vision", "adapter", "tail", "language"}),
        ({"stage": 3}, {"adapter", "language"}),  # the authors' own code freezes ln_post and proj with the ViT
        ({"stage": 3, "tail_with": "adapter"}, {"adapter", "tail", "language"}),
        ({"stage": 1, "image_rows": True}, {"vision", "adapter", "tail", "image_rows"}),
        ({"stage": 2, "trains": ("language",)}, {"language"}),
    ],
)
def test_freezing(flags, expected):
    settings = make_settings(flags.pop("stage"), "tiny", **flags)
    model = meta_model(image_rows=settings.image_rows)
    freeze(model, settings)
    trained = {n.partition(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    frozen = {n.partition(".")[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert trained == expected
    assert not trained & frozen


# ---- optimizer ----------------------------------------------------------------------------------------------------


def test_layer_decay_of_the_big_tower():
    assert lr_scale("vision.transformer.resblocks.47.attn.in_proj.weight", 48, 0.95) == pytest.approx(0.95)
    assert lr_scale("vision.transformer.resblocks.0.ln_1.bias", 48, 0.95) == pytest.approx(0.0853, abs=1e-4)
    assert lr_scale("vision.positional_embedding", 48, 0.95) == pytest.approx(0.081, abs=1e-3)
    assert lr_scale("vision.conv1.weight", 48, 0.95) == lr_scale("vision.ln_pre.bias", 48, 0.95) == 0.95**49
    assert lr_scale("adapter.query", 48, 0.95) == lr_scale("tail.proj", 48, 0.95) == 1.0
    assert lr_scale("language.model.layers.0.mlp.up_proj.weight", 48, 0.95) == 1.0


def test_parameter_groups_cover_what_trains_once_and_decay_matrices_alone():
    model, settings = meta_model(), make_settings(1, "tiny")
    freeze(model, settings)
    groups = make_optimizer(model, settings).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    seen = [names[id(p)] for g in groups for p in g["params"]]
    assert len(seen) == len(set(seen))
    assert set(seen) == {n for n, p in model.named_parameters() if p.requires_grad}
    undecayed = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {"adapter.query", "vision.positional_embedding", "vision.ln_pre.weight"} <= undecayed
    assert not any(n.endswith(("in_proj.weight", "proj_weight", "tail.proj", "conv1.weight")) for n in undecayed)
    assert {g["weight_decay"] for g in groups} == {0.0, 0.05}


def test_schedule_warms_up_to_the_peak_and_ends_at_the_minimum():
    settings = make_settings(1, "2b")
    assert learning_rate(0, settings) == pytest.approx(2e-4 / 500)
    assert learning_rate(499, settings) == pytest.approx(2e-4)
    assert learning_rate(49_999, settings) == pytest.approx(1e-6)
    middle = 500 + (50_000 - 500) // 2 - 1
    assert learning_rate(middle, settings) == pytest.approx((2e-4 + 1e-6) / 2)
    rates = [learning_rate(s, settings) for s in range(499, 50_000, 100)]
    assert rates == sorted(rates, reverse=True)


def test_gradient_norm_and_scaling():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4)]
    parameters[0].grad, parameters[1].grad = torch.tensor([1.0, 2, 2]), torch.tensor([0.0, 4, 0, 0])
    assert gradient_norm(parameters).item() == pytest.approx(5.0)
    scale_gradients(parameters, torch.tensor(0.5))
    assert gradient_norm(parameters).item() == pytest.approx(2.5)


# ---- the deal of packs --------------------------------------------------------------------------------------------


def test_batches_in_samples_become_packs():
    assert packs_per_step(30720, 6.3) == 4876
    assert packs_per_step(1, 7.0) == 1
    assert micro_packs(4876, 64, 6, 100) == 13  # Table 8's accumulation, where memory allows it
    assert micro_packs(4876, 1, 6, 8) == 8


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_every_pack_of_a_step_is_dealt_once_whatever_the_ranks(ranks, micro):
    plans = [Plan(7, micro, rank, ranks) for rank in range(ranks)]
    for step in (0, 3):
        dealt = [list(plan.step(step)) for plan in plans]
        assert len({len(batches) for batches in dealt}) == 1  # ranks that run out still take part
        assert sorted(p for batches in dealt for b in batches for p in b) == list(range(7 * step, 7 * step + 7))
        assert all(len(b) <= micro for batches in dealt for b in batches)


# ---- FLOPs --------------------------------------------------------------------------------------------------------


def test_flops_of_the_full_size():
    config = SIZES["qwen-vl"].config
    image = {"tokens": 0, "supervised": 0, "images": 1, "pairs": 0}
    at_224, at_448 = (forward_flops(config, size, image) for size in (224, 448))
    assert at_224["vision"] / 1e12 == pytest.approx(0.96, abs=0.01)
    assert at_448["vision"] / 1e12 == pytest.approx(4.11, abs=0.01)
    assert (at_448["adapter"] + at_448["tail"]) / 1e12 == pytest.approx(0.10, abs=0.01)
    # Against the usual 2 N per token, where images and attention are none.
    text = forward_flops(config, 448, {"tokens": 1000, "supervised": 1000, "images": 0, "pairs": 0})
    matrices = 7_721_324_544 - 151936 * 4096 - 32 * (3 * 4096 + 2 * 4096) - 4096
    assert text["language"] == pytest.approx(2 * 1000 * matrices)
    assert text["vision"] == text["adapter"] == 0


def test_backward_counts_only_what_has_a_gradient():
    config = SIZES["2b"].config
    counts = {"tokens": 325, "supervised": 67, "images": 1, "pairs": 325 * 163}
    part = forward_flops(config, 224, counts)
    rest = part["adapter"] + part["tail"]
    everything = step_flops(config, 224, counts, ("vision", "adapter", "tail", "language"))
    assert everything == pytest.approx(3 * sum(part.values()))
    stage_1 = step_flops(config, 224, counts, ("vision", "adapter", "tail"))
    assert stage_1 == pytest.approx(3 * (part["vision"] + rest) + 2 * part["language"])
    stage_3 = step_flops(config, 224, counts, ("adapter", "tail", "language"))
    assert stage_3 == pytest.approx(part["vision"] + 3 * (rest + part["language"]))


def fake_batch(device, lengths: list[int], images: int, config) -> dict:
    length = sum(lengths)
    return {
        "tokens": torch.zeros(1, length, dtype=torch.long, device=device),
        "positions": torch.zeros(1, length, dtype=torch.long, device=device),
        "spans": Spans.of(lengths).to(device),
        "pixels": torch.zeros(images, 3, 112, 112, dtype=torch.uint8, device=device),
        "slots": torch.arange(images * config.queries, device=device),
        "supervised": torch.arange(40, 60, device=device),
        "labels": torch.zeros(20, dtype=torch.long, device=device),
    }


@pytest.mark.parametrize("lengths", [[512], [100, 30, 200, 182]], ids=["causal", "isolated"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_flops_agree_with_pytorchs_own_counter(lengths, device):
    """On fake tensors, so no GPU is needed: what a GPU would run, and that nothing in it waits for the device."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Without cuDNN, which would be looked for on the device.
    backends = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    with FakeTensorMode(), NoSquare(512), torch.no_grad(), backends:
        model = meta_model(device=device)
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
        with FlopCounterMode(display=False) as counter:
            loss, each = model(fake_batch(device, lengths, 2, model.config))
    assert each.shape == (20,) and loss.device.type == device
    # Kernels are counted as if they computed all pairs of a span, where the model needs half of them; without the
    # numbers in its offsets, the one kernel as if all spans were as long as the longest.
    pairs = sum(n * n for n in lengths) if device == "cpu" else len(lengths) * max(lengths) ** 2
    counts = {"tokens": 512, "supervised": 20, "images": 2, "pairs": pairs}
    assert counter.get_total_flops() == pytest.approx(sum(forward_flops(model.config, 112, counts).values()), rel=0.03)


class NoSquare(TorchDispatchMode):
    """Refuses tensors with two dimensions of the length of the batch: a mask, or scores."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                assert list(tensor.shape).count(self.length) < 2, f"{function} makes {tuple(tensor.shape)}"
        return out


def test_peak_of_known_devices():
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("some CPU") is None
    assert math.isclose(peak_flops("NVIDIA H100 PCIe"), 756e12)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_a_size_scales_the_learning_rates_of_its_own_stage(stage, size):
    made, scale = make_settings(stage, size), SIZES[size].lr_scale[stage - 1]
    assert made.peak_lr == pytest.approx(STAGES[stage].peak_lr * scale)
    assert made.min_lr == pytest.approx(STAGES[stage].min_lr * scale)
