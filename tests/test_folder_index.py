"""Index files: a folder of many splits is resumed and reported from a listing and them, and they never lie."""

import json
import os
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest

from corpus import folder_index
from corpus.folder import SEAL, Manifest, OutputFolder
from corpus.folder_index import entries
from corpus.ledger import Counts
from pipelines.engine.report import summarise
from tests.test_job import contents, run
from tests.test_quarantine import clean_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "BATCH", 2)
    (tmp_path / "in").mkdir()
    for i in range(5):
        (tmp_path / "in" / f"{i}.txt").write_text("k one\nd two\n" * (i + 1) + "?\n")
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """The manifests that are read."""
    read, real = [], OutputFolder.manifest

    def manifest(self, split):
        read.append(split)
        return real(self, split)

    monkeypatch.setattr(OutputFolder, "manifest", manifest)
    return read


def known(out: OutputFolder) -> dict[str, tuple]:
    return {entry.split: (json.loads(entry.counts), json.loads(entry.input)) for entry in entries(out, out.listing())}


def told(out: OutputFolder) -> dict[str, tuple]:
    """The same from the manifests alone."""
    manifests = [Manifest.from_json(out.read(f"{split}.json"), split) for split in out.splits()]
    return {each.split: (asdict(each.counts), each.input) for each in manifests}


def index_of(folder) -> list[str]:
    return sorted(path.name for path in (folder / "out" / ".index").glob("*"))


def test_what_is_indexed_is_not_read_again(folder, reads):
    counts = run(folder)
    assert len(index_of(folder)) == 1 and len(reads) == 5 + 5  # for the index; of the ledgers shown in the report
    reads.clear()
    assert run(folder, work=None) == counts
    assert len(reads) == 5
    out = OutputFolder(f"{folder}/out")
    reads.clear()
    assert known(out) == told(out) and not reads
    assert summarise(out).counts == counts == sum((m.counts for m in out.manifests().values()), Counts())


def test_a_split_that_was_done_again_is_read_and_one_that_is_gone_is_not_told(folder):
    run(folder)
    (folder / "in" / "3.txt").write_text("k\nk\nk\nd\nd\n")
    assert run(folder).rows == (3 + 5 + 7 + 11) + 5
    out = OutputFolder(f"{folder}/out")
    assert known(out) == told(out) and len(index_of(folder)) == 1  # one is too few for a new file
    out.withdraw(out.splits()[0])
    assert known(out) == told(out) and len(known(out)) == 4


def test_a_manifest_written_anew_with_the_same_size_is_another(folder):
    run(folder)
    out = OutputFolder(f"{folder}/out")
    path = folder / "out" / f"{out.splits()[0]}.json"
    record = json.loads(path.read_bytes())
    record["counts"] |= {"kept": record["counts"]["kept"] + 1, "dropped": {"starts_with_d": 0}}
    del record[SEAL]
    changed = json.dumps(record, sort_keys=True, indent=1).encode()
    before = path.stat()
    path.write_bytes(changed + b" " * (before.st_size - len(changed)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert known(out) == told(out)


def test_an_index_file_that_was_altered_is_not_believed(folder, reads):
    run(folder)
    out = OutputFolder(f"{folder}/out")
    (name,) = index_of(folder)
    path = folder / "out" / ".index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    for spoilt in (bytes(data), b"", bytes(data[:50])):
        path.write_bytes(spoilt)
        reads.clear()
        assert known(out) == told(out) and len(reads) == 5
    assert path.read_bytes() != spoilt and known(out) == told(out)  # made anew


def test_many_index_files_are_joined(folder, monkeypatch, reads):
    monkeypatch.setattr(folder_index, "BATCH", 1)
    monkeypatch.setattr(folder_index, "MOST_FILES", 3)
    out, most = OutputFolder(f"{folder}/out"), 0
    for i in range(5, 15):
        (folder / "in" / f"{i}.txt").write_text("k\n")
        run(folder)
        most = max(most, len(index_of(folder)))
    reads.clear()
    assert known(out) == told(out) and not reads and most == 3 and len(known(out)) == 15


def test_folders_from_before_the_index_are_read_and_their_seals_hold(folder):
    def cleaned(split, sink):
        real = sink._ledger.add
        sink._ledger.add = lambda row: real(dict(row) | {"text_after": "x"} if row["outcome"] == "kept" else row)
        clean_lines(split, sink)

    run(folder, work=cleaned)
    out = OutputFolder(f"{folder}/out")
    assert summarise(out).changed == 15
    for split in out.splits():
        record = json.loads(out.read(f"{split}.json"))
        assert record.pop("changed") > 0
        old = Manifest(**{k: v for k, v in record.items() if k != SEAL} | {"counts": Counts(**record["counts"])})
        out.write(f"{split}.json", json.dumps(record | {SEAL: old.seal()}).encode())
    assert "changed" not in json.loads(out.read(f"{split}.json")) and summarise(out).changed == 15


def test_overwriting_removes_the_index(folder):
    run(folder)
    before = index_of(folder)
    run(folder, "--overwrite", "--limit", "1")
    assert index_of(folder) != before and len(index_of(folder)) == 1


def test_few_splits_have_no_index_and_bytes_do_not_tell_whether_there_is_one(folder, monkeypatch):
    run(folder)
    (folder / "out" / ".index").rename(folder / "elsewhere")
    indexed = contents(folder / "out")
    monkeypatch.setattr(folder_index, "BATCH", 1000)
    run(folder, "--overwrite")
    assert contents(folder / "out") == indexed and not (folder / "out" / ".index").exists()


def test_two_index_files_that_tell_of_one_split_count_it_once(folder):
    run(folder)
    out, (name,) = OutputFolder(f"{folder}/out"), index_of(folder)
    table = pq.read_table(folder / "out" / ".index" / name)
    folder_index._write(out, table.slice(1, 3))
    assert len(index_of(folder)) == 2
    assert sorted(entry.split for entry in entries(out, out.listing())) == out.splits()
