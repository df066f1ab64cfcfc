"""Exports opened by the tools they are for, each in an environment of its own: Megatron Energon and LLaMA-Factory.

Both are installed without their dependencies into a folder of the session, which a process of its own puts before the
packages of this environment; nothing of this environment changes. Where the registry cannot be reached the tests skip.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cleaned import sample, write_cleaned
from tests.conftest import ROOT
from tests.test_build_stage import build
from tests.test_export import TASKS, dialogues, run, samples, spoil

pytestmark = pytest.mark.slow
ENERGON = (
    "megatron-energon==7.4.1", "multi-storage-client==1.3.1", "rapidyaml==0.15.2", "deprecation", "xattr", "lark",
    "wcmatch", "bracex", "filetype", "mfusepy", "braceexpand",
)  # fmt: skip
LLAMA_FACTORY = ("llamafactory==0.9.5",)
TYPES = {
    "caption": "CaptioningSample",
    "vqa": "VQASample",
    "ocr_vqa": "VQASample",
    "ocr": "OCRSample",
    "text": "TextSample",
}

# Prints one line of JSON a sample: what get_train_dataset of a folder gives, in one epoch.
READ = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from megatron.energon import Cooker, DefaultTaskEncoder, Sample, WorkerConfig, basic_sample_keys, edataclass
from megatron.energon import get_loader, get_train_dataset, stateless

@edataclass
class Whole(Sample):
    parts: dict

@stateless
def cook(sample):
    return Whole(**basic_sample_keys(sample), parts={k: v for k, v in sample.items() if not k.startswith("__")})

class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(cook)]

def plain(value):
    if hasattr(value, "shape"):
        return list(value.shape) if len(value.shape) == 3 else value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value if isinstance(value, (str, int, float, list, type(None))) else str(type(value))

one = WorkerConfig(rank=0, world_size=1, num_workers=0)
dataset = get_train_dataset(
    sys.argv[1], worker_config=one, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None,
    repeat=False, task_encoder=Encoder(), **({"dataset_config": sys.argv[2]} if sys.argv[2:] else {}),
)
for each in get_loader(dataset):
    fields = {k: plain(getattr(each, k)) for k in each.__dataclass_fields__ if not k.startswith("__")}
    print("SAMPLE", json.dumps({"key": each.__key__, "type": type(each).__name__} | fields))
"""


@pytest.fixture(scope="session")
def tool(tmp_path_factory):
    """Install packages of a tool into a folder and return the environment in which a process finds it."""
    uv = Path(sys.executable).with_name("uv")

    def install(*packages: str) -> dict[str, str]:
        if not uv.exists():
            pytest.skip("uv is not in this environment, so the tool cannot be installed beside it")
        folder = tmp_path_factory.mktemp("tool")
        words = [uv, "pip", "install", "-q", "--python", sys.executable, "--target", folder, "--no-deps", *packages]
        done = subprocess.run(words, capture_output=True, text=True, timeout=250)
        if done.returncode:
            pytest.skip(f"{packages[0]} cannot be installed here: {done.stderr.strip()[-300:]}")
        return os.environ | {"PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    return install


@pytest.fixture(scope="session")
def energon(tool) -> dict[str, str]:
    return tool(*ENERGON)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cleaned")
    for dataset, task in TASKS.items():
        write_cleaned(root, dataset, [sample(dataset, task, i) for i in range(10)], splits=2)
    run(root, "--to", "energon")
    return root


def read(folder: Path, environment: dict, *config: str) -> dict[str, dict]:
    """Key -> sample, as Energon gives it."""
    words = [sys.executable, "-c", READ, str(folder), *config]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, cwd="/tmp")
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line.removeprefix("SAMPLE ")) for line in done.stdout.splitlines() if line.startswith("SAMPLE ")]
    assert len(said) == len({each["key"] for each in said})
    return {each["key"]: each for each in said}


@pytest.mark.parametrize("dataset", TASKS)
def test_energon_opens_a_cleaned_folder_of_every_task(cleaned, energon, dataset):
    kept, given = samples(cleaned / dataset), read(cleaned / dataset, energon)
    assert set(given) == set(kept) and len(given) == 10
    for key, each in given.items():
        record = json.loads(kept[key]["json"])
        told = record["annotations"]
        assert each["type"] == TYPES.get(TASKS[dataset], "Whole")
        if each["type"] == "CaptioningSample":
            assert each["caption"] == record["text"] and each["image"] == [3, 96, 96]
        elif each["type"] == "VQASample":
            assert (each["context"], each["answers"]) == (told["question"], [told["answer"]])
        elif each["type"] == "OCRSample":
            assert each["lines_text"] == [line["text"] for line in told["lines"]]
            for (x, y, width, height), line in zip(each["lines_boxes"], told["lines"], strict=True):
                xs, ys = zip(*line["quad"], strict=True)
                assert (x, y, x + width, y + height) == pytest.approx((min(xs), min(ys), max(xs), max(ys)), abs=1e-3)
        elif each["type"] == "TextSample":
            assert each["text"] == record["text"]
        else:
            assert each["parts"]["json"] == record


