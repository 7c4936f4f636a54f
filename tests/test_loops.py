"""Point 13 of the contract: several event loops and threads, one after another and at once."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal
from tools import Outcomes, naive, settle

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class CountedKeys:
    """Batch functions of both kinds that count, over all threads, how often each key was asked."""

    def __init__(self) -> None:
        self.keys: Counter[int] = Counter()
        self._lock = threading.Lock()

    def sync(self, items: list[int]) -> list[str]:
        with self._lock:
            self.keys.update(items)
        return naive(items)

    async def asynchronous(self, items: list[int]) -> list[str]:
        answer = self.sync(items)
        await settle(3)  # so that others meet the call under way
        return answer

    def assert_each_once(self, expected: range) -> None:
        assert self.keys == Counter(expected)


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """Run the functions at once, each in a thread of its own, and give what they return.

    The threads are switched as often as Python can, since races hide behind the usual interval.
    """
    barrier = threading.Barrier(len(functions))
    interval = sys.getswitchinterval()

    def run(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(functions)) as pool:
            return list(pool.map(run, functions))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.needs_trio
def test_one_run_after_another() -> None:
    """One proxy serves any number of event loops, one after another, of either kind."""
    proxy = AsyncBatchingMapProxy[int, str](3, 2)
    calls = AsyncCalls()
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(proxy.map, range(10), calls, backend=backend) == naive(range(10))
    assert asyncio.run(proxy.map(range(12), calls)) == naive(range(12))
    assert sorted(calls.keys) == list(range(12))


@pytest.mark.needs_trio
@pytest.mark.parametrize("again", range(5))
@pytest.mark.parametrize("max_concurrency", [1, 8])
def test_loops_of_both_kinds_at_once(max_concurrency: int, again: int) -> None:
    """Two asyncio and two trio loops in four threads compute every key once between them."""
    proxy = AsyncBatchingMapProxy[int, str](7, max_concurrency)
    counted = CountedKeys()

    def run(backend: str, items: range) -> list[str]:
        async def main() -> list[str]:
            return await proxy.map(items, counted.asynchronous)

        return anyio.run(main, backend=backend)

    forwards, backwards = range(200), range(199, -1, -1)
    results = in_threads(
        lambda: run("asyncio", forwards),
        lambda: run("trio", backwards),
        lambda: run("asyncio", backwards),
        lambda: run("trio", forwards),
    )
    assert results == [naive(items) for items in (forwards, backwards, backwards, forwards)]
    counted.assert_each_once(forwards)
    statistics = proxy.statistics()
    assert (statistics.in_flight, statistics.waiting, statistics.running) == (0, 0, 0)


@both
def test_a_waiter_in_another_loop_is_woken(backend: str) -> None:
    """Who waits in one loop for a call of another loop gets its answer, and its failure."""
    proxy = AsyncBatchingMapProxy[str, str]()
    called, waiting = threading.Event(), threading.Event()
    boom = RuntimeError("boom")

    async def owner(items: list[str]) -> list[str]:
        called.set()
        await anyio.to_thread.run_sync(waiting.wait)
        if items == ["bad"]:
            raise boom
        return ["answer"]

    async def never(items: list[str]) -> list[str]:
        raise AssertionError("the call of the owner was to be waited for")

    def own(key: str) -> Any:
        try:
            return asyncio.run(proxy.map([key], owner))
        except RuntimeError as error:
            return error

    def wait(key: str) -> Any:
        async def main() -> Any:
            async with anyio.create_task_group() as group:

                async def tell() -> None:
                    while not proxy.statistics().waiting:
                        await anyio.lowlevel.checkpoint()
                    waiting.set()

                group.start_soon(tell)
                try:
                    return await proxy.map([key], never)
                except RuntimeError as error:
                    return error

        called.wait()
        return anyio.run(main, backend=backend)

    for key, expected in (("good", ["answer"]), ("bad", boom)):
        called.clear()
        waiting.clear()
        assert in_threads(lambda key=key: own(key), lambda key=key: wait(key)) == [  # type: ignore[misc] # mypy does not see the default
            expected,
            expected,
        ]


@both
def test_keys_of_a_loop_that_was_shut_down_are_free(backend: str) -> None:
    """A run that ends with a map() under way releases its keys; another loop takes over."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)

    async def cut_short() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(proxy.map, [1], calls)
            await settle()
            assert proxy.statistics().in_flight == 1
            group.cancel_scope.cancel()

    anyio.run(cut_short, backend=backend)
    assert proxy.statistics().in_flight == 0
    assert anyio.run(proxy.map, [1], AsyncCalls(), backend=backend) == ["1"]


def test_a_loop_closed_in_the_middle_does_not_keep_its_keys() -> None:
    """A loop closed with a map() pending, which no task of it can end any more, hangs nobody."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)

    async def forever(items: list[int]) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed": it was
    task: Any = loop.create_task(proxy.map([1, 2, 3], forever))
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0))
    assert proxy.statistics().in_flight == 2
    loop.close()
    calls = AsyncCalls()
    assert asyncio.run(proxy.map([1, 2, 3], calls)) == ["1", "2", "3"]
    assert calls.batches == [[1], [2], [3]]
    assert proxy.statistics().in_flight == 0
    del task


def test_a_map_that_is_collected_releases_its_keys() -> None:
    """A map() that nobody can resume any more releases its keys and slot when it is collected."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)

    async def forever(items: list[int]) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed": it was
    task: Any = loop.create_task(proxy.map([1], forever))
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0))
    assert proxy.statistics().in_flight == 1
    loop.close()
    del task, loop
    gc.collect()
    assert proxy.statistics().in_flight == proxy.statistics().running == 0
    assert asyncio.run(proxy.map([1], AsyncCalls())) == ["1"]


