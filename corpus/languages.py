"""Languages as data: `languages.yaml`, and those that a catalog of the user's own adds."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import yaml

from corpus.rules import hint, listed

TABLE = Path(__file__).with_name("languages.yaml")
Ranges = tuple[tuple[int, int], ...]
_RANGE = re.compile(r"U\+([0-9A-Fa-f]{2,6})(?:-(?:U\+)?([0-9A-Fa-f]{2,6}))?")
_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_LISTS = ("characters", "lenient", "with")


class WrongLanguage(ValueError):
    """A language that is not as it should be. `key`: where it stands in its entry, None: the entry itself."""

    def __init__(self, message: str, key: str | None = None):
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language. The fields are those of `languages.yaml`; ranges are (first, last) code points."""

    code: str
    name: str
    caption: str
    grounded_caption: str
    characters: Ranges = ()
    lenient: Ranges = ()
    spaced: bool = True
    patterns: str = "en"
    among: tuple[str, ...] = ()
    faces: str = ""

    def entry(self) -> dict:
        """Return what a table says of it, all that is not as usual."""
        told = {"with" if key == "among" else key: value for key, value in asdict(self).items() if key != "code"}
        for key in ("characters", "lenient"):
            told[key] = [f"U+{first:04X}-{last:04X}" for first, last in told[key]]
        usual = {"characters": [], "lenient": [], "with": (), "spaced": True, "patterns": "en", "faces": ""}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()
                if key not in usual or value != usual[key]}  # fmt: skip


_KEYS = tuple({"among": "with"}.get(each.name, each.name) for each in fields(Language) if each.name != "code")


def read_language(code: str, entry) -> Language:
    """Read an entry. Raises WrongLanguage with the first thing that is wrong with it."""
    if not is_code(str(code)):
        raise WrongLanguage(f"{code!r} is no code of a language, such as el or zh-hant")
    if not isinstance(entry, Mapping):
        raise WrongLanguage("a language is a mapping with at least its name")
    for key, value in entry.items():
        if why := _wrong(key, value):
            raise WrongLanguage(why, key)
    if "name" not in entry:
        raise WrongLanguage("its name is missing, with which prompts ask for captions")
    prompt = f"Generate the caption in {entry['name']}"
    told: dict = {"caption": f"{prompt}:", "grounded_caption": f"{prompt} with grounding:"}
    told |= {"among" if key == "with" else key: value for key, value in entry.items()}
    for key in ("characters", "lenient"):
        told[key] = tuple(_ranges(told.get(key, ())))
    return Language(**told | {"code": code, "among": tuple(told.get("among", ()))})


def _wrong(key: str, value) -> str | None:
    if key not in _KEYS:
        return f"a language has no {key!r}{hint(key, _KEYS)}; known: {listed(_KEYS)}"
    if key == "spaced":
        return None if isinstance(value, bool) else f"spaced is true or false, not {value!r}"
    if key in _LISTS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            return f"{key} is a list, not {value!r}"
        no_range = [each for each in value if key != "with" and (not each or each[:2] == "U+" and not _is_range(each))]
        return f"{no_range[0]!r} is neither characters nor a range such as U+0370-03FF" if no_range else None
    if key == "patterns" and value not in shipped_codes():
        return f"patterns of {value!r}: there are those of {listed(shipped_codes())}"
    return None if isinstance(value, str) and value.strip() else f"{key} is a text, not {value!r}"


def _is_range(text: str) -> bool:
    if (found := _RANGE.fullmatch(text)) is None:
        return False
    return int(found[1], 16) <= int(found[2] or found[1], 16) <= 0x10FFFF


def _ranges(given) -> Iterator[tuple[int, int]]:
    for each in given:
        if found := _RANGE.fullmatch(each):
            yield int(found[1], 16), int(found[2] or found[1], 16)
        else:
            yield from ((ord(character), ord(character)) for character in each)


@cache
def _table() -> dict:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def shipped_codes() -> tuple[str, ...]:
    """Return the codes of the languages that ship, in the table's order."""
    return tuple(_table())


@cache
def shipped() -> dict[str, Language]:
    """Return the languages that ship, by code."""
    return {code: read_language(code, entry) for code, entry in _table().items()}


def is_code(text: str) -> bool:
    """Whether a text can be the code of a language: el, zh-hant."""
    return _CODE.fullmatch(text) is not None


def number_of(code: str) -> int:
    """Return a number for seeds: the place of a language that ships, a large one of others."""
    codes = shipped_codes()
    return codes.index(code) if code in codes else int.from_bytes(code.encode())


def language_of(given: str | Language) -> Language:
    """Return a language that ships by its code; one itself. Raises ValueError for a code without a table."""
    if isinstance(given, Language):
        return given
    if given not in shipped():
        known = listed(shipped())
        raise ValueError(f"no characters known for language {given!r}; languages are {known}")
    return shipped()[given]
