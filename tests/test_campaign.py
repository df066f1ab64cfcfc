"""The campaign of kills notices what it is there to notice, goes on where it was stopped, and finds nothing wrong."""

import json
import random
import sys
import time
from pathlib import Path

import psutil
import pytest

import pipelines
from pipelines import campaign
from pipelines.proof import crashes, jobs
from pipelines.proof.bad_server import BadServer
from pipelines.proof.jobs import Job, Training


def folder(path, **files):
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def differences(output, whole, kind=Job) -> list[str]:
    job = kind("", "")
    return crashes.differences(job.contents(output), job.contents(whole))


def test_a_byte_a_missing_file_and_a_stray_one_are_noticed(tmp_path):
    whole = folder(tmp_path / "a", a_tar="one", b_tar="two", a_json='{"seconds": 3, "rows": 1}', report_json="x")
    same = folder(tmp_path / "b", a_tar="one", b_tar="two", a_json='{"seconds": 9, "rows": 1}', report_json="y")
    assert differences(same, whole) == []
    folder(same / ".texts", report_html="x")
    assert differences(same, whole) == []
    other = folder(tmp_path / "c", a_tar="One", c_tar="two", a_json='{"seconds": 3, "rows": 2}')
    assert differences(other, whole) == ["a.json", "a.tar", "b.tar", "c.tar"]


class Forgetful(Job):
    """A job whose output depends on whether it was killed, and which leaves a process behind."""

    def argv(self, output, workers=0):
        code = (
            "import pathlib, subprocess, sys, time\n"
            "out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True); tried = (out / 'tried').exists()\n"
            "(out / 'tried').write_text('')\n"
            "if not tried:\n"
            "    subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
            "    pathlib.Path(sys.argv[1] + '-asleep').touch(); time.sleep(60)\n"
            "(out / 'result').write_text(f'killed before: {tried}')"
        )
        return [sys.executable, "-c", code, str(output)]


class Once(random.Random):
    """Chance that strikes as soon as a file is there, however busy the machine is."""

    def __init__(self, path):
        super().__init__(0)
        self._path = path

    def uniform(self, low, high):
        while not self._path.exists():
            time.sleep(0.05)
        return 0.0


def test_a_job_that_remembers_a_kill_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(crashes, "DRIVER_STRIKES", 1)
    monkeypatch.setattr(crashes.psutil, "wait_procs", lambda processes, timeout: ([], processes))
    job = Forgetful("forgetful", "")
    whole = folder(tmp_path / "whole", tried="", result="killed before: False")
    output, log = tmp_path / "out", tmp_path / "log"
    bout = crashes.kill_driver(job, output, log, 2, Once(tmp_path / "out-asleep"))
    assert (bout.strikes, bout.hits, bout.wrong) == (1, 1, ("sleep outlived its driver",) * 2)
    assert crashes.finish(job, output, whole, log).wrong == ("result differs",)


class Untidy(Job):
    """A job that leaves a process and a temporary file behind, and takes much memory."""

    def argv(self, output, workers=0):
        code = (
            "import subprocess, sys, tempfile; tempfile.mkstemp(prefix='stray-'); memory = b'x' * (64 << 20)\n"
            "subprocess.Popen(['sleep', '300'], start_new_session=True); sys.exit('no')"
        )
        return [sys.executable, "-c", code]


def test_what_a_job_leaves_and_takes_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(crashes, "PATIENCE", 0.1)
    (tmp_path / "log").write_text("said before")
    held = bytearray(b"x") * (300 << 20)  # the campaign's own memory is not the job's
    ended = crashes.left_alone(Untidy("untidy", "", most_megabytes=60), tmp_path / "out", tmp_path / "log")
    del held
    assert [text.partition("stray-")[0] for text in ended.wrong[:3]] == [
        "sleep outlived the job", "left in the temporary folder: ", "exit status 1: no\n"
    ]  # fmt: skip
    assert "MB" in ended.wrong[3] and 64 <= ended.megabytes < 300
    assert not psutil.wait_procs(crashes.marked(), 10)[1]


class Dying(Job):
    """A job whose work is done, or not, when its process is aborted at the very end."""

    def argv(self, output, workers=0):
        code = "import os, sys; open(sys.argv[1] + '/result', 'w').write('done'); os.abort()"
        return [sys.executable, "-c", code, str(output)]


def test_files_are_compared_where_a_run_ends_badly_too(tmp_path):
    folder(tmp_path / "out")
    (tmp_path / "log").touch()
    for text, wrong in (("done", []), ("more", ["result differs"])):
        whole = folder(tmp_path / text, result=text)
        ended = crashes.finish(Dying("dying", ""), tmp_path / "out", whole, tmp_path / "log")
        assert ended.status == 250 and [said for said in ended.wrong if "status" not in said] == wrong


def test_damage_to_weights_is_noticed_and_times_in_logs_are_not(tmp_path):
    for name, weights, log in ("a", "x", "1 s"), ("b", "x", "2 s"), ("c", "y", "1 s"):
        folder(tmp_path / name / "export", model_safetensors=weights)
        (tmp_path / name / "metrics.jsonl").write_text(log)
    same, other, whole = (tmp_path / name for name in "bca")
    assert differences(same, whole, Training) == []
    assert differences(other, whole, Training) == ["export/model.safetensors"]


def test_every_job_is_struck_or_said_to_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_browser", lambda: True)
    struck = {job.command.partition(".py")[0] for job in jobs.table(tmp_path, BadServer())}
    there = {path.stem for path in Path(pipelines.__file__).parent.glob("*.py") if "job.run(" in path.read_text()}
    assert "clean_laion" in there and there <= struck


def test_the_same_seed_strikes_in_the_same_order_and_finished_bouts_are_not_fought_again(tmp_path, monkeypatch, capsys):
    fought = []

    def fight(job, kind, table, out, seed):
        fought.append(seed)
        if len(fought) % 4 == 0:
            raise KeyboardInterrupt
        return crashes.Bout(1, 1, ("wrong",) if kind == "freeze" else ())

    def prepare(out):
        out.mkdir(exist_ok=True)
        return BadServer()

    monkeypatch.setattr(campaign, "prepare", prepare)
    monkeypatch.setattr(campaign, "fight", fight)
    monkeypatch.setattr(sys, "argv", ["campaign", "--output", str(tmp_path / "out"), "--seed", "7"])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            campaign.main()
    assert fought[3] == fought[4] and len(set(fought)) == 7 and all(name.startswith("7/0/") for name in fought)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "-1"])
    with pytest.raises(SystemExit) as end:
        campaign.main()
    assert end.value.code == 1 and "6 bouts, 6 hits" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_minutes_of_kills_change_nothing(tmp_path, monkeypatch, capsys):
    seed = random.SystemRandom().getrandbits(32)
    monkeypatch.setattr(
        sys, "argv", ["campaign", "--output", str(tmp_path / "out"), "--minutes", "2", "--seed", str(seed)]
    )
    with pytest.raises(SystemExit) as end:
        campaign.main()
    assert end.value.code == 0, capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out" / "bouts.jsonl").read_text().splitlines()]
    assert sum(row["hits"] for row in rows) >= 10
