"""Captions with phrases through the text rules: cut at the spans first, clean the pieces, put them together again.

Cleaning the whole caption would move its phrases away from their offsets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cleaners import rules
from cleaners.grounding import Box, Span, join_pieces, pieces_of
from corpus.languages import Language
from corpus.rules import RAISED, RuleTable
from corpus.verdicts import ERROR, KEPT


class Grounded(NamedTuple):
    """A caption with sorted spans that are apart; or, without a caption, phrases: spans whose text is in `texts`."""

    caption: str | None
    spans: list[Span]
    texts: tuple[str, ...] = ()


def join_by_text(phrases: Iterable[tuple[str, Box]]) -> Grounded:
    """Join the boxes of one phrase: "man" said of three people is a phrase with three boxes, not three claims."""
    boxes: dict[str, tuple[str, dict[Box, None]]] = {}
    for phrase, box in phrases:
        text = " ".join(phrase.split())
        if text:
            boxes.setdefault(text.lower(), (text, {}))[1][box] = None
    spans = [Span(i, i + 1, tuple(found)) for i, (_, found) in enumerate(boxes.values())]
    return Grounded(None, spans, tuple(text for text, _ in boxes.values()))


def clean_grounded(
    rows: Sequence[Grounded], settings: Mapping[str, Mapping], language: str | Language, known: RuleTable = rules.RULES
) -> Iterator[tuple[str, list[dict], dict]]:
    """Yield (caption, regions, verdict) of each row: `settings` as for `rules.clean`, cleaners on the pieces, filters
    on the captions. Regions are {"text", "span": [start, end) of the caption or None, "boxes"}; the verdict holds
    outcome, rule, value, threshold, detail and scores, as far as any filter ran."""
    pieces = [pieces_of(row.caption, row.spans) if row.caption is not None else list(row.texts) for row in rows]
    cleaned = iter(_clean_pieces([piece for part in pieces for piece in part], settings, language, known))
    parts = [[next(cleaned) for _ in part] for part in pieces]
    mended = [_put_together(row, [text for text, _ in part]) for row, part in zip(rows, parts, strict=True)]
    verdicts = _judge([text for text, _ in mended], settings, language, known)
    for part, (text, regions), verdict in zip(parts, mended, verdicts, strict=True):
        why = next((why for _, why in part if why), None)
        yield text, regions, {"outcome": ERROR, "rule": RAISED, "detail": why} if why else verdict


def _put_together(row: Grounded, pieces: list[str]) -> tuple[str, list[dict]]:
    if row.caption is None:
        text, spans, texts = "", [None] * len(pieces), pieces
    else:
        text, spans = join_pieces(pieces)
        texts = [text[slice(*span)] if span else "" for span in spans]
    return text, [
        {"text": phrase.strip(), "span": list(span) if span else None, "boxes": [list(box) for box in kept.boxes]}
        for phrase, span, kept in zip(texts, spans, row.spans, strict=True)
        if phrase.strip()
    ]


def _clean_pieces(
    pieces: list[str], settings: Mapping, language: str | Language, known: RuleTable
) -> list[tuple[str, str | None]]:
    """Run the cleaners over pieces: (text, why a cleaner raised, if it did) of each.

    The white space around a piece belongs to the caption, and stays.
    """
    wanted = {name for name in settings if known[name].kind == "clean"}
    if not wanted or not pieces:
        return [(piece, None) for piece in pieces]
    bodies = pa.table({"text": pa.array([piece.strip() for piece in pieces], pa.string())})
    verdicts = rules.clean(bodies, settings, language=language, rules=wanted, known=known)
    after = pc.fill_null(verdicts["text_after"], "").to_pylist()
    texts = [
        " " * piece[:1].isspace() + text + " " * piece[-1:].isspace() for piece, text in zip(pieces, after, strict=True)
    ]
    whys = pc.if_else(pc.equal(verdicts["outcome"], ERROR), verdicts["detail"], None).to_pylist()
    return list(zip(texts, whys, strict=True))


def _judge(texts: list[str], settings: Mapping, language: str | Language, known: RuleTable) -> list[dict]:
    """Run the filters over whole captions; without captions there is nothing to judge."""
    wanted = {name for name in settings if known[name].kind == "filter"}
    if not wanted or not any(texts):
        return [{"outcome": KEPT, "rule": None} for _ in texts]
    table = pa.table({"text": pa.array(texts, pa.string())})
    verdicts = rules.clean(table, settings, language=language, rules=wanted, known=known)
    return verdicts.drop_columns(["text_after"]).to_pylist()
