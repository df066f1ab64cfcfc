"""CLIP scores: exact, independent of the batch, errors where an image is none; the jobs that use them."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cleaners import clip
from corpus.catalog import DEFAULT
from corpus.records import BadImage, EncodedImage, Sample, from_members, to_members
from corpus.shards import IndexedShard, ShardWriter
from pipelines import clean_laion, fetch_images, score_clip
from pipelines.proof.bad_server import reply
from pipelines.proof.scenes.scene import scene
from tests.folders import ledger, of_split

torch = pytest.importorskip("torch")
FLOOR = 0.45  # of the tiny model


@pytest.fixture(scope="module")
def tiny():
    torch.set_num_threads(1)
    return clip.load("tiny")


def jpeg(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def scenes(count: int, start: str = "test") -> list[tuple[bytes, str]]:
    drawn = [scene(f"{start}/{i}", 160) for i in range(count)]
    return [(jpeg(s.image), s.caption_zh if i % 3 == 0 else s.caption_en) for i, s in enumerate(drawn)]


def test_matched_pairs_score_above_shuffled_ones(tiny):
    pairs = scenes(300)
    matched = np.array(list(clip.score_stream(tiny, pairs)))
    shuffled = [(pairs[i][0], pairs[(i + 7) % 300][1]) for i in range(300) if pairs[i][1] != pairs[(i + 7) % 300][1]]
    wrong = np.array(list(clip.score_stream(tiny, shuffled)))
    assert (matched[:, None] > wrong[None]).mean() > 0.95
    assert (matched >= FLOOR).mean() > 0.97 and (wrong >= FLOOR).mean() < 0.2


def test_the_shipped_figures_are_those_of_the_shipped_weights():
    figures = json.loads((clip.TINY / "figures.json").read_text())
    assert figures["auc"] > 0.95 and figures["pairs"] >= 1000
    assert (clip.TINY / "open_clip_model.safetensors").stat().st_size < 5_000_000


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("bf16", 1e-3)])
def test_a_score_does_not_depend_on_its_batch(tiny, precision, tolerance):
    model = tiny if precision == "fp32" else clip.load("tiny", precision=precision)
    pairs = scenes(70)
    pairs[3] = (pairs[3][0], "x")  # captions of very different lengths in one batch
    pairs[5] = (pairs[5][0], "a red circle and " * 30)
    together = np.array(list(clip.score_stream(model, pairs)))
    backwards = np.array(list(clip.score_stream(model, pairs[::-1])))[::-1]
    alone = np.array([next(clip.score_stream(model, [pair])) for pair in pairs[:12]])
    assert np.abs(together - backwards).max() <= tolerance
    assert np.abs(together[:12] - alone).max() <= tolerance


def test_scores_are_those_of_open_clip_used_by_the_book(tiny):
    import open_clip

    pairs = scenes(40)
    name, _ = clip.parse_spec("tiny")
    model, _, transform = open_clip.create_model_and_transforms(name)
    with torch.no_grad():
        images = torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data, _ in pairs])
        images = model.eval().encode_image(images, normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(name)([text for _, text in pairs]), normalize=True)
    expected = (images * texts).sum(dim=1).numpy()
    assert np.abs(np.array(list(clip.score_stream(tiny, pairs))) - expected).max() < 1e-5


@pytest.mark.parametrize("custom_text", [False, True])
def test_cutting_the_text_is_exact_for_both_of_open_clip_s_layouts(custom_text):
    import open_clip

    torch.manual_seed(0)
    name, _ = clip.parse_spec("tiny")
    model = open_clip.create_model(name, load_weights=False, force_custom_text=custom_text).eval()
    tokens = open_clip.get_tokenizer(name)(["a red circle", "two blue stars to the left of a green heart"])
    width = int(tokens.argmax(dim=1).max()) + 1
    with torch.no_grad():
        whole, cut = model.encode_text(tokens), clip.encode_text(model, tokens[:, :width])
    assert width < tokens.shape[1] and torch.allclose(whole, cut, atol=1e-5)


def test_bad_images_are_errors_in_their_place(tiny):
    pairs = scenes(6)
    good = list(clip.score_stream(tiny, pairs))
    pairs[1:1] = [(b"", "nothing"), (b"<html>", "page"), (pairs[0][0][:-200], "cut")]
    results = list(clip.score_stream(tiny, pairs))
    assert [type(r) for r in results[1:4]] == [BadImage] * 3
    assert [r.kind for r in results[1:4]] == ["not_an_image", "not_an_image", "truncated_image"]
    assert results[:1] + results[4:] == pytest.approx(good, abs=1e-5)


def test_memory_is_bounded_by_windows_not_by_the_input(tiny):
    taken = []

    def endless():
        pair = scenes(1)[0]
        while True:
            taken.append(1)
            yield pair

    results = clip.score_stream(tiny, endless())
    next(results)
    assert len(taken) <= 5 * 4 * tiny.batch
    results.close()


@pytest.mark.parametrize("spec", ["ViT-B-32", "No-Such-Model:laion2b", "ViT-B-32:no_such_weights", "/no/such/folder"])
def test_models_that_are_not_there(spec):
    with pytest.raises(ValueError):
        clip.load(spec)


def test_fingerprints_follow_the_weights(tmp_path):
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    before = clip.fingerprint(str(tmp_path))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"{ }")
    assert clip.fingerprint(str(tmp_path)) != before
    assert clip.fingerprint("ViT-B-32:laion2b_s34b_b79k") == "ViT-B-32:laion2b_s34b_b79k"


def test_the_training_script_makes_a_model_that_open_clip_reads_and_that_learns(tmp_path):
    from pipelines.work import tiny_clip as train

    model, transform, tokenize = train.build(tmp_path, None)
    tokens = tokenize(["a red circle", "左边有一个小的绿色心形" * 9])
    assert (tokens.max(dim=1).values == train.MODEL["text_cfg"]["vocab_size"] - 1).all()  # <eos>, also when cut
    pairs = [train.pair(f"train/{i}", []) for i in range(24)]
    pixels, captions = torch.stack([transform(p.image) for p in pairs]), [p.caption for p in pairs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        texts = train.encode_texts(model, tokenize, captions)
        losses.append(train.train_step(model, optimizer, pixels, texts, [p.subject for p in pairs]))
    assert losses[-1] < 0.7 * losses[0]
    train.save_half(model, tmp_path / "open_clip_model.safetensors")
    loaded = clip.load(str(tmp_path))
    assert len(list(clip.score_stream(loaded, scenes(3)))) == 3


def test_pairs_of_one_subject_are_no_mismatches():
    from pipelines.work.tiny_clip import auc, contrastive_loss, others

    features = torch.nn.functional.normalize(torch.eye(4)[[0, 0, 1, 2]], dim=1)
    assert contrastive_loss(features, features, ["a", "a", "b", "c"], 50.0) < 1e-6
    assert contrastive_loss(features, features, ["a", "d", "b", "c"], 50.0) > 0.1
    assert others(["a", "a", "b", "a"]) == [2, 2, 3, 2]
    assert auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(3.5 / 4)


# --- The jobs ---


@pytest.fixture
def catalog(tmp_path) -> Path:
    """The shipped catalog with the tiny model's threshold for one dataset, and none for another."""
    tree = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    tree["laion-en"]["rules"] = {"html": {}, "clip_score": {"min": FLOOR}}
    tree["coyo"]["rules"] = {}
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({name: tree[name] for name in ("laion-en", "coyo")}))
    return path


