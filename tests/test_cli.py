"""The command: what it prints, what it computes and keeps, how it ends.

Where it matters that it is a process, it is one: signals, exit statuses, pipes. Functions that hang
do so for ever, after they have said so; nothing waits for a length of time.
"""

import errno
import gzip
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_tools import STORE, Functions, batchproxy, call, python
from command_tools import directory as directory
from command_tools import functions as functions
from command_tools import windows_of as windows_of
from tools import FREE_THREADED

from batchproxy import BatchingMapProxy, Cache
from batchproxy.cli import _cache, _distinct, _interrupts
from batchproxy.codecs import PickleCodec
from batchproxy.stores import SQLiteStore

posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def mapped(name: str, *arguments: object, data: bytes | None = None, status: int = 0) -> str:
    """What `batchproxy map functions:NAME` prints, or what it says if it is to fail altogether."""
    done = call("map", f"functions:{name}", *arguments, data=data, status=status)
    return done.stderr if status == 1 else done.stdout


# --- What it computes, and keeps ---


def test_each_item_once(functions: Functions) -> None:
    """Distinct items go out in full batches; every row has its result; the summary adds up."""
    line = ("map", "functions:upper", "-", "--batch-size", 2)
    done = call(*line, data=b"a\nb\na\nc\na\n")
    assert done.stdout == "A\nB\nA\nC\nA\n"
    assert functions.batches == [["a", "b"], ["c"]]
    first, computed, saved, kept = done.stderr.splitlines()
    assert first.startswith("batchproxy: 5 rows, 3 distinct, in ")
    assert computed == "batchproxy: 3 computed in 2 calls"
    assert saved == "batchproxy: 3 calls saved, compared with one per row"
    assert kept.startswith("batchproxy: results were not kept")


@pytest.mark.parametrize("function", ["upper", "upper_async"])
@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=pytest.mark.needs_trio)])
def test_the_second_run_computes_nothing(functions: Functions, function: str, backend: str) -> None:
    """Results are in the store; the summary says so. (Both kinds of functions, both backends.)"""
    Path("in.txt").write_text("a\nb\na\n")
    line = ("map", f"functions:{function}", "in.txt", "-o", "out.txt", *STORE, "--backend", backend)
    assert "2 computed in 1 call, 0 hits in results.db" in call(*line).stderr
    assert Path("out.txt").read_text() == "A\nB\nA\n"
    Path("out.txt").unlink()
    done = call(*line)
    assert "0 computed in 0 calls, 2 hits in results.db" in done.stderr
    assert "3 calls saved" in done.stderr
    assert "not kept" not in done.stderr
    assert Path("out.txt").read_text() == "A\nB\nA\n"
    assert functions.batches == [["a", "b"]]


def test_the_store_is_that_of_the_library(functions: Functions) -> None:
    """What the command computed a proxy finds, and the other way round, if items are texts."""
    mapped("upper", "-", *STORE, data=b"a\n")
    with SQLiteStore("results.db") as store:
        proxy = BatchingMapProxy[str, str](cache=Cache(store=store, namespace="n"))
        assert proxy.map(["a", "b"], functions.upper) == ["A", "B"]
    assert mapped("upper", "-", *STORE, data=b"b\n") == "B\n"
    assert functions.batches == [["a"], ["b"]]


def test_windows_share_what_was_computed(functions: Functions, windows_of: Any) -> None:
    """What a window has computed a later one does not, also without a --store."""
    windows_of(2)
    assert mapped("upper", "-", data=b"a\nb\na\nc\nb\n") == "A\nB\nA\nC\nB\n"
    assert functions.batches == [["a", "b"], ["c"]]


