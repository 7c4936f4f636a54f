"""Items of the command are told apart by type and value, whatever they are. (Points 1 and 16.)"""

import io
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from command_tools import Functions, call
from command_tools import directory as directory
from command_tools import functions as functions
from hypothesis import example, given
from hypothesis import strategies as st

from batchproxy.cli._keys import key_of
from batchproxy.codecs import digests


def run(*arguments: object, data: bytes | None = None) -> str:
    """What the command prints; everything is one batch."""
    options = ("--batch-size", 1000, "--missing", "send", "-q")
    return call("map", "functions:number", *arguments, *options, data=data).stdout


def numbered(functions: Functions, *values: Any) -> list[int]:
    """The results of `values`, as lines of JSON: equal ones are of one item."""
    functions.batches.clear()
    data = "".join(f"{json.dumps(value)}\n" for value in values).encode()
    lines = run("-", "--input-format", "jsonl", data=data).splitlines()
    assert len(functions.batches) == 1
    return [json.loads(line)["result"] for line in lines]


def test_what_looks_alike(functions: Functions) -> None:
    """Numbers of different types, and texts and lists that spell them, are items of their own.

    So is NaN, which is sent once. The order of members does not matter, that of elements does.
    """
    values = [1, 1.0, True, "1", [1], ["1"], [[1]], {"1": 1}, [1, 1], [], {}, None, "null", [None]]
    values += [["int", 1], ["list", 1, "int", 1], {"list": 1}, [1.0], [True], {"": {}}, "", [""]]
    assert numbered(functions, *values) == list(range(len(values)))
    nan = math.nan
    assert numbered(functions, nan, nan, "nan", [nan], [nan], ["nan"]) == [0, 0, 1, 2, 2, 3]
    same = [{"a": {"b": 1, "c": 2}, "d": 3}], [{"d": 3, "a": {"c": 2, "b": 1}}]
    assert numbered(functions, *same, [1, 2], [2, 1]) == [0, 0, 1, 2]


texts = st.text(st.characters(exclude_categories=()), max_size=3)
single = st.none() | st.booleans() | st.integers(-1, 2) | st.floats(allow_nan=False) | texts
tags = st.sampled_from(["list", "dict", "int", "str", "float", "nan", "NoneType", "bool", 1.0, 0.0])
values = st.recursive(
    single | tags,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def canonical(value: Any) -> str:
    """What two values have in common if and only if they are one item."""
    return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")


@given(values, values)
@example(["a", "b"], {"a": "b"})
@example(-0.0, [0.0])
def test_any_two_values(one: Any, other: Any) -> None:
    """In memory and in a store they are one key if JSON says the same of both, and only then."""
    same = canonical(one) == canonical(other)
    assert (key_of(one) == key_of(other)) == same
    assert (digests([key_of(one)]) == digests([key_of(other)])) == same


@pytest.mark.parametrize("member", [False, True])
def test_deep_items(member: bool) -> None:
    """However deep an item is, it has a key, and what is at its bottom counts."""

    def deep(bottom: Any) -> Any:
        for _ in range(100_000):
            bottom = {"a": bottom} if member else [bottom]
        return bottom

    keys = [key_of(deep(bottom)) for bottom in (1, 2, 1)]
    assert keys[0] == keys[2] != keys[1]
    assert len(set(digests(keys))) == 2


def parquet(functions: Functions, column: Any, path: Path) -> list[int]:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"x": column}), out)
    path.write_bytes(out.getvalue())
    functions.batches.clear()
    result = path.with_name("out.parquet")
    run(path, "--field", "x", "-o", result, "--store", path.with_name("s.db"), "--namespace", "n")
    return [row["result"] for row in pq.read_table(result, columns=["result"]).to_pylist()]


KINDS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "binary": (lambda pa: pa.binary(), b"a", b"b"),
    "date": (lambda pa: pa.date32(), date(2020, 1, 1), date(2020, 1, 2)),
    "time": (lambda pa: pa.time64("us"), time(1), time(2)),
    "timestamp": (lambda pa: pa.timestamp("us"), datetime(2020, 1, 1), datetime(2020, 1, 2)),
    "timestamp in ns": (lambda pa: pa.timestamp("ns"), 1, 2),
    # To Python these are equal: a clock shows their hour twice.
    "moment": (lambda pa: pa.timestamp("s", "Europe/Berlin"), 1603585800, 1603589400),
    "duration": (lambda pa: pa.duration("us"), timedelta(1), timedelta(2)),
    "duration in ns": (lambda pa: pa.duration("ns"), 1, 2),
    "decimal": (lambda pa: pa.decimal128(5, 3), Decimal("1.5"), Decimal("1.6")),
    "float16": (lambda pa: pa.float16(), math.nan, 0.5),
    "struct": (lambda pa: pa.struct([("a", pa.binary())]), {"a": b"x"}, {"a": b"y"}),
    "map": (lambda pa: pa.map_(pa.string(), pa.int8()), [("a", 1)], [("a", 2)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_types_of_parquet(functions: Functions, kind: str, tmp_path: Path) -> None:
    """Equal ones are one item, others are not, and a second run finds all of them."""
    pa = pytest.importorskip("pyarrow")
    if kind.endswith(" in ns"):
        pytest.importorskip("pandas", reason="pyarrow reads nanoseconds through pandas")
    make, one, other = KINDS[kind]
    column = pa.array([one, other, one], make(pa))
    assert parquet(functions, column, tmp_path / "in.parquet") == [0, 1, 0]
    assert len(functions.batches) == 1
    assert parquet(functions, column, tmp_path / "in.parquet") == [0, 1, 0]
    assert functions.batches == []


def test_what_spells_another_type() -> None:
    """Nothing that JSON has is the key of what only Parquet has, nor are two types of it."""
    moment = datetime(2020, 1, 1)
    items = [
        *(b"a", "a", "b'a'", {"!bytes": "b'a'"}, ["bytes", "a"], {"bytes": "a"}),
        *(date(2020, 1, 1), moment, moment.replace(tzinfo=UTC), moment.replace(fold=1)),
        *("2020-01-01", {"!date": "2020-01-01"}, ["date", "2020-01-01"]),
        *(Decimal("1"), 1, 1.0, True, "1", {"!Decimal": "1"}, timedelta(1), time(1)),
        *(UUID(int=1), [1, 2], (1, 2), {1: 2}.keys(), {1: 2}.items()),
    ]
    keys = [key_of(item) for item in [*items, *([item] for item in items)]]
    assert len(set(keys)) == len(set(digests(keys))) == 2 * len(items)


def test_pandas_is_not_needed_to_find_it() -> None:
    """Times in nanoseconds are pandas' where that is installed, and the same items without."""
    pandas = pytest.importorskip("pandas")
    for moment in (datetime(2020, 1, 1, 2), datetime(2020, 1, 1, 2, tzinfo=UTC)):
        assert key_of(pandas.Timestamp(moment)) == key_of(moment)
        assert key_of(pandas.Timestamp(moment) + pandas.Timedelta(1)) != key_of(moment)
    length = timedelta(-1, 2, 3)
    assert key_of(pandas.Timedelta(length)) == key_of(length)
    assert key_of(pandas.Timedelta(length) + pandas.Timedelta(1)) != key_of(length)
