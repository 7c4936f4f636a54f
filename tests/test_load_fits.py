"""Points 19 to 21 of the contract: single keys in batches that fit, or that are refused."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from tools import step, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, SplitBatch
from batchproxy.stores import MemoryStore
from batchproxy.testing import AsyncCalls, assert_idle, wait_released


async def each(load: Any, keys: Iterable[Any], calls: AsyncCalls) -> dict[Any, Any]:
    """Load `keys`, one after the other, while the first call is held up; what came of each."""
    async with together() as callers:
        for key in keys:
            await callers.begin(key, load, key)
        calls.open()
    return callers.results


async def test_by_weight() -> None:
    """In the order in which they came, as many as fit; what is too heavy goes alone."""
    calls = AsyncCalls(str.upper, gated=True)
    proxy = AsyncBatchingMapProxy[str, str](3, 1, weight=len, max_weight=5)
    words = ["first", "aa", "bbb", "c", "too heavy", "d", "e", "f", "g", ""]
    results = await each(proxy.bind(calls).load, words, calls)
    assert results == {word: word.upper() for word in words}
    batches = [["first"], ["aa", "bbb"], ["c"], ["too heavy"], ["d", "e", "f"], ["g", ""]]
    assert calls.batches == batches
    assert_idle(proxy)


async def test_a_weight_that_is_infinite() -> None:
    """It goes alone, also if it has waited for a slot."""
    calls = AsyncCalls(gated=True)
    weight = {1: math.inf}
    proxy = AsyncBatchingMapProxy[int, str](
        9, 1, weight=lambda item: weight.get(item, 1), max_weight=3
    )
    await each(proxy.bind(calls).load, range(7), calls)
    assert calls.batches == [[0], [1], [2, 3, 4], [5, 6]]
    assert_idle(proxy)


async def test_what_comes_to_be_known_does_not_thin_a_batch() -> None:
    """It takes no room, also where it would not fit: neither in memory, nor in flight."""
    cache, calls, others = Cache[str](), AsyncCalls(gated=True), AsyncCalls(gated=True)
    proxy = AsyncBatchingMapProxy[int, str](9, 1, cache=cache, weight=abs, max_weight=10)
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    load = proxy.bind(calls).load
    async with together(proxy, other) as callers:
        for key in (10, 1, 9, 2, 8, 3, 7):
            await callers.begin(key, load, key)
        await callers.begin("other", other.map, [9], others)
        cache.prime({8: "eight"})
        calls.open()
        await calls.wait_begun(3)
        others.open()
    assert calls.batches == [[10], [1, 2, 3], [7]]
    assert [callers.results[key] for key in (9, 8, 3, 7)] == ["9", "eight", "3", "7"]


async def test_by_weight_beside_keys_in_a_store() -> None:
    """A store is read by count, and what it has takes no room."""
    store = MemoryStore()
    with Cache[str](store=store, namespace="n") as cache:
        cache.prime({word: word.upper() for word in ("aaaa", "bbbb", "cccc")})
    calls = AsyncCalls(str.upper)
    with Cache[str](store=store, namespace="n") as cache:
        proxy = AsyncBatchingMapProxy[str, str](9, 1, cache=cache, weight=len, max_weight=5)
        words = ["aaaa", "bbbb", "cccc", "dd", "ee"]
        results = await each(proxy.bind(calls).load, words, calls)
        assert results == {word: word.upper() for word in words}
        assert sorted(map(sorted, calls.batches)) in ([["dd", "ee"]], [["dd"], ["ee"]])
        wait_released()
        assert_idle(proxy)


@pytest.mark.parametrize(
    ("weight", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
async def test_a_wrong_weight(weight: Any, error: type[Exception]) -> None:
    """It is that load's alone, and nothing is asked for."""
    calls = AsyncCalls()
    options: Any = {"weight": lambda item: weight if item == 1 else 1, "max_weight": 5}
    proxy = AsyncBatchingMapProxy[int, str](10, **options)
    results = await each(proxy.bind(calls).load, [1, 2], calls)
    assert type(results[1]) is error
    assert "weight" in str(results[1])
    assert results[2] == "2"
    assert calls.batches == [[2]]
    with BatchingMapProxy[int, str](10, 2, **options) as threads:
        with pytest.raises(error, match="weight"):
            threads.bind(lambda items: ["never"]).load(1)
        assert threads.statistics().calls == 0


async def test_a_refused_key() -> None:
    """Who asked for it gets the cause, and all others what they asked for."""
    cause, calls = ValueError("too rude"), AsyncCalls(gated=True)

    async def function(batch: list[int]) -> list[str]:
        answer = await calls(batch)
        if 3 in batch:
            raise SplitBatch from cause
        return answer

    proxy = AsyncBatchingMapProxy[int, str](6, 1)
    results = await each(proxy.bind(function).load, range(7), calls)
    assert results == {key: cause if key == 3 else str(key) for key in range(7)}
    assert calls.batches == [[0], [*range(1, 7)], [1, 2, 3], [1], [2, 3], [2], [3], [4, 5, 6]]
    assert_idle(proxy)


@pytest.mark.parametrize("store", [None, MemoryStore])
async def test_an_outage(store: Any) -> None:
    """After three refusals of single keys, and of the last, the rest fails untried."""
    cause, calls = ConnectionError("no service"), AsyncCalls(gated=True)

    async def function(batch: list[int]) -> list[str]:
        await calls(batch)
        raise SplitBatch from cause

    with Cache[str](store=store and store(), namespace=store and "n") as cache:
        proxy = AsyncBatchingMapProxy[int, str](None, 1, cache=cache)
        results = await each(proxy.bind(function).load, range(9), calls)
        assert results == dict.fromkeys(range(9), cause)
        if store is None:
            assert [len(batch) for batch in calls.batches] == [1, 8, 4, 2, 1, 1, 2, 1, 1]
        wait_released()
        assert_idle(proxy)


async def test_another_failure_of_a_half() -> None:
    """It reaches those whose keys were in that half; the other half is a call of its own."""
    calls = AsyncCalls(gated=True)

    async def function(batch: list[int]) -> list[str]:
        answer = await calls(batch)
        if len(batch) > 2:
            raise SplitBatch
        if 1 in batch:
            raise OSError("no")
        return answer

    proxy = AsyncBatchingMapProxy[int, str](4, 1)
    results = await each(proxy.bind(function).load, range(5), calls)
    assert calls.batches == [[0], [1, 2, 3, 4], [1, 2], [3, 4]]
    assert results[1] is results[2]
    assert isinstance(results[1], OSError)
    assert [results[key] for key in (0, 3, 4)] == ["0", "3", "4"]
    assert_idle(proxy)


async def test_who_waits_for_a_refused_key_of_a_map() -> None:
    """The cause reaches it while the other half still waits for its turn; it makes no call."""
    cause, calls = ValueError("not this one"), AsyncCalls(gated=True)
    refusal = SplitBatch()
    refusal.__cause__ = cause
    proxy = AsyncBatchingMapProxy[int, str]()
    users = proxy.bind(calls)
    async with together(proxy) as callers:
        await callers.begin("map", users.map, [1, 2])
        await callers.begin("load", users.load, 1)
        for number in range(2):
            await step(calls.fail, number, refusal)
        assert callers.results == {"load": cause}
        calls.open()
    assert calls.batches == [[1, 2], [1], [2]]
