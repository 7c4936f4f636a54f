"""Nothing is left to the garbage collector: neither what a map() is made of, nor an event loop.

A cycle on the way of every call would cost the collector as much as the call. (One call, calls in
tasks and in threads are in test_batches.py; a loop with waiters is in test_loops.py.)
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import FREE_THREADED, naive, running_loop

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls

# In a free-threaded build what the last call has left to the threads that made it is found, too:
# some eighty objects, however many calls there were.
TIMES = 200 if FREE_THREADED else 50
KEYS = [1, 2, 3]


@contextmanager
def assert_no_garbage() -> Iterator[None]:
    """What happens inside, `TIMES` times, leaves less than one object for each time."""
    gc.collect()
    gc.disable()
    try:
        yield
        assert gc.collect() < TIMES  # something of the event loop's, perhaps
    finally:
        gc.enable()


async def answer(items: list[Any]) -> list[str]:
    await checkpoint()
    return naive(items)


def cold(max_concurrency: int = 8) -> AsyncBatchingMapProxy[Any, str]:
    return AsyncBatchingMapProxy(None, max_concurrency, cache=Cache(max_size=0))


def sync_cold(max_concurrency: int | None = None) -> BatchingMapProxy[Any, str]:
    return BatchingMapProxy(1, max_concurrency, cache=Cache(max_size=0))


# --- What a map() is made of ---


def hits() -> Callable[[], Awaitable[object]]:
    proxy = AsyncBatchingMapProxy[int, str]()
    return lambda: proxy.map(KEYS, answer)


def waiting_for_a_call() -> Callable[[], Awaitable[object]]:
    proxy = cold()

    async def both() -> None:
        shared = proxy.statistics().shared
        async with anyio.create_task_group() as group:
            group.start_soon(proxy.map, KEYS, answer)
            group.start_soon(proxy.map, KEYS, answer)
        assert proxy.statistics().shared == shared + len(KEYS)

    return both


def waiting_for_a_slot() -> Callable[[], Awaitable[object]]:
    proxy = cold(1)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(proxy.map, KEYS, answer)
            group.start_soon(proxy.map, ["another"], answer)

    return both


def nested() -> Callable[[], Awaitable[object]]:
    proxy = cold(1)

    async def outer(items: list[Any]) -> list[str]:
        return await proxy.map([f"part of {item}" for item in items], answer)

    return lambda: proxy.map(KEYS, outer)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [hits, waiting_for_a_call, waiting_for_a_slot, nested])
async def test_async_success(kind: Callable[[], Callable[[], Awaitable[object]]]) -> None:
    """A map() that succeeds, however it comes by its answers, makes no reference cycle."""
    call = kind()
    await call()
    with assert_no_garbage():
        for _ in range(TIMES):
            await call()


def sync_hits() -> Callable[[], object]:
    proxy = BatchingMapProxy[int, str]()
    return lambda: proxy.map(KEYS, naive)


def sync_nested(max_concurrency: int | None = None) -> Callable[[], object]:
    proxy = sync_cold(max_concurrency)

    def outer(items: list[Any]) -> list[str]:
        return proxy.map([f"part of {item}" for item in items], naive)

    return lambda: proxy.map(KEYS, outer)


def sync_nested_in_workers() -> Callable[[], object]:
    return sync_nested(2)


def sync_waiting_for_a_thread() -> Callable[[], object]:
    proxy = sync_cold()

    def both() -> None:
        begun, gate = threading.Event(), threading.Event()

        def gated(items: list[Any]) -> list[str]:
            begun.set()
            gate.wait()
            return naive(items)

        def open_the_gate() -> None:
            while not proxy.statistics().waiting:
                time.sleep(0.0001)
            gate.set()

        owner = threading.Thread(target=proxy.map, args=([1], gated), daemon=True)
        opener = threading.Thread(target=open_the_gate, daemon=True)
        owner.start()
        begun.wait()
        opener.start()
        assert proxy.map([1], naive) == ["1"]
        owner.join()
        opener.join()
        assert proxy.statistics().calls == proxy.statistics().shared

    return both


@pytest.mark.parametrize(
    "kind", [sync_hits, sync_nested, sync_nested_in_workers, sync_waiting_for_a_thread]
)
def test_sync_success(kind: Callable[[], Callable[[], object]]) -> None:
    """The same for the synchronous proxy."""
    call = kind()
    call()
    with assert_no_garbage():
        for _ in range(TIMES):
            call()


# --- Event loops ---


async def succeeding(proxy: AsyncBatchingMapProxy[Any, str]) -> None:
    async with anyio.create_task_group() as group:
        for start in range(4):
            group.start_soon(proxy.map, range(start, start + 6), answer)


async def failing(proxy: AsyncBatchingMapProxy[Any, str]) -> None:
    calls = AsyncCalls()
    calls.fail(1, ValueError())
    with pytest.raises(ValueError):  # noqa: PT011 - it is the only one
        await proxy.map(range(6), calls)


async def cancelled(proxy: AsyncBatchingMapProxy[Any, str]) -> None:
    async with anyio.create_task_group() as group:
        for start in range(4):
            group.start_soon(proxy.map, range(start, start + 6), AsyncCalls(gated=True))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def blocked(proxy: AsyncBatchingMapProxy[Any, str]) -> None:
    synchronous = BatchingMapProxy[Any, str](2)
    assert synchronous.map(range(6), naive) == naive(range(6))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("use", [succeeding, failing, cancelled, blocked])
def test_no_loop_is_kept_alive(
    backend: str, use: Callable[[AsyncBatchingMapProxy[Any, str]], Awaitable[None]]
) -> None:
    """Of an event loop that has ended nothing stays, whatever the proxy was used for in it."""
    proxy = AsyncBatchingMapProxy[Any, str](2, 2)
    loops: WeakSet[Any] = WeakSet()

    async def main() -> None:
        loops.add(running_loop())
        await use(proxy)

    for _ in range(3):
        anyio.run(main, backend=backend)
        anyio.run(proxy.clear, backend=backend)
    gc.collect()
    assert not loops
