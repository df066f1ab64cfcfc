"""Words that say where a picture was offered, by whom and as which of how many, not what it shows."""

from cleaners.text.removal import Pattern

_KIND = (
    r"photos?|photography|photographs?|images?|pictures?|pics?|illustrations?|vectors?|vector art|clip ?art|footage|"
    r"videos?|graphics?|art|fotos?|fotografie|vektor\w*"
)
_SITES = (
    r"shutterstock|istock ?(?:photo)?|getty images|alamy|depositphotos|dreamstime|123rf|adobe ?stock|fotolia|bigstock|"
    r"vectorstock|can ?stock(?: ?photo)?|freepik|pixabay|unsplash|pinterest|etsy|ebay|amazon|google search|flickr|imdb|"
    r"lyst|poshmark|redbubble|zazzle|aliexpress|walmart|wayfair|houzz|deviantart|society6|youtube|wikimedia commons"
)
_ONE = r"(?:photo|image|picture|pic|foto|bild|img)"
_HERE = r"\b(?:click|tap)(?: here| on (?:the )?(?:image|photo|picture))? (?:to|for) "
_LARGER = r"\b(?:larger|full[ \-]size|bigger) (?:image|photo|picture|version)\b"
_SHARE = r"share (?:this )?on (?:facebook|twitter|pinterest|whatsapp|tumblr|linkedin|reddit|pocket|telegram|x)\b"
_NEW_WINDOW = r"(?:\s?\(opens in new window\))?"

OFFERS = (
    Pattern(
        name="stock_caption", gate=r"(?i:, ?Artist:|vector image vector)",
        find=r"(?i:(?:\s?- Royalty[- ]Free)?, ?Artist: ?[^,]+,\s?Code: ?[\d\-]+|\bvector image vector image\b)",
        cleans=("Boys at the lake - Royalty-Free, Artist: U. U., Code: 600-06382904", "Boys at the lake"),
        keeps="An artist: the code of art",
    ),
    Pattern(
        name="stock_offer",
        gate=rf"(?i:royalty[- ]?free|\bstock[ \-]?(?:{_KIND})|vetorial stock|foto de stock"
        r"|libres? de droits|lizenzfrei|\bvect(?:or|eur) gratuit|— ?(?:photo|image|illustration|vector)s?\s*$)",
        find=rf"(?i:\b(?:premium |free )?royalty[- ]?free(?: (?:stock|{_KIND}))*\b"
        rf"|\b(?:free )?stock[ \-]?(?:{_KIND})\b(?: of\b)?"
        r"|\bvetorial stock\b|\bfoto de stock\b|\bphotos? libres? de droits\b|\blizenzfreie[ns]? \w+"
        r"|\bvect(?:or|eur)s? gratuits?\b|\s— ?(?:photo|image|illustration|vector)s?\s*$)",
        cleans=("Arrow on target Royalty Free Stock Photos", "Arrow on target"),
        keeps="Livestock photographed in stock pens",
    ),
    Pattern(
        name="click_here",
        gate=rf"(?i:{_HERE}|\bto zoom\b|\benlarge (?:image|photo|picture)|{_LARGER}|{_SHARE})",
        find=rf"(?i:{_HERE}(?:an? )?(?:enlarge|zoom|view|see|expand|larger|full|download)"
        r"(?: (?:view|size|image|picture|photo|version|larger|full|details?|it|in))*\b(?:\.\.\.)?"
        rf"|\b(?:click to )?{_SHARE}{_NEW_WINDOW}|\bclick to (?:print|email)(?: this(?: to a friend)?)?\b{_NEW_WINDOW}"
        r"|\b(?:hover|roll ?over)(?: image)? to zoom(?: in)?\b|\benlarge (?:image|photo|picture)\b"
        rf"|\b(?:view|see|show) {_LARGER})",
        cleans=("Oak table (click to enlarge)", "Oak table"), keeps="The shutter makes a click for her",
    ),
    Pattern(
        name="site_suffix", find=rf"(?i:\s[\-|–—·]\s?(?:{_SITES})(?:\.com)?\s*$)",
        cleans=("lonely quotes - Google Search", "lonely quotes"), keeps="Amazon river - dolphins",
    ),
    Pattern(
        name="photo_number", gate=rf"(?i:\b(?:{_ONE}s?|view) ?(?:#?\d|:))",
        find=rf"(?i:^{_ONE}s?(?: #?\d+)?\s?:\s|^{_ONE} #?\d\d?\d?$|\s[|\-–—,]?\s?{_ONE} #?\d\d?\d?\s*$"
        rf"|\b{_ONE} \d+ of \d+\b|\(view \d+ of \d+\)|\bview \d+ of \d+$)",
        cleans=("Volvo S60 | foto 11", "Volvo S60"), keeps="An image of 3 ships, view to the sea",
    ),
    Pattern(
        name="shop_talk",
        find=r"(?i:\bfree (?:shipping|delivery)\b|^thumbnail(?: (?:of|for|\d+))?\b|\bthumbnail(?: \d+)?\s*$"
        r"|^image is loading\b|^img ?- ?for\b|^image titled\b|\bproduct (?:image|photo|picture)s?(?: \d+| for)?\b"
        r"|^display product reviews for\b|\baddress not provided\b|,? \bquick ship\b|^buy now\b|\badd to cart\b"
        r"|\bhot sale\b|\b(?:black friday|cyber monday)(?: clearance)? (?:sale|deals?)\b"
        r"|\bsave (?:up to )?[$£€]\d+!?|\b(?:online|best price) online\b)",
        cleans=("Fox fur coats free shipping", "Fox fur coats"), keeps="Ships in a free harbour save the day",
    ),
    Pattern(
        name="zh_boilerplate", beyond_ascii=True, languages=frozenset({"zh"}),
        find="图库摄影|库存(?:照片|图片|例证|插画|矢量图)|股票(?:视频|图片|照片|素材)|免版税(?:库存)?(?:图片|照片)?"
        "|版权(?:商用)?图片|点击(?:图片)?(?:查看|欣赏)?(?:更多)?(?:高清|超清)?(?:大图|原图|组图|放大)|查看(?:大图|原图)"
        "|点击(?:订阅|下载|关注)|点击[数量][:：]\\d+|【[^【】]*点击】|阅读全文(?:[，,]请先)?"
        "|(?:高清)?(?:图片|素材|大图)(?:免费)?下载|内容一致[,，]印次、封面或原价不同[,，]统一售价[,，]随机发货",
        cleans=("木背景的一个桔子 图库摄影", "木背景的一个桔子"), keeps="图书馆里的一个男孩",
    ),
)  # fmt: skip

