"""Shard headers are those of the standard library, byte for byte."""

import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from corpus.tars import header

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120)


@given(names, st.integers(0, 2**40))
@example("laion-en/00017/000042.json", 1234)
@example("a" * 99, 8**11 - 1)
@example("a" * 100, 8**11)
@example("a/" * 60 + "b", 0)
def test_headers(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.PAX_FORMAT)
