"""PDF pages: every line where its ink is, whatever the page's rotation, crop or writing direction."""

from pathlib import Path

import matplotlib
import pymupdf
import pytest

from corpus.legibility import is_column
from renderers import glyphs, pdf
from renderers.ink import ink_report, luminance
from renderers.page import BadDocument, bounds


def document(draw, width=400, height=300, rotation=0, crop=None) -> bytes:
    made = pymupdf.open()
    page = made.new_page(width=width, height=height)
    draw(page)
    page.set_rotation(rotation)
    if crop:
        page.set_cropbox(pymupdf.Rect(crop))
    return made.tobytes()


def only_page(data: bytes, **settings):
    (page,) = pdf.render(data, pdf.PdfSettings(**settings))
    return page


def two_lines(page) -> None:
    page.insert_text((60, 80), "First line of text", fontsize=14)
    page.insert_text((60, 180), "Second line, lower", fontsize=11)


def caught(page) -> float:
    return ink_report(luminance(page.pixels), [line.quad for line in page.lines])["caught"]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, (30, 40, 380, 280)])
def test_boxes_hug_the_ink_at_every_rotation_and_crop(rotation, crop):
    page = only_page(document(two_lines, rotation=rotation, crop=crop))
    assert [line.text for line in page.lines] == ["First line of text", "Second line, lower"]
    report = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    assert report["caught"] > 0.98 and report["inside"] > 0.2


def test_the_first_corner_is_where_reading_starts():
    for rotation, corner in ((0, "left top"), (90, "right top"), (180, "right bottom"), (270, "left bottom")):
        line = only_page(document(two_lines, rotation=rotation)).lines[0]
        (x, y), (x0, y0, x1, y1) = line.quad[0], bounds(line.quad)
        assert corner == f"{'left' if x == x0 else 'right'} {'top' if y == y0 else 'bottom'}", rotation
        assert (x, y) in {(x0, y0), (x1, y0), (x1, y1), (x0, y1)}


def test_slanted_text_has_a_slanted_quad():
    def slanted(page):
        page.insert_text((100, 200), "uphill text", fontsize=20, morph=(pymupdf.Point(100, 200), pymupdf.Matrix(30)))

    page = only_page(document(slanted))
    (line,) = page.lines
    (x0, y0), (x1, y1) = line.quad[:2]
    assert abs((y1 - y0) / (x1 - x0)) == pytest.approx(0.577, abs=0.03)
    assert caught(page) > 0.97


def test_invisible_white_and_covered_text_is_left_out():
    def hidden(page):
        two_lines(page)
        page.insert_text((60, 120), "an OCR layer", render_mode=3)
        page.insert_text((60, 150), "white on white", color=(1, 1, 1))
        page.insert_text((60, 230), "under a box")
        page.draw_rect((50, 210, 300, 240), fill=(0.9, 0.9, 0.9), color=(0.9, 0.9, 0.9))

    page = only_page(document(hidden))
    assert [line.text for line in page.lines] == ["First line of text", "Second line, lower"]
    assert page.hidden == 2  # the OCR layer is known to be invisible without looking


def test_of_a_line_that_is_half_covered_the_rest_is_labelled_and_counted():
    def covered(page):
        page.insert_text((60, 80), "seen here and hidden there", fontsize=14)
        page.draw_rect((155, 60, 400, 90), fill=(1, 1, 1), color=(1, 1, 1))

    (line,) = only_page(document(covered)).lines
    assert line.text in {"seen here and", "seen here an"}
    assert line.unseen >= 11 and bounds(line.quad)[2] <= 156 * 2


def test_text_printed_twice_for_boldness_is_labelled_once():
    def bold(page):
        for shift in (0, 0.3):
            page.insert_text((60 + shift, 80), "printed twice", fontsize=14)
        page.insert_text((60, 130), "printed twice", fontsize=14)

    page = only_page(document(bold))
    assert [line.text for line in page.lines] == ["printed twice", "printed twice"]


def test_a_line_may_be_divided_at_its_words_even_where_they_overlap():
    def overlapping(page):
        page.insert_text((60, 80), "x", fontsize=20)
        (number,) = page.get_contents()
        stream = page.parent.xref_stream(number)
        page.parent.update_stream(number, stream.replace(b"[<78>]TJ", b"[(one )600(two three four)]TJ"))

    (line,) = only_page(document(overlapping)).lines
    assert line.text == "one two three four"
    assert [line.text[:at] for at, _, _ in line.breaks] == ["one two", "one two three"]


def test_pixels_outlive_the_document_they_are_of():
    pages = [only_page(document(two_lines)) for _ in range(20)]
    first, *others = [page.pixels[50:-50] for page in pages]
    del pages
    assert first.min() < 50 and all((first == pixels).all() for pixels in others)


def test_letters_without_any_width_do_not_cost_the_page():
    line = {"wmode": 0, "dir": (1.0, 0.0), "spans": [
        {"alpha": 255, "char_flags": 16, "size": 12.0, "font": "F",
         "chars": [{"c": "\u05d0", "bbox": (10.0, 10.0, 10.0, 20.0), "origin": (10.0, 20.0)}]},
    ]}  # fmt: skip
    pieces = glyphs.pieces_of([{"lines": [line]}], 2.0, pdf.quarter_turns, lambda span: 0)
    assert len(pieces) == 1 and glyphs.join_right_to_left(pieces, 0.45) == []


def test_ligatures_are_expanded_and_chinese_is_read():
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"

    def text(page):
        page.insert_text((40, 60), "oﬃce ﬁne", fontname="dejavu", fontfile=font, fontsize=14)
        page.insert_text((40, 120), "关于红军作战的原则", fontname="china-s", fontsize=14)

    page = only_page(document(text))
    assert page.lines[-1].text == "关于红军作战的原则"
    assert page.lines[0].text == "office fine"
    assert caught(page) > 0.97


