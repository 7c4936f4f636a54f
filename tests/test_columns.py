"""Point 25 of the contract: columns. Arrow in, Arrow out, each distinct value once."""

import contextlib
import datetime as dt
import decimal
import math
import subprocess
import sys
import uuid
import weakref
from array import array
from dis import get_instructions
from types import CodeType, FunctionType
from typing import Any
from unittest.mock import Mock, call
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools import Thing, freed_at_once

from batchproxy import (
    AnswerTypeError,
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    BoundFunction,
    Cache,
    StoreError,
)
from batchproxy.stores import MemoryStore
from batchproxy.testing import AsyncCalls, Calls

pa = pytest.importorskip("pyarrow")
from batchproxy.columns import map_column  # noqa: E402 - it needs pyarrow


def bound(function: Any, *options: Any, **named: Any) -> BoundFunction[Any, Any]:
    return BatchingMapProxy[Any, Any](*options, **named).bind(function)


def answering(*results: Any) -> BoundFunction[Any, Any]:
    """What answers 0, 1, 2, ... with these."""
    return bound(lambda items: [results[item] for item in items])


def column_of(count: int) -> Any:
    """0, 1, 2, ..."""
    return pa.array(range(count))


def sent(values: Any, **named: Any) -> list[Any]:
    """What the function gets of a column, all in one batch."""
    calls = Calls(str)
    map_column(bound(calls, **named), values, pa.string())
    assert len(calls.batches) <= 1
    return calls.batches[0] if calls.batches else []


# --- What is sent -----------------------------------------------------------------------------


def test_each_distinct_value_once_in_full_batches() -> None:
    """In the order of first occurrence; what is known is not sent again."""
    calls = Calls(str.upper)
    function = bound(calls, 2)
    out = map_column(function, pa.array(["a", "b", None, "a", "c", "b"]))
    assert out.equals(pa.array(["A", "B", None, "A", "C", "B"]))
    assert calls.batches == [["a", "b"], ["c"]]
    assert map_column(function, pa.array(["d", "a"])).to_pylist() == ["D", "A"]
    assert calls.batches[2:] == [["d"]]


@pytest.mark.parametrize("column", [pa.array(["a", "b", "a"] * 9), [None, "a", "b"]], ids=str)
def test_rows_cost_no_python(column: Any) -> None:
    """Distinct values are told by Arrow: `key=` is asked for each of them once, and for no null."""
    array = pa.array(column)
    for again in (column, array, pa.chunked_array([array.dictionary_encode()])):
        asked = Mock(side_effect=str)
        map_column(bound(Calls(str), key=asked), again)
        assert asked.mock_calls == [call("a"), call("b")]


@pytest.mark.parametrize(
    "chunks", [[["a", "b"], [], [None, "a", "c"]], [[], []], [], [["a"]], [[None]]], ids=str
)
@pytest.mark.parametrize("encoded", [False, True])
def test_chunks_keep_their_lengths(chunks: list[list[str | None]], encoded: bool) -> None:
    """Also those that are empty."""
    parts = [pa.array(chunk, pa.string()) for chunk in chunks]
    kind = pa.dictionary(pa.int32(), pa.string()) if encoded else pa.string()
    column = pa.chunked_array([part.cast(kind) for part in parts], kind)
    out = map_column(bound(Calls(str.upper)), column, pa.string())
    assert isinstance(out, pa.ChunkedArray)
    assert [chunk.to_pylist() for chunk in out.chunks] == [
        [value and value.upper() for value in chunk] for chunk in chunks
    ]


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1.5, NAN, None, NAN]), [1.5]),
        (pa.array([1.5, NAN], pa.float16()), [1.5]),
        (pa.nulls(3), []),
        (pa.array([None, True]), [True]),
        ([None, 1, NAN, decimal.Decimal("nan"), "a", 1], [1, "a"]),
        (pa.DictionaryArray.from_arrays([0, 1, None, 2], [None, "a", "b"]), ["a", "b"]),
        (pa.DictionaryArray.from_arrays([1, 1], [0.0, 1.0, NAN]), [1.0]),
        (pa.array([NAN, 2.0, NAN]).dictionary_encode(), [2.0]),
        (pa.array([], pa.string()), []),
        ([], []),
    ],
    ids=str,
)
def test_nulls_are_never_sent(values: Any, expected: list[Any]) -> None:
    """Nor is NaN; their rows are null."""
    assert sent(values) == expected
    out = map_column(bound(Calls(str)), values, pa.string())
    rows = values if isinstance(values, list) else values.to_pylist()
    where = [value is None or value != value for value in rows]
    assert out.is_null().to_pylist() == where


