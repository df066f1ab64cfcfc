"""Whole runs: three stages in a row, what each changes, exact resume, exports, and input that does not fit."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest
import torch

from corpus.packs import CORPUS, WrongCorpus
from corpus.records import EncodedImage
from corpus.tokens import load_tokenizer, write_ranks
from tests.tiny_stage import make_stage
from trainer import checkpoint, export, exports
from trainer.convert import SafetensorsFolder, separate_heads
from trainer.loop import NonFiniteLoss
from trainer.optim import learning_rate
from trainer.plot import main as plot
from trainer.progress import read_metrics
from trainer.run import Job, run_stage
from trainer.stages import make_settings

FAST = {"batch": 8, "steps": 6, "save_every": 2, "deterministic": True, "peak_lr": 3e-3}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora")
    return {
        1: make_stage(root / "1", stage=1, tasks=("caption",), per_task=16),
        2: make_stage(root / "2", stage=2, tasks=("caption", "vqa", "referring", "ocr", "text"), per_task=8),
        3: make_stage(root / "3", stage=3, tasks=("chat", "text"), per_task=8),
    }


@pytest.fixture(scope="module")
def runs(corpora, tmp_path_factory):
    """The three stages in a row at `tiny`."""
    root = tmp_path_factory.mktemp("runs")
    for stage in (1, 2, 3):
        init = str(root / str(stage - 1)) if stage > 1 else None
        run_stage(Job(stage=stage, data=str(corpora[stage]), output=root / str(stage), init=init, flags=FAST))
    return root


def tensors(run):
    return dict(SafetensorsFolder(run / "export"))


def test_each_stage_changes_what_it_trains_and_nothing_else(runs, corpora, tmp_path):
    run_stage(Job(stage=1, data=str(corpora[1]), output=tmp_path / "0", flags=FAST | {"peak_lr": 0.0, "min_lr": 0.0}))
    states = [tensors(tmp_path / "0")] + [tensors(runs / str(stage)) for stage in (1, 2, 3)]
    trained = [{"vision", "adapter", "tail"}, {"vision", "adapter", "tail", "language"}, {"adapter", "language"}]
    for before, after, parts in zip(states[:-1], states[1:], trained, strict=True):
        for name, tensor in after.items():
            changed = not torch.equal(tensor, before[name])
            fixed = name == "adapter.pos_embed"
            assert changed == (name.partition(".")[0] in parts and not fixed), name


def test_losses_fall_and_metrics_tell_all(runs):
    for stage in (1, 2, 3):
        records = read_metrics(runs / str(stage))
        assert [r["step"] for r in records] == list(range(1, 7))
        assert records[-1]["loss"] < records[0]["loss"]
    record = read_metrics(runs / "2")[-1]
    assert set(record["lr"]) == {"vision", "adapter", "tail", "language"}
    assert record["flops_per_second"] > 0 and 0 <= record["padding"] < 1 and 0 <= record["data_wait"] <= 1
    seen = {task for r in read_metrics(runs / "2") for task in r["loss_per_task"]}
    assert seen == {"caption", "vqa", "referring", "ocr", "text"}
    mean = sum(r["loss"] for r in read_metrics(runs / "2")) / 6
    assert 5 < mean < 10  # nats per token, about log(vocabulary) at first
    assert list((runs / "2" / "tensorboard").iterdir())


def test_an_export_loads_without_the_run(runs, tmp_path):
    folder = shutil.copytree(runs / "3" / "export", tmp_path / "model")
    model = exports.load_model(folder)
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    for name, tensor in tensors(runs / "3").items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert load_tokenizer(folder).fingerprint == load_tokenizer().fingerprint
    with torch.no_grad():
        embeddings = model.embed(torch.tensor([[1, 2, 3]]))
        words = model.language.generate(inputs_embeds=embeddings, max_new_tokens=4, do_sample=False, use_cache=True)
    assert words.shape == (1, 4)


def test_the_released_layout_can_be_written_and_trained_on(runs, corpora, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["export", str(runs / "1" / "export"), "--to", str(tmp_path / "released"),
                                     "--dtype", "float32"])  # fmt: skip
    assert export.main() == 0
    assert "transformer.visual.proj" in SafetensorsFolder(tmp_path / "released")
    job = Job(stage=2, data=str(corpora[2]), output=tmp_path / "run", init=str(tmp_path / "released"), flags=FAST)
    run_stage(job)
    for name, tensor in tensors(runs / "2").items():
        assert torch.equal(tensor, tensors(tmp_path / "run")[name]), name


def test_big_exports_are_cut_into_files_with_an_index(runs, tmp_path):
    state = tensors(runs / "3")
    exports.write_tensors(tmp_path, state, limit=2 << 20)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    again = SafetensorsFolder(tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_image_rows_trained_in_stage_1_end_up_in_the_embedding(corpora, runs, tmp_path):
    run_stage(Job(stage=1, data=str(corpora[1]), output=tmp_path / "rows", flags=FAST | {"image_rows": True}))
    tokenizer, name = load_tokenizer(), "language.model.embed_tokens.weight"
    ours, frozen = tensors(tmp_path / "rows")[name], tensors(runs / "1")[name]
    differ = {i for i in range(len(ours)) if not torch.equal(ours[i], frozen[i])}
    assert differ == {tokenizer.image_start, tokenizer.image_end}


def test_plot_draws_the_curve(runs, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["plot", str(runs / "1"), str(runs / "2"), "--to", str(tmp_path / "curve.png")])
    plot()
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_a_run_from_an_open_clip_tower_and_a_language_model_of_transformers(corpora, tmp_path):
    """With shared key/value heads, tied embeddings, and fewer rows than the tokenizer has tokens."""
    from safetensors.torch import save_file

    from trainer.language import build_language
    from trainer.sizes import TOWERS, qwen2
    from trainer.vision import VisionTower

    rows = load_tokenizer().vocab_size - 12
    fields = qwen2(64, 2, 4, 128, rows) | {"num_key_value_heads": 2, "tie_word_embeddings": True}
    language = build_language(fields)
    language.save_pretrained(tmp_path / "language")
    tower = VisionTower(TOWERS["tiny-14"])
    width, clip = tower.config.width, {}
    for name, tensor in tower.state_dict().items():
        tensor.normal_()
        in_proj = ".attn.in_proj." in name
        value = separate_heads(tensor, tower.config.heads) if in_proj else tensor
        clip["visual." + name.replace("in_proj.", "in_proj_")] = value.clone()
    clip["visual.positional_embedding"] = torch.cat([torch.zeros(1, width), clip["visual.positional_embedding"]])
    clip |= {"visual.class_embedding": torch.zeros(width), "visual.proj": torch.zeros(width, 8)}
    clip["logit_scale"] = torch.ones(1)
    save_file(clip, tmp_path / "clip.safetensors")

    given = {"vision": "tiny-14", "vision_weights": str(tmp_path / "clip.safetensors")}
    still = FAST | {"peak_lr": 0.0, "min_lr": 0.0, "steps": 2}
    run_stage(Job(stage=1, data=str(corpora[1]), output=tmp_path / "run", queries=16, flags=still,
                  language=str(tmp_path / "language"), **given))  # fmt: skip
    out = tensors(tmp_path / "run")
    for name, tensor in tower.state_dict().items():
        assert torch.equal(out[f"vision.{name}"], tensor), name
    for name, tensor in language.state_dict().items():
        assert torch.equal(out[f"language.{name}"][: len(tensor)], tensor), name
    assert len(out["language.model.embed_tokens.weight"]) == -(-(rows + 12) // 64) * 64
    assert torch.equal(out["language.lm_head.weight"], out["language.model.embed_tokens.weight"])


# ---- exact resume -------------------------------------------------------------------------------------------------


def in_child(job: Job, until_step: int | None, how=signal.SIGKILL) -> int:
    """Run a job in a process of its own; send it `how` once it has told of `until_step`. Return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.run", "torch.utils.tensorboard"])
    child = context.Process(target=_quietly, args=(job,))
    child.start()
    deadline = time.monotonic() + 200
    while until_step is not None and child.is_alive() and time.monotonic() < deadline:
        if any(r["step"] >= until_step for r in read_metrics(job.output)):
            os.kill(child.pid, how)
            break
        time.sleep(0.005)
    child.join(200)
    assert not child.is_alive()
    return child.exitcode


