"""The job shell: conservation, resume, other settings, the fuse, and what a user reads when something is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.folder import OutputFolder, SettingsDiffer
from corpus.inputs import fingerprint, names
from corpus.ledger import BlownFuse, Counts, Fuse, unjudged
from corpus.readers.slices import Slice, held
from corpus.records import Sample
from corpus.splits import Split
from pipelines.engine import job
from pipelines.engine.quarantine import lacks
from tests.folders import of_split, split_ids

SCORES = {"length": pa.float64()}


def clean_lines(split, sink):
    """Keep lines that start with k, drop those with d, fail on the rest."""
    sink.expects(held(Slice((split.source["url"],), "lines", 0, split.fingerprint["size"])))
    with open(split.source["url"]) as lines:
        for row, line in enumerate(lines):
            key = f"lines/{split.id}/{row:06d}"
            if line.startswith("k"):
                sample = Sample(key=key, dataset="lines", task="text", language="en", text=line)
                sink.keep(sample, row, length=len(line))
            elif line.startswith("d"):
                sink.drop(key, row, "starts_with_d", value=1.0, threshold=0.0, length=len(line))
            else:
                sink.error(key, row, "odd_line", repr(line))


def arguments(folder, *more):
    parser = job.parser("Clean lines.", "python lines.py", dataset="lines")
    return parser.parse_args(["--input", f"{folder}/in/*.txt", "--output", f"{folder}/out", "--workers", "0", *more])


def run(folder, *more, settings=None, work=clean_lines, **options):
    args = arguments(folder, *more)
    files = job.find_inputs(args.input)
    splits = [Split(name, {"url": url}, fingerprint(url)) for url, name in names(files).items()]
    return job.run("lines", args, splits, settings or {"rules": {"starts_with_d": {}}}, work, scores=SCORES, **options)


def contents(folder) -> dict[str, bytes]:
    """All files, manifests without their timing."""
    found = {}
    for name in OutputFolder(str(folder)).names():
        data = (folder / name).read_bytes()
        if name.endswith((".json", ".html")):
            data = b"" if name.startswith("report") else json.dumps(json.loads(data) | {"seconds": 0}).encode()
        found[name] = data
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.txt").write_text("k one\nd two\n" * (i + 1) + "?\n")
    return tmp_path


def test_a_folder_says_that_it_is_not_finished_until_it_is(folder):
    out, last = OutputFolder(str(folder / "out")), "2"

    def dying(split, sink):
        if split.id.startswith(last):
            raise BlownFuse("stopped")
        assert out.planned() == 3
        clean_lines(split, sink)

    with pytest.raises(BlownFuse):
        run(folder, work=dying)
    assert out.planned() == 3 and len(out.splits()) == 2
    assert lacks(out) == ["2 of 3 splits are there, its job is not finished"]
    run(folder)
    assert out.planned() is None and not lacks(out) and "unfinished.json" not in out.names()


def test_every_row_has_one_outcome(folder, capsys):
    counts = run(folder)
    assert (counts.rows, counts.kept, counts.dropped, counts.errors) == (15, 6, {"starts_with_d": 6}, {"odd_line": 3})
    rows = pq.read_table(of_split(folder / "out", "parquet", 1)).to_pylist()
    assert [row["outcome"] for row in rows] == ["kept", "dropped", "kept", "dropped", "error"]
    assert rows[1]["length"] == 6.0
    printed = capsys.readouterr().out
    assert "starts_with_d" in printed and "report.html" in printed


def test_a_second_run_does_nothing_and_a_lost_manifest_is_one_split(folder):
    run(folder)
    before = contents(folder / "out")
    done = []

    def watched(split, sink):
        done.append(split.id)
        clean_lines(split, sink)

    run(folder, work=watched)
    assert done == []
    lost = of_split(folder / "out", "json", 1)
    lost.unlink()
    run(folder, work=watched)
    assert done == [lost.stem]
    assert contents(folder / "out") == before


def test_a_changed_input_file_is_done_again(folder):
    run(folder)
    (folder / "in" / "2.txt").write_text("k\n")
    assert run(folder).rows == 9


def test_ray_and_one_process_write_the_same_bytes(folder):
    run(folder)
    alone = contents(folder / "out")
    run(folder, "--overwrite", "--workers", "2")
    assert contents(folder / "out") == alone


def test_other_settings_are_refused_by_name(folder):
    run(folder)
    with pytest.raises(SettingsDiffer, match=r"rules.starts_with_d.min: None there, 3 now.*--overwrite"):
        run(folder, settings={"rules": {"starts_with_d": {"min": 3}}})
    assert run(folder, "--overwrite", settings={"rules": {"starts_with_d": {"min": 3}}}).rows == 15


def test_a_folder_that_is_not_ours_is_left_alone(folder):
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(SettingsDiffer, match="thesis.tex"):
        run(folder)
    run(folder, "--overwrite")
    assert (folder / "out" / "thesis.tex").read_text() == "mine"


def test_what_a_killed_run_left_is_swept(folder):
    run(folder)
    before = contents(folder / "out")
    lost = of_split(folder / "out", "json", 1)
    (folder / "out" / f".{lost.stem}.tar.deadbeef.tmp").write_bytes(b"half")
    lost.unlink()
    run(folder)
    assert contents(folder / "out") == before


def test_the_fuse_stops_a_job_whose_rows_all_fail(folder):
    (folder / "in" / "0.txt").write_text("?\n" * 50)
    with pytest.raises(BlownFuse, match="split 0-.*10 rows failed one after another.*last: '\\?"):
        run(folder, fuse=Fuse(in_a_row=10))
    with pytest.raises(BlownFuse, match="50 of 50 rows failed"):
        run(folder, "--overwrite", fuse=Fuse(in_a_row=1000, share=0.5, least_rows=20))
    assert not [name for name in OutputFolder(str(folder / "out")).names() if name.startswith("0-")]


def test_a_sample_that_was_not_written_is_noticed(folder):
    def forgetful(split, sink):
        sink.expects([0])
        row = {"key": ["a"], "row": pa.array([0], pa.int64()), "outcome": ["kept"], "rule": pa.nulls(1, pa.string())}
        sink.rows(pa.table(row))

    with pytest.raises(AssertionError, match="1 kept rows, 0 samples written"):
        run(folder, work=forgetful)


def test_an_unknown_ledger_column_is_a_bug_not_a_loss(folder):
    with pytest.raises(ValueError, match="no column"):
        run(folder, work=lambda split, sink: sink.drop("a", 0, "r", lenght=3))


def test_an_empty_glob_says_so(folder):
    with pytest.raises(job.UserError, match="matches no file"):
        job.find_inputs([f"{folder}/in/*.tar"])


def test_input_that_went_away_is_noticed(folder):
    run(folder)
    (folder / "in" / "2.txt").unlink()
    with pytest.raises(job.UserError, match="longer has .2-"):
        run(folder)


def test_a_relative_output_inside_rays_copy_is_refused(folder, monkeypatch):
    copy = folder / "working_dir_files" / "pkg"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(job.cluster, "ROOT", copy)
    with pytest.raises(job.UserError, match="absolute path"):
        run(folder, "--output", "out")


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a tmpfs needs root on Linux")
def test_a_full_disk_stops_with_advice_and_keeps_what_is_committed(folder):
    out = folder / "out"
    out.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k tmpfs {out} 2>/dev/null"):
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        (folder / "in" / "1.txt").write_text("".join(f"k {os.urandom(400).hex()}\n" for _ in range(800)))
        with pytest.raises(SystemExit, match="disk is full.*committed splits are kept"):
            job.main(lambda: run(folder))
        assert [name[:2] for name in split_ids(out)] == ["0-"]
    finally:
        os.system(f"umount {out}")


def test_counts_that_do_not_add_up_are_refused():
    Counts(rows=3, kept=1, dropped={"emoji": 1}, errors={"bad_json": 1}).check("split")
    with pytest.raises(AssertionError, match="split: 4 rows in, but 3 accounted for"):
        Counts(rows=4, kept=1, dropped={"emoji": 1}, errors={"bad_json": 1}).check("split")


def test_not_judged_is_who_reached_a_rule_without_a_score_and_got_past_it():
    rows = [
        ("kept", None, 3.0, None), ("kept", None, None, 0.3), ("dropped", "second", 3.0, None),
        ("dropped", "first", None, None), ("dropped", "split", None, None), ("error", "bad_json", None, None),
    ]  # fmt: skip
    columns = dict(zip(("outcome", "rule", "a", "b"), map(list, zip(*rows, strict=True)), strict=True))
    kinds = {"outcome": pa.string(), "rule": pa.string(), "a": pa.float64(), "b": pa.float64()}
    table = pa.table(columns, schema=pa.schema(kinds))
    assert unjudged(table, {"first": "a", "second": "b"}) == {"first": 1, "second": 1}


def test_a_split_that_other_settings_made_is_done_again(folder):
    run(folder)
    before, out = contents(folder / "out"), OutputFolder(str(folder / "out"))
    split = min(out.manifests())
    out.write(f"{split}.json", replace(out.manifest(split), settings_digest="of another run").to_json())
    run(folder)
    assert contents(folder / "out") == before


def test_a_rule_s_rows_in_are_those_that_the_rules_before_it_left(folder):
    def work(split, sink):
        sink.expects(np.arange(4))
        for row, rule in enumerate(["first", "second", "second", None]):
            key = f"lines/{split.id}/{row:06d}"
            if rule:
                sink.drop(key, row, rule)
            else:
                sink.keep(Sample(key=key, dataset="lines", task="text", language="en", text="k"), row)

    run(folder, settings={"rules": {"first": {}, "second": {}}, "order": ["first", "second"]}, work=work)
    funnel = json.loads((folder / "out" / "report.json").read_text())["funnel"]
    assert [(line["rule"], line["rows_in"], line["dropped"]) for line in funnel] == [("first", 12, 3), ("second", 9, 6)]


def test_a_job_leaves_no_thread_that_may_hold_what_python_owns(folder):
    """Such a thread, when it drops that at the interpreter's end, aborts a process whose work is done."""
    code = (
        "import os, sys, time; from pathlib import Path; from tests import test_job\n"
        "test_job.run(Path(sys.argv[1])); out = test_job.OutputFolder(sys.argv[1] + '/out')\n"
        "assert [out.table(manifest).num_rows for manifest in out.manifests().values()] == [3, 5, 7]\n"
        "for _ in range(50):  # a thread of the allocator's has its name a moment after it has begun\n"
        "    time.sleep(0.1)\n"
        "    names = [Path(f'/proc/self/task/{task}/comm').read_text() for task in os.listdir('/proc/self/task')]\n"
        "    more = len([name for name in names if name != 'jemalloc_bg_thd\\n']) - 1\n"
        "    if not more: break\n"
        "sys.exit(more)"
    )
    single = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parent.parent
    ran = subprocess.run([sys.executable, "-c", code, folder], cwd=root, env=single, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.returncode} more threads: {ran.stderr}"


def test_settings_that_differ_are_told_of_without_what_is_the_same(tmp_path):
    folder = OutputFolder(str(tmp_path))
    folder.prepare({"order": ["a", "b", "c"], "seed": 1})
    with pytest.raises(SettingsDiffer, match=r"order differs by: \['b'\] there, \['d'\] now; seed: 1 there, 2 now\)"):
        folder.prepare({"order": ["a", "c", "d"], "seed": 2})
    with pytest.raises(SettingsDiffer, match=r"order: \['a', 'b', 'c'\] there, \['c', 'b', 'a'\] now"):
        folder.prepare({"order": ["c", "b", "a"], "seed": 1})
