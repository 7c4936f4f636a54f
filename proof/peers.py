"""What do this library and others do when things fail, are cancelled, or come in an unlucky order?

    python proof/peers.py                   print the table
    python proof/peers.py --only close      only the scenarios with this in their name, and why
    python proof/peers.py --write FOLDER    keep the table in FOLDER/peers.md

A scenario is a function that says what must hold, and asserts it; each runs once per library, in
a process of its own. "right" is a scenario that ends with nothing to object to, "wrong" one whose
assertion fails or that raises, "hangs" one that has not ended after some seconds in which it had
nothing to wait for, and a dash one for which the library has no means. Notes say why, and where the
documentation of a library rules out what the scenario does. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import importlib
import importlib.metadata
import inspect
import os
import platform
import subprocess
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

LIMIT = 6.0  # seconds until a scenario hangs; those that do not take two at most
QUIET = 0.2  # seconds after which all tasks and threads wait for something

NO_MEANS = "\N{EN DASH}"

Function = Callable[[list[Any]], Awaitable[Any]]
Scenario = Callable[["type[Library]"], "Coroutine[Any, Any, None] | None"]


# Libraries, each used as its documentation says.


class Library(ABC):
    """One object of a library: it maps lists by `function`, and remembers the results.

    `lacks` says what scenarios need that it has no means for, and why; `remarks` what there is to
    say if a scenario does not end well: mostly, that its documentation rules that use out.
    """

    distribution: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {}
    remarks: ClassVar[dict[str, str]] = {}

    def __init__(self, function: Function, **options: Any) -> None:
        self.function = function
        try:
            self.object = self.make(**options)
        except Exception:  # used wrongly, so that nothing can be said about it
            traceback.print_exc()
            os._exit(1)

    @abstractmethod
    def make(self, **options: Any) -> Any: ...

    @abstractmethod
    async def map(self, items: Iterable[Any]) -> list[Any]: ...

    @abstractmethod
    async def clear(self) -> None: ...

    async def forget(self, key: Any) -> None:
        await self.clear()

    async def close(self) -> None:
        raise NotImplementedError

    @staticmethod
    def store() -> Any:
        """Where two objects can keep their results together."""
        raise NotImplementedError


class InThreads(Library):
    """A synchronous object: a thread for each ``map()``, and `function` in the loop of all."""

    async def map(self, items: Iterable[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()

        def call(batch: list[Any]) -> Any:
            async def answer() -> Any:
                return await self.function(batch)

            return asyncio.run_coroutine_threadsafe(answer(), loop).result()

        outcome: Future[list[Any]] = Future()

        def run() -> None:
            try:
                outcome.set_result(self.object.map(items, call))
            except BaseException as error:
                outcome.set_exception(error)

        context = contextvars.copy_context()  # so that a nested map() knows what it is nested in
        threading.Thread(target=context.run, args=(run,), daemon=True).start()
        return await asyncio.wrap_future(outcome)


class BatchproxyAsync(Library):
    distribution = "batchproxy"

    def make(
        self,
        batch_size: Any = None,
        limit: int = 8,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        return AsyncBatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.map(items, self.function)
        return answers

    async def clear(self) -> None:
        await self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        await self.object.aclose()

    @staticmethod
    def store() -> Any:
        return Cache()


NO_TASKS = {
    "tasks": "A thread that waits cannot be cancelled.",
    "loop": "It needs no event loop.",
}
NO_KEY = "It takes no key function."
NO_LIMIT = "It has no limit of calls at a time."
NO_BOUND = "It has no bound: its store is a dict, or the user's."
ASKS_FOR_A_LIST = "Its documentation asks for a list, or for a sequence."


class BatchproxySync(InThreads):
    distribution = "batchproxy"
    lacks = NO_TASKS

    def make(
        self,
        batch_size: Any = None,
        limit: Any = None,
        bound: Any = None,
        key: Any = None,
        **more: Any,
    ) -> Any:
        self.cache = more.get("store", Cache(bound))
        return BatchingMapProxy[Any, Any](batch_size, limit, key=key, cache=self.cache)

    async def clear(self) -> None:
        self.object.clear()

    async def forget(self, key: Any) -> None:
        self.cache.invalidate([key])

    async def close(self) -> None:
        self.object.close()

    store = staticmethod(BatchproxyAsync.store)


NOT_WHILE_MAPPING = "Its documentation says not to call clear() while a map() is under way."
OPENAIVEC_REMARKS = {
    "twenty callers of one failing call": "Those who wait call anew, one by one: twenty calls.",
    "clear() during a map": NOT_WHILE_MAPPING,
    "a late failure and a newer entry": NOT_WHILE_MAPPING,
    "close() and the results": "Its documentation says that closing is clearing.",
    "a dict or a str as answer": ASKS_FOR_A_LIST,
    "a generator as input": ASKS_FOR_A_LIST,
}


class OpenaivecAsync(Library):
    distribution = "openaivec"
    lacks: ClassVar = {"key": NO_KEY}
    remarks = OPENAIVEC_REMARKS

    def make(self, batch_size: int = 0, limit: int = 8, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module("openaivec._cache").AsyncBatchCache(
            batch_size=batch_size,  # 0 is all in one call; None would choose by measured times
            max_concurrency=limit,
            max_cache_size=bound,
            cache=more.get("store", self.store()),
            show_progress=False,
        )

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.map(items, self.function)
        return answers

    async def clear(self) -> None:
        await self.object.clear()

    async def close(self) -> None:
        await self.object.aclose()

    @staticmethod
    def store() -> Any:
        return importlib.import_module("openaivec._cache._backend").InMemoryCacheBackend()


class OpenaivecSync(InThreads):
    distribution = "openaivec"
    lacks: ClassVar = {
        **NO_TASKS,
        "key": NO_KEY,
        "limit": NO_LIMIT,  # each thread calls
    }
    remarks = OPENAIVEC_REMARKS

    def make(self, batch_size: int = 0, bound: Any = None, **more: Any) -> Any:
        return importlib.import_module("openaivec._cache").BatchCache(
            batch_size=batch_size,
            max_cache_size=bound,
            cache=more.get("store", self.store()),
            show_progress=False,
        )

    async def clear(self) -> None:
        self.object.clear()

    async def close(self) -> None:
        self.object.close()

    store = staticmethod(OpenaivecAsync.store)


class Loader(Library):
    """The dataloaders: alike, but for the names of a few things."""

    module: ClassVar[str]
    key_option: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "close": "It has nothing to close.",
    }
    remarks: ClassVar[dict[str, str]] = {
        "a second event loop": "Its documentation says to make a loader for each request.",
        "a dict or a str as answer": ASKS_FOR_A_LIST,
    }

    def make(self, batch_size: Any = None, key: Any = None, **more: Any) -> Any:
        options: dict[str, Any] = {} if key is None else {self.key_option: key}
        if "store" in more:
            options["cache_map"] = more["store"]
        loader = importlib.import_module(self.module).DataLoader
        return loader(self.function, max_batch_size=batch_size, **options)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.object.load_many(items)
        return answers

    async def clear(self) -> None:
        self.object.clear_all()

    async def forget(self, key: Any) -> None:
        self.object.clear(key)


class Aiodataloader(Loader):
    distribution = module = "aiodataloader"
    key_option = "get_cache_key"


class Strawberry(Loader):
    distribution = "strawberry-graphql"
    module = "strawberry.dataloader"
    key_option = "cache_key_fn"


class Dloader(Loader):
    distribution = module = "dloader"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "bound": NO_BOUND,
        "key": NO_KEY,
        "newer": "clear() leaves a call under way in its place: there is never a newer entry.",
    }
    remarks: ClassVar = {
        "clear() during a map": "clear() leaves a call under way in its place, which is kept.",
        "a dict or a str as answer": ASKS_FOR_A_LIST,
    }

    async def close(self) -> None:
        await self.object.shutdown()

    @staticmethod
    def store() -> Any:
        return {}


class AsyncLru(Library):
    """A cache of single calls; a list is mapped with ``asyncio.gather``."""

    distribution = "async-lru"
    lacks: ClassVar = {
        "limit": NO_LIMIT,
        "batches": "It knows no batches.",
        "lists": "It knows no lists.",
        "close": "It cannot share its results, and refuses calls when closed.",
        "equality": "It leaves open whether 1 and 1.0 are the same, as functools.lru_cache does.",
    }

    def make(self, bound: Any = None, key: Any = None, **more: Any) -> Any:
        async def call(item: Any) -> Any:
            return (await self.function([item]))[0]

        return importlib.import_module("async_lru").alru_cache(maxsize=bound, key=key)(call)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        return await asyncio.gather(*map(self.object, items))

    async def clear(self) -> None:
        self.object.cache_clear()

    async def forget(self, key: Any) -> None:
        self.object.cache_invalidate(key)


LIBRARIES: dict[str, type[Library]] = {
    "batchproxy": BatchproxyAsync,
    "batchproxy, sync": BatchproxySync,
    "openaivec": OpenaivecAsync,
    "openaivec, sync": OpenaivecSync,
    "aiodataloader": Aiodataloader,
    "strawberry": Strawberry,
    "dloader": Dloader,
    "async-lru": AsyncLru,
}


# What the scenarios share.

SCENARIOS: dict[str, tuple[Scenario, tuple[str, ...]]] = {}


def scenario(name: str, *needs: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario under its name, with what a library must have for it."""

    def enter(function: Scenario) -> Scenario:
        SCENARIOS[name] = function, needs
        return function

    return enter


