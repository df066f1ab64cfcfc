"""Reader of dialogues: ShareGPT and LLaVA, OpenAI-style messages, alpaca, Qwen-VL's own, told apart by their keys.

ShareGPT / LLaVA (haotian-liu/LLaVA docs/Finetune_Custom_Data.md): {id, image, conversations: [{from, value}]},
`<image>` where an image stands. Messages (OpenAI chat completions; hiyouga/LLaMA-Factory data/README.md): {messages:
[{role, content}], images}, content a string or parts of type text, image, image_url. Alpaca: {instruction, input,
output, system, history}. Qwen-VL (QwenLM/Qwen-VL README, fine-tuning): conversations with `Picture 1: <img>path</img>`
inside. Videos and sounds are refused by name.
"""

import base64
import binascii
import re
from collections.abc import Iterable

from typing_extensions import TypedDict

from corpus.readers.rows import BadRow, ChatRow, ImageRef, Turn
from corpus.verdicts import Lost, failed

ROLES = {
    "system": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
_MARK = re.compile(r"\n?(?:Picture \d+:\s*)?(?:<image>|<img>(?P<path>[^<>]{1,1000})</img>)\n?")


class Part(TypedDict, total=False):
    """A part of an OpenAI message."""

    type: str
    text: str
    value: str | dict


Content = str | list[str | Part] | None
Message = TypedDict("Message", {"from": str, "role": str, "value": Content, "content": Content}, total=False)


class Dialogue(TypedDict, total=False):
    """The fields of all layouts; `dialogue` says which of them a record lacks."""

    conversations: list[Message] | None
    messages: list[Message] | None
    instruction: str
    input: str | None
    output: str
    system: str | None
    history: list[list[str]] | None


def _refused(kind: str, detail: str) -> Lost:
    """Why a dialogue cannot be used."""
    return Lost(failed(kind, detail))


def dialogue(record) -> ChatRow | BadRow:
    """Read one record of any of the layouts into turns; images keep their places in the turns."""
    try:
        _refuse_media(record)
        messages = _messages(record)
        images = [_image(value) for value in _given_images(record)]
        turns = [_turn(role, content, images) for role, content in messages]
        return _checked(turns, images, _source(record))
    except Lost as lost:
        return BadRow(lost.kind, str(lost))


def _refuse_media(record) -> None:
    given = [name for name in ("video", "videos", "audio", "audios") if isinstance(record, dict) and record.get(name)]
    if given:
        raise _refused("unknown_medium", f"the dialogue has {' and '.join(given)}; pictures and words are read")


def _messages(record) -> list[tuple[str, object]]:
    if not isinstance(record, dict):
        raise _refused("bad_record", f"{type(record).__name__} where an object was expected")
    if isinstance(listed := record.get("conversations") or record.get("messages"), list):
        return _with_system(record, [_message(message) for message in listed])
    if "instruction" in record and "output" in record:
        return _alpaca(record)
    if "query" in record and "response" in record:  # ms-swift's older layout
        return _alpaca(record | {"instruction": record["query"], "output": record["response"]})
    raise _refused(
        "bad_record", f"no conversations, messages or instruction; it has {', '.join(map(str, record))}"[:200]
    )


def _with_system(record: dict, messages: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """LLaMA-Factory's ShareGPT says the system's words beside the conversation."""
    system = record.get("system")
    if isinstance(system, str) and system.strip() and [role for role, _ in messages[:1]] != ["system"]:
        return [("system", system), *messages]
    return messages


def _message(message) -> tuple[str, object]:
    if not isinstance(message, dict):
        raise _refused("bad_record", f"a message is {type(message).__name__}")
    role = message.get("from", message.get("role"))
    if role not in ROLES:
        raise _refused("unknown_role", f"{role!r}; known are {', '.join(ROLES)}")
    return ROLES[role], message.get("value", message.get("content"))


def _alpaca(record: dict) -> list[tuple[str, object]]:
    messages = [("system", record["system"])] if record.get("system") else []
    for pair in record.get("history") or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise _refused("bad_record", f"history holds {str(pair)[:80]}, not a pair")
        messages += [("user", pair[0]), ("assistant", pair[1])]
    asked = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    return [*messages, ("user", asked), ("assistant", record["output"])]


def _given_images(record: dict) -> list:
    given = record.get("images", record.get("image"))
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def _image(value) -> ImageRef:
    if isinstance(value, dict):  # {"url": ...} of OpenAI, {"bytes", "path"} of the Hugging Face hub
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, (bytes, bytearray)):
        return ImageRef(data=bytes(value))
    if not isinstance(value, str) or not value:
        raise _refused("bad_image", f"an image is given as {type(value).__name__}")
    if value.startswith("data:"):
        try:
            return ImageRef(data=base64.b64decode(value.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise _refused("bad_image", f"data URL: {error}") from None
    if "://" in value:
        return ImageRef(url=value, names=(value.rpartition("/")[2],))
    return ImageRef(names=(value,), ids=(f"file:{value.rpartition('/')[2]}",))


def _turn(role: str, content, images: list[ImageRef]) -> Turn:
    """Split a message at its images; marks without a path stay as None until all turns are known."""
    pieces = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            pieces += _split_at_marks(part, images)
        elif not isinstance(part, dict):
            raise _refused("bad_record", f"content is {type(part).__name__}")
        elif part.get("type") == "text":
            pieces += _split_at_marks(str(part.get("text", part.get("value", ""))), images)
        elif part.get("type") in ("image", "image_url"):
            given = part.get("image_url") or part.get("image") or part.get("url") or part.get("value")
            pieces.append(_place(images, _image(given)) if given else None)
        elif str(part.get("type")).startswith(("video", "audio", "input_audio")):
            raise _refused("unknown_medium", f"a message holds {part['type']}; pictures and words are read")
        else:
            raise _refused("unknown_part", f"a message part of type {part.get('type')!r}")
    return Turn(role=role, pieces=pieces)


def _split_at_marks(text: str, images: list[ImageRef]) -> list:
    pieces, at = [], 0
    for mark in _MARK.finditer(text):
        pieces.append(text[at : mark.start()])
        pieces.append(_place(images, _image(mark["path"])) if mark["path"] else None)
        at = mark.end()
    return [piece for piece in [*pieces, text[at:]] if piece != ""]


def _place(images: list[ImageRef], image: ImageRef) -> int:
    images.append(image)
    return len(images) - 1


def _checked(turns: list[Turn], images: list[ImageRef], source: dict) -> ChatRow:
    marks = sum(piece is None for turn in turns for piece in turn.pieces)
    placed = {piece for turn in turns for piece in turn.pieces if isinstance(piece, int)}
    waiting = [i for i in range(len(images)) if i not in placed]
    if marks == 0 and waiting:  # LLaVA-style files leave the mark out: the images come before the first question
        first = next((turn for turn in turns if turn.role == "user"), None)
        if first is None:
            raise _refused("no_question", "images, but no user's turn")
        first.pieces[:0] = waiting
    elif marks != len(waiting):
        raise _refused("image_marks", f"{marks} image marks for {len(waiting)} images")
    else:
        numbers = iter(waiting)
        for turn in turns:
            turn.pieces = [next(numbers) if piece is None else piece for piece in turn.pieces]
    _check_order(turns)
    return ChatRow(turns=turns, images=images, source=source)


def _check_order(turns: Iterable[Turn]) -> None:
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or "assistant" not in spoken:
        raise _refused("no_answer", f"no assistant's turn among {roles[:8]}")
    if spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise _refused("turn_order", f"user and assistant do not take turns: {roles[:12]}")
    for turn in turns:
        if turn.role == "assistant" and not any(isinstance(p, str) and p.strip() for p in turn.pieces):
            raise _refused("no_answer", "an assistant's turn without words")
        if turn.role == "user" and not turn.pieces:
            raise _refused("no_question", "a user's turn without words or images")


def _source(record: dict) -> dict:
    return {"id": record["id"]} if isinstance(record.get("id"), (str, int)) else {}
