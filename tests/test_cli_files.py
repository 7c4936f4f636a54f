"""The command's formats: what is not a result keeps its bytes, and everything else converts."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("click", reason="the command needs the extra cli")

from click import UsageError

from batchproxy.cli._formats import Form, Source, compressed, format_of, make_reader, make_writer
from batchproxy.cli._jsonl import splice
from batchproxy.cli._output import Output
from batchproxy.cli._rows import BadInput, BadResult, Names, Outcome, Reader, Row, to_json, to_text
from batchproxy.cli._windows import windows


class Bytes(Source):
    """An input that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.path = self.name = "input"
        self.file = io.BytesIO(data)


def mapped(
    data: bytes,
    source: str,
    target: str | None = None,
    *,
    field: str | None = None,
    into: str = "result",
    error: str | None = None,
    function: Callable[[Any], Any] = lambda item: item,
    every: int = 1,
    form: Form = Form(),  # noqa: B008 - it cannot be changed
) -> bytes:
    """What `data` becomes, of every so many rows; exceptions of `function` are recorded."""
    names = Names(field, into, error)
    reader = make_reader(Bytes(data), source, names, form)
    out = io.BytesIO()
    writer = make_writer(out, target or source, names, reader, same=target in (None, source))
    rows = list(itertools.islice(reader, 0, None, every))
    writer.prepare(rows)
    for row in rows:
        outcome = Outcome(None, row.problem)
        if row.problem is None:
            try:
                outcome = Outcome(writer.rendered(function(row.item)))
            except LookupError as failure:
                outcome = Outcome(None, str(failure))
        writer.write(row, outcome)
    writer.flush()
    writer.flush()  # a window of which all rows were left out
    writer.close()
    return out.getvalue()


def reading(data: bytes, source: str, field: str | None = None) -> Reader:
    """What reads `data`."""
    return make_reader(Bytes(data), source, Names(field, "result", None))


def problems(data: bytes, source: str, field: str | None = None) -> list[tuple[int, str | None]]:
    """The lines of `data` that are malformed, with what is said about them."""
    rows = reading(data, source, field)
    return [(row.line, row.problem) for row in rows if row.problem is not None]


# --- JSON Lines ---

spaces = st.text(" \t", max_size=2)
numbers = st.sampled_from(["1.0e5", "-0", "123456789012345678901234567890", "0.10", "1E+2"])
plain_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
texts = st.builds(json.dumps, plain_texts, ensure_ascii=st.booleans())
values = st.one_of(
    numbers,
    texts,
    st.sampled_from(["null", "true", "[ ]", '{"a" :1,"a":2}', '[1,\t{"b": "}"}]', r'"é\/\""']),
)
names = st.sampled_from(['"a"', '"b"', r'"\u0061"', '"résumé"', '"result"', '""'])
members = st.tuples(spaces, names, spaces, st.just(":"), spaces, values, spaces)
VALUE = 5  # its place in a member


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, list[list[str]], str]:
    """A JSON object, written in any way: what is before, its members in pieces, what is after."""
    found = [list(member) for member in draw(st.lists(members, max_size=4))]
    blank = "" if found else draw(spaces)
    return draw(spaces) + "{", found, blank + "}" + draw(spaces)


def joined(before: str, pieces: list[list[str]], after: str) -> str:
    return before + ",".join(map("".join, pieces)) + after


