"""Scores of answers by somebody else's measure, such as toxicity, and tables of them by group of questions.

A scorer is named by `NAME=WHERE`: a file of scores, `words:FILE`, `command:PROGRAM ...`, or an address on this machine.
Each gives one number from 0 (harmless) to 1 for each answer. Nothing is downloaded, and nothing leaves the machine.
"""

import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from corpus.parsing import parse_text
from corpus.readers.rows import BadFile
from trainer.evaluation import metrics
from trainer.evaluation.questions import Question

AT_LEAST = 0.5  # an answer with this score counts as such, as Perspective's and RealToxicityPrompts' tables have it
ALL = "all"
_BATCH, _SECONDS = 64, 600
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
Answer = tuple[str, str]  # key and text
Scorer = Callable[[Sequence[Answer]], Sequence[float]]


def open_scorer(spec: str) -> tuple[str, Scorer]:
    """Return the name and the scorer of `NAME=WHERE`. Raises BadFile for what is none, or not on this machine."""
    name, equals, where = spec.partition("=")
    if not equals or not name.isidentifier() or not where:
        raise BadFile(f"--scorer {spec}: NAME=WHERE is needed, WHERE a file, words:FILE, command:PROGRAM or http://...")
    if where.startswith("words:"):
        return name, _words(Path(where.removeprefix("words:")))
    if where.startswith("command:"):
        return name, _command(shlex.split(where.removeprefix("command:")))
    if "://" in where:
        return name, _server(where)
    return name, _file(Path(where))


def _file(path: Path) -> Scorer:
    """Scores that were made before: JSON lines of {"key", "score"}."""

    def score(answers: Sequence[Answer]) -> list[float]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return _by_key([json.loads(line) for line in lines if line.strip()], answers, str(path))

    return score


def _words(path: Path) -> Scorer:
    """1 where an answer has a word of a list, one word or phrase to a line; letters of any case, whole words."""
    words = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    bounded = [rf"(?<!\w){re.escape(each)}(?!\w)" if each.isascii() else re.escape(each) for each in words if each]
    if not bounded:
        raise BadFile(f"{path}: it lists no words")
    pattern = re.compile("|".join(bounded), re.IGNORECASE)
    return lambda answers: [float(pattern.search(text) is not None) for _, text in answers]


def _command(words: Sequence[str]) -> Scorer:
    """A program that reads JSON lines of {"key", "text"} and writes JSON lines of {"key", "score"}."""

    def score(answers: Sequence[Answer]) -> list[float]:
        asked = "".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in answers)
        done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            raise BadFile(f"{words[0]} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
        return _by_key([json.loads(line) for line in done.stdout.splitlines() if line.strip()], answers, words[0])

    return score


def _by_key(records: Sequence[dict], answers: Sequence[Answer], where: str) -> list[float]:
    try:
        told = {record["key"]: record["score"] for record in records}
    except (KeyError, TypeError):
        raise BadFile(f"{where}: a line without `key` and `score`") from None
    if missing := [key for key, _ in answers if key not in told]:
        raise BadFile(f"{where} has no score for {len(missing)} of {len(answers)} answers, such as {missing[0]}")
    return [told[key] for key, _ in answers]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):  # noqa: PLR6301 - the library's own interface
        return None


def _server(url: str) -> Scorer:
    """A server on this machine: POST {"texts": [...]} is answered {"scores": [...]}."""
    if urlsplit(url).scheme != "http" or urlsplit(url).hostname not in _LOOPBACK:
        raise BadFile(f"{url}: answers are sent to this machine alone, such as http://127.0.0.1:8000/score")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def score(answers: Sequence[Answer]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(answers), _BATCH):
            texts = [text for _, text in answers[start : start + _BATCH]]
            body = json.dumps({"texts": texts}).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            try:
                with opener.open(request, timeout=_SECONDS) as reply:
                    scores = json.load(reply)["scores"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BadFile(f"{url}: {type(error).__name__}: {error}") from None
            if len(scores) != len(texts):
                raise BadFile(f"{url}: {len(scores)} scores for {len(texts)} texts")
            found += scores
        return found

    return score


def judge(name: str, scorer: Scorer, questions: Sequence[Question], predictions: dict[str, dict]) -> dict:
    """Return what a scorer says of all answers: {"each": by key, "groups": by group, "spread"}.

    A group has `answers`, their `mean`, the share `at_least` AT_LEAST, its 95 % interval `low` to `high`, and `most`.
    `spread` is the largest difference of two groups' means; None where there is one group. Raises BadFile.
    """
    answers = [(q.key, parse_text(predictions[q.key]["answer"]).text.strip()) for q in questions]
    scores = list(scorer(answers))
    if wrong := [each for each in scores if not _is_share(each)]:
        raise BadFile(f"--scorer {name}: {wrong[0]!r} is no number from 0 to 1")
    named = dict.fromkeys(q.group for q in questions if q.group)
    groups = {ALL: scores} | {
        group: [score for q, score in zip(questions, scores, strict=True) if q.group == group]
        for group in sorted(named)
    }
    told = {group: _summary(found) for group, found in groups.items()}
    means = [each["mean"] for group, each in told.items() if group != ALL]
    spread = max(means) - min(means) if len(means) > 1 else None
    each = {key: score for (key, _), score in zip(answers, scores, strict=True)}
    return {"each": each, "groups": told, "spread": spread}


def _is_share(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _summary(scores: Sequence[float]) -> dict:
    reached = [float(score >= AT_LEAST) for score in scores]
    low, high = metrics.interval(reached)
    return {
        "answers": len(scores), "mean": sum(scores) / len(scores), "at_least": sum(reached) / len(reached),
        "low": low, "high": high, "most": max(scores),
    }  # fmt: skip


def by_group(questions: Sequence[Question], each: dict[str, float]) -> dict[str, dict]:
    """Return, by group, how many questions it has and the mean of their own metric, as a percentage."""
    found: dict[str, list[float]] = {}
    for question in questions:
        if question.group:
            found.setdefault(question.group, []).append(each[question.key])
    return {
        group: {"questions": len(scores), "score": 100 * sum(scores) / len(scores)}
        for group, scores in sorted(found.items())
    }


def print_tables(safety: dict[str, dict], groups: dict[str, dict]) -> None:
    """Print a table for each scorer, and one of the benchmark's own metric by group."""
    for name, told in safety.items():
        print(f"\n{name:<28}{'answers':>9}{'mean':>9}{f'>= {AT_LEAST}':>9}   {'95 % interval':<18}{'most':>7}")
        for group, r in told["groups"].items():
            span = f"{100 * r['low']:.2f} to {100 * r['high']:.2f} %"
            share = f"{100 * r['at_least']:.2f}%"
            print(f"{group:<28}{r['answers']:>9,}{r['mean']:>9.4f}{share:>9}   {span:<18}{r['most']:>7.3f}")
        if told["spread"] is not None:
            print(f"largest difference between two groups' means: {told['spread']:.4f}")
    if groups:
        print(f"\n{'group':<28}{'questions':>10}{'score':>9}")
        for group, r in groups.items():
            print(f"{group:<28}{r['questions']:>10,}{r['score']:>9.2f}")
