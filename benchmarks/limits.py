"""What does the library cost beside the work that nobody can avoid?

The limits are dict and list work (`work`), one trip through the scheduler (a *checkpoint*), one
empty ``portal.call`` (what any synchronous library pays to reach an event loop and come back), and
the sleeping that so many calls at a time cannot do without.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from measuring import Row, ratios, ratios_async
from work import (
    BACKENDS,
    BATCH,
    ITEMS,
    SINGLES,
    Backend,
    cold_limit,
    fetch,
    fetch_async,
    hit_limit,
    items,
)

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache


async def nothing() -> None:
    """What an empty ``portal.call`` calls."""


CALLS, AT_A_TIME, LATENCY = 200, 20, 0.010  # seconds
IDEAL = math.ceil(CALLS / AT_A_TIME) * LATENCY


def synchronous() -> Iterator[Row]:
    """Hits and cold lists through the sync face, whose calls cross threads twice each."""
    known = dict(zip(ITEMS, ITEMS))
    proxy = BatchingMapProxy[str, str](BATCH)
    proxy.map(ITEMS, fetch)
    yield Row(
        "sync: 100,000 hits",
        "hit limit",
        1.15,
        ratios(lambda: proxy.map(ITEMS, fetch), lambda: hit_limit(ITEMS, known)),
    )
    yield Row(
        "sync: 100,000 cold, in batches of 1,000",
        "cold limit",
        3,
        ratios(
            lambda: BatchingMapProxy[str, str](BATCH).map(ITEMS, fetch),
            lambda: cold_limit(ITEMS),
        ),
    )


def portal(backend: Backend) -> Iterator[Row]:
    """Calls through the portal, however small, against the bare trip to an event loop."""
    proxy = BatchingMapProxy[str, str](backend=backend)
    in_tens = BatchingMapProxy[str, str](10, backend=backend)
    with start_blocking_portal(backend) as bare:

        def empty_calls(count: int) -> None:
            for _ in range(count):
                bare.call(nothing)

        def plain_calls() -> None:
            for _ in SINGLES:
                bare.call(int)

        def one_key_misses() -> None:
            for single in SINGLES:
                proxy.map(single, fetch)

        yield Row(
            f"sync, {backend}: one-key miss",
            "empty portal.call",
            1.7,
            ratios(one_key_misses, lambda: empty_calls(len(SINGLES)), before=proxy.clear),
        )
        yield Row(
            f"sync, {backend}: one-key miss",
            "portal.call of a plain function",
            2,
            ratios(one_key_misses, plain_calls, before=proxy.clear),
        )
        yield Row(
            f"sync, {backend}: 1,000 batches of 10 in one map()",
            "1,000 empty portal.call",
            1,
            ratios(
                lambda: in_tens.map(ITEMS[:10_000], fetch),
                lambda: empty_calls(1_000),
                before=in_tens.clear,
            ),
        )


def workers() -> Row:
    """Many calls at a time in worker threads, against the same threads without a proxy."""

    def sleep(items: list[str]) -> list[str]:
        time.sleep(LATENCY)
        return items

    async def bare() -> None:
        limiter = anyio.CapacityLimiter(AT_A_TIME)

        async def sleep_in_turn() -> None:
            for _ in range(CALLS // AT_A_TIME):
                await anyio.to_thread.run_sync(sleep, ITEMS[:1], limiter=limiter)

        async with anyio.create_task_group() as group:
            for _ in range(AT_A_TIME):
                group.start_soon(sleep_in_turn)

    proxy = BatchingMapProxy[str, str](1, AT_A_TIME)
    with start_blocking_portal() as portal:
        portal.call(bare)  # starts its threads, once
        proxy.map(ITEMS[:CALLS], sleep)
        return Row(
            "sync, workers: 200 batches of 10 ms, 20 at a time",
            "the same threads in bare anyio",
            1.1,
            ratios(
                lambda: proxy.map(ITEMS[:CALLS], sleep),
                lambda: portal.call(bare),
                before=proxy.clear,
            ),
        )


async def asynchronous(backend: Backend) -> AsyncIterator[Row]:
    """The async face: long lists against dict work, single keys against the scheduler."""
    known = dict(zip(ITEMS, ITEMS))
    proxy = AsyncBatchingMapProxy[str, str](BATCH)
    await proxy.map(ITEMS, fetch_async)

    async def hits() -> object:
        return hit_limit(ITEMS, known)

    async def cold() -> object:
        return cold_limit(ITEMS)

    yield Row(
        f"{backend}: 100,000 hits",
        "hit limit",
        1.15,
        await ratios_async(lambda: proxy.map(ITEMS, fetch_async), hits),
    )
    yield Row(
        f"{backend}: 100,000 cold, in batches of 1,000",
        "cold limit",
        1.5,
        await ratios_async(
            lambda: AsyncBatchingMapProxy[str, str](BATCH).map(ITEMS, fetch_async), cold
        ),
    )

    async def checkpoints() -> None:
        for _ in SINGLES:
            await checkpoint()

    async def one_key_each(proxy: AsyncBatchingMapProxy[str, str]) -> None:
        for single in SINGLES:
            await proxy.map(single, fetch_async)

    async def checkpoints_and_calls() -> None:
        for single in SINGLES:
            await checkpoint()
            await fetch_async(single)

    yield Row(
        f"{backend}: one-key hit",
        "checkpoint",
        1.4,
        await ratios_async(lambda: one_key_each(proxy), checkpoints),
    )
    few_cache, many_cache = Cache[str](), Cache[str]()
    eight = AsyncBatchingMapProxy[str, str](None, 8, cache=few_cache)
    yield Row(
        f"{backend}: one-key miss",
        "checkpoint and call",
        3.5,
        await ratios_async(
            lambda: one_key_each(eight), checkpoints_and_calls, before=few_cache.clear
        ),
    )
    many = AsyncBatchingMapProxy[str, str](None, 512, cache=many_cache)

    def clear_both() -> None:
        few_cache.clear()
        many_cache.clear()

    yield Row(
        f"{backend}: one-key miss, max_concurrency=512",
        "the same with 8",
        1.1,
        await ratios_async(
            lambda: one_key_each(many), lambda: one_key_each(eight), before=clear_both
        ),
    )
    async for row in _bounded(backend):
        yield row
    yield await _makespan(backend)
    yield await _fairness(backend)


async def _bounded(backend: Backend) -> AsyncIterator[Row]:
    """What a bound costs: with room for all, and with room for half."""
    unbounded = AsyncBatchingMapProxy[str, str](BATCH)
    bounded = AsyncBatchingMapProxy[str, str](BATCH, cache=Cache(len(ITEMS)))
    await unbounded.map(ITEMS, fetch_async)
    await bounded.map(ITEMS, fetch_async)
    yield Row(
        f"{backend}: 100,000 hits, max_size=100,000",
        "without a bound",
        1.8,
        await ratios_async(
            lambda: bounded.map(ITEMS, fetch_async), lambda: unbounded.map(ITEMS, fetch_async)
        ),
    )
    for size, at_most in ((100_000, 1.2), (50_000, 1.5)):
        yield Row(
            f"{backend}: 100,000 cold, max_size={size:,}",
            "without a bound",
            at_most,
            await ratios_async(
                lambda size=size: AsyncBatchingMapProxy[str, str](  # type: ignore[misc] # its default
                    BATCH, cache=Cache(size)
                ).map(ITEMS, fetch_async),
                lambda: AsyncBatchingMapProxy[str, str](BATCH).map(ITEMS, fetch_async),
            ),
        )


async def _makespan(backend: Backend) -> Row:
    """Slots are never idle while there is something to call for."""

    async def sleep(items: list[str]) -> list[str]:
        await anyio.sleep(LATENCY)
        return items

    values = []
    for _ in range(5):
        proxy = AsyncBatchingMapProxy[str, str](1, AT_A_TIME)
        start = time.perf_counter()
        await proxy.map(ITEMS[:CALLS], sleep)
        values.append((time.perf_counter() - start) / IDEAL)
    return Row(f"{backend}: 200 batches of 10 ms, 20 at a time", "ideal makespan", 1.1, values)


async def _fairness(backend: Backend) -> Row:
    """A small map() is not behind the whole of a large one, but behind one of its batches.

    While a ``map()`` of a million keys holds every slot, one of a single key arrives. How many
    times the duration of one call of the other does it take until its own is made?
    """
    million = items(1_000_000)
    durations: list[float] = []
    proxy = AsyncBatchingMapProxy[str, str](BATCH, 8)

    async def slow(items: list[str]) -> list[str]:
        start = time.perf_counter()
        await anyio.sleep(0.005)
        durations.append(time.perf_counter() - start)
        return items

    async def quick(items: list[str]) -> list[str]:
        waits.append(time.perf_counter() - arrived)
        return items

    waits: list[float] = []
    async with anyio.create_task_group() as group:
        group.start_soon(proxy.map, million, slow)
        for number in range(11):
            await anyio.sleep(0.02 + number * 0.0007)  # at all moments of a call
            arrived = time.perf_counter()
            await proxy.map([f"another {number}"], quick)
        assert len(durations) < len(million) / BATCH, "the large one has ended too soon"
    call = statistics.median(durations)
    return Row(
        f"{backend}: a key arrives while 1,000,000 hold every slot, until it is called for",
        "one call of theirs",
        1.5,
        [wait / call for wait in waits],
        steady=False,  # it depends on when in a call each arrives
    )


def rows() -> Iterator[Row]:
    """Everything above."""
    yield from synchronous()
    yield workers()
    for backend in BACKENDS:
        yield from anyio.run(_collect, backend, backend=backend)
        yield from portal(backend)


async def _collect(backend: Backend) -> list[Row]:
    return [row async for row in asynchronous(backend)]
