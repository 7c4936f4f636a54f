"""Point 25 of the contract: columns of polars, eager, lazy and streamed."""

import datetime as dt
from typing import Any
from unittest.mock import Mock, call

import pytest

from batchproxy import AnswerTypeError, BatchingMapProxy, BoundFunction
from batchproxy.testing import AsyncCalls, Calls

pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")
from batchproxy.integrations.polars import map_expr, map_series  # noqa: E402 - it needs polars

engines = pytest.mark.parametrize("engine", ["eager", "in-memory", "streaming"])


def bound(function: Any, *options: Any, **named: Any) -> BoundFunction[Any, Any]:
    return BatchingMapProxy[Any, Any](*options, **named).bind(function)


def run(frame: Any, engine: str, **columns: Any) -> Any:
    """The frame with these columns."""
    if engine == "eager":
        return frame.with_columns(**columns)
    return frame.lazy().with_columns(**columns).collect(engine=engine)


FRAME = pl.DataFrame({"city": ["a", "b", None, "a"], "number": [1, 2, 3, 4]})


@engines
def test_an_expression(engine: str) -> None:
    """Each distinct value once, nulls stay; the type is the one that was said."""
    calls = Calls(str.upper)
    out = run(FRAME, engine, place=map_expr(bound(calls), pl.col("city"), pl.String))
    assert out["place"].to_list() == ["A", "B", None, "A"]
    assert out.schema["place"] == pl.String
    assert sorted(key for batch in calls.batches for key in batch) == ["a", "b"]


@engines
def test_asynchronous_functions(engine: str) -> None:
    """They run in the portal."""
    function = bound(AsyncCalls(str.upper), 1, 4)
    out = run(FRAME, engine, place=map_expr(function, pl.col("city"), pl.String))
    assert out["place"].to_list() == ["A", "B", None, "A"]


def test_planning_calls_nothing() -> None:
    """Neither does an empty frame, nor a column that nobody takes."""
    calls = Calls(str.upper)
    query = FRAME.lazy().with_columns(place=map_expr(bound(calls), pl.col("city"), pl.String))
    assert query.collect_schema()["place"] == pl.String
    query.explain()
    assert query.select("number").collect().width == 1
    empty = query.head(0).collect()
    assert empty.schema["place"] == pl.String
    assert calls.batches == []


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_filters_come_first(engine: Any) -> None:
    """What is filtered out is never sent."""
    calls = Calls(str.upper)
    query = FRAME.lazy().with_columns(place=map_expr(bound(calls), pl.col("city"), pl.String))
    out = query.filter(pl.col("number") == 2).collect(engine=engine)
    assert out["place"].to_list() == ["B"]
    assert calls.batches == [["b"]]


@engines
def test_parts_send_nothing_twice(engine: str) -> None:
    """A long column comes in parts, in several threads at once; these share their calls."""
    frame = pl.DataFrame({"number": range(200_000)}).select(pl.col("number") % 1000)
    calls = Calls(str)
    out = run(frame, engine, text=map_expr(bound(calls, 7), pl.col("number"), pl.String))
    assert out["text"].equals(out["number"].cast(pl.String), check_names=False)
    assert sorted(key for batch in calls.batches for key in batch) == list(range(1000))


