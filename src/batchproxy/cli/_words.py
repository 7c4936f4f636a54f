"""What the command says of values and errors: short, on one line, and never an exception."""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from itertools import islice

_MOST = 200

_repr = reprlib.Repr()
_repr.maxlevel = 4
_repr.maxstring = _repr.maxother = _repr.maxlong = 120


def escaped(text: str) -> str:
    """`text` on one line, whole, with what a terminal obeys or cannot show escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def cut(text: str, most: int = _MOST) -> str:
    """About `most` characters of `text`, escaped."""
    if len(text) > most:
        text = f"{text[: most - 20]}... ({len(text):,} characters)"
    return escaped(text)


def short(value: object) -> str:
    """`value` as its `repr`, cut."""
    return cut(_repr.repr(value))


def short_list(values: Collection[object], most: int = 5) -> str:
    """The first of `values`, and how many there are besides."""
    named = ", ".join(cut(_repr.repr(value), 80) for value in islice(values, most))
    return f"{named} and {len(values) - most} more" if len(values) > most else named


def says(error: BaseException) -> str:
    """What `error` says, whole, as far as that can be had."""
    try:
        return str(error)
    except Exception as broken:
        return f"<its str() raised {type(broken).__qualname__}>"


def describe(error: BaseException) -> str:
    """The type of `error`, and what it says, cut."""
    kind, text = type(error).__qualname__, says(error)
    return f"{kind}: {cut(text)}" if text else kind
