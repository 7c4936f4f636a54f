"""Points 3 and 14 of the contract: asynchronous functions for the synchronous proxy.

Ctrl-C needs a process of its own: see test_processes. What such functions raise is in test_sync,
too, and what they leave to the collector in test_garbage_of_failures.
"""

from __future__ import annotations

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
from tools import Backend, Thread, both, naive, never, until

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    PortalError,
    Progress,
)
from batchproxy.testing import AsyncCalls as Calls
from batchproxy.testing import assert_idle

numbers = pytest.mark.parametrize("max_concurrency", [None, 2])


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


@both
@numbers
@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_and_batches(backend: Backend, max_concurrency: int | None, function: Any) -> None:
    """Whatever kind of function it is, it runs in the portal's event loop, in full batches."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=backend)
    where.clear()
    assert proxy.map([1, 2, 2, 3, 4, 5], function) == naive([1, 2, 2, 3, 4, 5])
    assert proxy.map([5, 1], never) == ["5", "1"]
    [(kind, thread)] = set(where)
    assert kind == backend
    assert thread != threading.get_ident()
    now = proxy.statistics()
    assert (now.calls, now.computed, len(where)) == (3, 5, 3)
    assert_idle(proxy)


@both
@numbers
def test_the_thread_of_a_plain_function_that_answers_with_a_coroutine(
    backend: Backend, max_concurrency: int | None
) -> None:
    """It is called where plain functions are: only its answer belongs into the event loop."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency, backend=backend)
    threads: list[int] = []

    def plain(items: list[int]) -> Any:
        threads.append(threading.get_ident())
        return fetch(items)

    where.clear()
    assert proxy.map([1, 2], plain) == ["1", "2"]
    assert threading.get_ident() not in dict(where).values()
    assert (set(threads) == {threading.get_ident()}) == (max_concurrency is None)


@both
@numbers
def test_a_function_that_answers_at_once_or_later(
    backend: Backend, max_concurrency: int | None
) -> None:
    """What it answers decides, call by call."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency, backend=backend)

    def sometimes(items: list[int]) -> Any:
        return fetch(items) if items[0] % 2 else naive(items)

    assert proxy.map(range(6), sometimes) == naive(range(6))


@both
@pytest.mark.parametrize("function", [Calls(), lambda items: None], ids=["async", "plain"])
def test_hits_call_nothing(backend: Backend, function: Any) -> None:
    """Where all is known, it does not matter what kind of function it is."""
    cache = Cache[str]()
    cache.prime({1: "one"})
    proxy = BatchingMapProxy[int, str](cache=cache, backend=backend)
    assert proxy.map([1, 1], function) == ["one"] * 2
    assert proxy.statistics().calls == 0


# --- How many at a time ---


class Together:
    """An asynchronous function of which `number` calls have to be under way at once."""

    def __init__(self, number: int) -> None:
        self.batches: list[list[int]] = []
        self.running = self.most_running = 0
        self._number = number
        self._lock = threading.Lock()
        self._all = anyio.Event()

    async def __call__(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if self.running == self._number:
            self._all.set()
        await self._all.wait()
        for _ in range(5):
            await checkpoint()
        self.running -= 1
        return naive(items)


@both
@pytest.mark.parametrize("max_concurrency", [None, 1, 3])
def test_at_most_so_many_calls_of_one_map(backend: Backend, max_concurrency: int | None) -> None:
    """Exactly `max_concurrency` are under way; without one it is call after call."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=backend)
    calls = Together(max_concurrency or 1)
    assert proxy.map(range(20), calls) == naive(range(20))
    assert calls.most_running == (max_concurrency or 1)
    assert sorted(calls.batches) == [[item, item + 1] for item in range(0, 20, 2)]


@both
def test_at_most_so_many_calls_of_all_maps(backend: Backend) -> None:
    """The limit is that of the proxy, over all threads; calls in worker threads count, too."""
    proxy = BatchingMapProxy[int, str](1, 2, backend=backend)
    calls = Together(2)
    begun, gate = threading.Event(), threading.Event()

    def blocked(items: list[int]) -> list[str]:
        begun.set()
        assert gate.wait(30)
        return naive(items)

    threads = [Thread(proxy.map, range(start, start + 10), calls) for start in range(0, 40, 10)]
    assert [thread.outcome() for thread in threads] == [
        naive(range(start, start + 10)) for start in range(0, 40, 10)
    ]
    assert calls.most_running == 2
    worker = Thread(proxy.map, [100], blocked)
    assert begun.wait(30)
    calls.most_running = 0
    assert proxy.map(range(200, 210), calls) == naive(range(200, 210))
    assert calls.most_running == 1
    gate.set()
    assert worker.outcome() == ["100"]
    assert_idle(proxy)


