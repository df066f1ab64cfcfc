"""Rule 8 of Qwen-VL A.1: irregular patterns, each named, with an example of what it cleans and of what it must not touch.

The paper names no pattern; these are the kinds that real web captions show. They run in the order of the table. One
RE2 pattern made of all the `find`s decides which captions hold anything irregular at all; only those are looked at
pattern by pattern, so a caption costs one scan. Python sees the few rows in which a pattern needs it.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import BADNESS_RE

from cleaners.emoji_text import PICTURES, TEXT_FIRST, _class
from cleaners.text_arrays import each, map_rows, rows_matching, rows_not_ascii, rows_with_bytes, rows_with_run


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One kind of dirt. Captions in which `find` (RE2) matches are changed: every match by `replace`, or by `change`.

    `needs`: ASCII characters of which every match holds at least one; `beyond_ascii`: every match holds a character
    beyond ASCII; `rows`: finds the captions where RE2 cannot. All three only save time.
    """

    name: str
    find: str
    cleans: tuple[str, str]  # a caption that shows the dirt -> what is left
    keeps: str  # a caption that looks alike and stays
    replace: str = ""
    change: Callable[[pa.StringArray], pa.StringArray] | None = None
    needs: str = ""
    beyond_ascii: bool = False
    rows: Callable[[pa.StringArray], np.ndarray] | None = None
    languages: frozenset[str] | None = None  # None: all


def clean_patterns(texts: pa.StringArray, language: str, skip: frozenset[str] = frozenset()) -> pa.StringArray:
    """Clean every irregular pattern but those named in `skip` out of captions of `language`, in one pass."""
    active = [pattern for pattern in PATTERNS.values() if _is_on(pattern, language, skip)]
    rows = _suspicious(texts, tuple(active))
    return map_rows(texts, rows, lambda few: _clean_all(few, active))


def _is_on(pattern: Pattern, language: str, skip: frozenset[str]) -> bool:
    return pattern.name not in skip and (pattern.languages is None or language in pattern.languages)


def _suspicious(texts: pa.StringArray, active: tuple[Pattern, ...]) -> np.ndarray:
    """Return the rows in which at least one pattern finds something; every other row comes out as it went in."""
    found = [rows_matching(texts, _union(active, beyond_ascii=False))]
    wide = rows_not_ascii(texts)
    if len(wide) and any(pattern.beyond_ascii for pattern in active):
        found.append(wide[rows_matching(texts.take(pa.array(wide)), _union(active, beyond_ascii=True))])
    found += [pattern.rows(texts) for pattern in active if pattern.rows]
    return np.unique(np.concatenate(found))


@cache
def _union(active: tuple[Pattern, ...], beyond_ascii: bool) -> str:
    finds = [p.find for p in active if p.beyond_ascii == beyond_ascii and not p.rows]
    return "|".join(f"(?:{find})" for find in finds) or r"\A\z\b"


def _clean_all(texts: pa.StringArray, active: list[Pattern]) -> pa.StringArray:
    for pattern in active:
        texts = map_rows(texts, _rows(texts, pattern), pattern.change or _replace(pattern))
    return texts


def _rows(texts: pa.StringArray, pattern: Pattern) -> np.ndarray:
    """Return the rows in which `pattern` matches, asking the cheapest question first."""
    if pattern.rows:
        return pattern.rows(texts)
    if not pattern.beyond_ascii and not pattern.needs:
        return rows_matching(texts, pattern.find)
    rows = rows_not_ascii(texts) if pattern.beyond_ascii else rows_with_bytes(texts, pattern.needs)
    return rows[rows_matching(texts.take(pa.array(rows)), pattern.find)] if len(rows) else rows


def _replace(pattern: Pattern) -> Callable[[pa.StringArray], pa.StringArray]:
    return lambda texts: pc.replace_substring_regex(texts, pattern.find, pattern.replace)


# --- Broken Unicode ---


