"""Pairs with their images through the rules: samples to the shard, one ledger row for every pair."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from cleaners import rules
from corpus.catalog import Dataset
from corpus.ledger import DROPPED, ERROR, KEPT
from corpus.readers import pairs
from corpus.readers.pairs import Pair
from corpus.readers.rows import BadRow
from corpus.records import BadImage, EncodedImage, Sample, verify_image
from corpus.splits import Sink, Split
from pipelines.engine.thumbnails import Thumbnails
from pipelines.work.clip_rule import ClipRule
from pipelines.work.datasets import rules_of


class PairCleaner:
    """Runs the rules over the batches of one split and gives every pair to the sink."""

    def __init__(self, split: Split, sink: Sink, dataset: Dataset, decode: bool, scorer: ClipRule | None):
        self._split, self._sink, self._dataset, self._decode = split, sink, dataset, decode
        self._scorer, self._thumbnails = scorer, Thumbnails()
        self._known = rules_of(dataset)
        self._seen: set[str] = set()
        self._rows = 0

    def clean(self, batch: list[Pair]) -> None:
        """Judge a batch and write its samples and ledger rows."""
        self._rows += len(batch)
        for pair in batch:
            self._seen.add(pair.source.get("key", ""))
            pair.key = self._key(pair.row)
            self._sink.passes(pair.row, pair.columns)
        whole = [pair for pair in batch if pair.problem is None]
        verdicts = rules.clean(
            _rule_table(whole), self._dataset.rules, language=self._dataset.spoken, known=self._known
        )
        if self._scorer:
            verdicts = self._scorer.judge(whole, verdicts)
        kept = pc.equal(verdicts["outcome"], KEPT).to_pylist()
        texts = verdicts["text_after"].to_pylist()
        if self._decode:
            for pair, is_kept in zip(whole, kept, strict=True):
                if is_kept:
                    _decode(pair)
        for pair, is_kept, text in zip(whole, kept, texts, strict=True):
            if is_kept and pair.problem is None:
                self._sink.write(self._sample(pair, text), pair.row)
        self._record(batch, whole, verdicts)

    def lose(self, lost: BadRow) -> None:
        """Record the rows of a damaged part of a table, which follow those that were cleaned."""
        row = self._split.source["first_row"] + self._rows
        self._sink.unreadable(self._key(row), row, lost.rows, lost.detail)
        self._rows += lost.rows

    def account_for_sidecar(self) -> None:
        """Record the rows that img2dataset's parquet lists and the tar does not hold."""
        lost = pairs.lost_downloads(self._split.source["url"], self._seen)
        for row, (name, kind, detail) in enumerate(lost, start=self._rows):
            record = self._sink.drop if kind == "not_downloaded" else self._sink.error
            record(self._key(row), row, kind, detail=detail, source_key=pairs.found_key(name))

    def _key(self, row: int) -> str:
        return f"{self._dataset.name}/{self._split.id}/{row:06d}"

    def _sample(self, pair: Pair, text: str) -> Sample:
        scores = {"clip": pair.clip_score} if pair.clip_score is not None else {}
        return Sample(
            key=pair.key, dataset=self._dataset.name, task="caption", language=self._dataset.language, text=text,
            width=pair.width, height=pair.height, images=[EncodedImage(pair.image, pair.ext)], scores=scores,
            source={**pair.source, "row": pair.row},
        )  # fmt: skip

    def _record(self, batch: list[Pair], whole: list[Pair], verdicts: pa.Table) -> None:
        rows = _ledger_rows(whole, verdicts)
        broken = [pair for pair in batch if pair.problem is not None]
        if broken:
            undecodable = pa.array([pair.problem is not None for pair in whole], pa.bool_())
            rows = rows.filter(pc.invert(undecodable))
            rows = pa.concat_tables([rows, _error_rows(broken)], promote_options="default").sort_by("row")
        images = {pair.row: pair.image for pair in batch}
        rows = rows.append_column("thumbnail", pa.array(self._shown(rows, images), pa.binary()))
        self._sink.rows(rows)

    def _shown(self, rows: pa.Table, images: dict) -> Iterator[bytes | None]:
        for outcome, rule, row in zip(*(rows[name].to_pylist() for name in ("outcome", "rule", "row")), strict=True):
            yield self._thumbnails.of(rule, images[row] or None) if outcome == DROPPED else None


def _decode(pair: Pair) -> None:
    try:
        verify_image(pair.image)
    except BadImage as error:
        pair.problem, pair.detail = error.kind, str(error)


def _rule_table(batch: list[Pair]) -> pa.Table:
    return pa.table(
        {
            "text": pa.array([pair.text for pair in batch], pa.string()),
            "width": pa.array([pair.width for pair in batch], pa.int32()),
            "height": pa.array([pair.height for pair in batch], pa.int32()),
            **{name: pa.array([getattr(pair, name) for pair in batch], pa.float64()) for name in pairs.SHIPPED},
        }
    )


def _ledger_rows(batch: list[Pair], verdicts: pa.Table) -> pa.Table:
    keys = pa.array([pair.key for pair in batch], pa.string())
    rows = pa.array([pair.row for pair in batch], pa.int64())
    before = pa.array([pair.text for pair in batch], pa.string())
    verdicts = verdicts.append_column("source_key", _source_keys(batch))
    return with_texts(verdicts.add_column(0, "key", keys).add_column(1, "row", rows), before)


def _source_keys(batch: list[Pair]) -> pa.Array:
    return pa.array([pair.source.get(pairs.KEY_COLUMN) or pair.source.get("key") for pair in batch], pa.string())


def with_texts(verdicts: pa.Table, before: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Keep both texts where a cleaner changed them, and the caption of every row that was dropped."""
    changed = pc.fill_null(pc.not_equal(before, verdicts["text_after"]), False)
    telling = pc.or_(changed, pc.not_equal(verdicts["outcome"], KEPT))
    after = pc.if_else(changed, verdicts["text_after"], None)
    table = verdicts.drop_columns(["text_after"])
    return table.append_column("text_before", pc.if_else(telling, before, None)).append_column("text_after", after)


def _error_rows(broken: list[Pair]) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([pair.key for pair in broken], pa.string()),
            "row": pa.array([pair.row for pair in broken], pa.int64()),
            "source_key": _source_keys(broken),
            "outcome": pa.array([ERROR] * len(broken), pa.string()),
            "rule": pa.array([pair.problem for pair in broken], pa.string()),
            "detail": pa.array([f"{pair.detail} [{pair.source.get('key', '')}]"[:500] for pair in broken], pa.string()),
            "text_before": pa.array([pair.text for pair in broken], pa.string()),
        }
    )
