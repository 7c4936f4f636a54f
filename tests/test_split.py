"""Point 19 of the contract: batches that the function refuses are halved."""

import asyncio
import math
import weakref
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from memory_store import MemoryStore, PlainStore
from store_tools import all_released, cache_on, nothing_left, proxy_of, shared
from tools import (
    Thing,
    Thread,
    freed_at_once,
    happens,
    modes,
    naive,
    never,
    never_asked,
    settle,
    step,
    together,
)

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    Progress,
    SplitBatch,
    StoreError,
)
from batchproxy.codecs import digests
from batchproxy.stores import Claimant
from batchproxy.testing import AsyncCalls, Calls, assert_idle, look


class Bad(Exception):
    """What a service says of a request that it cannot take."""


class Service:
    """A function that refuses batches with certain items in them, or with too many."""

    def __init__(self, bad: Collection[Any] = (), most: float = math.inf) -> None:
        self.bad = bad
        self.most = most
        self.batches: list[list[Any]] = []

    def answer(self, items: list[Any]) -> list[str]:
        self.batches.append(items)
        try:
            if len(items) > self.most:
                raise Bad("too many")
            for item in items:
                if item in self.bad:
                    raise Bad(item)
        except Bad as error:
            raise SplitBatch from error
        return naive(items)

    def answer_one(self, item: Any) -> str:
        return self.answer([item])[0]

    async def __call__(self, items: list[Any]) -> list[str]:
        await checkpoint()
        return self.answer(items)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


BOOM = ValueError("boom")


def assert_refused(out: list[Any]) -> None:
    assert all(isinstance(each, Bad) for each in out)


def refusal(cause: Exception) -> SplitBatch:
    """What is raised of an item that is refused for this."""
    error = SplitBatch()
    error.__cause__ = cause
    return error


EIGHT = [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7]]
"""The calls of which the item 3 is refused."""


# --- Halves ---


@pytest.mark.parametrize("cache", ["memory", "nothing", "plain", "shared"])
async def test_a_refused_batch_is_halved(cache: str) -> None:
    """Each half is a call of its own; the item that is refused alone holds the cause."""
    stores = {"plain": PlainStore(), "shared": MemoryStore()}
    caches = {"memory": Cache[str](), "nothing": Cache[str](max_size=0)}
    store = stores.get(cache)
    kept = caches[cache] if store is None else cache_on(store)
    proxy = AsyncBatchingMapProxy[int, str](8, 1, cache=kept)
    service = Service({3})
    out: list[Any] = await proxy.map(range(10), service, return_exceptions=True)
    assert service.batches == [*EIGHT, [8, 9]]
    assert [*out[:3], *out[4:]] == naive([0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert isinstance(out[3], Bad)
    assert out[3].args == (3,)
    now = proxy.statistics()
    assert (now.calls, now.completed, now.failed, now.cancelled) == (8, 4, 4, 0)
    assert (now.maps, now.computed) == (1, 9)
    assert_idle(proxy)
    if store is not None:
        await all_released(store, proxy)
        assert {name for _, name in store.values} == {*digests([*{*range(10)} - {3}])}


@modes
def test_synchronous_batches_are_halved(max_concurrency: int | None, sync_backend: Any) -> None:
    """In the calling thread and in workers, as in a task."""
    proxy = BatchingMapProxy[int, str](8, max_concurrency, backend=sync_backend)
    service = Service({3})
    with pytest.raises(Bad, match="3"):
        proxy.map(range(8), service.answer)
    assert service.batches == EIGHT
    assert proxy.map([0, 1, 2, 4, 5, 6, 7], never) == naive([0, 1, 2, 4, 5, 6, 7])
    service = Service({9})
    out = proxy.map([8, 9], service, return_exceptions=True)
    assert out[0] == "8"
    assert isinstance(out[1], Bad)
    assert_idle(proxy)


async def test_the_neighbours_of_a_refused_item_are_kept() -> None:
    """It is the failure of an item: all of its batch is tried, and then it ends the map()."""
    proxy = AsyncBatchingMapProxy[int, str](4, 1)
    service = Service({1, 2})
    with pytest.raises(Bad, match="1") as raised:
        await proxy.map(range(8), service)
    assert service.batches == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3], [2], [3]]
    assert raised.value.__notes__ == ["another call of the same map() failed too: Bad: 2"]
    again = AsyncCalls()
    assert await proxy.map(range(8), again) == naive(range(8))
    assert again.batches == [[1, 2, 4, 5], [6, 7]]
    assert_idle(proxy)


