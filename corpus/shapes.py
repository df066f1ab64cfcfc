"""What a record from outside must look like before its reader touches it: declared as a TypedDict, checked by pydantic.

A shape names the fields that its reader uses, no others, and is lenient where owners' files vary (`Id`). A reader may
then rely on the types; all it still has to judge are the values.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Id = int | str  # numbers and strings: owners change their minds
Number = int | float | str  # what float() takes; a string may still be none


@cache
def _checker(shape: type) -> "tuple[TypeAdapter, type[ValidationError]]":
    from pydantic import TypeAdapter, ValidationError  # take as long to import as Arrow; most jobs check no shape

    return TypeAdapter(shape), ValidationError


def misfit(record, shape: type) -> str | None:
    """Say where a record is not of a shape ("answers.3.answer: ..."), or None when it is."""
    adapter, wrong = _checker(shape)
    try:
        adapter.validate_python(record, strict=True)
    except wrong as error:
        return _said(record, error.errors(include_url=False, include_context=False))[:300]
    return None


def _said(record, errors: list[dict]) -> str:
    missing = [_path(record, each) for each in errors if each["type"] == "missing"]
    if missing and isinstance(record, dict):
        return f"{', '.join(missing)} missing; it has {', '.join(map(str, record))}"
    if isinstance(record, dict) and errors[0]["type"] == "tuple_type":  # a file of records by id
        return (
            f"a JSON object of records by their ids is expected; this is one record, with {', '.join(map(str, record))}"
        )
    where, found = _path(record, errors[0]), errors[0]["input"]
    wanted = [each["msg"].removeprefix("Input should be a valid ") for each in errors if _path(record, each) == where]
    seen = type(found).__name__ + (f" {str(found)[:80]!r}" if isinstance(found, (str, int, float)) else "")
    return f"{where}{': ' if where else ''}{' or '.join(dict.fromkeys(wanted))} expected, found {seen}"


def _path(record, error: dict) -> str:
    """The steps that lead to a value of the record; pydantic adds which type of a union it tried."""
    steps = []
    for step in error["loc"]:
        inside = isinstance(record, dict) and step in record
        if not inside and not (isinstance(record, (list, tuple)) and isinstance(step, int)):
            return ".".join([*steps, str(step)] if error["type"] == "missing" else steps)
        steps.append(str(step))
        record = record[step]
    return ".".join(steps)
