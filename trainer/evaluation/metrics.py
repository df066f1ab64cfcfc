"""The metrics of Qwen-VL's Table 9 on one answer: pure functions of texts and boxes, 0 to 1. CIDEr is in `cider`.

Sources: VQA score, visualqa.org/evaluation.html; ANLS, Biten et al. 2019, as the Robust Reading Competition computes
it; relaxed exact match, Methani et al. 2020 (PlotQA) and Masry et al. 2022 (ChartQA).
"""

import re
from collections.abc import Sequence

from corpus.geometry import iou

ANLS_THRESHOLD, RELAXED_TOLERANCE, IOU_THRESHOLD = 0.5, 0.05, 0.5

_NUMBERS = dict(zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True))  # noqa: SIM905
_NUMBERS["none"] = "0"
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official script calls `sub(text, re.UNICODE)`, where the flag, 32, stands in the place of the count.
_FULL_STOPS = int(re.UNICODE)
# The official table repairs a word that lacks ONE apostrophe of these.
_WITH_APOSTROPHES = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've "
    "you'll you're you've"
)
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _WITH_APOSTROPHES.split() for i, c in enumerate(word) if c == "'"
} | {"somebody'd": "somebodyd"}  # the official table has this one the wrong way round


def normalise_answer(answer: str) -> str:
    """Normalise as the official VQA evaluation does: punctuation, numerals, articles, contractions."""
    text = answer
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_space or _COMMA_IN_NUMBER.search(answer) else " ")
    text = _FULL_STOP.sub("", text, count=_FULL_STOPS)
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_score(prediction: str, answers: Sequence[str]) -> float:
    """Return min(matching answers / 3, 1), averaged over leaving out each of the (ten) annotators once.

    Answers that agree to the letter are compared without normalising them, as the official evaluation does.
    """
    prediction, answers = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = normalise_answer(prediction), [normalise_answer(answer) for answer in answers]
    matches = [answer == prediction for answer in answers]
    return sum(min(1, (sum(matches) - own) / 3) for own in matches) / len(matches)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 when the prediction is one of the answers, but for case and blanks at the ends."""
    return float(prediction.strip().lower() in [answer.strip().lower() for answer in answers])


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Return the normalised Levenshtein similarity to the nearest answer, 0 below the threshold."""
    found = " ".join(prediction.lower().split())
    # The official script measures lengths before it squeezes the blanks.
    best = min(
        edit_distance(found, " ".join(answer.lower().split())) / max(len(prediction), len(answer), 1)
        for answer in answers
    )
    return 1 - best if 1 - best >= ANLS_THRESHOLD else 0.0


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(a) + 1))
    for j, y in enumerate(b, 1):
        diagonal, row[0] = row[0], j
        for i, x in enumerate(a, 1):
            diagonal, row[i] = row[i], min(row[i] + 1, row[i - 1] + 1, diagonal + (x != y))
    return row[-1]


def relaxed_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 when a number is within 5 % of the answer's, or a text is the same but for case."""
    return float(any(_relaxed(prediction.strip(), answer) for answer in answers))


def _relaxed(prediction: str, answer: str) -> bool:
    found, wanted = _number(prediction), _number(answer)
    if found is not None and wanted:
        return abs(found - wanted) / abs(wanted) <= RELAXED_TOLERANCE
    return prediction.lower() == answer.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def box_match(box: Sequence[float] | None, answers: Sequence[Sequence[float]]) -> float:
    """Return 1 when a box covers one of the answers with an intersection over union of at least 0.5 (same frame)."""
    return float(box is not None and any(iou(box, answer) >= IOU_THRESHOLD for answer in answers))


def interval(scores: Sequence[float], level: float = 1.96) -> tuple[float, float]:
    """Return the 95 % confidence interval of a mean, within [0, 1] (Wilson's, with the scores taken as shares)."""
    n, mean = len(scores), sum(scores) / len(scores)
    centre = (mean + level**2 / (2 * n)) / (1 + level**2 / n)
    half = level / (1 + level**2 / n) * (mean * (1 - mean) / n + level**2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def ocr_match(found: Sequence[tuple[str, Sequence]], lines: Sequence[tuple[str, Sequence]]) -> float:
    """Return the share of characters read right and at the right place.

    `found` and `lines` are (text, quad) in the same frame. Each line counts 1 less the edit distance per character to a
    line found where it stands (bounding boxes with an intersection over union of at least 0.5); a line found where none
    is counts as one more line, missed.
    """
    left, total = list(found), 0.0
    for text, quad in lines:
        here = [one for one in left if iou(_bounds(one[1]), _bounds(quad)) >= IOU_THRESHOLD]
        if here:
            best = min(here, key=lambda one: edit_distance(one[0], text))
            left.remove(best)
            total += max(0.0, 1 - edit_distance(best[0], text) / len(text))
    return total / max(len(found), len(lines), 1)


def grounding_match(found: Sequence[tuple[str, Sequence]], regions: Sequence[tuple[str, Sequence]]) -> float:
    """Return the share of regions (phrase, boxes) that were named in the same words with a matching box for each of
    theirs, of all regions there are or were named."""
    left, right = list(found), 0
    for phrase, boxes in regions:
        same = [one for one in left if exact_match(one[0], [phrase]) and _all_match(one[1], boxes)]
        if same:
            left.remove(same[0])
            right += 1
    return right / max(len(found), len(regions), 1)


def _all_match(found: Sequence, boxes: Sequence) -> bool:
    return len(found) == len(boxes) and all(box_match(box, boxes) for box in found)


def _bounds(quad: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*quad, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
