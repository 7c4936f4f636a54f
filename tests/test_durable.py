"""Points 16 and 18 of the contract: results that outlive the process, and stores that fail."""

import _thread
import logging
import threading
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from memory_store import MemoryStore, PlainStore
from process_tools import needs_posix, run
from store_tools import (
    OTHER,
    all_released,
    cache_and_proxy,
    nothing_left,
    proxy_of,
    released,
    shared,
    used,
)
from tools import happens, interrupted_when, naive, settle, step, together, until

from batchproxy import (
    AnswerTypeError,
    AnswerValueError,
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    StoreError,
)
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, look


async def test_a_second_run_computes_nothing(store: PlainStore) -> None:
    """What one cache computed, another one with the same store and namespace finds."""
    calls = AsyncCalls()
    proxy = proxy_of(store, 3)
    assert await proxy.map([1, 2, 2, 3, 4], calls) == naive([1, 2, 2, 3, 4])
    again = proxy_of(store, 3)
    assert await again.map([4, 3, 2, 1], calls) == naive([4, 3, 2, 1])
    assert calls.batches == [[1, 2, 3], [4]]
    assert again.statistics().stored == 4
    assert again.statistics().calls == 0
    nothing_left(store, proxy, again)


async def test_memory_stays_in_front(store: PlainStore) -> None:
    """What is in memory is not looked up; what was read once is in memory."""
    proxy = proxy_of(store)
    await proxy.map([1, 2], AsyncCalls())
    again = proxy_of(store)
    await again.map([1, 2], AsyncCalls())
    store.asked.clear()
    assert await again.map([2, 1], AsyncCalls()) == ["2", "1"]
    assert await proxy.map([1], AsyncCalls()) == ["1"]
    assert store.asked == []


async def test_look_ups_are_in_bulk(store: PlainStore) -> None:
    """A list is read in windows, and then asked for once more, batch by batch, before each call."""
    await proxy_of(store).map([2, 3], AsyncCalls())
    store.asked.clear()
    calls = AsyncCalls()
    await proxy_of(store, 9_000, 1).map(range(20_001), calls)
    assert calls.keys == [0, 1, *range(4, 20_001)]
    reads = [("get_many", 10_000), ("get_many", 10_000), ("get_many", 1)]
    sizes = [len(batch) for batch in calls.batches]
    assert sizes == [9_000, 9_000, 1_999]
    batches = [(method, size) for size in sizes for method in (store.asks, store.writes)]
    assert store.asked == reads + batches


async def test_namespaces_are_apart(store: PlainStore) -> None:
    """The results of one are never found in another."""
    calls = AsyncCalls()
    for namespace in ("a", "b", "a"):
        cache = Cache[str](store=store, namespace=namespace)
        await AsyncBatchingMapProxy[int, str](cache=cache).map([1], calls)
    assert calls.batches == [[1], [1]]


async def test_equal_keys_of_different_types_are_different_in_a_store(store: PlainStore) -> None:
    """In memory Python's equality decides, as ever; in a store the type does, too."""
    calls = AsyncCalls(repr)
    for key in (1, True, 1.0, "1", (1, 2), "(1, 2)", (1, 2)):
        assert await proxy_of(store).map([key], calls) == [repr(key)]
    assert calls.keys == [1, True, 1.0, "1", (1, 2), "(1, 2)"]


async def test_results_are_written_before_anybody_is_told(store: PlainStore) -> None:
    """Neither the caller nor who waits for it gets a result that could still be lost."""
    proxy = proxy_of(store)
    gate = store.gate(store.writes)
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], AsyncCalls())
        await gate.wait_entered()
        await callers.begin("waiting", proxy.map, [2], AsyncCalls())
        assert callers.results == {}
        assert proxy.statistics().in_flight == 2
        assert proxy.statistics().cached == 0
        gate.open()
    assert callers.results == {"own": ["1", "2"], "waiting": ["2"]}
    assert len(store.values) == 2
    nothing_left(store, proxy)


