"""The command: what functions may be, raise and answer."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_tools import STORE, call
from command_tools import directory as directory

from batchproxy import BatchingMapProxy, Cache
from batchproxy.cli._calls import Calls
from batchproxy.cli._results import Results
from batchproxy.codecs import MsgspecCodec, PickleCodec, PydanticCodec
from batchproxy.stores import SQLiteStore

FUNCTIONS = """
import anyio.lowlevel, asyncio, concurrent.futures, datetime, decimal, functools, os, sys, uuid
calls = []
def plain(items):
    calls.append(items)
    return [item.upper() for item in items]
async def asynchronous(items):
    calls.append(items)
    return {item: item.upper() for item in items}
@functools.wraps(asynchronous)
def traced(items):
    return asynchronous(items)
partial = functools.partial(traced)
class Model:
    def __call__(self, items):
        return asynchronous(items)
    run = __call__
model = Model()
class Later:
    def __init__(self, items):
        self.items = items
    def __await__(self):
        return asynchronous(self.items).__await__()
def later(items):
    return Later(items)
def sometimes(items):
    return plain(items) if "b" in items[0] else asynchronous(items)
@functools.wraps(asynchronous)
def synchronous(items):
    return asyncio.run(asynchronous(items))
class Refusal(BaseException):
    pass
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")
    __repr__ = __str__
ERRORS = {
    "asyncio": asyncio.CancelledError("gone"),
    "futures": concurrent.futures.CancelledError("gone"),
    "generator": GeneratorExit("gone"),
    "stop": StopIteration("gone"),
    "other": Refusal("gone"),
    "mute": Mute(),
    "exit": SystemExit("quota"),
    "interrupt": KeyboardInterrupt(),
}
def raise_(items):
    calls.append(items)
    for item in items:
        if item in ERRORS:
            raise ERRORS[item]
    return items
async def raise_async(items):
    await anyio.lowlevel.checkpoint()
    return raise_(items)
def answer(items):
    return [ERRORS.get(item, item) for item in items]
async def cancel(items):
    if "cancel" in items:
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
    return items
def types(items):
    return [{
        "date": datetime.date(2026, 1, 2),
        "when": (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),),
        "time": datetime.time(1, 2),
        "much": [decimal.Decimal("1.50"), None],
        "id": uuid.UUID(int=1),
        "n": 1,
    } for item in items]
def day(items):
    return [datetime.date(2026, 1, 2) for item in items]
deep, endless = [], []
for _ in range(3000):
    deep = [deep]
endless += [endless, endless]
BAD = {"b": object(), "c": {"c"}, "huge": 10**5000, "deep": deep, "endless": endless}
def bad(items):
    return [BAD.get(item, item) for item in items]
"""

MODELS = """
import msgspec
import pydantic
class Place(pydantic.BaseModel):
    name: str
    at: tuple[int, int] = (1, 2)
class Point(msgspec.Struct):
    name: str
def places(items):
    return [Place(name=item) for item in items]
def points(items):
    return [Point(item) for item in items]
def sets(items):
    return [(item,) for item in items]
