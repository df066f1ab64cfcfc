"""How right is the rule `other_language`? What it finds and what it loses, by threshold, over lines labelled by hand.

  python -m benchmarks.language_lines [--data ../shared/data] [--show]

Two sets. `language_made.tsv`: made-up captions, each with its language, among the English ones many names. Real lines,
which stay where they are: alternative texts and lines of web pages that all other text rules keep as English. A person
read them all; `language_labels.tsv` has those in another language, and as `mixed` those in two or of names alone, which
do not count. Besides, what is lost of captions, phrases and questions by people who wrote English.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from benchmarks.caption_lines import lines
from cleaners import rules
from cleaners.identify import odds

HERE = Path(__file__).parent
MADE, LABELS = HERE / "language_made.tsv", HERE / "language_labels.tsv"
LABELLED = ("web", "alt_en", "node_en")
WRITTEN = ("coco", "refcoco", "textvqa", "pages")  # in English, by whoever wrote them
LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
KEPT_BY = {"html": {}, "patterns": {}, "language": {}, "emoji": {}, "text_length": {}}


class Judged(NamedTuple):
    """A line: from where, its language, its text, its odds of being English."""

    source: str
    language: str
    text: str
    odds: float


def made(file: Path = MADE) -> Iterator[Judged]:
    """Yield the made-up captions."""
    for row in file.read_text(encoding="utf-8").splitlines():
        language, text = row.split("\t")
        yield Judged("made-up", language, text, odds(text, ["en"])[0])


def real(root: Path, sources: tuple[str, ...] = LABELLED + WRITTEN, file: Path = LABELS) -> Iterator[Judged]:
    """Yield the real lines that other rules keep. ValueError when a labelled line is no longer the same."""
    labels = dict(_labels(file))
    found = {key: line for key, line in lines(root).items() if key.partition(":")[0] in sources}
    cleaned = rules.clean(pa.table({"text": [line.text for line in found.values()]}), KEPT_BY, language="en")
    kept = zip(found.items(), cleaned["outcome"].to_pylist(), cleaned["text_after"].to_pylist(), strict=True)
    for (key, line), outcome, text in kept:
        digest, language = labels.get(key, (line.digest, "en"))
        if digest != line.digest:
            raise ValueError(f"{file.name}: {key} is not the line that was labelled")
        if outcome == "kept" and language != "mixed":
            source = key.partition(":")[0]
            text = text or line.text
            yield Judged("web" if source in LABELLED else source, language, text, odds(text, ["en"])[0])


def _labels(file: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for row in file.read_text(encoding="utf-8").splitlines()[1:]:
        key, digest, language = row.split("\t")
        yield key, (digest, language)


def counts(judged: list[Judged], limit: float) -> tuple[int, int, int, int]:
    """Return (foreign lines found, foreign lines, English lines lost, English lines)."""
    foreign, english = ([each for each in judged if (each.language == "en") == own] for own in (False, True))
    found, lost = (sum(each.odds < limit for each in group) for group in (foreign, english))
    return found, len(foreign), lost, len(english)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--show", action="store_true", help="print what is lost and what is missed at the default")
    args = parser.parse_args()
    judged = [*made(), *real(args.data)]
    for source in dict.fromkeys(each.source for each in judged):
        here = [each for each in judged if each.source == source]
        print(f"\n{source:<10}{'limit':>8}{'found':>8}{'foreign':>9}{'lost':>6}{'English':>9}")
        for limit in LIMITS:
            found, foreign, lost, english = counts(here, limit)
            print(f"{'':<10}{limit:>8}{found:>8}{foreign:>9}{lost:>6}{english:>9}")
    if args.show:
        limit = rules.RULES["other_language"].defaults["min"]
        wrong = [each for each in judged if (each.language != "en") != (each.odds < limit)]
        print("", *(f"{each.source} {each.language} {each.odds:.4f}: {each.text}" for each in wrong), sep="\n")


if __name__ == "__main__":
    main()
