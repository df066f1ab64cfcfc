"""Evaluate a model on a benchmark's published files, or on cleaned shards, and show where it is worst.

Predictions are appended to OUTPUT/predictions-*.jsonl as they are made; started again, the same command goes on where
it stopped. Several processes take a part each (--part 0/4, 1/4, ...); the last to finish writes scores and report.
"""

import argparse
import glob
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from corpus.formats import words_of
from corpus.geometry import normalise
from corpus.pieces import Encoder
from corpus.readers.images import open_images
from corpus.readers.rows import BadFile
from corpus.records import decode_image
from corpus.tokens import Tokenizer
from trainer.evaluation.benchmarks import BENCHMARKS, load
from trainer.evaluation.predictions import images_of, predict, read_predictions, unanswered
from trainer.evaluation.questions import Question, load_shards
from trainer.evaluation.scorers import Scorer, by_group, judge, open_scorer, print_tables
from trainer.evaluation.scores import print_scores, score_all, write_report
from trainer.prompts import BadPrompt, Prompt, ask, dialogue

TEXT_METRICS = ("exact_match", "vqa_score", "anls", "relaxed_match")
EXAMPLE = """\
examples:
  python -m trainer.evaluate --model RUN --benchmark vqa --questions mine.jsonl --images photos --output eval/mine
  python -m trainer.evaluate --model runs/stage2 --benchmark textvqa --questions TextVQA_0.5.1_val.json \\
      --images textvqa/train_images --output eval/textvqa
  python -m trainer.evaluate --model runs/stage2 --benchmark vqav2 --images coco/val2014 --output eval/vqav2 \\
      --questions v2_OpenEnded_mscoco_val2014_questions.json --annotations v2_mscoco_val2014_annotations.json
  python -m trainer.evaluate --model runs/stage2 --shards 'cleaned/scenes-val/*.tar' --output eval/scenes
"""
SHARD_TOKENS = 256  # of an answer about a shard's sample; a page's OCR is long


class WrongFolder(ValueError):
    """An output folder that holds another evaluation."""


class ModelPredictor:
    """Asks a model: greedily, or for the option it is surest of."""

    def __init__(self, assistant, max_tokens: int):
        self._assistant, self._max_tokens = assistant, max_tokens

    def __call__(self, questions: Sequence[Question], images: Sequence[list[bytes]]) -> list[dict]:
        prompts = [self._prompt(q, data) for q, data in zip(questions, images, strict=True)]
        if questions[0].task == "choice":
            return [self._choose(q, prompt) for q, prompt in zip(questions, prompts, strict=True)]
        answers = self._assistant.generate(prompts, max_tokens=self._max_tokens)
        return [{"answer": answer.text} for answer in answers]

    def _prompt(self, question: Question, images: list[bytes]) -> Prompt:
        if question.task == "chat":
            return dialogue(answered(question.turns, self._assistant.tokenizer), images, self._assistant.tokenizer)
        box = _as_asked(question.box, images[0]) if question.box else None
        task = "plain" if question.task == "choice" else question.task
        prompt = ask(task, images, question.text, box, question.language)
        # As the paper's authors do: the answer to a referring expression is a box and nothing else.
        prompt.begin = ("<box>",) if task == "referring" else ()
        return prompt

    def _choose(self, question: Question, prompt: Prompt) -> dict:
        found = self._assistant.confidences(prompt, [f" {option}" for option in question.options])
        return {"answer": question.options[found.index(max(found))], "confidences": found}


def answered(turns: Sequence[dict], tokenizer: Tokenizer) -> list[dict]:
    """Return the turns of a dialogue as `dialogue` takes them: the earlier answers as tokens, boxes among them."""
    encoder = Encoder(tokenizer, 1)
    return [
        t | {"tokens": encoder.encode(list(words_of(t, True))).tokens.tolist()} if t["role"] == "assistant" else t
        for t in turns
    ]


