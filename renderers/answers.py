"""What a PDF process may answer. MuPDF runs behind locks, but a captured one still speaks to the job."""

import re

from renderers.confined import Nonsense
from renderers.rules import GLYPH_RULES, PAGE_RULES, PDF_RULES, TEXT_RULES, WINDOW_RULES

_MOST = 1 << 31  # of any count or coordinate: it has to fit the ledger's columns
_OF_PAGES = {*PAGE_RULES, *GLYPH_RULES}
_COUNTS = {"too_small", "blank", "too_few_characters", "too_many_characters", "crowded", "window_too_short"}
_OF_WINDOWS = {*WINDOW_RULES, *TEXT_RULES, "window_too_long"}


def check(question: str, answer: dict, images: list[bytes]) -> None:
    """Raise Nonsense unless this answers `question`, "open" or "page", in the shape that `encode_page` gives it."""
    try:
        if "bug" in answer:
            _demand(_is_text(answer["bug"]), "bug")
        elif "failed" in answer:
            _demand(re.fullmatch("[a-z_]{1,40}", answer["failed"]) and _is_text(answer["detail"], 10_000), "failed")
        elif question == "open":
            _demand(_is_count(answer["pages"]), "pages")
        else:
            _check_page(answer, images)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Nonsense(f"no answer of ours: {type(error).__name__} {error}"[:200]) from None


def _check_page(page: dict, images: list[bytes]) -> None:
    width, height = page["size"]
    _demand(_is_count(width) and _is_count(height), "size")
    _check_values(page, _OF_PAGES)
    _demand(
        _is_text(page["language"], 40) and _is_text(page["digest"], 64) and _is_count(page["hidden"]),
        "language, digest",
    )
    for window in page["windows"]:
        _check_values(window, _OF_WINDOWS)
        x0, y0, x1, y1 = window["box"]
        _demand(all(map(_is_count, window["box"])) and x0 < x1 <= width and y0 < y1 <= height, "box")
        _demand(_is_count(window["tokens"]) and _is_count(window["covered"]), "tokens, covered")
        for text, corners in window["lines"]:
            _demand(_is_text(text) and len(corners) == 8 and all(map(_is_number, corners)), "lines")
    _demand(len(images) == (1 if page["verdict"] else len(page["windows"])), "images")


def _check_values(judged: dict, names: set[str]) -> None:
    """`values` of a page or a window, and its `verdict`; characters, pixels and lines are counted."""
    values = judged["values"]
    _demand(values.keys() == names and all(_is_number(value) and value >= 0 for value in values.values()), "values")
    _demand(all(_is_count(values[name]) for name in (*_COUNTS & names, *GLYPH_RULES)), "counts")
    if judged["verdict"]:
        rule, value, threshold = judged["verdict"]
        known = rule in PDF_RULES or rule in names
        _demand(known and _is_number(value) and _is_number(threshold), "verdict")


def _demand(holds: object, what: str) -> None:
    if not holds:
        raise Nonsense(f"no answer of ours: {what}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST  # false for NaN


def _is_text(value: str, most: int = 1 << 20) -> bool:
    return len(value.encode()) <= most  # a ValueError for half a surrogate pair
