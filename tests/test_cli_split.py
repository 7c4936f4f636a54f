"""The command: functions that refuse batches, and batches by weight."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="the command needs the extra cli")

from command_tools import STORE, call

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

def plain(items):
    calls.append(items)
    return [str(item).upper() for item in items]

def stars(item):
    return item.count("*")

def negative(item):
    return item == "*" or -1

def same(item):
    return item == "*" or item

def huge(item):
    return item == "*" or 10**5000

def failing(item):
    return item == "*" or {}[item]
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


# --- Weights ---


def test_the_weight_of_an_item_is_its_characters(folder: Path) -> None:
    """Unless told otherwise; of what is no text, those of its JSON."""
    Path("words.txt").write_text("\n".join(["one", "two", "three", "four", "é", "seventeen"]))
    call("map", "refusing.py:plain", "words.txt", "--max-weight", 8, "-q")
    assert calls_of_functions() == [["one", "two"], ["three"], ["four", "é"], ["seventeen"]]
    Path("values.jsonl").write_text('[1, 2]\n{"a": 1}\n12345\n"12"\n')
    call("map", "refusing.py:plain", "values.jsonl", "--max-weight", 14, "-q")
    assert calls_of_functions() == [[[1, 2], {"a": 1}], [12345, "12"]]


def test_the_weight_is_what_a_function_says(folder: Path) -> None:
    """Beside the size of a batch; `--dry-run` says how many calls that makes."""
    items = ["*", "**", "no", "*?", "**", "***", "no!"]
    Path("words.txt").write_text("\n".join(items))
    weight = ("--max-weight", 3, "--weight", "refusing.py:stars", "--batch-size", 3)
    result = call("map", "refusing.py:plain", "words.txt", *weight, "--dry-run")
    assert "6 would be computed in 3 calls" in result.output
    call("map", "refusing.py:plain", "words.txt", *weight, "-q")
    assert calls_of_functions() == [["*", "**", "no"], ["*?"], ["***", "no!"]]
    result = call("map", "refusing.py:plain", "words.txt", "--batch-size", 4, "--dry-run")
    assert "6 would be computed in 2 calls" in result.output


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--on-error", "skip")])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("negative", "gave -1 for 'a': a weight is a number of 0 or more"),
        ("same", "gave 'a' for 'a': a weight is a number of 0 or more"),
        ("huge", "gave <an int of 16,610 bits> for 'a': a weight is a number of 0 or more"),
        ("failing", "failed for 'a': KeyError: 'a'"),
    ],
)
def test_what_is_no_weight_ends_the_run(
    folder: Path, more: tuple[str, ...], function: str, message: str
) -> None:
    """It says of which function, item and row it is; what came before is not lost."""
    Path("words.txt").write_text("*\na\na\n")
    weight = ("--max-weight", 3, "--weight", f"refusing.py:{function}", *more)
    result = call("map", "refusing.py:plain", "words.txt", *weight, status=1)
    assert f"batchproxy: words.txt:2: --weight refusing.py:{function} {message}" in result.output
    assert calls_of_functions() == ([] if "--dry-run" in more else [["*"]])
    shown = call("map", "refusing.py:plain", "words.txt", *weight, "--traceback", status=1)
    assert ("in failing\n" in shown.output) == (function == "failing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weight", "refusing.py:stars"), "--weight needs --max-weight N"),
        (("--max-weight", 0), "0.0 is not in the range x>0"),
        (("--max-weight", "nan"), "--max-weight must be a number of 1e308 at most, got nan"),
        (("--max-weight", "1e400"), "--max-weight must be a number of 1e308 at most, got inf"),
        (("--max-weight", 1, "--weight", "refusing.py:starts"), "did you mean stars"),
        (("--max-weight", 1, "--weight", "stars"), "--weight must be PACKAGE.MODULE:NAME"),
        (("--max-weight", 1, "--weight", "weights.py:w", "-o", "weights.py"), "weights.py"),
    ],
)
def test_options_of_weights_that_are_refused(
    folder: Path, arguments: tuple[object, ...], message: str
) -> None:
    """With what to write instead."""
    Path("words.txt").write_text("a\n")
    Path("weights.py").write_text("w = len\n")
    result = call("map", "refusing.py:plain", "words.txt", *arguments, status=2)
    assert message in result.output
    assert Path("weights.py").read_text() == "w = len\n"
