"""What a machine lacks is said in a line each; a bare system for `make fresh` leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines import doctor
from pipelines.engine import cluster

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that puts a shell script into the one folder of PATH; the scripts may write to `calls`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ncalls={tmp_path}/calls\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return put


def test_a_machine_with_nothing_is_told_each_thing_in_a_line(tmp_path):
    nothing = {"PATH": str(tmp_path), "HOME": str(tmp_path), "XDG_DATA_DIRS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "pipelines/doctor.py", "--install"], cwd=ROOT, env=nothing, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr
    english, chinese, browser = (line for line in done.stdout.splitlines() if "FriBiDi" not in line)
    assert english.startswith("missing: 35 of 41 English faces, for synthetic OCR (make_ocr.py --language en")
    assert chinese.startswith("missing: 11 of 11 Chinese faces") and "~/.local/share/fonts" in chinese
    assert browser.startswith("missing: a browser, for pages of HTML (render_html.py). To get it: ")


def test_a_user_is_told_what_root_would_type(programs, monkeypatch):
    programs("apt-get", "exit 100")
    lack = doctor.Lack("2 of 3 faces", "drawing", "copy them", ["fonts-a|fonts-b", "fonts-c"])
    monkeypatch.setattr(doctor, "_is_root", lambda: False)
    told = "missing: 2 of 3 faces, for drawing. To get it: as root apt-get install fonts-a fonts-c, copy them"
    assert doctor.sentence(lack) == told
    assert not doctor.install(lack.packages)  # no sudo here
    monkeypatch.setattr(doctor, "_is_root", lambda: True)
    assert doctor.sentence(lack) == told.replace("as root ", "")
    assert not doctor.install(lack.packages)


def test_of_a_packages_names_the_one_that_this_release_knows_is_installed(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_is_root", lambda: True)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}:/usr/bin")
    programs("apt-get", 'echo "$@" >> $calls')
    programs(
        "apt-cache", 'case "$2" in fonts-new|chromium) echo "  Candidate: 1";; *) echo "  Candidate: (none)";; esac'
    )
    assert doctor.install(["fonts-old|fonts-new", "chromium", "gone"])
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update == "update -qq" and install.split()[-2:] == ["chromium", "fonts-new"]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="make fresh needs root")


def fresh(tmp_path, programs, debootstrap: str) -> subprocess.Popen:
    programs("debootstrap", debootstrap)
    (tmp_path / "room").mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path / "room"),
        "PATH": f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    return subprocess.Popen(
        [sys.executable, ".ci/fresh.py", "trixie"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@needs_root
def test_a_system_that_cannot_be_made_is_said_and_removed(tmp_path, programs):
    process = fresh(tmp_path, programs, 'mkdir -p "$4/proc" && mount -t proc proc "$4/proc"; echo no mirror; exit 1')
    said = process.communicate(timeout=60)[0]
    if "needs namespaces" in said:
        pytest.skip(said)
    assert process.returncode == 1 and "debootstrap of trixie failed:\nno mirror" in said
    assert not list((tmp_path / "room").iterdir()) and str(tmp_path) not in Path("/proc/mounts").read_text()


@needs_root
def test_a_fresh_run_that_is_stopped_takes_everything_with_it(tmp_path, programs):
    process = fresh(tmp_path, programs, 'mkdir -p "$4/proc" && mount -t proc proc "$4/proc"; touch $calls; sleep 4321')
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    if "needs namespaces" in said:
        pytest.skip(said)
    assert process.returncode == 1 and not list((tmp_path / "room").iterdir())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert not [process for process in psutil.process_iter(["cmdline"]) if "4321" in (process.info["cmdline"] or ())]


@pytest.mark.slow
def test_ray_runs_where_the_path_has_no_bash(tmp_path):
    code = "from pipelines.engine.cluster import run_splits, stop; print(*run_splits(abs, [-7], workers=1)); stop()"
    nothing = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=nothing, capture_output=True, text=True)
    assert done.stdout == "(-7, 7)\n", done.stderr


def test_a_machine_without_bash_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "defpath", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(cluster.SplitFailed, match="through bash, and there is none here: `--workers 0`"):
        cluster._find_bash()