def test_groups_and_windows() -> None:
    """They are one column, and not a call for each."""
    calls = Calls(str.upper)
    place = map_expr(bound(calls), pl.col("city"), pl.String)
    FRAME.with_columns(place=place.over("number"))
    assert calls.batches == [["a", "b"]]


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (pl.String, "x"),
        (pl.Int8, 1),
        (pl.Categorical, "x"),
        (pl.Enum(["x"]), "x"),
        (pl.List(pl.Float64), [1.5]),
        (pl.Array(pl.Float32, 2), [1.5, 2.5]),
        (pl.Struct({"a": pl.Int64, "b": pl.String}), {"a": 1, "b": None}),
        (pl.Datetime("us", "UTC"), dt.datetime(2024, 7, 1, tzinfo=dt.UTC)),
        (pl.Date, dt.date(2024, 7, 1)),
    ],
    ids=str,
)
def test_types(dtype: Any, result: Any) -> None:
    """Whatever polars has; a Series may leave it to Arrow."""
    function = bound(lambda items: [result for _ in items])
    out = run(FRAME, "in-memory", place=map_expr(function, pl.col("city"), dtype))["place"]
    assert out.dtype == dtype
    rows = [value if isinstance(value, dict | None) else result for value in out.to_list()]
    assert rows == [result, result, None, result]
    assert map_series(function, FRAME["city"], dtype).dtype == dtype
    assert map_series(function, FRAME["city"]).null_count() == 1


E = pl.Enum(["red", "blue"])


@pytest.mark.parametrize("errors", ["raise", "column"])
@pytest.mark.parametrize(
    ("dtype", "nested"),
    [
        (E, lambda color: color),
        (pl.List(E), lambda color: ["red", color]),
        (pl.Array(E, (1, 2)), lambda color: [[color, "red"]]),
        (pl.Struct({"n": pl.Int8, "c": pl.List(E)}), lambda color: {"n": None, "c": [color, None]}),
    ],
    ids=["enum", "list", "array", "struct"],
)
def test_members_of_enums(dtype: Any, nested: Any, errors: Any) -> None:
    """Another one is an error of polars, however deep it is."""
    function = bound(Calls(nested))
    out = map_series(function, pl.Series(["blue", None]), dtype, errors=errors)
    values = out.struct.field("value") if errors == "column" else out
    assert (values.dtype, values.to_list()[0]) == (dtype, nested("blue"))
    with pytest.raises(pl.exceptions.InvalidOperationError, match="green"):
        map_series(function, pl.Series(["blue", "green"]), dtype, errors=errors)


def test_vectors() -> None:
    """NumPy arrays are an Array."""
    np = pytest.importorskip("numpy")
    function = bound(lambda items: [np.full(2, item, np.float32) for item in items])
    out = map_series(function, pl.Series("n", [2, None, 1]))
    assert (out.dtype, out.name) == (pl.Array(pl.Float32, 2), "n")
    assert map_series(function, pl.Series([2, 1])).to_numpy().tolist() == [[2, 2], [1, 1]]


def test_what_is_sent() -> None:
    """Categories that are used; of objects the objects; NaN is missing; structs are dicts.

    Integers of which Arrow knows nothing are integers.
    """
    structs = FRAME.head(1).select(pl.struct("city", "number")).to_series()
    for series, key, expected in [
        (FRAME["city"].cast(pl.Categorical), None, ["a", "b"]),
        (pl.Series([(1, 2), None, (1, 2)], dtype=pl.Object), None, [(1, 2)]),
        (pl.Series([1.5, float("nan"), None]), None, [1.5]),
        (structs, str, [{"city": "a", "number": 1}]),
        (pl.Series([2**100, None, 2**100], dtype=pl.Int128), None, [2**100]),
        (pl.Series([[1]], dtype=pl.List(pl.Int128)), str, [[1]]),
    ]:
        calls = Calls(str)
        map_series(bound(calls, key=key), series, pl.String)
        assert calls.batches == [expected]


@pytest.mark.parametrize("dtype", [pl.Datetime("ns", "UTC"), pl.Time, pl.Duration("ns")], ids=str)
def test_nanoseconds(dtype: Any) -> None:
    """They are an error before any call, also beside integers of which Arrow knows nothing."""
    frame = pl.DataFrame({"time": [[1000], [1001], []], "number": [1, 1, 1]})
    frame = frame.cast({"time": pl.List(dtype), "number": pl.Int128})
    rows = frame.select(pl.struct("time", "number")).to_series()
    calls = Calls(str)
    for series in (frame["time"], rows, pl.Series([rows]), rows.reshape((1, 3))):
        with pytest.raises(ValueError, match=r"has a value that Python has not: .*Cast the column"):
            map_series(bound(calls, key=str), series, pl.String)
    assert calls.batches == []
    map_series(bound(calls, key=str), rows.head(1), pl.String)
    assert len(calls.keys[0]["time"]) == 1


