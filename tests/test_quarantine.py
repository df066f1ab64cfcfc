"""A split that a system error keeps from happening: tried again, set aside, told, and done by the same command."""

import copy
import errno
import json
import os
import shlex
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from corpus import patience
from corpus.folder import OutputFolder
from corpus.inputs import fingerprint, names
from corpus.rules import RuleTable
from corpus.splits import Split
from pipelines.engine import cluster, job, two_pass
from pipelines.engine.quarantine import Quarantine, command, told
from tests.test_job import SCORES, arguments, clean_lines, contents, run

BUSY = OSError(errno.EBUSY, "Please reduce your request rate")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.txt").write_text("k one\nd two\n" * (i + 1) + "?\n")
    return tmp_path


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The pauses between tries, which take no time here; a budget of ten minutes is soon spent."""
    pauses, clock = [], [0.0]

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    return pauses


def failing(error: BaseException, *splits: str, times: float = float("inf")):
    """Work that raises `error` for splits whose names begin so, the first `times` times."""
    left = dict.fromkeys(splits, times)

    def work(split, sink):
        clean_lines(split, sink)
        if (name := split.id[:1]) in left and left[name]:
            left[name] -= 1
            raise copy.copy(error)

    return work


def whole(folder) -> dict[str, bytes]:
    run(folder, "--output", f"{folder}/quiet")
    return contents(folder / "quiet")


def test_what_outlives_its_tries_is_set_aside_told_and_done_by_the_same_command(folder, capsys):
    quiet, out = whole(folder), folder / "out"
    with pytest.raises(SystemExit) as ended:
        job.main(lambda: run(folder, work=failing(BUSY, "2")))
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert "split 2-" in said.err and "is quarantined: OSError: [Errno 16] Please reduce" in said.err
    assert "1 of 4 splits are quarantined" in said.err and "1 split is in quarantine" in said.out
    (record,) = out.glob("*.quarantined.json")
    assert json.loads(record.read_text())["source"]["url"] == f"{folder}/in/2.txt"
    report = json.loads((out / "report.json").read_text())
    assert report["splits"] == 3 and "Please reduce" in report["quarantined"][1]
    assert "Please reduce" in (out / "report.html").read_text()
    there = {name: data for name, data in contents(out).items() if name != record.name}
    assert there == {name: data for name, data in quiet.items() if not name.startswith("2-")}
    run(folder)
    assert contents(out) == quiet


def test_a_failure_that_passes_costs_a_pause_drawn_at_random(folder, slept):
    quiet = whole(folder)
    run(folder, work=failing(BUSY, "0", "1", times=4))
    assert contents(folder / "out") == quiet
    assert len(slept) == 8 and len(set(slept)) == 8
    assert all(pause <= most for pause, most in zip(slept, [1, 2, 4, 8] * 2, strict=True))


def test_patience_ends_after_minutes_and_what_will_not_pass_is_not_tried_again(folder, slept):
    with pytest.raises(job.Quarantined):
        run(folder, work=failing(BUSY, "3"))
    assert 200 < sum(slept) <= patience.BUDGET and max(slept) <= patience.LONGEST_PAUSE
    slept.clear()
    with pytest.raises(job.Quarantined, match="PermissionError"):
        run(folder, work=failing(PermissionError(errno.EACCES, "denied"), "3"))
    assert slept == []


class _Answer(Exception):
    def __init__(self, status, code):
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def of_store(status: int, code: str) -> OSError:
    error = OSError(errno.EINVAL, "as s3fs translates it")
    error.__cause__ = _Answer(status, code)
    return error


@pytest.mark.parametrize(("error", "passing"), [
    (of_store(503, "SlowDown"), True), (of_store(500, "InternalError"), True), (of_store(429, "Throttled"), True),
    (of_store(400, "RequestTimeout"), True), (of_store(400, "InvalidArgument"), False),
    (of_store(404, "NoSuchKey"), False), (TimeoutError(), True), (ConnectionResetError("reset"), True),
    (OSError(errno.EREMOTEIO, "500"), True), (OSError(errno.ENOSPC, "full"), False), (MemoryError(), False),
    (FileNotFoundError(errno.ENOENT, "gone"), False), (ValueError("data"), False),
])  # fmt: skip
def test_what_passes(error, passing):
    assert patience.passes(error) == passing


def test_the_errors_of_clients_pass_unless_they_are_the_setup_s():
    from aiohttp import ClientPayloadError
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    assert patience.passes(ClientPayloadError("cut")) and patience.passes(EndpointConnectionError(endpoint_url="x"))
    assert not patience.passes(NoCredentialsError())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("nobody foresaw"), ImportError("torch")])
def test_a_full_disk_and_bugs_stop_the_job_at_once(folder, error):
    with pytest.raises(type(error)):
        run(folder, work=failing(error, "0"))
    assert not list((folder / "out").glob("*.json*quarantined*")) and len(OutputFolder(f"{folder}/out").splits()) == 0


@pytest.mark.parametrize(("flags", "bad", "ends"), [
    ((), "01", cluster.SplitFailed), (("--max-quarantined", "50"), "01", job.Quarantined),
    (("--max-quarantined", "50"), "012", cluster.SplitFailed), (("--max-quarantined", "0"), "0", cluster.SplitFailed),
])  # fmt: skip
def test_above_a_share_the_job_stops(folder, flags, bad, ends):
    with pytest.raises(ends) as error:
        run(folder, *flags, work=failing(MemoryError(), *bad))
    if ends is cluster.SplitFailed:
        assert f"{len(bad)} of 4 splits failed" in str(error.value) and "--max-quarantined" in str(error.value)
    quiet = whole(folder)
    run(folder)
    assert contents(folder / "out") == quiet


def test_a_record_that_outlived_its_split_or_its_place_in_the_plan_is_forgotten(folder):
    out = OutputFolder(f"{folder}/out")
    quiet = whole(folder)
    run(folder)
    split = out.splits()[0]
    Quarantine(out, 4, 50, ()).add(Split(split, {"url": "a"}), cluster.Failed("killed after the commit"))
    Quarantine(out, 4, 50, ()).add(Split("gone-0", {"url": "b"}), cluster.Failed("its file is named no more"))
    assert told(out, out.names())[1:] == ["gone-0 (b): its file is named no more"]
    run(folder)
    assert contents(folder / "out") == quiet


def test_overwriting_removes_records_too_and_the_command_told_does_not_overwrite(folder, monkeypatch):
    with pytest.raises(job.Quarantined):
        run(folder, work=failing(BUSY, "2"))
    quiet = whole(folder)
    run(folder, "--overwrite")
    assert contents(folder / "out") == quiet
    typed = ["pipelines/lines.py", "--input", "a b/*", "--overwrite", "--output", "--over", "o"]
    monkeypatch.setattr(sys, "argv", typed)
    assert shlex.split(command()) == ["python", *typed[:3], "--output", "o"]


def test_a_record_that_is_damaged_does_not_hide_that_a_split_is_missing(folder):
    with pytest.raises(job.Quarantined):
        run(folder, work=failing(BUSY, "2"))
    out = OutputFolder(f"{folder}/out")
    next((folder / "out").glob("*.quarantined.json")).write_text("[1]")
    assert told(out, out.names())[0].startswith("1 split is in quarantine") and "cannot be read" in str(
        told(out, out.names())
    )


LINES = pa.schema([("key", pa.string()), ("row", pa.int64()), ("text", pa.string())])


def two_passes(folder, output, error=None):
    """A job that drops what an earlier split has too."""
    args = arguments(folder, "--output", f"{folder}/{output}")
    splits = [Split(name, {"url": url}, fingerprint(url)) for url, name in names(job.find_inputs(args.input)).items()]

    def measure(split, sink):
        if error and split.id.startswith("0"):
            raise error
        lines = open(split.source["url"]).read().splitlines()  # noqa: SIM115
        sink.expects(range(len(lines)))
        two_pass.keep_rows(sink, [{"key": f"{split.id}/{i}", "row": i, "text": t} for i, t in enumerate(lines)], LINES)

    first = two_pass.first_pass("texts", args, splits, {}, measure, scores={}, rules=RuleTable("", []), part_of="lines")
    counted = {split.id: first.manifest(split.id).counts.rows for split in splits}
    decided = two_pass.decided(first, splits, ((name, pa.array([n]).to_numpy()) for name, n in counted.items()))
    return job.run("lines", args, decided, {"rules": {}}, clean_lines, scores=SCORES)


def test_a_first_pass_with_a_split_in_quarantine_decides_nothing(folder, capsys):
    two_passes(folder, "quiet")
    with pytest.raises(job.Quarantined, match=r"lines, pass texts: 1 of 4 splits are quarantined in .*\.texts"):
        two_passes(folder, "out", PermissionError(errno.EACCES, "denied"))
    assert [path.name for path in (folder / "out").iterdir()] == [".texts"]
    two_passes(folder, "out")
    out, quiet = (sorted((folder / name).glob("*.parquet")) for name in ("out", "quiet"))
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in quiet] and len(out) == 4


@pytest.mark.slow
@pytest.mark.parametrize("setup", [None, lambda: "a model"])
def test_a_poison_split_that_kills_its_worker_each_time_costs_itself_alone(folder, monkeypatch, setup):
    monkeypatch.setattr(cluster, "MAX_RETRIES", 1)
    quiet, stand = whole(folder), os.getpid()

    def poisoned(split, sink, *state):
        if split.id.startswith("1") and os.getpid() != stand:
            os._exit(9)
        clean_lines(split, sink)

    with pytest.raises(job.Quarantined, match="1-.*its worker died 2 times"):
        run(folder, "--workers", "2", work=poisoned, setup=setup)
    there = {name: data for name, data in contents(folder / "out").items() if "quarantined" not in name}
    assert there == {name: data for name, data in quiet.items() if not name.startswith("1-")}
    run(folder)
    assert contents(folder / "out") == quiet
