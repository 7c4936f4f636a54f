"""Points 6 and 11 of the contract: bounds, the user's own mappings, forgetting, sharing."""

import gc
import logging
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from random import Random
from typing import Any

import cachetools
import pytest
from tools import Clock, freed_at_once, naive, never, settle, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, Calls

BOUNDED: dict[str, Any] = {
    "Cache(max_size=2)": lambda: Cache(max_size=2),
    "Cache(max_size=2, ttl=60)": lambda: Cache(max_size=2, ttl=60),
    "LRUCache(2)": lambda: cachetools.LRUCache(2),
    "TTLCache(2)": lambda: cachetools.TTLCache(2, ttl=60),
}


@pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_a_request_larger_than_the_cache(make: Any, batch_size: int | None) -> None:
    """The answers are right, and the bound holds throughout, during the calls too."""
    cache = make()
    proxy = BatchingMapProxy[int, str](batch_size, cache=cache)

    def fetch(items: list[int]) -> list[str]:
        assert len(cache) <= 2
        return naive(items)

    for items in (range(10), [3, 1, 4, 1, 5, 9, 2, 6], range(10)):
        assert proxy.map(items, fetch) == naive(items)
        assert len(cache) <= 2


@pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)
async def test_the_bound_holds_whenever_a_call_ends(make: Any) -> None:
    """Calls that end one by one, the last first, push nothing over the bound, nor a waiter."""
    cache = make()
    proxy = AsyncBatchingMapProxy[int, str](3, 4, cache=cache)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, range(12), calls)
        await callers.begin("waiter", proxy.map, [11, 0, 5], calls)
        for number in (3, 2, 1, 0):
            calls.finish(number)
            await settle()
            assert len(cache) == 2
    assert callers.results == {"owner": naive(range(12)), "waiter": ["11", "0", "5"]}
    assert calls.batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("page", [10_000, 100])
@pytest.mark.parametrize("times", [1.5, 2, 4])
def test_a_list_larger_than_the_cache_finds_its_part(page: int, times: float) -> None:
    """Mapped again and again, whole or page by page: as much is found as there is room for."""
    size = 1000
    proxy = BatchingMapProxy[int, str](100, cache=Cache(max_size=size))
    items = list(range(int(times * size)))
    for again in range(4):
        calls = Calls()
        for start in range(0, len(items), page):
            part = items[start : start + page]
            assert proxy.map(part, calls) == naive(part)
        assert len(calls.keys) == len(items) - (size if again else 0)


def test_a_new_list_replaces_an_old_one() -> None:
    """A list that fits is found the next time, whatever was in the cache before."""
    proxy = BatchingMapProxy[int, str](50, cache=Cache(max_size=1000))
    for start in (0, 10_000, 20_000):
        items = range(start, start + 800)
        for _ in range(3):
            proxy.map(items, naive)
        assert proxy.map(items, never) == naive(items)


@pytest.mark.parametrize("ttl", [None, 60])
def test_what_is_used_stays(ttl: float | None) -> None:
    """The oldest value that was not used lately goes; a map() does not push out what it found."""
    cache = Cache[str](max_size=2, ttl=ttl)
    proxy = BatchingMapProxy[int, str](cache=cache)
    proxy.map([1, 2], naive)
    proxy.map([1, 3], naive)
    assert 1 in cache
    assert 3 in cache

    cache = Cache[str](max_size=3, ttl=ttl)
    proxy = BatchingMapProxy[int, str](cache=cache)
    for items in ([1, 2, 3], [2, 3], [1, 4]):  # when 4 comes, all have been used
        proxy.map(items, naive)
    assert [key for key in range(5) if key in cache] == [1, 3, 4]


def test_what_had_been_used_is_taken_back() -> None:
    """Only what left without ever having been used has to wait for its turn."""
    cache = Cache[str](max_size=2)
    proxy = BatchingMapProxy[int, str](cache=cache)
    for items in ([1, 2], [1, 2], [3]):
        proxy.map(items, naive)
    assert 1 not in cache
    proxy.map([1], naive)
    assert 1 in cache


