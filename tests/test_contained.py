"""Nothing crawled stops a job: inputs changed at random end as kept, dropped and error rows, or in a refusal in words.

GRISTMILL_FUZZ=N sets how many inputs the long form takes (default: 1,500; 10,000 take most of an hour).
"""

import gzip
import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.folder import OutputFolder
from corpus.readers import images as image_reader
from corpus.readers import slices
from pipelines import (
    clean_captions,
    clean_chat,
    clean_grounding,
    clean_laion,
    clean_text,
    clean_vqa,
    dedup,
    fetch_images,
    render_pdf,
    score_clip,
)
from pipelines.engine import job
from tests import test_accounted as inputs
from tests.fuzz import mutate
from tests.published import grit, jpeg, put_images, put_json, refcoco, run_job
from tests.test_clean_laion import CAPTION, url_table
from tests.test_render_jobs import words

INPUTS = int(os.environ.get("GRISTMILL_FUZZ", 1_500))


# --- A small input for every reader: flags, of which the files in `data` are changed. One in `whole` stays as it is ---


def lines(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def twice(folder: Path, name: str, write) -> tuple[Path, Path]:
    """Write a file for change and its like that stays whole."""
    for part in ("data", "whole"):
        (folder / part).mkdir(exist_ok=True)
        write(folder / part / name)
    return folder / "data" / name, folder / "whole" / name


def text_jsonl(folder):
    rows = [{"text": words(80 + i), "id": i, "url": "http://a.example"} for i in range(4)]
    return "--input", *twice(folder, "rows.jsonl", lambda path: lines(path, rows))


def text_gz(folder):
    rows = "\n".join(json.dumps({"text": words(90 + i)}) for i in range(4)).encode()
    return "--input", *twice(folder, "rows.jsonl.gz", lambda path: path.write_bytes(gzip.compress(rows)))


def text_parquet(folder):
    table = pa.table({"text": [words(70 + i) for i in range(6)], "id": list(range(6)), "url": ["u"] * 6})
    return "--input", *twice(folder, "rows.parquet", lambda path: pq.write_table(table, path, row_group_size=2))


def text_csv(folder):
    rows = "id,text\n" + "".join(f'{i},"{words(60 + i)}"\n' for i in range(4))
    return "--input", *twice(folder, "rows.csv", lambda path: path.write_text(rows))


def chat(folder):
    rows = [
        {"id": 1, "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}],
         "image": "0.jpg"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url":
         {"url": "0.jpg"}}]}, {"role": "assistant", "content": "Ho"}]},
        {"instruction": "Say.", "input": "it", "output": "it", "system": "s", "history": [["a", "b"]]},
    ]  # fmt: skip
    images = put_images(folder / "images", ["0.jpg"])
    return "--images", images, "--input", *twice(folder, "rows.jsonl", lambda path: lines(path, rows))


def captions_jsonl(folder):
    images = put_images(folder / "images", ["0.jpg", "1.jpg"])
    rows = [{"image": f"{i % 2}.jpg", "text": f"{CAPTION}, {i}", "id": i} for i in range(4)]
    flags = "--dataset", "in-house", "--images", images, "--texts-per-image", "longest"
    return *flags, "--input", *twice(folder, "rows.jsonl", lambda path: lines(path, rows))


def captions_parquet(folder):
    table = pa.table({"image": [{"bytes": jpeg(i), "path": "a.jpg"} for i in range(4)], "text": [CAPTION] * 4})
    flags = "--dataset", "in-house", "--input"
    return *flags, *twice(folder, "rows.parquet", lambda path: pq.write_table(table, path, row_group_size=2))


def captions_coco(folder):
    images = put_images(folder / "images", ["COCO_train2014_000000000007.jpg"])
    coco = {
        "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg"}],
        "annotations": [{"id": i, "image_id": 7, "caption": f"{CAPTION} {i}"} for i in range(3)],
    }
    return "--dataset", "coco-caption", "--images", images, "--input", *twice(
        folder, "captions.json", lambda path: put_json(path, coco)
    )  # fmt: skip


def urls_tsv(folder):
    rows = "".join(f"{CAPTION} {i}\thttp://127.0.0.1/{i}.jpg\n" for i in range(4))
    return "--dataset", "cc3m", "--input", *twice(folder, "cc3m.tsv", lambda path: path.write_text(rows))


