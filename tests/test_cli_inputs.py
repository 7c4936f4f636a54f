"""What the command says of inputs that are not what they seem, and what it sends of the others."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_tools import STORE, Functions, call, said, upper, written
from command_tools import directory as directory
from command_tools import functions as functions
from command_tools import windows_of as windows_of
from hypothesis import given
from hypothesis import strategies as st

from batchproxy.cli._delimited import DelimitedReader, Dialect
from batchproxy.cli._formats import make_writer
from batchproxy.cli._json import JsonReader
from batchproxy.cli._rows import BadInput, Names
from batchproxy.cli._text import Text

# --- Lines and quotes ---


def test_lines_that_end_in_cr_cr_lf(functions: Functions) -> None:
    """That is the end of a line in CSV, JSON Lines and plain lines, and it stays."""
    name = written("in.csv", "id,city\r\r\n1,Oslo\r\r\n")
    out = upper(name, "--field", "city").stdout_bytes
    assert out == b"id,city,result\r\r\n1,Oslo,OSLO\r\r\n"
    records = csv.reader(io.StringIO(out.decode(), newline=""))
    assert [*filter(None, records)] == [["id", "city", "result"], ["1", "Oslo", "OSLO"]]
    assert upper("-", data=b"a\r\r\nb\r\n").stdout_bytes == b"A\r\r\nB\r\n"
    assert functions.sent == ["Oslo", "a", "b"]


def test_lines_that_end_in_cr(functions: Functions) -> None:
    """They are one line to everybody else; it is said what to do."""
    for name, more in [("in.csv", ["--field", "city"]), ("in.txt", []), ("in.jsonl", [])]:
        message = said(written(name, b"city\rOslo\r"), *more)
        assert message.startswith(f"batchproxy: {name}: the lines end in CR alone")
        assert message.endswith("tr '\\r' '\\n' < FILE | batchproxy map ... -")
    name = written("in.json", b'["a",\r"b"]\r')
    assert upper(name, "--output-format", "lines").stdout == "A\nB\n"
    assert functions.sent == ["a", "b"]


UNCLOSED = "is not closed before the file ends; mend it, or give --quoting none"


@pytest.mark.parametrize(
    ("data", "line", "why"),
    [
        ('id,city\n1,"a\n2,b\n3,c\n', 2, UNCLOSED),
        ('id,city\n"1\n1",x\n2,"a\n3,b\n', 4, UNCLOSED),
        ('id,city\n"1\n\n1","a\n3,b\n', 4, UNCLOSED),
        ('id,city\n1,"a', 2, UNCLOSED),
        ('id,city\n1,"a\n2,"b"\n3,c\n', 2, "closes in line 3 (no record: ',' expected after '\"')"),
        ('id,city\n0,x\n1,"a\n2,b",y\n3,c\n', 3, "closes in line 4 (3 columns, expected 2); mend"),
        ('id,city\n"1\n1","a\n2,b",y\n', 3, "closes in line 4 (3 columns, expected 2); mend it"),
    ],
)
def test_a_quote_that_does_not_close_where_it_should(
    functions: Functions, data: str, line: int, why: str
) -> None:
    """Where its record ends nobody knows: the run ends before what it swallowed is paid for."""
    message = said(written("in.csv", data), "--field", "city", "--on-error", "skip")
    assert message.startswith(f"batchproxy: in.csv:{line}: the quote that opens here {why}")
    assert functions.sent == []


def test_a_quote_that_never_closes(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of the file is read to find that out."""
    monkeypatch.setattr("batchproxy.cli._delimited._LARGEST_FIELD", 1000)
    name = written("in.csv", 'id,city\n1,"a\n' + "2,b\n" * 1000 + '3,"x"\n')
    message = said(name, "--field", "city")
    assert message.startswith("batchproxy: in.csv:2: the quote that opens here is not closed with")
    assert functions.sent == []