def test_priming_is_within_the_bound() -> None:
    """More than there is room for is no error; a value known already is replaced in its place."""
    cache = Cache[Any](max_size=2)
    cache.prime(dict.fromkeys(range(5), 0))
    assert len(cache) == 2
    kept = [key for key in range(5) if key in cache]
    for key in kept:
        cache.prime({key: 7})
        assert [key for key in range(5) if key in cache] == kept
    assert BatchingMapProxy[int, Any](cache=cache).map(kept, never) == [7, 7]


def test_values_expire(clock: Clock) -> None:
    """`ttl` seconds from the end of the call a value is forgotten, and computed anew."""
    cache = Cache[str](ttl=10)
    proxy = BatchingMapProxy[int, str](cache=cache)

    def slow(items: list[int]) -> list[str]:
        clock.now += 5
        return naive(items)

    proxy.map([1], slow)
    clock.now += 9
    proxy.map([2], slow)  # 14 s after the first ended
    calls = Calls()
    assert 1 not in cache
    assert 2 in cache
    assert len(cache) == 1
    assert proxy.map([1, 2], calls) == ["1", "2"]
    assert calls.batches == [[1]]
    clock.now += 10
    proxy.map([1, 2], calls)
    assert calls.batches[1:] == [[1, 2]]


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"max_size": 0}, [[1, 2], [1, 2]]),
        ({"ttl": 0}, [[1, 2], [1, 2]]),
        ({"ttl": 0.0}, [[1, 2], [1, 2]]),
        ({"ttl": float("inf")}, [[1, 2]]),
    ],
    ids=["max_size=0", "ttl=0", "ttl=0.0", "ttl=inf"],
)
def test_extreme_bounds(clock: Clock, options: Any, batches: list[list[int]]) -> None:
    """With 0 nothing is ever known but within a map(), with infinity nothing is ever forgotten."""
    proxy = BatchingMapProxy[int, str](cache=Cache(**options))
    calls = Calls()
    for _ in range(2):
        assert proxy.map([1, 2, 1], calls) == ["1", "2", "1"]
        clock.now += 1e12 if options.get("ttl") else 0
    assert calls.batches == batches


@pytest.mark.parametrize("max_size", [None, 3])
def test_an_expiring_cache_under_random_use(clock: Clock, max_size: int | None) -> None:
    """No value outlives its time or differs from the latest; without a bound none goes earlier."""
    cache = Cache[str](max_size, ttl=10)
    proxy = BatchingMapProxy[int, str](cache=cache)
    random = Random(0)
    truth: dict[int, tuple[str, float]] = {}  # the latest value, and when it is to be forgotten
    for step in range(2000):
        clock.now += random.randrange(4)
        keys = {random.randrange(12) for _ in range(random.randrange(5))}
        alive = {key for key, (_, end) in truth.items() if clock.now < end}
        known = {key for key in range(12) if key in cache}
        assert known <= alive if max_size else known == alive
        assert len(cache) == len(known) <= (max_size or 12)
        match random.choice(["map", "map", "prime", "invalidate"]):
            case "map":
                asked: list[int] = []

                def fetch(batch: list[int], asked: list[int] = asked, step: int = step) -> Any:
                    asked += batch
                    return [f"{key} of {step}" for key in batch]

                answers = dict(zip(keys, proxy.map(keys, fetch)))
                assert set(asked) == keys - known
                assert all(answers[key] == truth[key][0] for key in keys & known)
                truth |= {key: (answers[key], clock.now + 10) for key in asked}
            case "prime":
                cache.prime({key: f"{key} primed in {step}" for key in keys})
                truth |= {key: (f"{key} primed in {step}", clock.now + 10) for key in keys}
            case "invalidate":
                cache.invalidate(keys)
                for key in keys:
                    truth.pop(key, None)


def test_a_mapping_that_updates_otherwise() -> None:
    """It is given values one by one: that of a Counter would add them."""
    counter = Counter[str]()
    proxy = BatchingMapProxy[str, int](cache=counter)
    assert proxy.map(["a"], lambda items: [1]) == [1]
    proxy.cache.prime({"a": 5})
    assert counter == {"a": 5}


