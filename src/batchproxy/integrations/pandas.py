"""pandas: a Series through a bound function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .. import BoundFunction, Progress

try:
    import pandas as pd
    import pyarrow as pa
except ImportError as _missing:
    raise ImportError(
        f"batchproxy.integrations.pandas needs {_missing.name}: pip install 'batchproxy[pandas]'"
    ) from _missing

from ..columns import map_column

__all__ = ["map_series"]

_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
"""Integers with nulls: pandas would make floats of them, and of 2**53 + 1 another number. (So it
would in structs and lists, where they are objects.)"""


def map_series(
    bound: BoundFunction[Any, Any],
    series: Any,
    type: Any = None,  # noqa: A002 - as pyarrow calls it
    *,
    errors: Literal["raise", "column"] = "raise",
    progress: bool | Callable[[Progress], object] = False,
) -> Any:
    """Give a Series with the result of each value of a Series; it has the same index and name.

    Equivalent to ``series.map(...)`` with a function of lists, but that each distinct value is
    sent once, and nothing that is missing (None, NaN, NaT, NA). See
    `batchproxy.columns.map_column`.

    The function gets what a value is in Python: of a ``datetime64`` a `datetime.datetime` and no
    ``Timestamp``, of a categorical its category. Only of a column of objects, of categories that
    are objects and no texts, and of what Arrow has no type for (periods, intervals), it gets the
    objects themselves.

    Args:
        bound: A function bound to a synchronous proxy.
        series: A `pandas.Series`.
        type: The `pyarrow.DataType` of the results; None for what they have in common.
        errors: As of `map_column`; with ``"column"`` there is a DataFrame.
        progress: As of `map_column`.

    Returns:
        A `pandas.Series`, of the dtype that pandas has for such a column, but for integers with
        nulls, which are of its nullable dtypes. Vectors are NumPy arrays in a column of objects.
        With ``errors="column"`` a `pandas.DataFrame` with the columns ``value`` and ``error``.

    Raises:
        Exception: As of `map_column`.
        AnswerTypeError: As there.
        ValueError: As there.
        TypeError: As there, or `series` is no Series.

    Cancellation: As there.

    Threads: As there.
    """
    if not isinstance(series, pd.Series):
        raise TypeError(
            f"map_series() takes a pandas.Series, got {series.__class__.__qualname__!r}"
        )
    made = map_column(bound, _column(series), type, errors=errors, progress=progress)
    if errors == "raise":
        return _like(series, made)
    value, error = (_like(series, part) for part in made.flatten())
    return pd.DataFrame({"value": value, "error": error})


def _column(series: Any) -> Any:
    if isinstance(series.dtype, pd.SparseDtype):
        series = series.sparse.to_dense()
    if _has_objects(series.dtype):  # of which Arrow would make what they have in common
        return series.tolist()
    try:
        column = pa.array(series)
    except (pa.ArrowException, TypeError, ValueError):
        return series.tolist()
    encoded = pa.types.is_dictionary(column.type)
    kind = column.type.value_type if encoded else column.type
    return series.tolist() if isinstance(kind, pa.BaseExtensionType) else column


def _has_objects(dtype: Any) -> bool:
    """Whether values are of any types; texts that are categories are not."""
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        return _has_objects(categories.dtype) and not {str}.issuperset(map(type, categories))
    return bool(pd.api.types.is_object_dtype(dtype))


def _like(series: Any, made: Any) -> Any:
    mapper = _NULLABLE.get if made.null_count else None
    values = made.to_pandas(types_mapper=mapper, integer_object_nulls=True)
    values.index, values.name = series.index, series.name
    return values
