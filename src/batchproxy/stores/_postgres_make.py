"""The schema of a `PostgresStore`: made when it is first used, refused if it is another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._errors import StoreError
from .._messages import short
from ._postgres_layout import MARK, VERSION, statements

if TYPE_CHECKING:
    import psycopg

_OLDEST = 13  # before, it did not know pg_current_xact_id()

_FOUND = """
SELECT
    (SELECT obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = n.oid AND relname = 'namespaces'),
    EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid)
        OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid)
FROM pg_namespace AS n WHERE nspname = %s
"""


def make(connection: psycopg.Connection[Any], schema: str) -> None:
    """Make what is in `schema`, if it is not there; raise if something else is.

    Raise, too, if the server is none that this works on.
    """
    _check(connection)
    if _find(connection, schema) != "ours":
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [MARK + schema])
            found = _find(connection, schema)
            if found == "missing":  # only then: who may make tables in one need not make schemas
                connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
            if found != "ours":
                connection.execute(statements(schema))


def _check(connection: psycopg.Connection[Any]) -> None:
    if connection.info.server_version < _OLDEST * 10_000:
        version = connection.info.parameter_status("server_version")
        raise StoreError(f"PostgresStore needs PostgreSQL {_OLDEST} or newer, this is {version}")
    [(level,)] = connection.execute("SELECT current_setting('transaction_isolation')")
    # Others see all of a claim at once, or nothing: but who waited must see what it waited for.
    if level != "read committed":
        raise StoreError(
            f"PostgresStore needs the isolation level 'read committed', here it is {level!r}; ask "
            "for `ALTER ROLE name SET default_transaction_isolation = 'read committed'`"
        )


def _find(connection: psycopg.Connection[Any], schema: str) -> Literal["missing", "empty", "ours"]:
    row = connection.execute(_FOUND, [schema]).fetchone()
    if row is None:
        return "missing"
    mark, filled = row
    if mark == f"{MARK}{VERSION}":
        return "ours"
    if mark is not None and mark.startswith(MARK):
        raise StoreError(
            f"the schema {schema!r} was made by another version of batchproxy (its layout is "
            f"{short(mark.removeprefix(MARK))}, this one knows {VERSION}); name another schema"
        )
    if filled:
        raise StoreError(
            f"the schema {schema!r} has tables or functions of another program; name another one, "
            "it was left as it is"
        )
    return "empty"
