"""What was committed does not rot unseen: every reader notices a flipped bit, and verify.py names it and mends it."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from corpus.damage import CorruptSample, Damaged
from corpus.folder import OutputFolder
from corpus.packs import StageFolder, WrongCorpus
from corpus.readers.images import open_images
from corpus.readers.rows import ImageRef
from corpus.records import BadImage, to_members
from corpus.shards import IndexedShard, ShardWriter, read_samples
from pipelines import dedup, report, retune, verify
from pipelines.engine import job
from pipelines.work import slices
from tests.cleaned import sample, write_cleaned
from tests.folders import ledger, of_split, split_ids
from tests.test_build_stage import build, bytes_of
from tests.test_clean_laion import CAPTION, clean, jpeg, shard
from tests.test_job import contents
from tests.test_shards import flip
from tests.tiny_stage import make_stage
from trainer import checkpoint, export, exports
from trainer.data import MAX_CORRUPT
from trainer.load import load_run
from trainer.progress import read_metrics
from trainer.run import Job, run_stage

FLAGS = {"batch": 4, "steps": 4, "save_every": 2, "deterministic": True}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A cleaned folder of one dataset, a stage made of it, and a short training."""
    root = tmp_path_factory.mktemp("original")
    write_cleaned(root / "cleaned", "gqa", [sample("gqa", "vqa", i) for i in range(24)], splits=2)
    build(root / "cleaned", root / "stage")
    corpus = make_stage(root / "packs", stage=1, tasks=("caption",), per_task=16)
    torch.set_num_threads(1)
    run_stage(Job(stage=1, data=str(corpus), output=root / "run", flags=FLAGS))
    return root