@pytest.mark.parametrize("missing", ["pandas", "numpy"])
def test_what_is_not_needed(missing: str) -> None:
    """Neither pandas nor NumPy, also not for timestamps in nanoseconds, and lists."""
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {missing!r}:\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import pyarrow as pa\n"
        "from batchproxy import BatchingMapProxy\n"
        "from batchproxy.columns import map_column\n"
        "bound = BatchingMapProxy().bind(lambda items: [*map(str, items)])\n"
        "column = pa.array([1000, None, 1000], pa.timestamp('ns'))\n"
        "print(map_column(bound, column).to_pylist(), map_column(bound, [1, None]).to_pylist())\n"
        "if numpy := sys.modules.get('numpy'):\n"
        "    nano = BatchingMapProxy().bind(lambda items: [numpy.datetime64(1, 'ns')])\n"
        "    assert map_column(nano, [1])[0].value == 1"
    )
    printed = subprocess.check_output([sys.executable, "-c", script], text=True)
    moment = "1970-01-01 00:00:00.000001"
    assert printed.startswith(f"{[moment, None, moment]} ['1', None]\n")


def test_what_cannot_be_compared_is_no_null() -> None:
    """Such an item is sent: `key=` says what it is; so is a collection, whatever is in it."""
    np = pytest.importorskip("numpy")
    for values in ([0, 1, 2], [NAN], [NAN, 1], []):
        for item in (np.array(values), array("d", values)):
            assert sent([item, None], key=bytes) == [item]

    class Incomparable:
        def __ne__(self, other: object) -> bool:
            raise TypeError

    item = Incomparable()
    assert sent([item]) == [item]


def test_categories_that_no_row_has_are_not_sent() -> None:
    """The others are, in the order of the rows, once, whatever dictionaries the chunks have."""
    one = pa.DictionaryArray.from_arrays([2, 0, None], ["a", "unused", "c"])
    two = pa.DictionaryArray.from_arrays([1, 0, 1], ["c", "d"])
    assert sent(one) == ["c", "a"]
    column = pa.chunked_array([one, two])
    assert sent(column) == ["c", "a", "d"]
    out = map_column(bound(Calls(str.upper)), column)
    assert out.to_pylist() == ["C", "A", None, "D", "C", "D"]
    double = pa.DictionaryArray.from_arrays([0, 1], ["a", "a"])
    assert sent(double) == ["a"]


def test_a_dictionary_of_what_arrow_cannot_compare() -> None:
    """It is as any other."""
    structs = pa.array([{"a": 1}, {"a": 2}, {"a": 3}])
    column = pa.chunked_array(
        [pa.DictionaryArray.from_arrays(pa.array(codes), structs) for codes in ([2, 0], [None, 2])]
    )
    function = bound(lambda items: [item["a"] for item in items], key=lambda item: item["a"])
    assert map_column(function, column).to_pylist() == [3, 1, None, 3]
    assert sent(column, key=lambda item: item["a"]) == [{"a": 3}, {"a": 1}]


VIENNA = ZoneInfo("Europe/Vienna")
NOON = dt.datetime(2024, 7, 1, 12)
NS = pa.timestamp("ns")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["a"], pa.string_view()), "a"),
        (pa.array([b"a"]), b"a"),
        (pa.array([b"ab"], pa.binary(2)), b"ab"),
        (pa.array([2**63], pa.uint64()), 2**63),
        (pa.array([0.5], pa.float32()), 0.5),
        (pa.array([decimal.Decimal("1.50")]), decimal.Decimal("1.50")),
        (pa.array([dt.date(2024, 7, 1)]), dt.date(2024, 7, 1)),
        (pa.array([dt.date(2024, 7, 1)], pa.date64()), dt.date(2024, 7, 1)),
        (pa.array([dt.time(1, 2, 3, 4)]), dt.time(1, 2, 3, 4)),
        (pa.array([dt.time(1, 2, 3, 4)], pa.time64("ns")), dt.time(1, 2, 3, 4)),
        (pa.array([dt.timedelta(1, 2, 3)]), dt.timedelta(1, 2, 3)),
        (pa.array([dt.timedelta(1, 2, 3)], pa.duration("ns")), dt.timedelta(1, 2, 3)),
        (pa.array([NOON], pa.timestamp("s")), NOON),
        (pa.array([NOON], pa.timestamp("ns")), NOON),
        (
            pa.array([NOON.replace(tzinfo=VIENNA)], pa.timestamp("ns", "Europe/Vienna")),
            NOON.replace(tzinfo=VIENNA),
        ),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), uuid.UUID(int=1)),
        (pa.RunEndEncodedArray.from_arrays([2], ["a"]), "a"),
        (pa.RunEndEncodedArray.from_arrays([1, 3], pa.array([None, NOON], NS))[1:], NOON),
        (
            pa.UnionArray.from_dense(
                pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array(["a"])]
            ),
            "a",
        ),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_the_function_gets_values_as_python_has_them(column: Any, value: Any) -> None:
    """Of Python's own types, pandas or not, and with the zone of the column."""
    got = sent(column)
    assert got == [value] * len(got)
    assert {type(each) for each in got} == {type(value)}
    if isinstance(value, dt.datetime):
        assert got[0].tzinfo == value.tzinfo


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.timestamp("ns")),
        pa.array([1], pa.timestamp("ns", "UTC")),
        pa.array([1], pa.duration("ns")),
        pa.array([1], pa.time64("ns")),
        pa.array([[1001]], pa.list_(pa.time64("ns"))),
        pa.array([{"a": 1}], pa.struct({"a": NS})),
        pa.array([[1001]], pa.list_view(NS)),
        pa.array([[1000]], pa.large_list_view(NS)),
        pa.StructArray.from_arrays(
            [pa.RunEndEncodedArray.from_arrays([1], pa.array([1000], NS))], ["a"]
        ),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1000], NS)]),
        pa.ExtensionArray.from_storage(pa.opaque(NS, "t", "v"), pa.array([1001], NS)),
        pa.array([10**7], pa.int32()).cast(pa.date32()),
        pa.array([0], pa.timestamp("us", tz="Mars/Base")),
    ],
    ids=lambda column: str(column.type),
)
def test_values_that_python_has_not(column: Any) -> None:
    """They are an error before any call, which says what to do."""
    calls = Calls(str)
    with pytest.raises(ValueError, match=r"column of .* has a value that Python has not: .* Cast"):
        map_column(bound(calls), column)
    assert calls.batches == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.struct({"a": pa.list_(pa.struct({"b": NS}))}), {"a": [{"b": NOON}, {"b": None}]}),
        (pa.list_(pa.duration("ns")), [dt.timedelta(1), None]),
        (pa.large_list(NS), [NOON]),
        (pa.list_(NS, 2), [NOON, NOON]),
        (pa.map_(pa.string(), NS), [("a", NOON)]),
    ],
    ids=str,
)
def test_what_is_in_structs_and_lists(kind: Any, value: Any) -> None:
    """It is what Python has, too, and nothing of pandas."""
    column = pa.array([value, None, value], kind)
    assert list(map(repr, sent(column, key=repr))) == [repr(value)]
    categories = pa.StructArray.from_arrays([pa.array([NOON], NS).dictionary_encode()], ["a"])
    assert list(map(repr, sent(categories, key=repr))) == [repr({"a": NOON})]


