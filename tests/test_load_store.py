"""Points 16 to 18 and 21 of the contract: single keys of a cache with a store."""

import math
from typing import Any

import pytest
from memory_store import MemoryStore, PlainStore
from store_tools import (
    OTHER,
    all_released,
    nothing_left,
    proxy_of,
    released,
    shared,
    used,
)
from tools import all_at_once, happens, settle, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, Calls, look


async def test_they_are_read_and_computed_together(store: PlainStore) -> None:
    """One look into the store for all that were asked for at once, and one for each batch."""
    calls = AsyncCalls()
    proxy = AsyncBatchingMapProxy(10, cache=proxy_of(store).cache, weight=bool, max_weight=10)
    assert await all_at_once(proxy.bind(calls).load, range(25)) == {n: str(n) for n in range(25)}
    assert sorted(map(len, calls.batches)) == [5, 10, 10]
    method = "claim_many" if isinstance(store, MemoryStore) else "get_many"
    assert store.asked[0] == ("get_many", 25)
    assert [number for name, number in store.asked[1:] if name == method] == [10, 10, 5]
    assert proxy.statistics().computed == 25
    again = proxy_of(store, 10)
    calls = AsyncCalls()
    store.asked.clear()
    results = await all_at_once(again.bind(calls).load, [*range(20, 30), *range(20, 22)])
    assert results == {n: str(n) for n in range(20, 30)}
    assert sorted(calls.keys) == list(range(25, 30))
    now = again.statistics()
    assert (now.stored, now.computed, now.maps, now.shared) == (5, 5, 12, 2)
    nothing_left(store, proxy, again)


async def test_reads_gather_while_the_store_is_slow(store: PlainStore) -> None:
    """A lone load is read at once; with eight reads under way those who come wait together."""
    proxy = proxy_of(store, 100)
    users = proxy.bind(AsyncCalls())
    gates = [store.gate("get_many") for _ in range(8)]
    async with together() as callers:
        for number, gate in enumerate(gates):
            callers.start(number, users.load, number)
            await gate.wait_entered()
        callers.each(users.load, range(8, 20))
        await settle()
        assert [number for _, number in store.asked] == [1] * 8
        for gate in gates:
            gate.open()
    assert callers.results == {number: str(number) for number in range(20)}
    assert ("get_many", 12) in store.asked
    nothing_left(store, proxy)


async def test_who_reads_is_cancelled(store: PlainStore) -> None:
    """At once; the others read, or are read, anew."""
    proxy = proxy_of(store, 10)
    calls = AsyncCalls()
    users = proxy.bind(calls)
    gate = store.gate("get_many")
    async with together() as callers:
        callers.start(0, users.load, 0)
        await gate.wait_entered()
        callers.scopes[0].cancel()
        await happens(lambda: 0 in callers.results)
        await callers.begin(1, users.load, 0)
        assert calls.batches == []
        gate.open()
    assert callers.results == {0: "cancelled", 1: "0"}
    await all_released(store, proxy)


@pytest.mark.parametrize("method", ["get_many", "claim_many", "publish_many"])
async def test_a_store_that_fails(method: str) -> None:
    """All whose keys were asked for together get the one `StoreError`, once each."""
    store, proxy = shared(10, on_store_error="raise")
    calls = AsyncCalls()
    users = proxy.bind(calls)
    store.fail[method] = OSError("full")
    results = await all_at_once(users.load, range(8))
    assert {type(result) for result in results.values()} == {StoreError}
    assert len({id(result) for result in results.values()}) == 1
    assert store.uses[method] == 1
    del store.fail[method]
    assert await all_at_once(users.load, range(8)) == {n: str(n) for n in range(8)}
    assert len(calls.batches) == 1
    await all_released(store, proxy)


async def test_going_on_without_a_store() -> None:
    """The loads are gathered and computed in memory."""
    store = MemoryStore()
    store.fail |= dict.fromkeys(["get_many", "claim_many", "publish_many"], OSError("full"))
    proxy = proxy_of(store, 10, on_store_error="continue")
    calls = AsyncCalls()
    assert await all_at_once(proxy.bind(calls).load, range(8)) == {n: str(n) for n in range(8)}
    assert len(calls.batches) == 1
    nothing_left(store, proxy)


async def test_a_key_that_no_store_can_have(store: PlainStore) -> None:
    """It is refused before it could hurt those it would have been asked for with."""
    proxy = proxy_of(store, 10)
    users = proxy.bind(AsyncCalls())
    results = await all_at_once(users.load, [1, frozenset(), 2])
    assert isinstance(results.pop(frozenset()), TypeError)
    assert results == {1: "1", 2: "2"}
    nothing_left(store, proxy)


