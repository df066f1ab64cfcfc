"""One tokenizer interface over a `*.tiktoken` file (Qwen's or the project's own) and any Hugging Face tokenizer.

`encode` is for DATA: it never returns a control token, whatever the text contains. Control tokens are put in by id,
from `tokenizer.special`. The special tokens and, for Qwen's ranks, their ids are those of Qwen-VL's tokenizer.
"""

import base64
import functools
import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import fsspec

OWN = Path(__file__).resolve().parent / "assets" / "gristmill.tiktoken"

EOS, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
REF, REF_END, BOX, BOX_END, QUAD, QUAD_END = "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"
IMG, IMG_END, IMG_PAD = "<img>", "</img>", "<imgpad>"
SPECIALS = (EOS, IM_START, IM_END, REF, REF_END, BOX, BOX_END, QUAD, QUAD_END, IMG, IMG_END, IMG_PAD)

# Qwen's split into words: single digits, and at most one leading space or mark per word.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen numbers its special tokens after the ranks: three, 205 reserved ones, then those of Qwen-VL.
_QWEN_ORDER = SPECIALS[:3] + tuple(f"<|extra_{i}|>" for i in range(205)) + SPECIALS[3:]
NUM_QWEN_SPECIALS = len(_QWEN_ORDER)

# tiktoken's regular expression engine overflows its stack, and panics, on some hundred thousand blanks in a row.
_LONG = 100_000
_PROBE = "The 3 b\u0065\u0301es' nectar, 一只猫在沙发上。\n\tdef f(x): return x**2 🐝\u200d\u0007 (12,3)<img><|im_end|>"


class Tokenizer:
    """Text <-> ids, and the ids of the special tokens.

    Attributes: `special` (name -> id, for all of SPECIALS), `vocab_size` (largest id + 1; rows an embedding needs),
    `fingerprint` (equal for tokenizers that have the same vocabulary and cut text the same way), `eos`,
    `image_start`, `image_end`, `image_pad` (ids).
    """

    def __init__(self, backend: "_Ranks | _Hub"):
        self._backend = backend
        self.special: dict[str, int] = backend.special
        self.vocab_size: int = backend.vocab_size
        self._by_id = {i: name for name, i in self.special.items()}
        self.eos = self.special[EOS]
        self.image_start, self.image_end, self.image_pad = (self.special[s] for s in (IMG, IMG_END, IMG_PAD))
        self.fingerprint = self._fingerprint()

    def encode(self, text: str) -> list[int]:
        """Encode text as plain text: special tokens written out in it become ordinary tokens.

        Lone surrogates, which JSON can carry and UTF-8 cannot, become U+FFFD.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if len(text) <= _LONG:
            return self._backend.encode(text)
        return [i for part in _cut_at_spaces(text, _LONG) for i in self._backend.encode(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode to text; special tokens appear by name, ids without a meaning and broken UTF-8 as U+FFFD."""
        return "".join(name or text for name, text in self.segments(ids))

    def segments(self, ids: Iterable[int]) -> list[tuple[str | None, str]]:
        """Decode to (special token's name, "") and (None, text); neighbouring plain ids are decoded together."""
        segments, plain = [], []
        for i in map(int, ids):
            if (name := self._by_id.get(i)) is None:
                plain.append(i)
                continue
            if plain:
                segments.append((None, self._backend.decode(plain)))
                plain = []
            segments.append((name, ""))
        if plain:
            segments.append((None, self._backend.decode(plain)))
        return segments

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a local folder, from which `load_tokenizer` makes the same one."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._backend.save(Path(folder))

    def save_fast(self, folder: str | Path) -> None:
        """Write it into a local folder as transformers' AutoTokenizer loads it. Needs the package transformers."""
        self._backend.save_fast(Path(folder))

    def _fingerprint(self) -> str:
        # By behaviour, not by file: the same tokenizer saved by two versions of a library stays the same.
        digest = hashlib.sha256(self._backend.vocabulary_digest())
        digest.update(repr(sorted(self.special.items())).encode())
        digest.update(repr(self.encode(_PROBE)).encode())
        return digest.hexdigest()[:32]


def load_tokenizer(spec: str | Path | None = None) -> Tokenizer:
    """Load a tokenizer: a `*.tiktoken` file, a folder, a fsspec URL of either, or a Hugging Face name; None is our own.

    A folder with a `*.tiktoken` file is read from that file (so Qwen-VL's folder needs none of its remote code).
    Special tokens that a Hugging Face tokenizer lacks are added at its end. Raises ValueError when nothing fits.
    """
    return _load(str(spec) if spec is not None else str(OWN))


@functools.lru_cache(maxsize=4)
def _load(spec: str) -> Tokenizer:
    if "://" in spec:
        return _load_remote(spec)
    path = Path(spec)
    if path.is_dir() and (found := sorted(path.glob("*.tiktoken"))):
        path = found[0]
    if path.suffix == ".tiktoken":
        return Tokenizer(_Ranks(_read_ranks(path)))
    return Tokenizer(_Hub(spec))


def _load_remote(url: str) -> Tokenizer:
    fs, root = fsspec.core.url_to_fs(url)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / Path(root).name
        fs.get(root, str(target), recursive=True)
        return _load.__wrapped__(str(target))


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = path.read_bytes().split(b"\n")
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such tokenizer file") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a tiktoken file (base64 token, space, rank on each line): {error}") from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path}: its {len(ranks)} ranks are not 0..{len(ranks) - 1}")
    return ranks


