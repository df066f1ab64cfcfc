"""What lies beside a file of questions: a second file's records by id, or a folder of one small file per image."""

from collections.abc import Sequence

from corpus.readers.json_scan import CutJson, scan
from corpus.readers.rows import BadFile
from corpus.readers.slices import open_file
from corpus.values import load_json


class Side:
    """The records of the files beside the questions, by id: read from disk when asked for, so that only ids are
    held."""

    def __init__(self, paths: list[str], array: str | None, field: str):
        self._files = [open_file(path) for path in paths]
        self._places: dict[str, tuple[int, int, int]] = {}
        for number, path in enumerate(paths):
            self._index(number, path, array, field)

    def _index(self, number: int, path: str, array: str | None, field: str) -> None:
        with open_file(path) as file:
            try:
                for found in scan(file):
                    if found.key == array and isinstance(found.value, dict) and field in found.value:
                        self._places[str(found.value[field])] = (number, found.start, found.stop)
            except CutJson as error:
                raise BadFile(f"{path}: {error}; half of its records would be missing, fetch the file again") from None

    def get(self, key) -> object:
        """Return the record with this id (number or string), or None."""
        place = self._places.get(str(key))
        if place is None:
            return None
        number, start, stop = place
        self._files[number].seek(start)
        return load_json(self._files[number].read(stop - start))


class Files:
    """Small JSON files by name: AI2D's annotations/0.png.json under "0.png"."""

    def __init__(self, paths: Sequence[str]):
        self._paths = {path.rpartition("/")[2].removesuffix(".json"): path for path in paths}

    def get(self, name: str) -> object:
        """Return the record of an image, or None."""
        if name not in self._paths:
            return None
        with open_file(self._paths[name]) as file:
            return load_json(file.read())
