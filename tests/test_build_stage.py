"""build_stage.py from cleaned folders to shards: nothing lost, same bytes, the mixture, and bad input."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.catalog import load_catalog
from corpus.folder import OutputFolder
from corpus.mixture import copies, positions, shares
from corpus.packs import StageFolder
from corpus.records import EncodedImage
from pipelines import build_stage
from pipelines.engine.job import UserError
from pipelines.work import stage
from tests.cleaned import drawn, sample, write_cleaned
from tests.published import jpeg

FILES = ("tar", "idx", "parquet")


def build(data, output, *flags, stage=2, workers=0):
    """Run build_stage.py in this process."""
    args = ["build_stage.py", "--stage", str(stage), "--data", str(data), "--output", str(output), "--workers",
            str(workers), "--queries", "16", *flags]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", args)
        build_stage.main()
    return StageFolder(str(output))


def ledger(folder: StageFolder) -> list[dict]:
    return [
        row
        for shard in folder.record["shards"]
        for row in pq.read_table(f"{folder.path}/{shard['id']}.parquet").to_pylist()
    ]


def bytes_of(folder: StageFolder) -> dict[str, bytes]:
    paths = sorted(Path(folder.path).iterdir())
    return {p.name: p.read_bytes() for p in paths if p.suffix.lstrip(".") in FILES or p.name == "corpus.json"}


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    root = tmp_path_factory.mktemp("cleaned")
    for dataset, task in (("coco-caption", "caption"), ("gqa", "vqa"), ("grit", "grounded_caption"),
                          ("synthdog-en", "ocr"), ("in-house-text", "text"), ("chat-sft", "chat")):  # fmt: skip
        write_cleaned(root, dataset, [sample(dataset, task, i) for i in range(30)], splits=3)
    return root


@pytest.fixture
def small_splits(monkeypatch):
    monkeypatch.setattr(build_stage, "SAMPLES_PER_SPLIT", 12)


def test_three_stages(cleaned, tmp_path):
    tasks = {1: ["caption"], 3: ["chat"],
             2: ["caption", "grounded_caption", "ocr", "referring", "region_caption", "text", "vqa"]}  # fmt: skip
    for number, expected in tasks.items():
        folder = build(cleaned, tmp_path / f"stage{number}", stage=number)
        assert list(folder.tasks) == expected and folder.stage == number
        assert folder.record["max_sample_tokens"] == (512 if number == 1 else 2048)
        kept = [(r["key"], r["pack"]) for r in ledger(folder) if r["outcome"] == "kept"]
        packed = [(s["key"], p.key) for p in map(folder.__getitem__, range(len(folder))) for s in p.samples]
        assert Counter(k for k, _ in kept) == Counter(k for k, _ in packed)
        assert (
            max(
                Counter(
                    s["key"] + p.task for p in map(folder.__getitem__, range(len(folder))) for s in p.samples
                ).values()
            )
            == 1
        )


def test_images_are_the_original_bytes(cleaned, tmp_path):
    folder = build(cleaned, tmp_path / "s", "--dataset", "grit")
    for pack in map(folder.__getitem__, range(len(folder))):
        for one in pack.samples:
            number = int(one["key"].split("/")[2].partition("-")[0])
            assert [pack.images[i] for i in one["images"]] == [drawn(number)[0].data]


def test_split_by_split_nothing_is_lost(cleaned, tmp_path, small_splits):
    whole = build(cleaned, tmp_path / "s", "--dataset", "gqa", "in-house-text")
    assert len(whole.record["shards"]) >= 6
    keys = [(r["key"], r["outcome"]) for r in ledger(whole)]
    assert sorted({k for k, _ in keys if k.startswith("gqa")}) == sorted(f"gqa/00000/{i:06d}" for i in range(30))
    assert {o for _, o in keys} == {"kept"}


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(cleaned, tmp_path, small_splits):
    one = build(cleaned, tmp_path / "one", workers=0)
    two = build(cleaned, tmp_path / "two", workers=2)
    assert len(one.record["shards"]) > 10
    assert bytes_of(one) == bytes_of(two)


def test_interrupted_and_run_again(cleaned, tmp_path, small_splits, monkeypatch):
    whole = bytes_of(build(cleaned, tmp_path / "whole", "--dataset", "gqa", "grit"))
    real, calls = stage.build_split, []

    def dies(split, sink, recipe):
        calls.append(split.id)
        real(split, sink, recipe)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(build_stage, "build_split", dies)
    with pytest.raises(KeyboardInterrupt):
        build(cleaned, tmp_path / "cut", "--dataset", "gqa", "grit")
    assert not (tmp_path / "cut" / "corpus.json").exists()
    again = build(cleaned, tmp_path / "cut", "--dataset", "gqa", "grit")
    assert len(calls) == len(set(calls)) + 1, "committed splits were built again"
    assert bytes_of(again) == whole


def test_moved_data_is_the_same_data(cleaned, tmp_path, monkeypatch):
    import shutil

    build(cleaned, tmp_path / "s", "--dataset", "gqa")
    shutil.copytree(cleaned, tmp_path / "moved")
    monkeypatch.setattr(build_stage, "build_split", None)  # nothing may be built again
    build(tmp_path / "moved", tmp_path / "s", "--dataset", "gqa")


def test_builds_to_a_url(cleaned, tmp_path):
    """Output on another file system; a second run changes nothing."""
    import fsspec

    memory = fsspec.filesystem("memory")
    local = build(cleaned, tmp_path / "local", "--dataset", "gqa")
    for _ in range(2):
        remote = build(cleaned, "memory://built", "--dataset", "gqa")
        assert remote.digest == local.digest
        assert (remote[0].tokens == local[0].tokens).all() and remote[0].images == local[0].images
        assert remote.tokenizer().fingerprint == local.tokenizer_fingerprint
        assert [path.rpartition("/")[2] for path in memory.ls("/built/tokenizer", detail=False)] == ["ranks.tiktoken"]


def test_other_settings_are_refused(cleaned, tmp_path):
    from corpus.folder import SettingsDiffer

    build(cleaned, tmp_path / "s", "--dataset", "gqa")
    with pytest.raises(SettingsDiffer, match="seed"):
        build(cleaned, tmp_path / "s", "--dataset", "gqa", "--seed", "1")
    build(cleaned, tmp_path / "s", "--dataset", "gqa", "--seed", "1", "--overwrite")


# --- The mixture ---


@given(st.lists(st.text(max_size=8), max_size=40, unique=True), st.floats(0, 3), st.floats(0, 3), st.integers(0, 5))
@settings(max_examples=100)
def test_a_larger_mixture_contains_a_smaller_one(keys, a, b, seed):
    places = positions(keys, "vqa", seed)
    assert ((places >= 0) & (places < 1)).all()
    assert (copies(places, min(a, b)) <= copies(places, max(a, b))).all()
    assert np.isin(copies(places, a), [int(a), int(a) + 1]).all()


def test_ten_per_cent_is_a_subset_of_twenty():
    keys = [f"laion-en/00000/{i:06d}" for i in range(20_000)]
    places = positions(keys, "caption", 0)
    ten, twenty = (set(np.flatnonzero(copies(places, w))) for w in (0.1, 0.2))
    assert ten < twenty
    assert 1850 < len(ten) < 2150 and 3800 < len(twenty) < 4200
    assert (positions(keys[::-1], "caption", 0)[::-1] == places).all()
    assert len(ten & set(np.flatnonzero(copies(positions(keys, "vqa", 0), 0.1)))) < 300, "tasks choose independently"


def test_a_larger_stage_contains_a_smaller_one(cleaned, tmp_path):
    kept = {}
    for count in (2_000_000, 4_000_000, 40_000_000):
        folder = build(cleaned, tmp_path / str(count), "--dataset", "gqa", "--samples", str(count // 25_000))
        kept[count] = {r["key"] for r in ledger(folder) if r["outcome"] == "kept"} if len(folder) else set()
    assert kept[2_000_000] <= kept[4_000_000] <= kept[40_000_000] and len(kept[40_000_000]) > len(kept[2_000_000])


def test_repetition_makes_copies_with_keys_of_their_own(cleaned, tmp_path):
    catalog = load_catalog()
    total = sum(n for d in catalog.values() for n in d.stages.get(2, {}).values())
    wanted = total * 75 // catalog["gqa"].stages[2]["vqa"]  # 75 of gqa's 30 samples: each two or three times
    folder = build(cleaned, tmp_path / "s", "--dataset", "gqa", "--samples", str(wanted))
    keys = Counter(r["key"] for r in ledger(folder) if r["outcome"] == "kept")
    assert max(keys.values()) == 1
    base = Counter(key.removesuffix("-x1").removesuffix("-x2") for key in keys)
    assert set(base.values()) == {2, 3} and len(base) == 30


def together(folder: StageFolder) -> int:
    """How many samples share a pack with a copy of themselves."""
    samples = [[s["key"].partition("-x")[0] for s in folder[i].samples] for i in range(len(folder))]
    return sum(len(keys) - len(set(keys)) for keys in samples)


def test_copies_never_share_a_pack_and_lie_far_apart(cleaned, tmp_path, small_splits, monkeypatch):
    """Twelve samples a split, thirty there: the first copies fill splits of their own before the second begin."""
    flags = ["--dataset", "gqa", "--samples", "120", "--of", "present"]
    folder = build(cleaned, tmp_path / "s", *flags)
    by_shard = [
        {row["key"].partition("-x")[2] for row in pq.read_table(f"{folder.path}/{shard['id']}.parquet").to_pylist()}
        for shard in folder.record["shards"]
    ]
    assert len(by_shard) > 10 and max(map(len, by_shard)) <= 2 and set().union(*by_shard) == {"", "1", "2", "3"}
    assert together(folder) == 0
    monkeypatch.undo()
    whole = build(cleaned, tmp_path / "one", *flags)
    assert len(whole.record["shards"]) == 1 and whole.num_samples == 120 and together(whole) == 0


def test_samples_of_what_is_there_are_that_many(cleaned, tmp_path, capsys):
    folder = build(cleaned, tmp_path / "s", "--dataset", "gqa", "grit", "--samples", "600", "--of", "present")
    mixture = {share["task"]: share for share in folder.record["mixture"]}
    assert sum(share["wanted"] for share in mixture.values()) == pytest.approx(600, abs=2)
    share_of_gqa = mixture["vqa"]["listed"] / sum(share["listed"] for share in mixture.values())
    assert folder.tasks["vqa"]["samples"] == pytest.approx(600 * share_of_gqa, abs=3)
    taken = [row for row in ledger(folder) if row["outcome"] == "kept"]
    assert len({row["key"].partition("-r")[0] + row["dataset"] for row in taken}) <= 600
    assert "MISSING" not in capsys.readouterr().out


def test_what_is_not_chosen_is_in_the_ledger(cleaned, tmp_path):
    catalog = load_catalog()
    total = sum(n for d in catalog.values() for n in d.stages.get(2, {}).values())
    folder = build(
        cleaned, tmp_path / "s", "--dataset", "gqa", "--samples", str(total * 15 // catalog["gqa"].stages[2]["vqa"])
    )
    rows = ledger(folder)
    out = [r for r in rows if r["outcome"] == "dropped"]
    assert len(rows) == 30 and 5 < len(out) < 25
    assert all(r["rule"] == "mixture" and r["value"] >= r["threshold"] == pytest.approx(0.5, abs=0.05) for r in out)


def test_a_dataset_whose_cleaning_has_not_finished_is_refused_or_told_of(tmp_path, capsys):
    write_cleaned(tmp_path / "cleaned", "gqa", [sample("gqa", "vqa", i) for i in range(9)], splits=3)
    OutputFolder(str(tmp_path / "cleaned" / "gqa")).start(5)
    with pytest.raises(UserError, match="gqa is not finished: run its command to the end, or give --unfinished"):
        build(tmp_path / "cleaned", tmp_path / "s")
    stage = build(tmp_path / "cleaned", tmp_path / "s", "--unfinished")
    said = "3 of 5 splits are there, its job is not finished"
    assert said in capsys.readouterr().out and f"- gqa: {said}." in (tmp_path / "s" / "DATACARD.md").read_text()
    assert stage.num_samples == 9


def test_missing_datasets_are_named_and_not_replaced(cleaned, tmp_path, capsys):
    build(cleaned, tmp_path / "s", stage=1)
    out = capsys.readouterr().out
    missing = " ".join(out[out.index("MISSING, and nothing takes their place") :].split())
    assert missing.startswith(
        "MISSING, and nothing takes their place (100 % of the listed samples): laion-en, laion-zh, laion-coco, "
        "datacomp, coyo, cc12m, cc3m, sbu, in-house"
    )
    catalog = load_catalog()
    there = shares(catalog, 2, {"grit": 1000}, samples=76_800)
    assert {s.dataset for s in there if s.expected} == {"grit"}
    assert {s.task: s.wanted for s in there if s.dataset == "grit"} == pytest.approx(
        {"grounded_caption": 3500, "referring": 2980, "region_caption": 2980}, rel=0.03
    )


def test_stage_two_leaves_laion_coco_out():
    assert "laion-coco" in {s.dataset for s in shares(load_catalog(), 1, {})}
    assert "laion-coco" not in {s.dataset for s in shares(load_catalog(), 2, {})}


# --- Bad input ---


def outcomes(tmp_path, samples, dataset="gqa", **options):
    write_cleaned(tmp_path / "cleaned", dataset, samples)
    folder = build(tmp_path / "cleaned", tmp_path / "stage", "--dataset", dataset, **options)
    rows = ledger(folder)
    assert {row["key"].partition("-r")[0] for row in rows} == {one.key for one in samples}, (
        "a sample is not in the ledger"
    )
    return folder, Counter((r["outcome"], r["rule"]) for r in rows)


def test_bad_images_and_answers_are_ledger_rows(tmp_path):
    good, _ = drawn(1)
    broken = bytearray(drawn(2)[0].data)  # a PNG
    broken[len(broken) // 2] ^= 0xFF
    bad = {
        "cut": EncodedImage(good.data[: len(good.data) // 2], "jpg"), "noise": EncodedImage(b"\x00" * 100, "jpg"),
        "empty": EncodedImage(b"", "jpg"), "inside": EncodedImage(bytes(broken), "png"),
    }  # fmt: skip
    samples = [sample("gqa", "vqa", i) for i in range(8)]
    samples += [sample("gqa", "vqa", 100 + i, images=[image]) for i, image in enumerate(bad.values())]
    samples += [sample("gqa", "vqa", 200, annotations={"question": "q", "answer": " "})]
    samples += [sample("gqa", "vqa", 201, annotations={"question": "q", "answer": "long " * 3000})]
    samples += [sample("gqa", "caption", 202)]
    folder, counts = outcomes(tmp_path, samples)
    assert counts == {
        ("kept", None): 8, ("error", "truncated_image"): 1, ("error", "not_an_image"): 2,
        ("error", "undecodable_image"): 1, ("dropped", "empty_answer"): 1, ("dropped", "too_long"): 1,
        ("dropped", "other_task"): 1,
    }  # fmt: skip
    assert folder.num_samples == 8


def test_bad_boxes_are_counted_or_dropped(tmp_path):
    def grounded(number, boxes):
        one = sample("grit", "grounded_caption", number)
        one.annotations = {"regions": [{"text": one.text[:5], "span": [0, 5], "boxes": boxes}]}
        return one

    samples = [
        grounded(0, [[10, 10, 40, 40]]),
        grounded(1, [[10, 10, 40, 40], [40, 40, 10, 10], [500, 500, 600, 600]]),  # inverted; outside
        grounded(2, [[10, 10, 10, 40]]),  # zero width
        grounded(3, [[-20, -20, 30, 500]]),  # reaches out: clipped
    ]
    folder, counts = outcomes(tmp_path, samples, dataset="grit")
    rows = [r for r in ledger(folder) if r["key"].startswith("grit/00000/000001")]
    assert counts[("dropped", "no_valid_box")] == 3 and counts[("kept", None)] == 9  # three tasks each
    assert {r["shapes_dropped"] for r in rows} == {2}


def test_ocr_samples_of_any_source_must_be_legible_if_asked(tmp_path):
    def page(number, text, quad):
        one = sample("synthdog-en", "ocr", number)
        one.annotations = {"lines": [{"text": text, "quad": quad}]}
        return one

    wide = [[2, 2], [90, 2], [90, 20], [2, 20]]  # of 96 pixels
    samples = [
        page(0, "legible words", wide),
        page(1, "words " * 40, wide),  # 1.7 pixels a character
        page(2, "flat words", [[2, 2], [90, 2], [90, 3], [2, 3]]),
    ]
    assert {one.width for one in samples} == {96} and {one.height for one in samples} == {96}
    everything, counts = outcomes(tmp_path / "all", samples, dataset="synthdog-en")
    assert counts == {("kept", None): 3}
    measured = {row["key"][-1]: (row["advance"], row["ink_height"]) for row in ledger(everything)}
    assert measured["0"] == pytest.approx((88 / 13 * 448 / 96, 84)) and measured["1"][0] < 2 and measured["2"][1] < 5
    histograms = json.loads(Path(everything.path, "report.json").read_text())["histograms"]
    assert {"advance", "ink_height"} <= {histogram["name"] for histogram in histograms}
    folder = build(tmp_path / "all" / "cleaned", tmp_path / "some", "--legible-at", "448")
    rows = [(r["outcome"], r["rule"], r["threshold"]) for r in ledger(folder)]
    assert set(rows) == {("kept", None, None), ("dropped", "narrow_text", 6.0), ("dropped", "low_text", 10.0)}


def test_wrong_size_spoils_only_what_has_coordinates(tmp_path):
    folder, counts = outcomes(tmp_path, [sample("grit", "grounded_caption", 0, width=640)], dataset="grit")
    assert counts == {("error", "size_mismatch"): 3} and len(folder) == 0
    with pytest.raises(ValueError, match="holds no packs"):
        folder.index(0, 0)


def test_ten_thousand_regions_and_forty_images(tmp_path):
    crowd = sample("grit", "grounded_caption", 0)
    crowd.annotations = {"regions": [{"text": crowd.text[:5], "span": [0, 5], "boxes": [[i % 80, 0, i % 80 + 10, 9]]}
                                     for i in range(10_000)]}  # fmt: skip
    folder, counts = outcomes(tmp_path / "a", [crowd], dataset="grit")
    assert counts[("dropped", "too_long")] == 1  # the grounded caption with 10,000 boxes
    assert counts[("kept", None)] == 2 * 64 and counts[("dropped", "too_many_regions")] == 2 * (10_000 - 64)
    album = sample("chat-sft", "chat", 0, images=[drawn(i)[0] for i in range(40)])
    album.annotations = {"turns": [{"role": "user", "text": "All?", "images": list(range(40))},
                                   {"role": "assistant", "text": "Yes."}]}  # fmt: skip
    folder, counts = outcomes(tmp_path / "b", [album, sample("chat-sft", "chat", 1)], dataset="chat-sft", stage=3)
    assert counts == {("kept", None): 2}  # 40 images of 18 tokens fit
    capped = build(tmp_path / "b" / "cleaned", tmp_path / "capped", "--max-images", "7", stage=3)
    assert [(r["outcome"], r["rule"], r["value"], r["threshold"]) for r in ledger(capped)] == [
        ("dropped", "too_many_images", 40.0, 7.0), ("kept", None, None, None),
    ]  # fmt: skip


def test_every_slot_gets_its_own_image(tmp_path):
    album = sample("chat-sft", "chat", 0, images=[drawn(i)[0] for i in range(3)])
    album.annotations = {"turns": [{"role": "user", "text": "Compare.", "images": [2, 0]},
                                   {"role": "assistant", "text": "Done."},
                                   {"role": "user", "text": "And this beside the first?", "images": [1, 2]},
                                   {"role": "assistant", "text": "Fine."}]}  # fmt: skip
    folder, _ = outcomes(tmp_path, [album], dataset="chat-sft", stage=3)
    assert folder[0].images == [drawn(i)[0].data for i in (2, 0, 1, 2)]
    assert folder[0].samples[0]["images"] == [0, 1, 2, 3]


def test_a_shard_that_does_not_match_its_ledger_stops_the_job(tmp_path):
    write_cleaned(tmp_path / "cleaned", "gqa", [sample("gqa", "vqa", i) for i in range(4)])
    write_cleaned(tmp_path / "other", "gqa", [sample("gqa", "vqa", i) for i in range(4, 8)])
    for suffix in ("tar", "idx"):
        (tmp_path / "cleaned/gqa" / f"00000.{suffix}").write_bytes(
            (tmp_path / "other/gqa" / f"00000.{suffix}").read_bytes()
        )
    with pytest.raises(ValueError, match="its ledger says gqa/00000/000000: clean it again"):
        build(tmp_path / "cleaned", tmp_path / "s")


def test_lists_of_urls_are_no_images(tmp_path):
    import pyarrow as pa

    from corpus.folder import OutputFolder
    from corpus.ledger import Fuse
    from corpus.splits import URLS, Sink, Split

    folder = OutputFolder(str(tmp_path / "cleaned" / "coyo"))
    folder.prepare({"job": "test"})
    with Sink(folder, Split("00000", {}), scores={}, settings_digest="", fuse=Fuse(), table=URLS) as sink:
        sink.expects([0])
        sink.write_table(pa.table({"key": ["a"]}))
        sink.rows(pa.table({"key": ["a"], "row": [0], "outcome": ["kept"], "rule": pa.array([None], pa.string())}))
        sink.commit()
    with pytest.raises(UserError, match="lists of URLs, no images"):
        build(tmp_path / "cleaned", tmp_path / "s", stage=1)


def test_mistakes_of_the_user_are_explained(tmp_path, cleaned):
    from corpus.catalog import CatalogError

    with pytest.raises(UserError, match="no cleaned data for stage 1"):
        build(tmp_path, tmp_path / "s", stage=1)
    with pytest.raises(CatalogError, match="did you mean 'gqa'"):
        build(cleaned, tmp_path / "s", "--dataset", "qqa")
    with pytest.raises(UserError, match="no such tokenizer|no tokenizer"):
        build(cleaned, tmp_path / "s", "--tokenizer", str(tmp_path / "absent.tiktoken"))
    with pytest.raises(UserError, match="must leave room"):
        build(cleaned, tmp_path / "s", "--queries", "600", stage=1)


def test_the_record_tells_what_is_in_it(cleaned, tmp_path):
    folder = build(cleaned, tmp_path / "s")
    record = json.loads((tmp_path / "s" / "corpus.json").read_text())
    assert record["samples"] == sum(t["samples"] for t in record["tasks"].values())
    assert record["datasets"]["grit"]["referring"]["images"] == record["tasks"]["referring"]["images"]
    assert 0 <= record["padding"] < 1 and record["packs"] == len(folder)
    assert record["padding"] == pytest.approx(1 - record["tokens"] / (record["packs"] * 2048), abs=1e-6)


def test_the_seed_chooses_which_samples_a_mixture_takes():
    keys = [f"laion-en/0/{i:06d}" for i in range(1000)]
    taken = [set(np.flatnonzero(copies(positions(keys, "caption", seed), 0.3))) for seed in (0, 0, 1)]
    assert taken[0] == taken[1] and 250 < len(taken[0]) < 350
    assert len(taken[0] & taken[2]) < 150  # two independent draws share 90


def test_a_sample_as_long_as_a_pack_fits_and_one_token_more_does_not(tmp_path):
    write_cleaned(tmp_path / "data", "gqa", [sample("gqa", "vqa", 0)])
    (row,) = ledger(build(tmp_path / "data", tmp_path / "whole"))
    length = row["tokens"]
    (fits,) = ledger(build(tmp_path / "data", tmp_path / "fits", "--max-tokens", str(length)))
    assert fits["outcome"] == "kept"
    (short,) = ledger(build(tmp_path / "data", tmp_path / "short", "--max-tokens", str(length - 1)))
    assert (short["rule"], short["value"], short["threshold"]) == ("too_long", length, length - 1)


def test_a_dialogue_of_as_many_images_as_a_pack_holds_fits(tmp_path):
    one = sample("gqa", "vqa", 0)
    write_cleaned(tmp_path / "data", "gqa", [one])
    (row,) = ledger(build(tmp_path / "data", tmp_path / "stage", "--max-images", "1"))
    assert (row["outcome"], row["images"]) == ("kept", 1)


@pytest.mark.parametrize(("size", "outcome"), [((120, 60), "kept"), ((60, 120), "error")])
def test_a_size_with_its_sides_exchanged_is_a_wrong_size(size, outcome, tmp_path):
    wide = EncodedImage(jpeg(0, width=120, height=60), "jpg")
    one = sample("grit", "grounded_caption", 0, images=[wide], width=size[0], height=size[1])
    _, counts = outcomes(tmp_path, [one], dataset="grit")
    assert {found for found, _ in counts} == {outcome}