def test_quotes_in_tsv(functions: Functions) -> None:
    """Where they may mean nothing it is asked; so what databases write is not two rows in one."""
    name = written("in.tsv", 'id\tcity\n1\t"abc\n2\tdef"\n3\tx\n')
    message = said(name, "--field", "city", "--on-error", "skip")
    assert message.startswith("batchproxy: in.tsv:2: the quote that opens here closes in line 3 (")
    assert message.endswith("give --quoting csv if that is one field, else --quoting none")
    assert functions.sent == []
    assert upper(name, "--field", "city", "--quoting", "none").stdout == (
        'id\tcity\tresult\n1\t"abc\t"ABC\n2\tdef"\tDEF"\n3\tx\tX\n'
    )
    assert functions.sent == ['"abc', 'def"', "x"]
    out = upper(name, "--field", "city", "--quoting", "csv").stdout
    assert out == 'id\tcity\tresult\n1\t"abc\n2\tdef"\t"ABC\n2\tDEF"\n3\tx\tX\n'
    plain = written("in.tsv", 'id\tcity\n1\t"a\nb"\n')
    assert upper(plain, "--field", "city").stdout == 'id\tcity\tresult\n1\t"a\nb"\t"A\nB"\n'


def test_results_without_quotes(functions: Functions) -> None:
    """A result that would need them has no place; an error is made to fit."""
    functions.answers = {"a": "x\ty", "b": None}
    name = written("in.tsv", "city\na\n\nb\n")
    options = (name, "--field", "city", "--quoting", "none")
    no_place = "a text with the delimiter in it has no place without quotes; use --output-format"
    assert no_place in said(*options)
    done = upper(*options, "--on-error", "record", "--into", "city", status=3).stdout
    assert done.splitlines()[1].startswith(f"\t{no_place}")
    assert done.splitlines()[2] == "\t"
    functions.answers = {"a": "x,y", "b": "x\ny"}
    done = upper(
        written("in.csv", "city\na\nb\n"), *options[1:], "--on-error", "record", status=3
    ).stdout
    assert f"\na,,{no_place}" in done
    assert "\nb,,a text with the end of a line in it has no place" in done
    functions.upper = lambda items: [LookupError("x\ty\nz") for _ in items]  # type: ignore[method-assign] # for this once
    done = upper(*options, "--on-error", "record", status=3).stdout
    assert done.splitlines()[1] == "a\t\tLookupError: x y z"
    assert said(*options, "--into", "a\tb").startswith("batchproxy: the header cannot be written")


# --- Delimiters ---


@pytest.mark.parametrize("mark", [";", "|", "\t", ":"])
def test_delimiters(functions: Functions, mark: str) -> None:
    """Another one is guessed, said, read and written."""
    name = written("in.csv", f"city{mark}n\na{mark}1\n")
    message = said(name, "--field", "city", status=2)
    assert message.startswith("Error: in.csv: no column 'city'; there are ")
    assert (f"give --delimiter {mark!r}" in message) == (mark != ":")
    given = "\\t" if mark == "\t" else mark
    done = upper(name, "--field", "city", "--delimiter", given)
    assert done.stdout == f"city{mark}n{mark}result\na{mark}1{mark}A\n"
    done = upper(name, "--field", "city", "--delimiter", given, "--output-format", "tsv")
    assert done.stdout == "city\tn\tresult\na\t1\tA\n"


