"""Point 20 of the contract: batches that are limited by weight, too."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore, PlainStore
from store_tools import OTHER, cache_on, nothing_left
from tools import both, modes, naive, never, never_asked, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, SplitBatch
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, Calls, assert_idle

WEIGHED = {"weight": abs, "max_weight": 10}


def expected(weights: list[Any], size: int, most: float) -> list[list[Any]]:
    """As many of the next, in their order, as fit into both; what is heavier goes alone."""
    batches: list[list[Any]] = []
    total = 0
    for weight in weights:
        if batches and len(batches[-1]) < size and total + weight <= most:
            batches[-1].append(weight)
            total += weight
        else:
            batches.append([weight])
            total = weight
    return batches


# --- Batches ---


@pytest.mark.parametrize(
    ("size", "items", "batches"),
    [
        (None, [1, 2, 3, 4, 5, 6], [[1, 2, 3, 4], [5], [6]]),
        (3, [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5], [6]]),
        (None, [5, 11, 4, 12, 13, 1], [[5], [11], [4], [12], [13], [1]]),
        (None, [11, 0, 10], [[11], [0, 10]]),
        (None, [10, 0, 1], [[10, 0], [1]]),
        (None, [9, 5, 1, 9, 1.5, 3], [[9], [5, 1, 1.5], [3]]),
    ],
)
async def test_batches_are_full_by_count_or_by_weight(
    size: int | None, items: list[Any], batches: list[list[Any]]
) -> None:
    """In the order of the items; a heavier item goes alone, also without light ones."""
    proxy = AsyncBatchingMapProxy[Any, str](size, 1, weight=abs, max_weight=10)
    calls = AsyncCalls()
    assert await proxy.map(items, calls) == naive(items)
    assert calls.batches == batches
    assert_idle(proxy)


@modes
def test_synchronous_batches_have_weights(max_concurrency: int | None) -> None:
    """The weight is asked for in the calling thread, whatever runs the function."""
    seen: list[str] = []

    def weight(item: str) -> int:
        seen.append(item)
        return len(item)

    proxy = BatchingMapProxy[str, str](
        3, max_concurrency, key=str.lower, weight=weight, max_weight=4
    )
    calls = Calls()
    items = ["a", "A", "bbb", "cc", "a", "dd", "e"]
    assert [out.lower() for out in proxy.map(items, calls)] == [item.lower() for item in items]
    assert sorted(calls.batches) == [["a", "bbb"], ["cc", "dd"], ["e"]]
    assert seen == ["a", "bbb", "cc", "dd", "e"]  # once for each distinct key
    assert proxy.map(items, never) == proxy.map(items, never)
    assert seen == ["a", "bbb", "cc", "dd", "e"]
    assert_idle(proxy)


@given(
    weights=st.lists(st.integers(0, 12) | st.sampled_from([0.5, 2.5]), max_size=40),
    known=st.sets(st.integers(0, 39)),
    size=st.sampled_from([1, 2, 5, 100]),
    kind=st.sampled_from([None, PlainStore, MemoryStore]),
)
def test_what_is_known_never_thins_a_batch(
    weights: list[float], known: set[int], size: int, kind: type[PlainStore] | None
) -> None:
    """By weight or by count, wherever it is known."""
    items = list(enumerate(weights))
    store = None if kind is None else kind()
    cache = Cache[str]() if store is None else cache_on(store)
    proxy = BatchingMapProxy[Any, str](cache=cache)
    proxy.map([item for item in items if item[0] in known], naive)
    if store is not None:
        cache = cache_on(store)
    proxy = BatchingMapProxy(size, cache=cache, weight=lambda item: item[1], max_weight=10)
    calls = Calls()
    assert proxy.map(items, calls) == naive(items)
    assert [[weight for _, weight in batch] for batch in calls.batches] == expected(
        [weight for number, weight in items if number not in known], size, 10
    )


async def test_what_is_in_flight_does_not_thin_a_batch() -> None:
    """It is passed over, also where it would not fit."""
    cache = Cache[str]()
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    proxy = AsyncBatchingMapProxy[int, str](None, 1, cache=cache, weight=abs, max_weight=10)
    calls, others = AsyncCalls(), AsyncCalls(gated=True)
    async with together(proxy, other) as callers:
        await callers.begin("other", other.map, [8, 9], others)
        await callers.begin("own", proxy.map, [1, 8, 2, 9, 3, 4, 5], calls)
        assert calls.batches == [[1, 2, 3, 4], [5]]
        others.open()
    assert callers.results["own"] == naive([1, 8, 2, 9, 3, 4, 5])


@pytest.mark.parametrize("size", [None, 5])
async def test_what_comes_to_be_known_meanwhile_does_not_thin_a_batch(size: int | None) -> None:
    """What others have computed while this one was under way takes no room in the next batch."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](size, 1, cache=cache, weight=abs, max_weight=10)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("own", proxy.map, [10, 1, 7, 2, 8, 9, 3, 4, 5], calls)
        cache.prime({7: "seven", 8: "eight", 9: "nine"})
        calls.open()
    assert calls.batches == [[10], [1, 2, 3, 4], [5]]
    assert callers.results["own"] == ["10", "1", "seven", "2", "eight", "nine", "3", "4", "5"]