async def test_callers_share_the_reading(store: PlainStore) -> None:
    """What somebody is looking up is waited for, not looked up again."""
    await proxy_of(store).map([1, 2], AsyncCalls())
    proxy = proxy_of(store)
    store.asked.clear()
    gate = store.gate("get_many")
    async with together() as callers:
        callers.start("first", proxy.map, [1, 2], AsyncCalls())
        await gate.wait_entered()
        await callers.begin("second", proxy.map, [2, 1], AsyncCalls())
        gate.open()
    assert callers.results == {"first": ["1", "2"], "second": ["2", "1"]}
    assert store.asked == [("get_many", 2)]
    assert proxy.statistics().shared == proxy.statistics().stored == 2
    nothing_left(store, proxy)


@pytest.mark.parametrize("error", [None, OSError("no")], ids=["succeeds", "fails"])
@pytest.mark.parametrize("reached", ["get_many", "claim_many", "call"])
async def test_who_meets_a_map_that_asks_the_store_shares_its_call(
    reached: str, error: Exception | None
) -> None:
    """Whether it was reading, claiming, or calling already: one call, and its failure, too."""
    store, proxy = shared()
    calls = AsyncCalls(gated=reached == "call")
    if error:
        calls.fail(0, error)
    gate = store.gate(reached)
    async with together() as callers:
        callers.start("first", proxy.map, [1, 2], calls)
        await (calls.wait_begun() if reached == "call" else gate.wait_entered())
        await callers.begin("second", proxy.map, [2], calls)
        calls.open()
        gate.open()
    if reached != "get_many":  # else the two share what is left, in either order
        assert calls.batches == [[1, 2]]
        assert callers.results == {"first": error or ["1", "2"], "second": error or ["2"]}
    else:
        assert sorted(calls.keys) == [1, 2] or error
    await all_released(store, proxy)


async def test_a_cache_that_keeps_nothing_still_pays_once(store: PlainStore) -> None:
    """Without any room in memory the store answers, also for what came in since it was read."""
    proxy = proxy_of(store, 1, 1, max_size=0)
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("up", proxy.map, range(6), calls)
        callers.start("down", proxy.map, range(5, -1, -1), calls)
    assert callers.results == {"up": naive(range(6)), "down": naive(range(5, -1, -1))}
    assert sorted(calls.keys) == list(range(6))
    assert proxy.statistics().cached == 0
    nothing_left(store, proxy)


async def test_failed_items_are_not_written(store: PlainStore) -> None:
    """Their neighbours are; and their claims end."""
    error = ValueError("odd")

    def f(item: int) -> Any:
        return error if item % 2 else item

    proxy = proxy_of(store)
    assert await proxy.map(range(4), AsyncCalls(f), return_exceptions=True) == [0, error, 2, error]
    await all_released(store, proxy)
    calls = AsyncCalls(f)
    assert await proxy_of(store).map([0, 2], calls) == [0, 2]
    assert calls.batches == []
    assert len(store.values) == 2


async def test_a_failing_call_ends_its_claims() -> None:
    """Another process can have the keys at once."""
    store, proxy = shared()
    calls = AsyncCalls()
    calls.fail(0, OSError("no"))
    with pytest.raises(OSError, match="no"):
        await proxy.map([1, 2], calls)
    await all_released(store, proxy)
    assert await proxy.map([1, 2], calls) == ["1", "2"]


