"""Adapters: what trains, that a merged export answers as the model that trained, quantised or not, and exact resume."""

import pytest
import torch

from tests.test_training import FAST, in_child
from tests.tiny_stage import make_stage, sample
from trainer import checkpoint, lora
from trainer.assistant import Assistant
from trainer.convert import SafetensorsFolder
from trainer.footprint import parameters
from trainer.progress import read_metrics
from trainer.quantise import dequantised, quantise_blocks
from trainer.run import Job, run_stage
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import Lora, make_settings

ADAPT = FAST | {"lora": "r=4,alpha=8", "steps": 4}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A stage-3 folder and a model to begin from."""
    root = tmp_path_factory.mktemp("lora")
    data = make_stage(root / "data", stage=3, tasks=("chat",), per_task=8)
    run_stage(Job(stage=2, data=str(data), output=root / "before", flags=FAST | {"steps": 3}))
    return root


def tensors(run):
    return dict(SafetensorsFolder(run / "export"))


def job(start, output, **flags):
    return Job(stage=3, data=str(start / "data"), init=str(start / "before"), output=output, flags=ADAPT | flags)


def changed(run, start) -> set[str]:
    before, after = tensors(start / "before"), tensors(run)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_adapters_change_the_authors_products_and_nothing_else_of_the_language_model(start, tmp_path):
    run_stage(job(start, tmp_path / "run"))
    language = {name for name in changed(tmp_path / "run", start) if name.startswith("language.")}
    names = [f"self_attn.{n}_proj" for n in "qkvo"] + ["mlp.up_proj", "mlp.gate_proj"]
    assert language == {f"language.model.layers.{i}.{name}.weight" for i in (0, 1) for name in names}
    assert any(name.startswith("adapter.") for name in changed(tmp_path / "run", start))


def test_fresh_adapters_change_nothing(start, tmp_path):
    run_stage(job(start, tmp_path / "run", peak_lr=0.0, min_lr=0.0))
    assert changed(tmp_path / "run", start) == set()


@pytest.mark.parametrize("kind", ["nf4", "int8", None])
def test_what_is_merged_computes_what_was_trained(start, tmp_path, kind, monkeypatch):
    kept = {}
    monkeypatch.setattr(lora, "merged", lambda t, s, merged=lora.merged: kept.setdefault("plain", merged(t, s)))
    from trainer import run as module

    train = module._train

    def spy(job, run, *rest):
        kept["model"] = run.model
        train(job, run, *rest)

    monkeypatch.setattr(module, "_train", spy)
    run_stage(job(start, tmp_path / "run", quantise=kind, trains=["language"]))
    exported = Assistant.load(tmp_path / "run")
    tokens = torch.arange(1, 40)[None]
    ours, theirs = logits(kept["model"].eval(), tokens), logits(exported.model, tokens)
    assert torch.allclose(ours, theirs, atol=2e-5), (ours - theirs).abs().max()
    if kind:  # and the quantisation did change something
        assert "language.model.layers.0.mlp.down_proj.weight" in changed(tmp_path / "run", start)
    again = Assistant.load(_without_export(tmp_path / "run"))  # from its checkpoint
    assert torch.allclose(logits(again.model, tokens), theirs, atol=2e-5)


def _without_export(run):
    (run / "export").rename(run / "moved")
    return run


@torch.no_grad()
def logits(model, tokens):
    return model.language(inputs_embeds=model.embed(tokens), use_cache=False).logits


@pytest.mark.slow
def test_killed_and_resumed_with_adapters_is_bit_identical(start, tmp_path):
    flags = {"quantise": "nf4", "optimizer_bits": 8, "steps": 6}
    assert in_child(job(start, tmp_path / "whole", **flags), None) == 0
    broken = job(start, tmp_path / "broken", **flags)
    broken = Job(**{**broken.__dict__, "resume": "auto"})
    assert in_child(broken, 5) != 0
    assert checkpoint.latest(broken.output).name < "step-00000006"
    held = checkpoint._names(checkpoint.latest(broken.output))
    assert all(".lora_" in name for name in held if name.startswith("language."))
    assert in_child(broken, None) == 0
    assert [r["loss"] for r in read_metrics(tmp_path / "whole")] == [
        r["loss"] for r in read_metrics(tmp_path / "broken")
    ]
    whole, resumed = tensors(tmp_path / "whole"), tensors(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("kind, share", [("nf4", 0.12), ("int8", 0.012)])
def test_quantised_weights_take_what_is_said_and_are_as_close_as_is_said(kind, share):
    block = torch.nn.Linear(128, 352, bias=False)
    language = torch.nn.Module()
    language.base_model = torch.nn.Module()
    language.base_model.layers = [torch.nn.Sequential(block)]
    before = block.weight.detach().clone()
    block.requires_grad_(False)
    quantise_blocks(language, kind)
    after = dequantised(block.weight.data)
    assert 0 < (after - before).norm() / before.norm() < share
    assert torch.allclose(block(torch.ones(1, 128)), torch.ones(1, 128) @ after.T, atol=1e-4)


def test_what_trains_is_left_alone_by_quantisation():
    with torch.device("meta"):
        trained = torch.nn.Linear(4, 4)
    language = torch.nn.Module()
    language.base_model = torch.nn.Module()
    language.base_model.layers = [torch.nn.Sequential(trained)]
    quantise_blocks(language, "nf4")
    assert type(trained.weight) is torch.nn.Parameter


@pytest.mark.parametrize("text", ["64", "r=0", "r=x", "r=4,beta=2", "r=4,dropout=1", ""])
def test_adapters_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match="--lora"):
        make_settings(3, "tiny", lora=text)


def test_settings_that_exclude_each_other_are_refused():
    assert Lora.parse("r=8") == Lora(r=8, alpha=16, dropout=0.05)
    for flags, words in (
        ({"quantise": "nf4"}, "trains all of it"),
        ({"lora": "r=4", "trains": ("adapter",)}, "add language"),
        ({"lora": "r=4", "tensor_parallel": 2}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=words):
            make_settings(3, "tiny", **flags)


def test_a_hundredth_of_the_language_model_trains():
    settings = make_settings(3, "qwen-vl", lora="r=64", trains=("language",))
    trained, frozen, _ = parameters(with_vocabulary(SIZES["qwen-vl"].config, 151936), settings)
    assert trained == 32 * 64 * (4 * 2 * 4096 + 2 * (4096 + 11008)) and 9.5e9 < frozen < 9.8e9


@pytest.mark.slow
def test_adapters_beside_4_bits_learn_dialogues_and_their_export_says_them(start, tmp_path):
    """The loss falls below a quarter; the export, asked what it was trained on, answers in those words."""
    flags = {"lora": "r=64,alpha=64,dropout=0", "quantise": "nf4", "steps": 150, "peak_lr": 1e-2, "eps": 1e-8}
    run_stage(job(start, tmp_path / "run", save_every=150, **flags))
    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert losses[-1] < losses[0] / 4, losses[::20]
    assistant, right = Assistant.load(tmp_path / "run"), 0
    for number in range(8):
        made = sample("chat", number)
        answer, _ = assistant.chat([{"image": made.images[0].data}, {"text": "What is this?"}], max_tokens=60)
        right += answer.text == made.text
    assert right >= 6, right


def test_adapters_train_in_bfloat16_where_fsdp_holds_what_trains(start, tmp_path):
    run_stage(job(start, tmp_path / "run", precision="bf16", quantise="nf4", optimizer_bits=8, steps=3, peak_lr=1e-2))
    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "run").values())
