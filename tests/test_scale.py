"""The benchmark of scale in its small form, on an S3 server that counts, dawdles and fails."""

import pytest

from benchmarks import scale, scale_requests
from benchmarks.fake_s3 import FakeS3


@pytest.fixture
def server():
    with FakeS3() as server:
        yield server


def test_planning_is_listing(server):
    cost = scale.planning(server, 2500)
    assert cost["requests"] == {"LIST": 3}


@pytest.mark.slow
def test_a_shard_a_sample_and_a_pack_ask_a_store_what_the_costs_are_reckoned_with(server, tmp_path):
    (_, shard), (_, sample), (_, pack) = scale_requests.requests(server, tmp_path, (1, 2), (20, 60))
    assert shard == {"GET": 9, "HEAD": 8, "PUT": 4, "LIST": 2}
    assert sample["GET"] < 0.3 and pack["GET"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_resume_with_nothing_to_do_reads_a_listing_and_the_index(server, tmp_path):
    (_, first), (_, second) = scale.store(server, tmp_path / "many", 1200)
    assert first["requests"] > 1200 and second["requests"] < 100


def test_a_store_that_fails_costs_a_split_that_is_refused_and_no_byte_of_the_others(server, tmp_path):
    found = scale.chaos(server, tmp_path, 6, workers=0, failing=0.1)
    assert found["status"] == 3 and found["requests"]["failed"] > 3, found
    assert "1 of 6 splits are quarantined" in found["said"] and "00002-" in found["said"]
    assert all(name.startswith("00002-") for name in found["different"]) and len(found["different"]) == 5
    assert found["then"] == 0 and found["different then"] == []
