"""Checkpoints written by a thread: what they hold is what there was when they were asked for, and errors are told."""

import threading

import pytest
import torch

from trainer import checkpoint
from trainer.parallel import World
from trainer.saving import Saver


@pytest.fixture
def world():
    return World(torch.device("cpu"))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 4)


def one_step(model, optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()


@pytest.fixture
def gate(monkeypatch):
    """Holds the writing of checkpoints back until it is set."""
    opened, write = threading.Event(), checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *args: (opened.wait(60), write(*args)))
    return opened


def test_a_checkpoint_holds_what_there_was_when_it_was_asked_for(model, world, gate, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    one_step(model, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moments = optimizer.state[model.weight]["exp_avg"].clone()
    with Saver(tmp_path, 2, world) as saver:
        saver.save(1, model, optimizer, {"told": "this"})
        one_step(model, optimizer)
        assert checkpoint.latest(tmp_path) is None, "training went on before anything was written"
        gate.set()
    assert not torch.equal(model.weight, before["weight"])
    found = checkpoint.newest_whole(tmp_path, world)
    state = checkpoint.read_state(found)
    assert (found.name, state["step"], state["told"]) == ("step-00000001", 1, "this")
    checkpoint.load(found, model, optimizer, world)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(optimizer.state[model.weight]["exp_avg"], moments)


def test_one_is_written_at_a_time_and_the_newest_is_the_latest(model, world, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with Saver(tmp_path, 2, world) as saver:
        for step in (1, 2, 3):
            one_step(model, optimizer)
            saver.save(step, model, optimizer, {})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000002", "step-00000003"]
    assert checkpoint.latest(tmp_path).name == "step-00000003"


@pytest.mark.parametrize("how", ["the next save", "the end"])
def test_what_kept_it_from_being_written_is_raised(how, model, world, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pytest.raises(OSError, match="No space left"), Saver(tmp_path, 2, world) as saver:
        saver.save(1, model, optimizer, {})
        if how == "the next save":
            saver.save(2, model, optimizer, {})
            pytest.fail("the second save knew nothing of the first")


def test_an_error_of_training_is_not_hidden_by_one_of_writing(model, world, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write", lambda *args: 1 / 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="training"), Saver(tmp_path, 2, world) as saver:
        saver.save(1, model, optimizer, {})
        raise ValueError("training")
