"""The jobs over annotated datasets: real files and published layouts in, shards out, every row accounted for."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.formats import format_sample
from corpus.pieces import text_of
from corpus.records import decode_image, image_header
from corpus.shards import ShardWriter
from pipelines import clean_captions, clean_chat, clean_grounding, clean_text, clean_vqa, dedup
from pipelines.engine import job
from tests.folders import of_split, split_ids
from tests.published import BEES, grit, jpeg, outcomes, put_images, put_json, refcoco, run_job, samples
from tests.test_vqa import ai2d_files

# --- Real files ---


def test_real_coco_captions_keep_the_longest_of_five(shared_data, tmp_path):
    folder = shared_data("image_text/coco")
    run_job(clean_captions, "--dataset", "coco-caption", "--images", folder, "--input",
            folder / "captions_val2017.json",
            "--output", tmp_path / "out")  # fmt: skip
    texts = {}
    for note in json.loads((folder / "captions_val2017.json").read_text())["annotations"]:
        texts.setdefault(note["image_id"], []).append(note["caption"].strip())
    kept = samples(tmp_path / "out")
    assert len(kept) == len({s.source["image_id"] for s in kept.values()}) > 30
    assert all(len(s.text) >= max(map(len, texts[s.source["image_id"]])) - 2 for s in kept.values())
    counts = outcomes(tmp_path / "out")
    assert counts["longer_text_exists"] == 4 * counts["kept"] and counts["image_missing"] > 0


def test_real_chinese_captions_find_photos_by_their_2017_names(shared_data, tmp_path):
    run_job(clean_captions, "--dataset", "coco-cn", "--images", shared_data("image_text/coco"), "--allow-missing",
            "--input", shared_data("image_text/coco_cn/coco-cn_ext.icap2020.txt"), "--output",
            tmp_path / "out")  # fmt: skip
    (sample,) = samples(tmp_path / "out").values()
    assert sample.language == "zh" and any("\u4e00" <= c <= "\u9fff" for c in sample.text)
    assert sum(outcomes(tmp_path / "out").values()) == 3171


def test_real_vqav2_and_gqa(shared_data, tmp_path):
    vqav2, gqa = shared_data("annotations/allennlp_vqav2"), shared_data("annotations/allennlp_gqa")
    run_job(
        clean_vqa,
        "--dataset",
        "vqav2",
        "--images",
        vqav2 / "images",
        "--input",
        vqav2 / "*.json",
        "--output",
        tmp_path / "v",
    )
    found = [s.annotations for s in samples(tmp_path / "v").values()]
    assert found[0] == {"question": "What is this photo taken looking through?", "answer": "net"}
    run_job(clean_vqa, "--dataset", "gqa", "--images", gqa / "images", "--input", gqa / "question_dir/*.json",
            "--output", tmp_path / "g")  # fmt: skip
    first = next(iter(samples(tmp_path / "g").values()))
    assert first.annotations == {"question": "What is hanging above the chalkboard?", "answer": "picture"}
    assert first.images[0].data == (gqa / "images/n578564.jpg").read_bytes()


@pytest.mark.parametrize(("name", "dataset", "rows"), [("textvqa", "textvqa", 701), ("vizwiz", "vizwiz", 700)])
def test_real_questions_in_vqav2_format(shared_data, tmp_path, name, dataset, rows):
    folder = shared_data(f"annotations/{name}")
    questions = json.loads((folder / "val_questions_vqa_format.json").read_text())["questions"]
    names = {q["image_id"] if name == "vizwiz" else f"{q['image_id']}.jpg" for q in questions}
    images = put_images(tmp_path / "images", sorted(names)[:40], width=64, height=48)
    flags = ["--dataset", dataset, "--images", images, "--input", folder / "*.json", "--allow-missing"]
    run_job(clean_vqa, *flags, "--output", tmp_path / "train")
    assert outcomes(tmp_path / "train") == {"split": rows}
    run_job(clean_vqa, *flags, "--splits", "val", "--output", tmp_path / "val")
    found = samples(tmp_path / "val")
    counts = outcomes(tmp_path / "val")
    assert len(found) == counts["kept"] >= 40 and sum(counts.values()) == rows


def test_real_coco_instances_become_regions(shared_data, tmp_path):
    folder = shared_data("image_text/coco")
    run_job(clean_grounding, "--dataset", "coco-instances", "--images", folder, "--input",
            folder / "instances_val2017.json",
            "--output", tmp_path / "out")  # fmt: skip
    instances = json.loads((folder / "instances_val2017.json").read_text())
    plain = [a for a in instances["annotations"] if not a["iscrowd"]]
    for sample in samples(tmp_path / "out").values():
        boxes = [box for region in sample.annotations["regions"] for box in region["boxes"]]
        assert len(boxes) == sum(a["image_id"] == sample.source["image_id"] for a in plain)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= sample.width and 0 <= y0 < y1 <= sample.height


def test_real_dialogues_of_every_layout(shared_data, tmp_path):
    chat, llava = shared_data("annotations/chat"), shared_data("annotations/llava/coco2014_val_gpt4_qa_30x3.jsonl")
    names = {json.loads(line)["image"] for line in llava.read_text().splitlines()}
    images = put_images(tmp_path / "images", [*sorted(names), "1.jpg", "2.jpg", "3.jpg"], width=64, height=48)
    run_job(clean_chat, "--images", images, "--input", chat / "*.json*", llava, "--output", tmp_path / "out")
    found = samples(tmp_path / "out")
    assert outcomes(tmp_path / "out") == {"kept": 650 + 650 + 7 + 4 + 330 + 6 + 60}
    several = [s for s in found.values() if len(s.images) == 2]
    assert len(several) == 2 and [t["images"] for t in several[0].annotations["turns"]] == [[0], [], [1], []]
    assert not any("<image>" in t["text"] for s in found.values() for t in s.annotations["turns"])


def test_real_documents_lose_their_duplicates(shared_data, tmp_path):
    folder = shared_data("text")
    run_job(clean_text, "--input", folder / "dj_*.jsonl", folder / "zhwiki.txt", "--output", tmp_path / "out")
    counts = outcomes(tmp_path / "out")
    assert counts["exact_duplicate"] >= 1 and counts["near_duplicate"] == 3 and counts["kept"] > 70
    assert len({s.text for s in samples(tmp_path / "out").values()}) == counts["kept"]


# --- Published layouts ---


def caption_shard(path, pairs, start=0):
    """A WebDataset shard as img2dataset writes it: jpg, json with url, txt."""
    with open(path, "wb") as file:
        writer = ShardWriter(file)
        for i, (url, text, data) in enumerate(pairs, start):
            meta = json.dumps({"url": url, "caption": text, "status": "success"}).encode()
            writer.write(f"{i:09d}", [("jpg", data), ("json", meta), ("txt", text.encode())])
        writer.close()
    return str(path)


def test_cc12m_lines_with_shards_by_url_and_the_special_tag(tmp_path):
    """google-research-datasets/conceptual-12m README: url TAB caption, no header; names are <PERSON>."""
    pairs = [(f"http://x.org/{i}.jpg", "", jpeg(i)) for i in range(4)]
    shards = caption_shard(tmp_path / "images.tar", pairs)
    lines = ["http://x.org/0.jpg\t<PERSON> on the beach", "http://x.org/1.jpg\ta <b>red</b> house by the sea",
             "http://x.org/2.jpg\ta dog", "http://x.org/9.jpg\tgone from the web", "no tab",
             "a cat\thttp://x.org/3.jpg"]  # fmt: skip
    (tmp_path / "cc12m.tsv").write_text("\n".join(lines))
    run_job(
        clean_captions,
        "--dataset",
        "cc12m",
        "--images",
        shards,
        "--input",
        tmp_path / "cc12m.tsv",
        "--output",
        tmp_path / "o",
    )
    assert outcomes(tmp_path / "o") == {"bad_line": 1, "bad_url": 1, "image_missing": 1, "kept": 2, "special_tags": 1}
    assert [s.text for s in samples(tmp_path / "o").values()] == ["a red house by the sea", "a dog"]
    ledger = pq.read_table(of_split(tmp_path / "o", "parquet")).to_pylist()
    assert "opposite column order" in ledger[5]["detail"]


def test_cc3m_and_sbu_have_their_own_orders(tmp_path):
    """conceptual-captions README: caption TAB url. SBU: parallel arrays image_urls and captions."""
    shards = caption_shard(tmp_path / "images.tar", [(f"http://x.org/{i}.jpg", "", jpeg(i)) for i in range(3)])
    (tmp_path / "cc3m.tsv").write_text("a very typical bus station\thttp://x.org/1.jpg\n")
    run_job(
        clean_captions,
        "--dataset",
        "cc3m",
        "--images",
        shards,
        "--input",
        tmp_path / "cc3m.tsv",
        "--output",
        tmp_path / "c",
    )
    assert [s.text for s in samples(tmp_path / "c").values()] == ["a very typical bus station"]
    sbu = {
        "image_urls": ["http://x.org/2.jpg", "http://x.org/0.jpg"],
        "user_ids": ["a", "b"],
        "captions": ["My cat", "Us <3"],
    }
    put_json(tmp_path / "sbu.json", sbu)
    run_job(
        clean_captions,
        "--dataset",
        "sbu",
        "--images",
        shards,
        "--input",
        tmp_path / "sbu.json",
        "--output",
        tmp_path / "s",
    )
    assert [s.text for s in samples(tmp_path / "s").values()] == ["My cat", "Us <3"]


def test_the_longest_text_wins_across_splits_and_by_the_bytes_of_the_image(tmp_path):
    """Two URLs with the same bytes are one image; the longest text stands in another shard."""
    same, other = jpeg(1), jpeg(2)
    first = [
        ("http://a/1.jpg", "a dog runs", same),
        ("http://a/2.jpg", "a cat", other),
        ("http://a/1.jpg", "dog", same),
    ]
    second = [
        ("http://b/1.jpg", "a dog runs over the field", same),
        ("http://b/2.jpg", "<PERSON> and the longest cat", other),
    ]
    inputs = [caption_shard(tmp_path / "0.tar", first), caption_shard(tmp_path / "1.tar", second)]
    run_job(clean_captions, "--dataset", "cc12m", "--input", *inputs, "--output", tmp_path / "o")
    assert {s.text for s in samples(tmp_path / "o").values()} == {"a dog runs over the field", "a cat"}
    assert outcomes(tmp_path / "o") == {"kept": 2, "longer_text_exists": 2, "special_tags": 1}
    run_job(
        clean_captions,
        "--dataset",
        "cc12m",
        "--input",
        *inputs,
        "--texts-per-image",
        "all",
        "--output",
        tmp_path / "all",
    )
    assert outcomes(tmp_path / "all") == {"kept": 4, "special_tags": 1}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_in_house_captions_by_path_or_bytes(tmp_path, kind):
    images = put_images(tmp_path / "images", ["deep/down/a.jpg", "b.jpg"])
    rows = [
        {"text": "一只红色的猫", "image": "down/a.jpg"},
        {"text": "a dog", "image": "b.jpg"},
        {"text": "no", "image": "../b.png"},
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "csv":
        path.write_text("text,image\n" + "\n".join(f'"{r["text"]}",{r["image"]}' for r in rows))
    else:
        cells = [{"bytes": jpeg(5), "path": None}, {"bytes": None, "path": "b.jpg"}, {"bytes": b"GIF89a", "path": None}]
        pq.write_table(pa.table({"text": [r["text"] for r in rows], "image": cells}), path)
    run_job(clean_captions, "--dataset", "in-house", "--images", images, "--input", path, "--output", tmp_path / "out")
    kept = list(samples(tmp_path / "out").values())
    assert [s.text for s in kept] == ["一只红色的猫", "a dog"]
    assert len(outcomes(tmp_path / "out")) == 2
    if kind == "jsonl":
        assert kept[0].images[0].data == (tmp_path / "images/deep/down/a.jpg").read_bytes()


def test_refcoco_keeps_test_images_out(tmp_path):
    images = put_images(tmp_path / "images", [f"COCO_train2014_{i:012d}.jpg" for i in (7, 8, 9)])
    inputs = refcoco(tmp_path)
    run_job(
        clean_grounding, "--dataset", "refcoco", "--images", images, "--input", *inputs, "--output", tmp_path / "out"
    )
    first, second = samples(tmp_path / "out").values()
    assert first.annotations["regions"] == [
        {"text": "the ear on a giraffe", "span": None, "boxes": [[5, 20, 65, 60]]},
        {"text": "left ear", "span": None, "boxes": [[5, 20, 65, 60]]},
    ]
    assert outcomes(tmp_path / "out") == {"kept": 2, "split": 1} and second.task == "referring"


def test_test_images_of_one_set_are_kept_out_of_another(tmp_path):
    """RefCOCO's testA image 9 is a COCO photo, which Visual Genome has as image 500."""
    images = put_images(tmp_path / "VG_100K", ["500.jpg", "501.jpg", "502.jpg"])
    refs, _ = refcoco(tmp_path)
    region = {"region_id": 1, "phrase": "a thing", "x": 1, "y": 2, "width": 30, "height": 40}
    regions = put_json(tmp_path / "region_descriptions.json", [{"id": i, "regions": [region]} for i in (500, 501, 502)])
    table = put_json(
        tmp_path / "image_data.json", [{"image_id": i, "coco_id": c} for i, c in ((500, 9), (501, 8), (502, None))]
    )
    flags = ["--dataset", "visual-genome", "--images", images, "--exclude", refs]
    with pytest.raises(job.UserError, match="add image_data.json to --input"):
        run_job(clean_grounding, *flags, "--input", regions, "--output", tmp_path / "out")
    run_job(clean_grounding, *flags, "--input", regions, table, "--output", tmp_path / "out")
    assert outcomes(tmp_path / "out") == {"excluded_image": 1, "kept": 2}
    (lost,) = [r for r in pq.read_table(of_split(tmp_path / "out", "parquet")).to_pylist() if r["outcome"] == "dropped"]
    assert lost["detail"] == "coco:9"


