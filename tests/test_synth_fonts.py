"""The manifest of faces, and what a face is said to cover."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from synth_ocr import fonts, glyphs
from synth_ocr.fonts import Face, FontError


@pytest.fixture
def installed():
    faces = fonts.read_manifest()
    if missing := [face for face in faces if not Path(face.file).is_file()]:
        pytest.skip(f"fonts are not installed: {missing[0].file} (python -m synth_ocr.fonts --install)")
    return faces


def test_the_manifest_has_the_papers_41_and_11_faces():
    faces = fonts.read_manifest()
    assert [sum(face.language == language for face in faces) for language in ("en", "zh")] == [41, 11]
    assert len({face.name for face in faces}) == 52 and all(face.licence and face.package for face in faces)


def test_every_face_of_the_manifest_passes_its_check(installed):
    assert {face.name: problem for face in installed if (problem := fonts.check(face, installed))} == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,fr,p,l,/f.ttf,0,", r"faces.csv:2: language 'fr'; languages are en, zh"),
        ("A,en,p,l,/f.ttf,one,", r"faces.csv:2: index 'one' is no number"),
        ("A,en,p,l,/f.ttf", r"faces.csv:2: no index, companion"),
    ],
)
def test_a_wrong_manifest_names_its_line(tmp_path, row, message):
    path = tmp_path / "faces.csv"
    path.write_text(f"face,language,package,licence,file,index,companion\n{row}\n")
    with pytest.raises(FontError, match=message):
        fonts.read_manifest(path)


def test_a_missing_face_says_how_to_install_it():
    missing = Face("Nowhere Sans", "en", "fonts-nowhere", "OFL-1.1", "/nowhere/font.ttf")
    with pytest.raises(FontError, match=r"Nowhere Sans .*--install.*fonts-nowhere"):
        fonts.choose([missing], "en")
    assert fonts.check(missing, [missing]) == "missing: install fonts-nowhere"


def test_a_face_that_is_no_font_is_refused(tmp_path):
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"\0\1\0\0 no font at all")
    with pytest.raises(FontError, match="cannot be read as a font"):
        glyphs.load_face(Face("Broken", "en", "", "", str(path)))


def test_coverage_leaves_out_what_is_blank_or_cannot_stand_in_a_line(installed):
    face = glyphs.load_face(installed[12])  # DejaVu Sans, which has Arabic, combining marks and zero-width glyphs
    assert face.lacking("Az09€Ω你") == "你"
    assert face.lacking("\u200b\u0301\u0627\ue000\u00ad") == "\u200b\u0301\u0627\ue000\u00ad"


def test_glyphs_without_ink_are_not_covered(installed):
    sans = glyphs._read_table(installed[12])["advances"]  # not through the cache
    assert sans[0x2801] and not sans[0x2800]  # Braille, with and without dots
    noto = glyphs._read_table(installed[41])["advances"]
    assert noto[0x3131] and not noto[0x3164]  # a hangul letter and the filler


def test_glyphs_said_to_be_covered_leave_ink(installed):
    rng = np.random.default_rng(0)
    for face in (installed[0], installed[39], installed[41], installed[45], installed[51]):
        table = glyphs.load_face(face)
        codes = np.nonzero(table.advances)[0]
        font = table.font(40)
        for code in rng.choice(codes[codes != 0x20], 60, replace=False):
            picture = Image.new("L", (120, 120))
            ImageDraw.Draw(picture).text((40, 30), chr(code), 255, font)
            assert picture.getbbox(), f"{face.name}: U+{code:04X} leaves no ink"


def test_advances_are_those_of_the_font(installed):
    table = glyphs.load_face(installed[0])
    for char in "aWi.":
        assert table.font(1000).getlength(char) == pytest.approx(1000 * table.advances[ord(char)], rel=0.01)


def test_only_faces_that_turn_their_signs_set_vertical_text(installed):
    upright = {face.name for face in installed if glyphs.load_face(face).upright}
    assert upright == {face.name for face in installed if face.name.startswith("Noto")}


def test_the_cache_is_used_and_a_damaged_one_replaced(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = glyphs._cached_table(installed[0])
    (stored,) = (tmp_path / "gristmill" / "glyphs").iterdir()
    reads = []
    monkeypatch.setattr(glyphs, "_read_table", lambda face: reads.append(face) or first)
    assert np.array_equal(glyphs._cached_table(installed[0])["advances"], first["advances"]) and not reads
    stored.write_bytes(b"damaged")
    glyphs._cached_table(installed[0])
    assert len(reads) == 1 and stored.stat().st_size > 100


def test_an_unwritable_cache_only_costs_time(installed, tmp_path, monkeypatch):
    (tmp_path / "gristmill").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert glyphs._cached_table(installed[39])["advances"].any()


def test_install_without_apt_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FontError, match="no apt-get here"):
        fonts.install([Face("A", "en", "fonts-a", "OFL-1.1", "/nowhere.ttf")])
