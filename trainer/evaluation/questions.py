"""What a model is asked in an evaluation, and cleaned shards of our own as such questions."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from corpus.formats import expressions_of
from corpus.geometry import normalise_box
from corpus.readers.rows import BadFile, ImageRef
from corpus.readers.slices import open_file
from corpus.records import Sample, from_members
from corpus.shards import read_shard


@dataclass(slots=True, kw_only=True)
class Question:
    """One thing to ask. `task` is one of prompts.TASKS, "chat" or "choice"; `text` the question, phrase or prompt.

    `references` are what the metric compares with: texts; boxes in pixels of the stored image; for ocr (text, quad) and
    for grounded captions (phrase, boxes), in pixels too; for an answer with boxes its words, then (phrase, boxes in
    [0, 1000), number of the image). `options` are the answers to choose from.
    """

    key: str
    task: str
    metric: str
    image: ImageRef | None
    text: str = ""
    references: list = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    box: list[float] | None = None  # asked about, in pixels
    turns: list[dict] = field(default_factory=list)  # of a chat, up to the answer
    images: list[bytes] = field(default_factory=list)  # of a chat
    language: str = "en"
    group: str = ""  # of those whose answers are compared, such as who is in the picture

    @property
    def part(self) -> str:
        """The line of the scores that it counts in: what is asked and scored alike."""
        return "chat with boxes" if self.metric == "answer_and_boxes" else self.task


def load_shards(paths: Sequence[str]) -> list[Question]:
    """Read cleaned shards: every sample becomes the questions of its own task. Raises BadFile on a damaged shard."""
    questions = [question for path in paths for question in _of_shard(path)]
    if twice := [key for key, count in Counter(q.key for q in questions).items() if count > 1]:
        raise BadFile(f"{twice[0]} and {len(twice) - 1} more stand there twice; every question must count once")
    return questions


def _of_shard(path: str) -> Iterator[Question]:
    with open_file(path) as file:
        for raw in read_shard(file):
            if raw.problem:
                raise BadFile(f"{path}: {raw.key}: {raw.problem} {raw.detail}")
            try:
                sample = from_members(raw.members)
            except ValueError as error:
                raise BadFile(f"{path}: {raw.key}: {error}") from None
            if sample.task not in _OF_SAMPLE:
                raise BadFile(f"{path}: nothing is asked of task {sample.task}; tasks are {', '.join(_OF_SAMPLE)}")
            yield from _OF_SAMPLE[sample.task](sample)


def _question(sample: Sample, metric: str, references: list, suffix: str = "", **more) -> Question:
    image = ImageRef(data=sample.images[0].data, names=(f"{sample.key}.{sample.images[0].ext}",))
    more = {"task": sample.task, "text": "", **more}
    return Question(
        key=sample.key + suffix, metric=metric, image=image, references=references, language=sample.language, **more
    )


def _of_caption(sample: Sample) -> list[Question]:
    return [_question(sample, "exact_match", [sample.text])]


def _of_vqa(sample: Sample) -> list[Question]:
    notes = sample.annotations
    return [_question(sample, "exact_match", [notes["answer"]], task="vqa", text=notes["question"])]


def _of_referring(sample: Sample) -> list[Question]:
    regions = enumerate(expressions_of(sample))
    return [_question(sample, "iou", r["boxes"], f"-r{i}", text=r["text"]) for i, r in regions]


def _of_region(sample: Sample) -> list[Question]:
    regions = enumerate(expressions_of(sample))
    return [_question(sample, "exact_match", [f"is {r['text']}"], f"-r{i}", box=r["boxes"][0]) for i, r in regions]


def _of_grounded(sample: Sample) -> list[Question]:
    regions = [(region["text"], region["boxes"]) for region in sample.annotations["regions"]]
    return [_question(sample, "grounding", regions)]


def _of_ocr(sample: Sample) -> list[Question]:
    return [_question(sample, "ocr", [(line["text"], line["quad"]) for line in sample.annotations["lines"]])]


def _of_chat(sample: Sample) -> list[Question]:
    """The last answer of a dialogue, the earlier ones being as they were."""
    turns, images = sample.annotations["turns"], [image.data for image in sample.images]
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
    regions = [_written(turns[last]["text"], region) for region in turns[last].get("regions") or [] if region["boxes"]]
    return [
        Question(
            key=sample.key, task="chat", metric="answer_and_boxes" if regions else "exact_match", image=None,
            turns=turns[:last], images=images, text=turns[last - 1]["text"] if last else "",
            references=[turns[last]["text"], *regions],
        )
    ]  # fmt: skip


def _written(text: str, region: dict) -> tuple[str, list, int]:
    """A region of an answer, its boxes as they are written there: each image has a size of its own."""
    start, end = region["span"]
    return text[start:end], [normalise_box(box, *region["size"]) for box in region["boxes"]], region["image"]


_OF_SAMPLE: dict[str, Callable[[Sample], list[Question]]] = {
    "caption": _of_caption, "vqa": _of_vqa, "ocr_vqa": _of_vqa, "referring": _of_referring, "chat": _of_chat,
    "region_caption": _of_region, "grounded_caption": _of_grounded, "ocr": _of_ocr,
}  # fmt: skip