def test_sizes_are_capped_before_drawing():
    huge = only_page(document(lambda page: page.insert_text((5000, 5000), "x", fontsize=500), 14000, 9000))
    assert (huge.width, huge.height) == (2048, 1317)
    small = only_page(document(two_lines), dpi=36)
    assert (small.width, small.height) == (200, 150)


def test_pixels_are_blue_first():
    page = only_page(document(lambda page: page.draw_rect((0, 0, 400, 300), fill=(1, 0, 0))))
    assert tuple(page.pixels[150, 150]) == (0, 0, 255)


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", "empty"),
        (b"<html>not a PDF</html>", "not_a_pdf"),
        (b"%PDF-1.7\nnonsense", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not_a_pdf"),
    ],
)
def test_what_does_not_open_says_why(data, kind):
    with pytest.raises(BadDocument) as caught:
        pdf.open_pdf(data)
    assert caught.value.kind == kind


def test_a_password_is_asked_for_and_an_owner_password_is_not():
    made = pymupdf.open()
    two_lines(made.new_page())
    locked = made.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="secret", owner_pw="owner")
    with pytest.raises(BadDocument) as caught:
        pdf.open_pdf(locked)
    assert caught.value.kind == "password"
    restricted = made.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw="owner")
    assert pdf.open_pdf(restricted).page_count == 1


@pytest.mark.parametrize(
    "name, rotation", [("olmocr_edgar-rotated90", 90), ("pdfjs_pr20043", 270), ("pdfjs_issue6019", 90)]
)
def test_real_rotated_pages(shared_data, name, rotation):
    data = shared_data(f"pdf/{name}.pdf").read_bytes()
    assert pdf.open_pdf(data)[0].rotation == rotation
    assert caught(only_page(data)) > 0.95


def test_real_vertical_japanese_is_read_down_its_columns(shared_data):
    page = only_page(shared_data("pdf/pdfminer_jo.pdf").read_bytes())
    assert [line.text for line in page.lines[1:4]] == [
        "わたくしといふ現象は",
        "假定された有機交流電燈の",
        "ひとつの青い照明です",
    ]
    assert caught(page) > 0.95


@pytest.mark.parametrize("name", ["pdfminer_jo", "pdfjs_issue6387"])
def test_vertical_text_is_labelled_where_its_ink_is(shared_data, name):
    """Of the ink in and around a column's quad nearly all is inside, at its ends too: a glyph late would miss one."""
    page = only_page(shared_data(f"pdf/{name}.pdf").read_bytes())
    columns = [line for line in page.lines if is_column(line.text, line.quad)]
    assert len(columns) > 5
    grey = luminance(page.pixels) < 128
    inside = around = 0
    for line in columns:
        x0, y0, x1, y1 = map(round, bounds(line.quad))
        reach = x1 - x0
        inside += grey[y0:y1, x0:x1].sum()
        around += grey[max(y0 - reach // 2, 0) : y1 + reach // 2, x0:x1].sum()
    assert inside / around > 0.98


@pytest.mark.parametrize(
    "name, texts",
    [
        ("pdfjs_issue11656", ["שלום עולם מה שלום כולם?", "לחיוב פעולות אלה לפי סעיף15(ב)(4) לחוק מבקר המדינה"]),
        ("pdfjs_ArabicCIDTrueType", ["انواع الخطوط العربية"]),
        ("olmocr_ff3d6e051903fe5ca9bc172ece14964c5632_pg1", ["استاد علوم کتابداري و اطلاعرسانی؛ دانشگاه شیراز"]),
    ],
)  # fmt: skip
def test_right_to_left_lines_are_in_logical_order(shared_data, name, texts):
    found = {line.text.replace(" ", "") for line in only_page(shared_data(f"pdf/{name}.pdf").read_bytes()).lines}
    assert not {text.replace(" ", "") for text in texts} - found


def test_brackets_that_stand_back_in_their_square_are_joined(shared_data):
    texts = [line.text for line in next(pdf.render(shared_data("pdf/pdfjs_XiaoBiaoSong.pdf").read_bytes())).lines]
    assert "（一九三七年八月一日）" in texts and "（" not in texts


def test_a_missing_font_with_wrong_glyphs_is_counted(shared_data):
    for name, some in (("pymupdf_test_3854", True), ("pdfjs_noembed-eucjp", False)):
        page = only_page(shared_data(f"pdf/{name}.pdf").read_bytes())
        assert (sum(line.misdrawn for line in page.lines) > 100) == some


@pytest.mark.parametrize(
    "name",
    ["pymupdf_v110-changes", "pdfjs_XiaoBiaoSong", "olmocr_discoverworld_crazy_table4", "olmocr_edgar-rotated90"],
)
def test_every_box_holds_the_words_of_its_own_line(shared_data, name):
    """Ink alone cannot tell a box from its neighbour's: here MuPDF is asked what text lies inside each box."""
    source = pymupdf.open(shared_data(f"pdf/{name}.pdf"))
    right = wrong = 0
    for page in pdf.render(shared_data(f"pdf/{name}.pdf").read_bytes()):
        scale = pdf.page_scale(source[page.number].rect, pdf.PdfSettings())
        for line in page.lines:
            box = pymupdf.Rect([side / scale for side in bounds(line.quad)]) * source[page.number].derotation_matrix
            inside = source[page.number].get_text(clip=box + (-1, -1, 1, 1), flags=pdf.TEXT_FLAGS)
            found = "".join(line.text.split()) in "".join(inside.split())
            right, wrong = right + found, wrong + (not found)
    assert wrong <= 0.04 * right