def test_near_copies_of_listed_images_are_kept_out(tmp_path):
    images = put_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    (tmp_path / "eval.jpg").write_bytes(jpeg(1, width=200, height=150))  # b.jpg, smaller
    run_job(dedup, "--list", "--input", tmp_path / "eval.jpg", "--output", tmp_path / "eval.txt")
    (tmp_path / "q.jsonl").write_text(
        "".join(f'{{"image": "{n}.jpg", "question": "?", "answer": "x"}}\n' for n in "ab")
    )
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text("mine: {language: en, licence: mine, job: clean_vqa, reader: qwen, tasks: [vqa]}")
    run_job(clean_vqa, "--catalog", catalog, "--dataset", "mine", "--images", images, "--input", tmp_path / "q.jsonl",
            "--exclude", tmp_path / "eval.txt", "--output", tmp_path / "out")  # fmt: skip
    assert outcomes(tmp_path / "out") == {"kept": 1, "near_excluded_image": 1}


@pytest.mark.parametrize("method", ["greedy", "exact"])
def test_grit_bees_in_pixels_with_spans(tmp_path, method, capsys):
    images = put_images(tmp_path / "images", [f"{i:09d}.jpg" for i in range(3)], width=200, height=100)
    run_job(clean_grounding, "--dataset", "grit", "--images", images, "--input",
            grit(tmp_path / "coyo_0_snappy.parquet", 3),
            "--method", method, "--output", tmp_path / "out")  # fmt: skip
    found = samples(tmp_path / "out")
    assert len(found) == 3
    bees, flower = next(iter(found.values())).annotations["regions"]
    assert BEES[slice(*bees["span"])] == "bees" and bees["boxes"][0] == pytest.approx([132.2, 61.2, 166.6, 81.2])
    assert len(bees["boxes"]) == 2 and BEES[slice(*flower["span"])] == "an apricot flower"
    said = capsys.readouterr().out
    assert "boxes kept: 9" in said and "referring expressions: 6 with 9 boxes" in said


