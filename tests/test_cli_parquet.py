"""The command: Parquet. What is not mapped stays as it is, and results are of one type."""

import csv
import datetime
import decimal
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from command_tools import Functions, said, upper, written
from command_tools import directory as directory
from command_tools import functions as functions
from command_tools import windows_of as windows_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def parquet(table: Any) -> str:
    """A file with that table."""
    pq.write_table(table, "in.parquet")
    return "in.parquet"


def read_parquet() -> Any:
    """The table that was written."""
    return pq.ParquetFile("out.parquet").read()


@pytest.mark.parametrize("skipped", [False, True])
def test_unmapped_columns_pass_through(functions: Functions, skipped: bool) -> None:
    """Whatever they hold: what Python has no value for, too; types and metadata stay."""
    no_text = pa.py_buffer(b"\xffx\xfe"), pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0")
    table = pa.table(
        {
            "city": ["a", "b", "c"],
            "date": pa.array([10**7, None, 1], pa.int32()).cast(pa.date32()),
            "zone": pa.array([0, 1, 2], pa.timestamp("us", tz="Mars/Base")),
            "text": pa.Array.from_buffers(pa.string(), 3, [None, no_text[1], no_text[0]]),
            "words": pa.array(["x", "y", "x"]).dictionary_encode(),
            "span": pa.array([1, 2, 3], pa.duration("ns")),
            "struct": pa.array([{"a": [1]}, None, {"a": None}]),
        }
    ).replace_schema_metadata({"who": "me"})
    functions.answers = {"b": LookupError("b")} if skipped else {}
    line = (parquet(table), "--field", "city", "-o", "out.parquet", "--on-error", "skip")
    upper(*line, status=3 if skipped else 0)
    new = read_parquet()
    kept = [0, 2] if skipped else [0, 1, 2]
    assert new.drop_columns(["result"]).equals(pa.concat_tables(table.slice(n, 1) for n in kept))
    assert new["result"].to_pylist() == ["ABC"[n] for n in kept]
    assert new.schema.metadata[b"who"] == b"me"


def test_a_value_of_parquet_that_python_has_not(functions: Functions) -> None:
    """It is a failure of its row if it is mapped or to be converted, before anything is paid."""
    far = pa.array([1, 10**7], pa.int32()).cast(pa.date32())
    name = parquet(pa.table({"city": ["a", "b"], "day": far}))
    message = said(name, "--field", "city", "-o", "out.jsonl")
    assert message.startswith("batchproxy: in.parquet:2: column 'day', of type date32[day], has a")
    assert functions.sent == []
    done = upper(name, "--field", "city", "-o", "out.csv", "--on-error", "skip", status=3)
    assert Path("out.csv").read_text() == "city,day,result\na,1970-01-02,A\n"
    assert done.stdout == ""
    upper(name, "--field", "day", "-o", "out.parquet", "--on-error", "record", status=3)
    assert read_parquet().column("result").to_pylist() == ["1970-01-02", None]
    assert read_parquet().column("day").combine_chunks().equals(far)


def test_a_time_zone_that_is_not_known(functions: Functions) -> None:
    """It is said to be that, with no advice to install something."""
    times = pa.array([0], pa.timestamp("us", "Foo/Bar"))
    message = said(parquet(pa.table({"t": ["a"], "when": times})), "--field", "t", "-o", "o.jsonl")
    assert message.split(": ", 2)[2] == (
        "column 'when', of type timestamp[us, tz=Foo/Bar], has a value that Python has not: its "
        "time zone is not known here; leave the column out, or write Parquet"
    )


MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DAY = MOMENT.date()
AS_JSON: list[tuple[str, Any, Any]] = [
    ("city", "a", "a"),
    ("day", DAY, "2026-01-02"),
    ("at", MOMENT, "2026-01-02T03:04:05+00:00"),
    ("time", datetime.time(3, 4), "03:04:00"),
    ("price", decimal.Decimal("1.50"), "1.50"),
    ("raw", b"\xff\x00", "/wA="),
    ("nan", math.nan, None),
    ("inf", -math.inf, "-Infinity"),
    ("list", [{"d": DAY, "x": math.inf}], [{"d": "2026-01-02", "x": "Infinity"}]),
]


def test_parquet_to_text(functions: Functions) -> None:
    """Each type that JSON has not is written by a rule, and passes as text through CSV."""
    table = pa.table({name: [value] for name, value, _ in AS_JSON})
    table = table.append_column("id", pa.array([b"0123456789abcdef"], pa.uuid()))
    line = (parquet(table), "--field", "city", "-o")
    plain = {name: text for name, _, text in AS_JSON}
    plain |= {"id": "30313233-3435-3637-3839-616263646566", "result": "A"}
    upper(*line, "out.jsonl")
    assert json.loads(Path("out.jsonl").read_text()) == plain
    upper(*line, "out.csv")
    (row,) = csv.DictReader(Path("out.csv").read_text().splitlines())
    assert json.loads(row.pop("list")) == plain.pop("list")
    assert row == {name: text or "" for name, text in plain.items()}
    upper(*line, "out.txt")
    assert Path("out.txt").read_text() == "A\n"


