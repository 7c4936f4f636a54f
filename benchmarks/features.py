"""What does each option cost? The same list, with it and without."""

from __future__ import annotations

from collections import UserDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio
from measuring import Row, ratios_async
from work import BATCH, ITEMS, fetch_async

from batchproxy import AsyncBatchingMapProxy, Cache

LIMIT = sum(map(len, ITEMS)) * BATCH // len(ITEMS)  # what a batch weighs, about

New = Callable[[], AsyncBatchingMapProxy[str, str]]

OPTIONS: dict[str, New] = {
    "key=": lambda: AsyncBatchingMapProxy(BATCH, key=lambda item: item),
    "ttl=3600": lambda: AsyncBatchingMapProxy(BATCH, cache=Cache(ttl=3600)),
    "max_size=100,000": lambda: AsyncBatchingMapProxy(BATCH, cache=Cache(len(ITEMS))),
    "a dict of one's own": lambda: AsyncBatchingMapProxy(BATCH, cache={}),
    "a UserDict": lambda: AsyncBatchingMapProxy(BATCH, cache=UserDict[str, str]()),
    "batches of 100": lambda: AsyncBatchingMapProxy(100),
    "batches of 10": lambda: AsyncBatchingMapProxy(10),
}


def plain() -> AsyncBatchingMapProxy[str, str]:
    return AsyncBatchingMapProxy(BATCH)


def cold(new: New, items: list[str]) -> Callable[[], Awaitable[Any]]:
    return lambda: new().map(items, fetch_async)


async def hits(new: New) -> Callable[[], Awaitable[Any]]:
    proxy = new()
    await proxy.map(ITEMS, fetch_async)
    return lambda: proxy.map(ITEMS, fetch_async)


async def options() -> AsyncIterator[Row]:
    """Each option against a proxy in batches of 1,000 without it."""
    for name, new in OPTIONS.items():
        yield Row(
            f"100,000 cold, {name}",
            "without",
            None,
            await ratios_async(cold(new, ITEMS), cold(plain, ITEMS), rounds=7),
        )
        if "batches" not in name:
            yield Row(
                f"100,000 hits, {name}",
                "without",
                None,
                await ratios_async(await hits(new), await hits(plain), rounds=7),
            )


async def weights() -> AsyncIterator[Row]:
    """A limit that no batch reaches, and one that cuts every batch, into as many as without it."""
    limits = {
        "a limit of weight not reached": (BATCH, 2 * LIMIT, 1.15),
        "a limit of weight cuts each batch": (2 * BATCH, LIMIT, 1.3),
    }
    for name, (size, limit, at_most) in limits.items():
        new = partial(AsyncBatchingMapProxy[str, str], size, weight=len, max_weight=limit)
        yield Row(
            f"100,000 cold, {name}",
            "without",
            at_most,
            await ratios_async(cold(new, ITEMS), cold(plain, ITEMS), rounds=21),
        )


async def repeated() -> Row:
    """Items that repeat are looked up in the order asked for."""
    twice = ITEMS[: len(ITEMS) // 2] * 2
    return Row(
        "50,000 cold, each asked for twice",
        "100,000 cold",
        None,
        await ratios_async(cold(plain, twice), cold(plain, ITEMS), rounds=7),
    )


def rows() -> Iterator[Row]:
    """Everything above, under asyncio."""
    yield from anyio.run(_collect)


async def _collect() -> list[Row]:
    return [
        *[row async for row in options()],
        *[row async for row in weights()],
        await repeated(),
    ]
