"""Captions whose characters went wrong: decoded with the wrong table, in pieces, invisible, or styled.

These patterns run before all others, because they change what the others see.
"""

import re
import unicodedata

import ftfy
import pyarrow.compute as pc
from ftfy.badness import BADNESS_RE

from cleaners.text.arrays import each
from cleaners.text.emoji import PICTURES, TEXT_FIRST, character_class
from cleaners.text.removal import Pattern


def _badness() -> str:
    """Return ftfy's own test for mojibake as RE2, a little wider; `fix_encoding` changes nothing that fails it."""
    source = re.sub(r"(?m)(?<!\\)#.*$", "", BADNESS_RE.pattern)
    parts, inside = [], False
    for token in re.findall(r"\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|.", source, re.DOTALL):
        inside = (inside or token == "[") and token != "]"
        if inside or not token.isspace():
            parts.append(_re2_token(token, inside))
    return "".join(parts)


def _re2_token(token: str, inside: bool) -> str:
    """RE2's `\\s` and `\\w` know ASCII alone, and an escaped space is a plain one."""
    wider = {r"\s": r"\s\x{85}\x{A0}\p{Z}", r"\w": r"\w\x{80}-\x{10FFFF}", r"\ ": r"\x20"}.get(token, token)
    return wider if inside or token in (wider, r"\ ") else f"[{wider}]"


# Only these can make text differ from its NFC form: marks, conjoining jamo, and letters with canonical equivalents.
NOT_NFC = (
    r"[\p{M}\x{1160}-\x{11FF}\x{374}\x{37E}\x{387}\x{958}-\x{95F}\x{9DC}-\x{9DF}\x{A33}-\x{A5E}\x{B5C}\x{B5D}"
    r"\x{F43}-\x{FB9}\x{1F71}-\x{1FFD}\x{2000}\x{2001}\x{2126}\x{212A}\x{212B}\x{2329}\x{232A}\x{2ADC}"
    r"\x{F900}-\x{FAFF}\x{FB1D}-\x{FB4E}\x{1D15E}-\x{1D1C0}\x{2F800}-\x{2FA1F}]"
)
STYLED = r"[\x{FB00}-\x{FB06}\x{FF10}-\x{FF19}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{1D400}-\x{1D7FF}\x{24B6}-\x{24E9}]"
_STYLED = re.compile("[\ufb00-\ufb06\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\u24b6-\u24e9]")
_NOT_EMOJI = "[^" + character_class(PICTURES | TEXT_FIRST) + r"0-9#*\x{FE0F}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}]"


def _plain(text: str) -> str:
    return _STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)


BROKEN_UNICODE = (
    Pattern(
        name="mojibake", find=_badness(), beyond_ascii=True, change=each(ftfy.fix_encoding),
        cleans=("the cafÃ© on the corner", "the café on the corner"), keeps="Tête à tête in São Paulo",
    ),
    Pattern(
        name="control_characters", find=r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f]", replace="",
        cleans=("a red\x07 barn\x00", "a red barn"), keeps="a red barn",
    ),
    Pattern(
        name="invisible_characters", beyond_ascii=True,
        find=r"[\x{80}-\x{84}\x{86}-\x{9F}\x{AD}\x{200B}\x{200C}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{206F}"
        r"\x{FEFF}\x{FFF9}-\x{FFFC}\x{FE00}-\x{FE0E}\x{E0100}-\x{E01EF}]",
        cleans=("\u200bBappi Lahiri re\u00adcords", "Bappi Lahiri records"), keeps="Bappi Lahiri re-cords",
    ),
    Pattern(
        name="stray_joiners", beyond_ascii=True,
        find=rf"(^|{_NOT_EMOJI})[\x{{200D}}\x{{FE0F}}]+", replace=r"\1",
        cleans=("Hard\u200d Rock©\ufe0f cap", "Hard Rock© cap"), keeps="a 👩\u200d🍳 at work",
    ),
    Pattern(
        name="unicode_form", find=NOT_NFC, beyond_ascii=True, change=lambda texts: pc.utf8_normalize(texts, "NFC"),
        cleans=("cafe\u0301 noir", "café noir"), keeps="café noir",
    ),
    Pattern(
        name="styled_letters", find=STYLED, beyond_ascii=True, change=each(_plain),
        cleans=("\U0001d407\U0001d41e\U0001d425\U0001d425\U0001d428 ﬂowers ＸＬ", "Hello flowers XL"),
        keeps="10 m² of lawn ½ price",
    ),
    Pattern(
        name="full_width_punctuation", find=r"[\x{FF01}-\x{FF5E}]", beyond_ascii=True, languages=frozenset({"en"}),
        change=each(lambda text: re.sub("[\uff01-\uff5e]", lambda m: chr(ord(m[0]) - 0xFEE0), text)),
        cleans=("Red shoes （size 7）！", "Red shoes (size 7)!"), keeps="Blue shoes (size 7)!",
    ),
)  # fmt: skip
