"""Points 4 to 13 and 21 of the contract: single keys, gathered into the calls of one function."""

import asyncio
import math
import traceback
import weakref
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import (
    Incomparable,
    Interrupt,
    Outcomes,
    Thing,
    Thread,
    all_at_once,
    collect,
    freed_at_once,
    happens,
    naive,
    never,
    never_asked,
    running_loop,
    settle,
    step,
    together,
)

from batchproxy import AsyncBatchingMapProxy, Cache, CircularWaitError, ClosedError
from batchproxy.testing import AsyncCalls, assert_idle, look


def recording(*sizes: Any, gated: bool = False) -> tuple[AsyncCalls, Any, Any]:
    """A function that records its batches, a proxy, and the one bound to the other."""
    calls, proxy = AsyncCalls(gated=gated), AsyncBatchingMapProxy[int, str](*sizes)
    return calls, proxy, proxy.bind(calls)


@pytest.mark.parametrize(("size", "batches"), [(25, [25] * 10), (0, [250]), (None, [250])], ids=str)
async def test_what_is_asked_for_at_once_goes_out_in_full_batches(
    size: int | None, batches: list[int]
) -> None:
    """250 handlers make ten calls of 25, within the limit; without a batch size, one."""
    calls, proxy, users = recording(size, 3, gated=True)
    async with together(proxy) as callers:
        callers.each(users.load, range(250))
        await settle()
        assert len(calls.batches) == min(3, len(batches))
        calls.open()
    assert callers.results == {number: str(number) for number in range(250)}
    assert [len(batch) for batch in calls.batches] == batches
    assert calls.most_running <= 3
    now = proxy.statistics()
    assert (now.maps, now.items, now.computed, now.shared) == (250, 250, 250, 0)
    assert now.calls == len(batches)


async def test_a_key_is_once_in_a_batch() -> None:
    """All who ask for it get it; its first item is what the function is given."""
    calls = AsyncCalls(lambda item: [item])
    proxy = AsyncBatchingMapProxy[str, list[str]](10, key=str.lower)
    users = proxy.bind(calls)
    async with together(proxy) as callers:
        for number in range(6):
            callers.start(number, users.load, "aA"[number % 2])
    [[sent]] = calls.batches
    assert sent in ("A", "a")
    assert list(callers.results.values()) == [[sent]] * 6
    assert len({id(result) for result in callers.results.values()}) == 1
    now = proxy.statistics()
    assert (now.maps, now.computed, now.shared) == (6, 1, 5)


async def test_a_lone_load_waits_for_nobody() -> None:
    """A free slot is taken at once, whatever else is under way."""
    calls, _, users = recording(10, 3, gated=True)
    async with together() as callers:
        for number in range(3):
            await callers.begin(number, users.load, number)
            assert calls.batches[number:] == [[number]]
        calls.open()
    assert callers.results == {0: "0", 1: "1", 2: "2"}


async def test_those_who_wait_for_a_slot_go_together() -> None:
    """In the order in which they came, in full batches, when one comes free."""
    calls, proxy, users = recording(3, 1, gated=True)
    async with together(proxy) as callers:
        for number in range(8):
            await callers.begin(number, users.load, number)
        inside = look(proxy)
        assert (inside.queueing, inside.loading, inside.slots) == (1, 8, 1)
        assert calls.batches == [[0]]
        for number in range(3):
            await step(calls.finish, number)
        assert calls.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]
        calls.open()
    assert callers.results == {number: str(number) for number in range(8)}


async def test_loads_a_tick_apart() -> None:
    """Who comes right after goes along: as with loaders that wait for the next turn of the loop."""
    calls, _, users = recording(100)

    async def load(number: int) -> None:
        for _ in range(number):
            await checkpoint()
        assert await users.load(number) == str(number)

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(load, number)
    assert len(calls.batches) <= 30 + 15  # in trio tasks run in any order


