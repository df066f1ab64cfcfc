"""What a face is, and the error of one that cannot be used."""

from dataclasses import dataclass


class FontError(Exception):
    """A face that cannot be used; the message says how to get it."""


@dataclass(frozen=True)
class Face:
    """One face. `name` is the family and style that its file declares; once found, `file` is a path on this machine.

    `index` is its place in a collection, `digest` the SHA-256 of the file it was found in; "": not found yet.
    """

    name: str
    language: str
    package: str
    licence: str
    file: str
    companion: str = ""
    index: int = 0
    digest: str = ""
