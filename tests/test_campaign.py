"""The campaign of kills notices what it is there to notice, goes on where it was stopped, and finds nothing wrong."""

import json
import random
import sys

import pytest

from pipelines import campaign
from pipelines.proof import crashes
from pipelines.proof.crashes import Job


def folder(path, **files):
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_a_byte_a_missing_file_and_a_stray_one_are_noticed(tmp_path):
    whole = folder(tmp_path / "a", a_tar="one", b_tar="two", a_json='{"seconds": 3, "rows": 1}', report_json="x")
    same = folder(tmp_path / "b", a_tar="one", b_tar="two", a_json='{"seconds": 9, "rows": 1}', report_json="y")
    assert crashes.differences(same, whole) == []
    other = folder(tmp_path / "c", a_tar="One", c_tar="two", a_json='{"seconds": 3, "rows": 2}')
    assert crashes.differences(other, whole) == ["a.json", "a.tar", "b.tar", "c.tar"]


class Forgetful(Job):
    """A job whose output depends on whether it was killed, and which leaves a process behind."""

    def argv(self, output, workers=0):
        code = (
            "import pathlib, subprocess, sys, time\n"
            "out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True); tried = (out / 'tried').exists()\n"
            "(out / 'tried').write_text('')\n"
            "if not tried: subprocess.Popen(['sleep', '300'], start_new_session=True); time.sleep(60)\n"
            "(out / 'result').write_text(f'killed before: {tried}')"
        )
        return [sys.executable, "-c", code, str(output)]


def test_a_job_that_remembers_a_kill_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(crashes, "STRIKES", 1)
    monkeypatch.setattr(crashes.psutil, "wait_procs", lambda processes, timeout: ([], processes))
    job = Forgetful("forgetful", "")
    whole = folder(tmp_path / "whole", tried="", result="killed before: False")
    output, log = tmp_path / "out", tmp_path / "log"
    bout = crashes.kill_driver(job, output, log, 2, random.Random(0))
    assert (bout.strikes, bout.hits, bout.wrong) == (1, 1, ("sleep outlived its driver",))
    assert crashes.finish(job, output, whole, log) == ["result differs"]


def test_the_same_seed_strikes_in_the_same_order_and_finished_bouts_are_not_fought_again(tmp_path, monkeypatch, capsys):
    fought = []

    def fight(job, kind, out, seed):
        fought.append(seed)
        if len(fought) % 4 == 0:
            raise KeyboardInterrupt
        return crashes.Bout(1, 1, ("wrong",) if kind == "freeze" else ())

    monkeypatch.setattr(campaign, "prepare", lambda out: out.mkdir(exist_ok=True))
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
def test_five_minutes_of_kills_change_nothing(tmp_path, monkeypatch, capsys):
    seed = random.SystemRandom().getrandbits(32)
    monkeypatch.setattr(
        sys, "argv", ["campaign", "--output", str(tmp_path / "out"), "--minutes", "5", "--seed", str(seed)]
    )
    with pytest.raises(SystemExit) as end:
        campaign.main()
    assert end.value.code == 0, capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out" / "bouts.jsonl").read_text().splitlines()]
    assert sum(row["hits"] for row in rows) >= 10