WITHOUT_LINES = ["iso2022_kr", "hz", "idna", "punycode", "unicode_escape", "raw-unicode-escape"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.csv", "--delimiter", ";;"], "--delimiter is one character, and neither a quote"),
        (["in.csv", "--delimiter", '"'], "--delimiter is one character, and neither a quote"),
        (["in.csv", "--delimiter", ""], "--delimiter is one character, and neither a quote"),
        (["in.txt", "--delimiter", ";"], "the input is lines; give --input-format csv as well"),
        (["in.json", "--quoting", "none"], "the input is json; give --input-format csv as well"),
        (["in.csv", "--encoding", "klingon"], "'klingon' is no encoding of text that Python knows"),
        (["in.csv", "--encoding", "rot13"], "'rot13' is no encoding of text that Python knows"),
        (["in.parquet", "--encoding", "utf-8"], "leave --encoding out"),
        (["in.parquet.gz"], "Parquet is compressed inside, and not once more: leave .gz out"),
        (["in.xlsx"], ".xlsx is not read or written; use .csv"),
        (["in.csv", "-o", "out.XLS"], ".xls is not read or written; use .csv"),
        (["in.csv", "-o", "out.feather"], ".feather is not read or written; use .parquet"),
        (["in.avro"], ".avro is not read or written; use .parquet or .jsonl"),
        (["in.zip", "--input-format", "csv"], ".zip is not read or written; .gz, .bz2 and .xz are"),
        (["in.csv", "-o", "out.csv.zst"], ".zst is not read or written; pipe it: zstd"),
        (["in.tar.gz"], ".tar is not read or written"),
        *(
            (["-", "--encoding", name], f"--encoding '{name}' cannot be read line by line; convert")
            for name in WITHOUT_LINES
        ),
    ],
)
def test_what_does_not_go(functions: Functions, arguments: list[str], message: str) -> None:
    """It is a usage error, which says what goes; nothing is read."""
    assert message in said(*arguments, status=2)


# --- Encodings ---


def test_an_undecodable_byte(functions: Functions) -> None:
    """It is the failure of its record, of which no part is taken for rows."""
    name = written("in.csv", b'id,city\n1,"a\xff\nb\xff\n2,c\n"\n3,d\n')
    done = upper(name, "--field", "city", "--on-error", "skip", status=3)
    assert done.stdout == "id,city,result\n3,d,D\n"
    message = said(name, "--field", "city")
    assert message.startswith("batchproxy: in.csv:2: no UTF-8: b'\\xff' at byte 4 (invalid start")
    assert message.endswith("give --encoding NAME, such as cp1252")
    assert functions.sent == ["d"]
    message = said(written("in.csv", b"city\xff\n"), "--field", "city")
    assert message.startswith("batchproxy: in.csv:1: no header: no UTF-8")
    assert said(written("in.json", b'["a",\n"\xff"]')).startswith("batchproxy: in.json:2: no UTF-8")


@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "utf-16", "utf-16-be", "utf-8-sig"])
def test_encodings(functions: Functions, encoding: str) -> None:
    """What is read in an encoding is written in it, if the formats are the same, else in UTF-8."""
    word = "ソ表" if encoding == "shift_jis" else "é"  # in Shift JIS their second byte is \
    for name, text, result, more in [
        ("in.csv", f"t\r\n{word}\r\n", f"t,result\r\n{word},{word.upper()}\r\n", ["--field", "t"]),
        ("in.txt", f"{word}\nx", f"{word.upper()}\nX", []),
        ("in.jsonl", f'{{"t": "{word}"}}', None, ["--field", "t"]),
        ("in.json", f'[{{"t": "{word}"}}]', None, ["--field", "t"]),
    ]:
        data = text.encode(encoding)
        done = upper(written(name, data), "--encoding", encoding, *more)
        assert functions.sent[-1 if name != "in.txt" else -2] == word
        if result is not None:
            assert done.stdout_bytes == result.encode(encoding)
        if name == "in.json":
            table = json.loads(done.stdout_bytes.decode(encoding))
        else:  # in another format it is UTF-8
            done = upper(name, "--encoding", encoding, *more, "--output-format", "json")
            table = json.loads(done.stdout_bytes)
        assert table[0]["result"] == word.upper()


