"""YAML files that lie over one another: every key keeps the file and the line that say it."""

from pathlib import Path
from typing import NamedTuple

from corpus.marked import BadYaml, Document


class Place(NamedTuple):
    """Where a key stands: its file, and FILE:LINE."""

    file: str
    line: str


class Layers:
    """Reads YAML files and lays them over one another. Knows the place of every key of every mapping it returned."""

    def __init__(self):
        self._documents: list[Document] = []
        self._overlaid: dict[int, tuple[dict, dict[object, Place | None]]] = {}  # by id of the mapping, which is kept

    def read(self, path: str | Path):
        """Return what a file says. Raises BadYaml, with a key given twice too, and FileNotFoundError."""
        document = Document(path)
        if document.twice:
            raise BadYaml("\n".join(document.twice))
        self._documents.append(document)
        return document.tree

    def place(self, block: dict, key) -> Place | None:
        """Return the place of a key of a mapping; None where the mapping has no such key."""
        if id(block) in self._overlaid:
            return self._overlaid[id(block)][1].get(key)
        document = next((each for each in self._documents if each.knows(block)), None)
        return Place(str(document.path), document.place_in(block, key)) if document and key in block else None

    def overlay(self, below: dict, above: dict) -> dict:
        """Return `below` with what `above` says, key by key. Mappings are laid over one another, everything else takes
        the place of what was there; null takes away a key that is there below."""
        result, places = dict(below), {key: self.place(below, key) for key in below}
        for key, value in above.items():
            places[key] = self.place(above, key)
            if value is None and key in below:
                result.pop(key)
            elif isinstance(value, dict) and isinstance(below.get(key), dict):
                result[key] = self.overlay(below[key], value)
            else:
                result[key] = value
        self._overlaid[id(result)] = result, places
        return result