def test_what_no_row_has_in_structs_and_lists() -> None:
    """Nanoseconds under a null, or beside a slice, are in no value."""
    exact, ends = pa.array([1, 2000, 3000], NS), pa.array([0, 1, 2, 3], pa.int32())
    null = pa.array([True, False, False])
    structs = pa.StructArray.from_arrays([exact], ["a"], mask=null)
    lists = pa.ListArray.from_arrays(ends, exact, mask=null)
    fixed = pa.FixedSizeListArray.from_arrays(exact, 1)
    times = [dt.datetime(1970, 1, 1, microsecond=micro) for micro in (2, 3)]
    assert sent(structs, key=repr) == [{"a": time} for time in times]
    assert sent(lists, key=repr) == sent(fixed[1:], key=repr) == [[time] for time in times]
    with pytest.raises(ValueError, match="Casting from"):
        sent(fixed, key=repr)


def test_structs_and_lists_as_keys() -> None:
    """Dicts and lists: `key=` makes keys of them, and an error says so."""
    structs = pa.array([{"id": 1, "x": 1}, None, {"id": 2, "x": 1}, {"id": 1, "x": 2}])
    lists = pa.array([[1, 2], None, [2], [1, 2]])
    assert sent(structs, key=lambda item: item["id"]) == [{"id": 1, "x": 1}, {"id": 2, "x": 1}]
    assert sent(lists, key=tuple) == [[1, 2], [2]]
    views = pa.array([[NOON], None, [NOON]], pa.list_view(pa.timestamp("us")))
    assert sent(views, key=tuple) == [[NOON]]
    out = map_column(bound(Calls(len), key=tuple), pa.chunked_array([lists, lists.slice(2)]))
    assert [chunk.to_pylist() for chunk in out.chunks] == [[2, None, 1, 2], [1, 2]]
    for column in (structs, lists):
        with pytest.raises(TypeError, match=r"unhashable '(dict|list)': give the proxy a key="):
            map_column(bound(Calls(str)), column)


def test_what_else_has_arrow_inside() -> None:
    """It is taken through Arrow's own interfaces, whole tables as structs."""

    class Lent:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __arrow_c_array__(self, schema: Any = None) -> Any:
            return self.array.__arrow_c_array__(schema)

    class Streamed:
        def __arrow_c_stream__(self, schema: Any = None) -> Any:
            return pa.chunked_array([["a"], ["b"]]).__arrow_c_stream__(schema)

    function = bound(Calls(str.upper))
    assert map_column(function, Lent(pa.array(["a"]))).equals(pa.array(["A"]))
    assert map_column(function, Streamed()).equals(pa.chunked_array([["A"], ["B"]]))
    table = pa.table({"city": ["a", "b"], "country": ["c", None]})
    rows = sent(table, key=lambda row: row["city"])
    assert rows == [{"city": "a", "country": "c"}, {"city": "b", "country": None}]


@pytest.mark.parametrize("wrong", ["abc", ("a",), None, 3, {"a": 1}], ids=str)
def test_what_is_no_column(wrong: Any) -> None:
    """The error says what to write."""
    with pytest.raises(TypeError, match=r"map_column\(\) takes an Arrow array.*pyarrow\.array"):
        map_column(bound(Calls(str)), wrong)


