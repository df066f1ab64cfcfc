"""Packing: nothing lost, cut or doubled, both caps held, and few tokens wasted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.packing import best_fit, levelled, lower_bound, plan_packs

SAMPLES = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 3)), max_size=120)


def check(packs, lengths, images, max_tokens, max_images):
    assert packs.shape == lengths.shape and packs.dtype == np.int64
    if len(packs):
        assert packs.min() == 0 and len(np.unique(packs)) == packs.max() + 1
        assert np.bincount(packs, lengths).max() <= max_tokens
        assert np.bincount(packs, images).max() <= max_images


@given(SAMPLES, st.integers(64, 200), st.integers(3, 9))
@settings(max_examples=200)
def test_caps_hold_and_every_sample_is_packed(samples, max_tokens, max_images):
    lengths, images = np.array(samples, np.int64).reshape(-1, 2).T
    packs = plan_packs(lengths, images, max_tokens, max_images)
    check(packs, lengths, images, max_tokens, max_images)
    assert packs.max(initial=-1) + 1 >= lower_bound(lengths, images, max_tokens, max_images)
    assert (plan_packs(lengths, images, max_tokens, max_images) == packs).all()
    firsts = [int(np.flatnonzero(packs == p)[0]) for p in range(packs.max(initial=-1) + 1)]
    assert firsts == sorted(firsts)


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=150), st.integers(0, 2), st.integers(64, 300), st.integers(2, 9)
)
@settings(max_examples=200)
def test_both_planners_hold_the_caps(lengths, images_each, max_tokens, max_images):
    lengths = np.array(lengths)
    images = np.full(len(lengths), images_each)
    check(best_fit(lengths, images, max_tokens, max_images), lengths, images, max_tokens, max_images)
    packs = levelled(lengths, images_each, max_tokens, max_images)
    assert (packs >= 0).all()
    assert np.bincount(packs, lengths).max() <= max_tokens and np.bincount(packs, images).max() <= max_images


def one_by_one(lengths, images, max_tokens, max_images):
    """Best-fit-decreasing as the textbook has it."""
    rooms = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], -images[i])):
        fitting = [r for r in rooms if r[0] >= lengths[i] and r[1] >= images[i]]
        room = min(fitting, default=None, key=lambda r: (r[0], r[1]))
        if room is None:
            room = [max_tokens, max_images]
            rooms.append(room)
        room[0] -= lengths[i]
        room[1] -= images[i]
    return sorted(map(tuple, rooms))


@given(SAMPLES, st.integers(64, 200), st.integers(3, 9))
@settings(max_examples=200)
def test_best_fit_in_bulk_equals_one_by_one(samples, max_tokens, max_images):
    lengths, images = np.array(samples, np.int64).reshape(-1, 2).T
    packs = best_fit(lengths, images, max_tokens, max_images)
    count = packs.max(initial=-1) + 1
    rooms = zip(
        max_tokens - np.bincount(packs, lengths, count).astype(int),
        max_images - np.bincount(packs, images, count).astype(int),
        strict=True,
    )
    assert sorted(rooms) == one_by_one(lengths.tolist(), images.tolist(), max_tokens, max_images)


COPIES = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=40)


@given(COPIES, st.integers(64, 300), st.integers(3, 9), st.booleans())
@settings(max_examples=300)
def test_copies_never_share_a_pack(samples, max_tokens, max_images, one_image):
    lengths, images, times = np.array(samples, np.int64).T
    groups = np.repeat(np.arange(len(samples)), times)
    lengths, images = np.repeat(lengths, times), np.repeat(np.ones_like(images) if one_image else images, times)
    order = np.random.default_rng(len(groups)).permutation(len(groups))
    groups, lengths, images = groups[order], lengths[order], images[order]
    packs = plan_packs(lengths, images, max_tokens, max_images, groups)
    check(packs, lengths, images, max_tokens, max_images)
    assert len(set(zip(packs.tolist(), groups.tolist(), strict=True))) == len(packs)
    assert (plan_packs(lengths, images, max_tokens, max_images, groups) == packs).all()


@pytest.mark.parametrize("originals, most", [(3_000, 1.001), (300, 1.005), (50, 1.03)])
def test_keeping_copies_apart_costs_next_to_nothing(originals, most):
    rng = np.random.default_rng(1)
    lengths = np.tile(np.clip(rng.normal(325, 40, originals).astype(int), 268, 512), 3)
    groups, images = np.tile(np.arange(originals), 3), np.ones(3 * originals, int)
    together = plan_packs(lengths, images, 2048, 7)
    assert len(set(zip(together.tolist(), groups.tolist(), strict=True))) < len(groups)
    assert plan_packs(lengths, images, 2048, 7, groups).max() + 1 <= most * (together.max() + 1)


def test_five_samples_two_hundred_times_are_five_to_a_pack():
    groups = np.tile(np.arange(5), 200)
    packs = plan_packs(np.full(1000, 290), np.ones(1000, int), 2048, 7, groups)
    assert packs.max() + 1 == 200


def test_captions_fill_their_packs():
    """258 tokens of image and a text: the case in which best-fit-decreasing wastes one token in twenty."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(325, 40, 20_000).astype(int), 268, 512)
    images = np.ones(len(lengths), int)
    packs = plan_packs(lengths, images, 2048, 7)
    assert lengths.sum() / 2048 / (packs.max() + 1) > 0.995
    assert lengths.sum() / 2048 / (best_fit(lengths, images, 2048, 7).max() + 1) < 0.96


def test_texts_fill_their_packs():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 1.2, 20_000).astype(int), 2, 2048)
    packs = plan_packs(lengths, np.zeros(len(lengths), int), 2048, 7)
    assert lengths.sum() / 2048 / (packs.max() + 1) > 0.999


def test_the_image_cap_binds_where_captions_are_short():
    lengths = np.full(700, 277)
    packs = plan_packs(lengths, np.ones(700, int), 2048, 7)
    assert packs.max() + 1 == 100 == lower_bound(lengths, np.ones(700, int), 2048, 7)


@pytest.mark.parametrize(("length", "images"), [(2049, 1), (0, 1), (10, 8)])
def test_a_sample_that_fits_nowhere_is_refused(length, images):
    with pytest.raises(ValueError, match="do not fit"):
        plan_packs(np.array([5, length]), np.array([1, images]), 2048, 7)


def test_nothing_to_pack():
    assert len(plan_packs(np.zeros(0, int), np.zeros(0, int), 2048, 7)) == 0


@pytest.mark.slow
def test_a_million_samples_in_two_seconds():
    import time

    rng = np.random.default_rng(0)
    lengths = 258 + np.clip(rng.lognormal(3.5, 0.7, 1_000_000).astype(int), 9, 254)
    start = time.process_time()
    plan_packs(lengths, np.ones(len(lengths), int), 2048, 7)
    assert time.process_time() - start < 2