def pairs(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return found


@given(objects(), values)
def test_a_new_member_changes_nothing_else(
    written: tuple[str, list[list[str]], str], value: str
) -> None:
    """The text is as it was, in two pieces around what was put in; and says as much more."""
    text = joined(*written)
    new = splice(text, json.loads(text), {"new": value})
    added = len(new) - len(text)
    assert any(new[:at] + new[at + added :] == text for at in range(len(text)))
    assert pairs(new) == [*pairs(text), ("new", pairs(value))]


@given(objects(), values)
def test_a_member_is_replaced_where_it_is(
    written: tuple[str, list[list[str]], str], value: str
) -> None:
    """Of several with its name that is the last, which is the one that counts."""
    text = joined(*written)
    places = [place for place, (name, _) in enumerate(pairs(text)) if name == "a"]
    fields = json.loads(text)
    if places:
        written[1][places[-1]][VALUE] = value
        assert splice(text, fields, {"a": value}) == joined(*written)


def test_json_lines() -> None:
    """Spacing, escapes, long numbers, the ends of lines and a byte order mark stay."""
    data = b'\xef\xbb\xbf{"n": 1.0e5,"t":"a" }\r\n \n{"t" : "\\u00e9"}\n{"t":"b"}'
    assert mapped(data, "jsonl", field="t") == (
        b'\xef\xbb\xbf{"n": 1.0e5,"t":"a", "result": "a" }\r\n'
        b'{"t" : "\\u00e9", "result": "\xc3\xa9"}\n{"t":"b", "result": "b"}'
    )


def test_where_results_go_in_json_lines() -> None:
    """Where the item was, or something else was; beside a value that is the item as a whole."""
    data = b'{"t" :"a" ,"n":0}\n{"t":"b"}\n'
    assert mapped(data, "jsonl", field="t", into="t", function=str.upper) == (
        b'{"t" :"A" ,"n":0}\n{"t":"B"}\n'
    )
    assert mapped(data, "jsonl", field="t", into="n", function=str.upper) == (
        b'{"t" :"a" ,"n":"A"}\n{"t":"b", "n": "B"}\n'
    )
    data = b'\xef\xbb\xbf 1.50 \n"a"\n{"z": 1}\n[1, 2]\n'
    assert mapped(data, "jsonl", function=lambda item: [item]) == (
        b'\xef\xbb\xbf {"item": 1.50, "result": [1.5]} \n{"item": "a", "result": ["a"]}\n'
        b'{"z": 1, "result": [{"z": 1}]}\n{"item": [1, 2], "result": [[1, 2]]}\n'
    )


def test_malformed_json() -> None:
    """It is said where and why."""
    data = b'{"t": 1}\n\n{"t": 1\n\xff\n3\nnull\n{"u": 1}\n' + b"[" * 200_000 + b"\n"
    found = problems(data, "jsonl", "t")
    assert [line for line, _ in found] == [3, 4, 5, 6, 7, 8]
    said = [str(problem) for _, problem in found]
    assert said[1].startswith(r"no UTF-8: b'\xff' at byte 0 (invalid start byte); ")
    assert said[0].startswith("no JSON: ")
    assert said[5] == "it has lists or objects nested too deep; flatten them"
    assert said[2:5] == [
        "--field t wants an object, this is a number",
        "--field t wants an object, this is null",
        "no member 't'; there are 'u'",
    ]


def test_errors_in_json_lines() -> None:
    """A failed row has null and an error; one that had an error before has it no more."""
    data = b'{"t":"a"}\nx\n{"t":"b","error":"old"}\n'
    table = {"b": 2}
    assert mapped(data, "jsonl", field="t", error="error", function=table.__getitem__) == (
        b'{"t":"a", "result": null, "error": "\'a\'"}\n'
        b'{"result": null, "error": "no JSON: Expecting value: line 1 column 1 (char 0)"}\n'
        b'{"t":"b","error":null, "result": 2}\n'
    )


# --- CSV ---

fields = st.text(st.sampled_from('ab ",\n\ré;\t'), max_size=4)


def quoted(field: str, delimiter: str) -> str:
    needs = any(mark in field for mark in (delimiter, '"', "\r", "\n"))
    return '"' + field.replace('"', '""') + '"' if needs else field


Records = list[tuple[list[str], list[str], str]]


@st.composite
def records(draw: st.DrawFn) -> tuple[str, Records]:
    """A delimiter; records: fields, their texts, the end of the line. The first is a header."""
    delimiter = draw(st.sampled_from(",\t"))
    found: Records = []
    count = draw(st.integers(1, 4))
    for place in range(count):
        row = ["x", "y", "z"] if place == 0 else draw(st.lists(fields, min_size=3, max_size=3))
        written = [quoted(field, delimiter) for field in row]
        more = draw(st.lists(st.booleans(), min_size=3, max_size=3))
        texts = [
            f'"{text}"' if more and text == field else text
            for text, field, more in zip(written, row, more)
        ]
        ends = ["\n", "\r\n"] if place < count - 1 else ["\n", "\r\n", ""]
        found.append((row, texts, draw(st.sampled_from(ends))))
    return delimiter, found


def delimited(given: tuple[str, Records], mark: str) -> str:
    """The text of a file that begins with `mark`."""
    delimiter, rows = given
    return mark + "".join(delimiter.join(texts) + end for _, texts, end in rows)


kinds = {",": "csv", "\t": "tsv"}
marks = st.sampled_from(["", "\ufeff"])
sure = Form(quoting="csv")


@given(records(), fields, marks)
def test_a_new_column_changes_nothing_else(
    given: tuple[str, Records], result: str, mark: str
) -> None:
    """Records keep their text: quotes, ends of lines, a byte order mark, no end at the end."""
    delimiter, rows = given
    data, kind = delimited(given, mark).encode(), kinds[delimiter]
    new = mapped(data, kind, field="y", function=lambda item: result, form=sure).decode()
    for place, (_, texts, _) in enumerate(rows):
        texts.append(quoted(result, delimiter) if place else "result")
    assert new == delimited(given, mark)
    table = csv.reader(io.StringIO(new, newline=""), delimiter=delimiter, strict=True)
    assert list(table)[1:] == [[*row, result] for row, _, _ in rows[1:]]


@given(records(), st.sampled_from("xyz"), marks)
def test_a_column_is_replaced_where_it_is(given: tuple[str, Records], into: str, mark: str) -> None:
    """The other columns keep their text."""
    delimiter, rows = given
    data, kind = delimited(given, mark).encode(), kinds[delimiter]
    new = mapped(data, kind, field="y", into=into, function=lambda item: f"<{item}>", form=sure)
    for row, texts, _ in rows[1:]:
        texts["xyz".index(into)] = quoted(f"<{row[1]}>", delimiter)
    assert new.decode() == delimited(given, mark)


def test_csv() -> None:
    """Blank lines are no rows; a result that is no text is JSON, and None is nothing."""
    data = b'id,t\n\n1,"a"\n"2",x"y\n'
    results = {"a": {"n": [1, 2]}, 'x"y': None}
    assert mapped(data, "csv", field="t", function=results.__getitem__) == (
        b'id,t,result\n1,"a","{""n"": [1, 2]}"\n"2",x"y,\n'
    )


def test_odd_fields() -> None:
    """A record of one empty field is no blank line; one may be longer than Python takes untold."""
    assert mapped(b"t\na\n", "csv", field="t", into="t", function=lambda item: None) == b't\n""\n'
    new = mapped(b"a\n", "lines", "csv", into="item", function=lambda item: None)
    assert new == b'item\n""\n'
    long = b"a" * 200_000
    new = mapped(b"t\n" + long + b"\n", "csv", field="t", function=len)
    assert new == b"t,result\n" + long + b",200000\n"


def test_malformed_csv() -> None:
    """It is said where the record begins, and the next line is read as usual."""
    undecodable = (
        "no UTF-8: b'\\xff' at byte 0 (invalid start byte); if the file is in another encoding, "
        "give --encoding NAME, such as cp1252"
    )
    data = b'id,t\n1,a,b\n"x"y,c\n2\n3,"\n"\n\xff,d\n4,e\n5,f\rg\n'
    assert problems(data, "csv", "t") == [
        (2, "3 columns, expected 2"),
        (3, "no record: ',' expected after '\"'"),
        (4, "1 columns, expected 2"),
        (7, undecodable),
        (9, "no record: new-line character seen in unquoted field"),
    ]
    assert mapped(data, "csv", field="t", error="error").decode().splitlines()[-1] == (
        ",,,no record: new-line character seen in unquoted field"
    )


def test_headers() -> None:
    """A header must be there, have the field, and have it once; and be read at all."""
    for data, error, said in [
        (b"", BadInput, "no line that names the columns"),
        (b"\n", BadInput, "no line that names the columns"),
        (b'\n"a\n', BadInput, "input:2: no header: unexpected end of data"),
        (b"\xff\n", BadInput, "input:1: no header"),
        (b"a,b\n", UsageError, "no column 't'; there are 'a', 'b'"),
        (b"t,t\n", UsageError, "several columns 't'"),
    ]:
        with pytest.raises(error, match=said):
            reading(data, "csv", "t")
    with pytest.raises(UsageError, match="several columns ''"):
        reading(b",a,\n", "csv", "")
    with pytest.raises(UsageError, match="--field is missing: which column is mapped"):
        reading(b"t\n", "csv")


def test_equal_columns() -> None:
    """Two columns of one name stay what they are in CSV; other formats cannot have them."""
    assert mapped(b"a,a,t\n1,2,3\n", "csv", field="t") == b"a,a,t,result\n1,2,3,3\n"
    for target in ("tsv", "jsonl"):
        with pytest.raises(BadInput, match="several columns of the same name"):
            mapped(b"a,a,t\n1,2,3\n", "csv", target, field="t")


# --- Lines ---


def test_lines() -> None:
    """Results alone, a line for each, with the ends that the lines had; no place for several."""
    data = b"\xef\xbb\xbfa\r\n\nb c"
    assert mapped(data, "lines") == data
    assert mapped(data, "lines", function=len) == b"\xef\xbb\xbf1\r\n0\n3"
    assert mapped(data[3:], "lines", function=lambda item: None) == b"null\r\nnull\nnull"
    assert problems(b"a\n\xff\n", "lines")[0][0] == 2
    with pytest.raises(BadResult, match="several lines"):
        mapped(b"a\n", "lines", function=lambda item: "a\nb")


# --- From one format to another ---


def test_conversions() -> None:
    """Text stays text, and what is none becomes JSON where there are no types."""
    assert mapped(b"a\nb\n", "lines", "jsonl", function=str.upper) == (
        b'{"item": "a", "result": "A"}\n{"item": "b", "result": "B"}\n'
    )
    assert mapped(b"a,b\n", "lines", "csv") == b'item,result\n"a,b","a,b"\n'
    assert mapped(b"a,t\n1,x\n", "csv", "tsv", field="t") == b"a\tt\tresult\n1\tx\tx\n"
    assert mapped(b"a,t\n1,x\n", "csv", "jsonl", field="t") == (
        b'{"a": "1", "t": "x", "result": "x"}\n'
    )
    assert mapped(b"a,t\n1,x\n", "csv", "lines", field="t") == b"x\n"
    rows = b'{"a": true, "t": "x", "b": [1]}\n{"t": null}\n'
    assert mapped(rows, "jsonl", "csv", field="t", error="error") == (
        b"a,t,b,result,error\ntrue,x,[1],x,\n,,,,\n"
    )
    assert mapped(b"3\n", "jsonl", "csv") == b"item,result\n3,3\n"


@pytest.mark.parametrize("target", ["csv", "parquet"])
def test_a_row_with_more_fields_than_the_first(target: str) -> None:
    """CSV and Parquet have no column for them."""
    if target == "parquet":
        pytest.importorskip("pyarrow")
    source = reading(b'{"t": 1}\n{"t": 1, "b": 2}\n', "jsonl", "t")
    writer = make_writer(io.BytesIO(), target, Names("t", "result", None), source, same=False)
    writer.prepare(rows := list(source))
    problem = "no column for 'b': the first row had none; use --output-format jsonl"
    assert [row.problem for row in rows] == [None, problem]


def test_results_that_are_no_json() -> None:
    """They are refused; NumPy's are lists and numbers, and lone surrogates are escaped."""
    bytes_ = r" \(it has no type for a 'bytes'\): b'x'"
    for value, why in ((float("nan"), ""), ({1, 2}, ""), (b"x", bytes_), ({"x": object()}, "")):
        with pytest.raises(BadResult, match=f"no JSON{why}"):
            to_json(value)
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    digits = "the result has an integer of more than 4,300 digits; make it text"
    for much, why in ((10**5000, digits), (deep, "has lists or objects nested too deep")):
        with pytest.raises(BadResult, match=why):
            to_json(much)
    assert to_json("\ud800é") == '"\\ud800\\u00e9"'
    with pytest.raises(BadResult, match="no text that UTF-8 can say"):
        to_text("\ud800" + "x" * 300)
    numpy = pytest.importorskip("numpy")
    assert to_json({"v": numpy.arange(3), "n": numpy.float32(0.5)}) == '{"v": [0, 1, 2], "n": 0.5}'
    assert (to_text(numpy.datetime64("NaT", "ns")), to_text(numpy.float32(0.5))) == ("", "0.5")
    with pytest.raises(BadResult, match=r"no JSON .*timedelta64"):
        to_text(numpy.timedelta64(5, "ns"))


# --- Parquet ---


def parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    pq.write_table(table, out := io.BytesIO())
    return out.getvalue()


def table_in(data: bytes) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data))


