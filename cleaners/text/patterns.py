"""Rule 8 of Qwen-VL A.1: irregular patterns, each with an example of what it cleans and of what it leaves alone.

The paper names no pattern; these are the kinds that real web captions show. They run in the order of the table.
"""

import re
import string
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from cleaners.text.arrays import each, rows_with_run
from cleaners.text.removal import Groups, Pattern
from cleaners.text.unicode import BROKEN_UNICODE

# --- Words that say where a picture was offered, not what it shows ---

_KIND = (
    r"photos?|photography|photographs?|images?|pictures?|pics?|illustrations?|vectors?|vector art|clip ?art|footage|"
    r"videos?|graphics?|art|fotos?|fotografie|vektor\w*"
)
_SITES = (
    r"shutterstock|istock ?(?:photo)?|getty images|alamy|depositphotos|dreamstime|123rf|adobe ?stock|fotolia|bigstock|"
    r"vectorstock|can ?stock(?: ?photo)?|freepik|pixabay|unsplash|pinterest|etsy|ebay|amazon|google search|flickr|imdb"
)
_HERE = r"\b(?:click|tap)(?: here| on (?:the )?(?:image|photo|picture))? (?:to|for) "
_LARGER = r"\b(?:larger|full[ \-]size|bigger) (?:image|photo|picture|version)\b"
_CREDIT = r"\((?:photo|image|picture|credit|source|foto|AP|Reuters|AFP|EPA|Getty)"

BOILERPLATE = (
    Pattern(
        name="stock_caption", gate=r"(?i:, ?Artist:|vector image vector)",
        find=r"(?i:(?:\s?- Royalty[- ]Free)?, ?Artist: ?[^,]+,\s?Code: ?[\d\-]+|\bvector image vector image\b)",
        cleans=("Boys at the lake - Royalty-Free, Artist: U. U., Code: 600-06382904", "Boys at the lake"),
        keeps="An artist: the code of art",
    ),
    Pattern(
        name="stock_offer",
        gate=rf"(?i:royalty[- ]?free|\bstock[ \-]?(?:{_KIND})|vetorial stock|foto de stock"
        r"|libres? de droits|lizenzfrei)",
        find=rf"(?i:\b(?:premium |free )?royalty[- ]?free(?: (?:stock|{_KIND}))*\b"
        rf"|\b(?:free )?stock[ \-]?(?:{_KIND})\b(?: of\b)?"
        r"|\bvetorial stock\b|\bfoto de stock\b|\bphotos? libres? de droits\b|\blizenzfreie[ns]? \w+)",
        cleans=("Arrow on target Royalty Free Stock Photos", "Arrow on target"),
        keeps="Livestock photographed in stock pens",
    ),
    Pattern(
        name="click_here", gate=rf"(?i:{_HERE}|\bto zoom\b|\benlarge (?:image|photo|picture)|{_LARGER})",
        find=rf"(?i:{_HERE}(?:an? )?(?:enlarge|zoom|view|see|expand|larger|full|download)"
        r"(?: (?:view|size|image|picture|photo|version|larger|full|details?|it|in))*\b"
        r"|\b(?:hover|roll ?over)(?: image)? to zoom(?: in)?\b|\benlarge (?:image|photo|picture)\b"
        rf"|\b(?:view|see|show) {_LARGER})",
        cleans=("Oak table (click to enlarge)", "Oak table"), keeps="The shutter makes a click for her",
    ),
    Pattern(
        name="site_suffix", find=rf"(?i:\s[\-|–—·]\s?(?:{_SITES})(?:\.com)?\s*$)",
        cleans=("lonely quotes - Google Search", "lonely quotes"), keeps="Amazon river - dolphins",
    ),
    Pattern(
        name="photo_credit", needs="(", gate=f"(?i:{_CREDIT})",
        find=rf"(?i:{_CREDIT}s?(?: ?credit| by| courtesy(?: of)?| images| photo)?\s?[:/][^()]*\))",
        cleans=("Storm in Cuba. (AP Photo/ Franklin Reyes)", "Storm in Cuba."), keeps="Storm in Cuba (photo of 1950)",
    ),
    Pattern(
        name="shop_talk",
        find=r"(?i:\bfree (?:shipping|delivery)\b|\b(?:image|photo|picture) \d+ of \d+\b|\bthumbnail(?: \d+)?\s*$)",
        cleans=("Fox fur coats free shipping", "Fox fur coats"), keeps="an image of 3 ships in a free harbour",
    ),
    Pattern(
        name="zh_boilerplate", beyond_ascii=True, languages=frozenset({"zh"}),
        find="图库摄影|库存(?:照片|图片|例证|插画|矢量图)|免版税(?:库存)?(?:图片|照片)?|版权(?:商用)?图片"
        "|点击(?:图片)?(?:查看)?(?:大图|原图|放大)|查看(?:大图|原图)|(?:高清)?(?:图片|素材|大图)(?:免费)?下载"
        "|内容一致[,，]印次、封面或原价不同[,，]统一售价[,，]随机发货",
        cleans=("木背景的一个桔子 图库摄影", "木背景的一个桔子"), keeps="图书馆里的一个男孩",
    ),
)  # fmt: skip

