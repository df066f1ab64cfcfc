"""Drawn scenes as samples of seven tasks, with questions and dialogues whose answers are known exactly.

What the learning proof trains and tests on. A sample is a pure function of (task, seed, settings); scenes of different
seeds are different pictures, so held-out data is other seeds.
"""

import io
import random
from collections import Counter
from collections.abc import Callable, Mapping

from corpus.records import EncodedImage, Sample
from pipelines.proof.scenes.brush import Thing
from pipelines.proof.scenes.names import COLOURS, PLURALS, SHAPES, WORDS
from pipelines.proof.scenes.scene import Scene, scene

# What may be drawn for each task. Referring needs phrases that fit one thing, ocr needs words.
KINDS = {
    "caption": ("single", "pair", "several", "word", "sign"),
    "grounded_caption": ("single", "pair", "several", "word", "sign"),
    "referring": ("single", "pair", "several", "word"),
    "region_caption": ("single", "pair", "several", "word"),
    "vqa": ("single", "group", "pair", "several", "word"),
    "ocr": ("word", "sign"),
    "chat": ("single", "pair", "several", "word"),
}
# How hard the scenes are: arguments of pipelines.proof.scenes.scene.scene.
_EASY = {
    "size": 112, "shapes": ("circle", "square", "triangle", "cross"), "colours": ("red", "green", "blue", "black"),
    "words": ("BUS", "CAFE", "EXIT", "HOT", "NEW", "OPEN", "SALE", "STOP", "TAXI", "PARK"), "max_objects": 2,
    "lettering": 1.5, "grid": 8, "one_wording": True,
    "kinds": ("single", "group", "pair", "word"),  # not several: two things could then be told as a pair or as several
}  # fmt: skip
LEVELS: dict[str, dict] = {
    "single": _EASY | {"kinds": ("single", "word")},
    "easy": _EASY,
    "full": {"size": 224, "shapes": tuple(SHAPES), "colours": tuple(COLOURS), "words": WORDS, "max_objects": 5},
}


def scene_sample(task: str, seed: str, key: str, dataset: str, settings: Mapping, shuffled: bool = False) -> Sample:
    """Draw the sample of a seed. `settings` is one of LEVELS, or arguments of `scene.scene` like it.

    shuffled: show the pictures of another seed. From such samples a model learns how answers are distributed, and
    nothing about pictures.
    """
    rng = random.Random(f"{task}/{seed}")
    seeds = [f"{task}/{seed}/{i}" for i in range(_pictures(task, rng))]
    scenes = [draw(task, seed, settings) for seed in seeds]
    shown = [draw(task, f"{seed}/other", settings) for seed in seeds] if shuffled else scenes
    images = [EncodedImage(_png(drawn), "png") for drawn in shown]
    first = scenes[0]
    return Sample(
        key=key, dataset=dataset, task=task, language="en", images=images, width=first.image.width,
        height=first.image.height, text="" if task in ("vqa", "chat") else first.caption_en,
        source={"seed": seed, "kind": first.kind}, annotations=_ANNOTATE[task](rng, scenes, settings),
    )  # fmt: skip


def _pictures(task: str, rng: random.Random) -> int:
    return 2 if task == "chat" and rng.random() < 0.3 else 1


def draw(task: str, seed: str, settings: Mapping) -> Scene:
    """Draw a scene of a kind that suits the task; `settings["kinds"]` may leave some out."""
    kinds = [kind for kind in KINDS[task] if kind in settings.get("kinds", KINDS[task])]
    return scene(seed, **(settings | {"kinds": kinds}))


def _png(drawn: Scene) -> bytes:
    buffer = io.BytesIO()
    drawn.image.save(buffer, "PNG")
    return buffer.getvalue()


def _regions(rng, scenes: list[Scene], settings) -> dict:
    return {"regions": scenes[0].regions_en}


def _lines(rng, scenes: list[Scene], settings) -> dict:
    return {"lines": [{"text": word.text, "quad": [list(p) for p in word.quad]} for word in scenes[0].words]}


def _vqa(rng, scenes: list[Scene], settings) -> dict:
    question, answer = question_about(scenes[0], rng, settings)
    return {"question": question, "answer": answer}


def _chat(rng, scenes: list[Scene], settings) -> dict:
    """One picture: a description and two questions. Two pictures: which of them shows a thing.

    Half of them end with the place of a thing, as a box.
    """
    if len(scenes) == 2:
        return {"turns": _compare(rng, scenes)}
    turns = _exchange("Describe the picture.", scenes[0].caption_en + ".", [0])
    turns += _exchange(*question_about(scenes[0], rng, settings))
    if rng.random() < 0.5:
        return {"turns": turns + _pointing(rng.choice(scenes[0].regions_en), scenes, 0)}
    return {"turns": turns + _exchange(*question_about(scenes[0], rng, settings))}


