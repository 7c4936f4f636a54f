"""Results belong to somebody from the moment they come, and nobody is told of them before they are
written. (Points 7, 8, 16 and 18 of the contract.)"""

import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from memory_store import MemoryStore, PlainStore
from process_tools import run
from store_tools import cache_and_proxy, cache_on, nothing_left, proxy_of, released
from tools import Clock, Interrupt, happens, naive, settle, together

from batchproxy import (
    AnswerValueError,
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    CircularWaitError,
    StoreError,
)
from batchproxy.codecs import PickleCodec, digests
from batchproxy.stores import Claimant, SQLiteStore
from batchproxy.testing import AsyncCalls


def store_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batchproxy store"]


# A finished call is nobody's to lose


@pytest.mark.parametrize("how", ["a neighbour fails", "a time limit"])
async def test_results_that_wait_for_a_thread_are_written(store: PlainStore, how: str) -> None:
    """Whatever becomes of the map() that has called: none of them is paid for again."""
    gates = [store.gate(store.writes) for _ in range(8)]  # as many threads as a cache has
    proxy = proxy_of(store, 1, 64)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, range(21), calls)
        await calls.wait_begun(21)
        for number in range(20):
            calls.finish(number)
        for gate in gates:
            await gate.wait_entered()
        await settle()
        if how == "a neighbour fails":
            calls.fail(20, OSError("one of many"))
        else:
            callers.scopes["own"].cancel()
        await settle()
        assert "own" in callers.results  # it has left, with most results unwritten
        for gate in gates:
            gate.open()
    await happens(lambda: len(store.values) == 20)
    again = AsyncCalls()
    computed = [batch[0] for batch in calls.batches[:20]]
    assert await proxy.map(computed, again) == [str(item) for item in computed]
    assert await proxy_of(store).map(computed, again) == [str(item) for item in computed]
    assert again.batches == []


async def test_who_waits_gets_results_of_a_caller_that_has_left(store: PlainStore) -> None:
    """They are not computed anew, be they written just then, or not even begun to be."""
    gates = [store.gate(store.writes) for _ in range(8)]
    proxy = proxy_of(store, 1, 64)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("gone", proxy.map, range(9), calls)
        await calls.wait_begun(9)
        await callers.begin("heir", proxy.map, range(9), calls)
        calls.open()
        for gate in gates:
            await gate.wait_entered()
        await settle()
        await callers.cancel("gone")
        assert callers.results == {"gone": "cancelled"}
        assert proxy.statistics().in_flight == 9
        await callers.begin("late", proxy.map, range(9), calls)
        for gate in gates:
            gate.open()
    assert callers.results == {
        "gone": "cancelled",
        "heir": naive(range(9)),
        "late": naive(range(9)),
    }
    assert len(calls.batches) == proxy.statistics().completed == len(store.values) == 9
    nothing_left(store, proxy)


