"""Readers of pure text: one document per line (Wikipedia dumps), per row of jsonl, csv or parquet, or per file."""

from collections.abc import Mapping

from corpus.readers.rows import BadRow, TextRow

_USUAL_COLUMNS = ("text", "content", "raw_content", "document")


def document(record, columns: Mapping[str, str]) -> TextRow | BadRow:
    """Read one document: a line as it is, or `columns["text"]` of a row (by default the first usual name it has)."""
    if isinstance(record, str):
        return TextRow(text=record)
    if not isinstance(record, dict):
        return BadRow("bad_record", f"neither a line nor an object: {str(record)[:120]}")
    name = columns.get("text") or next((name for name in _USUAL_COLUMNS if name in record), None)
    text = record.get(name)
    if not isinstance(text, str):
        return BadRow("no_text", f"column {name!r} holds {type(text).__name__}; columns: {', '.join(record)}"[:200])
    source = {key: record[key] for key in ("id", "url", "title", "source") if isinstance(record.get(key), (str, int))}
    return TextRow(text=text, source=source)