def _quietly(job: Job) -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run_stage(job)


EXACT = ("loss", "loss_per_task", "grad_norm", "lr", "tokens", "supervised", "images")


@pytest.mark.slow
def test_killed_and_resumed_twice_is_bit_identical(corpora, tmp_path):
    flags = FAST | {"steps": 12, "save_every": 3}
    make = {"stage": 2, "data": str(corpora[2]), "flags": flags}
    torch.set_num_threads(1)
    run_stage(Job(output=tmp_path / "whole", **make))
    broken = Job(output=tmp_path / "broken", resume="auto", **make)
    for kill_at in (7, 10):  # the checkpoint before the last is whole by then, the last may be half written
        assert in_child(broken, kill_at) == -signal.SIGKILL
        assert "step-00000003" <= checkpoint.latest(broken.output).name < "step-00000012"
    # The last part with other workers and other micro-batches of the same step.
    last = Job(output=tmp_path / "broken", resume="auto", **(make | {"flags": flags | {"workers": 1}}))
    assert in_child(last, None) == 0
    whole, resumed = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "broken")
    assert [{n: r[n] for n in EXACT} for r in whole] == [{n: r[n] for n in EXACT} for r in resumed]
    for name, tensor in tensors(tmp_path / "whole").items():
        assert torch.equal(tensor, tensors(tmp_path / "broken")[name]), name
    kept = sorted(p.name for p in (tmp_path / "broken" / "checkpoints").iterdir())
    assert kept == ["latest", "step-00000009", "step-00000012"]