def test_answers_by_item(functions: Functions) -> None:
    """A mapping is by item, of whatever type; one that lacks an item is a failure that names it."""
    lines = ("-", "--input-format", "jsonl")
    rows = '{"item": 1, "result": "1"}\n{"item": 2, "result": "2"}\n'
    for name in ("by_item", "by_item_async"):
        assert mapped(name, *lines, data=b"1\n2\n") == rows
    functions.by_item = lambda items: {}  # type: ignore[method-assign] # for this once
    failed = mapped("by_item", *lines, data=b"1\n", status=1)
    assert "AnswerValueError: the function answered with a mapping that lacks 1 of" in failed


def test_limit(functions: Functions) -> None:
    """Only so many rows are read, mapped and written."""
    assert mapped("upper", "-", "--limit", 2, data=b"a\nb\nc\n") == "A\nB\n"
    assert mapped("upper", "-", "--limit", 0, data=b"a\n") == ""


def test_fields_and_formats(functions: Functions) -> None:
    """Endings and options say what is read, where results go, and what is written."""
    Path("in.csv.gz").write_bytes(gzip.compress(b"id,t\r\n1,a\r\n"))
    line = ("upper", "in.csv.gz", "--field", "t")
    mapped(*line, "--into", "T", "-o", "out.csv")
    assert Path("out.csv").read_bytes() == b"id,t,T\r\n1,a,A\r\n"
    mapped(*line, "-o", "out.jsonl")
    assert Path("out.jsonl").read_text() == '{"id": "1", "t": "a", "result": "A"}\n'
    assert mapped(*line, "--output-format", "lines") == "A\n"


def test_parquet(functions: Functions, windows_of: Any) -> None:
    """It is read and written, a row group for every window."""
    pq = pytest.importorskip("pyarrow.parquet")
    windows_of(2)
    mapped("upper", "-", "-o", "out.parquet", data=b"a\nb\nc\n")
    rows = [{"item": item, "result": item.upper()} for item in "abc"]
    assert pq.read_table("out.parquet").to_pylist() == rows
    assert pq.ParquetFile("out.parquet").num_row_groups == 2
    done = call("map", "functions:upper", "out.parquet", "--field", "item", "-o", "again.jsonl")
    assert "3 computed in 2 calls" in done.stderr
    assert [json.loads(line) for line in Path("again.jsonl").read_text().splitlines()] == rows


def test_what_the_function_prints(functions: Functions) -> None:
    """It is no part of an output on standard output, and stays where it was otherwise."""
    done = call("map", "functions:same", "-", data=b"a\n")
    assert done.stdout == "a\n"
    assert done.stderr.startswith("by the way\n")
    assert mapped("same", "-", "-o", "o", data=b"a\n") == "by the way\n"


# --- Dry runs ---


def test_dry_run(functions: Functions, windows_of: Any) -> None:
    """It says what would be computed, computes nothing, and makes no file."""

    def dry(*options: object) -> list[str]:
        return mapped(
            "upper", "-", *options, "--dry-run", data=b"a\nb\na\nc\nd\ne\na\n"
        ).splitlines()

    rows = "7 rows, 5 distinct"
    two = (*STORE, "--batch-size", 2)
    assert dry(*two) == [rows, "0 are in results.db, 5 would be computed in 3 calls"]
    assert list(Path().iterdir()) == []
    mapped("upper", "-", *STORE, data=b"b\nc\n")
    assert dry(*two) == [rows, "2 are in results.db, 3 would be computed in 2 calls"]
    windows_of(2)
    assert dry() == [rows, "5 would be computed in 3 calls"]
    assert functions.batches == [["b", "c"]]


# --- Errors ---


def test_a_batch_that_fails(functions: Functions) -> None:
    """The run ends, says why and how to resume, and leaves no output; what was done is kept."""
    Path("in.txt").write_text("a\nall\nb\n")
    line = ("refuse", "in.txt", "-o", "out.txt", *STORE, "--batch-size", 1)
    assert mapped(*line, status=1) == (
        "batchproxy: in.txt:2: ValueError: not this batch\n"
        "batchproxy: --traceback shows where it was raised\n"
        "batchproxy: finished batches are in results.db; to resume, run the same command again\n"
    )
    assert not Path("out.txt").exists()
    assert not list(Path().glob(".batchproxy-*"))
    functions.refuse = functions.upper  # type: ignore[method-assign] # it was repaired
    mapped(*line)
    assert Path("out.txt").read_text() == "a\nALL\nB\n"
    assert functions.batches == [["a"], ["all"], ["all"], ["b"]]


