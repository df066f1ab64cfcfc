"""Every job, with a row swallowed, told twice or skipped, or an error call lost: refused, and nothing is committed."""

import gzip
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from corpus.census import Census, Unaccounted
from corpus.folder import OutputFolder
from corpus.readers import pairs
from corpus.readers.slices import held, plan, read
from corpus.records import EncodedImage, to_members
from corpus.shards import ShardWriter, read_shard, sample_keys
from corpus.splits import Sink
from pipelines import (
    build_stage,
    clean_captions,
    clean_chat,
    clean_grounding,
    clean_laion,
    clean_text,
    clean_vqa,
    dedup,
    fetch_images,
    make_ocr,
    make_scenes,
    render_html,
    render_pdf,
    retune,
    score_clip,
)
from pipelines.fetch import run as fetch_run
from pipelines.work import annotated, stage
from renderers.browsers import find_browser
from tests.cleaned import sample, write_cleaned
from tests.every_face import has_raqm
from tests.published import jpeg, put_images, put_json, refcoco, run_job
from tests.test_clean_laion import CAPTION, shard, url_table
from tests.test_render_jobs import archive, pdf_document, words

# --- A small input for every job, with at least one error where the job can have one ---


def image_pairs(tmp_path):
    rows = [(jpeg(0), CAPTION, {}), (jpeg(1), "A man", {}), (b"", CAPTION, {}), (jpeg(2), CAPTION, {})]
    return "--dataset", "laion-en", "--input", shard(tmp_path / "a.tar", rows)


def metadata(tmp_path):
    pq.write_table(url_table(), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1, or not")
    return "--dataset", "laion-en", "--input", tmp_path / "?.parquet"


def captions(tmp_path):
    images = put_images(tmp_path / "images", ["0.jpg", "1.jpg"])
    rows = [{"image": f"{i}.jpg", "text": f"{CAPTION}, {i}"} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = "--dataset", "in-house", "--images", images, "--texts-per-image", "longest"
    return *flags, "--input", tmp_path / "rows.jsonl"


def questions(tmp_path):
    images = put_images(tmp_path / "images", ["1.jpg"])
    qas = [{"qa_id": i, "image_id": 1, "question": f"Q{i}?", "answer": "Green."} for i in range(3)]
    path = put_json(
        tmp_path / "qa.json", [{"id": 1, "qas": qas}, {"id": 1}, {"id": 1, "qas": []}, {"id": 1, "qas": qas}]
    )
    return "--dataset", "vgqa", "--images", images, "--input", path


def refs(tmp_path):
    images = put_images(tmp_path / "images", ["COCO_train2014_000000000007.jpg"])
    return "--dataset", "refcoco", "--images", images, "--input", *refcoco(tmp_path)


def dialogues(tmp_path):
    rows = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), "", "no json"]))
    return "--input", tmp_path / "rows.jsonl"


def texts(tmp_path):
    rows = [json.dumps({"text": words(80 + i)}) for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, "no json", json.dumps({"text": "short"})]))
    return "--input", tmp_path / "rows.jsonl"


def cleaned_shard(tmp_path):
    made = [sample("laion-en", "caption", i) for i in range(4)]
    made[1].images = [EncodedImage(made[1].images[0].data[:90], "jpg")]
    with (tmp_path / "in.tar").open("wb") as file:
        writer = ShardWriter(file)
        for one in made:
            writer.write(one.key, to_members(one))
        writer.close()
    return "--input", tmp_path / "in.tar"


def urls(tmp_path):
    refused = ["no URL", "http://127.0.0.1/1.jpg", "http://169.254.169.254/", ""]  # nobody is asked for any of these
    pq.write_table(pa.table({"URL": refused, "TEXT": [CAPTION] * 4}), tmp_path / "a.parquet")
    return "--dataset", "laion-en", "--input", tmp_path / "a.parquet"


def pdfs(tmp_path):
    made = {"a.pdf": pdf_document(words(40), words(41)), "b.pdf": b"junk", "c.pdf": pdf_document(words(250))}
    return "--input", archive(tmp_path, made)


def pages(tmp_path):
    try:
        find_browser()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    for name, body in {"a": f"<p>{words(60)}", "b": "", "c": f"<p>{words(61)}"}.items():
        (tmp_path / f"{name}.html").write_text(body)
    return "--input", tmp_path / "?.html"


def ocr(tmp_path):
    has_raqm()
    shutil.copy(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), tmp_path)
    rows = "face,language,package,licence,file,companion", "DejaVu Sans Book,en,,,DejaVuSans.ttf,"
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    faces = "--fonts", tmp_path / "faces.csv", "--font-dir", tmp_path
    small = {"canvas": {"short_side": [240, 320]}, "page": {"short_side": [200, 320]}}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/broken.jpg").write_bytes(jpeg(0)[:200])
    (tmp_path / "photos/good.jpg").write_bytes(jpeg(0, width=40, height=30))
    settings = put_json(tmp_path / "small.json", small)
    return "--language", "en", "--count", 5, "--settings", settings, "--backgrounds", tmp_path / "photos", *faces


