"""Whether a value came back as it was: of the same types, down to what it is made of.

``==`` is not enough: `1`, `1.0` and `True` are equal, and so are datetimes in different time zones,
or Decimals with more or fewer zeros. So values are taken apart as `copy` and `pickle` take them
apart (`object.__reduce_ex__`), and into their attributes, those in slots included. That does for
datetimes and Decimals, dataclasses, Structs and models without a word about any of them.
"""

from __future__ import annotations

import copyreg
from datetime import date, timedelta, timezone, tzinfo
from functools import cached_property
from itertools import repeat
from math import copysign
from types import NoneType
from typing import Any
from uuid import UUID

_EQUAL_IS_SAME = frozenset({NoneType, bool, int, str, bytes, date, timedelta, UUID})


def difference(one: Any, other: Any) -> tuple[Any, Any] | None:
    """The parts in which `one` and `other` differ, or None if they are the same.

    The order of a dict counts, that of a set, and which fields of a model were given, do not.
    NaN is not the same as anything. It is no question of depth, and may contain itself.

    Raises:
        TypeError: something in them can be taken apart neither by `copy` nor by `pickle`.
        Exception: their own methods raised it.
    """
    compared: dict[tuple[int, int], Any] = {}  # by identity; the objects live as long as it does
    # Pairs that must be the same, each with the pair that was taken apart into it.
    rest: list[tuple[Any, Any, Any]] = [(one, other, None)]
    while rest:
        one, other, owner = rest.pop()
        kind = type(one)
        if kind is not type(other):
            if _are_one_zone(one, other):
                continue
            break
        if kind is float:
            if one != other or copysign(1, one) != copysign(1, other):
                break
            continue
        if kind in _EQUAL_IS_SAME:
            if one != other:
                break
            continue
        if one is other or (id(one), id(other)) in compared:
            continue
        compared[id(one), id(other)] = one, other
        if kind is list or kind is tuple or kind is dict:
            if len(one) != len(other):
                break
            rest += zip(one, other, repeat(owner))
            if kind is dict:
                rest += zip(one.values(), other.values(), repeat(owner))
        elif kind is set or kind is frozenset:
            if one != other:
                break
            equal = {part: part for part in other}
            rest += [(part, equal[part], owner) for part in one]
        elif isinstance(one, type):
            break
        else:
            ours, theirs = _parts(one), _parts(other)
            if ours.keys() != theirs.keys():
                break
            rest += [(ours[name], theirs[name], (one, other)) for name in ours]
    else:
        return None
    # Of a datetime, say, which has no attributes, the parts mean nothing to anybody.
    opaque = owner is not None and object.__getstate__(owner[0]) is None
    return owner if opaque else (one, other)


def _are_one_zone(one: object, other: object) -> bool:
    """Whether both are the same offset without a name: pydantic has a type of its own for that."""
    if type(one) is not timezone or not isinstance(other, tzinfo):
        return False
    offset = one.utcoffset(None)
    return offset == other.utcoffset(None) and one.tzname(None) == timezone(offset).tzname(None)


def _parts(value: object) -> dict[str | int, object]:
    """What `value` is made of: its attributes by name, and all else by its place.

    A class with a ``__reduce__`` of its own says there what its slots mean; some are but for speed.
    """
    kind = type(value)
    by_object = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    reduce = copyreg.dispatch_table.get(kind)
    reduced: Any = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(reduced, str):  # the name of something that is there once
        return {0: reduced}
    attributes: Any = object.__getstate__(value)
    own, slots = attributes if type(attributes) is tuple else (attributes, None)
    parts: dict[str | int, object] = {}
    for name in own or ():
        if not isinstance(getattr(kind, name, None), cached_property):  # made when it is asked for
            parts[name] = own[name]
    if slots and by_object:
        parts.update(slots)
        parts.pop("__pydantic_fields_set__", None)  # all are, in a model that was read
    function, arguments, state, elements, items = (*reduced, None, None, None)[:5]
    if by_object and attributes is not None:
        state = None  # which is the attributes, or what the class makes of them
    parts.update(
        enumerate((function, state, len(arguments), *arguments, *(elements or ()), *(items or ())))
    )
    return parts
