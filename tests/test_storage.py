"""A run on a disk that fills up ends with a message, and goes on from its checkpoint when there is room."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError
from torch.distributed.checkpoint import CheckpointException

from pipelines.proof.jobs import may_mount
from tests.tiny_stage import make_stage
from trainer import __main__ as command
from trainer import run, storage

ROOT = Path(__file__).resolve().parent.parent
TORCH = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")
FULL = OSError(errno.ENOSPC, "No space left on device")


def wrapped(error: BaseException) -> CheckpointException:
    return CheckpointException("save", {0: (error, None)})


def free(monkeypatch, bytes_left: int) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes_left))


@pytest.mark.parametrize("error", [
    FULL, wrapped(FULL), wrapped(OSError(errno.EDQUOT, "quota")), wrapped(TORCH),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_whatever_was_writing_a_full_disk_is_called_that(error, tmp_path, monkeypatch, capsys):
    free(monkeypatch, 0)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-00000040")

    def stop(job):
        raise error

    monkeypatch.setattr(run, "run_stage", stop)
    assert command.main(["--stage", "1", "--data", "x", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "trainer: the disk is full: make room" in said and "--resume auto: it goes on from step-00000040" in said


def test_what_is_no_fault_of_the_storage_is_not_explained_away(tmp_path, monkeypatch):
    free(monkeypatch, 1 << 40)
    for error in (wrapped(TORCH), wrapped(ValueError("x")), RuntimeError("x"), SafetensorError("bad header")):
        assert storage.explain(error, tmp_path) is None
    other = storage.explain(wrapped(OSError(errno.EIO, "I/O", "/a/file")), tmp_path)
    assert other.startswith("Input/output error") and "--resume auto: it goes on at the first step" in other


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="only root may mount a small disk, and not in every container")
@pytest.mark.parametrize("kilobytes", [20, 14_000, 20_000])  # at the first weights, at a checkpoint, at the export
def test_a_run_on_a_small_disk_says_so_and_goes_on_when_there_is_room(kilobytes, tmp_path):
    stage = make_stage(tmp_path / "stage", stage=1, tasks=("caption",), per_task=16)
    train = f"{sys.executable} -m trainer --stage 1 --data {stage} --size tiny --steps 4 --batch 4 --warmup 1"
    train += f" --save-every 2 --device cpu --resume auto --output {tmp_path}"
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"{train}/whole && mount -t tmpfs -o size={kilobytes}k none {disk} && {{ {train}/disk/run; echo status $?; "
        f"mount -o remount,size=400m {disk} && {train}/disk/run && cp -a {disk}/run {tmp_path}/again; }}"
    )
    ran = subprocess.run(["unshare", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "status 1" in ran.stdout, ran.stderr
    assert "trainer: the disk is full" in ran.stderr and "Traceback" not in ran.stderr
    whole, again = ((tmp_path / name / "export" / "model.safetensors").read_bytes() for name in ("whole", "again"))
    assert whole == again