async def test_a_known_key() -> None:
    """It costs a look-up and a checkpoint, and counts as a map()."""
    proxy = AsyncBatchingMapProxy[int, str]()
    proxy.cache.prime({1: "one"})
    async with together(proxy) as callers:
        callers.start("load", proxy.bind(never_asked).load, 1)
        await checkpoint()
        callers.results["another task"] = None
    assert callers.results == {"load": "one", "another task": None}
    assert (proxy.statistics().maps, proxy.statistics().calls) == (1, 0)


async def test_results_come_from_the_call() -> None:
    """A cache that keeps nothing loses none; a call is shared while it lasts."""
    calls = AsyncCalls()
    proxy = AsyncBatchingMapProxy[int, str](2, cache=Cache(max_size=0))
    users = proxy.bind(calls)
    for _ in range(2):
        assert await all_at_once(users.load, range(5)) == {key: str(key) for key in range(5)}
    assert len(calls.batches) == 6


async def test_a_failing_call() -> None:
    """All whose keys were in it get that very exception, once each; who only waited does not."""
    calls, proxy, users = recording(2, 1, gated=True)
    error = ValueError("all")
    lengths: list[int] = []

    async def load(key: int) -> Any:
        try:
            return await users.load(key)
        except ValueError as raised:
            lengths.append(len(traceback.extract_tb(raised.__traceback__)))
            raise

    async with together() as callers:
        callers.each(load, range(4))
        await settle()
        first = calls.batches[0]
        calls.fail(0, error)
        calls.open()
    failed = [number for number in range(4) if callers.results[number] is error]
    assert sorted(first) == failed
    assert len(set(lengths)) == 1
    assert [callers.results[number] for number in range(4) if number not in failed] == [
        str(number) for number in range(4) if number not in failed
    ]
    assert proxy.statistics().failed == 1
    assert await users.load(first[0]) == str(first[0])  # failures are not kept
    assert_idle(proxy)


async def test_one_item_that_failed() -> None:
    """Its exception is for those who asked for it; its neighbours are kept."""
    error = ValueError("one")
    users = AsyncBatchingMapProxy[int, Any](10).bind(
        AsyncCalls(lambda key: error if key == 1 else key)
    )
    assert await all_at_once(users.load, range(3)) == {0: 0, 1: error, 2: 2}
    assert sorted(users.proxy.cache.get_many(range(3))) == [0, 2]
    assert_idle(users.proxy)


async def test_answers_that_do_not_match() -> None:
    """They are errors as those of map(), for all whose keys were in the call."""

    async def fetch(keys: list[int]) -> list[int]:
        return keys[1:]

    results = await all_at_once(AsyncBatchingMapProxy[int, int](10).bind(fetch).load, range(3))
    assert {type(result).__name__ for result in results.values()} == {"AnswerValueError"}


async def test_the_recruiter_is_cancelled() -> None:
    """Another one calls for the keys that are still wanted, and disturbs nobody."""
    calls, proxy, users = recording(10, 1, gated=True)
    async with together(proxy) as callers:
        callers.each(users.load, range(4))
        await settle()
        assert sorted(calls.batches[0]) == [0, 1, 2, 3]
        await callers.cancel(calls.batches[0][0])
        assert sorted(calls.batches[1]) == sorted(calls.batches[0][1:])
        calls.open()
    assert callers.results[calls.batches[0][0]] == "cancelled"
    assert len([result for result in callers.results.values() if result != "cancelled"]) == 3
    assert proxy.statistics().cancelled == 1


