"""What `statistics()` counts, and that it adds up."""

import dataclasses
import pickle
from typing import Any

import pytest
from tools import modes, never, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls


def counted(proxy: Any) -> dict[str, int]:
    """All that is not zero."""
    return {name: n for name, n in dataclasses.asdict(proxy.statistics()).items() if n}


async def test_a_life() -> None:
    """Every call and every key is counted once, where it belongs."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](2, cache=cache)
    assert counted(proxy) == {}
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("owner", proxy.map, [1, 2, 1, 3], calls)
        await callers.begin("waiter", proxy.map, [2], calls)
        assert counted(proxy) == {"calls": 2, "running": 2, "in_flight": 3, "waiting": 1}
        calls.open()
    done = {"maps": 2, "items": 5, "calls": 2, "completed": 2, "computed": 3, "shared": 1}
    assert counted(proxy) == done | {"cached": 3}
    await proxy.map([1, 1, 3], calls)
    assert counted(proxy) == done | {"cached": 3, "maps": 3, "items": 8}
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    assert counted(other) == {"cached": 3}


async def test_failed_and_cancelled_calls() -> None:
    """A call that fails is told from one that is given up; nobody got a list, or shared one."""
    proxy = AsyncBatchingMapProxy[int, str](2, 2)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        for number in range(5):
            await callers.begin(number, proxy.map, [1, 2, 3], calls)
        assert counted(proxy) == {"calls": 2, "running": 2, "in_flight": 3, "waiting": 4}
        calls.fail(0, ValueError("boom"))
    assert counted(proxy) == {"calls": 2, "failed": 1, "cancelled": 1}


async def test_a_call_taken_over() -> None:
    """The one given up and the one made anew are two calls, of which one computed the keys."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("owner", proxy.map, [1, 2], calls)
        for name in ("leaves", "stays", "stays too"):
            await callers.begin(name, proxy.map, [2], calls)
        await callers.cancel("leaves")
        assert counted(proxy) == {"calls": 1, "running": 1, "in_flight": 2, "waiting": 2}
        await callers.cancel("owner")
        under_way = {"running": 1, "in_flight": 1, "waiting": 1}
        assert counted(proxy) == {"calls": 2, "cancelled": 1} | under_way
        calls.open()
    done = {"completed": 1, "computed": 1, "shared": 1, "maps": 2, "items": 2, "cached": 1}
    assert counted(proxy) == {"calls": 2, "cancelled": 1} | done


async def test_two_proxies_with_one_cache() -> None:
    """Calls are counted where they were made; what is in flight or cached, where it can be seen."""
    cache = Cache[str]()
    one = AsyncBatchingMapProxy[int, str](cache=cache)
    two = AsyncBatchingMapProxy[int, str](cache=cache)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("one", one.map, [1, 2], calls)
        await callers.begin("two", two.map, [2, 1, 2], calls)
        both = {"in_flight": 2, "waiting": 1}
        assert counted(one) == {"calls": 1, "running": 1} | both
        assert counted(two) == both
        calls.open()
    done = {"calls": 1, "completed": 1, "computed": 2}
    assert counted(one) == {"maps": 1, "items": 2, "cached": 2} | done
    assert counted(two) == {"maps": 1, "items": 3, "cached": 2, "shared": 2}


@modes
def test_a_call_of_the_sync_face(max_concurrency: int | None) -> None:
    """It is running while the function runs, wherever that is; then completed. Hits are no call."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, cache=Cache(max_size=1))
    seen: list[dict[str, int]] = []

    def fetch(items: list[int]) -> list[str]:
        seen.append(counted(proxy))
        return list(map(str, items))

    assert proxy.map([1, 1, 2], fetch) == ["1", "1", "2"]
    assert seen == [{"calls": 1, "running": 1, "in_flight": 2}]
    done = {"calls": 1, "completed": 1, "computed": 2, "cached": 1}
    assert counted(proxy) == {"maps": 1, "items": 3} | done
    for _ in range(2):
        assert proxy.map([2, 2, 2], never) == ["2", "2", "2"]
    assert counted(proxy) == {"maps": 3, "items": 9} | done


@modes
def test_what_fails_in_a_map_that_goes_on(max_concurrency: int | None) -> None:
    """A call with an unusable answer has failed; one of which only items fail is completed."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency)

    def fetch(items: list[int]) -> Any:
        if 1 in items:
            raise ValueError("boom")
        return [] if 3 in items else ["5", KeyError(6)]

    answers = proxy.map(range(1, 7), fetch, return_exceptions=True)
    assert isinstance(answers[5], KeyError)
    calls = {"calls": 3, "failed": 2, "completed": 1}
    assert counted(proxy) == {"maps": 1, "items": 6, "computed": 1, "cached": 1} | calls


def test_a_snapshot_cannot_be_changed() -> None:
    """Statistics are a frozen dataclass, equal by what they say; they can be sent elsewhere."""
    proxy = BatchingMapProxy[int, str]()
    before = proxy.statistics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.calls = 1  # type: ignore[misc] # frozen
    assert proxy.statistics() == before == pickle.loads(pickle.dumps(before))
