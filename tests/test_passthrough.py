"""A user's own columns: from every kind of input into samples and ledgers, told where they cannot be, or not at all."""

# ruff: noqa: E501 - a case stands on a line
import importlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.catalog import CatalogError, load_catalog
from corpus.folder import OutputFolder
from corpus.passthrough import LONGEST, NoSuchColumn, Passthrough
from corpus.records import Sample, to_members
from corpus.shards import ShardWriter
from pipelines import clean_laion, fetch_images, retune
from pipelines.engine import job
from pipelines.proof.bad_server import BadServer
from pipelines.work.datasets import JOBS
from tests.published import grit, jpeg, put_images, put_json, run_job, samples

OWN = {"terms": "CC-BY-4.0", "by": "N. N.", "nsfw": 0.25, "likes": 3, "seen": True}
SPELT = {"terms": "CC-BY-4.0", "by": "N. N.", "nsfw": "0.25", "likes": "3", "seen": "true"}
NO_CLIP = ["--rule", "clip_score=off"]
LONG = "A long enough description of the picture in the middle"


def catalog(folder: Path, like: str, **entry) -> Path:
    entry = {"passthrough": list(OWN), **entry}
    (folder / "mine.yaml").write_text(json.dumps({"extends": "default", like: entry}))
    return folder / "mine.yaml"


def rows_of(output) -> list[dict]:
    manifests = OutputFolder(str(output)).manifests()
    return [row for split in manifests for row in pq.read_table(f"{output}/{split}.parquet").to_pylist()]


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def lines(path: Path, *records) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def shard(path: Path, *records, **more) -> Path:
    with open(path, "wb") as file:
        writer = ShardWriter(file)
        for i, record in enumerate(records):
            writer.write(f"{i:09d}", [("jpg", jpeg(i)), ("json", json.dumps(record).encode())])
        writer.close()
    return path


def own(**changes) -> dict:
    return OWN | changes


def columns(**given) -> dict:
    return {name: [value] for name, value in {**given, **OWN}.items()}


