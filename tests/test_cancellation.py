"""Points 8 and 12 of the contract: cancellation of every kind, and checkpoints."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import Outcomes, VirtualTimeLoop, naive, settle

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, assert_idle

with_backends = pytest.mark.anyio


@with_backends
@pytest.mark.parametrize("batch_size", [None, 1])
async def test_waiters_take_over_from_a_cancelled_owner(batch_size: int | None) -> None:
    """The owner leaves at once; one of those who wait calls anew, and the rest wait for it."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = AsyncCalls(gated=True)
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
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](2, 8, cache=cache)
    narrow = AsyncBatchingMapProxy[int, str](2, 1, cache=cache)
    owner, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
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
    calls = AsyncCalls(gated=True)
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
    calls = AsyncCalls(gated=True)
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
    calls = AsyncCalls(gated=True)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(proxy.map, range(6), calls)
        await settle()
        group.cancel_scope.cancel()
    assert_idle(proxy)
    assert await proxy.map(range(6), AsyncCalls()) == naive(range(6))
    assert_idle(proxy)


@with_backends
async def test_cancelled_while_waiting_for_a_slot() -> None:
    """Who is cancelled in the queue leaves it, and takes no slot along."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = AsyncCalls(gated=True)
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
async def test_cancelled_as_its_slot_arrives() -> None:
    """Who is cancelled about when it is given a slot hands it on to the next in the queue."""
    for ticks in range(8):
        proxy = AsyncBatchingMapProxy[int, str](None, 1)
        calls = AsyncCalls(gated=True)
        async with anyio.create_task_group() as group:
            callers = Outcomes(group)
            for number in range(3):
                callers.start(number, proxy.map, [number], calls)
                await settle()
            calls.open()
            await settle(ticks)
            callers.scopes[1].cancel()
        assert callers.results[0] == ["0"]
        assert callers.results[1] in (["1"], "cancelled")
        assert callers.results[2] == ["2"]
        assert_idle(proxy)


@with_backends
@pytest.mark.parametrize("name", ["owner", "waiter", "queued", "overlapping"])
@pytest.mark.parametrize("batch_size", [None, 1])
async def test_cancelled_at_any_moment(name: str, batch_size: int | None) -> None:
    """Whenever one of several callers is cancelled, the others get their answers."""
    for ticks in range(25):
        proxy = AsyncBatchingMapProxy[int, str](batch_size, 1)
        calls = AsyncCalls()
        wanted = {"owner": [1, 2], "waiter": [2, 1], "queued": [3], "overlapping": [4, 3, 2, 1]}
        async with anyio.create_task_group() as group:
            callers = Outcomes(group)
            for caller, items in wanted.items():
                callers.start(caller, proxy.map, items, calls)
            await settle(ticks)
            if name in callers.scopes:
                callers.scopes[name].cancel()
        result = callers.results.pop(name)
        assert result in ("cancelled", naive(wanted.pop(name)))
        assert callers.results == {caller: naive(items) for caller, items in wanted.items()}
        assert calls.most_running == 1
        assert_idle(proxy)


@with_backends
async def test_cancelled_with_a_nested_call_under_way() -> None:
    """The keys of every level are free, and the slot that they shared is back."""
    proxy = AsyncBatchingMapProxy[str, str](1, 1)
    inner = AsyncCalls(gated=True)

    async def outer(items: list[str]) -> list[str]:
        return await proxy.map([f"{item}, inner" for item in items], inner)

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, ["a", "b"], outer)
        await settle()
        assert proxy.statistics().in_flight == 2
        callers.start("of the outer key", proxy.map, ["a"], outer)
        callers.start("of the inner key", proxy.map, ["a, inner"], inner)
        await settle()
        callers.scopes["owner"].cancel()
        await settle()
        assert callers.results == {"owner": "cancelled"}
        inner.open()
    assert callers.results["of the outer key"] == ["a, inner"]
    assert callers.results["of the inner key"] == ["a, inner"]
    assert inner.batches == [["a, inner"], ["a, inner"]]
    assert_idle(proxy)


@with_backends
async def test_finished_batches_survive_a_cancellation() -> None:
    """Batches that had answered stay cached, also of a map() that is cancelled."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)
    calls = AsyncCalls(gated=True)
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
    calls = AsyncCalls()
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
    calls = AsyncCalls()
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


