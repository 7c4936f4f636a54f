"""Point 13 of the contract: several event loops and threads, one after another and at once."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal
from tools import Outcomes, Thread, both, naive, never, settle, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, Calls


async def slowly(calls: Calls, items: list[int]) -> list[Any]:
    """What `calls` answer, an asynchronous function; so slow that others meet the call."""
    answer = calls(items)
    await settle(3)
    return answer


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
    calls = Calls()

    def run(backend: str, items: range) -> list[str]:
        return anyio.run(proxy.map, items, partial(slowly, calls), backend=backend)

    forwards, backwards = range(200), range(199, -1, -1)
    results = in_threads(
        lambda: run("asyncio", forwards),
        lambda: run("trio", backwards),
        lambda: run("asyncio", backwards),
        lambda: run("trio", forwards),
    )
    assert results == [naive(items) for items in (forwards, backwards, backwards, forwards)]
    assert sorted(calls.keys) == list(forwards)
    statistics = proxy.statistics()
    assert (statistics.in_flight, statistics.waiting, statistics.running) == (0, 0, 0)


@both
@pytest.mark.parametrize("fails", [False, True])
def test_a_waiter_in_another_loop_is_woken(backend: str, fails: bool) -> None:
    """Who waits in one loop for a call of another loop gets its answer, and its failure."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls, boom = Calls(gated=True), RuntimeError("boom")
    if fails:
        calls.fail(0, boom)

    async def owned(items: list[int]) -> list[str]:
        return await anyio.to_thread.run_sync(calls, items)

    owner = Thread(asyncio.run, proxy.map([1], owned))
    calls.wait_begun()
    waiter = Thread(partial(anyio.run, proxy.map, [1], AsyncCalls(never), backend=backend))
    until(lambda: proxy.statistics().waiting)
    calls.open()
    assert owner.outcome() == waiter.outcome() == (boom if fails else ["1"])


def closed_in_the_middle(proxy: AsyncBatchingMapProxy[int, str], items: list[int]) -> Any:
    """The task of a map() in a loop that was closed: nobody can end it any more."""

    async def forever(items: list[int]) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed": it was
    task = loop.create_task(proxy.map(items, forever))
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0))
    assert proxy.statistics().running == proxy.max_concurrency
    loop.close()
    return task


def test_a_loop_closed_in_the_middle_does_not_keep_its_keys() -> None:
    """A loop closed with a map() pending, which no task of it can end any more, hangs nobody."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    task = closed_in_the_middle(proxy, [1, 2, 3])
    calls = AsyncCalls()
    assert asyncio.run(proxy.map([1, 2, 3], calls)) == ["1", "2", "3"]
    assert calls.batches == [[1], [2], [3]]
    now = proxy.statistics()
    assert (now.in_flight, now.calls, now.running, now.cancelled) == (0, 5, 0, 2)
    del task


def test_keys_of_a_closed_loop_do_not_thin_a_batch() -> None:
    """Those that a map() meets when it claims are its own to compute at once."""
    cache, calls, tasks = Cache[str](), list[list[int]](), list[Any]()

    def fetch(items: list[int]) -> list[str]:
        if not calls:
            tasks.append(closed_in_the_middle(AsyncBatchingMapProxy(2, 1, cache=cache), [2, 3]))
        calls.append(items)
        return naive(items)

    proxy = BatchingMapProxy[int, str](2, cache=cache)
    assert proxy.map(range(5), fetch) == naive(range(5))
    assert calls == [[0, 1], [2, 3], [4]]
    assert proxy.statistics().in_flight == 0
    tasks.clear()


def test_a_map_that_is_collected_releases_its_keys() -> None:
    """A map() that nobody can resume any more releases its keys and slot when it is collected."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    task = closed_in_the_middle(proxy, [1])
    assert proxy.statistics().in_flight == 1
    del task
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
    calls = Calls()
    items = range(200)

    def run(backend: str) -> list[str]:
        return anyio.run(asynchronous.map, items[::-1], partial(slowly, calls), backend=backend)

    results = in_threads(
        lambda: run("asyncio"),
        lambda: run("trio"),
        lambda: synchronous.map(items, calls),
        lambda: synchronous.map(reversed(items), calls),
        lambda: workers.map(items, calls),
    )
    forwards = naive(items)
    assert results == [forwards[::-1], forwards[::-1], forwards, forwards[::-1], forwards]
    assert sorted(calls.keys) == list(items)
    assert repr(cache) == "<Cache: 200 values, 0 keys in flight, 0 waiting>"


@both
def test_threads_through_a_portal_of_their_own(backend: str) -> None:
    """Synchronous threads reach the async proxy through the user's portal; errors as they are."""
    proxy = AsyncBatchingMapProxy[int, str](7)
    calls = Calls()
    boom = ValueError("boom")

    async def fail(items: list[int]) -> list[str]:
        raise boom

    with start_blocking_portal(backend) as portal:
        results = in_threads(
            *[lambda: portal.call(proxy.map, range(100), partial(slowly, calls))] * 8
        )
        with pytest.raises(ValueError, match="boom") as caught:
            portal.call(proxy.map, [100], fail)
        assert caught.value is boom
    assert results == [naive(range(100))] * 8
    assert sorted(calls.keys) == list(range(100))


@both
def test_a_cancelled_portal_future_releases_its_keys(backend: str) -> None:
    """Cancelling the future of a portal's task, or leaving the portal, leaves no key in flight."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    with start_blocking_portal(backend) as portal:
        future = portal.start_task_soon(proxy.map, [1], calls)
        until(lambda: calls.running)
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        until(lambda: not calls.running)
        assert portal.call(proxy.map, [1], AsyncCalls()) == ["1"]
        portal.start_task_soon(proxy.map, [2], calls)
        until(lambda: calls.running)
        portal.call(portal.stop, True)
    assert proxy.statistics().in_flight == 0


@both
def test_worker_threads_reach_the_proxy_of_their_loop(backend: str) -> None:
    """`from_thread.run` in a worker thread shares the work of the tasks of its loop."""
    proxy = AsyncBatchingMapProxy[int, str](7)
    calls = Calls()

    def in_worker() -> list[str]:
        return anyio.from_thread.run(proxy.map, range(50), partial(slowly, calls))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(anyio.to_thread.run_sync, in_worker)
            assert await proxy.map(range(50), partial(slowly, calls)) == naive(range(50))

    anyio.run(main, backend=backend)
    assert sorted(calls.keys) == list(range(50))


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
        assert proxy.statistics().in_flight == 0
    assert proxy.statistics().computed == 10
