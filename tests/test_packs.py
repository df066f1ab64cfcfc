"""The reader of stage folders: order, random access, refusals, and that other people's readers read the shards."""

import io
import json
import pickle
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.order import permuted
from corpus.packs import CORPUS, StageFolder, WrongCorpus, pack_from_members, pack_members
from corpus.records import EncodedImage
from corpus.tokens import load_tokenizer
from pipelines import build_stage
from tests.cleaned import sample, write_cleaned

TASKS = {"gqa": "vqa", "grit": "grounded_caption", "in-house-text": "text"}


def build(data, output, *flags):
    """Run build_stage.py in this process."""
    args = ["build_stage.py", "--data", str(data), "--output", str(output), "--workers", "0", "--queries", "16", *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", args)
        build_stage.main()
    return StageFolder(str(output))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage")
    for dataset, task in TASKS.items():
        write_cleaned(root / "cleaned", dataset, [sample(dataset, task, i) for i in range(40)], splits=2)
    return build(root / "cleaned", root / "stage2", "--stage", "2")


@given(st.integers(1, 3000), st.text(max_size=5))
@settings(max_examples=60)
def test_permuted_is_a_permutation(size, key):
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_permuted_mixes_and_needs_no_memory():
    order = np.array([permuted(i, 20_000, "digest/0/0") for i in range(20_000)])
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.03
    assert len({permuted(i, 10**15, "k") for i in range(1000)}) == 1000
    other = np.array([permuted(i, 20_000, "digest/0/1") for i in range(20_000)])
    assert (order == other).mean() < 0.002


def test_every_epoch_sees_every_pack_once(stage):
    n = len(stage)
    for epoch in range(3):
        assert sorted(stage.order(7, epoch)) == list(range(n))
    assert stage.order(7, 0) != stage.order(7, 1) and stage.order(7, 0) != stage.order(8, 0)
    assert stage.order(7, 1, 3) == stage.order(7, 1)[:3]


def test_the_state_is_one_integer(stage):
    stream = [stage.index(0, i) for i in range(2 * len(stage) + 3)]
    resumed = pickle.loads(pickle.dumps(StageFolder(stage.path)))
    assert [resumed.index(0, i) for i in range(5, 2 * len(stage) + 3)] == stream[5:]
    # Three loader workers and two ranks see the same stream, each its share.
    assert sorted(stream[r::6] for r in range(6)) == sorted(
        [resumed.index(0, i) for i in range(r, len(stream), 6)] for r in range(6)
    )


def test_packs_come_back_whole(stage):
    counts = Counter()
    for i in range(len(stage)):
        pack = stage[i]
        counts["packs"] += 1
        counts["samples"] += len(pack.samples)
        counts["tokens"] += len(pack.tokens)
        counts["supervised"] += int(pack.loss.sum())
        counts["images"] += len(pack.images)
        assert pack.tokens.dtype == np.int32 and pack.loss.dtype == bool and len(pack.tokens) <= stage.max_tokens
        starts = [s["start"] for s in pack.samples]
        assert starts == np.cumsum([0, *(s["length"] for s in pack.samples)]).tolist()[:-1]
        assert [j for s in pack.samples for j in s["images"]] == list(range(len(pack.images)))
        assert not pack.loss[starts].any()
    assert {name: stage.record[name] for name in counts} == dict(counts)
    assert sum(t["packs"] for t in stage.tasks.values()) == len(stage)
    assert stage.mean_samples_per_pack == pytest.approx(counts["samples"] / counts["packs"])
    assert list(stage.tasks) == ["grounded_caption", "referring", "region_caption", "text", "vqa"]


def test_the_folder_brings_its_tokenizer(stage):
    tokenizer = stage.tokenizer()
    assert tokenizer.fingerprint == load_tokenizer().fingerprint
    assert "Answer:" in tokenizer.decode(next(stage[i] for i in range(len(stage)) if stage[i].task == "vqa").tokens)


def test_wrong_model_or_tokenizer_is_refused(stage, tmp_path):
    stage.require(queries=16, tokenizer=load_tokenizer())
    with pytest.raises(WrongCorpus, match="--queries 16, the model has 256"):
        stage.require(queries=256)
    other = SimpleNamespace(fingerprint="0" * 32)
    with pytest.raises(WrongCorpus, match="another tokenizer"):
        stage.require(tokenizer=other)


def test_a_shard_made_with_another_tokenizer_is_refused(stage, tmp_path, byte_ranks):
    """A shard of another folder, slipped in under the right name."""
    folder = tmp_path / "mixed"
    shutil.copytree(stage.path, folder)
    write_cleaned(tmp_path / "cleaned", "gqa", [sample("gqa", "vqa", i) for i in range(40)], splits=2)
    build(tmp_path / "cleaned", tmp_path / "other", "--stage", "2", "--tokenizer", str(byte_ranks))
    for suffix in ("tar", "idx", "json", "parquet"):
        shutil.copy(tmp_path / "other" / f"vqa-00000.{suffix}", folder)
    mixed = StageFolder(str(folder))
    with pytest.raises(WrongCorpus, match="vqa-00000.tar is not the shard"):
        [mixed[i] for i in range(len(mixed))]


@pytest.fixture
def byte_ranks(tmp_path):
    """The 256 bytes alone: a valid tokenizer that is not ours."""
    from corpus.tokens import write_ranks

    write_ranks(tmp_path / "bytes.tiktoken", [bytes([b]) for b in range(256)])
    return tmp_path / "bytes.tiktoken"


def test_what_is_no_stage_folder_is_explained(tmp_path, stage):
    with pytest.raises(WrongCorpus, match="no finished stage folder"):
        StageFolder(str(tmp_path))
    (tmp_path / CORPUS).write_text(json.dumps({"format": 99}))
    with pytest.raises(WrongCorpus, match="format 99"):
        StageFolder(str(tmp_path))
    with pytest.raises(IndexError):
        stage[len(stage)]


def test_damage_names_the_shard(stage, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(stage.path, folder)
    tar = folder / "text-00000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    damaged = StageFolder(str(folder))
    with pytest.raises(ValueError, match="text-00000"):
        [damaged[i] for i in range(len(damaged))]


def test_reads_over_fsspec(stage):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(stage.path, "/stage", recursive=True)
    remote = StageFolder("memory://stage")
    assert remote.tokenizer().fingerprint == stage.tokenizer_fingerprint
    for i in (0, len(stage) - 1):
        assert (remote[i].tokens == stage[i].tokens).all() and remote[i].images == stage[i].images


def test_members_round_trip():
    images = [EncodedImage(b"a", "png"), EncodedImage(b"b", "jpg")]
    samples = [{"key": "k", "dataset": "d", "start": 0, "length": 3, "images": [0, 1]}]
    tokens, loss = np.array([5, 6, 7]), np.array([False, True, True])
    members = dict(pack_members("vqa", samples, tokens, loss, images))
    assert list(members) == ["json", "tokens.npy", "loss.npy", "000.png", "001.jpg"]
    pack = pack_from_members("p", members)
    assert (pack.task, pack.samples, pack.images) == ("vqa", samples, [b"a", b"b"])
    assert pack.tokens.tolist() == [5, 6, 7] and pack.tokens.dtype == np.int32 and pack.loss.tolist() == loss.tolist()
    del members["loss.npy"]
    with pytest.raises(ValueError, match="p is no pack"):
        pack_from_members("p", members)


def test_webdataset_reads_the_shards(stage):
    wds = pytest.importorskip("webdataset")
    seen = {}
    for task in stage.tasks:
        dataset = wds.WebDataset(f"{stage.path}/{task}-00000.tar", shardshuffle=False).decode("pil")
        for record in dataset:
            seen[record["__key__"]] = record
    assert len(seen) == len(stage)
    for i in range(len(stage)):
        pack = stage[i]
        record = seen[pack.key]
        assert record["json"]["task"] == pack.task
        assert (record["tokens.npy"] == pack.tokens).all() and (record["loss.npy"] == pack.loss).all()
        pictures = [record[name] for name in sorted(record) if name.rpartition(".")[2] in ("jpg", "png")]
        assert [p.size for p in pictures] == [(96, 96)] * len(pack.images)


def test_huggingface_datasets_reads_the_shards(stage, tmp_path):
    """Packs differ in their number of images, which `datasets` wants to be told: the snippet of docs/stages.md."""
    datasets = pytest.importorskip("datasets")
    one = {"key": datasets.Value("string"), "dataset": datasets.Value("string"), "start": datasets.Value("int32"),
           "length": datasets.Value("int32"), "images": datasets.List(datasets.Value("int32"))}  # fmt: skip
    features = {
        "json": {"task": datasets.Value("string"), "samples": datasets.List(one)},
        "tokens.npy": datasets.List(datasets.Value("int32")),
        "loss.npy": datasets.List(datasets.Value("bool")),
    }
    for i in range(stage.max_images):
        features |= {f"{i:03d}.{ext}": datasets.Image(decode=False) for ext in ("jpg", "png", "webp")}
    features |= {"__key__": datasets.Value("string"), "__url__": datasets.Value("string")}
    for task in ("grounded_caption", "text"):
        table = datasets.load_dataset(
            "webdataset", data_files=f"{stage.path}/{task}-*.tar", split="train", cache_dir=str(tmp_path),
            features=datasets.Features(features),
        )  # fmt: skip
        packs = {p.key: p for p in map(stage.__getitem__, range(len(stage))) if p.task == task}
        assert sorted(table["__key__"]) == sorted(packs)
        for row in table:
            pack = packs[row["__key__"]]
            assert row["tokens.npy"] == pack.tokens.tolist() and row["loss.npy"] == pack.loss.tolist()
            assert row["json"]["samples"] == pack.samples
            pictures = [row[n]["bytes"] for n in sorted(features) if n[:3].isdigit() and row[n] is not None]
            assert pictures == pack.images


def test_plain_tar_opens_a_shard(stage):
    import tarfile

    with tarfile.open(f"{stage.path}/vqa-00000.tar") as tar:
        names = tar.getnames()
        assert names[:4] == [f"vqa-00000/000000.{ext}" for ext in ("json", "tokens.npy", "loss.npy", "000.png")]
        np.load(io.BytesIO(tar.extractfile(names[1]).read()))
