"""clean_laion.py: every form of input, every kind of dirt and damage, one outcome per row."""

import io
import json
import re
import shutil
import sys
import zlib
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from corpus.catalog import load_catalog
from corpus.folder import OutputFolder, SettingsDiffer
from corpus.ledger import BlownFuse, Fuse
from corpus.readers.pairs import table_layout
from corpus.records import from_members
from corpus.shards import IndexedShard, ShardWriter
from pipelines import clean_laion
from pipelines.engine import job
from pipelines.make_demo_crawl import make_pair, write_shard
from tests.folders import of_split, split_ids

CAPTION = "A man walks along the beach"


def jpeg(width=320, height=240, colour="teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG")
    return file.getvalue()


def png_header(width, height) -> bytes:
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\0IEND\xaeB`\x82"


def shard(path: Path, rows) -> Path:
    """Write (image bytes, caption, more JSON) as an img2dataset shard."""
    with open(path, "wb") as file:
        writer = ShardWriter(file)
        for i, (image, caption, more) in enumerate(rows):
            record = json.dumps({"caption": caption, "url": f"https://x.invalid/{i}", "TEXT": caption, **more})
            writer.write(f"{i:09d}", [("jpg", image), ("json", record.encode())])
        writer.close()
    return path


def clean(tmp_path, pattern, *more, dataset="laion-en", output="out"):
    """Run the job in process; return ledger rows and samples by key."""
    paths = ["--input", str(pattern), "--output", str(tmp_path / output)]
    with patch.object(sys, "argv", ["clean_laion.py", "--dataset", dataset, *paths, "--workers", "0", *more]):
        clean_laion.main()
    return read_folder(tmp_path / output)


def read_folder(path):
    folder = OutputFolder(str(path))
    rows, samples = [], {}
    for split in folder.manifests():
        rows += pq.read_table(path / f"{split}.parquet").to_pylist()
        if (path / f"{split}.tar").exists():
            tar = IndexedShard(str(path / f"{split}.tar"))
            samples |= {key: from_members(members) for key, members in (tar[i] for i in range(len(tar)))}
    return rows, samples


def outcomes(rows):
    return [row["rule"] or row["outcome"] for row in rows]


ONE_OF_EACH = [
    (jpeg(), CAPTION, {}, "kept"),
    (jpeg(900, 200), CAPTION, {}, "aspect_ratio"),
    (jpeg(320, 199), CAPTION, {}, "image_size"),
    (jpeg(), CAPTION, {"similarity": 0.27}, "clip_score"),
    (jpeg(), CAPTION, {"similarity": 0.29}, "kept"),
    (jpeg(), "Мужчина идёт по пляжу", {}, "language"),
    (jpeg(), CAPTION + " 👍🏽", {}, "emoji"),
    (jpeg(), "A man", {}, "text_length"),
    (jpeg(), "word " * 300_000, {}, "text_length"),
    (jpeg(), "<b>A man</b> walks &amp; talks at the beach", {}, "kept"),
    (jpeg(), None, {}, "no_text"),
    (jpeg()[:-300], CAPTION, {}, "truncated_image"),
    (b"<html>404</html>", CAPTION, {}, "not_an_image"),
    (b"", CAPTION, {}, "not_an_image"),
    (b"GIF89a" + bytes(40), CAPTION, {}, "unsupported_image"),
    # Its header lies: 3840 x 3840 pixels.
    (jpeg().replace(bytes([0, 240, 1, 64]), bytes([15, 0, 15, 0])), CAPTION, {}, "truncated_image"),
    (png_header(30_000, 30_000), CAPTION, {}, "image_too_large"),
    (jpeg(), "A man \ud800 walks along", {}, "language"),
]


def test_each_kind_of_row_has_its_outcome(tmp_path):
    shard(tmp_path / "00000.tar", [row[:3] for row in ONE_OF_EACH])
    rows, samples = clean(tmp_path, tmp_path / "*.tar")
    assert outcomes(rows) == [row[3] for row in ONE_OF_EACH]
    assert [row["row"] for row in rows] == list(range(len(ONE_OF_EACH)))
    assert [row["key"] for row in rows if row["outcome"] == "kept"] == list(samples)


def test_images_pass_through_and_captions_are_cleaned(tmp_path):
    image = jpeg()
    shard(tmp_path / "00000.tar", [(image, "<i>A man</i>&nbsp;walks &lt;3 along", {"similarity": 0.4})])
    rows, samples = clean(tmp_path, tmp_path / "*.tar")
    ((key, sample),) = samples.items()
    assert re.fullmatch(r"laion-en/00000-[0-9a-f]{12}/000000", key)
    assert sample.images[0].data == image
    assert (sample.text, sample.scores) == ("A man walks <3 along", {"clip": 0.4})
    assert (sample.width, sample.height) == (320, 240)
    assert (rows[0]["text_before"], rows[0]["text_after"]) == ("<i>A man</i>&nbsp;walks &lt;3 along", sample.text)
    assert sample.source["url"] == "https://x.invalid/0"


def test_damage_that_only_decoding_finds(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((320, 240), 80).convert("RGB").save(file, "PNG")
    broken = bytearray(file.getvalue())
    broken[20_000:20_100] = bytes(100)  # inside the compressed pixels
    shard(tmp_path / "00000.tar", [(bytes(broken), CAPTION, {}), (jpeg(), CAPTION, {})])
    rows, _ = clean(tmp_path, tmp_path / "*.tar")
    assert outcomes(rows) == ["kept", "kept"]
    rows, _ = clean(tmp_path, tmp_path / "*.tar", "--decode", "--overwrite")
    assert outcomes(rows) == ["undecodable_image", "kept"]


def test_the_downloaders_parquet_accounts_for_what_the_tar_lacks(tmp_path):
    pairs = [make_pair(1, i, "en") for i in range(40)]
    write_shard(tmp_path, 0, pairs)
    failed = sum(pair.status != "success" for pair in pairs)
    assert failed
    rows, _ = clean(tmp_path, tmp_path / "*")
    assert len(rows) == 40
    assert outcomes(rows).count("not_downloaded") == failed
    tar = tmp_path / "00000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    rows, _ = clean(tmp_path, tmp_path / "*", "--overwrite")
    assert "missing_from_shard" in outcomes(rows) and "truncated_shard" in outcomes(rows)
    whole = [row for row in rows if row["rule"] != "truncated_shard"]
    assert 39 <= len(whole) <= 40


def test_an_unreadable_file_among_good_ones(tmp_path):
    shard(tmp_path / "a.tar", [(jpeg(), CAPTION, {})])
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "c.tar").write_bytes(b"")
    rows, samples = clean(tmp_path, tmp_path / "*.tar")
    assert outcomes(rows) == ["kept", "truncated_shard", "truncated_shard"]
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"URL": ["u"], "TEXT": [CAPTION]}), tmp_path / "d" / "a.parquet")
    (tmp_path / "d" / "b.parquet").write_bytes(b"PAR1 nonsense PAR1")
    rows, _ = clean(tmp_path, tmp_path / "d" / "*", output="out2")
    assert outcomes(rows) == ["kept", "unreadable_file"]


def test_a_file_whose_columns_have_other_names_is_told_with_the_rows_it_costs(tmp_path, capsys):
    names = [["URL", "TEXT"], ["URL", "text"]]
    for number, columns in enumerate(names):
        pq.write_table(pa.table(dict.fromkeys(columns, [CAPTION] * 40)), tmp_path / f"{number}.parquet")
    rows, _ = clean(tmp_path, tmp_path / "*.parquet", output="out")
    assert outcomes(rows) == ["kept"] * 40 + ["unreadable_file"]
    (manifest,) = (each for each in OutputFolder(str(tmp_path / "out")).manifests().values() if each.counts.errors)
    assert manifest.counts.unread == 39
    said = capsys.readouterr().out
    assert "39 more rows lie where nobody could read them: with those, 50.0 % are kept" in said
    assert "1.parquet: no column 'TEXT'; it has URL, text" in said
    assert "1.parquet: no column" in (tmp_path / "out" / "report.html").read_text()


def url_table(**columns):
    base = {
        "URL": ["u0", "u1", "u2", "u3"],
        "TEXT": [CAPTION, "<b>A dog</b> runs in the park", None, CAPTION],
        "WIDTH": [400, 400, 400, 150],
        "HEIGHT": [300, 300, 300, 300],
        "similarity": [0.31, 0.32, 0.33, 0.34],
    }
    return pa.table(base | columns)


def test_metadata_mode_writes_the_cleaned_parquet_and_joins_the_later_run(tmp_path):
    pq.write_table(url_table(), tmp_path / "part.parquet")
    rows, samples = clean(tmp_path, tmp_path / "part.parquet")
    assert outcomes(rows) == ["kept", "kept", "no_text", "image_size"] and not samples
    cleaned = pq.read_table(of_split(tmp_path / "out", "urls.parquet")).to_pylist()
    assert [(row["URL"], row["TEXT"]) for row in cleaned] == [("u0", CAPTION), ("u1", "A dog runs in the park")]
    shard(tmp_path / "dl.tar", [(jpeg(), row["TEXT"], row) for row in cleaned])
    later, _ = clean(tmp_path, tmp_path / "dl.tar", output="out2")
    assert [row["source_key"] for row in later] == [row["key"] for row in rows[:2]]
    assert [row["key"] for row in later] == [f"laion-en/{split_ids(tmp_path / 'out2')[0]}/{i:06d}" for i in range(2)]


def test_raw_laion_has_width_and_height_swapped_and_joined_has_not():
    columns = load_catalog()["laion-en"].columns
    raw = table_layout(url_table().schema, columns, "laion", "x")
    joined = table_layout(url_table(hash=[1, 2, 3, 4]).schema, columns, "laion", "x")
    assert (raw.columns["width"], joined.columns["width"]) == ("HEIGHT", "WIDTH")


def test_odd_column_types(tmp_path):
    texts = pa.array([CAPTION.encode(), b"caf\xe9 on the corner \xff", None, b"x" * 10], pa.binary())
    odd = url_table(TEXT=texts, WIDTH=[400.0, float("nan"), None, 1e18], similarity=[1, 0, None, 1])
    pq.write_table(odd, tmp_path / "part.parquet")
    rows, _ = clean(tmp_path, tmp_path / "part.parquet")
    assert outcomes(rows) == ["kept", "language", "no_text", "text_length"]


def test_parquet_with_images_in_it(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg())
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    table = pa.table({"TEXT": [CAPTION] * 5, "image": [
        {"bytes": jpeg(), "path": "x.jpg"}, {"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "../secret.jpg"},
        {"bytes": None, "path": "/etc/passwd"}, None]})  # fmt: skip
    pq.write_table(table, tmp_path / "part.parquet")
    rows, _ = clean(tmp_path, tmp_path / "part.parquet", "--images", str(tmp_path / "pictures"))
    assert outcomes(rows) == ["kept", "kept", "path_outside_images", "path_outside_images", "no_image"]
    rows, _ = clean(tmp_path, tmp_path / "part.parquet", output="out2")
    assert outcomes(rows)[1] == "image_path_not_allowed"


def test_a_parquet_without_the_needed_columns_stops_with_what_it_has(tmp_path):
    pq.write_table(pa.table({"link": ["u"], "words": ["x"]}), tmp_path / "part.parquet")
    with pytest.raises(job.UserError, match=r"part.parquet: no column 'TEXT', 'URL'; it has link, words.*--dataset"):
        clean(tmp_path, tmp_path / "part.parquet")


def test_limit_reads_that_many_rows_of_each_split(tmp_path):
    shard(tmp_path / "a.tar", [(jpeg(), CAPTION, {})] * 5)
    shard(tmp_path / "b.tar", [(jpeg(), CAPTION, {})] * 2)
    assert len(clean(tmp_path, tmp_path / "*.tar", "--limit", "3")[0]) == 5


def test_changed_thresholds_are_refused_with_their_name(tmp_path):
    shard(tmp_path / "a.tar", [(jpeg(), CAPTION, {})])
    clean(tmp_path, tmp_path / "a.tar")
    catalog = tmp_path / "mine.yaml"
    shutil.copy(Path(clean_laion.__file__).parent.parent / "catalog.yaml", catalog)
    catalog.write_text(catalog.read_text().replace("clip_score: {min: 0.28}         #", "clip_score: {min: 0.3} #"))
    with pytest.raises(SettingsDiffer, match="rules.clip_score.min: 0.28 there, 0.3 now"):
        clean(tmp_path, tmp_path / "a.tar", "--catalog", str(catalog))


def test_a_shard_of_nothing_but_failures_blows_the_fuse(tmp_path):
    shard(tmp_path / "a.tar", [(b"", CAPTION, {})] * (Fuse().least_rows + 1))
    with pytest.raises(BlownFuse, match="a.tar.*not_an_image"):
        clean(tmp_path, tmp_path / "a.tar")


def test_the_report_is_whole_and_safe(tmp_path):
    hostile = (jpeg(), "<script>alert(1)</script> A man walks along here", {})
    shard(tmp_path / "a.tar", [hostile, *[row[:3] for row in ONE_OF_EACH]])
    clean(tmp_path, tmp_path / "a.tar")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html and "data:image/jpeg" in html
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["counts"]["rows"] == len(ONE_OF_EACH) + 1
    assert {line["rule"] for line in numbers["funnel"]} >= {"aspect_ratio", "clip_score"}


@pytest.mark.parametrize(
    "name, number", [("nemo_webdataset/00000.tar", 1), ("web_urls/img2dataset_test_*.parquet", 680)]
)
def test_real_pairs_are_all_accounted_for(shared_data, tmp_path, name, number):
    rows, _ = clean(tmp_path, shared_data("image_text") / name)
    assert len(rows) == number
    assert sum(row["outcome"] == "kept" for row in rows) > 0.9 * len(rows)


def test_files_on_which_decoders_fail(shared_data, tmp_path):
    folder = shared_data("images_bad")
    bad = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    good = [(jpeg(), CAPTION, {})] * len(bad)  # so that the fuse holds
    shard(tmp_path / "a.tar", [(path.read_bytes(), CAPTION, {"name": path.name}) for path in bad] + good)
    rows, samples = clean(tmp_path, tmp_path / "a.tar", "--decode")
    assert len(rows) == 2 * len(bad)
    for row in rows:
        assert row["outcome"] in ("kept", "dropped", "error")
        assert row["outcome"] == "kept" or row["rule"]
    assert sum(row["outcome"] == "error" for row in rows) > len(bad) / 3
