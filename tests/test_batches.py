"""Points 1 and 2 of the contract: order and identity, batches."""

from array import array
from collections import UserList, deque
from collections.abc import Callable, Iterable
from functools import partial
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import naive, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, Calls


async def test_reference_behaviour() -> None:
    """Distinct items once, in batches, in order; a second map() calls nothing."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size=3)
    calls = AsyncCalls()
    items = [1, 2, 2, 3, 4, 4, 5]
    assert await proxy.map(items, calls) == naive(items)
    assert calls.batches == [[1, 2, 3], [4, 5]]
    assert await proxy.map([5, 4, 3, 2, 1], calls) == ["5", "4", "3", "2", "1"]
    assert calls.batches == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize("batch_size", [None, 0, -1])
async def test_no_batch_size_is_one_call(batch_size: int | None) -> None:
    """None, 0 and less: one call with all distinct items that are missing."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = AsyncCalls()
    await proxy.map([3], calls)
    await proxy.map([5, 4, 5, 3, 1], calls)
    assert calls.batches == [[3], [5, 4, 1]]


async def test_hits_never_thin_a_batch() -> None:
    """With 2, 5 and 8 known, the batches of 0…9 are full but for the last."""
    cache = Cache[str]()
    cache.prime({2: "2", 5: "5", 8: "8"})
    proxy = AsyncBatchingMapProxy[int, str](3, cache=cache)
    calls = AsyncCalls()
    assert await proxy.map(range(10), calls) == naive(range(10))
    assert calls.batches == [[0, 1, 3], [4, 6, 7], [9]]


@pytest.mark.parametrize("kind", [list, tuple, deque, partial(array, "i"), iter])
async def test_items_may_be_any_iterable(kind: Callable[[list[int]], Iterable[int]]) -> None:
    """Lists, arrays, iterators: read once, whether nothing of them is known, all, or some."""
    proxy, calls = AsyncBatchingMapProxy[int, str](), AsyncCalls()
    for items in ([2, 1, 2], [1, 2], [3, 2, 4, 3]):
        assert await proxy.map(kind(items), calls) == naive(items)
    assert calls.batches == [[2, 1], [3, 4]]


async def test_nothing_to_map_calls_nothing() -> None:
    """An empty list, and a generator that yields nothing, give an empty list."""
    calls = AsyncCalls()
    proxy = AsyncBatchingMapProxy[int, str](3)
    assert await proxy.map([], calls) == []
    assert await proxy.map((item for item in range(0)), calls) == []
    assert calls.batches == []


async def test_the_result_and_the_batches_are_new_lists() -> None:
    """Nobody who changes a list that he gave or got changes what others see."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    items = [1, 2, 3]

    async def spoil(batch: list[int]) -> list[str]:
        answer = naive(batch)
        batch.clear()
        items.append(4)
        return answer

    first = await proxy.map(items, spoil)
    assert first == ["1", "2", "3"]
    first.clear()
    assert await proxy.map([1, 2, 3], AsyncCalls()) == ["1", "2", "3"]


async def test_equal_keys_share_one_result() -> None:
    """Python's equality decides, and the first of several equal items is the one that is sent."""
    proxy = AsyncBatchingMapProxy[object, str]()
    calls = AsyncCalls(repr)
    assert await proxy.map([1.0, 1, True, "1"], calls) == ["1.0", "1.0", "1.0", "'1'"]
    assert [list(map(repr, batch)) for batch in calls.batches] == [["1.0", "'1'"]]


async def test_key_decides_otherwise() -> None:
    """With key=, what it gives decides; the first item of each key is sent, itself."""
    proxy = AsyncBatchingMapProxy[dict[str, object], str](
        2, 1, key=lambda item: (type(item["id"]), item["id"])
    )
    calls = AsyncCalls(lambda item: item["text"])
    items: list[dict[str, object]] = [
        {"id": 1, "text": "first"},
        {"id": 2, "text": "second"},
        {"id": 1, "text": "another text"},
        {"id": True, "text": "third"},
    ]
    assert await proxy.map(items, calls) == ["first", "second", "first", "third"]
    assert calls.batches == [[items[0], items[1]], [items[3]]]


