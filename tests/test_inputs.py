"""Names of splits come from their inputs: a crawl that grows does only what is new, and no order of names matters."""

import os
import resource
from unittest.mock import patch

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaners import documents as documents_rules
from cleaners.dedup import PROBE_VIEWS
from cleaners.phash import LONG_BYTES, VIEWS
from corpus.damage import Damaged
from corpus.folder import _OURS, OutputFolder
from corpus.inputs import fingerprint, grouped, names
from corpus.splits import Split
from pipelines import clean_laion, clean_text, dedup
from pipelines.engine import job, two_pass
from tests.folders import split_ids
from tests.published import outcomes, run_job, samples
from tests.test_clean_laion import CAPTION, clean, jpeg, shard

PATHS = st.lists(st.text(st.characters(exclude_characters="\x00"), min_size=1, max_size=12), min_size=1, max_size=5)


@given(st.lists(PATHS.map(lambda parts: "/" + "/".join(parts)), unique=True, max_size=12))
def test_names_are_unique_and_safe_as_file_names(urls):
    found = names(urls)
    assert list(found) == urls and len(set(found.values())) == len(urls)
    assert all(_OURS.match(f"{name}-00000.tar") and not name.isdigit() for name in found.values())


def test_a_name_is_its_files_wherever_it_lies_and_whatever_lies_beside_it():
    alone = names(["s3://bucket/crawl/00017.tar"])["s3://bucket/crawl/00017.tar"]
    assert alone.startswith("00017-")
    assert names(["/data/crawl/00001.tar", "/data/crawl/00017.tar"])["/data/crawl/00017.tar"] == alone
    assert names(["/data/crawl2/00017.tar"])["/data/crawl2/00017.tar"] != alone
    same = names(["/a/x/0.tar", "/b/x/0.tar"])
    assert len(set(same.values())) == 2


def test_names_stay_short_from_job_to_job():
    name = names(["/crawl/Part 00003.parquet"]).popitem()[1]
    assert name.startswith("part-00003-")
    for _ in range(3):
        name = names([f"/cleaned/{name}-00012.urls.parquet"]).popitem()[1]
    assert name.startswith("part-00003-00012") and len(name) < 60


def test_planning_reads_no_data(tmp_path):
    path = tmp_path / "big.tar"
    path.write_bytes(b"x" * 1000)
    with patch("fsspec.implementations.local.LocalFileSystem.open", side_effect=AssertionError("read")):
        before = fingerprint(str(path))
        os.utime(path, ns=(1, 1))
        assert fingerprint(str(path)) != before and before["size"] == 1000
    by_content = fingerprint(str(path), by_content=True)
    os.utime(path, ns=(5, 5))
    assert fingerprint(str(path), by_content=True) == by_content
    path.write_bytes(b"y" * 1000)
    assert fingerprint(str(path), by_content=True) != by_content


def test_an_object_stores_own_mark_is_taken_and_a_silent_server_is_read():
    fs = fsspec.filesystem("memory")
    fs.pipe("/silent.tar", b"abc")
    for info, expected in (
        ({"size": 3, "ETag": '"e1"', "LastModified": "now"}, {"size": 3, "etag": '"e1"'}),
        ({"size": 3}, {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}),
    ):
        with patch.object(type(fs), "info", lambda *_, info=info, **__: info | {"name": "/silent.tar", "type": "file"}):
            assert fingerprint("memory://silent.tar") == expected


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=400), st.integers(0, 10_000))
def test_one_file_more_changes_few_groups(files, new):
    def cut(numbers):
        return list(grouped([f"/c/{n:05d}.pdf" for n in sorted(numbers)], 8))

    before, after = cut(files), cut(files | {new})
    assert [url for group in after for url in group] == [f"/c/{n:05d}.pdf" for n in sorted(files | {new})]
    assert max(map(len, after)) <= 32
    assert len([group for group in after if group not in before]) <= 2 + len(files) // 32


def watched(monkeypatch):
    """The splits that clean_laion works on, as it does."""
    done, real = [], clean_laion.clean_split

    def clean_split(split, *more, **options):
        done.append(split.source["url"].rpartition("/")[2])
        return real(split, *more, **options)

    monkeypatch.setattr(clean_laion, "clean_split", clean_split)
    return done


def test_a_grown_crawl_does_only_the_new_file_and_ends_as_if_it_had_always_been_there(tmp_path, monkeypatch):
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for name in ("b", "c"):
        shard(crawl / f"{name}.tar", [(jpeg(), CAPTION, {})])
    done = watched(monkeypatch)
    clean(tmp_path, crawl / "*.tar")
    shard(crawl / "a.tar", [(jpeg(), CAPTION, {}), (jpeg(), CAPTION, {})])  # sorts before all that is there
    rows, _ = clean(tmp_path, crawl / "*.tar")
    assert done == ["b.tar", "c.tar", "a.tar"] and len(rows) == 4
    clean(tmp_path, crawl / "*.tar", output="fresh")
    for split in split_ids(tmp_path / "fresh"):
        for suffix in ("tar", "idx", "parquet"):
            name = f"{split}.{suffix}"
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_second_folder_of_the_crawl_changes_nothing_of_the_first(tmp_path, monkeypatch):
    for month in ("2021-01", "2021-02"):
        (tmp_path / month).mkdir()
        shard(tmp_path / month / "00000.tar", [(jpeg(), CAPTION, {})])
    done = watched(monkeypatch)
    clean(tmp_path, tmp_path / "2021-01/*.tar")
    rows, _ = clean(tmp_path, tmp_path / "2021-*/*.tar")
    assert len(done) == 2 and len({row["key"] for row in rows}) == 2


