"""Rule 7 of Qwen-VL A.1: captions without HTML markup.

Only real markup goes: a `<` opens a tag when a known element's name follows it at once, so `a < b > c`, `<3` and
`<PERSON>` are text. Everything is RE2, linear in the caption's length whatever it holds; the tests hold the result
against a real HTML parser. Markup hidden in markup (`&lt;b&gt;`) comes off layer by layer: `rules.clean` repeats the
cleaners until a caption no longer changes.
"""

import html
import re
from functools import lru_cache
from html.entities import html5

import pyarrow as pa
import pyarrow.compute as pc

from cleaners.text.arrays import each
from cleaners.text.removal import Pattern

# Elements that stand inside a word or line leave nothing behind ("<b>B</b>ig" is "Big"), all others a space.
INLINE = (
    "a|abbr|acronym|b|bdi|bdo|big|blink|cite|code|data|del|dfn|em|font|i|ins|kbd|label|mark|nobr|q|rp|rt|ruby|s|samp|"
    "small|span|strike|strong|sub|sup|time|tt|u|var|wbr"
)
BLOCK = (
    "address|applet|area|article|aside|audio|base|basefont|blockquote|body|br|button|canvas|caption|center|col|"
    "colgroup|datalist|dd|details|dialog|dir|div|dl|dt|embed|fieldset|figcaption|figure|footer|form|frame|frameset|"
    "h[1-6]|head|header|hr|html|iframe|img|input|legend|li|link|main|map|marquee|menu|meta|nav|noframes|noscript|"
    "object|ol|optgroup|option|output|p|param|picture|pre|progress|section|select|source|summary|svg|table|tbody|td|"
    "template|textarea|tfoot|th|thead|title|tr|track|ul|video"
)


_FLAGS = "nowrap|noshade|disabled|selected|checked|hidden|async|defer|controls|autoplay|loop|muted|compact"


def _tag(names: str) -> str:
    """RE2 for an opening or closing tag. Quoted attributes may hold `>`; words alone are no attributes, so that
    `if a<b then c>d` is text; a caption that was cut inside a tag ends in one."""
    inside = r"""(?:[^<>"']|"[^"]*"|'[^']*')*"""
    attributes = rf"\s{inside}={inside}>|[\s/][^<>]*=[^<>]*>|\s[^<>]*=[^<>]*$"
    return rf"(?i:</?(?:{names})(?:\s*/?>|\s+(?:{_FLAGS})\s*/?>|{attributes}))"


# In this order: what holds text that nobody was meant to read, then marks that stand for a break, then inline tags.
MARKUP: tuple[tuple[str, str], ...] = (
    (r"(?is:<script(?:\s[^<>]*)?>.*?(?:</script\s*>|$)|<style(?:\s[^<>]*)?>.*?(?:</style\s*>|$))", " "),
    (r"(?s:<!--.*?(?:-->|$))", " "),
    (r"<![A-Za-z\[][^<>]*>|<\?[A-Za-z][^<>]*>|</?[A-Za-z][A-Za-z0-9]*:[A-Za-z][^<>]*>", " "),
    (_tag(BLOCK), " "),
    (_tag(INLINE), ""),
    # What is left of a tag whose start was lost: attributes between quotes, and the tag's end.
    (r"""(?i:\s?\b(?:alt|title)=(?:"([^"]*)"|'([^']*)'))""", r" \1\2 "),
    (
        r"""(?i:\s?\b(?:width|height|border|class|style|align|valign|hspace|vspace|bgcolor|src|srcset|sizes|href|target"""
        r"""|rel|loading|itemprop|on(?:click|load|error|mouseover)|data-[a-z\-]+)=(?:"[^"]*"|'[^']*'))""",
        " ",
    ),
    (r"""["']?\s*/>""", " "),
)
ANY_MARKUP = "|".join(f"(?:{pattern})" for pattern, _ in MARKUP)
ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31})(;?)")


def strip_markup(texts: pa.StringArray) -> pa.StringArray:
    """Replace every piece of markup by a space, inline tags by nothing."""
    for pattern, replacement in MARKUP:
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    return texts


def decode_entities(text: str) -> str:
    """Decode HTML entities, as `&amp;amp;` too. Without its semicolon an entity must be a whole word: `&copy 2010` is
    `© 2010`, while browsers' `®ion` for `&region` would damage text that was never HTML."""
    return ENTITY.sub(lambda match: _decoded(match[0]), text)


@lru_cache(maxsize=4096)
def _decoded(entity: str) -> str:
    name, semicolon = ENTITY.fullmatch(entity).groups()
    if name[0] == "#":
        return html.unescape(f"&{name};")
    if not semicolon:
        return html5.get(name) or f"&{name}"
    # Title-cased captions hold "&Amp;" and "&Nbsp;", which no browser knows.
    return html5.get(f"{name};") or html5.get(f"{name.lower()};") or f"&{name};"


HTML = (
    Pattern(
        name="markup", needs="<=>", change=strip_markup,
        find=ANY_MARKUP, gate=r"""</?[A-Za-z]|<[!?]|[a-zA-Z]=["']|/>""",
        cleans=('Orchid <b class="x>y">Jun</b>gle<br>dress', "Orchid Jungle dress"), keeps="a < b > c <3 <PERSON>",
    ),
    Pattern(
        name="entities", find="&[#A-Za-z]", needs="&", change=each(decode_entities),
        cleans=("&quot;Keep Calm&quot; &#38; Carry On", '"Keep Calm" & Carry On'), keeps="AT&T, R&D & Q&A",
    ),
)  # fmt: skip
