"""What a page's text is made of: cleaning, forbidden Unicode blocks, language by script, estimated tokens."""

import re

LATIN_EXTENDED = re.compile("[\u0100-\u024f]")  # the blocks Latin Extended-A and Latin Extended-B
# The paper names the Private Use Area; its two supplementary planes are added here.
PRIVATE_USE = re.compile("[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
UNDECODABLE = re.compile("\ufffd")

# Control characters, zero-width space, word joiner, byte order mark, direction marks: no reader sees them. Joiners
# (U+200C, U+200D) stay, since Arabic and Indic words are spelt with them.
_UNSEEN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SPACES = re.compile(r"\s+")

_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WIDE = re.compile(f"[{_HAN}\u3000-\u30ff\u31f0-\u31ff\uff00-\uffef\uac00-\ud7af]")
_SCRIPTS = (  # language of a page by the script of its letters; the first that holds a share of them wins
    ("ja", re.compile("[\u3041-\u30ff\u31f0-\u31ff]"), 0.1),
    ("ko", re.compile("[\u1100-\u11ff\uac00-\ud7af]"), 0.3),
    ("zh", re.compile(f"[{_HAN}]"), 0.3),
    ("ar", re.compile("[\u0600-\u06ff\ufb50-\ufdff\ufe70-\ufeff]"), 0.5),
    ("he", re.compile("[\u0590-\u05ff]"), 0.5),
    ("ru", re.compile("[\u0400-\u04ff]"), 0.5),
    ("el", re.compile("[\u0370-\u03ff]"), 0.5),
    ("hi", re.compile("[\u0900-\u097f]"), 0.5),
    ("th", re.compile("[\u0e00-\u0e7f]"), 0.5),
)
_ASCII = re.compile("[\0-\x7f]+")
_ENGLISH = frozenset(("the", "of", "and", "to", "in", "is", "that", "for", "with", "on", "are", "this", "was", "from"))
_LATIN_WORD = re.compile("[A-Za-z]+")
_MARK = re.compile("[!-@\\[-`{-~]")
_WORD = re.compile(r"[^\W\d_]+")


def clean_text(text: str) -> str:
    """Leave out characters no reader sees and turn every run of white space into one space."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return _SPACES.sub(" ", _UNSEEN.sub("", text)).strip()


def is_unseen(character: str) -> bool:
    """Whether no reader sees the character: controls, direction marks."""
    return bool(_UNSEEN.match(character))


def is_wide(character: str) -> bool:
    """Whether the character is written without spaces around it: Han, kana, Hangul, full-width forms."""
    return bool(_WIDE.match(character))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter is Hebrew, Arabic or of a related script."""
    letter = next(filter(str.isalpha, text), "")
    return "\u0590" <= letter <= "\u08ff" or "\ufb1d" <= letter <= "\ufefc"


def guess_language(text: str) -> str:
    """Return a two-letter code by script, "en" for Latin text with English function words, else "und"."""
    letters = sum(map(str.isalpha, text))
    if letters == 0:
        return "und"
    beyond = _ASCII.sub("", text)
    for language, script, share in _SCRIPTS if beyond else ():
        if len(script.findall(beyond)) >= share * letters:
            return language
    words = [word.lower() for word in _WORD.findall(text)]
    common = sum(word in _ENGLISH for word in words)
    return "en" if common >= 0.06 * max(len(words), 1) and common >= 1 else "und"


def estimate_tokens(text: str) -> float:
    """Estimate the tokens of a line's text, on the high side: a renderer knows no tokenizer.

    Latin words cost a token for every 3 letters, digits and punctuation one each, all else 1.3 for each character
    (Qwen's tokenizer needs 0.7 for Chinese and 1.2 for Arabic; a small byte-level one more).
    """
    words = _LATIN_WORD.findall(text)
    letters, marks = sum(map(len, words)), len(_MARK.findall(text))
    others = len(text) - letters - marks - text.count(" ")
    return sum((len(word) + 2) // 3 for word in words) + marks + 1.3 * others