async def test_keys_that_come_back_have_their_weights() -> None:
    """Those of a call that was given up, and those looked at while no slot was free."""
    cache = Cache[str]()
    proxy, other = (
        AsyncBatchingMapProxy[int, str](None, 1, cache=cache, weight=abs, max_weight=10)
        for _ in range(2)
    )
    calls, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
    async with together(proxy, other) as callers:
        await callers.begin("other", other.map, [4, 6, 2, 3], others)
        await callers.begin("first", proxy.map, [10], calls)
        await callers.begin("own", proxy.map, [1, 4, 5, 6, 7, 2, 3], calls)
        await callers.cancel("other")
        calls.open()
    assert others.batches == [[4, 6]]
    assert calls.batches == [[10], [1, 4, 5], [6], [7, 2], [3]]
    assert callers.results["own"] == naive([1, 4, 5, 6, 7, 2, 3])


async def test_calls_at_a_time_are_as_many_as_batches() -> None:
    """Also where the list is one batch by count; with a limit that is out of reach it is one."""
    proxy = AsyncBatchingMapProxy[int, str](100, 3, weight=abs, max_weight=10)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("own", proxy.map, [5, 6, 7, 8, 9], calls)
        assert sorted(calls.batches) == [[5], [6], [7]]
        calls.open()
    assert sorted(calls.batches) == [[5], [6], [7], [8], [9]]
    assert calls.most_running == 3
    proxy = AsyncBatchingMapProxy[int, str](100, 3, weight=abs, max_weight=10)
    calls = AsyncCalls()
    await proxy.map([1, 2, 3, 4], calls)
    assert calls.batches == [[1, 2, 3, 4]]
    assert_idle(proxy)


# --- With a store ---


async def test_a_store_is_read_by_count(store: PlainStore) -> None:
    """All that is missing in memory at once, whatever it weighs."""
    proxy = of_ten(store)
    store.asked.clear()
    items = [*range(10, 60)]
    await proxy.map(items, AsyncCalls())
    assert store.asked[0] == ("get_many", 50)
    nothing_left(store, proxy)


def of_ten(store: PlainStore, weight: Any = abs) -> AsyncBatchingMapProxy[Any, str]:
    """A proxy with that store, of whose batches none is heavier."""
    return AsyncBatchingMapProxy(None, 1, cache=cache_on(store), weight=weight, max_weight=10)