def test_splits_of_a_file_that_is_cut_otherwise_now_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(clean_text, "ROWS_PER_SPLIT", 2)
    path = tmp_path / "a.txt"
    flags = ["--min-characters", "1", "--duplicates", "keep", "--input", path, "--output", tmp_path / "out"]
    path.write_text("one\ntwo\nthree\nfour\nfive\n")
    run_job(clean_text, *flags)
    assert len(split_ids(tmp_path / "out")) == 3
    path.write_text("six\n")
    run_job(clean_text, *flags)
    assert [sample.text for sample in samples(tmp_path / "out").values()] == ["six"]
    assert len(list((tmp_path / "out").glob("a-*"))) == 4


def test_a_folder_of_numbered_splits_is_read_but_not_continued(tmp_path):
    """As folders were before splits were named after their inputs."""
    shard(tmp_path / "a.tar", [(jpeg(), CAPTION, {})])
    with patch.object(clean_laion, "names", lambda urls: {url: f"{i:05d}" for i, url in enumerate(urls)}):
        clean(tmp_path, tmp_path / "a.tar")
    assert split_ids(tmp_path / "out") == ["00000"]
    with pytest.raises(job.UserError, match="read and trained on as it is, but not continued"):
        clean(tmp_path, tmp_path / "a.tar")
    run_job(
        dedup,
        "--each-other",
        "--input",
        tmp_path / "out/*.tar",
        "--output",
        tmp_path / "apart",
    )
    assert outcomes(tmp_path / "apart") == {"kept": 1}
    clean(tmp_path, tmp_path / "a.tar", "--overwrite")
    assert "00000" not in split_ids(tmp_path / "out")


# --- Decisions of two-pass jobs ---


def test_decisions_find_their_splits_whatever_the_order(tmp_path):
    folder = OutputFolder(str(tmp_path))
    splits = [Split(name, {}) for name in ("10001", "100000", "9", "a")]
    decisions = [(name, np.array([i])) for i, name in enumerate(["a", "9", "100000", "10001"])]
    second = two_pass.decided(folder, splits, iter(decisions))
    assert [split.id for split in second] == [split.id for split in splits]
    assert [two_pass.decision_of(split, folder.url).tolist() for split in second] == [[3], [2], [1], [0]]
    with pytest.raises(AssertionError, match="1 splits were not decided on, such as 9"):
        two_pass.decided(folder, splits, [d for d in decisions if d[0] != "9"])


@pytest.fixture
def few_files():
    """As under `ulimit -n 256`."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def documents(texts: list[str]) -> pa.Table:
    keys = [documents_rules.exact_key(text) for text in texts]
    signatures = [documents_rules.signature(text).tobytes() for text in texts]
    rows = pa.array(range(5, 5 + len(texts)), pa.int64())
    return pa.table([pa.array(texts), rows, keys, signatures], schema=clean_text._FIRST_PASS)


def photos(seeds: list[int]) -> pa.Table:
    probes = [np.full(len(PROBE_VIEWS), seed, np.uint64).tobytes() for seed in seeds]
    long = [np.random.default_rng(seed).bytes(VIEWS * LONG_BYTES) for seed in seeds]
    rows, single = pa.array(range(5, 5 + len(seeds)), pa.int64()), pa.array([True] * len(seeds))
    return pa.table([pa.array(map(str, seeds)), rows, seeds, single, probes, long], schema=dedup._FIRST_PASS)


@pytest.mark.parametrize("decide, table, value", [
    (clean_text._decide, documents, "document number {} of a long list".format),
    (dedup._decide, photos, lambda number: number),
])  # fmt: skip
def test_reductions_over_many_splits_need_few_files_and_decide_rightly(
    tmp_path, monkeypatch, few_files, decide, table, value
):
    """In pairs of splits the second repeats the first's only row; string order and list order of the ids differ."""
    folder = OutputFolder(str(tmp_path))
    monkeypatch.setattr(two_pass, "_table", lambda _, split: pq.read_table(tmp_path / f"{split}.urls.parquet"))
    ids = [str(n) for n in range(400)]
    for n, split in enumerate(ids):
        pq.write_table(table([value(n // 2)]), tmp_path / f"{split}.urls.parquet")
    found = dict(decide(folder, [Split(split, {"url": f"{split}.tar"}) for split in ids]))
    for n, split in enumerate(ids):
        gone = [(d["row"], d["of_split"], d["of_row"]) for d in found[split]]
        assert gone == ([(5, ids[n - 1], 5)] if n % 2 else [])


def test_a_decision_that_is_not_the_one_that_was_made_is_refused(tmp_path):
    folder = OutputFolder(str(tmp_path))
    (split,) = two_pass.decided(folder, [Split("a", {}, {})], [("a", np.arange(3))])
    assert two_pass.decision_of(split, folder.url).tolist() == [0, 1, 2]
    two_pass.decided(folder, [Split("a", {}, {})], [("a", np.arange(4))])
    with pytest.raises(Damaged, match=r"a.npy was altered while the job ran"):
        two_pass.decision_of(split, folder.url)