async def test_one_who_waits_is_cancelled() -> None:
    """Before the call its key is left out; in the call nothing changes."""
    calls, proxy, users = recording(2, 1, gated=True)
    async with together() as callers:
        for number in range(6):
            await callers.begin(number, users.load, number)
        assert calls.batches == [[0]]
        callers.scopes[1].cancel()  # who is to call next
        await callers.cancel(3)
        await step(calls.finish, 0)
        assert calls.batches[1:] == [[2, 4]]
        await callers.cancel(4)
        calls.open()
    results = ["0", "cancelled", "2", "cancelled", "cancelled", "5"]
    assert callers.results == dict(enumerate(results))
    assert calls.batches == [[0], [2, 4], [5]]
    assert await users.load(4) == "4"
    assert_idle(proxy)


async def test_everybody_leaves() -> None:
    """Then nothing is called, or left."""
    proxy = AsyncBatchingMapProxy[int, str](2, 1)
    users = proxy.bind(never)  # type: ignore[arg-type] # it is not called
    calls = AsyncCalls(gated=True)
    async with anyio.create_task_group() as group:
        group.start_soon(proxy.map, [100], calls)
        await settle()
        callers = Outcomes(group)
        for number in range(300):
            callers.start(number, users.load, number % 250)
        await settle()
        assert look(proxy).loading == 300
        for number in range(300):
            callers.scopes[number].cancel()
        await settle()
        assert look(proxy).loading == look(proxy).queueing == 0
        calls.open()
    assert_idle(proxy)


async def test_what_is_no_exception() -> None:
    """It ends the one in whose task the call was; the others call anew."""
    calls, _, users = recording(10)
    calls.fail(0, Interrupt())
    results: dict[int, Any] = {}

    async def load(key: int) -> None:
        try:
            results[key] = await users.load(key)
        except Interrupt as error:
            results[key] = error

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(load, number)
    first, *others = calls.batches[0]
    assert isinstance(results.pop(first), Interrupt)
    assert results == {key: str(key) for key in others}
    assert len(calls.batches) == 2
    assert_idle(users.proxy)


async def test_an_exception_in_the_place_of_a_cancellation() -> None:
    """It is the recruiter's alone, who was cancelled."""
    error = OSError("while closing")
    begun = anyio.Event()

    async def fetch(keys: list[int]) -> list[int]:
        if not begun.is_set():
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                raise error
        return keys

    users = AsyncBatchingMapProxy[int, int](10).bind(fetch)
    async with together(users.proxy) as callers:
        callers.each(users.load, range(3))
        await begun.wait()
        for number in range(3):
            if users.proxy.statistics().cancelled == 0:
                await callers.cancel(number)
    values = list(callers.results.values())
    assert values.count(error) == 1


@pytest.mark.parametrize("how", ["answer", "fail", "cancel", "forget"])
async def test_keys_that_a_map_computes(how: str) -> None:
    """They are waited for; who has waited in vain gathers with the others."""
    calls, loads = AsyncCalls(gated=True), AsyncCalls()
    proxy = AsyncBatchingMapProxy[int, str](10)
    users = proxy.bind(loads)
    error = ValueError()
    async with together() as callers:
        await callers.begin("map", proxy.map, range(4), calls)
        callers.each(users.load, range(4))
        await settle()
        assert loads.batches == []
        assert (look(proxy).loading, proxy.statistics().waiting) == (4, 1)  # together
        match how:
            case "answer":
                calls.open()
            case "fail":
                calls.fail(0, error)
            case "cancel":
                callers.scopes["map"].cancel()
            case "forget":
                proxy.cache.clear()
                await callers.begin("later", users.load, 0)
                assert loads.batches == [[0]]
                calls.open()
    values = [callers.results[number] for number in range(4)]
    assert values == ([error] * 4 if how == "fail" else naive(range(4)))
    if how == "cancel":
        assert list(map(sorted, loads.batches)) == [[0, 1, 2, 3]]
    elif how != "forget":
        assert loads.batches == []
        assert proxy.statistics().shared == (4 if how == "answer" else 0)
    assert_idle(proxy)