@pytest.fixture
def shard(tmp_path) -> Path:
    """40 scenes, every fourth with the caption of another; one image is cut inside, one sample has no text."""
    pairs = scenes(42, "jobs")
    samples = []
    for i, (image, text) in enumerate(pairs[:40]):
        text = pairs[i + 2][1] if i % 4 == 0 else text
        image = image[:300] + image[-200:] if i == 7 else image
        samples.append(Sample(
            key=f"laion-en/00000/{i:06d}", dataset="laion-en", task="caption", language="en",
            text="" if i == 9 else text, width=160, height=160, images=[EncodedImage(image, "jpg")],
        ))  # fmt: skip
    path = tmp_path / "in.tar"
    with path.open("wb") as file:
        writer = ShardWriter(file)
        for sample in samples:
            writer.write(sample.key, to_members(sample))
        writer.close()
    return path


def run(monkeypatch, job, *flags) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py", "--workers", "0", *map(str, flags)])
    job.main()


def test_score_clip_drops_what_does_not_match(tmp_path, monkeypatch, catalog, shard, tiny):
    flags = ["--input", shard, "--catalog", catalog, "--clip", "tiny"]
    run(monkeypatch, score_clip, *flags, "--dataset", "laion-en", "--output", tmp_path / "scored")
    rows = ledger(tmp_path / "scored")
    dropped = {row["row"] for row in rows if row["rule"] == "clip_score"}
    assert len(rows) == 40 and len(dropped - set(range(0, 40, 4))) <= 1 and len(dropped) >= 7
    assert (rows[7]["outcome"], rows[9]["rule"]) == ("error", "not_a_pair")
    kept = IndexedShard(str(of_split(tmp_path / "scored", "tar")))
    first, row = from_members(kept[0][1]), next(row for row in rows if row["outcome"] == "kept")
    assert first.scores["clip"] == row["clip_score"] >= FLOOR
    run(monkeypatch, score_clip, *flags, "--dataset", "coyo", "--output", tmp_path / "all")
    assert {row["outcome"] for row in ledger(tmp_path / "all")} == {"kept", "error"}


