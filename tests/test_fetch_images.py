"""The downloader as a job: every URL in its ledger row, order, retries of what failed, kills, memory of a split."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.folder import OutputFolder
from corpus.readers.urls import UrlRow, plan_urls, read_urls
from corpus.records import from_members, image_header
from corpus.shards import IndexedShard
from pipelines import fetch_images
from pipelines.fetch.ordered import Spool, in_order
from pipelines.proof.bad_server import BadServer, jpeg
from tests.folders import ledger, of_split, split_ids
from tests.test_shards import flip

ROOT = Path(__file__).resolve().parent.parent
# What each URL of the bad server must be in the ledger: outcome, rule.
EXPECTED = {
    "/ok/1": ("kept", None), "/hop": ("kept", None), "/gzip": ("kept", None), "/other": ("kept", None),
    "/loop": ("error", "too_many_redirects"), "/to/http://169.254.169.254/": ("error", "forbidden_address"),
    "/drip": ("error", "timeout"), "/endless": ("error", "too_large"), "/bomb": ("error", "too_large"),
    "/short": ("error", "short_body"), "/reset": ("error", "connection_lost"), "/html": ("error", "not_an_image"),
    "/empty": ("error", "not_an_image"), "/cut": ("error", "truncated_image"), "/busy": ("error", "http_429"),
    "/down": ("error", "http_503"), "/garbage": ("error", "bad_response"), "/absent": ("error", "http_404"),
    "/noai": ("dropped", "x_robots_tag"), "/noindex": ("dropped", "x_robots_tag"),
}  # fmt: skip


@pytest.fixture
def server():
    with BadServer() as server:
        yield server


def url_list(path: Path, urls, **columns) -> Path:
    table = {"URL": urls, "TEXT": [f"caption {i}" for i in range(len(urls))], **columns}
    pq.write_table(pa.table(table), path)
    return path


def run(monkeypatch, source, output, *flags):
    """The job in this process, through its own command line."""
    arguments = ["--dataset", "laion-en", "--input", str(source), "--output", str(output), "--workers", "0",
                 "--allow-private", "--timeout", "1", "--retries", "1", "--max-bytes", "1000000", *flags]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["fetch_images.py", *arguments])
    fetch_images.main()
    return ledger(output)


def contents(output) -> dict[str, bytes]:
    """All files of a folder, a manifest without its timing."""
    files = {path.name: path.read_bytes() for path in sorted(Path(output).iterdir()) if path.name[0] != "."}
    for name in [f"{split}.json" for split in split_ids(output)]:
        files[name] = json.dumps(json.loads(files[name]) | {"seconds": 0}).encode()
    return {name: data for name, data in files.items() if not name.startswith("report")}


def test_every_url_gets_its_row_with_the_right_reason(tmp_path, monkeypatch, server):
    urls = [server.url(path) for path in EXPECTED] + ["", "ftp://a/b.jpg", "http://[bad", "http://169.254.1.1/x.jpg"]
    rows = run(monkeypatch, url_list(tmp_path / "in.parquet", urls), tmp_path / "out")
    wanted = [*EXPECTED.values(), ("error", "no_url"), ("error", "bad_url"), ("error", "bad_url"),
              ("error", "forbidden_address")]  # fmt: skip
    assert [(row["outcome"], row["rule"]) for row in rows] == wanted
    assert [row["row"] for row in rows] == list(range(len(urls)))
    assert all(row["detail"] for row in rows if row["outcome"] != "kept" and row["rule"][:5] != "http_")


def test_samples_hold_the_original_bytes_and_where_they_came_from(tmp_path, monkeypatch, server):
    source = url_list(tmp_path / "in.parquet", [server.url("/ok/3"), server.url("/hop")], similarity=[0.31, 0.29])
    rows = run(monkeypatch, source, tmp_path / "out")
    shard = IndexedShard(str(of_split(tmp_path / "out", "tar")))
    first, second = (from_members(shard[i][1]) for i in range(2))
    assert first.images[0].data == jpeg(3) and first.text == "caption 0" and first.scores == {"clip": 0.31}
    assert (first.width, first.height) == (64, 64) and first.key == f"laion-en/{split_ids(tmp_path / 'out')[0]}/000000"
    assert second.source["final_url"] == server.url("/ok/7") and second.source["sha256"] == rows[1]["sha256"]
    assert rows[0]["bytes"] == len(jpeg(3)) and rows[0]["url"] == server.url("/ok/3")


def test_keys_of_the_metadata_run_lead_back_to_it(tmp_path, monkeypatch, server):
    keys = ["laion-en/00007/000123", "laion-en/00007/000125"]
    source = url_list(tmp_path / "in.parquet", [server.url("/ok/1"), server.url("/absent")], sample_key=keys)
    rows = run(monkeypatch, source, tmp_path / "out")
    assert [row["source_key"] for row in rows] == keys
    ours = [f"laion-en/{split_ids(tmp_path / 'out')[0]}/{i:06d}" for i in range(2)]
    assert [row["key"] for row in rows] == ours
    kept = from_members(IndexedShard(str(of_split(tmp_path / "out", "tar")))[0][1])
    assert (kept.key, kept.source["sample_key"]) == (ours[0], keys[0])


def test_strange_keys_and_strange_bytes_in_answers_stop_nothing(tmp_path, monkeypatch, server):
    keys = ["../../etc/passwd", "laion-en/0/1.jpg", "", None]
    urls = [server.url(path) for path in ("/ok/1", "/weird", "/bytes", "/ok/2")]
    rows = run(monkeypatch, url_list(tmp_path / "in.parquet", urls, sample_key=keys), tmp_path / "out")
    assert [row["key"] for row in rows] == [f"laion-en/{split_ids(tmp_path / 'out')[0]}/{i:06d}" for i in range(4)]
    assert [row["source_key"] for row in rows] == [*keys[:2], None, None]
    assert [row["outcome"] for row in rows] == ["kept", "error", "error", "kept"]


def test_order_is_that_of_the_input_whatever_answers_first(tmp_path, monkeypatch, server):
    urls = [server.url(f"/slow/{i}" if i % 3 == 0 else f"/ok/{i}") for i in range(60)]
    run(monkeypatch, url_list(tmp_path / "in.parquet", urls), tmp_path / "out")
    shard = IndexedShard(str(of_split(tmp_path / "out", "tar")))
    assert [from_members(shard[i][1]).source["row"] for i in range(len(shard))] == list(range(60))


def test_retry_failed_asks_for_the_failed_alone_and_ends_as_if_they_had_worked(tmp_path, monkeypatch, server):
    urls = [server.url(path) for path in ("/ok/1", "/ok/2", "/noai", "/absent", "/ok/3", "/ok/4")]
    source = url_list(tmp_path / "in.parquet", urls)
    server.failures_left["/ok/2"] = server.failures_left["/ok/4"] = 2
    rows = run(monkeypatch, source, tmp_path / "out")
    assert [row["rule"] for row in rows] == [None, "http_503", "x_robots_tag", "http_404", None, "http_503"]
    server.requests.clear()
    rows = run(monkeypatch, source, tmp_path / "out", "--retry-failed")
    assert [row["rule"] for row in rows] == [None, None, "x_robots_tag", "http_404", None, None]
    assert set(server.requests) == {"/ok/2", "/ok/4", "/absent"}
    run(monkeypatch, source, tmp_path / "at_once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at_once")
    server.requests.clear()
    run(monkeypatch, source, tmp_path / "out")
    assert not server.requests  # committed splits stay as they are without --retry-failed


def test_retry_failed_fetches_what_rotted_again(tmp_path, monkeypatch, server):
    source = url_list(tmp_path / "in.parquet", [server.url(path) for path in ("/ok/1", "/absent", "/ok/2")])
    run(monkeypatch, source, tmp_path / "out")
    whole = contents(tmp_path / "out")
    flip(of_split(tmp_path / "out", "tar"), 9000)
    server.requests.clear()
    run(monkeypatch, source, tmp_path / "out", "--retry-failed")
    assert set(server.requests) == {"/ok/1", "/absent"} and contents(tmp_path / "out") == whole


def test_a_dead_host_is_given_up_after_twenty_rows(tmp_path, monkeypatch, server):
    urls = [server.url("/reset")] * 60 + [server.url("/ok/1")]
    rows = run(monkeypatch, url_list(tmp_path / "in.parquet", urls), tmp_path / "out", "--connections", "2")
    rules = [row["rule"] for row in rows]
    assert rules[:20] == ["connection_lost"] * 20 and set(rules[20:60]) == {"host_unavailable"}
    assert server.requests["/reset"] <= 4 * 30  # two attempts each, and the client's own on a reused connection


def test_without_a_network_the_job_stops_instead_of_recording_failures(tmp_path, monkeypatch):
    urls = [f"http://127.0.{i}.1:9/a.jpg" for i in range(250)]
    with pytest.raises(Exception, match="is there a network"):
        run(monkeypatch, url_list(tmp_path / "in.parquet", urls), tmp_path / "out", "--retries", "0")
    assert not OutputFolder(str(tmp_path / "out")).manifests()


def test_max_side_scales_down_and_keeps_the_digest_of_the_original(tmp_path, monkeypatch, server):
    source = url_list(tmp_path / "in.parquet", [server.url("/ok/1")])
    plain = run(monkeypatch, source, tmp_path / "plain")[0]
    small = run(monkeypatch, source, tmp_path / "small", "--max-side", "32")[0]
    assert (small["width"], small["height"]) == (32, 32) and small["sha256"] == plain["sha256"]
    members = IndexedShard(str(of_split(tmp_path / "small", "tar")))[0][1]
    assert image_header(members["jpg"]) == ("jpg", 32, 32)


def test_killed_and_restarted_it_ends_byte_identical(tmp_path, server, monkeypatch):
    urls = [server.url(f"/slow/{i}" if i % 2 else "/absent") for i in range(180)]
    source = url_list(tmp_path / "in.parquet", urls)
    monkeypatch.setattr(fetch_images, "ROWS_PER_SPLIT", 60)
    run(monkeypatch, source, tmp_path / "whole")
    code = "from pipelines import fetch_images as f; from pipelines.engine import job; "
    code += "f.ROWS_PER_SPLIT = 60; job.main(f.main)"
    command = [sys.executable, "-c", code, "--dataset", "laion-en", "--input", str(source), "--output",
               str(tmp_path / "killed"), "--workers", "0", "--allow-private", "--max-bytes", "1000000"]  # fmt: skip
    rng, kills = random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = sum(server.requests.values())
        while sum(server.requests.values()) < before + rng.randrange(5, 60) and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert kills >= 2
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


NAMED = {"url": "url", "text": "text"}


@pytest.mark.parametrize("name, text, reader, columns", [
    ("a.tsv", "http://h/1.jpg\tone\nhttp://h/2.jpg\ttwo\nno url\n", "cc12m", {}),
    ("b.tsv", "one\thttp://h/1.jpg\ntwo\thttp://h/2.jpg\nno url\n", "cc3m", {}),
    ("c.tsv", "text\turl\none\thttp://h/1.jpg\ntwo\thttp://h/2.jpg\nno url\n", "columns", NAMED),
    ("d.csv", 'url,text\nhttp://h/1.jpg,one\nhttp://h/2.jpg,two\n"no url"\n', "columns", NAMED),
])  # fmt: skip
def test_url_lists_as_text(tmp_path, name, text, reader, columns):
    path = tmp_path / name
    path.write_text(text)
    rows = [item for piece in plan_urls(str(path), columns, reader, 9) for item in read_urls(piece, columns, reader)]
    good = [(record.url, record.text) for _, record in rows if isinstance(record, UrlRow)]
    assert good == [("http://h/1.jpg", "one"), ("http://h/2.jpg", "two")]
    header = int(columns != {})
    assert [row for row, _ in rows] == [header, header + 1, header + 2]


def test_the_real_list_of_urls_is_read(shared_data):
    path = str(shared_data("image_text/web_urls/img2dataset_test_0000_0679.parquet"))
    columns = {"url": "URL", "text": "TEXT"}
    pieces = plan_urls(path, columns, "laion", 500)
    rows = [record for piece in pieces for _, record in read_urls(piece, columns, "laion")]
    assert len(rows) == 680 and all(row.url.startswith("http") and row.text for row in rows)


def test_results_come_in_order_while_the_first_is_slow():
    done = []

    async def work(i):
        await asyncio.sleep(0.2 if i == 0 else 0)
        done.append(i)
        return i * i

    async def go():
        return [pair async for pair in in_order(range(50), work, 8)]

    assert asyncio.run(go()) == [(i, i * i) for i in range(50)]
    assert done[-1] == 0  # nothing waited for the slow one


def test_the_spool_gives_back_what_it_took_and_frees_its_room():
    spool, rng = Spool(budget=1000), random.Random(0)
    waiting = []
    for _ in range(300):
        if waiting and rng.random() < 0.5:
            data, ticket = waiting.pop(rng.randrange(len(waiting)))
            assert spool.take(ticket) == data
        else:
            data = rng.randbytes(rng.randrange(400))
            waiting.append((data, spool.put(data)))
    assert any(isinstance(ticket, tuple) for _, ticket in waiting)
    for data, ticket in waiting:
        assert spool.take(ticket) == data
    assert spool._file.seek(0, 2) == 0 and spool._left == 1000