class Calls:
    """A batch function: it records its batches, and answers "ITEM", or with `versions` "ITEM.CALL".

    With `gated`, every call waits until it is let go.
    """

    def __init__(self, *, gated: bool = False, versions: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.errors: dict[int, BaseException] = {}
        self.running = self.most_running = 0
        self._gated = gated
        self._versions = versions
        self._gates: list[asyncio.Event] = []

    async def call(self, items: list[Any]) -> list[str]:
        number = len(self.batches)
        self.batches.append(list(items))
        self._gates.append(asyncio.Event())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self._gates[number].wait() if self._gated else asyncio.sleep(0))
        finally:
            self.running -= 1
        if number in self.errors:
            raise self.errors[number]
        return [f"{item}.{number}" if self._versions else str(item) for item in items]

    def finish(self, number: int) -> None:
        self._gates[number].set()

    def fail(self, number: int, error: BaseException) -> None:
        self.errors[number] = error
        self.finish(number)

    def open(self) -> None:
        """Let all calls go, those to come too."""
        self._gated = False
        for gate in self._gates:
            gate.set()


async def settle() -> None:
    """Let every task and thread run until it waits for something."""
    await asyncio.sleep(QUIET)


async def start(library: Library, items: Iterable[Any]) -> asyncio.Task[list[Any]]:
    """Start a caller, and let it come as far as it can."""
    task = asyncio.create_task(library.map(items))
    await settle()
    return task