@pytest.mark.parametrize("policy", ["raise", "continue"])
async def test_no_thread_is_to_be_had(
    store: PlainStore, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When results come, they are kept; before, nothing is computed, unless that was asked for."""
    proxy = proxy_of(store, on_store_error=policy)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "batchproxy store":
            raise RuntimeError("can't start new thread")
        start(thread)

    calls = AsyncCalls(lambda item: f"value of {item}")
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        if policy == "raise":
            with pytest.raises(StoreError, match="no thread can be started"):
                await proxy.map([1], calls)
            assert calls.batches == []
        else:
            assert await proxy.map([1], calls) == ["value of 1"]
            assert store.asked == []
    assert proxy.statistics().in_flight == 0
    assert await proxy.map([1, 2], calls) == ["value of 1", "value of 2"]
    assert calls.keys == [1, 2]


@pytest.mark.parametrize("policy", ["raise", "continue"])
async def test_whatever_the_writing_raises(store: PlainStore, policy: str) -> None:
    """Also what is no Exception ends the map(), and is no answer; where that counts, it is kept."""
    proxy = proxy_of(store, 2, on_store_error=policy)
    write = getattr(store, store.writes)

    def raises(*arguments: Any) -> Any:
        setattr(store, store.writes, write)
        raise Interrupt

    setattr(store, store.writes, raises)
    with pytest.raises(Interrupt):
        await proxy.map([1, 2], AsyncCalls())
    calls = AsyncCalls()
    assert await proxy.map([1, 2, 3], calls) == ["1", "2", "3"]
    assert calls.batches == ([[3]] if policy == "raise" else [[1, 2], [3]])


async def test_a_codec_that_raises_what_is_no_exception(store: PlainStore) -> None:
    """It ends the map(); the call counts as given up."""

    class Hostile(PickleCodec):
        def encode(self, value: Any) -> bytes:
            raise Interrupt

    proxy = proxy_of(store, codec=Hostile())
    with pytest.raises(Interrupt):
        await proxy.map([1], AsyncCalls())
    assert proxy.statistics().in_flight == 0
    assert store.values == {}


async def test_callers_with_time_limits_make_no_threads(store: PlainStore) -> None:
    """A cache has eight, however many callers a slow store has seen leaving."""
    gates = [store.gate("get_many") for _ in range(8)]
    proxy = proxy_of(store, 1)

    before = len(store_threads())
    async with together() as callers:
        for item in range(8):
            callers.start(item, proxy.map, [item], AsyncCalls())
            await gates[item].wait_entered()
        for item in range(8, 100):
            callers.start(item, proxy.map, [item], AsyncCalls())
        await settle()
        for item in range(100):
            callers.scopes[item].cancel()
        await settle()
        assert set(callers.results.values()) == {"cancelled"}
        assert len(store_threads()) - before <= 8
        for gate in gates:
            gate.open()
    assert await proxy.map([200], AsyncCalls()) == ["200"]
    assert store.uses["get_many"] <= 8 + 2  # who has left is not asked for
    await happens(lambda: proxy.statistics().in_flight == 0)


# Unwritten is unannounced


async def test_an_unwritten_result_is_no_hit(store: PlainStore) -> None:
    """It is written for the next who asks, and not computed again; until then that is an error."""
    proxy = proxy_of(store)
    store.refuse_writes()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], calls)
        await calls.wait_begun()
        await callers.begin("waiting", proxy.map, [2], calls)
        calls.open()
    assert isinstance(callers.results["own"], StoreError)
    assert callers.results["waiting"] is callers.results["own"]
    for items in ([1], [2], [1, 2, 3]):
        with pytest.raises(StoreError, match="could not be written: OSError: full"):
            await proxy.map(items, calls)
    assert calls.batches == [[1, 2]]
    assert "unwritten=2" in repr(proxy)
    store.fail.clear()
    assert await proxy.map([2], calls) == ["2"]
    assert len(store.values) == 1
    assert await proxy.map([3], calls) == ["3"]  # with its results all others are written
    assert len(store.values) == 3
    assert await proxy_of(store).map([1, 2, 3], calls) == ["1", "2", "3"]
    assert calls.batches == [[1, 2], [3]]
    assert proxy.statistics().in_flight == 0
    assert "unwritten" not in repr(proxy)


async def test_an_unwritten_result_is_no_hit_for_who_claims_it(store: PlainStore) -> None:
    """It is not computed again by a map() that had looked before, and waited for a slot."""
    cache = cache_on(store)
    waits = AsyncBatchingMapProxy[int, Any](1, 1, cache=cache)
    other = AsyncBatchingMapProxy[int, Any](cache=cache)
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("holds the slot", waits.map, [1], calls)
        await calls.wait_begun()
        callers.start("waits for it", waits.map, [2], calls)
        # It looks when it begins; the other one did, too, and again before its call.
        looks = 2 if isinstance(store, MemoryStore) else 3
        await happens(lambda: store.uses["get_many"] == looks)
        await happens(lambda: waits.statistics().in_flight == 1)  # it has looked: it holds no key
        await settle()
        store.refuse_writes()
        with pytest.raises(StoreError):
            await other.map([2], AsyncCalls(lambda _: "once"))
        store.fail.clear()
        calls.fail(0, OSError("so that its results do not take the others with them"))
        calls.open()
    assert callers.results["waits for it"] == ["once"]
    assert calls.batches == [[1]]


async def test_others_may_be_first_to_write(store: PlainStore) -> None:
    """Then theirs is the answer of all, and stays: nobody goes on with another one to a key."""
    here, there = proxy_of(store), proxy_of(store)
    store.refuse_writes()
    with pytest.raises(StoreError):
        await here.map(["k"], AsyncCalls(lambda _: "ours"))
    await released()
    store.fail.clear()
    assert await there.map(["k"], AsyncCalls(lambda _: "theirs")) == ["theirs"]
    for proxy in (here, there, here):
        assert await proxy.map(["k"], AsyncCalls(lambda _: "never")) == ["theirs"]
    assert list(store.values.values()) == [b"ttheirs"]


async def test_forgotten_results_are_not_written(store: PlainStore) -> None:
    """What could not be written is forgotten as all else is."""
    cache, proxy = cache_and_proxy(store)
    store.refuse_writes()
    with pytest.raises(StoreError):
        await proxy.map([1, 2], AsyncCalls())
    await anyio.to_thread.run_sync(cache.invalidate, [1])
    store.fail.clear()
    calls = AsyncCalls(lambda item: item * 10)
    assert await proxy.map([1, 2], calls) == [10, "2"]
    assert calls.batches == [[1]]
    store.refuse_writes()
    with pytest.raises(StoreError):
        await proxy.map([3], AsyncCalls())
    await proxy.clear()
    store.fail.clear()
    assert await proxy.map([3], calls) == [30]


async def test_what_cannot_be_read_makes_room_for_unwritten_results(store: PlainStore) -> None:
    """Of another codec, say: nobody has that, and these were paid for."""
    calls, proxy = AsyncCalls(), proxy_of(store, on_store_error="raise")
    store.refuse_writes()
    with pytest.raises(StoreError):
        await proxy.map([1], calls)
    store.fail.clear()
    store.set_many("n", dict.fromkeys(digests([1]), b"m\x01"), None)
    assert await proxy.map([1], calls) == ["1"]
    assert await proxy_of(store).map([1], calls) == ["1"]
    assert calls.batches == [[1]]
    nothing_left(store, proxy)


async def test_the_time_of_a_result_begins_with_it(store: PlainStore, clock: Clock) -> None:
    """And not when a store has failed to take it."""
    calls, proxy = AsyncCalls(), proxy_of(store, ttl=30, on_store_error="raise")
    gate = store.gate(store.writes)
    async with together() as callers:
        callers.start("own", proxy.map, [1], calls)
        await gate.wait_entered()
        clock.now += 20
        store.refuse_writes()
        gate.open()
    assert isinstance(callers.results["own"], StoreError)
    await released()  # before their lease ends
    store.fail.clear()
    clock.now += 20
    assert await proxy.map([1], calls) == ["1"]
    assert calls.batches == [[1], [1]]


async def test_unwritten_results_expire(store: PlainStore, clock: Clock) -> None:
    """With a ttl they are written for the rest of their time, and not at all after it."""
    proxy = proxy_of(store, max_size=0, ttl=60)
    store.refuse_writes()
    for items in ([1], [2]):
        with pytest.raises(StoreError):
            await proxy.map(items, AsyncCalls())
        await released()  # before their lease ends
        clock.now += 20
    store.fail.clear()
    calls = AsyncCalls()
    assert await proxy.map([2], calls) == ["2"]
    assert list(store.ttls.values()) == [40]
    assert calls.batches == []
    clock.now += 20
    assert await proxy.map([1], calls) == ["1"]
    assert calls.batches == [[1]]


async def test_what_the_store_never_takes_comes_last(
    store: PlainStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many such calls there are, the next writes, or close(), get to the others, which are
    answers then."""
    cache, proxy = cache_and_proxy(store, 1, 1)
    store.refuses = lambda value: True
    items = ["poison 1", "poison 2", "poison 3", "poison 4", "a", "b"]
    for item in items:
        with pytest.raises(StoreError):
            await proxy.map([item], AsyncCalls())
    await anyio.to_thread.run_sync(cache.close)
    assert "6 results could still not be written: " in caplog.text
    store.refuses = lambda value: b"poison" in value
    # It tries a few, as that costs a map() time.
    assert await proxy.map(["c"], AsyncCalls()) == ["c"]
    assert await proxy.map(["e"], AsyncCalls()) == ["e"]  # nor with every map()
    assert list(store.values.values()) == [b"tc", b"te"]
    await released()
    monotonic = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: monotonic() + 60)  # after the pause
    assert await proxy.map(["d"], AsyncCalls()) == ["d"]  # those that it has not tried come first
    assert sorted(store.values.values()) == [b"ta", b"tb", b"tc", b"td", b"te"]
    calls = AsyncCalls()
    with pytest.raises(StoreError):
        await proxy.map(["a", "poison 1"], calls)
    assert await proxy.map(["a", "b"], calls) == ["a", "b"]
    assert calls.batches == []
    await anyio.to_thread.run_sync(cache.close)
    assert "4 results could still not be written: " in caplog.text


