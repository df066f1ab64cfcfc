"""Rows on their way through the rules, a batch at a time."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cleaners.filters import Judged, measured
from cleaners.text.arrays import as_utf8, count_chars
from cleaners.text.removal import Groups, clean_texts
from corpus.languages import Language
from corpus.readers.pairs import SHIPPED
from corpus.rules import RAISED, isolated
from corpus.verdicts import DROPPED, ERROR, KEPT

SIZES = ("width", "height")
NO_TEXT = "no_text"  # the outcome of a caption that is null, or of which nothing is left


class Batch:
    """The columns of some pairs, the positions of those still kept, and what was found out so far."""

    def __init__(self, table: pa.Table, scores: list[str]):
        self.size = table.num_rows
        self.given = _captions(table)
        numbers = {name: _numbers(table, name) for name in (*SIZES, *SHIPPED)}
        self.columns = numbers | {"text": None if self.given is None else pc.fill_null(self.given, "")}
        self.alive = np.arange(self.size)
        self.reason = np.full(self.size, -1)  # position in `reasons`
        self.reasons: list[str] = []
        self.value, self.threshold = np.full(self.size, np.nan), np.full(self.size, np.nan)
        self.details: list[tuple[np.ndarray, pa.StringArray]] = []
        self.scores = {name: np.full(self.size, np.nan) for name in scores}

    def drop(self, reason: str, rows: np.ndarray, value, threshold, detail: pa.StringArray | None) -> None:
        if not len(rows):
            return
        self.reason[rows], self.value[rows], self.threshold[rows] = len(self.reasons), value, threshold
        self.reasons.append(reason)
        if detail is not None:
            self.details.append((rows, detail))
        self.alive = self.alive[self.reason[self.alive] < 0]

    def drop_textless(self) -> None:
        """Drop null and empty captions."""
        null = self.given.is_null().to_numpy(zero_copy_only=False)
        self._drop_empty("null caption", null)
        self._drop_empty("empty caption", ~null & (self._bytes() == 0))

    def drop_oversized(self, max_bytes: int, max_characters: float) -> None:
        """Drop megabyte captions before any cleaner spends time on them."""
        rows = self.alive[self._bytes()[self.alive] > max_bytes]
        length = count_chars(self.columns["text"].take(pa.array(rows)))
        why = pa.array(["max_characters, before cleaning"] * len(rows), pa.string())
        self.drop("text_length", rows, length, max_characters, why)

    def fail(self, rows: np.ndarray, rule: str, why: str) -> None:
        """Make rows errors: they made a rule raise."""
        self.drop(RAISED, rows, np.nan, np.nan, pa.array([f"{rule}: {why}"] * len(rows), pa.string()))

    def clean(self, rules: Sequence[str], groups: Groups) -> None:
        """Clean patterns out of the captions that are left, as `rules` have it."""
        for rows, texts, why in isolated(partial(self._cleaned, groups), self.alive):
            if why is None:
                self.columns["text"] = texts
            else:
                self.fail(rows, " and ".join(rules), why)
        self.columns.pop("beyond_ascii", None)
        self._drop_empty("empty after cleaning", self._bytes() == 0)

    def _cleaned(self, groups: Groups, rows: np.ndarray) -> pa.StringArray:
        among = np.zeros(self.size, bool)
        among[rows] = True
        return clean_texts(self.columns["text"], groups, among=among)

    def filter(self, rule, parameters: dict, language: Language) -> None:
        """Let a filter judge the rows that are left."""
        judge = partial(rule.apply or partial(measured, rule), self.columns, language=language, **parameters)
        for rows, judged, why in isolated(judge, self.alive):
            if why is None:
                self._apply(rule, rows, judged)
            else:
                self.fail(rows, rule.name, why)

    def _apply(self, rule, rows: np.ndarray, judged: Judged) -> None:
        for name, score in judged.scores.items():
            self.scores[name][rows] = score
        lost = np.flatnonzero(judged.drop)
        threshold = judged.threshold[lost] if isinstance(judged.threshold, np.ndarray) else judged.threshold
        detail = judged.detail(lost) if judged.detail is not None and len(lost) else None
        self.drop(rule.name, rows[lost], judged.value[lost], threshold, detail)

    def verdicts(self) -> pa.Table:
        """Return outcome, rule, value, threshold, detail, text_after and the scores, one row per pair."""
        kept = self.reason < 0
        outcomes = [*(ERROR if reason == RAISED else DROPPED for reason in self.reasons), KEPT]
        columns = {
            "outcome": pa.array(outcomes).take(pa.array(np.where(kept, len(self.reasons), self.reason))),
            "rule": pa.array(self.reasons, pa.string()).take(pa.array(self.reason, mask=kept)),
            "value": pa.array(self.value, from_pandas=True),
            "threshold": pa.array(self.threshold, from_pandas=True),
            "detail": self._detail_column(),
            "text_after": self._text_column(),
        }
        return pa.table(columns | {name: pa.array(score, from_pandas=True) for name, score in self.scores.items()})

    def _bytes(self) -> np.ndarray:
        return pc.binary_length(self.columns["text"]).to_numpy(zero_copy_only=False)

    def _drop_empty(self, why: str, empty: np.ndarray) -> None:
        rows = self.alive[empty[self.alive]]
        self.drop(NO_TEXT, rows, 0, 1, pa.array([why] * len(rows), pa.string()))

    def _detail_column(self) -> pa.StringArray:
        if not self.details:
            return pa.nulls(self.size, pa.string())
        rows = np.concatenate([rows for rows, _ in self.details])
        place = np.full(self.size, -1)
        place[rows] = np.arange(len(rows))
        return pa.concat_arrays([detail for _, detail in self.details]).take(pa.array(place, mask=place < 0))

    def _text_column(self) -> pa.StringArray:
        if self.given is None:
            return pa.nulls(self.size, pa.string())
        texts = self.columns["text"]
        return pc.if_else(self.given.is_valid(), texts, None) if self.given.null_count else texts


def _captions(table: pa.Table) -> pa.StringArray | None:
    if "text" not in table.column_names:
        return None
    column = table["text"].combine_chunks()
    return as_utf8(column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks))


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """Return a column as float64, NaN where null or absent; sizes that are not positive are unknown too."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    values = table[name].cast(pa.float64()).to_numpy().astype(np.float64)
    return values if name in SHIPPED else np.where(values > 0, values, np.nan)
