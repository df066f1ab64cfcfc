"""A local Ray: open to who holds its token, and not started where it would be open to all."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.engine import cluster

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("version, mode, why", [
    ("2.59.1", None, "Ray 2.59.1 does not: install 2.60"), ("2.9.0", "token", "install 2.60"),
    ("2.60.0", "disabled", "RAY_AUTH_MODE=disabled"), ("3.0.0.dev0", "k8s", "RAY_AUTH_MODE=k8s"),
])  # fmt: skip
def test_a_local_ray_without_a_token_is_not_started(monkeypatch, version, mode, why):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(cluster.SplitFailed, match=f"all interfaces.*{why}.*--workers 0"):
        cluster._start_local(SimpleNamespace(__version__=version), 1)


STRANGER = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="CRITICAL")
    print("let in", len(ray.nodes()))
except Exception as error:
    print("refused", type(error).__name__, str(error)[:300])
"""
OURS = f"""
import subprocess, sys, os
from pipelines.engine import cluster
def work(split):
    return split + 1
print(sorted(result for _, result in cluster.run_splits(work, [1, 2], workers=1)), flush=True)
import ray
address = ray.get_runtime_context().gcs_address
for mode, token in (("disabled", ""), ("token", "0" * 64), ("token", None)):
    environment = os.environ | {{"RAY_AUTH_MODE": mode}} | ({{"RAY_AUTH_TOKEN": token}} if token else {{}})
    ran = subprocess.run([sys.executable, "-c", {STRANGER!r}, address], env=environment, capture_output=True, text=True)
    print(ran.stdout.strip().splitlines()[-1:], flush=True)
cluster.stop()
"""


@pytest.mark.slow
def test_a_local_ray_answers_nobody_without_its_token(tmp_path):
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_AUTH_MODE", None)
    ran = subprocess.run([sys.executable, "-c", OURS], cwd=ROOT, env=environment, capture_output=True, text=True)
    result, no_token, wrong_token, right_token = ran.stdout.strip().splitlines()[-4:]
    assert result == "[2, 3]", ran.stderr
    assert "refused" in no_token and "refused" in wrong_token, ran.stdout
    assert "let in 1" in right_token, ran.stdout + ran.stderr
    assert (tmp_path / ".ray" / "auth_token").exists()


POOL = """
import os, sys
sys.path.insert(0, os.getcwd())
from pipelines.engine import cluster, scheduling
scheduling.PLACE_SECONDS = 3
cluster._start_ray(2)
try:
    pool = cluster.run_splits(lambda split, state: split + state, range(6), workers={workers}, setup=lambda: 10,
                              gpus_per_worker={gpus})
    print(sorted(result for _, result in pool), flush=True)
except cluster.SplitFailed as error:
    print(error, flush=True)
cluster.stop()
"""


@pytest.mark.parametrize("workers, gpus, said", [
    (5, 0, "[10, 11, 12, 13, 14, 15]"),  # two of five have a place
    (2, 1, "a worker needs a core and 1 GPU, and the cluster has 2 CPU (2 free), 0 GPU (0 free): no worker can start"),
])  # fmt: skip
def test_a_pool_larger_than_the_cluster_runs_on_what_is_there_or_says_why_not(workers, gpus, said):
    code = POOL.format(workers=workers, gpus=gpus)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert said in done.stdout, done.stdout + done.stderr
