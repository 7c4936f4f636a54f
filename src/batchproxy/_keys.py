"""Keys that are not equal to themselves, such as NaN: what is kept for them is never found."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import chain
from types import NoneType
from typing import Any

_EQUAL = frozenset({str, int, bool, bytes, NoneType})  # types whose values all equal themselves
_NONE: Mapping[Hashable, Hashable] = {}
_NAN, _TUPLE = object(), object()


def unequal(keys: Collection[Hashable]) -> Mapping[Hashable, Hashable]:
    """Those of `keys` that are not equal to themselves, each with the first that is as good.

    Every float NaN is as good as every other, whichever object it is; what else is unequal to
    itself (a NaT, a decimal NaN) is as good as itself only. A tuple with such a thing in it is one,
    too.
    """
    kinds = {*map(type, keys)}
    if kinds <= _EQUAL:
        return _NONE
    found: Iterable[Hashable]
    try:
        if not any(issubclass(kind, tuple) for kind in kinds):
            found = [key for key in keys if key != key]
        elif kinds == {tuple} and _EQUAL.issuperset(map(type, _parts(keys))):
            return _NONE
        else:
            found = filter(_is_unequal, keys)
    except Exception:  # one cannot be compared
        found = filter(_is_unequal, keys)
    firsts: dict[Hashable, Hashable] = {}
    return {key: firsts.setdefault(_form(key), key) for key in found}


def _parts(keys: Iterable[Any]) -> Iterable[object]:
    return chain.from_iterable(keys)


def _is_unequal(key: object) -> bool:
    rest = [key]
    while rest:  # no recursion: a key may be nested as deeply as it likes
        part = rest.pop()
        if type(part) in _EQUAL:
            continue
        if isinstance(part, tuple):
            rest += part
            continue
        try:
            if part != part:
                return True
        except Exception:
            pass  # it cannot be compared: it is a key by what it is
    return False


def _form(key: Hashable) -> Hashable:
    """What two keys have in common if one is as good as the other."""
    parts: list[Hashable] = []
    rest: list[Hashable] = [key]
    while rest:  # as above
        part = rest.pop()
        if isinstance(part, tuple):
            parts.append((_TUPLE, len(part)))
            rest += reversed(part)
        else:
            parts.append(_NAN if isinstance(part, float) and part != part else part)
    return tuple(parts)
