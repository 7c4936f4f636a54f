"""Rows, and what the formats have in common: a reader gives rows, a writer takes their outcomes."""

from __future__ import annotations

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import AnswerTypeError, AnswerValueError
from .._messages import says, short, short_list
from ._results import is_numpy, plain
from ._values import portable


class BadInput(Exception):
    """The input as a whole cannot be mapped; says why, and what to do."""


class BadResult(Exception):
    """A result has no place in the output's format."""


class Stopped(Exception):
    """The run cannot go on, or is not to."""


class Failed(Stopped):
    """The function failed; the `__cause__` is what it raised."""


class Names(NamedTuple):
    """The fields that a run uses."""

    field: str | None
    """What is mapped; None for the whole row."""
    into: str
    """Where results go."""
    error: str | None
    """Where errors go; None if they are not recorded."""

    @property
    def written(self) -> list[str]:
        """The fields that the output has beside those of the input, or in their place."""
        return [self.into] if self.error is None else [self.into, self.error]


class Outcome(NamedTuple):
    """What became of a row."""

    result: Any
    error: str | None = None


@dataclass(slots=True)
class Row:
    """One row of the input."""

    line: int
    """Where it begins, from 1; of Parquet, which has no lines, the number of the row."""
    size: int
    """About how many bytes it has."""
    raw: Any = None
    """As it was read, for output in the same format ..."""
    end: str = ""
    """... and what ends it there, where that is not among it."""
    fields: dict[str, Any] | None = None
    """What it says, by name; None if it cannot be understood."""
    item: Any = None
    """What is mapped."""
    problem: str | None = None
    """Why it has no item."""
    missing: bool = False
    """Whether its item is one that is not to be mapped."""

    @property
    def mapped(self) -> bool:
        """Whether its item goes to the function."""
        return self.problem is None and not self.missing


class Reader(ABC):
    """Rows of an input, one after another; those that are malformed say so."""

    name: str
    """That of the input, for messages."""
    columns: list[str] | None = None
    """The names of the fields, in their order, where the format has them once for all rows."""
    with_fields = True
    """Whether rows say what they have beside their item; nobody may want to know."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]: ...


class Writer(ABC):
    """Rows of an output."""

    def prepare(self, rows: list[Row]) -> None:  # noqa: B027 - most take rows as they are
        """See that there is a place for what these rows have, before they cost anything.

        A row for which there is none has a `problem` from then on.

        Raises:
            BadInput: there is none for a whole column.
        """

    def rendered(self, result: Any) -> Any:
        """`result` as `write` takes it: what can be done once for all rows that have it.

        Raises:
            BadResult: the format has no place for it.
        """
        return result

    @abstractmethod
    def write(self, row: Row, outcome: Outcome) -> None:
        """Write `row` with its result, as `rendered` gives it, or with null and its error.

        Raises:
            BadResult: the format has no place for the result. Nothing of the row was written.
        """

    def write_all(self, rows: list[Row], results: list[Any]) -> bool:
        """Write `rows` with their results, if that can be done at once; else nothing is written.

        Whether it was done.
        """

        return False

    def flush(self) -> None:  # noqa: B027 - most formats write row by row
        """A window of rows is complete."""

    def close(self) -> None:  # noqa: B027 - as above
        """The output is complete. The file is not closed."""

    def release(self) -> None:  # noqa: B027 - as above
        """Nothing more is written, whether the output is complete or not."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(text: str) -> bool:
    """Whether UTF-8 can say it."""
    return text.isascii() or _SURROGATE.search(text) is None


def too_much(error: Exception) -> str | None:
    """What Python's `json` has not, though JSON has; None if `error` is about something else."""
    if isinstance(error, RecursionError):
        return "lists or objects nested too deep; flatten them"
    if "int_max_str_digits" in str(error):
        return f"an integer of more than {sys.get_int_max_str_digits():,} digits; make it text"
    return None


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """`value` as JSON on one line; arrays and numbers of NumPy are lists and numbers.

    Raises:
        BadResult: JSON has no place for it.
    """
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, default=_plain)
        if not is_text(text):  # which UTF-8 cannot say, but an escape can
            text = json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        what = too_much(error)
        why = f"has {what}" if what else f"is no JSON ({error}): {short(value)}"
        raise BadResult(f"the result {why}") from error
    return text


def _plain(value: Any) -> Any:
    found = plain(value)
    if found is value:
        raise TypeError(f"it has no type for a {type(value).__qualname__!r}")
    return found


def to_text(value: Any, what: str = "the result") -> str:
    """`value` for formats without types: text as it is, nothing for None, else as JSON."""
    if is_numpy(value) and not value.ndim:
        value = json.loads(to_json(value))  # its moments are text, and "not a time" is None
    if isinstance(value, str):
        if not is_text(value):
            raise BadResult(f"{what} is no text that UTF-8 can say: {short(value)}")
        return value
    return "" if value is None else to_json(value)


def first_columns(rows: list[Row], *, waiting: bool) -> list[str] | None:
    """The columns of an output: what the first of `rows` without a problem has, if there is one.

    Args:
        rows: Those of a window. A row that has a name which is no text has a problem from then on.
        waiting: Whether rows of a window before wait for columns.

    Raises:
        BadInput: and they would have to wait for those of another window.
    """
    for row in rows:
        if row.problem is None and row.fields is not None:
            bad = next((name for name in row.fields if not is_text(name)), None)
            if bad is None:
                return list(row.fields)
            row.problem = f"a name that is no text that UTF-8 can say: {short(bad)}"
            row.fields = None
    if waiting:
        raise BadInput(
            "no row so far says which columns there are: all of them are malformed; use "
            "--output-format jsonl"
        )
    return None


def no_column(names: list[str]) -> str:
    """What is said of a row with more fields than the first."""
    return f"no column for {short_list(names)}: the first row had none; use --output-format jsonl"


def make_portable(row: Row) -> None:
    """Turn what `row` has into what JSON has, or say for which column there is nothing."""
    for name, value in (row.fields or {}).items():
        try:
            row.fields[name] = portable(value)  # type: ignore[index] # it has fields here
        except (TypeError, ValueError) as error:
            row.problem = row.problem or (
                f"column {short(name)}: {error}; write Parquet, or leave the column out"
            )
            row.fields = None
            return


def error_text(error: BaseException) -> str:
    """An exception for a message or a row: its type and what it says, to a user of the command."""
    text = says(error).encode("utf-8", "backslashreplace").decode()
    if isinstance(error, AnswerTypeError | AnswerValueError):
        text = text.replace("map_func", "the function")
    kind = type(error).__qualname__
    return f"{kind}: {text}" if text else kind
