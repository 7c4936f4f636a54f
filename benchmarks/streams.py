"""What does a stream cost beside a map(), and how much memory does it take?

A million distinct items, in batches of 1,000, through a window of 10,000, with a function that does
next to nothing, and a cache that keeps nothing but where all is kept. The results of `map()` are
gone through, too. Prints the tables, of processor time, in which others on the machine count for
little.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

ITEMS, BATCH, WINDOW, ROUNDS = 1_000_000, 1_000, 10_000, 5


async def fetch(items: list[int]) -> list[str]:
    """The function: a result of its own for each item."""
    return [str(item) for item in items]


def fetch_sync(items: list[int]) -> list[str]:
    """The same for the synchronous proxy."""
    return [str(item) for item in items]


def proxy(most: int | None = 0) -> AsyncBatchingMapProxy[int, str]:
    """A new one."""
    return AsyncBatchingMapProxy(BATCH, cache=Cache(most))


async def mapped(count: int, most: int | None = 0) -> None:
    """All at once."""
    items = list(range(count))
    for _ in zip(items, await proxy(most).map(items, fetch)):
        pass


async def streamed(count: int, most: int | None = 0) -> None:
    """Pair by pair."""
    async with proxy(most).stream(range(count), fetch, window=WINDOW) as results:
        async for _ in results:
            pass


async def unordered(count: int) -> None:
    """The same, as they finish."""
    async with proxy().stream(range(count), fetch, window=WINDOW, ordered=False) as results:
        async for _ in results:
            pass


async def chunked(count: int, most: int | None = 0) -> None:
    """Chunk by chunk."""
    async with proxy(most).stream(range(count), fetch, window=WINDOW) as results:
        async for chunk in results.chunks():
            for _ in chunk:
                pass


async def mapped_sync(count: int) -> None:
    """All at once, by the synchronous proxy."""
    items = list(range(count))
    for _ in zip(items, BatchingMapProxy[int, str](BATCH, cache=Cache(0)).map(items, fetch_sync)):
        pass


async def streamed_sync(count: int) -> None:
    """Pair by pair, by the synchronous proxy."""
    stream = BatchingMapProxy[int, str](BATCH, cache=Cache(0)).stream(
        range(count), fetch_sync, window=WINDOW
    )
    with stream as results:
        for _ in results:
            pass


WAYS: list[
    tuple[str, Callable[[int], Awaitable[None]], Callable[[int], Awaitable[None]], float]
] = [
    ("async for", streamed, mapped, 0.8),
    ("async for, ordered=False", unordered, mapped, 0.0),
    ("chunks()", chunked, mapped, 0.8),
    ("async for, all is kept", partial(streamed, most=None), partial(mapped, most=None), 0.8),
    ("chunks(), all is kept", partial(chunked, most=None), partial(mapped, most=None), 0.8),
    ("sync: for", streamed_sync, mapped_sync, 0.8),
]


def seconds(way: Callable[[int], Awaitable[None]]) -> float:
    """Of a processor, without the collector."""
    gc.collect()
    gc.disable()
    try:
        start = process_time()
        asyncio.run(way(ITEMS))  # type: ignore[arg-type] # it is a coroutine
        return process_time() - start
    finally:
        gc.enable()


def most_memory(way: Callable[[int], Awaitable[None]], count: int) -> float:
    """MiB at the worst moment."""
    tracemalloc.start()
    asyncio.run(way(count))  # type: ignore[arg-type] # as above
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def main() -> None:
    """Measure, alternating, and print the table."""
    asyncio.run(streamed(WINDOW))
    print("| way | speed of map() = 1, at least | best of", ROUNDS, "| reached |")
    print("|---|--:|--:|---|")
    for name, way, limit, least in WAYS:
        times = [(seconds(limit), seconds(way)) for _ in range(ROUNDS)]
        ratio = min(time for time, _ in times) / min(time for _, time in times)
        print(f"| {name} | {least or ''} | {ratio:.2f} | {'yes' if ratio >= least else 'no'} |")
    print("\n| memory at most, MiB | 100,000 items | 400,000 items |\n|---|--:|--:|")
    for name, way in (("map()", mapped), ("stream(), chunks()", chunked)):
        small, large = (most_memory(way, count) for count in (100_000, 400_000))
        print(f"| {name} | {small:.1f} | {large:.1f} |")


if __name__ == "__main__":
    main()
