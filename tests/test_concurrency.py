"""Points 9 and 10 of the contract: slots, fairness, nested calls and rings."""

from itertools import cycle
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import naive, settle, step, together

from batchproxy import AsyncBatchingMapProxy, Cache, CircularWaitError
from batchproxy.testing import AsyncCalls, assert_idle


async def test_a_small_map_does_not_wait_for_a_large_one() -> None:
    """Slots go first come, first served, batch by batch."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("large", proxy.map, range(50), calls)
        await callers.begin("small", proxy.map, [1000], calls)
        assert len(calls.batches) == 2  # both slots are those of the large one
        await step(calls.finish, 0)
        assert calls.batches[2:] == [[1000]]
        calls.open()
    assert callers.results == {"small": ["1000"], "large": naive(range(50))}


async def test_waiting_for_a_call_takes_no_slot() -> None:
    """Any number may wait for the one call that runs; the other slot stays free."""
    proxy = AsyncBatchingMapProxy[int, str](None, 2)
    calls, quick = AsyncCalls(gated=True), AsyncCalls()
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(proxy.map, [1], calls)
        await settle()
        assert proxy.statistics().waiting == 9
        assert await proxy.map([2], quick) == ["2"]
        calls.open()
    assert calls.batches == [[1]]
    assert_idle(proxy)


@pytest.mark.parametrize(("batches", "tasks"), [(1, 0), (3, 3), (100, 7)])
@pytest.mark.parametrize("fit", [{}, {"weight": lambda _: 1, "max_weight": 2}], ids=["", "weight"])
async def test_no_more_tasks_than_batches(
    batches: int, tasks: int, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch runs in the caller's task; more never start more tasks than batches or slots."""
    started = 0
    make = anyio.create_task_group

    def counted() -> Any:
        group = make()
        start_soon = group.start_soon

        def count(*args: Any) -> None:
            nonlocal started
            started += 1
            start_soon(*args)

        group.start_soon = count  # type: ignore[misc, assignment] # to count
        return group

    monkeypatch.setattr(anyio, "create_task_group", counted)
    proxy = AsyncBatchingMapProxy[int, str](2, 7, **fit)
    assert await proxy.map(range(2 * batches), AsyncCalls()) == naive(range(2 * batches))
    assert started == tasks


class Nested:
    """Functions that call map() inside map(): item (name, depth) asks for (name, depth - 1)."""

    def __init__(self, *proxies: AsyncBatchingMapProxy[tuple[str, int], str]) -> None:
        self.proxies = proxies
        self.running = self.most_running = 0

    async def __call__(self, items: list[tuple[str, int]]) -> list[str]:
        if {depth for _, depth in items} == {0}:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            await settle(2)
            self.running -= 1
            return [name for name, _ in items]
        inner = [(f"{name}{i}", depth - 1) for name, depth in items for i in range(3)]
        proxy = self.proxies[items[0][1] % len(self.proxies)]
        answers = await proxy.map(inner, self)
        return ["".join(answers[i : i + 3]) for i in range(0, len(answers), 3)]


@pytest.mark.parametrize("max_concurrency", [1, 2])
@pytest.mark.parametrize("batch_size", [1, None])
async def test_nested_maps_with_every_slot_taken(
    max_concurrency: int, batch_size: int | None
) -> None:
    """A nested call runs in the slot of its parent, so that the limit holds and nobody hangs."""
    proxy = AsyncBatchingMapProxy[tuple[str, int], str](batch_size, max_concurrency)
    nested = Nested(proxy)
    async with together(proxy) as callers:
        for name in "abcd":
            callers.start(name, proxy.map, [(name, 3)], nested)
    for name in "abcd":
        [answer] = callers.results[name]
        assert answer == "".join(f"{name}{i}{j}{k}" for i in "012" for j in "012" for k in "012")
    assert nested.most_running <= max_concurrency


async def test_nested_through_another_proxy_and_back() -> None:
    """A → B → A: the inner call of A runs in the slot of the outer one, past B."""
    one = AsyncBatchingMapProxy[tuple[str, int], str](None, 1)
    two = AsyncBatchingMapProxy[tuple[str, int], str](None, 1)
    assert await one.map([("x", 4)], Nested(one, two)) == [
        "".join(f"x{a}{b}{c}{d}" for a in "012" for b in "012" for c in "012" for d in "012")
    ]
    assert_idle(one, two)