def test_grit_refers_by_its_own_expressions_and_captions_by_the_chosen_spans(tmp_path):
    images = put_images(tmp_path / "images", ["000000000.jpg"], width=200, height=100)
    run_job(clean_grounding, "--dataset", "grit", "--images", images, "--input",
            grit(tmp_path / "coyo_0_snappy.parquet"), "--output", tmp_path / "out")  # fmt: skip
    (sample,) = samples(tmp_path / "out").values()
    whole = BEES[BEES.index("bees") :]
    assert [(e["text"], len(e["boxes"])) for e in sample.annotations["expressions"]] == [
        (whole, 2), ("an apricot flower", 1)
    ]  # fmt: skip
    referring = [text_of(made.pieces) for made in format_sample(sample, "referring")]
    assert f"<ref>{whole}</ref>" in referring[0] and len(referring) == 2
    (caption,) = format_sample(sample, "grounded_caption")
    assert "<ref>bees</ref>" in text_of(caption.pieces) and f"<ref>{whole}" not in text_of(caption.pieces)


def test_ai2d_letters_are_drawn_where_the_question_needs_them(tmp_path):
    folder = ai2d_files(tmp_path / "ai2d")
    images = put_images(tmp_path / "images", ["0.png"])
    run_job(clean_vqa, "--dataset", "ai2d", "--images", images, "--input", folder / "questions/*.json",
            folder / "annotations/*.json", "--output", tmp_path / "out")  # fmt: skip
    letters, plain = samples(tmp_path / "out").values()
    assert letters.source["redrawn"] == ["A", "B"] and "redrawn" not in plain.source
    assert plain.images[0].data == (tmp_path / "images/0.png").read_bytes()
    assert image_header(letters.images[0].data) == ("png", letters.width, letters.height)
    drawn = decode_image(letters.images[0].data).convert("L")
    patch = drawn.crop((20, 30, 80, 60))
    assert patch.getextrema()[0] < 60 and patch.getpixel((1, 1)) == 255  # black on white
    before = decode_image(plain.images[0].data)
    assert decode_image(letters.images[0].data).getpixel((150, 150)) == before.getpixel((150, 150))