def test_what_an_encoding_cannot_say(functions: Functions) -> None:
    """In JSON it is escaped; elsewhere the row fails, and its error is escaped."""
    functions.answers = {"a": "€", "b": LookupError("€")}
    name = written("in.csv", b"t\na\nb\n")
    options = ("--field", "t", "--encoding", "latin-1")
    message = said(name, *options, "--limit", 1)
    assert "in.csv:2: the result has '\\u20ac', for which iso8859-1 has no place" in message
    done = upper(name, *options, "--on-error", "record", status=3).stdout.splitlines()
    assert done[1].startswith("a,,\"the result has '\\u20ac'")
    assert done[2] == "b,,LookupError: \\u20ac"
    name = written("in.jsonl", '{"t": "a"}\n')
    assert upper(name, *options).stdout == '{"t": "a", "result": "\\u20ac"}\n'


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_byte_order_marks(functions: Functions, encoding: str) -> None:
    """That of another encoding is recognised, and so is UTF-16 without one."""
    data = "\ufeffcity\nOslo\n".encode(encoding)
    message = said("-", data=data)
    assert f"<stdin> is {encoding[:6].upper()}: it begins with" in message
    assert message.endswith(f"give --encoding {encoding[:6]}")
    assert upper("-", "--encoding", encoding[:6], data=data).stdout_bytes == data.upper()
    assert functions.sent == ["city", "Oslo"]
    if encoding.startswith("utf-16"):
        message = said("-", data="city\n".encode(encoding))
        assert message.endswith(f"if it is UTF-16, give --encoding {encoding}")
        assert upper("-", "--encoding", "utf-16-le", data=b"").stdout == ""


def test_an_encoding_that_it_is_not(functions: Functions) -> None:
    """Where a line cannot be told from the next without decoding, that ends the run."""
    data = "a\nb\n".encode("utf-16-le") + b"\x00\xd8a\x00"
    message = said("-", "--encoding", "utf-16-le", data=data)
    assert message.startswith("batchproxy: <stdin>:3: no UTF-16-LE: b'\\x00\\xd8' at byte ")


def test_bytes_that_shift(functions: Functions) -> None:
    """Where bytes of ASCII can be no text, too, they are the failure of their row all the same."""
    data = "あ\nb\n".encode("iso2022_jp") + b"\x1b$Bzzz\xff\nd\n"
    done = upper("-", "--encoding", "iso2022_jp", "--on-error", "skip", data=data, status=3)
    assert functions.sent == ["あ", "b", "d"]
    assert done.stdout_bytes == "あ\nB\nD\n".encode("iso2022_jp")
    options = ("--encoding", "iso2022_jp", "--input-format", "json")
    data = b'["a",\n"\x1b$B$"\x1b(B\x1b$Bzzz\xff\n"]'
    assert said("-", *options, data=data).startswith("batchproxy: <stdin>:2: no ISO2022_JP: ")


def test_names_of_new_fields(functions: Functions) -> None:
    """In JSON they are escaped where the encoding cannot say them; they are text."""
    name = written("in.jsonl", '{"t": "a"}\n{}\n')
    options = ("--field", "t", "--on-error", "record", "--encoding", "latin-1")
    done = upper(name, *options, "--into", "r€", "--error-field", "e€", status=3)
    assert done.stdout.splitlines() == [
        '{"t": "a", "r\\u20ac": "A"}',
        '{"r\\u20ac": null, "e\\u20ac": "in.jsonl:2: no member \'t\'; there are "}',
    ]
    for option in ("--into", "--error-field"):
        message = said(name, *options, option, "\udcff", status=2)
        assert f"{option} is no text that UTF-8 can say: '\\udcff'" in message


# --- Rows that say which columns there are ---