# --- What is raised ---


@both
@numbers
@pytest.mark.parametrize("wrapped", [False, True], ids=["async def", "wrapper"])
def test_the_very_exception(backend: Backend, max_concurrency: int | None, wrapped: bool) -> None:
    """It arrives as it was raised, and nothing is cached; what had finished stays."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency, backend=backend)
    boom = ValueError("boom")

    async def fail(items: list[int]) -> list[str]:
        await checkpoint()
        raise boom

    assert proxy.map([1], fetch) == ["1"]
    with pytest.raises(ValueError, match="boom") as caught:
        proxy.map([1, 2], (lambda items: fail(items)) if wrapped else fail)
    assert caught.value is boom
    assert boom.__context__ is boom.__cause__ is None
    assert caught.traceback[-1].name == "fail"
    assert proxy.map([1, 2], fetch) == ["1", "2"]
    assert proxy.statistics().failed == 1
    assert_idle(proxy)


@both
def test_return_exceptions(backend: Backend) -> None:
    """Every batch is called, and failed items hold their exception."""
    proxy = BatchingMapProxy[int, str](1, 2, backend=backend)

    async def some(items: list[int]) -> list[Any]:
        await checkpoint()
        if items == [2]:
            raise KeyError(2)
        return [ValueError(item) if item == 3 else str(item) for item in items]

    one, two, three, four = proxy.map([1, 2, 3, 4], some, return_exceptions=True)
    assert (one, four) == ("1", "4")
    assert isinstance(two, KeyError)
    assert isinstance(three, ValueError)
    assert proxy.statistics().cached == 2


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


@both
@numbers
@pytest.mark.parametrize("wrapped", [False, True], ids=["async def", "wrapper"])
def test_context_variables(backend: Backend, max_concurrency: int | None, wrapped: bool) -> None:
    """Each caller's own are there in every call; what the function sets is not its caller's."""
    variable = contextvars.ContextVar("variable", default="unset")
    proxy = BatchingMapProxy[str, str](1, max_concurrency, backend=backend)

    async def look(items: list[str]) -> list[str]:
        await checkpoint()
        seen = variable.get()
        if wrapped or max_concurrency is None:
            await checkpoint()
        return [seen] * len(items)

    async def meddle(items: list[str]) -> list[str]:
        variable.set("meddled with")
        return items

    function = (lambda items: look(items)) if wrapped else look

    def caller(name: str) -> list[str]:
        variable.set(name)
        answers = proxy.map([name, f"{name} again"], function)
        proxy.map([f"{name}, meddled with"], meddle)
        return [*answers, variable.get()]

    threads = [Thread(caller, name) for name in ("a", "b")]
    assert [thread.outcome() for thread in threads] == [["a"] * 3, ["b"] * 3]


# --- With others ---


@both
@numbers
def test_each_key_once_among_functions_of_both_kinds(
    backend: Backend, max_concurrency: int | None
) -> None:
    """A thread waits for another's asynchronous call, and for a plain one, as for any."""
    proxy = BatchingMapProxy[int, str](None, max_concurrency, backend=backend)
    gate, begun = threading.Event(), threading.Event()

    async def slow(items: list[int]) -> list[str]:
        begun.set()
        await anyio.to_thread.run_sync(gate.wait)
        return naive(items)

    def slow_too(items: list[int]) -> list[str]:
        begun.set()
        gate.wait()
        return naive(items)

    for keys, function, other in (([1], slow, never), ([2], slow_too, Calls())):
        begun.clear()
        gate.clear()
        owner = Thread(proxy.map, keys, function)
        assert begun.wait(30)
        waiter = Thread(proxy.map, keys, other)
        until(lambda: proxy.statistics().waiting)
        gate.set()
        assert owner.outcome() == waiter.outcome() == naive(keys)
    assert proxy.statistics().shared == 2
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


