"""Points 8 and 12 of the contract: cancellation of every kind, and checkpoints."""

import asyncio
import gc
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import naive, settle, step, together

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, assert_idle

T = TypeVar("T")

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
each_size = pytest.mark.parametrize("batch_size", [None, 1])


@each_size
async def test_waiters_take_over_from_a_cancelled_owner(batch_size: int | None) -> None:
    """The owner leaves at once; one of those who wait calls anew, and the rest wait for it."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1, 2], calls)
        for number in range(5):
            callers.start(number, proxy.map, [2, 1], calls)
        await settle()
        first = len(calls.batches)
        await callers.cancel("owner")
        assert callers.results == {"owner": "cancelled"}
        assert sorted(calls.keys) == [1, 1, 2, 2]
        assert calls.running == len(calls.batches) - first
        now = proxy.statistics()
        assert now.in_flight == 2
        calls.open()
    assert [callers.results[number] for number in range(5)] == [["2", "1"]] * 5
    assert sorted(calls.keys) == [1, 1, 2, 2]


async def test_keys_given_up_come_first() -> None:
    """What a cancelled owner leaves is computed in the order of the list, in full batches."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](2, 8, cache=cache)
    narrow = AsyncBatchingMapProxy[int, str](2, 1, cache=cache)
    owner, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
    async with together(narrow) as callers:
        await callers.begin("owner", proxy.map, [2, 4], owner)
        await callers.begin("waiter", narrow.map, range(4, -1, -1), others)
        assert others.batches == [[3, 1]]
        await callers.cancel("owner")
        others.open()
    assert callers.results["waiter"] == naive(range(4, -1, -1))
    assert others.batches == [[3, 1], [4, 2], [0]]


async def test_cancelling_a_waiter_disturbs_nobody() -> None:
    """Neither the call nor the other waiters notice, and the waiter is forgotten."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1], calls)
        for name in ("leaves", "stays"):
            callers.start(name, proxy.map, [1], calls)
        await settle()
        assert proxy.statistics().waiting == 2
        await callers.cancel("leaves")
        assert proxy.statistics().waiting == 1
        calls.open()
    assert callers.results == {"owner": ["1"], "leaves": "cancelled", "stays": ["1"]}
    assert calls.batches == [[1]]


@pytest.mark.parametrize("order", [("owner", "waiter"), ("waiter", "owner")])
async def test_owner_and_waiter_cancelled_in_the_same_tick(order: tuple[str, str]) -> None:
    """The third caller takes over, whatever the order."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        for name in ("owner", "waiter", "third"):
            await callers.begin(name, proxy.map, [1], calls)
        for name in order:
            callers.scopes[name].cancel()
        await settle()
        assert calls.batches == [[1], [1]]
        calls.open()
    assert callers.results == {"owner": "cancelled", "waiter": "cancelled", "third": ["1"]}


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


@pytest.mark.parametrize("name", ["owner", "waiter", "queued", "overlapping"])
@each_size
async def test_cancelled_at_any_moment(name: str, batch_size: int | None) -> None:
    """Whenever one of several callers is cancelled, the others get their answers.

    Who is cancelled about when it is given the slot hands it on to the next in the queue.
    """
    for ticks in range(25):
        proxy = AsyncBatchingMapProxy[int, str](batch_size, 1)
        calls = AsyncCalls()
        wanted = {"owner": [1, 2], "waiter": [2, 1], "queued": [3], "overlapping": [4, 3, 2, 1]}
        async with together(proxy) as callers:
            for caller, items in wanted.items():
                callers.start(caller, proxy.map, items, calls)
            await settle(ticks)
            if name in callers.scopes:
                callers.scopes[name].cancel()
        result = callers.results.pop(name)
        assert result in ("cancelled", naive(wanted.pop(name)))
        assert callers.results == {caller: naive(items) for caller, items in wanted.items()}
        assert calls.most_running == 1


