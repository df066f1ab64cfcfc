"""Near-duplicate images and texts: planted ones are found, others are not, and the cost is linear."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleaners import dedup, documents
from cleaners.captions import CANDIDATE, longest_per_image
from cleaners.dedup import (
    MAX_DISTANCE,
    PROBE_VIEWS,
    Matcher,
    Rows,
    first_of_each,
    first_of_equals,
    matcher_of_hex,
    near_pairs,
    probe_keys,
    to_hex,
)
from cleaners.phash import LONG_BYTES, VIEWS, distance, hash_views
from tests.published import picture

FOLDERS = ("image_text/coco/train2017", "image_text/coco/val2017", "photos", "annotations/allennlp_gqa/images")
LEAST_SIDE = 100  # thumbnails and slivers below this are no evaluation images


def real_photos(shared_data) -> list[Image.Image]:
    """The natural photos of the test data; the seven rotations of one EXIF test picture are left out."""
    paths = [path for folder in FOLDERS for path in sorted(shared_data(folder).iterdir())]
    paths = [p for p in paths if p.suffix in (".jpg", ".png") and not p.name.startswith("exif_orientation")]
    photos = [Image.open(path).convert("RGB") for path in paths]
    return [photo for photo in photos if min(photo.size) >= LEAST_SIDE]


def recompress(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cut(image, left, top, right, bottom):
    width, height = image.size
    return image.crop((int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom))))


def planted(image, rng):
    """Near-duplicates of an image: resized, recompressed, 5 % cropped in several ways, greyscale, and all at once."""
    x, y, side = rng.uniform(0, 0.05), rng.uniform(0, 0.05), rng.choice([0.3, 0.5, 1.7])
    yield "resize", image.resize((round(image.width * side), round(image.height * side)), Image.BICUBIC)
    yield "squash", image.resize((224, 224), Image.BILINEAR)
    yield "recompress", recompress(image, rng.choice([20, 30, 50]))
    yield "crop, anywhere", cut(image, x, y, 0.05 - x, 0.05 - y)
    yield "crop, one side", cut(image, *rng.sample([0.05, 0, 0, 0], 4))
    yield "crop, all sides", cut(image, 0.05, 0.05, 0.05, 0.05)
    yield "grey", image.convert("L")
    yield "all", recompress(cut(image, x, y, 0.05 - x, 0.05 - y).resize((256, 256)).convert("L"), 50)


def test_planted_near_duplicates_of_real_photos_are_found_and_others_are_not(shared_data):
    photos = real_photos(shared_data)
    assert len(photos) > 80
    hashes, rng = [hash_views(photo) for photo in photos], random.Random(4)
    evaluation, others = range(0, len(photos), 2), range(1, len(photos), 2)
    owner = np.repeat(list(evaluation), VIEWS)
    matcher = Matcher(
        np.concatenate([hashes[i].short for i in evaluation]), np.concatenate([hashes[i].long for i in evaluation])
    )
    right, wrong, missed = 0, 0, {}
    for i in evaluation:
        for kind, image in planted(photos[i], rng):
            found = matcher.nearest(hash_views(image))
            hit = found is not None and owner[found[0]] == i
            right, wrong = right + hit, wrong + (found is not None and not hit)
            missed.setdefault(kind, []).append(not hit)
    for i in others:  # photos that are on no list, as they are and changed
        for image in [photos[i], *(changed for _, changed in planted(photos[i], rng))]:
            wrong += matcher.nearest(hash_views(image)) is not None
    recall = {kind: 1 - np.mean(found) for kind, found in missed.items()}
    print({kind: round(float(value), 3) for kind, value in recall.items()}, "precision", right / (right + wrong))
    assert min(recall.values()) > 0.95
    assert right / (right + wrong) > 0.99


def test_hashes_survive_an_exclusion_list():
    hashes = [hash_views(picture(seed)) for seed in range(20)]
    matcher = matcher_of_hex([line for h in hashes for line in to_hex(h)])
    found = [matcher.nearest(hash_views(recompress(picture(seed), 40))) for seed in range(20)]
    assert [index // VIEWS for index, _ in found] == list(range(20)) and max(d for _, d in found) <= MAX_DISTANCE
    assert matcher.nearest(hash_views(picture(99))) is None
    assert Matcher(np.zeros((0, 63), bool), np.zeros((0, LONG_BYTES), np.uint8)).nearest(hashes[0]) is None


def test_an_image_of_one_colour_has_no_hash():
    assert hash_views(Image.new("RGB", (300, 200), "white")) is None


def random_probes(count, seed, copies=0):
    """Hashes of unrelated images, and near-copies of the first ones at the end (a few bits differ)."""
    rng = np.random.default_rng(seed)
    probes = rng.integers(0, 1 << 21, (count, len(PROBE_VIEWS)), np.uint64)
    long = rng.integers(0, 256, (count, VIEWS, LONG_BYTES), np.uint8)
    for i in range(copies):
        probes[count - 1 - i, :3] = probes[i, 30:33]  # the copy as it is looks like one of the original's views
        long[count - 1 - i, 0] = long[i, 10] ^ np.uint8(1)
    return Rows(probes), Rows(long.reshape(count, -1))


@pytest.mark.parametrize("keys_at_once", [10**9, 2_000])
def test_pairs_are_found_whatever_is_in_memory_at_a_time(keys_at_once):
    probes, long = random_probes(400, 1, copies=30)
    pairs, full = near_pairs(probes, long, keys_at_once=keys_at_once)
    assert full == 0 and pairs[:, :2].tolist() == [[i, 399 - i] for i in range(30)]


def test_probes_meet_the_plain_hash_of_a_changed_image():
    original, changed = hash_views(picture(5)), hash_views(cut(picture(5), 0.05, 0, 0, 0))
    assert len(probe_keys(original)) == len(PROBE_VIEWS)
    assert set(probe_keys(original)) & set(probe_keys(changed)[:3])
    assert (
        distance(original.long, changed.long[0]).min()
        <= MAX_DISTANCE
        < distance(original.long[0], hash_views(picture(6)).long[0])
    )


def test_groups_keep_their_first():
    assert first_of_each(7, np.array([[1, 4], [4, 6], [2, 3]])).tolist() == [0, 1, 2, 2, 1, 5, 1]
    assert first_of_equals(np.array([7, 3, 7, 3, 1])).tolist() == [0, 1, 0, 1, 4]


# --- The longest text of an image ---


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=12), min_size=1, max_size=4),
    st.integers(1, 30),
)
def test_the_longest_text_of_every_image_over_all_splits(splits, rows_at_once):
    spread = (1 << 64) // 7  # hashes all over their range, so that every range of them is used
    arrays = [
        np.sort(
            np.array([(image * spread, length, row) for row, (image, length) in enumerate(split)], CANDIDATE),
            order="image",
        )
        for split in splits
    ]
    found = longest_per_image(arrays, rows_at_once=rows_at_once)
    best = {}
    for split, texts in enumerate(splits):
        for row, (image, length) in enumerate(texts):
            if image not in best or length > best[image][0]:
                best[image] = (length, split, row)
    expected = [sorted(row for _, s, row in best.values() if s == split) for split in range(len(splits))]
    assert [rows.tolist() for rows in found] == expected


# --- Documents ---


def test_near_duplicate_documents_are_found():
    rng = random.Random(6)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 8))) for _ in range(3000)]
    texts = [" ".join(rng.choices(words, k=300)) for _ in range(60)]
    for i in range(10):
        changed = texts[i].split()
        changed[100:103] = ["three", "other", "words"]
        texts.append(" ".join(changed))
    signatures = np.stack([documents.signature(text) for text in texts])
    pairs = documents.similar_pairs(Rows(signatures))
    assert pairs.tolist() == [[i, 60 + i] for i in range(10)]


def test_chinese_documents_are_told_apart_by_characters():
    base = "数学是研究数量结构变化以及空间等概念的一门学科从某种角度看属于形式科学的一种透过抽象化和逻辑推理的使用" * 2
    same, other = documents.signature(base + "尾"), documents.signature("天气很好我们去公园散步吃饭然后回家睡觉" * 4)
    assert (documents.signature(base) == same).mean() > 0.8 > (documents.signature(base) == other).mean()


def test_mending_keeps_paragraphs_and_counts_what_is_lost():
    assert documents.mend("caf\u00c3\u00a9 \r\n\r\n\r\n\r\nnext\t") == "café\n\nnext"
    assert documents.broken_share("ab\ufffd\ue000") == 0.5 and documents.broken_share("a\n\tb") == 0
    assert documents.exact_key("A  b\n") == documents.exact_key("a B") != documents.exact_key("a c")


def hashes_with(bits: int) -> dedup.Hashes:
    """Hashes of an image whose short hash is all ones, and whose long one differs from zeros in so many bits."""
    long = np.packbits(np.arange(8 * LONG_BYTES) < bits)
    short = np.ones((VIEWS, dedup.SHORT_BITS), bool)
    return dedup.Hashes(short, np.ones((VIEWS, dedup.SHORT_BITS), np.float32), np.tile(long, (VIEWS, 1)))


@pytest.mark.parametrize(("bits", "found"), [(41, True), (64, True), (65, False), (84, False)])
def test_images_are_near_up_to_64_bits(bits, found):
    known = dedup.Matcher(np.ones((1, dedup.SHORT_BITS), bool), np.zeros((1, LONG_BYTES), np.uint8))
    assert known.nearest(hashes_with(bits)) == ((0, bits) if found else None)


def test_ten_copies_share_a_bucket_and_are_all_found():
    one = hashes_with(0)
    probes = np.tile(dedup.probe_keys(one), (10, 1))
    pairs, full = dedup.near_pairs(dedup.Rows(probes), dedup.Rows(np.tile(one.long.ravel(), (10, 1))))
    assert full == 0 and set(dedup.first_of_each(10, pairs[:, :2]).tolist()) == {0}


@pytest.mark.parametrize(("equal", "near"), [(128, True), (104, True), (96, False), (72, False)])
def test_documents_are_near_from_four_fifths(equal, near):
    signatures = np.zeros((2, documents.PERMUTATIONS), np.uint32)
    signatures[1, equal:] = 1
    assert len(documents.similar_pairs(signatures)) == near