@both
@numbers
@pytest.mark.parametrize("wrapped", [False, True], ids=["async def", "wrapper"])
def test_a_map_that_waits_for_itself(
    backend: Backend, max_concurrency: int | None, wrapped: bool
) -> None:
    """Asking for a key inside the very call that computes it raises at once, by either proxy."""
    cache = Cache[str]()
    proxy = BatchingMapProxy[str, str](None, max_concurrency, cache=cache, backend=backend)
    asynchronous = AsyncBatchingMapProxy[str, str](cache=cache)

    async def in_the_loop(items: list[str]) -> list[str]:
        return await asynchronous.map(items, Calls())

    async def in_a_thread(items: list[str]) -> list[str]:
        return await anyio.to_thread.run_sync(proxy.map, items, never)

    for ring in (in_the_loop, in_a_thread):
        function: Any = (lambda items: ring(items)) if wrapped else ring  # noqa: B023 - used here
        with pytest.raises(CircularWaitError, match="'mine'"):
            proxy.map(["mine"], function)
    assert_idle(proxy, asynchronous)


@both
def test_two_threads_in_a_ring(backend: Backend) -> None:
    """Two calls that nest each other's keys: one raises, naming the key, and both can end."""
    proxy = BatchingMapProxy[str, str](backend=backend)
    other_of = {"a": "b", "b": "a"}

    async def crosswise(items: list[str]) -> list[str]:
        while proxy.statistics().running < 2:
            await checkpoint()
        other = other_of[items[0]]
        try:
            answers = await anyio.to_thread.run_sync(proxy.map, [other], never)
        except CircularWaitError as error:
            return [f"alone: {other!r}" if f"{other!r}" in str(error) else "of what?"]
        return [f"with {answers[0]}"]

    outcomes = [Thread(proxy.map, [key], crosswise) for key in "ab"]
    (a,), (b,) = [thread.outcome() for thread in outcomes]
    assert (a, b) in [("alone: 'b'", "with alone: 'b'"), ("with alone: 'a'", "alone: 'a'")]
    assert_idle(proxy)


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


@both
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@numbers
def test_inside_a_running_loop(backend: Backend, loop: str, max_concurrency: int | None) -> None:
    """In a notebook it works, whatever runs there: the function is in the loop of the portal."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=backend)

    async def main() -> list[str]:
        await checkpoint()
        answers = proxy.map([1, 2, 3], fetch) + proxy.map([4, 5], behind_a_wrapper)
        await checkpoint()  # and here this loop is again the one that runs
        assert kind_of_loop() == loop
        return answers

    where.clear()
    assert anyio.run(main, backend=loop) == naive(range(1, 6))
    assert {kind for kind, _ in where} == {backend}
    assert threading.get_ident() not in dict(where).values()


@both
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_inside_the_loop_that_computes_the_key(backend: Backend, loop: str) -> None:
    """Where a task of the loop that map() blocks computes a key, it raises at once."""
    cache = Cache[str]()
    asynchronous = AsyncBatchingMapProxy[int, str](cache=cache)
    synchronous = BatchingMapProxy[int, str](cache=cache, backend=backend)
    calls = Calls(gated=True)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(asynchronous.map, [1], calls)
            await calls.wait_begun()
            with pytest.raises(CircularWaitError, match="1 is being computed"):
                synchronous.map([2, 1], fetch)
            calls.open()

    anyio.run(main, backend=loop)
    assert_idle(asynchronous, synchronous)


# --- How far it has come ---


@both
@numbers
def test_progress(backend: Backend, max_concurrency: int | None) -> None:
    """It is told in the calling thread, while the function runs in another one."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=backend)
    told: list[tuple[int, Progress]] = []
    proxy.map(range(4), fetch, progress=lambda now: told.append((threading.get_ident(), now)))
    assert {thread for thread, _ in told} == {threading.get_ident()}
    assert told[-1][1] == Progress(done=4, total=4, hits=0, shared=0, calls=2, failures=0)


# --- The portal ---


@pytest.mark.needs_trio
def test_each_backend_has_its_loop() -> None:
    """Calls of one kind share one event loop, that of `backend`."""
    where.clear()
    backends: list[Backend] = ["asyncio", "trio"] * 2
    for backend in backends:
        BatchingMapProxy[int, str](backend=backend).map([1], fetch)
    assert [kind for kind, _ in where] == ["asyncio", "trio"] * 2
    assert len({thread for _, thread in where}) == 2
