"""Rules of personal data: what they find, what one wrong digit hides from them, and that nobody gets them unasked."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.personal_data import made, measure, real
from cleaners import documents, personal
from cleaners.rules import RULES
from pipelines import clean_chat, clean_laion, clean_text, clean_vqa, render_pdf
from pipelines.work.datasets import TABLES
from tests.conftest import ROOT
from tests.folders import ledger
from tests.published import jpeg, put_images, put_json, run_job
from tests.test_clean_laion import CAPTION, shard
from tests.test_render_jobs import archive, pdf_document
from tests.test_render_jobs import words as filler

DATA = ROOT.parent / "shared" / "data"
KINDS = list(personal.KINDS)


def test_made_up_lines_are_judged_as_the_docs_say():
    counts = measure(made())
    assert (counts.found, counts.right) == (counts.right, counts.found), counts.notes
    missed = counts.there - counts.right
    assert missed == {"identity_numbers": 1} and sum(counts.there.values()) == 32
    told = (ROOT / "docs" / "safety.md").read_text()
    for kind in KINDS:
        assert f"| made-up | `{kind}` | {counts.there[kind]} | {counts.found[kind]} | {counts.right[kind]} |" in told


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is not there")
def test_real_lines_are_judged_as_the_docs_say():
    counts = measure(real(DATA))
    told = (ROOT / "docs" / "safety.md").read_text()
    assert set(counts.found) == {"email_addresses", "phone_numbers"}, counts.notes
    for kind in counts.found:
        assert f"| real | `{kind}` | {counts.there[kind]} | {counts.found[kind]} | {counts.right[kind]} |" in told


EXAMPLES = {
    "card_numbers": "4111111111111111", "bank_accounts": "GB82WEST12345698765432",
    "identity_numbers": "11010519491231002X",
}  # fmt: skip


@given(kind=st.sampled_from(sorted(EXAMPLES)), place=st.integers(0, 21), digit=st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_one_wrong_digit_and_it_is_no_number_of_a_person(kind, place, digit):
    number = EXAMPLES[kind]
    place %= len(number)
    other = number[:place] + str(digit) + number[place + 1 :]
    found = [(each, words) for each, words in personal.found(f"see {other} there") if each == kind]
    assert found == ([(kind, number)] if other == number else [])


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_a_crawl_wrote_is_judged(text):
    for kind, words in personal.found(text, "zh"):
        assert kind in KINDS and words in text


def test_a_megabyte_of_digits_costs_little():
    import time

    started = time.monotonic()
    for text in ("1" * 10**6, "1 " * 50_000, "4111 1111 1111 1112 " * 5_000, "a@" * 50_000, "AB12 " * 20_000):
        list(personal.found(text))
    assert time.monotonic() - started < 60


def test_they_are_off_until_they_are_named():
    for table in (RULES, *(TABLES[f"clean_{name}"] for name in ("text", "chat", "captions", "vqa", "grounding")),
                  TABLES["render_pdf"], TABLES["render_html"]):  # fmt: skip
        assert set(KINDS) <= set(table) and not set(KINDS) & set(table.active({}))
    assert [rule.name for rule in documents.RULES if rule.name in KINDS] == KINDS


def test_a_caption_a_document_and_a_dialogue_fall_by_what_they_hold(tmp_path):
    call = "Call us at (212) 736-5000 about the red barn"
    rows = [(jpeg(0), CAPTION, {}), (jpeg(1), call, {}), (jpeg(2), f"{call} or +44 20 7946 0018", {})]
    flags = "--dataset", "laion-en", "--input", shard(tmp_path / "a.tar", rows), "--rule", "phone_numbers.max=1"
    run_job(clean_laion, *flags, "--rule", "clip_score=off", "--output", tmp_path / "pairs")
    told = [(row["outcome"], row["rule"], row["value"], row["phone_numbers"]) for row in ledger(tmp_path / "pairs")]
    assert told == [("kept", None, None, 0), ("kept", None, None, 1), ("dropped", "phone_numbers", 2, 2)]
    assert {row["email_addresses"] for row in ledger(tmp_path / "pairs")} == {None}

    documents = [{"text": "word " * 60}, {"text": "word " * 60 + "jane@example.com"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, documents)))
    flags = "--input", tmp_path / "rows.jsonl", "--rule", "email_addresses=on", "--duplicates", "keep"
    run_job(clean_text, *flags, "--output", tmp_path / "text")
    assert [row["rule"] for row in ledger(tmp_path / "text")] == [None, "email_addresses"]

    chats = [
        {
            "image": "1.jpg",
            "conversations": [{"from": "human", "value": "<image>\nWhose?"}, {"from": "gpt", "value": said}],
        }
        for said in ("Jane's", "Jane's, IBAN GB82 WEST 1234 5698 7654 32")
    ]
    images = put_images(tmp_path / "images", ["1.jpg"])
    flags = "--input", put_json(tmp_path / "chat.json", chats), "--images", images, "--rule", "bank_accounts=on"
    run_job(clean_chat, "--dataset", "chat-sft", *flags, "--output", tmp_path / "chat")
    assert [(row["rule"], row["bank_accounts"]) for row in ledger(tmp_path / "chat")] == [
        (None, 0), ("bank_accounts", 1)
    ]  # fmt: skip


def test_a_question_falls_by_itself_and_by_the_answer_that_is_kept(tmp_path):
    images = put_images(tmp_path / "images", ["1.jpg"])
    asked = ["Whose card is 4111 1111 1111 1111?", "What number is on the card?", "What number is on the bus?"]
    answers = ["Jane's", "4111 1111 1111 1111", "4111 1111 1111 1112"]
    questions = [{"question_id": i, "image_id": 1, "question": each} for i, each in enumerate(asked)]
    notes = [
        {"question_id": i, "image_id": 1, "answers": [{"answer": each, "answer_confidence": "yes"}] * 10}
        for i, each in enumerate(answers)
    ]
    (tmp_path / "images" / "1.jpg").rename(tmp_path / "images" / "COCO_train2014_000000000001.jpg")
    files = (
        put_json(tmp_path / "questions.json", {"data_subtype": "train2014", "questions": questions}),
        put_json(tmp_path / "annotations.json", {"data_subtype": "train2014", "annotations": notes}),
    )
    flags = "--dataset", "vqav2", "--images", images, "--input", *files, "--no-guard"
    run_job(clean_vqa, *flags, "--rule", "card_numbers=on", "--output", tmp_path / "on")
    assert [(row["rule"], row["card_numbers"]) for row in ledger(tmp_path / "on")] == [
        ("card_numbers", 1), ("card_numbers", 1), (None, 0)
    ]  # fmt: skip
    run_job(clean_vqa, *flags, "--output", tmp_path / "off")
    assert {(row["rule"], row["card_numbers"]) for row in ledger(tmp_path / "off")} == {(None, None)}


def test_a_window_of_a_page_falls_by_its_words(tmp_path):
    path = archive(tmp_path, {
        "a.pdf": pdf_document(filler(40)), "b.pdf": pdf_document(f"{filler(40)} mail jane.doe@example.com"),
    })  # fmt: skip
    flags = "--dataset", "common-crawl-pdf", "--input", path, "--rule", "email_addresses=on"
    run_job(render_pdf, *flags, "--output", tmp_path / "on")
    told = {(row["document"], row["rule"], row["email_addresses"]) for row in ledger(tmp_path / "on")}
    assert told == {("a.pdf", None, 0), ("b.pdf", None, 0), ("b.pdf", "email_addresses", 1)}


def test_a_caption_falls_by_the_score_that_its_owner_gave_it(tmp_path):
    rows = [(jpeg(i), CAPTION, {"bad": score}) for i, score in enumerate((0.1, 0.9, None))]
    catalog = tmp_path / "mine.yaml"
    catalog.write_text(
        "mine: {language: en, licence: own, job: clean_laion, reader: columns, tasks: [caption],\n"
        "       columns: {text: caption, toxicity: bad}, rules: {toxicity: {max: 0.8}}}\n"
    )
    flags = "--catalog", catalog, "--dataset", "mine", "--input", shard(tmp_path / "a.tar", rows)
    run_job(clean_laion, *flags, "--output", tmp_path / "out")
    told = [(row["rule"], row["value"], row["toxicity"]) for row in ledger(tmp_path / "out")]
    assert told == [(None, None, 0.1), ("toxicity", 0.9, 0.9), (None, None, None)]
