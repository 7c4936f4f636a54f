"""What a map() is given: items as a list, keys that can be hashed, and keys that equal nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from types import NoneType
from typing import Any, TypeGuard, TypeVar

from .._messages import kind_of, out_of_a_table

T = TypeVar("T")

_EQUAL = frozenset({str, int, bool, bytes, NoneType})  # types whose values all equal themselves
_NONE: Mapping[Hashable, Hashable] = {}
_NAN, _TUPLE = object(), object()


def listed(items: Iterable[Any]) -> list[Any]:
    """`items` as a list of its own, which no caller can change while its ``map()`` is under way.

    Raises:
        TypeError: `items` cannot be iterated, or is a table.
    """
    if type(items) is not list:
        refuse_tables("map", items)
    try:
        return list(items)
    except TypeError:
        if isinstance(items, Iterable):  # iterating raised; what it raised says more
            raise
        raise TypeError(
            f"map() takes an iterable of items as its first argument, got {kind_of(items)}; "
            "put a single item into a list, and collect an asynchronous iterable first"
        ) from None


def refuse_tables(what: str, items: object) -> None:
    """
    Args:
        what: The method that was called.
        items: What it was given.

    Raises:
        TypeError: it is a table, such as a DataFrame, which has rows and gives names of columns.
    """
    if hasattr(type(items), "columns") and hasattr(type(items), "shape"):
        raise TypeError(
            f"{what}() takes an iterable of items as its first argument, got the table "
            f"{kind_of(items)}; {out_of_a_table('items')}"
        )


def given(option: str, function: Callable[[Any], T], items: list[Any]) -> list[T]:
    """What `function`, which is the `option` of a user, gives for each of `items`.

    Raises:
        RuntimeError: it raised StopIteration, which would pass for the end of the items.
    """
    results = [*map(function, items)]  # takes half as long as to call it here
    if len(results) < len(items):
        place = f" for item {len(results)}" if len(items) > 1 else ""
        raise RuntimeError(f"the {option}= function raised StopIteration{place}")
    return results


def hashable(keys: Sequence[Any]) -> int:
    """How many of `keys` come before the first that cannot be hashed."""
    for position, key in enumerate(keys):
        try:
            hash(key)
        except Exception:  # whatever it raises
            return position
    return len(keys)


def check_hashable(keys: Sequence[Any], *, has_key: bool, first: int = 0) -> None:
    """
    Args:
        keys: What items have.
        has_key: Whether a function gave them.
        first: The number of the first item.

    Raises:
        TypeError: one of `keys` cannot be hashed.
        Exception: what that of a user raised instead.
    """
    place = hashable(keys)
    if place == len(keys):
        return
    with suppress(TypeError):
        hash(keys[place])
    item, key = first + place, kind_of(keys[place])
    raise TypeError(
        f"the key= function gave the unhashable {key} for item {item}: "
        "let it return something hashable, such as a str or a tuple"
        if has_key
        else f"item {item} is an unhashable {key}: give the proxy a key= "
        "function that maps an item to something hashable, e.g. key=lambda item: item['id']"
    ) from None


def unequal(keys: Collection[Hashable]) -> Mapping[Hashable, Hashable]:
    """Those of `keys` that are not equal to themselves, each with the first that is as good.

    What is kept for them is never found.

    Every float NaN is as good as every other, whichever object it is; what else is unequal to
    itself (a NaT, a decimal NaN) is as good as itself only. A tuple with such a thing in it is one,
    too.
    """
    if _EQUAL.issuperset(map(type, keys)):
        return _NONE
    kinds = {*map(type, keys)}
    found: Iterable[Hashable]
    try:
        if not any(issubclass(kind, tuple) for kind in kinds):
            found = [key for key in keys if key != key]
        elif kinds == {tuple} and _EQUAL.issuperset(map(type, _parts(keys))):
            return _NONE
        else:
            found = filter(is_unequal, keys)
    except Exception:  # one cannot be compared
        found = filter(is_unequal, keys)
    firsts: dict[Hashable, Hashable] = {}
    return {key: firsts.setdefault(form_of(key), key) for key in found}


def _parts(keys: Iterable[Any]) -> Iterable[object]:
    return chain.from_iterable(keys)


def is_unequal(key: object) -> bool:
    """Whether `key` is not equal to itself, or has a part that is not."""
    rest = [key]
    while rest:  # no recursion: a key may be nested as deeply as it likes
        part = rest.pop()
        if type(part) in _EQUAL:
            continue
        if _is_plain(part):
            rest += part
            continue
        try:
            if part != part:
                return True
        except Exception:
            pass  # it cannot be compared: it is a key by what it is
    return False


def _is_plain(key: object) -> TypeGuard[tuple[Hashable, ...]]:
    """Whether it is a tuple that equals another one if all in it does."""
    kind = type(key)
    return issubclass(kind, tuple) and kind.__eq__ is tuple.__eq__


def form_of(key: Hashable) -> Hashable:
    """What two keys have in common if one is as good as the other."""
    parts: list[Hashable] = []
    rest: list[Hashable] = [key]
    while rest:  # as above
        part = rest.pop()
        if _is_plain(part):
            parts.append((_TUPLE, len(part)))
            rest += reversed(part)
        else:
            parts.append(_NAN if isinstance(part, float) and part != part else part)
    return tuple(parts)
