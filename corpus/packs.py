"""Packs, the records of a stage shard, and a stage folder read by random access.

A pack is a sequence of at most `max_tokens` tokens made of whole samples of one task. Its members: `json` (task, and
per sample key, dataset, start, length and the indices of its images), `tokens.npy` (int32 [L]), `loss.npy` (bool [L])
and the original images `000.jpg`, `001.png`, ...

`loss[i]` is true where token i is supervised as a TARGET, predicted from token i - 1. It is never true at the first
token of a sample: under an attention mask that isolates samples nothing predicts it, and with attention over the whole
pack the last token of the sample before would have to guess what comes next. Nor inside an image slot, a prompt or
a role name. An image slot is `<img>`, `queries` times `<imgpad>`, `</img>`, in the order of the pack's images.
"""

import functools
import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np

from corpus.blocks import BlockCache, Fetchers
from corpus.cached_shard import CachedShard, block_begin
from corpus.damage import Damaged, how_to_mend
from corpus.folder import digest
from corpus.order import BLOCK, ORDERS
from corpus.records import IMAGE_EXTENSIONS, EncodedImage
from corpus.remote import get, is_local
from corpus.seals import read_sealed, sealed
from corpus.shards import IndexedShard
from corpus.tokens import Tokenizer, load_tokenizer

CORPUS = "corpus.json"
TOKENIZER = "tokenizer"  # the folder inside a stage folder that holds a copy of the tokenizer
FORMAT = 1
COUNTED = ("packs", "samples", "tokens", "supervised", "images")
_OPEN_SHARDS = 64
_FETCHERS, _ASKED = 4, 256  # threads of a process that fetch blocks ahead, and blocks that may wait for them


class WrongCorpus(ValueError):
    """A stage folder that is not what it is taken for; the message says what differs and what to do."""


@dataclass
class Pack:
    """One pack. `samples`: dicts with `key`, `dataset`, `start`, `length` (tokens) and `images` (indices)."""

    key: str
    task: str
    tokens: np.ndarray  # int32 [L]
    loss: np.ndarray  # bool [L]
    samples: list[dict]
    images: list[bytes]


def pack_members(
    task: str, samples: Sequence[dict], tokens: np.ndarray, loss: np.ndarray, images: Iterable[EncodedImage]
) -> list[tuple[str, bytes]]:
    """Return a pack's WebDataset members as (extension, bytes)."""
    record = json.dumps({"task": task, "samples": list(samples)}, ensure_ascii=False, separators=(",", ":"))
    arrays = [("tokens.npy", _npy(tokens.astype("<i4"))), ("loss.npy", _npy(loss.astype(bool)))]
    return [("json", record.encode()), *arrays, *((f"{i:03d}.{im.ext}", im.data) for i, im in enumerate(images))]


def pack_from_members(key: str, members: dict[str, bytes]) -> Pack:
    """Rebuild a pack from its members by extension. Raises ValueError when one is missing or broken."""
    try:
        record = json.loads(members["json"])
        tokens, loss = (np.load(io.BytesIO(members[name]), allow_pickle=False) for name in ("tokens.npy", "loss.npy"))
        names = sorted(name for name in members if name.rpartition(".")[2] in IMAGE_EXTENSIONS)
        return Pack(key, record["task"], tokens, loss, record["samples"], [members[name] for name in names])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{key} is no pack: {type(error).__name__}: {error}; it has {sorted(members)}") from None


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