def test_a_type_that_text_has_not(functions: Functions) -> None:
    """It is said by its column, before anything is paid."""
    span = pa.array([None, 5], pa.duration("s"))
    name = parquet(pa.table({"city": ["x", "y"], "span": span}))
    message = said(name, "--field", "city", "-o", "out.jsonl")
    assert message.startswith("batchproxy: in.parquet:2: column 'span': there is no JSON for a tim")
    assert message.endswith("write Parquet, or leave the column out")
    assert functions.sent == []


def test_columns_of_one_name(functions: Functions) -> None:
    """They are refused where they are used, and pass through where they are not."""
    arrays = [pa.array(["a"]), pa.array(["1"]), pa.array(["2"])]
    name = parquet(pa.Table.from_arrays(arrays, names=["t", "u", "u"]))
    for more in (["--field", "u"], ["--field", "t", "--into", "u"]):
        assert said(name, *more, "-o", "out.parquet", status=2).endswith("several columns 'u'")
    upper(name, "--field", "t", "-o", "out.parquet")
    assert read_parquet().column_names == ["t", "u", "u", "result"]
    assert "several columns of the same name" in said(name, "--field", "t", "-o", "out.jsonl")


def test_structs(functions: Functions) -> None:
    """A path goes into them, as into the objects of JSON."""
    rows = [{"a": {"b": "x"}, "a.c": "y"}, {"a": None, "a.c": "z"}, {"a": {"b": None}, "a.c": "w"}]
    name = parquet(pa.Table.from_pylist(rows))
    upper(name, "--field", "a.b", "-o", "out.parquet")
    assert functions.sent == ["x"]
    assert read_parquet()["result"].to_pylist() == ["X", None, None]
    upper(name, "--field", "a.c", "-o", "out.jsonl")
    assert functions.sent == ["x", "y", "z", "w"]
    for field in ("a.d", "a.b.c", "b", "x.b", "a.c.d"):
        message = said(name, "--field", field, "-o", "out.parquet", status=2)
        assert f"no column '{field}'; there are 'a', 'a.c'" in message
    assert "--field is missing" in said(name, "-o", "out.parquet", status=2)


def outcome(functions: Functions, results: tuple[Any, Any, Any]) -> Any:
    """The column of these results, each of a window of its own."""
    functions.answers = dict(zip("abc", results))
    upper(written("in.txt", "a\nb\nc\n"), "-o", "out.parquet")
    return read_parquet()["result"]


@pytest.fixture
def windows_of_one(windows_of: Any) -> None:
    windows_of(1)


@pytest.mark.parametrize(
    ("results", "column", "kind"),
    [
        ((None, None, 3), [None, None, 3], pa.int64()),
        ((None, None, None), [None, None, None], pa.string()),
        (([], [None], [1]), [[], [None], [1]], pa.list_(pa.int64())),
        ((1.5, 2, None), [1.5, 2.0, None], pa.float64()),
        (({"a": 1, "b": 2}, {"b": 3}, None), [{"a": 1, "b": 2}, {"a": None, "b": 3}, None], None),
        # What has no members is null where nothing says which.
        (({}, {}, None), [None, None, None], None),
        (({}, {"a": 1}, {}), [None, {"a": 1}, {"a": None}], None),
        (({"m": {}, "n": 1}, None, {}), [{"m": None, "n": 1}, None, None], None),
        (({"a": {}}, None, {}), [{"a": None}, None, None], None),
        (([{}], [], None), [[None], [], None], None),
        ((None, [], None), [None, [], None], None),
        (([], [[]], [[1]]), [[], [[]], [[1]]], pa.list_(pa.list_(pa.int64()))),
    ],
)
def test_types_of_results(
    functions: Functions, windows_of_one: None, results: Any, column: list[Any], kind: Any
) -> None:
    """The first that says something decides; rows that wait fit what comes later."""
    found = outcome(functions, results)
    assert found.to_pylist() == column
    assert found.type == kind or kind is None


NO_PARQUET = "this cannot be written as Parquet: .*"
OTHER = "in.txt:2: column 'result': .* is not of type .*, as those of the rows before are: "


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ((1, "x", 2), OTHER),
        (("x", 1, 2), OTHER),
        ((1, 2.5, 2), OTHER),
        ((True, 5, False), OTHER),
        (({"a": 1}, {"a": 1, "b": 2}, None), OTHER),
        (([{"a": {"b": 1}}], [{"a": {"c": 1}}], None), OTHER),
        ((1, 2**70, None), OTHER),
        (("\ud800", "x", "y"), r"in.txt:1: column 'result': '\\ud800' has no place in Parquet: "),
        ((2**70, 1, 2), r"in.txt:1: column 'result': 1180591620717411303424 has no place in Par"),
        (({"a": {}}, [], None), f"{NO_PARQUET}cannot mix list and non-list"),
        (
            ({"a": None, "b": 1}, {"c": 1}, None),
            f"{NO_PARQUET}column 'result': there is no 'a' lat",
        ),
    ],
)
def test_results_of_other_types(
    functions: Functions, windows_of_one: None, results: Any, why: str
) -> None:
    """What does not fit later is said, never lost."""
    functions.answers = dict(zip("abc", results))
    failed = upper(written("in.txt", "a\nb\nc\n"), "-o", "out.parquet", status=1).stderr
    message, resume = failed.splitlines()
    assert re.fullmatch(f"batchproxy: {why}.*; use --output-format jsonl", message)
    assert resume.startswith("batchproxy: nothing was kept; with --store FILE")


