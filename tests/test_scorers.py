"""Answers scored by another's measure: every kind of scorer gives one table, and none is trusted or sent abroad."""

import http.server
import json
import sys
import threading

import pytest

from corpus.readers.rows import BadFile
from tests.test_evaluate import AnyImage
from tests.test_evaluate_own import put
from trainer.evaluate import digest_questions, finish
from trainer.evaluation import scorers
from trainer.evaluation.benchmarks import load
from trainer.evaluation.predictions import predict

SAID = {"a.jpg": "A damned fool", "b.jpg": "A kind man", "c.jpg": "A damned nuisance", "d.jpg": "<ref>A kind</ref> one"}
GROUPS = {"a.jpg": "women", "b.jpg": "women", "c.jpg": "men", "d.jpg": ""}
RUDE = {"A damned fool": 0.9, "A kind man": 0.1, "A damned nuisance": 0.7, "A kind one": 0.0}
PROGRAM = f"""
import json, sys
rude = {RUDE!r}
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({{"key": asked["key"], "score": rude[asked["text"]]}}))
"""


@pytest.fixture
def answered(tmp_path):
    """Questions about four pictures in two groups, and a folder with their answers."""
    records = [
        {"image": name, "question": "Who?", "answer": "A kind man"} | ({"group": GROUPS[name]} if GROUPS[name] else {})
        for name in SAID
    ]
    questions = load("vqa", put(tmp_path / "mine.jsonl", *records))
    out = tmp_path / "out"
    out.mkdir()
    say = lambda asked, _: [{"answer": SAID[q.image.names[0]]} for q in asked]  # noqa: E731
    predict(questions, say, AnyImage(), out / "predictions-000-of-001.jsonl", 2, lambda count: None)
    return questions, out


@pytest.fixture
def server():
    """A scorer on this machine; its path decides what it answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
            answers = {"/score": [RUDE[text] for text in texts], "/few": [0.5], "/wild": [7] * len(texts)}
            if self.path == "/away":
                self.send_response(307)
                self.send_header("Location", "http://192.0.2.1/score")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"scores": answers[self.path]}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def score(answered, *specs) -> dict:
    questions, out = answered
    assert finish(questions, AnyImage(), out, 1, False, dict(map(scorers.open_scorer, specs))) == 0
    return json.loads((out / "scores.json").read_text())


def test_a_file_a_program_and_a_server_give_the_same_table(answered, server, tmp_path, capsys):
    questions, _ = answered
    made = [
        {"key": q.key, "score": RUDE[SAID[q.image.names[0]].replace("<ref>", "").replace("</ref>", "")]}
        for q in questions
    ]
    (tmp_path / "rude.py").write_text(PROGRAM)
    found = score(
        answered, f"file={put(tmp_path / 'made.jsonl', *made)}", f"server={server}/score",
        f"program=command:{sys.executable} {tmp_path / 'rude.py'}",
    )["safety"]  # fmt: skip
    assert found["file"] == found["program"] == found["server"]
    groups = found["file"]["groups"]
    table = {name: (r["answers"], round(r["mean"], 3), r["at_least"], r["most"]) for name, r in groups.items()}
    assert table == {"all": (4, 0.425, 0.5, 0.9), "men": (1, 0.7, 1.0, 0.7), "women": (2, 0.5, 0.5, 0.9)}
    assert found["file"]["spread"] == pytest.approx(0.2)
    said = capsys.readouterr().out
    assert "largest difference between two groups' means: 0.2000" in said and said.count("women") == 4


def test_a_list_of_words_and_the_benchmarks_own_metric_by_group(answered, tmp_path):
    (tmp_path / "words.txt").write_text("DAMNED\n\n混蛋\nkin\n")
    found = score(answered, f"slurs=words:{tmp_path / 'words.txt'}")
    assert sorted(found["safety"]["slurs"]["each"].values()) == [0, 0, 1, 1]  # "kin" is no part of "kind"
    assert found["groups"] == {"men": {"questions": 1, "score": 0}, "women": {"questions": 2, "score": 50}}
    _, listed = scorers.open_scorer(f"slurs=words:{tmp_path / 'words.txt'}")
    assert listed([("a", "这个混蛋来了"), ("b", "这个人来了")]) == [1, 0]


def test_nothing_is_scored_in_halves_or_sent_abroad(answered, server, tmp_path):
    for where in (
        "http://192.0.2.1/score",
        "https://127.0.0.1/score",
        "http://127.0.0.1.example.org/",
        "ftp://localhost/",
    ):
        with pytest.raises(BadFile, match="this machine alone"):
            scorers.open_scorer(f"toxicity={where}")
    for spec in ("toxicity", "=file", "a b=file", "toxicity="):
        with pytest.raises(BadFile, match="NAME=WHERE"):
            scorers.open_scorer(spec)
    partly = put(tmp_path / "part.jsonl", {"key": answered[0][0].key, "score": 0.5})
    odd = put(tmp_path / "odd.jsonl", *({"key": q.key, "score": "high"} for q in answered[0]))
    for spec, why in (
        (f"toxicity={partly}", "no score for 3 of 4 answers"), (f"toxicity={odd}", "no number from 0 to 1"),
        (f"toxicity={server}/few", "1 scores for 4 texts"), (f"toxicity={server}/wild", "no number from 0 to 1"),
        (f"toxicity={server}/away", "HTTPError"), ("toxicity=command:false", "status 1"),
        (f"toxicity={put(tmp_path / 'bare.jsonl', {'key': 1})}", "without `key` and `score`"),
    ):  # fmt: skip
        (answered[1] / "scores.json").unlink(missing_ok=True)
        with pytest.raises(BadFile, match=why):
            score(answered, spec)
        assert not (answered[1] / "scores.json").exists()


def test_groups_change_no_digest_of_evaluations_that_have_none(answered):
    """An evaluation from before goes on: its settings hold a digest of questions without groups."""
    questions, _ = answered
    bare = [q for q in questions if not q.group]
    from dataclasses import asdict
    from hashlib import sha256

    digest = sha256()
    for question in bare:
        record = asdict(question)
        del record["group"]
        record["image"], record["images"] = (question.image.names, None), []
        digest.update(json.dumps(record).encode())
    assert digest_questions(bare) == digest.hexdigest()[:32] and digest_questions(questions) != digest_questions(bare)
