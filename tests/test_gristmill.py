"""`./gristmill`: one command from anywhere, help at once, every job by its name; a run's records, folders and page."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.recipe import jobs, page, run, state
from pipelines.recipe.plan import make_plan
from pipelines.recipe.state import Busy, Record, State
from pipelines.recipe.steps import Step

ROOT = Path(__file__).resolve().parent.parent
GRISTMILL = ROOT / "gristmill"


def gristmill(*words, **options) -> subprocess.CompletedProcess:
    return subprocess.run([GRISTMILL, *map(str, words)], capture_output=True, text=True, **options)


def test_help_lists_every_command_in_a_group_and_costs_no_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = gristmill("--help").stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    commands = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert commands | set(jobs.MODULES) == set(jobs.NAMES) and len(jobs.NAMES) == len(set(jobs.NAMES))
    lines = [line.strip() for line in said.splitlines()]
    for name in (*jobs.NAMES, "run", "plan", "status"):
        assert [line for line in lines if line.startswith(f"{name} ") and len(line) > 25], name
    for group in jobs.GROUPS:
        assert f"{group}:" in lines


def test_it_works_through_a_link_from_another_folder(tmp_path):
    (tmp_path / "corpus").mkdir()  # a user's own folder, which must not be taken for ours
    (tmp_path / "corpus" / "__init__.py").write_text("raise SystemExit('a stranger')")
    link = tmp_path / "gristmill"
    link.symlink_to(GRISTMILL)
    for words in (["plan", "none.yaml"], ["show_packs", "none"], ["estimate", "--size", "none"]):
        done = subprocess.run([link, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in (1, 2) and "none" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_without_an_environment_it_says_what_to_type(tmp_path):
    shutil.copy(GRISTMILL, tmp_path)
    done = subprocess.run([tmp_path / "gristmill", "--help"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        f"gristmill: there is no {tmp_path}/.venv yet: type make install in {tmp_path}\n"
    )


def test_problems_are_counted_and_nothing_is_made(tmp_path):
    (tmp_path / "r.yaml").write_text("output: out\ndatasets: {a: {}, b: {}}\n")
    done = gristmill("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.endswith("2 problems; nothing was done\n")
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_status_of_what_is_no_root(tmp_path):
    assert "is no root of a recipe" in gristmill("status", tmp_path).stderr


# --- What a root holds ---


def step(name: str = "cleaned/a", **more) -> Step:
    told = {
        "name": name,
        "title": "",
        "words": ["clean_laion"],
        "made_of": {"x": 1},
        "mark": "report.json",
        "place": (),
    }
    return Step(**{**told, **more})


def put(here: State, name: str, key: str, *, made: str = "m", at: str = "done", mark: bool = True) -> None:
    (here.root / name).mkdir(parents=True)
    (here.root / name / "content").write_text(key)
    if mark:
        (here.root / name / "report.json").write_text("{}")
    here.write(Record(name, made, key, at, {"x": 0}))


def todo(here: State, keys=("m", "k"), **more) -> tuple[str, str]:
    (task,) = here.tasks([step(**more)], {"cleaned/a": keys})
    return task.todo, task.why


def test_what_is_to_be_done_with_a_step(tmp_path):
    here = State(tmp_path)
    assert todo(here) == (state.NEW, "")
    put(here, "cleaned/a", "k")
    assert todo(here) == (state.DONE, "")
    assert todo(here, ("m", "other")) == (state.GO_ON, "its raw data changed")
    assert todo(here, ("m", "other"), grows=False) == (state.AGAIN, "x: 0 there, 1 now")
    assert todo(here, ("other", "other")) == (state.AGAIN, "x: 0 there, 1 now")
    (tmp_path / "cleaned" / "a" / "report.json").unlink()
    assert todo(here)[0] == state.GO_ON, "its last file is gone"
    (tmp_path / "steps" / "cleaned--a.json").write_text("{")
    assert todo(here)[0] == state.GO_ON, "its record is cut: the job looks for itself"


@pytest.mark.parametrize("at", ["begun", "failed"])
def test_a_step_that_did_not_end_goes_on(tmp_path, at):
    put(State(tmp_path), "cleaned/a", "k", at=at)
    assert todo(State(tmp_path))[0] == state.GO_ON


def test_what_is_put_aside_comes_back_with_its_settings(tmp_path):
    here = State(tmp_path)
    put(here, "cleaned/a", "first")
    here.put_aside("cleaned/a")
    assert todo(here, ("n", "second")) == (state.NEW, "")
    put(here, "cleaned/a", "second", made="n")
    assert todo(here, ("m", "first")) == (state.BACK, "made before, with these settings")
    here.bring_back("cleaned/a", "first")
    assert (tmp_path / "cleaned/a/content").read_text() == "first" and todo(here, ("m", "first")) == (state.DONE, "")
    assert todo(here, ("n", "second"))[0] == state.BACK


def test_a_root_is_held_by_one_run_and_by_its_steps(tmp_path):
    here = State(tmp_path)
    with here.lock() as lock:
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
        with pytest.raises(Busy, match="still at work here"), State(tmp_path).lock():
            pass
    try:
        with pytest.raises(Busy), here.lock():  # the run is gone, its step is not
            pass
    finally:
        orphan.kill()
        orphan.wait()
    with here.lock():
        pass


# --- A run, with jobs that cost nothing ---

RECIPE = """\
output: out
datasets:
  a: {like: in-house-text, input: a.txt}
  b: {like: in-house-text, input: b.txt}
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path(f"{name}.txt").write_text(
            "\n".join(f"{name} {i} " + " ".join(f"word{(7 * i + 13 * j) % 991}" for j in range(40)) for i in range(20))
        )
    Path("r.yaml").write_text(RECIPE)
    return tmp_path