def _badness() -> str:
    """Return ftfy's own test for mojibake as RE2, a little wider: `fix_encoding` leaves alone what it does not match."""
    source = re.sub(r"(?m)(?<!\\)#.*$", "", BADNESS_RE.pattern)
    parts, inside = [], False
    for token in re.findall(r"\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|.", source, re.S):
        inside = (inside or token == "[") and token != "]"
        if inside or not token.isspace():
            parts.append(_re2_token(token, inside))
    return "".join(parts)


def _re2_token(token: str, inside: bool) -> str:
    """RE2's `\\s` and `\\w` know ASCII alone, and an escaped space is a plain one."""
    wider = {r"\s": r"\s\x{85}\x{A0}\p{Z}", r"\w": r"\p{L}\p{M}\p{N}_", r"\ ": r"\x20"}.get(token, token)
    return wider if inside or wider == token or token == r"\ " else f"[{wider}]"


# Only these can make text differ from its NFC form: marks, conjoining jamo, and letters with canonical equivalents.
NOT_NFC = (
    r"[\p{M}\x{1160}-\x{11FF}\x{374}\x{37E}\x{387}\x{958}-\x{95F}\x{9DC}-\x{9DF}\x{A33}-\x{A5E}\x{B5C}\x{B5D}"
    r"\x{F43}-\x{FB9}\x{1F71}-\x{1FFD}\x{2000}\x{2001}\x{2126}\x{212A}\x{212B}\x{2329}\x{232A}\x{2ADC}"
    r"\x{F900}-\x{FAFF}\x{FB1D}-\x{FB4E}\x{1D15E}-\x{1D1C0}\x{2F800}-\x{2FA1F}]"
)
STYLED = r"[\x{FB00}-\x{FB06}\x{FF10}-\x{FF19}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{1D400}-\x{1D7FF}\x{24B6}-\x{24E9}]"
_STYLED = re.compile("[\ufb00-\ufb06\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\u24b6-\u24e9]")
_NOT_EMOJI = "[^" + _class(PICTURES | TEXT_FIRST)[1:-1] + r"0-9#*\x{FE0F}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}]"


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
        cleans=("\U0001d407\U0001d41e\U0001d425\U0001d425\U0001d428 ﬂowers ＸＬ", "Hello flowers XL"), keeps="10 m² of lawn ½ price",
    ),
    Pattern(
        name="full_width_punctuation", find=r"[\x{FF01}-\x{FF5E}]", beyond_ascii=True, languages=frozenset({"en"}),
        change=each(lambda text: re.sub("[\uff01-\uff5e]", lambda m: chr(ord(m[0]) - 0xFEE0), text)),
        cleans=("Red shoes（ size 7 ）！", "Red shoes( size 7 )!"), keeps="Red shoes (size 7)!",
    ),
)  # fmt: skip

# --- Addresses and names of files, people and numbers ---

_URL = r"[\w\-.~:/?#@!$&*+,;=%]*[\w/#&=\-]"
_EXT = r"(?i:jpe?g|jpe|png|gif|bmp|tiff?|webp|svg|psd|eps|heic|mp4|avi|mov)"
_CAMERA = r"(?:IMG|IMGP|DSC[NF]?|PICT|CIMG|DCIM|MVI|SAM|GOPR|PXL|HPIM|SDC|DJI|KIMG|PANO)"
_LABEL = r"listing ?id|product code|item (?:no\.?|number|code|id)|image (?:id|no\.?|number)|art\. ?nr\.?|stock (?:no\.?|number|code)|sku|mls|isbn(?:-1[03])?|asin|ean|upc|code"