async def test_cancelled_with_a_nested_call_under_way() -> None:
    """The keys of every level are free, and the slot that they shared is back."""
    proxy = AsyncBatchingMapProxy[str, str](1, 1)
    inner = AsyncCalls(gated=True)

    async def outer(items: list[str]) -> list[str]:
        return await proxy.map([f"{item}, inner" for item in items], inner)

    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, ["a", "b"], outer)
        assert proxy.statistics().in_flight == 2
        callers.start("of the outer key", proxy.map, ["a"], outer)
        await callers.begin("of the inner key", proxy.map, ["a, inner"], inner)
        await callers.cancel("owner")
        assert callers.results == {"owner": "cancelled"}
        inner.open()
    assert callers.results["of the outer key"] == ["a, inner"]
    assert callers.results["of the inner key"] == ["a, inner"]
    assert inner.batches == [["a, inner"], ["a, inner"]]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
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


class Late(dict[int, str]):
    """Knows its keys from the second time on that it is asked."""

    asked = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default) if self.asked > 1 else default


async def test_cancelled_before_it_began() -> None:
    """In a cancelled scope a map() raises at its first checkpoint; so does clear(), afterwards."""
    proxy, calls = AsyncBatchingMapProxy[int, str](), AsyncCalls()
    late = AsyncBatchingMapProxy[int, str](cache=Late({1: "1"}))
    await proxy.map([1], calls)
    for checkpoint_of in (
        lambda: proxy.map([], calls),
        lambda: proxy.map([1], calls),
        lambda: proxy.map([1, 2], calls),
        lambda: late.map([1], calls),
        proxy.clear,
    ):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint_of()
            raise AssertionError("each of them is a checkpoint")
        assert scope.cancelled_caught
    assert calls.batches == [[1]]
    assert proxy.statistics().cached == 0  # everything has been forgotten all the same
    assert_idle(proxy, late)


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


class Turns:
    """Somebody else in the event loop, who counts how often it is its turn."""

    def __init__(self) -> None:
        self.taken = 0

    async def __call__(self) -> None:
        while True:
            self.taken += 1
            await checkpoint()


@pytest.mark.parametrize("items", [[], [1, 1]])
async def test_hits_let_others_run(items: list[int]) -> None:
    """An empty list and a list of hits are checkpoints, too: others get their turn."""
    proxy, turns = AsyncBatchingMapProxy[int, str](), Turns()
    await proxy.map([1], AsyncCalls())
    async with anyio.create_task_group() as group:
        group.start_soon(turns)
        for _ in range(10):
            await proxy.map(items, AsyncCalls())
        group.cancel_scope.cancel()
    assert turns.taken >= 5


@pytest.mark.parametrize("options", [{}, {"weight": float, "max_weight": 1e9}])
@pytest.mark.parametrize("repeats", [1, 2])
async def test_others_run_while_a_long_list_is_read(repeats: int, options: Any) -> None:
    """They need not wait until all of its keys are told apart."""
    proxy, turns = AsyncBatchingMapProxy[int, int](**options), Turns()
    items = [*range(50_000)] * repeats

    async def fetch(batch: list[int]) -> list[int]:
        assert turns.taken >= 4 * repeats
        return batch

    async with anyio.create_task_group() as group:
        group.start_soon(turns)
        assert await proxy.map(items, fetch) == items
        group.cancel_scope.cancel()


@pytest.mark.parametrize("max_concurrency", [1, 2])
async def test_others_run_between_calls(max_concurrency: int) -> None:
    """Between the calls of a function that never awaits others get their turn."""
    proxy, turns = AsyncBatchingMapProxy[int, str](1, max_concurrency), Turns()
    seen: list[int] = []

    async def never_awaits(items: list[int]) -> list[str]:
        seen.append(turns.taken)
        return naive(items)

    async with anyio.create_task_group() as group:
        group.start_soon(turns)
        await proxy.map(range(20), never_awaits)
        group.cancel_scope.cancel()
    assert seen[-1] - seen[0] >= 20 // max_concurrency - 2