def test_who_is_asked() -> None:
    """A synchronous bound function, whatever it does; else an error says what to write."""
    asynchronous: Any = AsyncBatchingMapProxy[str, str]().bind(AsyncCalls(str))
    with pytest.raises(TypeError, match=r"write BatchingMapProxy\(.*\)\.bind\(function\), which"):
        map_column(asynchronous, pa.array(["a"]))
    plain: Any = str.upper
    with pytest.raises(TypeError, match=r"takes a bound function, got 'method_descriptor': write"):
        map_column(plain, pa.array(["a"]))
    for options in ({"errors": "ignore"}, {"errors": None}):
        with pytest.raises(ValueError, match="errors must be 'raise' or 'column', got"):
            map_column(bound(Calls(str)), pa.array(["a"]), **options)
    for kind in ("string", str, 3):
        with pytest.raises(TypeError, match=r"type must be a pyarrow\.DataType, such as"):
            map_column(bound(Calls(str)), pa.array(["a"]), kind)


def test_asynchronous_functions(sync_backend: Any) -> None:
    """They run in the portal, on either backend, so many calls at a time."""
    calls = AsyncCalls(str.upper)
    function = bound(calls, 1, 2, backend=sync_backend)
    assert map_column(function, pa.array(["a", "b", "a"])).to_pylist() == ["A", "B", "A"]
    assert sorted(calls.batches) == [["a"], ["b"]]


def test_progress_counts_distinct_values() -> None:
    """It is that of `map()`."""
    told = []
    column = pa.array(["a", "b", "a", None])
    map_column(
        bound(Calls(str), 1), column, progress=lambda now: told.append((now.done, now.total))
    )
    assert told[-1] == (2, 2)


def test_a_store() -> None:
    """Results that were kept are not computed again, and a store that fails is no value's error."""
    store, column = MemoryStore(), pa.array(["a", "b", "a"])
    for batches in ([["a", "b"]], []):
        calls = Calls(str.upper)
        with Cache[Any](store=store, namespace="n") as cache:
            out = map_column(bound(calls, cache=cache), column, errors="column")
        assert out.field("value").to_pylist() == ["A", "B", "A"]
        assert calls.batches == batches

    class Broken(MemoryStore):
        def get_many(self, *args: Any, **options: Any) -> Any:
            raise OSError("gone")

    with Cache[Any](store=Broken(), namespace="n") as cache, pytest.raises(StoreError):
        map_column(bound(Calls(str), cache=cache), column, errors="column")


# --- Results ----------------------------------------------------------------------------------


