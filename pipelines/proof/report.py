"""The report of the learning proof: scores of every model with their intervals, the curve, and answers in pictures."""

import base64
import glob
import json
from collections.abc import Sequence
from pathlib import Path

from corpus.parsing import parse_text
from trainer import plot
from trainer.evaluation.predictions import images_of, read_predictions
from trainer.evaluation.questions import load_shards
from trainer.evaluation.scores import case
from trainer.progress import read_metrics

VARIANTS_FILE = "variants.json"  # what benchmarks/learning.py found, where it has run
EXAMPLES = 16  # answers shown of each task: the first, whatever they are
WHAT = {
    "caption": "the caption, word for word", "grounded_caption": "phrases named, with boxes of IoU 0.5",
    "referring": "a box of IoU 0.5", "region_caption": "the phrase, word for word", "vqa": "the answer, word for word",
    "ocr": "characters read right at the right place", "chat": "the last answer, word for word",
    "chat with boxes": "the last answer, word for word, with boxes of IoU 0.5 in the right picture",
}  # fmt: skip


def write_report(out: Path, runs: dict[str, str], learned: Sequence[str]) -> bool:
    """Write OUT/report.html, scores.json and convergence.png; print the scores.

    `runs` are folders in `out` by name, `learned` those of the proof, in order; all others are baselines. Return
    whether on every task some stage's interval lies above those of all baselines.
    """
    scores = {name: json.loads((out / folder / "scores/scores.json").read_text())["results"]
              for name, folder in runs.items()}  # fmt: skip
    rows = compare(scores, [name for name, folder in runs.items() if folder in learned])
    (out / "scores.json").write_text(json.dumps({"runs": scores, "tasks": rows}, indent=1))
    print_table(scores, rows)
    curves = [(f"stage {i}", read_metrics(out / folder)) for i, folder in enumerate(learned, 1)]
    plot.draw(curves, out / "convergence.png")
    _write_page(out, scores, rows, _examples(out, out / learned[-1] / "scores"))
    return all(row["beats"] for row in rows.values())


def compare(scores: dict[str, dict], learned: Sequence[str]) -> dict[str, dict]:
    """Say for each task whether the best learned interval lies wholly above every baseline's, and by which stage."""
    rows = {}
    for task in scores[learned[-1]]:
        best = max(learned, key=lambda name: scores[name][task]["low"])
        bar = max(scores[name][task]["high"] for name in scores if name not in learned)
        rows[task] = {"best": best, "bar": bar, "beats": scores[best][task]["low"] > bar}
    return rows


def print_table(scores: dict[str, dict], rows: dict[str, dict]) -> None:
    """Print a line per task: score and 95 % interval of every model, and whether the baselines are beaten."""
    width = max(map(len, scores)) + 2
    for task, row in rows.items():
        print(f"\n{task}: {WHAT.get(task, '')}, % of {scores[row['best']][task]['questions']}")
        for name, results in scores.items():
            r = results[task]
            print(f"  {name:<{width}}{r['score']:>6.1f}   ({r['low']:.1f} to {r['high']:.1f})")
        print("  beats both baselines" if row["beats"] else "  DOES NOT BEAT THE BASELINES")


def _examples(out: Path, folder: Path) -> dict[str, list[dict]]:
    """The first answers of each task, as trainer.evaluation.scores shows them."""
    answers = read_predictions([folder / "predictions-000-of-001.jsonl"])
    each = json.loads((folder / "scores.json").read_text())["each"]
    shown: dict[str, list[dict]] = {}
    for question in load_shards(sorted(glob.glob(str(out / "val/*/*.tar")))):
        cards = shown.setdefault(question.part, [])
        if len(cards) < EXAMPLES:
            pictures, _ = images_of(question, None)
            card = case(question, answers[question.key], each[question.key], pictures)
            cards.append(card | {"answer": _readable(card["answer"])})
    return shown


def _readable(answer: str) -> str:
    """An answer without its coordinates, which are drawn."""
    return parse_text(answer).text.strip() or "(a box)"


def _write_page(out: Path, scores: dict, rows: dict, examples: dict) -> None:
    import jinja2

    template = (Path(__file__).parent / "report.html.jinja").read_text(encoding="utf-8")
    curve = base64.b64encode((out / "convergence.png").read_bytes()).decode()
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(template)
    found = out / VARIANTS_FILE
    variants = json.loads(found.read_text()) if found.exists() else {}
    html = page.render(scores=scores, rows=rows, examples=examples, what=WHAT, curve=curve, variants=variants)
    (out / "report.html").write_text(html, encoding="utf-8")
