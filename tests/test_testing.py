"""What `batchproxy.testing` gives to tests: recorders that can be held up, and a look inside."""

import time

import pytest
from memory_store import MemoryStore
from tools import Thread, never, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.codecs import digests
from batchproxy.testing import (
    AsyncCalls,
    Calls,
    Inside,
    assert_idle,
    look,
    wait_released,
)

IDLE = Inside(frozenset(), 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_calls() -> None:
    """They record, answer, are held up, and fail, each or all."""
    calls = Calls(lambda item: item * 2, gated=True)
    callers = [Thread(calls, [0, 10])]
    calls.wait_begun()
    callers.append(Thread(calls, [7]))
    calls.wait_begun(2)
    assert (calls.batches, calls.keys, calls.running) == ([[0, 10], [7]], [0, 10, 7], 2)
    boom = ValueError("boom")
    calls.fail(1, boom)
    calls.finish(0)
    assert [caller.outcome() for caller in callers] == [[0, 20], boom]
    calls.fail(3, boom)  # it has not come yet
    third = Thread(calls, [3])
    calls.wait_begun(3)
    fourth = Thread(calls, [4])
    calls.wait_begun(4)
    calls.open()
    assert (third.outcome(), fourth.outcome()) == ([6], boom)
    assert calls([5]) == [10]
    assert (calls.running, calls.most_running) == (0, 2)


@pytest.mark.parametrize("kind", [Calls, AsyncCalls])
def test_calls_are_counted_from_0(kind: type[Calls | AsyncCalls]) -> None:
    """Not from the end, which is another one whenever a call comes."""
    calls = kind(gated=True)
    with pytest.raises(ValueError, match="calls are counted from 0, got -1: write len"):
        calls.finish(-1)
    with pytest.raises(ValueError, match="calls are counted from 0, got -2: write len"):
        calls.fail(-2, OSError())


def test_batches_stay_as_they_were() -> None:
    """Whatever is done with the list thereafter."""
    calls, batch = Calls(), [2, 1]
    calls(batch)
    batch.clear()
    assert (calls.batches, calls.keys) == ([[2, 1]], [2, 1])


def test_calls_that_nobody_lets_go() -> None:
    """They end with an error, as does the wait for a call that never comes."""
    calls = Calls(gated=True)
    calls.patience = 0.001
    with pytest.raises(TimeoutError, match="nobody lets this call go"):
        calls([1])
    with pytest.raises(TimeoutError, match="there were 1 calls, not 2"):
        calls.wait_begun(2)
    assert calls.running == 0


async def test_asynchronous_calls() -> None:
    """As the others, in tasks."""
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("first", calls, [1, 2])
        callers.start("second", calls, [3])
        await calls.wait_begun(2)
        [first, second] = [calls.batches.index([1, 2]), calls.batches.index([3])]
        assert (sorted(calls.keys), calls.running) == ([1, 2, 3], 2)
        boom = ValueError("boom")
        calls.fail(second, boom)
        calls.finish(first)
    assert callers.results == {"first": ["1", "2"], "second": boom}
    calls.open()
    assert await calls([4]) == ["4"]
    assert (calls.running, calls.most_running) == (0, 2)


async def test_what_is_under_way() -> None:
    """Keys, calls, slots, who waits for a call and who for a slot; then nothing."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](1, 1, cache=cache)
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    calls = AsyncCalls(gated=True)
    assert look(proxy, other, cache) == look() == IDLE
    async with together(proxy, other, cache) as callers:
        await callers.begin("owner", proxy.map, [1], calls)
        callers.start("queueing", proxy.map, [2], calls)
        await callers.begin("waiting", other.map, [1], calls)
        inside = look(proxy, other, cache)
        assert inside == Inside(frozenset([1]), 1, 1, 1, 1, 0, 0, 0, 0, 0)
        assert look(cache) == Inside(frozenset([1]), 0, 1, 0, 0, 0, 0, 0, 0, 0)
        assert not inside.idle
        for each in (proxy, cache):
            with pytest.raises(AssertionError, match=r"something is left: .*frozenset\(\{1\}\)"):
                assert_idle(each)
        cache.invalidate([1])  # the call goes on, and who waits for it waits
        assert look(proxy) == Inside(frozenset(), 1, 1, 1, 1, 0, 0, 0, 0, 0)
        calls.open()
    assert look(proxy, other, cache) == IDLE


def test_who_is_blocked() -> None:
    """A call that another one is nested in cannot go on before that, and lends its slot."""
    proxy = BatchingMapProxy[str, str](None, 1)
    inner = Calls(gated=True)

    def outer(items: list[str]) -> list[str]:
        return proxy.map(["inner"], inner)

    caller = Thread(proxy.map, ["outer"], outer)
    inner.wait_begun()
    inside = look(proxy)
    assert (inside.running, inside.slots, inside.blocked) == (2, 1, 1)
    inner.open()
    assert caller.outcome() == ["inner"]
    assert_idle(proxy)


def test_calls_that_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """That, too, is something that a test wants to know."""
    proxy = BatchingMapProxy[int, str]()
    proxy.map([1], Calls())
    assert_idle(proxy)
    now = proxy.statistics()
    wrong = type(now)(**{name: getattr(now, name) for name in now.__slots__} | {"calls": 2})
    monkeypatch.setattr(BatchingMapProxy, "statistics", lambda self: wrong)
    with pytest.raises(AssertionError, match="do not add up"):
        assert_idle(proxy)


def test_what_is_under_way_in_a_store() -> None:
    """Claims, results being written and not written, and what is being forgotten."""
    store = MemoryStore()
    cache = Cache[str](store=store, namespace="n")
    proxy = BatchingMapProxy[int, str](cache=cache)
    calls = Calls(gated=True)
    caller = Thread(proxy.map, [1], calls)
    calls.wait_begun()
    assert list(store.claims) == [("n", digests([1])[0])]
    assert (look(proxy).claiming, look(proxy).writing) == (1, 0)
    writing = store.gate("publish_many")
    calls.open()
    assert writing.entered.wait(10)
    assert (look(cache).claiming, look(cache).writing) == (1, 1)
    clearing = Thread(cache.clear).until(lambda: look(cache).forgetting)
    assert look(cache).forgetting == 1
    writing.open()
    assert (caller.outcome(), clearing.outcome()) == (["1"], None)
    assert_idle(cache)

    store.fail["publish_many"] = OSError("full")
    with pytest.raises(StoreError):
        proxy.map([2, 3], calls)
    assert look(cache).unwritten == 2
    wait_released()
    assert not store.claims
    assert_idle(cache)  # unwritten results may stay


def test_claims_are_those_of_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one in the same store is not disturbed by them; who has them is waited for."""
    store = MemoryStore()
    one, other = (Cache[str](store=store, namespace="n") for _ in range(2))
    releasing = store.gate("release_many")
    failing = Calls()
    failing.fail(0, LookupError())
    with pytest.raises(LookupError):
        BatchingMapProxy[int, str](cache=one).map([1], failing)
    assert releasing.entered.wait(10)
    assert_idle(other)
    pause = time.sleep

    def opening(seconds: float) -> None:
        releasing.open()
        pause(seconds)

    monkeypatch.setattr(time, "sleep", opening)
    assert look(one).claiming == 1
    assert_idle(one, other)
    assert BatchingMapProxy[int, str](cache=other).map([1], Calls()) == ["1"]
    assert BatchingMapProxy[int, str](cache=one).map([1], never) == ["1"]
