"""One split of build_stage.py: choose, format, tokenise, plan, write. Pure but for reading the cleaned shards.

Two passes bound the memory: the first keeps tokens alone, the second reads the images again, pack by pack. From an
object store they come once: runs of samples, read ahead, which wait for the second pass in a temporary file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from corpus import packs
from corpus.damage import CorruptSample
from corpus.formats import BadSample, Unfit, format_sample
from corpus.languages import Language
from corpus.ledger import DROPPED, KEPT, schema
from corpus.legibility import Legibility
from corpus.packing import plan_packs
from corpus.pieces import Encoded, Encoder
from corpus.readers.names import owners_ids
from corpus.records import BadImage, EncodedImage, Sample, from_members, image_header, verify_image
from corpus.shards import IndexedShard
from corpus.splits import Sink, Split
from corpus.texts import split_text
from corpus.tokens import load_tokenizer
from pipelines.work.licensing import COLUMN
from pipelines.work.slices import Slice, SliceRow, kept_keys, read_slices

SCORES = {
    "dataset": pa.string(), "tokens": pa.int32(), "supervised": pa.int32(), "images": pa.int16(),
    "shapes_dropped": pa.int32(), "pack": pa.int32(),
    "advance": pa.float32(), "ink_height": pa.float32(),  # of an OCR sample's worst lines, at the training size
}  # fmt: skip
GROUNDING = ("grounded_caption", "referring", "region_caption")


@dataclass(frozen=True)
class Recipe:
    """What a split's bytes depend on, besides its input."""

    tokenizer: str | None
    fingerprint: str
    queries: int
    max_tokens: int  # of a pack
    max_sample_tokens: int
    max_images: int  # of a pack
    seed: int
    limit: int | None = None  # cleaned rows looked at in each slice
    languages: Mapping[str, Language] = field(default_factory=dict)  # of the datasets, beside those that ship
    legible_at: int = 0  # OCR samples must be legible when squashed to so many pixels; 0: whatever they are


@dataclass(slots=True)
class Candidate:
    """A tokenised sample that waits to be packed; `place` says where its images lie: (slice, index in its shard)."""

    key: str
    of: str  # the key without the copy's number: copies never share a pack
    row: int
    dataset: str
    place: tuple[int, int]
    encoded: Encoded
    shapes_dropped: int
    ids: list[str]  # of its images, as their owners call them
    legible: dict[str, float]  # advance and ink_height; of OCR samples
    licence: str | None = None  # its own, where its dataset's rows have such


def build_split(split: Split, sink: Sink, recipe: Recipe) -> None:
    """Turn slices of cleaned splits into packs of one task. Every cleaned row ends in the ledger, chosen or not."""
    builder = _Builder(split, sink, recipe)
    _expect(sink, split.source["slices"], recipe.limit)
    builder.read()
    builder.write()


def _expect(sink: Sink, slices: list[dict], limit: int | None) -> None:
    """Tell the sink of a split's cleaned rows, by the plan that was made from the manifests."""
    counts = [len(range(piece["start"], piece["stop"])[:limit]) for piece in slices]
    ends = np.cumsum(counts)

    def key_of(row: int) -> str:
        number = int(np.searchsorted(ends, row, "right"))
        piece = slices[number]
        return kept_keys(piece["folder"], piece["split"])[piece["start"] + row - int(ends[number]) + counts[number]]

    sink.expects(np.arange(sum(counts)), key_of)