@pytest.mark.parametrize("nursery", [None, "waited for", "while its body runs"])
@pytest.mark.parametrize("how", ["scope", "failure"])
async def test_an_error_in_the_clean_up_of_a_cancelled_call(how: str, nursery: str | None) -> None:
    """It is its own map()'s; who waits for the keys takes over, as from any cancelled call.

    So is one in a task of that call, though on trio it may come with what cancelled it.
    """
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    fail = anyio.Event()

    async def part() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                raise LookupError
            except LookupError:
                raise OSError("clean-up") from None

    async def fetch(items: list[int]) -> list[str]:
        if items == [1]:
            await fail.wait()
            raise ValueError("boom")
        if not nursery:
            await part()
        async with anyio.create_task_group() as group:
            group.start_soon(part)
            if nursery == "while its body runs":
                await anyio.sleep_forever()
        raise AssertionError

    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1, 2], fetch)
        await callers.begin("waiter", proxy.map, [2], AsyncCalls())
        if how == "scope":
            callers.scopes["owner"].cancel()
        else:
            fail.set()
    assert callers.results["waiter"] == ["2"]
    if how == "failure":
        assert isinstance(callers.results["owner"], ValueError)
        [note] = callers.results["owner"].__notes__
        assert ("ExceptionGroup" if nursery else "clean-up") in note
    async with proxy.stream([2], fetch):
        await settle()  # and leaving it is no failure


async def test_a_failure_after_a_cancellation_that_was_before() -> None:
    """In shielded clean-up a map() is none that is cancelled: its failures are shared as others."""
    proxy, calls = AsyncBatchingMapProxy[int, str](), AsyncCalls(gated=True)
    boom, raised = ValueError("boom"), list[Exception]()

    async def owner() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await proxy.map([1], calls)
                except ValueError as error:
                    raised.append(error)

    async with together(proxy) as callers:
        callers.start("owner", owner)
        await settle()
        callers.scopes["owner"].cancel()
        await settle()
        await callers.begin("waiter", proxy.map, [1], calls)
        calls.fail(0, boom)
    assert raised == [boom] == [callers.results["waiter"]]
    assert calls.batches == [[1]]


# --- asyncio's own cancellation -----------------------------------------------------------------


each_way = pytest.mark.parametrize("how", ["task.cancel()", "asyncio.timeout"])


