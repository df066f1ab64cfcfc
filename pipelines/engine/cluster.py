"""The one module that imports Ray: run a function over splits, in process, on a local Ray or on a cluster."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_ATTEMPTS = 3
OLDEST_RAY = (2, 60)  # whose local Ray asks for a token; older ones let in whoever reaches a port
MAX_RETRIES = 5  # of a split whose worker or node died; an exception in our code is never retried


class SplitFailed(Exception):
    """A split could not be run, for a reason that is not in its data."""


def run_splits(
    work: Callable[..., Any],
    splits: Iterable[Any],
    *,
    workers: int | None = None,
    setup: Callable[[], Any] | None = None,
    gpus_per_worker: float = 0,
) -> Iterator[tuple[Any, Any]]:
    """Yield (split, result) of `work(split)` as splits finish, in any order.

    With `setup`, a fixed pool of `workers` processes calls it once each, and the work is `work(split, state)`.
    `workers` 0 runs everything in this process; None uses every core of the cluster. Results must be small: samples
    go to the output folder, never through the object store.
    """
    splits = list(splits)
    if workers == 0 or not splits:
        yield from _run_in_process(work, splits, setup)
        return
    ray = _start_ray(workers)
    slots = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    if setup is None:
        submit = _task_submitter(ray, work, gpus_per_worker)
    else:
        submit = _actor_submitter(ray, work, setup, slots, gpus_per_worker)
    yield from _collect(ray, submit, splits, slots)


def in_uploaded_folder() -> bool:
    """Tell whether this process runs in Ray's own copy of a working directory, where relative outputs are lost."""
    return "working_dir_files" in Path.cwd().parts


def _run_in_process(work, splits, setup) -> Iterator[tuple[Any, Any]]:
    state = (setup(),) if setup and splits else ()
    for split in splits:
        yield split, work(split, *state)


def _start_ray(workers: int | None):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    if os.environ.get("RAY_ADDRESS"):
        # `ray job submit --working-dir` has set the working directory already; setting it twice is an error.
        environment = None if in_uploaded_folder() else {"working_dir": str(ROOT)}
        ray.init(runtime_env=environment, logging_level="ERROR")
    else:
        _start_local(ray, workers)
    return ray


def _start_local(ray, workers: int | None) -> None:
    _demand_token(ray)
    _find_bash()
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                object_store_memory=100 << 20,
                runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
                logging_level="ERROR",
                log_to_driver=False,  # what goes wrong in a worker comes back as an exception
            )
            return _verify_token(ray)
        except SplitFailed:
            raise
        except Exception as error:  # a bare Exception, when a busy machine needs more than Ray's fixed 30 s
            if "timed out" not in str(error) or attempt == START_ATTEMPTS - 1:
                raise SplitFailed(f"Ray did not start: {error} `--workers 0` does without it.") from error
            ray.shutdown()


def _demand_token(ray) -> None:
    """Raise SplitFailed where a local Ray would let in anybody: its ports listen on all interfaces."""
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST_RAY:
        why = f"Ray {ray.__version__} does not: install {'.'.join(map(str, OLDEST_RAY))} or newer"
    elif mode.lower() != "token":
        why = f"RAY_AUTH_MODE={mode} switches that off: unset it"
    else:
        return
    raise SplitFailed(
        f"a local Ray listens on all interfaces, so it must ask for a token. {why}, or use `--workers 0`."
    )


def _verify_token(ray) -> None:
    from ray._raylet import AuthenticationMode, get_authentication_mode

    if get_authentication_mode() != AuthenticationMode.TOKEN:
        ray.shutdown()
        raise SplitFailed("the local Ray came up without asking for a token, open to whoever reaches this machine")


def _find_bash() -> None:
    """Put bash on the PATH: Ray starts its workers through it, and waits for ever where there is none."""
    if shutil.which("bash") is None:
        os.environ["PATH"] = os.pathsep.join([*filter(None, [os.environ.get("PATH")]), os.defpath])
    if shutil.which("bash") is None:
        raise SplitFailed("Ray starts its workers through bash, and there is none here: `--workers 0` does without")


def _task_submitter(ray, work, gpus: float) -> Callable[[Any], tuple[Any, Callable[[], None]]]:
    remote = ray.remote(max_retries=MAX_RETRIES, retry_exceptions=False, num_cpus=1, num_gpus=gpus)
    task = remote(lambda split: _in_worker(work, split))
    return lambda split: (task.options(name=f"split {_name(split)}").remote(split), lambda: None)


def _actor_submitter(ray, work, setup, slots: int, gpus: float) -> Callable[[Any], tuple[Any, Callable[[], None]]]:
    class Worker:
        def __init__(self):
            self.state = setup()

        def run(self, split):
            return _in_worker(work, split, self.state)

    options = {"max_restarts": -1, "max_task_retries": MAX_RETRIES, "num_cpus": 1, "num_gpus": gpus}
    idle = [ray.remote(**options)(Worker).remote() for _ in range(slots)]

    def submit(split):
        worker = idle.pop()
        return worker.run.remote(split), lambda: idle.append(worker)

    return submit


def _name(split) -> str:
    return str(getattr(split, "id", split))


def _in_worker(work, split, *state):
    import pyarrow as pa

    pa.set_cpu_count(1)  # one split, one core: Ray does the spreading
    return work(split, *state)


def _collect(ray, submit, splits: Iterable[Any], slots: int) -> Iterator[tuple[Any, Any]]:
    waiting, pending = iter(splits), {}
    while True:
        for split in islice(waiting, slots - len(pending)):
            reference, release = submit(split)
            pending[reference] = split, release
        if not pending:
            return
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        split, release = pending.pop(ready)
        result = _result(ray, ready, split)
        release()
        yield split, result


def _result(ray, reference, split):
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else SplitFailed(str(error)) from None
    except ray.exceptions.RayError as error:
        raise SplitFailed(
            f"split {_name(split)}: its worker died {MAX_RETRIES + 1} times ({type(error).__name__}). "
            "Is there enough memory? `--workers 0` runs it in this process and shows the error."
        ) from error


def train(work: Callable[[Any], None], argument: Any, *, ranks: int, gpu: bool, retries: int, logs: Path) -> None:
    """Run `work(argument)` in `ranks` processes that torch.distributed joins, by Ray Train.

    When a process dies, all are started again, up to `retries` times. `logs` must lie on storage all nodes share.
    Raises SplitFailed with the cause when they do not end well.
    """
    _start_ray(None if gpu else ranks)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        lambda config: work(config["argument"]),
        train_loop_config={"argument": argument},
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpu),
        run_config=RunConfig(storage_path=str(logs), failure_config=FailureConfig(max_failures=retries)),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray Train wraps what a rank raised in classes of its own, which differ by version
        raise SplitFailed(f"training failed: {error}") from error


def stop() -> None:
    """Shut down a local Ray that this process started."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
