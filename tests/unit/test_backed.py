"""The steps of a map() that ask a store, where threads are refused and interrupts come."""

import gc
import math
import threading
from typing import Any
from weakref import WeakSet

import anyio
import anyio.to_thread
import pytest
from memory_store import Gate, MemoryStore, PlainStore
from store_tools import OTHER, all_released, cache_and_proxy, cache_on, proxy_of
from tools import FREE_THREADED, Interrupt, happens, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, StoreError
from batchproxy._backing import elsewhere as _elsewhere
from batchproxy._backing.elsewhere import _pause
from batchproxy._backing.workers import Workers
from batchproxy._backing.writers import Writers
from batchproxy.codecs import PickleCodec, digests
from batchproxy.stores import Claims
from batchproxy.testing import AsyncCalls


def test_pauses_grow_and_are_random() -> None:
    """From a few milliseconds to less than a second."""
    assert 0.005 <= _pause(0) <= 0.015
    assert 0.25 <= _pause(100) <= 0.75
    assert len({_pause(3) for _ in range(20)}) == 20
    assert _pause(10_000) <= 0.75


@pytest.mark.parametrize("when", ["before", "after", "while it writes"])
async def test_an_interrupt_while_results_are_handed_over(
    store: PlainStore, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written by the next who asks, or by the thread that has them; no key stays taken."""
    cache, proxy = cache_and_proxy(store)
    submit = Workers.submit

    def interrupted(workers: Workers, job: Any) -> None:
        jobs.append(job)
        if when != "before":
            submit(workers, job)
        if when == "while it writes":
            assert gate.entered.wait(10)
            gate.open()
        raise Interrupt

    async def compute(items: list[Any]) -> list[Any]:
        monkeypatch.setattr(Workers, "submit", interrupted)
        return items

    gate = store.gate(store.writes) if when == "while it writes" else Gate()
    jobs = list[Any]()
    with pytest.raises(Interrupt):
        await proxy.map([1, 2], compute)
    monkeypatch.undo()
    jobs[0]()  # a thread that comes late has nothing to do
    calls = AsyncCalls()
    assert await proxy.map([1, 2], calls) == [1, 2]
    assert calls.batches == []
    await anyio.to_thread.run_sync(cache.close)
    assert len(store.values) == 2
    assert not getattr(store, "claims", None)
    assert proxy.statistics().in_flight == 0


async def test_no_thread_to_look_out_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as if the store had failed: an error, or the map() goes on without it."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "batchproxy lookout":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    store = MemoryStore()
    store.claim_many("n", digests([2]), OTHER, 1)
    calls, proxy = AsyncCalls(), proxy_of(store)
    with pytest.raises(StoreError, match="no thread can be started"):
        await proxy.map([1, 2], calls)
    careless = proxy_of(store, on_store_error="continue")
    assert await careless.map([1, 2], calls) == ["1", "2"]
    await all_released(store, proxy, careless)


async def test_who_is_new_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pause between two looks has become: all are looked for then. And again, if
    that was not in vain; else not before a longer pause."""
    pauses: list[int] = []

    def pause(polls: int) -> float:
        pauses.append(polls)
        return 60.0 if polls else 0.0

    monkeypatch.setattr(_elsewhere, "_pause", pause)
    store = MemoryStore()
    names = digests([1, 2])
    store.claim_many("n", names, OTHER, 2)
    proxy = proxy_of(store)
    async with together(proxy) as callers:
        callers.start("first", proxy.map, [1], AsyncCalls())
        await happens(lambda: pauses[-1:] == [1])  # it has been looked for in vain
        store.release_many("n", names[:1], OTHER)
        callers.start("second", proxy.map, [2], AsyncCalls())
        await happens(lambda: "first" in callers.results)
        await happens(lambda: pauses[-3:] == [0, 0, 1])
        await callers.cancel("second")
    assert callers.results == {"first": ["1"], "second": "cancelled"}
    assert pauses[0] == 0
    assert len(pauses) < 10
    assert max(pauses) == 1


async def test_closing_waits_for_what_is_to_be_written(
    store: PlainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for results whose map() has left; the store is not closed before."""
    gate, written = store.gate(store.writes), list[int]()
    wait_until_taken = Writers.wait_until_taken

    def wait(writers: Writers) -> None:
        gate.open()
        wait_until_taken(writers)

    monkeypatch.setattr(Writers, "wait_until_taken", wait)
    monkeypatch.setattr(store, "close", lambda: written.append(len(store.values)))
    cache, proxy = cache_and_proxy(store)
    async with together() as callers:
        callers.start("gone", proxy.map, [1, 2], AsyncCalls())
        await gate.wait_entered()
        callers.scopes["gone"].cancel()
        await anyio.to_thread.run_sync(cache.close)
    assert written == [2]


@pytest.mark.parametrize("on_store_error", ["raise", "continue"])
async def test_a_store_that_fails_while_others_compute(on_store_error: str) -> None:
    """Who waits for them gets its failure, or computes without it."""
    store, others = MemoryStore(), lookouts()
    store.claim_many("n", digests([2]), OTHER, 1)
    proxy, calls = proxy_of(store, on_store_error=on_store_error), AsyncCalls()
    async with together() as callers:
        callers.start("waiter", proxy.map, [2], calls)
        await happens(lambda: proxy.statistics().waiting)
        store.fail["claim_many"] = OSError("unplugged")
    if on_store_error == "raise":
        assert isinstance(callers.results["waiter"], StoreError)
        assert "could not be asked: OSError: unplugged" in str(callers.results["waiter"])
        assert calls.batches == []
    else:
        assert callers.results["waiter"] == ["2"]
    store.fail.clear()
    await all_released(store, proxy)
    await happens(lambda: lookouts() <= others)  # there is nothing left to be looked for


def lookouts() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "batchproxy lookout"}


async def test_what_is_forgotten_while_it_is_postponed(
    store: PlainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread is to be had when results come, they are kept, and written for the next who
    asks, but for those."""

    class Forgetting(PickleCodec):
        def encode(self, value: Any) -> bytes:
            if refused:
                cache.invalidate([1])
            return super().encode(value)

    cache = cache_on(store, codec=Forgetting())
    proxy, refused = AsyncBatchingMapProxy[int, Any](cache=cache), list[Any]()

    async def compute(items: list[int]) -> list[Any]:
        monkeypatch.setattr(Workers, "submit", refuse)
        return ["old" for _ in items]

    def refuse(workers: Workers, job: Any) -> None:
        refused.append(job)
        raise RuntimeError("can't start new thread")

    with pytest.raises(StoreError, match="no thread can be started"):
        await proxy.map([1, 2], compute)
    monkeypatch.undo()
    refused.clear()
    assert store.values == {}
    again = AsyncCalls()
    assert await proxy.map([1, 2], again) == ["1", "old"]
    assert again.batches == [[1]]
    assert len(store.values) == 2


async def test_a_store_that_says_nothing() -> None:
    """Of keys that it has neither a value, a claim, nor a holder for: it is asked again, later."""

    class Silent(MemoryStore):
        def claim_many(self, *arguments: Any) -> Claims:
            if silent and arguments[-1]:
                silent.pop()
                return Claims({}, [], [])
            return super().claim_many(*arguments)

    silent, store, calls = [None, None], Silent(), AsyncCalls()
    proxy, nan = proxy_of(store, 2), math.nan
    assert await proxy.map(["a", "b", nan], calls) == ["a", "b", "nan"]
    assert silent == []
    assert calls.batches == [[nan], ["a", "b"]]
    store.fail["get_many"] = OSError("unplugged")
    store.fail["claim_many"] = OSError("unplugged")
    assert await proxy.map([nan], AsyncCalls()) == ["nan"]  # for which it is not asked at all
    await all_released(store, proxy)


def test_what_is_refused_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure leaves nothing to the collector."""

    class Result:
        pass

    def compute(items: list[int]) -> list[Any]:
        monkeypatch.setattr(Workers, "submit", refuse)
        made = [Result() for _ in items]
        kept.update(made)
        return made

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    kept, proxy = WeakSet[Result](), BatchingMapProxy[int, Any](cache=cache_on(MemoryStore()))
    gc.disable()
    try:
        with pytest.raises(StoreError, match="no thread can be started"):
            proxy.map([1, 2], compute)
        if FREE_THREADED:  # as in tests/test_garbage.py
            gc.collect()
        assert not kept
    finally:
        gc.enable()