async def outcome(task: asyncio.Task[list[Any]]) -> Any:
    """What a caller returned or raised."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


# The scenarios.


@scenario("opposite orders, and the owners fail")
async def opposite_orders(library: type[Library]) -> None:
    """Two callers want the keys of three others, in opposite orders, and those fail: all end.

    When the first has failed, "up" waits for the third, so that only "down" wants the second then.
    """
    calls = Calls(gated=True)
    subject = library(calls.call)
    booms = [ValueError(number) for number in range(3)]
    owners = [await start(subject, [key]) for key in (1, 2, 3)]
    up, down = [await start(subject, keys) for keys in ([1, 3, 2], [2, 1])]
    assert calls.batches == [[1], [2], [3]]
    for number, boom in enumerate(booms):
        calls.fail(number, boom)
        await settle()
    calls.open()
    assert [await outcome(owner) for owner in owners] == booms
    assert await outcome(up) in (*booms, ["1", "3", "2"])
    assert await outcome(down) in (*booms, ["2", "1"])


@scenario("one of two callers is cancelled", "tasks")
async def one_cancelled(library: type[Library]) -> None:
    """Of two callers who want one key either may be cancelled; the other gets its answer."""
    for cancelled in (0, 1):
        calls = Calls(gated=True)
        subject = library(calls.call)
        callers = [await start(subject, [1]) for _ in range(2)]
        callers[cancelled].cancel()
        await settle()
        calls.open()
        assert await outcome(callers[1 - cancelled]) == ["1"]


@scenario("all callers are cancelled, and one asks again", "tasks")
async def all_cancelled(library: type[Library]) -> None:
    """Whoever asks after that gets an answer, even if the old call has not ended yet."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    callers = [await start(subject, [1]) for _ in range(2)]
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    again = await start(subject, [1])
    calls.open()
    assert await outcome(again) == ["1"]