@pytest.mark.parametrize(
    ("held", "weight", "items", "batches"),
    [
        pytest.param(
            [*range(100, 1100)],
            lambda item: item if item < 100 else 8,
            [1, 2, *range(100, 1100), 4, 3, 6, 8, 9, 0],
            [[1, 2, 4, 3], [6], [8], [9, 0]],
            id="heavy ones, in bulk",
        ),
        pytest.param(
            [*range(100, 140)],
            lambda item: item if item < 100 else 1,
            [3, *range(100, 140), 6, 9, 8, 2],
            [[3, 6], [9], [8, 2]],
            id="light ones",
        ),
        pytest.param(
            [7],
            lambda item: 6 if item != item else item,
            [math.nan, 7, 4, 5],
            [[math.nan, 4], [5]],
            id="beside what is not kept",
        ),
    ],
)
async def test_what_other_processes_hold_does_not_thin_a_batch(
    held: list[int], weight: Any, items: list[Any], batches: list[list[Any]]
) -> None:
    """It is passed over; of the rest no more is claimed than fits."""
    store = MemoryStore()
    store.claim_many("n", digests(held), OTHER, len(held))
    proxy, calls = of_ten(store, weight), AsyncCalls()
    claimed: list[int] = []

    async def counting(items: list[Any]) -> list[str]:
        claimed.append(len([claim for claim in store.claims.values() if claim != OTHER]))
        return await calls(items)

    async with together() as callers:
        callers.start("own", proxy.map, items, counting)
        await calls.wait_begun(len(batches))
        store.publish_many("n", dict.fromkeys(digests(held), b"there"), OTHER, None)
    assert calls.batches == batches
    assert claimed == [len([key for key in batch if key == key]) for batch in batches]
    assert store.uses["claim_many"] - store.looks < 40
    assert callers.results["own"] == ["here" if key in held else str(key) for key in items]
    nothing_left(store, proxy)


async def test_what_another_process_wrote_meanwhile_does_not_thin_a_batch(
    store: PlainStore,
) -> None:
    """Between the reading at the start and the claim."""
    proxy = of_ten(store)
    calls = AsyncCalls(gated=True)
    items = [10, 1, 7, 8, 9, 2, 3, 11, 4]
    async with together() as callers:
        callers.start("own", proxy.map, items, calls)
        await calls.wait_begun()
        store.set_many("n", dict.fromkeys(digests([7, 8, 9]), b"there"), None)
        calls.open()
    assert calls.batches == [[10], [1, 2, 3], [11], [4]]
    assert callers.results["own"] == ["10", "1", *["here"] * 3, "2", "3", "11", "4"]
    nothing_left(store, proxy)


async def test_keys_of_which_nothing_is_kept_have_weights(store: PlainStore) -> None:
    """They are in no store, and take their room in a batch."""
    proxy = of_ten(store, lambda item: item if isinstance(item, int) else 6)
    calls = AsyncCalls()
    items = [4, math.nan, 3, (math.nan,), 5]
    assert await proxy.map(items, calls) == naive(items)
    assert [len(batch) for batch in calls.batches] == [2, 2, 1]
    assert [batch[0] for batch in calls.batches] == [4, 3, 5]
    nothing_left(store, proxy)


# --- Refused batches ---


async def test_refused_batches_are_halved_by_count() -> None:
    """Whatever the items weigh."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1, weight=abs, max_weight=20)
    calls = AsyncCalls()
    calls.fail(0, SplitBatch())
    items = [10, 1, 2, 3, 4, 19]
    assert await proxy.map(items, calls) == naive(items)
    assert calls.batches == [[10, 1, 2, 3, 4], [10, 1], [2, 3, 4], [19]]


# --- Options and weights that cannot be ---


@pytest.mark.parametrize("kind", [AsyncBatchingMapProxy, BatchingMapProxy])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": len}, TypeError, "weight= needs max_weight="),
        ({"max_weight": 5}, TypeError, "max_weight= needs weight=.* such as weight=len"),
        ({"weight": 5, "max_weight": 5}, TypeError, "weight must be a function .*, got 5"),
        ({"weight": len, "max_weight": "5"}, TypeError, "max_weight must be a number.*, got '5'"),
        ({"weight": len, "max_weight": True}, TypeError, "max_weight must be a number"),
        ({"weight": len, "max_weight": 0}, ValueError, "max_weight must be more than 0, got 0"),
        ({"weight": len, "max_weight": math.nan}, ValueError, "max_weight must be more than 0"),
        ({"weight": len, "max_weight": 10**400}, ValueError, "must be at most 1e308, or math.inf"),
    ],
)
def test_options_that_do_not_go_together(
    kind: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What came, what was expected, and the remedy."""
    with pytest.raises(error, match=message):
        kind(**options)


