"""Point 22 of the contract: what a cache has in memory can be read, and waits for nothing."""

import math
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

import pytest
from tools import Clock, Incomparable, never, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.stores import MemoryStore
from batchproxy.testing import AsyncCalls

KINDS: dict[str, Any] = {
    "unbounded": lambda: None,
    "a dict": dict,
    "max_size": lambda: Cache(max_size=10),
    "ttl": lambda: Cache(ttl=60),
    "both": lambda: Cache(max_size=10, ttl=60),
    "a mapping": OrderedDict,
    "a store": lambda: Cache(store=MemoryStore(), namespace="n"),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@kinds
def test_what_is_in_memory(make: Any) -> None:
    """One or several keys, in their order; what is not there is a default, or left out.

    None is a value, and no default.
    """
    proxy = BatchingMapProxy[Any, Any](cache=make())
    cache = proxy.cache
    assert cache.get(1) is None
    assert cache.get_many([]) == {}
    proxy.map([1, 2, None, "x"], lambda items: [[item] for item in items])
    assert cache.get(1) is proxy.map([1], never)[0]
    assert cache.get(None) == [None]
    assert cache.get(5, default=[0]) == [0]
    found = cache.get_many(iter([2, 5, 1, 2, "x"]))
    assert list(found.items()) == [(2, [2]), (1, [1]), ("x", ["x"])]
    cache.invalidate([2])
    assert cache.get(2, 7) == 7
    assert cache.get_many([2]) == {}
    proxy.map([3], lambda items: [None])
    assert cache.get(3, 5) is None
    assert cache.get_many([3, 4]) == {3: None}


@kinds
def test_keys_that_cannot_be_hashed(make: Any) -> None:
    """They are refused, and said to be what they are; but other errors arrive as they are."""
    cache = BatchingMapProxy[Any, Any](cache=make()).cache
    with pytest.raises(TypeError, match=r"get\(\) takes keys.*not hashable: 'list'.*key="):
        cache.get([1])
    with pytest.raises(TypeError, match=r"get_many\(\) takes keys.*not hashable: 'dict'"):
        cache.get_many([1, {}])
    for keys in ("ab", b"ab", 5):
        with pytest.raises(TypeError, match=r"get_many\(\) takes an iterable.*get_many\(\["):
            cache.get_many(keys)  # type: ignore[arg-type] # that is it


def test_what_a_key_raises() -> None:
    """It arrives as it is."""
    cache = Cache[int]()
    cache.prime({1: 1})
    with pytest.raises(TypeError, match="not with me"):
        cache.get(Incomparable())
    with pytest.raises(TypeError, match="not with me"):
        cache.get_many([Incomparable(), Incomparable()])
    with pytest.raises(TypeError, match="not with me"):
        cache.invalidate([Incomparable(), Incomparable()])


@kinds
def test_keys_that_are_not_equal_to_themselves(make: Any) -> None:
    """They are never found, not even as the same object in a mapping of one's own."""
    nan = math.nan
    given = make()
    if isinstance(given, MutableMapping):
        given.update({nan: 1, (nan, 1): 2})
    proxy = BatchingMapProxy[Any, Any](cache=given)
    proxy.map([nan, (nan, 1), 3], lambda items: items)
    assert proxy.cache.get(nan, "none") == "none"
    assert proxy.cache.get((nan, 1), "none") == "none"
    assert proxy.cache.get_many([nan, (nan, 1), 3]) == {3: 3}


def test_a_ttl_is_respected(clock: Clock) -> None:
    """What has expired is not there."""
    cache = Cache[int](ttl=10)
    cache.prime({1: 1})
    clock.now += 9
    assert (cache.get(1), cache.get_many([1])) == (1, {1: 1})
    clock.now += 1
    assert (cache.get(1), cache.get_many([1])) == (None, {})


@pytest.mark.parametrize("many", [False, True])
def test_reading_is_using(many: bool) -> None:
    """A full cache forgets what was not read lately, and not what was."""
    cache = Cache[int](max_size=2)
    cache.prime({1: 1, 2: 2})
    assert cache.get_many([1]) if many else cache.get(1)
    cache.prime({3: 3})
    assert (1 in cache, 2 in cache) == (True, False)


def test_a_mapping_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """That is logged, and counts as a miss."""

    class Broken(OrderedDict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            raise OSError("gone")

    cache = BatchingMapProxy[int, int](cache=Broken({1: 1})).cache
    assert (cache.get(1, 0), cache.get_many([1])) == (0, {})
    assert caplog.text.count("that counts as a miss") == 2


def test_a_store_is_not_asked() -> None:
    """What only the store has is not there."""
    store = MemoryStore()
    Cache[int](store=store, namespace="n").prime({1: 1})
    cache = Cache[int](store=store, namespace="n")
    assert (cache.get(1), cache.get_many([1])) == (None, {})
    assert BatchingMapProxy[int, Any](cache=cache).map([1], never) == [1]
    assert cache.get(1) == 1


async def test_a_call_under_way_is_none() -> None:
    """Reading does not wait for it, and runs no other task."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("map", proxy.map, [1], calls)
        assert proxy.cache.get(1) is None
        assert proxy.cache.get_many([1]) == {}
        calls.open()
    assert proxy.cache.get(1) == "1"