def urls_parquet(folder):
    table = pa.table({"URL": ["no URL", "http://127.0.0.1/1.jpg", ""], "TEXT": [CAPTION] * 3, "similarity": [0.3] * 3})
    flags = "--dataset", "laion-en", "--input"
    return *flags, *twice(folder, "a.parquet", lambda path: pq.write_table(table, path, row_group_size=1))


def metadata(folder):
    write = lambda path: pq.write_table(url_table(), path, row_group_size=2)  # noqa: E731
    return "--dataset", "laion-en", "--input", *twice(folder, "a.parquet", write)


def image_table(folder):
    table = pa.table({"image": [jpeg(i) for i in range(4)], "TEXT": [CAPTION] * 4, "WIDTH": [320] * 4,
                      "HEIGHT": [240] * 4, "similarity": [0.4] * 4})  # fmt: skip
    flags = "--dataset", "laion-en", "--images", put_images(folder / "images", ["0.jpg"]), "--input"
    return *flags, *twice(folder, "a.parquet", lambda path: pq.write_table(table, path, row_group_size=2))


def image_shard(folder):
    flags = inputs.image_pairs(folder)
    (folder / "data").mkdir()
    tar = shutil.move(str(flags[-1]), folder / "data" / "a.tar")
    table = pa.table({"key": ["000000009", "000000008"], "status": ["failed_to_download", "success"],
                      "error_message": ["404", None]})  # fmt: skip
    pq.write_table(table, folder / "data" / "a.parquet")
    return *flags[:-1], tar


def questions(folder):
    images = put_images(folder / "images", ["COCO_train2014_000000000007.jpg"])
    (folder / "data").mkdir()
    asked = {"questions": [{"image_id": 7, "question": f"What {i}?", "question_id": i} for i in range(3)]}
    answers = [{"answer": "net", "answer_confidence": "yes", "answer_id": i} for i in range(3)]
    noted = {"annotations": [{"question_id": i, "image_id": 7, "answers": answers, "multiple_choice_answer": "net"}
                             for i in range(3)]}  # fmt: skip
    paths = (put_json(folder / "data" / f"{name}_train.json", value) for name, value in
             {"questions": asked, "annotations": noted}.items())  # fmt: skip
    return "--dataset", "vqav2", "--images", images, "--input", *paths


def genome(folder):
    images = put_images(folder / "images", ["1.jpg"])
    qas = [{"qa_id": i, "image_id": 1, "question": f"Q{i}?", "answer": "Green."} for i in range(3)]
    write = lambda path: put_json(path, [{"id": 1, "qas": qas}, {"id": 1, "qas": qas}])  # noqa: E731
    return "--dataset", "vgqa", "--images", images, "--input", *twice(folder, "qa.json", write)


def books(folder):
    images = put_images(folder / "images", ["a1.jpg"])
    book = {"a1": {"questions": ["Who?", "What?"], "answers": ["I", 3], "split": 1, "imageURL": "http://a"}}
    write = lambda path: put_json(path, book | {"a1.jpg": book["a1"]})  # noqa: E731
    return "--dataset", "ocr-vqa", "--images", images, "--input", *twice(folder, "dataset.json", write)


def diagrams(folder):
    images = put_images(folder / "images", ["0.png"])
    asked = {"What is A?": {"abcLabel": True, "answerTexts": ["x", "y"], "correctAnswer": 1, "questionId": "0.png-1"}}
    notes = {"text": {"T0": {"replacementText": "A", "rectangle": [[5, 5], [30, 25]]}}}
    question = put_json(folder / "data/questions/0.png.json", {"imageName": "0.png", "questions": asked})
    note = put_json(folder / "data/annotations/0.png.json", notes)
    return "--dataset", "ai2d", "--images", images, "--input", question, note


def refs(folder):
    images = put_images(folder / "images", ["COCO_train2014_000000000007.jpg"])
    (folder / "data").mkdir()
    return "--dataset", "refcoco", "--images", images, "--input", *refcoco(folder / "data")


def regions(folder):
    images = put_images(folder / "images", ["1.jpg"])
    region = {"region_id": 1, "image_id": 1, "phrase": "a cat", "x": 5, "y": 5, "width": 60, "height": 40}
    write = lambda path: put_json(path, [{"id": 1, "regions": [region] * 3}] * 2)  # noqa: E731
    return "--dataset", "visual-genome", "--images", images, "--input", *twice(folder, "regions.json", write)