@both
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (-1, ValueError, "gave -1 for 'second': a weight is a number of 0 or more"),
        (-0.5, ValueError, "gave -0.5 for 'second'"),
        (math.nan, ValueError, "gave nan for 'second'"),
        (10**400, ValueError, "gave 1000.*0 for 'second': .* at most 1e308, or math.inf"),
        pytest.param(10**5000, ValueError, "gave <an int of 16,610 bits> for 'second'", id="long"),
        ("3", TypeError, "gave '3' for 'second': let it return a number"),
        (None, TypeError, "gave None for 'second'"),
        (1j, TypeError, "gave 1j for 'second'"),
    ],
)
def test_what_is_no_weight(backend: Any, weight: Any, error: type[Exception], message: str) -> None:
    """It is an error before any call, which names the item and what came."""
    weights = {"first": 1.0, "second": weight}
    proxy = AsyncBatchingMapProxy[str, str](1, weight=weights.__getitem__, max_weight=5)

    async def main() -> None:
        with pytest.raises(error, match=message):
            await proxy.map(["first", "second"], never_asked)

    anyio.run(main, backend=backend)
    assert_idle(proxy)
    synchronous = BatchingMapProxy[str, str](1, weight=weights.__getitem__, max_weight=5)
    with pytest.raises(error, match=message):
        synchronous.map(["first", "second"], never)
    assert_idle(synchronous)


def test_what_weight_raises_arrives() -> None:
    """As it is, before any call."""
    proxy = BatchingMapProxy[Any, str](weight=len, max_weight=5)
    with pytest.raises(TypeError, match="has no len"):
        proxy.map(["a", 1], never)


@pytest.mark.parametrize("kind", ["fractions", "numpy"])
def test_numbers_of_all_kinds(kind: str) -> None:
    """Those of NumPy and fractions, too; what has no bound is heavier than any limit."""
    numpy = pytest.importorskip("numpy") if kind == "numpy" else None
    weights: dict[str, Any] = {
        "a": numpy.int64(2) if numpy else 2,
        "b": numpy.float64(2.5) if numpy else 2.5,
        "c": 0.5 if numpy else Fraction(1, 2),
        "d": 1,
        "e": math.inf,
        "g": 5,
        "h": 10**308,
        "i": 10**308,
    }
    proxy = BatchingMapProxy[str, str](weight=weights.__getitem__, max_weight=5)
    calls = Calls()
    proxy.map(list("abcdeg"), calls)
    assert calls.batches == [["a", "b", "c"], ["d"], ["e"], ["g"]]
    calls = Calls()
    proxy = BatchingMapProxy[str, str](weight=weights.__getitem__, max_weight=5)
    proxy.map(list("acd"), calls)
    assert calls.batches == [["a", "c", "d"]]
    calls = Calls()
    proxy.map(list("hib"), calls)
    assert calls.batches == [["h"], ["i"], ["b"]]
    boundless = BatchingMapProxy[str, str](weight=weights.__getitem__, max_weight=math.inf)
    calls = Calls()
    boundless.map(list("abcdeghi"), calls)
    assert calls.batches == [list("abcdeghi")]


def test_nothing_to_weigh() -> None:
    """An empty list, and one that is known, ask for no weight."""
    proxy = BatchingMapProxy[int, str](weight=never, max_weight=5)  # type: ignore[arg-type] # it is not called
    assert proxy.map([], never) == []


@pytest.mark.parametrize("size", [7, 100, 1000])
@pytest.mark.parametrize("most", [9, 50, 500, 5000])
def test_many_light_items(size: int, most: int) -> None:
    """Batches are full however many items it takes, and however that changes."""
    weights = [*(number % 10 for number in range(3000)), *[1] * 2000, *[9] * 1000]
    items = list(enumerate(weights))
    proxy = BatchingMapProxy[Any, str](size, weight=lambda item: item[1], max_weight=most)
    calls = Calls()
    assert proxy.map(items, calls) == naive(items)
    assert [[weight for _, weight in batch] for batch in calls.batches] == expected(
        weights, size, most
    )