@pytest.mark.parametrize("then", ["the next comes", "nobody comes", "another process has a key"])
async def test_leaving_while_the_store_is_asked(store: PlainStore, then: str) -> None:
    """What it still grants is given back; until then nobody here asks for it, and nobody waits for
    what others are found to compute."""
    proxy = proxy_of(store)
    if isinstance(store, MemoryStore) and then == "another process has a key":
        store.claim_many("n", digests([2]), OTHER, 1)
    store.gate("get_many").open()  # when the map() begins
    gate = store.gate(store.asks)
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("gone", proxy.map, [1, 2], calls)
        await gate.wait_entered()
        await callers.cancel("gone")
        assert callers.results == {"gone": "cancelled"}
        assert proxy.statistics().in_flight == 2
        if then == "the next comes":
            await callers.begin("next", proxy.map, [2, 1], calls)
            assert calls.batches == []
        gate.open()
    if then == "the next comes":
        assert callers.results["next"] == ["2", "1"]
        assert calls.batches == [[2, 1]]
    await happens(lambda: not proxy.statistics().in_flight)
    await all_released(store, proxy)


async def test_a_cancelled_call_gives_its_claims_back() -> None:
    """Those who wait for it take over, here and in other processes."""
    store, proxy = shared()
    slow, quick = AsyncCalls(gated=True), AsyncCalls()
    async with together() as callers:
        callers.start("gone", proxy.map, [1, 2], slow)
        await slow.wait_begun()
        assert len(store.claims) == 2
        await callers.begin("heir", proxy.map, [2], quick)
        callers.scopes["gone"].cancel()
    assert callers.results == {"gone": "cancelled", "heir": ["2"]}
    await all_released(store, proxy)


