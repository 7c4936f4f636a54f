"""map_column(): distinct values, mapped, and taken back to their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyarrow as pa

from .. import AnswerTypeError, AsyncBoundFunction, BoundFunction, Progress
from .._messages import kind_of, short
from ._keys import column_of, distinct
from ._results import TOO_LONG, column_of_results, column_with_errors


def map_column(
    bound: BoundFunction[Any, Any],
    values: Any,
    type: Any = None,  # noqa: A002 - as pyarrow calls it
    *,
    errors: Literal["raise", "column"] = "raise",
    progress: bool | Callable[[Progress], object] = False,
) -> Any:
    """Give an Arrow array with the result of each value of a column, in their order.

    Equivalent to ``pyarrow.array(bound.map(values.to_pylist()), type)``, but that nulls are never
    sent, and that rows cost next to nothing: the distinct values are mapped, and their results are
    taken by index.

    The function gets values as Python has them: `str`, `int`, `float`, `bytes`, `bool`,
    `decimal.Decimal`, `datetime.date`, `datetime.time`, `datetime.timedelta`, and for a timestamp a
    `datetime.datetime`, with the zone of the column if that has one. A struct is a dict and a list
    is a list; neither can be hashed, so that the proxy needs a ``key=`` for them.

    Args:
        bound: A function bound to a synchronous proxy, ``BatchingMapProxy(...).bind(function)``.
            The function may be asynchronous.
        values: A `pyarrow.Array` or `pyarrow.ChunkedArray`, of whatever type; what has
            ``__arrow_c_array__`` or ``__arrow_c_stream__``, a DataFrame without its index; or a
            list of Python values. Nulls, None, NaN, NaT and `pandas.NA` are never sent, and their
            results are null. So are not categories that no row has.
        type: The `pyarrow.DataType` of the results; None for what they have in common. NumPy arrays
            of one shape are fixed-size lists then.
        errors: ``"raise"``, or ``"column"`` for a struct of ``value`` and ``error`` (a text, null
            where there was none) in each row. Null where the value was null.
        progress: As of `BatchingMapProxy.map`, counted in distinct values.

    Returns:
        A `pyarrow.Array` as long as `values`, or a `pyarrow.ChunkedArray` with chunks as long as
        those of `values`. Where a result is None it is null.

    Raises:
        Exception: With ``errors="raise"`` the very exception of the function, as of ``map()``.
        AnswerTypeError: A result is not of `type`, or (None) not of that of the others; the message
            names both. Nothing is cut off for it: 2.5 is no integer, and a member of a dict that is
            not in the struct is an error. With ``errors="column"`` and a `type` it is the error of
            its row. Or there are more than 2 GiB of text for a type that has no place for so much.
        ValueError: The column has a value that Python has not, such as a timestamp with
            nanoseconds; before any call. Or `errors` is neither.
        TypeError: `values` is no column, or cannot be hashed; or `bound` is something else.

    Cancellation: As `BatchingMapProxy.map`. What was computed is in the cache.

    Threads: As `BatchingMapProxy.map`.
    """
    if isinstance(bound, AsyncBoundFunction):
        raise TypeError(
            "map_column() waits in its thread, and takes no function of an AsyncBatchingMapProxy: "
            "write BatchingMapProxy(..., max_concurrency=...).bind(function), which may be "
            "asynchronous, and has the same cache if both are given one"
        )
    if not isinstance(bound, BoundFunction):
        raise TypeError(
            f"map_column() takes a bound function, got {kind_of(bound)}: "
            "write BatchingMapProxy(...).bind(function)"
        )
    if errors not in ("raise", "column"):
        raise ValueError(f"errors must be 'raise' or 'column', got {short(errors)}")
    if not isinstance(type, pa.DataType | None):
        raise TypeError(
            f"type must be a pyarrow.DataType, such as pyarrow.string(), got {short(type)}"
        )
    column = column_of(values)
    sent, places = distinct(column)
    results = bound.map(sent, return_exceptions=errors == "column", progress=progress)
    make = column_with_errors if errors == "column" else column_of_results
    made = make(results, sent, type)
    if not isinstance(column, pa.ChunkedArray):
        return _rows(made, places)
    parts, start = [], 0
    for chunk in column.chunks:
        parts.append(_rows(made, places.slice(start, len(chunk))))
        start += len(chunk)
    return pa.chunked_array(parts, made.type)


def _rows(made: Any, places: Any) -> Any:
    """Those of `made` at these places.

    Raises:
        AnswerTypeError: They are more than a chunk of that type can have.
    """
    try:
        return made.take(places)
    except pa.ArrowInvalid as error:  # an overflow, which no test has the memory for
        raise AnswerTypeError(f"{made.type}: {TOO_LONG}") from error
    except pa.ArrowNotImplementedError:  # Arrow takes no views of texts, nor runs
        values = [*made.to_pylist(), None]
        places = places.fill_null(len(made)).to_pylist()
        return pa.array([values[place] for place in places], made.type)
