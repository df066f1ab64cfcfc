"""Rule 8 of Qwen-VL A.1: irregular patterns, each with an example of what it cleans and of what it leaves alone.

The paper names no pattern; these are the kinds that real web captions show. They run in the order of the table.
"""

import re
import string
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from cleaners.text.arrays import each, rows_with_run
from cleaners.text.boilerplate import BOILERPLATE
from cleaners.text.removal import Groups, Pattern
from cleaners.text.unicode import BROKEN_UNICODE

# --- Addresses and names of files, people and numbers ---

_URL = r"(?:[\w\-.~:/?#@!$&*+,;=%]*[\w/#&=\-])?"
_AT = r"(?i:\b(?:(?:online )?(?:at|from)|on|via|visit|see|e-?mail:)\s)?"  # goes with the address
_TLD = r"(?:com|COM|net|org|info|biz)(?:\.[a-z]{2})?"
_COUNTRY = r"(?:de|fr|nl|ru|jp|cn|uk|eu|tv|io|pl|cz|ch|au)"
_EXT = r"(?i:jpe?g|jpe|png|gif|bmp|tiff?|webp|svg|psd|eps|heic|mp4|avi|mov)"
_CAMERA = r"(?i:IMG|IMGP|DSC[NF]?|PICT|CIMG|DCIM|MVI|SAM|GOPR|PXL|HPIM|SDC|DJI|KIMG|PANO)"
_LABEL = (
    r"listing ?id|product code|item (?:no\.?|number|code|id)|image (?:id|no\.?|number)|art\. ?nr\.?|"
    r"stock (?:no\.?|number|code)|sku|mls|isbn(?:-1[03])?|asin|ean|upc|code"
)
_LABELLED = rf"\b(?:{_LABEL})\s?[:#.]{{1,2}}\s?[a-z]{{0,4}}[\d\-]{{4}}"

_LETTER, _LETTERS = r"[A-Za-z_\x{80}-\x{10FFFF}]", r"[\w\x{80}-\x{10FFFF}]*"


# A long number counts or measures something, and is no code, where one of these stands at its side.
_NUMBER = re.compile(r"""(["'])\d{7,}\1|(?:(#\s?)|/(?=\d+$))?\b(?:\d+-)?(\d{6,})(?:-\d+)?(?!\w)""")
_COUNTED_BEFORE = re.compile(
    r"(?:[\w.,$€£¥+−×/=:\-]|\b(?:population|pop\.?|of|some|about|over|nearly|almost|than|only) )$"
)
_COUNTED_AFTER = re.compile(
    r"[%°×]|[.,]\d|\s?(?:[a-zµ]{1,2}[²³23]?\b|[人元年公平个万亿吨米名辆次户岁])|\s(?:people|persons|inhabitants|residents"
    r"|visitors|square|copies|votes|dollars|euros|pounds|acres|hectares|miles|years|tons|tonnes|barrels|pixels|men|women)"
)


def _is_code(number: re.Match) -> bool:
    text, start, end = number.string, number.start(), number.end()
    if number[1] or number[2] or number[0][0] == "/":
        return True
    if len(number[3]) < 7:  # such a code stands first: "322206 Skirt"
        return (
            start == 0
            and not number[3].endswith("000")
            and text[end : end + 1] == " "
            and text[end + 1 :][:1].isupper()
        )
    return not (_COUNTED_BEFORE.search(text[max(0, start - 12) : start]) or _COUNTED_AFTER.match(text[end : end + 16]))


def _without_codes(text: str) -> str:
    return _NUMBER.sub(lambda number: "" if _is_code(number) else number[0], text)


def _words(texts: pa.StringArray) -> pa.StringArray:
    bare = pc.replace_substring_regex(texts, r"-\d{4,}_(?:640|960|1280|1920)$", "")
    return pc.replace_substring_regex(bare, r"[-_]+", " ")