def test_a_resume_takes_more_steps_only_when_it_says_so_and_says_what_changes(corpora, tmp_path, capsys):
    make = {"stage": 1, "data": str(corpora[1]), "output": tmp_path / "run"}
    run_stage(Job(**make, flags=FAST | {"steps": 4, "warmup": 1}))
    longer = FAST | {"steps": 6, "warmup": 1}
    with pytest.raises(checkpoint.WrongCheckpoint, match="steps: 4 -> 6.*--reschedule"):
        run_stage(Job(**make, flags=longer, resume="auto"))
    with pytest.raises(checkpoint.WrongCheckpoint, match="seed: 0 -> 7"):
        run_stage(Job(**make, flags=longer | {"seed": 7}, resume="auto", reschedule=True))
    with pytest.raises(checkpoint.WrongCheckpoint, match="has 4 steps already"):
        run_stage(Job(**make, flags=longer | {"steps": 3}, resume="auto", reschedule=True))
    run_stage(Job(**make, flags=longer, resume="auto", reschedule=True))
    said = capsys.readouterr().out
    assert "the schedule changes after step 4: steps: 4 -> 6; the learning rate goes on at" in said
    metrics = read_metrics(tmp_path / "run")
    settings = make_settings(1, "tiny", **longer)
    assert [round(max(m["lr"].values()), 12) for m in metrics[4:]] == [
        round(learning_rate(step, settings), 12) for step in (4, 5)
    ]


@pytest.mark.slow
def test_sigterm_saves_and_ends_and_the_run_goes_on(corpora, tmp_path):
    flags = FAST | {"steps": 30, "save_every": 1000}
    job = Job(stage=1, data=str(corpora[1]), output=tmp_path / "run", resume="auto", flags=flags)
    assert in_child(job, 3, signal.SIGTERM) == 0
    step = checkpoint.read_state(checkpoint.latest(job.output))["step"]
    assert 3 <= step < 30
    assert [r["step"] for r in read_metrics(job.output)] == list(range(1, step + 1))
    assert in_child(job, None) == 0
    assert [r["step"] for r in read_metrics(job.output)] == list(range(1, 31))
    assert (job.output / "export" / "config.json").exists()


def test_a_half_written_checkpoint_is_not_taken_for_one(runs, tmp_path):
    run = shutil.copytree(runs / "1", tmp_path / "run")
    (run / "checkpoints" / ".step-00000099.tmp").mkdir()
    assert checkpoint.latest(run).name == "step-00000006"
    (run / "checkpoints" / "latest").write_text("step-00000099")
    with pytest.raises(checkpoint.WrongCheckpoint, match="names step-00000099, which is not there"):
        checkpoint.latest(run)


# ---- what does not fit --------------------------------------------------------------------------------------------


def job(corpora, output, **changes):
    return Job(**({"stage": 2, "data": str(corpora[2]), "output": output, "flags": FAST} | changes))


def test_a_missing_stage_folder_is_named(tmp_path):
    with pytest.raises(WrongCorpus, match=r"nowhere is no finished stage folder.*corpus.json"):
        run_stage(Job(stage=1, data=str(tmp_path / "nowhere"), output=tmp_path / "run"))


def test_another_number_of_queries_is_refused(corpora, tmp_path):
    with pytest.raises(WrongCorpus, match="built with --queries 16, the model has 64"):
        run_stage(job(corpora, tmp_path / "run", queries=64))


