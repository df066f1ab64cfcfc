"""Which rendered pages are worth keeping: the paper's filters (appendix A.4) and a few it does not name.

Every rule drops the whole page. Pure: the measured values of a page and thresholds in, a verdict out.
"""

from dataclasses import dataclass

from renderers.characters import LATIN_EXTENDED, PRIVATE_USE, UNDECODABLE
from renderers.page import Page

# Rule -> its default threshold; None switches a rule off. The paper gives no numbers. The defaults keep a title
# slide of 20 characters and a dense two-column page of 10,000, but no page number and no telephone directory.
PDF_RULES = {
    "too_small": 200,  # the shorter side of the image, in pixels, is less
    "blank": 0,  # lines with visible ink: no more than this
    "too_few_characters": 20,
    "too_many_characters": 20_000,
    "latin_extended": 0,  # more characters of the blocks Latin Extended-A and -B than this
    "private_use": 0,  # more characters of the Private Use Areas than this
    "undecodable": 0,  # more U+FFFD than this
    "missing_font": 0,  # more characters drawn with a wrong glyph than this
    "duplicate": 1,  # seen this often in the split already
}
HTML_RULES = {name: value for name, value in PDF_RULES.items() if name not in ("latin_extended", "missing_font")}
HTML_RULES["too_many_characters"] = 60_000  # a web page is a scroll of several sheets
_AT_LEAST = ("too_small", "too_few_characters")  # the rules that drop below their threshold
_AT_MOST = ("blank",)  # drops at its threshold and below


@dataclass(frozen=True)
class Verdict:
    """The rule that dropped a page, what it measured, and its threshold."""

    rule: str
    value: float
    threshold: float


def measure(page: Page, characters: str) -> dict[str, float]:
    """Return a page's value for every rule but `duplicate`; `characters` is its text without white space."""
    return {
        "too_small": min(page.width, page.height),
        "blank": len(page.lines),
        "too_few_characters": len(characters),
        "too_many_characters": len(characters),
        "latin_extended": len(LATIN_EXTENDED.findall(characters)),
        "private_use": len(PRIVATE_USE.findall(characters)),
        "undecodable": len(UNDECODABLE.findall(characters)),
        "missing_font": page.misdrawn,
    }


def judge(values: dict[str, float], thresholds: dict[str, float | None]) -> Verdict | None:
    """Return the first rule, in the order of `thresholds`, that drops a page with these values."""
    for rule, threshold in thresholds.items():
        if rule in values and threshold is not None and _drops(rule, values[rule], threshold):
            return Verdict(rule, values[rule], threshold)
    return None


def _drops(rule: str, value: float, threshold: float) -> bool:
    if rule in _AT_LEAST:
        return value < threshold
    return value <= threshold if rule in _AT_MOST else value > threshold