ADDRESSES = (
    Pattern(
        name="csv_quotes", find=r'(?s)^".*"".*"$', gate='""', needs='"',
        change=each(lambda text: text[1:-1].replace('""', '"')),
        cleans=('"22"" Frozen Bubble Balloon"', '22" Frozen Bubble Balloon'), keeps='"Frozen" Bubble Balloon 22"',
    ),
    Pattern(
        name="email", find=rf"{_AT}\b\w[\w.+\-]*@\w[\w\-]*(?:\.\w[\w\-]*)+", gate=r"[\w.+\-]@\w", needs="@",
        cleans=("Order from jane.doe@example.com today", "Order today"), keeps="Dinner @ the pier, 5.30 pm",
    ),
    Pattern(
        name="url", needs=".:",
        gate=rf"(?i:\b(?:https?|ftp)://|\bwww\.)|\w\.(?:{_TLD}|co\.[a-z]{{2}}|edu|gov|{_COUNTRY})\b",
        find=rf"""{_AT}(?:["'](?i:https?|ftp)://[^\s"']*["']|(?i:\b(?:https?|ftp)://|\bwww\.){_URL}"""
        rf"|\b[a-z0-9][a-z0-9\-]*(?:\.\w[\w\-]*)*\.{_TLD}\b(?:/{_URL})?|\b\w[\w\-]*(?:\.\w[\w\-]*)*\.{_TLD}/{_URL}"
        rf"|\b[a-z0-9][a-z0-9\-]+\.(?:co\.[a-z]{{2}}|edu|gov)\b(?:/{_URL})?"
        rf"|\b[a-z0-9\-]{{4,}}\.{_COUNTRY}\b(?:/{_URL})?)",
        cleans=("Get ready at http://example.org/a?b=1 at home", "Get ready at home"),
        keeps="Booking.com billboard above Dr. Who, vol. 2.5",
    ),
    Pattern(
        name="camera_file_name", needs="0123456789",
        gate=rf"(?:\b|_){_CAMERA}[_\-]?\d{{3}}|\b(?:IMG|DSC[NF]?) \d{{3}}|(?i:screen ?shot|whatsapp image)[ _]20\d\d",
        find=rf"(?:\b|_){_CAMERA}(?:_\d{{3}}|\d{{4}}|-\d{{6}})[\w\-]*(?:\.{_EXT}\b)?|\b(?:IMG|DSC[NF]?) \d{{3,}}\b"
        rf"|\b{_CAMERA}-?\d{{3}}[\w\-]*\.{_EXT}\b"
        r"|\b(?i:screen ?shot|whatsapp image)[ _]20\d\d-?\d\d-?\d\d(?:[ _\-]?(?:at )?[\d.:]+)?(?: [AP]M)?",
        cleans=("Our garden IMG_2034.jpg", "Our garden"), keeps="Imagine 2034: a SAM-450 and a DJI-900",
    ),
    Pattern(
        name="file_extension", find=rf"([\w)])\.{_EXT}\b", needs=".", replace=r"\1",
        cleans=("Scorching June 14 for Alabama.jpg", "Scorching June 14 for Alabama"), keeps="a drawing in .eps format",
    ),
    Pattern(
        name="slug", find=r"^[!-,.-~]+(?:-[!-,.-~]+){2,}$", needs="-", apart=True, change=_words,
        cleans=("mount-everest-89590_1280", "mount everest"), keeps="state-of-the-art kitchen",
    ),
    Pattern(
        name="percent_encoding", find=r"%20", needs="%", replace=" ",
        cleans=("red%20brick%20house", "red brick house"), keeps="20% off, 100%cotton",
    ),
    Pattern(
        name="mention", needs="@", replace=r"\1", gate=r"(?:^|[\s(])@[\w\p{Han}]",
        find=r"(^|[\s(])(?i:(?:twitter|instagram|facebook|tumblr|insta|ig): ?)?@[\w\p{Han}][\w.\p{Han}\-]*",
        cleans=("Getting ready @houseoftalent1", "Getting ready"), keeps="Dinner @ the pier",
    ),
    Pattern(
        name="hashtag_list", needs="#", gate=rf"(?:^|\s)#{_LETTER}",
        find=rf"(?:^|\s+)#{_LETTER}{_LETTERS}(?:\s+#{_LETTER}{_LETTERS})+\s*$",
        cleans=("Sunset over the bay #sunset #nofilter #love", "Sunset over the bay"), keeps="Sunset, 45 of 60",
    ),
    Pattern(
        name="hashtag", find=rf"(^|[\s(])#({_LETTER}{_LETTERS})#?", needs="#", replace=r"\1\2",
        cleans=("It's #MensHealthWeek again", "It's MensHealthWeek again"), keeps="Patient #18019 plays C# on #3",
    ),
    Pattern(
        name="catalogue_number", needs="0123456789-", gate=f"(?i:{_LABELLED})",
        find=rf"(?i:\s?[\[(]?{_LABELLED}[\w\-]*[\])]?)",
        cleans=("Gold wallpaper - Product code: 35333", "Gold wallpaper"), keeps="Morse code: 3 dots",
    ),
    Pattern(
        name="long_number", find=r"\d{7}|# ?\d{6}|^\d{6} [A-Z]", needs="0123456789", change=each(_without_codes),
        cleans=("Free server room - 13836925", "Free server room"), keeps="Home to 4067175 people at 51.5073219 N",
    ),
    Pattern(
        name="hash", needs="0123456789abcdefABCDEF_",
        gate=r"[0-9a-fA-F]{16}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-|_zps[0-9a-z]|^[0-9A-Za-z]*\d{6}[0-9A-Za-z]*$",
        find=r"^(?:[0-9A-Za-z]*\d{6}\d*[A-Za-z]+[0-9A-Za-z]*|[0-9A-Za-z]*[A-Za-z][0-9A-Za-z]*\d{6}\d*)$|(?i:\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b)|_zps[0-9a-z]{8,}\b",
        cleans=("Red barn 9f86d081884c7d659a2feaa0c55ad015", "Red barn"), keeps="effaced facade, decade 1980",
    ),
    Pattern(
        name="underscores", find=r"_+", needs="_", replace=" ",
        cleans=("2015_Chevrolet_Colorado", "2015 Chevrolet Colorado"), keeps="2015 Chevrolet Colorado",
    ),
)  # fmt: skip

