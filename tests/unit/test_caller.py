"""Which calls some code is inside of."""

from typing import Any

import anyio
import pytest
from tools import settle, step, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, CircularWaitError
from batchproxy._engine.caller import innermost
from batchproxy.testing import AsyncCalls, assert_idle


@pytest.mark.parametrize("face", [AsyncBatchingMapProxy, BatchingMapProxy])
async def test_after_a_map_its_caller_is_inside_no_call(face: Any) -> None:
    """Whether it succeeded or failed; and inside one while the function runs."""
    proxy = face()
    inside: list[bool] = []

    def fetch(items: list[int]) -> list[str]:
        inside.append(innermost.get() is not None)
        return [str(1 // item) for item in items]

    async def fetch_later(items: list[int]) -> list[str]:
        return fetch(items)

    async def mapped(item: int) -> None:
        if face is BatchingMapProxy:
            proxy.map([item], fetch)
        else:
            await proxy.map([item], fetch_later)

    await mapped(1)
    assert innermost.get() is None
    with pytest.raises(ZeroDivisionError):
        await mapped(0)
    assert innermost.get() is None
    assert inside == [True, True]


async def test_who_was_left_behind_by_a_nested_call_is_still_inside_the_outer_one() -> None:
    """A task that a nested call left behind gets an error for a key of the call around that."""
    proxy = AsyncBatchingMapProxy[str, str]()
    nested_has_ended = anyio.Event()
    flights: list[object] = []

    async def outer(items: list[str]) -> list[str]:
        await proxy.map(["nested"], nested)
        nested_has_ended.set()
        await settle()  # not until the task left behind has ended: that may wait for this call
        assert isinstance(callers.results["left behind"], CircularWaitError)
        return items

    async def nested(items: list[str]) -> list[str]:
        nest = innermost.get()
        assert nest is not None
        flights.append(nest())  # as a waiter does that has not looked yet
        callers.start("left behind", left_behind)
        return items

    async def left_behind() -> list[str]:
        await nested_has_ended.wait()
        return await proxy.map(["outer"], AsyncCalls())

    async with together(proxy) as callers:
        assert await proxy.map(["outer"], outer) == ["outer"]
    assert "'outer' is being computed" in str(callers.results["left behind"])


async def test_who_was_left_behind_without_a_slot_takes_one_like_anybody() -> None:
    """When the slot of its parent has gone back, a task left behind queues for another."""
    proxy = AsyncBatchingMapProxy[str, str](None, 1)
    blocker, inner = AsyncCalls(gated=True), AsyncCalls()
    async with anyio.create_task_group() as group:
        ended = anyio.Event()

        async def left_behind() -> None:
            await ended.wait()
            await proxy.map(["left behind"], inner)

        async def outer(items: list[str]) -> list[str]:
            nest = innermost.get()
            assert nest is not None
            flights.append(nest())  # as a waiter does that has not looked yet
            group.start_soon(left_behind)
            return items

        flights: list[object] = []
        await proxy.map(["outer"], outer)
        group.start_soon(proxy.map, ["blocker"], blocker)
        await settle()
        await step(ended.set)
        assert inner.batches == []
        blocker.open()
    assert inner.batches == [["left behind"]]
    assert_idle(proxy)