class _Builder:
    def __init__(self, split: Split, sink: Sink, recipe: Recipe):
        self._split, self._sink, self._recipe = split, sink, recipe
        self._task = split.source["task"]
        self._encoder = Encoder(load_tokenizer(recipe.tokenizer), recipe.queries)
        self._shards: list[IndexedShard] = []
        self._candidates: list[Candidate] = []
        if self._encoder.tokenizer.fingerprint != recipe.fingerprint:
            raise ValueError(f"tokenizer {recipe.tokenizer} changed while the job ran: start again")

    def read(self) -> None:
        """Read the chosen samples of every slice, or copies of them."""
        for piece, found in read_slices(
            self._split.source["slices"], self._task, self._recipe.seed, self._recipe.limit
        ):
            if found is None:
                self._begin(piece)
            for i, data in found or ():
                self._take(piece, i, data)

    def _begin(self, piece: Slice) -> None:
        """Tell of a slice's samples that are not chosen."""
        self._shards.append(piece.shard)
        out, count = np.flatnonzero(~piece.chosen), np.count_nonzero(~piece.chosen)
        columns = {
            "key": [piece.keys[i] + piece.mark for i in out], "row": piece.first_row + out,
            "outcome": [DROPPED] * count, "rule": ["mixture"] * count, "value": piece.places[out],
            "threshold": [piece.weight - piece.copy] * count, "dataset": [piece.dataset] * count,
        }  # fmt: skip
        if count:
            self._sink.rows(pa.table(columns))

    def _take(self, piece: Slice, i: int, data: bytes) -> None:
        row = piece.row(i)
        try:
            sample = _read_sample(piece.shard, row, data)
            licence = row.licensed.of(sample) if row.licensed else None
            made = list(self._make(sample))
        except (BadSample, Unfit) as error:
            self._sink.lose(row.key + row.mark, row.row, error.verdict, dataset=row.dataset)
            return
        placed = self._task == "ocr" and any(isinstance(result, Encoded) for _, result, _ in made)
        legible = _worst_lines(sample, self._recipe.legible_at) if placed else {}
        self._sink.splits(row.row, len(made))
        for suffix, result, shapes_dropped in made:
            self._settle(row, suffix, result, shapes_dropped, _ids_of(sample), legible, licence)

    def _make(self, sample: Sample) -> Iterator[tuple[str, Encoded | Unfit, int]]:
        """Yield (key suffix, tokens or why not, shapes dropped) for the samples that a cleaned one becomes."""
        if sample.task != self._task and not (sample.task in GROUNDING and self._task in GROUNDING):
            yield "", Unfit("other_task", detail=f"a {sample.task} sample cannot serve {self._task}"), 0
        elif self._task == "text":
            parts = split_text(sample.text, self._encoder.tokenizer, self._recipe.max_sample_tokens)
            yield from ((f"-p{i}" if len(parts) > 1 else "", part, 0) for i, part in enumerate(parts))
            if not parts:
                yield "", Unfit("empty_text", 0, 1), 0
        else:
            _check_images(sample, placed=self._task in GROUNDING or self._task == "ocr")
            for result in format_sample(sample, self._task, self._recipe.languages):
                if isinstance(result, Unfit):
                    yield result.suffix, result, 0
                else:
                    yield result.suffix, self._encoder.encode(result.pieces), result.shapes_dropped

    def _settle(
        self, row: SliceRow, suffix: str, result: Encoded | Unfit, shapes_dropped: int, ids: list[str],
        legible: dict[str, float], licence: str | None,
    ) -> None:  # fmt: skip
        key, of = row.key + row.mark + suffix, row.key + suffix
        unfit = result if isinstance(result, Unfit) else self._illegible(legible) or self._too_large(result)
        if unfit is None:
            candidate = Candidate(
                key, of, row.row, row.dataset, row.place, result, shapes_dropped, ids, legible, licence,
            )  # fmt: skip
            self._candidates.append(candidate)
        else:
            self._sink.lose(key, row.row, unfit.verdict, dataset=row.dataset, **legible)

    def _illegible(self, legible: dict[str, float]) -> Unfit | None:
        if not (legible and self._recipe.legible_at):
            return None
        least, advance, ink = Legibility(self._recipe.legible_at), legible["advance"], legible["ink_height"]
        if advance < least.advance:
            return Unfit("narrow_text", advance, least.advance)
        return Unfit("low_text", ink, least.ink) if ink < least.ink else None

    def _too_large(self, encoded: Encoded) -> Unfit | None:
        if len(encoded.images) > self._recipe.max_images:
            return Unfit("too_many_images", len(encoded.images), self._recipe.max_images)
        if len(encoded.tokens) > self._recipe.max_sample_tokens:
            return Unfit("too_long", len(encoded.tokens), self._recipe.max_sample_tokens)
        return None if encoded.loss.any() else Unfit("nothing_supervised", 0, 1)

    def write(self) -> None:
        """Plan the packs and write them with their ledger rows, in the order of the packs."""
        lengths = np.array([len(c.encoded.tokens) for c in self._candidates], np.int64)
        images = np.array([len(c.encoded.images) for c in self._candidates], np.int64)
        _, groups = np.unique([c.of for c in self._candidates], return_inverse=True)
        plan = plan_packs(lengths, images, self._recipe.max_tokens, self._recipe.max_images, groups)
        order = np.argsort(plan, kind="stable")
        rows, columns = [], SCORES | (COLUMN if any(candidate.licence for candidate in self._candidates) else {})
        for number, members in enumerate(np.split(order, np.flatnonzero(np.diff(plan[order])) + 1)):
            pack = [self._candidates[i] for i in members]
            if pack:
                self._write_pack(number, pack)
                rows += [_kept_row(candidate, number) for candidate in pack]
        if rows:
            self._sink.rows(pa.Table.from_pylist(rows, schema=schema(columns)))

    def _write_pack(self, number: int, members: list[Candidate]) -> None:
        samples, images, start = [], [], 0
        for candidate in members:
            length, used = len(candidate.encoded.tokens), self._images(candidate)
            indices = list(range(len(images), len(images) + len(used)))
            entry = {"key": candidate.key, "dataset": candidate.dataset, "start": start, "length": length}
            samples.append(entry | {"images": indices} | ({"ids": candidate.ids} if candidate.ids else {}))
            images += used
            start += length
        tokens = np.concatenate([c.encoded.tokens for c in members])
        loss = np.concatenate([c.encoded.loss for c in members])
        record = packs.pack_members(self._task, samples, tokens, loss, images)
        self._sink.write_members(f"{self._split.id}/{number:06d}", record, rows=len(members))

    def _images(self, candidate: Candidate) -> list[EncodedImage]:
        if not candidate.encoded.images:
            return []
        number, index = candidate.place
        sample = from_members(self._shards[number][index][1])
        return [sample.images[i] for i in candidate.encoded.images]