# --- Repetition, and what the patterns above leave behind ---

_ONCE, _ONCE_WIDE = "!?,;:~*=#%|/\\^\"'&<>", "•·。！？，、；：～★☆●■◆○□◇♥♡"
_PAIRS = tuple((once + once, once) for once in _ONCE)
_PAIRS_WIDE = _PAIRS + tuple((once + once, once) for once in _ONCE_WIDE)
_LONG_RUN = re.compile(r"\.{4,}|-{3,}|\+{3,}|\${3,}|…{3,}|—{3,}")
_LONG_RUN_LEFT = {".": "...", "—": "——", "…": "……"}
_LONG = ("....", "---", "+++", "$$$", "………", "———")
_LETTER_RUN = re.compile(r"([^\W\d_])\1{4,}")
_TWICE = "|".join(rf"\x{{{ord(c):X}}}{{2}}" for c in _ONCE)
_TWICE_WIDE = "|".join(f"{c}{{2}}" for c in _ONCE_WIDE)
_SEPARATORS = r"\s\-–—|:;,/\\~=*•·"
_SPACES = r"\t\n\v\f\r\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"


def _collapse(text: str) -> str:
    # Ten times as fast as a regular expression with a back-reference; each turn halves what is left of a run.
    for twice, once in _PAIRS if text.isascii() else _PAIRS_WIDE:
        while twice in text:
            text = text.replace(twice, once)
    if any(run in text for run in _LONG):
        text = _LONG_RUN.sub(lambda run: _LONG_RUN_LEFT.get(run[0][0], run[0][0]), text)
    return text


def _shorten(text: str) -> str:
    return _LETTER_RUN.sub(r"\1\1", text)


def _single_spaces(texts: pa.StringArray) -> pa.StringArray:
    spaced = pc.replace_substring_regex(texts, rf"[ {_SPACES}][ {_SPACES}]+|[{_SPACES}]", " ")
    return pc.utf8_trim_whitespace(spaced)