def grit_rows(folder):
    images = put_images(folder / "images", ["000000000.jpg", "000000001.jpg"])
    flags = "--dataset", "grit", "--images", images, "--input"
    return *flags, *twice(folder, "coyo_0_snappy.parquet", lambda path: grit(path, rows=2))


def cleaned(folder):
    flags = inputs.cleaned_shard(folder)
    (folder / "data").mkdir()
    return "--input", shutil.move(str(flags[-1]), folder / "data" / "in.tar")


def pdfs(folder):
    flags = inputs.pdfs(folder)
    (folder / "data").mkdir()
    return "--input", shutil.move(str(flags[-1]), folder / "data" / Path(flags[-1]).name)


CASES = {
    "text jsonl": (clean_text, text_jsonl), "text gz": (clean_text, text_gz),
    "text parquet": (clean_text, text_parquet), "text csv": (clean_text, text_csv), "chat": (clean_chat, chat),
    "captions jsonl": (clean_captions, captions_jsonl), "captions parquet": (clean_captions, captions_parquet),
    "captions coco": (clean_captions, captions_coco), "urls tsv": (fetch_images, urls_tsv),
    "urls parquet": (fetch_images, urls_parquet), "metadata": (clean_laion, metadata),
    "image table": (clean_laion, image_table), "image shard": (clean_laion, image_shard),
    "vqav2": (clean_vqa, questions), "vgqa": (clean_vqa, genome), "ocr-vqa": (clean_vqa, books),
    "ai2d": (clean_vqa, diagrams), "refcoco": (clean_grounding, refs), "regions": (clean_grounding, regions),
    "grit": (clean_grounding, grit_rows), "dedup": (dedup, lambda folder: ("--each-other", *cleaned(folder))),
    "score_clip": (score_clip, lambda folder: (*inputs.TAR, *cleaned(folder))), "pdf": (render_pdf, pdfs),
}  # fmt: skip
SLOW = {"pdf", "score_clip"}
# Where one file is all there is, or what rows are looked up in, a damaged one is refused in words.
MAY_REFUSE = {"image shard", "vqav2", "ai2d", "refcoco", "dedup", "score_clip", "pdf"}


def run_changed(name: str, seed: int, folder: Path, pristine: Path, flags: tuple) -> str:
    """Change an input of a job by a seed and run the job; return how it ended."""
    rng = random.Random(f"{name} {seed}")
    shutil.rmtree(folder / "data", ignore_errors=True)
    shutil.copytree(pristine, folder / "data")
    files = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    done = mutate(rng.choice(files), rng)
    for cache in (slices._arrays, image_reader.open_images):
        cache.cache_clear()
    output, started = folder / "out", time.monotonic()
    shutil.rmtree(output, ignore_errors=True)
    try:
        run_job(CASES[name][0], *flags, "--output", output)
    except job.UserError as error:
        assert name in MAY_REFUSE, f"{name}, seed {seed}, {done}: refused, {error}"
        return "refused"
    except BaseException as error:
        raise AssertionError(f"{name}, seed {seed}, {done}: {type(error).__name__}: {error}"[:600]) from error
    assert time.monotonic() - started < 60, f"{name}, seed {seed}, {done}: took too long"
    kept = 0
    for split, manifest in OutputFolder(str(output)).manifests().items():
        manifest.counts.check(split)
        assert pq.read_metadata(output / f"{split}.parquet").num_rows == manifest.counts.rows
        kept += manifest.counts.kept
    if (folder / "whole").exists() and CASES[name][0] is not fetch_images:
        assert kept, f"{name}, seed {seed}, {done}: nothing is kept of the whole file"
    return "ran"


def run_case(name: str, seeds, folder: Path) -> Counter:
    flags = CASES[name][1](folder)
    shutil.copytree(folder / "data", folder / "pristine")
    return Counter(run_changed(name, seed, folder, folder / "pristine", flags) for seed in seeds)