@with_backends
@pytest.mark.parametrize("max_concurrency", [1, 2])
async def test_others_run_between_calls(max_concurrency: int) -> None:
    """Between the calls of a function that never awaits others get their turn."""
    proxy = AsyncBatchingMapProxy[int, str](1, max_concurrency)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async def never_awaits(items: list[int]) -> list[str]:
        seen.append(turns)
        return naive(items)

    seen: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await proxy.map(range(20), never_awaits)
        group.cancel_scope.cancel()
    assert seen[-1] - seen[0] >= 20 // max_concurrency - 2


@with_backends
@pytest.mark.parametrize("how", ["scope", "failure"])
async def test_an_error_in_the_clean_up_of_a_cancelled_call(how: str) -> None:
    """It is its own map()'s; who waits for the keys takes over, as from any cancelled call."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    fail = anyio.Event()

    async def fetch(items: list[int]) -> list[str]:
        if items == [1]:
            await fail.wait()
            raise ValueError("boom")
        try:
            await anyio.sleep_forever()
        finally:
            try:
                raise LookupError
            except LookupError:
                raise OSError("clean-up") from None

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [1, 2], fetch)
        await settle()
        callers.start("waiter", proxy.map, [2], AsyncCalls())
        await settle()
        if how == "scope":
            callers.scopes["owner"].cancel()
        else:
            fail.set()
    assert callers.results["waiter"] == ["2"]
    if how == "failure":
        assert isinstance(callers.results["owner"], ValueError)
        assert "clean-up" in callers.results["owner"].__notes__[0]
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
        calls = AsyncCalls(gated=True)
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
        calls = AsyncCalls(gated=True)
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


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_timeout_of_the_owner(batch_size: int | None) -> None:
    """`asyncio.timeout` counts as any cancellation; who waits takes over."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str](batch_size)
        calls = AsyncCalls(gated=True)

        async def owner() -> int:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3600):
                    await proxy.map([1, 2], calls)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        owning = asyncio.create_task(owner())
        await settle()
        waiter = asyncio.create_task(proxy.map([2, 1], calls))
        await settle()
        assert await owning == 0
        await settle()
        calls.open()
        assert await waiter == ["2", "1"]
        assert sorted(calls.keys) == [1, 1, 2, 2]
        assert_idle(proxy)

    run(main)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 2), (2, 1, 0)])
def test_tasks_cancelled_in_the_same_tick(order: tuple[int, ...]) -> None:
    """Owner, waiter and who queues for the slot: natively cancelled together, all leave."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str](None, 1)
        calls = AsyncCalls(gated=True)
        tasks = []
        for key in (1, 1, 2, 1):
            tasks.append(asyncio.create_task(proxy.map([key], calls)))
            await settle()
        for number in order:
            tasks[number].cancel()
        await settle()
        calls.open()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number in order:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == [["1"], ["1"], ["2"], ["1"]][number]
        assert sorted(calls.keys) == [1, 1] + [2] * (2 not in order)
        assert_idle(proxy)

    run(main)


def test_a_failure_in_the_clean_up_is_in_the_list() -> None:
    """A cancelled call that raises instead has failed, also where failures are answers."""

    async def raises_instead(items: list[int]) -> list[str]:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise ValueError("in the clean-up") from None
        raise AssertionError

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str]()
        task = asyncio.create_task(proxy.map([1, 2, 1], raises_instead, return_exceptions=True))
        await settle()
        task.cancel()
        answers = await task
        assert [repr(answer) for answer in answers] == ["ValueError('in the clean-up')"] * 3
        assert_idle(proxy)

    run(main)


def test_a_task_cancelled_at_any_moment() -> None:
    """Whenever a map() of several batches is natively cancelled, another that overlaps goes on."""

    async def main() -> None:
        for ticks in range(25):
            proxy = AsyncBatchingMapProxy[int, str](1, 2)
            calls = AsyncCalls()
            owner = asyncio.create_task(proxy.map(range(4), calls))
            other = asyncio.create_task(proxy.map(range(5, 0, -1), calls))
            await settle(ticks)
            cancelled = owner.cancel()
            result, others = await asyncio.gather(owner, other, return_exceptions=True)
            if cancelled:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == naive(range(4))
            assert others == naive(range(5, 0, -1))
            assert calls.most_running <= 2
            assert_idle(proxy)

    run(main)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of anyio
@pytest.mark.parametrize("how_many", [1, 2])
def test_tasks_of_a_map_cancelled_at_any_moment(how_many: int) -> None:
    """Whoever cancels the tasks that a map() started, also before their first step, cancels it."""

    async def main() -> None:
        for ticks in range(15):
            proxy = AsyncBatchingMapProxy[int, str](1, 2)
            calls = AsyncCalls()
            before = asyncio.all_tasks()
            owner = asyncio.create_task(proxy.map(range(4), calls))
            await settle(ticks)
            started = list(asyncio.all_tasks() - before - {owner})[:how_many]
            for task in started:
                task.cancel()
            [result] = await asyncio.gather(owner, return_exceptions=True)
            if started:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == naive(range(4))
            assert_idle(proxy)
            assert await proxy.map(range(4), AsyncCalls()) == naive(range(4))

    run(main)
    gc.collect()  # here, where the warning is expected


@pytest.mark.parametrize("batch_size", [None, 1])
def test_cancelled_again_during_clean_up(batch_size: int | None) -> None:
    """A second `task.cancel()`, while the function cleans up, loses nothing either."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str](batch_size, 2)
        clean_up = asyncio.Event()

        async def fetch(items: list[int]) -> list[str]:
            try:
                await asyncio.Event().wait()
            finally:
                await clean_up.wait()
            raise AssertionError

        owner = asyncio.create_task(proxy.map([1, 2], fetch))
        await settle()
        waiter = asyncio.create_task(proxy.map([1, 2], AsyncCalls()))
        await settle()
        owner.cancel()
        await settle()
        # A scope (that of several calls) cancels again and again, so that there it is done by now.
        assert owner.done() is (batch_size is not None)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        assert await waiter == ["1", "2"]
        assert_idle(proxy)

    run(main)