def test_malformed_rows_name_no_columns(functions: Functions) -> None:
    """The first row that is not malformed says which columns there are; the others keep theirs."""
    data = '5\n{"x": 1}\n{"\\ud800": 1, "t": "z"}\n{"t": "a", "n": 1}\n{"n": 2}\n'
    name = written("in.jsonl", data)
    line = (name, "--field", "t", "--on-error")
    for form in ("csv", "tsv"):
        done = upper(*line, "skip", "--output-format", form, status=3)
        assert done.stdout.replace("\t", ",") == "t,n,result\na,1,A\n"
    done = upper(*line, "record", "--output-format", "csv", status=3)
    table = list(csv.DictReader(done.stdout.splitlines()))
    cells = [(row["t"], row["n"], row["result"]) for row in table]
    assert cells == [*[("", "", "")] * 3, ("a", "1", "A"), ("", "2", "")]
    assert "in.jsonl:3: a name that is no text that UTF-8 can say" in table[2]["error"]
    assert functions.sent == ["a"] * 3
    pq = pytest.importorskip("pyarrow.parquet")
    upper(*line, "skip", "-o", "out.parquet", status=3)
    assert pq.read_table("out.parquet").to_pylist() == [{"t": "a", "n": 1, "result": "A"}]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_windows_of_malformed_rows(functions: Functions, windows_of: Any, form: str) -> None:
    """Those of one wait for the first that says which columns there are; two are refused."""
    pq = pytest.importorskip("pyarrow.parquet") if form == "parquet" else None
    windows_of(2)

    def outcome(rows: str, on_error: str) -> list[tuple[Any, ...]]:
        name = written("in.jsonl", rows)
        upper(name, "--field", "t", "--on-error", on_error, "-o", f"out.{form}", status=3)
        if pq is not None:
            table = pq.read_table("out.parquet").to_pylist()
        else:
            table = list(csv.DictReader(Path("out.csv").read_text("utf-8").splitlines()))
        return [(row.get("t") or None, row["result"] or None) for row in table]

    assert outcome('5\n6\n{"t": "a"}\n', "record") == [(None, None)] * 2 + [("a", "A")]
    assert outcome("5\n6\n", "record") == [(None, None)] * 2
    assert outcome('5\n6\n7\n8\n{"t": "a"}\n', "skip") == [("a", "A")]
    functions.batches.clear()
    name = written("in.jsonl", '5\n6\n7\n8\n{"t": "a"}\n')
    message = said(name, "--field", "t", "--on-error", "record", "-o", f"out.{form}")
    assert message.startswith("batchproxy: no row so far says which columns there are")
    assert functions.sent == []


def test_fields_without_a_column(functions: Functions) -> None:
    """The format of the output has no place for them, in a dry run as in a run."""
    name = written("in.jsonl", '{"t": "a"}\n{"t": "b", "n": 1}\n')
    line = (name, "--field", "t", "--output-format", "csv")
    for dry in ([], ["--dry-run"]):
        assert said(*line, *dry).startswith("batchproxy: in.jsonl:2: no column for 'n'")
    done = upper(*line, "--dry-run", "--on-error", "skip", status=3).stdout
    assert done == "2 rows, 1 distinct\n1 would be computed in 1 call\n1 malformed row\n"
    assert functions.sent == []
    head, good, bad = upper(*line, "--on-error", "record", status=3).stdout.splitlines()
    assert (head, good) == ("t,result,error", "a,A,")
    assert bad.startswith(",,in.jsonl:2: no column for 'n'")


def test_fields_that_nobody_reads() -> None:
    """From CSV to CSV goes the text of a record, and rows have nothing beside it in memory."""
    text, names = (
        Text("in.csv", "in.csv", io.BytesIO(b"a,t\n1,x\n1\n"), None),
        Names("t", "r", None),
    )
    reader = DelimitedReader(text, names, Dialect(","))
    make_writer(io.BytesIO(), "csv", names, reader, same=True)
    assert [(row.item, row.fields) for row in reader] == [("x", None), (None, None)]


# --- Other contents than the name says ---