@pytest.mark.parametrize("name", sorted(CASES.keys() - SLOW))
def test_a_changed_input_stops_no_job(name, tmp_path, capsys):
    run_case(name, range(6), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", CASES)
def test_many_changed_inputs_stop_no_job(name, tmp_path, capsys):
    share = INPUTS // len(CASES.keys() - SLOW) + 1
    found = run_case(name, range(1000, 1000 + (share if name not in SLOW else share // 10)), tmp_path)
    with capsys.disabled():
        print(f"{name}: {dict(found)}")


# --- What the damage costs, to the row ---


def zero_page(path: Path, group: int, column: int) -> None:
    """Zero the head of a page of a column."""
    at = pq.ParquetFile(path).metadata.row_group(group).column(column).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)


@pytest.mark.parametrize("limit", [None, 250, 150])
@pytest.mark.parametrize("job_name", ["clean_laion", "clean_text", "fetch_images"])
def test_a_damaged_row_group_is_one_row_and_the_manifest_counts_the_rest(job_name, limit, tmp_path):
    table = {"TEXT": [f"{CAPTION}, the number {i}" for i in range(400)], "URL": [f"http://127.0.0.1/{i}.jpg" for i in
             range(400)], "text": [words(80 + i) for i in range(400)]}  # fmt: skip
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table), path, row_group_size=100, use_dictionary=False)
    zero_page(path, 1, 0)
    module, flags = {
        "clean_laion": (clean_laion, ("--dataset", "laion-en")), "clean_text": (clean_text, ("--duplicates", "keep")),
        "fetch_images": (fetch_images, ("--dataset", "laion-en")),
    }[job_name]  # fmt: skip
    limits = () if limit is None else ("--limit", limit)
    run_job(module, *flags, "--input", path, "--output", tmp_path / "out", *limits)
    (manifest,) = OutputFolder(str(tmp_path / "out")).manifests().values()
    (ledger,) = [file for file in (tmp_path / "out").glob("*.parquet") if ".urls." not in file.name]
    rows = pq.read_table(ledger, columns=["row", "rule", "detail"]).to_pylist()
    (bad,) = [row for row in rows if row["rule"] == "unreadable_rows"]
    read = limit or 400
    assert bad["row"] == 100 and "rows 100 to 199, in row group 1" in bad["detail"]
    assert [row["row"] for row in rows] == [*range(101), *range(200, read)]
    assert manifest.counts.unread == min(read, 200) - 101
    assert manifest.records == read == len(rows) + manifest.counts.unread


def test_values_that_are_none_cost_their_rule_or_their_row(tmp_path):
    table = {"TEXT": [CAPTION] * 4, "URL": ["u"] * 4, "WIDTH": ["n/a", "", "640", " 5e2 "], "HEIGHT": ["480"] * 4}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    run_job(clean_laion, "--dataset", "laion-en", "--input", tmp_path / "a.parquet", "--output", tmp_path / "out")
    (manifest,) = OutputFolder(str(tmp_path / "out")).manifests().values()
    assert manifest.counts.kept == 4 and manifest.counts.unjudged["aspect_ratio"] == 2


def test_a_source_that_is_no_object_and_a_sidecar_that_is_no_parquet(tmp_path):
    tar = inputs.shard(tmp_path / "a.tar", [(jpeg(0), CAPTION, {"source": "cc12m"}), (jpeg(1), CAPTION, {})])
    (tmp_path / "a.parquet").write_bytes(b"")
    run_job(clean_laion, "--dataset", "laion-en", "--input", tar, "--output", tmp_path / "out")
    (manifest,) = OutputFolder(str(tmp_path / "out")).manifests().values()
    assert manifest.counts.kept == 2 and manifest.counts.errors == {"unreadable_sidecar": 1}


@pytest.mark.parametrize("module", [clean_text, clean_chat])
def test_an_empty_file_is_no_rows(module, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    run_job(module, "--input", tmp_path / "a.jsonl", "--output", tmp_path / "out")
    (manifest,) = OutputFolder(str(tmp_path / "out")).manifests().values()
    assert manifest.counts.rows == 0


def test_a_page_without_lines_is_blank_though_the_rule_is_off(tmp_path):
    (tmp_path / "a.pdf").write_bytes(inputs.pdf_document(""))
    off = ("--rule", "blank=off", "--rule", "too_few_characters=off")
    run_job(render_pdf, "--input", tmp_path / "a.pdf", *off, "--output", tmp_path / "out")
    (manifest,) = OutputFolder(str(tmp_path / "out")).manifests().values()
    assert manifest.counts.dropped == {"blank": 1}
