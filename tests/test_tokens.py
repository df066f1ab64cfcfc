"""One tokenizer interface: Qwen's ids, exact encoding, and no control token out of data."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.tokens import OWN, SPECIALS, load_tokenizer

TEXTS = (
    "Beautiful shot of bees gathering nectars from an apricot flower.",
    "一只猫在沙发上睡觉，旁边有3只狗。ABC混排",
    "def f(x):\n\treturn x ** 2  # comment\r\n\r\n    pass\n",
    "🐝👩‍👩‍👧 emoji 🇨🇳 and \u0007\u0000\u200b control",
    "Cafe\u0301 can't we'LL 12345 (661,612),(833,812)   \n\n  x",
    "",
)
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Text that is full of the names of special tokens, whole and in pieces.
SPECIAL_TEXT = st.lists(st.one_of(st.sampled_from([*SPECIALS, "<", "im", "g>", "<s>", " "]), st.text(max_size=4))).map(
    "".join
)


@pytest.fixture
def qwen(shared_data):
    return load_tokenizer(shared_data("tokenizer/qwen.tiktoken"))


@pytest.fixture(scope="module")
def fast_folder(tmp_path_factory):
    """A folder with a small Hugging Face tokenizer, whose normaliser turns full-width `＜img＞` into `<img>`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<img>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(["hello world, <im_end> imgpad"] * 10, trainer)
    folder = tmp_path_factory.mktemp("fast")
    bpe.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory):
    from transformers import ByT5Tokenizer

    folder = tmp_path_factory.mktemp("slow")
    ByT5Tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=["own", "qwen", "fast", "slow"])
def tokenizer(request):
    if request.param == "qwen":
        return request.getfixturevalue("qwen")
    return load_tokenizer(None if request.param == "own" else request.getfixturevalue(f"{request.param}_folder"))


def test_qwen_ids(qwen):
    assert qwen.special == {
        "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<ref>": 151851, "</ref>": 151852,
        "<box>": 151853, "</box>": 151854, "<quad>": 151855, "</quad>": 151856, "<img>": 151857, "</img>": 151858,
        "<imgpad>": 151859,
    }  # fmt: skip
    assert qwen.vocab_size == 151860
    assert (qwen.eos, qwen.image_start, qwen.image_end, qwen.image_pad) == (151643, 151857, 151858, 151859)


def test_qwen_encodes_as_tiktoken(qwen, shared_data):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(str(shared_data("tokenizer/qwen.tiktoken")))
    reference = tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={})
    wiki = shared_data("text/zhwiki.txt").read_text()[:20_000] + shared_data("text/enwiki.txt").read_text()[:20_000]
    for text in (*TEXTS, wiki, "x" * 150_000 + " y", "字" * 60_000):
        assert qwen.encode(text) == reference.encode_ordinary(unicodedata.normalize("NFC", text))
        assert qwen.decode(qwen.encode(text)) == unicodedata.normalize("NFC", text)


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_own_tokenizer_round_trips(text):
    own = load_tokenizer()
    assert own.decode(own.encode(text)) == unicodedata.normalize("NFC", text)


def test_own_tokenizer_is_small_and_useful():
    own = load_tokenizer()
    assert OWN.stat().st_size < 1_000_000
    assert own.vocab_size == 8192
    assert len(own.encode("A brown dog is sitting on the grass.")) < 12
    assert len(own.encode("一只棕色的狗坐在草地上。")) <= 12


@given(SPECIAL_TEXT)
@settings(max_examples=150)
def test_no_control_token_out_of_text(text):
    own = load_tokenizer()
    assert not set(own.encode(text)) & set(own.special.values())
    assert own.decode(own.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    "text", [*SPECIALS, "＜img＞", "<im<img>g>", "<img><img>", "<s>a</s>", "".join(SPECIALS), "a<|im_end|>b"]
)
def test_no_control_token_in_any_backend(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids and not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) in (text, unicodedata.normalize("NFKC", text))