def test_a_batch_that_fails_without_a_store(functions: Functions) -> None:
    """It is said that nothing was kept; where it failed is shown on demand."""
    failed = mapped("refuse", "-", "--traceback", data=b"all\n", status=1)
    assert failed.startswith("Traceback (most recent call last):\n")
    assert 'raise ValueError("not this batch")' in failed
    assert failed.endswith(
        "batchproxy: nothing was kept; with --store FILE --namespace TEXT the same command, run "
        "again, goes on where it ended\n"
    )


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [
        ("in.csv", b"t\na\n", b'"open\n'),
        ("in.json", b'[{"t": "a"}', b", x]"),
        ("in.csv.gz", gzip.compress(b"t\na\n" + b"\n" * 20, mtime=0), b"\x1f\x8b"),
    ],
)
def test_an_input_that_cannot_be_read_any_further(
    functions: Functions, windows_of: Any, name: str, begins: bytes, ends: bytes
) -> None:
    """Like a row that is malformed, it says how to resume what has begun."""
    windows_of(1)
    Path(name).write_bytes(begins + ends)
    line = ("upper", name, "--field", "t", "--output-format", "jsonl")
    _, resume = mapped(*line, status=1).splitlines()
    assert resume.startswith("batchproxy: nothing was kept; with --store FILE --namespace TEXT")
    assert functions.batches == [["a"]]
    Path(name).write_bytes(b"t\n" + ends)
    assert len(mapped(*line, status=1).splitlines()) == 1


def test_rows_that_are_skipped(functions: Functions) -> None:
    """They are not in the output; they are counted, and the exit status tells."""
    line = ("map", "functions:refuse", "-", "--batch-size", 2, "--on-error", "skip")
    done = call(*line, data=b"a\nx1\nb\nall\n", status=3)
    assert done.stdout == "a\n"
    assert "batchproxy: 3 rows failed\n" in done.stderr
    assert "batchproxy: 0 calls saved, compared with one per row\n" in done.stderr
    rows = ("map", "functions:upper", "-", "--input-format", "jsonl", "--on-error", "skip")
    done = call(*rows, data=b"1\n1\n1\nno\n2\nno\n", status=3)
    assert "batchproxy: 3 calls saved, compared with one per row\n" in done.stderr


def test_rows_that_are_recorded(functions: Functions) -> None:
    """Every row is in the output, failed ones with their error, malformed ones with their line."""
    Path("in.csv").write_text("id,t\n1,a\n2,x\n3\n")
    line = ("refuse", "in.csv", "--field", "t", "--on-error", "record")
    assert mapped(*line, "--error-field", "e", status=3) == (
        "id,t,result,e\n1,a,a,\n2,x,,KeyError: 'x'\n,,,\"in.csv:4: 1 columns, expected 2\"\n"
    )
    assert mapped(*line, "-o", "out.jsonl", status=3) == ""
    rows = map(json.loads, Path("out.jsonl").read_text().splitlines())
    errors = [None, "KeyError: 'x'", "in.csv:4: 1 columns, expected 2"]
    assert [row.get("error") for row in rows] == errors


