"""Files cut into slices: nothing lost, nothing read twice, damage named."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.readers import json_scan, slices
from corpus.readers.rows import BadFile, BadRow
from corpus.readers.slices import Slice, detect, plan, plan_arrays, plan_files, read

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
    expected = json.loads(path.read_bytes())["data"]
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
    assert all_records(path, rows) == list(json.loads(path.read_bytes()).items())


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


def test_json_lines_named_json_are_told_by_their_content(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n{"a": \n')
    assert detect(str(path)) == "jsonl"
    first, second, bad = all_records(path, 2)
    assert (first, second) == ({"a": 1}, {"a": 2})
    assert isinstance(bad, BadRow) and bad.kind == "bad_json"
    path.write_text('[{"a": 1},\n {"a": 2}]')
    assert detect(str(path)) == "json"


def test_csv_with_line_ends_in_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('image,text\na.jpg,"two\nlines, and ""quotes"""\nb.jpg,plain\nc.jpg,too,many\n')
    rows = all_records(path, 2)
    assert rows[0] == {"image": "a.jpg", "text": 'two\nlines, and "quotes"'}
    assert rows[1]["image"] == "b.jpg" and rows[2].kind == "bad_csv"


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