@pytest.mark.parametrize("form", ["in.csv", "in.jsonl", "in.txt", "in.json"])
@pytest.mark.parametrize(
    ("ending", "what"), [(".gz", "gzip"), (".bz2", "bzip2"), (".xz", "xz"), (".GZ", "gzip")]
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_mislabelled_compression(
    functions: Functions, form: str, ending: str, what: str, dry: list[str]
) -> None:
    """What is not compressed, empty, cut short or followed by something else is said so."""
    data = {"in.jsonl": b'{"t": "a"}\n', "in.json": b'[{"t": "a"}]'}.get(form, b"t\na\n" * 1000)
    pack = {"gzip": gzip, "bzip2": bz2, "xz": lzma}[what].compress
    packed = pack(data)
    name, field = form + ending, [] if form == "in.txt" else ["--field", "t"]
    message = said(written(name, data), *field, *dry)
    assert message.startswith(f"batchproxy: {name} is not {what}, as its name says: it begins with")
    assert message.endswith("; rename it")
    assert said(written(name, b""), *field, *dry).endswith(": it is empty; rename it")
    for broken in (packed[:-9], packed + b"garbage", packed[:20]):
        message = said(written(name, broken), *field, *dry)
        assert message.startswith(f"batchproxy: {name} cannot be read any further: ")
    assert functions.sent == []
    upper(written(name, packed + pack(b"" if form == "in.json" else data)), *field, *dry)
    message = said(written(form, packed), *field, *dry)
    assert message.startswith(f"batchproxy: {form} is compressed, with {what}: name it .")
    assert f"or pipe it: {'bzip2' if what == 'bzip2' else what} -dc FILE" in message


@pytest.mark.parametrize(
    ("begins", "what"),
    [
        (b"PK\x03\x04\x14\0\6\0", "a ZIP archive, such as .xlsx and .ods are"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.xls)"),
        (b"PAR1\x15\x04\x15", "Parquet, which is not text: give --input-format parquet"),
        (b"ARROW1\0\0", "Arrow (Feather)"),
        (b"Obj\x01\x04", "Avro"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x28\xb5\x2f\xfd\4", "compressed, with Zstandard: pipe it: zstd -dc FILE"),
    ],
)
def test_what_is_no_text(functions: Functions, begins: bytes, what: str) -> None:
    """It is recognised by how it begins, also from a pipe."""
    assert f"<stdin> is {what}" in said("-", data=begins + b"\n" * 100)
    assert f"in.csv is {what}" in said(written("in.csv", begins), "--field", "city")
    assert functions.sent == []


# --- JSON ---


def test_a_json_array(functions: Functions) -> None:
    """Its elements are the rows; they keep their text, and come out as an array."""
    data = '\ufeff[ \n {"city" : "A", "n": 1.0e5},\n\n {"city": "B",\n  "x": []} ]\n'
    name = written("in.json", data)
    done = upper(name, "--field", "city").stdout
    assert done == (
        '\ufeff[\n{"city" : "A", "n": 1.0e5, "result": "A"},\n'
        '{"city": "B",\n  "x": [], "result": "B"}\n]\n'
    )
    out = upper(name, "--field", "city", "-o", "out.jsonl")
    assert Path("out.jsonl").read_text().splitlines() == [
        '{"city": "A", "n": 100000.0, "result": "A"}',
        '{"city": "B", "x": [], "result": "B"}',
    ]
    upper("out.jsonl", "--field", "city", "--into", "n", "-o", "out.json")
    assert [row["n"] for row in json.loads(Path("out.json").read_text())] == ["A", "B"]
    assert upper(written("in.json", " [ ]\n")).stdout == out.stdout + "[]\n"
    assert upper(written("in.json", "[1,\n[2]]")).stdout == (
        '[\n{"item": 1, "result": "1"},\n{"item": [2], "result": "[2]"}\n]\n'
    )
    assert upper(written("a.csv", "t\nb\n"), "--field", "t", "--output-format", "json").stdout == (
        '[\n{"t": "b", "result": "B"}\n]\n'
    )


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        ("", 1, "expected an array, which begins with [, got the end; for JSON Lines, a value on"),
        ('{"a": 1}\n{"a": 2}\n', 1, "expected an array, which begins with [, got '{'; for JSON"),
        ("[1,\n2", 2, "expected , or ] after an element, got the end"),
        ("[1,\n2 3]", 2, "expected , or ] after an element, got '3'"),
        ("[1,\n]", 2, "no JSON: Expecting value"),
        ('[1,\n{"a": x,\n' + " " * 100 + "1}]", 2, "no JSON: Expecting value"),
        ('[{"a":\n"b]', 2, "no JSON: Unterminated string starting at"),
        ("[1]\n,", 2, "expected nothing after the array, got ','"),
        ("[1,\n" + "9" * 5000 + "]", 2, "it has an integer of more than 4,300 digits; m"),
        ("[1,\n" + "[" * 200_000, 2, "it has lists or objects nested too deep; fl"),
    ],
)
def test_malformed_arrays(functions: Functions, data: str, line: int, message: str) -> None:
    """It is said where, and nothing of that window is sent: where the next begins nobody knows."""
    found = said(written("in.json", data), "--on-error", "skip")
    assert found.startswith(f"batchproxy: in.json:{line}: {message}")
    assert functions.sent == []


