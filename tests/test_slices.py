"""Files cut into slices: nothing lost, nothing read twice, damage named."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.readers import json_scan, slices
from corpus.readers.rows import BadFile, BadRow
from corpus.readers.slices import Slice, detect, held, plan, plan_all, plan_arrays, plan_files, read
from corpus.values import valid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(JSON.filter(lambda value: not isinstance(value, float)), max_size=12)


def all_records(path, rows, array=None):
    found = [pair for piece in plan(str(path), rows, array) for pair in read(piece)]
    numbers = [row for row, _ in found]
    assert numbers == sorted(set(numbers))
    return [record for _, record in found]


@settings(max_examples=40)
@given(RECORDS, st.integers(1, 5), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_a_json_array_in_any_slices_and_chunks(tmp_path_factory, records, rows, chunk, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "array.json"
    content = {"info": {"n": [1]}, "other": [1, "]", {"a": '"'}], "data": records, "end": 1}
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    )
    expected = valid(json.loads(path.read_bytes()))["data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scan, "CHUNK", chunk)
        if expected:
            assert all_records(path, rows, "data") == expected
        else:
            with pytest.raises(BadFile, match="no records under 'data'"):
                plan(str(path), rows, "data")


@settings(max_examples=25)
@given(
    st.dictionaries(st.text(), st.dictionaries(st.text(), JSON, max_size=2), min_size=1, max_size=9), st.integers(1, 4)
)
def test_an_object_of_records(tmp_path_factory, records, rows):
    path = tmp_path_factory.getbasetemp() / "object.json"
    path.write_bytes(json.dumps(records, ensure_ascii=False).encode("utf-8", "replace"))
    assert all_records(path, rows) == list(valid(json.loads(path.read_bytes())).items())


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n\x00", codec="utf-8")), max_size=20), st.integers(1, 6))
def test_lines_in_slices_join_to_the_file(tmp_path_factory, lines, rows):
    path = tmp_path_factory.getbasetemp() / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    found = [record for piece in plan(str(path), rows) for _, record in read(piece)]
    assert found == [line.removeprefix("\ufeff") for line in lines if line.encode().strip()]


def test_a_cut_json_keeps_its_whole_records_and_says_where_it_ends(tmp_path):
    whole = json.dumps({"annotations": [{"id": i, "caption": "x" * 20} for i in range(10)]})
    (tmp_path / "cut.json").write_text(whole[: int(len(whole) * 0.55)])
    *records, last = all_records(tmp_path / "cut.json", 3, "annotations")
    assert [r["id"] for r in records] == list(range(5))
    assert last.kind == "cut_json" and "at byte" in last.detail and "fetch the file again" in last.detail


def test_a_key_that_stands_twice_holds_two_arrays_of_records(tmp_path):
    (tmp_path / "twice.json").write_text(
        '{"data": [{"n": 0}, {"n": 1}], "info": {"n": "no record"}, "data": [{"n": 2}]}'
    )
    assert all_records(tmp_path / "twice.json", 10, "data") == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_an_array_beside_records_by_id_may_be_nested_too_deep_to_read(tmp_path):
    deep = "[" * 5000 + "]" * 5000
    (tmp_path / "deep.json").write_text(f'{{"7": {{"n": 0}}, "deep": {deep}, "8": {{"n": 1}}}}')
    assert all_records(tmp_path / "deep.json", 10, None) == [("7", {"n": 0}), ("8", {"n": 1})]


def test_json_lines_named_json_are_told_by_their_content(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n{"a": \n')
    assert detect(str(path)) == "jsonl"
    first, second, bad = all_records(path, 2)
    assert (first, second) == ({"a": 1}, {"a": 2})
    assert isinstance(bad, BadRow) and bad.kind == "bad_json"
    path.write_text('[{"a": 1},\n {"a": 2}]')
    assert detect(str(path)) == "json"


def test_csv_with_a_carriage_return_among_its_headings(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,te\rxt\n1,a\n")
    [piece] = plan(str(tmp_path / "a.csv"), 10)
    rows = dict(read(piece))
    assert list(rows) == held(piece).tolist() == [1, 2]
    assert rows[1].kind == "bad_csv" and rows[2] == {"id": "1", "te": "a"}


def test_csv_with_line_ends_in_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('image,text\na.jpg,"two\nlines, and ""quotes"""\nb.jpg,plain\nc.jpg,too,many\n')
    rows = all_records(path, 2)
    assert rows[0] == {"image": "a.jpg", "text": 'two\nlines, and "quotes"'}
    assert rows[1]["image"] == "b.jpg" and rows[2].kind == "bad_csv"