async def test_a_store_failure_is_in_no_list(store: PlainStore) -> None:
    """Not even after a failure of an item of one's own, when it comes from somebody else's call."""
    proxy = proxy_of(store, 1)
    calls = AsyncCalls(gated=True)

    async def fails(items: list[Any]) -> list[Any]:
        raise ValueError(items)

    async with together() as callers:
        callers.start("own", proxy.map, ["b"], calls, return_exceptions=True)
        await calls.wait_begun()
        store.refuse_writes()
        callers.start("other", proxy.map, ["a", "b"], fails, return_exceptions=True)
        await happens(lambda: proxy.statistics().failed)
        await settle()
        calls.open()
    assert isinstance(callers.results["own"], StoreError)
    assert callers.results["other"] is callers.results["own"]


# One value that cannot be stored


async def test_a_value_that_is_too_large_is_one_failure(store: PlainStore) -> None:
    """That of its item, and before it is given to the store; its neighbours are kept."""
    store.max_value_size = 100
    proxy = proxy_of(store, 3)
    calls = AsyncCalls(lambda item: "x" * (101 if item == "big" else 3))
    small, big, last = await proxy.map(["a", "big", "b"], calls, return_exceptions=True)
    assert (small, last) == ("xxx", "xxx")
    assert isinstance(big, AnswerValueError)
    assert "'big' cannot be stored: it has 102 bytes" in str(big)
    assert "at most 100" in str(big)
    assert len(store.values) == 2
    await happens(lambda: not getattr(store, "claims", None))
    with pytest.raises(AnswerValueError):
        await proxy.map(["big"], calls)
    assert await proxy_of(store).map(["a", "b"], calls) == ["xxx", "xxx"]
    assert calls.batches == [["a", "big", "b"], ["big"]]
    with pytest.raises(AnswerValueError, match="at most 100"):
        await anyio.to_thread.run_sync(cache_on(store).prime, {1: "x" * 101})


