"""Points 1, 5 to 11, 13 and 14 of the contract: what other libraries are known to get wrong.

The scenarios of ``proof/peers.py``, where they are run on those libraries too, as tests of these
proxies. Many are tested where their promise is, and not here again:

- one of two callers is cancelled: test_cancellation::test_cancelling_a_waiter_disturbs_nobody,
  test_cancellation::test_waiters_take_over_from_a_cancelled_owner
- all callers are cancelled, and one asks again: test_cancellation::test_everybody_cancelled
- the function itself is cancelled:
  test_failures::test_a_cancelled_error_of_the_function_is_not_swallowed,
  test_failures::test_waiters_take_over_from_a_cancelled_error
- twenty callers of one failing call: test_failures::test_twenty_callers_of_a_failing_key,
  test_sync::test_twenty_threads_share_one_failure
- a failed result is kept: test_failures::test_exceptions_are_never_cached,
  test_sync::test_return_exceptions
- a late failure and a newer entry, in tasks:
  test_in_flight::test_a_late_failure_does_not_release_a_newer_claim
- a store smaller than the list: test_cache::test_a_request_larger_than_the_cache,
  test_cache::test_a_request_larger_than_the_cache_async
- nested maps with all slots taken: test_concurrency::test_nested_maps_with_every_slot_taken,
  test_sync::test_nested_maps_with_every_slot_taken
- clear() during a map: test_in_flight::test_waiters_get_what_was_forgotten_under_way,
  test_sync::test_clear_while_a_call_is_under_way
- close() and the results: test_misuse::test_a_closed_proxy, test_sync::test_closing
- a dict or a str as answer: test_batches::test_answers_may_be_a_mapping,
  test_misuse::test_answers_of_a_wrong_kind
- a generator as input, in tasks: test_batches::test_items_may_be_any_iterable
- 1, 1.0 and True in one list: test_batches::test_equal_keys_share_one_result
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from itertools import count
from typing import Any

import anyio
import anyio.to_thread
import cachetools
import pytest
from tools import Outcomes, naive, settle, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, assert_idle, look

pytestmark = pytest.mark.anyio

modes = pytest.mark.parametrize(
    "max_concurrency", [pytest.param(None, id="calling thread"), pytest.param(3, id="workers")]
)


class Threads:
    """Callers in threads of their own, what became of them, and a gate for each of their calls."""

    def __init__(self, proxy: BatchingMapProxy[Any, str]) -> None:
        self.results: dict[Any, Any] = {}
        self.batches: list[list[Any]] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()
        self._errors: dict[int, Exception] = {}
        self._gates = [threading.Event() for _ in range(10)]
        self._threads: list[threading.Thread] = []
        self._proxy = proxy

    def start(self, name: Any, items: list[Any], *, waiting: int = 0, calls: int = 0) -> None:
        """Start a caller, and wait until so many sleep and so many calls have begun."""

        def run() -> None:
            try:
                self.results[name] = self._proxy.map(items, self.call)
            except Exception as error:
                self.results[name] = error

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        until(lambda: len(self.batches) == calls and self._proxy.statistics().waiting == waiting)

    def call(self, items: list[Any]) -> list[str]:
        with self._lock:
            number = len(self.batches)
            self.batches.append(items)
        assert self._gates[number].wait(30)
        if number in self._errors:
            raise self._errors[number]
        return naive(items)

    def finish(self, number: int, error: Exception | None = None) -> None:
        """Let the call of that number answer, or raise."""
        if error is not None:
            self._errors[number] = error
        self._gates[number].set()

    def join(self) -> None:
        """Let all calls answer, and all callers end."""
        for gate in self._gates:
            gate.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "this thread hangs"


# Two callers who want the keys of others, in opposite orders.


@pytest.mark.parametrize("first", [0, 1])
async def test_opposite_orders_and_the_owners_fail(first: int) -> None:
    """When both owners fail, one after the other, all end; and who waited calls nothing anew."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    booms = [ValueError("first"), ValueError("second")]
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for key in (0, 1):
            callers.start(f"owner of {key}", proxy.map, [key], calls)
            await settle()
        callers.start("up", proxy.map, [0, 1], calls)
        callers.start("down", proxy.map, [1, 0], calls)
        await settle()
        assert proxy.statistics().waiting == 2
        calls.fail(first, booms[first])
        await settle()
        calls.fail(1 - first, booms[1 - first])
    assert callers.results == {
        "owner of 0": booms[0],
        "owner of 1": booms[1],
        "up": booms[first],
        "down": booms[first],
    }
    assert calls.batches == [[0], [1]]
    assert_idle(proxy)


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("max_concurrency", [3, 8])
async def test_opposite_orders_and_the_owners_leave(
    batch_size: int | None, max_concurrency: int
) -> None:
    """When the owners are cancelled, one after another, those who wait share the work anew."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size, max_concurrency)
    owned, calls = AsyncCalls(gated=True), AsyncCalls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for key in (1, 2, 3):
            callers.start(key, proxy.map, [key], owned)
            await settle()
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
    assert_idle(proxy)


@modes
def test_opposite_orders_and_the_owners_fail_in_threads(max_concurrency: int | None) -> None:
    """The same in threads."""
    proxy = BatchingMapProxy[int, str](None, max_concurrency)
    callers = Threads(proxy)
    booms = [ValueError("first"), ValueError("second")]
    callers.start("owner of 0", [0], calls=1)
    callers.start("owner of 1", [1], calls=2)
    callers.start("up", [0, 1], calls=2, waiting=1)
    callers.start("down", [1, 0], calls=2, waiting=2)
    callers.finish(0, booms[0])
    until(lambda: len(callers.results) == 3)
    callers.finish(1, booms[1])
    callers.join()
    assert callers.results == {
        "owner of 0": booms[0],
        "owner of 1": booms[1],
        "up": booms[0],
        "down": booms[0],
    }
    assert callers.batches == [[0], [1]]


# Cancelled, and asked for again.


async def test_asking_again_after_a_time_limit() -> None:
    """A caller that timed out leaves nothing behind: the key can be asked for at once."""
    proxy = AsyncBatchingMapProxy[int, str]()
    slow, calls = AsyncCalls(gated=True), AsyncCalls()
    with anyio.move_on_after(0.01) as limit:
        await proxy.map([1], slow)
    assert limit.cancelled_caught
    assert await proxy.map([1], calls) == ["1"]
    assert slow.batches == calls.batches == [[1]]
    assert_idle(proxy)


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

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for name in ("owner", "waiter"):
            callers.start(name, proxy.map, [1], slow_to_end)
            await settle()
        for name in ("owner", "waiter"):
            callers.scopes[name].cancel()
        await settle()
        assert callers.results == {"waiter": "cancelled"}
        callers.start("again", proxy.map, [1], calls)
        await settle()
        assert calls.batches == []
        clean.set()
    assert callers.results == {"owner": "cancelled", "waiter": "cancelled", "again": ["1"]}
    assert calls.batches == [[1]]
    assert_idle(proxy)


# Entries that are evicted, or replaced, while their call is under way.

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
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("first", proxy.map, [1], calls)
        await settle()
        for other in (2, 3, 4):
            assert await proxy.map([other], AsyncCalls()) == [str(other)]
        callers.start("second", proxy.map, [1], calls)
        await settle()
        if fails:
            calls.fail(0, boom)
        else:
            calls.finish(0)
    assert callers.results == dict.fromkeys(("first", "second"), boom if fails else ["1"])
    assert calls.batches == [[1]]
    assert_idle(proxy)


@modes
def test_a_late_failure_and_a_newer_call_in_threads(max_concurrency: int | None) -> None:
    """A call that fails after its key was forgotten leaves the newer call for that key alone."""
    cache = Cache[str]()
    callers = Threads(BatchingMapProxy[int, str](None, max_concurrency, cache=cache))
    boom = ValueError("boom")
    callers.start("old", [1], calls=1)
    cache.invalidate([1])
    callers.start("new", [1], calls=2)
    callers.finish(0, boom)
    until(lambda: "old" in callers.results)
    callers.start("newest", [1], calls=2, waiting=1)
    callers.join()
    assert callers.results == {"old": boom, "new": ["1"], "newest": ["1"]}
    assert callers.batches == [[1], [1]]
    assert 1 in cache


async def test_a_late_answer_does_not_replace_a_newer_one() -> None:
    """Of two calls for a key, with a clear() between them, the result of the second stays."""
    proxy = AsyncBatchingMapProxy[int, str]()
    old, new = AsyncCalls(lambda item: "old", gated=True), AsyncCalls(lambda item: "new")
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("old", proxy.map, [1], old)
        await settle()
        await proxy.clear()
        assert await proxy.map([1], new) == ["new"]
        old.open()
    assert callers.results == {"old": ["old"]}
    assert await proxy.map([1], old) == ["new"]
    assert (old.batches, new.batches) == ([[1]], [[1]])
    assert_idle(proxy)


async def test_clear_between_the_batches_of_a_map() -> None:
    """Its answers are complete; what it computed before is forgotten, the rest is kept."""
    proxy = AsyncBatchingMapProxy[int, str](2, 1)
    calls, again = AsyncCalls(gated=True), AsyncCalls()
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, range(6), calls)
        await settle()
        calls.finish(0)
        await settle()
        await proxy.clear()
        calls.open()
    assert callers.results == {"owner": naive(range(6))}
    assert calls.batches == [[0, 1], [2, 3], [4, 5]]
    assert await proxy.map(range(6), again) == naive(range(6))
    assert again.batches == [[0, 1], [2, 3]]
    assert_idle(proxy)


async def test_closing_a_proxy_whose_calls_others_wait_for() -> None:
    """It deletes nothing of a shared cache, and who waits for its calls gets their answers."""
    cache = Cache[str]()
    closing, other = (AsyncBatchingMapProxy[int, str](1, 1, cache=cache) for _ in range(2))
    await closing.map([0], AsyncCalls())
    calls = AsyncCalls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", closing.map, [1, 2], calls)
        await settle()
        callers.start("waiter", other.map, [0, 1], calls)
        await settle()
        await closing.aclose()
        calls.open()
    assert callers.results == {"owner": ["1", "2"], "waiter": ["0", "1"]}
    assert await other.map([0, 1, 2], calls) == ["0", "1", "2"]
    assert calls.batches == [[1], [2]]
    assert_idle(closing, other)


# Limits.


def test_a_second_event_loop_at_the_limit(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Callers queue for slots in one run and in the next, also if the first was cut short."""
    proxy = AsyncBatchingMapProxy[int, str](1, 1)

    async def run(first: int, cut_short: bool) -> None:
        calls = AsyncCalls(gated=True)
        async with anyio.create_task_group() as group:
            callers = Outcomes(group)
            for key in range(first, first + 5):
                callers.start(key, proxy.map, [key], calls)
            await settle()
            assert len(calls.batches) == 1
            if cut_short:
                group.cancel_scope.cancel()
            calls.open()
        if not cut_short:
            assert callers.results == {key: [str(key)] for key in range(first, first + 5)}

    backend, options = anyio_backend
    for arguments in ((0, False), (5, True), (5, False)):
        anyio.run(run, *arguments, backend=backend, backend_options=options)
    assert proxy.statistics().computed == 10


