"""The command: standard streams that are closed, and texts that they cannot say."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_tools import STORE, call, shell
from command_tools import directory as directory

from batchproxy.stores import SQLiteStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell as POSIX has it")

FUNCTIONS = """
import os
def upper(items):
    print("by the way")
    return [item.upper() for item in items]
def fail(items):
    raise ValueError("\\x1b[31mred\\ud800\\né")
def write(items):
    os.write(1, b"by the way")
    return items
def record(items):
    return [ValueError("\\x1b[31mred\\ud800 é")]
"""


@pytest.fixture(autouse=True)
def given(directory: Path) -> None:
    """There are functions and an input in the current directory."""
    Path("fn.py").write_text(FUNCTIONS)
    Path("in.txt").write_text("a\n")


@pytest.mark.parametrize(
    ("line", "status", "printed", "said"),
    [
        ("map fn.py:upper - <&-", 2, b"", b"standard input is closed: give a file, or < FILE"),
        ("map fn.py:upper in.txt >&-", 2, b"", b"standard output is closed; give -o FILE"),
        ("map fn.py:upper in.txt --dry-run >&-", 2, b"", b"standard output is closed"),
        ("map fn.py:upper in.txt -o out.txt -q <&- >&-", 0, b"", b""),
        ("map fn.py:upper in.txt 2>&-", 0, b"A\n", b""),
        ("map fn.py:fail in.txt --traceback 2>&-", 1, b"", b""),
        ("map fn.py:upper in.txt -o out.txt <&- >&- 2>&-", 0, b"", b""),
        ("map fn.py:write in.txt -o out.txt -q <&- 2>&-", 0, b"by the way", b""),
        ("cache info --store s.db >&-", 2, b"", b"standard output is closed"),
        ("cache export --store s.db >&-", 2, b"", b"standard output is closed"),
        ("cache clear --store s.db --all >&-", 2, b"", b"standard output is closed"),
        ("cache clear --store s.db --all <&-", 2, b"", b"there is nobody to ask"),
    ],
)
def test_closed_streams(line: str, status: int, printed: bytes, said: bytes) -> None:
    """It is said where it can be, and never with a traceback; no file takes their place."""
    with SQLiteStore("s.db") as store:
        store.set_many("n", {b"k" * 20: b"tv"}, None)
    done = shell(f"batchproxy {line}")
    assert (done.returncode, done.stdout) == (status, printed)
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)
    if "out.txt" in line:
        assert Path("out.txt").read_text() == ("a\n" if "write" in line else "A\n")


def test_whatever_namespaces_are_called() -> None:
    """They are shown escaped and cut, and exported as they are."""
    names = ("\x1b]0;pwned\x07\x1b[31m", "a\nb", "é/:%", "x" * 100_000, "\ud800")
    with SQLiteStore("old.db") as store:
        for name in names:
            store.set_many(name, {b"k" * 20: b"tv"}, None)
    for locale in ("C.UTF-8", "C"):
        utf8 = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        shown = shell("batchproxy cache info --store old.db", **utf8)
        exported = shell("batchproxy cache export --store old.db", **utf8)
        for done, lines in ((shown, len(names) + 2), (exported, len(names))):
            assert (done.returncode, done.stderr) == (0, b"")
            assert len(done.stdout.splitlines()) == lines
            assert b"\x1b" not in done.stdout
        assert len(shown.stdout) < 3000
        assert rb"\x1b]0;pwned\x07" in shown.stdout
    line = ("cache", "clear", "--store", "old.db", "--namespace", names[0])
    assert "\x1b" not in call(*line, status=2).stderr
    call(*line, "--yes")


@pytest.mark.parametrize("more", [[], ["--traceback"]])
def test_what_exceptions_say(more: list[str]) -> None:
    """It is escaped, on one line; a traceback has lines of its own."""
    failed = call("map", "fn.py:fail", "in.txt", *more, status=1).stderr
    assert "\x1b" not in failed
    assert r"ValueError: \x1b[31mred\ud800\n" in failed
    assert ("Traceback" in failed) == bool(more)


def test_what_is_recorded() -> None:
    """A row with an error that UTF-8 cannot say is written, in every format."""
    for kind in ("csv", "jsonl", *(["parquet"] if find_spec("pyarrow") else [])):
        line = ("map", "fn.py:record", "in.txt", "--on-error", "record", "-o", f"o.{kind}")
        call(*line, status=3)
    assert r"red\ud800 é" in Path("o.csv").read_text()


def test_names_of_files() -> None:
    """They are escaped in messages, of the command and of its library of arguments."""
    name = "\x1b[31m\udcff"
    for line in (
        ("map", "fn.py:upper", name),
        ("map", "fn.py:upper", "in.txt", "-o", f"{name}/o"),
        ("map", f"{name}:f", "in.txt"),
        ("map", f"{name}.py:f", "in.txt"),
        ("map", f"fn.py:{name}", "in.txt"),
        ("map", "fn.py:upper", "in.txt", "--store", f"{name}/s", "--namespace", "n"),
        ("map", "fn.py:upper", "in.txt", name),
        ("map", "fn.py:upper", "in.txt", f"--{name}"),
        ("map", "fn.py:upper", "in.txt", "--batch-size", name),
        ("cache", name),
        ("cache", "info", "--store", name),
    ):
        said = call(*line, status=2).output
        assert "\x1b" not in said, line
        assert r"\x1b[31m" in said, line
    line = ("map", "fn.py:upper", "in.txt", "--store", f"{name}.db", *STORE[2:])
    for _ in range(2):
        assert r"in \x1b[31m\udcff.db" in call(*line).stderr