def scenes(tmp_path):
    return "--dataset", "scenes-referring", "--level", "easy", "--count", 4


def mixture(tmp_path):
    made = [sample("laion-en", "caption", i) for i in range(12)]
    made[1].images = [EncodedImage(made[1].images[0].data[:90], "jpg")]
    write_cleaned(tmp_path / "cleaned", "laion-en", made)
    return "--stage", 1, "--data", tmp_path / "cleaned", "--queries", 16, "--samples", 30


def retuned(tmp_path):
    run_job(clean_laion, *image_pairs(tmp_path), "--output", tmp_path / "before")
    return tmp_path / "before", "--set", "aspect_ratio.max_ratio=2.5"


TAR = ("--dataset", "coyo", "--clip", "tiny")
# name: job, its input, where its loop gets rows from (a function whose first row the test withholds)
JOBS: dict[str, tuple] = {
    "clean_laion, images": (clean_laion, image_pairs, (clean_laion, "_shard_batches")),
    "clean_laion, metadata": (clean_laion, metadata, (pairs, "tables")),
    "clean_captions": (clean_captions, captions, (annotated, "limited")),
    "clean_vqa": (clean_vqa, questions, (annotated, "limited")),
    "clean_grounding": (clean_grounding, refs, (annotated, "limited")),
    "clean_chat": (clean_chat, dialogues, (annotated, "limited")),
    "clean_text": (clean_text, texts, (annotated, "limited")),
    "dedup": (dedup, lambda tmp: ("--each-other", *cleaned_shard(tmp)), (annotated, "limited")),
    "score_clip": (score_clip, lambda tmp: (*TAR, *cleaned_shard(tmp)), (score_clip, "read_samples")),
    "fetch_images": (fetch_images, urls, (fetch_run, "read_urls")),
    "render_pdf": (render_pdf, pdfs, (render_pdf, "islice")),
    "render_html": (render_html, pages, (render_html, "islice")),
    "make_ocr": (make_ocr, ocr, (make_ocr, "enumerate")),
    "make_scenes": (make_scenes, scenes, (make_scenes, "enumerate")),
    "build_stage": (build_stage, mixture, (stage._Builder, "_take")),
    "retune": (retune, retuned, (retune, "_with_verdicts")),
}
TWO_PASSES = ("clean_captions", "clean_text", "dedup")


@pytest.fixture(autouse=True)
def closed_browsers(monkeypatch):
    """End the browsers that a refused job leaves behind: a process of its own would end them when it ends."""
    started, real = [], render_html.HtmlRenderer
    monkeypatch.setattr(render_html, "HtmlRenderer", lambda *args: started.append(real(*args)) or started[-1])
    yield
    for renderer in started:
        renderer.close()


@pytest.fixture(scope="module")
def flags_of(tmp_path_factory):
    """Return a function: name of a job -> its flags, on an input made once."""
    made = {}

    def flags(name: str) -> tuple:
        if name not in made:
            made[name] = JOBS[name][1](tmp_path_factory.mktemp("input"))
        return made[name]

    return flags


# --- Ways to lose a row ---


class Fault:
    """Changes the first call of a kind that a sink gets; with `last_pass`, of the sinks that write samples alone."""

    def __init__(self, monkeypatch, times: int, wanted: Callable[[str], bool], last_pass: bool = False):
        self._times, self._wanted, self._last_pass, self.done = times, wanted, last_pass, False
        for name, outcome in {"keep": "kept", "drop": "dropped", "error": "error"}.items():
            monkeypatch.setattr(Sink, name, self._once(getattr(Sink, name), outcome))
        monkeypatch.setattr(Sink, "rows", self._in_tables(Sink.rows))

    def _strikes(self, sink: Sink, outcome: str) -> bool:
        strikes = not self.done and self._wanted(outcome) and not (self._last_pass and sink._shard is None)
        self.done |= strikes
        return strikes

    def _once(self, real: Callable, outcome: str) -> Callable:
        def call(sink, *args, **columns):
            for _ in range(self._times if self._strikes(sink, outcome) else 1):
                real(sink, *args, **columns)

        return call

    def _in_tables(self, real: Callable) -> Callable:
        def call(sink, table):
            outcomes = table["outcome"].to_pylist()
            times = [self._times if self._strikes(sink, outcome) else 1 for outcome in outcomes]
            real(sink, table.take(pa.array(np.repeat(np.arange(len(times)), times))))

        return call


def swallowed(monkeypatch, job: str) -> None:
    Fault(monkeypatch, 0, lambda outcome: True)


