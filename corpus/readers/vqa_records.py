"""The records of question answering sets as their owners write them: the fields that readers use, no others."""

from typing import NotRequired

from typing_extensions import TypedDict

from corpus.shapes import Id, Number

Word = str | int | float | bool  # an answer: some owners write numbers and truth values as such


class VqaQuestion(TypedDict):
    """An entry of VQAv2's questions[]."""

    image_id: Id
    question: str
    question_id: Id


class VqaAnswer(TypedDict):
    """One person's answer."""

    answer: Word
    answer_confidence: NotRequired[str | None]


class VqaAnnotation(TypedDict):
    """An entry of VQAv2's annotations[]."""

    answers: NotRequired[list[VqaAnswer]]
    multiple_choice_answer: NotRequired[str | None]


class GqaQuestion(TypedDict):
    """A value of GQA's object of questions."""

    question: str
    imageId: Id
    answer: NotRequired[str]


class VisualGenomeQa(TypedDict):
    """An element of `qas`."""

    question: str
    answer: str
    qa_id: NotRequired[Id | None]
    image_id: NotRequired[Id]


class VisualGenomeImage(TypedDict):
    """An image of Visual Genome's question_answers.json; its questions are looked at one by one."""

    qas: list
    id: NotRequired[Id]
    image_id: NotRequired[Id]


class DvqaQuestion(TypedDict):
    """A question of DVQA."""

    image: str
    question: str
    answer: Word
    question_id: NotRequired[Id | None]


class ChartQuestion(TypedDict):
    """A question of ChartQA."""

    imgname: str
    query: str
    label: Word


class Book(TypedDict):
    """A value of OCR-VQA's object of images."""

    questions: list[str]
    answers: list[Word]
    split: Id


class DocQuestion(TypedDict):
    """An entry of DocVQA's data[]."""

    question: str
    image: str
    answers: NotRequired[list[Word] | None]
    data_split: NotRequired[str | None]
    questionId: NotRequired[Id | None]


class TextQuestion(TypedDict):
    """An entry of TextVQA's data[]."""

    question: str
    image_id: Id
    question_id: NotRequired[Id | None]
    answers: NotRequired[list[Word] | None]
    set_name: NotRequired[str | None]


class DiagramQuestion(TypedDict, total=False):
    """A value of AI2D's object of questions; which of the fields must be there, `ai2d` says."""

    questionId: Id | None
    answerTexts: list[Word] | None
    abcLabel: bool | None


class Diagram(TypedDict):
    """AI2D's questions about one image."""

    imageName: str
    questions: dict[str, DiagramQuestion]


class Block(TypedDict, total=False):
    """A block of text in an AI2D image."""

    replacementText: str | None
    rectangle: list[list[Number]] | None


class DiagramNotes(TypedDict, total=False):
    """AI2D's annotations of one image."""

    text: dict[str, Block] | None


class PlainQuestion(TypedDict):
    """Qwen-VL's own record, or with other names OCRBench's."""

    question: str
    image: NotRequired[str]
    image_path: NotRequired[str]
    answer: NotRequired[Word | list[Word]]
    answers: NotRequired[Word | list[Word]]
    question_id: NotRequired[Id | None]
    id: NotRequired[Id | None]
