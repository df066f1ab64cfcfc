"""Charsets: what the bytes are, not what the labels say."""

import time

import pytest

from renderers.charset import decode_html

CHINESE = "这是一个没有声明编码的网页，内容是中文。" * 20


@pytest.mark.parametrize(
    "data, content_type, codec",
    [
        ("<p>é ü</p>".encode(), "text/html; charset=iso-8859-1", "utf-8"),  # the label is wrong
        ("<p>“é”</p>".encode("cp1252"), "text/html; charset=ISO-8859-1", "cp1252"),
        (f"<meta charset=gb2312>{CHINESE}".encode("gb18030"), "", "gb18030"),
        (f"<meta charset=utf-8>{CHINESE}".encode("gb18030"), "", "gb18030"),  # the label is wrong
        (CHINESE.encode("gb18030"), "", "gb18030"),
        (
            f'<meta http-equiv=Content-Type content="text/html; charset=euc-kr">{"한국어 " * 9}'.encode("cp949"),
            "",
            "cp949",
        ),
        ("\ufeffбез меток".encode("utf-16"), "", "utf-16-le"),
        (b"<p>plain", "text/html; charset=no-such-charset", "utf-8"),
        (b"<p>\xe9t\xe9 <meta charset=base64>", "", None),
        (("<p>" + "Größe " * 400).encode() + b"\xc3", "", "utf-8"),  # cut in the middle of a letter
    ],
)
def test_codec(data, content_type, codec):
    text, found = decode_html(data, content_type)
    assert codec is None or found == codec
    assert text.count("\ufffd") <= 1


def test_any_bytes_decode_in_linear_time():
    started = time.monotonic()
    for data in (b"<meta " * 100_000 + b"\xff", bytes(range(256)) * 2000, b"<?xml " * 50_000 + b"\xfe\xff\x80"):
        assert isinstance(decode_html(data)[0], str)
    assert time.monotonic() - started < 20


def test_real_pages_with_wrong_labels_decode(shared_data):
    for path in sorted(shared_data("html/charset").glob("*.html")):
        text, codec = decode_html(path.read_bytes())
        assert codec == "cp1252" and "\ufffd" not in text
