"""Points 8 and 12 of the contract: cancellation of every kind, and checkpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import Calls, Outcomes, VirtualTimeLoop, assert_idle, naive, settle

from batchproxy import AsyncBatchingMapProxy, Cache

with_backends = pytest.mark.anyio


@with_backends
@pytest.mark.parametrize("batch_size", [None, 1])
async def test_waiters_take_over_from_a_cancelled_owner(batch_size: int | None) -> None:
    """The owner leaves at once; one of those who wait calls anew, and the rest wait for it."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [1, 2], calls)
        await settle()
        for number in range(5):
            callers.start(number, proxy.map, [2, 1], calls)
        await settle()
        first = len(calls.batches)
        callers.scopes["owner"].cancel()
        await settle()
        assert callers.results == {"owner": "cancelled"}
        assert sorted(calls.keys) == [1, 1, 2, 2]
        assert calls.running == len(calls.batches) - first
        now = proxy.statistics()
        assert now.in_flight == 2
        calls.open()
    assert [callers.results[number] for number in range(5)] == [["2", "1"]] * 5
    assert sorted(calls.keys) == [1, 1, 2, 2]
    assert_idle(proxy)


@with_backends
async def test_keys_given_up_come_first() -> None:
    """What a cancelled owner leaves is computed in the order of the list, in full batches."""
    proxy = AsyncBatchingMapProxy[int, str](2, 8)
    narrow = AsyncBatchingMapProxy[int, str](2, 1, cache=proxy._engine.cache)
    owner, others = Calls(gated=True), Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [2, 4], owner)
        await settle()
        callers.start("waiter", narrow.map, range(4, -1, -1), others)
        await settle()
        assert others.batches == [[3, 1]]
        callers.scopes["owner"].cancel()
        await settle()
        others.open()
    assert callers.results["waiter"] == naive(range(4, -1, -1))
    assert others.batches == [[3, 1], [4, 2], [0]]
    assert_idle(narrow)


@with_backends
async def test_cancelling_a_waiter_disturbs_nobody() -> None:
    """Neither the call nor the other waiters notice, and the waiter is forgotten."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [1], calls)
        await settle()
        for name in ("leaves", "stays"):
            callers.start(name, proxy.map, [1], calls)
        await settle()
        assert proxy.statistics().waiting == 2
        callers.scopes["leaves"].cancel()
        await settle()
        assert proxy.statistics().waiting == 1
        calls.open()
    assert callers.results == {"owner": ["1"], "leaves": "cancelled", "stays": ["1"]}
    assert calls.batches == [[1]]
    assert_idle(proxy)


@with_backends
@pytest.mark.parametrize("order", [("owner", "waiter"), ("waiter", "owner")])
async def test_owner_and_waiter_cancelled_in_the_same_tick(order: tuple[str, str]) -> None:
    """The third caller takes over, whatever the order."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for name in ("owner", "waiter", "third"):
            callers.start(name, proxy.map, [1], calls)
            await settle()
        for name in order:
            callers.scopes[name].cancel()
        await settle()
        assert calls.batches == [[1], [1]]
        calls.open()
    assert callers.results == {"owner": "cancelled", "waiter": "cancelled", "third": ["1"]}
    assert_idle(proxy)


@with_backends
async def test_everybody_cancelled() -> None:
    """When all who wanted a key are cancelled, nothing of it is left; the next one computes it."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(proxy.map, range(6), calls)
        await settle()
        group.cancel_scope.cancel()
    assert_idle(proxy)
    assert await proxy.map(range(6), Calls()) == naive(range(6))
    assert_idle(proxy)


@with_backends
async def test_cancelled_while_waiting_for_a_slot() -> None:
    """Who is cancelled in the queue leaves it, and takes no slot along."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for number in range(3):
            callers.start(number, proxy.map, [number], calls)
            await settle()
        callers.scopes[1].cancel()
        await settle()
        assert callers.results == {1: "cancelled"}
        calls.open()
    assert callers.results == {0: ["0"], 1: "cancelled", 2: ["2"]}
    assert calls.batches == [[0], [2]]
    assert_idle(proxy)


@with_backends
async def test_finished_batches_survive_a_cancellation() -> None:
    """Batches that had answered stay cached, also of a map() that is cancelled."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, range(3), calls)
        await settle()
        calls.finish(0)
        await settle()
        callers.scopes["owner"].cancel()
    assert calls.batches == [[0], [1]]
    assert proxy.statistics().cached == 1
    assert_idle(proxy)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
@with_backends
async def test_a_time_limit() -> None:
    """A map() that takes too long is cut short in time, an hour of which passes at once."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)

    async def slow(items: list[int]) -> list[str]:
        await anyio.sleep(1000 * items[0])
        return naive(items)

    with anyio.move_on_after(2500) as scope:
        await proxy.map([1, 2, 3, 4], slow)
    assert scope.cancelled_caught
    assert proxy.statistics().cached == 2
    assert_idle(proxy)
    with anyio.fail_after(3500):
        assert await proxy.map([1, 2, 3], slow) == ["1", "2", "3"]