def test_an_array_in_json_lines(functions: Functions) -> None:
    """Both ways of writing one say what to give."""
    for data in ('[\n{"t": 1}\n]\n', '[{"t": 1}]\n'):
        message = said(written("in.jsonl", data), "--field", "t")
        assert message.endswith("; if the whole file is one array, give --input-format json")


class Pieces:
    """A text that comes in pieces."""

    name = "input"

    def __init__(self, text: str, size: int) -> None:
        self._text, self._size = text, size
        self.taken = 0

    def pieces(self) -> Iterator[str]:
        for place in range(0, len(self._text), self._size):
            self.taken += 1
            yield self._text[place : place + self._size]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text('a"\\\n\ud800é')),
    lambda parts: st.one_of(st.lists(parts), st.dictionaries(st.text(max_size=2), parts)),
    max_leaves=5,
)


@given(st.lists(json_values), st.sampled_from([None, 1]), st.integers(1, 30), st.booleans())
def test_arrays_in_pieces(
    elements: list[Any], indent: int | None, size: int, ascii_only: bool
) -> None:
    """However an array is cut, its elements are those that json.loads gives."""
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
    reader = JsonReader(Pieces(text, size), Names(None, "result", None))  # type: ignore[arg-type] # as good as one
    rows = list(reader)
    assert [repr(row.item) for row in rows] == [repr(each) for each in json.loads(text)]
    lines = text.split("\n")
    for row, element in zip(rows, elements) if indent else ():
        assert lines[row.line - 1][1] == json.dumps(element)[0]