def _worst_lines(sample: Sample, train_size: int) -> dict[str, float]:
    """Return the least advance and the least ink of a sample's lines after the squash, as columns of the ledger.

    The training size itself where no line needs any of it.
    """
    legibility = Legibility(train_size or Legibility.train_size)
    measured = [
        legibility.measure(line["text"], line["quad"], sample.width, sample.height)
        for line in sample.annotations["lines"]
        if line["text"]
    ]
    most = legibility.train_size
    return {
        "advance": min([most, *(advance for advance, _ in measured)]),
        "ink_height": min([most, *(ink for _, ink in measured)]),
    }


def _kept_row(candidate: Candidate, pack: int) -> dict:
    return {
        "key": candidate.key, "row": candidate.row, "outcome": KEPT, "dataset": candidate.dataset, "pack": pack,
        "tokens": len(candidate.encoded.tokens), "supervised": int(candidate.encoded.loss.sum()),
        "images": len(candidate.encoded.images), "shapes_dropped": candidate.shapes_dropped, **candidate.legible,
        **({"licence": candidate.licence} if candidate.licence else {}),
    }  # fmt: skip


def _ids_of(sample: Sample) -> list[str]:
    """Return the owners' ids of a sample's images; of a crawled one, what its address gives away."""
    ids = [identity for image in sample.images for identity in image.ids]
    return list(dict.fromkeys([*ids, *owners_ids(str(sample.source.get("url") or ""))]))


def _read_sample(shard: IndexedShard, row: SliceRow, data: bytes) -> Sample:
    try:
        key, members = shard.unpack(row.place[1], data)
        sample = from_members(members)
    except CorruptSample as error:
        raise BadSample(error.kind, str(error)) from None
    except ValueError as error:
        raise BadSample("unreadable_sample", str(error)) from None
    if sample.key != row.key:
        raise ValueError(f"{shard.path}: sample {row.place[1]} is {key}, its ledger says {row.key}: clean it again")
    return sample


def _check_images(sample: Sample, placed: bool) -> None:
    """Raise BadSample for an image that the trainer could not use; set the sample's size to the stored image's.

    `placed`: the sample has coordinates, which mean nothing where its record has another size.
    """
    for number, image in enumerate(sample.images):
        try:
            _, width, height = image_header(image.data)
            verify_image(image.data, (width, height))
        except BadImage as error:
            raise BadSample(error.kind, f"image {number}: {error}") from None
        if number == 0:
            recorded = sample.width or width, sample.height or height
            if placed and recorded != (width, height):
                raise BadSample("size_mismatch", f"{width} x {height} pixels, its record says {recorded}")
            sample.width, sample.height = width, height
