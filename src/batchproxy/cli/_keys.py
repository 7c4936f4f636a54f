"""What makes two items the same: their types and values, however they are nested."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

_SINGLE = frozenset({str, int, float, bool, NoneType, bytes, date, time, Decimal, UUID})


def key_of(item: Any) -> Hashable:
    """Text is its own key, as for a proxy without ``key=``; of the rest a tuple says what is in it.

    In the order in which one reads it: a type, then a value or, for lists and objects, how many
    follow. So nothing looks like something else, `1`, `1.0` and `true` are told apart in a dict as
    well, and however deep an item is, nothing recurses.
    """
    if type(item) is str:
        return item
    parts: list[Hashable] = []
    rest = [item]
    while rest:
        part = rest.pop()
        kind = type(part)
        if kind is dict:
            names = sorted(part)
            parts += ("dict", len(names), *names)
            rest += [part[name] for name in reversed(names)]
        elif kind is list or kind is tuple:  # pairs of a map of Parquet's are tuples
            parts += (kind.__name__, len(part))
            rest += reversed(part)
        elif kind is float and part != part:
            parts += ("float", "nan")  # which is to be one item, though it equals nothing
        elif kind in _SINGLE:
            parts += (kind.__name__, part)
        else:
            parts += _other(part)
    return tuple(parts)


def _other(part: Any) -> tuple[Hashable, ...]:
    """What Parquet has beyond that. Times of nanoseconds are pandas', if that is installed."""
    if isinstance(part, datetime):
        wall = datetime.combine(part.date(), part.time().replace(fold=0))
        offset = part.utcoffset()
        place = part.fold if offset is None else offset
        return "datetime", wall, getattr(part, "nanosecond", 0), place
    if isinstance(part, timedelta):
        length = timedelta(part.days, part.seconds, part.microseconds)
        return "timedelta", length, getattr(part, "nanoseconds", 0)
    return f"{type(part).__module__}.{type(part).__qualname__}", str(part)