STRUCT = pa.struct({"a": pa.int8(), "b": pa.list_(pa.struct({"c": pa.int8()}))})


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        (["a", None], pa.string()),
        (["a", None], pa.large_string()),
        (["a", None], pa.string_view()),
        (["a", None, "b"], pa.run_end_encoded(pa.int32(), pa.string())),
        (["a", "b", "a", None], pa.dictionary(pa.int32(), pa.string())),
        (["b", "a"], pa.dictionary(pa.uint8(), pa.string(), ordered=True)),
        ([1, 2.0, None], pa.int64()),
        ([1.1, 2], pa.float32()),
        ([1, None], pa.decimal128(5, 2)),
        ([dt.date(2024, 7, 1)], pa.date32()),
        ([NOON], pa.timestamp("s")),
        ([NOON], pa.timestamp("ns")),
        ([NOON.replace(tzinfo=VIENNA)], pa.timestamp("us", "UTC")),
        ([dt.timedelta(1)], pa.duration("ms")),
        ([{"a": 1}, {"b": [{"c": None}]}, None], STRUCT),
        ([(1, "x")], pa.struct({"a": pa.int8(), "b": pa.string()})),
        ([{"a": 1.1, "b": "x"}], pa.struct({"a": pa.float32(), "b": pa.string()})),
        ([[("a", 1)], {"b": 2}], pa.map_(pa.string(), pa.int64())),
        ([[1, 2], (3,), None], pa.list_(pa.int16())),
        ([[1, 2], None], pa.list_(pa.float32(), 2)),
        ([uuid.UUID(int=1).bytes], pa.uuid()),
        ([math.inf, None, 2], pa.float32()),
        ([bytearray(b"x"), b"y"], pa.binary()),
        ([[1], None], pa.list_(pa.dictionary(pa.int8(), pa.int64()))),
        ([1, None], pa.opaque(pa.int64(), "a", "b")),
        ([[1, 2], None], pa.fixed_shape_tensor(pa.int32(), [2])),
        ([None, None], pa.null()),
    ],
    ids=str,
)  # fmt: skip
def test_results_of_any_type(results: list[Any], kind: Any) -> None:
    """The column is of that type, as Arrow makes it; None is null."""
    out = map_column(answering(*results), column_of(len(results)), kind)
    assert out.type == kind
    assert out.to_pylist() == pa.array(results, kind).to_pylist()


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        (["a"], pa.string()),
        ([1, 2.5], pa.float64()),
        ([None], pa.null()),
        ([{"a": 1}, {"b": "x"}], pa.struct({"a": pa.int64(), "b": pa.string()})),
        ([[1.5], [2.5, 3]], pa.list_(pa.float64())),
    ],
    ids=str,
)
def test_a_type_in_common(results: list[Any], kind: Any) -> None:
    """Without `type=` it is the one that Arrow finds."""
    assert map_column(answering(*results), column_of(len(results))).type == kind


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (1, pa.string()),
        ("1", pa.int64()),
        (300, pa.int8()),
        (2.5, pa.int64()),
        (decimal.Decimal("1.5"), pa.int64()),
        (decimal.Decimal("1.005"), pa.decimal128(5, 2)),
        (NOON.replace(microsecond=5), pa.timestamp("s")),
        (NOON.replace(tzinfo=VIENNA), pa.timestamp("us")),
        (NOON.replace(tzinfo=VIENNA), pa.timestamp("ns")),
        (NOON, pa.timestamp("us", "UTC")),
        (NOON, pa.date32()),
        (dt.timedelta(microseconds=5), pa.duration("s")),
        (dt.time(1, 1, 1, 5), pa.time32("s")),
        ([1.5], pa.list_(pa.int64())),
        (2.5, pa.dictionary(pa.int8(), pa.int64())),
        ([1, 2, 3], pa.list_(pa.int64(), 2)),
        ({"a": 1, "d": 2}, STRUCT),
        ({"a": "x", "d": "y"}, pa.struct({"a": pa.string()})),
        ({"a": 1.5}, STRUCT),
        ((1.5, None), STRUCT),
        ({"b": [{"c": 1, "d": 2}]}, STRUCT),
        ([("a", 1.5)], pa.map_(pa.string(), pa.int64())),
        ({"a": 1.5}, pa.map_(pa.string(), pa.int64())),
        ([2.5], pa.list_(pa.dictionary(pa.int8(), pa.int64()))),
        (2.5, pa.opaque(pa.int64(), "a", "b")),
        ([2.5, 1.5], pa.fixed_shape_tensor(pa.int32(), [2])),
        (2.5, pa.bool8()),
        (3, pa.bool8()),
        ("red", pa.list_(pa.string())),
        ({"a": "red"}, pa.struct({"a": pa.list_view(pa.string())})),
        (b"ab", pa.large_list(pa.int64())),
        (bytearray(b"ab"), pa.list_(pa.int64(), 2)),
        ([("c", "lost")], pa.struct({"a": pa.string()})),
        (b"ab", pa.string()),
        ("ab", pa.binary()),
        ([("a", b"b")], pa.map_(pa.string(), pa.string())),
        (True, pa.float64()),
        ([1e300], pa.list_(pa.float32())),
        (70_000, pa.float16()),
    ],
    ids=str,
)
def test_a_result_that_does_not_fit(result: Any, kind: Any) -> None:
    """An error names the value, its key and the type; nothing is cut off; the result is kept."""
    calls = Calls(lambda key: result if key == 1 else None)
    function = bound(calls)
    with pytest.raises(AnswerTypeError) as caught:
        map_column(function, column_of(3), kind)
    text = str(caught.value)
    assert text.startswith("the result of 1 is ")
    assert f"of type {type(result).__name__!r}, which no column of {kind} can have: " in text
    assert caught.value.__cause__ is not None
    assert len(calls.batches) == 1
    assert function.map([1]) == [result]
    out = map_column(function, column_of(3), kind, errors="column")
    assert out.type == pa.struct({"value": kind, "error": pa.string()})
    assert out.field("value").null_count == 3
    assert out.field("error").to_pylist() == [None, f"AnswerTypeError: {text}", None]
    assert len(calls.batches) == 1


@pytest.mark.parametrize(
    ("results", "named"),
    [
        (["a", 1], "the result of 1 is 1 of type 'int', which no column of string can have"),
        ([None, 1, "a"], "the result of 2 is 'a' of type 'str', which no column of int64 can have"),
        ([len], "of type 'builtin_function_or_method', which no column can have"),
        ([dt.date(2024, 7, 1), NOON], "which no column of date32[day] can have: ValueError: it"),
        ([NOON.replace(tzinfo=dt.UTC), NOON], "which no column of timestamp[us, tz=UTC] can have"),
        ([dt.time(1, tzinfo=dt.UTC)], "which no column can have: ValueError: it would become"),
        (["\xe9", b"d"], "the result of 1 is b'd' of type 'bytes', which no column of string can"),
        ([1, 2**70], "the result of 1 is 1180591620717411303424 of type 'int', which no column"),
    ],
    ids=str,
)
@pytest.mark.parametrize("errors", ["raise", "column"])
def test_no_type_in_common(results: list[Any], named: str, errors: Any) -> None:
    """The error names the first result that differs; there is no column for it to be in."""
    with pytest.raises(AnswerTypeError) as caught:
        map_column(answering(*results), column_of(len(results)), errors=errors)
    assert named in str(caught.value)


