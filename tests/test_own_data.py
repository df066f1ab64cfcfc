"""docs/your_own_data.md, command by command: three datasets of a user, killed in five places, one threshold moved."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.make_demo_crawl import RawPair, write_shard
from pipelines.proof.jobs import Job, Training
from pipelines.recipe.plan import make_plan
from pipelines.recipe.state import State
from tests.published import jpeg, samples
from trainer.progress import read_metrics

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "your_own_data.md").read_text()
BLOCKS = re.findall(r"^```(?:yaml)?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
RECIPE = BLOCKS[0]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("gristmill ")]
DATASETS, STAGES = ("crawl", "shop", "talks"), (1, 2, 3)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a user's raw data and the page's recipe; commands are found as the page types them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{ROOT}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        texts = [f"a picture number {shard}{i} of the crawl" for i in range(30)]
        write_shard(tmp_path / "shards", shard, [RawPair(jpeg(100 * shard + i), text) for i, text in enumerate(texts)])
    sizes = [(80, 90) if i % 4 == 0 else (320, 240) for i in range(40)]
    photos = [jpeg(500 + i, width=width, height=height) for i, (width, height) in enumerate(sizes)]
    rows = {"title": [f"item {i} of the shop" for i in range(40)], "photo": photos, "terms": ["CC0", "CC-BY"] * 20,
            "artist": [f"N. N. {i}" for i in range(40)]}  # fmt: skip
    pq.write_table(pa.table(rows), "shop.parquet")
    (tmp_path / "pictures").mkdir()
    talks = []
    for i in range(24):
        (tmp_path / "pictures" / f"{i}.jpg").write_bytes(jpeg(900 + i, width=224, height=224))
        turns = [("human", "<image>\nWho drew this?"), ("gpt", "Nobody did.")]
        talks.append({"id": str(i), "image": f"{i}.jpg", "conversations": [{"from": a, "value": b} for a, b in turns]})
    Path("talks.json").write_text(json.dumps(talks))
    Path("mine.yaml").write_text(RECIPE)
    return tmp_path


def typed(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def bytes_of(root: str) -> dict[str, bytes]:
    """Everything that the steps made, without times."""
    made = {f"cleaned/{name}": Job("", "") for name in DATASETS} | {f"stage{n}": Job("", "") for n in STAGES}
    made |= {f"runs/stage{n}": Training("", "") for n in STAGES}
    found = {f"{step}/{name}": data for step, job in made.items()
             for name, data in job.contents(Path(root, step)).items() if "checkpoints/" not in name}  # fmt: skip
    losses = {f"losses {n}": repr([r["loss"] for r in read_metrics(Path(root, f"runs/stage{n}"))]) for n in STAGES}
    return found | {name: text.encode() for name, text in losses.items()}


def kill_within(command: str, place: str) -> None:
    """Start a run, and kill it with all that it started once it is at work in `place`."""
    with open("log", "a") as log:
        process = subprocess.Popen(shlex.split(command), stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 600
    while not _at_work(place):
        assert process.poll() is None and time.monotonic() < deadline, Path("log").read_text()[-2000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _at_work(place: str) -> bool:
    record, folder = State("mine").record(place), Path("mine", place)
    begun = record is not None and record.state == "begun"
    return begun and (len(read_metrics(folder)) > 3 if place.startswith("runs/") else (folder / "job.json").exists())


def test_the_page_shows_what_is_there(mine):
    """The plan on the page is the plan of its recipe; the recipe is as short as it says."""
    shown = typed(COMMANDS[0])
    assert shown.startswith(next(block for block in BLOCKS if block.startswith("mine.yaml -> mine")))
    assert shown.splitlines()[-1].startswith("9 steps: 0 done, 9 to do; 1.0 MB") and not Path("mine").exists()
    assert len(RECIPE.splitlines()) <= 13


def check_columns() -> None:
    """What the shop says of each photo is in its sample, its ledger row and the card of each stage."""
    shop = samples("mine/cleaned/shop")
    assert len(shop) == 40
    for sample in shop.values():
        number = int(sample.text.split()[1])
        told = {"artist": f"N. N. {number}", "terms": ["CC0", "CC-BY"][number % 2]}
        assert sample.source["passthrough"] == told
        (split,) = State("mine").root.glob("cleaned/shop/shop-*.parquet")
        assert told in pq.read_table(split)["passthrough"].to_pylist()
    record = json.loads(Path("mine/stage1/corpus.json").read_text())
    assert {name: counts["samples"] for name, counts in record["licences"]["shop"].items()} == {"CC-BY": 20, "CC0": 20}
    assert "| LicenseRef-CC-BY | 20 |" in Path("mine/stage1/DATACARD.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_from_raw_data_to_an_answer_killed_in_five_places_and_one_threshold_moved(mine):
    plan, run, status, ask, plan_again, run_again = COMMANDS
    typed(plan)
    typed(run)
    assert "9 of 9 steps done" in typed(status)
    assert typed(ask).strip() == "Nobody did."
    text = Path("mine/report.html").read_text()
    reports = re.findall(r'href="([^"]+)"', text)
    assert len(reports) == 6 and all(Path("mine", report).exists() for report in reports)
    check_columns()
    whole = bytes_of("mine")
    os.rename("mine", "whole")

    for place in ("cleaned/crawl", "cleaned/talks", "stage1", "runs/stage1", "runs/stage3"):
        kill_within(run, place)
    typed(run)
    again = bytes_of("mine")
    assert again.keys() == whole.keys() and [name for name in whole if whole[name] != again[name]] == []

    assert "  again  rules.image_size: " in typed(plan_again)
    touched = {t.step.name for t in make_plan("mine.yaml", plan_again.split()[-1:]).tasks if t.todo != "done"}
    assert touched == {"cleaned/shop", "stage1", "runs/stage1", "stage2", "runs/stage2", "runs/stage3"}
    before = {path: path.stat().st_mtime_ns for name in ("cleaned/crawl", "cleaned/talks", "stage3")
              for path in Path("mine", name).rglob("*")}  # fmt: skip
    typed(run_again)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    moved = bytes_of("mine")
    changed = {name.rpartition("/")[0] for name in whole if whole[name] != moved.get(name)}
    assert {"cleaned/shop", "stage1", "stage2", "runs/stage1/export"} <= changed
    assert not {name for name in changed if name.startswith(("cleaned/crawl", "cleaned/talks", "stage3"))}
    counts = json.loads(Path("mine/cleaned/shop/report.json").read_text())["counts"]
    assert counts["dropped"] == {"image_size": 10} and counts["kept"] == 30

    typed(run)  # back to the first threshold: what it made comes back
    assert bytes_of("mine") == whole
