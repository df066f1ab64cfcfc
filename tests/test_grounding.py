"""Recursive boxes, spans through cleaning, box conventions, and the readers of grounding sets."""

import itertools
import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleaners.boxes import CONVENTIONS, Watch, WrongConvention, fits, in_pixels
from cleaners.grounded_text import Grounded, clean_grounded, join_by_text
from cleaners.grounding import Span, boxes_in, exact, greedy, group, join_pieces, pieces_of
from corpus.readers import grounding
from corpus.readers.boundary import made_of
from corpus.readers.exclude import Excluded
from corpus.readers.names import split_of
from corpus.readers.rows import BadRow, Phrase
from corpus.readers.slices import plan
from tests.published import BEES, grit

SPANS = st.lists(
    st.tuples(st.integers(0, 24), st.integers(1, 9), st.integers(1, 4)),
    min_size=1,
    max_size=9,
    unique_by=lambda t: t[:2],
).map(lambda items: sorted(Span(s, s + n, tuple((i, 0.0, 1.0, 1.0) for i in range(k))) for s, n, k in items))


def apart(spans):
    return all(a.end <= b.start for a, b in itertools.pairwise(spans))


def brute_force(spans):
    chosen = (c for n in range(len(spans) + 1) for c in itertools.combinations(spans, n) if apart(sorted(c)))
    return max((boxes_in(c), sum(s.end - s.start for s in c)) for c in chosen)


@settings(max_examples=150)
@given(SPANS)
def test_the_exact_choice_is_the_best_of_all_choices(spans):
    chosen = exact(spans)
    assert apart(chosen) and set(chosen) <= set(spans)
    assert (boxes_in(chosen), sum(s.end - s.start for s in chosen)) == brute_force(spans)


@settings(max_examples=200)
@given(SPANS)
def test_the_greedy_choice_never_overlaps_and_nothing_fits_beside_it(spans):
    chosen = greedy(spans)
    assert apart(chosen) and set(chosen) <= set(spans)
    for left_out in set(spans) - set(chosen):
        assert not apart(sorted([*chosen, left_out]))


def realistic(rng) -> list[Span]:
    """Noun chunks with one to five boxes, and expressions that reach from one over those after it, as GRIT has."""
    phrases, chunks, at = {}, [], 0
    for _ in range(rng.randint(1, 6)):
        start, end = at, at + rng.randint(4, 18)
        chunks.append((start, end))
        at = end + rng.randint(1, 12)
        if rng.random() < 0.75:
            phrases[start, end] = rng.choice([1, 1, 1, 1, 1, 2, 2, 3, 5])
    for i, (start, end) in enumerate(chunks):
        if rng.random() < 0.6:
            last = chunks[min(len(chunks) - 1, i + rng.choice([0, 1, 1, 2, 3]))][1] + rng.choice([0, 0, 4])
            phrases[start, last] = max(1, phrases.get((start, end), 1) + rng.choice([-1, 0, 0, 0, 1]))
    return group((s, e, (float(i), 0.0, 1.0, 1.0), 1.0) for (s, e), n in phrases.items() for i in range(n))


def test_the_greedy_choice_loses_under_two_per_cent_of_the_boxes():
    rng = random.Random(11)
    captions = [realistic(rng) for _ in range(20_000)]
    best = sum(boxes_in(exact(spans)) for spans in captions)
    kept = sum(boxes_in(greedy(spans)) for spans in captions)
    recursive = sum(boxes_in(spans) for spans in captions)
    assert recursive > 1.3 * best, "the generator makes too few recursive phrases to prove anything"
    assert 0.98 * best < kept <= best


def test_a_million_captions_a_minute():
    rng = random.Random(12)
    phrases = [[(s.start, s.end, b, 1.0) for s in realistic(rng) for b in s.boxes] for _ in range(20_000)]
    started = time.process_time()
    for items in phrases:
        greedy(group(items))
    assert (time.process_time() - started) / len(phrases) < 60e-6


def grit_rows(piece) -> list:
    return [(row, grit_row(record)) for row, record in grounding.read_grit(piece)]


def grit_row(record):
    reader = grounding.READERS["grit"]
    (row,) = made_of(record, lambda record: reader.parse(record, {}, ""), reader.shape)
    return row


@pytest.mark.parametrize("choose", [greedy, exact])
def test_the_bees_of_the_paper(tmp_path, choose):
    """Box B.1: both boxes of "bees" and the flower stay, the expression that holds them goes."""
    piece = plan(grit(tmp_path / "coyo_0_snappy.parquet"), 10)[0]
    ((_, row),) = grit_rows(piece)
    spans = choose(group((p.start, p.end, p.box, p.score) for p in row.phrases))
    assert [(BEES[s.start : s.end], len(s.boxes)) for s in spans] == [("bees", 2), ("an apricot flower", 1)]
    assert spans[0].boxes[0] == (0.661, 0.612, 0.833, 0.812)


