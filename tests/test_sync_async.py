"""Points 3 and 14 of the contract: asynchronous functions for the synchronous proxy.

Ctrl-C needs a process of its own: see test_processes. What such functions raise is in test_sync,
too, and what they leave to the collector in test_garbage_of_failures.
"""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from tools import Backend, Thread, both, each_way, naive, never, until

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    PortalError,
    Progress,
)
from batchproxy.testing import AsyncCalls as Calls
from batchproxy.testing import Calls as PlainCalls
from batchproxy.testing import assert_idle, look

BACKENDS: list[Backend] = ["asyncio", "trio"]


def kind_of_loop() -> str:
    """Of the event loop that runs here; trio if it is not asyncio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


where: list[tuple[str, int]] = []


async def fetch(items: list[int]) -> list[str]:
    await checkpoint()
    where.append((kind_of_loop(), threading.get_ident()))
    return naive(items)


def behind_a_wrapper(items: list[int]) -> Any:
    return fetch(items)


class Model:
    async def __call__(self, items: list[int]) -> list[str]:
        return await fetch(items)


class Later:
    """What can be awaited, and is no coroutine."""

    def __init__(self, items: list[int]) -> None:
        self._items = items

    def __await__(self) -> Iterator[Any]:
        return fetch(self._items).__await__()


FUNCTIONS = [
    pytest.param(fetch, id="async def"),
    pytest.param(functools.partial(fetch), id="partial"),
    pytest.param(Model(), id="object"),
    pytest.param(behind_a_wrapper, id="wrapper"),
    pytest.param(functools.partial(Model()), id="partial of an object"),
    pytest.param(Later, id="awaitable"),
]


@each_way
@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_and_batches(options: Any, function: Any) -> None:
    """Whatever kind of function it is, it runs in the portal's event loop, in full batches."""
    proxy = BatchingMapProxy[int, str](2, **options)
    where.clear()
    assert proxy.map([1, 2, 2, 3, 4, 5], function) == naive([1, 2, 2, 3, 4, 5])
    assert proxy.map([5, 1], never) == ["5", "1"]
    [(kind, thread)] = set(where)
    assert kind == options["backend"]
    assert thread != threading.get_ident()
    now = proxy.statistics()
    assert (now.calls, now.computed, len(where)) == (3, 5, 3)
    assert_idle(proxy)


@each_way
def test_a_plain_function_that_answers_at_once_or_later(options: Any) -> None:
    """What it answers decides, call by call; only a coroutine belongs into the event loop."""
    proxy = BatchingMapProxy[int, str](1, **options)
    threads: list[int] = []

    def sometimes(items: list[int]) -> Any:
        threads.append(threading.get_ident())
        return fetch(items) if items[0] % 2 else naive(items)

    where.clear()
    assert proxy.map(range(6), sometimes) == naive(range(6))
    assert len(where) == 3
    assert threading.get_ident() not in dict(where).values()
    assert (set(threads) == {threading.get_ident()}) == (options["max_concurrency"] is None)


# --- How many at a time ---


def held_up(calls: PlainCalls) -> Any:
    """An asynchronous function that answers when `calls`, in threads, are let go."""

    async def fetch(items: list[int]) -> list[str]:
        return await anyio.to_thread.run_sync(calls, items)

    return fetch


