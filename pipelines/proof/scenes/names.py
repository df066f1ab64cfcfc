"""What things in scenes are called, in English and Chinese, and the colours they have."""

# English and Chinese name, base RGB. The hues are far enough apart to survive the jitter below.
COLOURS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "red": ("红色", (214, 36, 36)),
    "orange": ("橙色", (246, 140, 24)),
    "yellow": ("黄色", (244, 218, 40)),
    "green": ("绿色", (36, 150, 60)),
    "blue": ("蓝色", (40, 84, 214)),
    "purple": ("紫色", (130, 50, 170)),
    "pink": ("粉色", (250, 140, 190)),
    "brown": ("棕色", (120, 72, 32)),
    "black": ("黑色", (24, 24, 24)),
}
BACKGROUNDS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "white": ("白色", (250, 250, 250)),
    "grey": ("灰色", (196, 196, 200)),
    "cream": ("米色", (250, 240, 214)),
    "pale blue": ("浅蓝色", (208, 228, 248)),
}
SHAPES: dict[str, str] = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星", "diamond": "菱形",
    "cross": "十字", "ring": "圆环", "heart": "心形", "hexagon": "六边形", "moon": "月亮",
}  # fmt: skip
PLURALS = {"cross": "crosses"}
NUMBERS = {2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四"), 5: ("five", "五"), 6: ("six", "六")}
PLACES: dict[tuple[int, int], tuple[str, str]] = {
    (0, 0): ("in the top left corner", "左上角"), (1, 0): ("at the top", "上方"),
    (2, 0): ("in the top right corner", "右上角"), (0, 1): ("on the left", "左边"),
    (1, 1): ("in the middle", "中间"), (2, 1): ("on the right", "右边"),
    (0, 2): ("in the bottom left corner", "左下角"), (1, 2): ("at the bottom", "下方"),
    (2, 2): ("in the bottom right corner", "右下角"),
}  # fmt: skip
RELATIONS = {
    "left": ("to the left of", "的左边"), "right": ("to the right of", "的右边"),
    "above": ("above", "的上方"), "below": ("below", "的下方"),
}  # fmt: skip
_WORD_LIST = (
    "apple bread chair dance eagle flour grape horse island juice knife lemon music night ocean paper queen river "
    "sugar table uncle voice water yellow zebra beach cloud dream earth field garden house image jacket kitchen "
    "light market north orange piano quick radio stone train under valley window winter young anchor bridge candle "
    "dinner engine forest guitar hammer inside jungle kettle ladder mirror needle office pencil rocket silver ticket "
    "OPEN CLOSED EXIT SALE STOP TAXI HOTEL BANK CAFE BUS METRO PARK SHOP FREE NEW HOT COLD PUSH PULL SLOW"
)
WORDS: tuple[str, ...] = tuple(_WORD_LIST.split())
