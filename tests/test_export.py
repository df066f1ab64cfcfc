"""export.py: every format holds what was kept, says what it cannot hold, and is made again alike after any stop."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.census import Unaccounted
from corpus.folder import OutputFolder, SettingsDiffer
from corpus.formats import Unfit, format_sample
from corpus.geometry import normalise_box
from corpus.records import EncodedImage
from corpus.shards import IndexedShard, read_samples
from pipelines import export
from pipelines.engine.job import UserError
from pipelines.exports import dialects, energon
from pipelines.exports.turns import turns_of
from tests.cleaned import drawn, sample, write_cleaned
from tests.folders import ledger, split_ids
from tests.test_accounted import swallowed, told_twice
from tests.test_build_stage import build

TASKS = {
    "coco-caption": "caption", "gqa": "vqa", "ocr-vqa": "ocr_vqa", "grit": "grounded_caption", "refcoco": "referring",
    "visual-genome": "region_caption", "synthdog-en": "ocr", "in-house-text": "text", "chat-sft": "chat",
}  # fmt: skip
EACH = 6


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cleaned")
    for dataset, task in TASKS.items():
        write_cleaned(root, dataset, [sample(dataset, task, i) for i in range(EACH)], splits=2)
    return root


def run(*words, workers=0) -> None:
    """Run export.py in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["export.py", *map(str, words), "--workers", str(workers)])
        export.main()


def dialogues(folder: Path, form: str) -> dict[str, dict]:
    said = json.loads((folder / f"{form}.json").read_text())
    assert len(said) == len({each["id"] for each in said})
    return {each["id"]: each for each in said}


def samples(root: Path) -> dict:
    """Key -> members of every kept sample below a folder."""
    tars = sorted(root.rglob("*.tar"))
    return {raw.key: raw.members for tar in tars for raw in read_samples(str(tar))}


# --- Dialogues ---


@pytest.mark.parametrize("form", ["llava", "sharegpt"])
def test_every_kept_sample_is_a_dialogue_with_its_own_picture(cleaned, tmp_path, form):
    run(cleaned, "--to", form, tmp_path / "out")
    said, kept = dialogues(tmp_path / "out", form), samples(cleaned)
    rows = ledger(tmp_path / "out")
    assert {row["key"] for row in rows if row["outcome"] == "kept"} == set(said)
    assert Counter(row["rule"] for row in rows if row["rule"]) == {"no_dialogue": EACH}
    assert {key.rpartition("-r")[0] if "-r" in key.rpartition("/")[2] else key for key in said} == {
        key for key in kept if not key.startswith("in-house-text/")
    }
    for key, each in said.items():
        whole = kept[key] if key in kept else kept[key.rpartition("-r")[0]]
        names = [each["image"]] if form == "llava" else each["images"]
        assert [(tmp_path / "out" / name).read_bytes() for name in names] == [
            data for name, data in sorted(whole.items()) if name in ("jpg", "png")
        ]
        assert [turn["from"] for turn in each["conversations"]] == ["human", "gpt"]
        assert (
            each["conversations"][0]["value"].startswith("<image>\n") or each["conversations"][0]["value"] == "<image>"
        )
        assert "".join(turn["value"] for turn in each["conversations"]).count("<image>") == 1


def test_what_dialogues_say_by_task(cleaned, tmp_path):
    run(cleaned, "--to", "llava", tmp_path / "llava")
    run(cleaned, "--to", "sharegpt", tmp_path / "sharegpt")
    of = {form: dialogues(tmp_path / form, form) for form in ("llava", "sharegpt")}

    def pair(form, key):
        return [turn["value"].removeprefix("<image>\n") for turn in of[form][key]["conversations"]]

    kept = {key: json.loads(members["json"]) for key, members in samples(cleaned).items()}
    text = kept["coco-caption/00000/000000"]["text"]
    assert pair("llava", "coco-caption/00000/000000") == ["Generate the caption in English:", text]
    told = kept["gqa/00000/000000"]["annotations"]
    assert pair("sharegpt", "gqa/00000/000000") == [told["question"], told["answer"]]
    region = kept["refcoco/00000/000000"]["annotations"]["regions"][0]
    x0, y0, x1, y1 = normalise_box(region["boxes"][0], 96, 96)
    asked, answer = pair("llava", "refcoco/00000/000000-r0")
    assert asked == dialects.LLAVA.asks["referring"](region["text"]) and asked.endswith(f": {region['text']}")
    assert answer == f"[{x0 / 1000:.2f}, {y0 / 1000:.2f}, {x1 / 1000:.2f}, {y1 / 1000:.2f}]"
    assert pair("sharegpt", "refcoco/00000/000000-r0") == [
        f"<ref>{region['text']}</ref>", f"<box>({x0},{y0}),({x1},{y1})</box>"
    ]  # fmt: skip
    asked, answer = pair("llava", "visual-genome/00000/000000-r0")
    assert asked.startswith("Please provide a short description for this region: [") and "This" not in asked
    assert answer == kept["visual-genome/00000/000000"]["annotations"]["regions"][0]["text"]
    lines = kept["synthdog-en/00000/000000"]["annotations"]["lines"]
    assert pair("llava", "synthdog-en/00000/000000")[1] == "\n".join(line["text"] for line in lines)
    assert pair("sharegpt", "synthdog-en/00000/000000")[1].count("<quad>") == len(lines)
    rows = {row["key"]: row for row in ledger(tmp_path / "llava")}
    assert rows["synthdog-en/00000/000000"]["quads_lost"] == len(lines)


