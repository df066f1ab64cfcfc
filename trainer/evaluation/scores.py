"""Predictions -> scores and a report with the worst cases in pictures."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from corpus.parsing import Parsed, Region, parse_text
from corpus.records import decode_image
from trainer.draw import outlines
from trainer.evaluation import metrics
from trainer.evaluation.cider import cider
from trainer.evaluation.questions import Question

WORST = 48  # cases shown per task
PICTURE_SIDE = 320  # pixels

_OF_TEXT = {
    "vqa_score": metrics.vqa_score, "exact_match": metrics.exact_match, "anls": metrics.anls,
    "relaxed_match": metrics.relaxed_match, "choice": metrics.exact_match,
}  # fmt: skip


def score_all(questions: Sequence[Question], predictions: dict[str, dict]) -> dict:
    """Return {"results": by task, dialogues with boxes apart, "each": score by question}.

    A result has metric, number, score (as a percentage; CIDEr x 100) and its 95 % interval.
    """
    results, each = {}, {}
    for task in dict.fromkeys(question.part for question in questions):
        group = [question for question in questions if question.part == task]
        found = _score_group(group, predictions)
        each |= {question.key: score for question, score in zip(group, found, strict=True)}
        low, high = (_normal_interval if group[0].metric == "cider" else metrics.interval)(found)
        results[task] = {
            "metric": group[0].metric, "questions": len(group), "score": 100 * sum(found) / len(found),
            "low": 100 * low, "high": 100 * high,
        }  # fmt: skip
    return {"results": results, "each": each}


def _score_group(group: Sequence[Question], predictions: dict[str, dict]) -> list[float]:
    if group[0].metric == "cider":
        texts = [parse_text(predictions[question.key]["answer"]).text for question in group]
        return cider(texts, [question.references for question in group])
    return [score_one(question, predictions[question.key]) for question in group]


def score_one(question: Question, record: dict) -> float:
    """Score one answer, 0 to 1. Boxes and quads are compared in pixels of the image, whose size the record holds."""
    parsed = parse_text(record["answer"])
    if question.metric in _OF_TEXT:
        return _OF_TEXT[question.metric](parsed.text.strip(), question.references)
    if question.metric == "answer_and_boxes":
        return _score_dialogue(parsed, question.references)
    found = _in_pixels(parsed, record["size"])
    if question.metric == "iou":
        boxes = [shape for _, shapes in found for shape in shapes]
        return metrics.box_match(_corners(boxes[0]) if boxes else None, question.references)
    if question.metric == "ocr":
        return metrics.ocr_match([(text, shape) for text, shapes in found for shape in shapes], question.references)
    phrases = [(text, [_corners(shape) for shape in shapes]) for text, shapes in found if shapes]
    return metrics.grounding_match(phrases, question.references)


def _score_dialogue(parsed: Parsed, references: Sequence) -> float:
    """The share of phrases with right boxes, in [0, 1000), of an answer in the right words; 0 for other words."""
    text, *regions = references
    said = [(region.text.strip(), region.boxes) for region in parsed.regions if region.boxes]
    wanted = [(phrase.strip(), boxes) for phrase, boxes, _ in regions]
    return metrics.exact_match(parsed.text, [text]) * metrics.grounding_match(said, wanted)


def _in_pixels(parsed: Parsed, size: Sequence[int]) -> list[tuple[str, list]]:
    return [(region.text.strip(), outlines(region, tuple(size))) for region in parsed.regions]


def _corners(outline) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of a box's outline."""
    return (*outline[0], *outline[2])


def _normal_interval(scores: Sequence[float]) -> tuple[float, float]:
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    half = 1.96 * (variance / len(scores)) ** 0.5
    return mean - half, mean + half


def print_scores(scores: dict) -> None:
    """Print a line per task."""
    print(f"{'task':<18}{'metric':<15}{'questions':>10}{'score':>9}   95 % interval")
    for task, r in scores["results"].items():
        span = f"{r['low']:.2f} to {r['high']:.2f}"
        print(f"{task:<18}{r['metric']:<15}{r['questions']:>10,}{r['score']:>9.2f}   {span}")
    if bad := scores.get("unusable_images"):
        print(f"without {len(bad)} questions whose images cannot be used")


Images = Callable[[Question], list[bytes]]


def write_report(path: Path, questions: Sequence[Question], predictions: dict, scores: dict, images: Images) -> None:
    """Write one static HTML file: the scores, and per task the worst answers, what was wanted, and both drawn."""
    import jinja2

    cases = {}
    for task in scores["results"]:
        group = sorted((q for q in questions if q.part == task), key=lambda q: scores["each"][q.key])
        cases[task] = [case(q, predictions[q.key], scores["each"][q.key], images(q)) for q in group[:WORST]]
    template = (Path(__file__).parent / "scores.html.jinja").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(template)
    path.write_text(page.render(scores=scores, cases=cases), encoding="utf-8")


def case(question: Question, record: dict, score: float, images: Sequence[bytes]) -> dict:
    """What a page shows of one answer: texts, pictures as data URLs, and the outlines found and wanted in pixels."""
    size = record["size"] or (1, 1)
    found = [shape for _, shapes in _in_pixels(parse_text(record["answer"]), size) for shape in shapes]
    if elsewhere := _of_other_images(question):
        found = []
    return {
        "asked": question.text or question.task.replace("_", " "), "answer": record["answer"], "score": score,
        "wanted": _wanted(question), "pictures": [_data_url(image) for image in images], "size": size,
        "found_shapes": [_points(shape) for shape in found],
        "wanted_shapes": [] if elsewhere else [_points(shape) for shape in _reference_shapes(question, size)],
    }  # fmt: skip


def _of_other_images(question: Question) -> bool:
    """Whether boxes are wanted of other images than the last, on which a page draws them."""
    last = len(question.images) - 1
    return question.metric == "answer_and_boxes" and any(image != last for _, _, image in question.references[1:])


def _wanted(question: Question) -> str:
    texts = [one if isinstance(one, str) else one[0] if isinstance(one[0], str) else "" for one in question.references]
    return " | ".join(dict.fromkeys(text for text in texts if text))


def _reference_shapes(question: Question, size: tuple[int, int]) -> list:
    if question.metric == "iou":
        return [_box_outline(box) for box in question.references]
    if question.metric == "ocr":
        return [quad for _, quad in question.references]
    if question.metric == "grounding":
        return [_box_outline(box) for _, boxes in question.references for box in boxes]
    if question.metric == "answer_and_boxes":
        boxes = [box for _, boxes, _ in question.references[1:] for box in boxes]
        return outlines(Region("", (0, 0), boxes), size)
    return [_box_outline(question.box)] if question.box else []


def _box_outline(box: Sequence[float]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _points(shape) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in shape)


def _data_url(data: bytes) -> str:
    image = decode_image(data)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
