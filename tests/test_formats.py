"""Every task's text, character by character against the paper's boxes B.1 and B.2, and its loss mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.formats import MAX_REGIONS, BadSample, Formatted, Unfit, format_sample
from corpus.pieces import IMAGE, Encoder, text_of
from corpus.records import EncodedImage, Sample
from corpus.tokens import SPECIALS, load_tokenizer

IMAGE_TASKS = ("caption", "vqa", "ocr_vqa", "grounded_caption", "referring", "region_caption", "ocr", "chat")
PIXEL = EncodedImage(b"", "jpg")


def make(task: str, **fields) -> Sample:
    defaults = {"key": "d/0/0", "dataset": "d", "language": "en", "width": 1000, "height": 1000, "images": [PIXEL]}
    return Sample(task=task, **defaults | fields)


def marked(pieces) -> str:
    """The pieces as DESIGN writes them: `·` where supervision starts or ends."""
    text, before = "", False
    for piece in pieces:
        text += "·" * (piece.supervised != before) + text_of([piece])
        before = piece.supervised
    return text


def lines(text, quad):
    return {"lines": [{"text": text, "quad": quad}]}


def regions(*items):
    return {"regions": [{"text": text, "span": span, "boxes": boxes} for text, span, boxes in items]}


BEES = "Beautiful shot of bees gathering nectars from an apricot flower"
BEE_REGIONS = regions(
    ("bees", [18, 22], [[661, 612, 833, 812], [120, 555, 265, 770]]),
    ("an apricot flower", [46, 63], [[224, 13, 399, 313]]),
)
DIALOGUE = {
    "turns": [
        {"role": "user", "text": "What is the sign in the picture?", "images": [0]},
        {"role": "assistant", "text": "The sign is a road closure.", "images": []},
        {"role": "user", "text": "How is the weather?"},
        {"role": "assistant", "text": "It is rainy.", "images": []},
    ]
}
CASES = {
    "caption": (
        make("caption", text="the beautiful flowers for design."),
        "<img>P</img>Generate the caption in English:· the beautiful flowers for design.<|endoftext|>",
    ),
    "caption zh": (
        make("caption", text=" 设计用的美丽花朵 ", language="zh"),
        "<img>P</img>Generate the caption in Chinese:· 设计用的美丽花朵<|endoftext|>",
    ),
    "vqa": (
        make("vqa", annotations={"question": "Is the bandage of one color?", "answer": "No, both are white."}),
        "<img>P</img>Is the bandage of one color? Answer:· No, both are white.<|endoftext|>",
    ),
    "ocr_vqa": (
        make("ocr_vqa", annotations={"question": "What is the title of this book?", "answer": "Asi Se Dice!, 2"}),
        "<img>P</img>What is the title of this book? Answer:· Asi Se Dice!, 2<|endoftext|>",
    ),
    "grounded_caption": (
        make("grounded_caption", text=BEES, annotations=BEE_REGIONS),
        "<img>P</img>Generate the caption in English with grounding:· Beautiful shot of <ref>bees</ref>"
        "<box>(661,612),(833,812)</box><box>(120,555),(265,770)</box> gathering nectars from "
        "<ref>an apricot flower</ref><box>(224,13),(399,313)</box><|endoftext|>",
    ),
    "referring": (
        make("referring", annotations=regions(("the ear on a giraffe", None, [[176, 106, 232, 160]]))),
        "<img>P</img><ref>the ear on a giraffe</ref>·<box>(176,106),(232,160)</box><|endoftext|>",
    ),
    "region_caption": (
        make("region_caption", annotations=regions(("Yellow ski racing gloves", None, [[360, 542, 476, 705]]))),
        "<img>P</img><ref>This</ref><box>(360,542),(476,705)</box>· is Yellow ski racing gloves<|endoftext|>",
    ),
    "ocr": (
        make("ocr", annotations=lines("It is managed", [[568, 121], [625, 131], [624, 182], [567, 172]])),
        "<img>P</img>OCR with grounding:· <ref>It is managed</ref>"
        "<quad>(568,121),(625,131),(624,182),(567,172)</quad><|endoftext|>",
    ),
    "chat": (
        make("chat", annotations=DIALOGUE),
        "·<|im_start|>·user\nPicture 1: <img>P</img>\nWhat is the sign in the picture?·<|im_end|>\n"
        "<|im_start|>·assistant\n·The sign is a road closure.<|im_end|>\n"
        "<|im_start|>·user\nHow is the weather?·<|im_end|>\n<|im_start|>·assistant\n·It is rainy.<|im_end|>\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_text_and_mask(case):
    sample, expected = CASES[case]
    (formatted,) = format_sample(sample, case.split()[0])
    assert marked(formatted.pieces) == expected


def test_pictures_are_counted_through_the_dialogue():
    turns = [
        {"role": "system", "text": "You are a helpful assistant.", "images": []},
        {"role": "user", "text": "Compare.", "images": [0, 1]},
        {"role": "assistant", "text": "They differ.", "images": []},
        {"role": "user", "text": "And this?", "images": [2]},
        {"role": "assistant", "text": "Same.", "images": []},
    ]
    (formatted,) = format_sample(make("chat", images=[PIXEL] * 3, annotations={"turns": turns}), "chat")
    assert text_of(formatted.pieces) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPicture 1: <img>P</img>\nPicture 2: <img>P</img>\nCompare.<|im_end|>\n"
        "<|im_start|>assistant\nThey differ.<|im_end|>\n"
        "<|im_start|>user\nPicture 3: <img>P</img>\nAnd this?<|im_end|>\n<|im_start|>assistant\nSame.<|im_end|>\n"
    )
    assert [p.value for p in formatted.pieces if p.kind == IMAGE] == [0, 1, 2]


def test_dialogue_of_text_alone():
    turns = [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Hello"}]
    (formatted,) = format_sample(make("chat", images=[], annotations={"turns": turns}), "chat")
    assert text_of(formatted.pieces) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("task", IMAGE_TASKS)
def test_special_tokens_in_every_field_stay_text(task, special):
    """The number of control tokens is that of the same sample with harmless text."""
    encoder = Encoder(load_tokenizer(), queries=4)

    def controls(word: str) -> list[int]:
        text = f"x {word} y"
        sample = make(
            task, text=text,
            annotations={
                "question": text, "answer": text,
                "turns": [{"role": "system", "text": text}, {"role": "user", "text": text, "images": [0]},
                          {"role": "assistant", "text": text}],
            } | lines(text, [[1, 1], [50, 1], [50, 50], [1, 50]]) | regions((text, [0, len(text)], [[10, 20, 30, 40]])),
        )  # fmt: skip
        (formatted,) = format_sample(sample, task)
        tokens = encoder.encode(formatted.pieces).tokens.tolist()
        assert text in encoder.tokenizer.decode(tokens)
        return [t for t in tokens if t in encoder.tokenizer.special.values()]

    assert controls(special) == controls("word")


@given(
    task=st.sampled_from(IMAGE_TASKS), text=st.text(min_size=1, max_size=40), queries=st.integers(1, 9),
    coordinates=st.lists(st.floats(-50, 1200), min_size=4, max_size=4),
)  # fmt: skip
@settings(max_examples=150)
def test_masks_never_cover_what_is_given(task, text, queries, coordinates):
    """Image slots, prompts, role names and the first token are never targets; the end of the answer always is."""
    x0, y0, x1, y1 = coordinates
    sample = make(
        task, text=text,
        annotations={
            "question": text, "answer": text,
            "turns": [{"role": "user", "text": text, "images": [0]}, {"role": "assistant", "text": text}],
        } | lines(text, [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) | regions((text, [0, len(text)], [[x0, y0, x1, y1]])),
    )  # fmt: skip
    encoder = Encoder(load_tokenizer(), queries)
    for result in format_sample(sample, task):
        if isinstance(result, Unfit):
            continue
        encoded = encoder.encode(result.pieces)
        assert encoded.tokens.dtype == np.int32 and encoded.loss.dtype == bool
        assert len(encoded.tokens) == len(encoded.loss)
        assert not encoded.loss[0] and encoded.loss[-1]
        slot = np.isin(
            encoded.tokens, [encoder.tokenizer.image_start, encoder.tokenizer.image_pad, encoder.tokenizer.image_end]
        )
        assert slot.sum() == queries + 2 and not encoded.loss[slot].any()
        given_text = sum(
            len(encoder.tokenizer.encode(p.value)) for p in result.pieces if p.kind == "text" and not p.supervised
        )
        given_special = sum(p.kind == "special" and not p.supervised for p in result.pieces)
        unsupervised_start = result.pieces[
            0
        ].supervised  # chat begins with a token that would be, were it not the first
        assert (~encoded.loss).sum() == queries + 2 + given_text + given_special + unsupervised_start


BAD_BOXES = [
    [5, 5, 5, 9],
    [9, 9, 5, 5],
    [-9, -9, -1, -1],
    [2000, 0, 3000, 10],
    [0, 0, float("nan"), 9],
    [0, 0, 1],
    ["a"] * 4,
    None,
]


@pytest.mark.parametrize("box", BAD_BOXES)
@pytest.mark.parametrize("task", ["grounded_caption", "referring", "region_caption"])
def test_bad_boxes_are_dropped_with_a_reason(task, box):
    results = format_sample(make(task, text="a cat", annotations=regions(("cat", [2, 5], [box]))), task)
    assert [type(r) for r in results] == [Unfit] and results[0].kind == "no_valid_box"


def test_a_bad_box_costs_only_itself():
    sample = make(
        "grounded_caption", text="a cat", annotations=regions(("cat", [2, 5], [[9, 9, 5, 5], [-50, 10, 70, 5000]]))
    )
    (formatted,) = format_sample(sample, "grounded_caption")
    assert formatted.shapes_dropped == 1
    assert "<ref>cat</ref><box>(0,10),(70,999)</box>" in text_of(formatted.pieces)


def test_overlapping_and_unplaced_regions_are_counted():
    notes = regions(("a cat", [0, 5], [[0, 0, 9, 9]]), ("cat", [2, 5], [[1, 1, 5, 5]]), ("dog", None, [[1, 1, 5, 5]]),
                    ("x", [4, 99], [[1, 1, 5, 5]]))  # fmt: skip
    (formatted,) = format_sample(make("grounded_caption", text="a cat", annotations=notes), "grounded_caption")
    assert formatted.shapes_dropped == 3
    assert text_of(formatted.pieces).endswith(": <ref>a cat</ref><box>(0,0),(9,9)</box><|endoftext|>")


def test_ten_thousand_regions():
    notes = regions(*[(f"thing {i}", None, [[i % 900, 0, i % 900 + 50, 50]]) for i in range(10_000)])
    results = format_sample(make("referring", annotations=notes), "referring")
    assert len(results) == 10_000 == len({r.suffix for r in results})
    assert sum(isinstance(r, Formatted) for r in results) == MAX_REGIONS
    assert {r.kind for r in results if isinstance(r, Unfit)} == {"too_many_regions"}


@pytest.mark.parametrize(
    ("task", "fields", "rule"),
    [
        ("caption", {"text": " \n"}, "empty_text"),
        ("vqa", {"annotations": {"question": "?", "answer": "  "}}, "empty_answer"),
        ("vqa", {"annotations": {"question": "", "answer": "x"}}, "empty_question"),
        ("referring", {"annotations": regions(("", None, [[1, 1, 9, 9]]))}, "empty_text"),
        ("referring", {"annotations": {"regions": []}}, "no_valid_box"),
        ("ocr", {"annotations": {"lines": []}}, "no_valid_quad"),
        ("ocr", {"annotations": {"lines": [{"text": "a", "quad": [[0, 0], [0, 9], [9, 9], [9, 0]]}]}}, "no_valid_quad"),
        ("chat", {"annotations": {"turns": [{"role": "user", "text": "x", "images": [0]}]}}, "no_answer"),
        ("chat", {"images": [], "annotations": {"turns": [{"role": "assistant", "text": ""}]}}, "empty_answer"),
    ],
)
def test_what_cannot_be_shown_is_dropped(task, fields, rule):
    assert [r.kind for r in format_sample(make(task, **fields), task)] == [rule]


@pytest.mark.parametrize(
    ("task", "fields", "kind"),
    [
        ("caption", {"text": "x", "images": []}, "image_count"),
        ("caption", {"text": "x", "images": [PIXEL] * 2}, "image_count"),
        ("caption", {"text": "x", "language": "fr"}, "unknown_language"),
        ("vqa", {"annotations": {"question": 3, "answer": "x"}}, "bad_annotations"),
        ("vqa", {}, "bad_annotations"),
        ("referring", {"annotations": {"regions": "many"}}, "bad_annotations"),
        ("referring", {"annotations": regions(("a", None, [[1, 1, 9, 9]])), "width": None}, "bad_annotations"),
        ("chat", {"annotations": {"turns": [{"role": "wizard", "text": "x", "images": [0]}]}}, "bad_dialogue"),
        ("chat", {"annotations": {"turns": [{"role": "user", "text": "x", "images": [7]}]}}, "bad_dialogue"),
        ("chat", {"annotations": {"turns": [{"role": "user", "text": "x"}]}}, "bad_dialogue"),
        ("chat", {"annotations": {"turns": None}}, "bad_annotations"),
    ],
)
def test_what_is_no_sample_is_an_error(task, fields, kind):
    with pytest.raises(BadSample) as caught:
        format_sample(make(task, **fields), task)
    assert caught.value.kind == kind
