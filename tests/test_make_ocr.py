"""The job make_ocr: same bytes however it is run, and clear words where it cannot run."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import pyarrow.parquet as pq
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from corpus.folder import SettingsDiffer
from corpus.records import from_members
from corpus.shards import IndexedShard
from pipelines import make_ocr
from pipelines.engine import job
from tests.every_face import every_face

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"canvas": {"short_side": [240, 320]}, "page": {"short_side": [200, 320]}}


@pytest.fixture(autouse=True)
def installed():
    every_face()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the job in this process on small images: (output name, *flags) -> output folder."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))

    def call(name, *flags, language="en"):
        output = tmp_path / name
        common = [
            "--language",
            language,
            "--output",
            str(output),
            "--workers",
            "0",
            "--settings",
            f"{tmp_path}/small.json",
        ]
        monkeypatch.setattr(sys, "argv", ["make_ocr.py", *common, *map(str, flags)])
        make_ocr.main()
        return output

    return call


def data_files(folder):
    """Return the bytes of everything but manifests and reports."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".tar", ".idx", ".parquet")}


def samples(folder):
    shards = [IndexedShard(str(path)) for path in sorted(folder.glob("*.tar"))]
    return [from_members(shard[i][1]) for shard in shards for i in range(len(shard))]


def ledger(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_samples_are_complete(run):
    made = samples(run("out", "--count", 4))
    assert [sample.source["image"] for sample in made] == [0, 1, 2, 3]
    for sample in made:
        assert (sample.task, sample.language, sample.dataset) == ("ocr", "en", "synthdog-en")
        assert sample.key.startswith("synthdog-en/00000/")
        assert sample.text == "\n".join(line["text"] for line in sample.annotations["lines"])
        for line in sample.annotations["lines"]:
            assert len(line["quad"]) == 4 and "words" not in line and "vertical" not in line
            assert all(0 <= x <= sample.width and 0 <= y <= sample.height for x, y in line["quad"])


def test_an_image_depends_on_its_number_not_on_its_shard(run):
    whole, parts = run("whole", "--count", 5), run("parts", "--count", 5, "--images-per-shard", 2)
    images = [[s.images[0].data for s in samples(folder)] for folder in (whole, parts)]
    assert images[0] == images[1] and len(set(images[0])) == 5
    other = run("other", "--count", 5, "--seed", 1)
    assert not set(images[0]) & {s.images[0].data for s in samples(other)}


def test_the_count_may_grow(run):
    first = samples(run("grown", "--count", 3, "--images-per-shard", 2))
    grown = samples(run("grown", "--count", 6, "--images-per-shard", 2))
    assert len(grown) == 6 and [s.images for s in grown[:3]] == [s.images for s in first]


def test_other_settings_are_refused(run):
    run("out", "--count", 2)
    with pytest.raises(job.SettingsDiffer, match="recipe.words"):
        run("out", "--count", 2, "--words")


def test_options_are_labelled(run):
    vertical = samples(run("vertical", "--count", 3, "--vertical", "1", "--words", language="zh"))
    lines = [line for sample in vertical for line in sample.annotations["lines"]]
    assert lines and all(line["vertical"] and line["words"] for line in lines)


def test_donut_labels_match_the_shards(run, tmp_path):
    made = samples(run("out", "--count", 10, "--images-per-shard", 4, "--donut", tmp_path / "donut"))
    labels = {}
    for path in (tmp_path / "donut").rglob("metadata.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            labels[record["file_name"]] = json.loads(record["ground_truth"])["gt_parse"]["text_sequence"]
            assert (path.parent / record["file_name"]).is_file()
    assert labels == {f"image_{s.source['image']}.jpg": " ".join(s.text.split()) for s in made}
    assert {path.name for path in (tmp_path / "donut").iterdir()} == {"train", "validation", "test"}


def test_a_broken_background_is_a_ledger_row(run, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (i * 90, 0, 0)).save(photos / f"good{i}.jpg")
    (photos / "broken.jpg").write_bytes((photos / "good0.jpg").read_bytes()[:200])
    rows = ledger(run("out", "--count", 16, "--backgrounds", photos))
    assert len(rows) == 16
    errors = [row for row in rows if row["outcome"] == "error"]
    assert errors and all("broken.jpg" in row["detail"] and row["rule"].endswith("_image") for row in errors)


def test_a_script_no_face_covers_is_a_ledger_row_and_stops_an_empty_run(run, tmp_path):
    (tmp_path / "thai.txt").write_text("ภาษาไทยเป็นภาษาที่มีระดับเสียง " * 500)
    with pytest.raises(job.UserError, match="not one of 3 images .*no_face_covers: 3"):
        run("out", "--count", 3, "--corpus", tmp_path / "thai.txt")
    assert all("ภาษาไทย" in row["detail"] for row in ledger(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("empty.txt", "", ["--corpus", "{path}"], "the corpus has no text"),
        ("notes.pdf", "x", ["--corpus", "{path}"], "a corpus is .txt, .jsonl, .tar"),
        ("faces.csv", "face,language\nA,en\n", ["--fonts", "{path}"], "faces.csv:2: no package"),
        (
            "gone.csv",
            "face,language,package,licence,file,companion\nGone,en,fonts-gone,OFL,gone.ttf,\n",
            ["--fonts", "{path}"],
            "1 of 1 faces are not installed: Gone .*fonts-gone",
        ),
        ("bad.json", '{"canvs": {}}', ["--settings", "{path}"], "did you mean 'canvas'"),
        ("bad.json", "{", ["--settings", "{path}"], "bad.json"),
        ("paper.jpg", "no paper", ["--papers", "{path}"], "paper.jpg"),
        ("x", "", ["--dataset", "synthdog-zh"], "is zh, but --language is en"),
    ],
)
def test_mistakes_are_explained(run, tmp_path, name, content, flags, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(job.UserError, match=message):
        run("out", "--count", 2, *(flag.format(path=path) for flag in flags))


@pytest.fixture
def two_faces(tmp_path):
    """Return flags for a manifest of two faces, one of them not installed, and a folder of fonts for the other."""
    (tmp_path / "fonts").mkdir()
    shutil.copy(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), tmp_path / "fonts")
    rows = "DejaVu Sans Book,en,,,DejaVuSans.ttf,", "Gone,en,fonts-gone,OFL,gone.ttf,"
    (tmp_path / "two.csv").write_text("\n".join(["face,language,package,licence,file,companion", *rows]))
    return ["--count", 2, "--fonts", tmp_path / "two.csv", "--font-dir", tmp_path / "fonts"]


def test_a_run_is_strict_unless_told_to_draw_with_the_faces_that_are_here(run, two_faces):
    with pytest.raises(job.UserError, match=r"1 of 2 faces are not installed: Gone .*--available-faces"):
        run("out", *two_faces)
    made = samples(run("out", *two_faces, "--available-faces"))
    assert {name for sample in made for name in sample.source["faces"]} == {"DejaVu Sans Book"}


def test_a_folder_says_which_bytes_drew_it_and_refuses_other_versions_of_a_font(run, two_faces, tmp_path):
    output, font = run("out", *two_faces, "--available-faces"), tmp_path / "fonts" / "DejaVuSans.ttf"
    drawn = json.loads((output / "job.json").read_text())["faces"]
    assert drawn == {"DejaVu Sans Book": hashlib.sha256(font.read_bytes()).hexdigest()}
    with TTFont(font) as other:
        other["head"].fontRevision = 9.0
        other.save(font)
    with pytest.raises(SettingsDiffer, match=f"faces.DejaVu Sans Book: '{drawn['DejaVu Sans Book']}' there"):
        run("out", *two_faces, "--available-faces")


def test_an_empty_folder_of_backgrounds_is_explained(run, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(job.UserError, match="holds no photos"):
        run("out", "--count", 2, "--backgrounds", tmp_path / "photos")


def command(output, workers, count):
    return [
        sys.executable, str(ROOT / "pipelines" / "make_ocr.py"), "--language", "en", "--count", str(count),
        "--images-per-shard", "4", "--output", str(output), "--workers", str(workers),
        "--settings", str(output.parent / "small.json"),
    ]  # fmt: skip


def test_killed_and_restarted_gives_the_same_bytes(tmp_path, run):
    expected = data_files(run("whole", "--count", 24, "--images-per-shard", 4))
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(killed, 0, 24), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(killed.glob("0*.json")))
    assert 1 <= done < 6, "the job was not killed in the middle"
    assert run("killed", "--count", 24, "--images-per-shard", 4) and data_files(killed) == expected
    assert not [path.name for path in killed.iterdir() if path.suffix == ".tmp"]


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_none(tmp_path, run):
    expected = data_files(run("whole", "--count", 12, "--images-per-shard", 4))
    subprocess.run(command(tmp_path / "two", 2, 12), check=True, cwd=tmp_path, capture_output=True)
    assert data_files(tmp_path / "two") == expected and len(expected) == 9