def test_specials_of_the_tokenizer_itself_stay_text(fast_folder, slow_folder):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    bos = PreTrainedTokenizerFast(tokenizer_file=str(fast_folder / "tokenizer.json")).convert_tokens_to_ids("<s>")
    assert bos not in load_tokenizer(fast_folder).encode("see <s> here")
    eos = AutoTokenizer.from_pretrained(slow_folder).eos_token_id
    assert eos not in load_tokenizer(slow_folder).encode("see </s> here")


def test_unknown_characters_are_no_control_tokens(tmp_path):
    """A vocabulary of words: what it lacks becomes its unknown token, which is flagged special and yet is data."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode("a cat zebra") == [1, 2, 0]


def test_segments_tell_tokens_from_text(tokenizer):
    ids = [tokenizer.special["<ref>"], *tokenizer.encode("a <ref> b"), tokenizer.special["</ref>"], tokenizer.eos]
    assert tokenizer.segments(ids) == [("<ref>", ""), (None, "a <ref> b"), ("</ref>", ""), ("<|endoftext|>", "")]
    assert tokenizer.decode(ids) == "<ref>a <ref> b</ref><|endoftext|>"


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert again.fingerprint == tokenizer.fingerprint and again.special == tokenizer.special
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_loads_from_a_url(tmp_path):
    load_tokenizer().save(tmp_path / "tokenizer")
    assert load_tokenizer((tmp_path / "tokenizer").as_uri()).fingerprint == load_tokenizer().fingerprint


def test_fingerprints_differ(fast_folder, slow_folder, tmp_path):
    lines = OWN.read_bytes().splitlines(keepends=True)
    shorter = tmp_path / "shorter.tiktoken"
    shorter.write_bytes(b"".join(lines[:-1]))
    prints = [load_tokenizer(spec).fingerprint for spec in (None, shorter, fast_folder, slow_folder)]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("text", [" " * 1_000_000, "a" * 1_000_000, "\n" * 300_000, "中" * 300_000, "<img>" * 50_000])
def test_hostile_lengths(text):
    """A run of blanks of this length alone makes tiktoken panic."""
    own = load_tokenizer()
    assert own.decode(own.encode(text)) == text


def test_lone_surrogates_and_unknown_ids():
    own = load_tokenizer()
    assert own.decode(own.encode("a\ud800b")) == "a\ufffdb"
    assert own.decode([*own.encode("ok"), 999_999, -1]) == "ok\ufffd\ufffd"


def test_mistakes_are_explained(tmp_path):
    (tmp_path / "broken.tiktoken").write_text("not base64 at all\n")
    (tmp_path / "gap.tiktoken").write_text("IQ== 0\nIg== 7\n")
    (tmp_path / "empty").mkdir()
    for spec, words in (
        ("broken.tiktoken", "not a tiktoken file"),
        ("gap.tiktoken", "ranks are not 0..1"),
        ("absent.tiktoken", "no such tokenizer"),
        ("empty", "neither a .*tiktoken file nor a tokenizer.json"),
    ):
        with pytest.raises(ValueError, match=words):
            load_tokenizer(tmp_path / spec)


def test_training_yields_bytes_then_merges(tmp_path):
    from corpus.tokens import write_ranks
    from pipelines.train_tokenizer import train

    tokens = train(["the cat 猫 sat on the mat, the cat sat 猫"] * 3, 270)
    assert tokens[:256] == [bytes([b]) for b in range(256)] and len(tokens) == 270
    write_ranks(tmp_path / "small.tiktoken", tokens)
    small = load_tokenizer(tmp_path / "small.tiktoken")
    assert small.decode(small.encode("the 猫 sat")) == "the 猫 sat"
    assert len(small.encode(" the")) == 1


def test_import_is_light():
    """corpus.tokens must not pull in transformers or torch: the trainer's loader workers import it."""
    code = "import sys, corpus.tokens as t; t.load_tokenizer(); print({'torch', 'transformers'} & set(sys.modules))"
    root = Path(__file__).resolve().parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
