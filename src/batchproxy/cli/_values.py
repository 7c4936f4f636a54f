"""Values on their way from one world to another: those of Parquet, missing ones."""

from __future__ import annotations

import base64
import datetime
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def portable(value: Any) -> Any:
    """What JSON says for a value that is not the result, such as one of Parquet.

    Raises:
        TypeError: there is no rule for its type.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            return None if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
        case datetime.date() | datetime.time():  # datetimes are dates
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case bytes():
            return base64.b64encode(value).decode()
        case uuid.UUID():
            return str(value)
        case list() | tuple():
            return [portable(part) for part in value]
        case dict():
            return {str(portable(name)): portable(part) for name, part in value.items()}
        case _:
            raise TypeError(f"there is no JSON for a {type(value).__qualname__}")


def is_missing(value: Any) -> bool:
    """Whether it is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_missing_or_empty(value: Any) -> bool:
    """Whether it is null, NaN or empty text."""
    return value == "" or is_missing(value)


_NOT_THERE = object()


def member(value: Mapping[str, Any], path: str) -> Any:
    """What `path` names in an object: a member of that very name, or one in a member: `a.b`.

    A null on the way is one at its end.

    Raises:
        KeyError: there is none.
    """
    found = _member(value, path)
    if found is _NOT_THERE:
        raise KeyError(path)
    return found


def _member(value: Any, path: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _NOT_THERE
    if path in value:
        return value[path]
    stop = len(path)
    while (stop := path.rfind(".", 0, stop)) > 0:  # the longest name first
        if path[:stop] in value:
            found = _member(value[path[:stop]], path[stop + 1 :])
            if found is not _NOT_THERE:
                return found
    return _NOT_THERE