async def test_nested_calls_share_one_slot() -> None:
    """Several nested maps at once take turns in their parent's slot."""
    proxy = AsyncBatchingMapProxy[str, str](None, 1)
    inner = AsyncCalls()

    async def outer(items: list[str]) -> list[str]:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(proxy.map, [f"inner {number}"], inner)
        return items

    assert await proxy.map(["outer"], outer) == ["outer"]
    assert inner.most_running == 1
    assert len(inner.batches) == 5
    assert_idle(proxy)


async def test_a_nested_call_that_outlives_its_parent_keeps_the_slot() -> None:
    """The slot goes back when the last call in it has ended, so that the limit holds."""
    proxy = AsyncBatchingMapProxy[str, str](None, 1)
    inner, later = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:

        async def outer(items: list[str]) -> list[str]:
            callers.start("left behind", proxy.map, ["left behind"], inner)
            await callers.begin("left behind, too", proxy.map, ["left behind, too"], inner)
            return items

        assert await proxy.map(["outer"], outer) == ["outer"]
        assert inner.running == 1
        await callers.begin("later", proxy.map, ["later"], later)
        await step(inner.finish, 0)
        assert len(inner.batches) == 2
        assert inner.running == 1
        assert later.batches == []
        inner.open()
    assert later.batches == [["later"]]


@pytest.mark.parametrize("proxies", [1, 2, 3])
async def test_waiting_for_oneself_raises(proxies: int) -> None:
    """A function that asks for a key that it is computing, also past others, is told which."""
    several = [AsyncBatchingMapProxy[str, str](None, 1) for _ in range(proxies)]
    following = cycle(several)

    async def asks_the_next(items: list[str]) -> list[str]:
        return await next(following).map([*items, "else"], asks_the_next)

    with pytest.raises(CircularWaitError, match="'the key'"):
        await asks_the_next(["the key"])
    assert_idle(*several)
    assert await several[0].map(["the key"], AsyncCalls()) == ["the key"]


async def test_waiting_for_an_ancestor_raises() -> None:
    """Also through further nested calls, and through a task of the function's own."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)

    async def descend(items: list[int]) -> list[str]:
        [depth] = items
        result: list[str] = []

        async def in_a_task() -> None:
            result.extend(await proxy.map([depth - 1 if depth else 3], descend))

        async with anyio.create_task_group() as group:
            group.start_soon(in_a_task)
        return result

    with pytest.raises(ExceptionGroup) as caught:
        await proxy.map([3], descend)
    assert caught.group_contains(CircularWaitError, match="3")
    assert_idle(proxy)


@pytest.mark.parametrize(("how_many", "proxies"), [(2, 1), (2, 2), (3, 3), (5, 5)])
async def test_a_ring(how_many: int, proxies: int) -> None:
    """Calls that want each other's keys in a ring: one of them raises, and none hangs."""
    several = [AsyncBatchingMapProxy[str, str]() for _ in range(proxies)]
    all_run = anyio.Event()
    running = 0

    def proxy(number: int) -> AsyncBatchingMapProxy[str, str]:
        return several[number % proxies]

    async def wants_next(items: list[str]) -> list[str]:
        nonlocal running
        [key] = items
        running += 1
        if running == how_many:
            all_run.set()
        await all_run.wait()
        following = (int(key) + 1) % how_many
        return await proxy(following).map([str(following)], wants_next)

    async with together(*several) as callers:
        for number in range(how_many):
            callers.start(number, proxy(number).map, [str(number)], wants_next)
    # The one that closed the ring raised; its caller failed, so the others' waits failed with it.
    raised = callers.results[0]
    assert isinstance(raised, CircularWaitError)
    assert any(f"'{number}' is being computed" in str(raised) for number in range(how_many))
    assert all(result is raised for result in callers.results.values())
    assert running == how_many


async def test_a_wait_that_was_cancelled_closes_no_ring() -> None:
    """Who no longer waits is in nobody's way."""
    proxy = AsyncBatchingMapProxy[str, str]()
    started, go = anyio.Event(), anyio.Event()

    async def impatient(items: list[str]) -> list[str]:
        with anyio.CancelScope() as scopes["impatient"]:
            await proxy.map(["b"], AsyncCalls())
        started.set()
        await go.wait()
        return items

    async def patient(items: list[str]) -> list[str]:
        await started.wait()
        return await proxy.map(["a"], AsyncCalls())

    scopes: dict[str, anyio.CancelScope] = {}
    async with together(proxy) as callers:
        await callers.begin("b", proxy.map, ["b"], patient)
        await callers.begin("a", proxy.map, ["a"], impatient)
        scopes["impatient"].cancel()
        await settle()
        assert proxy.statistics().waiting == 1
        go.set()
    assert callers.results == {"a": ["a"], "b": ["a"]}


