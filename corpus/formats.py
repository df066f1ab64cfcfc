"""Each task's text format and loss mask: a cleaned sample -> pieces (Qwen-VL, Appendix B.1 and B.2)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from corpus import verdicts
from corpus.geometry import normalise_box, normalise_quad
from corpus.languages import Language, shipped
from corpus.pieces import IMAGE, SPECIAL, TEXT, Piece
from corpus.records import Sample
from corpus.tokens import (
    BOX,
    BOX_END,
    EOS,
    IM_END,
    IM_START,
    QUAD,
    QUAD_END,
    REF,
    REF_END,
)  # fmt: skip
from corpus.verdicts import Lost

Languages = Mapping[str, Language]
ROLES = ("system", "user", "assistant")
MAX_REGIONS = 64  # of one image that become samples of their own; one image must not flood a stage


class Unfit(Lost):
    """A sample that a format cannot show: dropped by a rule. `suffix` is that of the Formatted it stands for."""

    suffix = ""

    def __init__(self, rule: str, value: float | None = None, threshold: float | None = None, detail: str = ""):
        super().__init__(verdicts.dropped(rule, value, threshold, detail or None))


class BadSample(Lost):
    """A sample that is not what its task requires: an error."""

    def __init__(self, kind: str, detail: str):
        super().__init__(verdicts.failed(kind, detail))


@dataclass(slots=True)
class Formatted:
    """One training sample before tokenising. `suffix` tells apart those that one cleaned sample gives rise to."""

    suffix: str
    pieces: list[Piece]
    shapes_dropped: int = 0  # boxes or quads without area inside the image, left out


def caption(sample: Sample, languages: Languages) -> Formatted:
    """`<img>P</img>Generate the caption in English:· TEXT<eos>`"""
    answer = " " + _required(sample.text, "empty_text")
    return Formatted("", [*_prompt(_language(sample, languages).caption), _answer(answer), _EOS])


def vqa(sample: Sample) -> Formatted:
    """`<img>P</img>QUESTION Answer:· ANSWER<eos>`; also for `ocr_vqa`."""
    question = _required(sample.annotations["question"], "empty_question")
    answer = " " + _required(sample.annotations["answer"], "empty_answer")
    return Formatted("", [*_prompt(f"{question} Answer:"), _answer(answer), _EOS])


def grounded_caption(sample: Sample, languages: Languages) -> Formatted:
    """`<img>P</img>Generate the caption in English with grounding:· ... <ref>PHRASE</ref><box>...</box> ...<eos>`

    Regions without a span in the caption, or whose span overlaps an earlier one, cannot be shown in it and are dropped.
    """
    _required(sample.text, "empty_text")
    spans, dropped = _grounded_spans(sample)
    if not spans:
        raise Unfit("no_valid_box", 0, 1, f"{dropped} boxes without area in the image or place in the caption")
    at, pieces = len(sample.text) - len(sample.text.lstrip()), []
    lead = " "
    for (start, end), boxes in spans:
        pieces += [_answer(lead + sample.text[at:start]), *_ref(sample.text[start:end], True), *_boxes(boxes, True)]
        at, lead = end, ""
    pieces.append(_answer(sample.text[at:].rstrip()))
    prompt = _prompt(_language(sample, languages).grounded_caption)
    return Formatted("", [*prompt, *(p for p in pieces if p.value), _EOS], dropped)


def referring(sample: Sample) -> Iterator[Formatted | Unfit]:
    """`<img>P</img><ref>PHRASE</ref>·<box>(x0,y0),(x1,y1)</box><eos>`, one sample for each region."""
    for suffix, text, boxes, dropped in _regions(sample):
        if not isinstance(boxes, Unfit):
            pieces = [_IMAGE, *_ref(text, False), *_boxes(boxes, True), _EOS]
            yield Formatted(suffix, pieces, dropped)
        else:
            yield boxes


def region_caption(sample: Sample) -> Iterator[Formatted | Unfit]:
    """`<img>P</img><ref>This</ref><box>(x0,y0),(x1,y1)</box>· is PHRASE<eos>`, one sample for each region."""
    for suffix, text, boxes, dropped in _regions(sample):
        if not isinstance(boxes, Unfit):
            pieces = [_IMAGE, *_ref("This", False), *_boxes(boxes, False), _answer(f" is {text}"), _EOS]
            yield Formatted(suffix, pieces, dropped)
        else:
            yield boxes


def ocr(sample: Sample) -> Formatted:
    """`<img>P</img>OCR with grounding:· <ref>LINE</ref><quad>(x,y),(x,y),(x,y),(x,y)</quad>...<eos>`"""
    pieces, dropped = [], 0
    for line in sample.annotations["lines"]:
        quad = normalise_quad(line["quad"], *_size(sample))
        text = line["text"].strip()
        if quad is None or not text:
            dropped += 1
            continue
        corners = ",".join(f"({x},{y})" for x, y in quad)
        pieces += [*_ref(text, True), *_shape(QUAD, corners, QUAD_END, True)]
    if not pieces:
        raise Unfit("no_valid_quad", 0, 1, f"{dropped} lines without area in the image or without text")
    return Formatted("", [*_prompt("OCR with grounding:"), _answer(" "), *pieces, _EOS], dropped)


def chat(sample: Sample) -> Formatted:
    """ChatML. Supervised: `<|im_start|>`, the assistant's words, `<|im_end|>` and the newline after it, in every turn.

    Those are the labels of Qwen-VL's own fine-tuning code; role names and the words of user and system are masked.
    "Picture N: " stands before each image, N counting through the dialogue. Boxes come from a turn's `regions`, never
    from its text.
    """
    turns = sample.annotations["turns"]
    used = [i for turn in turns for i in turn.get("images") or []]
    if set(used) != set(range(len(sample.images))):
        raise BadSample("bad_dialogue", f"its turns use images {used[:50]}, it has {len(sample.images)}")
    pieces, pictures = [], 0
    for turn in turns:
        pieces += _turn(turn, pictures)
        pictures += len(turn.get("images") or [])
    if not any(turn["role"] == "assistant" for turn in turns):
        raise Unfit("no_answer", 0, 1, "a dialogue without a word of the assistant")
    return Formatted("", pieces)


def _turn(turn: dict, pictures: int) -> Iterator[Piece]:
    role = turn["role"]
    if role not in ROLES:
        raise BadSample("bad_dialogue", f"role {role!r}; roles are {', '.join(ROLES)}")
    yield Piece(SPECIAL, IM_START, True)
    yield _given(f"{role}\n")
    for n, image in enumerate(turn.get("images") or [], pictures + 1):
        yield from (_given(f"Picture {n}: "), Piece(IMAGE, image, False), _given("\n"))
    if role == "assistant" and not turn.get("regions"):
        _required(turn["text"], "empty_answer")
    yield from words_of(turn, role == "assistant")
    yield Piece(SPECIAL, IM_END, True)
    yield _answer("\n")


def words_of(turn: dict, supervised: bool) -> Iterator[Piece]:
    """Yield a turn's words; those of a region as `<ref>WORDS</ref><box>...</box>`, a region without words as boxes."""
    text, at = turn["text"], 0
    regions = sorted(turn.get("regions") or [], key=lambda region: region["span"])
    for region in regions:
        start, end = region["span"]
        if not at <= start <= end <= len(text):
            raise BadSample("bad_dialogue", f"a region over characters {start} to {end}, after {at} of {len(text)}")
        if at < start:
            yield Piece(TEXT, text[at:start], supervised)
        if start < end:
            yield from _ref(text[start:end], supervised)
        yield from _region_shapes(region, supervised)
        at = end
    yield Piece(TEXT, text[at:] if regions else text.strip(), supervised)