async def test_an_unreadable_value_is_a_miss(
    store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, computed anew, and replaced."""
    [name, other] = digests([1, 2])
    store.values["n", name] = b"jnonsense"
    store.values["n", other] = b"t2"
    calls = AsyncCalls()
    assert await proxy_of(store, 1).map([1, 2, 3], calls) == ["1", "2", "3"]
    assert calls.batches == [[1], [3]]
    assert "count as misses, such as that of 1:" in caplog.text
    assert store.values["n", name] == b"t1"
    assert await proxy_of(store).map([1], calls) == ["1"]
    assert calls.batches == [[1], [3]]


async def test_unreadable_values_beside_a_full_batch() -> None:
    """They are asked for again with the next one."""
    store = MemoryStore()
    store.values["n", digests([2])[0]] = b"jnonsense"
    calls = AsyncCalls()
    assert await proxy_of(store, 1, 1).map([1, 2, 3], calls) == ["1", "2", "3"]
    assert calls.batches == [[1], [2], [3]]
    store = MemoryStore()
    store.claim_many("n", digests([2]), OTHER, 1)
    store.values["n", digests([1])[0]] = store.values["n", digests([4])[0]] = b"jnonsense"
    proxy = proxy_of(store, 1, 1)
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("own", proxy.map, [2, 1, 3, 4], calls)
        await calls.wait_begun(3)
        store.release_many("n", digests([2]), OTHER)
    assert callers.results == {"own": ["2", "1", "3", "4"]}
    assert sorted(calls.batches) == [[1], [2], [3], [4]]
    nothing_left(store, proxy)


async def test_a_value_that_would_not_come_back_equal_is_refused(store: PlainStore) -> None:
    """It is the failure of its item, with the remedy; its neighbours are kept."""
    values = {1: "one", 2: (1, 2), 3: float("nan"), 4: "four"}
    proxy = proxy_of(store)
    outcome = await proxy.map(values, AsyncCalls(values.get), return_exceptions=True)
    assert [outcome[0], outcome[3]] == ["one", "four"]
    assert isinstance(outcome[1], AnswerTypeError)
    assert isinstance(outcome[2], AnswerValueError)
    assert "the result of 2 cannot be stored" in str(outcome[1])
    assert "list" in str(outcome[1])
    assert len(store.values) == proxy.statistics().cached == 2
    with pytest.raises(AnswerTypeError):
        await proxy.map([4, 2], AsyncCalls(values.get))
    await all_released(store, proxy)


async def test_a_key_that_no_store_can_have_is_refused_before_any_work(store: PlainStore) -> None:
    """The error names it, and suggests `key=`."""
    calls = AsyncCalls()
    proxy = proxy_of(store, 1)
    with pytest.raises(TypeError, match="key="):
        await proxy.map([1, 2, frozenset([3])], calls)
    assert calls.batches == []
    nothing_left(store, proxy)


async def test_time_to_live(store: PlainStore) -> None:
    """It is passed on; and what was read is not kept, since only the store knows when it ends."""
    await proxy_of(store, ttl=60).map([1], AsyncCalls())
    assert set(store.ttls.values()) == {60}
    again = proxy_of(store, ttl=60)
    assert await again.map([1], AsyncCalls()) == ["1"]
    assert again.statistics().cached == 0
    store.values.clear()
    calls = AsyncCalls()
    await again.map([1], calls)
    assert calls.batches == [[1]]
    assert again.statistics().cached == 1


async def test_time_to_live_of_what_others_published() -> None:
    """What is adopted was not computed here: it is not kept either."""
    store = MemoryStore()
    one, other = (proxy_of(store, ttl=60) for _ in range(2))

    async def fetch(items: list[int]) -> list[str]:
        other.cache.prime({1: "primed"})
        return naive(items)

    assert await one.map([1, 2], fetch) == ["primed", "2"]
    assert one.cache.get_many([1, 2]) == {2: "2"}


async def test_no_call_is_made_after_a_failure_that_came_while_the_store_was_asked() -> None:
    """Of a call that this map() waits for: it learns of it before its own."""
    store, proxy = shared()
    calls, own = AsyncCalls(gated=True), AsyncCalls()
    error = OSError("no")
    async with together() as callers:
        callers.start("first", proxy.map, [1], calls)
        await calls.wait_begun()
        gate = store.gate("claim_many")
        callers.start("second", proxy.map, [1, 2], own)
        await gate.wait_entered()
        await step(calls.fail, 0, error)
        gate.open()
    assert callers.results == {"first": error, "second": error}
    assert own.batches == []
    await all_released(store, proxy)


async def test_a_failure_ends_the_waiting_for_other_processes() -> None:
    """They are not asked any more."""
    store = MemoryStore()
    store.claim_many("n", digests([2]), OTHER, 1)
    proxy = proxy_of(store)
    calls = AsyncCalls(gated=True)
    error = OSError("no")
    async with together() as callers:
        callers.start("first", proxy.map, [1], calls)
        await calls.wait_begun()
        callers.start("second", proxy.map, [1, 2], calls)
        await used(store, "claim_many", store.uses["claim_many"] + 3)
        store.fail["claim_many"] = OSError("unplugged")
        calls.fail(0, error)
    # Unless it was asking just then, it does not ask any more.
    assert callers.results["first"] is error
    assert callers.results["second"] is error or isinstance(callers.results["second"], StoreError)


@pytest.mark.parametrize("how", ["answer lost", "left"])
async def test_claims_that_fail_are_given_back(how: str) -> None:
    """Also if the store had granted them, and whoever asked has left."""
    store, proxy = shared()
    gate = store.gate("claim_many")
    claim_many = store.claim_many

    def claim(*arguments: Any) -> Any:
        claim_many(*arguments)
        raise OSError("connection lost")

    store.claim_many = claim  # type: ignore[assignment] # as a server's may
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], AsyncCalls())
        await gate.wait_entered()
        if how == "left":
            await callers.cancel("own")
        gate.open()
    await used(store, "release_many")
    await all_released(store, proxy)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (StopIteration("odd"), "StopIteration: odd"),  # which generators cannot pass on
        (StopAsyncIteration("odd"), "StopAsyncIteration: odd"),
        (StoreError("the file was deleted"), "^the file was deleted$"),  # as it is
        (None, r"could not be read: \w+Error"),
        ({b"nobody asked for it": b"t1"}, r"could not be read: \w+Error"),
    ],
)
async def test_whatever_a_store_raises_or_answers_is_a_store_error(
    store: PlainStore, answer: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_store_error="continue" the map() goes on without it."""

    def get_many(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(store, "get_many", get_many)
    with pytest.raises(StoreError, match=said):
        await proxy_of(store).map([1], AsyncCalls())
    assert await proxy_of(store, on_store_error="continue").map([1], AsyncCalls()) == ["1"]


@needs_posix
def test_an_interrupt_while_something_is_forgotten(store: PlainStore) -> None:
    """It is raised at once; the forgetting goes on, and the cache can be used."""
    cache = Cache[str](store=store, namespace="n")
    proxy = BatchingMapProxy[int, str](cache=cache)
    proxy.map([1], naive)
    gate = store.gate("delete_many")
    with interrupted_when(gate.entered.is_set):
        cache.clear()
    gate.open()
    until(lambda: not look(cache).forgetting)
    assert len(cache) == 0
    assert proxy.map([2], naive) == ["2"]
    assert {key for _, key in store.values} == set(digests([2]))


def test_what_is_forgotten_where_no_thread_can_be_started(
    store: PlainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the interpreter: the calling thread does it."""
    cache = Cache[str](store=store, namespace="n")
    BatchingMapProxy[int, str](cache=cache).map([1], naive)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    cache.clear()
    assert store.values == {}


@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=pytest.mark.needs_trio)])
def test_what_is_being_written_at_exit_is_written(backend: str) -> None:
    """The interpreter waits for it, though the caller has left and nobody else waits."""
    script = """
import sys, time
import anyio
import anyio.from_thread, anyio.lowlevel
from memory_store import PlainStore
from batchproxy import AsyncBatchingMapProxy, Cache

class Slow(PlainStore):
    def set_many(self, namespace, values, ttl):
        anyio.from_thread.run_sync(scope.cancel, token=token)
        time.sleep(0.5)
        print(*values.values(), flush=True)

async def compute(items):
    return ["computed"]

async def main():
    global scope, token
    token = anyio.lowlevel.current_token()
    with anyio.CancelScope() as scope:
        await AsyncBatchingMapProxy(cache=Cache(store=Slow(), namespace="n")).map([1], compute)
    print("left")

anyio.run(main, backend=sys.argv[1])
"""
    assert run(script, backend) == "left\nb'tcomputed'\n"


@pytest.mark.parametrize("when", ["reads", "asks", "writes"])
async def test_a_store_that_fails_ends_the_map(store: PlainStore, when: str) -> None:
    """With a StoreError whose cause says why; and when it works again, so does the proxy."""
    proxy, method = proxy_of(store, 2), getattr(store, when)
    what = {"get_many": "read", "claim_many": "asked"}.get(method, "written")
    store.fail[method] = OSError("unplugged")
    for start in (0, 4):
        with pytest.raises(StoreError, match=f"could not be {what}: OSError: unplug") as raised:
            await proxy.map(range(start, start + 4), AsyncCalls())
        assert isinstance(raised.value.__cause__, OSError)
    store.fail.clear()
    calls = AsyncCalls()
    assert await proxy.map(range(4), calls) == naive(range(4))
    await released()
    await happens(lambda: not proxy.statistics().in_flight)  # what came of the call given up
    nothing_left(store, proxy)


def test_calls_that_cannot_be_cancelled_end_when_the_store_fails() -> None:
    """Their results are kept, as after any failure; and the error is raised, in no list."""
    store = MemoryStore()
    cache = Cache[str](store=store, namespace="n")
    proxy = BatchingMapProxy[int, str](1, 2, cache=cache)
    begun, failed = threading.Event(), threading.Event()

    def compute(items: list[int]) -> list[str]:
        if items == [0]:
            begun.set()
            assert failed.wait(10)
        else:
            assert begun.wait(10)
            store.fail["claim_many"] = OSError("unplugged")
        return naive(items)

    claim_many = store.claim_many

    def claim(*arguments: Any) -> Any:
        try:
            return claim_many(*arguments)
        except OSError:
            failed.set()
            raise

    store.claim_many = claim  # type: ignore[assignment] # to know when
    with pytest.raises(StoreError, match="unplugged"):
        proxy.map(range(3), compute, return_exceptions=True)
    assert 0 in cache
    assert len(store.values) == 2


async def test_what_could_not_be_written_is_written_when_the_cache_is_closed(
    store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """If it can be by then; and if not, that is logged."""
    cache, proxy = cache_and_proxy(store)
    store.refuse_writes()
    with pytest.raises(StoreError):
        await proxy.map([1, 2], AsyncCalls())
    await anyio.to_thread.run_sync(cache.close)
    assert (
        "2 results could still not be written: StoreError: the store could not be written: "
        in caplog.text
    )
    store.fail.clear()
    await anyio.to_thread.run_sync(cache.close)
    assert len(store.values) == 2
    assert store.closed


async def test_going_on_where_an_unreadable_value_cannot_be_deleted() -> None:
    """It is computed, though nobody else is kept from it."""
    store = MemoryStore()
    for name in digests([1, 2, 3]):
        store.values["n", name] = b"jnonsense"
    store.fail["delete_many"] = OSError("read only")
    calls = AsyncCalls()
    proxy = proxy_of(store, 2, on_store_error="continue")
    assert await proxy.map(range(5), calls) == naive(range(5))
    assert sorted(calls.keys) == list(range(5))
    assert [len(batch) for batch in calls.batches] == [2, 2, 1]


async def test_clear_deletes_from_the_store(store: PlainStore) -> None:
    """Of its own namespace only; and closing deletes nothing."""
    other = Cache[str](store=store, namespace="o")
    await AsyncBatchingMapProxy[int, str](cache=other).map([1], AsyncCalls())
    cache, proxy = cache_and_proxy(store)
    await proxy.map([1, 2], AsyncCalls())
    await proxy.aclose()
    await anyio.to_thread.run_sync(cache.close)
    assert len(store.values) == 3
    await proxy.clear()
    assert {namespace for namespace, _ in store.values} == {"o"}
    assert proxy.statistics().cached == 0


async def test_invalidate_and_prime_reach_the_store(store: PlainStore) -> None:
    """What they were told, later runs see."""
    cache, proxy = cache_and_proxy(store)
    await proxy.map([1, 2, 3], AsyncCalls())
    cache.invalidate([1, 2, 9])
    cache.prime({2: "two", 4: "four"})
    calls = AsyncCalls()
    assert await proxy_of(store).map([1, 2, 3, 4], calls) == ["1", "two", "3", "four"]
    assert calls.batches == [[1]]
    with pytest.raises(AnswerTypeError):
        cache.prime({5: "five", 6: (6,)})
    assert 5 not in cache
    with pytest.raises(TypeError, match="key="):
        cache.invalidate([3, frozenset()])
    assert 3 in cache


@pytest.mark.parametrize("is_written", [True, False])
async def test_keys_that_are_equal_are_all_forgotten(store: PlainStore, is_written: bool) -> None:
    """What is one key in memory is several in the store; of those each that was listed goes."""
    cache, proxy = cache_and_proxy(store, max_size=0)
    keys: list[Any] = [1, True, (0,), (0.0,), 2, 2.0]
    if not is_written:
        store.refuse_writes()
    for key in keys:
        with nullcontext() if is_written else pytest.raises(StoreError):
            await proxy.map([key], AsyncCalls())
    store.fail.clear()
    await anyio.to_thread.run_sync(cache.invalidate, keys[:-1])
    calls = AsyncCalls(lambda _: "new")
    assert [(await proxy.map([key], calls))[0] for key in keys] == ["new"] * 5 + ["2.0"]


@pytest.mark.parametrize("how", ["clear", "invalidate", "prime"])
async def test_a_call_under_way_does_not_bring_back_what_is_forgotten(
    store: PlainStore, how: str
) -> None:
    """Its own caller gets its result; the store and later callers do not."""
    cache, proxy = cache_and_proxy(store)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], calls)
        await calls.wait_begun()
        if how == "clear":
            await proxy.clear()
        elif how == "invalidate":
            cache.invalidate([1])
        else:
            cache.prime({1: "one"})
        calls.open()
    assert callers.results == {"own": ["1", "2"]}
    stored = {key for _, key in store.values}
    [first, second] = digests([1, 2])
    assert (first in stored) == (how == "prime")
    assert (second in stored) == (how != "clear")
    again = AsyncCalls(lambda item: "new")
    assert await proxy.map([1], again) == ["one" if how == "prime" else "new"]
    await all_released(store, proxy)


async def test_forgetting_waits_for_what_is_being_written(store: PlainStore) -> None:
    """When clear() returns, results that were on their way into the store are gone, too."""
    proxy = proxy_of(store)
    gate = store.gate(store.writes)
    async with together() as callers:
        callers.start("own", proxy.map, [1], AsyncCalls())
        await gate.wait_entered()
        callers.start("clear", proxy.clear)
        await happens(lambda: look(proxy).forgetting)
        await settle()
        assert callers.results == {}
        gate.open()
    assert callers.results == {"own": ["1"], "clear": None}
    assert store.values == {}
    assert proxy.statistics().cached == 0
    nothing_left(store, proxy)


async def test_forgetting_waits_for_what_closing_writes(store: PlainStore) -> None:
    """Results that could not be written before are gone then, too."""
    cache, proxy = cache_and_proxy(store)
    store.refuse_writes()
    with pytest.raises(StoreError):
        await proxy.map([1], AsyncCalls())
    store.fail.clear()
    gate = store.gate(store.writes)
    async with together(proxy) as callers:
        callers.start("close", anyio.to_thread.run_sync, cache.close)
        await gate.wait_entered()
        callers.start("clear", proxy.clear)
        await happens(lambda: look(proxy).forgetting)
        gate.open()
    assert store.values == {}


async def test_writing_waits_for_what_is_being_forgotten(store: PlainStore) -> None:
    """A call that ends while the store is cleared writes afterwards, if it was not forgotten."""
    cache, proxy = cache_and_proxy(store)
    gate = store.gate("delete_many")
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], calls)
        await calls.wait_begun()
        callers.start("forget", anyio.to_thread.run_sync, cache.invalidate, [1])
        await gate.wait_entered()
        await step(calls.open)
        assert callers.results == {}
        gate.open()
    assert callers.results == {"own": ["1", "2"], "forget": None}
    assert {key for _, key in store.values} == set(digests([2]))


async def test_keys_forgotten_while_they_are_claimed(store: PlainStore) -> None:
    """Who asked for them gets them; whoever asks later does not, and they are not kept."""
    cache, proxy = cache_and_proxy(store)
    first = store.gate("get_many")
    gate = store.gate(store.asks)
    first.open()
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], AsyncCalls())
        await gate.wait_entered()
        await anyio.to_thread.run_sync(cache.invalidate, [1])
        gate.open()
    assert callers.results == {"own": ["1", "2"]}
    assert 1 not in cache
    assert 2 in cache
    assert {key for _, key in store.values} == set(digests([2]))
    await all_released(store, proxy)


@pytest.mark.parametrize("how", ["clear", "invalidate"])
async def test_what_is_read_while_something_is_forgotten_is_not_kept(
    store: PlainStore, how: str
) -> None:
    """Of a map() that read the store before it was cleared, memory keeps nothing."""
    await proxy_of(store).map([1], AsyncCalls())
    cache, proxy = cache_and_proxy(store)
    gate = store.gate("delete_many")
    async with together() as callers:
        forget = cache.clear if how == "clear" else partial(cache.invalidate, [1])
        callers.start("forget", anyio.to_thread.run_sync, forget)
        await gate.wait_entered()
        assert await proxy.map([1], AsyncCalls()) == ["1"]
        assert proxy.statistics().cached == 1
        gate.open()
    assert proxy.statistics().cached == 0
    calls = AsyncCalls()
    await proxy.map([1], calls)
    assert calls.batches == [[1]]


async def test_a_store_that_cannot_forget_says_so(store: PlainStore) -> None:
    """Whatever the policy: nobody may believe that it is done."""
    cache, proxy = cache_and_proxy(store, on_store_error="continue")
    store.fail["delete_many"] = store.fail["set_many"] = OSError("read only")
    what = "could not be written: OSError: read only"
    with pytest.raises(StoreError, match=what):
        await proxy.clear()
    with pytest.raises(StoreError, match=what):
        cache.invalidate([1])
    with pytest.raises(StoreError, match=what):
        cache.prime({1: "one"})


@pytest.mark.parametrize("max_concurrency", [None, 2])
def test_the_synchronous_proxy(
    store: PlainStore, max_concurrency: int | None, sync_backend: Any
) -> None:
    """It has stores just as the other one does, and in the same order."""
    batches: list[list[int]] = []

    def compute(items: list[int]) -> list[str]:
        batches.append(items)
        return naive(items)

    def proxy() -> BatchingMapProxy[int, str]:
        cache = Cache[str](store=store, namespace="n")
        return BatchingMapProxy(3, max_concurrency, cache=cache, backend=sync_backend)

    assert proxy().map([1, 2, 2, 3, 4], compute) == naive([1, 2, 2, 3, 4])
    assert proxy().map([4, 5, 1], compute) == naive([4, 5, 1])
    assert sorted(batches) == [[1, 2, 3], [4], [5]]
    one = proxy()
    one.clear()
    assert store.values == {}
    store.fail["get_many"] = OSError("unplugged")
    with pytest.raises(StoreError, match="unplugged"):
        one.map([7], compute)


def test_bad_arguments(store: PlainStore) -> None:
    """Each is named, with what would do, before anything is opened or written."""
    for namespace in (None, ""):
        with pytest.raises(ValueError, match="the version of the prompt"):
            Cache(store=store, namespace=namespace)
    with pytest.raises(TypeError, match="namespace must be text, got 3"):
        Cache(store=store, namespace=3)  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(TypeError, match=r"SQLiteStore\(path\)"):
        Cache(store={}, namespace="n")  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(ValueError, match="give store="):
        Cache(namespace="n")
    with pytest.raises(TypeError, match="codec must be"):
        Cache(store=store, namespace="n", codec="json")  # type: ignore[arg-type] # that is tested
    with pytest.raises(ValueError, match="'raise' or 'continue'"):
        Cache(store=store, namespace="n", on_store_error="ignore")  # type: ignore[arg-type] # that, too
    assert store.asked == []


def test_a_cache_without_a_store_can_be_closed() -> None:
    """It is nothing to it; and it can be a context manager."""
    with Cache[str]() as cache:
        cache.prime({1: "one"})
    assert 1 in cache


def test_the_cache_shows_its_store(store: PlainStore) -> None:
    """So does a proxy that has it."""
    cache = Cache[str](store=store, namespace="embed-v3")
    assert "namespace='embed-v3'" in repr(cache)
    assert "namespace='embed-v3'" in repr(AsyncBatchingMapProxy[int, str](cache=cache))


def test_an_unused_store_is_not_touched(
    store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is asked of it until something is missing."""
    caplog.set_level(logging.DEBUG)
    proxy = BatchingMapProxy[int, str](cache=Cache(store=store, namespace="n"))
    assert proxy.map([], naive) == []
    assert store.asked == []
    assert caplog.text == ""
