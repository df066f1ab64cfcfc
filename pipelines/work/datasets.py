"""What each job takes from the catalog: the readers it knows, the rules that judge its rows, and the flags for both."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace

import yaml

from cleaners import documents, personal
from cleaners.rules import RULES
from corpus.catalog import Dataset, JobKind, find, load_catalog, table_of
from corpus.plugins import plugin_digests
from corpus.readers import captions, grounding, pairs, vqa
from corpus.rules import Parameter, Rule, RuleTable, WrongRule
from pipelines.engine import job
from pipelines.work import page_rules
from renderers.rules import HTML_RULES, PDF_RULES


def _fixed(name: str, says: str, **more) -> Rule:
    return Rule(name=name, says=says, fixed=True, **more)


_GUARDS = [
    _fixed("split", "rows of the splits that --splits does not name"),
    _fixed("image_missing", "rows whose image is not there, under --allow-missing"),
    _fixed("excluded_image", "images on an exclusion list"),
    _fixed("near_excluded_image", "images that look like one on an exclusion list"),
]
_NO_TEXT = _fixed("no_text", "rows without text, or with none left")
_CAPTIONS = [rule for rule in RULES.values() if not rule.needs & set(pairs.SHIPPED)]
_AGREEMENT = Rule(
    name="agreement", says="questions whose answer too few of the people who were asked gave",
    parameters={"min": Parameter(default=0.3, score="agreement", bound="min", source="VQAv2: three of ten")},
)  # fmt: skip
_TOO_MANY_IMAGES = Rule(
    name="too_many_images", says="dialogues with more images than a pack holds", on=True,
    parameters={"max": Parameter(default=7, score="pictures", source="what 2048 tokens hold at 256 a picture")},
)  # fmt: skip

SCORED = RuleTable("pair", [RULES["clip_score"]])  # score_clip.py's, over datasets of any job
DEDUPLICATED = RuleTable(
    "sample",
    [
        _fixed("near_evaluation_image", "images that look like one of an evaluation set"),
        _fixed("exact_duplicate", "all but the first of equal images", compares=True),
        _fixed("near_duplicate", "all but the first of similar images", compares=True),
    ],
)
_TABLES = {
    "clean_laion": [_fixed("not_downloaded", "links that img2dataset could not fetch"), _NO_TEXT, *RULES.values()],
    "clean_captions": [
        *_GUARDS, _NO_TEXT, *_CAPTIONS, _fixed("longer_text_exists", "the shorter texts of an image", compares=True),
    ],
    "clean_vqa": [
        *_GUARDS, _fixed("no_answer", "questions without an answer to choose"),
        _fixed("no_question", "questions without words"), *personal.RULES, _AGREEMENT,
    ],
    "clean_grounding": [
        *_GUARDS, _fixed("no_phrase", "rows without a phrase"),
        _fixed("no_valid_box", "rows without a box inside the image"), *_CAPTIONS,
    ],
    "clean_chat": [*_GUARDS, _TOO_MANY_IMAGES, *personal.RULES],
    "clean_text": [_NO_TEXT, *documents.RULES],
}  # fmt: skip
JOBS: Mapping[str, JobKind] = {
    "clean_laion": JobKind(RuleTable("pair", _TABLES["clean_laion"]), pairs.READERS),
    "clean_captions": JobKind(RuleTable("pair", _TABLES["clean_captions"]), captions.READERS),
    "clean_vqa": JobKind(RuleTable("question", _TABLES["clean_vqa"]), vqa.READERS),
    "clean_grounding": JobKind(RuleTable("pair", _TABLES["clean_grounding"]), grounding.READERS),
    "clean_chat": JobKind(RuleTable("dialogue", _TABLES["clean_chat"]), {"chat": None}),
    "clean_text": JobKind(RuleTable("document", _TABLES["clean_text"]), {"text": None}),
    "render_pdf": JobKind(page_rules.table(PDF_RULES), {"pdf": None}, reads_rows=False),
    "render_html": JobKind(page_rules.table(HTML_RULES), {"html": None}, reads_rows=False),
    "make_ocr": JobKind(RuleTable("drawing", []), {"generated": None}, reads_rows=False),
    "make_scenes": JobKind(RuleTable("drawing", []), {"generated": None}, reads_rows=False),
}

TABLES: Mapping[str, RuleTable] = {name: kind.rules for name, kind in JOBS.items() if kind.rules} | {
    "score_clip": SCORED, "dedup": DEDUPLICATED,
}  # fmt: skip


def add_rule_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--rule`, which overrides what the catalog says of a rule."""
    parser.add_argument(
        "--rule", action="append", default=[], metavar="RULE.PARAMETER=VALUE",
        help="set a rule's parameter over the catalog's; RULE=off: without it; RULE=on: with its defaults",
    )  # fmt: skip