@pytest.mark.parametrize("cause", [None, KeyboardInterrupt()])
async def test_a_refusal_without_a_cause_is_the_failure(cause: BaseException | None) -> None:
    """Also if the cause is nothing that an item may hold."""
    proxy = AsyncBatchingMapProxy[int, str]()
    refusal = SplitBatch("no")

    async def refuse(items: list[int]) -> list[str]:
        raise refusal from cause

    with pytest.raises(SplitBatch) as raised:
        await proxy.map([1], refuse)
    assert raised.value is refusal
    assert await proxy.map([1], refuse, return_exceptions=True) == [refusal]
    assert str(refusal) == "no"
    assert "gave no reason: let it raise SplitBatch(reason)" in str(SplitBatch())
    assert_idle(proxy)


async def test_only_a_raised_refusal_halves() -> None:
    """In an answer it is the failure of that item like any other; in a group it is none."""
    proxy = AsyncBatchingMapProxy[int, Any]()
    refusal = SplitBatch()
    calls = AsyncCalls(lambda item: refusal if item == 1 else str(item))
    assert await proxy.map(range(3), calls, return_exceptions=True) == ["0", refusal, "2"]
    assert calls.batches == [[0, 1, 2]]
    group = ExceptionGroup("several", [refusal])
    calls = AsyncCalls()
    calls.fail(0, group)
    assert await proxy.map([3, 4], calls, return_exceptions=True) == [group, group]
    assert calls.batches == [[3, 4]]


async def test_progress_of_a_refused_batch() -> None:
    """Every half is a call that was begun, and what it gave is told at once."""
    proxy = AsyncBatchingMapProxy[int, str]()
    told: list[Progress] = []
    await proxy.map(range(4), Service({1}), return_exceptions=True, progress=told.append)
    assert [(now.done, now.calls, now.failures) for now in told] == [
        *((0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 4, 1), (4, 5, 1)),
    ]


# --- Those who wait, and the slot ---


@pytest.mark.parametrize("size", [None, 0])
async def test_who_waits_follows_a_key_into_its_half(size: int | None) -> None:
    """It has its answer when that half has, and never computes it, whatever the cache keeps."""
    cache = Cache[str](max_size=size)
    proxy = AsyncBatchingMapProxy[int, str](cache=cache)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("own", proxy.map, range(8), calls)
        for name, items in {"first": [1], "second": [7], "both": [2, 5]}.items():
            callers.start(name, proxy.map, items, never)
        await settle()
        await step(calls.fail, 0, SplitBatch())
        assert calls.batches[1:] == [[0, 1, 2, 3]]
        assert look(proxy).in_flight == {*range(8)}
        assert proxy.statistics().waiting == 3
        await step(calls.fail, 1, SplitBatch())
        await step(calls.finish, 2)
        assert callers.results == {"first": ["1"]}
        assert look(proxy).in_flight == {*range(2, 8)}
        await step(calls.finish, 3)
        assert calls.batches[4:] == [[4, 5, 6, 7]]
        assert callers.results == {"first": ["1"]}
        calls.finish(4)
    assert callers.results == {
        "first": ["1"],
        "second": ["7"],
        "both": ["2", "5"],
        "own": naive(range(8)),
    }


@pytest.mark.parametrize("how", ["refused", "in an answer"])
async def test_who_waits_for_a_refused_item_gets_the_cause(how: str) -> None:
    """The very one, or what it has in an answer, at once, and not when the batch has ended."""
    proxy, bad = AsyncBatchingMapProxy[int, Any](), Bad()
    refused = how == "refused"
    calls = AsyncCalls(lambda item: str(item) if refused or item > 1 else bad, gated=True)
    async with together(proxy) as callers:
        own = partial(proxy.map, [1, 2], calls, return_exceptions=not refused)
        await callers.begin("own", own)
        callers.start("waits", proxy.map, [1], never)
        await callers.begin("late", proxy.map, [1, 2], never)
        await step(calls.fail, 0, refusal(bad))
        if refused:
            await step(calls.fail, 1, refusal(bad))
        else:
            await step(calls.finish, 1)
        assert callers.results == {"waits": bad, "late": bad}
        assert look(proxy).in_flight == {2}
        calls.finish(2)
    assert callers.results["own"] == (bad if refused else [bad, "2"])
    assert await proxy.map([2], never_asked) == ["2"]