def _as_asked(box: Sequence[float], image: bytes) -> list[int]:
    size = decode_image(image).size
    return [normalise(v, side) for v, side in zip(box, size * 2, strict=True)]


def claim(output: Path, settings: dict, own: Path, overwrite: bool) -> None:
    """Make the folder, or make sure that it holds this very evaluation; `own` are this part's predictions.

    `overwrite` removes them, and those of all parts where they are of another evaluation. Raises WrongFolder, naming
    what differs.
    """
    from trainer.checkpoint import write_json  # brings torch

    path = output / "settings.json"
    before = json.loads(path.read_text()) if path.exists() else settings
    if before != settings and not overwrite:
        changed = [name for name in before | settings if before.get(name) != settings.get(name)]
        raise WrongFolder(
            f"{output} holds an evaluation with another {', '.join(changed)}: give another --output, or --overwrite"
        )
    if overwrite:
        for old in [own] if before == settings else output.glob("predictions-*.jsonl"):
            old.unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def digest_questions(questions: Sequence[Question]) -> str:
    """Return a digest of all that is asked and expected."""
    digest = hashlib.sha256()
    for question in questions:
        record = asdict(question)
        record["image"] = None if question.image is None else (question.image.names, _sha(question.image.data))
        record["images"] = [_sha(data) for data in question.images]
        if not record["group"]:  # evaluations of before know of none
            del record["group"]
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()[:32]


def digest_model(folder: Path) -> str:
    """Return a digest of a run's or export's weights: their sizes and ends tell two trainings apart.

    Raises WrongFolder when there are none.
    """
    digest = hashlib.sha256()
    inside = folder / "export" if (folder / "export").is_dir() else folder
    found = [path for path in sorted(inside.rglob("*")) if path.suffix in (".safetensors", ".bin", ".distcp")]
    if not found:
        raise WrongFolder(f"{folder} holds no model: no weights, neither in export/ nor in checkpoints/")
    for path in found:
        with open(path, "rb") as file:
            head = file.read(1 << 20)
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            digest.update(repr((str(path.relative_to(inside)), path.stat().st_size)).encode() + head + file.read())
    return digest.hexdigest()[:32]


def _sha(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", required=True, metavar="RUN", help="a run, an export, or the released Qwen-VL")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--benchmark", choices=sorted(BENCHMARKS),
        help="whose published files --questions names; vqa, caption, referring, ocr: a JSONL of your own",
    )  # fmt: skip
    source.add_argument(
        "--shards", nargs="+", action="extend", metavar="GLOB", help="cleaned shards, each sample asked by its task"
    )
    parser.add_argument("--questions", metavar="FILE", help="the questions, or captions, or referring expressions")
    parser.add_argument("--annotations", metavar="FILE", help="the answers, or boxes, where they are a file apart")
    parser.add_argument("--split", help="where a file holds several")
    parser.add_argument("--metric", choices=TEXT_METRICS, help="of answers to questions; default: by benchmark")
    parser.add_argument("--images", metavar="DIR", help="folder or shards with the benchmark's images")
    parser.add_argument("--batch", type=int, default=16, help="questions asked at once")
    parser.add_argument("--limit", type=int, help="only the first so many questions")
    parser.add_argument("--max-tokens", type=int, help="of an answer; default: by benchmark")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="answer every N-th question, from the I-th on")
    parser.add_argument(
        "--scorer", action="append", default=[], metavar="NAME=WHERE",
        help="score the answers by another measure too, such as toxicity, by group where questions have a `group`; "
        "WHERE: a file of scores, words:FILE, command:PROGRAM, or http://127.0.0.1:PORT/PATH",
    )  # fmt: skip
    parser.add_argument("--skip-bad-images", action="store_true", help="score the rest where images cannot be used")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--quantise", choices=("nf4", "int8"), help="hold the language model's blocks in 4 or 8 bits")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        return _run(args)
    except (ValueError, OSError, BadFile) as error:
        print(f"trainer.evaluate: {error}", file=sys.stderr)
        return 1


