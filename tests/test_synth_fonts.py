"""The manifest of faces, and what a face is said to cover."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw

from synth_ocr import fonts, glyphs
from synth_ocr.fonts import Face, FontError
from tests.every_face import every_face


@pytest.fixture
def installed():
    return every_face()


def test_the_manifest_has_the_papers_41_and_11_faces():
    faces = fonts.read_manifest()
    assert [sum(face.language == language for face in faces) for language in ("en", "zh")] == [41, 11]
    assert len({face.name for face in faces}) == 52 and all(face.licence and face.package for face in faces)


def test_every_face_of_the_manifest_passes_its_check(installed):
    pairs = [(face, fonts.companion_of(face, installed)) for face in installed]
    assert {face.name: problem for face, other in pairs if (problem := fonts.check(face, other))} == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,French,p,l,f.ttf,", r"faces.csv:2: 'French' is no code of a language, such as en"),
        ("A,en,p,l,f.ttf", r"faces.csv:2: no companion"),
    ],
)
def test_a_wrong_manifest_names_its_line(tmp_path, row, message):
    path = tmp_path / "faces.csv"
    path.write_text(f"face,language,package,licence,file,companion\n{row}\n")
    with pytest.raises(FontError, match=message):
        fonts.read_manifest(path)


def test_a_missing_face_says_how_to_install_it():
    missing = Face("Nowhere Sans", "en", "fonts-nowhere|fonts-gone", "OFL-1.1", "nowhere.ttf")
    with pytest.raises(FontError, match=r"1 of 1 faces .*Nowhere Sans .*doctor.*fonts-nowhere\).*--available-faces"):
        fonts.choose([missing], "en")
    with pytest.raises(FontError, match=r"1 of 1 faces"):  # not one is there
        fonts.choose([missing], "en", available=True)


DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # comes with a package, so it is on every machine
SANS = Face("DejaVu Sans Book", "en", "", "", "DejaVuSans.ttf")
MISSING = Face("Nowhere Sans", "en", "fonts-nowhere", "OFL-1.1", "nowhere.ttf")
LEANING = Face("DejaVu Sans Bold", "en", "", "", "DejaVuSans-Bold.ttf", companion="Nowhere Sans")


def test_a_face_is_found_by_its_file_name_and_what_the_file_says_wherever_it_lies(tmp_path):
    deep = tmp_path / "fonts" / "some" / "release"
    deep.mkdir(parents=True)
    shutil.copy(DEJAVU / "DejaVuSans.ttf", deep / "dejavusans.TTF")
    found = fonts.locate([SANS, MISSING], [tmp_path])
    assert found.keys() == {"DejaVu Sans Book"} and found["DejaVu Sans Book"].file == str(deep / "dejavusans.TTF")
    assert found["DejaVu Sans Book"].digest == hashlib.sha256((DEJAVU / "DejaVuSans.ttf").read_bytes()).hexdigest()
    shutil.copy(DEJAVU / "DejaVuSerif.ttf", deep / "dejavusans.TTF")  # another face under this name
    (tmp_path / "DejaVuSans.ttf").write_bytes(b"no font")
    assert not fonts.locate([SANS], [tmp_path])["DejaVu Sans Book"].file.startswith(str(tmp_path))


def test_folders_are_looked_at_in_order_and_of_two_versions_the_newer_is_taken(tmp_path):
    for folder, revision in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
        (tmp_path / "a" / folder).mkdir(parents=True)
        with TTFont(DEJAVU / "DejaVuSans.ttf") as font:
            font["head"].fontRevision = revision
            font.save(tmp_path / "a" / folder / "DejaVuSans.ttf")
    (tmp_path / "b").mkdir()
    shutil.copy(DEJAVU / "DejaVuSans.ttf", tmp_path / "b")
    at = lambda *folders: fonts.locate([SANS], folders)["DejaVu Sans Book"].file  # noqa: E731
    assert at(tmp_path / "a", tmp_path / "b") == str(tmp_path / "a" / "new" / "DejaVuSans.ttf")
    assert at(tmp_path / "b", tmp_path / "a") == str(tmp_path / "b" / "DejaVuSans.ttf")


def test_the_places_of_collections_are_found_by_name(installed):
    chosen = {face.name: face.index for face in installed if face.file.endswith("NotoSansCJK-Regular.ttc")}
    japanese = Face("Noto Sans CJK JP Regular", "zh", "", "", "NotoSansCJK-Regular.ttc")
    assert chosen == {"Noto Sans CJK SC Regular": 2}
    assert fonts.locate([japanese])["Noto Sans CJK JP Regular"].index == 0


def test_available_faces_leaves_out_what_is_missing_and_what_leans_on_it():
    with pytest.raises(FontError, match="1 of 3 faces are not installed: Nowhere Sans"):
        fonts.choose([SANS, LEANING, MISSING], "en")
    ((face, companion),) = fonts.choose([SANS, LEANING, MISSING], "en", available=True)
    assert (face.name, companion) == ("DejaVu Sans Book", None)


def test_a_path_is_taken_as_it_is_and_must_hold_the_face(tmp_path):
    own = Face("DejaVu Sans Book", "en", "", "", str(DEJAVU / "DejaVuSans.ttf"))
    assert fonts.locate([own])[own.name].file == own.file
    with pytest.raises(FontError, match=r"DejaVuSans.ttf has no face 'My Sans'; it has DejaVu Sans Book"):
        fonts.locate([replace(own, name="My Sans")])
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0 no font at all")
    with pytest.raises(FontError, match=r"broken.ttf has no face .*none at all: no font"):
        fonts.locate([replace(own, file=str(tmp_path / "broken.ttf"))])


def test_another_version_of_a_face_on_a_worker_is_refused(tmp_path):
    shutil.copy(DEJAVU / "DejaVuSans.ttf", tmp_path)
    face = fonts.locate([SANS], [tmp_path])[SANS.name]
    glyphs.load_face(face)
    shutil.copy(DEJAVU / "DejaVuSans-Oblique.ttf", tmp_path / "DejaVuSans.ttf")
    glyphs.load_face.cache_clear()  # as a worker on another machine
    with pytest.raises(FontError, match="is another version of DejaVu Sans Book than where this job started"):
        glyphs.load_face(face)


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