@pytest.mark.parametrize("end", ["answered", "failed", "cancelled"])
async def test_who_looks_when_all_is_over_learns_what_came_of_each_half(end: str) -> None:
    """It met the call, and had one of its own to make until that had ended."""
    cache = Cache[str](max_size=0)
    first, second = (AsyncBatchingMapProxy[int, str](cache=cache) for _ in range(2))
    calls, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
    bad, boom = Bad(), ValueError("boom")
    for number in range(3):
        calls.fail(number, refusal(bad))
    async with together(first, second) as callers:
        await callers.begin("own", lambda: first.map(range(6), calls, return_exceptions=True))
        callers.start("waits", lambda: second.map(range(7), others, return_exceptions=True))
        for number in range(4):
            await settle()
            calls.finish(number)
        await settle()
        assert calls.batches == [[*range(6)], [0, 1, 2], [0], [1, 2], [3, 4, 5]]
        if end == "answered":
            calls.finish(4)
        elif end == "failed":
            calls.fail(4, boom)
        else:
            callers.scopes["own"].cancel()
        await settle()
        assert "waits" not in callers.results
        others.open()
    rest = [boom] * 3 if end == "failed" else ["3", "4", "5"]
    assert callers.results["waits"] == [bad, "1", "2", *rest, "6"]
    assert others.batches == ([[6], [3, 4, 5]] if end == "cancelled" else [[6]])


async def test_all_halves_are_in_the_slot_of_the_batch() -> None:
    """Whoever waits for a slot waits for all of them."""
    proxy = AsyncBatchingMapProxy[int, str](4, 1)
    service = Service({1})
    async with together() as callers:
        callers.start("own", lambda: proxy.map(range(4), service, return_exceptions=True))
        await checkpoint()
        callers.start("other", proxy.map, [10, 11], service)
    assert service.batches.index([10, 11]) in (0, 5)  # trio may start it first
    service.batches.remove([10, 11])
    assert service.batches == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3]]
    assert_idle(proxy)


# --- Failures and cancellation between halves ---


@pytest.mark.parametrize(
    ("ends", "raised", "batches", "left"),
    [
        pytest.param(
            [SplitBatch(), SplitBatch(), None, BOOM],
            [BOOM],
            [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3]],
            [*range(2, 8)],
            id="another failure",
        ),
        pytest.param(
            [SplitBatch()] * 3 + [SplitBatch("1"), SplitBatch("2"), BOOM],
            [SplitBatch("1"), SplitBatch("2"), BOOM],
            [[*range(8)], [0, 1, 2, 3], [0, 1], [0], [1], [2, 3]],
            [*range(8)],
            id="what was refused first is raised first",
        ),
    ],
)
async def test_another_failure_ends_the_map_before_the_other_half(
    ends: list[Exception | None], raised: list[Exception], batches: list[list[int]], left: list[int]
) -> None:
    """It is a failing call like any other: what was finished is kept, what waits is free."""
    proxy = AsyncBatchingMapProxy[int, str](8, 1)
    calls, again = AsyncCalls(), AsyncCalls()
    for number, error in enumerate(ends):
        if error is not None:
            calls.fail(number, error)
    with pytest.raises(type(raised[0]), match=str(raised[0])) as caught:
        await proxy.map(range(16), calls)
    notes = [f"another call of the same map() failed too: {type(e).__name__}: {e}" for e in raised]
    assert getattr(caught.value, "__notes__", []) == notes[1:]
    assert calls.batches == batches
    assert proxy.statistics().cancelled == 0
    assert_idle(proxy)
    assert await proxy.map(range(8), again) == naive(range(8))
    assert again.batches == [left]


async def test_with_exceptions_returned_every_half_is_called() -> None:
    """Whatever the other one raises."""
    proxy = AsyncBatchingMapProxy[int, str](4, 1)
    calls = AsyncCalls()
    calls.fail(0, SplitBatch())
    calls.fail(1, BOOM)
    out = await proxy.map(range(6), calls, return_exceptions=True)
    assert out == [BOOM, BOOM, "2", "3", "4", "5"]
    assert calls.batches == [[*range(4)], [0, 1], [2, 3], [4, 5]]
    assert_idle(proxy)


