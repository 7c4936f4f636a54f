"""Point 25 of the contract: columns of pandas, with index and name, and nothing that is missing."""

import datetime as dt
from http import HTTPMethod
from typing import Any
from unittest.mock import Mock

import pytest

from batchproxy import AnswerTypeError, BatchingMapProxy, BoundFunction
from batchproxy.testing import Calls

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
from batchproxy.columns import map_column  # noqa: E402 - it needs pyarrow
from batchproxy.integrations.pandas import map_series  # noqa: E402 - it needs pandas


def bound(function: Any, *options: Any, **named: Any) -> BoundFunction[Any, Any]:
    return BatchingMapProxy[Any, Any](*options, **named).bind(function)


def strings(*values: Any, dtype: Any = "str") -> Any:
    return pd.Series(values, range(5, 5 + len(values)), dtype, name="city")


def sent(series: Any, **named: Any) -> list[Any]:
    """What the function gets, all in one batch; what is missing is missing in the result, too."""
    calls = Calls(str)
    out = map_series(bound(calls, **named), series, pa.string())
    assert out.isna().tolist() == series.isna().tolist()
    assert len(calls.batches) <= 1
    return calls.batches[0] if calls.batches else []


def test_index_and_name_stay() -> None:
    """Each distinct value is sent once."""
    calls = Calls(str.upper)
    function = bound(calls, 2)
    series = strings("a", "b", None, "a", "c")
    pd.testing.assert_series_equal(
        map_series(function, series), strings("A", "B", None, "A", "C"), check_dtype=False
    )
    assert calls.batches == [["a", "b"], ["c"]]
    frame = pd.DataFrame({"city": ["a", "b"]}, index=pd.MultiIndex.from_tuples([(1, 2), (1, 1)]))
    frame["place"] = map_series(function, frame["city"])
    assert frame["place"].tolist() == ["A", "B"]
    assert len(calls.batches) == 2


NAN = float("nan")


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (strings("a", None, "b", "a"), ["a", "b"]),
        (strings("a", None, dtype="string"), ["a"]),
        (strings("a", None, dtype=pd.ArrowDtype(pa.string())), ["a"]),
        (strings("a", None, NAN, pd.NA, pd.NaT, 1, dtype=object), ["a", 1]),
        (strings(dtype=object), []),
        (strings(None, pd.NA, dtype=object), []),
        (strings(1, None, 2, dtype="Int64"), [1, 2]),
        (strings(1, NAN, dtype="float64"), [1.0]),
        (strings(1, None, dtype="Float64"), [1.0]),
        (strings(True, None, dtype="boolean"), [True]),
        (strings(1j, NAN, dtype="complex"), [1j]),
        (pd.Series(pd.to_datetime(["2024-07-01", None])), [dt.datetime(2024, 7, 1)]),
        (pd.Series(pd.to_timedelta(["1 day", None])), [dt.timedelta(1)]),
        (
            pd.Series(pd.to_datetime(["2024-07-01", None], utc=True)),
            [dt.datetime(2024, 7, 1, tzinfo=dt.UTC)],
        ),
        (pd.Series(pd.PeriodIndex(["2024-07", None], freq="M")), [pd.Period("2024-07")]),
        (pd.Series(pd.interval_range(0, 1)), [pd.Interval(0, 1)]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_what_is_sent(series: Any, expected: list[Any]) -> None:
    """What a value is in Python; of objects, and of what Arrow has no type for, the objects."""
    got = sent(series)
    assert got == expected
    assert [*map(type, got)] == [*map(type, expected)]


def test_categoricals() -> None:
    """Categories that are used, whatever they are."""
    series = pd.Series(["b", "a", None, "b"], dtype="category").cat.add_categories(["unused"])
    assert sent(series) == ["b", "a"]
    assert sent(pd.Series([1, "a", None], dtype="category")) == [1, "a"]
    for categories in ([(1, 2)], pd.interval_range(0, 1), pd.PeriodIndex(["2024-07"], freq="M")):
        [value] = sent(pd.Series([*categories, None, *categories], dtype="category"))
        assert (value, type(value)) == (categories[0], type(categories[0]))


@pytest.mark.parametrize(
    "values",
    [
        [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)],
        [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
        [dt.time(1, tzinfo=dt.UTC), dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=2)))],
        ["a", b"a"],
        [pd.Timestamp(1), pd.Timestamp(2)],
        [1, 2.5],
        [HTTPMethod.GET, "a"],
        ["a", "b"],
    ],
    ids=str,
)
def test_categories_that_are_objects(values: list[Any]) -> None:
    """They stay what they are, as in a column of objects; texts are told by Arrow."""
    kind = pd.CategoricalDtype(pd.Index(values, dtype=object))
    got = sent(pd.Series([*values, None, *values], dtype=kind))
    assert got == values
    assert [*map(type, got)] == [*map(type, values)]
    asked = Mock(side_effect=repr)
    map_series(bound(Calls(str), key=asked), pd.Series([*values, *values], dtype=kind))
    assert asked.call_count == (2 if values == ["a", "b"] else 4)


def test_sparse_columns() -> None:
    """As any other."""
    got = sent(strings(0, 1, 0, dtype="Sparse[int]"))
    assert (got, {*map(type, got)}) == ([0, 1], {int})