def test_questions_share_their_image_and_number_their_keys(tmp_path):
    images = put_images(tmp_path / "images", ["1.jpg"])
    qas = [{"qa_id": i, "image_id": 1, "question": f"Q{i}?", "answer": "Green."} for i in range(3)]
    put_json(tmp_path / "question_answers.json", [{"id": 1, "qas": qas}])
    run_job(
        clean_vqa,
        "--dataset",
        "vgqa",
        "--images",
        images,
        "--input",
        tmp_path / "question_answers.json",
        "--output",
        tmp_path / "o",
    )
    (split,) = split_ids(tmp_path / "o")
    assert split.startswith("question_answers-") and split.endswith("-00000")
    assert list(samples(tmp_path / "o")) == [f"vgqa/{split}/000000", f"vgqa/{split}/000000-1", f"vgqa/{split}/000000-2"]


# --- Near-duplicates of a cleaned folder ---


def test_dedup_removes_or_marks_and_lets_questions_share_an_image(tmp_path):
    pairs = [(f"http://x/{i}.jpg", f"scene number {i}", jpeg(i)) for i in (0, 1, 2)]
    pairs += [("http://x/9.jpg", "small two", jpeg(2, width=160, height=120)), ("http://y/0.jpg", "again", jpeg(0))]
    run_job(clean_captions, "--dataset", "cc12m", "--texts-per-image", "all", "--input",
            caption_shard(tmp_path / "0.tar", pairs),
            "--output", tmp_path / "clean")  # fmt: skip
    evaluation = put_images(tmp_path / "eval", ["nothing.jpg", "one.jpg"], width=640, height=480)
    flags = ["--input", tmp_path / "clean/*.tar", "--against", evaluation, "--each-other"]
    run_job(dedup, *flags, "--output", tmp_path / "apart")
    # picture 0 and its copy, and picture 1, are near the evaluation images (seeds 0 and 1)
    assert outcomes(tmp_path / "apart") == {"kept": 1, "near_duplicate": 1, "near_evaluation_image": 3}
    before, after = samples(tmp_path / "clean"), samples(tmp_path / "apart")
    assert all(after[key] == before[key] for key in after)
    run_job(dedup, *flags, "--mark", "--output", tmp_path / "marked")
    marks = [s.source.get("near_duplicate", {}).get("rule") for s in samples(tmp_path / "marked").values()]
    assert sorted(map(str, marks)) == ["None", "near_duplicate", *["near_evaluation_image"] * 3]