async def test_a_key_that_is_not_equal_to_itself(store: PlainStore) -> None:
    """It is computed alone, and never kept, in the store as little as in memory."""
    proxy = proxy_of(store, 10)
    assert await proxy.bind(AsyncCalls()).load(math.nan) == "nan"
    cache = Cache[str](store=store, namespace="m")
    with BatchingMapProxy[Any, str](10, 2, cache=cache) as other:
        assert other.bind(Calls()).load((math.nan,)) == "(nan,)"
    assert not len(proxy.cache)
    nothing_left(store, proxy)


async def test_keys_that_another_process_computes() -> None:
    """They thin no batch; who wants one waits for it, all together, and gets what it publishes."""
    store, proxy = shared(3)
    calls = AsyncCalls()
    users = proxy.bind(calls)
    held = digests([0, 2])
    store.claim_many("n", held, OTHER, len(held))
    async with together() as callers:
        callers.each(users.load, range(5))
        callers.start("also 2", users.load, 2)
        await happens(lambda: len(callers.results) == 3)
        assert callers.results == {1: "1", 3: "3", 4: "4"}
        callers.start("later", users.load, 2)
        await happens(lambda: look(proxy).loading == 4)
        assert look(proxy).in_flight == {0, 2}
        callers.scopes["also 2"].cancel()
        value = await encoded()
        store.publish_many("n", {held[1]: value}, OTHER, None)
        await happens(lambda: callers.results.get(2))
        assert look(proxy).in_flight == {0}
        callers.scopes[0].cancel()
        await happens(lambda: not look(proxy).in_flight)
    assert callers.results[2] == callers.results["later"] == "theirs"
    assert sorted(calls.keys) == [1, 3, 4]
    assert len(calls.batches) == 1
    store.release_many("n", held, OTHER)
    nothing_left(store, proxy)


async def test_nobody_waits_any_more_for_what_another_process_computes() -> None:
    """If all who wanted a key have left when it turns out that others have it."""
    store, proxy = shared(3, 1)
    calls = AsyncCalls(gated=True)
    users = proxy.bind(calls)
    held = digests([2])
    store.claim_many("n", held, OTHER, 1)
    async with together() as callers:
        for number in range(3):  # the last two wait for a slot, and the first of those leads
            callers.start(number, users.load, number)
            await used(store, "get_many", number + 1)
            await happens(lambda: calls.batches and look(proxy).in_flight == {0})
            await settle()
        gate = store.gate("claim_many")
        calls.open()
        await gate.wait_entered()
        callers.scopes[2].cancel()
        await happens(lambda: 2 in callers.results)
        gate.open()
    assert callers.results == {0: "0", 1: "1", 2: "cancelled"}
    await released()
    assert not look(proxy).in_flight
    store.release_many("n", held, OTHER)
    nothing_left(store, proxy)


async def encoded() -> bytes:
    """A value as another process would have written it."""
    store = MemoryStore()
    await proxy_of(store).map([0], AsyncCalls(lambda item: "theirs"))
    [value] = store.values.values()
    return value


async def test_another_process_gives_up() -> None:
    """Those who waited for it gather, and are computed here."""
    store, proxy = shared(10)
    calls = AsyncCalls()
    users = proxy.bind(calls)
    held = digests(range(4))
    store.claim_many("n", held, OTHER, len(held))
    async with together() as callers:
        callers.each(users.load, range(4))
        await happens(lambda: look(proxy).in_flight == set(range(4)))
        store.release_many("n", held, OTHER)
    assert callers.results == {number: str(number) for number in range(4)}
    assert sorted(calls.keys) == list(range(4))
    await all_released(store, proxy)


async def test_what_a_call_gave_is_written_whoever_leaves(store: PlainStore) -> None:
    """A recruiter that is cancelled while its results are written loses none for the others."""
    proxy = proxy_of(store, 10)
    calls = AsyncCalls()
    users = proxy.bind(calls)
    gate = store.gate("publish_many" if isinstance(store, MemoryStore) else "set_many")
    async with together() as callers:
        callers.each(users.load, range(4))
        await gate.wait_entered()
        await callers.cancel(calls.keys[0])
        gate.open()
    left = callers.results.pop(calls.keys[0])
    assert left == "cancelled"
    assert callers.results == {key: str(key) for key in calls.keys[1:]}
    assert len(calls.batches) == 1
    await all_released(store, proxy)
