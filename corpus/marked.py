"""YAML as it is written, with the line of everything in it.

Scalars are those of YAML 1.2: `no`, `off` and `yes` are words, `012` is twelve, `1e-3` a number; 1_000 is one too. A
key given twice is a problem, where YAML's readers take the last.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9][0-9_]*$|0x[0-9a-fA-F]+$|0o[0-7]+$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class BadYaml(ValueError):
    """A text that is no YAML, or no file; the message says where."""


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # none of YAML 1.1's


_Reader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<$"), ["<"])
_Reader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"true$|True$|TRUE$|false$|False$|FALSE$"), list("tTfF"))
_Reader.add_implicit_resolver(f"{_TAG}null", re.compile(r"~$|null$|Null$|NULL$|$"), ["~", "n", "N", ""])
_Reader.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
_Reader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


class Document:
    """A YAML file as plain data (`tree`), the place of every key and item, and the keys given twice (`twice`)."""

    def __init__(self, path: str | Path, text: str | None = None):
        self.path = path
        self.twice: list[str] = []
        self._kept: list = []
        self._places: dict[int, dict] = {}
        self.tree = self._read(_text_of(path) if text is None else text, str(path), lined=True)

    def place(self, path: Sequence) -> str:
        """Return FILE:LINE of the last part of a path of keys and numbers that is there."""
        block, place = self.tree, str(self.path)
        for step in path:
            inside = self._places.get(id(block), {})
            if step not in inside:
                break
            block, place = block[step], inside[step]
        return place

    def knows(self, block) -> bool:
        """Tell whether a mapping or a list is one of the tree's own."""
        return id(block) in self._places

    def place_in(self, block, key) -> str:
        """Return FILE:LINE of a key of a mapping of the tree; FILE where the mapping has no such key."""
        return self._places.get(id(block), {}).get(key, str(self.path))

    def set(self, assignment: str) -> None:
        """Change the tree by `a.b=VALUE`, VALUE in YAML. Raises BadYaml for one that cannot be."""
        dotted, equals, text = assignment.partition("=")
        shown = f"--set {assignment}"
        if not equals or not dotted:
            raise BadYaml(f"{shown}: expected KEY.KEY=VALUE")
        block, steps = self.tree, dotted.split(".")
        for i, step in enumerate(steps):
            if not isinstance(block, (dict, list)):
                raise BadYaml(f"{shown}: {'.'.join(steps[:i])} has no keys, it is {block!r}")
            key = _key(block, step)
            if isinstance(block, list) and not (isinstance(key, int) and key < len(block)):
                raise BadYaml(f"{shown}: {'.'.join(steps[:i])} has {len(block)} items, 0 to {len(block) - 1}")
            if i == len(steps) - 1:
                block[key] = self._read(text, shown, lined=False)
            elif isinstance(block, dict) and block.get(key) is None:
                block[key] = self._keep({})
            self._places.setdefault(id(block), {})[key] = shown
            block = block[key]

    def _read(self, text: str, source: str, *, lined: bool):
        try:
            node = yaml.compose(text, Loader=_Reader)
            return None if node is None else self._plain(node, source, lined)
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark and lined else ""
            raise BadYaml(f"{source}{line}: not valid YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise BadYaml(f"{source}: not valid YAML: {error}") from None
        except RecursionError:
            raise BadYaml(f"{source}: not valid YAML: it holds itself, or is nested too deep") from None

    def _plain(self, node, source: str, lined: bool):
        def place(child) -> str:
            return f"{source}:{child.start_mark.line + 1}" if lined else source

        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            items = self._keep([self._plain(child, source, lined) for child in node.value])
            self._places[id(items)] = {i: place(child) for i, child in enumerate(node.value)}
            return items
        result, places = self._keep({}), {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                result.update(self._plain(value_node, source, lined) | result)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise BadYaml(f"{place(key_node)}: a key is a word or a number, not a list or a mapping")
            key = _scalar(key_node)
            if key in places:
                self.twice.append(f"{place(key_node)}: {key!r} is given twice")
                continue
            result[key], places[key] = self._plain(value_node, source, lined), place(key_node)
        self._places[id(result)] = places
        return result

    def _keep(self, block):
        self._kept.append(block)  # keeps id() unique
        return block


def _text_of(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadYaml(f"{path}: not valid YAML: it is no UTF-8 ({error.reason} at byte {error.start})") from None


def _key(block, step: str):
    """A step of a dotted path as the key that it means: of lists, and of mappings by number, a number."""
    return int(step) if step.isdigit() and (isinstance(block, list) or step not in block) else step


def _scalar(node: yaml.ScalarNode):
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        digits = text.replace("_", "")
        return int(digits, {"0x": 16, "0o": 8}.get(digits[:2], 10))
    if kind == "float":
        return float(text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".nan", "nan"))
    return text