@pytest.mark.parametrize("kind", [None, PlainStore, MemoryStore])
async def test_cancelled_between_halves(kind: type[PlainStore] | None) -> None:
    """What has finished stays, the rest is free, and who waits for it takes over."""
    store = None if kind is None else kind()
    proxy = AsyncBatchingMapProxy[int, str]() if store is None else proxy_of(store)
    calls, others = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        callers.start("own", proxy.map, range(4), calls)
        await calls.wait_begun()
        callers.start("waits", proxy.map, range(4), others)
        calls.fail(0, SplitBatch())
        await calls.wait_begun(2)
        calls.finish(1)
        await calls.wait_begun(3)
        callers.scopes["own"].cancel()
    assert callers.results == {"own": "cancelled", "waits": naive(range(4))}
    assert calls.batches == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert others.batches == [[2, 3]]
    now = proxy.statistics()
    assert (now.completed, now.failed, now.cancelled) == (2, 1, 1)
    if store is not None:
        await all_released(store, proxy)


async def test_cancelled_while_a_half_is_refused() -> None:
    """No call is under way then, and none is counted as cancelled."""
    proxy = AsyncBatchingMapProxy[int, str]()
    with anyio.CancelScope() as scope:

        async def refuse(items: list[int]) -> list[str]:
            scope.cancel()
            raise SplitBatch

        await proxy.map(range(4), refuse)
    assert scope.cancelled_caught
    now = proxy.statistics()
    assert (now.calls, now.failed, now.cancelled) == (1, 1, 0)
    assert_idle(proxy)