def test_a_run_does_what_is_left_and_ends_in_a_page(there, capfd):
    run.run(make_plan("r.yaml"), workers=0)
    said = capfd.readouterr().out
    assert "$ gristmill clean_text --dataset a --input a.txt --output out/cleaned/a" in said
    assert "Look at out/report.html" in said
    text = Path("out/report.html").read_text()
    assert 'href="cleaned/a/report.html"' in text and (there / "out/cleaned/a/report.html").exists()
    page.print_status("out")
    assert capfd.readouterr().out.splitlines()[0].split() == ["done", "cleaned/a", "20", "of", "20", "rows", "kept"]
    made = os.stat("out/cleaned/a/job.json").st_mtime_ns

    run.run(make_plan("r.yaml"), workers=0)
    assert capfd.readouterr().out.count("there already") == 2

    Path("r.yaml").write_text(RECIPE.replace("b.txt}", "b.txt, rules: {too_short: {min_characters: 2000}}}"))
    plan = make_plan("r.yaml")
    assert [(task.step.name, task.todo) for task in plan.tasks] == [("cleaned/a", "done"), ("cleaned/b", "again")]
    assert "rules.too_short: None there, {'min_characters': 2000} now" in plan.tasks[1].why
    run.run(plan, workers=0)
    assert os.stat("out/cleaned/a/job.json").st_mtime_ns == made
    assert (
        list(page.lines("out"))[1].kept == 0 and len(list(Path("out/superseded").glob("cleaned--b-*/report.json"))) == 1
    )

    Path("r.yaml").write_text(RECIPE)
    run.run(make_plan("r.yaml"), workers=0)
    assert list(page.lines("out"))[1].kept == 20
    Path("r.yaml").write_text("\n".join(RECIPE.splitlines()[:3]))
    plan = make_plan("r.yaml")
    assert plan.gone == ["cleaned/b"]
    run.run(plan, workers=0)
    assert not Path("out/cleaned/b").exists()


def test_a_long_training_is_a_curve_of_some_hundred_points():
    line = page.Line("runs/stage1", "", "done", losses=[float(i) for i in range(50_000, 0, -1)])
    points = line.curve.split()
    assert 300 <= len(points) <= 600 and points[0] == "0.0,0.0" and points[-1] == "300.0,90.0"
    assert page.Line("", "", "", losses=[2.0]).curve == "0.0,0.0"


def test_a_failed_step_is_told_and_tried_again(there, capfd):
    Path("out/cleaned/a").mkdir(parents=True)
    Path("out/cleaned/a/strange").write_text("not a job's")
    with pytest.raises(run.StepFailed, match="cleaned/a failed with status 1; mended, the same command goes on"):
        run.run(make_plan("r.yaml"), workers=0)
    assert [line.state for line in page.lines("out")] == ["failed", "waits"]
    Path("out/cleaned/a/strange").unlink()
    assert [task.why for task in make_plan("r.yaml").tasks] == ["it failed", ""]
    run.run(make_plan("r.yaml"), workers=0)
    assert [line.state for line in page.lines("out")] == ["done", "done"]


def test_on_a_cluster_steps_run_side_by_side_with_a_log_each(there, monkeypatch, capfd):
    """Two steps, each of which waits for the other to have begun."""
    Path("job.py").write_text(
        "import os, pathlib, sys, time\nout = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"
        "out.mkdir(parents=True)\nother = out.parent / {'a': 'b', 'b': 'a'}[out.name]\n"
        "deadline = time.monotonic() + 60\nwhile not other.exists():\n    assert time.monotonic() < deadline\n"
        "    time.sleep(0.05)\nprint('on', os.environ['RAY_ADDRESS'])\n"
    )
    monkeypatch.setattr(run, "words_of", lambda name: [str(there / "job.py")])
    run.run(make_plan("r.yaml"), ray="here:6379")
    assert Path("out/logs/cleaned--a.log").read_text() == "on here:6379\n"
    assert "done: cleaned/b (out/logs/cleaned--b.log)" in capfd.readouterr().out


def test_a_run_that_is_told_to_stop_stops_its_step(there):
    Path("job.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(100)\n")
    code = (
        "from pipelines.recipe import run\nfrom pipelines.recipe.plan import make_plan\n"
        f"run.words_of = lambda name: [{str(there / 'job.py')!r}]\nrun.run(make_plan('r.yaml'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    while not Path("begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == "stopped; the same command goes on from there\n"
    with State("out").lock():
        pass  # nobody holds the root: the step is gone too


def test_the_plan_says_why(there):
    run.run(make_plan("r.yaml"), workers=0)
    Path("a.txt").write_text(Path("a.txt").read_text() + "One more text, which is long enough as well, I think.\n")
    said = gristmill("plan", "r.yaml", "--set", "datasets.b.rules.too_short.min_characters=9").stdout
    assert " ~ cleaned/a                          go on  its raw data changed" in said
    assert "-/+ cleaned/b                          again  " in said and "2 steps: 0 done, 2 to do" in said
    assert json.loads(Path("out/plan.json").read_text())["recipe"] == "r.yaml"


def test_make_demo_runs_the_demos_recipe():
    said = subprocess.run(["make", "-n", "demo", "DEMO=out"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "./gristmill run recipes/demo.yaml --set output=out" in said.splitlines()
