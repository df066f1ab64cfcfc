"""Which characters the bytes of a web page stand for, when its labels may be wrong."""

import codecs
import re

# What browsers take these labels for (WHATWG Encoding, section 4.2): supersets that old pages rely on.
_TAKEN_FOR = {
    "iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
    "windows-1252": "cp1252", "iso-8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030",
    "gb_2312-80": "gb18030", "big5": "big5hkscs", "big5-hkscs": "big5hkscs", "shift_jis": "cp932", "sjis": "cp932",
    "x-sjis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "windows-949": "cp949", "iso-8859-11": "cp874",
    "tis-620": "cp874", "utf-16": "utf-16-le", "unicode": "utf-16-le",
}  # fmt: skip
_META = re.compile(rb"<meta[^>]{0,1000}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.\-]{2,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s{0,100}<\?xml[^>]{0,200}encoding\s*=\s*[\"']([a-zA-Z0-9_:.\-]{2,40})", re.IGNORECASE)
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.\-]{2,40})", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_TAG = re.compile(rb"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^>]{0,2000}>", re.IGNORECASE | re.DOTALL)
# A damaged byte here and there is normal; a text of which more is undecodable was written in something else.
_MOST_BAD = 0.02


def decode_html(data: bytes, content_type: str = "") -> tuple[str, str]:
    """Return a page's text and the name of the codec it was read with.

    A byte-order mark decides; else bytes that are valid UTF-8 are UTF-8 whatever the labels say (in other encodings
    that happens by chance only in a few letters); else the first label under which nearly everything decodes, HTTP's
    before the page's own; else what the bytes look like.
    """
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, "replace"), codec
    if _bad_share(data, "utf-8") == 0:
        return data.decode("utf-8"), "utf-8"
    for codec in _labels(data, content_type):
        if _bad_share(data, codec) <= _MOST_BAD:
            return data.decode(codec, "replace"), codec
    codec = _guess(data)
    return data.decode(codec, "replace"), codec


def _labels(data: bytes, content_type: str):
    head = data[:4096]
    found = [match[1] for match in (_HEADER.search(content_type),) if match]
    found += [match[1].decode("ascii") for match in (_META.search(head), _XML.search(head)) if match]
    for label in found:
        try:
            yield codecs.lookup(_TAKEN_FOR.get(label.lower(), label)).name
        except LookupError:
            continue


def _bad_share(data: bytes, codec: str) -> float:
    """The undecodable share of the characters that are not ASCII."""
    try:
        text = data.decode(codec, "replace")
    except (LookupError, UnicodeError, TypeError, AssertionError):  # codecs such as "base64" or "idna" are no charsets
        return 1.0
    if not isinstance(text, str):
        return 1.0
    beyond = sum(1 for character in text if character > "\x7f")
    return text.count("\ufffd") / beyond if beyond else 0.0


def _guess(data: bytes) -> str:
    """Guess from the page's words; Western European where that finds nothing."""
    if _bad_share(data, "utf-8") <= _MOST_BAD:
        return "utf-8"
    from charset_normalizer import from_bytes

    words = b" ".join(_TAG.sub(b" ", data[:200_000]).split())[:20_000]
    best = from_bytes(words).best()
    codec = best.encoding if best else "cp1252"
    return _TAKEN_FOR.get(codec.replace("_", "-"), codec)