def _region_shapes(region: dict, supervised: bool) -> Iterator[Piece]:
    boxes = [normalise_box(box, *region["size"]) for box in region.get("boxes") or []]
    quads = [normalise_quad(quad, *region["size"]) for quad in region.get("quads") or []]
    if None in boxes or None in quads or not boxes + quads:
        raise Unfit("no_valid_box", 0, 1, "a region of a dialogue without area in its picture")
    yield from _boxes(boxes, supervised)
    for quad in quads:
        yield from _shape(QUAD, ",".join(f"({x},{y})" for x, y in quad), QUAD_END, supervised)


_FORMATS: dict[str, Callable] = {
    "caption": caption, "grounded_caption": grounded_caption, "vqa": vqa, "ocr_vqa": vqa, "referring": referring,
    "region_caption": region_caption, "ocr": ocr, "chat": chat,
}  # fmt: skip
_OF_LANGUAGE = ("caption", "grounded_caption")


def format_sample(sample: Sample, task: str, languages: Languages | None = None) -> list[Formatted | Unfit]:
    """Return the training samples that a cleaned sample becomes for `task`; an Unfit stands where one was dropped.

    `languages` are those beside the ones that ship, by code. Pure text is not among the tasks: it is split by tokens,
    see `corpus.texts`.
    Raises BadSample when the sample lacks what the task needs, whatever a crawl put in its place.
    """
    if task != "chat" and len(sample.images) != 1:
        raise BadSample("image_count", f"{len(sample.images)} images; {task} needs one")
    try:
        result = _FORMATS[task](sample, *([languages or {}] if task in _OF_LANGUAGE else []))
        return [result] if isinstance(result, Formatted) else list(result)
    except Unfit as unfit:
        return [unfit]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise BadSample("bad_annotations", f"{task}: {type(error).__name__}: {error}"[:300]) from None