@pytest.mark.parametrize("form", ["llava", "sharegpt"])
def test_a_stage_gives_the_same_dialogues_as_its_cleaned_folders(cleaned, tmp_path, form):
    build(cleaned, tmp_path / "stage")
    run(cleaned, "--to", form, tmp_path / "direct")
    run(tmp_path / "stage", "--to", form, tmp_path / "decoded")
    direct, decoded = (dialogues(tmp_path / name, form) for name in ("direct", "decoded"))
    rows = [row for row in ledger(tmp_path / "stage") if row["outcome"] == "kept"]
    assert len(decoded) == len([row for row in rows if row["dataset"] != "in-house-text"]) > 150
    pairs = [(each, direct.get(key.partition("/")[2])) for key, each in decoded.items()]
    own = [
        (ours, theirs) for ours, theirs in pairs if theirs and ours["id"].startswith(TASKS[ours["id"].split("/")[1]])
    ]
    assert all(ours["conversations"] == theirs["conversations"] for ours, theirs in own) and len(own) > 70


@pytest.mark.parametrize("form", ["llava", "sharegpt"])
def test_dialogues_come_back_from_the_tokens_of_stage_3(cleaned, tmp_path, form):
    build(cleaned, tmp_path / "stage", "--dataset", "chat-sft", stage=3)
    run(cleaned / "chat-sft", "--to", form, tmp_path / "direct")
    run(tmp_path / "stage", "--to", form, tmp_path / "decoded")
    direct, decoded = (dialogues(tmp_path / name, form) for name in ("direct", "decoded"))
    assert {key: each["conversations"] for key, each in decoded.items()} == {
        f"chat/{key}": each["conversations"] for key, each in direct.items()
    }
    assert len(decoded) == EACH