def test_a_cancellation_in_the_tick_of_a_failure_is_not_swallowed() -> None:
    """A task cancelled while its map() is failing ends cancelled, or failed; never unharmed."""

    async def main() -> None:
        for ticks in range(12):
            proxy = AsyncBatchingMapProxy[int, str](1, 2)
            calls = AsyncCalls(gated=True)

            async def caller(
                proxy: AsyncBatchingMapProxy[int, str] = proxy, calls: AsyncCalls = calls
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


def test_a_time_limit_of_the_function_is_a_failure() -> None:
    """A function that gives up by itself has failed, and those who wait share its failure."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str]()
        batches = []

        async def fetch(items: list[int]) -> list[str]:
            batches.append(items)
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
            raise AssertionError

        tasks = [asyncio.create_task(proxy.map([1], fetch)) for _ in range(5)]
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert batches == [[1]]
        assert {type(error) for error in errors} == {TimeoutError}
        assert len(set(map(id, errors))) == 1
        assert_idle(proxy)

    run(main)


def test_the_loop_is_shut_down() -> None:
    """`asyncio.run` that ends with maps under way cancels them, and nothing is left in flight."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](1, 2, cache=cache)
    tasks: list[Any] = []

    async def main() -> None:
        calls = AsyncCalls(gated=True)
        tasks.extend(asyncio.create_task(proxy.map(range(5), calls)) for _ in range(3))
        await settle()
        assert proxy.statistics().in_flight == 2

    asyncio.run(main())
    assert all(task.cancelled() for task in tasks)
    assert_idle(proxy)
    assert repr(cache) == "<Cache: 0 values, 0 keys in flight, 0 waiting>"


class Late(dict[int, str]):
    """Knows its keys from the second time on that it is asked."""

    asked = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default) if self.asked > 1 else default


@with_backends
async def test_what_comes_to_be_known_in_between_is_a_checkpoint_too() -> None:
    """Also if the cache knows everything only at the second look, a cancellation is noticed."""
    proxy = AsyncBatchingMapProxy[int, str](cache=Late({1: "1"}))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await proxy.map([1], AsyncCalls())
    assert scope.cancelled_caught


@pytest.mark.parametrize("timeout", [False, True])
def test_an_error_in_the_clean_up_of_a_cancelled_task(timeout: bool) -> None:
    """After `task.cancel()`, too, who waits takes over from a function that raises instead."""

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str]()

        async def fetch(items: list[int]) -> list[str]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("closed") from None
            raise AssertionError

        async def owner() -> None:
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(10 if timeout else None):
                    await proxy.map([1], fetch)

        owning = asyncio.create_task(owner())
        await settle()
        waiter = asyncio.create_task(proxy.map([1], AsyncCalls()))
        await settle()
        if not timeout:
            owning.cancel()
        assert await waiter == ["1"]
        await owning
        assert_idle(proxy)

    run(main)


@pytest.mark.anyio
async def test_clear_is_a_checkpoint_after_everything_is_forgotten() -> None:
    """A caller that is cancelled notices, and has cleared the cache all the same."""
    proxy = AsyncBatchingMapProxy[int, str]()
    await proxy.map([1], AsyncCalls())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await proxy.clear()
    assert scope.cancelled_caught
    assert proxy.statistics().cached == 0
