"""How right are the rules of captions? Precision and recall per pattern and rule, over lines labelled by hand.

  python -m benchmarks.caption_rules [--data ../shared/data] [--half held-out] [--show]

`caption_labels.tsv` says of each real line what should become of it: nothing, edits of one kind each, or a rule that
drops it. Its lines fall into two halves by the hash of their text; patterns may be tuned on one of them alone.

A change that a pattern makes is right when it loses nothing that the expected text keeps. An edit is found when the
cleaned text shows all of it. White space counts as one space, and a change of spaces alone does not count.
`--show` prints what is wrong and what is missed.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.caption_lines import Line, lines
from cleaners import rules
from cleaners.text.arrays import map_rows, rows_not_ascii
from cleaners.text.html import HTML
from cleaners.text.patterns import patterns_for
from cleaners.text.removal import MAX_ROUNDS, Pattern, find_rows, rewrite

LABELS = Path(__file__).parent / "caption_labels.tsv"
HALVES = ("tuning", "held-out")
FILTERS = {"language": {}, "emoji": {}, "text_length": {}}
Piece = tuple[int, int, str]  # characters [start, end) become that text


@dataclass
class Label:
    """What should become of a line: edits of one kind each, or the rule that drops it."""

    line: Line
    edits: list[tuple[str, list[Piece]]] = field(default_factory=list)
    rule: str | None = None

    @property
    def half(self) -> str:
        return HALVES[int(self.line.digest, 16) % 2]

    def text(self, without: int | None = None) -> str:
        """Return the line after its edits, but for the one at place `without`."""
        pieces = [each for place, (_, edit) in enumerate(self.edits) if place != without for each in edit]
        text = self.line.text
        for start, end, new in sorted(pieces, reverse=True):
            text = text[:start] + new + text[end:]
        return " ".join(text.split())


@dataclass
class Counts:
    """Per kind of edit or rule: how many there are, how many of those are right or found."""

    changes: Counter = field(default_factory=Counter)
    right: Counter = field(default_factory=Counter)
    edits: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right.total() / max(1, self.changes.total())

    @property
    def recall(self) -> float:
        return self.found.total() / max(1, self.edits.total())


# --- Labels ---


def read_labels(root: Path, file: Path = LABELS) -> list[Label]:
    """Return the labels of `file` beside the lines they speak of. ValueError when a line is no longer the same."""
    known, labels = lines(root), {}
    for row in file.read_text(encoding="utf-8").splitlines()[1:]:
        key, digest, kind, edit = row.split("\t")
        if key not in known or known[key].digest != digest:
            raise ValueError(f"{file.name}: {key} is not the line that was labelled")
        label = labels.setdefault(key, Label(known[key]))
        if kind.startswith("drop:"):
            label.rule = kind.removeprefix("drop:")
        elif kind:
            label.edits.append((kind, [_piece(each) for each in edit.split(" ")]))
    return list(labels.values())


def _piece(text: str) -> Piece:
    span, _, new = text.partition("=")
    start, end = map(int, span.split("-"))
    return start, end, new.replace("␣", " ")


# --- Measuring ---


def measure(labels: Iterable[Label]) -> tuple[Counts, Counts]:
    """Return the counts of the patterns and those of the rules."""
    patterns, dropping = Counts(), Counts()
    for language in ("en", "zh"):
        here = [label for label in labels if label.line.language == language]
        if here:
            _measure_patterns(here, language, patterns)
            _measure_rules(here, language, dropping)
    return patterns, dropping


def _measure_patterns(labels: list[Label], language: str, counts: Counts) -> None:
    texts = [" ".join(label.line.text.split()) for label in labels]
    for name, place, before, after in changes(texts, language):
        expected = labels[place].text()
        right = shared(after, expected) >= shared(before, expected)
        counts.changes[name] += 1
        counts.right[name] += right
        if not right:
            counts.notes.append(f"wrong {name} {labels[place].line.key}: {before} => {after}")
    cleaned = rules.clean(pa.table({"text": texts}), {"html": {}, "patterns": {}}, language=language)["text_after"]
    for label, text in zip(labels, cleaned.to_pylist(), strict=True):
        for place, (kind, _) in enumerate(label.edits):
            found = on_the_way(text, label.text(), label.text(without=place))
            counts.edits[kind] += 1
            counts.found[kind] += found
            if not found:
                counts.notes.append(f"missed {kind} {label.line.key}: {text} <> {label.text()}")


def _measure_rules(labels: list[Label], language: str, counts: Counts) -> None:
    given = pa.table({"text": [label.line.text for label in labels]})
    found = rules.clean(given, {"html": {}, "patterns": {}} | FILTERS, language=language)["rule"].to_pylist()
    expected = pa.table({"text": [label.text() for label in labels]})
    lengths = {"emoji": {}, "text_length": {}}
    wanted = rules.clean(expected, lengths, language=language)["rule"].to_pylist()
    for label, ours, theirs in zip(labels, found, wanted, strict=True):
        theirs = label.rule or theirs
        counts.changes[ours] += ours is not None
        counts.edits[theirs] += theirs is not None
        counts.right[ours] += ours is not None and ours == theirs
        counts.found[theirs] += theirs is not None and ours == theirs
        if ours != theirs:
            counts.notes.append(f"rule {ours} instead of {theirs} {label.line.key}: {label.line.text}")


def changes(texts: list[str], language: str) -> list[tuple[str, int, str, str]]:
    """Return (pattern, row, text before, text after) for each change of more than spaces, in the order of cleaning."""
    made, column = [], pa.array(texts, pa.string())
    for _ in range(MAX_ROUNDS):
        start = column
        for pattern in (pattern for group in (HTML, *patterns_for(language)) for pattern in group):
            before, column = column, _apply(pattern, column)
            for row in np.flatnonzero(pc.not_equal(before, column).to_numpy(zero_copy_only=False)):
                old, new = before[row].as_py(), column[row].as_py()
                if "".join(old.split()) != "".join(new.split()):
                    made.append((pattern.name, int(row), " ".join(old.split()), " ".join(new.split())))
        if column.equals(start):
            break
    return made


def _apply(pattern: Pattern, texts: pa.StringArray) -> pa.StringArray:
    return map_rows(texts, find_rows(texts, pattern, rows_not_ascii(texts)), rewrite(pattern))


def on_the_way(start: str, between: str, end: str) -> bool:
    """Say whether a shortest way of insertions and deletions from `start` to `end` leads over `between`."""
    return distance(start, between) + distance(between, end) == distance(start, end)


def distance(one: str, other: str) -> int:
    """Return how many characters are inserted and deleted to make one text the other."""
    return len(one) + len(other) - 2 * shared(one, other)


def shared(one: str, other: str) -> int:
    """Return the length of the longest common subsequence (bit-parallel, Hyyrö 2004)."""
    masks: dict[str, int] = defaultdict(int)
    for place, character in enumerate(one):
        masks[character] |= 1 << place
    row = full = (1 << len(one)) - 1
    for character in other:
        matches = row & masks.get(character, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(one) - row.bit_count()


# --- Printing ---


def table(title: str, counts: Counts) -> str:
    head = [f"{title:<24}{'changes':>9}{'right':>7}{'precision':>11}{'edits':>8}{'found':>7}{'recall':>9}"]
    names = sorted(filter(None, {*counts.changes, *counts.edits}))
    rows = [
        (name, *(each[name] for each in (counts.changes, counts.right, counts.edits, counts.found))) for name in names
    ]
    totals = (each.total() for each in (counts.changes, counts.right, counts.edits, counts.found))
    return "\n".join(head + [_row(*row) for row in [*rows, ("all", *totals)] if any(row[1:])])


def _row(name: str, changes: int, right: int, edits: int, found: int) -> str:
    precision, recall = (f"{a / b:.1%}" if b else "" for a, b in ((right, changes), (found, edits)))
    return f"{name:<24}{changes:>9}{right:>7}{precision:>11}{edits:>8}{found:>7}{recall:>9}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--half", choices=HALVES, help="this half alone")
    parser.add_argument("--show", action="store_true", help="print what is wrong and what is missed")
    args = parser.parse_args()
    labels = read_labels(args.data)
    for half in [args.half] if args.half else HALVES:
        here = [label for label in labels if label.half == half]
        patterns, dropping = measure(here)
        print(f"\n{half}: {len(here):,} lines\n\n{table('pattern', patterns)}\n\n{table('rule', dropping)}")
        if args.show:
            print("", *patterns.notes, *dropping.notes, sep="\n")


if __name__ == "__main__":
    main()
