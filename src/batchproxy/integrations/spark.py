"""Spark: a bound function as a user-defined function of columns, also through Spark Connect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from .. import BoundFunction

try:
    import pyarrow as pa
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import arrow_udf
    from pyspark.sql.types import DataType, StringType, StructField, StructType
except ImportError as _missing:
    raise ImportError(
        "batchproxy.integrations.spark needs pyspark: pip install 'batchproxy[spark]'"
    ) from _missing

from ..columns import map_column

__all__ = ["udf"]


def udf(
    bound: BoundFunction[Any, Any],
    return_type: Any,
    *,
    errors: Literal["raise", "column"] = "raise",
    window: int = 10_000,
) -> Any:
    """Give a function of a column: ``udf(geocode, "string")("city")`` is a column of results.

    Equivalent to `pyspark.sql.functions.arrow_udf` of a function that maps one array after another
    by `batchproxy.columns.map_column`, but that small arrays are gathered first: batches are full
    but for one per window and partition.

    Spark may evaluate it again, for tasks that have failed, for the next action, or speculatively:
    the store has the results by then. It takes the function for deterministic. So filters may move
    ahead of it, and columns that nobody reads are not computed.

    Args:
        bound: A function bound to a synchronous proxy whose cache has a store, which all workers
            can reach. It, and what it needs, must be importable there; what is defined in the
            program itself, or in a notebook, travels with it. It may be asynchronous.
        return_type: The Spark type of the results: a `pyspark.sql.types.DataType`, or its text,
            such as ``"string"`` or ``"array<float>"``.
        errors: As of `map_column`; with ``"column"`` the column is of structs of ``value`` and
            ``error``.
        window: The rows that are gathered, at least; more only as an array that Spark sends has
            more (``spark.sql.execution.arrow.maxRecordsPerBatch``).

    Returns:
        A function of one column, as `pyspark.sql.functions.arrow_udf` gives it; it can be
        registered for SQL, by ``spark.udf.register()``.

    Raises:
        pyspark.errors.PySparkRuntimeError: There is no session yet.
        TypeError: `bound` is something else.
        ValueError: `errors` is neither.
        pickle.PicklingError: When the query is made: `bound` cannot be pickled; it says why.
        pyspark.errors.PythonException: When the query runs: the function has raised, and this has
            the text of it. Spark has tried the task several times by then.

    Cancellation: Spark stops its Python workers when a task is cancelled: their open batches are
    computed by others when the lease of the store has ended.

    Threads: In the processes of Spark's Python workers.
    """
    if isinstance(return_type, str):
        return_type = DataType.fromDDL(return_type)
    both = StructType([StructField("value", return_type), StructField("error", StringType())])
    kind = SparkSession.active().createDataFrame([], both).toArrow().schema.field("value").type
    map_column(bound, [], kind, errors=errors)  # so what it refuses is refused here, too

    def mapped(arrays: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in _windows(arrays, window):
            yield from map_column(bound, column, kind, errors=errors).chunks

    return arrow_udf(mapped, both if errors == "column" else return_type)


def _windows(arrays: Iterator[pa.Array], window: int) -> Iterator[pa.ChunkedArray]:
    """The arrays, together as many as make a window."""
    gathered: list[pa.Array] = []
    for array in arrays:
        gathered.append(array)
        if sum(map(len, gathered)) >= window:
            yield pa.chunked_array(gathered)
            gathered = []
    if gathered:
        yield pa.chunked_array(gathered)
