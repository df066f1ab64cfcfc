"""Evaluation: official scores on real files, no score for files that do not match, nothing asked twice."""

import io
import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from corpus.formats import format_sample
from corpus.pieces import text_of
from corpus.readers.images import open_images
from corpus.readers.rows import BadFile
from corpus.records import BadImage, EncodedImage, Sample, to_members
from corpus.shards import ShardWriter
from corpus.tokens import OWN, load_tokenizer
from tests import published
from tests.tiny_stage import sample
from trainer import exports
from trainer.assistant import Answer
from trainer.evaluate import ModelPredictor, answered, main
from trainer.evaluation.benchmarks import BENCHMARKS, load
from trainer.evaluation.metrics import vqa_score
from trainer.evaluation.predictions import predict, read_predictions
from trainer.evaluation.questions import load_shards
from trainer.evaluation.scores import score_all, write_report
from trainer.prompts import dialogue
from trainer.sizes import SIZES, with_vocabulary
from trainer.vision import VisionTower  # noqa: F401 - torch loads here, not in a timed test
from trainer.weights import fill, materialise, random_source

TASKS = ("caption", "vqa", "grounded_caption", "referring", "region_caption", "ocr", "chat")


class AnyImage:
    """A folder that has every image: a grey square."""

    def __init__(self):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), "grey").save(buffer, "PNG")
        self.data, self.asked = buffer.getvalue(), 0

    def read(self, ref):
        self.asked += 1
        return self.data


def constant(text):
    return lambda questions, images: [{"answer": text} for _ in questions]


def best_of_ten(questions, images):
    return [{"answer": max(q.references, key=lambda a: vqa_score(a, q.references))} for q in questions]


def score_of(questions, predictor, tmp_path, store=None) -> float:
    path = tmp_path / "predictions-000-of-001.jsonl"
    path.unlink(missing_ok=True)
    predict(questions, predictor, store or AnyImage(), path, 64, lambda count: None)
    (result,) = score_all(questions, read_predictions([path]))["results"].values()
    assert result["questions"] == len(questions)
    return result["score"]


FILES = {
    "textvqa": [f"annotations/textvqa/val_{kind}_vqa_format.json" for kind in ("questions", "annotations")],
    "vizwiz": [f"annotations/vizwiz/val_{kind}_vqa_format.json" for kind in ("questions", "annotations")],
    "vqav2": [f"annotations/allennlp_vqav2/{kind}.json" for kind in ("questions", "annotations")],
}


@pytest.mark.parametrize(
    "name, count, unanswerable, best",  # computed with the official vqaEval.py
    [
        ("textvqa", 701, 6.9186875892, 98.2310984308),
        ("vizwiz", 700, 71.2428571429, 93.6285714286),
        ("vqav2", 3, 0, 100),
    ],
)
def test_real_files_give_the_official_scores(shared_data, tmp_path, name, count, unanswerable, best):
    questions = load(name, *(str(shared_data(path)) for path in FILES[name]))
    assert len(questions) == count and all(len(question.references) == 10 for question in questions)
    assert score_of(questions, constant("unanswerable"), tmp_path) == pytest.approx(unanswerable, abs=1e-9)
    assert score_of(questions, best_of_ten, tmp_path) == pytest.approx(best, abs=1e-9)


def test_real_images_are_found(shared_data, tmp_path):
    questions = load("vqav2", *(str(shared_data(path)) for path in FILES["vqav2"]))
    store = open_images(str(shared_data("annotations/allennlp_vqav2/images")))
    assert score_of(questions, constant("net"), tmp_path, store) == pytest.approx(100 / 3)


def test_gqa_and_captions_on_real_files(shared_data, tmp_path):
    gqa = load("gqa", str(shared_data("annotations/allennlp_gqa/questions.json")))
    assert score_of(gqa, lambda q, i: [{"answer": " " + x.references[0].upper()} for x in q], tmp_path) == 100
    coco = load("coco-captions", str(shared_data("image_text/coco/captions_train2017.json")))
    same = score_of(coco, lambda q, i: [{"answer": x.references[0]} for x in q], tmp_path)
    assert all(q.text == "Descripe the image in English:" for q in coco) and same > 200
    assert score_of(coco, constant("a plate of food"), tmp_path) < 20


