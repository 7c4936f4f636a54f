"""Rows, and what the formats have in common: a reader gives rows, a writer takes their outcomes."""

from __future__ import annotations

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple


class BadInput(Exception):
    """The input as a whole cannot be mapped; says why, and what to do."""


class BadResult(Exception):
    """A result has no place in the output's format."""


class Names(NamedTuple):
    """The fields that a run uses."""

    field: str | None
    """What is mapped; None for the whole row."""
    into: str
    """Where results go."""
    error: str | None
    """Where errors go; None if they are not recorded."""


@dataclass(slots=True)
class Row:
    """One row of the input."""

    line: int
    """Where it begins, from 1; of Parquet, which has no lines, the number of the row."""
    size: int
    """About how many bytes it has."""
    raw: Any = None
    """As it was read, for output in the same format."""
    fields: dict[str, Any] | None = None
    """What it says, by name; None if it cannot be understood."""
    item: Any = None
    """What is mapped."""
    problem: str | None = None
    """Why it has no item."""


class Outcome(NamedTuple):
    """What became of a row."""

    result: Any
    error: str | None = None


class Reader(ABC):
    """Rows of an input, one after another; those that are malformed say so."""

    columns: list[str] | None = None
    """The names of the fields, in their order, where the format has them once for all rows."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]: ...


class Writer(ABC):
    """Rows of an output."""

    @abstractmethod
    def write(self, row: Row, outcome: Outcome) -> None:
        """Write `row` with its result, or with null and its error.

        Raises:
            BadResult: the format has no place for the result. Nothing of the row was written.
        """

    def flush(self) -> None:  # noqa: B027 - most formats write row by row
        """A window of rows is complete."""

    def close(self) -> None:  # noqa: B027 - as above
        """The output is complete. The file is not closed."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Any) -> str:
    """`value` as JSON on one line; arrays and numbers of NumPy are lists and numbers.

    Raises:
        BadResult: JSON has no place for it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        if _SURROGATE.search(text):  # which UTF-8 cannot say, but an escape can
            text = json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"the result is no JSON ({error}): {_short(value)}") from error
    return text


def to_text(value: Any) -> str:
    """`value` for formats without types: text as it is, nothing for None, else as JSON."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise BadResult(f"the result is no text that UTF-8 can say: {_short(value)}")
        return value
    return "" if value is None else to_json(value)


def _plain(value: object) -> object:
    numpy = sys.modules.get("numpy")  # nobody has made an array without it
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return value.tolist()
    raise TypeError(f"a {type(value).__qualname__} is in it")


def _short(value: object, most: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."


def said(error: BaseException) -> str:
    """An exception for a message: its type and what it says."""
    return f"{type(error).__qualname__}: {error}"