def test_parquet() -> None:
    """Columns keep their types; the result's is what the results are, or text."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"t": ["a", "b"] * 800, "n": pa.array(range(1600), pa.int16())})
    data = parquet(table)
    new = table_in(mapped(data, "parquet", field="t", function=len))
    assert new == table.append_column("result", pa.array([1] * 1600))
    new = table_in(mapped(data, "parquet", field="n", into="n", error="e"))
    assert new.column_names == ["t", "n", "e"]
    assert new["n"].to_pylist() == list(range(1600))
    assert new["e"].type == pa.string()
    some = table_in(mapped(data, "parquet", field="n", every=700))
    assert some["n"].to_pylist() == some["result"].to_pylist() == [0, 700, 1400]
    empty = table_in(mapped(parquet(table.slice(0, 0)), "parquet", field="t"))
    assert empty.column_names == ["t", "n", "result"]
    assert table_in(mapped(b"", "lines", "parquet")).column_names == ["item", "result"]
    new = table_in(mapped(b'{"t": [1], "u": null}\nx\n', "jsonl", "parquet", field="t", error="e"))
    problem = "no JSON: Expecting value: line 1 column 1 (char 0)"
    assert new.to_pylist() == [
        {"t": [1], "u": None, "result": [1], "e": None},
        {"t": None, "u": None, "result": None, "e": problem},
    ]


# --- Files ---


def test_endings() -> None:
    """The ending says the format, after that of the compression; others say nothing."""
    assert format_of("a/b.jsonl") == format_of("b.ndjson.gz") == "jsonl"
    assert format_of("b.csv.xz") == format_of("B.CSV.XZ") == "csv"
    assert format_of("b.tsv.bz2") == "tsv"
    assert format_of("b.txt") == "lines"
    assert format_of("b.parquet") == "parquet"
    assert format_of("-") is format_of("b.log") is format_of("b.gz") is None
    with pytest.raises(UsageError, match=r"zstd -dc b\.csv\.zst \| batchproxy"):
        format_of("b.csv.zst")


@pytest.mark.parametrize(("ending", "library"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compression(tmp_path: Path, ending: str, library: Any) -> None:
    """It is read and written by the ending; the same contents are the same bytes."""
    path = tmp_path / f"a.txt.{ending}"
    for _ in range(2):
        with Output(str(path), None) as output:
            output.file.write(b"a\nb\n")
            output.complete()
    assert library.decompress(path.read_bytes()) == b"a\nb\n"
    with Source(str(path)) as source:
        reader = make_reader(source, "lines", Names(None, "result", None))
        assert [row.item for row in reader] == ["a", "b"]
        assert source.position() == source.total == path.stat().st_size
    once = io.BytesIO()
    with compressed(str(path), once) as file:
        file.write(b"a\nb\n")
    assert once.getvalue() == path.read_bytes()
    if ending == "gz":
        assert once.getvalue()[3:8] == bytes(5)  # neither a name nor a time


def test_windows() -> None:
    """So many rows at a time, fewer if they are long; and no more than the limit."""
    for limit, sizes in ((None, [3, 3, 1]), (6, [3, 3]), (0, [])):
        rows_in = reading(b"a\n" * 7, "lines")
        assert [len(window) for window in windows(rows_in, 3, limit)] == sizes
    rows = [Row(line, 6 * 2**20) for line in range(1, 8)]
    assert [len(window) for window in windows(rows, 100, None)] == [3, 3, 1]  # type: ignore[arg-type] # any iterable will do