def test_energon_opens_quads_and_a_stage_as_they_are(cleaned, energon, tmp_path):
    kept, given = samples(cleaned / "synthdog-en"), read(cleaned / "synthdog-en", energon, "crude.yaml")
    assert {key: each["parts"]["json"] for key, each in given.items()} == {
        key: json.loads(members["json"]) for key, members in kept.items()
    }
    stage = build(cleaned, tmp_path / "stage")
    run(tmp_path / "stage", "--to", "energon")
    packs = {pack.key: pack for pack in (stage[i] for i in range(len(stage)))}
    given = read(tmp_path / "stage", energon)
    assert set(given) == set(packs)
    for key, each in given.items():
        assert each["parts"]["tokens.npy"] == packs[key].tokens.tolist()
        assert each["parts"]["loss.npy"] == packs[key].loss.tolist()
        assert each["parts"]["json"]["samples"] == packs[key].samples
        assert sum(name[:3].isdigit() for name in each["parts"]) == len(packs[key].images)


def test_a_damaged_sample_is_left_out_by_energon(energon, tmp_path):
    write_cleaned(tmp_path, "gqa", [sample("gqa", "vqa", i) for i in range(6)])
    key = spoil(tmp_path / "gqa")
    run(tmp_path / "gqa", "--to", "energon")
    assert set(read(tmp_path / "gqa", energon)) == set(samples(tmp_path / "gqa")) - {key}


def test_what_energons_own_prepare_makes_is_what_we_make(cleaned, energon, tmp_path):
    """Its indices over the same shards, table by table, and the files that name the shards."""
    theirs = tmp_path / "theirs"
    shutil.copytree(cleaned / "grit", theirs, ignore=shutil.ignore_patterns(".nv-meta", "*.tar.idx"))
    code = """
import sys
from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator
WebdatasetPreparator.prepare_dataset(sys.argv[1], sys.argv[2:], split_parts_ratio=[("train", 1.0)], workers=1,
                                     shuffle_seed=None)
"""
    shards = sorted(path.name for path in theirs.glob("*.tar"))
    words = [sys.executable, "-W", "ignore", "-c", code, theirs, *shards]
    done = subprocess.run(words, env=energon, capture_output=True, text=True, timeout=200, cwd="/tmp")
    assert done.returncode == 0, done.stderr[-3000:]
    for shard in shards:
        assert (theirs / f"{shard}.idx").read_bytes() == (cleaned / "grit" / f"{shard}.idx").read_bytes()
    for table in ("samples", "sample_parts", "sqlite_master WHERE type = 'index' AND name LIKE 'idx%'"):
        columns = "name, tbl_name" if "master" in table else "*"
        found = [
            sorted(sqlite3.connect(folder / ".nv-meta" / "index.sqlite").execute(f"SELECT {columns} FROM {table}"))
            for folder in (theirs, cleaned / "grit")
        ]
        assert found[0] == found[1] and found[0]
    infos = [json.loads((folder / ".nv-meta" / ".info.json").read_text()) for folder in (theirs, cleaned / "grit")]
    assert infos[0]["shard_counts"] == infos[1]["shard_counts"]


def test_the_page_s_code_gives_quads(cleaned, energon, tmp_path):
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    more = """
import itertools, sys
from megatron.energon import get_loader
for each in itertools.islice(get_loader(pages(sys.argv[1])), 10):
    print("QUADS", each.__key__, each.quads.shape[0], float(each.quads.sum()))
"""
    (tmp_path / "mine.py").write_text(code + more)
    words = [sys.executable, "-W", "ignore", tmp_path / "mine.py", cleaned / "synthdog-en"]
    done = subprocess.run(words, env=energon, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line.split() for line in done.stdout.splitlines() if line.startswith("QUADS")]
    kept = samples(cleaned / "synthdog-en")
    for _, key, lines, total in said:
        quads = [line["quad"] for line in json.loads(kept[key]["json"])["annotations"]["lines"]]
        assert len(quads) == int(lines) and np.sum(quads) == pytest.approx(float(total), rel=1e-4)
    assert len(said) == 10


# Prints one line of JSON a dialogue: what LLaMA-Factory's own reader of dataset_info.json and its converter make of it.
CONVERT = """
import importlib.machinery, json, os, sys, types
stub = types.ModuleType("torchaudio")  # asked for at import, for sound alone
stub.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = stub
import datasets
from llamafactory.data.converter import get_dataset_converter
from llamafactory.data.parser import get_dataset_list
folder = sys.argv[1]
attributes, = get_dataset_list(["gristmill"], folder)
rows = datasets.load_dataset(
    "json", data_files=os.path.join(folder, attributes.dataset_name), split="train", cache_dir=sys.argv[2]
)
convert = get_dataset_converter(attributes.formatting, attributes, types.SimpleNamespace(media_dir=folder))
for row in rows:
    print("DIALOGUE", json.dumps({"id": row["id"]} | convert(row)))
"""


def test_llama_factory_converts_every_dialogue(cleaned, tool, tmp_path):
    run(cleaned, "--to", "sharegpt", tmp_path / "out")
    words = [sys.executable, "-W", "ignore", "-c", CONVERT, tmp_path / "out", tmp_path / "cache"]
    done = subprocess.run(words, env=tool(*LLAMA_FACTORY), capture_output=True, text=True, timeout=250, cwd="/tmp")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.removeprefix("DIALOGUE ") for line in done.stdout.splitlines() if line.startswith("DIALOGUE ")]
    read, ours = [json.loads(line) for line in lines], dialogues(tmp_path / "out", "sharegpt")
    assert len(read) == len(ours)
    for each in read:
        said = [turn["value"] for turn in ours[each["id"]]["conversations"]]
        assert [turn["content"] for turn in each["_prompt"] + each["_response"]] == said
        assert each["_images"] == [str(tmp_path / "out" / name) for name in ours[each["id"]]["images"]]
        assert all(Path(name).is_file() for name in each["_images"])
