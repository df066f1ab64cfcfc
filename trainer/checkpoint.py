"""Checkpoints to resume from: RUN/checkpoints/step-00000040/ (torch DCP and state.json), and a `latest` file.

A checkpoint is written under a temporary name, flushed, renamed; `latest` is renamed last. Data position, schedule and
random numbers are functions of the step, so the step is all that is kept of them. Tensors are saved by parameter
name, so another number of ranks can load them.
"""

import json
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from trainer.parallel import World
from trainer.stages import Settings, differing

FORMAT = 1


class WrongCheckpoint(ValueError):
    """A checkpoint that does not belong to this run; the message says what differs and what to do."""


def save(run: Path, step: int, model, optimizer, state: dict, keep: int, world: World) -> Path:
    """Save after `step` steps; all ranks call it. `state` is JSON: settings, model configuration, corpus digest."""
    root = Path(run) / "checkpoints"
    final, temporary = root / _name(step), root / f".{_name(step)}.tmp"
    if world.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    weights, moments = get_state_dict(model, optimizer)
    with _quiet():
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=str(temporary), no_dist=world.mesh is None)
    world.barrier()
    if world.rank == 0:
        write_json(temporary / "state.json", {"format": FORMAT, "step": step, **state})
        _flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        write_text(root / "latest", final.name)
        _prune(root, keep)
    world.barrier()
    return final


def load(checkpoint: Path, model, optimizer, world: World) -> None:
    """Load model and optimizer in place; all ranks call it."""
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    with _quiet():
        dcp.load(state, checkpoint_id=str(checkpoint), no_dist=world.mesh is None)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def load_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Load the weights alone, in place, into a whole model of one process: for use, not to train on."""
    with _quiet():
        dcp.load({"model": model.state_dict()}, checkpoint_id=str(checkpoint), no_dist=True)


@contextmanager
def _quiet():
    """One process without torch.distributed is what we mean; DCP warns of it each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None. Raises WrongCheckpoint when `latest` points nowhere."""
    pointer = Path(run) / "checkpoints" / "latest"
    if not pointer.exists():
        return None
    found = pointer.parent / pointer.read_text().strip()
    if not (found / "state.json").exists():
        raise WrongCheckpoint(f"{pointer} names {found.name}, which is not there: write the name of one that is")
    return found


def read_state(checkpoint: Path) -> dict:
    """A checkpoint's state.json. Raises WrongCheckpoint on another format."""
    state = json.loads((checkpoint / "state.json").read_text())
    if state.get("format") != FORMAT:
        raise WrongCheckpoint(f"{checkpoint} has format {state.get('format')}, this code reads {FORMAT}")
    return state


def require_same_run(checkpoint: Path, state: dict, settings: Settings, model: dict, corpus: dict) -> None:
    """Raise WrongCheckpoint when a resume would not continue the run that wrote `state`."""
    if state["model"] != model:
        ours, theirs = model["size"], state["model"]["size"]
        what = f"its size is {theirs}, not {ours}" if ours != theirs else _first_difference(state["model"], model)
        raise WrongCheckpoint(f"{checkpoint} holds another model: {what}")
    if state["corpus"]["digest"] != corpus["digest"]:
        raise WrongCheckpoint(
            f"{checkpoint} was trained on another corpus ({state['corpus']['path']}, digest "
            f"{state['corpus']['digest'][:12]}; here {corpus['path']}, {corpus['digest'][:12]}): resume with the same "
            "--data, or begin a new run with --init"
        )
    if changed := differing(state["settings"], settings):
        raise WrongCheckpoint(
            f"{checkpoint} was made with other settings ({'; '.join(changed)}): resume with the same, or begin a new "
            "run with --init"
        )


def _first_difference(saved: dict, now: dict) -> str:
    name = next(n for n in now if saved.get(n) != now[n])
    return f"its {name} is {saved.get(name)}, not {now[name]}"


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _flush(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _prune(root: Path, keep: int) -> None:
    for old in sorted(root.glob("step-*"))[: -max(1, keep)]:
        shutil.rmtree(old)
    for abandoned in root.glob(".step-*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)


def json_form(value: dict) -> dict:
    """A record as it comes back from JSON, for comparing."""
    return json.loads(json.dumps(value))


def full_tensors(model: torch.nn.Module, world: World) -> dict[str, torch.Tensor]:
    """The whole state dict on rank 0's CPU (empty on other ranks), gathered one tensor at a time."""
    out = {}
    for name, tensor in model.state_dict().items():
        full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if world.rank == 0:
            out[name] = full.detach().cpu().contiguous()
    return out