async def test_one_who_waits_for_a_map_is_cancelled() -> None:
    """Of that nothing is left, and the others still wait."""
    calls, proxy, users = recording(10, gated=True)
    async with together(proxy) as callers:
        await callers.begin("map", proxy.map, range(4), calls)
        callers.each(users.load, range(3))
        await settle()
        await callers.cancel(0)
        assert proxy.statistics().waiting == 1
        callers.scopes[1].cancel()
        await callers.cancel(2)
        assert proxy.statistics().waiting == 0
        calls.open()
    assert calls.batches == [[0, 1, 2, 3]]


@pytest.mark.parametrize("size", [1, 2])
async def test_what_becomes_known_while_they_wait_for_a_slot(size: int) -> None:
    """It thins no batch, and who has its result calls for nobody else."""
    calls, loads = AsyncCalls(gated=True), AsyncCalls(gated=True)
    proxy = AsyncBatchingMapProxy[int, str](size, 1)
    users = proxy.bind(loads)
    async with together(proxy) as callers:
        await callers.begin("map", proxy.map, [100], calls)
        for number in range(5):
            await callers.begin(number, users.load, number)
        proxy.cache.prime({0: "known", 2: "known"})
        await step(calls.open)
        assert callers.results.pop("map") == ["100"]
        assert callers.results.get(0) == "known"
        loads.open()
    assert callers.results == {0: "known", 1: "1", 2: "known", 3: "3", 4: "4"}
    assert loads.batches == ([[1], [3], [4]] if size == 1 else [[1, 3], [4]])


async def test_what_is_in_flight_when_they_have_to_wait_for_a_slot() -> None:
    """Then there is nothing to wait for a slot for."""
    calls = AsyncCalls(gated=True)
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](10, 1, cache=cache)
    other = AsyncBatchingMapProxy[int, str](10, 1, cache=cache)
    users = proxy.bind(never)  # type: ignore[arg-type] # it is not called
    async with together(proxy, other) as callers:
        await callers.begin("slot", proxy.map, [100], calls)
        callers.start(0, users.load, 0)
        await callers.begin("other", other.map, [0], calls)
        assert look(proxy).queueing == 0
        calls.open()
    assert callers.results[0] == "0"


async def test_loads_inside_of_a_call() -> None:
    """They gather with those of that same call, in its slot, and not with those outside."""
    batches: list[list[int]] = []
    proxy = AsyncBatchingMapProxy[int, int](10, 1)

    async def fetch(keys: list[int]) -> list[int]:
        batches.append(sorted(keys))
        if min(keys) >= 100:
            return keys
        async with together() as callers:
            for key in keys:
                callers.start(key, users.load, 100 + key)
                callers.start(-key - 1, users.load, 200)
        return [callers.results[key] for key in keys]

    users = proxy.bind(fetch)
    with anyio.fail_after(10):
        results = await all_at_once(users.load, range(20))
    assert results == {key: 100 + key for key in range(20)}
    assert [len(batch) for batch in batches] == [10, 10, 1, 10, 10]
    assert_idle(proxy)


async def test_loads_after_one_another_inside_of_a_call() -> None:
    """Those who have gathered gather again for the next key that each of them asks for."""
    calls, _, users = recording(10, 1)
    outer = AsyncBatchingMapProxy[int, int]()

    async def steps(first: int) -> None:
        for key in (first, 10 + first, 20 + first):
            await users.load(key)

    async def fetch(keys: list[int]) -> list[int]:
        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(steps, key)
        return keys

    await outer.map(range(5), fetch)
    assert [sorted(batch) for batch in calls.batches] == [
        [*range(5)],
        [*range(10, 15)],
        [*range(20, 25)],
    ]
    assert_idle(users.proxy, outer)


