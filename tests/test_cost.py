"""What a recipe or a dataset would take: held against sums done by hand, with wrong rates, units and prices planted."""

import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.shards import keys_in
from pipelines import cost
from pipelines.costs import amounts, rates
from pipelines.costs.costing import costs_of, summed
from pipelines.costs.rates import Taken, read_tables
from pipelines.costs.sizes import size_of
from pipelines.costs.table import short
from pipelines.engine.inputs import UserError
from pipelines.make_demo_crawl import make_pair, write_shard
from pipelines.recipe.read import read
from pipelines.recipe.steps import TITLES

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "recipes" / "demo.yaml"
# Every resource once, in numbers that a hand can check.
RATES = """\
steps:
  clean_laion of a table:
    - {value: 1_000, unit: rows per core-second, measured: here}
    - {value: 2, unit: core-milliseconds per kept row, measured: never, source: a guess}
    - {value: 500, unit: bytes read per row, measured: here}
    - {value: 250, unit: bytes written per kept row, measured: here}
    - {value: 3, unit: GETs per file, measured: here}
    - {value: 10, unit: files per LIST, measured: here}
    - {value: 5, unit: PUTs per file, measured: here, up_to: 4}
"""
SMALL = ["--size", "tiny", "--gpus", "1"]
PRICES = """\
core-hour: 2
1000 GETs: 7
1000 PUTs: 11
1000 LISTs: 13
TB read: 17
TB written: 19
TB stored for a month: 23
months stored: 2
"""


def run(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["cost.py", *map(str, words)])
    cost.main()
    return capsys.readouterr().out


