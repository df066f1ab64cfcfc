"""The JSON Schema of recipes and of catalogs: what editors complete and check; `recipes/*.schema.json` are its output.

The shapes are those that recipes are checked by, the flags those of the jobs' own parsers, the rules those of the jobs'
own tables.
"""

import argparse
import json

from corpus.languages import shipped
from corpus.records import TASKS
from corpus.rules import Rule
from pipelines.recipe import flags
from pipelines.recipe.read import MAKERS, VERB_OF, VERBS
from pipelines.recipe.shape import Entry, Recipe
from pipelines.work.datasets import JOBS

_ANY_OF = {int: "integer", float: "number"}


def text_of(of: str) -> str:
    """Return the schema of "recipe" or "catalog" as the text of its file."""
    return json.dumps(_recipe() if of == "recipe" else _catalog(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _recipe() -> dict:
    made = Recipe.model_json_schema(by_alias=True)
    shapes = made["$defs"]
    _fill_entry(shapes["DatasetPart"]["properties"])
    shapes["DatasetPart"]["properties"]["do"] = {
        "description": shapes["DatasetPart"]["properties"]["do"]["description"],
        "type": "array", "items": {"anyOf": [{"enum": sorted({*VERBS, *VERB_OF.values()})}, _steps()]},
    }  # fmt: skip
    shapes["StagePart"]["properties"]["build"] = _flags("build_stage", required=False)
    shapes["StagePart"]["properties"]["train"] = _flags("trainer", required=False)
    makers = {job: _flags(job) | {"type": ["object", "null"]} for job in MAKERS}
    made["properties"]["raw"]["anyOf"] = [{"type": "string"}, _object(makers, maxProperties=1)]
    for name in ("datasets", "stages"):
        made["properties"][name]["additionalProperties"] = {
            "anyOf": [made["properties"][name]["additionalProperties"], {"type": "null"}]
        }
    return _titled(made, "A recipe of Gristmill")


def _catalog() -> dict:
    entry = Entry.model_json_schema()
    _fill_entry(entry["properties"])
    whole = {
        "extends": {"type": "string"}, "data": {"type": "string"}, "plugins": _texts(),
        "languages": {"type": "object", "additionalProperties": _language()},
    }  # fmt: skip
    return _titled(_object(whole, additionalProperties=entry), "A catalog of Gristmill")


def _texts() -> dict:
    return {"type": "array", "items": {"type": "string"}}


def _language() -> dict:
    texts = dict.fromkeys(("name", "caption", "grounded_caption", "faces"), {"type": "string"})
    lists = dict.fromkeys(("characters", "lenient", "with"), _texts())
    others = {"spaced": {"type": "boolean"}, "patterns": {"enum": list(shipped())}}
    return _object(texts | lists | others, required=["name"])


def _titled(schema: dict, title: str) -> dict:
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}


def _object(properties: dict, **more) -> dict:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _fill_entry(properties: dict) -> None:
    """Name what the shapes leave open: jobs, readers, tasks, rules and their parameters."""
    readers = sorted({reader for kind in JOBS.values() for reader in kind.readers})
    _among(properties["job"], sorted(JOBS))
    _among(properties["reader"], readers)
    properties["tasks"]["anyOf"][0]["items"] = {"enum": list(TASKS)}
    rules = {rule.name: rule for kind in JOBS.values() for rule in kind.rules.values() if not rule.fixed}
    properties["rules"] = {
        "description": properties["rules"]["description"], "type": ["object", "null"],
        "properties": {name: _rule(rule) for name, rule in sorted(rules.items())},
    }  # fmt: skip


def _among(shape: dict, names: list[str]) -> None:
    shape["anyOf"][0] = {"enum": names}


def _rule(rule: Rule) -> dict:
    known = {name: {"description": f"default: {each.default!r}. {each.source}".strip()}
             for name, each in rule.parameters.items()}  # fmt: skip
    return {"description": rule.says, "anyOf": [_object(known), {"enum": ["on", "off", True, False, None]}]}


def _steps() -> dict:
    """A step with flags, by its verb; a verb of several jobs takes the flags of each."""
    by_verb: dict[str, dict] = {verb: dict(_flags(job)["properties"]) for verb, job in VERBS.items()}
    for job in JOBS:
        by_verb.setdefault(VERB_OF[job.partition("_")[0]], {}).update(_flags(job)["properties"])
    return _object(
        {verb: _object(known) | {"type": ["object", "null"]} for verb, known in by_verb.items()}, maxProperties=1
    )


def _flags(job: str, *, required: bool = True) -> dict:
    known = flags.actions(job)
    needed = [name for name, action in known.items() if action.required and name != "language"]
    made = _object({name: _flag(action) for name, action in known.items()})
    return made | ({"required": needed} if needed and required else {})


def _flag(action: argparse.Action) -> dict:
    says = " ".join((action.help or "").replace("%(default)s", str(action.default)).split())
    if action.nargs == 0:
        return {"type": "boolean", "description": says}
    kind = _ANY_OF.get(action.type) if isinstance(action.type, type) else None
    one = (
        {"enum": list(action.choices)} if action.choices else {"type": kind} if kind else {"type": ["string", "number"]}
    )
    if action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction):
        one = {"anyOf": [one, {"type": "array", "items": one}]}
    return {**one, "description": says}
