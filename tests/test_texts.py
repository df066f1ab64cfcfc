"""Splitting pure text into samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.texts import split_text
from corpus.tokens import load_tokenizer


@given(st.lists(st.text(st.sampled_from("ab 。中\n\r\t.!\u3000"), max_size=30), max_size=12), st.integers(3, 40))
@settings(max_examples=200)
def test_nothing_is_lost_or_doubled(paragraphs, limit):
    text, own = "\n".join(paragraphs), load_tokenizer()
    parts = split_text(text, own, limit)
    whole = [*own.encode(text.strip()), own.eos] if text.strip() else []
    assert np.concatenate([[], *(p.tokens for p in parts)]).tolist() == whole
    for part in parts:
        assert 2 <= len(part.tokens) <= limit
        assert not part.loss[0] and part.loss[1:].all()
        assert part.images == []


def test_cuts_at_paragraphs_where_it_can():
    own = load_tokenizer()
    paragraphs = ["one two three\n", "four five six\n", "seven eight nine"]
    sizes = [len(own.encode(p)) for p in paragraphs]
    parts = split_text("".join(paragraphs), own, sizes[0] + sizes[1])
    assert [own.decode(p.tokens) for p in parts] == ["one two three\nfour five six\n", "seven eight nine<|endoftext|>"]


def test_real_articles_keep_their_tokens(shared_data):
    own = load_tokenizer(shared_data("tokenizer/qwen.tiktoken"))
    for name in ("text/enwiki.txt", "text/zhwiki.txt"):
        article = max(shared_data(name).read_text().splitlines()[:40], key=len)[:40_000]
        parts = split_text(article, own, 2048)
        assert np.concatenate([p.tokens for p in parts]).tolist() == [*own.encode(article.strip()), own.eos]
        assert len(parts) > 1


@pytest.mark.parametrize("blank", ["", " ", "\n\n\t", "\u3000"])
def test_blank_text_gives_nothing(blank):
    assert split_text(blank, load_tokenizer(), 10) == []
