"""Checkpoints to resume from: RUN/checkpoints/step-00000040/ (torch DCP and state.json), and a `latest` file.

What is frozen lies beside them in `frozen`, written once, before the first step; a checkpoint holds what trains.

A checkpoint is written under a temporary name, flushed, renamed; `latest` is renamed last. state.json tells size and
checksum of all other files, and they are verified before anything is loaded. Data position, schedule and
random numbers are functions of the step, so the step is all that is kept of them. Tensors are saved by parameter
name, so another number of ranks can load them.
"""

import json
import os
import shutil
import warnings
from collections.abc import Set
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from corpus.damage import Damaged
from corpus.seals import describe, read_sealed, sealed, wrong_files
from trainer.parallel import World
from trainer.quantise import dequantised
from trainer.stages import Settings, differing

FORMAT = 1
FROZEN = "frozen"
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


class WrongCheckpoint(ValueError):
    """A checkpoint that does not belong to this run; the message says what differs and what to do."""


def save(run: Path, step: int, model, optimizer, state: dict, keep: int, world: World) -> Path:
    """Save after `step` steps; all ranks call it. `state` is JSON: settings, model configuration, corpus digest."""
    return write(run, step, trained(model, optimizer), record_of(step, model, state), keep, world)


def trained(model, optimizer) -> dict:
    """What trains and its moments, by name; the tensors are the model's own."""
    weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
    return {"model": weights, "optimizer": moments}


def record_of(step: int, model, state: dict) -> dict:
    """What state.json says of a checkpoint."""
    return {"step": step, "frozen": bool(_frozen(model)), **state}


def write(run: Path, step: int, tensors: dict, record: dict, keep: int, world: World) -> Path:
    """Write a checkpoint of `tensors` and make it the latest; all ranks call it."""
    root = Path(run) / "checkpoints"
    _commit(root / _name(step), tensors, record, world)
    if world.rank == 0:
        write_text(root / "latest", _name(step))
        _prune(root, keep)
    world.barrier()
    return root / _name(step)


def save_frozen(run: Path, model, world: World) -> None:
    """Save what does not train, if anything; all ranks call it, before the first step and before it is quantised."""
    if frozen := _frozen(model):
        _commit(Path(run) / "checkpoints" / FROZEN, {"model": frozen}, {}, world)


def _frozen(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}


def _commit(final: Path, tensors: dict, record: dict, world: World) -> None:
    """Write a folder of tensors and state.json: it appears whole or not at all."""
    temporary = final.with_name(f".{final.name}.tmp")
    if world.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    with _quiet():
        dcp.save(tensors, checkpoint_id=str(temporary), no_dist=world.mesh is None, process_group=world.group)
    world.barrier()
    described = world.gather(describe(temporary, _own_files(temporary, world.rank)))
    if world.rank == 0:
        files = {name: told for part in described for name, told in part.items()}
        write_json(temporary / "state.json", sealed({"format": FORMAT, "files": files, **record}))
        flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(final.parent)
    world.barrier()


def _own_files(folder: Path, rank: int) -> list[str]:
    """The files that a rank wrote (`__RANK_n.distcp`); the first one's are those without a rank, too."""
    names = [path.name for path in folder.iterdir()]
    return [name for name in names if name.startswith(f"__{rank}_") or (rank == 0 and not name.startswith("__"))]


def load(checkpoint: Path, model, optimizer, world: World) -> None:
    """Load what trains, and the optimizer, in place; all ranks call it."""
    state = trained(model, optimizer)
    with _quiet():
        dcp.load(state, checkpoint_id=str(checkpoint), no_dist=world.mesh is None)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=_TRAINED
    )


def load_frozen(checkpoint: Path, model: torch.nn.Module) -> None:
    """Load what does not train, in place; each rank reads all of it. Older checkpoints hold it themselves."""
    frozen = _frozen(model)
    with _quiet():
        dcp.load({"model": frozen}, checkpoint_id=str(_place_of_frozen(checkpoint)), no_dist=True)