def test_grit_rows_of_any_slice_and_batch_are_those_of_the_file(tmp_path):
    """Batches are windows on larger columns: every row must come with its own phrases, null lists as none."""
    rng, kind = random.Random(9), pa.list_(pa.list_(pa.float64()))
    items = [
        [[0, 3, 0.1, 0.1, 0.5, round(rng.random(), 6), 0.9] for _ in range(rng.randint(0, 3))] for _ in range(9000)
    ]
    items[5] = items[4500] = None
    table = {"caption": pa.array(["a cat"] * 9000), "id": pa.array(range(9000))}
    table |= {"noun_chunks": pa.array(items, kind), "ref_exps": pa.array(items[::-1], kind)}
    pq.write_table(pa.table(table), tmp_path / "grit.parquet", row_group_size=7000)
    found = [pair for piece in plan(str(tmp_path / "grit.parquet"), 5000) for pair in grit_rows(piece)]
    assert [row for row, _ in found] == list(range(9000))
    for i, row in found:
        expected = [*(items[i] or []), *(items[8999 - i] or [])]
        assert [list(phrase.box) for phrase in row.phrases] == [item[2:6] for item in expected]


def test_equal_boxes_prefer_the_longer_phrase():
    shirt = (0.1, 0.1, 0.2, 0.2)
    spans = group([(0, 5, shirt, 0.9), (0, 20, shirt, 0.9), (0, 5, shirt, 0.5)])
    assert [s.boxes for s in spans] == [(shirt,), (shirt,)]
    for choose in (greedy, exact):
        assert [(s.start, s.end) for s in choose(spans)] == [(0, 20)]


@given(SPANS, st.text(" ab.", min_size=40, max_size=40))
def test_pieces_join_to_the_caption_up_to_white_space(spans, caption):
    chosen = exact(spans)
    text, found = join_pieces(pieces_of(caption, chosen))
    assert text.split() == caption.split()
    for span, new in zip(chosen, found, strict=True):
        old = caption[span.start : span.end].strip()
        assert (new is None and not old) or text[slice(*new)].split() == old.split()


def test_spans_survive_html_and_patterns_around_and_inside_them():
    caption = "<b>Two</b> dogs &amp; a cat!!!! www.example.com"
    dogs, cat = caption.index("dogs"), caption.index("a cat")
    rows = [Grounded(caption, [Span(dogs, dogs + 4, ((0, 0, 1, 1),)), Span(cat, cat + 5, ((1, 1, 2, 2),))])]
    ((text, regions, verdict),) = clean_grounded(rows, {"html": {}, "patterns": {}}, "en")
    assert text.startswith("Two dogs & a cat") and "www" not in text and verdict["outcome"] == "kept"
    assert [text[slice(*r["span"])] for r in regions] == ["dogs", "a cat"] == [r["text"] for r in regions]


def test_one_phrase_of_several_boxes_is_one_region():
    joined = join_by_text([("Man ", (0, 0, 1, 1)), ("man", (2, 2, 3, 3)), ("man", (0, 0, 1, 1)), (" ", (0, 0, 1, 1))])
    assert joined.texts == ("Man",) and joined.spans[0].boxes == ((0, 0, 1, 1), (2, 2, 3, 3))


@pytest.mark.parametrize(
    ("convention", "box"),
    [
        ("xyxy", (10, 20, 30, 60)), ("xywh", (10, 20, 20, 40)), ("cxcywh", (20, 40, 20, 40)),
        ("xyxy_unit", (0.05, 0.2, 0.15, 0.6)), ("xywh_unit", (0.05, 0.2, 0.1, 0.4)), ("xyxy_1000", (50, 200, 150, 600)),
        ("yxyx_unit", (0.2, 0.05, 0.6, 0.15)),
    ],
)  # fmt: skip
def test_every_convention_gives_the_same_box(convention, box):
    assert in_pixels(box, convention, 200, 100) == pytest.approx((10, 20, 30, 60))
    assert fits(box, convention, 200, 100)