class StageFolder:
    """A stage's shards as one sequence of packs: `len(stage)`, `stage[i]`, and the order in which training sees them.

    Attributes, from `corpus.json`: `stage` (1, 2, 3), `queries`, `max_tokens`, `max_images`, `tasks` (task -> counts),
    `num_packs`, `num_samples`, `mean_samples_per_pack`, `tokenizer_fingerprint`, `digest` (of all shards' bytes and of
    what they mean), `tokenizer_path`. It can be pickled and used in loader workers. `cache`: where blocks of packs are
    kept when the folder lies in an object store.
    """

    def __init__(self, path: str, cache: BlockCache | None = None):
        self.path = str(path).rstrip("/")
        self.record = read_corpus(self.path)
        self.stage, self.queries = self.record["stage"], self.record["queries"]
        self.max_tokens, self.max_images = self.record["max_tokens"], self.record["max_images"]
        self.tasks = self.record["tasks"]
        self.num_packs, self.num_samples = self.record["packs"], self.record["samples"]
        self.mean_samples_per_pack = self.num_samples / self.num_packs if self.num_packs else 0.0
        self.tokenizer_fingerprint = self.record["tokenizer"]["fingerprint"]
        self.digest = self.record["digest"]
        self.tokenizer_path = f"{self.path}/{TOKENIZER}"
        self._shards = self.record["shards"]
        self._ends = np.cumsum([shard["packs"] for shard in self._shards], dtype=np.int64)
        self._open: OrderedDict[int, IndexedShard] = OrderedDict()
        self._fs = fsspec.core.url_to_fs(self.path)[0]  # held: a forked worker must not close the connections of others
        self._cache = None if is_local(self._fs) else cache
        self._fetchers: Fetchers | None = None

    def __len__(self) -> int:
        return self.num_packs

    def __getitem__(self, i: int) -> Pack:
        """Return pack `i`, 0 <= i < len(self).

        Raises CorruptSample where the pack alone is damaged; Damaged or WrongCorpus, naming the file, for a shard.
        """
        shard, inside = self._place(i)
        return pack_from_members(*self._shard(shard)[inside])

    def where(self, i: int) -> str:
        """Name the place of pack `i`: its shard, and its number in it."""
        shard, inside = self._place(i)
        return f"{self._shards[shard]['id']}.tar sample {inside}"

    def _place(self, i: int) -> tuple[int, int]:
        if not 0 <= i < self.num_packs:
            raise IndexError(f"{self.path}: pack {i} of {self.num_packs}")
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return shard, i - self._first(shard)

    def index(self, seed: int, consumed: int, order: str = "packs") -> int:
        """Return which pack is read after `consumed` others (0, 1, 2, ... over all epochs). Pure, O(1).

        Every epoch is a permutation of all packs and depends only on (self.digest, seed, epoch) and `order`, a name of
        corpus.order.ORDERS.
        """
        if not self.num_packs:
            raise WrongCorpus(f"{self.path} holds no packs: build the stage from data that has some")
        epoch, position = divmod(consumed, self.num_packs)
        return ORDERS[order](position, self.num_packs, f"{self.digest}/{seed}/{epoch}")

    def order(self, seed: int, epoch: int, n: int | None = None) -> list[int]:
        """Return the first `n` pack indices of an epoch (all of them by default)."""
        start = epoch * self.num_packs
        return [self.index(seed, start + i) for i in range(self.num_packs if n is None else min(n, self.num_packs))]

    def expect(self, packs: Iterable[int]) -> None:
        """Have the blocks of these packs fetched into the cache, by threads, where there is a cache."""
        if self._cache is None:
            return
        if self._fetchers is None or self._fetchers.process != os.getpid():
            self._fetchers = Fetchers(_FETCHERS, _ASKED)
        for shard, inside in map(self._place, packs):
            name = f"{self._block_name(shard)}-{block_begin(inside, BLOCK, self._first(shard))}"
            if not self._cache.holds(name):
                self._fetchers.ask(name, functools.partial(self._have, self._cache, shard, inside))

    def _have(self, cache: BlockCache, shard: int, inside: int) -> None:
        self._cached_shard(cache, shard).have(inside)  # of the thread's own: the index is on the node's disk

    def forget(self) -> None:
        """Remove the corpus's blocks from the cache."""
        if self._cache is not None:
            self._cache.clear(self.digest[:16])

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer that the folder was made with, from the folder's own copy."""
        tokenizer = load_tokenizer(self.tokenizer_path)
        self.require(tokenizer=tokenizer)
        return tokenizer

    def require(self, *, queries: int | None = None, tokenizer: Tokenizer | None = None) -> None:
        """Raise WrongCorpus when a model with `queries` or a tokenizer cannot use these packs."""
        if queries not in (None, self.queries):
            raise WrongCorpus(
                f"{self.path} was built with --queries {self.queries}, the model has {queries}: "
                f"build the stage again with --queries {queries}, or choose a model with {self.queries}"
            )
        if tokenizer is not None and tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise WrongCorpus(
                f"{self.path} was made with another tokenizer (fingerprint {self.tokenizer_fingerprint}, here "
                f"{tokenizer.fingerprint}): use the one in {self.tokenizer_path}, or build the stage again"
            )

    def _shard(self, number: int) -> IndexedShard:
        if number not in self._open:
            self._open[number] = self._checked_shard(number)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _checked_shard(self, number: int) -> IndexedShard:
        entry = self._shards[number]
        if self._cache is None:
            self._refuse_another(entry)
            shard = IndexedShard(f"{self.path}/{entry['id']}.tar")
        else:
            shard = self._cached_shard(self._cache, number)
        if len(shard) != entry["packs"]:
            where = f"{self.path}/{entry['id']}"
            raise WrongCorpus(f"{where}.idx lists {len(shard)} packs, {CORPUS} {entry['packs']}: build the stage again")
        return shard

    def _cached_shard(self, cache: BlockCache, number: int) -> CachedShard:
        entry = self._shards[number]
        path, admit = f"{self.path}/{entry['id']}.tar", functools.partial(self._refuse_another, entry)
        return CachedShard(path, cache, self._block_name(number), BLOCK, self._first(number), admit)

    def _refuse_another(self, entry: dict) -> None:
        path = f"{self.path}/{entry['id']}"
        try:
            digest_of_tar = json.loads(_read(f"{path}.json"))["files"]["tar"]
        except (ValueError, TypeError, KeyError) as error:
            raise Damaged(f"{path}.json is damaged ({error}): {how_to_mend(path)}") from None
        if digest_of_tar != entry["sha256"]:
            raise WrongCorpus(
                f"{path}.tar is not the shard that {self.path}/{CORPUS} lists (another tokenizer, other data or "
                "another run): run build_stage.py again with the settings of this folder"
            )

    def _block_name(self, shard: int) -> str:
        return f"{self.digest[:16]}-{self._shards[shard]['id']}"

    def _first(self, shard: int) -> int:
        return int(self._ends[shard]) - self._shards[shard]["packs"]

    def __getstate__(self):
        return self.__dict__ | {"_open": OrderedDict(), "_fetchers": None}


