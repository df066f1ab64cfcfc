"""Which rendered pages, and which windows of them, are worth keeping: the paper's filters (appendix A.4) and more.

Pure: measured values and thresholds in, a verdict out. A rule judges whole pages or single windows: one glyph that is
wrong costs its window, unless whole pages are asked for, the letter of the paper.
"""

from collections.abc import Sequence

from corpus.legibility import Legibility
from corpus.verdicts import Verdict, dropped
from renderers.characters import LATIN_EXTENDED, PRIVATE_USE, UNDECODABLE
from renderers.page import Line, Page
from renderers.plausible import letter_surprise, mojibake, rare_han_share

# Rule -> its default threshold; None switches a rule off. The paper gives no numbers. The defaults keep a title
# slide of 20 characters and a dense two-column page of 10,000, but no page number and no telephone directory.
PAGE_RULES = {
    "too_small": 200,  # the shorter side of the image, in pixels, is less
    "blank": 0,  # lines with visible ink: no more than this
    "too_few_characters": 20,
    "too_many_characters": 20_000,
    "scrambled_letters": 3.5,  # bits of surprise at its letters: more than any language has (2.4 to 3.1 measured)
    "rare_han": 0.2,  # a larger share of its Han characters is rare (at most 0.06 measured)
    "mojibake": 3.0,  # more signs of a wrong encoding in 100 characters (at most 0.9 measured)
}
WINDOW_RULES = {
    "latin_extended": 0,  # more characters of the blocks Latin Extended-A and -B than this
    "private_use": 0,  # more characters of the Private Use Areas than this
    "undecodable": 0,  # more U+FFFD than this
    "missing_font": 0,  # more characters drawn with a wrong glyph than this
    "half_seen": 0.1,  # of one line, a larger share shows no ink
    "window_too_short": 5,  # fewer characters than this
    "elongated": 3.0,  # the longer side over the shorter is more
    "crowded": 0,  # more lines of other windows reach into it and cannot be covered with paper
    "narrow_text": 6.0,  # after the squash: pixels for a half-width character, in the line where it is least
    "low_text": 10.0,  # after the squash: pixels of ink across the line, in the line where it is least
}
TEXT_RULES = ("scrambled_letters", "rare_han", "mojibake")  # of pages, and of windows with enough text to judge
GLYPH_RULES = ("latin_extended", "private_use", "undecodable", "missing_font")  # the paper's: of the page, if asked
PDF_RULES = PAGE_RULES | {"duplicate": 1} | WINDOW_RULES  # duplicate: seen this often in the split already
HTML_RULES = {name: value for name, value in PDF_RULES.items() if name not in ("latin_extended", "missing_font")}
_after = list(HTML_RULES).index("duplicate")
HTML_RULES = dict([*list(HTML_RULES.items())[:_after], ("boilerplate", 0.5), *list(HTML_RULES.items())[_after:]])
HTML_RULES["too_many_characters"] = 60_000  # a web page is a scroll of several sheets
AT_LEAST = ("too_small", "too_few_characters", "window_too_short", "narrow_text", "low_text")  # drop below
AT_MOST = ("blank",)  # drops at its threshold and below
SAYS = {
    "too_small": "pages whose shorter side has too few pixels",
    "blank": "pages without a line that shows",
    "too_few_characters": "pages of too few characters",
    "too_many_characters": "pages of too many characters",
    "scrambled_letters": "letters in an order that no language has",
    "rare_han": "too large a share of rare Han characters",
    "mojibake": "signs of a wrong encoding",
    "boilerplate": "pages of notices and nothing else",
    "duplicate": "pages that were there already",
    "latin_extended": "characters of Latin Extended-A and -B",
    "private_use": "private-use characters",
    "undecodable": "characters that could not be decoded",
    "missing_font": "characters drawn with a wrong glyph",
    "half_seen": "lines of which a part shows no ink",
    "window_too_short": "windows of too few characters",
    "elongated": "windows too long for their width",
    "crowded": "windows into which lines of others reach",
    "narrow_text": "text too narrow to read at the training size",
    "low_text": "text too low to read at the training size",
}


def measure_page(page: Page, characters: str) -> dict[str, float]:
    """Return a page's value for every rule about pages but `duplicate`; `characters`: its text, no white space."""
    return {
        "too_small": min(page.width, page.height),
        "blank": len(page.lines),
        "too_few_characters": len(characters),
        "too_many_characters": len(characters),
    }


def measure_text(text: str) -> dict[str, float]:
    """Return the value of every rule about plausible text."""
    return {"scrambled_letters": letter_surprise(text), "rare_han": rare_han_share(text), "mojibake": mojibake(text)}


def measure_glyphs(lines: Sequence[Line]) -> dict[str, float]:
    """Return the value of every rule about single characters."""
    characters = "".join(line.text for line in lines)
    classes = {"latin_extended": LATIN_EXTENDED, "private_use": PRIVATE_USE, "undecodable": UNDECODABLE}
    counts: dict[str, float] = {
        name: 0 if characters.isascii() else len(found.findall(characters)) for name, found in classes.items()
    }
    return counts | {"missing_font": sum(line.misdrawn for line in lines)}


def measure_window(lines: Sequence[Line], width: int, height: int, uncovered: int, legible: Legibility) -> dict:
    """Return a window's value for every rule about windows; where nothing can be too small, a number above all."""
    measured = [legible.measure(line.text, line.quad, width, height) for line in lines]
    text = measure_text(" ".join(line.text for line in lines))
    return (
        measure_glyphs(lines)
        | text
        | {
            "half_seen": max(line.unseen / (line.unseen + len(line.text)) for line in lines),
            "window_too_short": sum(len(line.text.replace(" ", "")) for line in lines),
            "elongated": max(width, height) / min(width, height),
            "crowded": uncovered,
            "narrow_text": min(min(advance for advance, _ in measured), legible.train_size),
            "low_text": min(min(ink for _, ink in measured), legible.train_size),
        }
    )


def of_pages(thresholds: dict[str, float | None], per_page: bool) -> dict[str, float | None]:
    """Return those of the thresholds that judge whole pages; `per_page`: those about single characters too."""
    windows = WINDOW_RULES.keys() - (set(GLYPH_RULES) if per_page else set())
    return {name: value for name, value in thresholds.items() if name not in windows}


def of_windows(thresholds: dict[str, float | None], per_page: bool) -> dict[str, float | None]:
    """Return those of the thresholds that judge windows."""
    pages = of_pages(thresholds, per_page).keys() - set(TEXT_RULES)
    return {name: value for name, value in thresholds.items() if name not in pages}


def judge(values: dict[str, float], thresholds: dict[str, float | None]) -> Verdict | None:
    """Return the first rule, in the order of `thresholds`, that drops a page or window with these values."""
    for rule, threshold in thresholds.items():
        if rule in values and threshold is not None and _drops(rule, values[rule], threshold):
            return dropped(rule, values[rule], threshold)
    return None


def _drops(rule: str, value: float, threshold: float) -> bool:
    if rule in AT_LEAST:
        return value < threshold
    return value <= threshold if rule in AT_MOST else value > threshold