def test_types_that_are_known_late(
    functions: Functions, windows_of_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many rows wait for one; then it is text."""
    monkeypatch.setattr("batchproxy.cli._parquet._MOST_HELD", -1)
    assert outcome(functions, (None, None, "x")).to_pylist() == [None, None, "x"]
    functions.answers = {"a": None, "b": 3, "c": 4}
    message = said("in.txt", "-o", "out.parquet")
    assert "in.txt:2: column 'result': 3 is not of type string, as those of the rows be" in message


@pytest.mark.parametrize("on_error", ["stop", "skip", "record"])
def test_results_of_several_types_at_once(functions: Functions, on_error: str) -> None:
    """The first that does not fit is said, in whichever line of the window it is."""
    functions.answers = {"c": 1, "f": 2}
    name = written("in.txt", "a\nb\nc\nd\ne\nf\n")
    message = said(name, "-o", "out.parquet", "--on-error", on_error)
    fits = "batchproxy: in.txt:3: column 'result': 1 is not of type string, as those of the rows be"
    assert message.startswith(fits)
    pq.write_table(pa.table({"t": ["a", "b", "c"]}), "in.parquet")
    message = said("in.parquet", "--field", "t", "-o", "out.parquet", "--on-error", on_error)
    assert message.startswith(fits.replace(".txt", ".parquet"))


def test_columns_without_members(functions: Functions) -> None:
    """Those that are not mapped, likewise."""
    name = written("in.jsonl", '{"t": "a", "meta": {}}\n{"t": "b", "meta": {}}\n')
    upper(name, "--field", "t", "-o", "out.parquet")
    assert read_parquet()["meta"].to_pylist() == [None, None]


def test_json_to_parquet(functions: Functions) -> None:
    """A column of several types is said before anything is paid; one may be replaced."""
    name = written("in.jsonl", '{"t": "a", "n": 1}\n{"t": "b", "n": "x"}\n')
    message = said(name, "--field", "t", "-o", "out.parquet")
    assert message.startswith("batchproxy: in.jsonl:2: column 'n': 'x' is not of type int64, as")
    assert functions.sent == []
    upper(name, "--field", "t", "--into", "n", "-o", "out.parquet")
    assert read_parquet().to_pylist() == [{"t": "a", "n": "A"}, {"t": "b", "n": "B"}]


def test_arrays(functions: Functions) -> None:
    """In Parquet they are lists, of lists if they have several dimensions; they keep their type."""
    numpy = pytest.importorskip("numpy")
    functions.answers = {"a": numpy.eye(2), "b": numpy.ones((1, 2))}
    upper(written("in.txt", "a\nb\n"), "-o", "out.parquet")
    assert read_parquet()["result"].to_pylist() == [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]]]
    functions.upper = lambda items: numpy.ones((2, 2), "float32")  # type: ignore[method-assign] # for this once
    upper("in.txt", "-o", "out.parquet")
    assert read_parquet()["result"].type == pa.list_(pa.float32())


def test_broken_parquet(functions: Functions) -> None:
    """What is wrong is said, wherever it is."""
    pq.write_table(pa.table({"t": ["abc" * 50] * 2000}), "in.parquet", compression="none")
    data = bytearray(Path("in.parquet").read_bytes())
    for cut in (data[:-20], data[:3], b"", b"no", b"t\na\n" * 10):
        message = said(written("in.parquet", bytes(cut)), "--field", "t", "-o", "out.parquet")
        assert message.startswith("batchproxy: in.parquet: no Parquet: ")
    data[4:40] = b"\xff" * 36
    message = said(written("in.parquet", bytes(data)), "--field", "t", "-o", "out.parquet")
    assert message.startswith("batchproxy: in.parquet cannot be read any further: ")


def test_missing_values_in_parquet(functions: Functions) -> None:
    """Nulls of any type come back as nulls, and are not what a function sees."""
    table = pa.table({"t": pa.array([1.5, None, math.nan])})
    line = (parquet(table), "--field", "t", "-o", "out.parquet")
    upper(*line)
    assert functions.sent == [1.5]
    assert read_parquet()["result"].to_pylist() == ["1.5", None, None]
    upper(*line, "--missing", "send")
    assert read_parquet()["result"].to_pylist() == ["1.5", "NONE", "NAN"]