# --- Dialogues with boxes ---


def dialogue_of(answer: str, name: str = "a") -> dict:
    asked = "<image>\n<image>\nWhere is the dog in Picture 2?"
    talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"id": name, "images": ["a.jpg", "b.jpg"], "conversations": talk}


def test_boxes_of_a_trusted_file_become_regions_and_wrong_ones_ledger_rows(tmp_path):
    (tmp_path / "images").mkdir()
    for name, (width, height) in {"a.jpg": (640, 480), "b.jpg": (300, 500)}.items():
        (tmp_path / "images" / name).write_bytes(jpeg(1, width=width, height=height))
    right, wrong = "<ref>The dog</ref><box>(100,200),(500,600)</box> sits.", "<box>(5,5),(2000,9)</box>"
    put_json(tmp_path / "talk.json", [dialogue_of(right), dialogue_of(wrong), dialogue_of("<ref>No box</ref> here")])
    asked = ("--images", tmp_path / "images", "--input", tmp_path / "talk.json", "--output")
    run_job(clean_chat, *asked, tmp_path / "trusted", "--notation", "qwen-vl")
    (sample,) = samples(tmp_path / "trusted").values()
    (region,) = sample.annotations["turns"][1]["regions"]
    assert sample.annotations["turns"][1]["text"] == "The dog sits."
    assert region["image"] == 1 and region["span"] == [0, 7]
    assert region["boxes"][0] == pytest.approx([30, 100, 150, 300], abs=0.5)
    assert outcomes(tmp_path / "trusted") == {"kept": 1, "bad_box": 1, "bad_notation": 1}
    run_job(clean_chat, *asked, tmp_path / "plain")
    assert all("regions" not in s.annotations["turns"][1] for s in samples(tmp_path / "plain").values())


def test_a_file_of_which_every_row_fails_alike_stops_with_the_reason_and_examples(tmp_path, capsys):
    put_json(tmp_path / "talk.json", [{"conversations": [{"from": f"bot{i}", "value": "x"}]} for i in range(4)])
    with pytest.raises((SystemExit, Exception)) as stopped:
        run_job(clean_chat, "--input", tmp_path / "talk.json", "--output", tmp_path / "out")
    said = str(stopped.value) + "".join(capsys.readouterr())
    assert "all 4 rows failed alike, unknown_role" in said
    assert "'bot0'" in said and "'bot2'" in said and "'bot3'" not in said