async def started(function: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that runs until it waits for something."""
    task = asyncio.create_task(function)
    await settle()
    return task


@on_asyncio
async def test_a_task_that_was_cancelled_and_went_on() -> None:
    """What it calls then is none that is being cancelled: its failures are shared."""
    proxy, calls = AsyncBatchingMapProxy[int, str](), list[list[int]]()

    async def fetch(items: list[int]) -> list[str]:
        calls.append(items)
        async with asyncio.timeout(0.1):
            await asyncio.sleep(9)
        raise AssertionError

    async def goes_on() -> list[str]:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(9)
        return await proxy.map([1], fetch)

    task = await started(goes_on())
    task.cancel()
    waiter = await started(proxy.map([1], fetch))
    one, other = await asyncio.gather(task, waiter, return_exceptions=True)
    assert isinstance(one, TimeoutError)
    assert one is other
    assert calls == [[1]]


@on_asyncio
@each_size
@each_way
async def test_a_task_that_is_cancelled(batch_size: int | None, how: str) -> None:
    """Both count as any cancellation of an owner: its keys are free, a waiter takes over."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = AsyncCalls(gated=True)

    async def owner() -> None:
        async with asyncio.timeout(3600 if how == "asyncio.timeout" else None):
            await proxy.map([1, 2], calls)

    owning = await started(owner())
    waiter = await started(proxy.map([2, 1], calls))
    if how == "task.cancel()":
        owning.cancel()
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await owning
    assert owning.cancelling() == owning.cancelled() == (how == "task.cancel()")
    await settle()
    calls.open()
    assert await waiter == ["2", "1"]
    assert sorted(calls.keys) == [1, 1, 2, 2]
    assert_idle(proxy)


@on_asyncio
async def test_a_waiting_task_that_is_cancelled() -> None:
    """`task.cancel()` and `asyncio.timeout` of waiters disturb nobody."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    owner = await started(proxy.map([1], calls))
    waiter = await started(proxy.map([1], calls))
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


@on_asyncio
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 2), (2, 1, 0)])
async def test_tasks_cancelled_in_the_same_tick(order: tuple[int, ...]) -> None:
    """Owner, waiter and who queues for the slot: natively cancelled together, all leave."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = AsyncCalls(gated=True)
    keys = [1, 1, 2, 1]
    tasks = [await started(proxy.map([key], calls)) for key in keys]
    for number in order:
        tasks[number].cancel()
    await settle()
    calls.open()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number in order:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == naive([keys[number]])
    assert sorted(calls.keys) == [1, 1] + [2] * (2 not in order)
    assert_idle(proxy)


@on_asyncio
async def test_a_task_cancelled_at_any_moment() -> None:
    """Whenever a map() of several batches is natively cancelled, another that overlaps goes on."""
    for ticks in range(25):
        proxy = AsyncBatchingMapProxy[int, str](1, 2)
        calls = AsyncCalls()
        owner = asyncio.create_task(proxy.map(range(4), calls))
        other = asyncio.create_task(proxy.map(range(5, 0, -1), calls))
        await settle(ticks)
        cancelled = owner.cancel()
        result, others = await asyncio.gather(owner, other, return_exceptions=True)
        assert type(result) is asyncio.CancelledError if cancelled else result == naive(range(4))
        assert others == naive(range(5, 0, -1))
        assert calls.most_running <= 2
        assert_idle(proxy)


@on_asyncio
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of anyio
@pytest.mark.parametrize("how_many", [1, 2])
async def test_tasks_of_a_map_cancelled_at_any_moment(how_many: int) -> None:
    """Whoever cancels the tasks that a map() started, also before their first step, cancels it."""
    for ticks in range(15):
        proxy = AsyncBatchingMapProxy[int, str](1, 2)
        calls = AsyncCalls()
        before = asyncio.all_tasks()
        owner = asyncio.create_task(proxy.map(range(4), calls))
        await settle(ticks)
        tasks = list(asyncio.all_tasks() - before - {owner})[:how_many]
        for task in tasks:
            task.cancel()
        [result] = await asyncio.gather(owner, return_exceptions=True)
        assert type(result) is asyncio.CancelledError if tasks else result == naive(range(4))
        assert_idle(proxy)
        assert await proxy.map(range(4), AsyncCalls()) == naive(range(4))
    gc.collect()  # here, where the warning is expected


@on_asyncio
@each_size
async def test_cancelled_again_during_clean_up(batch_size: int | None) -> None:
    """A second `task.cancel()`, while the function cleans up, loses nothing either."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size, 2)
    clean_up = asyncio.Event()

    async def fetch(items: list[int]) -> list[str]:
        try:
            await asyncio.Event().wait()
        finally:
            await clean_up.wait()
        raise AssertionError

    owner = await started(proxy.map([1, 2], fetch))
    waiter = await started(proxy.map([1, 2], AsyncCalls()))
    await step(owner.cancel)
    # A scope (that of several calls) cancels again and again, so that there it is done by now.
    assert owner.done() is (batch_size is not None)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert await waiter == ["1", "2"]
    assert_idle(proxy)


@on_asyncio
async def test_a_cancellation_in_the_tick_of_a_failure_is_not_swallowed() -> None:
    """A task cancelled while its map() is failing ends cancelled, or failed; never unharmed."""
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

        task = await started(caller())
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


@on_asyncio
async def test_a_time_limit_of_the_function_is_a_failure() -> None:
    """A function that gives up by itself has failed, and those who wait share its failure."""
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


@on_asyncio
@each_way
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_an_error_in_the_clean_up_of_a_cancelled_task(
    how: str, return_exceptions: bool
) -> None:
    """A call that raises instead of going has failed its own map(); who waits takes over."""
    proxy, error = AsyncBatchingMapProxy[int, str](), ConnectionError("closed")

    async def fetch(items: list[int]) -> list[str]:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise error from None
        raise AssertionError

    async def owner() -> list[str | Exception]:
        async with asyncio.timeout(10 if how == "asyncio.timeout" else None):
            return await proxy.map([1, 2, 1], fetch, return_exceptions=return_exceptions)
        raise AssertionError

    owning = await started(owner())
    waiter = await started(proxy.map([1], AsyncCalls()))
    if how == "task.cancel()":
        owning.cancel()
    assert await waiter == ["1"]
    [result] = await asyncio.gather(owning, return_exceptions=True)
    assert result == ([error] * 3 if return_exceptions else error)
    assert_idle(proxy)
