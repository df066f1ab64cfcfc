"""Checkpoints written while training goes on: a step waits for a copy in memory, and a thread writes the files."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch.distributed.checkpoint.staging import BlockingAsyncStager

from trainer import checkpoint
from trainer.parallel import World


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
        held = BlockingAsyncStager().stage(checkpoint.trained(model, optimizer))
        record = checkpoint.record_of(step, model, state)
        self._writing = self._thread.submit(checkpoint.write, self._run, step, held, record, self._keep, self._world)

    def wait(self) -> None:
        """Wait for what is being written. Raises what kept it from being written."""
        if self._writing:
            self._writing, writing = None, self._writing
            writing.result()
