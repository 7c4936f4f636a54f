"""The command: functions that refuse batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="the command needs the extra cli")

from command_tools import STORE, batchproxy, call

FUNCTIONS = '''
from batchproxy import SplitBatch

calls = []

def refusing(items):
    """A service that says nothing of which item it does not like."""
    calls.append(items)
    try:
        for item in items:
            if item.startswith("bad"):
                raise ValueError(f"policy: {item}")
    except ValueError as error:
        raise SplitBatch from error
    return [item.upper() for item in items]

async def refusing_async(items):
    return refusing(items)

def without_cause(items):
    raise SplitBatch("no")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the functions are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    Path("refusing.py").write_text(FUNCTIONS)
    yield tmp_path
    calls_of_functions()


def rows_of(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def calls_of_functions() -> list[list[Any]]:
    """What they were called with in this process since the last time."""
    module = sys.modules.pop("refusing", None)
    return [] if module is None else module.calls


WORDS = ["a", "b", "bad 1", "c", "d", "e", "bad 2", "f"]


@pytest.mark.parametrize("function", ["refusing", "refusing_async"])
def test_record_names_each_refused_row(folder: Path, function: str) -> None:
    """Its neighbours have their results, and a store has those."""
    Path("words.jsonl").write_text("".join(f'{{"word": "{word}"}}\n' for word in WORDS))
    arguments = (f"refusing.py:{function}", "words.jsonl", "--field", "word", *STORE)
    call("map", *arguments, "--on-error", "record", "-o", "out.jsonl", status=3)
    assert calls_of_functions()[0] == WORDS
    assert rows_of("out.jsonl") == [
        {"word": word, "result": None, "error": f"ValueError: policy: {word}"}
        if word.startswith("bad")
        else {"word": word, "result": word.upper()}
        for word in WORDS
    ]
    call("map", *arguments, "--on-error", "skip", "-o", "out.jsonl", status=3)
    assert calls_of_functions() == [["bad 1", "bad 2"], ["bad 1"], ["bad 2"]]
    assert len(rows_of("out.jsonl")) == 6


def test_in_a_process_of_its_own(folder: Path) -> None:
    """`batchproxy.SplitBatch` in a file is all that it needs."""
    Path("words.txt").write_text("\n".join(WORDS))
    ended = batchproxy(
        *("map", "refusing.py:refusing", "words.txt", "--output-format", "csv"),
        *("--on-error", "record", "-o", "out.csv"),
    )
    assert ended.returncode == 3, ended.stderr
    assert Path("out.csv").read_text().splitlines() == [
        "item,result,error",
        *(
            f"{word},,ValueError: policy: {word}" if "bad" in word else f"{word},{word.upper()},"
            for word in WORDS
        ),
    ]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("refusing", "words.txt:3: ValueError: policy: bad 1"),
        ("without_cause", "words.txt:1: SplitBatch: no"),
    ],
)
def test_a_run_that_stops_names_the_refused_row(folder: Path, function: str, message: str) -> None:
    """And not the batch that it was in."""
    Path("words.txt").write_text("\n".join(WORDS))
    result = call("map", f"refusing.py:{function}", "words.txt", status=1)
    assert message in result.output
