"""The command reads and writes through a stream: in windows, of which few are in memory."""

import csv
import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from command_tools import STORE, Functions, call, said, upper, written
from command_tools import directory as directory
from command_tools import functions as functions
from command_tools import windows_of as windows_of

from batchproxy.cli import _passage, _text


@pytest.fixture(autouse=True)
def windows_of_four(windows_of: Any) -> None:
    """Unless a test says otherwise."""
    windows_of(4)


def test_batches_are_full_across_windows(functions: Functions) -> None:
    """What does not fill a batch waits for the rows of the next window."""
    data = "".join(f"{item}\n" for item in "abcdefghijk").encode()
    assert upper("-", "--batch-size", 3, data=data).stdout == data.decode().upper()
    assert [len(batch) for batch in functions.batches] == [3, 3, 3, 2]


def test_rows_without_an_item_fill_no_window(functions: Functions) -> None:
    """They are written in their place, beside rows of other windows that wait."""
    items = ["a", *[None] * 9, "b", None, "c", "d", None]
    data = "".join(f"{json.dumps({'t': item})}\n" for item in items).encode()
    line = ("-", "--input-format", "jsonl", "--field", "t", "--batch-size", 2)
    rows = [json.loads(line) for line in upper(*line, data=data).stdout.splitlines()]
    assert rows == [{"t": item, "result": item and item.upper()} for item in items]
    assert functions.batches == [["a", "b"], ["c", "d"]]


def test_few_windows_are_in_memory(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a row waits for its batch, and so many windows wait behind it, the batch goes out."""
    monkeypatch.setattr(_passage, "_MOST_WINDOWS", 3)
    lines = ["a", *["", "", "", ""] * 6, "b", "c"]
    data = b"item,x\n" + "".join(f"{line},\n" for line in lines).encode()
    done = upper("-", "--input-format", "csv", "--field", "item", "--missing", "skip", data=data)
    assert functions.batches == [["a"], ["b", "c"]]
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["result"] for row in rows] == [line.upper() for line in lines]


def test_what_is_known_is_not_asked_for_again(
    functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small results are kept as far as there is room; others are asked for in the store."""
    data = "".join(f"{item}\n" for item in "abcd" * 3).encode()
    line = ("map", "functions:upper", "-", *STORE)
    call(*line, data=data)
    assert "0 computed in 0 calls, 4 hits" in call(*line, data=data).stderr
    monkeypatch.setattr(_passage, "_ROOM", 0)
    assert "0 computed in 0 calls, 12 hits" in call(*line, data=data).stderr
    assert functions.batches == [["a", "b", "c", "d"]]


def test_a_malformed_row_of_a_later_window(functions: Functions) -> None:
    """Rows of windows before are mapped, nothing of its own is sent."""
    data = b"".join(b'{"t": "%c"}\n' % letter for letter in b"abcdef") + b"[\n" + b'{"t": "z"}\n'
    message = said("-", "--input-format", "jsonl", "--field", "t", "--batch-size", 3, data=data)
    assert message.startswith("batchproxy: <stdin>:7: no JSON")
    assert functions.batches == [["a", "b", "c"], ["d"]]


def test_a_malformed_row_whose_item_is_known(functions: Functions) -> None:
    """It is malformed all the same, and its neighbours are not."""
    data = b"id,t\n" + b"1,a\n" * 8 + b"\xff,a\n2,a\n"
    line = ("-", "--input-format", "csv", "--field", "t", "--on-error", "record")
    done = upper(*line, data=data, status=3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["result"] for row in rows] == [*["A"] * 8, "", "A"]
    assert rows[8]["error"].startswith("<stdin>:10: no UTF-8: ")
    assert functions.batches == [["a"]]


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("piece", [1, 30, 2**13])
def test_csv_of_all_kinds(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, windows_of: Any, piece: int
) -> None:
    """Whether lines are taken at once or one by one, rows are those that the parser sees."""
    monkeypatch.setattr(_text, "_PIECE", piece)
    windows_of(5)
    fields = ["a", "b", 'say "x"', "two\nlines", "c,d", "é", "", "long " * 20]
    for seed in range(30):
        chance = random.Random(seed)
        end = chance.choice(["\n", "\r\n"])
        plain = chance.random() < 0.5
        text = f"id,t{end}"
        expected = []
        for number in range(chance.randrange(20)):
            field = chance.choice(fields[:2] if plain else fields)
            out = io.StringIO()
            csv.writer(out, lineterminator=chance.choice([end, end, end, "\n"])).writerow(
                [number, field]
            )
            text += out.getvalue() + end * (chance.random() < 0.1)
            expected.append([str(number), field, field.upper()])
        if chance.random() < 0.3:
            text = text.rstrip("\r\n")
        error = ["--on-error", "record"] if chance.random() < 0.5 else []
        upper(written("in.csv", text), "--field", "t", *error, "-o", "out.csv")
        found = [row for row in rows_of(Path("out.csv").read_bytes().decode()) if row]
        assert [row[:3] for row in found[1:]] == expected, (seed, text)
        upper("in.csv", "--field", "t", "-o", "out.jsonl")
        assert len(Path("out.jsonl").read_bytes().splitlines()) == len(expected)


@pytest.mark.parametrize("piece", [8, 2**13])
def test_bytes_that_are_no_text(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Only their rows are malformed, and each is named by its line."""
    monkeypatch.setattr(_text, "_PIECE", piece)
    data = b"id,t\n1,a\n2,\xff\n3,b\n4,c\n5\n6,d\n7,\xfe\n8,e\n"
    done = upper(
        "-", "--input-format", "csv", "--field", "t", "--on-error", "record", data=data, status=3
    )
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["result"] for row in rows] == ["A", "", "B", "C", "", "D", "", "E"]
    assert [row["error"].split(":")[1] for row in rows if row["error"]] == ["3", "6", "8"]


def test_results_that_need_quotes_or_have_no_place(functions: Functions) -> None:
    """Where a window cannot be written at once it is written row by row."""
    functions.answers = {"a": 'x,"y"', "b": "\ud800", "c": None, "d": 5}
    data = b"id,t\n1,a\n2,b\n3,c\n4,d\n"
    line = ("-", "--input-format", "csv", "--field", "t", "--on-error", "record")
    done = upper(*line, data=data, status=3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["result"] for row in rows] == ['x,"y"', "", "", "5"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False]


def test_memory_is_flat(functions: Functions, windows_of: Any) -> None:
    """However many rows there are, few are in memory."""
    windows_of(500)

    def most(rows: int) -> int:
        written("in.csv", "id,t\n" + "".join(f"{n},word {n % 50}\n" for n in range(rows)))
        tracemalloc.start()
        upper("in.csv", "--field", "t", "-o", "out.csv")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    most(500)
    assert most(20_000) < most(5_000) + 500_000