class Failing(MutableMapping[Any, Any]):
    """A mapping that fails at the chosen operations."""

    def __init__(self, *failing: str) -> None:
        self.data: dict[Any, Any] = {}
        self.failing = failing

    def _do(self, what: str) -> None:
        if what in self.failing:
            raise OSError(what)

    def __getitem__(self, key: Any) -> Any:
        self._do("get")
        return self.data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self.data) == 1:
            self._do("second set")
        self.data[key] = value

    def __delitem__(self, key: Any) -> None:
        self._do("delete")
        del self.data[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def test_a_mapping_that_fails_to_read(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged and counts as a miss; the answers are right."""
    proxy = BatchingMapProxy[int, str](cache=Failing("get"))
    calls = Calls()
    for _ in range(2):
        assert proxy.map([1, 2, 1], calls) == ["1", "2", "1"]
    assert calls.batches == [[1, 2], [1, 2]]
    assert {record.name for record in caplog.records} == {"batchproxy"}
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert "OSError: get" in caplog.text


def test_a_mapping_that_fails_to_write(caplog: pytest.LogCaptureFixture) -> None:
    """Of a call's results all or none are kept."""
    mapping = Failing("second set")
    proxy = BatchingMapProxy[int, str](2, cache=mapping)
    assert proxy.map([1, 2, 3], naive) == ["1", "2", "3"]
    assert mapping.data == {3: "3"}
    assert "writing 2 results to the cache failed" in caplog.text
    mapping.failing = ("second set", "delete")
    mapping.data.clear()
    assert proxy.map([1, 2], naive) == ["1", "2"]  # not even that it cannot be mended matters


def test_a_mapping_that_refuses_a_value(caplog: pytest.LogCaptureFixture) -> None:
    """As caches with a measure of size do: nothing of that call is kept, the answers are right."""
    mapping = cachetools.LRUCache[str, str](6, getsizeof=len)
    proxy = BatchingMapProxy[str, str](2, cache=mapping)
    items = ["a", "bb", "c", "far too long"]
    assert proxy.map(items, naive) == items
    assert dict(mapping) == {"a": "a", "bb": "bb"}
    assert "ValueError: value too large" in caplog.text
    assert len(caplog.records) == 1


def test_a_mapping_that_forgets_between_calls() -> None:
    """What a mapping drops by a clock of its own is computed anew, and no answer is lost."""
    clock, calls = Clock(), Calls()
    mapping = cachetools.TTLCache[int, str](100, ttl=5, timer=clock)
    proxy = BatchingMapProxy[int, str](2, cache=mapping)

    def slow(items: list[int]) -> list[str]:
        clock.now += 10
        assert len(mapping) == 0
        return calls(items)

    assert proxy.map(range(5), slow) == naive(range(5))
    assert calls.batches == [[0, 1], [2, 3], [4]]
    assert proxy.map([4, 3], slow) == ["4", "3"]
    assert calls.batches[3:] == [[3]]


def test_a_mapping_that_fails_to_forget() -> None:
    """That is not silently passed over: a later map() would see what was to be forgotten."""
    proxy = BatchingMapProxy[int, str](cache=Failing("delete"))
    proxy.map([1], naive)
    with pytest.raises(OSError, match="delete"):
        proxy.clear()


def test_a_defaultdict_is_not_asked_for_defaults() -> None:
    """A key that is not there is a miss, and nothing is made up for it."""
    mapping: defaultdict[int, str] = defaultdict(lambda: "made up")
    proxy = BatchingMapProxy[int, str](cache=mapping)
    assert proxy.map([1, 2], naive) == ["1", "2"]
    assert mapping == {1: "1", 2: "2"}
    assert proxy.map([2, 1], Calls()) == ["2", "1"]


@pytest.mark.parametrize("make", [dict, lambda: cachetools.LRUCache(10)], ids=["dict", "LRUCache"])
def test_a_mapping_of_the_user_is_used_as_it_is(make: Callable[[], Any]) -> None:
    """What is in it is known, what is computed comes into it, what is taken out is gone."""
    mapping = make()
    mapping[1] = "one"
    proxy = BatchingMapProxy[int, str](cache=mapping)
    assert proxy.map([1, 2], naive) == ["one", "2"]
    assert dict(mapping) == {1: "one", 2: "2"}
    assert proxy.map([2, 1, 2], never) == ["2", "one", "2"]
    assert proxy.statistics().cached == 2
    del mapping[1]
    assert proxy.map([1], naive) == ["1"]
    proxy.clear()
    assert len(mapping) == 0


@pytest.mark.parametrize(
    ("make", "batches"),
    [
        pytest.param(Cache, [[1, 2]], id="Cache"),
        pytest.param(lambda: Cache(max_size=0), [[1, 2], [1]], id="Cache(max_size=0)"),
        pytest.param(dict, [[1, 2], [2, 1]], id="dict"),
        pytest.param(lambda: cachetools.LRUCache(9), [[1, 2], [2, 1]], id="LRUCache"),
    ],
)
async def test_only_a_cache_shares_work_under_way(make: Any, batches: list[list[int]]) -> None:
    """Two proxies with one Cache make one call; with one bare mapping each makes its own.

    Results of before they share with either.
    """
    cache = make()
    one, two, three = (AsyncBatchingMapProxy[int, str](cache=cache) for _ in range(3))
    calls = AsyncCalls(gated=True)
    async with together(one, two) as callers:
        await callers.begin("one", one.map, [1, 2], calls)
        await callers.begin("two", two.map, [2, 1], calls)
        assert len(calls.batches) == (1 if isinstance(cache, Cache) else 2)
        calls.open()
    assert callers.results == {"one": ["1", "2"], "two": ["2", "1"]}
    assert await three.map([1], calls) == ["1"]  # with room for nothing it is computed again
    assert calls.batches == batches
    await two.clear()  # for everybody
    assert len(cache) == 0
    await one.map([1], again := AsyncCalls())
    assert again.batches == [[1]]


def test_prime_and_invalidate_and_clear() -> None:
    """Primed values are known, `None` too; forgotten ones are not; length and membership tell."""
    cache = Cache[Any]()
    proxy = BatchingMapProxy[str, Any](cache=cache)
    cache.prime({"a": 1, "b": None})
    assert proxy.map(["b", "a"], never) == [None, 1]
    assert (len(cache), "b" in cache, "c" in cache) == (2, True, False)
    cache.prime({"a": 2})
    assert proxy.map(["a"], never) == [2]
    cache.invalidate(key for key in ("a", "never there"))
    assert "a" not in cache
    cache.clear()
    assert len(cache) == 0
    assert repr(cache) == "<Cache: 0 values, 0 keys in flight, 0 waiting>"


class Armed:
    """A key whose hash changes a dict, as another thread may while it is computed."""

    def __init__(self, mapping: dict[Any, str]) -> None:
        self._mapping = mapping
        self.armed = False

    def __hash__(self) -> int:
        if self.armed:
            self._mapping[len(self._mapping)] = "another"
        return 0

    def __eq__(self, other: object) -> bool:
        return self is other


def test_a_dict_that_changes_while_it_is_read() -> None:
    """A dict of the user's may be written to by others at any moment of a map()."""
    mapping: dict[Any, str] = {}
    unasked, *keys = (Armed(mapping) for _ in range(6))
    mapping |= {unasked: "unasked", keys[0]: "first"}
    proxy = BatchingMapProxy[Armed, str](cache=mapping)
    unasked.armed = True
    assert proxy.map(keys, lambda items: ["new"] * len(items)) == ["first"] + ["new"] * 4


def test_a_mapping_without_a_length(caplog: pytest.LogCaptureFixture) -> None:
    """It can be mapped with, and looked at."""

    class Endless(Failing):
        def __len__(self) -> int:
            raise OSError("len")

    proxy = BatchingMapProxy[int, str](cache=Endless())
    assert proxy.map([1, 2], lambda items: ["a"] * len(items)) == ["a", "a"]
    assert proxy.statistics().cached == 0
    assert "0 values" in repr(proxy)
    assert "OSError: len" in caplog.text


def test_what_was_invalidated_is_not_kept_alive() -> None:
    """Neither the cache nor its notes hold on to a value that it was told to forget."""

    class Value:
        pass

    cache = Cache[Value](max_size=5)
    proxy = BatchingMapProxy[int, Value](cache=cache)
    [value, _] = proxy.map([1, 2], lambda items: [Value() for _ in items])
    proxy.map([1, 3], lambda items: [Value() for _ in items])
    gone = weakref.ref(value)
    del value, _
    cache.invalidate([1])
    assert gone() is None


class OwnMapping(dict[Any, Any]):
    """Not a dict proper: used through the methods of any mapping."""


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(lambda: None, id="default"),
        pytest.param(lambda: Cache(max_size=5), id="bounded"),
        pytest.param(lambda: Cache(ttl=1000), id="expiring"),
        pytest.param(OwnMapping, id="mapping"),
    ],
)
def test_none_is_found_among_what_is_missing(cache: Callable[[], Any]) -> None:
    """A cached None is not computed again by a map() that has to compute something else."""
    proxy = BatchingMapProxy[int, None](cache=cache())
    calls = Calls(lambda item: None)
    proxy.map([1], calls)
    assert proxy.map([1, 2], calls) == [None, None]
    assert proxy.map([2, 1], calls) == [None, None]
    assert calls.batches == [[1], [2]]


