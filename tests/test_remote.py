"""Object stores, the job server, and a cluster that loses a node."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpus.folder import OutputFolder
from pipelines.make_demo_crawl import make_pair, write_shard
from tests.test_clean_laion import clean

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crawl")
    for shard in range(4):
        write_shard(folder, shard, [make_pair(3, shard * 25 + i, "en") for i in range(25)])
    return folder


def files(folder: OutputFolder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.names() if name.endswith((".tar", ".idx", ".parquet"))}


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of an S3-compatible server on loopback."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(skip_instance_cache=True).makedirs("crawl", exist_ok=True)
    yield "s3://crawl"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_object_store_for_input_and_output(crawl, bucket, tmp_path):
    source = f"{bucket}/{crawl.name}"
    store = OutputFolder(source)
    for path in crawl.iterdir():
        store.fs.put_file(str(path), store.path(path.name))
    clean(tmp_path, crawl / "*", output="local")
    run_clean(f"{source}/*", f"{bucket}/clean")
    remote = OutputFolder(f"{bucket}/clean")
    assert files(remote) == files(OutputFolder(str(tmp_path / "local")))
    assert "report.html" in remote.names() and len(remote.manifests()) == 4
    third = list(remote.manifests())[2]
    remote.fs.rm_file(remote.path(f"{third}.json"))  # without its manifest, a split has not happened
    run_clean(f"{source}/*", f"{bucket}/clean")
    assert len(OutputFolder(f"{bucket}/clean").manifests()) == 4


def run_clean(source, output):
    arguments = ["--dataset", "laion-en", "--input", source, "--output", output, "--workers", "0"]
    command = [sys.executable, "pipelines/clean_laion.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray head with its job server, started in a clone of the checkout, as the README says."""
    checkout = tmp_path_factory.mktemp("clone") / "gristmill"
    ignore = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", "demo", "tests", "runs", "out")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    home = tmp_path_factory.mktemp("home")
    # Ray's job server asks for a token; here it is given, in a home folder `ray start` would write one.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | token
    gcs, dashboard = free_port(), free_port()
    start = [
        str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
        f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=2", "--object-store-memory=100000000",
        f"--dashboard-agent-listen-port={free_port()}",  # another Ray on this machine may hold the default one
        "--disable-usage-stats", f"--temp-dir=/tmp/rt{os.getpid()}",
    ]  # fmt: skip
    log = open(home / "head.log", "w")  # noqa: SIM115 - closed with the process
    process = subprocess.Popen(start, cwd=checkout, env=environment, stdout=log, stderr=log)
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    wait_for_port(dashboard, process, home / "head.log")
    yield checkout, environment
    process.terminate()
    process.wait(60)
    log.close()


def wait_for_port(port, process, log):
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


_NOT_YET = "No available agent|ServerDisconnected|Failed to connect"  # said of a head that has just started


def submit(checkout, environment, *arguments) -> subprocess.CompletedProcess:
    command = [str(BIN / "ray"), "job", "submit", *arguments]
    for _ in range(20):
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=280)
        if not re.search(_NOT_YET, done.stderr):
            break
        time.sleep(3)
    return done


@pytest.mark.slow
def test_ray_job_submit_both_ways(crawl, head, tmp_path):
    checkout, environment = head
    job = ["pipelines/clean_laion.py", "--dataset", "laion-en", "--input", f"{crawl}/*", "--output"]
    uploaded = submit(checkout, environment, "--working-dir", ".", "--", *job, f"{tmp_path}/uploaded")
    assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
    assert "kept" in uploaded.stdout
    bare = submit(checkout, environment, "--", *job, f"{tmp_path}/bare")
    assert bare.returncode == 0, bare.stdout + bare.stderr
    clean(tmp_path, crawl / "*", output="local")
    expected = files(OutputFolder(str(tmp_path / "local")))
    assert files(OutputFolder(f"{tmp_path}/uploaded")) == files(OutputFolder(f"{tmp_path}/bare")) == expected
    lost = submit(checkout, environment, "--working-dir", ".", "--", *job, "relative")
    assert lost.returncode != 0 and "absolute path" in lost.stdout + lost.stderr


@pytest.mark.slow
def test_the_lines_without_places_take_them_from_the_catalog(crawl, head, tmp_path):
    checkout, environment = head
    nothing = submit(checkout, environment, "pipelines/clean_laion.py")
    said = nothing.stdout + nothing.stderr
    assert nothing.returncode != 0 and "there are no raw data of any clean_laion dataset" in said, said
    forms = {line for line in said.splitlines() if line.startswith("  python pipelines/clean_laion.py")}
    assert len(forms) == 3 and "usage:" not in said  # Ray prints the end of a failed job's log a second time
    shutil.copytree(crawl, tmp_path / "raw" / "laion-en")
    with open(checkout / "catalog.yaml", "a") as catalog:
        catalog.write(f"\ndata: {tmp_path}\n")
    bare = submit(checkout, environment, "pipelines/clean_laion.py")
    assert bare.returncode == 0, bare.stdout + bare.stderr
    assert (
        f"cleaning laion-en to {tmp_path}/cleaned/laion-en" in bare.stdout and "skipping coyo: no file" in bare.stdout
    )
    (tmp_path / "cleaned").rename(tmp_path / "bare")
    uploaded = submit(
        checkout, environment, "--working-dir", ".", "--", "pipelines/clean_laion.py", "--dataset", "laion-en"
    )
    assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
    clean(tmp_path, tmp_path / "raw" / "laion-en" / "*", output="local")
    found = [files(OutputFolder(str(tmp_path / name))) for name in ("bare/laion-en", "cleaned/laion-en", "local")]
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_node_dies_in_mid_run(crawl, tmp_path):
    code = f"""
import os, sys, threading, time
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "object_store_memory": 80 << 20}})
second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
cluster.wait_for_nodes()
os.environ["RAY_ADDRESS"] = cluster.address
from pipelines import clean_laion
from pipelines.engine import job
def slowly(split, sink, *rest, **options):
    time.sleep(1)
    return real(split, sink, *rest, **options)
real, clean_laion.clean_split = clean_laion.clean_split, slowly
def kill():
    while not list(Path({str(tmp_path / "out")!r}).glob("0*.json")):
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    print("node killed", flush=True)
threading.Thread(target=kill, daemon=True).start()
sys.argv = ["clean_laion.py", "--dataset", "laion-en", "--input", {str(crawl / "*")!r}]
sys.argv += ["--output", {str(tmp_path / "out")!r}]
clean_laion.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "node killed" in done.stdout, done.stdout + done.stderr
    clean(tmp_path, crawl / "*", output="local")
    assert files(OutputFolder(str(tmp_path / "out"))) == files(OutputFolder(str(tmp_path / "local")))
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out").glob("*.parquet")) >= 100
