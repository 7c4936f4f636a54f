"""Points 5, 6 and 15 of the contract: claims, answers from the call, and hits that cost nothing."""

from collections import UserDict
from typing import Any

import anyio
import pytest
from tools import naive, settle, step, together

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, look


@pytest.mark.parametrize(("size", "proxies"), [(3, 1), (1, 2)])
async def test_overlapping_callers_compute_every_key_once(size: int, proxies: int) -> None:
    """In opposite orders they share the work of what both want, within the limit, and both end."""
    cache, calls = Cache[str](), AsyncCalls()
    several = [AsyncBatchingMapProxy[int, str](size, 2 // proxies, cache=cache) for _ in range(2)]
    proxy, other = several[0], several[proxies - 1]
    async with together(*several) as callers:
        callers.start("up", proxy.map, range(20), calls)
        callers.start("down", other.map, range(24, 4, -1), calls)
    assert callers.results == {"up": naive(range(20)), "down": naive(range(24, 4, -1))}
    assert sorted(calls.keys) == list(range(25))
    assert calls.most_running <= 2
    assert sum(each.statistics().computed for each in several) == 25
    assert "25 values, 0 keys in flight, 0 waiting" in repr(proxy)


async def test_a_key_is_in_flight_only_while_its_call_is_made() -> None:
    """What a map() has not called yet, because its slots are full, is free for others."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](2, 1, cache=cache)
    other = AsyncBatchingMapProxy[int, str](2, 1, cache=cache)
    slow, quick = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy, other) as callers:
        await callers.begin("first", proxy.map, range(6), slow)
        assert slow.batches == [[0, 1]]
        assert proxy.statistics().in_flight == 2
        assert "0 values, 2 keys in flight, 0 waiting" in repr(proxy)
        assert await other.map([4, 5, 2], quick) == ["4", "5", "2"]
        slow.open()
    assert callers.results["first"] == naive(range(6))
    assert quick.batches == [[4, 5], [2]]
    assert slow.batches == [[0, 1], [3]]  # the batch was filled from what was left to compute


@pytest.mark.parametrize("kind", [Cache, dict, UserDict])
async def test_the_cache_is_checked_again_after_a_wait_for_a_slot(kind: type[Any]) -> None:
    """What came to be known while a map() waited for a slot is not computed again."""
    cache = kind()
    proxy = AsyncBatchingMapProxy[int, str](None, 1, cache=cache)
    blocker, waiter = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("blocker", proxy.map, [0], blocker)
        await callers.begin("waiter", proxy.map, [1, 2, 3], waiter)
        (cache.prime if kind is Cache else cache.update)({2: "primed"})
        blocker.open()
    assert callers.results["waiter"] == ["1", "primed", "3"]
    assert waiter.batches == [[1, 3]]


async def test_a_wait_for_a_slot_that_is_not_needed_is_not_made() -> None:
    """A map() all of whose keys are in flight by now takes no slot, and shares the call."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        for name in ("first", "second"):  # both begin before the first has claimed
            callers.start(name, proxy.map, [1], calls)
        await settle()
        assert proxy.statistics().waiting == 1
        assert look(proxy).queueing == 0
        assert "1 keys in flight, 1 waiting" in repr(proxy)
        calls.open()
    assert calls.batches == [[1]]


class Broken(dict[Any, Any]):
    """A mapping that fails whenever it is used."""

    def get(self, *args: object) -> Any:
        raise OSError("get")

    def update(self, *args: object) -> None:  # type: ignore[override] # as narrow as its use
        raise OSError("update")


CACHES = {
    "nothing is kept": lambda: Cache[str](max_size=0),
    "one is kept": lambda: Cache[str](max_size=1),
    "all has expired": lambda: Cache[str](ttl=0),
    "broken": Broken,
}


@pytest.mark.parametrize("make", CACHES.values(), ids=CACHES)
async def test_answers_come_from_the_call(make: Any) -> None:
    """A cache that keeps little, or nothing, or fails, costs calls; it changes no answer."""
    proxy = AsyncBatchingMapProxy[int, str](2, cache=make())
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1, 2, 3, 1], calls)
        await callers.begin("waiter", proxy.map, [3, 2], calls)
        calls.open()
    assert callers.results == {"owner": ["1", "2", "3", "1"], "waiter": ["3", "2"]}
    assert calls.batches == [[1, 2], [3]]
    assert proxy.statistics().shared == 2


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
@pytest.mark.parametrize("how", ["clear", "invalidate"])
async def test_a_call_whose_keys_are_forgotten(how: str, fails: bool) -> None:
    """It answers who waits for it, or fails them, and nobody else; a newer call is left alone."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](cache=cache)
    old, boom = AsyncCalls(lambda item: "old", gated=True), ValueError("boom")
    new = AsyncCalls(lambda item: "new", gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1, 2], old)
        await callers.begin("waiter", proxy.map, [1], old)
        if how == "clear":
            await proxy.clear()
        else:
            cache.invalidate([1])
        await callers.begin("later", proxy.map, [1], new)
        assert new.batches == [[1]]
        if fails:
            old.fail(0, boom)
        await step(old.open)
        assert callers.results == {
            "owner": boom if fails else ["old", "old"],
            "waiter": boom if fails else ["old"],
        }
        assert 1 not in cache
        assert (2 in cache) is (how == "invalidate" and not fails)
        await callers.begin("while the new one is under way", proxy.map, [1], new)
        assert new.batches == [[1]]  # the old call has not released the claim of the new one
        new.open()
    assert callers.results["later"] == callers.results["while the new one is under way"] == ["new"]
    assert await proxy.map([1], old) == ["new"]


async def test_hits_start_no_task_and_make_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """If everything is known, a map() is one checkpoint: no task, no event, no slot."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)
    calls, slow = AsyncCalls(), AsyncCalls(gated=True)
    await proxy.map(range(5), calls)

    def refuse(*args: object) -> None:
        raise AssertionError("a hit needs none")

    async with anyio.create_task_group() as group:
        group.start_soon(proxy.map, [5], slow)
        await slow.wait_begun()  # it has the only slot
        with monkeypatch.context() as context:
            context.setattr(anyio, "Event", refuse)
            context.setattr(anyio, "create_task_group", refuse)
            assert await proxy.map([4, 4, 0], calls) == ["4", "4", "0"]
        slow.open()