async def test_a_refusal_instead_of_a_cancellation_gives_the_half_up() -> None:
    """What a function raises in clean-up is no refusal, and no failure to those who wait."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)

    async def instead(items: list[int]) -> list[str]:
        try:
            return await calls(items)
        except anyio.get_cancelled_exc_class():
            raise SplitBatch from None

    async with together(proxy) as callers:
        await callers.begin("own", lambda: proxy.map(range(4), instead, return_exceptions=True))
        callers.start("waits", proxy.map, range(4), AsyncCalls())
        await step(calls.fail, 0, SplitBatch())
        callers.scopes["own"].cancel()
    assert callers.results == {"own": "cancelled", "waits": naive(range(4))}
    assert calls.batches == [[*range(4)], [0, 1]]


def test_what_waits_is_called_for_if_its_map_goes_on() -> None:
    """A half that fails in the place of a cancellation is given up, and not the other."""
    proxy = AsyncBatchingMapProxy[int, str](4)
    error = Bad()

    async def instead(items: list[int]) -> list[str]:
        if len(items) == 4:
            raise SplitBatch
        if 0 in items:
            try:
                await asyncio.sleep(math.inf)
            except asyncio.CancelledError:
                raise error from None
        return naive(items)

    async def main() -> None:
        task = asyncio.create_task(proxy.map(range(4), instead, return_exceptions=True))
        await settle()
        task.cancel()
        assert await task == [error, error, "2", "3"]

    asyncio.run(main())
    assert_idle(proxy)


async def test_a_failure_elsewhere_is_learned_of_before_the_next_half() -> None:
    """That of a call which the map() waits for: none of its own is made after it."""
    cache = Cache[str]()
    proxy, other = (AsyncBatchingMapProxy[int, str](cache=cache) for _ in range(2))
    calls, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
    boom = ValueError("boom")
    async with together() as callers:
        await callers.begin("other", other.map, [0], others)
        await callers.begin("own", proxy.map, range(5), calls)
        await step(calls.fail, 0, SplitBatch())
        await step(others.fail, 0, boom)
        calls.finish(1)
    assert callers.results == {"other": boom, "own": boom}
    assert calls.batches == [[1, 2, 3, 4], [1, 2]]
    assert await proxy.map([1, 2], never_asked) == ["1", "2"]
    assert_idle(proxy, other)


def test_no_half_is_called_in_a_worker_when_the_map_is_over() -> None:
    """Calls in threads go on after a failure of another one; refused, they are not halved."""
    proxy = BatchingMapProxy[int, str](2, 2)
    calls = Calls(gated=True)
    caller = Thread(proxy.map, range(4), calls)
    calls.wait_begun(2)
    boom = ValueError("boom")
    first = calls.batches.index([0, 1])
    calls.fail(first, boom)
    while proxy.statistics().failed < 1:
        pass
    calls.fail(1 - first, SplitBatch())
    assert caller.outcome() is boom
    assert sorted(calls.batches) == [[0, 1], [2, 3]]
    assert_idle(proxy)


async def test_what_is_forgotten_between_halves_is_not_kept() -> None:
    """By `invalidate()`, as of any call under way; who waits still gets it."""
    proxy = AsyncBatchingMapProxy[int, str](cache=(cache := Cache[str]()))
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("own", proxy.map, range(4), calls)
        await callers.begin("waits", proxy.map, [1, 3], never)
        await step(calls.fail, 0, SplitBatch())
        cache.invalidate([0, 3])
        assert look(cache).in_flight == {1, 2}
        await step(calls.finish, 1)
        calls.finish(2)
    assert callers.results == {"own": naive(range(4)), "waits": ["1", "3"]}
    assert [key in cache for key in range(4)] == [False, True, True, False]


# --- Rings ---


@pytest.mark.parametrize("wanted", [0, 3])
async def test_a_half_that_would_wait_for_the_other_is_in_a_ring(wanted: int) -> None:
    """The batch goes on with it only when this half has ended: it raises, and does not hang."""
    cache = Cache[str]()
    proxy, other = (AsyncBatchingMapProxy[int, str](cache=cache) for _ in range(2))

    async def nested(items: list[int]) -> list[str]:
        if len(items) == 4:
            raise SplitBatch
        if items == [0, 1]:
            await other.map([wanted], never_asked)
        return naive(items)

    with pytest.raises(CircularWaitError, match=str(wanted)):
        await proxy.map(range(4), nested)
    assert_idle(proxy, other)


@modes
def test_a_ring_of_halves_in_threads(max_concurrency: int | None) -> None:
    """As in tasks."""
    proxy = BatchingMapProxy[int, str](4, max_concurrency)

    def nested(items: list[int]) -> list[str]:
        if len(items) == 4:
            raise SplitBatch
        return proxy.map([3], never) if items == [0, 1] else naive(items)

    with pytest.raises(CircularWaitError, match="3"):
        proxy.map(range(4), nested)
    assert_idle(proxy)


async def test_a_half_may_ask_for_what_the_other_gave() -> None:
    """And for what was refused, which is free."""
    proxy = AsyncBatchingMapProxy[int, str](8, 1)
    retried = AsyncCalls(lambda item: f"retried {item}")

    async def nested(items: list[int]) -> list[str]:
        if len(items) == 4 or items in ([0, 1], [1]):
            raise SplitBatch
        if items == [2, 3]:
            return await proxy.map([0, 1], retried)
        return naive(items)

    out = await proxy.map(range(4), nested, return_exceptions=True)
    assert isinstance(out[1], SplitBatch)
    assert [out[0], *out[2:]] == ["0", "0", "retried 1"]
    assert retried.batches == [[1]]
    assert_idle(proxy)


# --- Outages, and batches that are too large ---


@pytest.mark.parametrize("size", [3, 4, 1000])
async def test_an_outage_is_not_bisected(size: int) -> None:
    """After three items that were refused alone, and the last one, the rest fails untried.

    The next map() tries it.
    """
    proxy = AsyncBatchingMapProxy[int, str](size, 1)
    service = Service(range(2000))
    out: list[Any] = await proxy.map(range(size), service, return_exceptions=True)
    alone = [batch[0] for batch in service.batches if len(batch) == 1]
    assert alone == [0, 1, 2, size - 1][:size]
    assert len(service.batches) <= 26
    assert [error.args[0] for error in out] == [0, 1, 2, *[size - 1] * (size - 3)]
    assert all(error is out[-1] for error in out[3:])
    now = proxy.statistics()
    assert (now.calls, now.failed, now.cached) == (len(service.batches), len(service.batches), 0)
    assert_idle(proxy)
    assert await proxy.map(range(size), AsyncCalls()) == naive(range(size))


async def test_who_waits_for_what_is_not_tried_fails_with_it() -> None:
    """As the items of a failing call."""
    proxy = AsyncBatchingMapProxy[int, str]()
    async with together(proxy) as callers:
        calls = AsyncCalls(Service(range(8)).answer_one, gated=True)
        await callers.begin("own", lambda: proxy.map(range(8), calls, return_exceptions=True))
        await callers.begin("waits", proxy.map, [7], never)
        calls.open()
    assert callers.results["waits"] is callers.results["own"][7] is callers.results["own"][5]


@pytest.mark.parametrize("bad", [3, 4, 5, 6, 7])
async def test_what_was_refused_before_hides_nothing_behind_it(bad: int) -> None:
    """All that a list has of it comes first in a batch, and the last item is no part of it."""
    proxy = AsyncBatchingMapProxy[int, str](8, 1)
    service = Service(range(bad))
    assert_refused(await proxy.map(range(bad), service, return_exceptions=True))
    service.batches.clear()
    out = await proxy.map(range(12), service, return_exceptions=True)
    assert_refused(out[:bad])
    assert out[bad:] == naive(range(bad, 12))
    alone = [batch[0] for batch in service.batches if len(batch) == 1]
    assert alone[:3] == [0, 1, 2]
    assert max(map(service.batches.count, service.batches)) == 1
    assert proxy.statistics().computed == 12 - bad
    assert_idle(proxy)


async def test_the_last_item_has_its_own_place() -> None:
    """Also in a later batch, and with what is refused behind it; the order of calls is another."""
    proxy = AsyncBatchingMapProxy[int, str](8, 1)
    service = Service({8, 9, 10, 11, 13})
    out: list[Any] = await proxy.map(range(18), service, return_exceptions=True)
    assert [str(each) for each in out] == naive(range(18))
    assert service.batches[1:10] == [
        *([*range(8, 16)], [8, 9, 10, 11], [8, 9], [8], [9], [10, 11], [10], [15], [11]),
    ]
    assert service.batches[10:] == [[12, 13, 14], [12], [13, 14], [13], [14], [16, 17]]
    assert_idle(proxy)


async def test_once_anything_has_succeeded_all_is_tried() -> None:
    """Also if most items are refused."""
    proxy = AsyncBatchingMapProxy[int, str]()
    service = Service({*range(8)} - {0})
    out = await proxy.map(range(8), service, return_exceptions=True)
    assert [str(each) for each in out] == naive(range(8))
    assert [batch[0] for batch in service.batches if len(batch) == 1] == [*range(8)]


async def test_an_answer_of_failures_alone_is_no_success() -> None:
    """Nor is a failing call; and neither is an item that was refused."""
    proxy = AsyncBatchingMapProxy[int, str]()
    log: list[list[int]] = []

    async def out_of_order(items: list[int]) -> list[Any]:
        log.append(items)
        if items == [0, 1]:
            return [ValueError("0"), ValueError("1")]
        if items == [3]:
            raise ValueError("3")
        raise SplitBatch

    out = await proxy.map(range(8), out_of_order, return_exceptions=True)
    assert log[:6] == [[*range(8)], [*range(4)], [0, 1], [2, 3], [2], [3]]
    assert log[6:] == [[4, 5, 6, 7], [4, 5], [4], [5], [7]]
    assert [type(out[key]) for key in (0, 1, 3)] == [ValueError] * 3
    assert [type(out[key]) for key in (2, 4, 5, 6, 7)] == [SplitBatch] * 5
    assert_idle(proxy)


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        pytest.param(
            16,
            [
                (64, Service(most=8), [16, 8, 8, *[8] * 6]),
                (16, Service(most=8), [8, 8]),
                (200, Service(), [*[9] * 8, *[11] * 8, *[13] * 3, 1]),
                (65 + 120 + 32, Service(), [*[13] * 5, *[15] * 8, 16, 16]),
                (64, Service(), [16] * 4),
            ],
            id="and grow again by an eighth after eight full successes",
        ),
        pytest.param(
            8,
            [
                (8, Service({3, 7}), [8, 4, 2, 2, 1, 1, 4, 2, 2, 1, 1]),
                (8, Service(most=4), [8, 4, 4]),
                *[(3, Service(), [3])] * 10,
                (10, Service(), [4, 4, 2]),
            ],
            id="not for a refused item, and thinner ones do not make them larger",
        ),
        pytest.param(
            8,
            [
                (8, Service(most=4), [8, 4, 4]),
                (28, Service(), [4] * 7),
                (20, Service(most=2), [4, 2, 2, *[2] * 8]),
                (6, Service(), [3, 3]),
            ],
            id="successes are counted anew for each size",
        ),
    ],
)
async def test_batches_that_were_too_large_are_smaller_from_then_on(
    size: int, maps: list[tuple[int, Service, list[int]]]
) -> None:
    """If both halves succeed; each map() of new keys has batches of these sizes."""
    proxy = AsyncBatchingMapProxy[int, str](size, 1)
    first = 0
    for number, service, sizes in maps:
        service.batches.clear()
        await proxy.map(range(first, first + number), service, return_exceptions=True)
        assert service.sizes == sizes
        first += number
    assert_idle(proxy)


async def test_all_calls_of_a_proxy_have_smaller_batches() -> None:
    """Also those that waited for a slot, and those of other map() calls; not of other proxies."""
    cache = Cache[str]()
    proxy, other = (AsyncBatchingMapProxy[int, str](8, 1, cache=cache) for _ in range(2))
    service = Service(most=4)
    async with together() as callers:
        callers.start(1, proxy.map, range(8), service)
        callers.start(2, proxy.map, range(10, 18), service)
    assert service.sizes == [8, 4, 4, 4, 4]
    service = Service()
    await other.map(range(20, 28), service)
    assert service.sizes == [8]


async def test_batches_are_as_large_as_the_smallest_that_were_not_too_large() -> None:
    """Also if a larger one, which was under way before, is found to be too large later."""
    proxy = AsyncBatchingMapProxy[int, str](8, 2)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("own", proxy.map, range(16), calls)
        first = calls.batches.index([*range(8)])
        await step(calls.fail, first, SplitBatch())
        calls.fail(2, SplitBatch())
        for number in (3, 4):
            await settle()
            calls.finish(number)
        await step(calls.fail, 1 - first, SplitBatch())
        assert [len(batch) for batch in calls.batches] == [8, 8, 4, 2, 2, 4, 4]
        calls.open()
    service = Service()
    await proxy.map(range(20, 24), service)
    assert service.sizes == [2, 2]
    assert_idle(proxy)


# --- With a store ---


async def test_a_half_is_written_and_announced_when_it_has_finished() -> None:
    """While the other half is still being called; other processes have it then."""
    store = MemoryStore()
    proxy, other = proxy_of(store), proxy_of(store)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, range(4), calls)
        await calls.wait_begun()
        calls.fail(0, SplitBatch())
        await calls.wait_begun(2)
        assert not store.values
        assert {key for _, key in store.claims} == {*digests(range(4))}
        calls.finish(1)
        await calls.wait_begun(3)
        assert {key for _, key in store.values} == {*digests([0, 1])}
        assert {key for _, key in store.claims} == {*digests([2, 3])}
        assert await other.map([0, 1], never_asked) == ["0", "1"]
        calls.finish(2)
    assert callers.results == {"own": naive(range(4))}
    nothing_left(store, proxy, other)


@pytest.mark.parametrize("how", ["refused", "in an answer", "not to be stored"])
async def test_the_claim_of_a_failed_item_is_given_back_at_once(how: str) -> None:
    """Another process need not wait until the rest of the batch has ended."""
    store, proxy = shared()
    calls = AsyncCalls(
        lambda item: (
            {"not to be stored": object(), "in an answer": Bad()}[how] if item == 0 else str(item)
        ),
        gated=True,
    )
    calls.fail(0, SplitBatch())
    if how == "refused":
        calls.fail(1, SplitBatch())
    async with together() as callers:
        callers.start("own", lambda: proxy.map([0, 1], calls, return_exceptions=True))
        for number in range(2):
            await calls.wait_begun(number + 1)
            calls.finish(number)
        await calls.wait_begun(3)
        [name] = digests([0])
        await happens(lambda: ("n", name) not in store.claims)
        assert {key for _, key in store.claims} == {*digests([1])}
        calls.finish(2)
    assert isinstance(callers.results["own"][0], Exception)
    assert callers.results["own"][1] == "1"
    await all_released(store, proxy)


async def test_what_others_published_of_a_half_is_taken() -> None:
    """As of any call: the first result wins, and is everybody's."""
    store, proxy = shared()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, range(4), calls)
        await calls.wait_begun()
        calls.fail(0, SplitBatch())
        await calls.wait_begun(2)
        store.values["n", digests([1])[0]] = b"tother"
        calls.open()
    assert callers.results == {"own": ["0", "other", "2", "3"]}
    nothing_left(store, proxy)