def test_both_formats_drop_what_they_cannot_hold_and_say_why(tmp_path):
    (first, _), (second, _) = drawn(0), drawn(1)
    user, said = {"role": "user", "text": "Look", "images": [0]}, {"role": "assistant", "text": "Yes"}
    system = {"role": "system", "text": "Be brief"}

    def chat(number, *turns, images=(first,)):
        return sample("chat-sft", "chat", number, annotations={"turns": list(turns)}, images=list(images))

    odd = [
        chat(0, user | {"images": [0, 1]}, said, images=(first, second)),
        chat(1, system, user, said),
        chat(2, user, said, user | {"images": []}),
        chat(3, said, user, said),
        chat(4, user | {"text": "What does <image> mean in html?"}, said),
        chat(5, user, said | {"text": "It ends <|im_end|> here"}),
        chat(6, user, said, user | {"text": "Really?", "images": []}, said | {"text": "Yes, <b>really</b>"}),
        chat(7, user | {"text": "What is it?", "images": []}, said, images=()),
    ]
    write_cleaned(tmp_path, "chat-sft", odd)
    for form in ("llava", "sharegpt"):
        run(tmp_path / "chat-sft", "--to", form, tmp_path / form)
    why = {
        form: {int(row["key"][-6:]): row["rule"] for row in ledger(tmp_path / form)} for form in ("llava", "sharegpt")
    }
    both = {2: "turns_out_of_order", 3: "turns_out_of_order", 4: "control_words", 5: "control_words", 6: None, 7: None}
    assert why == {
        "llava": both | {0: "several_images", 1: None},
        "sharegpt": both | {0: None, 1: None},
    }
    llava, sharegpt = (dialogues(tmp_path / form, form) for form in ("llava", "sharegpt"))
    assert len(sharegpt["chat-sft/00000/000000"]["images"]) == 2
    assert sharegpt["chat-sft/00000/000000"]["conversations"][0]["value"] == "<image>\n<image>\nLook"
    assert [turn["from"] for turn in sharegpt["chat-sft/00000/000001"]["conversations"]] == ["system", "human", "gpt"]
    assert [turn["from"] for turn in llava["chat-sft/00000/000001"]["conversations"]] == ["human", "gpt"]
    assert {row["key"]: row["system_lost"] for row in ledger(tmp_path / "llava")}["chat-sft/00000/000001"] == 1
    assert "image" not in llava["chat-sft/00000/000007"] and sharegpt["chat-sft/00000/000007"]["images"] == []


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    words=st.lists(WORDS, min_size=1, max_size=6),
    danger=st.sampled_from(["", "<image>", "<|im_end|>", "</s>", "<box>"]),
)
@settings(max_examples=200, deadline=None)
def test_no_text_of_the_data_becomes_a_mark(words, danger):
    """Whatever a caption says, a dialogue has as many marks as pictures, or there is none."""
    caption = f"{danger}".join(["a", *words, "z"])
    made = format_sample(sample("coco-caption", "caption", 0, text=caption), "caption")[0]
    try:
        written = dialects.write(dialects.SHAREGPT, "caption", turns_of("caption", made.pieces), [(96, 96)])
    except Unfit as unfit:
        assert unfit.kind == "control_words" and "<" in caption
        return
    assert not danger
    assert [turn["value"].count("<image>") for turn in written.conversations] == [1, 0]
    assert written.conversations[1]["value"] == caption.strip()


