"""DuckDB: a bound function as a function of SQL."""

from __future__ import annotations

from typing import Any, Literal

from .. import BoundFunction

try:
    import duckdb
except ImportError as _missing:
    raise ImportError(
        "batchproxy.integrations.duckdb needs duckdb: pip install 'batchproxy[duckdb]'"
    ) from _missing

from ..columns import map_column

__all__ = ["create_function"]


def create_function(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    bound: BoundFunction[Any, Any],
    parameter: Any,
    return_type: Any,
    *,
    errors: Literal["raise", "column"] = "raise",
) -> None:
    """Let SQL call a bound function: ``select city, geocode(city) from visits``.

    DuckDB calls it for some 2,000 rows at a time, and so do batches end there: a batch is full only
    if 2,048 is a multiple of `batch_size`, and each value comes once, as in ``select distinct``. It
    is declared as having no side effects; so DuckDB may call it for constants while it plans,
    ``explain`` included, and once for what a query has twice.

    Args:
        connection: A DuckDB connection.
        name: What it is called in SQL.
        bound: A function bound to a synchronous proxy. Give the proxy a ``max_concurrency`` unless
            the function may be called in any thread of DuckDB.
        parameter: The DuckDB type of what it is given, such as ``"VARCHAR"``.
        return_type: That of the results, such as ``"VARCHAR"`` or ``"FLOAT[384]"``.
        errors: As of `map_column`; with ``"column"`` it gives a struct of ``value`` and ``error``.

    Raises:
        duckdb.InvalidInputException: In a query: the function has raised, and this says what.
            DuckDB keeps no ``__cause__``.
        TypeError: At once: `bound` is something else.
        ValueError: At once: `errors` is neither.

    Cancellation: Ctrl-C while the function waits ends the query with that exception.

    Threads: Where DuckDB runs it.
    """
    with connection.cursor() as cursor:
        [arrow] = cursor.sql(f"select null::{return_type}").to_arrow_table().schema.types
    map_column(bound, [], arrow, errors=errors)  # so what it refuses is refused here, too

    def map_chunk(column: Any) -> Any:
        return map_column(bound, column, arrow, errors=errors)

    if errors == "column":
        return_type = f'STRUCT("value" {return_type}, error VARCHAR)'
    connection.create_function(  # type: ignore[call-overload] # of enums: each version moves them
        name, map_chunk, [parameter], return_type, type="arrow", null_handling="special"
    )