def put_vqa(folder, questions, annotations):
    def record(q):
        return {"question_id": q, "image_id": q, "question": f"What is {q}?"}

    def answer(q, image):
        return {"question_id": q, "image_id": image, "answers": [{"answer": "x", "answer_confidence": "yes"}] * 10}

    return [
        published.put_json(folder / "q.json", {"questions": [record(q) for q in questions]}),
        published.put_json(folder / "a.json", {"annotations": [answer(q, i) for q, i in annotations]}),
    ]


@pytest.mark.parametrize(
    "questions, annotations, message",
    [
        ([1, 2, 3], [(1, 1), (2, 2)], "1 of 3 ids have no annotation, such as 3"),
        ([1, 2], [(1, 1), (2, 2), (3, 3)], "1 of 3 ids have no question, such as 3"),
        ([1, 2], [(1, 1), (2, 7)], "question 2 is about image 2 in .*, about 7 in"),
        ([1, 1], [(1, 1)], "question_id 1 stands there twice"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, questions, annotations, message):
    with pytest.raises(BadFile, match=message):
        load("vqav2", *put_vqa(tmp_path, questions, annotations))


def test_real_files_of_two_datasets_are_refused(shared_data):
    with pytest.raises(BadFile, match="do not belong together|is about image"):
        load("textvqa", str(shared_data(FILES["textvqa"][0])), str(shared_data(FILES["vizwiz"][1])))
    with pytest.raises(BadFile, match="--annotations"):
        load("vizwiz", str(shared_data(FILES["vizwiz"][0])))
    with pytest.raises(BadFile):
        load("textvqa", str(shared_data(FILES["vizwiz"][1])))


def test_referring_expressions_and_their_splits(tmp_path):
    refs, instances = published.refcoco(tmp_path)
    with pytest.raises(BadFile, match="testA, train: choose one"):
        load("refcoco", refs, instances)
    with pytest.raises(BadFile, match="no split 'val'"):
        load("refcoco", refs, instances, "val")
    with pytest.raises(BadFile, match="instances.json with --annotations"):
        load("refcoco", refs)
    (question,) = load("refcoco", refs, instances, "testA")
    assert question.text == "man in black" and question.references == [[25, 20, 85, 60]]
    image = AnyImage()
    image.data = published.jpeg(0)  # 320 x 240

    def score(x0, y0, x1, y1):
        return score_of([question], constant(f"<box>({x0},{y0}),({x1},{y1})</box>"), tmp_path, image)

    assert score(78, 83, 265, 250) == 100 and score(78, 83, 265, 160) == 0 and score(0, 0, 999, 999) == 0


def test_flickr30k_as_karpathy_publishes_it(tmp_path):
    images = [
        {"filename": f"{i}.jpg", "split": split, "sentences": [{"raw": f"A dog {i}."}, {"raw": "A pet."}]}
        for i, split in enumerate(("train", "test", "val"))
    ]
    path = published.put_json(tmp_path / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    (question,) = load("flickr30k", path, split="test")
    assert question.references == ["A dog 1.", "A pet."] and question.image.names == ("1.jpg",)


def test_science_questions(tmp_path):
    problems = {
        "4": {
            "question": "Which is cold?", "choices": ["ice", "fire"], "answer": 0, "hint": "Look.",
            "image": "image.png", "split": "test",
        },
        "5": {"question": "?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None, "split": "test"},
    }  # fmt: skip
    (question,) = load("scienceqa", published.put_json(tmp_path / "problems.json", problems))
    assert question.text == "Context: Look.\nQuestion: Which is cold?\nOptions: A. ice\nB. fire\nAnswer:"
    assert question.references == ["A"] and question.options == ["A", "B"]
    assert question.image.names == ("test/4/image.png",)


class Recorder:
    """An assistant that notes its prompts as text."""

    tokenizer = load_tokenizer()

    def __init__(self):
        self.asked = []

    def generate(self, prompts, max_tokens):
        self.asked += [text_of(prompt.pieces) + "".join(prompt.begin) for prompt in prompts]
        return [Answer([], "", None) for _ in prompts]

    def confidences(self, prompt, answers):
        self.asked.append(text_of(prompt.pieces))
        assert answers == [" A", " B"]
        return [-2.0, -1.0]


def test_prompts_are_the_papers(tmp_path):
    recorder = Recorder()
    predictor = ModelPredictor(recorder, 5)
    (vqa,) = load("vqav2", *put_vqa(tmp_path, [1], [(1, 1)]))
    caption = replace(vqa, task="plain", text="Descripe the image in English:")
    predictor([vqa, caption, replace(vqa, task="referring", text="the ear")], [[AnyImage().data]] * 3)
    assert recorder.asked == [
        "<img>P</img>What is 1? Answer:",
        "<img>P</img>Descripe the image in English:",
        "<img>P</img><ref>the ear</ref><box>",
    ]
    chosen = predictor([replace(vqa, task="choice", text="Which?", options=["A", "B"])], [[AnyImage().data]])
    assert chosen == [{"answer": "B", "confidences": [-2.0, -1.0]}] and recorder.asked[3] == "<img>P</img>Which?"


# ---------------------------------------------------------------- shards


def put_shard(path, tasks=TASKS, count=3):
    with open(path, "wb") as file:
        writer = ShardWriter(file)
        for task in tasks:
            for number in range(count):
                made = sample(task, number)
                writer.write(made.key, to_members(made))
        writer.close()
    return str(path)


def right_answers():
    """What the training format teaches for each question, by key."""
    answers = {}
    for task in TASKS:
        for number in range(3):
            made = sample(task, number)
            for formatted in format_sample(made, task):
                answer = "".join(str(p.value) for p in formatted.pieces if p.supervised).split("<|endoftext|>")[0]
                answers[made.key + formatted.suffix] = answer
            if task == "chat":
                answers[made.key] = made.text
    return answers


def test_what_training_teaches_scores_full_marks(tmp_path):
    """The way out and back: pixels to text, text to pixels, for every task."""
    questions, answers = load_shards([put_shard(tmp_path / "a.tar")]), right_answers()
    path = tmp_path / "p.jsonl"
    predict(questions, lambda q, i: [{"answer": answers[x.key]} for x in q], None, path, 4, lambda count: None)
    results = score_all(questions, read_predictions([path]))["results"]
    assert set(results) == set(TASKS) and {r["score"] for r in results.values()} == {100}


def pointing() -> Sample:
    """A dialogue about two images of different sizes, whose last answer points at a thing of each."""
    made = sample("chat", 0)
    first, second = (jpeg_of(size) for size in ((200, 100), (112, 112)))
    text = "The cup is larger than the dog."
    regions = [
        {"span": [0, 7], "image": 0, "size": [200, 100], "boxes": [[20, 10, 100, 90]], "quads": []},
        {"span": [23, 30], "image": 1, "size": [112, 112], "boxes": [[10, 20, 50, 100]], "quads": []},
    ]
    turns = [
        {"role": "user", "text": "Which is larger?", "images": [0, 1]},
        {"role": "assistant", "text": text, "regions": regions},
    ]
    return replace(made, images=[first, second], annotations={"turns": turns})


def jpeg_of(size) -> EncodedImage:
    file = io.BytesIO()
    Image.new("RGB", size, "green").save(file, "JPEG")
    return EncodedImage(file.getvalue(), "jpg")


def test_earlier_answers_with_boxes_are_asked_about_as_they_were_taught():
    place = {"image": 0, "size": [100, 100], "span": [32, 37], "boxes": [[10, 10, 50, 50]]}
    told = {"role": "assistant", "text": "Here is the thing you asked for: a cat", "regions": [place]}
    turns = [{"role": "user", "text": "Where is it?", "images": [0]}, told, {"role": "user", "text": "And now?"}]
    tokenizer = load_tokenizer(OWN)
    asked = dialogue(answered(turns, tokenizer), [b""], tokenizer)
    whole = Sample(key="k", dataset="d", task="chat", language="en", images=[EncodedImage(b"", "png")],
                   annotations={"turns": [*turns, {"role": "assistant", "text": "Gone."}]})  # fmt: skip
    (taught,) = format_sample(whole, "chat")
    assert text_of(taught.pieces).startswith(text_of(asked.pieces)) and "<box>(100,100),(500,500)</box>" in text_of(
        asked.pieces
    )


def test_a_dialogue_with_boxes_is_scored_by_its_words_and_its_boxes(tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        writer = ShardWriter(file)
        for made in (pointing(), sample("chat", 1)):
            writer.write(made.key, to_members(made))
        writer.close()
    questions = load_shards([str(tmp_path / "a.tar")])
    (formatted,) = format_sample(pointing(), "chat")
    taught = "".join(str(p.value) for p in formatted.pieces if p.supervised)
    taught = taught.rpartition("<|im_start|>")[2].partition("<|im_end|>")[0]
    for answer, score in (
        (taught, 100),
        (taught.replace("larger", "smaller"), 0),
        (taught.replace("(100,100)", "(800,100)"), 50),
        ("The cup is larger than the dog.", 0),
    ):
        path = tmp_path / "p.jsonl"
        path.unlink(missing_ok=True)
        predict(questions, constant(answer), None, path, 4, lambda count: None)
        scores = score_all(questions, read_predictions([path]))
        assert set(scores["results"]) == {"chat", "chat with boxes"}
        assert scores["results"]["chat with boxes"]["score"] == score, answer
    write_report(tmp_path / "r.html", questions, read_predictions([path]), scores, lambda q: q.images or [q.image.data])
    assert 'class="wanted"' not in (tmp_path / "r.html").read_text()  # of the first image, not the one drawn on


def test_nonsense_scores_nothing(tmp_path):
    questions = load_shards([put_shard(tmp_path / "a.tar")])
    path = tmp_path / "p.jsonl"
    text = "<ref>nothing</ref><box>(1,1),(2,2)</box><quad>(1,1),(2,1),(2,2),(1,2)</quad>"
    predict(questions, constant(text), None, path, 4, lambda count: None)
    scores = score_all(questions, read_predictions([path]))
    assert {r["score"] for r in scores["results"].values()} == {0}
    write_report(tmp_path / "r.html", questions, read_predictions([path]), scores, lambda q: q.images or [q.image.data])
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/jpeg") == len(questions) and "&lt;ref&gt;nothing" in page
    assert page.count('class="wanted"') >= 6 and "<script" not in page


def test_damaged_and_doubled_shards_are_refused(tmp_path):
    path = put_shard(tmp_path / "a.tar", ("caption",))
    with pytest.raises(BadFile, match="stand there twice"):
        load_shards([path, path])
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadFile, match="truncated|no json"):
        load_shards([str(tmp_path / "cut.tar")])


# ---------------------------------------------------------------- stopping and going on


def noting(asked):
    def answer(questions, images):
        asked.extend(question.key for question in questions)
        return [{"answer": "x"} for _ in questions]

    return answer


def test_nothing_is_asked_twice(tmp_path):
    questions, path = load_shards([put_shard(tmp_path / "a.tar", ("caption",), 6)]), tmp_path / "p.jsonl"
    asked = []

    def failing(group, images):
        asked.extend(q.key for q in group)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return [{"answer": q.references[0]} for q in group]

    with pytest.raises(KeyboardInterrupt):
        predict(questions, failing, None, path, 2, lambda count: None)
    with open(path, "ab") as file:
        file.write(b'{"key": "scenes/cap')  # a crash in the middle of a line
    asked.clear()
    predict(questions, noting(asked), None, path, 2, lambda count: None)
    assert asked == [q.key for q in questions[2:]]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [q.key for q in questions]


def test_images_that_cannot_be_used_are_asked_again_when_mended(tmp_path):
    (question,) = load("vqav2", *put_vqa(tmp_path, [1], [(1, 1)]))

    class Broken(AnyImage):
        def read(self, ref):
            raise BadImage("image_missing", "1.jpg")

    path = tmp_path / "p.jsonl"
    predict([question], constant("x"), Broken(), path, 2, lambda count: None)
    assert read_predictions([path])[question.key]["error"] == "image_missing"
    predict([question], constant("x"), AnyImage(), path, 2, lambda count: None)
    assert read_predictions([path])[question.key]["answer"] == "x"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported tiny model with random weights."""
    import torch

    from trainer.model import VisionLanguageModel

    tokenizer, folder = load_tokenizer(), tmp_path_factory.mktemp("model") / "run"
    config = replace(with_vocabulary(SIZES["tiny"].config, tokenizer.vocab_size), image_token=tokenizer.image_pad)
    config = replace(config, image_marks=(tokenizer.image_start, tokenizer.image_end))
    with torch.device("meta"):
        made = VisionLanguageModel(config)
    materialise(made, "cpu")
    fill(made, [random_source(config, 0)])
    folder.mkdir()
    history = {"stage": 2, "settings": {"stage": 2, "image_size": 112}}
    exports.write(folder / "export", config, made.state_dict(), str(OWN), history)
    return folder


def test_the_command_line_in_parts(model, tmp_path, capsys):
    shard, output = put_shard(tmp_path / "a.tar", count=2), tmp_path / "out"
    flags = ["--model", str(model), "--shards", shard, "--output", str(output), "--max-tokens", "4", "--device", "cpu"]
    assert main([*flags, "--part", "0/2"]) == 0 and not (output / "scores.json").exists()
    assert "the other parts have them" in capsys.readouterr().out
    assert main([*flags, "--part", "1/2"]) == 0
    scores = json.loads((output / "scores.json").read_text())
    assert set(scores["results"]) == set(TASKS) and (output / "report.html").exists()
    assert main([*flags, "--part", "1/2", "--max-tokens", "5"]) == 1
    assert "another max_tokens" in capsys.readouterr().err
    (output / "scores.json").unlink()
    assert main([*flags, "--part", "1/2", "--overwrite"]) == 0
    assert (output / "scores.json").exists()  # for the other part's answers stayed
    assert main([*flags, "--output", str(tmp_path / "new"), "--model", str(tmp_path)]) == 1
    assert "holds no model" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main([*flags, "--part", "2/2"]) == 1 and main([*flags, "--shards", "nowhere*.tar"]) == 1
    retrained = tmp_path / "retrained"
    shutil.copytree(model, retrained)
    weights = retrained / "export" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert main([*flags, "--part", "0/2", "--model", str(retrained)]) == 1
    assert "another model" in capsys.readouterr().err


def test_no_score_while_an_image_is_missing(model, tmp_path, capsys):
    files = put_vqa(tmp_path / "files", ["a.jpg", "b.jpg", "c.jpg"], [(n, n) for n in ("a.jpg", "b.jpg", "c.jpg")])
    images = published.put_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    data = (tmp_path / "images" / "b.jpg").read_bytes()
    (tmp_path / "images" / "b.jpg").write_bytes(data[:2000])
    flags = ["--model", str(model), "--benchmark", "vqav2", "--questions", files[0], "--annotations", files[1]]
    flags += ["--images", images, "--output", str(tmp_path / "out"), "--device", "cpu", "--max-tokens", "3"]
    assert main(flags) == 1 and not (tmp_path / "out" / "scores.json").exists()
    assert "2 of 3 questions have an image that cannot be used" in capsys.readouterr().err
    assert main([*flags, "--skip-bad-images"]) == 0
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["results"]["vqa"]["questions"] == 1 and len(scores["unusable_images"]) == 2
    (tmp_path / "images" / "b.jpg").write_bytes(data)
    shutil.copy(tmp_path / "images" / "b.jpg", tmp_path / "images" / "c.jpg")
    open_images.cache_clear()
    assert main(flags) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["results"]["vqa"]["questions"] == 3


def test_every_benchmark_of_table_9_is_there():
    assert {"nocaps", "flickr30k", "vqav2", "okvqa", "vizwiz", "gqa", "scienceqa", "textvqa", "docvqa", "chartqa"} | {
        "ocr-vqa", "ai2d", "refcoco", "refcoco+", "refcocog", "grit-refexp"
    } <= BENCHMARKS.keys()  # fmt: skip