number = 3
"""


@pytest.fixture(autouse=True)
def given(directory: Path) -> None:
    """There are functions in the current directory, of which nothing is imported yet."""
    for name in ("fn", "batchproxy_fn", "models", "batchproxy_models", "batchproxy_json"):
        sys.modules.pop(name, None)
    Path("fn.py").write_text(FUNCTIONS)


def called() -> list[list[Any]]:
    """The batches that functions were called with."""
    return sys.modules["fn"].calls  # type: ignore[no-any-return] # it is a list


# --- Where it is ---


def test_functions_in_files(tmp_path: Path) -> None:
    """A file is named by its path; it finds its neighbours, and is a module of its name.

    A function may be an attribute of something in it.
    """
    (folder := tmp_path / "deep" / "er").mkdir(parents=True)
    (folder / "neighbour_of_it.py").write_text("def f(items): return [i * 2 for i in items]\n")
    (folder / "json.py").write_text("from neighbour_of_it import f\nname = __name__\n")
    names = ["fn.py:plain", "./fn.py:plain", tmp_path / "fn.py:plain", "fn:plain", "fn:model.run"]
    for name in names:
        assert call("map", name, "-", data=b"a\n").stdout == "A\n"
    assert len(called()) == 5  # of one module
    assert call("map", "deep/er/json.py:f", "-", data=b"a\n").stdout == "aa\n"
    assert sys.modules["json"] is json  # there is one that is called so
    assert sys.modules["batchproxy_json"].name == "batchproxy_json"


# --- What it is ---


@pytest.mark.parametrize("name", ["plain", "traced", "partial", "model", "later", "synchronous"])
@pytest.mark.parametrize("threads", [[], ["--max-concurrency", "2"]], ids=["one", "two threads"])
def test_asynchronous_behind_a_wrapper(name: str, threads: list[str]) -> None:
    """It is asynchronous if what it answers with is; each item is sent once all the same."""
    line = ("map", f"fn.py:{name}", "-", "--batch-size", "1", *threads)
    done = call(*line, data=b"a\nb\na\n")
    assert done.stdout == "A\nB\nA\n"
    assert "2 computed in 2 calls" in done.stderr
    assert sorted(called()) == [["a"], ["b"]]
    assert call(*line, "--on-error", "skip", data=b"a\n").stdout == "A\n"


def test_a_function_that_is_both() -> None:
    """It may answer at once when it knows the answer; each call counts once all the same."""
    line = ("map", "fn.py:sometimes", "-", "--batch-size", "1", *STORE)
    call(*line, data=b"b\n")
    done = call(*line, data=b"b\nbc\nbd\na\n")
    assert done.stdout == "B\nBC\nBD\nA\n"
    assert "3 computed in 3 calls, 1 hit in results.db" in done.stderr


def test_a_call_that_is_collected() -> None:
    """A coroutine that nobody will run any more, as at the end of Python, is closed quietly."""

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    calls = Calls(lambda items: Never(), Cache(), Results(None), 1, None, "asyncio")
    coroutine = calls._call(["a"])
    coroutine.send(None)
    coroutine.close()


# --- What it raises ---


WORDS = {
    "asyncio": "CancelledError: gone",
    "futures": "CancelledError: gone",
    "generator": "GeneratorExit: gone",
    "stop": "gone",  # of a coroutine, Python makes a RuntimeError of it
    "other": "Refusal: gone",
    "mute": "Mute: <its str() raised RuntimeError>",
}


@pytest.mark.parametrize("function", ["raise_", "raise_async", "answer"])
@pytest.mark.parametrize("error", WORDS)
@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=pytest.mark.needs_trio)])
def test_exceptions_of_all_kinds(function: str, error: str, backend: str) -> None:
    """They fail their rows, or the run; others are mapped, then and afterwards."""
    words = WORDS[error]
    if function == "raise_async" and error == "stop":
        words = "RuntimeError: coroutine raised StopIteration"
    line = ("map", f"fn.py:{function}", "-", "--batch-size", "1", "--backend", backend)
    data = f"a\n{error}\nb\n".encode()
    record = ("--on-error", "record", "--output-format", "jsonl")
    recorded = call(*line, *record, data=data, status=3)
    rows = [json.loads(row) for row in recorded.stdout.splitlines()]
    assert [row["result"] for row in rows] == ["a", None, "b"]
    assert words in rows[1]["error"]
    failed = call(*line, data=data, status=1)
    assert failed.stderr.startswith("batchproxy: <stdin>:2: ")
    assert words in failed.stderr
    assert "--traceback shows where it was raised" in failed.stderr
    assert "Traceback" not in failed.stderr
    shown = call(*line, "--traceback", data=data, status=1).stderr
    assert ("in raise_\n" in shown) == (function != "answer")
    assert call(*line, data=b"a\n").stdout == "a\n"


@pytest.mark.parametrize("function", ["raise_", "raise_async"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("exit", "<stdin>:1: SystemExit: quota"),
        ("interrupt", "the function raised KeyboardInterrupt, without a signal"),
    ],
)
@pytest.mark.parametrize("threads", [[], ["--max-concurrency", "1"]])
def test_functions_that_end_the_run(
    function: str, error: str, words: str, threads: list[str]
) -> None:
    """Who wants to leave does, whatever --on-error says; it is said, and the status is 1."""
    line = ("map", f"fn.py:{function}", "-", "--batch-size", "1", *threads)
    for more in (["--on-error", "stop"], ["--on-error", "skip"], ["-o", "out.txt"]):
        failed = call(*line, *more, data=f"{error}\na\n".encode(), status=1)
        assert words in failed.stderr
        assert "nothing was kept" in failed.stderr
        assert failed.stdout == ""
    assert not [*Path().glob("out.txt"), *Path().glob(".batchproxy-*")]


def test_a_function_that_cancels_itself() -> None:
    """The task of a call is its own: its cancellation is a failure like others."""
    line = ("map", "fn.py:cancel", "-", "--batch-size", "1")
    done = call(*line, "--on-error", "skip", data=b"a\ncancel\nb\n", status=3)
    assert done.stdout == "a\nb\n"
    assert "CancelledError" in call(*line, data=b"a\ncancel\nb\n", status=1).stderr
    assert call(*line, data=b"a\n").stdout == "a\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("'ab'", "AnswerTypeError: the function answered with 'str', expected a list"),
        ("b'ab'", "AnswerTypeError: the function answered with 'bytes'"),
        ("None", "AnswerTypeError: the function answered with 'NoneType'"),
        ("set(items)", "AnswerTypeError: the function answered with 'set'"),
        ("Table()", "AnswerTypeError: the function answered with 'Table'"),
        ("items[1:]", "AnswerValueError: the function answered with 1 results to a batch of 2 it"),
        ("range(3)", "AnswerValueError: the function answered with 3 results to a batch of 2 item"),
        (
            "{'a': 1}",
            "AnswerValueError: the function answered with a mapping that lacks 1 of its 2",
        ),
    ],
)
def test_answers_of_a_wrong_kind(answer: str, said: str) -> None:
    """Where the call began is said, what came, and what was expected."""
    Path("wrong.py").write_text(
        "class Table(list): columns = ('a', 'b')\n"
        f"def f(items): return {answer}\nasync def g(items): return {answer}\n"
    )
    for function in ("f", "g"):
        failed = call("map", f"wrong.py:{function}", "-", data=b"a\nb\n", status=1).stderr
        assert failed.startswith(f"batchproxy: <stdin>:1 and 1 more item of its call: {said}")


def test_answers_of_other_right_kinds() -> None:
    """Anything sized and indexable, and mappings with further entries."""
    Path("right.py").write_text(
        "from collections import UserList\n"
        "def f(items): return UserList(items)\ndef g(items): return {x: x for x in 'cab'}\n"
    )
    for function in ("f", "g"):
        assert call("map", f"right.py:{function}", "-", data=b"a\nb\n").stdout == "a\nb\n"


# --- What it answers ---


def test_values_that_json_has_not(tmp_path: Path) -> None:
    """Dates, times, decimals and UUIDs are text, tuples lists; the same from the store."""
    expected = {
        "date": "2026-01-02",
        "when": ["2026-01-02T03:04:00+00:00"],
        "time": "01:02:00",
        "much": ["1.50", None],
        "id": "00000000-0000-0000-0000-000000000001",
        "n": 1,
    }
    for _ in range(2):
        jsonl = call("map", "fn.py:types", "-", *STORE, "--output-format", "jsonl", data=b"a\n")
        assert json.loads(jsonl.stdout)["result"] == expected
        csv = ("--output-format", "csv")
        done = call("map", "fn.py:day", "-", *STORE[:3], "m", *csv, data=b"a\n")
        assert done.stdout == "item,result\na,2026-01-02\n"
    pq = pytest.importorskip("pyarrow.parquet")
    call("map", "fn.py:day", "-", "-o", "out.parquet", data=b"a\n")
    assert pq.read_table("out.parquet").to_pylist() == [{"item": "a", "result": "2026-01-02"}]


def test_values_that_are_refused() -> None:
    """The message names options of the command, and nothing of the library's; others are mapped."""
    for item, words in (
        ("b", "<stdin>:2: AnswerTypeError: a result has <object object at 0x"),
        ("b", "--codec pydantic:MODULE:MODEL, --codec msgspec:MODULE:TYPE or --codec pickle\n"),
        *(
            (item, "nested more than 100 deep, or contains itself; fl")
            for item in ("deep", "endless")
        ),
        ("huge", "text, such as hex(number), for integers of thousands of digits: ValueError"),
        ("c", "<stdin>:2: AnswerTypeError: the result of 'c' cannot be stored: a result cannot be"),
        ("c", "of type 'set': use a list; or see --codec, which says how results are kept\n"),
    ):
        failed = call("map", "fn.py:bad", "-", data=f"a\n{item}\n".encode(), status=1).stderr
        assert words in failed
        assert "codec=" not in failed
    skipped = call("map", "fn.py:bad", "-", "--on-error", "skip", data=b"a\nb\nc\nd\n", status=3)
    assert skipped.stdout == "a\nd\n"
    line = ("map", "fn.py:bad", "-", "--on-error", "record", "--output-format", "jsonl")
    recorded = json.loads(call(*line, data=b"b\n", status=3).stdout)["error"]
    assert "name a codec: --codec pydantic:MODULE:MODEL" in recorded


