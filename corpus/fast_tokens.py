"""Ranks of byte-level BPE (a tiktoken file) as a Hugging Face tokenizer, for folders that transformers loads.

The ranks become merges, as in transformers' own conversion: each token is the merge of the two parts that the earlier
ranks make of its bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path


def save_fast(folder: Path, ranks: Mapping[bytes, int], specials: Sequence[str], pattern: str, end: str) -> None:
    """Write tokenizer.json and tokenizer_config.json: `ranks`, then `specials`; `pattern` splits words, text is NFC.
    `end` ends a text, and pads."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    written = {token: "".join(_LETTERS[byte] for byte in token) for token in ranks}
    pairs = (_pair(token, ranks) for token in sorted(ranks, key=ranks.__getitem__))
    merges = [(written[pair[0]], written[pair[1]]) for pair in pairs if len(pair) == 2]
    vocabulary = {written[token]: rank for token, rank in ranks.items()}
    fast = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))  # a whole word that has a rank is that token
    fast.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    fast.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=end, pad_token=end).save_pretrained(folder)


def _pair(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Return what the ranks before the token's own make of its bytes: two parts, unless nothing ever merges to it."""
    parts, own = [bytes([byte]) for byte in token], ranks[token]
    while len(parts) > 1:
        joined = [ranks.get(a + b, own) for a, b in zip(parts, parts[1:], strict=False)]
        lowest = min(joined)
        if lowest >= own:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _letters() -> dict[int, str]:
    """Return GPT-2's letter for each byte: itself where it can be printed, else one from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


_LETTERS = _letters()