async def test_nothing_of_a_call_is_kept_for_the_loads_inside_of_it() -> None:
    """When they have ended, its results are free."""

    async def fetch(keys: list[int]) -> list[Thing]:
        if keys[0] < 100:
            await users.load(100 + keys[0])
        found = [Thing() for _ in keys]
        things.extend(map(weakref.ref, found))
        return found

    users = AsyncBatchingMapProxy[int, Thing](10, cache=Cache(max_size=0)).bind(fetch)
    with freed_at_once() as things:
        await users.load(0)
        assert len(things) == 2
    assert_idle(users.proxy)


async def test_a_load_that_waits_for_itself() -> None:
    """Directly, and through the call of another proxy: it raises."""

    async def own(keys: list[int]) -> list[Any]:
        return [await one.load(key) for key in keys]

    async def through(keys: list[int]) -> list[Any]:
        return [await three.load(key) for key in keys]

    async def back(keys: list[int]) -> list[Any]:
        return [await two.load(key) for key in keys]

    one = AsyncBatchingMapProxy[int, Any](10).bind(own)
    two = AsyncBatchingMapProxy[int, Any](10).bind(through)
    three = AsyncBatchingMapProxy[int, Any](10).bind(back)
    for users in (one, two):
        with pytest.raises(CircularWaitError, match="7 is being computed"):
            await users.load(7)
    assert_idle(one.proxy, two.proxy, three.proxy)


async def test_a_ring_of_several_who_wait() -> None:
    """Two gathered calls, each of which wants a key of the other: one of them raises."""
    outcomes: list[Any] = []
    both = anyio.Event()
    begun: list[str] = []

    def asking(other: str) -> Any:
        async def fetch(keys: list[int]) -> list[int]:
            begun.append(other)
            if len(begun) == 2:
                both.set()
            await both.wait()
            try:
                await bound[other].load(0)
            except CircularWaitError as error:
                outcomes.append(error)
            return keys

        return fetch

    bound = {
        name: AsyncBatchingMapProxy[int, int](10).bind(asking(other))
        for name, other in ("ab", "ba")
    }
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for users in bound.values():
                for key in range(3):
                    group.start_soon(users.load, key)
    assert len(outcomes) == 1
    assert_idle(*(users.proxy for users in bound.values()))


async def test_keys_that_are_not_equal_to_themselves() -> None:
    """They are computed alone, and never kept."""
    calls = AsyncCalls()
    proxy = AsyncBatchingMapProxy[Any, str](10)
    assert await proxy.bind(calls).load(math.nan) == "nan"
    assert await proxy.bind(calls).load((1, math.nan)) == "(1, nan)"
    assert len(proxy.cache) == 0
    assert len(calls.batches) == 2


async def test_misuse() -> None:
    """What cannot be a key is refused before anybody else hears of it."""
    proxy = AsyncBatchingMapProxy[Any, str](10)
    users = proxy.bind(never)  # type: ignore[arg-type] # it is not called
    with pytest.raises(TypeError, match=r"unhashable 'list'.*key="):
        await users.load([1])
    with_key = AsyncBatchingMapProxy[Any, str](key=lambda item: item["id"])
    with pytest.raises(KeyError):
        await with_key.bind(never).load({})  # type: ignore[arg-type] # as above
    proxy.cache.prime({1: "1"})
    with pytest.raises(TypeError, match="not with me"):
        await users.load(Incomparable())
    await proxy.aclose()
    with pytest.raises(ClosedError, match=r"load\(\) on a closed proxy"):
        await users.load(1)
    assert_idle(proxy)


user: ContextVar[str] = ContextVar("user")


async def test_whose_context_a_call_has() -> None:
    """That of one of those who wait."""
    seen: list[str] = []

    async def fetch(keys: list[str]) -> list[str]:
        seen.append(user.get())
        return keys

    users = AsyncBatchingMapProxy[str, str](10).bind(fetch)

    async def handler(name: str) -> None:
        user.set(name)
        assert await users.load(name) == name
        assert user.get() == name

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(handler, name)
    assert len(seen) == 1
    assert seen[0] in "abc"