def test_an_unclosed_text_in_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of the file is read to find it."""
    monkeypatch.setattr("batchproxy.cli._json._LONGEST", 100)
    text = Pieces('["a' + "x" * 100_000, 10)
    with pytest.raises(BadInput, match="Unterminated string"):
        list(JsonReader(text, Names(None, "result", None)))  # type: ignore[arg-type] # as above
    assert text.taken < 100


def test_nested_fields(functions: Functions) -> None:
    """A path goes into objects; a member of that very name comes first, then longer names."""
    one = '{"a": {"b": "one"}}\n'
    two = '{"a.b": "two", "a": {"b": "x"}}\n{"a": {"b": "x"}, "a.b": "three"}\n'
    upper(written("in.jsonl", one + two), "--field", "a.b")
    assert functions.sent == ["one", "two", "three"]
    deep = '{"a": {"b.c": {"d": "four"}, "b": {"c": 1}}}\n{"a": null}\n'
    upper(written("in.jsonl", deep), "--field", "a.b.c.d")
    assert functions.sent[3:] == ["four"]
    for row in ('{"a": 1}', '{"a": {"c": 1}}', '{"b": 1}', '{".b": 1}'):
        message = said(written("in.jsonl", row), "--field", "a.b")
        assert "no member 'a.b'; there are " in message


def test_json_that_json_has_not(functions: Functions) -> None:
    """NaN beside the result is null in another format, and stays what it is in the same."""
    row = b'{"t": "a", "n": NaN, "m": [Infinity]}\n'
    options = ("-", "--field", "t", "--input-format", "jsonl")
    assert b'"n": NaN, "m": [Infinity], "result"' in upper(*options, data=row).stdout_bytes
    done = upper(*options, "--output-format", "csv", data=row)
    assert done.stdout == 't,n,m,result\na,,"[""Infinity""]",A\n'
    surrogate = b'{"t": "a", "n": "\\ud800"}\n'
    message = said(*options, "--output-format", "csv", data=surrogate)
    assert message.startswith("batchproxy: <stdin>:1: column 'n' is no text that UTF-8 can say")
    assert functions.sent == ["a", "a"]


# --- Missing values, and NumPy's ---


@pytest.mark.parametrize("missing", ["send", "default", "skip"])
@pytest.mark.parametrize(
    ("form", "data", "sent"),
    [
        ("csv", 't\na\n""\n', {"send": ["a", ""], "default": ["a", ""], "skip": ["a"]}),
        ("lines", "a\n\n", {"send": ["a", ""], "default": ["a", ""], "skip": ["a"]}),
        (
            "jsonl",
            '{"t": "a"}\n{"t": null}\n{"t": NaN}\n{"t": ""}\n',
            {"send": ["a", "None", "nan", ""], "default": ["a", ""], "skip": ["a", ""]},
        ),
    ],
)
def test_missing_values(
    functions: Functions, form: str, data: str, sent: dict[str, list[str]], missing: str
) -> None:
    """Null and NaN are not sent unless asked for; empty cells are, unless that is asked for."""
    functions.answers = {"": "EMPTY"}
    options = ["--input-format", form, *(["--field", "t"] if form != "lines" else [])]
    options += ["--missing", missing] if missing != "default" else []
    done = upper("-", *options, data=data.encode())
    assert [str(item) for item in functions.sent] == sent[missing]
    lines = [line for line in done.stdout.splitlines() if line != "t,result"]
    assert len(lines) == len(sent["send"])
    assert [line for line in lines if line.endswith(("null", " null}", '"",'))] == [
        *(line for line, item in zip(lines, sent["send"]) if item not in sent[missing])
    ]


def test_missing_values_are_counted(functions: Functions) -> None:
    """In the summary and in a dry run they are neither computed, nor saved, nor failed."""
    line = ("map", "functions:same", written("in.jsonl", "1\nnull\n1\nnull\nNaN\n"))
    done = call(*line).stderr
    assert "5 rows, 1 distinct" in done
    assert "1 computed in 1 call\n" in done
    assert "1 call saved" in done
    assert "3 rows without a value, not sent" in done
    assert "failed" not in done
    dry = call(*line, "--dry-run").stdout
    assert "1 distinct" in dry
    assert "3 rows without a value, not sent" in dry


def test_numpy(functions: Functions) -> None:
    """Numbers and arrays are plain, in lists and dicts, too, with a store or without."""
    numpy = pytest.importorskip("numpy")
    result = {
        "score": numpy.float32(0.5),
        "list": [numpy.int64(3), {"deep": numpy.arange(2)}],
        "no": numpy.bool_(False),
        "objects": numpy.array([numpy.int8(1), None], dtype=object),
    }
    plain = {"score": 0.5, "list": [3, {"deep": [0, 1]}], "no": False, "objects": [1, None]}
    functions.answers = {"a": result, "b": numpy.float32(1.5), "c": numpy.arange(2)}
    line = (written("in.csv", "t\na\nb\nc\n"), "--field", "t")
    for store in ((), STORE, STORE):
        done = upper(*line, "--output-format", "jsonl", *store).stdout
        assert [json.loads(row)["result"] for row in done.splitlines()] == [plain, 1.5, [0, 1]]
    assert len(functions.sent) == 6
    answers: list[tuple[Any, Any]] = [
        ({item: [numpy.int8(1)] for item in "abc"}, [1]),
        (numpy.array(["2026-01-02"] * 3, "datetime64[D]"), "2026-01-02"),
        (numpy.array(["2026-01-02"] * 3, "datetime64[ns]"), "2026-01-02T00:00:00.000000000"),
        (numpy.array([["NaT"]] * 3, "datetime64[us]"), [None]),
        (numpy.ones((3, 2), "float32"), [1.0, 1.0]),
    ]
    for answer, plain in answers:
        functions.upper = lambda items, answer=answer: answer  # type: ignore[misc,method-assign] # for this once
        done = upper(*line, "--output-format", "jsonl").stdout
        assert [json.loads(row)["result"] for row in done.splitlines()] == [plain] * 3
        text = plain if isinstance(plain, str) else json.dumps(plain)
        rows = csv.reader(upper(*line).stdout.splitlines()[1:])
        assert [row[1] for row in rows] == [text] * 3