_WHO = r"\((?:photo|image|picture|credit|source|foto|AP|Reuters|AFP|EPA|Getty)"
_AGENCY = r"(?:REUTERS|Reuters|AFP(?: PHOTO)?|AP Photo|Getty Images)"
_NAME = r"[A-Z\x{C0}-\x{DE}][\w\x{80}-\x{24F}’'\-]*"
_NAMES = rf"{_NAME}(?:(?:\.? |/)(?:and |de |van |von |for )?{_NAME})*"
_RESERVED = (
    r"all rights reserved|alle rechte vorbehalten|todos los derechos reservados|tous droits réservés|"
    r"todos os direitos reservados|tutti i diritti riservati"
)

CREDITS = (
    Pattern(
        name="photo_credit", needs="(", gate=f"(?i:{_WHO})",
        find=rf"(?i:{_WHO}s?(?: ?credit| by| courtesy(?: of)?| images| photo)?\s?[:/][^()]*\))"
        rf"|\((?i:{_ONE}s?(?:graph)?s?|credit|image) (?i:by|courtesy(?: of)?|courtesy) [^()]*\)|\({_AGENCY}\)",
        cleans=("Storm in Cuba. (photo: Franklin Reyes)", "Storm in Cuba."), keeps="Storm in Cuba (photo of 1950)",
    ),
    Pattern(
        name="credit_line",
        gate=rf"(?i:\b(?:{_ONE}|photograph)s? (?:by|courtesy)|\b(?:credit|source|quelle)s?\b|[\-–—|] ?{_ONE}s?:"
        rf"|{_AGENCY}/|(?:via |/ ?)getty images)",
        find=rf"[\s,\-–—|(]*\b(?i:{_ONE}|photograph)s? (?i:by|courtesy(?: of)?):? {_NAMES}(\.?)\s*$"
        rf"|([.)]) (?i:(?:{_ONE} )?credits?):? {_NAMES}\s*$|\s[\-–—|] (?i:{_ONE}|source|credit)s?(?i: credit)?: [^|]*$"
        rf"|^(?i:quelle|source|(?:{_ONE} )?credits?|{_ONE}quelle|{_ONE} source): .*$"
        rf"|(?:\b(?i:via|by) |/ ?)?\b{_AGENCY}/ ?{_NAMES}|(?:\bvia |/ ?)Getty Images\b",
        replace=r"\1\2",
        cleans=("Haleakala at dawn, photo by Wendy Osher", "Haleakala at dawn"),
        keeps="A photo by the lake, light source: the moon",
    ),
    Pattern(
        name="copyright", gate=rf"©|(?i:\bcopyright |{_RESERVED})",
        find=rf"(?i:(?:\bcopyright ?)?(?:© ?|\(c\) ?)(?:copyright )?[^.|©]*[.|]? ?(?:{_RESERVED})(?:\.| -)?)"
        rf"|^(?i:copyright ?)?© ?(?i:copyright )?[\d ,\-–]*(?:(?:{_NAME}|\p{{Han}})[^|.]*)?(?:\.|\||$)"
        r"|^\S+ © ?\d{4}\b[^|]*$"
        rf"|(?:[\s/(]+|\.?(\.))(?i:{_ONE}s?:? ?)?©:? ?(?:\d{{4}} )?{_NAMES}[^|().]*\)?$",
        replace=r"\1",
        cleans=("A lake at dawn © Jane Doe", "A lake at dawn"), keeps="Ruud Lauritsen ©, Netherlands",
    ),
    Pattern(
        name="zh_credit", beyond_ascii=True, languages=frozenset({"zh"}),
        find=r"[（(]?\p{Han}*(?:记者|通讯员|摄影[队师])[ :：]?\p{Han}+[ 、]?\p{Han}* ?摄[）)]?\s*$"
        r"|[（(][^（）()]* ?摄[）)]|[（(](?:视觉中国|东方IC|资料图(?:片)?|图片?/?来源[:：]?[^（）()]*)[）)]"
        r"|(?:^|\s)图[/／|][\w\p{Han}]+\s*$|^(?:图片|资料)?来源[:：] ?[^，。]*$"
        r"|(?:本文[为系][^。，,]*[，,])?未经[^。]*(?:不得|禁止)转载[^。]*|^转载[请须][^。]*|\p{Han}?ICP备\d+号(?:-\d+)?",
        cleans=("雨中的黄鹤楼。新华社记者 周斌 摄", "雨中的黄鹤楼。"), keeps="一名记者在拍摄照片",
    ),
)  # fmt: skip
BOILERPLATE = OFFERS + CREDITS