async def test_a_store_that_fails_ends_it_between_halves(store: PlainStore) -> None:
    """Also with exceptions returned; what was computed is written for the next who asks."""
    proxy = proxy_of(store)
    service = Service(most=2)
    method = "publish_many" if isinstance(store, MemoryStore) else "set_many"
    store.fail[method] = OSError("full")
    with pytest.raises(StoreError):
        await proxy.map(range(4), service, return_exceptions=True)
    assert service.batches == [[0, 1, 2, 3], [0, 1]]
    del store.fail[method]
    assert await proxy.map(range(4), service) == naive(range(4))
    assert service.batches[2:] == [[2, 3]]
    await all_released(store, proxy)


async def test_keys_of_which_nothing_is_kept_are_halved_too() -> None:
    """Of them nothing is claimed, either."""
    store, proxy = shared()
    nan = math.nan
    service = Service(most=1)
    assert await proxy.map([nan, 1], service) == ["nan", "1"]
    assert len(service.batches) == 3
    nothing_left(store, proxy)


async def test_the_results_of_a_half_are_written_though_its_caller_leaves() -> None:
    """And the claims on the rest are given back then."""
    store, proxy = shared()
    gate = store.gate("publish_many")
    service = Service(most=2)
    async with together() as callers:
        callers.start("own", proxy.map, range(4), service)
        await gate.wait_entered()
        await callers.cancel("own")
        assert callers.results == {"own": "cancelled"}
        gate.open()
    again = AsyncCalls()
    assert await proxy.map(range(4), again) == naive(range(4))
    assert again.batches == [[2, 3]]
    await all_released(store, proxy)


