"""Reading order: against truth written by hand, looking at the pages, as landmarks that must follow each other."""

import numpy as np
import pytest

from renderers import pdf
from renderers.order import reading_order
from renderers.page import Line, rect_quad

# Page -> beginnings of lines in the order a reader meets them. Columns, boxes beside columns, tables, pages on their
# side, Persian, vertical Japanese.
TRUTH = {
    "olmocr_pdftotext_two_column_issue": [
        "Turner syndrome", "to adulthood", "Laura", "Accepted", "Abstract", "Background", "Areas of agreement",
        "Areas of controversy", "Areas timely", "Key words",
    ],
    "olmocr_mathfuncs_colswitch": [
        "The 20 Most", "A journey", "1. Euler", "Connects five", "2. Pythag", "In right", "3. The Fund", "Establishes",
        "4. Maxwell", "Unified",
    ],
    "pdfminer_pr-00530-ml-lines": [
        "47698", "This section of", "DEPARTMENT", "AGENCY", "SUMMARY", "DATES", "methods:", "• Federal eRule", "• Mail",
        "Examining the AD", "SUPPLEMENTARY", "Comments Invited", "proposal, explain", "your comments.",
    ],
    "pdfjs_chrome-text-selection-markedContent": [
        "We reiterate", "A successful year", "300 MEUR", "Growth and profit", "8.8 MEUR", "pressures due", "We now",
        "Moderate upside", "which supports our", "Revenue", "EBITA", "Guidance",
    ],
    "olmocr_tobacco_missed_tokens_pg1:1": [
        "to condemn the", "The two tobacco", "A second opportunity", "have among", "‘‘It funds", "‘‘In considering",
        "WHY SO EASY?", "The tobacco industry",
    ],
    "pdfminer_issue-1061-colour-space-stack:2": [
        "The amount of noise", "A. Noise", "Definition 2", "Proposition 1", "B. Noise", "Definition 3", "Obviously",
        "Example 1", "The local sensitivity is", "Example 2", "The previous example", "Definition 4", "III. Related",
    ],
    "pdfjs_issue7014": ["Trace-based", "Languages", "Abstract", "Dynamic languages", "Categories", "and is used"],
    "pdfjs_issue14438": ["Trace-based", "Languages", "Abstract", "Dynamic languages", "Categories", "and is used"],
    "pdfjs_issue1350": [
        "Instructions", "* Please call", "* Present valid", "Instructions for merchant", "Details", "• Limit 1",
        "• Package 3", "• For Packages 2", "Before redeeming", "Thank you",
    ],
    "pdfminer_issue-00352-asw-oct96-p41": [
        "Appendix", "Date", "Location", "Aircraft Type", "Oct. 25, 1999", "Aberdeen", "The aircraft was on a charter",
        "June 13, 2000", "Rio de Janeiro", "Boeing 737-200", "A rapid", "Sept. 15", "Dec. 26", "NA = not",
    ],
    "olmocr_edgar-rotated90": [
        "Edgar, King of England", "Edgar (or Eadgar", "Edgar mainly followed", "England had suffered", "the Unready",
        "Reign", "1 October 959", "Predecessor", "Eadwig", "Father", "Mother",
    ],
    "pymupdf_test_2635": ["La libertà responsabile", "La persona umana", "Partecipare"],
    "pymupdf_v110-changes": ["MuPDF v1.10", "Pixmap", "The alpha channel", "PyMuPDF Design", "API Change: Display"],
    "olmocr_ff3d6e051903fe5ca9bc172ece14964c5632_pg1": ["بررسی", "دانشگاه شیراز", "در کتابخانه", "چکیده", "کلیدواژه"],
    "pdfminer_jo": [
        "序", "わたくしといふ", "假定された", "因果交流電燈の", "これらは二十二箇月の", "それが虚無", "けれどもこれら",
        "傾向として", "すべてこれらの", "宮澤賢治",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TRUTH)
def test_lines_follow_each_other_as_a_reader_meets_them(shared_data, name):
    file, _, number = name.partition(":")
    document = pdf.open_pdf(shared_data(f"pdf/{file}.pdf").read_bytes())
    texts = [line.text for line in pdf.render_page(document, int(number or 0), pdf.PdfSettings()).lines]
    at = -1
    for landmark in TRUTH[name]:
        found = [i for i, text in enumerate(texts) if text.startswith(landmark) and i > at]
        assert found, f"{landmark!r} is not after line {at}: {texts[max(at, 0)][:60]!r}"
        at = found[0]


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
