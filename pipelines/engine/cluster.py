"""The one module that imports Ray: run a function over splits, in process, on a local Ray or on a cluster."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.engine.scheduling import Failed, Run

ROOT = Path(__file__).resolve().parents[2]
START_ATTEMPTS = 3
OLDEST_RAY = (2, 60)  # whose local Ray asks for a token; older ones let in whoever reaches a port
MAX_RETRIES = 5  # of a split whose worker or node died; an exception in our code is never retried


class SplitFailed(Exception):
    """Nothing more can be run, for a reason that is not in the data."""


def run_splits(
    work: Callable[..., Any],
    splits: Iterable[Any],
    *,
    workers: int | None = None,
    setup: Callable[[], Any] | None = None,
    gpus_per_worker: float = 0,
    copies: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Yield (split, result) of `work(split)` as splits finish, in any order, each once.

    With `setup`, a pool of `workers` processes calls it once each, and the work is `work(split, state)`.
    `workers` 0 runs everything in this process; None uses every core of the cluster, also those that come later.
    Results must be small: samples go to the output folder, never through the object store. `copies`: a split that
    takes far longer than others may be run a second time beside itself, when workers are idle; what it writes must be
    a function of the split alone. A pool makes no copies: its workers hold what may differ.
    """
    splits = list(splits)
    if workers == 0 or not splits:
        yield from _run_in_process(work, splits, setup)
        return
    ray = _start_ray(workers)
    slots = workers or max(1, _wanted(ray, gpus_per_worker))
    places = None if workers else lambda: max(1, _wanted(ray, gpus_per_worker))
    if setup is None:
        crew = _Tasks(ray, work, slots, gpus_per_worker, places)
    else:
        crew = _Actors(ray, work, setup, min(slots, len(splits)), gpus_per_worker, places)
    # On one node a copy is as slow as what it copies, and takes the memory of both.
    copies = copies and setup is None and sum(node["Alive"] for node in ray.nodes()) > 1
    yield from Run(ray, crew, splits, _result, _explain_waiting, copies=copies).results()


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
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_RETRIES))  # without it, for ever
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
            _verify_token(ray)
            return
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


def _places(ray, gpus: float) -> int:
    """Return how many workers the cluster holds, each with a core and its share of GPUs."""
    there = ray.cluster_resources()
    places = int(there.get("CPU", 0))
    return min(places, int(there.get("GPU", 0) / gpus)) if gpus else places


def _wanted(ray, gpus: float) -> int:
    """Return how many splits to hand out at a time: on a cluster a tenth more than have room, so that it grows."""
    places = _places(ray, gpus)
    return places + (places // 10 + 1 if os.environ.get("RAY_ADDRESS") else 0)


class _Tasks:
    """Runs splits as tasks, `slots` at a time; as many as there are `places`, where that is given."""

    starting = ()

    def __init__(self, ray, work, slots: int, gpus: float, places: Callable[[], int] | None):
        remote = ray.remote(max_retries=MAX_RETRIES, retry_exceptions=False, num_cpus=1, num_gpus=gpus)
        self.slots, self.gpus, self._task = slots, gpus, remote(lambda split: _in_worker(work, split))
        self._places = places

    def follow(self, left: int) -> None:
        """Look at the cluster, which may have grown or shrunk."""
        if self._places:
            self.slots = self._places()

    def room(self, running: int) -> int:
        return self.slots - running

    def submit(self, split) -> tuple[Any, Callable[[bool], None]]:
        return self._task.options(name=f"split {_name(split)}").remote(split), lambda died: None


class _Actors:
    """Runs splits on a pool of `slots` processes; only on those that have started, be it one."""

    def __init__(self, ray, work, setup, slots: int, gpus: float, places: Callable[[], int] | None):
        class Worker:
            def __init__(self):
                self.state = setup()

            def is_ready(self) -> bool:
                return True

            def run(self, split):
                return _in_worker(work, split, self.state)

        options = {"max_restarts": -1, "max_task_retries": MAX_RETRIES, "num_cpus": 1, "num_gpus": gpus}
        self._ray, self._make = ray, ray.remote(**options)(Worker).remote
        self.slots, self.gpus = slots, gpus
        self.starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._places = places
        for _ in range(slots):
            self._start()

    def follow(self, left: int) -> None:
        """Start workers where the cluster has grown. Where it shrank, Ray starts the lost ones when there is room."""
        for _ in range(self.slots, min(self._places(), left) if self._places else 0):
            self._start()
            self.slots += 1

    def _start(self) -> None:
        worker = self._make()
        self.starting[worker.is_ready.remote()] = worker

    def room(self, running: int) -> int:
        return len(self._idle)

    def started(self, reference) -> None:
        result, died = _result(self._ray, reference, "none yet")
        if died:
            raise SplitFailed(f"no worker can start: {result.error}")
        self._idle.append(self.starting.pop(reference))

    def submit(self, split) -> tuple[Any, Callable[[bool], None]]:
        worker = self._idle.pop()
        return worker.run.remote(split), lambda died: self._replace(worker) if died else self._idle.append(worker)

    def _replace(self, worker) -> None:
        self._ray.kill(worker)
        self._start()


def _name(split) -> str:
    return str(getattr(split, "id", split))


def _in_worker(work, split, *state):
    import pyarrow as pa

    pa.set_cpu_count(1)  # one split, one core: Ray does the spreading
    return work(split, *state)


def _explain_waiting(ray, crew: _Tasks | _Actors) -> None:
    """Say why nothing has run for a while. Raises SplitFailed when nothing ever will, as the cluster stands."""
    needs = "a core" + (f" and {crew.gpus:g} GPU" if crew.gpus else "")
    there, free = ray.cluster_resources(), ray.available_resources()
    has = ", ".join(f"{there.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in ("CPU", "GPU"))
    if _places(ray, crew.gpus) == 0:
        raise SplitFailed(
            f"a worker needs {needs}, and the cluster has {has}: no worker can start. Add a node, run without the GPU "
            "(--device cpu) where the job has that flag, or use `--workers 0`, which needs no Ray."
        )
    if len(crew.starting) == crew.slots or not crew.starting:
        print(f"waiting for the first of {crew.slots} workers: each needs {needs}, the cluster has {has}",
              file=sys.stderr, flush=True)  # fmt: skip


def _result(ray, reference, split) -> tuple[Any, bool]:
    """Return what came of a split, and whether its worker died, which is Failed. Raises what the work raised."""
    try:
        return ray.get(reference), False
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else SplitFailed(str(error)) from None
    except ray.exceptions.RayError as error:
        why = f"its worker died {MAX_RETRIES + 1} times ({type(error).__name__})"
        return Failed(f"{why}. Is there enough memory? `--workers 0` runs it in one process and shows the error"), True


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
