"""Documents from files and archives: each one once, damaged ones with a reason, splits always the same."""

import gzip
import io
import tarfile
import zipfile

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipelines.work import documents
from pipelines.work.documents import HTML, PDF, Kind

PAGE = b"<html><p>some words on a page</p></html>"


def read(path, kind=HTML) -> list[tuple]:
    return [(found.name, found.data, found.kind) for found in documents.read([str(path)], kind)]


def make_tar(path, members: dict[str, bytes], mode="w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_warc(path, records: list[tuple[str, str, str, bytes]]) -> None:
    """Records are (url, status, content type, body)."""
    with open(path, "wb") as file:
        writer = WARCWriter(file, gzip=str(path).endswith(".gz"))
        for url, status, kind, body in records:
            headers = StatusAndHeaders(f"{status} X", [("Content-Type", kind)], protocol="HTTP/1.1")
            writer.write_record(writer.create_warc_record(url, "response", io.BytesIO(body), http_headers=headers))


def test_files_tars_and_zips_give_the_same_documents(tmp_path):
    pages = {
        "a.html": PAGE,
        "sub/b.htm": PAGE + b"b",
        "noextension": PAGE + b"c",
        "style.css": b"p{}",
        "x.pdf": b"%PDF",
    }
    make_tar(tmp_path / "pages.tar", pages)
    make_tar(tmp_path / "pages.tar.gz", pages, "w:gz")
    with zipfile.ZipFile(tmp_path / "pages.zip", "w") as archive:
        for name, data in pages.items():
            archive.writestr(name, data)
    wanted = [("a.html", PAGE, None), ("sub/b.htm", PAGE + b"b", None), ("noextension", PAGE + b"c", None)]
    for name in ("pages.tar", "pages.tar.gz", "pages.zip"):
        assert read(tmp_path / name) == wanted
    (tmp_path / "a.html").write_bytes(PAGE)
    assert read(tmp_path / "a.html") == wanted[:1]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_warc_responses_of_other_kinds_are_dropped_by_name(tmp_path, name):
    make_warc(
        tmp_path / name,
        [
            ("http://a.test/1", "200", "text/html; charset=utf-8", PAGE),
            ("http://a.test/2", "404", "text/html", PAGE),
            ("http://a.test/3", "200", "application/pdf", b"%PDF-1.4"),
        ],
    )
    found = list(documents.read([str(tmp_path / name)], HTML))
    assert [f.name for f in found] == ["http://a.test/1", "http://a.test/2", "http://a.test/3"]
    assert [(f.kind, f.dropped) for f in found] == [(None, False), ("http_status", True), ("not_html", True)]
    assert found[0].data == PAGE and found[0].source["content_type"] == "text/html; charset=utf-8"
    assert [f.kind for f in documents.read([str(tmp_path / name)], PDF)] == ["not_pdf", "http_status", None]


def test_bombs_are_not_unpacked(tmp_path):
    small = Kind((".html",), ("text/html",), "not_html", max_bytes=1000)
    bomb = bytes(10_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.html", bomb)
    make_tar(tmp_path / "bomb.tar.gz", {"bomb.html": bomb, "good.html": PAGE}, "w:gz")
    headers = [("Content-Type", "text/html"), ("Content-Encoding", "gzip")]
    with open(tmp_path / "bomb.warc", "wb") as file:
        writer = WARCWriter(file, gzip=False)
        body = io.BytesIO(gzip.compress(bomb))
        http = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record("http://a.test/", "response", body, http_headers=http))
    assert [kind for _, _, kind in read(tmp_path / "bomb.zip", small)] == ["too_large"]
    assert [kind for _, _, kind in read(tmp_path / "bomb.tar.gz", small)] == ["too_large", None]
    assert [kind for _, _, kind in read(tmp_path / "bomb.warc", small)] == ["too_large"]


def test_broken_archives_say_where_they_broke(tmp_path):
    make_tar(tmp_path / "whole.tar", {f"{i}.html": PAGE * 100 for i in range(4)})
    data = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 3])
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(data)[:-300])
    (tmp_path / "not.zip").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "bad.warc.gz").write_bytes(b"\x1f\x8b\x08\0 nothing")
    for name in ("cut.tar", "cut.tar.gz", "not.zip", "bad.warc.gz"):
        found = list(documents.read([str(tmp_path / name)], HTML))
        assert found[-1].kind == "broken_archive" and name in found[-1].detail, name


def test_a_damaged_zip_member_costs_itself(tmp_path):
    with zipfile.ZipFile(tmp_path / "pages.zip", "w") as archive:
        for name in ("a.html", "b.html"):
            archive.writestr(name, PAGE + name.encode())
    data = bytearray((tmp_path / "pages.zip").read_bytes())
    data[data.index(PAGE)] ^= 1
    (tmp_path / "pages.zip").write_bytes(data)
    assert [kind for _, _, kind in read(tmp_path / "pages.zip")] == ["damaged_member", None]


def test_one_document_more_changes_one_split(tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03d}.pdf").write_bytes(b"%PDF" + bytes([number % 256]))
    make_tar(tmp_path / "065.tar", {"a.pdf": b"%PDF"})
    inputs = sorted(map(str, tmp_path.iterdir()))
    splits = list(documents.plan(inputs))
    assert sorted(url for split in splits for url in split.source["urls"]) == inputs
    assert [len(split.source["urls"]) for split in splits if split.id.startswith("065-")][0] == 1
    assert 3 < len(splits) < 30 and len({split.id for split in splits}) == len(splits)
    (tmp_path / "000a.pdf").write_bytes(b"%PDF")
    grown = list(documents.plan(sorted(map(str, tmp_path.iterdir()))))
    assert len([split for split in grown if split not in splits]) <= 2