@pytest.fixture
def copy(original, tmp_path):
    """The same, to be harmed."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def run_verify(*arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["verify.py", *map(str, arguments)])
        try:
            verify.main()
        except SystemExit as error:
            return error.code
    return 0


def command(module, *arguments) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x.py", *map(str, arguments)])
        module.main()


def middle(path: Path, byte: bytes) -> int:
    """A bit inside a file, of the first place where some bytes stand."""
    return path.read_bytes().index(byte) * 8 + 2


# ---- every reader ----------------------------------------------------------------------------------------------------


def read_shard_at_random(path: Path) -> None:
    found = IndexedShard(str(path.with_suffix(".tar")))
    for i in range(len(found)):
        found[i]


def read_shard_in_order(path: Path) -> None:
    for raw in read_samples(str(path.with_suffix(".tar"))):
        if raw.problem:
            raise CorruptSample(raw.detail)


def read_ledger(path: Path) -> None:
    folder = OutputFolder(str(path.parent))
    folder.table(folder.manifest(path.stem))


def read_checkpoint(path: Path) -> None:
    if wrong := checkpoint.damage(path.parent):
        raise Damaged(wrong[0])


READERS = {
    "cleaned/gqa/*.tar": (read_shard_at_random, read_shard_in_order),
    "cleaned/gqa/*.idx": (read_shard_at_random, read_shard_in_order),
    "cleaned/gqa/*.parquet": (read_ledger,),
    "cleaned/gqa/0*.json": (read_ledger,),
    "stage/*.tar": (read_shard_at_random,),
    "stage/*.idx": (read_shard_at_random,),
    "stage/*.parquet": (read_ledger,),
    "run/checkpoints/step-*/*": (read_checkpoint,),
    "run/checkpoints/step-*/.metadata": (read_checkpoint,),
}


def flips_noticed(root: Path, flips: int, seed: int) -> dict[str, int]:
    """Flip single bits, one at a time, in turn in each kind of file; count those that each reader, and verify, saw."""
    rng, seen = random.Random(seed), {"flips": 0, "readers": 0, "verify": 0}
    kinds = {pattern: sorted(p for p in root.glob(pattern) if p.is_file()) for pattern in READERS}
    assert all(kinds.values()), kinds
    for number in range(flips):
        pattern = list(READERS)[number % len(READERS)]
        path = rng.choice(kinds[pattern])
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        noticed = [raises(reader, path) for reader in READERS[pattern]]
        seen["flips"] += 1
        seen["readers"] += all(noticed)
        seen["verify"] += any(check() for check in verify._checks(str(path.parent)))
        assert all(noticed), f"seed {seed}: bit {bit} of {path} went unseen by {READERS[pattern]}"
        flip(path, bit)
    return seen


def raises(reader, path: Path) -> bool:
    try:
        reader(path)
    except (Damaged, WrongCorpus):
        return True
    return False


def test_flipped_bits_are_noticed_by_the_next_reader(copy):
    assert flips_noticed(copy, 45, seed=1) == {"flips": 45, "readers": 45, "verify": 45}
    for patterns, readers in READERS.items():  # none of them cries wolf
        assert not any(raises(reader, path) for path in copy.glob(patterns) for reader in readers)


@pytest.mark.slow
def test_300_of_300_flipped_bits_are_noticed(copy):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    assert flips_noticed(copy, 300, seed) == {"flips": 300, "readers": 300, "verify": 300}


def test_a_flip_in_what_a_manifest_says_is_noticed(copy):
    path = copy / "cleaned/gqa/00000.json"
    path.write_text(path.read_text().replace('"kept": 12', '"kept": 13'))
    with pytest.raises(Damaged, match=r"00000.json .*does not match its own digest.*verify.py .*/gqa --discard"):
        OutputFolder(str(copy / "cleaned/gqa")).manifests()


# ---- jobs ------------------------------------------------------------------------------------------------------------


def test_build_stage_leaves_a_rotten_sample_out_and_takes_it_back_when_it_is_mended(copy, tmp_path):
    tar, whole = copy / "cleaned/gqa/00001.tar", bytes_of(StageFolder(str(copy / "stage")))
    bit = middle(tar, b'"question"')
    flip(tar, bit)
    folder = build(copy / "cleaned", tmp_path / "stage")
    (shard,) = folder.record["shards"]
    rows = pq.read_table(tmp_path / "stage" / f"{shard['id']}.parquet").to_pylist()
    (lost,) = [row for row in rows if row["outcome"] != "kept"]
    assert (lost["key"], lost["rule"]) == ("gqa/00000/000001", "corrupt_sample")
    assert "00001.tar: sample 0 is damaged" in lost["detail"] and "verify.py" in lost["detail"]
    flip(tar, bit)
    assert bytes_of(build(copy / "cleaned", tmp_path / "stage")) == whole


def test_build_stage_refuses_a_damaged_index_ledger_or_manifest(copy, tmp_path):
    for suffix in ("idx", "parquet", "json"):
        path = copy / "cleaned/gqa" / f"00000.{suffix}"
        bit = middle(path, b'"kept"') if suffix == "json" else 1234
        flip(path, bit)
        slices.kept_keys.cache_clear()
        with pytest.raises(Damaged, match=f"00000.{suffix} .*verify.py .* --discard"):
            build(copy / "cleaned", tmp_path / suffix)
        with pytest.raises(SystemExit, match=f"error: .*00000.{suffix} "):  # no traceback
            job.main(lambda suffix=suffix: build(copy / "cleaned", tmp_path / suffix, "--overwrite"))
        flip(path, bit)


@pytest.fixture
def pairs(tmp_path):
    """Two shards of pairs, cleaned into `out`."""
    for name in "ab":
        shard(tmp_path / f"{name}.tar", [(jpeg(), CAPTION, {"similarity": 0.3 + i / 100}) for i in range(4)])
    clean(tmp_path, tmp_path / "*.tar")
    return tmp_path


def rules_of(folder: Path) -> list[str | None]:
    return [row["rule"] for row in ledger(folder)]


def test_jobs_over_cleaned_shards_record_what_rotted(pairs, capsys):
    tar = of_split(pairs / "out", "tar", 1)
    flip(tar, int(IndexedShard(str(tar))._index.offsets[1]) * 8 + 5000)
    retuned = ["--set", "clip_score.min=0.305", "--workers", "0", "--output"]
    command(retune, pairs / "out", *retuned, pairs / "retuned")
    assert rules_of(pairs / "retuned")[4:] == ["clip_score", "corrupt_sample", None, None]
    apart = ["--each-other", "--workers", "0", "--output", pairs / "apart", "--dataset", "laion-en"]
    command(dedup, "--input", tar, *apart)
    assert rules_of(pairs / "apart").count("corrupt_sample") == 1
    capsys.readouterr()
    command(report, pairs / "out")
    assert f"{tar}: sample 1 is damaged" in capsys.readouterr().out


def test_images_found_in_a_shard_by_name_are_verified_too(copy):
    tar = copy / "cleaned/gqa/00000.tar"
    flip(tar, int(IndexedShard(str(tar))._index.offsets[2]) * 8 + 9000)
    store = open_images(str(copy / "cleaned/gqa"))
    assert store.read(ImageRef(names=("gqa/00000/000002.png",)))
    with pytest.raises(BadImage, match="does not match its checksum.*verify.py"):
        store.read(ImageRef(names=("gqa/00000/000004.png",)))


def test_a_damaged_ledger_stops_retune_and_report(pairs):
    path = of_split(pairs / "out", "parquet")
    flip(path, 999)
    for module, *arguments in ((retune, "--set", "clip_score.min=0.3", "--output", pairs / "r"), (report,)):
        with pytest.raises(Damaged, match=f"{path.name} is not what its manifest says"):
            command(module, pairs / "out", *arguments)


def test_a_split_whose_files_are_gone_or_cut_is_made_again(pairs):
    whole = contents(pairs / "out")
    of_split(pairs / "out", "idx").unlink()
    with open(of_split(pairs / "out", "tar", 1), "r+b") as file:
        file.truncate(1000)
    clean(pairs, pairs / "*.tar")
    assert contents(pairs / "out") == whole


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_rows_that_claim_one_key_are_samples_of_their_own(tmp_path):
    claimed = ["laion-en/00000/000001"] * 3 + ["../../etc/passwd", "\ud800", 7, None, "x" * 9000]
    shard(tmp_path / "a.tar", [(jpeg(), CAPTION, {"similarity": 0.4, "sample_key": key}) for key in claimed])
    rows, samples = clean(tmp_path, tmp_path / "a.tar")
    assert [row["outcome"] for row in rows] == ["kept"] * 8
    assert list(samples) == [f"laion-en/{split_ids(tmp_path / 'out')[0]}/{i:06d}" for i in range(8)]
    found = [sample.source.get("sample_key") for sample in samples.values()]
    assert found == [*claimed[:4], "\ufffd", None, None, "x" * 500]
    assert [row["source_key"] for row in rows][:5] == found[:5]


@pytest.mark.parametrize("key", ["gqa/00000/000000", "../../etc/passwd", 3])
def test_a_sample_under_a_key_that_is_not_its_own_is_an_error(tmp_path, key):
    stranger = sample("gqa", "caption", 0, key="gqa/00000/000001")
    members = [
        (ext, data.replace(b'"gqa/00000/000001"', json.dumps(key).encode())) for ext, data in to_members(stranger)
    ]
    with open(tmp_path / "in.tar", "wb") as file:
        writer = ShardWriter(file)
        writer.write("gqa/00000/000001" if key != "../../etc/passwd" else key.replace("..", "__"), members)
        writer.close()
    command(dedup, "--input", tmp_path / "in.tar", "--each-other", "--workers", "0", "--output", tmp_path / "apart")
    assert rules_of(tmp_path / "apart") == ["bad_sample"]


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong_with_what_is_whole(copy, capsys):
    assert run_verify(copy) == 0
    assert "0 damaged" in capsys.readouterr().out
    with pytest.raises(job.UserError, match="nothing there"):
        run_verify(copy / "packs/tokenizer")


def test_verify_names_file_sample_and_command(copy, capsys):
    tar = copy / "cleaned/gqa/00001.tar"
    flip(tar, middle(tar, b'"question"'))
    (copy / "stage/vqa-00000.parquet").unlink()
    weights = next((copy / "run/checkpoints/step-00000004").glob("*.distcp"))
    flip(weights, 8000)
    assert run_verify(copy, "--workers", "2") == 1
    said = capsys.readouterr().out
    assert f"DAMAGED {tar} was altered (sample 0 of 12)" in said
    assert f"DAMAGED {copy}/stage/vqa-00000.parquet is missing" in said
    assert f"python pipelines/build_stage.py ... --output {copy}/stage" in said
    assert f"DAMAGED {weights} was altered" in said and "the checkpoint before" in said
    assert "3 damaged" in said


def test_discarded_splits_and_no_others_are_made_again(pairs, capsys):
    whole = contents(pairs / "out")
    untouched, tar = of_split(pairs / "out", "tar"), of_split(pairs / "out", "tar", 1)
    written = untouched.stat().st_mtime_ns
    flip(tar, 4321)
    flip(tar.with_suffix(".idx"), 321)
    assert run_verify(pairs / "out", "--discard") == 1
    assert not tar.with_suffix(".json").exists()
    assert (
        "discarded; now run again, with the same arguments: python pipelines/clean_laion.py" in capsys.readouterr().out
    )
    clean(pairs, pairs / "*.tar")
    assert run_verify(pairs / "out") == 0 and contents(pairs / "out") == whole
    assert untouched.stat().st_mtime_ns == written


def test_verify_follows_a_stage_to_its_corpus_and_tokenizer(copy, tmp_path, capsys):
    record = copy / "stage/corpus.json"
    whole = record.read_bytes()
    record.write_bytes(whole.replace(b'"queries": 16', b'"queries": 17'))
    with pytest.raises(ValueError, match="corpus.json is damaged.*build_stage.py"):
        StageFolder(str(copy / "stage"))
    assert run_verify(copy / "stage", "--discard") == 1 and not record.exists()
    build(copy / "cleaned", copy / "stage")
    assert record.read_bytes() == whole
    ranks = next((copy / "stage/tokenizer").glob("*.tiktoken"))
    lines = ranks.read_bytes().splitlines(keepends=True)
    ranks.write_bytes(b"".join([lines[0].split()[0] + b" 1\n", lines[1].split()[0] + b" 0\n", *lines[2:]]))
    capsys.readouterr()
    assert run_verify(copy / "stage") == 1
    assert "tokenizer" in capsys.readouterr().out


def test_verify_reads_remote_folders(copy, capsys):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.put(str(copy / "cleaned"), "/verified", recursive=True)
    assert run_verify("memory://verified") == 0
    path = next(path for path in fs.find("/verified") if path.endswith("00001.tar"))
    data = fs.cat_file(path)
    fs.pipe(path, data[:700] + bytes([data[700] ^ 1]) + data[701:])
    assert run_verify("memory://verified") == 1
    assert "00001.tar was altered (sample 0 of 12)" in capsys.readouterr().out
    fs.rm("/verified", recursive=True)


def test_verify_is_a_command_with_an_exit_status(copy, tmp_path):
    root = Path(__file__).resolve().parent.parent
    flip(copy / "cleaned/gqa/00000.tar", 600)
    assert os.system(f"{sys.executable} {root}/pipelines/verify.py {copy}/cleaned > {tmp_path}/said") >> 8 == 1
    assert "DAMAGED" in (tmp_path / "said").read_text()


# ---- training --------------------------------------------------------------------------------------------------------


def spoil(folder: Path, packs: int) -> None:
    """Flip a bit in each of the first packs of every shard."""
    for tar in sorted(folder.glob("*.tar")):
        shard = IndexedShard(str(tar))
        for i in range(min(packs, len(shard))):
            flip(tar, int(shard._index.offsets[i]) * 8 + 12_345)


def test_training_replaces_a_rotten_pack_and_says_so(tmp_path):
    corpus = make_stage(tmp_path / "packs", stage=1, tasks=("caption",), per_task=16, shards=1)
    spoil(corpus, 1)
    run_stage(Job(stage=1, data=str(corpus), output=tmp_path / "run", flags=FLAGS))
    replaced = [entry for record in read_metrics(tmp_path / "run") for entry in record.get("replaced_packs", [])]
    assert {(entry["pack"], entry["error"]) for entry in replaced} == {("mixed-00000.tar sample 0", "corrupt_sample")}
    assert "mixed-00000.tar: sample 0 is damaged" in replaced[0]["detail"]


def test_training_stops_when_packs_rot_one_after_another(tmp_path):
    corpus = make_stage(tmp_path / "packs", stage=1, tasks=("caption",), per_task=48, per_pack=2, shards=1)
    spoil(corpus, MAX_CORRUPT + 1)
    flags = FLAGS | {"batch": 24, "steps": 8}
    with pytest.raises(ValueError, match=rf"{MAX_CORRUPT + 1} packs do not match their checksums: .*verify.py"):
        run_stage(Job(stage=1, data=str(corpus), output=tmp_path / "run", flags=flags))


@pytest.mark.parametrize("harm", ["flip", "cut", "state", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(copy, harm, capsys):
    newest = copy / "run/checkpoints/step-00000004"
    weights = next(newest.glob("*.distcp"))
    if harm == "flip":
        flip(weights, 80_000)
    elif harm == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    elif harm == "state":
        flip(newest / "state.json", 5000)
    else:
        (newest / ".metadata").unlink()
    exported = {p.name: p.read_bytes() for p in (copy / "run/export").iterdir()}
    shutil.rmtree(copy / "run/export")
    with pytest.raises(exports.WrongModel, match="step-00000004.*name an earlier one in .*latest .step-00000002"):
        load_run(copy / "run", "cpu", torch.float32)
    corpus = json.loads((copy / "run/checkpoints/step-00000002/state.json").read_text())["corpus"]["path"]
    run_stage(Job(stage=1, data=corpus, output=copy / "run", resume="auto", flags=FLAGS))
    said = capsys.readouterr().out
    assert "DAMAGED: " in said and "step-00000004" in said and "Going on from step-00000002 instead." in said
    assert [record["step"] for record in read_metrics(copy / "run")] == [1, 2, 3, 4]
    assert {p.name: p.read_bytes() for p in (copy / "run/export").iterdir()} == exported  # bit for bit
    assert run_verify(copy / "run") == 0


def test_no_whole_checkpoint_is_an_error_that_names_them(copy):
    for weights in (copy / "run/checkpoints").glob("step-*/*.distcp"):
        flip(weights, 80_000)
    corpus = json.loads((copy / "run/checkpoints/step-00000002/state.json").read_text())["corpus"]["path"]
    with pytest.raises(
        checkpoint.WrongCheckpoint, match="no checkpoint of .* is whole: .*step-00000004.*step-00000002"
    ):
        run_stage(Job(stage=1, data=corpus, output=copy / "run", resume="auto", flags=FLAGS))


def test_a_damaged_export_is_refused(copy, tmp_path):
    weights = copy / "run/export/model.safetensors"
    flip(weights, weights.stat().st_size * 8 - 80)
    for use in (
        lambda: load_run(copy / "run", "cpu", torch.float32),
        lambda: exports.convert(copy / "run/export", tmp_path / "out", "qwen-vl", "bfloat16"),
        lambda: run_stage(Job(stage=2, data="none", output=tmp_path / "next", init=str(copy / "run"), flags=FLAGS)),
    ):
        with pytest.raises((exports.WrongModel, WrongCorpus), match="model.safetensors was altered|no finished stage"):
            use()
    assert run_verify(copy / "run/export") == 1


def test_a_converted_export_tells_its_own_checksums(copy, tmp_path):
    command(export, copy / "run/export", "--to", tmp_path / "half", "--layout", "ours", "--dtype", "float16")
    exports.load_model(tmp_path / "half")
    assert run_verify(tmp_path / "half") == 0


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(copy, monkeypatch):
    done = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append(("rename", str(to))), rename(self, to))[1])
    corpus = json.loads((copy / "run/checkpoints/step-00000002/state.json").read_text())["corpus"]["path"]
    shutil.rmtree(copy / "run/checkpoints")
    run_stage(Job(stage=1, data=corpus, output=copy / "run", flags=FLAGS | {"steps": 2}))
    root = copy / "run/checkpoints"
    named = done.index(("rename", str(root / "step-00000002")))
    files = {path.name for path in (root / "step-00000002").iterdir()}
    flushed = {Path(path).name for path in done[:named] if not isinstance(path, tuple)}
    assert files <= flushed and ".step-00000002.tmp" in flushed
    pointed = done.index(("rename", str(root / "latest")))
    assert str(root) in done[named:pointed] and str(root) in done[pointed:]