def add_strict_latin(parser: argparse.ArgumentParser) -> None:
    """Add `--strict-latin` to a job whose rules have `language`."""
    parser.add_argument(
        "--strict-latin", dest="rule", action="append_const", const="language.strict_latin=true",
        help="short for --rule language.strict_latin=true: no letter beyond ASCII in English, as the paper says it",
    )  # fmt: skip


def dataset_of(args: argparse.Namespace, name: str | None = None) -> Dataset:
    """Return the catalog entry of --dataset, read by the job `name` or any, with the rules that the flags change."""
    dataset = find(whole_catalog(args.catalog), args.dataset, job=name)
    table = table_of(dataset, JOBS)
    try:
        rules = changed_rules(table, dataset.rules, getattr(args, "rule", []))
        table.check(rules)
    except WrongRule as error:
        raise job.UserError(f"--rule: {error}") from None
    return replace(dataset, rules=rules)


def changed_rules(table: RuleTable, rules: Mapping[str, Mapping], flags: Iterable[str]) -> dict[str, Mapping | bool]:
    """Return `rules` with flags `RULE.PARAMETER=VALUE`, `RULE=VALUE` (of its one threshold), `RULE=on|off` applied."""
    changed = {name: given if given is False else dict(given or {}) for name, given in rules.items()}
    for flag in flags:
        target, equals, value = flag.partition("=")
        name, _, parameter = target.partition(".")
        value = yaml.safe_load(value) if equals else None
        if name in table and not parameter and not isinstance(value, bool):
            limits = list(table[name].limits)
            if value is None or len(limits) != 1:
                known = ", ".join(f"{name}.{each}" for each in table[name].parameters) or "on and off alone"
                raise WrongRule(f"{flag!r}: {name} takes {known}", (name, None))
            parameter = limits[0]
        if not parameter:
            changed[name] = {} if value is True else False
        else:
            changed[name] = (changed.get(name) or {}) | {parameter: value}
    return changed


def whole_catalog(path: str | None) -> dict[str, Dataset]:
    """Return all datasets of a catalog, by default the checkout's own."""
    return load_catalog(path, JOBS)


def rules_of(dataset: Dataset) -> RuleTable:
    """Return the rules that judge a dataset's rows."""
    return table_of(dataset, JOBS)


def rules_of_folder(settings: Mapping, catalog: str | None = None) -> RuleTable | None:
    """Return the rules that judged a folder's rows, by its settings; None where a job has none. A user's own come from
    the catalog at the path `catalog`.
    """
    if settings.get("plugins"):
        return rules_of(find(whole_catalog(catalog), settings["dataset"]))
    return TABLES.get(settings.get("job", ""))


def rule_settings(table: RuleTable, rules: Mapping[str, Mapping | bool], plugins: tuple[str, ...] = ()) -> dict:
    """Return what rules add to a job's settings: themselves, their order in the funnel, thresholds by score."""
    given = {name: each if each is False else dict(each or {}) for name, each in rules.items()}
    always = {name: each for name, each in table.active(rules).items() if table[name].on}
    return {
        "rules": given | always,
        "order": table.order(),
        "thresholds": table.thresholds(rules),
        **({"plugins": plugin_digests(plugins)} if plugins else {}),
    }
