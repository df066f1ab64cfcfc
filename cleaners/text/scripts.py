"""Rule 4 of Qwen-VL A.1: which characters a dataset's language has.

English captions hold English; Chinese ones hold Chinese and English; what a language has beside Latin letters stands in
`corpus/languages.yaml`, or in a catalog. The rule is about characters, not about guessing
a language. People and places keep the Latin letters of their names (Brontë, Dvořák, Wałęsa, Tōkyō, Nguyễn), and a Greek
letter or two in a row stand for a quantity or a unit (α-helix, kΩ); three in a row are a Greek word, and foreign.
Strictly read, the paper's letters of English are those of ASCII. Typography, currency, arrows, mathematics and dingbats
belong to no language, so they are allowed everywhere; emoji have a rule of their own and are allowed here. What nobody
can read is foreign: U+FFFD, private use, unassigned.
"""

from functools import cache

from cleaners.text.emoji import EMOJI_RANGES, range_class
from corpus.languages import Language, Ranges, language_of

# ASCII with the controls that cleaning removes anyway: this rule must not report them when cleaning is off.
ASCII: Ranges = ((0x00, 0x7F),)
LATIN_1_SIGNS: Ranges = ((0x80, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7))
# Latin-1, Latin Extended-A, the commas below of Romanian, and Vietnamese: what names are written in.
NAMES: Ranges = ((0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x17F), (0x1A0, 0x1A1), (0x1AF, 0x1B0), (0x218, 0x21B),
                 (0x1EA0, 0x1EF9))  # fmt: skip
GREEK: Ranges = ((0x391, 0x3A9), (0x3B1, 0x3C9), (0x3D1, 0x3D1), (0x3D5, 0x3D5), (0x3F5, 0x3F5))  # without accents
BULLETS: Ranges = ((0x30FB, 0x30FB), (0xFF65, 0xFF65))
SYMBOLS: Ranges = (
    (0x2B0, 0x2FF),  # spacing modifiers: a prime or apostrophe that a keyboard got wrong
    (0x2000, 0x206F),  # general punctuation
    (0x2070, 0x2070), (0x2074, 0x208E),  # superscripts and subscripts
    (0x20A0, 0x20C0),  # currency
    (0x20E3, 0x20E3),  # the keycap of an emoji
    (0x2100, 0x214F),  # letter-like: trade mark, numero, degree Celsius
    (0x2150, 0x218B),  # fractions, Roman numerals
    (0x2190, 0x23FF),  # arrows, mathematics, technical
    (0x2460, 0x27BF),  # enclosed numbers, boxes, shapes, dingbats
    (0x27C0, 0x27FF), (0x2900, 0x2BFF),  # more mathematics and arrows
    (0x3030, 0x3030), (0x303D, 0x303D), (0x3297, 0x3297), (0x3299, 0x3299),  # four emoji in CJK blocks
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xE0020, 0xE007F),  # variation selectors, byte-order mark, flag tags
)  # fmt: skip
SIGNS = ASCII + LATIN_1_SIGNS + SYMBOLS + EMOJI_RANGES
STRICT = SIGNS + ((0x3A9, 0x3A9),)  # what cleaning makes of the sign of the ohm, a symbol
COMMON = SIGNS + NAMES + BULLETS


@cache
def foreign(language: str | Language, strict: bool = False) -> str:
    """Return an RE2 pattern that matches in captions with characters that `language` does not have.

    `strict`: no letters of names, no Greek. Raises ValueError for a language without a table.
    """
    if strict or _writes_greek(language):
        return f"[^{allowed(language, strict)}]"
    greek = range_class(GREEK)
    return f"[^{allowed(language)}{greek}]|[{greek}]{{3}}"


@cache
def native(language: str | Language, strict: bool = False) -> str:
    """Return an RE2 pattern to replace by `\\1`: what is left of a caption are its foreign characters."""
    if strict or _writes_greek(language):
        return f"()[{allowed(language, strict)}]+"
    greek = f"[{range_class(GREEK)}]"
    return f"({greek}{{3,}})|[{allowed(language)}]+|{greek}{{1,2}}"


@cache
def allowed(language: str | Language, strict: bool = False) -> str:
    """Return the inside of the RE2 class of the characters of `language`, but for Greek that is not its own."""
    own = language_of(language)
    return range_class(STRICT + own.characters if strict else COMMON + own.characters + own.lenient)


def _writes_greek(language: str | Language) -> bool:
    """Whether Greek letters are a language's own, which then may stand together."""
    return any(first <= 0x3B1 <= last for first, last in language_of(language).characters)