LEFTOVERS = (
    Pattern(
        name="empty_brackets", replace=r"\1\2",
        find=r"""\(\s*[,;:|/\-#.]*\s*\)|\[\s*\]|\{\s*\}|（\s*）|【\s*】|(^|\s)(?:""|'')([\s,.;]|$)""",
        cleans=("Oak table () in red (# )", "Oak table in red"), keeps="f(x) [sic]",
    ),
    Pattern(
        name="repeated_punctuation", find=rf"{_TWICE}|\.{{4}}|-{{3}}|\+{{3}}|\${{3}}", change=each(_collapse),
        cleans=("WOW!!!! Sale..... ends soon", "WOW! Sale... ends soon"), keeps='Set O... by C++ -- he said "no!"',
    ),
    Pattern(
        name="repeated_symbols", find=rf"{_TWICE_WIDE}|…{{3}}|—{{3}}", beyond_ascii=True, change=each(_collapse),
        cleans=("very nice★★★★ ••• view………", "very nice★ • view……"), keeps="nice — very ★ view……",
    ),
    Pattern(
        name="repeated_letter", change=each(_shorten),
        find="|".join(f"{letter}{{5}}" for letter in string.ascii_letters),
        cleans=("sooooooo cute", "soo cute"), keeps="hmmm, size XXXL zzz",
    ),
    Pattern(
        name="repeated_character", find=r"[^\x00-\x7F]", beyond_ascii=True, change=each(_shorten),
        rows=lambda texts: rows_with_run(texts, 5),
        cleans=("哈哈哈哈哈哈 很好", "哈哈 很好"), keeps="哈哈哈 很好",
    ),
    Pattern(
        name="bracket_spaces", find=r"(^|\s)([(\[{])\s+|(\w)\s+([)\]}])", replace=r"\1\2\3\4",
        cleans=("Book 4 (   unabridged ) by John", "Book 4 (unabridged) by John"), keeps="sad :( day (one) [two]",
    ),
    Pattern(
        name="doubled_separators", find=r"(\s[\-–—|,:;])(?:\s[\-–—|,:;])+(\s|$)", replace=r"\1\2",
        cleans=("Mercedes NAV - - 56", "Mercedes NAV - 56"), keeps="Mercedes - NAV - 56",
    ),
    Pattern(
        name="torn_punctuation", replace=r"\1\2\4\3\5",
        find=r"([\w)\]\"'”’])\s*[,;:]?\s+([,;.])(\s|$)|,\s*([.,;])(\s|$)",
        cleans=("Write to , then rest , .", "Write to, then rest."), keeps="The Gap .NET, i.e. this; that",
    ),
    Pattern(
        name="joined_commas", find=r"([A-Za-z]),([A-Za-z])", replace=r"\1, \2", needs=",",
        cleans=("sunset,beach,sand", "sunset, beach, sand"), keeps="1,250 beds, sand",
    ),
    Pattern(
        name="separators", gate=rf"^[{_SEPARATORS}>»、，。]|[{_SEPARATORS}«、，：(（【\[{{]$",
        find=rf"^[{_SEPARATORS}>»、，。]+|[{_SEPARATORS}«、，：(（【\[{{]+$",
        cleans=(": Decorative wall clocks - (", "Decorative wall clocks"), keeps="Wall-clocks: a guide (short).",
    ),
    Pattern(
        name="white_space", find=rf"  |[{_SPACES}]|^ | $",
        change=_single_spaces,
        cleans=(" Stone\u00a0fruit  and\ncumin ", "Stone fruit and cumin"), keeps="Stone fruit and cumin",
    ),
)  # fmt: skip

GROUPS: Groups = (BROKEN_UNICODE, BOILERPLATE, ADDRESSES, LEFTOVERS)
PATTERNS: dict[str, Pattern] = {pattern.name: pattern for group in GROUPS for pattern in group}


@cache
def patterns_for(language: str, skip: frozenset[str] = frozenset()) -> Groups:
    """Return the patterns to clean out of captions of `language`, in order, without those named in `skip`."""
    return tuple(tuple(pattern for pattern in group if _is_on(pattern, language, skip)) for group in GROUPS)


def _is_on(pattern: Pattern, language: str, skip: frozenset[str]) -> bool:
    return pattern.name not in skip and (pattern.languages is None or language in pattern.languages)
