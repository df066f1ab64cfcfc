"""One answer out of many (Qwen-VL A.2: "the answer annotation with the maximum confidence")."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from corpus.verdicts import Lost, dropped

Answers = Sequence[tuple[str, str | None]]  # (answer, confidence: yes | maybe | no | None where none is published)

WEIGHTS = {"yes": 1.0, "maybe": 0.5, "no": 0.0, None: 1.0}
_SPACE = re.compile(r"\s+")


def _none(why: str) -> Lost:
    """A question whose answers cannot be chosen from."""
    return Lost(dropped("no_answer", detail=why))


def max_confidence(answers: Answers, preferred: str | None = None) -> str:
    """Sum the weights (yes 1, maybe 0.5, no 0) per answer and take the highest sum; where all are 0, the most frequent.

    Ties go to `preferred` (VQAv2's multiple_choice_answer), then to the answer named first.
    """
    weights = Counter()
    for answer, confidence in answers:
        weights[normal(answer)] += _weight(confidence)
    return _winner(answers, weights, preferred)


def most_sure(answers: Answers, preferred: str | None = None) -> str:
    """Take the most frequent among the answers of the highest confidence that was given: yes, else maybe, else no."""
    for level in ("yes", "maybe", "no", None):
        if sure := [(a, c) for a, c in answers if c == level]:
            return _winner(sure, Counter(normal(a) for a, _ in sure), preferred)
    raise _none("no answers")


def majority(answers: Answers, preferred: str | None = None) -> str:
    """Take the most frequent answer, whatever the confidence."""
    return _winner(answers, Counter(normal(a) for a, _ in answers), preferred)


def published(answers: Answers, preferred: str | None = None) -> str:
    """Take the owner's own choice (VQAv2's multiple_choice_answer)."""
    if not preferred or not preferred.strip():
        raise _none("the owner names no answer of its own")
    return preferred.strip()


METHODS: dict[str, Callable[[Answers, str | None], str]] = {
    "max_confidence": max_confidence, "most_sure": most_sure, "majority": majority, "published": published,
}  # fmt: skip


def normal(answer: str) -> str:
    """Return the form under which two answers count as one: lower case, single spaces, no full stop at the end."""
    return _SPACE.sub(" ", answer).strip().rstrip(".").lower()


def _weight(confidence: str | None) -> float:
    if confidence not in WEIGHTS:
        raise _none(f"unknown confidence {confidence!r}; known are yes, maybe, no")
    return WEIGHTS[confidence]


def _winner(answers: Answers, weights: Counter, preferred: str | None) -> str:
    """Return the spelling of the heaviest answer that comes first."""
    named = [(normal(a), a.strip()) for a, _ in answers if a.strip()]
    if not named:
        raise _none(f"{len(answers)} answers, none with words")
    frequency = Counter(key for key, _ in named)
    wanted = normal(preferred) if preferred else None
    order = {key: -i for i, (key, _) in reversed(list(enumerate(named)))}
    best = max(
        order,
        key=lambda key: (weights[key], frequency[key] if not any(weights.values()) else 0, key == wanted, order[key]),
    )
    return next(spelling for key, spelling in named if key == best)
