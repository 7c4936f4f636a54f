"""Scenarios of what stays in memory: objects are counted that are alive after a collection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

from proof.peers_library import Library
from proof.peers_tools import QUIET, outcome, scenario, settle

LISTS, KEYS = 200, 5  # so many of new keys, and of those in each


class Object:
    """A key, or a result, of which it can be seen whether it is alive."""


class Alive:
    """The keys and results that are alive."""

    def __init__(self) -> None:
        self.keys: weakref.WeakSet[Object] = weakref.WeakSet()
        self.results: weakref.WeakSet[Object] = weakref.WeakSet()

    def new(self) -> list[Object]:
        keys = [Object() for _ in range(KEYS)]
        self.keys.update(keys)
        return keys

    async def answer(self, keys: list[Object]) -> list[Object]:
        results = [Object() for _ in keys]
        self.results.update(results)
        return results

    async def levels_off(self, use: Callable[[], Awaitable[object]]) -> str:
        """After a thousand keys, and a thousand more, as many are alive."""
        kept = []
        for _ in range(2):
            for _ in range(LISTS):
                await use()
            await settle()  # until the event loop, calls and threads have let go of them
            gc.collect()
            kept.append((len(self.keys), len(self.results)))
        assert kept[0] == kept[1], kept
        return f"{kept[0][0]} keys kept"


@scenario("2,000 keys through a cache of 50", "bound")
async def bounded(library: type[Library]) -> str:
    """No more results are kept than the bound says, and the keys become no more, either."""
    alive = Alive()
    subject = library(alive.answer, bound=50)
    kept = await alive.levels_off(lambda: subject.map(alive.new()))
    assert len(alive.results) <= 50
    return kept


@scenario("2,000 keys that fail")
async def failed(library: type[Library]) -> str:
    """Lists that have failed do not pile up."""
    alive = Alive()

    async def call(keys: list[Object]) -> list[Object]:
        raise ValueError("boom")

    subject = library(call)
    return await alive.levels_off(lambda: outcome(asyncio.create_task(subject.map(alive.new()))))


@scenario("2,000 keys of callers who leave", "tasks")
async def left(library: type[Library]) -> str:
    """When their calls are over, neither keys nor results pile up for which nobody waits."""
    alive = Alive()

    async def call(keys: list[Object]) -> list[Object]:
        await asyncio.sleep(QUIET / 4)
        return await alive.answer(keys)

    subject = library(call)

    async def leave() -> None:
        caller = asyncio.create_task(subject.map(alive.new()))
        for _ in range(10):  # until the call is made
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])

    return await alive.levels_off(leave)


@scenario("2,000 keys that are forgotten")
async def forgotten(library: type[Library]) -> str:
    """What clear() takes from the cache is free."""
    alive = Alive()
    subject = library(alive.answer)

    async def forget() -> None:
        await subject.map(alive.new())
        await subject.clear()

    return await alive.levels_off(forget)
