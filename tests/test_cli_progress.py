"""The command: its bar says what is true, in any terminal, and nothing tears it."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("click", reason="the command needs the extra cli")

from command_tools import batchproxy, call

from batchproxy import BatchingMapProxy, Progress
from batchproxy.cli._report import Report
from batchproxy.cli._rows import Row

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
    """As wide as `os.get_terminal_size` says."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output and error are one; there is a function that prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(
        "click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False
    )
    Path("fn.py").write_text(FUNCTIONS)
    Path("in.txt").write_text("a\nb\n")


def report(stream: io.StringIO, items: str, done: int) -> Report:
    """Of a window of these items, of which so many are done."""
    shown = Report(BatchingMapProxy[str, str]().statistics, 100, stream=stream)
    shown.begin_window([Row(line, 2, item=item) for line, item in enumerate(items, 1)], 100)
    shown.progress(Progress(done, len(items), hits=0, shared=0, calls=1, failures=0))
    return shown


def test_no_more_distinct_than_rows() -> None:
    """While a window is under way, its distinct items count as far as its rows do."""
    for done in range(9):
        stream = io.StringIO()
        report(stream, "abcabcde", done).show()
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
    stream = Terminal()
    shown = report(stream, "abcabcde", 8)
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


def test_rows_in_a_terminal(terminal: None) -> None:
    """They stand on lines of their own, too: there is no bar."""
    done = call("map", "fn.py:talk", "in.txt")
    assert done.stdout == "a\nb\n"
    assert "%|" not in done.output


def test_no_bar(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lines cannot be drawn over, or nothing is wanted, there is none."""
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