async def test_the_limit_through_failures_and_cancellations() -> None:
    """200 batches of one key, some of which fail or are cancelled: never more than 3 calls."""
    proxy = AsyncBatchingMapProxy[int, str](1, 3)
    booms = {key: ValueError(key) for key in range(0, 200, 7)}

    def answer(key: int) -> str:
        if key in booms:
            raise booms[key]
        return str(key)

    calls = AsyncCalls(answer, gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for key in range(200):
            callers.start(key, proxy.map, [key], calls)
        await settle()
        assert calls.running == 3
        under_way = calls.keys[1]
        cancelled = {under_way, *range(0, 200, 11)}
        for key in cancelled:
            callers.scopes[key].cancel()
        calls.open()
    assert callers.results == {
        key: "cancelled" if key in cancelled else booms.get(key, [str(key)]) for key in range(200)
    }
    assert calls.most_running == 3
    assert_idle(proxy)
    again = AsyncCalls()
    assert await proxy.map(range(200), again) == naive(range(200))
    assert again.most_running == 3
    assert set(again.keys) == cancelled | booms.keys()
    assert_idle(proxy)


def test_the_limit_in_threads() -> None:
    """200 batches of one key, wanted by four threads: never more than 3 calls at a time."""
    proxy = BatchingMapProxy[int, str](1, 3)
    lock, gate = threading.Lock(), threading.Event()
    running = most = 0

    def call(items: list[int]) -> list[str]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert gate.wait(30)
        with lock:
            running -= 1
        return naive(items)

    lists = [range(start, start + 80) for start in (0, 40, 80, 120)]  # each overlaps the next
    results: dict[int, list[str]] = {}

    def caller(number: int) -> None:
        results[number] = proxy.map(lists[number], call)

    threads = [threading.Thread(target=caller, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: running == 3)
    until(lambda: look(proxy).queueing == 9)  # each map() would like three slots
    assert running == 3
    gate.set()
    for thread in threads:
        thread.join(30)
    assert results == {number: naive(items) for number, items in enumerate(lists)}
    assert most == 3
    assert proxy.statistics().calls == proxy.statistics().computed == 200


# Odd items.


async def test_generators_are_read_once() -> None:
    """Whether nothing is known of its items, or all, or some: a generator gives its answers."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    calls = AsyncCalls()
    for stop in (3, 3, 5):
        assert await proxy.map((item for item in range(stop)), calls) == naive(range(stop))
    assert calls.keys == list(range(5))


@modes
def test_generators_are_read_once_in_threads(max_concurrency: int | None) -> None:
    """The same with the synchronous proxy."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency)
    for stop in (3, 3, 5):
        assert proxy.map((item for item in range(stop)), naive) == naive(range(stop))
    assert proxy.statistics().computed == 5


async def test_equal_keys_of_several_callers() -> None:
    """Who asks for 1.0 or True waits for the call for 1, and a mapping may answer with either."""
    proxy = AsyncBatchingMapProxy[object, str]()
    answer = anyio.Event()
    asked: list[str] = []

    async def call(items: list[object]) -> dict[object, str]:
        asked.append(repr(items))
        await answer.wait()
        return {1.0: "one", False: "none"}

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for items in ([1, 0], [1.0], [True, 0.0]):
            callers.start(repr(items), proxy.map, items, call)
            await settle()
        assert proxy.statistics().waiting == 2
        answer.set()
    assert callers.results == {
        "[1, 0]": ["one", "none"],
        "[1.0]": ["one"],
        "[True, 0.0]": ["one", "none"],
    }
    assert asked == ["[1, 0]"]
    assert_idle(proxy)


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_key_function_that_raises(bad: int) -> None:
    """Its error arrives, whichever item it is of; a call under way and its waiters go on."""

    def key(item: Any) -> Hashable:
        identity: Hashable = item["id"]
        return identity

    proxy = AsyncBatchingMapProxy[dict[str, int], int](key=key)
    calls = AsyncCalls(lambda item: item["id"], gated=True)
    good = [{"id": number} for number in range(3)]
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for name in ("owner", "waiter"):
            callers.start(name, proxy.map, good, calls)
            await settle()
        with pytest.raises(KeyError, match="id"):
            await proxy.map([*good[:bad], {}, *good[bad:]], calls)
        assert proxy.statistics().in_flight == 3
        calls.open()
    assert callers.results == {"owner": [0, 1, 2], "waiter": [0, 1, 2]}
    assert calls.batches == [good]
    assert_idle(proxy)


@modes
def test_a_key_function_that_raises_in_threads(max_concurrency: int | None) -> None:
    """Its error arrives, nothing is called, and the proxy is as good as before."""
    proxy = BatchingMapProxy[Any, str](None, max_concurrency, key=lambda item: item["id"])
    with pytest.raises(KeyError, match="id"):
        proxy.map([{"id": 1}, {}], naive)
    assert proxy.statistics().calls == 0
    assert proxy.map([{"id": 1}], naive) == ["{'id': 1}"]


class Fragile:
    """A key that collides with all others, and whose comparison raises when it is to."""

    comparisons_left = -1

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        Fragile.comparisons_left -= 1
        if Fragile.comparisons_left == 0:
            raise RuntimeError("no comparison")
        return isinstance(other, Fragile) and self.number == other.number


@pytest.mark.parametrize("batch_size", [None, 1, 2])
async def test_keys_whose_comparison_raises(batch_size: int | None) -> None:
    """At whatever moment it does, all callers end, and the proxy is as good as before."""

    def keys(*numbers: int) -> list[Fragile]:
        return [Fragile(number) for number in numbers]

    def number(key: Fragile) -> int:
        return key.number

    for moment in count(1):
        proxy = AsyncBatchingMapProxy[Fragile, int](batch_size, 2)
        await proxy.map(keys(8, 9), AsyncCalls(number))
        calls = AsyncCalls(number, gated=True)
        Fragile.comparisons_left = moment
        async with anyio.create_task_group() as group:
            callers = Outcomes(group)
            callers.start((1, 2, 9), proxy.map, keys(1, 2, 9), calls)
            await settle(5)
            callers.start((3, 2, 8), proxy.map, keys(3, 2, 8), calls)
            await settle(5)
            calls.open()
        for numbers, result in callers.results.items():
            assert result == list(numbers) or isinstance(result, RuntimeError)
        raised = Fragile.comparisons_left <= 0
        assert_idle(proxy)
        Fragile.comparisons_left = -1
        assert await proxy.map(keys(1, 2, 3, 8, 9), AsyncCalls(number)) == [1, 2, 3, 8, 9]
        if not raised:
            break
    assert moment > 20  # or else the comparisons were not those of the proxy