def write_ranks(path: Path, tokens: Sequence[bytes]) -> None:
    """Write byte-level BPE tokens, in order of rank, as a tiktoken file."""
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), i) for i, token in enumerate(tokens)))


class _Ranks:
    """Byte-level BPE by ranks, with Qwen's pattern, NFC normalisation and numbering of special tokens."""

    def __init__(self, ranks: dict[bytes, int]):
        import tiktoken

        self._ranks = ranks
        numbered = {name: len(ranks) + i for i, name in enumerate(_QWEN_ORDER)}
        self.special = {name: numbered[name] for name in SPECIALS}
        self.vocab_size = len(ranks) + len(_QWEN_ORDER)
        self._bpe = tiktoken.Encoding("ranks", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=numbered)

    def encode(self, text: str) -> list[int]:
        return self._bpe.encode_ordinary(unicodedata.normalize("NFC", text))

    def decode(self, ids: list[int]) -> str:
        if any(not 0 <= i < self.vocab_size for i in ids):
            return "".join(self.decode([i]) if 0 <= i < self.vocab_size else "\ufffd" for i in ids)
        return self._bpe.decode_bytes(ids).decode("utf-8", "replace")

    def vocabulary_digest(self) -> bytes:
        digest = hashlib.sha256()
        for token in self._ranks:
            digest.update(b"%d %s\n" % (self._ranks[token], token.hex().encode()))
        return digest.digest()

    def save(self, folder: Path) -> None:
        write_ranks(folder / "ranks.tiktoken", sorted(self._ranks, key=self._ranks.get))

    def save_fast(self, folder: Path) -> None:
        from corpus import fast_tokens

        fast_tokens.save_fast(folder, self._ranks, _QWEN_ORDER, PATTERN, EOS)


class _Hub:
    """A Hugging Face tokenizer, fast (backed by `tokenizers`) or slow (in Python)."""

    def __init__(self, spec: str):
        self._hf = _load_hub(spec)
        missing = [name for name in SPECIALS if name not in self._hf.get_vocab()]
        if missing:
            self._hf.add_tokens(missing, special_tokens=True)
        vocabulary = self._hf.get_vocab()
        self.special = {name: vocabulary[name] for name in SPECIALS}
        self.vocab_size = max(vocabulary.values()) + 1
        self._fast = getattr(self._hf, "backend_tokenizer", None) if self._hf.is_fast else None
        if self._fast is not None:
            self._fast.encode_special_tokens = True
            self._fast.no_truncation()
            self._fast.no_padding()
        self._find_control()

    def _find_control(self) -> None:
        # Tokens the author flagged as special, and ours; added but unflagged ones (runs of blanks, say) are text.
        added = {t.content: i for i, t in self._hf.added_tokens_decoder.items() if t.special}
        added.pop(self._hf.unk_token, None)  # stands for a character that the vocabulary lacks: no control token
        added |= self.special
        self._control = frozenset(added.values())
        names = sorted(added, key=len, reverse=True)
        # Splitting after the first character breaks every control token, also one that overlaps another.
        self._inside = re.compile(
            "|".join(f"(?<={re.escape(n[0])})(?={re.escape(n[1:])})" for n in names if len(n) > 1)
        )

    def encode(self, text: str) -> list[int]:
        ids = self._encode_once(text)
        if self._control.isdisjoint(ids):
            return ids
        ids = [i for part in self._inside.split(text) for i in self._encode_once(part)]
        return [i for i in ids if i not in self._control]  # none, unless a normaliser invents a name

    def _encode_once(self, text: str) -> list[int]:
        if self._fast is not None:
            return self._fast.encode(text, add_special_tokens=False).ids
        return self._hf.convert_tokens_to_ids(self._hf.tokenize(text, split_special_tokens=True))

    def decode(self, ids: list[int]) -> str:
        ids = [i for i in ids if 0 <= i < self.vocab_size]
        return self._hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def vocabulary_digest(self) -> bytes:
        return hashlib.sha256(repr(sorted(self._hf.get_vocab().items())).encode("utf-8", "surrogatepass")).digest()

    def save(self, folder: Path) -> None:
        self._hf.save_pretrained(folder)

    save_fast = save


def _load_hub(spec: str):
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError:
        raise ValueError(
            f"{spec}: a Hugging Face tokenizer needs the package transformers: pip install transformers"
        ) from None
    path = Path(spec)
    if path.is_file() or (path.is_dir() and not (path / "tokenizer_config.json").exists()):
        file = path if path.is_file() else path / "tokenizer.json"
        if not file.exists():
            raise ValueError(f"{spec}: neither a *.tiktoken file nor a tokenizer.json in it")
        return PreTrainedTokenizerFast(tokenizer_file=str(file))
    try:
        return AutoTokenizer.from_pretrained(spec, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer {spec!r}: not a *.tiktoken file, not a folder of one, not a name: {error}"
        ) from None


def _cut_at_spaces(text: str, size: int) -> Iterable[str]:
    """Cut text into parts of about `size` characters before a space that follows a non-space, where there is one."""
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            cut = re.compile(r"(?<=\S) (?=\S)").search(text, end, min(len(text), end + size // 2))
            end = cut.start() if cut else end
        yield text[start:end]
        start = end
