"""What messages, log lines and reprs say of values: short, on one line, and never an exception.

Keys and values may be whole prompts, secrets, or objects whose own `repr` raises. So nothing of
them is put into a text but through here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from itertools import islice
from traceback import format_tb
from typing import Any

from ._errors import BatchProxyError

MOST = 200
"""About how many characters of a value, or of what an exception says, a message has."""


class _Shortening(reprlib.Repr):
    def repr1(self, x: Any, level: int) -> str:
        try:
            return super().repr1(x, level)
        except Exception:  # of a class that is called as a builtin one
            return self.repr_instance(x, level)

    def repr_int(self, value: int, level: int) -> str:
        try:
            return super().repr_int(value, level)
        except ValueError:  # Python makes no text of so many digits
            return f"<an int of {value.bit_length():,} bits>"


def _shortening(length: int) -> reprlib.Repr:
    shortening = _Shortening()
    shortening.maxlevel = 4
    shortening.maxstring = shortening.maxother = shortening.maxlong = length
    return shortening


_alone, _in_list = _shortening(120), _shortening(40)


def short(value: object) -> str:
    """`value` as its `repr`, cut to about `MOST` characters, with what a terminal obeys escaped."""
    return cut(_alone.repr(value))


def typed(value: object) -> str:
    """`short`, and the type beside it."""
    return f"{short(value)} of type {cut(type(value).__qualname__)!r}"


def kind_of(value: object) -> str:
    """What `value` is, but nothing of what is in it."""
    return "None" if value is None else f"{cut(type(value).__qualname__)!r}"


def short_list(values: Collection[object], most: int = 5) -> str:
    """The first of `values`, and how many there are besides."""
    named = ", ".join(cut(_in_list.repr(value), 80) for value in islice(values, most))
    return f"{named} and {len(values) - most} more" if len(values) > most else named


def describe(error: BaseException) -> str:
    """The type of `error`, and what it says as far as that can be had; cut, unless it is our own.

    What our own quote is cut already, and what to do is said at the end.
    """
    kind, text = type(error).__qualname__, says(error)
    shown = escaped(text) if isinstance(error, BatchProxyError) else cut(text)
    return f"{kind}: {shown}" if text else kind


def told(error: BaseException) -> str:
    """What `error` says, with room for what to do about it."""
    return cut(says(error), 3 * MOST)


def traced(error: BaseException) -> str:
    """Where `error` was raised, line by line, and `describe` of it."""
    return "".join(format_tb(error.__traceback__)) + describe(error)


def says(error: BaseException) -> str:
    """What `error` says, whole, as far as that can be had."""
    try:
        return str(error)
    except Exception as broken:
        return f"<its str() raised {type(broken).__qualname__}>"


def escaped(text: str) -> str:
    """`text` on one line, whole, with what a terminal obeys or cannot show escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def cut(text: str, most: int = MOST) -> str:
    if len(text) > most:
        text = f"{text[: most - 20]}... ({len(text):,} characters)"
    return escaped(text)


def out_of_a_table(what: str) -> str:
    """What to write instead of a table, where its `what` are wanted."""
    return (
        f"a table gives its columns, and not its rows: take the one with the {what} out of it, as "
        "in list(frame['column'])"
    )
