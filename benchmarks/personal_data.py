"""How right are the rules of personal data? Precision and recall per kind, over lines labelled by hand.

  python -m benchmarks.personal_data [--data ../shared/data] [--show]

Two sets. `personal_made.tsv`: made-up lines with what is to be found in <KIND|...>, among them twins with one wrong
digit; the numbers are those that banks, states and phone companies print in examples. Real lines, which stay where they
are: `personal_labels.tsv` has the key and place of all that one person found in the 29,921 lines of
benchmarks/caption_lines.py, reading every line with seven digits or an @.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.caption_lines import lines
from cleaners.personal import KINDS, found

HERE = Path(__file__).parent
MADE, LABELS = HERE / "personal_made.tsv", HERE / "personal_labels.tsv"
_MARK = re.compile(r"<(\w+)\|([^>]*)>")


@dataclass
class Labelled:
    """A line, its language, and (kind, words) of all personal data in it."""

    key: str
    language: str
    text: str
    holds: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Counts:
    """Per kind: what is there, what was found, what of that is right."""

    there: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    right: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def made(file: Path = MADE) -> Iterator[Labelled]:
    """Yield the made-up lines."""
    for number, row in enumerate(file.read_text(encoding="utf-8").splitlines()):
        language, text = row.split("\t")
        holds = [(match[1], match[2]) for match in _MARK.finditer(text)]
        yield Labelled(f"made:{number}", language, _MARK.sub(r"\2", text), holds)


def real(root: Path, file: Path = LABELS) -> Iterator[Labelled]:
    """Yield the real lines with their labels. ValueError when a labelled line is no longer the same."""
    told = defaultdict(list)
    for row in file.read_text(encoding="utf-8").splitlines()[1:]:
        key, digest, kind, span = row.split("\t")
        told[key].append((digest, kind, *map(int, span.split("-"))))
    for key, line in lines(root).items():
        if any(digest != line.digest for digest, *_ in told[key]):
            raise ValueError(f"{file.name}: {key} is not the line that was labelled")
        yield Labelled(key, line.language, line.text, [(kind, line.text[a:b]) for _, kind, a, b in told[key]])


def measure(labelled: Iterable[Labelled]) -> Counts:
    """Count what the rules find; right is what says the same words of the same kind."""
    counts = Counts()
    for line in labelled:
        there, ours = Counter(line.holds), Counter(found(line.text, line.language))
        for name, kinds in (("there", there), ("found", ours), ("right", there & ours)):
            getattr(counts, name).update(kind for kind, _ in kinds.elements())
        if there != ours:
            counts.notes.append(
                f"{line.key}: missed {list(there - ours)}, wrong {list(ours - there)}: {line.text[:120]}"
            )
    return counts


def table(title: str, counts: Counts) -> str:
    rows = [f"{title:<20}{'there':>7}{'found':>7}{'right':>7}{'precision':>11}{'recall':>9}"]
    for kind in KINDS:
        there, ours, right = (each[kind] for each in (counts.there, counts.found, counts.right))
        if there or ours:
            shares = (f"{right / n:.1%}" if n else "" for n in (ours, there))
            rows.append(f"{kind:<20}{there:>7}{ours:>7}{right:>7}{next(shares):>11}{next(shares):>9}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--show", action="store_true", help="print what is wrong and what is missed")
    args = parser.parse_args()
    sets = {"made-up lines": made()} | ({"real lines": real(args.data)} if args.data.is_dir() else {})
    for title, labelled in sets.items():
        counts = measure(labelled)
        print(f"\n{table(title, counts)}")
        if args.show:
            print("", *counts.notes, sep="\n")


if __name__ == "__main__":
    main()