def test_a_malformed_row(functions: Functions) -> None:
    """It is reported with file and line, before anything of its window is computed.

    In a dry run malformed rows end it or are counted, as they would be in a run.
    """
    Path("in.jsonl").write_text('{"t": "a"}\n{"u": "b"}\n')
    line = ("upper", "in.jsonl", "--field", "t")
    for dry in ([], ["--dry-run"]):
        failed = call("map", "functions:upper", *line[1:], *dry, status=1)
        assert failed.stderr.startswith("batchproxy: in.jsonl:2: no member 't'; there are 'u'\n")
        assert failed.stdout == ""
    skipped = mapped(*line, "--dry-run", "--on-error", "skip", status=3)
    assert skipped.endswith("1 would be computed in 1 call\n1 malformed row\n")
    assert functions.batches == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_an_output_that_cannot_be_written(functions: Functions) -> None:
    """A full disk ends the run; results are in the store."""
    failed = mapped("upper", "-", "-o", "/dev/full", *STORE, data=b"a\n", status=1)
    assert "batchproxy: /dev/full cannot be written: " in failed
    assert "finished batches are in results.db" in failed


# --- Arguments ---

PRINTABLE = "--namespace must be text that can be printed, of 1,000 characters at most"
FILES = {
    "here.py": "def plain(items): return items",
    "inside.py": "from . import here",
    "broken.py": "1 / 0",
    "leaving.py": "raise SystemExit(5)",
    "lacking.py": "import what_nobody_has",
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("upper -", "or FILE.py:NAME, got 'upper'"),
        ("functions: -", "must be PACKAGE.MODULE:NAME"),
        ("here.py -", "must be PACKAGE.MODULE:NAME, such as geo.places:locate, or FILE.py:NAME"),
        ("functionz:upper -", "there is no module 'functionz', neither in"),
        ("functions.deeper:upper -", "there is no module 'functions.deeper'"),
        ("nowhere.py:f -", "there is no file 'nowhere.py'"),
        ("functions:plain_walue -", "has no 'plain_walue'; did you mean plain_value?"),
        ("here.py:plane -", "'here.py' has no 'plane'; did you mean plain"),
        ("functions:qqqqqq -", "'functions' has no 'qqqqqq'\n"),
        ("functions:upper.name -", "'functions:upper' has no 'name'"),
        ("functions:plain_value -", "is of type 'int', expected a function from a list of"),
        ("inside.py:f -", "give a module of a package as PACKAGE.MODULE:FUNCTION"),
        ("broken:f -", "importing 'broken' failed: ZeroDivisionError: division by zero"),
        ("broken.py:f -", "importing 'broken.py' failed: ZeroDivisionError: division by zero"),
        ("leaving:f -", "importing 'leaving' failed: SystemExit: 5"),
        ("leaving.py:f -", "importing 'leaving.py' failed: SystemExit: 5"),
        ("lacking:f -", "importing 'lacking' failed: ModuleNotFoundError: No module named"),
        ("lacking.py:f -", "importing 'lacking.py' failed: ModuleNotFoundError: No module named"),
        ("functions:upper nowhere", "the input cannot be opened"),
        ("functions:upper nowhere --dry-run", "the input cannot be opened"),
        ("functions:upper - -o no/where", "the output cannot be written"),
        ("functions:upper - --store s", "the function, the model and the version of"),
        ("functions:upper - --store s --namespace ''", "needs --namespace"),
        ("functions:upper - --namespace n", "give --store FILE as well"),
        ("functions:upper - --store x://y --namespace n", "or a URL of redis://"),
        ("functions:upper - --store no/s --namespace n", "cannot be opened"),
        ("functions:upper - --store no/s --namespace n --dry-run", "cannot be opened"),
        ("functions:upper - --field t", "leave --field out, or give --input-format csv, or what"),
        ("functions:upper . --field t", "the input '.' is a directory: give a file"),
        ("functions:upper - --store :memory: --namespace n", "/DB, got ':memory:'"),
        ("functions:upper - --on-error record", "no place for errors"),
        ("functions:upper - --input-format parquet", "from standard input"),
        ("functions:upper - --output-format parquet", "to standard output"),
        ("functions:upper in.zst", "zstd -dc in.zst | batchproxy map ... -"),
        ("functions:upper - --batch-size 0", "--batch-size"),
        (f"functions:upper - --limit {2**63}", "--limit must be 9223372036854775807"),
        (f"functions:upper - --batch-size {2**63}", "--batch-size must be 92233720368"),
        ("functions:upper - --store s --namespace 'a\n' --dry-run", PRINTABLE),
        ("functions:upper - --store '' --namespace n --dry-run", "or postgresql://HOST/DB, got ''"),
        ("functions:upper a.csv --on-error record --into error", "and --into are both 'error'"),
        ("functions:upper a.csv --into ''", "--into must be the name of a field, got ''"),
        ("functions:upper a.csv --on-error record --error-field ''", "--error-field must be the"),
        ("functions:upper a.csv --error-field e", "--error-field is for --on-error record: give"),
    ],
)
def test_wrong_arguments(functions: Functions, line: str, said: str) -> None:
    """What is wrong is said, with the remedy; the status is 2, and no file is made."""
    for name, script in FILES.items():
        Path(name).write_text(f"{script}\n")
    failed = call("map", *shlex.split(line), data=b"a\n", status=2)
    assert said in " ".join(failed.stderr.split()) + "\n"
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == FILES.keys()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_where_an_import_fails(directory: Path, dry: list[str]) -> None:
    """It is shown on demand; that an argument names nothing has no place in code."""
    Path("broken.py").write_text("1 / 0\n")
    line = ("map", "broken.py:f", "-", *dry)
    assert "Traceback" not in call(*line, status=2).stderr
    failed = call(*line, "--traceback", status=2).stderr
    assert failed.startswith("Traceback (most recent call last):\n")
    assert 'broken.py", line 1, in <module>' in failed
    assert "importing 'broken.py' failed: ZeroDivisionError: division by zero" in failed
    assert "Traceback" not in call("map", "no:f", *line[2:], "--traceback", status=2).stderr