@pytest.mark.parametrize(
    ("true", "claimed"), [("xyxy", "xywh"), ("xywh", "xyxy"), ("xyxy_unit", "xywh"), ("xyxy_1000", "xyxy")]
)
def test_the_wrong_convention_stops_the_job_with_a_hint(true, claimed):
    rng, watch = random.Random(3), Watch(claimed)
    with pytest.raises(WrongConvention, match=rf"boxes lie outside.*--boxes {true} "):
        for _ in range(200):
            x, y = rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6)
            corners = (x, y, x + rng.uniform(0.25, 0.39), y + rng.uniform(0.25, 0.39))
            scale = {"xyxy_unit": (1, 1), "xyxy_1000": (1000, 1000)}.get(true, (640, 480))
            box = [v * scale[i % 2] for i, v in enumerate(corners)]
            watch.see((*box[:2], box[2] - box[0], box[3] - box[1]) if true == "xywh" else box, 640, 480)


def test_a_few_boxes_outside_do_not_stop_a_job():
    watch = Watch("xyxy")
    for i in range(300):
        watch.see((0, 0, 900, 10) if i % 3 == 0 else (0, 0, 10, 10), 100, 100)
    assert set(CONVENTIONS) >= {"xyxy", "xywh"}


# --- Readers ---


def test_visual_genome_regions_with_either_name_of_ids():
    """visual_genome_python_driver local.py: regions[{region_id | id, image_id, phrase, x, y, width, height}]."""
    region = {"region_id": 1, "image_id": 5, "phrase": "a  clock", "x": 1, "y": 2, "width": 3, "height": 4}
    broken = {"region_id": 2, "image_id": 5, "phrase": "no box"}
    bad, row = grounding.visual_genome({"id": 5, "regions": [region, broken]}, {"coco_ids": {"5": 99}}, "")
    assert bad.kind == "bad_record" and row.image.ids == ("vg:5", "coco:99") and row.image.names == ("5.jpg",)
    assert row.phrases == [Phrase("a clock", (1, 2, 3, 4))] and row.convention == "xywh"
    (old,) = grounding.visual_genome({"regions": [{**region, "id": 7}]}, {}, "")
    assert old.image.ids == ("vg:5",)


def test_refcoco_image_names_lose_the_annotation_number():
    """lichengunc/refer refer.py: file_name COCO_train2014_000000581857_16.jpg belongs to image 581857."""
    ref = {
        "ref_id": 1, "ann_id": "3", "image_id": "581857", "file_name": "COCO_train2014_000000581857_16.jpg",
        "split": "val", "sentences": [{"sent": "left man"}, {"raw": "Him"}],
    }  # fmt: skip
    (row,) = grounding.refcoco(ref, {"boxes": {"3": (1.0, 2.0, 3.0, 4.0)}}, "")
    assert row.image.names[0] == "COCO_train2014_000000581857.jpg" and row.split == "val"
    assert [p.text for p in row.phrases] == ["left man", "Him"]
    (bad,) = grounding.refcoco({**ref, "ann_id": 4}, {"boxes": {}}, "")
    assert bad.kind == "no_annotation"


def test_mdetr_rows():
    """mdetr refexp_coco_format.py: images[{id, file_name, caption, original_id}], annotations[{image_id, bbox}]."""
    record = {"id": 4, "file_name": "COCO_train2014_000000000007.jpg", "caption": "left ear", "original_id": 7}
    (row,) = grounding.mdetr(record, {"by_image": {"4": [(1.0, 2.0, 3.0, 4.0)]}}, "finetune_refcoco_train.json")
    assert row.image.ids == ("coco:7",) and row.split == "train" and row.phrases[0].text == "left ear"
    (row,) = grounding.mdetr(record, {"by_image": {"4": [(1.0, 2.0, 3.0, 4.0)]}}, "finetune_refcoco_val.json")
    assert row.split == "val"


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([[0, 99, 0, 0, 1, 1, 1.0]], "bad_span"),
        ([[0, 3]], "bad_record"),
        ([[5, 5, 0, 0, 1, 1, 1]], "bad_span"),
        ([[0, 3, 0, 0, float("nan"), 1, 1]], "bad_record"),
    ],
)
def test_grit_rows_whose_caption_was_changed(items, kind):
    assert grit_row({"caption": "a cat", "id": 1, "items": items}).kind == kind
    assert isinstance(grit_row({"caption": None, "items": []}), BadRow)


@pytest.mark.parametrize("listed", ["vg:1", "coco:2"])
def test_an_image_is_excluded_by_any_of_its_ids(listed):
    ids = "vg:1", "coco:2"
    assert Excluded(ids={listed}).match(ids) == listed
    assert Excluded(ids={"vg:2"}).match(ids) is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a/retrieval_train.jsonl", "train"), ("a/latest_train.jsonl", "train"), ("a/refcoco_testA.json", "test"),
        ("a/refcoco_testB.json", "test"), ("val/0.json", "val"), ("a/regions.json", "train"), ("a/dev.json", "val"),
    ],
)  # fmt: skip
def test_a_split_is_told_by_words_of_the_name(name, split):
    assert split_of(name) == split