def _exchange(question: str, answer: str, images=()) -> list[dict]:
    asked = {"role": "user", "text": question} | ({"images": list(images)} if images else {})
    return [asked, {"role": "assistant", "text": answer}]


def _pointing(region: dict, scenes: list[Scene], which: int, images=()) -> list[dict]:
    """Ask where a thing is; the answer names it and holds its boxes."""
    opening = f"In picture {which + 1}: " if len(scenes) > 1 else ""
    turns = _exchange(f"Where is {region['text']}?", opening + region["text"], images)
    span = [len(opening), len(turns[1]["text"])]
    place = {"image": which, "size": list(scenes[which].image.size), "span": span, "boxes": region["boxes"]}
    turns[1]["regions"] = [place]
    return turns


def _compare(rng, scenes: list[Scene]) -> list[dict]:
    phrases = [{region["text"] for region in drawn.regions_en} for drawn in scenes]
    right = rng.randrange(2)
    only_there = sorted(phrases[right] - phrases[1 - right])
    if not only_there:
        return _exchange("Are both pictures alike?", "Yes.", [0, 1])
    phrase = rng.choice(only_there)
    if rng.random() < 0.5:
        region = next(each for each in scenes[right].regions_en if each["text"] == phrase)
        return _pointing(region, scenes, right, [0, 1])
    return _exchange(f"Which picture shows {phrase}?", f"Picture {right + 1}.", [0, 1])


_ANNOTATE: dict[str, Callable[..., dict]] = {
    "caption": _regions, "grounded_caption": _regions, "referring": _regions, "region_caption": _regions,
    "ocr": _lines, "vqa": _vqa, "chat": _chat,
}  # fmt: skip


def question_about(drawn: Scene, rng: random.Random, settings: Mapping) -> tuple[str, str]:
    """Return one of the questions that the scene answers without doubt, and the answer."""
    makers = [_ask_exists, _ask_colour, _ask_shape, _ask_count, _ask_word, _ask_place]
    found = [made for make in makers if (made := make(drawn, rng, settings))]
    return rng.choice(found)


def _ask_exists(drawn, rng, settings) -> tuple[str, str]:
    there = {(thing.colour, thing.name) for thing in drawn.objects}
    absent = [(c, s) for c in settings["colours"] for s in settings["shapes"] if (c, s) not in there]
    yes = bool(there) and rng.random() < 0.5
    colour, shape = rng.choice(sorted(there) if yes else absent)
    return f"Is there {_a(f'{colour} {shape}')}?", "Yes" if yes else "No"


def _ask_colour(drawn, rng, settings) -> tuple[str, str] | None:
    thing = _unique(drawn.objects, rng, lambda thing: thing.name)
    return thing and (f"What colour is the {thing.name}?", thing.colour)


def _ask_shape(drawn, rng, settings) -> tuple[str, str] | None:
    thing = _unique(drawn.objects, rng, lambda thing: thing.colour)
    if thing is None or any(word.colour == thing.colour for word in drawn.words):
        return None
    return f"What is {thing.colour}?", f"the {thing.name}"


def _ask_count(drawn, rng, settings) -> tuple[str, str] | None:
    if not drawn.objects:
        return None
    shape, count = rng.choice(sorted(Counter(thing.name for thing in drawn.objects).items()))
    return f"How many {PLURALS.get(shape, shape + 's')} are there?", str(count)


def _ask_word(drawn, rng, settings) -> tuple[str, str] | None:
    return ("What does the word say?", drawn.words[0].text) if drawn.words else None


def _ask_place(drawn, rng, settings) -> tuple[str, str] | None:
    """Left or right, above or below, of two things that do not overlap in that direction."""
    if len(drawn.objects) != 2 or drawn.kind == "group":
        return None
    a, b = rng.sample(drawn.objects, 2)
    names = f"the {a.colour} {a.name}", f"the {b.colour} {b.name}"
    if a.box[2] < b.box[0] or b.box[2] < a.box[0]:
        return f"Is {names[0]} left or right of {names[1]}?", "left" if a.box[2] < b.box[0] else "right"
    if a.box[3] < b.box[1] or b.box[3] < a.box[1]:
        return f"Is {names[0]} above or below {names[1]}?", "above" if a.box[3] < b.box[1] else "below"
    return None


def _unique(things: list[Thing], rng, what: Callable[[Thing], str]) -> Thing | None:
    counts = Counter(map(what, things))
    single = [thing for thing in things if counts[what(thing)] == 1]
    return rng.choice(single) if single else None


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