INPUTS = {
    "pairs in a shard": ("clean_laion", "laion-en", lambda at: shard(at / "0.tar", own(caption=LONG))),
    "pairs in a parquet": ("clean_laion", "laion-en", lambda at: parquet(at / "0.parquet", **columns(TEXT=LONG, image=jpeg(1)))),
    "links in a parquet": ("clean_laion", "laion-en", lambda at: parquet(at / "0.parquet", **columns(TEXT=LONG, URL="http://x"))),
    "captions in a parquet": ("clean_captions", "in-house", lambda at: parquet(at / "0.parquet", **columns(text=LONG, image=jpeg(1)))),
    "captions in lines": ("clean_captions", "in-house", lambda at: lines(at / "0.jsonl", own(text=LONG, image="a.jpg"))),
    "captions in a shard": ("clean_captions", "in-house", lambda at: shard(at / "0.tar", own(text=LONG))),
    "captions of COCO": ("clean_captions", "coco-caption", lambda at: put_json(at / "a.json", {
        "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [own(id=1, image_id=1, caption=LONG)]})),
    "dialogues": ("clean_chat", "chat-sft", lambda at: put_json(at / "a.json", [
        own(image="a.jpg", conversations=[{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}])])),
    "questions": ("clean_vqa", "gqa", lambda at: put_json(at / "a.json", {
        "7": own(question="Who?", answer="I", imageId="a")})),
    "boxes": ("clean_grounding", "refcoco", lambda at: put_json(at / "train.json", {
        "images": [own(id=1, file_name="a.jpg", caption="a man", original_id=5)],
        "annotations": [{"image_id": 1, "id": 1, "bbox": [1, 2, 100, 90]}]})),
    "text": ("clean_text", "in-house-text", lambda at: lines(at / "0.jsonl", own(text=" ".join([LONG] * 9)))),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_columns_go_from_every_input_into_samples_and_ledgers(tmp_path, name):
    module, dataset, make = INPUTS[name]
    path = make(tmp_path)
    flags = ["--dataset", dataset, "--catalog", catalog(tmp_path, dataset), *NO_CLIP[: 2 * (module == "clean_laion")]]
    if module not in ("clean_laion", "clean_text"):
        flags += ["--images", put_images(tmp_path / "images", ["a.jpg"])]
    run_job(importlib.import_module(f"pipelines.{module}"), *flags, "--input", path, "--output", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["outcome"] == "kept", row
    assert row["passthrough"] == SPELT and row["detail"] is None
    if name == "links in a parquet":
        (kept,) = pq.read_table(next((tmp_path / "out").glob("*.urls.parquet"))).to_pylist()
        assert OWN.items() <= kept.items()
    else:
        (sample,) = samples(tmp_path / "out").values()
        assert sample.source["passthrough"] == OWN


def test_columns_of_grit_come_along(tmp_path):
    table = pq.read_table(grit(tmp_path / "g.parquet", 3))
    pq.write_table(table.append_column("by", pa.array(["a", "b", None])), tmp_path / "g.parquet")
    mine, out = catalog(tmp_path, "grit", passthrough=["by", "width"]), tmp_path / "out"
    images = put_images(tmp_path / "images", [f"{i:09d}.jpg" for i in range(3)])
    from pipelines import clean_grounding

    flags = ["--dataset", "grit", "--catalog", mine, "--images", images, "--input", tmp_path / "g.parquet"]
    run_job(clean_grounding, *flags, "--output", out)
    assert [sample.source["passthrough"] for sample in samples(out).values()] == [
        {"by": by, "width": 1000} for by in ("a", "b", None)
    ]


def test_columns_come_through_a_download_to_the_cleaned_pairs(tmp_path, monkeypatch):
    with BadServer() as server:
        urls = [server.url("/ok/1"), server.url("/absent"), server.url("/ok/2")]
        table = {"URL": urls, "TEXT": [LONG] * 3, "by": ["a", "b", ["c"][0]], "likes": [1, 2, 3]}
        parquet(tmp_path / "list.parquet", **table)
        mine = catalog(
            tmp_path, "laion-en", passthrough=["by", "likes"], rules={"clip_score": None, "image_size": None}
        )
        flags = ["--dataset", "laion-en", "--catalog", mine]
        run_job(clean_laion, *flags, "--input", tmp_path / "list.parquet", "--output", tmp_path / "urls")
        fetch = [*flags, "--input", tmp_path / "urls/*.urls.parquet", "--output", tmp_path / "raw", "--allow-private",
                 "--retries", "0"]  # fmt: skip
        run_job(fetch_images, *fetch)
        before = rows_of(tmp_path / "raw")
        run_job(fetch_images, *fetch, "--retry-failed")
    assert [row["passthrough"] for row in before] == [{"by": by, "likes": str(i)} for i, by in enumerate("abc", 1)]
    assert rows_of(tmp_path / "raw") == before
    run_job(clean_laion, *flags, "--input", tmp_path / "raw/*.tar", "--output", tmp_path / "out")
    kept = [sample.source["passthrough"] for sample in samples(tmp_path / "out").values()]
    assert kept == [{"by": "a", "likes": 1}, {"by": "c", "likes": 3}]


def test_values_that_nothing_can_hold_are_null_and_told(tmp_path):
    odd = [{"terms": {"a": 1}, "by": "x" * (LONGEST + 1)}, {"terms": [1], "by": "\ud800\0"}, {"terms": 2**70, "by": None},
           {"terms": True, "by": 1e400}]  # fmt: skip
    source = shard(tmp_path / "0.tar", *({"caption": LONG} | each for each in odd), {"caption": "x", "terms": ["y"]})
    mine, out = catalog(tmp_path, "laion-en", passthrough=["terms", "by"], rules={"clip_score": None}), tmp_path / "out"
    run_job(clean_laion, "--dataset", "laion-en", "--catalog", mine, "--input", source, "--output", out)
    rows = rows_of(out)
    assert [row["passthrough"] for row in rows] == [
        {"terms": None, "by": None}, {"terms": None, "by": "\ufffd\ufffd"}, {"terms": str(2**70), "by": None},
        {"terms": "true", "by": None}, {"terms": None, "by": None},
    ]  # fmt: skip
    assert [row["detail"] for row in rows[:3]] == [
        "passthrough: terms is an object, by has 1,001 characters, more than 1,000", "passthrough: terms is a list", None
    ]  # fmt: skip
    assert rows[4]["outcome"] == "dropped" and rows[4]["detail"].endswith("passthrough: terms is a list")
    assert [each.source["passthrough"]["by"] for each in samples(out).values()] == [None, "\ufffd\ufffd", None, None]


def test_parquet_values_of_other_types_become_texts_or_are_told(tmp_path):
    import datetime

    table = {"TEXT": [LONG], "image": [jpeg(1)], "day": [datetime.date(2020, 1, 2)], "raw": [b"\xff"], "it": [["a"]]}
    mine = catalog(tmp_path, "laion-en", passthrough=["day", "raw", "it"], rules={"clip_score": None})
    flags = ["--dataset", "laion-en", "--catalog", mine, "--input", parquet(tmp_path / "0.parquet", **table)]
    run_job(clean_laion, *flags, "--output", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["passthrough"] == {"day": "2020-01-02", "raw": None, "it": None}
    assert row["detail"] == "passthrough: raw is bytes, it is a list"


@pytest.mark.parametrize("name", INPUTS)
def test_a_column_that_no_record_has_stops_the_job_before_anything_is_committed(tmp_path, name):
    module, dataset, make = INPUTS[name]
    path, mine = make(tmp_path), catalog(tmp_path, dataset, passthrough=["terms", "termz"])
    flags = ["--dataset", dataset, "--catalog", mine, "--input", path, "--output", tmp_path / "out"]
    if module not in ("clean_laion", "clean_text"):
        flags += ["--images", put_images(tmp_path / "images", ["a.jpg"])]
    with pytest.raises(
        job.UserError,
        match="none of 1 records has termz, which `passthrough` names .did you mean .terms.*; columns are .*terms",
    ):
        run_job(importlib.import_module(f"pipelines.{module}"), *flags)
    assert not list(OutputFolder(str(tmp_path / "out")).manifests())


def test_lines_of_text_have_no_columns(tmp_path):
    (tmp_path / "a.txt").write_text(" ".join([LONG] * 9))
    from pipelines import clean_text

    flags = ["--catalog", catalog(tmp_path, "in-house-text"), "--input", tmp_path / "a.txt"]
    with pytest.raises(job.UserError, match="columns are none"):
        run_job(clean_text, "--dataset", "in-house-text", *flags, "--output", tmp_path / "out")


def test_whoever_passes_nothing_through_gets_the_bytes_of_before(tmp_path):
    """Neither the ledger nor the sample nor the settings know of it."""
    path = shard(tmp_path / "0.tar", own(caption=LONG))
    run_job(
        clean_laion, "--dataset", "laion-en", "--rule", "clip_score=off", "--input", path, "--output", tmp_path / "out"
    )
    assert "passthrough" not in pq.read_table(next((tmp_path / "out").glob("*.parquet"))).column_names
    assert "passthrough" not in (tmp_path / "out" / "job.json").read_text()
    (sample,) = samples(tmp_path / "out").values()
    assert list(sample.source) == ["key", "row"]


def test_retune_keeps_them(tmp_path):
    path = shard(tmp_path / "0.tar", own(caption=LONG), own(caption=f"{LONG} of all that was to be seen there"))
    mine = catalog(tmp_path, "laion-en", rules={"clip_score": None})
    flags = ["--dataset", "laion-en", "--catalog", mine]
    run_job(clean_laion, *flags, "--input", path, "--output", tmp_path / "out")
    for change, kept in (("text_length.max_words=12", 1), ("text_length.min_words=2", 2)):
        run_job(retune, tmp_path / "out", "--set", change, "--output", tmp_path / change, "--catalog", mine)
        rows = rows_of(tmp_path / change)
        assert [row["passthrough"] for row in rows] == [SPELT] * 2
        assert [s.source["passthrough"] for s in samples(tmp_path / change).values()] == [OWN] * kept


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "source", "é"]), values))
def test_any_value_can_be_written_and_read_again(record):
    passed = Passthrough(["a", "é"])
    passed.take(0, record)
    row = passed.of_row(0)
    pa.Table.from_pylist([row], schema=pa.schema({"passthrough": pa.struct({"a": pa.string(), "é": pa.string()})}))
    sample = Sample(key="a/b/c", dataset="a", task="text", language="en", source=passed.of_sample(0))
    found = json.loads(dict(to_members(sample))["json"])["source"]["passthrough"]
    assert found == passed.of_sample(0)["passthrough"] and list(found) == ["a", "é"]
    again = Passthrough(["a", "é"])
    again.take(0, {"key": "k", "a": "not mine", "source": {"passthrough": found}})
    assert again.of_sample(0) == passed.of_sample(0)


def test_a_column_that_some_records_lack_is_null_there():
    passed = Passthrough(["a", "b"])
    passed.take(0, {"a": 1})
    with pytest.raises(NoSuchColumn, match="none of 1 records has b, which"):
        passed.check()
    passed.take(1, {"b": None})
    passed.check()
    assert passed.of_row(0)["passthrough"] == {"a": "1", "b": None}
    Passthrough(["a"]).check()


@pytest.mark.parametrize(
    "dataset, given, said",
    [
        ("in-house", "passthrough: terms", "mine.yaml:2: in-house: passthrough must be a list, not 'terms'"),
        ("in-house", "passthrough: [a, b, a]", "mine.yaml:2: in-house: passthrough names 'a' twice"),
        ("in-house", "passthrough: ['']", "mine.yaml:2: in-house: passthrough names '', which no column is"),
        (
            "common-crawl-pdf",
            "passthrough: [a]",
            "mine.yaml:2: common-crawl-pdf: render_pdf reads no rows with columns",
        ),
    ],
)
def test_a_catalog_that_passes_through_what_cannot_be_is_told_so(tmp_path, dataset, given, said):
    (tmp_path / "mine.yaml").write_text(f"extends: default\n{dataset}: {{{given}}}\n")
    with pytest.raises(CatalogError) as wrong:
        load_catalog(tmp_path / "mine.yaml", JOBS)
    assert str(wrong.value).startswith(f"{tmp_path}/{said}")
