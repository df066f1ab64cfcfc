"""From packs to batches: packing that isolates, masks that hold, and packs that cannot be decoded."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from corpus.packs import StageFolder, WrongCorpus
from corpus.records import BadImage, EncodedImage
from tests.tiny_stage import QUERIES, make_stage
from trainer.attention import IGNORED
from trainer.batch import BadPack, collate, make_row, resize
from trainer.data import PackBatches, Plan, batches, read_row
from trainer.model import VisionLanguageModel
from trainer.sizes import SIZES, with_vocabulary
from trainer.vision import normalise
from trainer.weights import fill, materialise, random_source

TASKS = ("caption", "grounded_caption", "ocr", "text", "chat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return StageFolder(make_stage(tmp_path_factory.mktemp("corpus") / "stage", tasks=TASKS, per_task=6, per_pack=3))


@pytest.fixture(scope="module")
def model(folder):
    tokenizer = folder.tokenizer()
    config = replace(with_vocabulary(SIZES["tiny"].config, tokenizer.vocab_size), image_token=tokenizer.image_pad)
    with torch.device("meta"):
        model = VisionLanguageModel(config)
    materialise(model, "cpu")
    # Larger weights than at the start of training: what leaks from one sample to another shall show.
    random = random_source(config, 0)
    fill(model, [lambda name, shape: random(name, shape) * (4 if len(shape) > 1 else 1)])
    return model


def form(folder, attention):
    return {
        "image_size": 112, "attention": attention, "queries": folder.queries,
        "image_token": folder.tokenizer().image_pad,
    }  # fmt: skip


def pack_of(folder, task):
    return next(pack for pack in map(folder.__getitem__, range(len(folder))) if pack.task == task)


def alone(pack, i):
    """Sample `i` of a pack as a pack of its own."""
    sample = pack.samples[i]
    cut = slice(sample["start"], sample["start"] + sample["length"])
    images = [pack.images[j] for j in sample["images"]]
    own = {**sample, "start": 0, "images": list(range(len(images)))}
    return replace(pack, tokens=pack.tokens[cut], loss=pack.loss[cut], samples=[own], images=images)


def loss_and_gradients(model, rows, count=100):
    """Of the loss summed over the rows, divided by `count` tokens."""
    model.zero_grad()
    loss = model(collate(rows, 112))[0] / count
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_isolated_pack_equals_its_samples_one_by_one(folder, model):
    for task in TASKS:
        pack = pack_of(folder, task)
        packed, gradients = loss_and_gradients(model, [make_row(pack, **form(folder, "isolated"))])
        rows = [make_row(alone(pack, i), **form(folder, "causal")) for i in range(len(pack.samples))]
        total, summed = 0.0, {}
        for row in rows:
            loss, own = loss_and_gradients(model, [row])
            total += loss
            summed = {n: summed.get(n, 0) + g for n, g in own.items()}
        assert abs(packed - total) < 1e-5, task
        assert max(g.abs().max() for g in summed.values()) > 1e-2
        for name, gradient in gradients.items():
            scale = summed[name].abs().max().clamp(min=1.0)  # float32 holds seven digits
            assert (gradient - summed[name]).abs().max() < 1e-5 * scale, (task, name)


def loss_of_last_sample(folder, model, pack, attention):
    row = make_row(pack, **form(folder, attention))
    row.targets[: pack.samples[-1]["start"]] = IGNORED
    with torch.no_grad():
        return model(collate([row], 112))[0].item()


def disturbed(pack, what):
    """The pack with another first sample: other words, or another picture."""
    if what == "words":
        tokens = pack.tokens.copy()
        where = np.flatnonzero(pack.loss[: pack.samples[0]["length"]])[:-1]
        tokens[where] = (tokens[where] + 17) % 1000
        return replace(pack, tokens=tokens)
    grey = io.BytesIO()
    Image.new("RGB", (50, 40), "grey").save(grey, "PNG")
    return replace(pack, images=[grey.getvalue(), *pack.images[1:]])


@pytest.mark.parametrize("what", ["words", "picture"])
def test_what_one_sample_says_reaches_the_next_only_when_causal(folder, model, what):
    pack = pack_of(folder, "grounded_caption")
    for attention, reaches in (("isolated", False), ("causal", True)):
        before, after = (loss_of_last_sample(folder, model, p, attention) for p in (pack, disturbed(pack, what)))
        assert (abs(before - after) > 1e-4) == reaches, attention


def test_rows_of_a_batch_do_not_mix_and_padding_is_inert(folder, model):
    for attention in ("isolated", "causal"):
        rows = [make_row(pack_of(folder, task), **form(folder, attention)) for task in ("text", "ocr", "caption")]
        _, together = model(collate(rows, 112))
        _, padded = model(collate(rows, 112, pad_to=512))
        single = torch.cat([model(collate([row], 112))[1] for row in rows])
        assert torch.allclose(together, single, rtol=1e-5, atol=1e-5)
        assert torch.allclose(padded, single, rtol=1e-5, atol=1e-5)


def test_a_batch_of_pure_text_touches_the_tower_with_no_effect(folder, model):
    row = make_row(pack_of(folder, "text"), **form(folder, "isolated"))
    batch = collate([row], 112)
    assert batch["pixels"].shape == (1, 3, 112, 112) and batch["slots"].numel() == 0
    loss, gradients = loss_and_gradients(model, [row])
    assert np.isfinite(loss)
    assert set(gradients) == {name for name, _ in model.named_parameters()}  # every rank reduces the same gradients
    assert all(not g.any() for name, g in gradients.items() if not name.startswith("language"))
    plain = model.language(batch["tokens"]).logits.flatten(0, 1)[batch["supervised"]]
    # Its samples are isolated in the pack, so only the first one can be compared with a plain forward.
    first = batch["supervised"] < pack_of(folder, "text").samples[0]["length"]
    expected = torch.nn.functional.cross_entropy(plain[first], batch["labels"][first], reduction="sum")
    row.targets[pack_of(folder, "text").samples[0]["length"] :] = IGNORED
    assert model(collate([row], 112))[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_empty_batch_has_no_loss_and_zero_gradients(folder, model):
    model.zero_grad()
    loss, _ = model(collate([], 112))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_long_losses_in_chunks_are_the_same(folder, model, monkeypatch):
    rows = [make_row(pack_of(folder, "ocr"), **form(folder, "isolated"))]
    whole, expected = loss_and_gradients(model, rows)
    monkeypatch.setattr("trainer.loss.CHUNK", 7)
    chunked, gradients = loss_and_gradients(model, rows)
    assert chunked == pytest.approx(whole, rel=1e-6)
    assert all((gradients[n] - g).abs().max() < 1e-5 * max(1, g.abs().max()) for n, g in expected.items())


def test_features_lie_in_the_slots_of_their_own_images(folder, model):
    pack = pack_of(folder, "caption")
    batch = collate([make_row(pack, **form(folder, "isolated"))] * 2, 112)
    with torch.no_grad():
        embeddings = model.embed(batch["tokens"], batch["pixels"], batch["slots"])
        found = model.embed(batch["tokens"], batch["pixels"])  # by looking for <imgpad>
        features = model.image_features(batch["pixels"])
    assert torch.equal(embeddings, found)
    length = len(pack.tokens)
    for i in range(6):
        row, sample = divmod(i, 3)
        start = row * length + pack.samples[sample]["start"] + 1  # behind <img>
        assert torch.equal(embeddings.flatten(0, 1)[start : start + QUERIES], features[i])
    with pytest.raises(ValueError, match="48 image positions for 2 images"):
        model.embed(batch["tokens"][:, :length], batch["pixels"][:2])


def test_generation_with_a_cache_equals_a_full_forward(folder, model):
    row = make_row(alone(pack_of(folder, "caption"), 0), **form(folder, "causal"))
    batch = collate([row], 112, pad_to=1)
    with torch.no_grad():
        embeddings = model.embed(batch["tokens"], batch["pixels"])
        full = model.language(inputs_embeds=embeddings).logits[0, -1]
        start = model.language(inputs_embeds=embeddings[:, :-1], use_cache=True)
        last = model.language(inputs_embeds=embeddings[:, -1:], past_key_values=start.past_key_values, use_cache=True)
    assert (last.logits[0, -1] - full).abs().max() < 1e-4


# ---- pixels -------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_clips_preprocessing_without_its_crop(shared_data):
    transforms = pytest.importorskip("torchvision.transforms")
    path = next(shared_data("image_text/coco").rglob("*.jpg"))
    theirs = transforms.Compose([
        transforms.Resize((112, 112), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])(Image.open(path).convert("RGB"))  # fmt: skip
    ours = normalise(torch.from_numpy(resize(path.read_bytes(), 112).copy())[None])[0]
    difference = (ours - theirs).abs()
    assert difference.max() < 1.01 / 255 / 0.261 and difference.mean() < 0.02 / 255 / 0.261  # 1, and 0.02 grey levels


# ---- damage -------------------------------------------------------------------------------------------------------


def spoiled(tmp_path, bad_keys, data=b"\xff\xd8\xff\xe0 no picture"):
    def spoil(key, i, image):
        return EncodedImage(data, "jpg") if key in bad_keys and i == 1 else image

    return StageFolder(make_stage(tmp_path / "stage", tasks=("caption",), per_task=8, per_pack=2, spoil=spoil))


def stream(folder, workers=0, steps=3, plan=None):
    dataset = PackBatches(
        folder, seed=0, image_size=112, attention="isolated", image_token=folder.tokenizer().image_pad
    )
    return list(batches(dataset, plan or Plan(2, 1), 0, steps, workers, False))


def test_an_undecodable_pack_is_replaced_by_the_next_and_told(tmp_path):
    folder = spoiled(tmp_path, {"caption-0000"})
    bad = next(i for i in range(len(folder)) if folder[i].key == "caption-0000")
    row, replaced = read_row(folder, bad, form(folder, "isolated"))
    assert row.key == folder[bad + 1].key
    assert [(r["pack"], r["by"]) for r in replaced] == [("caption-0000", row.key)]
    assert replaced[0]["error"] in ("undecodable_image", "truncated_image")
    once, again = stream(folder), stream(folder)
    assert sum(len(b["replaced"]) for b in once) > 0
    assert [b["rows"] for b in once] == [b["rows"] for b in again]


def test_a_corpus_without_one_good_pack_is_an_error(tmp_path):
    folder = spoiled(tmp_path, {f"caption-{i:04d}" for i in range(0, 8, 2)})
    with pytest.raises(ValueError, match=r"17 packs in a row cannot be decoded, from caption-0000"):
        read_row(folder, 0, form(folder, "isolated"))


def test_a_bomb_is_refused_from_its_header(shared_data):
    bombs = sorted(p for p in shared_data("images_bad").rglob("*") if "bomb" in p.name.lower())
    if not bombs:
        pytest.skip("no decompression bomb among the test data")
    for bomb in bombs:
        with pytest.raises(BadImage):
            resize(bomb.read_bytes(), 112)


def test_a_pack_that_contradicts_itself_is_named(folder):
    pack = pack_of(folder, "caption")
    with pytest.raises(BadPack, match=f"{pack.key}.*without gaps"):
        make_row(replace(pack, tokens=pack.tokens[:-1]), **form(folder, "causal"))
    with pytest.raises(BadPack, match=f"{pack.key}.*48 image positions and 2 images"):
        make_row(replace(pack, images=pack.images[:2]), **form(folder, "causal"))
    with pytest.raises(BadPack, match="of 25 queries"):
        make_row(pack, **(form(folder, "causal") | {"queries": 25}))


def test_a_truncated_shard_is_named(tmp_path):
    path = make_stage(tmp_path / "stage", tasks=("caption",), per_task=8, per_pack=2)
    tar = path / "mixed-00001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises((WrongCorpus, ValueError), match="mixed-00001|caption-"):
        stream(StageFolder(path), steps=2)


# ---- the stream ---------------------------------------------------------------------------------------------------


def keys(parts):
    return [[row["key"] for row in batch["rows"]] for batch in parts]


def test_workers_change_nothing(folder):
    inline, two = stream(folder), stream(folder, workers=2)
    assert keys(inline) == keys(two)
    for a, b in zip(inline, two, strict=True):
        assert torch.equal(a["pixels"], b["pixels"]) and torch.equal(a["tokens"], b["tokens"])


def test_ranks_see_the_same_packs_in_the_same_steps(folder):
    alone = keys(stream(folder, plan=Plan(4, 1), steps=4))
    ranks = [keys(stream(folder, plan=Plan(4, 1, rank, 2), steps=4)) for rank in range(2)]
    for step in range(4):
        both = [key for rank in ranks for batch in rank[2 * step : 2 * step + 2] for key in batch]
        assert sorted(both) == sorted(key for batch in alone[4 * step : 4 * step + 4] for key in batch)


@pytest.mark.parametrize("size", [112, 224, 448])
@pytest.mark.parametrize("shape", [(640, 427), (100, 300), (224, 224), (31, 17)])
def test_resized_pixels_are_pillows_but_for_roundings(size, shape):
    """Of smooth noise with hard edges, whatever the direction: 0.1 grey levels on average, and nothing shifted."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    picture = np.array(coarse)
    picture[: shape[1] // 3, : shape[0] // 4] = (255, 0, 128)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    theirs = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    difference = np.abs(resize(file.getvalue(), size).astype(int) - theirs)
    assert difference.mean() < 0.1 and difference.max() <= 16, (difference.mean(), difference.max())