@pytest.mark.parametrize(
    ("extra", "line"), [("trio", "- --backend trio"), ("parquet", "in.parquet -o out.parquet")]
)
def test_an_extra_that_is_not_there(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, extra: str, line: str
) -> None:
    """It is said how to install it."""
    if extra == "trio":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "batchproxy.cli._parquet", raising=False)
    Path("in.parquet").write_bytes(b"")
    failed = call("map", "functions:upper", *line.split(), data=b"", status=2)
    assert f"pip install 'batchproxy[{extra}]'" in failed.stderr


@pytest.mark.parametrize("missing", ["click", "tqdm"])
def test_without_the_extra(missing: str) -> None:
    """It is said how to install it, and the status is 2; another error stays one."""
    script = f"import sys; sys.modules[{missing!r}] = None; from batchproxy.cli import main; main()"
    done = python("-c", script)
    remedy = f"batchproxy: the command needs {missing}: pip install 'batchproxy[cli]'\n"
    assert (done.returncode, done.stderr) == (2, remedy)
    done = python("-c", script.replace(repr(missing), "'difflib'"))
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_distinct_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many keys it only says that there are more."""
    monkeypatch.setattr(_distinct, "_MOST", 2)
    distinct = _distinct.Distinct()
    distinct.add(["a", "b", "a"])
    assert str(distinct) == "2"
    distinct.add(["c", "d"])
    distinct.add(["e"])
    assert str(distinct) == "more than 2"
    assert len(distinct._seen) == 4


def test_distinct_numbers(functions: Functions) -> None:
    """Those of which Python has one hash are told apart, in the summary as in a dry run."""
    rows = b"-1\n-2\n0\n2305843009213693951\n"
    line = ("map", "functions:by_item", "-", "--input-format", "jsonl")
    assert "4 rows, 4 distinct" in call(*line, data=rows).stderr
    assert "4 rows, 4 distinct" in call(*line, "--dry-run", data=rows).stdout


# --- Interrupts that tests cannot time ---


def test_a_second_signal() -> None:
    """It changes nothing: the first one is being obeyed, and the last words are said once."""
    said: list[str] = []
    interrupts = _interrupts.Interrupts(lambda: said.append("bye"))
    with pytest.raises(KeyboardInterrupt):
        interrupts._handle(signal.SIGINT, None)
    interrupts._handle(signal.SIGTERM, None)
    assert interrupts.status == 130
    interrupts.end()
    interrupts.end()
    assert said == ["bye"]


def test_a_signal_when_the_terminal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words are for nobody, which is no error: the process ends with its status."""

    class Closed(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.EIO, "Input/output error")

    interrupts = _interrupts.Interrupts(lambda: None)
    monkeypatch.setattr(sys, "stderr", Closed())
    interrupts.end()