@scenario("a cancelled result is kept", "tasks")
async def cancelled_for_ever(library: type[Library]) -> None:
    """The only caller times out; when all of that is over, the key can be asked for as before."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    try:
        async with asyncio.timeout(QUIET):
            await subject.map([1])
    except TimeoutError:
        pass
    calls.open()
    await settle()
    assert await subject.map([1]) == ["1"]


@scenario("the function itself is cancelled", "tasks")
async def cancelled_inside(library: type[Library]) -> None:
    """A task that the function waits for was cancelled: its caller ends, and can ask again."""
    calls = Calls()
    calls.errors[0] = asyncio.CancelledError()
    subject = library(calls.call)
    await asyncio.wait([asyncio.create_task(subject.map([1]))])
    assert await subject.map([1]) == ["1"]


@scenario("twenty callers of one failing call")
async def twenty_callers(library: type[Library]) -> None:
    """The call is made once, and all twenty get the exception that it raised."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    callers = [asyncio.create_task(subject.map([1])) for _ in range(20)]
    await settle()
    calls.errors = {number: ValueError(number) for number in range(20)}
    calls.open()
    assert [await outcome(caller) for caller in callers] == [calls.errors[0]] * 20
    assert calls.batches == [[1]]


@scenario("a failed result is kept")
async def failed_for_ever(library: type[Library]) -> None:
    """A call that failed is made again by whoever asks later."""
    calls = Calls()
    calls.errors[0] = boom = ValueError("boom")
    subject = library(calls.call)
    assert await outcome(asyncio.create_task(subject.map([1]))) is boom
    assert await subject.map([1]) == ["1"]