def test_rows_cost_no_python() -> None:
    """Distinct values are told by Arrow: `key=` is asked for each of them once."""
    asked = Mock(side_effect=str)
    map_series(bound(Calls(str), key=asked), FRAME["city"])
    assert asked.mock_calls == [call("a"), call("b")]


def failing(key: str) -> Any:
    return Picky(code=404, key=key) if key == "b" else key.upper()


class Picky(Exception):
    """One that cannot be made from a text."""

    def __init__(self, *, code: int, key: str) -> None:
        super().__init__(f"{code}: {key}")


@engines
def test_failures_are_the_cause(engine: str) -> None:
    """The query fails as polars does, whatever the class of the exception is."""
    function = bound(Calls(failing))
    place = map_expr(function, pl.col("city"), pl.String)
    with pytest.raises(pl.exceptions.ComputeError, match="bound function has failed: Picky") as it:
        run(FRAME, engine, place=place)
    assert type(it.value).__qualname__ == "MapError"
    assert type(it.value.__cause__) is Picky
    assert it.value.__cause__.args == ("404: b",)
    with pytest.raises(Picky):
        map_series(function, FRAME["city"])


@engines
def test_a_wrong_type_is_the_cause(engine: str) -> None:
    """The error of `map_column` names the value."""
    place = map_expr(bound(Calls(str.upper)), pl.col("city"), pl.Int64)
    with pytest.raises(pl.exceptions.ComputeError) as it:
        run(FRAME, engine, place=place)
    assert isinstance(it.value.__cause__, AnswerTypeError)
    assert "the result of 'a' is 'A' of type 'str'" in str(it.value.__cause__)


@engines
def test_failures_in_a_column(engine: str) -> None:
    """A struct of value and error."""
    place = map_expr(bound(Calls(failing)), pl.col("city"), pl.String, errors="column")
    out = run(FRAME, engine, place=place)
    assert out.schema["place"] == pl.Struct({"value": pl.String, "error": pl.String})
    assert out["place"].struct.field("value").to_list() == ["A", None, None, "A"]
    assert out["place"].struct.field("error").to_list() == [None, "Picky: 404: b", None, None]
    eager = map_series(bound(Calls(failing)), FRAME["city"], errors="column")
    assert eager.equals(out["place"])


def test_interrupts_stay_what_they_are() -> None:
    """Ctrl-C is not wrapped."""

    def interrupt(items: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FRAME, "in-memory", place=map_expr(bound(interrupt), pl.col("city"), pl.String))


def test_who_is_asked() -> None:
    """What cannot be is refused when the expression is made."""
    wrong: Any = str.upper
    with pytest.raises(TypeError, match="takes a bound function"):
        map_expr(wrong, pl.col("city"), pl.String)
    with pytest.raises(ValueError, match="errors must be"):
        map_expr(bound(Calls(str)), pl.col("city"), pl.String, errors=wrong)
    column: Any = "city"
    with pytest.raises(
        TypeError, match=r"takes a polars.Expr, such as pl.col\('city'\), got 'str'"
    ):
        map_expr(bound(Calls(str)), column, pl.String)
    with pytest.raises(TypeError, match=r"takes a polars.Series, got 'str'"):
        map_series(bound(Calls(str)), column)
    for dtype in (pl.Int128, pl.List(pl.Int128), pl.Object):
        with pytest.raises(TypeError, match=r"return_dtype cannot be .*Decimal"):
            map_expr(bound(Calls(str)), pl.col("city"), dtype)


def test_progress() -> None:
    """It is that of `map()`, for a Series."""
    told = []
    map_series(bound(Calls(str)), FRAME["city"], progress=lambda now: told.append(now.done))
    assert told[-1] == 2
