"""Point 25 of the contract: a function of SQL, in DuckDB."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from batchproxy import BatchingMapProxy, BoundFunction
from batchproxy.testing import AsyncCalls, Calls

pytest.importorskip("pyarrow")
duckdb = pytest.importorskip("duckdb")
from batchproxy.integrations.duckdb import create_function  # noqa: E402 - it needs duckdb


def bound(function: Any, *options: Any, **named: Any) -> BoundFunction[Any, Any]:
    return BatchingMapProxy[Any, Any](*options, **named).bind(function)


@pytest.fixture
def connection() -> Iterator[Any]:
    """With a table of four rows."""
    with duckdb.connect() as connection:
        connection.execute("create table visits as select unnest(['a', 'b', null, 'a']) as city")
        yield connection


def test_a_function(connection: Any) -> None:
    """Each distinct value once, nulls stay, and so may results be null."""
    calls = Calls(lambda key: None if key == "b" else key.upper())
    create_function(connection, "place", bound(calls), "VARCHAR", "VARCHAR")
    rows = connection.sql("select city, place(city) from visits").fetchall()
    assert rows == [("a", "A"), ("b", None), (None, None), ("a", "A")]
    assert calls.batches == [["a", "b"]]


def test_asynchronous_functions(connection: Any) -> None:
    """They run in the portal."""
    create_function(connection, "place", bound(AsyncCalls(str.upper), 1, 4), "VARCHAR", "VARCHAR")
    rows = connection.sql("select place(city) from visits").fetchall()
    assert rows == [("A",), ("B",), (None,), ("A",)]


def test_it_is_free_of_side_effects(connection: Any) -> None:
    """What a query has twice is evaluated once, and a constant when the query is planned."""
    calls = Calls(str.upper)
    create_function(connection, "place", bound(calls), "VARCHAR", "VARCHAR")
    connection.sql("explain select place('c')").fetchall()
    assert calls.batches == [["c"]]
    assert connection.sql("select distinct place('c') from visits").fetchall() == [("C",)]
    assert calls.batches == [["c"]]


def test_full_batches(connection: Any) -> None:
    """DuckDB calls for 2,048 rows at most; they are full if it is a multiple of the batch size."""
    calls = Calls(str)
    create_function(connection, "place", bound(calls, 512), "BIGINT", "VARCHAR")
    connection.execute("set threads = 1")
    connection.sql("select max(place(range)) from range(4096)").fetchall()
    assert [len(batch) for batch in calls.batches] == [512] * 8


@pytest.mark.parametrize(
    ("kind", "result", "back"),
    [
        ("INTEGER", 1, 1),
        ("DATE", dt.date(2024, 7, 1), dt.date(2024, 7, 1)),
        ("FLOAT[2]", [1.5, 2.5], (1.5, 2.5)),
        ("DOUBLE[]", [1.5], [1.5]),
        ("STRUCT(a INTEGER, b VARCHAR)", {"a": 1}, {"a": 1, "b": None}),
        ("INTEGER[1]", [1], (1,)),
        ("JSON", '{"a": 1}', '{"a": 1}'),
        ("JSON[]", ["1"], ["1"]),
        (duckdb.sqltype("VARCHAR"), "x", "x"),
        (str, "x", "x"),
    ],
    ids=str,
)
def test_types(connection: Any, kind: Any, result: Any, back: Any) -> None:
    """Those of DuckDB, as text or as it has them."""
    function = bound(lambda items: [result for _ in items])
    create_function(connection, "place", function, "VARCHAR", kind)
    assert connection.sql("select place(city) from visits limit 1").fetchall() == [(back,)]
    create_function(connection, "tried", function, "VARCHAR", kind, errors="column")
    assert connection.sql("select tried('c').value").fetchall() == [(back,)]


@pytest.mark.parametrize("lasting", ["", "temp"])
def test_types_that_others_do_not_see(connection: Any, lasting: str) -> None:
    """Those of a schema in use, of this connection, and of a transaction that is open."""
    connection.execute("create schema s; use s; begin")
    connection.execute(f"create {lasting} type mood as enum ('ok', 'it''s')")
    function = bound(lambda items: ["it's" for _ in items])
    for errors in ("raise", "column"):
        create_function(connection, errors, function, "mood", "mood", errors=errors)
    query = """select raise('ok'::mood), "column"('ok'::mood).value"""
    assert connection.sql(query).fetchall() == [("it's", "it's")]


@pytest.mark.parametrize(
    "kind",
    [
        "TIMETZ",
        "UHUGEINT",
        "BIT",
        "VARINT",
        "BIT[]",
        "BIT[2]",
        "STRUCT(a UNION(b TIMETZ))",
        "MAP(VARCHAR, UHUGEINT)",
    ],
)
def test_types_that_arrow_would_not_have_as_they_are(connection: Any, kind: str) -> None:
    """An error says what to write."""
    for kinds in (("VARCHAR", kind), (kind, "VARCHAR")):
        with pytest.raises(TypeError, match=r'DuckDB gives Arrow no .*: write "VARCHAR" instead'):
            create_function(connection, "place", bound(Calls(str)), *kinds)


@pytest.mark.parametrize(
    "value", ["'03:00:00+02'::TIMETZ", f"{2**127 + 1}::UHUGEINT", "'10101'::BIT"]
)
def test_they_can_be_cast(connection: Any, value: str) -> None:
    """To text and back, and nothing is lost."""
    create_function(connection, "same", bound(Calls(str)), "VARCHAR", "VARCHAR")
    kind = value.split("::")[1]
    found = connection.sql(f"select same(x::VARCHAR)::{kind} = x from (select {value} as x)")
    assert found.fetchall() == [(True,)]


def test_a_struct_of_several_columns(connection: Any) -> None:
    """A dict, which wants a `key=`."""
    calls = Calls(lambda row: f"{row['a']}-{row['b']}")
    function = bound(calls, key=lambda row: (row["a"], row["b"]))
    create_function(connection, "place", function, "STRUCT(a VARCHAR, b INTEGER)", "VARCHAR")
    rows = connection.sql("select place({'a': city, 'b': 1}) from visits").fetchall()
    assert rows == [("a-1",), ("b-1",), ("None-1",), ("a-1",)]


def failing(key: str) -> Any:
    return LookupError("no b") if key == "b" else key.upper()


def test_failures(connection: Any) -> None:
    """The query fails as DuckDB does, and says why; so it does of a result of a wrong type."""
    create_function(connection, "place", bound(Calls(failing)), "VARCHAR", "VARCHAR")
    with pytest.raises(duckdb.InvalidInputException, match="LookupError: no b"):
        connection.sql("select place(city) from visits").fetchall()
    create_function(connection, "number", bound(Calls(str.upper)), "VARCHAR", "INTEGER")
    with pytest.raises(
        duckdb.InvalidInputException, match="the result of 'a' is 'A' of type 'str'"
    ):
        connection.sql("select number(city) from visits").fetchall()


def test_failures_in_a_column(connection: Any) -> None:
    """A struct of value and error."""
    create_function(
        connection, "place", bound(Calls(failing)), "VARCHAR", "VARCHAR", errors="column"
    )
    query = "select p.value, p.error from (select place(city) as p from visits)"
    assert connection.sql(query).fetchall() == [
        ("A", None),
        (None, "LookupError: no b"),
        (None, None),
        ("A", None),
    ]


def test_what_cannot_be(connection: Any) -> None:
    """It is an error at once, of a type that there is not DuckDB's."""
    wrong: Any = str.upper
    with pytest.raises(TypeError, match="takes a bound function"):
        create_function(connection, "place", wrong, "VARCHAR", "VARCHAR")
    with pytest.raises(ValueError, match="errors must be"):
        create_function(connection, "p", bound(Calls(str)), "VARCHAR", "VARCHAR", errors=wrong)
    with pytest.raises(duckdb.Error):
        create_function(connection, "place", bound(Calls(str)), "VARCHAR", "NO_SUCH_TYPE")