@given(
    size=st.tuples(st.integers(20, 4000), st.integers(20, 4000)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=300, deadline=None)
def test_llavas_boxes_lie_where_they_should_in_the_padded_square(size, corners):
    width, height = size
    x0, x1, y0, y1 = *sorted(corners[:2]), *sorted(corners[2:])
    box = normalise_box((x0 * width, y0 * height, x1 * width, y1 * height), width, height)
    if box is None:
        return
    numbers = json.loads(dialects.LLAVA.shape("<box>", f"({box[0]},{box[1]}),({box[2]},{box[3]})", size))
    side = max(size)
    left, top = (side - width) / 2, (side - height) / 2
    expected = [left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height]
    assert np.abs(np.array(numbers) * side - expected).max() <= side * 0.0062  # half of 0.01, and a thousandth


# --- Parquet ---


def test_datasets_opens_the_parquet_with_every_value_as_it_was(cleaned, tmp_path):
    import datasets

    run(cleaned, "--to", "parquet", tmp_path / "out")
    opened = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened.features["images"] == datasets.List(datasets.Image())
    bare = opened.cast_column("images", datasets.List(datasets.Image(decode=False)))
    kept = samples(cleaned)
    assert len(opened) == len(kept) == EACH * len(TASKS) and set(opened["key"]) == set(kept)
    for row, shown in zip(bare, opened, strict=True):
        members, record = kept[row["key"]], json.loads(kept[row["key"]]["json"])
        assert row["json"].encode() == members["json"]
        pictures = [data for name, data in sorted(members.items()) if name in ("jpg", "png")]
        assert [image["bytes"] for image in row["images"]] == pictures
        assert [image.size for image in shown["images"]] == [(96, 96)] * len(pictures)
        for name in ("dataset", "task", "language", "text", "width", "height"):
            assert row[name] == record[name]
        for name in ("question", "answer", "lines"):
            assert row[name] == record["annotations"].get(name)
        for ours, theirs in zip(row["regions"] or [], record["annotations"].get("regions", []), strict=True):
            assert ours == theirs | {"span": theirs["span"]}


def test_a_stage_as_parquet_keeps_tokens_and_masks(cleaned, tmp_path):
    stage = build(cleaned, tmp_path / "stage")
    run(tmp_path / "stage", "--to", "parquet", tmp_path / "out")
    rows = [
        row
        for split in split_ids(tmp_path / "out")
        for row in pq.read_table(tmp_path / "out" / f"{split}.rows.parquet").to_pylist()
    ]
    assert len(rows) == len(stage)
    packs = {pack.key: pack for pack in (stage[i] for i in range(len(stage)))}
    for row in rows:
        pack = packs[row["key"]]
        assert row["tokens"] == pack.tokens.tolist() and row["loss"] == pack.loss.tolist()
        assert [image["bytes"] for image in row["images"]] == pack.images and row["task"] == pack.task
        assert [one["key"] for one in row["samples"]] == [one["key"] for one in pack.samples]


# --- Damage, stops, flags ---


def spoil(folder: Path, number: int = 2) -> str:
    """Flip a byte inside a sample of the folder's first shard; return its key."""
    tar = min(folder.glob("*.tar"))
    shard = IndexedShard(str(tar))
    key, place = shard.key(number), int(shard.offsets[number]) + 700
    raw = bytearray(tar.read_bytes())
    raw[place] ^= 0xFF
    tar.write_bytes(raw)
    return key


@pytest.mark.parametrize("form", ["llava", "sharegpt", "parquet"])
def test_a_damaged_sample_costs_itself_and_is_told(tmp_path, form):
    write_cleaned(tmp_path, "coco-caption", [sample("coco-caption", "caption", i) for i in range(6)])
    key = spoil(tmp_path / "coco-caption")
    run(tmp_path / "coco-caption", "--to", form, tmp_path / "out")
    rows = {row["key"]: (row["outcome"], row["rule"]) for row in ledger(tmp_path / "out")}
    assert rows.pop(key) == ("error", "corrupt_sample") and set(rows.values()) == {("kept", None)} and len(rows) == 5


def files(folder: Path) -> dict[str, bytes]:
    """All that an export wrote but timings: reports, and the seconds in manifests."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("report.") and (
        not name.endswith(".json") or name in ("llava.json", "sharegpt.json", "dataset_info.json"))}  # fmt: skip


@pytest.mark.parametrize("form", ["llava", "parquet"])
def test_stopped_anywhere_the_same_command_ends_with_the_same_bytes(cleaned, tmp_path, form, monkeypatch):
    run(cleaned, "--to", form, tmp_path / "whole")
    real = OutputFolder.write
    for at in (3, 1, 5, 8):
        left = iter(range(at))

        def write(folder, name, data, left=left):
            if "stopped" in folder.url and next(left, None) is None:
                raise KeyboardInterrupt
            return real(folder, name, data)

        monkeypatch.setattr(OutputFolder, "write", write)
        with pytest.raises(KeyboardInterrupt):
            run(cleaned, "--to", form, tmp_path / "stopped")
        monkeypatch.undo()
    (tmp_path / "stopped" / "images" / "gone").mkdir(parents=True, exist_ok=True)
    run(cleaned, "--to", form, tmp_path / "stopped")
    assert {name for name in files(tmp_path / "stopped") if "gone" in name} == set()
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_an_input_that_changed_is_exported_again_and_another_format_refused(tmp_path, capsys):
    make = lambda count: write_cleaned(  # noqa: E731
        tmp_path, "coco-caption", [sample("coco-caption", "caption", i) for i in range(count)]
    )
    make(4)
    run(tmp_path / "coco-caption", "--to", "llava", tmp_path / "out")
    before = (tmp_path / "out" / "llava.json").read_bytes()
    run(tmp_path / "coco-caption", "--to", "llava", tmp_path / "out")
    assert "1 of 1 splits are done already" in capsys.readouterr().err
    assert (tmp_path / "out" / "llava.json").read_bytes() == before
    make(3)
    run(tmp_path / "coco-caption", "--to", "llava", tmp_path / "out")
    assert len(dialogues(tmp_path / "out", "llava")) == 3 and len(list((tmp_path / "out").rglob("*-0.*"))) == 3
    with pytest.raises(SettingsDiffer, match="to: 'llava' there, 'parquet' now"):
        run(tmp_path / "coco-caption", "--to", "parquet", tmp_path / "out")
    run(tmp_path / "coco-caption", "--to", "parquet", tmp_path / "out", "--overwrite")
    assert not (tmp_path / "out" / "llava.json").exists() and not (tmp_path / "out" / "images").exists()


def test_any_number_of_workers_and_a_limit(cleaned, tmp_path):
    run(cleaned / "gqa", cleaned / "grit", "--to", "sharegpt", tmp_path / "here")
    run(cleaned / "gqa", cleaned / "grit", "--to", "sharegpt", tmp_path / "two", "--limit", 2)
    assert len(dialogues(tmp_path / "here", "sharegpt")) == 2 * EACH
    assert len(dialogues(tmp_path / "two", "sharegpt")) == 2 * 2 * 2


def test_what_makes_no_sense_is_refused(cleaned, tmp_path):
    for words, why in (
        (("--to", "coco", tmp_path / "out"), "no such format"), (("--to", "llava"), "one DIR"),
        (("--to", "energon", tmp_path / "out"), "takes no DIR"), (("--to", "llava", cleaned), "holds the data"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=why):
            run(cleaned, *words)
    with pytest.raises(UserError, match="no output folder of ours"):
        run(tmp_path, "--to", "llava", tmp_path / "out")
    build(cleaned, tmp_path / "stage")
    with pytest.raises(UserError, match="cleaned folders and stage folders together"):
        run(cleaned, tmp_path / "stage", "--to", "parquet", tmp_path / "out")
    (tmp_path / "stage" / "unfinished.json").write_text('{"planned": 9}')
    with pytest.raises(UserError, match="is not finished"):
        run(tmp_path / "stage", "--to", "parquet", tmp_path / "out")
    (tmp_path / "stage" / "corpus.json").unlink()
    with pytest.raises(UserError, match="no finished stage folder"):
        run(tmp_path / "stage", "--to", "parquet", tmp_path / "out")


# --- Energon's files ---


def test_energons_index_tells_where_every_part_lies(tmp_path):
    captions = [sample("coco-caption", "caption", i, text="word " * (1 + 300 * i)) for i in range(5)]
    write_cleaned(tmp_path, "coco-caption", captions, splits=2)
    folder = tmp_path / "coco-caption"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(folder, "--to", "energon")
    meta = folder / ".nv-meta"
    counts = json.loads((meta / ".info.json").read_text())["shard_counts"]
    assert counts == {"00000.tar": 3, "00001.tar": 2}
    database = sqlite3.connect(meta / "index.sqlite")
    shards = list(counts)
    for shard in shards:
        told = np.frombuffer((folder / f"{shard}.idx").read_bytes(), "<u8")
        assert (told == IndexedShard(str(folder / shard)).offsets).all()
    found = {}
    for number, i, part, place, size in database.execute("SELECT * FROM sample_parts"):
        raw = (folder / shards[number]).read_bytes()
        found.setdefault((number, i), {})[part] = raw[place : place + size]
    assert {
        (number, i): members for number, shard in enumerate(shards)
        for i, (_, members) in enumerate(IndexedShard(str(folder / shard))[j] for j in range(counts[shard]))
    } == found  # fmt: skip
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    made = {path.name: path.read_bytes() for path in meta.iterdir()}
    run(folder, "--to", "energon")
    assert {path.name: path.read_bytes() for path in meta.iterdir()} == made


def test_energon_is_told_of_damage_and_sees_no_half_made_dataset(tmp_path, monkeypatch, capsys):
    write_cleaned(tmp_path, "synthdog-en", [sample("synthdog-en", "ocr", i) for i in range(4)])
    folder = tmp_path / "synthdog-en"
    run(folder, "--to", "energon")
    key = spoil(folder)
    run(folder, "--to", "energon")
    assert f"00000.tar/{key}" in (folder / ".nv-meta" / "split.yaml").read_text()
    assert "1 excluded" in capsys.readouterr().out.replace("excluded, since they are damaged", "1 excluded")
    account = json.loads((folder / ".nv-meta" / "account.json").read_text())
    assert account["samples"] == 4 and account["tasks"] == {"ocr": 3} and account["left_out"]["quads"] > 0
    monkeypatch.setattr(energon, "_index_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(folder, "--to", "energon")
    assert not (folder / ".nv-meta" / ".info.json").exists()


def test_an_image_in_webp_keeps_its_name(tmp_path):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(file, "WEBP")
    webp = sample("coco-caption", "caption", 0, images=[EncodedImage(file.getvalue(), "webp")], width=40, height=20)
    write_cleaned(tmp_path, "coco-caption", [webp])
    run(tmp_path / "coco-caption", "--to", "llava", tmp_path / "out")
    (name,) = (tmp_path / "out" / "images").rglob("*.webp")
    assert name.read_bytes() == file.getvalue()


@pytest.mark.parametrize("form", ["llava", "parquet"])
@pytest.mark.parametrize("fault", [swallowed, told_twice], ids=lambda fault: fault.__name__)
def test_a_row_that_is_lost_or_doubled_stops_its_split(cleaned, tmp_path, form, fault, monkeypatch):
    fault(monkeypatch, "export")
    with pytest.raises(Unaccounted, match=r"export, split [\w-]+.*row \d+"):
        run(cleaned / "gqa", "--to", form, tmp_path / "out")
    assert split_ids(tmp_path / "out") == []