def _place_of_frozen(checkpoint: Path) -> Path:
    return checkpoint.with_name(FROZEN) if read_state(checkpoint).get("frozen") else checkpoint


def load_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Load the weights alone, in place, into a whole model of one process: for use, not to train on."""
    wanted = model.state_dict()
    for folder in {checkpoint, _place_of_frozen(checkpoint)}:
        known = {name: wanted.pop(name) for name in _names(folder) & wanted.keys()}
        with _quiet():
            dcp.load({"model": known}, checkpoint_id=str(folder), no_dist=True)
    if wanted:
        raise WrongCheckpoint(f"{checkpoint} has no {next(iter(wanted))}: it is of another model")


def _names(folder: Path) -> set[str]:
    """Names of the parameters that a folder of tensors holds."""
    found = dcp.FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    return {name.removeprefix("model.") for name in found if name.startswith("model.")}


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
    name = pointer.read_text(errors="replace").strip()
    if not name.startswith("step-") or not (pointer.parent / name).is_dir():
        raise WrongCheckpoint(f"{pointer} names {name}, which is not there: write the name of one that is")
    return pointer.parent / name


def newest_whole(run: Path, world: World) -> Path | None:
    """The checkpoint that `latest` names or, where that is damaged, the newest one before it that is not.

    None for a run without checkpoints. Raises WrongCheckpoint when none of them is whole. All ranks call it.
    """
    named = latest(run)
    if named is None:
        return None
    damaged = []
    for found in sorted((path for path in named.parent.glob("step-*") if path.name <= named.name), reverse=True):
        wrong = damage(found, world)
        if not wrong:
            if damaged and world.rank == 0:
                print(f"DAMAGED: {'; '.join(damaged)}. Going on from {found.name} instead.", flush=True)
            return found
        damaged.append(wrong[0])
    raise WrongCheckpoint(f"no checkpoint of {run} is whole: {'; '.join(damaged)}. Begin a new run in another --output")


def damage(checkpoint: Path, world: World | None = None) -> list[str]:
    """What is wrong with a checkpoint's files, nothing as a rule. All ranks call it, and each reads its share."""
    try:
        state = read_state(checkpoint)
    except Damaged as error:
        return [str(error)]
    rank, ranks = (world.rank, world.size) if world else (0, 1)
    files = sorted(state.get("files", {}).items())
    mine = list(wrong_files(checkpoint, dict(files[rank::ranks])))
    wrong = [text for part in (world.gather(mine) if world else [mine]) for text in part]
    return wrong + (damage(checkpoint.with_name(FROZEN), world) if state.get("frozen") else [])


def read_state(checkpoint: Path) -> dict:
    """A checkpoint's state.json. Raises WrongCheckpoint on another format, Damaged when it is cut or altered."""
    path = checkpoint / "state.json"
    if not path.exists():
        raise Damaged(f"{path} is missing")
    state = read_sealed(path.read_bytes(), str(path), "use another checkpoint")
    if state.get("format") != FORMAT:
        raise WrongCheckpoint(f"{checkpoint} has format {state.get('format')}, this code reads {FORMAT}")
    return state


def require_same_run(
    checkpoint: Path, state: dict, settings: Settings, model: dict, corpus: dict, may_change: Set[str] = frozenset()
) -> None:
    """Raise WrongCheckpoint when a resume would not continue the run that wrote `state`. `may_change`: settings that
    may be others from here on."""
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
    if changed := differing(state["settings"], settings, may_change):
        raise WrongCheckpoint(
            f"{checkpoint} was made with other settings ({'; '.join(changed)}): resume with the same, begin a new "
            "run with --init, or change the schedule (--steps, --warmup, --peak-lr, --min-lr) with --reschedule"
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
    _sync(path.parent)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def flush(folder: Path) -> None:
    """Put a folder's files, and their names, on the disk."""
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _sync(path: Path) -> None:
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
        full = dequantised(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor)
        if world.rank == 0:
            out[name] = full.detach().cpu().contiguous()
    return out
