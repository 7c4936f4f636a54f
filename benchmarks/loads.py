"""What do single keys cost, each asked for in a task of its own, as handlers do?

The limits are a checkpoint, `map()` of one item, and the loaders that people use today, which run
on asyncio alone. Beside the time it is counted how many calls keys make that come a few turns of
the event loop apart.

    python benchmarks/loads.py          the table, and the calls
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from measuring import HEADING, Row, ratios_async
from peers import installed
from work import BACKENDS, Backend, items

from batchproxy import AsyncBatchingMapProxy

BATCH, HANDLERS = 100, 1_000
KEYS = items(HANDLERS)
LOADERS = {"aiodataloader": "aiodataloader", "strawberry-graphql": "strawberry.dataloader"}

Load = Callable[[str], Awaitable[Any]]
Fetch = Callable[[list[str]], Awaitable[list[str]]]


async def fetch(keys: list[str]) -> list[str]:
    await checkpoint()
    return keys.copy()


def ours(function: Fetch) -> Load:
    return AsyncBatchingMapProxy[str, str](BATCH).bind(function).load


def _loader(module: str) -> Callable[[Fetch], Load]:
    def new(function: Fetch) -> Load:
        loader = importlib.import_module(module).DataLoader(function, max_batch_size=BATCH)

        async def load(key: str) -> Any:
            return await loader.load(key)

        return load

    return new


def loaders() -> dict[str, Callable[[Fetch], Load]]:
    """Those that are installed."""
    here = installed()
    return {name: _loader(module) for name, module in LOADERS.items() if name in here}


async def in_tasks(load: Load, keys: list[str]) -> None:
    async with anyio.create_task_group() as group:
        for key in keys:
            group.start_soon(load, key)  # type: ignore[arg-type] # a coroutine is awaitable


async def one_after_another(load: Callable[[str], Awaitable[object]]) -> None:
    for key in KEYS:
        await load(key)


async def rows_of(backend: Backend) -> AsyncIterator[Row]:
    """What a load costs: known, alone, one of many."""
    users = AsyncBatchingMapProxy[str, str](BATCH).bind(fetch)
    await users.map(KEYS)

    async def checkpoints() -> None:
        for _ in KEYS:
            await checkpoint()

    yield Row(
        f"{backend}: load() of a known key",
        "checkpoint",
        1.4,
        await ratios_async(lambda: one_after_another(users.load), checkpoints),
    )
    alone, mapped = (AsyncBatchingMapProxy[str, str](BATCH).bind(fetch) for _ in range(2))

    def forget() -> None:
        alone.proxy.cache.clear()
        mapped.proxy.cache.clear()

    yield Row(
        f"{backend}: a lone load() after another",
        "map() of one item",
        1.1,
        await ratios_async(
            lambda: one_after_another(alone.load),
            lambda: one_after_another(lambda key: mapped.map([key])),
            before=forget,
        ),
    )
    many = items(100 * HANDLERS)
    ratios = await ratios_async(
        lambda: in_tasks(ours(fetch), many), lambda: in_tasks(ours(fetch), KEYS), rounds=3
    )
    yield Row(
        f"{backend}: a load() of 100,000 at once",
        "one of 1,000",
        1.5,
        [ratio / 100 for ratio in ratios],
    )
    if backend == "asyncio":
        for name, new in loaders().items():
            yield Row(
                f"{backend}: 1,000 load() in tasks at once",
                name,
                1.5 if name == "aiodataloader" else None,
                await ratios_async(
                    lambda: in_tasks(ours(fetch), KEYS),
                    lambda new=new: in_tasks(new(fetch), KEYS),  # type: ignore[misc] # its default
                ),
            )


def rows() -> Iterator[Row]:
    """Everything above."""
    for backend in BACKENDS:
        yield from anyio.run(_collect, backend, backend=backend)


async def _collect(backend: Backend) -> list[Row]:
    return [row async for row in rows_of(backend)]


async def calls_of(new: Callable[[Fetch], Load], gap: int) -> list[int]:
    """The batches that a thousand keys make that come so many turns apart, ten in each."""
    batches: list[int] = []

    async def counted(keys: list[str]) -> list[str]:
        batches.append(len(keys))
        return await fetch(keys)

    load = new(counted)

    async def handler(number: int) -> None:
        for _ in range(number // 10 * gap):
            await checkpoint()
        await load(KEYS[number])

    async with anyio.create_task_group() as group:
        for number in range(HANDLERS):
            group.start_soon(handler, number)
    return batches


def main() -> None:
    print(HEADING)
    for row in rows():
        print(row, flush=True)
    print("\nCalls that 1,000 keys make, ten in a turn of the event loop, turns apart: 0, 1, 2, 3")
    for backend in BACKENDS:
        for name, new in {
            "batchproxy": ours,
            **(loaders() if backend == "asyncio" else {}),
        }.items():
            calls = [len(anyio.run(calls_of, new, gap, backend=backend)) for gap in range(4)]
            print(f"{backend}, {name}:", *calls)


if __name__ == "__main__":
    main()