def _run(args) -> int:
    part, parts = _part(args.part)
    scorers = dict(map(open_scorer, args.scorer))
    questions = _questions(args)[: args.limit]
    tokens = args.max_tokens or (BENCHMARKS[args.benchmark].max_tokens if args.benchmark else SHARD_TOKENS)
    settings = {
        "model": digest_model(Path(args.model)), "questions": digest_questions(questions), "max_tokens": tokens,
        "benchmark": args.benchmark, "parts": parts,
    } | ({"quantise": args.quantise} if args.quantise else {})  # fmt: skip
    store = open_images(args.images) if args.images else None
    path = args.output / f"predictions-{part:03d}-of-{parts:03d}.jsonl"
    claim(args.output, settings, path, args.overwrite)
    mine = questions[part::parts]
    if unanswered(mine, path):
        predict(mine, _load_predictor(args, tokens), store, path, args.batch, _Progress(len(mine)))
    return finish(questions, store, args.output, parts, args.skip_bad_images, scorers)


def _load_predictor(args, tokens: int) -> ModelPredictor:
    import torch

    from trainer.assistant import Assistant

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return ModelPredictor(Assistant.load(args.model, device, quantise=args.quantise), tokens)


def finish(
    questions: Sequence[Question], store, output: Path, parts: int, skip_bad: bool,
    scorers: Mapping[str, Scorer] = MappingProxyType({}),
) -> int:  # fmt: skip
    """Score once all parts are there. Return the exit status: 1 where unusable images forbid a score."""
    from trainer.checkpoint import write_json

    predictions = read_predictions([output / f"predictions-{i:03d}-of-{parts:03d}.jsonl" for i in range(parts)])
    missing = sum(question.key not in predictions for question in questions)
    if missing:
        print(f"{missing} of {len(questions)} questions are not answered yet: the other parts have them")
        return 0
    bad = [record for record in predictions.values() if "error" in record]
    if bad and not skip_bad:
        raise _no_score(bad, len(questions))
    usable = [question for question in questions if "error" not in predictions[question.key]]
    if not usable:
        raise BadPrompt("no question is left to score")
    scores = score_all(usable, predictions)
    scores["unusable_images"] = [record["key"] for record in bad]
    scores["groups"] = by_group(usable, scores["each"])
    scores["safety"] = {name: judge(name, scorer, usable, predictions) for name, scorer in scorers.items()}
    write_json(output / "scores.json", scores)
    write_report(output / "report.html", usable, predictions, scores, lambda q: images_of(q, store)[0])
    print_scores(scores)
    print_tables(scores["safety"], scores["groups"])
    return 0


def _no_score(bad: list[dict], total: int) -> BadPrompt:
    return BadPrompt(
        f"{len(bad)} of {total} questions have an image that cannot be used, such as {bad[0]['key']}: "
        f"{bad[0]['error']}, {bad[0]['detail']}; no score is given. Mend the images and start again, or score the "
        "other questions with --skip-bad-images"
    )


def _questions(args) -> list[Question]:
    if args.shards:
        found = {pattern: glob.glob(pattern) for pattern in args.shards}
        if nothing := [pattern for pattern, paths in found.items() if not paths]:
            raise BadFile(f"--shards {' '.join(nothing)}: no such files")
        return load_shards(sorted(set().union(*found.values())))
    if not args.questions or not args.images:
        raise BadFile(f"--benchmark {args.benchmark} needs --questions and --images")
    return load(args.benchmark, args.questions, args.annotations, args.split, args.metric)


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise BadPrompt(f"--part {text}: I/N is needed, with I from 0 to N - 1")
    return int(part), int(parts)


class _Progress:
    """A line on standard error per tenth of the way."""

    def __init__(self, total: int):
        self._total, self._done = total, 0

    def __call__(self, count: int) -> None:
        before, self._done = self._done * 10 // self._total, self._done + count
        if self._done * 10 // self._total > before:
            print(f"{self._done} of {self._total} questions answered", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
