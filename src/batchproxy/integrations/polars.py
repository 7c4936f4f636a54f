"""polars: a Series, or an expression of a lazy query, through a bound function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from .. import BoundFunction, Progress

try:
    import polars as pl
    import pyarrow as pa
except ImportError as _missing:
    raise ImportError(
        f"batchproxy.integrations.polars needs {_missing.name}: pip install 'batchproxy[polars]'"
    ) from _missing

from ..columns import map_column

__all__ = ["map_expr", "map_series"]


def map_series(
    bound: BoundFunction[Any, Any],
    series: pl.Series,
    return_dtype: Any = None,
    *,
    errors: Literal["raise", "column"] = "raise",
    progress: bool | Callable[[Progress], object] = False,
) -> pl.Series:
    """Give a Series with the result of each value of a Series; it has the same name.

    See `batchproxy.columns.map_column`. Of a column of objects the function gets the objects.

    Args:
        bound: A function bound to a synchronous proxy.
        series: A `polars.Series`.
        return_dtype: The polars data type of the results; None for what they have in common.
        errors: As of `map_column`; with ``"column"`` the Series is of structs.
        progress: As of `map_column`.

    Returns:
        A `polars.Series`.

    Raises:
        Exception: As of `map_column`.
        AnswerTypeError: As there.
        ValueError: As there.
        TypeError: As there; or `series` is no Series, or Arrow has no `return_dtype`, such as
            integers of 128 bits.

    Cancellation: As there.

    Threads: As there.
    """
    if not isinstance(series, pl.Series):
        raise TypeError(
            f"map_series() takes a polars.Series, got {series.__class__.__qualname__!r}"
        )
    arrow = None if return_dtype is None else _arrow_type(return_dtype)
    made = map_column(bound, _column(series), arrow, errors=errors, progress=progress)
    dtype = None if return_dtype is None else _with_errors(return_dtype, errors)
    _check_members(made, dtype)
    return pl.Series(series.name, made, dtype=dtype)


def map_expr(
    bound: BoundFunction[Any, Any],
    expr: pl.Expr,
    return_dtype: Any,
    *,
    errors: Literal["raise", "column"] = "raise",
) -> pl.Expr:
    """Give an expression: the result of each value of `expr`. For eager, lazy and streamed queries.

    ``frame.with_columns(place=map_expr(geocode, pl.col("city"), pl.String))``

    polars is told that the function goes by element. So filters and ``head()`` come before it where
    that is possible, and only the rest is sent; a column may come in parts, in several threads at
    once, each of which sends its own batches (no value is sent twice); the same expression may be
    evaluated several times; and an empty column calls nothing.

    Args:
        bound: A function bound to a synchronous proxy. Give the proxy a ``max_concurrency`` unless
            the function may be called in any thread of polars.
        expr: A `polars.Expr` of one column. Several are ``pl.struct("city", "country")``, a dict.
        return_dtype: The polars data type of the results.
        errors: As of `map_column`; with ``"column"`` there is a struct.

    Returns:
        A `polars.Expr`.

    Raises:
        polars.exceptions.ComputeError: When the query runs; its ``__cause__`` is what `map_column`
            has raised.
        TypeError: At once: `bound` or `expr` is something else, or Arrow has no `return_dtype`.
        ValueError: At once: `errors` is neither.

    Cancellation: Ctrl-C ends the query as polars does.

    Threads: Where polars runs it.
    """
    if not isinstance(expr, pl.Expr):
        raise TypeError(
            f"map_expr() takes a polars.Expr, such as pl.col('city'), got "
            f"{expr.__class__.__qualname__!r}"
        )
    map_series(bound, pl.Series([]), return_dtype, errors=errors)  # it refuses what cannot be

    def map_batch(series: pl.Series) -> pl.Series:
        try:
            return map_series(bound, series, return_dtype, errors=errors)
        except Exception as error:
            raise _caused_by(error) from error

    dtype = _with_errors(return_dtype, errors)
    return expr.map_batches(map_batch, return_dtype=dtype, is_elementwise=True)


def _column(series: pl.Series) -> Any:
    if series.dtype == pl.Object:
        return series.to_list()
    try:
        return series.to_arrow()
    except pa.ArrowException:  # integers of 128 bits, in structs and lists, too
        for leaf in _leaves(series):  # of which to_list() cuts nanoseconds off
            fine = leaf.dtype == pl.Time or getattr(leaf.dtype, "time_unit", None) == "ns"
            if fine and (leaf.to_physical() % 1000 != 0).any():
                raise ValueError(
                    f"a column of {series.dtype} has a value that Python has not: nanoseconds. "
                    "Cast the column first"
                ) from None
        return series.to_list()


def _leaves(series: pl.Series) -> Iterator[pl.Series]:
    """What is in structs and lists, however deep."""
    if isinstance(series.dtype, pl.Struct):
        for field in series.dtype.fields:
            yield from _leaves(series.struct.field(field.name))
    elif isinstance(series.dtype, pl.List | pl.Array):
        yield from _leaves(series.explode())
    else:
        yield series


def _arrow_type(dtype: Any) -> Any:
    """
    Raises:
        TypeError: There is none.
    """
    try:
        if dtype != pl.Object:
            return pl.Series([], dtype=dtype).to_arrow().type
    except pa.ArrowException:
        pass
    raise TypeError(
        f"return_dtype cannot be {dtype}, for which Arrow has no type: take another one, such as "
        "pl.Decimal(38, 0) for large integers, and cast the result"
    )


def _check_members(made: Any, dtype: Any) -> None:
    """Let polars raise for what an enum has not: in structs and lists it would make null of it."""
    if isinstance(dtype, pl.Struct):
        for part, field in zip(made.flatten(), dtype.fields):
            _check_members(part, field.dtype)
    elif isinstance(dtype, pl.List | pl.Array):
        _check_members(made.flatten(), dtype.inner)
    elif isinstance(dtype, pl.Enum):
        pl.Series(made, dtype=dtype)


def _with_errors(dtype: Any, errors: str) -> Any:
    return pl.Struct({"value": dtype, "error": pl.String}) if errors == "column" else dtype


def _caused_by(error: Exception) -> Exception:
    """What keeps its cause: polars raises not this object but another one of its class.

    (So of an exception whose class takes more than a text nothing would be left.)
    """

    class MapError(pl.exceptions.ComputeError):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.__cause__ = error

    MapError.__qualname__ = MapError.__name__
    return MapError(f"a bound function has failed: {type(error).__qualname__}, see the cause")
