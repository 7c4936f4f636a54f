"""The command: its bar says what is true, in any terminal, and nothing tears it."""

import dataclasses
import io
import os
import re
from pathlib import Path

import pytest
from command_tools import batchproxy, call
from command_tools import directory as directory

from batchproxy import BatchingMapProxy, Progress
from batchproxy.cli import _report
from batchproxy.cli._report import Report
from batchproxy.cli._store import Place

FUNCTIONS = """
import sys

def talk(items):
    print("one", end="")
    print(" line")
    sys.stderr.writelines(["another\\n", "and "])
    sys.stderr.write("a third\\n")
    print("10%\\r20%\\r30%", file=sys.stderr)
    print("no end", end="")
    sys.stdout.flush()
    assert sys.stdout.isatty()
    return items
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output and error are one; there is a function that prints."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(
        "click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False
    )
    Path("fn.py").write_text(FUNCTIONS)
    Path("in.txt").write_text("a\nb\n")


NOTHING = BatchingMapProxy[str, str]().statistics()
A_CALL = dataclasses.replace(NOTHING, calls=1)


def window(shown: Report, items: str, done: int, position: int = 100) -> None:
    """Rows with these items are under way, of which so many are done."""
    shown.begin_window(len(items), 0, position, list(items))
    shown.progress(Progress(done, len(items), hits=0, shared=0, calls=1, failures=0))


@pytest.mark.parametrize("total", [100, None, 0])
def test_progress_lines(total: int | None) -> None:
    """Where nobody watches, a line says how far it is; how long it takes, if that can be known."""
    stream = io.StringIO()
    shown = Report(lambda: A_CALL, total, stream=stream)
    shown.show()
    window(shown, "abab", done=2, position=40)
    shown.show()
    shown.end_window(failed=1)
    shown.show()
    start, middle, end = stream.getvalue().splitlines()
    assert start.startswith("batchproxy: 0 rows, 0 distinct, 0 hits, 1 call, 0 failed, ")
    assert middle.startswith("batchproxy: 2 rows, 1 distinct, 0 hits, 1 call, 0 failed, ")
    assert end.startswith("batchproxy: 4 rows, 2 distinct, 0 hits, 1 call, 1 failed, ")
    assert ("/s, 20 %, " in middle) == ("/s, 40 %, " in end) == bool(total)
    assert (" left" in end) == bool(total)


@pytest.mark.parametrize("total", [100, None])
def test_progress_bar(total: int | None) -> None:
    """In a terminal there is a bar, with the same; of an unknown size it is none."""
    stream = Terminal()
    shown = Report(lambda: A_CALL, total, stream=stream)
    window(shown, "ab", done=1)
    shown.show()
    shown.close()
    last = stream.getvalue().split("\r")
    assert any("1 row, 1 distinct, 0 hits, 1 call, 0 failed" in each for each in last)
    assert any(" 50%|" in each for each in last) == bool(total)


def test_quiet() -> None:
    """Nothing is shown."""
    for stream in (Terminal(), io.StringIO()):
        with Report(lambda: NOTHING, 100, stream=stream, quiet=True) as shown:
            shown.show()
            shown.summary(None)
        assert stream.getvalue() == ""


def test_progress_moves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a function takes its time, a thread shows how far it is."""
    monkeypatch.setattr(_report, "_LINE_EVERY", 0)
    shows: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str, /) -> int:
            shows.append(text)
            shown._stop.set()
            return len(text)

    shown = Report(lambda: NOTHING, None, stream=Stream())
    with shown:
        shown._thread.join()
    assert shows


def test_summary_of_work_that_others_did() -> None:
    """What other processes computed is named."""
    stream = io.StringIO()
    done = dataclasses.replace(NOTHING, shared=2, stored=1)
    Report(lambda: done, None, stream=stream).summary(Place("s.db"))
    assert "0 computed in 0 calls, 1 hit in s.db, 2 from other processes" in stream.getvalue()


@pytest.mark.parametrize("done", range(9))
def test_no_more_distinct_than_rows(done: int) -> None:
    """While a window is under way, its distinct items count as far as its rows do."""
    stream = io.StringIO()
    shown = Report(lambda: NOTHING, 100, stream=stream)
    window(shown, "abcabcde", done)
    shown.show()
    numbers = re.search(r"(\d+) rows?, (\d+) distinct", stream.getvalue())
    assert numbers is not None
    assert int(numbers[1]) >= int(numbers[2])
    assert numbers.groups() == ("8", "5") or done < 8


@pytest.mark.parametrize(
    ("columns", "failed", "counts"),
    [
        (120, 0, ", 8 rows, 5 distinct, 0 hits, 0 calls, 0 failed, 0/s"),
        (74, 0, ", 8 rows, 5 distinct, 0 hits, 0 calls, 0/s"),
        (55, 0, ", 8 rows, 0 hits, 0 calls"),
        (55, 3, ", 8 rows, 0 calls, 3 failed"),
        (45, 3, ", 8 rows, 3 failed"),
        (38, 0, ", 8 rows"),
        (25, 3, ""),
    ],
)
def test_narrow_terminals(
    monkeypatch: pytest.MonkeyPatch, columns: int, failed: int, counts: str
) -> None:
    """What is done and what failed is shown before all else, on one line."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    monkeypatch.setattr(Terminal, "fileno", lambda self: 2)
    stream = Terminal()
    shown = Report(lambda: NOTHING, 100, stream=stream)
    window(shown, "abcabcde", done=8)
    shown.failed = failed
    shown._start -= 100_000  # so that the rate is 0
    shown.show()
    last = stream.getvalue().split("\r")[-1]
    shown.close()
    assert re.fullmatch(rf"100%\|#+\| [0-9:]+ left{counts}", last)
    assert len(last) <= columns


def test_what_functions_print(terminal: None) -> None:
    """It stands on lines of its own, whole, above the bar; of a bar of theirs, the last state."""
    done = call("map", "fn.py:talk", "in.txt", "-o", "out.txt")
    assert "%|" in done.stderr
    assert "\x1b" not in done.output
    lines = [re.split("\r", line)[-1].strip() for line in done.output.split("\n")]
    for line in ("one line", "another", "and a third", "30%", "no end"):
        assert line in lines, done.output
    assert done.stdout == "one line\nno end\n"


def test_no_bar(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows or nothing are to be seen, or lines cannot be drawn over, there is none."""
    done = call("map", "fn.py:talk", "in.txt")
    assert done.stdout == "a\nb\n"
    assert "%|" not in done.output
    assert "%|" not in call("map", "fn.py:talk", "in.txt", "-o", "out.txt", "-q").output
    monkeypatch.setenv("TERM", "dumb")
    done = call("map", "fn.py:talk", "in.txt", "-o", "out.txt")
    assert "%|" not in done.output
    assert "batchproxy: 2 rows, 2 distinct" in done.stderr


def test_shell_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are completed where files are meant."""
    for words, place in (("map f.py:f in", 3), ("map f.py:f i -o in", 5), ("map --store in", 3)):
        monkeypatch.setenv("COMP_WORDS", f"batchproxy {words}")
        monkeypatch.setenv("COMP_CWORD", str(place))
        monkeypatch.setenv("_BATCHPROXY_COMPLETE", "bash_complete")
        assert batchproxy().stdout == "file,in\n"
