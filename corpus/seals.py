"""Digests: of JSON values, of records that carry their own, of the files of a folder."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import fsspec
import xxhash

from corpus.damage import Damaged

SEAL = "seal"
_CHUNK = 8 << 20


def digest(value) -> str:
    """Return the SHA-256 of a JSON value, written canonically."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(record: Mapping) -> dict:
    """Return a JSON record with its own digest under `seal`."""
    told = json.loads(json.dumps({name: value for name, value in record.items() if name != SEAL}))
    return told | {SEAL: digest(told)}


def read_sealed(raw: bytes, where: str, mend: str) -> dict:
    """Parse a JSON record and check its seal, if it has one (folders of earlier versions have none). Raises Damaged."""
    try:
        record = json.loads(raw)
        if SEAL in record and sealed(record) != record:
            raise ValueError("its content does not match its own digest")
        return record
    except (ValueError, TypeError) as error:
        raise Damaged(f"{where} is damaged ({error}): {mend}") from None


def describe(url: str | Path, names: Iterable[str]) -> dict[str, list]:
    """Return [bytes, xxh3-128] of files in a folder, by name."""
    fs, root = fsspec.core.url_to_fs(str(url))
    told = {}
    for name in names:
        with fs.open(f"{root}/{name}", "rb") as file:
            told[name] = _size_and_sum(file)
    return told


def wrong_files(url: str | Path, told: Mapping[str, list]) -> Iterator[str]:
    """Yield what is wrong with the files of a folder that `describe` told of."""
    fs, root = fsspec.core.url_to_fs(str(url))
    for name, (size, total) in sorted(told.items()):
        path = f"{root}/{name}"
        if not fs.isfile(path):
            yield f"{url}/{name} is missing"
        elif fs.size(path) != size:
            yield f"{url}/{name} has {fs.size(path)} bytes instead of {size}"
        elif describe(url, [name])[name] != [size, total]:
            yield f"{url}/{name} was altered"


def _size_and_sum(file: BinaryIO) -> list:
    size, total = 0, xxhash.xxh3_128()
    while chunk := file.read(_CHUNK):
        size += len(chunk)
        total.update(chunk)
    return [size, total.hexdigest()]
