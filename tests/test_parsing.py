"""From sample to text and tokens and back; and what a model may write instead."""

from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.formats import format_sample
from corpus.geometry import normalise_box, normalise_quad
from corpus.parsing import parse_text, parse_tokens
from corpus.pieces import Encoder, text_of
from corpus.records import EncodedImage, Sample
from corpus.tokens import SPECIALS, load_tokenizer

PIXEL = EncodedImage(b"", "jpg")
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Mn", "Mc")), min_size=1, max_size=8
)
BOXES = st.tuples(st.integers(0, 600), st.integers(0, 400), st.integers(5, 300), st.integers(5, 300)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
SPECIAL_FREE = WORDS.filter(lambda word: not any(special in word for special in SPECIALS))


def make(task, **fields):
    size = {"width": 700, "height": 500, "images": [PIXEL]}
    return Sample(key="d/0/0", dataset="d", task=task, language="en", **size | fields)


@given(st.lists(st.tuples(SPECIAL_FREE, SPECIAL_FREE, st.lists(BOXES, max_size=3)), min_size=1, max_size=5))
@settings(max_examples=100)
def test_grounded_captions_come_back(items):
    caption, regions, expected = "", [], []
    for plain, phrase, boxes in items:
        caption += f" {plain} "
        if boxes:
            regions.append({"text": phrase, "span": [len(caption), len(caption) + len(phrase)], "boxes": boxes})
            expected.append((phrase, [normalise_box(box, 700, 500) for box in boxes]))
        caption += phrase
    sample = make("grounded_caption", text=caption, annotations={"regions": regions})
    (formatted,) = format_sample(sample, "grounded_caption")
    if not regions:
        assert formatted.kind == "no_valid_box"
        return
    prompt = "Generate the caption in English with grounding:"
    for parsed in (parse_text(text_of(formatted.pieces)), _by_tokens(formatted)):
        assert [(r.text, r.boxes) for r in parsed.regions] == expected
        assert parsed.text.removeprefix(prompt).strip() == caption.strip()
        assert all(parsed.text[slice(*r.span)] == r.text for r in parsed.regions)
        assert parsed.malformed == 0


def _by_tokens(formatted):
    tokenizer = load_tokenizer()
    return parse_tokens(Encoder(tokenizer, 3).encode(formatted.pieces).tokens, tokenizer)


@given(st.lists(st.tuples(SPECIAL_FREE, BOXES), min_size=1, max_size=6))
@settings(max_examples=60)
def test_ocr_lines_come_back(lines):
    def corners(box):
        return [[box[0], box[1]], [box[2], box[1] + 2], [box[2], box[3]], [box[0], box[3]]]

    notes = {"lines": [{"text": text, "quad": corners(box)} for text, box in lines]}
    (formatted,) = format_sample(make("ocr", annotations=notes), "ocr")
    parsed = _by_tokens(formatted)
    assert [(r.text, r.quads) for r in parsed.regions] == [
        (text, [normalise_quad(corners(box), 700, 500)]) for text, box in lines
    ]


@given(st.sampled_from(SPECIALS), BOXES)
@settings(max_examples=30)
def test_tokens_tell_a_special_token_from_its_name(special, box):
    notes = {"regions": [{"text": f"a {special} b", "span": None, "boxes": [box]}]}
    (formatted,) = format_sample(make("referring", annotations=notes), "referring")
    (region,) = _by_tokens(formatted).regions
    assert region.text == f"a {special} b" and region.boxes == [normalise_box(box, 700, 500)]


def test_the_papers_own_spacing():
    parsed = parse_text(
        "<ref> Woman</ref><box>(451,379),(731,806)</box> and<ref> her dog</ref><box>(219,424),(576,896)</box>"
    )
    assert parsed.text == " Woman and her dog"
    assert parsed.boxes == [(451, 379, 731, 806), (219, 424, 576, 896)]
    spaced = parse_text("<ref>It</ref> <quad>(568,121), (625,131), (624,182), (567,172)</quad>")
    assert spaced.quads == [((568, 121), (625, 131), (624, 182), (567, 172))] and spaced.regions[0].text == "It"


def test_what_a_model_may_write_wrong():
    parsed = parse_text(
        "<ref>a</ref><box>(1,2),(3</box><ref>b</ref><box>(1,2),(3,4)</box><box>(1,2),(3,1000)</box><box>(5,6),(7,8)"
    )
    assert [(r.text, r.boxes) for r in parsed.regions] == [("a", []), ("b", [(1, 2, 3, 4)])]
    assert parsed.malformed == 3
    lone = parse_text("here <box>(1,2),(3,4)</box> it is </ref></box>")
    assert lone.regions[0].text == "" and lone.boxes == [(1, 2, 3, 4)] and lone.text == "here  it is "


@given(st.lists(st.sampled_from([*SPECIALS, "(1,2)", ",", "(3,4)", "x", "(", " "]), max_size=20))
@settings(max_examples=200)
def test_parsing_never_fails(parts):
    parsed = parse_text("".join(parts))
    assert all(0 <= v <= 999 for box in parsed.boxes for v in box)
    assert all(parsed.text[slice(*r.span)] == r.text for r in parsed.regions)