def test_clean_laion_scores_in_place_and_agrees(tmp_path, monkeypatch, catalog, shard):
    flags = ["--dataset", "laion-en", "--catalog", catalog, "--clip", "tiny"]
    run(monkeypatch, clean_laion, *flags, "--input", shard, "--output", tmp_path / "cleaned")
    run(monkeypatch, score_clip, *flags, "--input", shard, "--output", tmp_path / "scored")
    cleaned, scored = ledger(tmp_path / "cleaned"), ledger(tmp_path / "scored")
    same = [(a, b) for a, b in zip(cleaned, scored, strict=True) if a["clip_score"] is not None]
    assert len(same) >= 37
    for a, b in same:
        assert a["clip_score"] == pytest.approx(b["clip_score"], abs=1e-5) and a["outcome"] == b["outcome"]
    assert cleaned[7]["outcome"] == "error" and cleaned[9]["rule"] == "no_text"
    # A shard that was scored before is not scored again: its score is taken.
    scored = of_split(tmp_path / "scored", "tar")
    run(monkeypatch, clean_laion, *flags[:4], "--input", scored, "--output", tmp_path / "second")
    assert {row["outcome"] for row in ledger(tmp_path / "second")} == {"kept"}


def test_from_urls_to_scored_pairs(tmp_path, monkeypatch, catalog):
    """Metadata mode, download, and the image rules with CLIP: keys lead from end to end, no row is lost."""
    import pyarrow as pa

    from pipelines.proof.bad_server import ANSWERS, BadServer

    pairs = scenes(30, "chain")
    monkeypatch.setitem(ANSWERS, "pair", lambda rest: reply("200 OK", pairs[int(rest)][0]))
    with BadServer() as server:
        urls = [server.url(f"/pair/{i}" if i % 5 else "/absent") for i in range(30)]
        texts = [None if i == 1 else text for i, (_, text) in enumerate(pairs)]
        pq.write_table(pa.table({"URL": urls, "TEXT": texts}), tmp_path / "raw.parquet")
        common = ["--dataset", "laion-en", "--catalog", catalog]
        run(monkeypatch, clean_laion, *common, "--input", tmp_path / "raw.parquet", "--output", tmp_path / "a")
        run(monkeypatch, fetch_images, *common, "--input", tmp_path / "a/*.urls.parquet", "--output", tmp_path / "b",
            "--allow-private")  # fmt: skip
    common += ["--clip", "tiny"]
    run(monkeypatch, clean_laion, *common, "--input", tmp_path / "b/*.tar", "--output", tmp_path / "c")
    first, second, third = (ledger(tmp_path / name) for name in "abc")
    assert (len(first), len(second), len(third)) == (30, 29, 29)
    kept = {row["key"]: row for row in third if row["outcome"] == "kept"}
    assert len(kept) >= 20
    steps = [{row["key"]: row for row in step} for step in (first, second)]
    for row in third:  # also those that were not downloaded
        began = steps[0][steps[1][row["source_key"]]["source_key"]]
        assert row["text_before"] in (None, texts[began["row"]])
    assert sum(row["rule"] == "not_downloaded" for row in third) == 6
    assert all(row["clip_score"] >= FLOOR for row in kept.values())
