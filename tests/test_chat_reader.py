"""Dialogues in every layout, images in their places, what is no dialogue refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.readers.chat import dialogue
from corpus.readers.rows import BadRow, ChatRow
from pipelines.clean_chat import turns_of

ASKED = {"from": "human", "value": "<image>\nWhat is it?"}
TOLD = {"from": "gpt", "value": "A cat."}


def turns(record) -> list[tuple]:
    chat = dialogue(record)
    assert isinstance(chat, ChatRow), chat
    return [(t["role"], t["text"], t["images"]) for t in turns_of(chat)]


def kind(record) -> str:
    found = dialogue(record)
    assert isinstance(found, BadRow), found
    return found.kind


def test_llava():
    """haotian-liu/LLaVA docs/Finetune_Custom_Data.md."""
    record = {
        "id": "1",
        "image": "coco/1.jpg",
        "conversations": [ASKED, TOLD, {"from": "human", "value": "Sure?"}, TOLD],
    }
    assert turns(record)[:2] == [("user", "What is it?", [0]), ("assistant", "A cat.", [])]
    assert dialogue(record).images[0].names == ("coco/1.jpg",) and dialogue(record).source == {"id": "1"}
    unmarked = {**record, "conversations": [{"from": "human", "value": "Hi"}, TOLD]}
    assert turns(unmarked)[0] == ("user", "Hi", [0])


def test_messages_with_several_images_between_words():
    """hiyouga/LLaMA-Factory data/README.md: messages and images, <image> where one stands."""
    record = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Compare <image> with <image>."}, {"role": "assistant", "content": "Same."},
            {"role": "user", "content": "And this?<image>"}, {"role": "assistant", "content": "Other."},
        ],
        "images": ["a.jpg", "b.jpg", "a.jpg"],
    }  # fmt: skip
    assert turns(record)[1] == ("user", "Compare Picture 1 with Picture 2.", [0, 1])
    assert turns(record)[3] == ("user", "And this?", [2]) and turns(record)[0] == ("system", "Be brief.", [])


def test_openai_parts():
    """OpenAI chat completions: content parts of type text and image_url, data URLs among them."""
    url = "data:image/png;base64," + base64.b64encode(b"bytes").decode()
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": url}}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "I see."}]}
    assert turns(record)[0] == ("user", "Look:", [0]) and dialogue(record).images[0].data == b"bytes"
    parts[1]["image_url"]["url"] = "data:image/png;base64,@@"
    assert kind(record) == "bad_image"


def test_alpaca_with_history():
    record = {"instruction": "Add", "input": "1 2", "output": "3", "system": "s", "history": [["a", "b"]]}
    assert [t[:2] for t in turns(record)] == [
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "Add\n1 2"), ("assistant", "3"),
    ]  # fmt: skip


def test_qwen_vl_finetuning():
    """QwenLM/Qwen-VL README: `Picture 1: <img>path</img>` inside the words."""
    value = "Picture 1: <img>a.jpg</img>\nPicture 2: <img>b.jpg</img>\nWhat differs?"
    record = {"conversations": [{"from": "user", "value": value}, {"from": "assistant", "value": "The hat."}]}
    assert turns(record)[0] == ("user", "What differs?", [0, 1])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ([], "bad_record"), ({"a": 1}, "bad_record"), ({"messages": []}, "no_answer"), ({"messages": ["x"]},
        "bad_record"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown_role"),
        ({"conversations": [ASKED, TOLD]}, "image_marks"),
        ({"conversations": [ASKED, TOLD], "image": ["a.jpg", "b.jpg"]}, "image_marks"),
        ({"conversations": [TOLD, ASKED], "image": "a.jpg"}, "turn_order"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": " "}]}, "no_answer"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "no_answer"),
        ({"conversations": [{"from": "human", "value": ""}, TOLD]}, "no_question"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "unknown_medium"),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "bad_record"),
        ({"instruction": "a", "output": "b", "images": [3]}, "bad_image"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue(record, expected):
    assert kind(record) == expected


KEYS = st.sampled_from(["messages", "conversations", "role", "content", "from", "value", "images", "type"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(JSON)
def test_anything_is_a_dialogue_or_a_bad_row(record):
    assert isinstance(dialogue(record), ChatRow | BadRow)


def test_llama_factorys_parts_and_system_and_ms_swifts_older_layout():
    """hiyouga/LLaMA-Factory data/README.md; modelscope/ms-swift, custom datasets."""
    parts = [{"type": "image_url", "value": "a/1.jpg"}, {"type": "text", "value": "What is it?"}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A cat."}]}
    assert turns(record) == [("user", "What is it?", [0]), ("assistant", "A cat.", [])]
    assert dialogue(record).images[0].names == ("a/1.jpg",)
    said = {"conversations": [{"from": "human", "value": "Hi"}, TOLD], "system": "Be brief."}
    assert turns(said)[0] == ("system", "Be brief.", [])
    swift = {"query": "<image>Where?", "response": "Here.", "images": ["1.jpg"], "history": [["Hi", "Hello"]]}
    assert turns(swift)[-2:] == [("user", "Where?", [0]), ("assistant", "Here.", [])]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "<video>Hi"}, TOLD], "videos": ["v.mp4"]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "value": "v.mp4"}]}, TOLD]},
        {"messages": [{"role": "user", "content": [{"type": "audio", "value": "v.wav"}]}, TOLD]},
    ],
)  # fmt: skip
def test_videos_and_sounds_are_refused_by_name(record):
    assert kind(record) == "unknown_medium"