@pytest.mark.parametrize("count", [1, 3])
async def test_what_has_failed_is_freed(count: int) -> None:
    """A failing load() leaves nothing to the collector, whether one called or others waited."""

    async def fetch(keys: list[int]) -> list[int]:
        thing = Thing()
        things.append(weakref.ref(thing))
        await checkpoint()
        raise ValueError(thing)

    async def load(key: int) -> None:
        with suppress(ValueError):
            await users.load(key)
            raise AssertionError

    users = AsyncBatchingMapProxy[int, int](10).bind(fetch)
    with freed_at_once() as things:
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(load, number)
        await settle(3)
        assert len(things) == 1


@pytest.mark.parametrize("ring", [False, True])
async def test_what_has_failed_inside_of_a_call_is_freed(ring: bool) -> None:
    """It leaves nothing to the collector when the call fails with it, not even that call."""

    async def outer(keys: list[int]) -> list[int]:
        thing = Thing()
        things.append(weakref.ref(thing))
        return [await (users if ring else others).load(key) for key in keys]

    async def inner(keys: list[int]) -> list[int]:
        raise CircularWaitError

    users = AsyncBatchingMapProxy[int, int]().bind(outer)
    others = AsyncBatchingMapProxy[int, int]().bind(inner)
    with freed_at_once() as things:
        for ask in (users.load(1), users.map([1, 2])):
            with suppress(CircularWaitError):
                await ask
        await settle(3)
        assert len(things) == 2
    assert_idle(users.proxy, others.proxy)


def test_event_loops_share_a_call(sync_backend: Any) -> None:
    """Each gathers its own, and waits for the calls of the others."""
    calls: list[list[int]] = []
    proxy = AsyncBatchingMapProxy[int, int](10)

    async def fetch(keys: list[int]) -> list[int]:
        calls.append(sorted(keys))
        thread = None
        if len(calls) == 1:
            thread = Thread(anyio.run, all_at_once, users.load, range(2, 6))
            await happens(lambda: proxy.statistics().waiting and len(calls) > 1)
            results.append(thread)
        return keys

    users = proxy.bind(fetch)
    results: list[Thread] = []
    mine = anyio.run(all_at_once, users.load, range(4), backend=sync_backend)
    assert mine == {key: key for key in range(4)}
    assert results[0].outcome() == {key: key for key in range(2, 6)}
    assert calls == [[0, 1, 2, 3], [4, 5]]
    assert_idle(proxy)


def test_a_loop_that_was_closed_in_the_middle() -> None:
    """Its keys are free for the next loop."""
    batches: list[list[int]] = []

    async def fetch(keys: list[int]) -> list[int]:
        batches.append(sorted(keys))
        if len(batches) == 1:
            await anyio.sleep_forever()
        return keys

    users = AsyncBatchingMapProxy[int, int](2, 1).bind(fetch)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(users.load(number)) for number in range(4)]
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # it is destroyed pending
    for _ in range(20):
        loop.run_until_complete(asyncio.sleep(0))
    assert batches == [[0, 1]]
    loop.close()
    assert anyio.run(all_at_once, users.load, range(4)) == {key: key for key in range(4)}
    assert batches[1:] == [[0, 1], [2, 3]]
    assert not look(users.proxy).in_flight


def test_a_loop_that_has_ended_is_forgotten(sync_backend: Any) -> None:
    """A bound function that goes on to live keeps nothing of it, whatever became of its loads."""
    _, _, users = recording(10, 1)
    loops: list[weakref.ref[Any]] = []

    async def main() -> None:
        loops.append(weakref.ref(running_loop()))
        async with together() as callers:
            for number in range(101):  # so many that not all share what wakes them
                callers.start(number, users.load, number)
            await settle(2)
            callers.scopes[100].cancel()

    anyio.run(main, backend=sync_backend)
    collect()
    assert [loop() for loop in loops] == [None]
    assert_idle(users.proxy)
