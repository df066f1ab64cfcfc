"""Text: cleaning, the blocks that rules look for, language by script, tokens on the high side."""

import pytest

from corpus.tokens import load_tokenizer
from renderers import characters
from renderers.lines import Run, merge_runs
from renderers.page import bounds, rect_quad, turned_quad


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("a\u00a0b\u3000c \n d", "a b c d"),
        ("\u200bzero\ufeff width\u202e", "zero width"),
        ("bell\x07", "bell"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner is spelling
        ("  plain ", "plain"),
    ],
)
def test_cleaning(raw, clean):
    assert characters.clean_text(raw) == clean


def test_the_blocks_of_the_paper():
    assert len(characters.LATIN_EXTENDED.findall("ÿĀſƀɏɐ")) == 4  # U+0100..024F, neither neighbour
    assert len(characters.PRIVATE_USE.findall("\ue000\uf8ff\uf900\U000f0000\U0010fffd")) == 4


@pytest.mark.parametrize(
    "text, language",
    [
        ("The cat is on the mat", "en"),
        ("Das ist ein Haus", "und"),
        ("我们的祖国是花园", "zh"),
        ("これは日本語の文です", "ja"),
        ("한국어 문장입니다", "ko"),
        ("это русский текст", "ru"),
        ("هذا نص عربي", "ar"),
        ("12345 !?", "und"),
    ],
)
def test_language_by_script(text, language):
    assert characters.guess_language(text) == language


@pytest.mark.parametrize(
    "text",
    ["It is managed by the county of Kent in 1984, and 23.5% more.", "我国集成电路进口突破3000亿美元", "naïve Öl"],
)
def test_tokens_are_not_underestimated_for_qwen(text, shared_data):
    tokenizer = load_tokenizer(shared_data("tokenizer/qwen.tiktoken"))
    assert characters.estimate_tokens(text) >= len(tokenizer.encode(text))


def run(text, box, size=10, turns=0, vertical=False, spaced=(False, False), block=0) -> Run:
    return Run(text, turned_quad(box, turns), size, turns, vertical, spaced, block)


def texts(*runs) -> list[str]:
    return [line.text for line in merge_runs(list(runs), 500, 500)]


def test_pieces_of_one_line_are_merged():
    a, b, c = run("Hel", (0, 0, 20, 10)), run("lo", (20.5, 0, 30, 10)), run("world", (33, 1, 60, 10))
    assert texts(a, b, c) == ["Hello world"]
    (line,) = merge_runs([a, b, c], 500, 500)
    assert bounds(line.quad) == (0, 0, 60, 10)


def test_columns_lines_and_blocks_are_not():
    left = run("left", (0, 0, 20, 10))
    assert texts(left, run("right", (30, 0, 50, 10))) == ["left", "right"]
    assert texts(left, run("below", (0, 12, 20, 22))) == ["left", "below"]
    assert texts(left, run("cell", (22, 0, 40, 10), block=1)) == ["left", "cell"]


def test_chinese_is_joined_without_spaces_that_cannot_be_seen():
    assert texts(run("关", (0, 0, 10, 10)), run("于", (12, 0, 22, 10))) == ["关于"]
    assert texts(run("关", (0, 0, 10, 10), spaced=(False, True)), run("于", (10.5, 0, 20.5, 10))) == ["关于"]
    assert texts(run("关", (0, 0, 10, 10), spaced=(False, True)), run("于", (12, 0, 22, 10))) == ["关 于"]


def test_vertical_text_is_joined_downwards():
    column = [run(char, (0, 12 * i, 10, 12 * i + 10), vertical=True) for i, char in enumerate("春と修羅")]
    assert texts(*column) == ["春と修羅"]


def test_turned_and_right_to_left_text_is_merged_in_its_direction():
    assert texts(run("up", (0, 30, 10, 50), turns=3), run("wards", (0, 5, 10, 26), turns=3)) == ["up wards"]
    assert texts(run("سلام", (50, 0, 80, 10)), run("عليكم", (20, 0, 47, 10))) == ["سلام عليكم"]


def test_lines_are_clipped_to_the_image():
    (line,) = merge_runs([Run("edge", rect_quad((-5, 0, 510, 10)), 10, 0, False, (False, False))], 500, 500)
    assert bounds(line.quad) == (0, 0, 500, 10)