async def test_processes_wait_for_a_half() -> None:
    """Another process that has claimed a part of it changes nothing."""
    store, proxy = shared(4)
    other = Claimant("other", 1)
    store.claim_many("n", digests([1]), other, 1)
    service = Service(most=2)
    async with together() as callers:
        callers.start("own", proxy.map, range(5), service)
        while len(service.batches) < 3:  # noqa: ASYNC110 - it calls nobody back
            await anyio.sleep(0.001)
        store.publish_many("n", {digests([1])[0]: b"tother"}, other, None)
    assert service.batches == [[0, 2, 3, 4], [0, 2], [3, 4]]
    assert callers.results == {"own": ["0", "other", "2", "3", "4"]}
    nothing_left(store, proxy)


# --- What is left of it ---


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_of_a_refusal_is_left_to_the_collector(keep: bool) -> None:
    """Neither the exceptions nor the batches are in a cycle."""
    proxy = BatchingMapProxy[int, str]()

    class Batch(list[int]):
        pass

    def refuse(items: list[int]) -> list[str]:
        mine = Batch(items)
        left.append(weakref.ref(mine))
        try:
            raise Bad
        except Bad as error:
            left.append(weakref.ref(error))
            raise SplitBatch from error

    with freed_at_once() as left:
        try:
            proxy.map(range(4), refuse, return_exceptions=keep)
        except Bad:
            assert not keep


@pytest.mark.parametrize("how", ["map", "kept", "load"])
@pytest.mark.parametrize("size", [1, 3])
async def test_nothing_of_a_refusal_in_a_task_is_left_to_the_collector(how: str, size: int) -> None:
    """As above: the frames of asynchronous functions lead on to those that called them."""

    async def refuse(items: list[int]) -> list[str]:
        thing = Thing()
        left.append(weakref.ref(thing))
        try:
            raise Bad
        except Bad as error:
            raise SplitBatch from error

    async def load(key: int) -> None:
        with suppress(Bad):
            await bound.load(key)

    bound = AsyncBatchingMapProxy[int, str]().bind(refuse)
    with freed_at_once() as left:
        if how == "load":
            async with anyio.create_task_group() as group:
                for key in range(size):
                    group.start_soon(load, key)
        else:
            with suppress(Bad):
                await bound.map(range(size), return_exceptions=how == "kept")
        await settle(3)
    assert_idle(bound.proxy)