# What cannot be read


async def test_what_is_published_meanwhile_is_not_taken_away() -> None:
    """Of two who meet an unreadable value, the slower does not delete what the faster published."""
    store = MemoryStore()
    seen = store.gate("discard_many")
    faster, slower = proxy_of(store), proxy_of(store)
    await proxy_of(store).map(["k"], AsyncCalls(lambda _: 1))
    for place in store.values:
        store.values[place] = b"?unreadable"
    calls = AsyncCalls(lambda _: "value")
    async with together() as callers:
        callers.start("slower", slower.map, ["k"], calls)
        await seen.wait_entered()
        assert await faster.map(["k"], calls) == ["value"]
        seen.open()
    assert callers.results == {"slower": ["value"]}
    assert calls.batches == [["k"]]
    assert list(store.values.values()) == [b"tvalue"]


async def test_many_that_cannot_be_read_are_one_line(
    store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With a count, and a part of one key."""
    keys = [f"{item}{'x' * 10_000}" for item in range(50)]
    await proxy_of(store).map(keys, AsyncCalls())
    for place in store.values:
        store.values[place] = b"?unreadable"
    await proxy_of(store, 50).map(keys, AsyncCalls())
    lines = [record.getMessage() for record in caplog.records if record.name == "batchproxy"]
    assert len(lines) <= 2  # when it begins, and when it claims
    assert all("of 50 stored values 50 cannot be read" in line for line in lines)
    assert all("such as that of '0x" in line for line in lines)
    assert max(map(len, lines)) < 400


# Keys that are not equal to themselves


async def test_nan_does_not_reach_a_store(store: PlainStore) -> None:
    """It is computed, shared within its map(), and kept nowhere; its neighbours are as usual."""
    nan = float("nan")
    calls = AsyncCalls(repr)
    proxy = proxy_of(store, 2)
    for _ in range(2):
        items = [1, nan, 2, float("nan"), (3, nan), 4, Decimal("nan")]
        expected = ["1", "nan", "2", "nan", "(3, nan)", "4", "Decimal('NaN')"]
        assert await proxy.map(items, calls) == expected
    assert [len(batch) for batch in calls.batches] == [2, 2, 2, 2, 1]
    assert calls.keys.count(1) == 1
    assert len(store.values) == 3
    if isinstance(store, MemoryStore):  # others hold keys, so more is asked for at once
        await happens(lambda: not store.claims)
        other = Claimant("other", 1)
        store.claim_many("n", digests([5, 6]), other, 2)
        async with together() as callers:
            items = [5, 6, nan, 7, 8, 9]
            callers.start("own", proxy.map, items, calls)
            await happens(lambda: 9 in calls.keys)
            store.publish_many("n", dict.fromkeys(digests([5, 6]), b"tother"), other, None)
        assert callers.results["own"] == ["other", "other", "nan", "7", "8", "9"]
        assert all(len(batch) == 2 for batch in calls.batches[5:])
        await happens(lambda: not store.claims)


# Rings


def test_a_ring_through_two_caches_of_one_process(tmp_path: Path) -> None:
    """They share a file and a namespace, so one waits for the other as a process would."""
    path = tmp_path / "results.db"
    one, other = (BatchingMapProxy[str, Any](cache=cache_on(SQLiteStore(path))) for _ in range(2))

    def nested(items: Sequence[str]) -> Any:
        return other.map(items, lambda _: pytest.fail("it is being computed"))

    with pytest.raises(CircularWaitError, match="'k'"):
        one.map(["k"], nested)
    assert one.map(["k"], list) == ["k"] == other.map(["k"], list)


# The end of the interpreter

AT_EXIT = """
import atexit, sqlite3, sys
from batchproxy import BatchingMapProxy, Cache, StoreError
from batchproxy.stores import SQLiteStore

cache = Cache(store=SQLiteStore(sys.argv[1], timeout=0.1), namespace="n")
other = sqlite3.connect(sys.argv[1], isolation_level=None)
atexit.register(other.close)  # at last
atexit.register(lambda: print(*other.execute("SELECT count(*) FROM results").fetchone()))
atexit.register(cache.close)

def fetch(items):
    other.execute("BEGIN IMMEDIATE")
    return items

try:
    BatchingMapProxy(cache=cache).map([1, 2], fetch)
except StoreError:
    other.execute("COMMIT")
"""


def test_a_cache_that_is_closed_at_exit(tmp_path: Path) -> None:
    """What was left to be written is written, though no new thread may start any more."""
    assert run(AT_EXIT, tmp_path / "results.db") == "2\n"