def test_shards_of_another_tokenizer_are_refused(corpora, runs, tmp_path):
    ranks = tmp_path / "other.tiktoken"
    write_ranks(ranks, [bytes([i]) for i in range(256)] + [b"th", b"he"])
    other = make_stage(tmp_path / "other", tasks=("caption",), per_task=4, tokenizer=str(ranks))
    with pytest.raises(WrongCorpus, match="other.* has <imgpad> as|another tokenizer"):
        run_stage(job(corpora, tmp_path / "run", data=str(other), init=str(runs / "1")))
    # A folder whose shards were swapped under its corpus.json.
    record = json.loads((other / CORPUS).read_text())
    record["tokenizer"]["fingerprint"] = "0" * 32
    (other / CORPUS).write_text(json.dumps(record))
    with pytest.raises(WrongCorpus, match="made with another tokenizer"):
        run_stage(job(corpora, tmp_path / "run", data=str(other)))


def test_a_model_of_another_size_is_refused(corpora, runs, tmp_path):
    with pytest.raises(exports.WrongModel, match="holds a model of size tiny, not small"):
        run_stage(job(corpora, tmp_path / "run", init=str(runs / "1"), size="small"))
    with pytest.raises(exports.WrongModel, match="no exported model"):
        run_stage(job(corpora, tmp_path / "run", init=str(tmp_path)))


def test_a_checkpoint_of_another_run_is_refused(corpora, runs, tmp_path):
    run = shutil.copytree(runs / "2", tmp_path / "run")
    with pytest.raises(checkpoint.WrongCheckpoint, match="holds a run already.*--resume auto"):
        run_stage(job(corpora, run, init=str(runs / "1")))
    again = {"init": str(runs / "1"), "resume": "auto"}
    with pytest.raises(checkpoint.WrongCheckpoint, match=r"other settings \(steps: 6 -> 9"):
        run_stage(job(corpora, run, flags=FAST | {"steps": 9}, **again))
    with pytest.raises(checkpoint.WrongCheckpoint, match="another corpus"):
        run_stage(job(corpora, run, data=str(corpora[3]), **again))
    with pytest.raises(checkpoint.WrongCheckpoint, match="its size is tiny, not small"):
        run_stage(job(corpora, run, resume="auto", size="small", queries=16))


def test_a_pack_that_cannot_be_decoded_is_named_where_the_metrics_are(tmp_path, capsys):
    def spoil(key, i, image):
        return EncodedImage(image.data[:-200], "jpg") if key == "caption-0004" and i == 2 else image

    data = make_stage(tmp_path / "stage", stage=1, tasks=("caption",), per_task=8, shards=1, spoil=spoil)
    run_stage(Job(stage=1, data=str(data), output=tmp_path / "run", flags=FAST | {"steps": 2}))
    (bad,) = [entry for r in read_metrics(tmp_path / "run")[:1] for entry in r["replaced_packs"]]
    assert (bad["pack"], bad["by"], bad["error"]) == ("caption-0004", "caption-0000", "truncated_image")
    assert "pack caption-0004: truncated_image" in capsys.readouterr().out


def test_a_nan_loss_stops_before_the_update_and_names_the_pack(corpora, tmp_path, monkeypatch):
    from trainer import run as module

    built, steps = {}, []

    def build(*args):
        model = built["model"] = build_model(*args)
        model.register_forward_hook(poison)
        return model

    def poison(model, inputs, output):
        steps.append(1)
        if len(steps) == 4:  # the second pack of the second step
            built["before"] = {n: p.detach().clone() for n, p in model.named_parameters()}
            return tuple(losses * torch.tensor(float("nan")) for losses in output)
        return output

    build_model = module.build_model
    monkeypatch.setattr(module, "build_model", build)
    monkeypatch.setattr(module.checkpoint, "save", lambda *args: None)
    plan = {"micro_packs": 1, "deterministic": False}
    with pytest.raises(NonFiniteLoss, match=r"step 2: the loss of pack [a-z_]+-\d{4} is not finite") as caught:
        run_stage(job(corpora, tmp_path / "run", flags=FAST | plan))
    assert str(caught.value).count("-000") == 1
    for name, parameter in built["model"].named_parameters():
        assert torch.equal(parameter, built["before"][name]), name
    assert len(read_metrics(tmp_path / "run")) == 1


def test_the_command_line_tells_what_is_wrong_without_a_traceback(tmp_path, capsys):
    from trainer.__main__ import main

    assert main(["--stage", "1", "--data", str(tmp_path / "no"), "--output", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trainer: ") and "no finished stage folder" in error and error.count("\n") == 1