@both
@pytest.mark.parametrize("max_concurrency", [None, 1, 3])
def test_at_most_so_many_calls_of_one_map(backend: Backend, max_concurrency: int | None) -> None:
    """Exactly `max_concurrency` are under way; without one it is call after call."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=backend)
    calls, most = PlainCalls(gated=True), max_concurrency or 1
    caller = Thread(proxy.map, range(20), held_up(calls)).until(lambda: calls.running == most)
    calls.open()
    assert caller.outcome() == naive(range(20))
    assert calls.most_running == most
    assert sorted(calls.batches) == [[item, item + 1] for item in range(0, 20, 2)]


@both
def test_at_most_so_many_calls_of_all_maps(backend: Backend) -> None:
    """The limit is that of the proxy, over all threads; calls in worker threads count, too."""
    proxy = BatchingMapProxy[int, str](1, 2, backend=backend)
    calls, in_worker = PlainCalls(gated=True), PlainCalls(gated=True)
    lists = [range(start, start + 10) for start in range(0, 40, 10)]
    callers = [Thread(proxy.map, items, held_up(calls)) for items in lists]
    # Each map() would like two slots.
    until(lambda: (look(proxy).queueing, calls.running) == (6, 2))
    calls.open()
    assert [caller.outcome() for caller in callers] == [naive(items) for items in lists]
    assert calls.most_running == 2
    worker = Thread(proxy.map, [100], in_worker).until(lambda: in_worker.running)
    calls.most_running = 0
    assert proxy.map(range(200, 210), held_up(calls)) == naive(range(200, 210))
    assert calls.most_running == 1
    in_worker.open()
    assert worker.outcome() == ["100"]
    assert_idle(proxy)


# --- What is raised ---


@both
def test_a_failure_cancels_the_other_calls(backend: Backend) -> None:
    """As for the asynchronous proxy, and unlike calls in worker threads."""
    proxy = BatchingMapProxy[int, str](1, 2, backend=backend)
    cancelled: list[int] = []

    async def one_fails(items: list[int]) -> list[str]:
        if items == [1]:
            while proxy.statistics().running != 2:
                await checkpoint()
            raise ValueError("boom")
        try:
            await anyio.sleep_forever()
        except BaseException:
            cancelled.extend(items)
            raise
        return []

    with pytest.raises(ValueError, match="boom"):
        proxy.map([1, 2], one_fails)
    assert cancelled == [2]
    assert proxy.statistics().cancelled == 1
    assert_idle(proxy)


# --- Context variables ---


@each_way
@pytest.mark.parametrize("kind", ["def", "async def", "wrapper"])
def test_context_variables(options: Any, kind: str) -> None:
    """Each caller's own are there in every call; what the function sets is not its caller's."""
    variable = contextvars.ContextVar("variable", default="unset")
    proxy = BatchingMapProxy[str, str](1, **options)

    async def look(items: list[str]) -> list[str]:
        await checkpoint()
        seen = variable.get()
        if kind == "wrapper" or options["max_concurrency"] is None:
            await checkpoint()
        return [seen] * len(items)

    async def meddle(items: list[str]) -> list[str]:
        variable.set("meddled with")
        return items

    functions: dict[str, Any] = {
        "def": lambda items: [variable.get()] * len(items),
        "async def": look,
        "wrapper": lambda items: look(items),
    }

    def caller(name: str) -> list[str]:
        variable.set(name)
        answers = proxy.map([name, f"{name} again"], functions[kind])
        proxy.map([f"{name}, meddled with"], meddle)
        return [*answers, variable.get()]

    threads = [Thread(caller, name) for name in ("a", "b")]
    assert [thread.outcome() for thread in threads] == [["a"] * 3, ["b"] * 3]


# --- With others ---


@each_way
@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_key_once_among_functions_of_both_kinds(options: Any, asynchronous: bool) -> None:
    """A thread waits for another's asynchronous call, and for a plain one, as for any."""
    proxy = BatchingMapProxy[int, str](None, **options)
    calls = PlainCalls(gated=True)
    owner = Thread(proxy.map, [1], held_up(calls) if asynchronous else calls)
    calls.wait_begun()
    other: Any = never if asynchronous else Calls(never)
    waiter = Thread(proxy.map, [1], other).until(lambda: proxy.statistics().waiting)
    calls.open()
    assert owner.outcome() == waiter.outcome() == ["1"]
    assert proxy.statistics().shared == 1
    assert_idle(proxy)


@both
def test_a_nested_asynchronous_map(backend: Backend) -> None:
    """An asynchronous proxy with the same cache is awaited in the function, in the same loop."""
    cache = Cache[str]()
    outer = BatchingMapProxy[int, str](1, 2, cache=cache, backend=backend)
    inner = AsyncBatchingMapProxy[int, str](cache=cache)

    async def nest(items: list[int]) -> list[str]:
        return await inner.map([item - 10 for item in items], fetch)

    assert outer.map([11, 12, 13, 11], nest) == ["1", "2", "3", "1"]
    assert outer.map([1, 2, 3, 11], never) == ["1", "2", "3", "1"]
    assert_idle(outer, inner)