def _words(texts: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(texts, r"[-_]+", " ")


def _unquote(text: str) -> str:
    return text[1:-1].replace('""', '"')


ADDRESSES = (
    Pattern(
        name="csv_quotes", find=r'(?s)^".*"".*"$', needs='"', change=each(_unquote),
        cleans=('"22"" Frozen Bubble Balloon"', '22" Frozen Bubble Balloon'), keeps='"Frozen" Bubble Balloon 22"',
    ),
    Pattern(
        name="email", find=r"\b[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63})+", needs="@", replace="",
        cleans=("Order from jane.doe@example.com today", "Order from today"), keeps="Dinner @ the pier, 5.30 pm",
    ),
    Pattern(
        name="url", needs=".:", replace="",
        find=rf"(?i:\b(?:https?|ftp)://(?:{_URL})?|\bwww\.{_URL})"
        rf"|\b[a-zA-Z0-9][a-zA-Z0-9\-]*(?:\.[a-zA-Z0-9\-]+)*\.(?:com|net|org|info|biz|COM)(?:\.[a-z]{{2}})?\b(?:/(?:{_URL})?)?"
        rf"|\b[a-z0-9][a-z0-9\-]+\.(?:co\.[a-z]{{2}}|edu|gov)\b(?:/(?:{_URL})?)?"
        rf"|\b[a-z0-9\-]{{4,}}\.(?:de|fr|nl|ru|jp|cn|uk|eu|tv|io|pl|cz|ch|au)\b(?:/(?:{_URL})?)?",
        cleans=("Getting ready http://example.org/a_(b)?c=1 at home", "Getting ready (b)?c=1 at home"),
        keeps="Dr. Who vs. the U.S.S.R., vol. 2.5",
    ),
    Pattern(
        name="camera_file_name", needs="0123456789", replace="",
        find=rf"(?:\b|_)(?i:{_CAMERA})[_-]?\d{{3,}}[\w\-]*(?:\.{_EXT}\b)?|\b(?:IMG|DSC[NF]?) \d{{3,}}\b"
        r"|(?i:\b(?:screen ?shot|whatsapp image)[ _]20\d\d-?\d\d-?\d\d(?:[ _-]?(?:at )?[\d.:]+)?(?: [AP]M)?)",
        cleans=("Our garden IMG_2034.jpg", "Our garden"), keeps="Imagine 2034 in San Jose",
    ),
    Pattern(
        name="file_extension", find=rf"([\w)])\.{_EXT}\b", needs=".", replace=r"\1",
        cleans=("Scorching June 14 for Alabama.jpg", "Scorching June 14 for Alabama"), keeps="a drawing in .eps format",
    ),
    Pattern(
        name="slug", find=r"^[^\s\-]+(?:-[^\s\-]+){2,}$", needs="-", change=_words,
        cleans=("mount-everest-89590_1280", "mount everest 89590 1280"), keeps="state-of-the-art kitchen",
    ),
    Pattern(
        name="percent_encoding", find=r"%20", needs="%", replace=" ",
        cleans=("red%20brick%20house", "red brick house"), keeps="20% off, 100%cotton",
    ),
    Pattern(
        name="mention", find=r"(^|[\s(])@[\w\p{Han}][\w.\p{Han}\-]*", needs="@", replace=r"\1",
        cleans=("Getting ready @houseoftalent1", "Getting ready"), keeps="Dinner @ the pier",
    ),
    Pattern(
        name="hashtag_list", find=r"(?:(?:^|\s+)#[\p{L}_][\w\p{L}]*){2,}\s*$", needs="#", replace="",
        cleans=("Sunset over the bay #sunset #nofilter #love", "Sunset over the bay"), keeps="Sunset, 45 of 60",
    ),
    Pattern(
        name="hashtag", find=r"(^|[\s(])#([\p{L}_][\w\p{L}]*)#?", needs="#", replace=r"\1\2",
        cleans=("It's #MensHealthWeek again", "It's MensHealthWeek again"), keeps="Patient #18019 plays C# on #3",
    ),
    Pattern(
        name="catalogue_number", needs="0123456789", replace="",
        find=rf"(?i:\s?[\[(]?\b(?:{_LABEL})\s?[:#.]{{1,2}}\s?[a-z]{{0,4}}[\d\-]{{4,}}[\w\-]*\b[\])]?)",
        cleans=("Gold wallpaper - Product code: 35333", "Gold wallpaper -"), keeps="Morse code: 3 dots",
    ),
    Pattern(
        name="long_number", find=r"#?\b(?:\d+-)?\d{7,}(?:-\d+)?\b", needs="0123456789", replace="",
        cleans=("Free server room - 13836925", "Free server room -"), keeps="Sold for $1,250,000 on 2014-06-20",
    ),
    Pattern(
        name="hash", needs="0123456789", replace="",
        find=r"(?i:\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b|_zps[0-9a-z]{8}\b)",
        cleans=("Red barn 9f86d081884c7d659a2feaa0c55ad015", "Red barn"), keeps="effaced facade, decade 1980",
    ),
    Pattern(
        name="underscores", find=r"_+", needs="_", replace=" ",
        cleans=("2015_Chevrolet_Colorado", "2015 Chevrolet Colorado"), keeps="2015 Chevrolet Colorado",
    ),
)  # fmt: skip

# --- Words that say where a picture was offered, not what it shows ---

_KIND = r"photos?|photography|photographs?|images?|pictures?|pics?|illustrations?|vectors?|vector art|clip ?art|footage|videos?|graphics?|art|fotos?|fotografie|vektor\w*"
_SITES = (
    r"shutterstock|istock ?(?:photo)?|getty images|alamy|depositphotos|dreamstime|123rf|adobe ?stock|fotolia|bigstock|"
    r"vectorstock|can ?stock(?: ?photo)?|freepik|pixabay|unsplash|pinterest|etsy|ebay|amazon|google search|flickr|imdb"
)
BOILERPLATE = (
    Pattern(
        name="stock_offer", replace="",
        find=rf"(?i:\b(?:premium |free )?royalty[- ]?free(?: (?:stock|{_KIND}))*\b"
        rf"|\b(?:free )?stock[ -]?(?:{_KIND})\b(?: of\b)?|\bvetorial stock\b|\bfoto de stock\b|\bphotos? libres? de droits\b"
        r"|\blizenzfreies? \w+|\bimágenes de stock\b)",
        cleans=("Arrow on target Royalty Free Stock Photos", "Arrow on target"), keeps="Livestock photographed in stock pens",
    ),
    Pattern(
        name="stock_caption", find=r"(?i:, ?Artist: [^,]{1,60}, ?Code: ?[\d\-]+|\bvector image vector image\b)", replace="",
        cleans=("Boys in Mannheim, Artist: Uwe U., Code: 600-06382904", "Boys in Mannheim"), keeps="An artist: the code of art",
    ),
    Pattern(
        name="click_here", replace="",
        find=r"(?i:\b(?:click|tap)(?: here| on (?:the )?(?:image|photo|picture))? (?:to|for) (?:an? )?(?:enlarge|zoom|view|see|expand|larger|full|download)"
        r"(?: (?:view|size|image|picture|photo|version|larger|full|details?|it|in))*\b|\b(?:hover|roll ?over)(?: image)? to zoom(?: in)?\b"
        r"|\benlarge (?:image|photo|picture)\b|\b(?:view|see|show) (?:larger|full[ -]size|bigger) (?:image|photo|picture|version)\b)",
        cleans=("Oak table (click to enlarge)", "Oak table ()"), keeps="The shutter makes a click",
    ),
    Pattern(
        name="site_suffix", find=rf"(?i:\s[-|–—·]\s?(?:{_SITES})(?:\.com)?\s*$)", replace="",
        cleans=("lonely quotes - Google Search", "lonely quotes"), keeps="Amazon river - dolphins",
    ),
    Pattern(
        name="photo_credit", needs="(", replace="",
        find=r"(?i:\((?:photo|image|picture|credit|source|foto)s?(?: ?credit| by| courtesy(?: of)?)?\s?[:/][^()]{0,80}\)|\((?:AP|Reuters|AFP|EPA|Getty)(?: Images| Photo)?\s?/[^()]{0,80}\))",
        cleans=("Storm in Cuba. (AP Photo/ Franklin Reyes)", "Storm in Cuba."), keeps="Storm (photo of 1950)",
    ),
    Pattern(
        name="shop_talk", find=r"(?i:\bfree (?:shipping|delivery)\b|\b(?:image|photo|picture) \d+ of \d+\b|\bthumbnail(?: \d+)?\s*$)", replace="",
        cleans=("Fox fur coats free shipping", "Fox fur coats"), keeps="a free delivery-boy's image of 3 ships",
    ),
    Pattern(
        name="zh_boilerplate", beyond_ascii=True, replace="",
        find="图库摄影|库存(?:照片|图片|例证|插画|矢量图)|免版税(?:库存)?(?:图片|照片)?|版权(?:商用)?图片|点击(?:图片)?(?:查看)?(?:大图|原图|放大)|查看(?:大图|原图)"
        "|(?:高清)?(?:图片|素材|大图)(?:免费)?下载|内容一致[,，]印次、封面或原价不同[,，]统一售价[,，]随机发货",
        cleans=("木背景的一个桔子 图库摄影", "木背景的一个桔子"), keeps="图书馆里的一个男孩",
    ),
)  # fmt: skip

# --- Repetition, and what the patterns above leave behind ---

_RUN = re.compile(r"([!?,;:~*=#%|/\\^\"'&<>•·。！？，、；：～★☆●■◆○□◇♥♡])\1+")
_MORE_RUNS = re.compile(r"\.{4,}|-{3,}|\+{3,}|\${3,}|…{2,}|—{3,}")
_KEEP_RUN = {".": "...", "…": "…", "—": "——"}
_LETTER_RUN = re.compile(r"([^\W\d_])\1{4,}")
_ONCE = "!?,;:~*=#%|/\\\\^\"'&<>"
_ONCE_WIDE = "•·。！？，、；：～★☆●■◆○□◇♥♡"
_PUNCTUATION_RUN = "|".join(f"[{c}]{{2,}}" if c not in "\\^" else rf"\{c}{{2,}}" for c in dict.fromkeys(_ONCE))
_SEPARATORS = r"\s\-–—|:;,/\\~=*•·"


def _collapse(text: str) -> str:
    text = _RUN.sub(r"\1", text)
    return _MORE_RUNS.sub(lambda match: _KEEP_RUN.get(match[0][0], match[0][0]), text)


REPETITION = (
    Pattern(
        name="repeated_punctuation", find=rf"{_PUNCTUATION_RUN}|\.{{4,}}|-{{3,}}|\+{{3,}}|\${{3,}}", change=each(_collapse),
        cleans=("WOW!!!! Sale..... ends soon", "WOW! Sale... ends soon"), keeps="Set O... by C++ -- he said \"no!\"",
    ),
    Pattern(
        name="repeated_symbols", beyond_ascii=True, change=each(_collapse),
        find="|".join(f"{c}{{2,}}" for c in _ONCE_WIDE) + "|…{2,}|—{3,}",
        cleans=("好看！！！★★★★", "好看！★"), keeps="好看！——真的",
    ),
    Pattern(
        name="repeated_character", find="", rows=lambda texts: rows_with_run(texts, 5),
        change=each(lambda text: _LETTER_RUN.sub(r"\1\1", text)),
        cleans=("sooooooo cute 哈哈哈哈哈哈", "soo cute 哈哈"), keeps="1000000 hmmm XXXL",
    ),
    Pattern(
        name="empty_brackets", find=r"\(\s*[,;:|/\-]*\s*\)|\[\s*\]|\{\s*\}|（\s*）|【\s*】", replace="",
        cleans=("Oak table ()", "Oak table"), keeps="f(x) [sic]",
    ),
    Pattern(
        name="separators", replace="",
        find=rf"^[{_SEPARATORS}>»、，。]+|[{_SEPARATORS}«、，]+$",
        cleans=(": Decorative wall clocks -", "Decorative wall clocks"), keeps="Wall-clocks: a guide.",
    ),
    Pattern(
        name="white_space", find=r"\s\s|[\t\n\v\f\r\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]|^ | $",
        change=lambda texts: pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[\s\v\x{85}\p{Z}]+", " ")),
        cleans=(" Stone\u00a0fruit  and\ncumin ", "Stone fruit and cumin"), keeps="Stone fruit and cumin",
    ),
)  # fmt: skip

PATTERNS: dict[str, Pattern] = {p.name: p for p in BROKEN_UNICODE + ADDRESSES + BOILERPLATE + REPETITION}