def told_twice(monkeypatch, job: str) -> None:
    Fault(monkeypatch, 2, lambda outcome: True)


def error_lost(monkeypatch, job: str) -> None:
    Fault(monkeypatch, 0, lambda outcome: outcome == "error")


def skipped_by_the_loop(monkeypatch, job: str) -> None:
    """Withhold the first row (of the first batch) from the job's own loop."""
    place, name = JOBS[job][2]
    real = getattr(place, name, enumerate)

    def lossy(*args, **options):
        if name == "_take":  # takes a row instead of giving it
            return monkeypatch.setattr(place, name, real)
        found = real(*args, **options)
        return found.slice(1) if isinstance(found, pa.Table) else _without_first(list(found))

    monkeypatch.setattr(place, name, lossy, raising=False)


def _without_first(items):
    for i, item in enumerate(items):
        if isinstance(item, pa.Table):
            yield item if i else item.slice(1)
        elif isinstance(item, list):
            yield item if i else item[1:]
        elif i or len(items) == 1:  # one item: a plan of splits
            yield item


def committed(output: Path) -> list[str]:
    about = ("job.json", "unfinished.json")  # the settings, and the note of a run under way
    return sorted(path.name for path in output.glob("*") if path.name not in about and path.is_file())


def job_name(name: str) -> str:
    return "clean_laion" if name == "retune" else name.partition(",")[0]


FAULTS = [swallowed, told_twice, error_lost, skipped_by_the_loop]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", JOBS)
def test_a_row_that_is_lost_or_doubled_stops_its_split(name, fault, flags_of, tmp_path, monkeypatch):
    if name == "make_scenes" and fault is error_lost:
        pytest.skip("drawing a scene has no errors")
    flags = flags_of(name)
    fault(monkeypatch, name)
    with pytest.raises(Unaccounted, match=rf"{job_name(name)}.*, split [\w-]+.*row \d+ \(.+/\d+\)") as refusal:
        run_job(JOBS[name][0], *flags, "--output", tmp_path / "out")
    split = str(refusal.value).partition("split ")[2].split()[0].rstrip(":")
    assert not [file for file in committed(tmp_path / "out") if file.startswith(split)]


@pytest.mark.parametrize("name", TWO_PASSES)
@pytest.mark.parametrize("times", [0, 2], ids=["swallowed", "told_twice"])
def test_the_second_pass_is_held_to_account_too(name, times, flags_of, tmp_path, monkeypatch):
    Fault(monkeypatch, times, lambda outcome: True, last_pass=True)
    with pytest.raises(Unaccounted, match=rf"{name}, split [\w-]+"):
        run_job(JOBS[name][0], *flags_of(name), "--output", tmp_path / "out")
    assert not committed(tmp_path / "out")


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("name", JOBS)
def test_untouched_it_passes_and_the_manifest_says_how_many_records(name, limit, flags_of, tmp_path):
    if name == "retune" and limit:
        pytest.skip("retune.py has no --limit: it takes that of the folder")
    run_job(JOBS[name][0], *flags_of(name), *(["--limit", limit] if limit else []), "--output", tmp_path / "out")
    manifests = OutputFolder(str(tmp_path / "out")).manifests()
    assert manifests
    for split, manifest in manifests.items():
        rows = pq.read_table(tmp_path / "out" / f"{split}.parquet", columns=["row"])["row"]
        assert manifest.records == pc.count_distinct(rows).as_py() <= manifest.counts.rows == len(rows)
        assert limit is None or manifest.records <= limit


@pytest.mark.parametrize("name", sorted(JOBS.keys() - {"retune"}))
def test_with_a_limit_too(name, flags_of, tmp_path, monkeypatch):
    flags = flags_of(name)
    Fault(monkeypatch, 0, lambda outcome: True)
    with pytest.raises(Unaccounted, match="rows? in"):
        run_job(JOBS[name][0], *flags, "--limit", 2, "--output", tmp_path / "out")


# --- The counts themselves ---


def rows(*told: tuple[int, str]) -> pa.Table:
    return pa.table({"row": [row for row, _ in told], "key": [key for _, key in told]})


def census(ordinals, *told, splits=()) -> int:
    made = Census("d/00000/{:06d}".format)
    made.expects(np.array(ordinals), None, None)
    for ordinal, into in splits:
        made.splits(ordinal, into)
    made.hear(rows(*told))
    return made.check()


def test_each_kind_of_difference_is_named():
    assert census([4, 7], (4, "a"), (7, "b")) == census([4, 7], (7, "b"), (4, "a")) == 2
    with pytest.raises(Unaccounted, match=r"2 rows in, 1 told: row 7 \(d/00000/000007\) lost"):
        census([4, 7], (4, "a"))
    with pytest.raises(Unaccounted, match=r"2 rows in, 3 told: row 4 .* told more than once"):
        census([4, 7], (4, "a"), (4, "a"), (7, "b"))
    with pytest.raises(Unaccounted, match=r"row 4 .* lost; row 9 .* made up"):
        census([4, 7], (9, "a"), (7, "b"))
    with pytest.raises(Unaccounted, match="never said how many"):
        Census(str).check()