@posix
def test_a_signal_in_another_process() -> None:
    """There it is obeyed as if nothing had been installed."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with _interrupts.Interrupts(lambda: None) as interrupts:
            interrupts._process += 1
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


# --- The store ---


@pytest.fixture
def filled(functions: Functions) -> None:
    """There are two values in a namespace of the store, and one in another."""
    mapped("upper", "-", *STORE, data=b"a\nb\n")
    mapped("upper", "-", *STORE[:3], "other", data=b"a\n")


def test_cache_info(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces with the number and size of their values, and the size of a file, if it is one."""
    head, first, second, size = call("cache", "info", *STORE[:2]).stdout.splitlines()
    assert head.split() == ["namespace", "values", "bytes"]
    assert first.split()[:2] == ["n", "2"]
    assert second.split()[:2] == ["other", "1"]
    assert size.startswith("results.db: ")
    monkeypatch.setattr(_cache, "open_store", lambda path, create: SQLiteStore("results.db"))
    assert len(call("cache", "info", "--store", "redis://there").stdout.splitlines()) == 3


def test_cache_export(functions: Functions) -> None:
    """A line for each value; those of codecs that were named, as they are."""
    mapped("upper", "-", *STORE, data=b"a\n")
    with SQLiteStore("results.db") as store:
        cache = Cache[Any](store=store, namespace="p", codec=PickleCodec())
        BatchingMapProxy[str, Any](cache=cache).map(["a"], lambda items: [{1}])
    plain, pickled = map(json.loads, call("cache", "export", *STORE[:2]).stdout.splitlines())
    assert (plain["namespace"], plain["value"], len(plain["key"])) == ("n", "A", 40)
    assert (pickled["namespace"], pickled["codec"]) == ("p", "k")
    assert pickled["key"] == plain["key"]
    call("cache", "export", *STORE, "-o", "out.jsonl")
    assert json.loads(Path("out.jsonl").read_text()) == plain
    refused = call("cache", "export", *STORE[:3], "nn", "-o", "out.jsonl", status=2)
    assert "'results.db' has no namespace 'nn'" in refused.stderr
    assert json.loads(Path("out.jsonl").read_text()) == plain


def test_cache_clear(filled: None) -> None:
    """It asks, deletes a namespace or all, and says how many."""
    line = ("cache", "clear", *STORE)
    refused = " ".join(call(*line, status=2).stderr.split())
    assert "2 values of namespace 'n' would be deleted, and there is nobody to ask" in refused
    assert call(*line, "--yes").stdout == "2 values deleted\n"
    assert "'results.db' has no namespace 'n'" in call(*line, "--yes", status=2).stderr
    assert call(*line[:4], "--all", "--yes").stdout == "1 value deleted\n"
    for both in ([], ["--all", "--namespace", "n"]):
        failed = call(*line[:4], *both, status=2)
        assert "give either --namespace TEXT or --all" in failed.stderr