@pytest.mark.parametrize("errors", ["raise", "column"])
def test_results_that_do_not_fit_together(errors: Any) -> None:
    """More categories than the type has numbers for."""
    function, kind = bound(Calls(str)), pa.dictionary(pa.int8(), pa.string())
    with pytest.raises(AnswerTypeError, match=r"fit into dictionary<.*, but not all of them.*Say"):
        map_column(function, column_of(300), kind, errors=errors)


@pytest.mark.parametrize("errors", ["raise", "column"])
def test_more_text_than_fits(errors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than 2 GiB Arrow makes chunks, or cannot take the rows: it is said what can be."""

    class Long(pa.ExtensionArray):  # type: ignore[misc,name-defined] # pyarrow has no types
        def take(self, places: Any) -> Any:
            raise pa.ArrowInvalid("Take operation overflowed binary array capacity")

    class LongType(pa.ExtensionType):  # type: ignore[misc,name-defined] # nor here
        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        def __arrow_ext_class__(self) -> Any:
            return Long

    function, array = bound(Calls(str)), pa.array
    if errors == "raise":
        with pytest.raises(AnswerTypeError, match=r"2 GiB in one chunk.*large_string") as caught:
            map_column(function, column_of(2), LongType(pa.string(), "long"))
        assert isinstance(caught.value.__cause__, pa.ArrowInvalid)
    column = column_of(2)
    monkeypatch.setattr(pa, "array", lambda *rows: pa.chunked_array([array(*rows)]))
    with pytest.raises(AnswerTypeError, match=r"2 GiB in one chunk.*large_string"):
        map_column(function, column, pa.string(), errors=errors)


@pytest.mark.parametrize("errors", ["raise", "column"])
def test_misfits_leave_nothing_to_the_collector(errors: Any) -> None:
    """What failed is freed when the last reference goes."""
    for results, kind in (([Thing()], pa.int64()), ([1, Thing()], None)):
        with freed_at_once() as left:
            left.append(weakref.ref(results[-1]))
            with contextlib.suppress(AnswerTypeError):
                map_column(answering(*results), column_of(len(results)), kind, errors=errors)
            results.clear()


def test_messages_are_short() -> None:
    """Whatever is in results, keys and what Arrow says of them."""
    function = bound(lambda items: ["x" * 10_000 for _ in items])
    with pytest.raises(AnswerTypeError) as caught:
        map_column(function, pa.array(["k" * 10_000]), pa.int64())
    assert len(str(caught.value)) < 700


# --- Vectors ----------------------------------------------------------------------------------


def test_vectors() -> None:
    """NumPy arrays of one shape are fixed-size lists, of their dtype or as `type=` says."""
    np = pytest.importorskip("numpy")
    one, two = np.array([1.5, 2.5], np.float32), np.array([3, 4], np.float32)
    function = answering(one, None, two)
    column = pa.array([2, 0, 1, None, 2])
    rows = [[3, 4], [1.5, 2.5], None, None, [3, 4]]
    for said, kind in [
        (None, pa.list_(pa.float32(), 2)),
        (pa.list_(pa.float64(), 2), pa.list_(pa.float64(), 2)),
        (pa.list_(pa.float16(), 2), pa.list_(pa.float16(), 2)),
        (pa.list_(pa.float32()), pa.list_(pa.float32())),
        (pa.large_list(pa.float64()), pa.large_list(pa.float64())),
        (pa.list_view(pa.float64()), pa.list_view(pa.float64())),
    ]:
        out = map_column(function, column, said)
        assert out.type == kind
        assert out.to_pylist() == rows
    rows_of = bound(lambda items: np.outer(items, [1.5, 2]))
    assert map_column(rows_of, column_of(3)).to_pylist() == [[0, 0], [1.5, 2], [3, 4]]
    matrix = answering(np.arange(6).reshape(2, 3))
    for said in (None, pa.list_(pa.list_(pa.int8())), pa.large_list(pa.large_list(pa.int8()))):
        out = map_column(matrix, column_of(1), said)
        assert out.type == (said or pa.list_(pa.list_(pa.int64(), 3), 2))
        assert out.to_pylist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("f8", pa.list_(pa.string())),
        ("f8", pa.list_(pa.bool_(), 2)),
        ("U1", pa.list_(pa.int64())),
        ("M8[s]", pa.list_(pa.int64())),
        ("i8", pa.list_(pa.timestamp("s"))),
    ],
    ids=str,
)
def test_vectors_of_something_else(dtype: str, kind: Any) -> None:
    """Numbers are neither text nor truth, nor times; nor are these numbers."""
    np = pytest.importorskip("numpy")
    with pytest.raises(AnswerTypeError, match=r"the result of 0 is array"):
        map_column(answering(np.array([1, 2]).astype(dtype)), column_of(1), kind)
    flags = answering(np.array([True, False]))
    assert map_column(flags, column_of(1), pa.list_(pa.bool_(), 2)).to_pylist() == [[True, False]]


def test_moments_of_numpy() -> None:
    """Not a time is null; others are as of Python, but that there are nanoseconds."""
    np = pytest.importorskip("numpy")
    noon, none = np.datetime64("2024-07-01T12", "us"), np.datetime64("NaT", "us")
    for kind in (None, pa.timestamp("us"), NS, pa.timestamp("s")):
        out = map_column(answering(noon, None, none), column_of(3), kind)
        assert (out.type, out.null_count) == (kind or pa.timestamp("us"), 2)
        assert out.cast("timestamp[us]").to_pylist() == [NOON, None, None]
    day, nano = np.datetime64("2024-07-01"), np.timedelta64(1001, "ns")
    assert map_column(answering(day), column_of(1)).to_pylist() == [NOON.date()]
    assert map_column(answering(nano), column_of(1))[0].value == 1001
    nanos = answering(np.array([nano, nano]))
    assert map_column(nanos, column_of(1), pa.list_(pa.duration("ns")))[0][1].value == 1001
    utc = pa.timestamp("us", "UTC")
    for result, kind in [(nano, pa.duration("us")), (noon, pa.date32()), (noon, utc), (day, NS)]:
        with pytest.raises(AnswerTypeError, match="the result of 0 is"):
            map_column(answering(result), column_of(1), kind)


def test_masked_vectors() -> None:
    """What is masked is null, or an error where Arrow does not know of it."""
    np = pytest.importorskip("numpy")
    masked = np.ma.array([1, 2], mask=[False, True])
    for kind in (None, pa.list_(pa.int64())):
        out = map_column(
            answering(masked, np.array([3, 4]), np.ma.array([5, 6])), column_of(3), kind
        )
        assert out.to_pylist() == [[1, None], [3, 4], [5, 6]]
    ragged = answering(masked, np.ma.array([1]))
    with pytest.raises(AnswerTypeError, match="masked arrays have to be of one shape and dtype"):
        map_column(ragged, column_of(2), pa.list_(pa.int64()))
    for dtype in (int, float):
        mixed = answering([1], masked.astype(dtype))
        with pytest.raises(AnswerTypeError, match="not all of them: ValueError: it would become"):
            map_column(mixed, column_of(2), pa.list_(pa.from_numpy_dtype(dtype)))


def test_vectors_in_other_types() -> None:
    """Tensors and flags are what they are elsewhere; a number is not cut off, nor infinite."""
    np = pytest.importorskip("numpy")
    tensor = pa.fixed_shape_tensor(pa.int32(), [2, 2])
    square = np.array([[1, 2], [3, 4]])
    out = map_column(answering(square, None), column_of(2), tensor)
    assert (out.type, out.to_pylist()) == (tensor, [[1, 2, 3, 4], None])
    for flags in ([True, None, False], [np.True_, None, np.False_]):
        for kind in (pa.bool8(), pa.bool_()):
            out = map_column(answering(*flags), column_of(3), kind)
            assert (out.type, out.to_pylist()) == (kind, [True, None, False])
    for result, kind in [
        (square / 4, tensor),
        (np.array([1e300]), pa.list_(pa.float32())),
        (np.True_, pa.int64()),
    ]:
        with pytest.raises(AnswerTypeError, match="the result of 0 is"):
            map_column(answering(result), column_of(1), kind)


def test_vectors_never_become_python_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken out of NumPy one by one."""
    np: Any = pytest.importorskip("numpy")

    class Vector(np.ndarray):  # type: ignore[misc] # it may be missing
        def __iter__(self) -> Any:
            raise AssertionError("one by one")

        def tolist(self) -> Any:
            raise AssertionError("one by one")

    vector = np.arange(3.0).view(Vector)
    for kind in (None, pa.list_(pa.float32(), 3), pa.list_(pa.int8(), 3)):
        assert map_column(answering(vector), column_of(1), kind).to_pylist() == [[0, 1, 2]]


def test_vectors_of_no_one_shape() -> None:
    """They are lists; numbers are numbers, and what is said to be of one size has to be."""
    np = pytest.importorskip("numpy")
    ragged = answering(np.array([1.5]), np.array([2.5, 3.5]))
    assert map_column(ragged, column_of(2)).type == pa.list_(pa.float64())
    kinds = answering(np.array([1.5]), np.array([2], np.float32))
    with pytest.raises(AnswerTypeError, match=r"results are of no one type.*Cannot mix.*Say type="):
        map_column(kinds, column_of(2))
    assert map_column(kinds, column_of(2), pa.list_(pa.float64())).to_pylist() == [[1.5], [2]]
    mixed = answering(np.array([1.5]), [2.5, 3.5])
    assert map_column(mixed, column_of(2)).to_pylist() == [[1.5], [2.5, 3.5]]
    empty = answering(np.array([]), np.array([]))
    assert map_column(empty, column_of(2)).to_pylist() == [[], []]
    assert map_column(answering(np.float32(1.5)), column_of(1)).type == pa.float32()
    assert map_column(answering(np.array(1.5)), column_of(1)).to_pylist() == [1.5]
    with pytest.raises(AnswerTypeError, match=r"the result of 1 is array.*no column of fixed_size"):
        map_column(ragged, column_of(2), pa.list_(pa.float64(), 1))
    with pytest.raises(AnswerTypeError, match=r"the result of 0 is array.*no column of fixed_size"):
        map_column(answering(np.array([1.5])), column_of(1), pa.list_(pa.int8(), 1))


# --- Of any column ---------------------------------------------------------------------------

values_of = st.sampled_from(
    [
        (pa.string(), ["a", "b", "c", "", None]),
        (pa.int64(), [1, 2, -3, 0, None]),
        (pa.float64(), [0.5, 1.5, math.nan, math.inf, None]),
        (pa.list_(pa.int64()), [[1], [1, 2], [], [None], None]),
    ]
)


@given(st.data(), st.booleans(), st.booleans())
def test_any_column(data: st.DataObject, encoded: bool, sliced: bool) -> None:
    """It is what is mapped value by value, in the same chunks; nothing twice, and no null."""
    kind, values = data.draw(values_of)
    chunks = data.draw(st.lists(st.lists(st.sampled_from(values), max_size=6), max_size=4))
    parts = [pa.array(chunk, kind) for chunk in chunks]
    if encoded and kind != pa.list_(pa.int64()):
        parts = [part.dictionary_encode() for part in parts]
        kind = pa.dictionary(pa.int32(), kind)
    if sliced:
        parts = [part.slice(1) for part in parts]
    calls = Calls(str)
    column = pa.chunked_array(parts, kind)
    out = map_column(bound(calls, 3, key=str), column, pa.string())
    assert [chunk.to_pylist() for chunk in out.chunks] == [
        [None if value is None or value != value else str(value) for value in part.to_pylist()]
        for part in parts
    ]
    sent = [str(value) for batch in calls.batches for value in batch]
    rows = [value for value in out.to_pylist() if value is not None]
    assert sent == list(dict.fromkeys(rows))
    assert all(len(batch) == 3 for batch in calls.batches[:-1])


# --- Failures ---------------------------------------------------------------------------------


def test_failures_raise() -> None:
    """The very exception of the function; what had finished stays."""
    failure = LookupError("no b")
    calls = Calls(lambda key: failure if key == "b" else key)
    function = bound(calls, 1)
    with pytest.raises(LookupError) as caught:
        map_column(function, pa.array(["a", "b", "c"]))
    assert caught.value is failure
    assert function.proxy.cache.get("a") == "a"


def test_failures_in_a_column() -> None:
    """A struct of value and error; what failed is tried again by the next."""
    failures = {"b": LookupError("no b"), "c": ValueError("x" * 500)}
    calls = Calls(lambda key: failures.get(key, key.upper()))
    function = bound(calls)
    column = pa.chunked_array([["a", "b", None], ["c", "b"]])
    out = map_column(function, column, errors="column")
    assert out.type == pa.struct({"value": pa.string(), "error": pa.string()})
    a, b, null, c, again = out.to_pylist()
    assert (a, b) == ({"value": "A", "error": None}, {"value": None, "error": "LookupError: no b"})
    assert null is None
    assert again == b
    assert c["error"].startswith("ValueError: xxx")
    assert len(c["error"]) < 250
    failures.clear()
    assert map_column(function, column).to_pylist() == ["A", "B", None, "C", "B"]
    assert calls.batches == [["a", "b", "c"], ["b", "c"]]


def test_a_call_that_fails_in_a_column() -> None:
    """The error is that of all its values; others are kept."""

    def fetch(items: list[str]) -> list[str]:
        if "c" in items:
            raise ConnectionError("reset")
        return [item.upper() for item in items]

    out = map_column(bound(fetch, 2), pa.array(["a", "b", "c"]), pa.string(), errors="column")
    assert out.field("value").to_pylist() == ["A", "B", None]
    assert out.field("error").to_pylist() == [None, None, "ConnectionError: reset"]


# --- In other processes ---


def called(function: Any) -> list[FunctionType]:
    """The functions that it may call by a global name."""
    names, codes = set[str](), [function.__code__]
    while codes:
        code = codes.pop()
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
        names |= {each.argval for each in get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    found = [function.__globals__.get(name) for name in sorted(names)]
    return [each for each in found if isinstance(each, FunctionType)]


def test_no_two_functions_call_each_other() -> None:
    """A function of one's own that maps a column has a fingerprint: dill looks through all of it.

    It does not find the end where two functions call each other; a single one may call itself.
    """
    assert {each.__name__ for each in called(map_column)} >= {"column_of", "distinct", "short"}
    done, rings = set[FunctionType](), list[list[str]]()

    def look(function: Any, *path: Any) -> None:
        if function in path[1:]:
            rings.append([each.__qualname__ for each in path])
        elif function not in done and function not in path:
            for each in called(function):
                look(each, function, *path)
            done.add(function)

    look(map_column)
    assert len(done) > 20
    assert rings == []