def written(tmp_path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def table_alone(tables, rows: float, kept: float, files: float = 0) -> amounts.Project:
    source = amounts.Source("mine", [("clean", "clean_laion", {}), ("fetch", "fetch_images", {})], rows, kept, 100, "")
    source = amounts.replace(source, files=files)
    return amounts.Project([source], {})


def step(found, name: str):
    return next(each for each in found if each.work.step == name)


def by_hand(tmp_path, rate_text: str = RATES):
    """The table step of 36 million rows in 36 files, of which it keeps 6 million, and 3.6 answer."""
    tables = read_tables(written(tmp_path, "rates.yaml", rate_text), written(tmp_path, "prices.yaml", PRICES))
    return step(costs_of(table_alone(tables, 36e6, 3.6e6), tables), "clean_laion of a table")


def test_a_step_is_what_a_hand_multiplies(tmp_path):
    found = by_hand(tmp_path)
    assert found.work.amounts["kept row"] == pytest.approx(6e6)  # 3.6 million over 0.6 of links that answer
    # 36e6 / 1000 s are 10 core-hours, 6e6 * 2 ms are 3.333.
    assert found.number("core-hours") == pytest.approx(10 + 10 / 3)
    assert found.number("TB read") == pytest.approx(0.018) and found.number("TB written") == pytest.approx(0.0015)
    assert found.number("GETs") == pytest.approx(108) and found.number("PUTs") == pytest.approx(180)
    assert found.number("LISTs") == pytest.approx(3.6) and found.number("GPU-hours") == 0
    paid = 2 * 40 / 3 + 7 * 0.108 + 11 * 0.18 + 13 * 0.0036 + 17 * 0.018 + (19 + 2 * 23) * 0.0015
    assert found.paid == pytest.approx(paid)


@pytest.mark.parametrize("was, becomes, hours", [
    ("1_000, unit: rows per core-second", "500, unit: rows per core-second", 20 + 10 / 3),
    ("1_000, unit: rows per core-second", "1_000, unit: rows per core-hour", 36_000 + 10 / 3),
    ("1_000, unit: rows per core-second", "1_000, unit: core-microseconds per row", 10 + 10 / 3),
    ("2, unit: core-milliseconds per kept row", "2, unit: core-milliseconds per row", 30),
    ("2, unit: core-milliseconds per kept row", "2, unit: core-seconds per kept row", 10 + 10_000 / 3),
])  # fmt: skip
def test_a_planted_rate_or_unit_changes_the_sum_as_it_should(tmp_path, was, becomes, hours):
    assert was in RATES
    assert by_hand(tmp_path, RATES.replace(was, becomes)).number("core-hours") == pytest.approx(hours)


def test_what_was_never_measured_and_what_is_stretched_are_told(tmp_path):
    shaky = {part.resource: part for part in by_hand(tmp_path).parts if part.shaky}
    assert set(shaky) == {"core-hours", "PUTs"}
    assert "never measured; a guess" in shaky["core-hours"].shaky
    assert shaky["PUTs"].stretched and "measured for 4 files at most" in shaky["PUTs"].shaky  # it is 36
    calm = by_hand(tmp_path, RATES.replace("never, source: a guess", "here").replace("up_to: 4", "up_to: 36"))
    assert not calm.shaky


def test_the_table_marks_what_is_shaky_and_nothing_else(tmp_path, monkeypatch, capsys):
    one = [*SMALL, "--rows", "36e6", "--prices", written(tmp_path, "p.yaml", PRICES)]
    line, calm = (
        next(line for line in run(monkeypatch, capsys, *one, "--rates", written(tmp_path, "r.yaml", text)).splitlines()
             if line.startswith("clean_laion of a table"))
        for text in (RATES, RATES.replace("never, source: a guess", "here").replace(", up_to: 4", ""))
    )  # fmt: skip
    assert line.count("*") == 3 and "*" not in calm  # core-hours, requests, money


@pytest.mark.parametrize("text, said", [
    ("steps:\n  dedup:\n    - {value: 1, unit: rows per fortnight, measured: here}", "r.yaml:3: .*no unit 'rows"),
    ("steps:\n  dedup:\n    - {value: 1, unit: rows per row, measured: here}", "no unit 'rows per row'"),
    ("steps:\n  dedup:\n    - {value: 0, unit: GETs per row, measured: here}", "greater than 0"),
    ("steps:\n  dedup:\n    - {value: .inf, unit: GETs per row, measured: here}", "finite"),
    ("steps:\n  dedup:\n    - {value: '9', unit: GETs per row, measured: here}", "valid number"),
    ("steps:\n  dedup:\n    - {value: true, unit: GETs per row, measured: here}", "valid number"),
    ("steps:\n  dedup:\n    - {value: 1, unit: GETs per row, measured: never}", "has a source"),
    ("steps:\n  dedup:\n    - {value: 1, unit: GETs per row}", "measured: Field required"),
    ("steps:\n  dedup: 5", "r.yaml:2: steps.dedup: .*valid list"),
    ("steps:\n  dedupe:\n    - {value: 1, unit: GETs per row, measured: here}", "did you mean 'dedup'"),
    ("assumed:\n  image bytes: {value: 1, unit: kB per image, measured: here}", "told in bytes per image"),
    ("assumed:\n  kept pairs: {value: 1.2, unit: share, measured: here}", "a share, at most 1"),
    ("assumed:\n  colours: {value: 1, unit: share, measured: here}", "nothing is assumed of 'colours'"),
    ("- a list", "expected a mapping"), ("steps: [", "not valid YAML"),
    ("steps: {}\nsteps: {}", "r.yaml:2: 'steps' is given twice"),
])  # fmt: skip
def test_wrong_rates_are_refused_with_their_line(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        read_tables(written(tmp_path, "r.yaml", text))


@pytest.mark.parametrize("text, said", [
    ("core-hour: -1", "p.yaml:1: core-hour: .*greater than or equal to 0"),
    ("core-hour: cheap", "p.yaml:1: core-hour: .*valid number"),
    ("core-hour: .nan", "finite"), ("core hour: 1", "core hour: Extra inputs"),
    ("\nGPU-hour: {h100: x}", "p.yaml:2: GPU-hour.h100"),
])  # fmt: skip
def test_wrong_prices_are_refused_with_their_line(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        read_tables(prices=written(tmp_path, "p.yaml", text))


def test_a_file_of_the_users_changes_what_it_names_and_nothing_else(tmp_path):
    usual, own = read_tables().prices, read_tables(prices=written(tmp_path, "p.yaml", "GPU-hour: {h100: 9}")).prices
    assert own.of("GPU-hours", "h100") == 9
    assert own.of("GPU-hours", "a100") == usual.of("GPU-hours", "a100") and own.core_hour == usual.core_hour
    with pytest.raises(UserError, match="no file|No such file"):
        read_tables(prices=str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="no price of a GPU-hour of 'b300'"):
        read_tables(gpu="b300")


@pytest.mark.parametrize("words, said", [
    (["--rows", "many"], "--rows many: a number was expected"), (["--rows", "-1"], "a number from 0"),
    (["--rows", "nan"], "a number from 0"), (["--rows", "inf"], "a number from 0"), ([], "give a recipe"),
    (["--rows", "1", "--input", "x.tar"], "give a recipe, or --rows, or --input"),
    (["--input", "x.tar"], "'x.tar' matches no file"), (["--rows", "a=1"], "no dataset 'a'"),
    (["--rows", "1", "--size", "huge"], "no such size"), (["--rows", "1", "--gpus", "0"], "at least 1"),
    (["none.yaml"], "there is no such recipe"), ([DEMO, "--set", "x=1"], "has no setting 'x'"),
    ([DEMO, "--input", "x.tar"], "goes without a recipe"),
])  # fmt: skip
def test_wrong_words_are_refused(monkeypatch, capsys, words, said):
    with pytest.raises(UserError, match=said):
        run(monkeypatch, capsys, *words)


def test_no_rows_cost_nothing_and_a_huge_number_of_them_a_lot(monkeypatch, capsys):
    nothing = json.loads(run(monkeypatch, capsys, *SMALL, "--rows", "0", "--json"))
    assert set(nothing["total"].values()) == {0.0}
    assert "all " in run(monkeypatch, capsys, *SMALL, "--rows", "0")
    small, huge = (
        json.loads(run(monkeypatch, capsys, *SMALL, "--rows", rows, "--json"))["total"] for rows in ("1e9", "1e18")
    )
    assert huge["core-hours"] == pytest.approx(1e9 * small["core-hours"])
    assert " T " in run(monkeypatch, capsys, *SMALL, "--rows", "1e18")


def test_numbers_are_short():
    shown = [short(number) for number in (0, 0.01234, 7, 999.4, 999.6, 1420, 999_600, 1.42e9, 5e12, 1e20)]
    assert shown == ["0", "0.0123", "7", "999", "1.00 k", "1.42 k", "1.00 M", "1.42 B", "5.00 T", "1e+20"]


def test_the_papers_recipe_is_the_papers_data():
    tables = read_tables()
    project = amounts.of_recipe(read(ROOT / "recipes" / "qwen_vl.yaml"), {}, tables.rates)
    of_catalog = [source for source in project.sources if source.told == "the catalog"]
    assert sum(source.rows for source in of_catalog) == pytest.approx(5.04e9, rel=0.01)  # Table 2: 5B, 1.4B
    assert sum(source.kept for source in of_catalog) == pytest.approx(1.42e9, rel=0.01)
    found = costs_of(project, tables)
    names = [(each.work.step, each.work.what) for each in found]
    assert names.index(("clean_laion of a table", "coyo")) < names.index(("fetch_images", "coyo"))
    coyo = {name: each.work.amounts for (name, what), each in zip(names, found, strict=True) if what == "coyo"}
    assert coyo["fetch_images"]["kept row"] == coyo["clean_laion of images"]["row"] == coyo["clip ViT-B-32"]["image"]
    assert coyo["clean_laion of images"]["kept row"] == 200_000_000
    assert ("clip ViT-B-32", "datacomp") not in names  # its owners scored it
    stage_1 = next(each for each in found if (each.work.step, each.work.what) == ("train", "stage 1"))
    assert stage_1.work.amounts["sample"] == 50_000 * 30_720  # Table 8
    total = summed(found)
    told = re.search(r"^\| all \|(.*)\|$", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE)[1].split("|")
    cores, gpus, requests, stored, paid = (float(re.sub("[, *M]", "", cell)) for cell in told)
    asked = sum(total[name] for name in ("GETs", "PUTs", "LISTs"))
    found_now = [total["core-hours"], total["GPU-hours"], asked / 1e6, total["TB written"], total["paid"]]
    assert found_now == pytest.approx([cores, gpus, requests, stored, paid], rel=0.02), "docs/scale.md is out of date"
    assert total["paid"] == pytest.approx(sum(part.paid for each in found for part in each.parts))


def test_gpu_hours_are_those_of_the_estimator():
    from trainer.estimate import GPUS, estimate

    tables = read_tables(gpu="a100")
    training = amounts.Training(1, "tiny", 2, {"steps": 100, "batch": 12, "micro-packs": 2, "peak-lr": 1})
    (found,) = costs_of(amounts.Project([], {}, [training]), tables)
    one = estimate("tiny", 1, 2, GPUS["a100"], steps=100, batch=12, micro_packs=2)
    assert found.number("GPU-hours") == pytest.approx(one.seconds * 100 * 2 / 3600)
    assert found.work.amounts["pack"] == 200 and found.shaky


def test_every_job_of_a_recipe_has_rates():
    known = read_tables().rates.steps
    for job in TITLES.keys() - {"make_demo_crawl"}:
        assert job in known or f"{job} of images" in known, job
    with pytest.raises(UserError, match="no rate is known of 'clip ViT-g-14'.*--rates"):
        read_tables().rates.of("clip ViT-g-14")


def test_rows_and_images_of_files_are_counted(tmp_path, monkeypatch, capsys):
    sizes, rows = [], 0
    for shard in range(10):
        pairs = [make_pair(3, shard * 20 + i, "en") for i in range(20)]
        write_shard(tmp_path, shard, pairs)
        rows += len(keys_in(f"{tmp_path}/{shard:05d}.tar"))
    found = size_of([f"{tmp_path}/*"])
    assert found.files == 10 and found.looked_into < 10
    assert found.rows == pytest.approx(rows, rel=0.25)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert found.bytes == sum(sizes) and 0 < found.image_bytes * found.rows < sum(sizes)
    told = json.loads(run(monkeypatch, capsys, *SMALL, "--input", f"{tmp_path}/*", "--json"))
    assert told["datasets"][0]["rows"] == found.rows and "10 files" in told["datasets"][0]["rows are those of"]
    steps = [each["step"] for each in told["steps"]]
    assert steps[0] == "clean_laion of images" and "fetch_images" not in steps


def test_a_table_of_links_is_fetched_and_a_damaged_one_is_no_bug(tmp_path, monkeypatch, capsys):
    pq.write_table(
        pa.table({"URL": ["http://a.test/b.jpg"] * 1000, "TEXT": ["a caption"] * 1000}), tmp_path / "a.parquet"
    )
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    told = json.loads(run(monkeypatch, capsys, *SMALL, "--input", f"{tmp_path}/*.parquet", "--json"))
    assert told["datasets"][0]["rows"] == pytest.approx(1000, rel=0.05)
    assert "fetch_images" in [each["step"] for each in told["steps"]]
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(UserError, match="no row in the 0 files that could be read"):
        size_of([f"{tmp_path}/*.parquet"])


def test_a_recipe_of_files_that_are_there_is_of_their_rows(tmp_path, monkeypatch, capsys):
    write_shard(tmp_path, 0, [make_pair(3, i, "en") for i in range(30)])
    recipe = f"output: {tmp_path}/out\nraw: {tmp_path}\ndatasets: {{laion-en: {{input: '*.tar'}}, coyo: {{}}}}\n"
    path = written(tmp_path, "r.yaml", recipe)
    words = [path, "--rows", "coyo=100", "--image-bytes", "coyo=5", "--json"]
    here, given = json.loads(run(monkeypatch, capsys, *words))["datasets"]
    rows = len(keys_in(f"{tmp_path}/00000.tar"))
    assert here["rows"] == rows and here["kept"] == pytest.approx(rows * 0.14)  # the catalog's share
    told = json.loads(run(monkeypatch, capsys, path, "--rows", "1000", "--set", "stages.1={}", "--json"))["steps"]
    assert told[-1]["amounts"]["sample"] == pytest.approx(140 + 1000 * 2 / 7)  # not the catalog's 480 million
    assert given["rows"] == 100 and given["rows are those of"] == "--rows" and given["image bytes"] == 5


def test_units_read_both_ways():
    said = {"value": 4.0, "measured": "here"}
    assert Taken(unit="rows per core-second", **said).each == pytest.approx(1 / 4 / 3600)
    assert Taken(unit="core-seconds per row", **said).each == pytest.approx(4 / 3600)
    assert Taken(unit="image bytes per GET", **said).amount == "image byte"
    assert {Taken(unit=f"{rates._plural(one)} per row", **said).resource for one in rates.RESOURCES} == set(
        rates.COUNTED
    )
