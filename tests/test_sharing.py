"""Point 17 of the contract: processes that use the same store share the work under way."""

import asyncio
import signal
import sys
import threading
import weakref
from collections import Counter
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pytest
from memory_store import MemoryStore
from process_tools import Worker, needs_fork, run_prepared
from store_tools import OTHER, all_released, cache_on, nothing_left, shared, used
from tools import collect, naive, together, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, assert_idle, look, wait_released


def held_by_another(store: MemoryStore, *keys: Any) -> None:
    """Another process, which is alive, is computing `keys`."""
    claims = store.claim_many("n", digests(keys), OTHER, len(keys))
    assert len(claims.claimed) == len(keys)


def published_by_another(store: MemoryStore, values: dict[Any, str]) -> None:
    """It has computed them."""
    encoded = {digests([key])[0]: b"t" + value.encode() for key, value in values.items()}
    store.publish_many("n", encoded, OTHER, None)


def beside_another(
    *keys: Any, sizes: tuple[Any, ...] = ()
) -> tuple[MemoryStore, AsyncBatchingMapProxy[Any, Any]]:
    """A store in which that process is computing `keys`, and a proxy of this one."""
    store, proxy = shared(*sizes)
    held_by_another(store, *keys)
    return store, proxy


def short_lease() -> tuple[MemoryStore, BatchingMapProxy[int, str]]:
    """A store with which leases are short, and a synchronous proxy."""
    store = MemoryStore()
    store.lease = 0.04
    return store, BatchingMapProxy(cache=cache_on(store))


def beats(store: MemoryStore, times: int) -> None:
    """Wait until a lease was to be renewed so many times more."""
    end = store.beats + times
    until(lambda: store.beats >= end)


def failing(items: list[int]) -> list[str]:
    raise ValueError("no")


def test_caches_are_made_while_one_asks_who_computes_a_key() -> None:
    """Other threads may make caches, on any store, between any two lines of it."""
    store, proxy = beside_another(1)
    made: list[Cache[str]] = []

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and Path(frame.f_code.co_filename).stem in ("_alive", "_weakrefset"):
            made.append(Cache(store=MemoryStore(), namespace="n"))
        return trace

    async def nested(items: list[int]) -> list[str]:  # so it looks whether that would be a ring
        return await proxy.map(items, AsyncCalls())

    async def main() -> None:
        async with together() as callers:
            callers.start("waits", AsyncBatchingMapProxy[int, str]().map, [1], nested)
            while store.uses["claim_many"] < 3 and not callers.results:  # noqa: ASYNC110 - two were in vain
                await anyio.sleep(0.001)
            published_by_another(store, {1: "other"})
        assert callers.results == {"waits": ["other"]}

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        anyio.run(main)
    finally:
        sys.settrace(before)
    assert made


async def test_keys_of_other_processes_do_not_thin_a_batch() -> None:
    """They are passed over, in bulk, and waited for at the end."""
    store, proxy = beside_another(*range(2, 40), sizes=(3, 1))
    calls = AsyncCalls()
    store.asked.clear()
    async with together() as callers:
        callers.start("own", proxy.map, range(45), calls)
        await calls.wait_begun(3)
        assert calls.batches == [[0, 1, 40], [41, 42, 43], [44]]
        assert store.uses["claim_many"] - store.looks < 12
        assert callers.results == {}
        published_by_another(store, {key: f"other {key}" for key in range(2, 40)})
    expected = naive(range(45))
    expected[2:40] = [f"other {key}" for key in range(2, 40)]
    assert callers.results == {"own": expected}
    assert calls.batches == [[0, 1, 40], [41, 42, 43], [44]]
    now = proxy.statistics()
    assert (now.computed, now.shared, now.stored) == (7, 38, 0)
    nothing_left(store, proxy)


async def test_tasks_of_one_map_get_full_batches_in_order() -> None:
    """However many of its calls run at a time, and whatever others hold between."""
    store, proxy = beside_another(*range(5, 25), sizes=(4, 3))
    published_by_another(store, dict.fromkeys(range(12, 20), "there"))
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("own", proxy.map, range(38), calls)
        await calls.wait_begun(5)
        published_by_another(store, dict.fromkeys(range(5, 25), "late"))
    free = [*range(5), *range(25, 38)]
    assert sorted(calls.batches) == [free[start : start + 4] for start in range(0, 18, 4)]
    expected = naive(range(38))
    expected[5:25] = ["late"] * 7 + ["there"] * 8 + ["late"] * 5
    assert callers.results == {"own": expected}
    nothing_left(store, proxy)


@pytest.mark.parametrize("how", ["released", "died"])
async def test_keys_that_another_process_gave_up_are_taken_over(how: str) -> None:
    """As soon as it released them, or its lease has run out."""
    store, proxy = beside_another(1, 2)
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2, 3], calls)
        await calls.wait_begun()
        assert calls.batches == [[3]]
        if how == "released":
            store.release_many("n", digests([1, 2]), OTHER)
        else:
            store.now += store.lease + 1
    assert callers.results == {"own": ["1", "2", "3"]}
    assert calls.batches == [[3], [1, 2]]
    nothing_left(store, proxy)


