"""What docs/extending.md promises: a user's rule in a file of their own, and each diff of the page applied and used."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.catalog import CatalogError
from corpus.plugins import load_rules
from corpus.rules import WrongMeasure
from pipelines import clean_laion, clean_text, retune
from pipelines.engine import job
from pipelines.work.datasets import whole_catalog
from tests.conftest import ROOT
from tests.published import run_job

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL)
PLUGIN, CATALOG = (text for kind, text in BLOCKS if kind in ("python", "yaml"))
DIFFS = [text for kind, text in BLOCKS if kind == "diff"]
CAPTIONS = ["A red barn", "A RED BARN", "a RED Barn", "123 456", "<b>two</b> dogs", "BIG SALE today"]


@pytest.fixture
def mine(tmp_path):
    """A folder outside the checkout with the page's rule, its catalog and a crawl."""
    (tmp_path / "my_rules.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(CATALOG)
    links = [f"http://a/{i}.jpg" for i in range(len(CAPTIONS))]
    pq.write_table(pa.table({"caption": CAPTIONS, "link": links}), tmp_path / "raw.parquet")
    return tmp_path


def clean(mine, *more, output="cleaned"):
    run_job(clean_laion, "--catalog", mine / "mine.yaml", "--dataset", "mine", "--input", mine / "raw.parquet",
            "--output", mine / output, *more)  # fmt: skip
    return json.loads((mine / output / "report.json").read_text())


def funnel(report) -> dict:
    return {line["rule"]: (line["dropped"], line["unjudged"]) for line in report["funnel"]}


def test_a_rule_of_the_user_has_all_that_a_built_in_one_has(mine):
    assert len(PLUGIN.strip().splitlines()) <= 17  # fifteen lines, the file's name and a blank
    report = clean(mine)
    assert funnel(report)["shouting"] == (1, 1)  # the caption of digits has no letters to judge
    drawn = {each["name"]: each["thresholds"] for each in report["histograms"]}
    assert drawn["capitals"] == [0.6]
    [ledger] = [pq.read_table(path) for path in (mine / "cleaned").glob("*.parquet") if "urls" not in path.name]
    dropped = ledger.filter(pa.compute.equal(ledger["rule"], "shouting")).to_pylist()
    assert [(row["text_before"], row["value"], row["threshold"]) for row in dropped] == [("A RED BARN", 1.0, 0.6)]


def test_its_threshold_moves_by_retune_as_a_fresh_run_would_have_it(mine):
    clean(mine)
    run_job(retune, mine / "cleaned", "--catalog", mine / "mine.yaml", "--set", "shouting.max=0.5", "--output",
            mine / "retuned")  # fmt: skip
    clean(mine, "--rule", "shouting.max=0.5", output="fresh")
    assert (mine / "retuned" / "job.json").read_bytes() == (mine / "fresh" / "job.json").read_bytes()
    for path in (mine / "fresh").glob("*.urls.parquet"):
        assert pq.read_table(path) == pq.read_table(mine / "retuned" / path.name)


def test_a_changed_rule_is_another_run(mine):
    clean(mine)
    (mine / "my_rules.py").write_text(PLUGIN + "\n# changed\n")
    with pytest.raises(Exception, match=r"plugins.my_rules.py"):
        clean(mine)


def test_the_same_rule_judges_documents(mine):
    (mine / "mine.yaml").write_text(
        CATALOG.replace("clean_laion", "clean_text").replace("columns\n", "text\n").replace("[caption]", "[text]")
        .replace("html: {}, ", "").replace("{text: caption, url: link}", "{}")
    )  # fmt: skip
    (mine / "texts.txt").write_text("\n".join(text.ljust(5) * 60 for text in ("quiet words ", "LOUD WORDS ")))
    run_job(clean_text, "--catalog", mine / "mine.yaml", "--dataset", "mine", "--input", mine / "texts.txt",
            "--output", mine / "texts")  # fmt: skip
    report = json.loads((mine / "texts" / "report.json").read_text())
    assert funnel(report)["shouting"] == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RULES = [", "SyntaxError"),
        ("raise OSError('no')", "OSError: no"),
        ("RULES = 3", "RULES must be a list"),
        (PLUGIN.replace("measure=capitals, ", ""), "shouting: a rule needs measure="),
        (PLUGIN.replace('"shouting"', '"emoji"'), "a rule 'emoji' is there already"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why(mine, text, message):
    (mine / "my_rules.py").write_text(text)
    with pytest.raises((CatalogError, job.UserError), match=re.escape(message)):
        clean(mine)


def test_a_measure_of_the_wrong_shape_stops_the_job(mine):
    (mine / "my_rules.py").write_text(PLUGIN.replace("    letters =", "    return [1.0]\n    letters ="))
    with pytest.raises(WrongMeasure, match=r"rule 'shouting': its measure returned shape \(1,\) for 6 rows"):
        clean(mine)


RAISING = PLUGIN.replace(
    "    letters =",
    '    if pc.any(pc.match_substring(text, "RED")).as_py():\n        raise ValueError("no red")\n    letters =',
)


def test_a_rule_that_raises_costs_the_rows_that_make_it_raise(mine):
    clean(mine, output="before")
    (mine / "my_rules.py").write_text(RAISING)
    load_rules.cache_clear()  # a process reads a plugin once
    report = clean(mine)
    assert report["counts"]["errors"] == {"rule_raised": 2}
    [ledger] = [
        pq.read_table(path).to_pylist() for path in (mine / "cleaned").glob("*.parquet") if "urls" not in path.name
    ]
    [before] = [
        pq.read_table(path).to_pylist() for path in (mine / "before").glob("*.parquet") if "urls" not in path.name
    ]
    raised = [row["row"] for row in ledger if row["outcome"] == "error"]
    assert raised == [1, 2] and {ledger[i]["detail"] for i in raised} == {"shouting: ValueError: no red"}
    assert [row for row in ledger if row["row"] not in raised] == [row for row in before if row["row"] not in raised]
    run_job(retune, mine / "cleaned", "--catalog", mine / "mine.yaml", "--set", "shouting.max=0.5", "--output",
            mine / "retuned")  # fmt: skip
    assert json.loads((mine / "retuned" / "report.json").read_text())["counts"]["errors"] == {"rule_raised": 2}


def test_a_rule_that_raises_over_documents_costs_those_documents(mine):
    (mine / "my_rules.py").write_text(RAISING)
    (mine / "mine.yaml").write_text(
        CATALOG.replace("clean_laion", "clean_text").replace("columns\n", "text\n").replace("[caption]", "[text]")
        .replace("html: {}, ", "").replace("{text: caption, url: link}", "{}")
    )  # fmt: skip
    (mine / "texts.txt").write_text("\n".join(f"{text} {text} " * 60 for text in ("quiet", "a RED", "words")))
    run_job(clean_text, "--catalog", mine / "mine.yaml", "--dataset", "mine", "--input", mine / "texts.txt",
            "--output", mine / "texts")  # fmt: skip
    counts = json.loads((mine / "texts" / "report.json").read_text())["counts"]
    assert (counts["kept"], counts["errors"]) == (2, {"rule_raised": 1})


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the checkout with every diff of the page applied."""
    copy = tmp_path_factory.mktemp("extended") / "gristmill"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "demo", "learn", "out", "runs", "__pycache__", "tiny_clip", "images"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    for diff in DIFFS:
        path = copy / re.search(r"^\+\+\+ b/(.+)$", diff, flags=re.MULTILINE)[1]
        lines = diff.partition("@@\n")[2].splitlines()
        anchor = "\n".join(line[1:] for line in lines if line.startswith(" "))
        text = path.read_text(encoding="utf-8")
        assert text.count(anchor) == 1, f"{path.name}: the page's anchor stands {text.count(anchor)} times"
        added = "\n".join(line[1:] for line in lines)
        path.write_text(text.replace(anchor, added), encoding="utf-8")
    return copy


def python(folder, code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_diff_of_the_page_works(extended):
    assert len(DIFFS) == 3
    assert "flickr30k" not in whole_catalog(None)
    code = """
import pyarrow as pa
from cleaners import rules
from pipelines.build_stage import make_parser
from pipelines.work.datasets import whole_catalog
from trainer.stages import make_settings
table = pa.table({"text": ["a barn", "a lake"], "width": [100, 400], "height": [100, 400]})
print(rules.clean(table, {"few_pixels": {}}, language="en")["rule"].to_pylist())
print(whole_catalog(None)["flickr30k"].columns["image"])
print(make_parser().parse_args("--stage 4 --data d --output o".split()).stage, make_settings(4, "tiny").trains)
"""
    assert python(extended, code).splitlines() == ["['few_pixels', None]", "filename", "4 ('language',)"]