def test_cache_clear_asks(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal it goes by the answer."""
    monkeypatch.setattr(
        "click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False
    )
    line = ("cache", "clear", *STORE[:2], "--all")
    asked = call(*line, data=b"n\n", status=1).stdout
    assert "Delete 3 values of all namespaces in results.db?" in asked
    assert call(*line, data=b"y\n").stdout.endswith("3 values deleted\n")


@pytest.mark.parametrize("line", ["info", "export", "clear --all --yes"])
def test_a_store_that_is_not_there(directory: Path, line: str) -> None:
    """It is an error, and none is made; that of a server has a reason."""
    failed = call("cache", *line.split(), "--store", "nowhere.db", status=2)
    assert "there is no store 'nowhere.db'" in failed.stderr
    assert list(Path().iterdir()) == []
    failed = call("cache", *line.split(), "--store", "redis://127.0.0.1:1/0", status=2)
    assert "the store 'redis://127.0.0.1:1/0' cannot be opened" in failed.stderr


# --- Processes ---

_MODULE = """
import os, signal, sys, threading, time
def log(items):
    with open("log.txt", "a") as file:
        print(*items, file=file)
def upper(items):
    log(items)
    return [item.upper() for item in items]
def say(items):
    log(items)
    if "hang" in items and not os.path.exists("repaired"):
        print("hanging", file=sys.stderr, flush=True)
        return True
def hang(items):
    if say(items):
        threading.Event().wait()
    return [item.upper() for item in items]
def hang_and_catch(items):
    hangs = say(items)
    while hangs:
        try:
            threading.Event().wait()
        except BaseException:
            pass
    return [item.upper() for item in items]
async def block(items):
    if say(items):
        threading.Event().wait()
    return [item.upper() for item in items]
async def wait(items):
    import anyio
    if say(items):
        await anyio.sleep_forever()
    return [item.upper() for item in items]
def send(items):
    signal.raise_signal(signal.SIGINT)
    return items
def same(items):
    return items
"""


@pytest.fixture
def processes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are functions in the current directory; temporary files go there, too."""
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    if path := os.environ.get("PYTHONPATH"):
        absolute = (str(Path(__file__).parent.parent / each) for each in path.split(":"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(absolute))
    Path("functions_here.py").write_text(_MODULE)


def ended(process: subprocess.Popen[str]) -> bool:
    """Whether it ends in the next seconds, long before it would say how far it has come."""
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        return False
    return True


def interrupted(number: int, *arguments: object) -> tuple[int, str]:
    """Send the command a signal once its function hangs: its exit status, and what it said.

    In a free-threaded build a signal that comes when the main thread begins to wait for a lock is
    not noticed before the next one.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "batchproxy", "map", "--quiet", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "hanging\n"
        process.send_signal(number)
        while FREE_THREADED and not ended(process):
            process.send_signal(number)
        _, said = process.communicate(timeout=40)
    return process.returncode, said


@posix
@pytest.mark.parametrize(
    ("function", "more"),
    [
        ("hang", ""),
        ("hang", "--max-concurrency 1"),
        ("hang_and_catch", ""),
        ("wait", "--max-concurrency 1"),
        ("block", "--max-concurrency 1"),
        pytest.param("wait", "--max-concurrency 1 --backend trio", marks=pytest.mark.needs_trio),
    ],
)
def test_interrupt(processes: None, function: str, more: str) -> None:
    """Ctrl-C ends it whatever the function does; another run computes only what is missing."""
    Path("in.txt").write_text("a\nhang\nb\n")
    line = ["in.txt", "-o", "out.txt", *STORE, "--batch-size", "1", *more.split()]
    status, said = interrupted(signal.SIGINT, f"functions_here:{function}", *line)
    assert status == 130
    assert said == (
        "batchproxy: interrupted; finished batches are in results.db; to resume, run the same "
        "command again\n"
    )
    assert not [*Path().glob("out.txt*"), *Path().glob(".batchproxy-*")]
    assert Path("log.txt").read_text() == "a\nhang\n"
    if function not in ("hang_and_catch", "block"):  # the claims of these stand for ten seconds
        Path("repaired").touch()
        done = batchproxy("map", f"functions_here:{function}", *line)
        assert (done.returncode, done.stdout) == (0, "")
        assert "2 computed in 2 calls, 1 hit in results.db" in done.stderr
        assert Path("log.txt").read_text() == "a\nhang\nhang\nb\n"
        assert Path("out.txt").read_text() == "A\nHANG\nB\n"


@posix
@pytest.mark.parametrize(
    ("function", "name"), [("hang", "SIGTERM"), ("block", "SIGTERM"), ("hang", "SIGHUP")]
)
def test_terminate(processes: None, function: str, name: str) -> None:
    """SIGTERM likewise; without a store nothing is left of the run, and that is said."""
    number = getattr(signal, name)
    Path("in.txt").write_text("hang\n")
    status, said = interrupted(number, f"functions_here:{function}", "in.txt", "-o", "out")
    assert status == 128 + number
    assert said.startswith("batchproxy: interrupted; nothing was kept; with --store FILE")
    assert sorted(os.listdir()) == ["functions_here.py", "in.txt", "log.txt"]


@posix
@pytest.mark.parametrize(
    ("line", "method", "name"),
    [
        ("cache info", "usage", "SIGINT"),
        ("cache clear --all --yes", "usage", "SIGINT"),
        ("cache export -o out.jsonl", "scan", "SIGTERM"),
        ("cache export", "scan", "SIGHUP"),
        ("map functions_here:upper in.txt --namespace n --dry-run", "get_many", "SIGINT"),
    ],
)
def test_all_commands_end(processes: None, line: str, method: str, name: str) -> None:
    """The signals end what is no run as well, with their status and a line; no file is left."""
    Path("in.txt").write_text("a\n")
    with SQLiteStore("results.db") as store:
        store.set_many("n", {b"k" * 20: b"tv"}, None)
    before = sorted(os.listdir())
    script = f"""
import os, signal
from batchproxy import cli, stores
stores.SQLiteStore.{method} = lambda *arguments: os.kill(os.getpid(), signal.{name})
cli.main()
"""
    done = python("-c", script, *line.split(), *STORE[:2])
    assert (done.stdout, done.stderr) == ("", "batchproxy: interrupted\n")
    assert done.returncode == 128 + getattr(signal, name)
    assert [each for each in sorted(os.listdir()) if "results.db-" not in each] == before


@posix
def test_a_child_of_the_function(processes: None) -> None:
    """What the function forks ends by a signal as it would, and says nothing of the run."""
    Path("in.txt").write_text("SIGINT\nSIGTERM\nSIGHUP\n")
    Path("forking.py").write_text("""
import os, signal
def end(items):
    return [fork(getattr(signal, item)) for item in items]
def fork(number):
    child = os.fork()
    if not child:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:  # as of a Python that has not been told otherwise
            os._exit(200 if number == signal.SIGINT else 201)
        os._exit(202)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
""")
    done = python("-W", "ignore", "-m", "batchproxy", "map", "forking:end", "in.txt", "-q")
    assert (done.stdout, done.stderr) == (f"200\n{-signal.SIGTERM}\n{-signal.SIGHUP}\n", "")


@posix
def test_a_signal_that_is_ignored(processes: None) -> None:
    """A child of nohup does not mind Ctrl-C."""
    script = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from batchproxy.cli import main
main()
"""
    done = python("-c", script, "map", "functions_here:send", "-", "-q", data="a\n")
    assert (done.stdout, done.stderr, done.returncode) == ("a\n", "", 0)


@posix
def test_killed(processes: None) -> None:
    """A kill leaves a file of a documented name; what was stored is there."""
    Path("in.txt").write_text("a\nhang\n")
    line = ["functions_here:hang", "in.txt", "-o", "out.txt", *STORE, "--batch-size", "1"]
    status, _ = interrupted(signal.SIGKILL, *line)
    assert status == -signal.SIGKILL
    assert len(list(Path().glob(".batchproxy-*.part"))) == 1
    with SQLiteStore("results.db") as store:
        assert store.usage()["n"].values == 1
