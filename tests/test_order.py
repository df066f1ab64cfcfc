"""Reading order: against truth written by hand, looking at the pages, as landmarks that must follow each other."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from renderers import pdf
from renderers.order import reading_order
from renderers.page import Line, rect_quad

TRUTH = yaml.safe_load((Path(__file__).parent / "reading_order.yaml").read_text())
# Tables whose cells hold several lines are read down their columns.
WRAPPED_CELLS = {
    "pymupdf_v110-changes": "isExternal | uri | Links | Outlines | True | Starts with | Behave as",
    "pymupdf_test_4546": "Mark & No. | Gross Weight | WATER METERS",
}


def first_out_of_order(shared_data, name: str, landmarks: str) -> str | None:
    file, _, number = name.partition(":")
    document = pdf.open_pdf(shared_data(f"pdf/{file}.pdf").read_bytes())
    texts = [line.text for line in pdf.render_page(document, int(number or 0), pdf.PdfSettings()).lines]
    at = -1
    for landmark in landmarks.split(" | "):
        found = [i for i, text in enumerate(texts) if text.startswith(landmark) and i > at]
        if not found:
            return f"{landmark!r} is not after line {at}: {texts[max(at, 0)][:60]!r}"
        at = found[0]
    return None


@pytest.mark.parametrize("name", TRUTH)
def test_lines_follow_each_other_as_a_reader_meets_them(shared_data, name):
    assert first_out_of_order(shared_data, name, TRUTH[name]) is None


@pytest.mark.xfail(strict=True, reason="cells of several lines look like columns of text")
@pytest.mark.parametrize("name", WRAPPED_CELLS)
def test_tables_of_wrapped_cells_are_read_row_by_row(shared_data, name):
    assert first_out_of_order(shared_data, name, WRAPPED_CELLS[name]) is None


def test_the_truth_covers_thirty_pages_and_does_not_hold_for_a_files_own_order(shared_data):
    assert len(TRUTH) >= 30
    document = pdf.open_pdf(shared_data("pdf/olmocr_tobacco_missed_tokens_pg1.pdf").read_bytes())
    lines = pdf.render_page(document, 1, pdf.PdfSettings(file_order=True)).lines
    texts = [line.text for line in lines]
    assert texts.index(next(text for text in texts if text.startswith("446"))) > 0  # its header comes last


def column(name: str, left: float, top: float, rows: int) -> list[Line]:
    return [
        Line(
            f"{name} {row}: a line of running text", rect_quad((left, top + 20 * row, left + 300, top + 20 * row + 14))
        )
        for row in range(rows)
    ]


def test_columns_between_titles_are_read_one_after_the_other():
    title = Line("A title across both columns of it", rect_quad((50, 10, 650, 30)))
    middle = Line("Another heading across both columns", rect_quad((50, 260, 650, 280)))
    right = [title, *column("a", 50, 50, 10), *column("b", 380, 50, 10), middle, *column("c", 50, 300, 8),
             *column("d", 380, 300, 8)]  # fmt: skip
    shuffled = [right[i] for i in np.random.default_rng(0).permutation(len(right))]
    assert [line.text for line in reading_order(shuffled)] == [line.text for line in right]


def test_the_head_of_a_page_comes_before_its_columns_and_its_foot_after_them():
    head = [Line("Title", rect_quad((50, 10, 150, 30))), Line("Date of today", rect_quad((380, 14, 480, 28)))]
    foot = [Line("page 1", rect_quad((50, 700, 100, 712)))]
    right = [*head, *column("a", 50, 80, 24), *column("b", 380, 80, 26), *foot]
    shuffled = [right[i] for i in np.random.default_rng(0).permutation(len(right))]
    assert [line.text for line in reading_order(shuffled)] == [line.text for line in right]


def test_what_stands_beside_a_line_across_the_gutter_is_read_with_it():
    row = [Line(text, rect_quad((x, 300, x + 100, 314))) for text, x in (("left", 50), ("across", 320), ("right", 600))]
    right = [*column("a", 50, 50, 10), *column("b", 380, 50, 10), *row]
    shuffled = [right[i] for i in np.random.default_rng(0).permutation(len(right))]
    assert [line.text for line in reading_order(shuffled)] == [line.text for line in right]


def test_cells_are_read_row_by_row():
    cells = [
        Line(f"r{row}c{col}", rect_quad((100 * col, 20 * row, 100 * col + 30, 20 * row + 12)))
        for row in range(8)
        for col in range(4)
    ]
    assert [line.text for line in reading_order(cells[::-1])] == [line.text for line in cells]


def test_stamps_across_the_page_come_last_and_nothing_is_lost():
    stamp = Line("turned stamp", ((5, 300), (5, 100), (15, 100), (15, 300)))
    lines = [stamp, *column("a", 50, 50, 10)]
    assert reading_order(lines)[-1] is stamp
    assert reading_order([]) == [] and reading_order([stamp]) == [stamp]


def test_a_page_of_thousands_of_lines_ends():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 2000, (3000, 2))
    lines = [Line(str(i), rect_quad((x, y, x + 40, y + 10))) for i, (x, y) in enumerate(corners.tolist())]
    assert sorted(line.text for line in reading_order(lines)) == sorted(line.text for line in lines)


def test_a_line_in_the_other_direction_stands_in_its_place():
    hebrew = [Line("שלום עולם", rect_quad((100, y, 300, y + 10))) for y in (20, 60, 80)]
    address = Line("http://page.invalid", rect_quad((100, 40, 300, 50)))
    assert reading_order([address, *hebrew]) == [hebrew[0], address, *hebrew[1:]]
    english = [Line("hello world", rect_quad((100, y, 300, y + 10))) for y in (20, 60, 80)]
    word = Line("שלום", rect_quad((100, 40, 300, 50)))
    assert reading_order([word, *english]) == [english[0], word, *english[1:]]