async def test_waiting_for_another_process_takes_no_slot() -> None:
    """Others of this process can use it meanwhile, and may wait for the same keys."""
    store, proxy = beside_another(1, sizes=(None, 1))
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("waiting", proxy.map, [1], calls)
        await callers.begin("too", proxy.map, [1], calls)
        assert await proxy.map([2], calls) == ["2"]
        assert callers.results == {}
        published_by_another(store, {1: "other"})
    assert callers.results == {"waiting": ["other"], "too": ["other"]}
    assert calls.batches == [[2]]
    nothing_left(store, proxy)


async def test_who_waits_for_another_process_can_leave() -> None:
    """At once, and nothing is left behind."""
    store, proxy = beside_another(1)
    calls = AsyncCalls()
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2], calls)
        await calls.wait_begun()
        await used(store, "claim_many", 3)  # it is asking again by now
        callers.scopes["own"].cancel()
    assert callers.results == {"own": "cancelled"}
    assert calls.batches == [[2]]
    while proxy.statistics().in_flight:  # noqa: ASYNC110 - a worker thread may still be asking
        await anyio.sleep(0.001)
    await all_released(store, proxy)


async def test_a_late_writer_takes_what_was_published_first() -> None:
    """After a stall beyond its lease, say: everybody has the same answer."""
    store, proxy = shared()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, [1, 2, 3], calls)
        await calls.wait_begun()
        await callers.begin("waiting", proxy.map, [2], calls)
        store.now += store.lease + 1
        held_by_another(store, 2)
        published_by_another(store, {2: "first"})
        calls.open()
    assert callers.results == {"own": ["1", "first", "3"], "waiting": ["first"]}
    assert await proxy.map([2], calls) == ["first"]
    assert calls.batches == [[1, 2, 3]]
    nothing_left(store, proxy)


@pytest.mark.parametrize("quicker", [False, True])
async def test_what_cannot_be_read_is_not_adopted(
    quicker: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The own result takes its place, unless another one has done so meanwhile."""
    store, proxy = shared()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        callers.start("own", proxy.map, [1], calls)
        await calls.wait_begun()
        store.publish_many("n", {digests([1])[0]: b"jnonsense"}, OTHER, None)
        gate, again = store.gate(store.writes), store.gate(store.writes)
        gate.open()
        calls.open()
        await again.wait_entered()
        if quicker:
            published_by_another(store, {1: "other"})
        again.open()
    result = "other" if quicker else "1"
    assert callers.results == {"own": [result]}
    assert "count as misses" in caplog.text
    assert list(store.values.values()) == [b"t" + result.encode()]
    nothing_left(store, proxy)


def test_the_lease_is_renewed_while_a_function_blocks() -> None:
    """By a thread of its own: however long the call takes, nobody takes its keys."""
    store, proxy = short_lease()

    def blocking(items: list[int]) -> list[str]:
        store.now += 1
        beats(store, 3)
        [claimant] = store.claims.values()
        assert store.leases[claimant.process] == store.now + store.lease
        return naive(items)

    assert proxy.map([1], blocking) == ["1"]
    assert_idle(proxy)


def test_a_heartbeat_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """And the next one is tried."""
    store, proxy = short_lease()
    store.fail["heartbeat"] = OSError("unplugged")

    def blocking(items: list[int]) -> list[str]:
        beats(store, 3)
        return naive(items)

    assert proxy.map([1], blocking) == ["1"]
    assert "could not be renewed: OSError: unplugged" in caplog.text


def test_a_store_that_stalls_costs_no_other_its_lease() -> None:
    """Each has a thread of its own that renews."""
    (stalled, outer), (healthy, inner) = short_lease(), short_lease()
    gate = stalled.gate("heartbeat")

    def blocking(items: list[int]) -> list[str]:
        beats(healthy, 3)
        return naive(items)

    def nested(items: list[int]) -> list[str]:
        assert gate.entered.wait(10)
        return inner.map(items, blocking)

    assert outer.map([1], nested) == ["1"]
    gate.open()


def test_releases_do_not_pile_up_behind_a_store_that_stalls() -> None:
    """What waited for as long as a lease ends with the lease: nobody renews it any more."""
    store, proxy = short_lease()
    gate = store.gate("release_many")

    def fail(key: int) -> str:
        """Claims it; the name that it was claimed by."""
        with pytest.raises(ValueError, match="no"):
            proxy.map([key], failing)
        return store.claims["n", digests([key])[0]].process

    first = fail(0)
    key = 0
    while fail(key := key + 1) == first:
        pass
    threading.Event().wait(2 * store.lease)
    fail(key + 1)
    gate.open()
    wait_released()
    assert store.uses["release_many"] <= 3


def test_the_lease_thread_keeps_no_store_alive() -> None:
    """A store that is forgotten is collected at once, and its thread ends."""

    def freed() -> bool:
        collect()
        return gone() is None

    others = lease_threads()
    store, proxy = short_lease()
    store.lease = 86_400
    assert proxy.map([1], naive) == ["1"]
    gone = weakref.ref(store)
    (thread,) = lease_threads() - others
    del proxy, store
    until(freed)  # a thread may just be letting go of it
    thread.join(10)
    assert not thread.is_alive()


def test_the_lease_thread_ends_when_nothing_is_to_be_done() -> None:
    """There are no more threads than stores in use."""
    others = lease_threads()
    _, proxy = short_lease()
    for key in range(3):
        assert proxy.map([key], naive) == [str(key)]
        for thread in lease_threads() - others:
            thread.join(10)
        assert lease_threads() <= others


@pytest.mark.parametrize("then", ["it is tried again", "the key is claimed again", "it is closed"])
def test_a_release_that_fails_does_no_harm(then: str) -> None:
    """It is tried again a moment later, so that others need not wait for the end of a lease that
    goes on; what is one's own can be claimed again meanwhile."""
    store, proxy = short_lease()
    store.lease = 1 if then == "it is tried again" else 10
    store.fail["release_many"] = OSError("unplugged")
    with pytest.raises(ValueError, match="no"):
        proxy.map([1], failing)
    wait_released()
    if then == "it is tried again":
        store.fail.clear()
        until(lambda: not store.claims)
    elif then == "it is closed":
        store.fail.clear()
        proxy.cache.close()
        assert store.claims == {}
    else:
        assert store.uses["release_many"] <= 2
        assert len(store.claims) == 1
        assert proxy.map([1], naive) == ["1"]
        assert store.claims == {}


def lease_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "batchproxy leases"}


