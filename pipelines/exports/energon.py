"""Megatron Energon's `.nv-meta`, written beside the shards of a folder, which stay where and as they are.

What its own `prepare` makes is made here from our indices, while every sample is verified: `NAME.tar.idx` (offsets
alone), `.nv-meta/.info.json`, `split.yaml`, `index.sqlite` and `index.uuid`. `dataset.yaml` names the sample type where
Energon has one for the folder's task; `crude.yaml` opens any folder as it is. `.info.json`, without which Energon sees
no dataset, is removed first and written last.
"""

import json
import shutil
import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from corpus.damage import CorruptSample
from corpus.folder import Manifest, OutputFolder
from corpus.ledger import Counts
from corpus.seals import digest
from corpus.shards import indexed
from corpus.tars import BLOCK, header
from pipelines.engine.inputs import UserError
from pipelines.engine.progress import Progress
from pipelines.explorer.folders import Opened
from pipelines.exports.sources import is_stage

META = ".nv-meta"
INFO = ".info.json"
LOADER = Path(__file__).with_name("energon_loader.py")
_PARTS = ["jpg", "png", "webp", "json"]
# The task of a folder's samples -> Energon's type, the loader that makes it.
_TYPES = {
    "caption": ("CaptioningSample", "caption"), "vqa": ("VQASample", "vqa"),
    "ocr_vqa": ("VQASample", "vqa"), "ocr": ("OCRSample", "ocr"), "text": ("TextSample", "text"),
}  # fmt: skip
_CRUDE = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
                      byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
                           content_byte_size INTEGER);
"""
_INDICES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


@dataclass
class Account:
    """What was seen in a folder: samples by shard, their tasks, those that are damaged, what a type leaves out."""

    shards: dict[str, int] = field(default_factory=dict)
    tasks: Counter = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)  # SHARD/KEY, as split.yaml excludes them
    left_out: Counter = field(default_factory=Counter)


def prepare_all(opened: Sequence[Opened]) -> None:
    """Prepare every folder, and print what became of its samples."""
    for each in opened:
        account = prepare(each.folder, each.manifests, packs=is_stage(each))
        total = sum(account.shards.values())
        print(f"{each.folder.url}: {total:,} samples in {len(account.shards):,} shards, as {_opens_as(account)[0]}")
        if account.damaged:
            print(f"  excluded, since they are damaged: {', '.join(account.damaged[:5])} ({len(account.damaged):,})")
        for name, count in account.left_out.items():
            print(f"  {count:,} {name} are upright boxes in it; crude.yaml has them as they are")


def prepare(folder: OutputFolder, manifests: Iterable[Manifest], *, packs: bool) -> Account:
    """Write all that Energon needs beside the shards of a folder. Raises Damaged for an index that is."""
    shards = [each for each in manifests if "tar" in each.files and each.counts.kept]
    meta = OutputFolder(f"{folder.url}/{META}")
    meta.fs.makedirs(meta.root, exist_ok=True)
    if meta.fs.exists(meta.path(INFO)):
        meta.fs.rm_file(meta.path(INFO))
    account = Account()
    with tempfile.TemporaryDirectory() as temporary, Progress("energon", len(shards), 0, Counts()) as progress:
        path = Path(temporary) / "index.sqlite"
        with sqlite3.connect(path) as database:
            database.executescript(_TABLES)
            for number, manifest in enumerate(shards):
                progress.add(_index_shard(folder, manifest, number, database, account, packs))
            database.executescript(_INDICES)
        database.close()
        with meta.atomic("index.sqlite") as file, open(path, "rb") as built:
            shutil.copyfileobj(built, file.stream, 1 << 20)
            file.commit()
    _write_meta(meta, account, {each.split: each.files["tar"] for each in shards})
    return account


def _index_shard(
    folder: OutputFolder, manifest: Manifest, number: int, database: sqlite3.Connection, account: Account, packs: bool
) -> Counts:
    """Verify the samples of a shard and write where they and their parts lie."""
    name = f"{manifest.split}.tar"
    shard = indexed(f"{folder.url}/{name}")
    if shard is None:
        raise UserError(f"{folder.url}/{name} has no .idx of ours beside it: clean it again")
    offsets, errors = shard.offsets, 0
    for i in range(len(shard)):
        place = int(offsets[i])
        try:
            key, members = shard[i]
        except CorruptSample:
            key, members, errors = shard.key(i), {}, errors + 1
            account.damaged.append(f"{name}/{key}")
        database.execute(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?)", (number, key, i, place, int(offsets[i + 1]) - place)
        )
        database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", _parts(number, i, key, members, place))
        if members:
            _look_at(members, account, packs)
    folder.write(f"{name}.idx", np.asarray(offsets, "<u8").tobytes())
    account.shards[name] = len(shard)
    return Counts(len(shard), len(shard) - errors, {}, {CorruptSample.kind: errors} if errors else {})


def _parts(number: int, i: int, key: str, members: Mapping[str, bytes], place: int) -> Iterator[tuple]:
    """Yield where the content of each member lies: behind its header, filled up to whole blocks."""
    for part, data in members.items():
        place += len(header(f"{key}.{part}", len(data)))
        yield number, i, part, place, len(data)
        place += len(data) + -len(data) % BLOCK


def _look_at(members: Mapping[str, bytes], account: Account, packs: bool) -> None:
    record = json.loads(members["json"])
    account.tasks["pack" if packs else record["task"]] += 1
    if not packs and record["task"] == "ocr":
        account.left_out["quads"] += len(record["annotations"].get("lines") or [])


def _opens_as(account: Account) -> tuple[str, Mapping]:
    """Return the name of Energon's type for a folder's samples, and the content of dataset.yaml."""
    found = {_TYPES.get(task, ("", "")) for task in account.tasks}
    if len(found) != 1 or ("", "") in found:
        return "CrudeWebdataset", _CRUDE
    name, loader = found.pop()
    sample_type = {"__module__": "megatron.energon", "__class__": name}
    return name, {
        "sample_type": sample_type, "sample_loader": f"sample_loader.py:{loader}", "part_filter": _PARTS,
    }  # fmt: skip


def _write_meta(meta: OutputFolder, account: Account, made_from: Mapping[str, str]) -> None:
    splits = {"split_parts": {"train": list(account.shards), "val": [], "test": []}, "exclude": account.damaged}
    told = {"samples": sum(account.shards.values()), "tasks": account.tasks, "left_out": account.left_out}
    files = {
        "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, digest(made_from))),
        "sample_loader.py": LOADER.read_text(encoding="utf-8"),
        "dataset.yaml": _yaml(_opens_as(account)[1]),
        "crude.yaml": _yaml(_CRUDE),
        "split.yaml": _yaml(splits),
        "account.json": json.dumps(told | {"damaged": account.damaged, "shards": made_from}, indent=1),
        INFO: json.dumps({"shard_counts": account.shards}, indent=1),  # without it there is no dataset: the last
    }
    for name, text in files.items():
        meta.write(name, text.encode())


def _yaml(value: Mapping) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=10**6)
