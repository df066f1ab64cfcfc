"""Watching a run: held-out loss, scores and drawn answers, and that looking changes nothing of what is trained."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corpus.packs import WrongCorpus
from corpus.tokens import write_ranks
from tests.cleaned import sample, write_cleaned
from tests.test_training import EXACT, FAST
from tests.tiny_stage import make_stage
from trainer.progress import read_metrics
from trainer.run import Job, run_stage
from trainer.watch import Watch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("watch")
    make_stage(root / "train", tasks=("caption", "referring"), per_task=8)
    make_stage(root / "held", tasks=("caption", "vqa"), per_task=4)
    return root


def job(data, output, precision="fp32", **more):
    flags = FAST | {"steps": 4, "precision": precision}
    return Job(stage=2, data=str(data / "train"), output=output, flags=flags, **more)


def test_looking_changes_nothing_and_tells_what_is_due(data, tmp_path):
    run_stage(job(data, tmp_path / "blind"))
    watch = Watch(every=3, data=str(data / "held"), packs=2)
    run_stage(job(data, tmp_path / "seen", watch=watch))
    blind, seen = read_metrics(tmp_path / "blind"), read_metrics(tmp_path / "seen")
    assert [{n: r[n] for n in EXACT} for r in blind] == [{n: r[n] for n in EXACT} for r in seen]
    assert [r["step"] for r in seen if "held_out" in r] == [3, 4]  # when due, and at the end
    assert set(seen[2]["held_out"]) == {"all", "caption", "vqa"} and 3 < seen[2]["held_out"]["all"] < 12


def test_held_out_loss_is_what_training_would_call_the_loss(data, tmp_path):
    """At a learning rate of zero, on the very packs that are trained on."""
    still = FAST | {"steps": 1, "batch": 16, "peak_lr": 0.0, "min_lr": 0.0, "warmup": 0}
    watch = Watch(every=1, data=str(data / "train"), packs=4)
    run_stage(Job(stage=2, data=str(data / "train"), output=tmp_path / "run", flags=still, watch=watch))
    (record,) = read_metrics(tmp_path / "run")
    assert record["held_out"]["all"] == pytest.approx(record["loss"], abs=1e-5)
    assert record["held_out"]["referring"] == pytest.approx(record["loss_per_task"]["referring"], abs=1e-5)


def test_the_mix_and_rates_so_far_go_on_after_a_resume(data, tmp_path):
    run_stage(job(data, tmp_path / "run"))
    records = read_metrics(tmp_path / "run")
    for i, record in enumerate(records):
        told = record["so_far"]
        assert told["samples"] == sum(r["samples"] for r in records[: i + 1])
        of_task = sum(r["samples_per_task"].get("caption", 0) for r in records[: i + 1])
        assert told.get("share_caption", 0) == pytest.approx(of_task / told["samples"])
    from trainer.progress import Progress

    with Progress(tmp_path / "run", 4, 5) as progress:
        progress.step(records[-1] | {"step": 5})
    assert read_metrics(tmp_path / "run")[-1]["so_far"]["samples"] == sum(r["samples"] for r in [*records, records[-1]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_are_scored_and_drawn_into_tensorboard(data, tmp_path, precision):
    """In bf16 FSDP holds the weights, which must be whole to answer."""
    write_cleaned(tmp_path, "val", [sample("val", "caption", 1), sample("val", "referring", 2)])
    watch = Watch(every=4, shards=(str(tmp_path / "val/*.tar"),), shown=2)
    run_stage(job(data, tmp_path / "run", precision, watch=watch))
    last = read_metrics(tmp_path / "run")[-1]
    assert set(last["scores"]) == {"caption", "referring"} and 0 <= last["scores"]["caption"] <= 100
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    pictures = board.Tags()["images"]
    assert len(pictures) == 2 and any(tag.startswith("referring/") for tag in pictures)
    assert any(tag.startswith("caption/") for tag in board.Tags()["tensors"])


def test_what_cannot_be_watched_is_refused_before_the_first_step(data, tmp_path):
    ranks = tmp_path / "other.tiktoken"
    write_ranks(ranks, [bytes([i]) for i in range(256)] + [b"th", b"he"])
    make_stage(tmp_path / "other", tasks=("caption",), per_task=4, tokenizer=str(ranks))
    with pytest.raises(WrongCorpus, match="another tokenizer"):
        run_stage(job(data, tmp_path / "run", watch=Watch(data=str(tmp_path / "other"))))
    with pytest.raises(ValueError, match="no such files"):
        run_stage(job(data, tmp_path / "run2", watch=Watch(shards=(str(tmp_path / "no/*.tar"),))))
    assert read_metrics(tmp_path / "run") == []