def test_a_part_told_twice_does_not_hide_one_that_is_lost():
    assert census([0, 1], (0, "a"), (0, "a-1"), (1, "b"), splits=[(0, 2)]) == 3
    assert census([0], (0, "p"), (0, "q-0"), (0, "q-1"), splits=[(0, 2), (0, 2)]) == 3
    with pytest.raises(Unaccounted, match="a-1 told more than once, and another part lost"):
        census([0, 1], (0, "a-1"), (0, "a-1"), (1, "b"), splits=[(0, 2)])
    assert census([0, 0, 1], (0, "a"), (0, "a-1"), (1, "b")) == 3
    with pytest.raises(Unaccounted, match="a told more than once, and another part lost"):
        census([0, 0, 1], (0, "a"), (0, "a"), (1, "b"))
    with pytest.raises(Unaccounted, match="would vanish"):
        census([0], splits=[(0, 0)])


LINES = {
    "blank.jsonl": b'{"a": 1}\n\n  \t\r\n{"a": 2}\n\x0b\n{"a": 3}', "empty.jsonl": b"",
    "bom.txt": b"\xef\xbb\xbfa\n\nb\n",
    "crlf.tsv": b"a\tb\r\n\r\nc\td\r\n", "bad.jsonl": b"{\n}\nnull\n",
    "quoted.csv": b'h,i\n1,"a\n\nb"\n\n2,c\n', "stray.csv": b'h,i\n5" tall,x\ny,z\n',
    "mixed.json": b'{"info": {"x": 1}, "list": [1, 2], "more": {"y": 2}}', "cut.json": b'[{"a": 1}, {"a": 2}, {"a"',
}  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("name", LINES)
def test_files_of_records_are_counted_as_they_are_read(name, at_once, tmp_path):
    (tmp_path / name).write_bytes(LINES[name])
    for piece in plan(str(tmp_path / name), at_once):
        assert held(piece).tolist() == [row for row, _ in read(piece)]


def test_a_line_too_long_to_read_at_once_counts_as_often_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("corpus.readers.slices.MAX_LINE_BYTES", 8)
    (tmp_path / "long.txt").write_bytes(b"x" * 20 + b"\n" + b" " * 30 + b"\nshort\n" + b"y" * 8 + b"\n" + b"z" * 9)
    (piece,) = plan(str(tmp_path / "long.txt"), 100)
    assert held(piece).tolist() == [row for row, _ in read(piece)]


class Sized(io.BytesIO):
    """Bytes that know their size, as a local file that is not compressed does."""

    @property
    def size(self) -> int:
        return self.getbuffer().nbytes


def damaged_tar(rng: random.Random) -> bytes:
    file = io.BytesIO()
    formats = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=file, mode="w", format=rng.choice(formats)) as tar:
        for _ in range(rng.randrange(6)):
            base = rng.choice(["a", "dir/b", "x" * 90, "./k", "é", "b.c"]) + str(rng.randrange(4))
            for ext in rng.sample(["jpg", "txt", "json"], rng.randrange(1, 4)):
                info = tarfile.TarInfo(f"{base}.{ext}")
                info.type = rng.choice([tarfile.REGTYPE] * 9 + [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
                info.size = rng.randrange(1500) if info.type == tarfile.REGTYPE else 0
                info.linkname = (
                    "elsewhere" * 30 if info.type == tarfile.SYMTYPE and tar.format != tarfile.USTAR_FORMAT else ""
                )
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    data = bytearray(file.getvalue())
    data = data + rng.choice([b"", b"", b"", bytes(10_240), data])
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    for _ in range(rng.choice([0, 0, 1, 2]) if data else 0):
        data[rng.randrange(len(data))] = rng.choice([0, 48, 255])
    return bytes(data)


def test_a_tar_s_headers_tell_its_samples_however_damaged():
    for seed in range(500):
        data = damaged_tar(random.Random(seed))
        owed = [raw.key for raw in read_shard(io.BytesIO(data))]
        assert sample_keys(Sized(data)) == sample_keys(io.BytesIO(data)) == owed, seed
        packed = gzip.compress(data)
        packed = packed[: random.Random(seed).choice([len(packed), -3, len(packed) // 2])]
        owed = [raw.key for raw in read_shard(gzip.GzipFile(fileobj=io.BytesIO(packed)))]
        assert sample_keys(gzip.GzipFile(fileobj=io.BytesIO(packed))) == owed, seed
