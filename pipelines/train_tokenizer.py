#!/usr/bin/env python
"""Train a byte-level BPE: the project's own, corpus/assets/gristmill.tiktoken, or one for cleaned shards.

The project's own has 7975 ranks, English and Chinese. Its training text is made here, from word lists that come with
installed packages (WordNet's definitions in timm, the Unicode names of emoji in English and Chinese in emoji, the 6763
characters of GB 2312 in Python's own codec), from captions and questions this script composes, and from formatted
numbers; no page of anybody's is read. Qwen's pattern for words, Qwen's normalisation (NFC), Qwen's numbering of special
tokens: with these 217 the vocabulary has 8192 rows.

examples:
  python pipelines/train_tokenizer.py --output corpus/assets/gristmill.tiktoken
  python pipelines/train_tokenizer.py --shards 'scenes/train/*/*.tar' --rows 640 --output scenes/words.tiktoken
"""

import argparse
import glob
import importlib.resources
import itertools
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpus import tokens  # noqa: E402
from corpus.formats import BadSample, format_sample  # noqa: E402
from corpus.pieces import TEXT  # noqa: E402
from corpus.records import Sample, from_members  # noqa: E402
from corpus.shards import read_samples  # noqa: E402

VOCABULARY = 8192
# Counts high enough that every character of the standard's first level (in common use) gets a token of its own, and
# those of the second only after the frequent English and Chinese words.
_COMMON_COUNT, _RARE_COUNT = 120, 4


def _phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split("/") if phrase.strip()]


def _pairs(text: str) -> dict[str, str]:
    """English phrase -> Chinese phrase; the Chinese one follows the last blank."""
    return {english: chinese for english, _, chinese in (phrase.rpartition(" ") for phrase in _phrases(text))}


_COLOURS = _pairs("""
    red 红色 / blue 蓝色 / green 绿色 / yellow 黄色 / black 黑色 / white 白色 / brown 棕色 / pink 粉色 /
    purple 紫色 / orange 橙色 / grey 灰色
""")
_PLACES = _pairs("""
    on the table 在桌子上 / in the street 在街上 / next to a tree 在树旁边 / on the beach 在海滩上 /
    in front of a house 在房子前面 / under the sky 在天空下 / in a kitchen 在厨房里 /
    at the station 在车站 / on the grass 在草地上 / near the water 在水边 / in a field 在田野里 /
    by the window 在窗边 / behind the fence 在围栏后面 / at night 在夜晚
""")
_THINGS = _pairs("""
    man 男人 / woman 女人 / person 人 / child 孩子 / group of people 一群人 / dog 狗 / cat 猫 / horse 马 /
    bird 鸟 / car 汽车 / bus 公共汽车 / train 火车 / boat 船 / bicycle 自行车 / chair 椅子 / table 桌子 /
    cup 杯子 / book 书 / flower 花 / house 房子 / building 建筑 / sign 标志 / circle 圆 / square 正方形 /
    triangle 三角形 / bottle 瓶子 / phone 手机 / computer 电脑 / ball 球 / plate of food 一盘食物
""")
_DOING = _pairs("""
    standing 站 / sitting 坐 / playing 玩耍 / walking 走 / running 跑步 / looking at the camera 看着镜头 /
    lying 躺 / holding something 拿着东西 / waiting 等待 / eating 吃东西
""")
_ASKED = _phrases("""
    What colour is the {}? / How many {}s are there? / Where is the {}? / Is there a {} in the picture? /
    What is the {} doing? / What is written on the {}? / Describe the {} in detail. /
    I'm sure it's the {}, isn't it? /
    The image shows a {} that you don't see often; they've never seen it.
""")
_ASKED_ZH = _phrases("""
    {}是什么颜色？ / 图中有几个{}？ / {}在哪里？ / 图片里有没有{}？ / 请描述一下这个{}。 /
    这张图片展示了一个{}，我们可以看到它。 / 他们说这是{}，但是我不知道为什么。 /
    因为{}很漂亮，所以大家都喜欢。 / 如果没有{}，就不能这样做。
""")
_PROMPTS = (
    "Generate the caption in English:", "Generate the caption in Chinese:", "with grounding:", "OCR with grounding:",
    "Answer:", "Picture 1: ", "user\n", "assistant\n", "system\nYou are a helpful assistant.",
)  # fmt: skip


def main() -> None:
    """Train and write the ranks; print what the result does with English and Chinese."""
    parser = make_parser()
    args = parser.parse_args()
    if args.rows < 256 + tokens.NUM_QWEN_SPECIALS:
        parser.error(f"--rows {args.rows}: the bytes and the special tokens alone are {256 + tokens.NUM_QWEN_SPECIALS}")
    lines = shard_text(args.shards) if args.shards else training_text()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    tokens.write_ranks(args.output, train(lines, args.rows - tokens.NUM_QWEN_SPECIALS))
    tokenizer = tokens.load_tokenizer(args.output)
    for text in ("A brown dog is sitting on the grass.", "一只棕色的狗坐在草地上。", "(176,106),(232,160)"):
        pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
        print(f"{len(pieces):3d}  {'|'.join(pieces)}")
    print(f"{args.output}: {tokenizer.vocab_size} rows, {args.output.stat().st_size} bytes")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=tokens.OWN, help="the tiktoken file to write")
    parser.add_argument(
        "--shards", nargs="+", action="extend", metavar="GLOB", help="cleaned shards to learn from, instead"
    )
    parser.add_argument("--rows", type=int, default=VOCABULARY, help="of the vocabulary; default: %(default)s")
    return parser