def test_a_closed_loop_leaves_no_claims() -> None:
    """Whoever meets the keys of a call that can never go on gives its claims back, too."""
    store, proxy = shared()
    slow = AsyncCalls(gated=True)
    loop = asyncio.new_event_loop()
    task = loop.create_task(proxy.map([1], slow))
    loop.run_until_complete(slow.wait_begun())
    task._log_destroy_pending = False  # type: ignore[attr-defined] # that is what is tested
    loop.close()
    assert anyio.run(proxy.map, [1], AsyncCalls()) == ["1"]
    wait_released()
    assert store.claims == {}
    assert look(proxy).claiming == 0


# Real processes from here on.


def test_processes_split_a_list_between_them(place: tuple[str, str]) -> None:
    """Four map the same one at the same time: each key is computed once among them."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(place, 10, 400, 10, 0.01)) for _ in range(4)]
        for worker in workers:
            worker.start()  # and it holds a batch, until all do
        for worker in workers:
            worker.go_on()
        shares = [worker.calls() for worker in workers]
    computed = Counter(key for share in shares for batch in share for key in batch)
    assert computed == dict.fromkeys(range(400), 1)
    assert all(shares)
    assert sum(map(len, shares)) <= 43  # full batches, but for the last of each


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_batch_of_a_lost_process_is_computed_again(place: tuple[str, str], how: str) -> None:
    """Killed, or stopped beyond its lease: nothing but what it had open is computed twice."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(place, 1, 120, 10, 0.02)) for _ in range(3)]
        *others, lost = workers
        lost.start()  # it holds ten keys now, which the others will wait for
        lost.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        for worker in others:
            worker.start()
        for worker in others:
            worker.go_on()
        computed = Counter(chain.from_iterable(worker.computed() for worker in others))
        if how == "stopped":
            lost.send_signal(signal.SIGCONT)
            lost.go_on()
            computed.update(lost.computed())
    assert computed.keys() == set(range(120))
    assert sum(computed.values()) <= 130
    assert max(computed.values()) <= 2


@needs_fork
def test_after_a_fork_the_child_claims_for_itself() -> None:
    """It is another process in the store, with a heartbeat of its own."""
    script = """
from memory_store import MemoryStore

store = MemoryStore()
proxy = BatchingMapProxy(cache=Cache(store=store, namespace="n"))
seen = []

def compute(items):
    seen.append({claimant.process for claimant in store.claims.values()})
    if items == [1] and (child := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it may say how that ends
        sys.exit()  # inside the parent's call: its claims are not the child's to give back
    if items == [1]:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 1)
    return items

proxy.map([1], compute)
assert not store.claims
def child():
    proxy.map([2], compute)
    assert seen[0].isdisjoint(seen[1])
    assert "batchproxy leases" in {thread.name for thread in threading.enumerate()}
forked(child, os._exit)
print("done")
"""
    assert run_prepared(script).endswith("done\n")