def test_a_cell_may_be_long(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"image,text\na.jpg,{'x' * 300_000}\nb.jpg,short\n")
    assert [len(row["text"]) for row in all_records(path, 9)] == [300_000, 5]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_stream_is_read_up_to_the_damage(tmp_path, pack, damage):
    rng = random.Random(0)
    lines = [json.dumps({"n": i, "x": rng.randbytes(200).hex()}) for i in range(3000)]
    data = bytearray(pack("\n".join(lines).encode()))
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    else:
        data[len(data) * 2 // 3] ^= 255
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data)
    pieces = plan(str(path), 70)
    for piece in pieces:
        assert held(piece).tolist() == [row for row, _ in read(piece)]
    *whole, last = all_records(path, 70)
    good = [r["n"] for r in whole if isinstance(r, dict)]
    assert good[:500] == list(range(500)) or pack is bz2.compress  # it packs 900 kB at a time
    assert damage == "flipped" or good == list(range(len(whole)))
    assert last.kind in ("unreadable_rest", "unreadable_file") and f"{len(whole)} lines before it" in last.detail


def test_a_damaged_row_group_costs_itself_alone(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"n": list(range(3000)), "x": [f"{i:050d}" for i in range(3000)]})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="none")
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    path.write_bytes(data)
    found = [pair for piece in plan(str(path), 700) for pair in read(piece)]
    bad = {row: record for row, record in found if isinstance(record, BadRow)}
    assert [record["n"] for _, record in found if isinstance(record, dict)] == [*range(1000), *range(2000, 3000)]
    assert {row: record.rows for row, record in bad.items()} == {1000: 400, 1400: 600}
    assert "rows 1000 to 1399, in row group 1" in bad[1000].detail


def test_a_footer_that_tells_two_numbers_of_rows_is_no_plan(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3]}), path)
    data = path.read_bytes()
    for at in range(len(data) - 500, len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with contextlib.suppress(BadFile, OSError, pa.ArrowException, UnicodeError):
                assert plan(str(path), 10)[-1].stop <= 3, (at, bit)


def test_a_file_that_cannot_be_read_among_others_is_one_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "b.parquet").write_bytes(b"PAR1, or not")
    (tmp_path / "c.json").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.parquet", "c.json")]
    good, *bad = plan_all(paths, lambda path: plan(path, 10))
    assert [record for _, record in read(good)] == [{"a": 1}]
    for piece in bad:
        ((row, record),) = read(piece)
        assert (row, record.kind, held(piece).tolist()) == (0, "unreadable_file", [0])
    with pytest.raises(BadFile, match="no file of the input can be read: .*b.parquet.*c.json"):
        plan_all(paths[1:], lambda path: plan(path, 10))
    with pytest.raises(BadFile, match="no reader for .pkl"):
        plan_all([*paths, "x.pkl"], lambda path: plan(path, 10))


def test_compressed_json_lines(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert all_records(path, 1) == [{"a": 1}, {"a": 2}]


def test_parquet_rows_across_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(25))}), path, row_group_size=10)
    assert [row["n"] for row in all_records(path, 7)] == list(range(25))


def test_parallel_arrays_must_be_parallel(tmp_path):
    path = tmp_path / "sbu.json"
    path.write_text(json.dumps({"image_urls": ["u1", "u2", "u3"], "user_ids": [1, 2, 3], "captions": ["é", "b", "c"]}))
    pieces = plan_arrays(str(path), 2, ("image_urls", "captions"))
    assert [record for piece in pieces for _, record in read(piece)][0] == {"image_urls": "u1", "captions": "é"}
    path.write_text(json.dumps({"image_urls": ["u1"], "captions": ["a", "b"]}))
    slices._arrays.cache_clear()
    with pytest.raises(BadFile, match="parallel arrays expected"):
        plan_arrays(str(path), 2, ("image_urls", "captions"))


def test_many_small_files(tmp_path):
    paths = []
    for i in range(5):
        (tmp_path / f"{i}.json").write_text(f'{{"n": {i}}}' if i != 3 else "{")
        paths.append(str(tmp_path / f"{i}.json"))
    found = [record for piece in plan_files(paths, 2) for _, record in read(piece)]
    assert [r["n"] for r in found if isinstance(r, dict)] == [0, 1, 2, 4] and found[3].kind == "bad_json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{\x00}\x00", "UTF-16"), (b'"text"', "not a JSON array or object"), (b"", "not a JSON"),
        (b'{"info": 1, "images": []}', r"no records under 'annotations'; its keys are \['info'\]"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadFile, match=message):
        plan(str(tmp_path / "a.json"), 10, "annotations")


def test_an_unknown_suffix_names_the_known_ones():
    with pytest.raises(BadFile, match="no reader for .pkl.*jsonl"):
        detect("x/file.pkl")


def test_scan_reads_a_record_larger_than_its_chunk():
    big = {"text": "y" * (json_scan.CHUNK + 10)}
    found = list(json_scan.scan(io.BytesIO(json.dumps([big, 1]).encode())))
    assert found[0].value == big and found[1].value == 1


def test_slices_do_not_overlap(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n": {i}}}\n' for i in range(10)))
    pieces = plan(str(path), 4)
    assert [(p.start, p.row) for p in pieces][1:] == [(p.stop, p.row + 4) for p in pieces][:-1]
    assert isinstance(pieces[0], Slice)
