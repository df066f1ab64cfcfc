"""Licences as data: what a catalog's `licence` says, which of them a pattern names, and which cannot be met together.

A catalog writes `NAME (scope); note`: "CC-BY-4.0 (metadata); images belong to their owners". NAME is an SPDX identifier
where there is one, else words. What is said here of mixtures is a reminder to look, no legal advice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_WRITTEN = re.compile(r"(?P<name>[^(;]+?)\s*(?:\((?P<scope>[^)]*)\)\s*)?(?:;\s*(?P<note>.*))?", re.DOTALL)
_SPDX = re.compile(
    r"(CC-BY(-NC)?(-SA|-ND)?-\d\.\d|CC0-1\.0|MIT|MS-PL|Apache-2\.0|BSD-[23]-Clause|[AL]?GPL-[23]\.[01]|ODC-By-1\.0|PDDL-1\.0)"
)
NON_COMMERCIAL, SHARE_ALIKE, NO_DERIVATIVES, STRONG_COPYLEFT = (
    "non-commercial",
    "share-alike",
    "no-derivatives",
    "copyleft",
)
_TERMS = (
    (re.compile(r"-NC\b|research|non-?commercial", re.IGNORECASE), NON_COMMERCIAL),
    (re.compile(r"-SA\b"), SHARE_ALIKE),
    (re.compile(r"-ND\b"), NO_DERIVATIVES),
    (re.compile(r"^A?GPL"), STRONG_COPYLEFT),
)
_CLASHES = (
    (SHARE_ALIKE, NON_COMMERCIAL, "what is made of both would have to be free for commerce, and may not be"),
    (STRONG_COPYLEFT, NON_COMMERCIAL, "what is made of both would have to be free for commerce, and may not be"),
)


@dataclass(frozen=True)
class Licence:
    """A licence: its name, what it covers ("" is all) and what else is to be known."""

    name: str
    scope: str = ""
    note: str = ""

    @property
    def spdx(self) -> str:
        """The SPDX identifier, or LicenseRef- and the name where there is none."""
        if _SPDX.fullmatch(self.name):
            return self.name
        return "LicenseRef-" + (re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-") or "unknown")

    @property
    def terms(self) -> frozenset[str]:
        """What it asks for that a mixture has to mind."""
        return frozenset(term for pattern, term in _TERMS if pattern.search(self.name))


def read_licence(text: str) -> Licence:
    """Read what a catalog says of a dataset's licence."""
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        return Licence(text.strip())
    return Licence(found["name"].strip(), (found["scope"] or "").strip(), (found["note"] or "").strip())


def allowed(licence: Licence, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` names a licence, upper case or lower.

    A version may be left out, or be `*` at the end: CC-BY and CC-BY-* are CC-BY-4.0, and not CC-BY-NC-4.0. Any other
    `*` is any text.
    """
    return any(_pattern(each).fullmatch(licence.name) for each in patterns)


def _pattern(text: str) -> re.Pattern:
    name = text.strip().removesuffix("-*")
    body = ".*".join(re.escape(part) for part in name.split("*"))
    return re.compile(rf"{body}(-\d+(\.\d+)*)?", re.IGNORECASE)


def clashes(licences: Mapping[str, Licence]) -> Iterator[str]:
    """Yield a sentence for every two terms of a mixture (dataset -> licence) that cannot both be met."""
    for one, other, why in _CLASHES:
        first = [f"{name} ({licence.name})" for name, licence in licences.items() if one in licence.terms]
        second = [f"{name} ({licence.name})" for name, licence in licences.items() if other in licence.terms]
        if first and second:
            yield f"{one}: {', '.join(first)}; {other}: {', '.join(second)}: {why}"
    fixed = [f"{name} ({licence.name})" for name, licence in licences.items() if NO_DERIVATIVES in licence.terms]
    if fixed:
        yield f"{NO_DERIVATIVES}: {', '.join(fixed)}: what is cleaned and packed may not be passed on"
