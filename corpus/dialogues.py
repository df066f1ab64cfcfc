"""Dialogues as they are published (LLaVA and ShareGPT, OpenAI messages, Alpaca) -> turns of a `chat` sample.

A published dialogue marks its images with `<image>` in the text (LLaVA), as parts of a message (OpenAI), or as
`Picture 1: <img>FILE</img>` (Qwen-VL's own fine-tuning data).
"""

import re
from collections.abc import Mapping, Sequence

PLACEHOLDER = "<image>"
_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
}  # fmt: skip
_QWEN_IMAGE = re.compile(r"(?:Picture \d+: ?)?<img>([^<>\n]{1,1000})</img>\n?")
# A placeholder that a sentence does without: at an end of the text, or alone on its line.
_LOOSE = re.compile(r"^(?:\s*<image>)+\s*|\s*(?:<image>\s*)+$|(?:^|(?<=\n))[ \t]*<image>[ \t]*\n")


class BadDialogue(ValueError):
    """A record that is no dialogue of a known form. `kind` is the ledger's error kind."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


def read_dialogue(record: Mapping) -> tuple[list[dict], list[str]]:
    """Return (turns, image references) of a published dialogue.

    Turns are dicts `role` (system, user, assistant), `text`, `images` (indices into the references). An image that a
    sentence speaks of ("compare <image> with <image>") leaves "Picture N" in its place, as the chat format numbers it.
    Raises BadDialogue: `bad_dialogue` (form, role, order of turns) or `image_count` (placeholders and images differ).
    """
    messages = [_message(m) for m in _messages(record)]
    references = _references(record) + [reference for _, _, embedded in messages for reference in embedded]
    marked = sum(text.count(PLACEHOLDER) for _, text, _ in messages)
    if references and not marked:
        messages = _put_before_first_question(messages, len(references))
        marked = len(references)
    if marked != len(references):
        raise BadDialogue("image_count", f"{marked} places for images in the text, {len(references)} images")
    turns = _number_images(messages)
    _check_order(turns)
    return turns, references


def _messages(record: Mapping) -> Sequence:
    for name in ("conversations", "messages", "conversation"):
        if isinstance(record.get(name), list):
            return record[name]
    if isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str):
        return _alpaca(record)
    raise BadDialogue(
        "bad_dialogue", f"neither conversations nor messages nor instruction/output in {sorted(record)[:20]}"
    )


def _alpaca(record: Mapping) -> list[dict]:
    question = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    turns = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for past_question, past_answer in record.get("history") or []:
        turns += [{"role": "user", "content": past_question}, {"role": "assistant", "content": past_answer}]
    return [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]


def _message(message: Mapping) -> tuple[str, str, list[str]]:
    """Return (role, text with placeholders, references that stand in the message itself)."""
    if not isinstance(message, Mapping):
        raise BadDialogue("bad_dialogue", f"a message is {type(message).__name__}")
    name = message.get("role", message.get("from"))
    if name not in _ROLES:
        raise BadDialogue("bad_dialogue", f"role {name!r}; roles are {', '.join(sorted(_ROLES))}")
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        return _ROLES[name], *_parts(content)
    if not isinstance(content, str):
        raise BadDialogue("bad_dialogue", f"a message's text is {type(content).__name__}")
    references = _QWEN_IMAGE.findall(content)
    return _ROLES[name], _QWEN_IMAGE.sub(PLACEHOLDER, content), references


def _parts(content: list) -> tuple[str, list[str]]:
    text, references = "", []
    for part in content:
        kind = part.get("type")
        if kind == "text":
            text += part.get("text", part.get("value")) or ""
        elif kind in ("image", "image_url"):
            text += PLACEHOLDER
            reference = part.get(kind, part.get("value"))
            if isinstance(reference, Mapping):
                reference = reference.get("url")
            references += [reference] if isinstance(reference, str) else []
        else:
            raise BadDialogue("bad_dialogue", f"a part of a message has type {kind!r}")
    return text, references


def _references(record: Mapping) -> list[str]:
    given = record.get("image", record.get("images")) or []
    given = [given] if isinstance(given, (str, Mapping)) else given
    references = [g.get("path", g.get("url")) if isinstance(g, Mapping) else g for g in given]
    if not all(isinstance(reference, str) for reference in references):
        raise BadDialogue("bad_dialogue", "an image that is not named by a string")
    return references


def _put_before_first_question(messages: list, count: int) -> list:
    at = next((i for i, (role, _, _) in enumerate(messages) if role == "user"), None)
    if at is None:
        raise BadDialogue("bad_dialogue", "images, but no turn of the user to put them in")
    role, text, embedded = messages[at]
    return [*messages[:at], (role, PLACEHOLDER * count + text, embedded), *messages[at + 1 :]]


def _number_images(messages: list) -> list[dict]:
    turns, number = [], 0
    for role, text, _ in messages:
        count = text.count(PLACEHOLDER)
        turns.append(
            {"role": role, "text": _without_placeholders(text, number), "images": [*range(number, number + count)]}
        )
        number += count
    return turns


def _without_placeholders(text: str, before: int) -> str:
    numbered = iter(range(before + 1, before + 1 + text.count(PLACEHOLDER)))
    marked = re.sub(PLACEHOLDER, lambda _: f"\0{next(numbered)}\0", text.replace("\0", ""))
    loose = re.compile(_LOOSE.pattern.replace(PLACEHOLDER, "\0\\d+\0"))
    return re.sub("\0(\\d+)\0", r"Picture \1", loose.sub("", marked)).strip()


def _check_order(turns: list[dict]) -> None:
    roles = [turn["role"] for turn in turns]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if not talk or talk[0] != "user" or any(a == b for a, b in zip(talk, talk[1:], strict=False)) or "system" in talk:
        raise BadDialogue(
            "bad_dialogue", f"turns {', '.join(roles[:10])}; user and assistant must take turns, user first"
        )