def test_objects_stay_what_they_are() -> None:
    """Tuples are no lists; dicts want a `key=`."""
    assert sent(strings((1, 2), None, (1, 2), dtype=object)) == [(1, 2)]
    dicts = strings({"id": 1}, None, {"id": 1}, dtype=object)
    assert sent(dicts, key=lambda item: item["id"]) == [{"id": 1}]
    with pytest.raises(TypeError, match="unhashable 'dict': give the proxy a key="):
        map_series(bound(Calls(str)), dicts)


def test_na_in_a_list() -> None:
    """It is null, where pandas is."""
    calls = Calls(str)
    assert map_column(bound(calls), [pd.NA, 1, pd.NaT]).to_pylist() == [None, "1", None]
    assert calls.batches == [[1]]


@pytest.mark.parametrize("index", [[5, 9], ["x", "y"], pd.Index([5, 9], name="id")], ids=str)
def test_a_frame_has_no_index(index: Any) -> None:
    """As a column of rows it is its columns, whatever rows are called."""
    calls = Calls(str)
    frame = pd.DataFrame({"city": ["Graz", "Graz"]}, index)
    map_column(bound(calls, key=lambda row: tuple(row.items())), frame)
    assert calls.batches == [[{"city": "Graz"}]]
    assert frame.index.tolist() == [*index]


def test_nanoseconds() -> None:
    """Python has none; the error comes before any call."""
    calls = Calls(str)
    with pytest.raises(ValueError, match="a value that Python has not"):
        map_series(bound(calls), pd.Series([pd.Timestamp(1, unit="ns")]))
    assert calls.batches == []


@pytest.mark.parametrize(
    ("results", "kind", "dtype"),
    [
        (["a", "b"], None, pd.Series(["a"]).dtype),
        ([1, 2], None, "int64"),
        ([2**53 + 1, None], None, "Int64"),
        ([1, None], pa.int8(), "Int8"),
        ([1, None], pa.uint32(), "UInt32"),
        ([1.5, None], None, "float64"),
        ([True, False], None, "bool"),
        ([dt.datetime(2024, 7, 1), None], None, "datetime64[us]"),
        ([pd.Timestamp("2024-07-01"), None], pa.timestamp("us"), "datetime64[us]"),
        (["a", None], pa.dictionary(pa.int8(), pa.string()), "category"),
        ([{"a": 1}, None], None, "object"),
    ],
    ids=str,
)
def test_types(results: list[Any], kind: Any, dtype: Any) -> None:
    """What pandas has for such columns; integers stay what they are beside what is missing."""
    out = map_series(
        bound(lambda items: [results[item] for item in items]), pd.Series([0, 1]), kind
    )
    assert out.dtype == dtype
    assert out.dropna().tolist() == [result for result in results if pd.notna(result)]


def test_vectors() -> None:
    """They are NumPy arrays, ready to be stacked."""
    np = pytest.importorskip("numpy")
    function = bound(lambda items: [np.full(3, item, np.float32) for item in items])
    out = map_series(function, pd.Series([2, 1, 2]))
    assert np.stack(out).tolist() == [[2, 2, 2], [1, 1, 1], [2, 2, 2]]
    assert np.stack(out).dtype == np.float32


def test_failures() -> None:
    """They are raised, or are beside the values."""
    calls = Calls(lambda key: LookupError("no b") if key == "b" else key.upper())
    function = bound(calls)
    series = strings("a", "b", None)
    with pytest.raises(LookupError, match="no b"):
        map_series(function, series)
    frame = map_series(function, series, errors="column")
    assert frame.columns.tolist() == ["value", "error"]
    assert frame.index.equals(series.index)
    assert frame["value"].isna().tolist() == [False, True, True]
    assert frame.loc[5, "value"] == "A"
    assert frame["error"].isna().tolist() == [True, False, True]
    assert frame.loc[6, "error"] == "LookupError: no b"
    with pytest.raises(AnswerTypeError, match="no column of int64 can have"):
        map_series(function, strings("a"), pa.int64())


def test_integers_in_structs_and_lists() -> None:
    """They stay what they are, also beside what is missing."""
    structs = [{"a": 2**53 + 1}, {"a": None}]
    out = map_series(bound(lambda keys: [structs[key] for key in keys]), pd.Series([0, 1]))
    assert out.tolist() == structs
    out = map_series(bound(lambda keys: [[2**53 + 1, None]]), pd.Series([0]))
    assert out[0].tolist() == [2**53 + 1, None]


def test_progress() -> None:
    """It is that of `map()`."""
    told = []
    map_series(bound(Calls(str)), strings("a", "a"), progress=lambda now: told.append(now.done))
    assert told[-1] == 1


def test_what_is_no_series() -> None:
    """The error says so, also where any other iterable would do."""
    frame, calls = pd.DataFrame({"a": [1]}), Calls(str)
    with pytest.raises(TypeError, match=r"takes a pandas\.Series, got 'DataFrame'"):
        map_series(bound(calls), frame)
    proxy = BatchingMapProxy[Any, str]()
    for method, name in ((proxy.map, "map"), (proxy.stream, "stream")):
        with pytest.raises(TypeError, match=rf"^{name}\(\) .*table 'DataFrame'.*its rows: take"):
            method(frame, calls)
    assert proxy.map(frame["a"], calls) == ["1"]
    assert calls.keys == [1]
