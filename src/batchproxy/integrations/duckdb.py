"""DuckDB: a bound function as a function of SQL."""

from __future__ import annotations

from typing import Any, Literal

from .. import BoundFunction

try:
    import duckdb
    import pyarrow as pa
except ImportError as _missing:
    raise ImportError(
        f"batchproxy.integrations.duckdb needs {_missing.name}: pip install 'batchproxy[duckdb]'"
    ) from _missing

from ..columns import map_column

__all__ = ["create_function"]

_Type: Any = type(duckdb.sqltype("VARCHAR"))  # each version has it in another module
_ALTERED = frozenset({"time with time zone", "uhugeint", "bit", "bignum", "varint", "variant"})
"""Types of which DuckDB gives Arrow less than there is, or bytes that mean nothing elsewhere."""


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
        TypeError: At once: `bound` is something else; or a type is ``TIMETZ``, ``UHUGEINT``,
            ``BIT``, ``BIGNUM`` or ``VARIANT``, or has one inside, which DuckDB alters on the way.
        ValueError: At once: `errors` is neither.

    Cancellation: Ctrl-C while the function waits ends the query with that exception.

    Threads: Where DuckDB runs it.
    """
    taken, given = (
        connection.sqltype(kind) if isinstance(kind, str) else _Type(kind)
        for kind in (parameter, return_type)
    )
    _check(taken)
    _check(given)
    # Another connection disturbs no result of this one, but has not its types, so not their names.
    with connection.cursor() as cursor:
        [arrow] = cursor.sql(f"select null::{given}").to_arrow_table().schema.types
    if str(given) == "JSON" and errors == "raise":  # in a struct DuckDB takes nothing but text
        arrow = pa.json_()
    map_column(bound, [], arrow, errors=errors)  # so what it refuses is refused here, too

    def map_chunk(column: Any) -> Any:
        return map_column(bound, column, arrow, errors=errors)

    if errors == "column":
        given = connection.sqltype(f'STRUCT("value" {given}, error VARCHAR)')
    connection.create_function(  # type: ignore[call-overload] # of enums: each version moves them
        name, map_chunk, [taken], given, type="arrow", null_handling="special"
    )


def _check(kind: Any) -> None:
    """
    Raises:
        TypeError: DuckDB alters values of that type on their way to Arrow.
    """
    if kind.id in _ALTERED:
        raise TypeError(
            f'DuckDB gives Arrow no {kind} as it is: write "VARCHAR" instead, and cast in SQL, '
            f"value::VARCHAR or result::{kind}"
        )
    if kind.id in ("list", "array", "struct", "map", "union"):
        for _, part in kind.children:
            if isinstance(part, _Type):  # an array has its size, too
                _check(part)