def test_a_cleared_cache_keeps_no_key_alive() -> None:
    """Neither the values nor the deadlines hold on to what was forgotten."""

    class Key:
        pass

    key, cache = Key(), Cache[str](ttl=1000)
    gone = weakref.ref(key)
    cache.prime({key: "value"})
    cache.clear()
    del key
    gc.collect()
    assert gone() is None


SMALL: dict[str, Any] = {
    "Cache(max_size=1)": lambda: Cache(max_size=1),
    "Cache(max_size=0)": lambda: Cache(max_size=0),
    "LRUCache(1)": lambda: cachetools.LRUCache(1),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
async def test_a_call_under_way_is_not_evicted(make: Any, fails: bool) -> None:
    """Whatever goes through a small cache meanwhile, a call is shared, and so is its error."""
    proxy = AsyncBatchingMapProxy[int, str](cache=make())
    calls, boom = AsyncCalls(gated=True), ValueError("boom")
    async with together(proxy) as callers:
        await callers.begin("first", proxy.map, [1], calls)
        for other in (2, 3, 4):
            assert await proxy.map([other], AsyncCalls()) == [str(other)]
        await callers.begin("second", proxy.map, [1], calls)
        if fails:
            calls.fail(0, boom)
        else:
            calls.finish(0)
    assert callers.results == dict.fromkeys(("first", "second"), boom if fails else ["1"])
    assert calls.batches == [[1]]


async def test_clear_between_the_batches_of_a_map() -> None:
    """Its answers are complete; what it computed before is forgotten, the rest is kept."""
    proxy = AsyncBatchingMapProxy[int, str](2, 1)
    calls, again = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, range(6), calls)
        calls.finish(0)
        await settle()
        await proxy.clear()
        calls.open()
    assert callers.results == {"owner": naive(range(6))}
    assert calls.batches == [[0, 1], [2, 3], [4, 5]]
    assert await proxy.map(range(6), again) == naive(range(6))
    assert again.batches == [[0, 1], [2, 3]]


def test_what_a_mapping_raises_is_not_kept_alive() -> None:
    """It is freed with the end of the `map()` that met it, without the collector."""
    with freed_at_once() as raised:

        class Error(Exception):
            pass

        class Broken(Failing):
            def _do(self, what: str) -> None:
                error = Error(what)
                raised.append(weakref.ref(error))
                try:
                    raise error
                finally:
                    del error

        assert BatchingMapProxy[int, str](cache=Broken()).map([1], naive) == ["1"]