@pytest.mark.parametrize("batch_size", [None, 0])
async def test_one_call_also_for_what_is_given_up_meanwhile(batch_size: int | None) -> None:
    """Without a batch size all that is missing goes into one call, as it is when that is made."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[str, str](cache=cache)
    narrow = AsyncBatchingMapProxy[str, str](batch_size, 1, cache=cache)
    owner, blocker, calls = AsyncCalls(gated=True), AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy, narrow) as callers:
        callers.start("owner", proxy.map, ["a"], owner)
        await callers.begin("blocker", narrow.map, ["other"], blocker)
        await callers.begin("waiter", narrow.map, ["a", "b"], calls)
        await callers.cancel("owner")
        blocker.open()
    assert callers.results["waiter"] == ["a", "b"]
    assert calls.batches == [["a", "b"]]


@pytest.mark.parametrize("first", [0, 1])
async def test_opposite_orders_and_the_owners_fail(first: int) -> None:
    """When both owners fail, one after the other, all end; and who waited calls nothing anew."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    booms = [ValueError("first"), ValueError("second")]
    async with together(proxy) as callers:
        for key in (0, 1):
            await callers.begin(f"owner of {key}", proxy.map, [key], calls)
        callers.start("up", proxy.map, [0, 1], calls)
        await callers.begin("down", proxy.map, [1, 0], calls)
        assert proxy.statistics().waiting == 2
        await step(calls.fail, first, booms[first])
        calls.fail(1 - first, booms[1 - first])
    assert callers.results == {
        "owner of 0": booms[0],
        "owner of 1": booms[1],
        "up": booms[first],
        "down": booms[first],
    }
    assert calls.batches == [[0], [1]]


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("max_concurrency", [3, 8])
async def test_opposite_orders_and_the_owners_leave(
    batch_size: int | None, max_concurrency: int
) -> None:
    """When the owners are cancelled, one after another, those who wait share the work anew."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size, max_concurrency)
    owned, calls = AsyncCalls(gated=True), AsyncCalls(gated=True)
    async with together(proxy) as callers:
        for key in (1, 2, 3):
            await callers.begin(key, proxy.map, [key], owned)
        callers.start("up", proxy.map, [1, 3, 2], calls)
        callers.start("down", proxy.map, [2, 1], calls)
        for key in (1, 2, 3):
            await settle()
            callers.scopes[key].cancel()
        await settle()
        calls.open()
    assert [callers.results[key] for key in (1, 2, 3)] == ["cancelled"] * 3
    assert callers.results["up"] == ["1", "3", "2"]
    assert callers.results["down"] == ["2", "1"]
    assert sorted(calls.keys) == [1, 2, 3]


async def test_asking_again_while_the_cancelled_call_cleans_up() -> None:
    """Who asks before the cancelled call has ended waits for its end, and then calls anew."""
    proxy = AsyncBatchingMapProxy[int, str]()
    clean, calls = anyio.Event(), AsyncCalls()

    async def slow_to_end(items: list[int]) -> list[str]:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await clean.wait()
        return naive(items)

    async with together(proxy) as callers:
        for name in ("owner", "waiter"):
            await callers.begin(name, proxy.map, [1], slow_to_end)
        for name in ("owner", "waiter"):
            callers.scopes[name].cancel()
        await settle()
        assert callers.results == {"waiter": "cancelled"}
        await callers.begin("again", proxy.map, [1], calls)
        assert calls.batches == []
        clean.set()
    assert callers.results == {"owner": "cancelled", "waiter": "cancelled", "again": ["1"]}
    assert calls.batches == [[1]]


@pytest.mark.parametrize("newer", ["primed", "computed after clear()"])
async def test_a_late_answer_does_not_replace_a_newer_one(newer: str) -> None:
    """What came to be known during a call stays, and later callers get it; its caller does not."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](cache=cache)
    old, new = AsyncCalls(lambda item: "old", gated=True), AsyncCalls(lambda item: "new")
    async with together(proxy) as callers:
        await callers.begin("old", proxy.map, [1, 2], old)
        if newer == "primed":
            cache.prime({1: "new", 2: "new"})
        else:
            await proxy.clear()
            assert await proxy.map([1, 2], new) == ["new", "new"]
        assert await proxy.map([1], old) == ["new"]
        old.open()
    assert callers.results == {"old": ["old", "old"]}
    assert await proxy.map([1, 2], old) == ["new", "new"]
    assert old.batches == [[1, 2]]