class Column:
    """Sized and indexable and no sequence, as an array or a Series is."""

    def __init__(self, values: list[str]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> str:
        return self._values[index]


@pytest.mark.parametrize("kind", [list, tuple, deque, UserList, Column])
async def test_answers_may_be_anything_sized_and_indexable(kind: Any) -> None:
    """One result per item, in the order of the batch, in whatever holds them."""

    async def fetch(batch: list[int]) -> Any:
        return kind(naive(batch))

    assert await AsyncBatchingMapProxy[int, str](2).map([3, 1, 2], fetch) == ["3", "1", "2"]


async def test_answers_may_be_a_mapping() -> None:
    """Results by key; further entries are ignored, and not cached."""
    proxy = AsyncBatchingMapProxy[str, int](key=str.lower)
    asked = []

    async def fetch(batch: list[str]) -> Any:
        asked.append(batch)
        return MappingProxyType({"b": 2, "unasked": 0, "a": 1})

    assert await proxy.map(["A", "b", "a"], fetch) == [1, 2, 1]
    assert asked == [["A", "b"]]
    assert proxy.statistics().cached == 2


async def test_attributes_are_readable() -> None:
    """batch_size and max_concurrency say what was given, or the defaults."""
    proxy = AsyncBatchingMapProxy[int, str]()
    assert (proxy.batch_size, proxy.max_concurrency) == (None, 8)
    proxy = AsyncBatchingMapProxy[int, str](3, 2)
    assert (proxy.batch_size, proxy.max_concurrency) == (3, 2)
    assert repr(proxy).startswith("<AsyncBatchingMapProxy batch_size=3 max_concurrency=2 ")
    sync = BatchingMapProxy[int, str]()
    assert (sync.batch_size, sync.max_concurrency) == (None, None)


@settings(max_examples=50, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 12), max_size=30), max_size=5),
    batch_size=st.none() | st.integers(-1, 7),
    max_concurrency=st.none() | st.integers(1, 3),
    max_size=st.none() | st.integers(0, 8),
    seconds=st.none() | st.just(3600.0),
)
def test_a_sync_proxy_equals_the_naive_loop(
    lists: list[list[int]],
    batch_size: int | None,
    max_concurrency: int | None,
    max_size: int | None,
    seconds: float | None,
) -> None:
    """Whatever the options: the answers of the naive loop, with full batches of distinct items."""
    cache = Cache[str](max_size, seconds)
    proxy = BatchingMapProxy[int, str](batch_size, max_concurrency, cache=cache)
    for items in lists:
        known = {item for item in items if item in cache}
        calls = Calls()
        assert proxy.map(iter(items), calls) == naive(items)
        missing = [item for item in dict.fromkeys(items) if item not in known]
        size = batch_size if batch_size and batch_size > 0 else max(len(missing), 1)
        expected = [missing[i : i + size] for i in range(0, len(missing), size)]
        assert sorted(calls.batches) == sorted(expected)
        assert max_size is None or len(cache) <= max_size


async def test_equal_keys_of_several_callers() -> None:
    """Who asks for 1.0 or True waits for the call for 1, and a mapping may answer with either."""
    proxy = AsyncBatchingMapProxy[object, str]()
    answer = anyio.Event()
    asked: list[str] = []

    async def call(items: list[object]) -> dict[object, str]:
        asked.append(repr(items))
        await answer.wait()
        return {1.0: "one", False: "none"}

    async with together(proxy) as callers:
        for items in ([1, 0], [1.0], [True, 0.0]):
            await callers.begin(repr(items), proxy.map, items, call)
        assert proxy.statistics().waiting == 2
        answer.set()
    assert callers.results == {
        "[1, 0]": ["one", "none"],
        "[1.0]": ["one"],
        "[True, 0.0]": ["one", "none"],
    }
    assert asked == ["[1, 0]"]
