"""Keys that are not equal to themselves, such as NaN. (Point 1 of the contract.)

They are computed, shared within their map(), and never kept.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from tools import together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.stores import MemoryStore
from batchproxy.testing import AsyncCalls, Calls, look


class Subclass(float):
    pass


def nan() -> float:
    return float("nan")


class NaT:
    """As that of pandas: one object, which is not equal to itself."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 1


class Loud:
    """Cannot be compared, not even with itself."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    def __hash__(self) -> int:
        return id(self)


ONE_NAT = NaT()


def recorded() -> Calls:
    """Answers each item with an object of its own."""
    return Calls(lambda item: object())


@pytest.mark.parametrize("max_concurrency", [None, 2])
def test_nans_share_one_computation(max_concurrency: int | None) -> None:
    """Every float NaN of a map() is one key, and the first of them is the item that is sent."""
    proxy = BatchingMapProxy[Any, Any](2, max_concurrency)
    calls = recorded()
    first = Subclass("nan")
    results = proxy.map([1.0, first, nan(), math.nan, 2.0, nan()], calls)
    assert len(results) == 6
    assert results[1] is results[2] is results[3] is results[5]
    assert sorted(calls.batches, key=len) == [[2.0], [1.0, first]]
    assert sorted(calls.batches, key=len)[1][1] is first
    assert proxy.statistics().cached == 2


def test_numpy_and_decimal() -> None:
    """A NaN of numpy is a float; those of other types are keys by what object they are."""
    np = pytest.importorskip("numpy")
    proxy = BatchingMapProxy[Any, Any]()
    calls = recorded()
    column = np.array([1.0, math.nan, math.nan])
    assert len(set(map(id, proxy.map(column, calls)))) == 2
    one, two, nat = Decimal("nan"), Decimal("nan"), NaT()
    results = proxy.map([one, two, one, nat, nat], calls)
    assert results[0] is results[2] is not results[1]
    assert results[3] is results[4]
    assert list(map(len, calls.batches)) == [2, 3]
    assert proxy.statistics().cached == 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Cache, id="unbounded"),
        pytest.param(lambda: Cache(max_size=1), id="bounded"),
        pytest.param(lambda: Cache(ttl=100), id="expiring"),
        pytest.param(lambda: Cache(max_size=5, ttl=100), id="both"),
        pytest.param(dict, id="dict"),
        pytest.param(type("Own", (dict,), {}), id="mapping"),
    ],
)
def test_nothing_is_kept(make: Callable[[], Any]) -> None:
    """Nor is a bounded cache any fuller; so every map() computes it again, the same object, too."""
    cache = make()
    proxy = BatchingMapProxy[Any, Any](cache=cache)
    calls = recorded()
    proxy.map([1.0], calls)
    for _ in range(3):
        proxy.map([1.0, math.nan], calls)
    assert calls.batches == [[1.0], *[[math.nan]] * 3]
    assert (len(cache), math.nan in cache, 1.0 in cache) == (1, False, True)
    if isinstance(cache, Cache):
        cache.prime({math.nan: "primed"})
        cache.invalidate([math.nan])
        assert len(cache) == 1


async def test_tuples() -> None:
    """A tuple with a NaN in it, at any depth, is one such key with those that are equal but for it.

    The first item of them is sent, and those without any are kept.
    """
    proxy = AsyncBatchingMapProxy[Any, Any](key=lambda item: item["key"])
    calls = AsyncCalls(lambda item: item["name"])
    keys = [
        *(("a", nan()), ("a", nan()), ("b", nan()), ("a", (1, nan())), ("a", (1, nan())), ("a", 1)),
    ]
    items = [{"name": name, "key": key} for name, key in enumerate(keys)]
    assert await proxy.map(items, calls) == [0, 0, 2, 3, 3, 5]
    assert [item["name"] for item in calls.keys] == [0, 2, 3, 5]
    assert proxy.statistics().cached == 1


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("key", "as_good"),
    [
        (math.nan, math.nan),
        (math.nan, nan()),
        (("a", math.nan), ("a", nan())),
        (ONE_NAT, ONE_NAT),
    ],
    ids=["same object", "another NaN", "tuple", "NaT"],
)
async def test_invalidating_while_it_is_computed(stored: bool, key: Any, as_good: Any) -> None:
    """Who asks later does not get what was begun before; who waits does. Others are left alone."""
    cache = Cache[int](store=MemoryStore(), namespace="n") if stored else Cache[int]()
    proxy = AsyncBatchingMapProxy[Any, int](cache=cache)
    old = AsyncCalls(lambda item: 1, gated=True)
    async with together(proxy) as callers:
        callers.start("old", proxy.map, [key, ("b", math.nan)], old)
        await old.wait_begun()
        cache.invalidate([as_good])
        assert len(look(cache).in_flight) == 1
        assert await proxy.map([key], AsyncCalls(lambda item: 2)) == [2]
        old.open()
    assert callers.results["old"] == [1, 1]


class Row(NamedTuple):
    """It says itself what it equals."""

    number: int
    score: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


def test_tuples_with_an_equality_of_their_own() -> None:
    """What is in them is nobody's concern."""
    calls = Calls(lambda row: row.number)
    proxy = BatchingMapProxy[Row, int](key=lambda row: row)
    rows = [Row(1, nan()), Row(1, nan()), Row(1, 2.0)]
    assert proxy.map(rows, calls) == proxy.map(rows[:1], calls) * 3 == [1, 1, 1]
    assert len(calls.keys) == len(proxy.cache) == 1


def test_failures_and_mappings() -> None:
    """The failure of such an item is that of all; a mapping may have any of them for its key."""
    proxy = BatchingMapProxy[Any, Any]()
    boom = ValueError("boom")
    results = proxy.map([nan(), nan(), 1], lambda items: [boom, "1"], return_exceptions=True)
    assert results == [boom, boom, "1"]
    assert proxy.map([nan(), nan()], lambda items: dict.fromkeys(items, "n")) == ["n", "n"]


def test_what_cannot_be_compared_is_a_key() -> None:
    """By what object it is; and is kept."""
    proxy = BatchingMapProxy[Any, Any]()
    calls = recorded()
    one, two = Loud(), Loud()
    assert proxy.map([one, two, (one,)], calls) == proxy.map([one, two, (one,)], calls)
    assert list(map(len, calls.batches)) == [3]
    assert proxy.statistics().cached == 3