_IMAGE = Piece(IMAGE, 0, False)
_EOS = Piece(SPECIAL, EOS, True)


def _prompt(text: str) -> list[Piece]:
    return [_IMAGE, _given(text)]


def _given(text: str) -> Piece:
    return Piece(TEXT, text, False)


def _answer(text: str) -> Piece:
    return Piece(TEXT, text, True)


def _ref(text: str, supervised: bool) -> list[Piece]:
    return _shape(REF, text, REF_END, supervised)


def _boxes(boxes: Sequence[tuple[int, int, int, int]], supervised: bool) -> list[Piece]:
    return [p for x0, y0, x1, y1 in boxes for p in _shape(BOX, f"({x0},{y0}),({x1},{y1})", BOX_END, supervised)]


def _shape(opening: str, text: str, closing: str, supervised: bool) -> list[Piece]:
    return [Piece(SPECIAL, opening, supervised), Piece(TEXT, text, supervised), Piece(SPECIAL, closing, supervised)]


def _required(text: str, rule: str) -> str:
    stripped = text.strip()
    if not stripped:
        raise Unfit(rule, 0, 1)
    return stripped


def _language(sample: Sample, languages: Languages) -> Language:
    if found := languages.get(sample.language) or shipped().get(sample.language):
        return found
    known = ", ".join(dict.fromkeys([*shipped(), *languages]))
    raise BadSample("unknown_language", f"{sample.language!r}; languages are {known}")


def _size(sample: Sample) -> tuple[int, int]:
    if not (sample.width and sample.height):
        raise BadSample("bad_annotations", "coordinates, but no width and height to relate them to")
    return sample.width, sample.height


def _valid_boxes(region: dict, sample: Sample) -> tuple[list[tuple[int, int, int, int]], int]:
    boxes = [normalise_box(box, *_size(sample)) for box in region["boxes"]]
    valid = [box for box in boxes if box is not None]
    return valid, len(boxes) - len(valid)


def expressions_of(sample: Sample) -> list[dict]:
    """Return what points at the boxes of an image: its owner's referring expressions (GRIT), else its regions."""
    return sample.annotations.get("expressions") or sample.annotations["regions"]


def _regions(sample: Sample) -> Iterator[tuple[str, str, list | Unfit, int]]:
    """Yield (key suffix, phrase, normalised boxes or why there are none, boxes dropped) for each region."""
    regions = expressions_of(sample)
    if not regions:
        yield "", "", Unfit("no_valid_box", 0, 1, "no regions"), 0
    for i, region in enumerate(regions):
        suffix, text = f"-r{i}", region["text"].strip()
        boxes, dropped = _valid_boxes(region, sample)
        if i >= MAX_REGIONS:
            boxes = Unfit("too_many_regions", i + 1, MAX_REGIONS)
        elif not text:
            boxes = Unfit("empty_text", 0, 1)
        elif not boxes:
            boxes = Unfit("no_valid_box", 0, 1, f"{dropped} boxes without area in the image")
        if isinstance(boxes, Unfit):
            boxes.suffix = suffix
        yield suffix, text, boxes, dropped


def _grounded_spans(sample: Sample) -> tuple[list[tuple[tuple[int, int], list]], int]:
    """Return [((start, end) in the caption, normalised boxes)] in order, and how many boxes were left out."""
    by_span, dropped = {}, 0
    for region in sample.annotations["regions"]:
        boxes, bad = _valid_boxes(region, sample)
        dropped += bad
        start, end = region["span"] or (0, 0)
        if boxes and 0 <= start < end <= len(sample.text) and sample.text[start:end].strip():
            by_span.setdefault((start, end), []).extend(boxes)
        else:
            dropped += len(boxes)
    spans, last = [], 0
    for (start, end), boxes in sorted(by_span.items()):
        if start >= last:
            spans.append(((start, end), boxes))
            last = end
        else:
            dropped += len(boxes)
    return spans, dropped
