"""Checkpoints written while training goes on: a step waits for a copy in memory, and a thread writes the files."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_map

from trainer import checkpoint
from trainer.parallel import World


def _copied(value):
    """Copy a tensor to the CPU, also one made of others (shards, moments of 8 bits): those need not know `clone`."""
    if is_traceable_wrapper_subclass(value):
        names, context = value.__tensor_flatten__()
        inner = {name: _copied(getattr(value, name)) for name in names}
        return type(value).__tensor_unflatten__(inner, context, value.size(), value.stride())
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


class Saver:
    """Saves the checkpoints of a run, `keep` of which stay; all ranks call it, and use it as a context manager.

    One is written at a time: a save waits for the one before it and raises what that one met. Leaving the context
    waits for the last. What trains and its moments are held twice meanwhile, the copy in the memory of the CPU.
    """

    def __init__(self, run: Path, keep: int, world: World):
        self._run, self._keep = Path(run), keep
        self._world = world.apart()  # the thread must not speak among the messages of a step
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind, *_) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def save(self, step: int, model, optimizer, state: dict) -> None:
        """Copy what `checkpoint.save` would write, and begin to write it."""
        self.wait()
        held = tree_map(_copied, checkpoint.trained(model, optimizer))
        record = checkpoint.record_of(step, model, state)
        self._writing = self._thread.submit(checkpoint.write, self._run, step, held, record, self._keep, self._world)

    def wait(self) -> None:
        """Wait for what is being written. Raises what kept it from being written."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()
