"""Whether a web page says nothing but why it says nothing: scripts are off, cookies are wanted, nobody is at home.

Crawls are full of such pages, all alike. Whole phrases are looked for, not words: an article may speak of cookies.
"""

import re

_PHRASES = r"""
(?:enable|activate|turn on|requires?|without|needs?) (?:your )?java ?script
doesn.t work (?:properly )?without java ?script
java ?script (?:is|has been|to be|must be) (?:disabled|enabled|required|turned off|not)
enable (?:\w+ )?cookies  cookies (?:are|is|must be) (?:disabled|enabled|required|blocked)
(?:we|this (?:web)?site|our (?:partners|site)) (?:and our partners )?(?:uses?|stores?|places?) (?:\w+ )?cookies
(?:accept|reject|manage|allow) (?:all|your)? ?(?:cookies?|cookie settings|tracking)
40[34]:? (?:error|forbidden|not found|page)  error 40[34]
page (?:not found|cannot be found|can.t be found|doesn.t exist)
the (?:page|url|file|resource)(?: \S+)? (?:you (?:are looking for|requested)|requested|was not found|could not be found)
(?:was|were) not found on this server  access (?:to this page )?(?:is |has been )?denied  you don.t have permission
(?:are you|not) a (?:ro)?bot  verify (?:that )?you are (?:a )?human  checking (?:if the site|your browser)
just a moment
complete the (?:security check|captcha)  ddos protection by  performance (?:&|and) security by
unsupported browser  (?:update|upgrade) your browser  your browser (?:is|does) (?:not|out)
browser is no longer supported
domain (?:name )?(?:is|may be) for sale  buy this domain  site is under construction  default web page
javascript (?:aktivieren|ist deaktiviert)  aktivieren sie (?:bitte )?(?:javascript|cookies)
seite (?:wurde )?nicht gefunden
activer (?:le )?javascript  page (?:introuvable|non trouv.e)  habilit[ae]r? (?:el )?javascript  p.gina no encontrada
(?:启用|开启|打开|支持) ?java ?script  页面(?:不存在|没有找到|未找到|已删除)  (?:无法|没有)找到(?:您|该|此)  访问的页面
(?:请升级|更换)(?:您的)?浏览器  安全验证  浏览器版本过低
"""
_NOTICE = re.compile("|".join(re.split("  |\n", _PHRASES.strip())), re.IGNORECASE)
_END = re.compile("[.!?。！？](?= |$)|(?<=[。！？])")
_REACH = 80  # characters around a phrase that belong to its sentence, where no sentence ends before


def boilerplate_share(text: str) -> float:
    """Return the share of a page's characters that stand in sentences with such a phrase."""
    held = at = 0
    for found in _NOTICE.finditer(text):
        before = max(found.start() - _REACH, at)
        ends = [end.end() for end in _END.finditer(text, before, found.start())]
        start = ends[-1] if ends else before
        stop = _END.search(text, found.end(), found.end() + _REACH)
        end = stop.end() if stop else min(found.end() + _REACH, len(text))
        if end > at:
            held += end - max(start, at)
            at = end
    return held / len(text) if text else 0.0