def test_a_proxy_leaves_nothing_in_its_loop() -> None:
    """A proxy made for one request goes when the request is done, though the loop lives on."""

    async def main() -> None:
        def key(item: int) -> int:  # which nobody has but the proxy
            return item

        proxy = AsyncBatchingMapProxy[int, str](1, 2, key=key)
        await proxy.map(range(5), AsyncCalls())
        gone = weakref.ref(key)
        del proxy, key
        gc.collect()
        assert gone() is None

    asyncio.run(main())


@pytest.mark.needs_trio
@pytest.mark.parametrize("again", range(15))
def test_sync_and_async_proxies_share_a_cache(again: int) -> None:
    """Threads and loops of both kinds on one Cache compute every key once among them."""
    cache = Cache[str]()
    asynchronous = AsyncBatchingMapProxy[int, str](2, 3, cache=cache)
    synchronous = BatchingMapProxy[int, str](3, cache=cache)
    workers = BatchingMapProxy[int, str](2, 2, cache=cache, backend="trio")
    counted = CountedKeys()
    items = range(200)

    def run(backend: str) -> list[str]:
        async def main() -> list[str]:
            return await asynchronous.map(reversed(items), counted.asynchronous)

        return anyio.run(main, backend=backend)

    results = in_threads(
        lambda: run("asyncio"),
        lambda: run("trio"),
        lambda: synchronous.map(items, counted.sync),
        lambda: synchronous.map(reversed(items), counted.sync),
        lambda: workers.map(items, counted.sync),
    )
    forwards = naive(items)
    assert results == [forwards[::-1], forwards[::-1], forwards, forwards[::-1], forwards]
    counted.assert_each_once(items)
    assert repr(cache) == "<Cache: 200 values, 0 keys in flight, 0 waiting>"


@both
def test_threads_through_a_portal_of_their_own(backend: str) -> None:
    """Synchronous threads reach the async proxy through the user's portal; errors as they are."""
    proxy = AsyncBatchingMapProxy[int, str](7)
    counted = CountedKeys()
    boom = ValueError("boom")

    async def fail(items: list[int]) -> list[str]:
        raise boom

    with start_blocking_portal(backend) as portal:
        results = in_threads(
            *[lambda: portal.call(proxy.map, range(100), counted.asynchronous)] * 8
        )
        with pytest.raises(ValueError, match="boom") as caught:
            portal.call(proxy.map, [100], fail)
        assert caught.value is boom
    assert results == [naive(range(100))] * 8
    counted.assert_each_once(range(100))


@both
def test_a_cancelled_portal_future_releases_its_keys(backend: str) -> None:
    """Cancelling the future of a portal's task, or leaving the portal, leaves no key in flight."""
    proxy = AsyncBatchingMapProxy[int, str]()
    called, released = threading.Event(), threading.Event()

    async def hang(items: list[int]) -> list[str]:
        called.set()
        try:
            await anyio.sleep_forever()
        finally:
            released.set()
        raise AssertionError

    with start_blocking_portal(backend) as portal:
        future = portal.start_task_soon(proxy.map, [1], hang)
        called.wait()
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        released.wait()
        assert portal.call(proxy.map, [1], AsyncCalls()) == ["1"]
        called.clear()
        portal.start_task_soon(proxy.map, [2], hang)
        called.wait()
        portal.call(portal.stop, True)
    assert proxy.statistics().in_flight == 0


@both
def test_worker_threads_reach_the_proxy_of_their_loop(backend: str) -> None:
    """`from_thread.run` in a worker thread shares the work of the tasks of its loop."""
    proxy = AsyncBatchingMapProxy[int, str](7)
    counted = CountedKeys()

    def in_worker() -> list[str]:
        return anyio.from_thread.run(proxy.map, range(50), counted.asynchronous)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(anyio.to_thread.run_sync, in_worker)
            assert await proxy.map(range(50), counted.asynchronous) == naive(range(50))

    anyio.run(main, backend=backend)
    counted.assert_each_once(range(50))


@pytest.mark.anyio
@pytest.mark.parametrize("batch_size", [None, 1])
async def test_context_variables_reach_map_func(batch_size: int | None) -> None:
    """The function sees the context variables of the caller, called inline or in a task group."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def look(items: list[int]) -> list[str]:
        seen.append(variable.get())
        return naive(items)

    variable.set("the caller's")
    await AsyncBatchingMapProxy[int, str](batch_size).map([1, 2, 3], look)
    assert set(seen) == {"the caller's"}


def test_a_second_event_loop_at_the_limit(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Callers queue for slots in one run and in the next, also if the first was cut short."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)

    async def run(first: int, cut_short: bool) -> None:
        calls = AsyncCalls(gated=True)
        async with anyio.create_task_group() as group:
            callers = Outcomes(group)
            for key in range(first, first + 5):
                callers.start(key, proxy.map, [key], calls)
            await settle()
            assert len(calls.batches) == 1
            if cut_short:
                group.cancel_scope.cancel()
            calls.open()
        if not cut_short:
            assert callers.results == {key: [str(key)] for key in range(first, first + 5)}

    backend, options = anyio_backend
    for arguments in ((0, False), (5, True), (5, False)):
        anyio.run(run, *arguments, backend=backend, backend_options=options)
    assert proxy.statistics().computed == 10