@both
@pytest.mark.parametrize("max_concurrency", [None, 1, 2])
def test_a_nested_synchronous_map_in_a_worker_thread(
    backend: Backend, max_concurrency: int | None
) -> None:
    """It uses the slot of its call, three deep and with functions of all kinds."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency, backend=backend)

    async def nest(items: list[int]) -> list[str]:
        [item] = items
        if item == 0:
            return ["0"]
        function: Any = nest if item % 2 else lambda items: nest(items)
        below = await anyio.to_thread.run_sync(proxy.map, [item - 1], function)
        return [f"{item}{below[0]}"]

    assert proxy.map([3, 2], nest) == ["3210", "210"]
    assert_idle(proxy)


@each_way
@pytest.mark.parametrize("wrapped", [False, True], ids=["async def", "wrapper"])
def test_a_map_that_waits_for_itself(options: Any, wrapped: bool) -> None:
    """Asking for a key inside the very call that computes it raises at once, by either proxy."""
    cache = Cache[str]()
    proxy = BatchingMapProxy[str, str](None, cache=cache, **options)
    asynchronous = AsyncBatchingMapProxy[str, str](cache=cache)

    def in_a_plain_function(items: list[str]) -> list[str]:
        return proxy.map([*items, "another"], never)

    async def in_the_loop(items: list[str]) -> list[str]:
        return await asynchronous.map(items, Calls())

    async def in_a_thread(items: list[str]) -> list[str]:
        return await anyio.to_thread.run_sync(proxy.map, items, never)

    for ring in (in_a_plain_function, in_the_loop, in_a_thread):
        function: Any = (lambda items: ring(items)) if wrapped else ring  # noqa: B023 - used here
        with pytest.raises(CircularWaitError, match="'mine'"):
            proxy.map(["mine"], function)
    assert_idle(proxy, asynchronous)
    assert proxy.map(["mine"], Calls()) == ["mine"]


@both
def test_a_synchronous_map_in_the_event_loop_itself(backend: Backend) -> None:
    """It would block the loop that it needs: it raises, and says what to do; hits are given."""
    proxy = BatchingMapProxy[int, str](backend=backend)

    async def blocking(items: list[int]) -> list[str]:
        return proxy.map([1], never) if items == [2] else proxy.map([4], never)

    assert proxy.map([1], fetch) == ["1"]
    assert proxy.map([2], blocking) == ["1"]
    with pytest.raises(PortalError, match=r"await the map\(\) of an AsyncBatchingMapProxy"):
        proxy.map([3], blocking)
    assert_idle(proxy)


@each_way
@pytest.mark.parametrize("loop", BACKENDS)
def test_inside_a_running_loop(options: Any, loop: str) -> None:
    """In a notebook map() works, whatever runs there, and functions run where they always do."""
    proxy = BatchingMapProxy[int, str](2, **options)
    threads: list[int] = []

    def plain(items: list[int]) -> list[str]:
        threads.append(threading.get_ident())
        return naive(items)

    async def main() -> list[str]:
        await checkpoint()
        answers = [*proxy.map([1, 2, 3], fetch), *proxy.map([4, 5], behind_a_wrapper)]
        answers += proxy.map([6, 7, 8], plain)
        await checkpoint()  # and here this loop is again the one that runs
        assert kind_of_loop() == loop
        return answers

    where.clear()
    assert anyio.run(main, backend=loop) == naive(range(1, 9))
    assert {kind for kind, _ in where} == {options["backend"]}
    assert threading.get_ident() not in dict(where).values()
    assert (threads == [threading.get_ident()] * 2) == (options["max_concurrency"] is None)


# --- How far it has come ---


@each_way
def test_progress(options: Any) -> None:
    """It is told in the calling thread, while the function runs in another one."""
    proxy = BatchingMapProxy[int, str](2, **options)
    told: list[tuple[int, Progress]] = []
    proxy.map(range(4), fetch, progress=lambda now: told.append((threading.get_ident(), now)))
    assert {thread for thread, _ in told} == {threading.get_ident()}
    assert told[-1][1] == Progress(done=4, total=4, hits=0, shared=0, calls=2, failures=0)


# --- The portal ---


@pytest.mark.needs_trio
def test_each_backend_has_its_loop() -> None:
    """All proxies of a backend share one event loop of it, whose thread is a daemon."""
    where.clear()
    for sizes in ((), (1, 1)):
        for backend in BACKENDS:
            BatchingMapProxy[int, str](*sizes, backend=backend).map([1], fetch)
    assert [kind for kind, _ in where] == ["asyncio", "trio"] * 2
    assert len({thread for _, thread in where}) == 2
    assert all(each.daemon for each in threading.enumerate() if "portal" in each.name)