def test_enumerations() -> None:
    """One that is text is refused, with what to write: `str` of it is not its value."""
    Path("colours.py").write_text(
        "import enum\nColour = enum.Enum('Colour', {'RED': 'red'}, type=str)\n"
        "def colours(items): return [Colour.RED for item in items]\n"
    )
    failed = call("map", "colours.py:colours", "-", data=b"a\n", status=1).stderr
    assert "a result cannot be <Colour.RED: 'red'> of type 'Colour': use value.value" in failed


# --- Codecs ---


@pytest.fixture
def models() -> None:
    for library in ("pydantic", "msgspec"):
        pytest.importorskip(library)
    Path("models.py").write_text(MODELS)


@pytest.mark.parametrize(
    ("codec", "function", "expected"),
    [
        ("pydantic:models:Place", "places", {"name": "a", "at": [1, 2]}),
        ("msgspec:models.py:Point", "points", {"name": "a"}),
        ("pickle", "sets", ["a"]),
    ],
)
def test_codecs(models: None, codec: str, function: str, expected: Any) -> None:
    """Objects are kept as the library keeps them, and written as what JSON can say."""
    line = ("map", f"models.py:{function}", "-", *STORE, "--codec", codec)
    for computed in (1, 0):
        done = call(*line, "--output-format", "jsonl", data=b"a\n")
        assert json.loads(done.stdout)["result"] == expected
        assert f"{computed} computed" in done.stderr
    module = sys.modules["models"]
    codecs = {
        "places": PydanticCodec(module.Place),
        "points": MsgspecCodec(module.Point),
        "sets": PickleCodec(),
    }
    with SQLiteStore("results.db") as store:
        cache = Cache[Any](store=store, namespace="n", codec=codecs[function])
        found = BatchingMapProxy[str, Any](cache=cache).map(["a"], lambda items: items)
        assert found == getattr(module, function)(["a"])


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("nothing", "--codec takes pydantic:MODULE:MODEL, msgspec:MODULE:TYPE or pickle, got"),
        ("pickle:fn:Model", "--codec takes"),
        ("pydantic", "--codec takes"),
        ("pydantic:models", "--codec must be PACKAGE.MODULE:NAME"),
        ("pydantic:models:Plaice", "'models' has no 'Plaice'; did you mean Place"),
        ("msgspec:models:number", "--codec msgspec:models:number: TypeError: "),
    ],
)
def test_codecs_that_are_none(models: None, codec: str, said: str) -> None:
    """What is wrong is said, before anything is computed."""
    for dry in ([], ["--dry-run"]):
        refused = call("map", "fn.py:plain", "-", "--codec", codec, *dry, data=b"a\n", status=2)
        assert said in " ".join(refused.stderr.split())
    assert called() == []


def test_what_the_output_cannot_say() -> None:
    """A result that a codec keeps, and no format has a place for, is the failure of its row."""
    failed = call("map", "fn.py:bad", "-", "--codec", "pickle", data=b"b\n", status=1)
    assert "<stdin>:1: the result has no place in the output: AnswerTypeError" in failed.stderr
    line = ("map", "fn.py:bad", "-", "--codec", "pickle", "--on-error", "skip")
    assert call(*line, data=b"huge\na\n", status=3).stdout == "a\n"


def test_a_codec_for_another_type(models: None) -> None:
    """The refusal is about the result, and fails its row."""
    line = ("map", "fn.py:plain", "-", "--codec", "msgspec:models:Point", "--on-error", "skip")
    assert call(*line, data=b"a\n", status=3).stdout == ""