def read_corpus(path: str) -> dict:
    """Read a stage folder's `corpus.json`. Raises WrongCorpus when there is none, or one of another format."""
    try:
        record = read_sealed(
            _read(f"{path}/{CORPUS}"), f"{path}/{CORPUS}", "run build_stage.py again; it is written last"
        )
    except FileNotFoundError:
        raise WrongCorpus(
            f"{path} is no finished stage folder: it has no {CORPUS}; build_stage.py writes it last"
        ) from None
    if record.get("format") != FORMAT:
        raise WrongCorpus(
            f"{path}/{CORPUS} has format {record.get('format')}, this code reads {FORMAT}: build it again"
        )
    return record


def write_corpus(record: dict) -> bytes:
    """Return the content of `corpus.json`."""
    return json.dumps(sealed(record), indent=1, ensure_ascii=False).encode()


def corpus_digest(record: dict) -> str:
    """Return the digest of a corpus: all its shards' bytes and what is needed to understand them."""
    shards = [[shard["id"], shard["packs"], shard["sha256"]] for shard in record["shards"]]
    return digest([FORMAT, record["queries"], record["tokenizer"]["fingerprint"], shards])


def padding(tokens: int, packs: int, max_tokens: int) -> float:
    """Return the share of padding were every pack filled up to `max_tokens`."""
    return round(1 - tokens / (packs * max_tokens), 6) if packs else 0.0


def _read(url: str) -> bytes:
    fs, path = fsspec.core.url_to_fs(url)
    return get(fs, path)