@with_backends
async def test_cancelled_before_it_began() -> None:
    """In a cancelled scope a map() raises at its first checkpoint, and calls nothing."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = Calls()
    await proxy.map([1], calls)
    for items in ([], [1], [1, 2]):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await proxy.map(items, calls)
            raise AssertionError("every map() is a checkpoint")
        assert scope.cancelled_caught
    assert calls.batches == [[1]]
    assert_idle(proxy)


@with_backends
@pytest.mark.parametrize("items", [[], [1, 1]])
async def test_hits_let_others_run(items: list[int]) -> None:
    """An empty list and a list of hits are checkpoints, too: others get their turn."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = Calls()
    await proxy.map([1], calls)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(10):
            await proxy.map(items, calls)
        group.cancel_scope.cancel()
    assert turns >= 5


@with_backends
async def test_a_function_that_never_awaits_does_not_block() -> None:
    """Between the calls of such a function others run, and a cancellation is noticed."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)
    batches = []

    async def never_awaits(items: list[int]) -> list[str]:
        batches.append(items)
        if len(batches) == 3:
            scope.cancel()
        return naive(items)

    with anyio.CancelScope() as scope:
        await proxy.map(range(1000), never_awaits)
    assert batches == [[0], [1], [2]]
    assert proxy.statistics().cached == 3  # what was finished is kept
    assert_idle(proxy)


# --- asyncio's own cancellation -----------------------------------------------------------------


def run(main: Any) -> None:
    with asyncio.Runner(debug=True, loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_task_that_is_cancelled(batch_size: int | None) -> None:
    """`task.cancel()` of an owner: its keys are free, a waiter takes over."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str](batch_size)
        calls = Calls(gated=True)
        owner = asyncio.create_task(proxy.map([1, 2], calls))
        await settle()
        waiter = asyncio.create_task(proxy.map([2, 1], calls))
        await settle()
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        await settle()
        calls.open()
        assert await waiter == ["2", "1"]
        assert sorted(calls.keys) == [1, 1, 2, 2]
        assert_idle(proxy)

    run(main)


def test_a_waiting_task_that_is_cancelled() -> None:
    """`task.cancel()` and `asyncio.timeout` of waiters disturb nobody."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str]()
        calls = Calls(gated=True)
        owner = asyncio.create_task(proxy.map([1], calls))
        await settle()
        waiter = asyncio.create_task(proxy.map([1], calls))
        await settle()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await proxy.map([1], calls)
        assert proxy.statistics().waiting == 0
        calls.open()
        assert await owner == ["1"]
        assert calls.batches == [[1]]
        assert_idle(proxy)

    run(main)


def test_a_cancellation_in_the_tick_of_a_failure_is_not_swallowed() -> None:
    """A task cancelled while its map() is failing ends cancelled, or failed; never unharmed."""

    async def main() -> None:
        for ticks in range(12):
            proxy = AsyncBatchingMapProxy[int, str](1, 2)
            calls = Calls(gated=True)

            async def caller(
                proxy: AsyncBatchingMapProxy[int, str] = proxy, calls: Calls = calls
            ) -> str:
                try:
                    await proxy.map([1, 2], calls)
                except ValueError:
                    await asyncio.sleep(0)  # a cancellation that came too late is due here
                    return "failed"
                raise AssertionError

            task = asyncio.create_task(caller())
            await settle()
            calls.fail(0, ValueError("boom"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            cancelled = task.cancel()
            try:
                assert await task == "failed"
                assert not cancelled, "a cancellation was swallowed"
            except asyncio.CancelledError:
                assert cancelled
            assert_idle(proxy)

    run(main)


def test_the_loop_is_shut_down() -> None:
    """`asyncio.run` that ends with maps under way cancels them, and nothing is left in flight."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](1, 2, cache=cache)
    tasks: list[Any] = []

    async def main() -> None:
        calls = Calls(gated=True)
        tasks.extend(asyncio.create_task(proxy.map(range(5), calls)) for _ in range(3))
        await settle()
        assert proxy.statistics().in_flight == 2

    asyncio.run(main())
    assert all(task.cancelled() for task in tasks)
    assert_idle(proxy)
    assert repr(cache) == "<Cache: 0 values, 0 keys in flight, 0 waiting>"
