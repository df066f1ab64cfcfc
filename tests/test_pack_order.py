"""The order of packs in blocks: a permutation, lanes that share no block, and no worse shuffled than by a buffer."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import order
from corpus.order import BLOCK, LANES, WINDOW, in_blocks, in_packs

PACKS = 100_037  # six windows, and packs that fill no block
SHARD = 1_500
BUFFER = 10_000


@pytest.fixture
def small():
    """Windows of 8 blocks of 4 packs, in 4 lanes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK": 4, "WINDOW": 8, "LANES": 4, "_WINDOW": 32, "_SLOTS": 2}.items():
            patch.setattr(order, name, value)
        yield


@given(st.integers(1, 200), st.text(max_size=4))
@settings(max_examples=50)
def test_every_pack_stands_in_the_order_once(size, key):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK": 4, "WINDOW": 8, "LANES": 4, "_WINDOW": 32, "_SLOTS": 2}.items():
            patch.setattr(order, name, value)
        assert sorted(in_blocks(i, size, key) for i in range(size)) == list(range(size))


def test_epochs_and_keys_differ(small):
    one, other = ([in_blocks(i, 333, key) for i in range(333)] for key in ("d/0/0", "d/0/1"))
    assert np.mean(np.array(one) == other) < 0.03


def test_the_order_is_what_it_was():
    """A change of these numbers breaks the resume of every run."""
    positions = [*range(300), *range(16_000, 16_600), *range(PACKS - 300, PACKS)]
    told = ",".join(str(in_blocks(i, PACKS, "digest/0/0")) for i in positions)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "e1a5b4df31c9f0b1"


def test_a_corpus_of_one_window_is_shuffled_as_ever():
    for size in (1, 40, 5000, BLOCK * WINDOW):
        for i in range(0, size, 97):
            assert in_blocks(i, size, "d/3/1") == in_packs(i, size, "d/3/1")
    assert any(in_blocks(i, BLOCK * WINDOW + 1, "d") != in_packs(i, BLOCK * WINDOW + 1, "d") for i in range(9))


def test_a_window_reads_its_blocks_and_no_others_and_no_lane_reads_anothers():
    by_lane = [{in_blocks(i, PACKS, "d") // BLOCK for i in range(lane, BLOCK * WINDOW, LANES)} for lane in range(8)]
    assert [len(blocks) for blocks in by_lane] == [WINDOW // LANES] * 8
    assert len(set.union(*by_lane)) == 8 * WINDOW // LANES


def test_a_step_is_mixed_better_than_by_a_buffer_of_ten_thousand_packs():
    rng = np.random.default_rng(0)
    first = np.array([in_blocks(i, PACKS, "digest/0/0") for i in range(40 * 256)]).reshape(-1, 256)
    buffered = _through_a_buffer(rng)[: 40 * 256].reshape(-1, 256)
    uniform = rng.permutation(PACKS)[: 40 * 256].reshape(-1, 256)
    for measure in (_of_one_shard, _swings_of_tasks, _neighbours):
        ours, theirs, best = measure(first), measure(buffered), measure(uniform)
        assert ours < theirs, (measure.__name__, ours, theirs, best)
    assert _of_one_shard(first) < 1.25 * _of_one_shard(uniform)
    assert _swings_of_tasks(first) < 1.35 * _swings_of_tasks(uniform)


def _through_a_buffer(rng) -> np.ndarray:
    """What WebDataset does: shards in a random order, and each pack leaves a full buffer from a random place."""
    shards = [np.arange(start, min(start + SHARD, PACKS)) for start in range(0, PACKS, SHARD)]
    stream = np.concatenate([shards[i] for i in rng.permutation(len(shards))])
    buffer, out = stream[:BUFFER].copy(), []
    for pack, place in zip(stream[BUFFER:30_000], rng.integers(BUFFER, size=20_000), strict=True):
        out.append(buffer[place])
        buffer[place] = pack
    return np.array(out)


def _of_one_shard(steps: np.ndarray) -> float:
    """The share of pairs in a step that are of one shard."""
    counts = np.stack([np.bincount(step // SHARD, minlength=PACKS // SHARD + 1) for step in steps])
    return float((counts * (counts - 1)).sum() / (len(steps) * 256 * 255))


def _swings_of_tasks(steps: np.ndarray) -> float:
    """How far the share of a task swings from step to step, where each fifth of the corpus is of one task."""
    shares = np.stack([np.bincount(step * 5 // PACKS, minlength=5) / 256 for step in steps])
    return float(np.sqrt(((shares - 0.2) ** 2).mean()))


def _neighbours(steps: np.ndarray) -> float:
    """The share of packs whose next one in the corpus stands in the same step."""
    return float(np.mean([np.diff(np.sort(step)) == 1 for step in steps]))