# --- Addresses and names of files, people and numbers ---

_URL = r"(?:[\w\-.~:/?#@!$&*+,;=%]*[\w/#&=\-])?"
_AT = r"(?i:\b(?:at|on|from|via|visit|see)\s)?"  # goes with the address
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


def _words(texts: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(texts, r"[-_]+", " ")


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
        find=rf"{_AT}(?:(?i:\b(?:https?|ftp)://|\bwww\.){_URL}"
        rf"|\b\w[\w\-]*(?:\.\w[\w\-]*)*\.{_TLD}\b(?:/{_URL})?"
        rf"|\b[a-z0-9][a-z0-9\-]+\.(?:co\.[a-z]{{2}}|edu|gov)\b(?:/{_URL})?"
        rf"|\b[a-z0-9\-]{{4,}}\.{_COUNTRY}\b(?:/{_URL})?)",
        cleans=("Get ready at http://example.org/a?b=1 at home", "Get ready at home"),
        keeps="Dr. Who vs. the U.S.S.R., vol. 2.5",
    ),
    Pattern(
        name="camera_file_name", needs="0123456789",
        gate=rf"(?:\b|_){_CAMERA}[_\-]?\d{{3}}|\b(?:IMG|DSC[NF]?) \d{{3}}|(?i:screen ?shot|whatsapp image)[ _]20\d\d",
        find=rf"(?:\b|_){_CAMERA}[_\-]?\d{{3}}[\w\-]*(?:\.{_EXT}\b)?|\b(?:IMG|DSC[NF]?) \d{{3,}}\b"
        r"|\b(?i:screen ?shot|whatsapp image)[ _]20\d\d-?\d\d-?\d\d(?:[ _\-]?(?:at )?[\d.:]+)?(?: [AP]M)?",
        cleans=("Our garden IMG_2034.jpg", "Our garden"), keeps="Imagine 2034 in San Jose",
    ),
    Pattern(
        name="file_extension", find=rf"([\w)])\.{_EXT}\b", needs=".", replace=r"\1",
        cleans=("Scorching June 14 for Alabama.jpg", "Scorching June 14 for Alabama"), keeps="a drawing in .eps format",
    ),
    Pattern(
        name="slug", find=r"^[!-,.-~]+(?:-[!-,.-~]+){2,}$", needs="-", apart=True, change=_words,
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
        name="long_number", find=r"#?\b(?:\d+-)?\d{7,}(?:-\d+)?\b", gate=r"\d{7}", needs="0123456789",
        cleans=("Free server room - 13836925", "Free server room"), keeps="Sold for $1,250,000 on 2014-06-20",
    ),
    Pattern(
        name="hash", needs="0123456789abcdefABCDEF_",
        gate=r"[0-9a-fA-F]{16}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-|_zps[0-9a-z]",
        find=r"(?i:\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b)|_zps[0-9a-z]{8,}\b",
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
        name="empty_brackets", find=r"\(\s*[,;:|/\-]*\s*\)|\[\s*\]|\{\s*\}|（\s*）|【\s*】",
        cleans=("Oak table () in red", "Oak table in red"), keeps="f(x) [sic]",
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
        name="separators", gate=rf"^[{_SEPARATORS}>»、，。]|[{_SEPARATORS}«、，(（【\[{{]$",
        find=rf"^[{_SEPARATORS}>»、，。]+|[{_SEPARATORS}«、，(（【\[{{]+$",
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
