"""Small files in exactly the layouts that datasets' owners publish, and pictures to go with them.

Each function names the source of the fields. Values are made up.
"""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from corpus.folder import OutputFolder
from corpus.records import from_members
from corpus.shards import IndexedShard, read_shard


def picture(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with structure at all scales, different for every seed."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (3, 6, 12)]
    sized = [np.asarray(Image.fromarray(layer).resize((width, height), Image.BICUBIC), float) for layer in layers]
    return Image.fromarray(np.mean(sized, axis=0).astype(np.uint8))


def jpeg(seed: int, **size) -> bytes:
    """The picture as JPEG bytes."""
    buffer = io.BytesIO()
    picture(seed, **size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def put_images(folder, names, **size):
    """Write one picture per name below a folder; return the folder as a string."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed, **size))
    return str(folder)


def put_json(path, value) -> str:
    """Write JSON and return the path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def refs_pickle(refs: list[dict]) -> bytes:
    """Pickle refs as Python 2's cPickle did (lichengunc/refer): protocol 0, text as byte strings.

    Python 3 writes str as unicode; the owners' files have `S'...'` for every str, as here.
    """

    def dump(value) -> bytes:
        if isinstance(value, dict):
            return b"(d" + b"".join(dump(k) + dump(v) + b"s" for k, v in value.items())
        if isinstance(value, list):
            return b"(l" + b"".join(dump(v) + b"a" for v in value)
        if isinstance(value, str):
            return b"S" + repr(value.encode("utf-8"))[1:].encode() + b"\n"
        return b"I%d\n" % value

    return dump(refs) + b"."


def evil_pickle(marker) -> bytes:
    """A pickle that would create the file `marker` when loaded."""

    class Evil:
        def __reduce__(self):
            import os

            return os.system, (f"touch {marker}",)

    return pickle.dumps([Evil()])


def refcoco(folder) -> list[str]:
    """refs(unc).p and instances.json (lichengunc/refer refer.py): two training refs, one testA ref."""

    def ref(number, annotation, image, split, sentences):
        sents = [{"sent_id": i, "sent": s, "raw": s.upper(), "tokens": s.split()} for i, s in enumerate(sentences)]
        return {
            "ref_id": number, "ann_id": annotation, "category_id": 1, "image_id": image, "split": split,
            "file_name": f"COCO_train2014_{image:012d}_{number}.jpg", "sent_ids": list(range(len(sents))),
            "sentences": sents,
        }  # fmt: skip

    refs = [
        ref(0, 100, 7, "train", ["the ear on a giraffe", "left ear"]),
        ref(1, 101, 8, "train", ["woman in red"]),
        ref(2, 102, 9, "testA", ["man in black"]),
    ]
    (folder / "refs(unc).p").write_bytes(refs_pickle(refs))
    instances = {
        "images": [
            {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 240, "width": 320} for i in (7, 8, 9)
        ],
        "annotations": [
            {
                "id": 100 + i,
                "image_id": 7 + i,
                "category_id": 1,
                "bbox": [10 * i + 5, 20, 60, 40],
                "iscrowd": 0,
                "area": 1,
            }
            for i in range(3)
        ],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    return [str(folder / "refs(unc).p"), put_json(folder / "instances.json", instances)]


BEES = "Beautiful shot of bees gathering nectars from an apricot flower"


def grit(path, rows: int = 1) -> str:
    """A GRIT parquet (zzliang/GRIT; microsoft/unilm kosmos-2/README.md): the paper's bees, and plainer captions.

    Items are [start, end, x0, y0, x1, y1, score]; the referring expression of the bees shares their boxes.
    """
    bees, flower = BEES.index("bees"), BEES.index("an apricot")
    boxes = [(0.661, 0.612, 0.833, 0.812, 0.9), (0.12, 0.555, 0.265, 0.77, 0.8)]
    petals = (0.224, 0.013, 0.399, 0.313, 0.7)
    chunks = [[bees, bees + 4, *box] for box in boxes] + [[flower, len(BEES), *petals]]
    expressions = [[bees, len(BEES), *box] for box in boxes] + [[flower, len(BEES), *petals]]
    table = {
        "clip_similarity_vitb32": [0.31] * rows, "clip_similarity_vitl14": [0.27] * rows, "id": list(range(rows)),
        "url": [f"https://example.org/{i}.jpg" for i in range(rows)], "caption": [BEES] * rows,
        "width": [1000] * rows, "height": [1000] * rows, "noun_chunks": [chunks] * rows,
        "ref_exps": [expressions] * rows, "key": [f"{i:09d}" for i in range(rows)],
    }  # fmt: skip
    kinds = {"noun_chunks": pa.list_(pa.list_(pa.float64())), "ref_exps": pa.list_(pa.list_(pa.float64()))}
    pq.write_table(pa.table({n: pa.array(v, kinds.get(n)) for n, v in table.items()}), path)
    return str(path)


GUARDED = ("clean_captions", "clean_vqa", "clean_grounding", "clean_chat")


def samples(output) -> dict:
    """Read a job's output folder: key -> Sample; checks on the way that ledgers, shards and manifests agree."""
    found, folder = {}, OutputFolder(str(output))
    for split, manifest in folder.manifests().items():
        ledger = pq.read_table(f"{output}/{split}.parquet", columns=["key", "outcome", "rule"]).to_pylist()
        with open(f"{output}/{split}.tar", "rb") as file:
            here = [from_members(raw.members) for raw in read_shard(file)]
        shard = IndexedShard(f"{output}/{split}.tar")
        assert len(ledger) == manifest.counts.rows == manifest.counts.kept + _lost(manifest.counts)
        assert [s.key for s in here] == [row["key"] for row in ledger if row["outcome"] == "kept"]
        assert [shard[i][0] for i in range(len(shard))] == [s.key for s in here]
        assert len({row["key"] for row in ledger}) == len(ledger)
        found |= {sample.key: sample for sample in here}
    return found


def _lost(counts) -> int:
    return sum(counts.dropped.values()) + sum(counts.errors.values())


def outcomes(output) -> dict:
    """Count a folder's ledger rows by rule ("kept" where there is none)."""
    counts = {}
    for manifest in OutputFolder(str(output)).manifests().values():
        for rule, number in {"kept": manifest.counts.kept, **manifest.counts.dropped, **manifest.counts.errors}.items():
            counts[rule] = counts.get(rule, 0) + number
    return {rule: number for rule, number in sorted(counts.items()) if number}


def run_job(module, *flags, guarded: bool = False) -> None:
    """Run a job's main in this process, as the command line would; without evaluation lists, unless `guarded`."""
    import sys
    from unittest import mock

    if module.__name__.rpartition(".")[2] in GUARDED and not guarded and "--exclude" not in flags:
        flags = (*flags, "--no-guard")
    with mock.patch.object(sys, "argv", [module.__name__, *map(str, flags), "--workers", "0"]):
        module.main()