def train(lines: Iterator[str], num_ranks: int) -> list[bytes]:
    """Return the byte-level BPE tokens, in order of rank: the 256 bytes, then the merges."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Bpe

    bpe = Bpe(models.BPE())
    words = pre_tokenizers.Split(Regex(tokens.PATTERN), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=num_ranks, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    bpe.train_from_iterator((unicodedata.normalize("NFC", line) for line in lines), trainer)
    byte_of = _byte_of_character()
    ranked = sorted(bpe.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(byte_of[c] for c in token) for token, _ in ranked if len(token) > 1]
    return [bytes([b]) for b in range(256)] + merged


def _byte_of_character() -> dict[str, int]:
    """Invert GPT-2's printable stand-ins for bytes: a byte that does not print is shown as U+0100 and following."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in printable)
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def shard_text(patterns: Sequence[str]) -> Iterator[str]:
    """Yield the words of every sample in its training format. Stops the command where a shard is none of ours."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    if not paths:
        sys.exit(f"error: --shards {' '.join(patterns)}: no such files")
    for path in paths:
        for raw in read_samples(path):
            try:
                yield from _sample_text(from_members(raw.members))
            except (ValueError, BadSample) as error:
                sys.exit(f"error: {path}: {raw.key}: {raw.detail or error}")


def _sample_text(sample: Sample) -> Iterator[str]:
    if sample.task == "text":
        yield sample.text
        return
    for made in format_sample(sample, sample.task):
        yield from (piece.value for piece in getattr(made, "pieces", ()) if piece.kind == TEXT)


def training_text() -> Iterator[str]:
    """Yield lines of text; see the module's description of where they come from."""
    yield from itertools.chain(_definitions(), _emoji_names(), _captions(), _questions(), _formats(), _characters())


def _definitions() -> Iterator[str]:
    table = importlib.resources.files("timm") / "data/_info/imagenet_synset_to_definition.txt"
    for line in table.read_text(encoding="utf-8").splitlines():
        text = line.partition("\t")[2]
        yield text
        yield "A " + text[:1].upper() + text[1:] + "."


def _emoji_names() -> Iterator[str]:
    import emoji

    folder = importlib.resources.files("emoji") / "unicode_codes"
    chinese = json.loads((folder / "emoji_zh.json").read_text(encoding="utf-8"))
    english = [entry["en"] for entry in emoji.EMOJI_DATA.values()]
    for name in itertools.chain(chinese.values(), english):
        yield from [" " + name.strip(":").replace("_", " ")] * 2


def _captions() -> Iterator[str]:
    for (thing, thing_zh), (colour, colour_zh), (place, place_zh) in itertools.product(
        _THINGS.items(), _COLOURS.items(), _PLACES.items()
    ):
        yield f"A {colour} {thing} {place}. The {thing} is {colour} and there are two of them {place}"
        yield f"{place_zh}有一个{colour_zh}的{thing_zh}。这是一张{thing_zh}的照片，颜色是{colour_zh}"
    for (thing, thing_zh), (doing, doing_zh), (place, place_zh) in itertools.product(
        _THINGS.items(), _DOING.items(), _PLACES.items()
    ):
        yield f"Several {thing}s are {doing} {place} with a {thing} in the background of this photo"
        yield f"一个{thing_zh}正在{place_zh}{doing_zh}着，旁边还有两个{thing_zh}"


def _questions() -> Iterator[str]:
    for thing, thing_zh in _THINGS.items():
        for _ in range(20):
            yield from (question.format(thing) for question in _ASKED)
            yield from (question.format(thing_zh) for question in _ASKED_ZH)


def _formats() -> Iterator[str]:
    for n in range(1000):
        yield f"({n},{(7 * n) % 1000}),({(3 * n) % 1000},{(9 * n) % 1000})"
        yield from _PROMPTS


def _characters() -> Iterator[str]:
    """The characters of GB 2312, one per line: rows 16-55 of the table are its first level, 56-87 the second."""
    for row in range(16, 88):
        for column in range(1, 95):
            try:
                character = bytes([0xA0 + row, 0xA0 + column]).decode("gb2312")
            except UnicodeDecodeError:  # the last cells of row 55 are empty
                continue
            yield from [character] * (_COMMON_COUNT if row < 56 else _RARE_COUNT)
    yield from list("，。、；：？！“”‘’（）《》【】…—·￥％０１２３４５６７８９") * _COMMON_COUNT


if __name__ == "__main__":
    main()
