"""YAML is read as it is written, and everything in it has a line."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corpus.catalog import load_catalog
from corpus.marked import BadYaml, Document

WRITTEN = """\
words: [no, off, yes, on, No, 2026-11-21, 1:30, =]
numbers: [012, 1e-3, 280_000_000, 0x1F, -7, .5, 1., 6.02e23]
others: [true, False, ~, null, .inf]
"""


def test_scalars_are_what_they_look_like():
    tree = Document("f.yaml", WRITTEN).tree
    assert tree["words"] == ["no", "off", "yes", "on", "No", "2026-11-21", "1:30", "="]
    assert tree["numbers"] == [12, 0.001, 280_000_000, 31, -7, 0.5, 1.0, 6.02e23]
    assert tree["others"] == [True, False, None, None, float("inf")]


def test_every_key_and_item_has_its_line():
    document = Document("f.yaml", "a:\n  b:\n  - x\n  - {c: 1,\n     d: 2}\n")
    lines = {(): "f.yaml", ("a",): "f.yaml:1", ("a", "b", 1): "f.yaml:4", ("a", "b", 1, "d"): "f.yaml:5"}
    assert {path: document.place(path) for path in lines} == lines
    assert document.place(("a", "b", 7, "z")) == "f.yaml:2", "the last part that is there"


def test_all_keys_given_twice_are_told():
    document = Document("f.yaml", "a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.twice == ["f.yaml:2: 'c' is given twice", "f.yaml:3: 'a' is given twice"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: [1", "f.yaml:2: not valid YAML"),
        ("a: b: c", "f.yaml:1: not valid YAML"),
        ("a: &x [*x]", "holds itself"),
        ("{a: 1}: 2", "f.yaml:1: a key is a word"),
        ("a: *none", "f.yaml:1: not valid YAML: found undefined alias"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_says_where(text, said):
    with pytest.raises(BadYaml, match=said):
        Document("f.yaml", text + "\n")


def test_set_changes_one_value_and_is_its_place():
    document = Document("f.yaml", "stages: {1: {steps: 5}}\ndo: [a, {b: 1}]\n")
    for assignment in ("stages.1.steps=1e3", "stages.2.steps=no", "do.1.b=[2, 3]", "new.key=x=y"):
        document.set(assignment)
    assert document.tree == {
        "stages": {1: {"steps": 1000.0}, 2: {"steps": "no"}}, "do": ["a", {"b": [2, 3]}], "new": {"key": "x=y"},
    }  # fmt: skip
    assert document.place(("stages", 1, "steps")) == "--set stages.1.steps=1e3"
    assert document.place(("do", 0)) == "f.yaml:2"


@pytest.mark.parametrize("wrong", ["a", "=1", "a.b.c=1", "do.5=1", "do.x=1", "a=[1"])
def test_a_set_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadYaml, match="--set"):
        Document("f.yaml", "a: 1\ndo: [1]\n").set(wrong)


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TREES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text("abxyz_ -", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
)


@given(TREES)
def test_what_yaml_writes_is_read_back(tree):
    assert Document("f.yaml", yaml.safe_dump(tree)).tree == tree


def test_a_catalogs_rule_may_be_off_and_on(tmp_path):
    entry = "mine: {language: en, licence: x, job: clean_laion, reader: columns, tasks: [caption], rules: {%s}}"
    (tmp_path / "c.yaml").write_text(entry % "emoji: off, html: on, language: false, patterns: true, image_size:")
    rules = load_catalog(tmp_path / "c.yaml")["mine"].rules
    assert rules == {"emoji": False, "html": {}, "language": False, "patterns": {}, "image_size": {}}
