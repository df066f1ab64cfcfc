"""What a user types as --input and --output: what is found, and what is said where nothing is."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from corpus.folder import NoBucket, OutputFolder
from corpus.inputs import fingerprint
from pipelines.engine.inputs import UserError, find_inputs
from tests.test_remote import bucket  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def crawl(tmp_path):
    for name in ("a/1.tar", "a/2.tar", "a/3.warc.gz", "b/4.tar", "b/deep/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_files_globs_and_lists(crawl, monkeypatch):
    tars = [str(crawl / name) for name in ("a/1.tar", "a/2.tar", "b/4.tar")]
    assert find_inputs([f"{crawl}/**/*.tar"]) == find_inputs(tars[::-1]) == tars
    inner = crawl / "inner.txt"
    inner.write_text(f"{crawl}/b/*.tar\n")
    (crawl / "list.txt").write_text(f"# January\n{crawl}/a/*.tar\n\n  @{inner}  \n")
    assert find_inputs([f"@{crawl}/list.txt"]) == tars
    monkeypatch.chdir(crawl / "a")
    assert find_inputs(["1.tar", "./1.tar"]) == tars[:1]


@pytest.mark.parametrize("typed, said", [
    ("{}/a", "is a folder, not a file or a glob: try '{}/a/*.tar' (2 files) or '{}/a/*.warc.gz' (1 file), in quotes"),
    ("{}/b/", "is a folder, not a file or a glob: try '{}/b/*.tar' (1 file) or '{}/b/**/*.jpg' (1 file), in quotes"),
    ("{}/a/*.parquet", "matches no file: try '{}/a/*.tar' (2 files)"),
    ("{}/a/9.tar", "matches no file: try '{}/a/*.tar' (2 files)"),
    ("{}/nowhere/*.tar", "matches no file: there is no folder {}/nowhere"),
    ("@{}/no.txt", "there is no file {}/no.txt"),
])  # fmt: skip
def test_what_matches_nothing_is_told_what_would(crawl, typed, said):
    with pytest.raises(UserError) as error:
        find_inputs([typed.replace("{}", str(crawl))])
    assert said.replace("{}", str(crawl)) in str(error.value)


def test_an_empty_list_or_folder_is_not_an_empty_job(crawl):
    (crawl / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(UserError, match="the file names no inputs"):
        find_inputs([f"@{crawl}/empty.txt"])
    (crawl / "c").mkdir()
    with pytest.raises(UserError, match="it holds no files"):
        find_inputs([f"{crawl}/c"])


@pytest.fixture
def requests(monkeypatch):
    """Counts the requests of S3 clients."""
    import aiobotocore.client

    counted, real = Counter(), aiobotocore.client.AioBaseClient._make_api_call

    async def call(self, operation, arguments):
        counted[operation] += 1
        return await real(self, operation, arguments)

    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", call)
    return counted


def test_planning_an_object_store_lists_and_reads_nothing(bucket, requests, tmp_path):  # noqa: F811
    import s3fs

    fs = s3fs.S3FileSystem()
    urls = [f"{bucket}/{month}/{i}.tar" for month in ("2021-01", "2021-02") for i in range(15)]
    for url in urls:
        fs.pipe(url, b"x")
    (tmp_path / "list.txt").write_text("\n".join(urls))
    for typed in (f"{bucket}/*/*.tar", f"{bucket}/**/*.tar", f"@{tmp_path}/list.txt"):
        s3fs.S3FileSystem.clear_instance_cache()
        requests.clear()
        found = find_inputs([typed])
        marks = [fingerprint(url) for url in found]
        assert found == sorted(urls) and all(mark["size"] == 1 and mark["etag"] for mark in marks)
        assert requests["ListObjectsV2"] <= 5 and requests.total() <= 5, requests
    with pytest.raises(UserError, match="2021-01' is a folder.*2021-01/\\*.tar' \\(15 files\\)"):
        find_inputs([f"{bucket}/2021-01"])


def test_a_misspelt_bucket_is_refused_not_made(bucket, requests):  # noqa: F811
    with pytest.raises(NoBucket, match="there is no bucket 'crwal'"):
        OutputFolder("s3://crwal/out").prepare({})
    assert "CreateBucket" not in requests
    OutputFolder(f"{bucket}/out").prepare({})


def said_by(*command: str, **environment) -> str:
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=100,
        env=clean | {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", **environment},
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_users_can_mend_is_no_traceback(tmp_path):
    clean = ["pipelines/clean_laion.py", "--dataset", "laion-en", "--output", f"{tmp_path}/out", "--input"]
    assert "Unable to locate credentials" in (said := said_by(*clean, "s3://bucket/*.tar")) and "AWS_PROFILE" in said
    down = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert "127.0.0.1:9" in said_by(*clean, "s3://bucket/*.tar", AWS_MAX_ATTEMPTS="1", **down)
    for command in (
        ["retune.py", "/nowhere", "--set", "a.b=1", "--output", f"{tmp_path}/o"],
        ["report.py", "/nowhere"],
    ):
        assert "/nowhere is no output folder of ours" in said_by(f"pipelines/{command[0]}", *command[1:])
