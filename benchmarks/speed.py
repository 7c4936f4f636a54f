"""What does the library itself cost? Ratios to the work that nobody can avoid.

`python benchmarks/speed.py` prints one markdown table, in about a minute. Each row runs a contender
and its limit in turn, several rounds, the collector off, and gives the median of the rounds' ratios
and their range. Seconds of one row are not comparable with those of another; ratios are.

The limits: *hits*, one dict look-up per item; *cold*, telling the distinct items, cutting them into
batches, calling the function, keeping its answers in a dict, and the look-ups; *checkpoint*, one
trip through the scheduler, without or with a bare call of the function; *portal*, one empty
`portal.call`, which is what a synchronous library pays to reach an event loop at all.
"""

from __future__ import annotations

import gc
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

ITEMS = [f"item number {number}" for number in range(100_000)]
BATCH = 1_000
ROUNDS = 11
TIMES = 500  # repetitions of what takes microseconds

Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, Backend] = ("asyncio", "trio")


def fetch(items: list[str]) -> list[str]:
    return items.copy()


async def fetch_async(items: list[str]) -> list[str]:
    return items.copy()


# --- Limits -------------------------------------------------------------------------------------


def hits_limit(known: dict[str, str]) -> list[str]:
    return [known[item] for item in ITEMS]


def cold_limit() -> list[str]:
    distinct = list(dict.fromkeys(ITEMS))
    known: dict[str, str] = {}
    for start in range(0, len(distinct), BATCH):
        batch = distinct[start : start + BATCH]
        known.update(zip(batch, fetch(batch)))
    return [known[item] for item in ITEMS]


# --- Measuring ----------------------------------------------------------------------------------


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


async def seconds_async(function: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await function()
    return time.perf_counter() - start


def report(row: str, ratios: list[float]) -> None:
    low, high = min(ratios), max(ratios)
    print(
        f"| {row:72} | {statistics.median(ratios):5.2f} | {low:5.2f} to {high:5.2f} |", flush=True
    )


def compare(row: str, contender: Callable[[], object], limit: Callable[[], object]) -> None:
    gc.collect()
    gc.disable()
    report(row, [seconds(contender) / seconds(limit) for _ in range(ROUNDS)])
    gc.enable()


async def compare_async(
    row: str,
    contender: Callable[[], Awaitable[object]],
    limit: Callable[[], Awaitable[object]],
) -> None:
    gc.collect()
    gc.disable()
    rounds = range(ROUNDS)
    report(row, [await seconds_async(contender) / await seconds_async(limit) for _ in rounds])
    gc.enable()


# --- Rows ---------------------------------------------------------------------------------------


def synchronous() -> None:
    known = dict(zip(ITEMS, ITEMS))
    for name, max_size in (("", None), (", Cache(max_size=200_000)", 200_000)):
        proxy = BatchingMapProxy[str, str](BATCH, cache=Cache(max_size))
        proxy.map(ITEMS, fetch)
        compare(
            f"sync: 100,000 hits{name} / hits",
            lambda proxy=proxy: proxy.map(ITEMS, fetch),  # type: ignore[misc] # its default
            lambda: hits_limit(known),
        )
        compare(
            f"sync: 100,000 cold in batches of 1,000{name} / cold",
            lambda max_size=max_size: BatchingMapProxy[str, str](  # type: ignore[misc] # its default
                BATCH, cache=Cache(max_size)
            ).map(ITEMS, fetch),
            cold_limit,
        )


def through_the_portal(backend: Backend) -> None:
    one = BatchingMapProxy[str, str](cache=Cache(max_size=0), backend=backend)
    many = BatchingMapProxy[str, str](10, cache=Cache(max_size=0), backend=backend)
    with start_blocking_portal(backend) as portal:

        def empty_calls() -> None:
            for _ in range(TIMES):
                portal.call(checkpoint)

        def one_key_misses() -> None:
            for _ in range(TIMES):
                one.map(ITEMS[:1], fetch)

        compare(f"sync, {backend}: one-key miss / portal", one_key_misses, empty_calls)
        compare(
            f"sync, {backend}: one map() of {TIMES} batches of 10 / as many portal",
            lambda: many.map(ITEMS[: 10 * TIMES], fetch),
            empty_calls,
        )


async def asynchronous(backend: Backend) -> None:
    known = dict(zip(ITEMS, ITEMS))
    proxy = AsyncBatchingMapProxy[str, str](BATCH)
    await proxy.map(ITEMS, fetch_async)

    async def hits() -> Any:
        return hits_limit(known)

    async def cold() -> Any:
        return cold_limit()

    async def checkpoints() -> None:
        for _ in range(TIMES):
            await checkpoint()

    async def checkpoints_and_calls() -> None:
        for _ in range(TIMES):
            await checkpoint()
            await fetch_async(ITEMS[:1])

    async def one_key_hits() -> None:
        for _ in range(TIMES):
            await proxy.map(ITEMS[:1], fetch_async)

    await compare_async(
        f"{backend}: 100,000 hits / hits", lambda: proxy.map(ITEMS, fetch_async), hits
    )
    await compare_async(
        f"{backend}: 100,000 cold in batches of 1,000 / cold",
        lambda: AsyncBatchingMapProxy[str, str](BATCH).map(ITEMS, fetch_async),
        cold,
    )
    await compare_async(f"{backend}: one-key hit / checkpoint", one_key_hits, checkpoints)
    for max_concurrency in (8, 512):
        forgetful = AsyncBatchingMapProxy[str, str](None, max_concurrency, cache=Cache(max_size=0))

        async def one_key_misses(proxy: AsyncBatchingMapProxy[str, str] = forgetful) -> None:
            for _ in range(TIMES):
                await proxy.map(ITEMS[:1], fetch_async)

        await compare_async(
            f"{backend}: one-key miss, max_concurrency={max_concurrency} / checkpoint and call",
            one_key_misses,
            checkpoints_and_calls,
        )


def main() -> None:
    print(
        f"CPython {platform.python_version()}, anyio, {sys.platform}; medians of {ROUNDS} rounds\n"
    )
    print(f"| {'what / its limit':72} | ratio |      range     |")
    print(f"|{'-' * 74}|------:|---------------:|")
    synchronous()
    for backend in BACKENDS:
        anyio.run(asynchronous, backend, backend=backend)
        through_the_portal(backend)


if __name__ == "__main__":
    main()