@scenario("a late failure and a newer entry", "newer")
async def late_failure(library: type[Library]) -> None:
    """A call that fails after its key was forgotten leaves the newer call for that key alone."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    old = await start(subject, [1])
    await subject.forget(1)
    new = await start(subject, [1])
    assert calls.batches == [[1], [1]]
    boom = ValueError("boom")
    calls.fail(0, boom)
    assert await outcome(old) is boom
    newest = await start(subject, [1])
    calls.open()
    assert [await outcome(caller) for caller in (new, newest)] == [["1"], ["1"]]
    assert calls.batches == [[1], [1]]


@scenario("a store smaller than the list", "bound")
async def small_store(library: type[Library]) -> None:
    """The answers are complete, however few results are kept."""
    subject = library(Calls().call, batch_size=3, bound=2)
    upwards = list(range(10))
    for items in (upwards, upwards[::-1]):
        first, second = await asyncio.gather(subject.map(items), subject.map(upwards))
        assert (first, second) == ([*map(str, items)], [*map(str, upwards)])


@scenario("an entry is evicted in flight", "bound")
async def evicted(library: type[Library]) -> None:
    """A call under way is shared, whatever else goes through a small store meanwhile."""
    calls = Calls(gated=True)
    subject = library(calls.call, bound=1)
    first = await start(subject, [1])
    for number in (1, 2):
        other = await start(subject, [number + 1])
        calls.finish(number)
        assert await other == [str(number + 1)]
    second = await start(subject, [1])
    calls.open()
    assert await outcome(first) == await outcome(second) == ["1"]
    assert calls.batches == [[1], [2], [3]]


@scenario("a second event loop", "loop")
def second_loop(library: type[Library]) -> None:
    """An object is used in one `asyncio.run` and then in another, at its limit both times."""
    subjects: list[Library] = []

    async def run(first: int) -> None:
        if not subjects:
            subjects.append(library(Calls().call, limit=1))
        items = [[first + number] for number in range(5)]
        answers = await asyncio.gather(*map(subjects[0].map, items))
        assert answers == [[str(item)] for [item] in items]

    asyncio.run(run(0))
    asyncio.run(run(5))


@scenario("nested maps with all slots taken", "limit")
async def nested(library: type[Library]) -> None:
    """Calls that fill all slots may map() on the same object."""

    async def call(items: list[str]) -> list[str]:
        await settle()  # until the other slot is taken, too
        return await subject.map([item[1:] for item in items]) if items[0] else items

    subject = library(call, limit=2)
    answers = await asyncio.gather(subject.map(["ab"]), subject.map(["cd"]))
    assert list(answers) == [[""], [""]]


@scenario("200 batches of one key, 3 at a time", "limit")
async def many_batches(library: type[Library]) -> None:
    """There are never more calls at a time than the limit, and all slots are used."""
    calls = Calls()
    subject = library(calls.call, batch_size=1, limit=3)
    first, second = await asyncio.gather(
        subject.map(list(range(150))), subject.map(list(range(199, 49, -1)))
    )
    assert first == [*map(str, range(150))]
    assert second == [*map(str, range(199, 49, -1))]
    assert calls.most_running == 3
    assert sorted(calls.batches) == [[item] for item in range(200)]


@scenario("clear() during a map")
async def clear_during_map(library: type[Library]) -> None:
    """Who asked before gets the old answer, who asks after it a new one, which stays."""
    for order in ((0, 1), (1, 0)):
        calls = Calls(gated=True, versions=True)
        subject = library(calls.call)
        before = await start(subject, [1])
        await subject.clear()
        after = await start(subject, [1])
        assert calls.batches == [[1], [1]]
        for number in order:
            calls.finish(number)
            await settle()
        assert await outcome(before) == ["1.0"]
        assert await outcome(after) == ["1.1"]
        assert await subject.map([1]) == ["1.1"]


@scenario("close() and the results", "close")
async def close(library: type[Library]) -> None:
    """Closing deletes no results of another object that has the same store."""
    calls = Calls()
    store = library.store()
    one, two = (library(calls.call, store=store) for _ in range(2))
    assert await one.map([1]) == ["1"]
    await one.close()
    assert await two.map([1]) == ["1"]
    assert calls.batches == [[1]]


@scenario("a dict or a str as answer", "batches")
async def odd_answers(library: type[Library]) -> None:
    """They are understood or refused, and not taken for a sequence of results."""
    for answer in ({1: "one", 2: "two"}, "ab"):

        async def call(items: list[int], answer: Any = answer) -> Any:
            return answer

        result = await outcome(asyncio.create_task(library(call).map([1, 2])))
        assert result == ["one", "two"] or isinstance(result, TypeError | ValueError), result


@scenario("a generator as input", "lists")
async def generator(library: type[Library]) -> None:
    """It is read once, and its items are mapped; or it is refused."""
    calls = Calls()
    task = asyncio.create_task(library(calls.call).map(number for number in (1, 2, 1)))
    result = await outcome(task)
    assert result == ["1", "2", "1"] or isinstance(result, TypeError), result


@scenario("1, 1.0 and True", "equality")
async def equal_keys(library: type[Library]) -> None:
    """They are equal in Python, and one key: the first of them is asked for, once."""
    calls = Calls()
    subject = library(calls.call)
    assert await subject.map([1, 1.0, True]) == ["1"] * 3
    assert await subject.map([True]) == ["1"]
    assert calls.batches == [[1]]


@scenario("a key function that raises", "key")
async def bad_key(library: type[Library]) -> None:
    """The error arrives, and the object is as good as before."""

    async def call(items: list[dict[str, int]]) -> list[int]:
        return [item["id"] for item in items]

    subject = library(call, key=lambda item: item["id"])
    result = await outcome(await start(subject, [{"id": 1}, {}, {"id": 2}]))
    assert isinstance(result, KeyError)
    assert await subject.map([{"id": 2}, {"id": 1}]) == [2, 1]


class BadHash:
    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@scenario("an item whose hash raises")
async def bad_hash(library: type[Library]) -> None:
    """The error arrives, and the object is as good as before."""
    subject = library(Calls().call)
    result = await outcome(await start(subject, [1, BadHash(), 2]))
    assert isinstance(result, RuntimeError)
    assert await subject.map([2, 1]) == ["2", "1"]


# The table.


def judge(name: str, title: str) -> None:
    """In the child: say in a word how a scenario ends for a library."""

    def say(verdict: str) -> None:
        print(verdict, flush=True)
        os._exit(0)  # whatever still hangs

    clock = threading.Timer(LIMIT, say, ["hangs"])
    clock.daemon = True
    clock.start()
    try:
        run = SCENARIOS[name][0](LIBRARIES[title])
        if inspect.iscoroutine(run):
            asyncio.run(run)
    except BaseException:
        traceback.print_exc()
        say("wrong")
    say("right")


def verdict(name: str, title: str, *, explain: bool) -> str:
    """Run a scenario for a library in a child process."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--judge", name, title],
        stdout=subprocess.PIPE,
        stderr=None if explain else subprocess.DEVNULL,
        timeout=120,  # only if the child cannot even say that it hangs
        text=True,
        check=True,
    )
    return child.stdout.strip()


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {}
    for library in LIBRARIES.values():
        try:
            found[library.distribution] = importlib.metadata.version(library.distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def table(only: str = "") -> str:
    """The scenarios that have `only` in their names, with all libraries, in markdown."""
    here = versions()
    titles = [title for title, of in LIBRARIES.items() if of.distribution in here]
    notes: dict[str, int] = {}
    lines = [f"| scenario | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, (_, needs) in SCENARIOS.items():
        if only not in name:
            continue
        cells = []
        for title in titles:
            library = LIBRARIES[title]
            reasons = [library.lacks[need] for need in needs if need in library.lacks]
            cell = NO_MEANS if reasons else verdict(name, title, explain=bool(only))
            if cell in ("wrong", "hangs") and name in library.remarks:
                reasons = [library.remarks[name]]
            for reason in reasons:
                cell += f" [{notes.setdefault(reason, len(notes) + 1)}]"
            cells.append(cell)
            print(".", end="", file=sys.stderr, flush=True)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print(file=sys.stderr)
    lines += ["", *(f"{number}. {note}" for note, number in notes.items()), ""]
    lines.append(
        f"CPython {platform.python_version()} on {sys.platform}; "
        + ", ".join(f"{name} {version}" for name, version in here.items())
        + "."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the table there")
    parser.add_argument(
        "--only", default="", metavar="SCENARIO", help="those with this in the name"
    )
    parser.add_argument("--judge", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        judge(*arguments.judge)
    if not any(arguments.only in name for name in SCENARIOS):
        parser.error(f"no scenario has {arguments.only!r} in its name")
    if arguments.write and arguments.only:
        parser.error("--write keeps the whole table, without --only")
    result = table(arguments.only)
    print(result)
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "peers.md").write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