async def test_a_call_that_has_just_ended_closes_no_ring() -> None:
    """Its caller may not have woken yet; what a task that it left behind waits for is no link."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[str, str](cache=cache)
    p_may_end, x_runs = anyio.Event(), anyio.Event()
    async with together(proxy) as callers:

        async def p(items: list[str]) -> list[str]:
            callers.start("left behind", proxy.map, ["x"], AsyncCalls())
            await p_may_end.wait()
            return items

        async def q(items: list[str]) -> list[str]:
            return await proxy.map(["p"], AsyncCalls())

        async def x(items: list[str]) -> list[str]:
            x_runs.set()
            while "p" not in cache:
                await checkpoint()
            return await proxy.map(["q"], AsyncCalls())

        callers.start("x", proxy.map, ["x"], x)
        await x_runs.wait()
        await callers.begin("p", proxy.map, ["p"], p)
        await callers.begin("q", proxy.map, ["q"], q)
        assert proxy.statistics().waiting == 2
        p_may_end.set()
    assert callers.results == {"p": ["p"], "q": ["p"], "x": ["p"], "left behind": ["p"]}


async def test_a_long_chain_without_a_ring_is_fine() -> None:
    """Calls that wait for each other in a chain end one after another."""
    proxy = AsyncBatchingMapProxy[int, str](None, 8)
    started = [anyio.Event() for _ in range(6)]

    async def chain(items: list[int]) -> list[str]:
        [number] = items
        started[number].set()
        if number == 5:
            await settle()
            return ["end"]
        await started[number + 1].wait()
        return await proxy.map([number + 1], chain)

    async with together(proxy) as callers:
        for number in range(6):
            callers.start(number, proxy.map, [number], chain)
    assert callers.results == {number: ["end"] for number in range(6)}


async def test_a_call_that_has_ended_is_no_link() -> None:
    """A task left behind by a call may ask for that call's keys once it has ended."""
    proxy = AsyncBatchingMapProxy[int, str](cache=Cache(max_size=0))
    answers: list[str] = []
    async with anyio.create_task_group() as group:
        ended = anyio.Event()

        async def left_behind() -> None:
            await ended.wait()
            answers.extend(await proxy.map([1], AsyncCalls()))

        async def fetch(items: list[int]) -> list[str]:
            group.start_soon(left_behind)
            return naive(items)

        await proxy.map([1], fetch)
        ended.set()
    assert answers == ["1"]
    assert_idle(proxy)


async def test_a_nested_call_of_another_proxy_takes_a_slot_of_that() -> None:
    """The slot that the outer call has of its own proxy is none of the other's."""
    outer_proxy = AsyncBatchingMapProxy[int, int](1, 2)
    inner_proxy = AsyncBatchingMapProxy[int, int](1, 1)
    inner = AsyncCalls(int, gated=True)

    async def outer(items: list[int]) -> list[int]:
        return await inner_proxy.map(items, inner)

    async with together(outer_proxy, inner_proxy) as callers:
        await callers.begin("caller", outer_proxy.map, [1, 2], outer)
        assert inner.running == 1
        inner.open()
    assert callers.results == {"caller": [1, 2]}
    assert inner.most_running == 1


async def test_the_limit_through_failures_and_cancellations() -> None:
    """200 batches of one key, some of which fail or are cancelled: never more than 3 calls."""
    proxy = AsyncBatchingMapProxy[int, str](1, 3)
    booms = {key: ValueError(key) for key in range(0, 200, 7)}

    def answer(key: int) -> str:
        if key in booms:
            raise booms[key]
        return str(key)

    calls = AsyncCalls(answer, gated=True)
    async with together(proxy) as callers:
        for key in range(200):
            callers.start(key, proxy.map, [key], calls)
        await settle()
        assert calls.running == 3
        under_way = calls.keys[1]
        cancelled = {under_way, *range(0, 200, 11)}
        for key in cancelled:
            callers.scopes[key].cancel()
        calls.open()
    assert callers.results == {
        key: "cancelled" if key in cancelled else booms.get(key, [str(key)]) for key in range(200)
    }
    assert calls.most_running == 3
    again = AsyncCalls()
    assert await proxy.map(range(200), again) == naive(range(200))
    assert again.most_running == 3
    assert set(again.keys) == cancelled | booms.keys()
    assert_idle(proxy)
