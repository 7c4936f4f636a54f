"""What broken code showed to be untested: each test here notices what no other test did.

`proof/mutants.py` breaks the code in many small ways, and says which test notices. (Points 4, 5, 6,
8, 9, 10, 12 and 14 of the contract.)
"""

from __future__ import annotations

import gc
import importlib.util
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import anyio
import pytest
from tools import Calls, Outcomes, assert_idle, settle

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    PortalError,
    _portal,
    _rings,
)
from batchproxy._caller import innermost
from batchproxy._flights import Flight, Flights
from batchproxy._plan import Plan
from batchproxy._table import Table
from batchproxy._values import Mapped


def test_every_mutant_applies_to_todays_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that each breakage replaces is in the source, once: the list cannot rot."""
    path = Path(__file__).parent.parent / "proof" / "mutants.py"
    spec = importlib.util.spec_from_file_location("mutants", path)
    assert spec is not None
    assert spec.loader is not None
    mutants = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutants", mutants)  # dataclasses look their module up
    spec.loader.exec_module(mutants)
    assert len(mutants.MUTANTS) >= 45
    assert mutants.stale() == []


# --- Locks ---


def is_held(lock: Any) -> bool:
    """Whether this thread, or any, holds `lock`: another one cannot have it."""
    with ThreadPoolExecutor(1) as other:
        if taken := other.submit(lock.acquire, blocking=False).result():
            other.submit(lock.release).result()
    return not taken


class Watched(dict[Any, Any]):
    """A mapping that notes by which of its methods it was used while `watch()` was false."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Callable[[], bool] = bool
        self.used: set[str] = set()
        self.unguarded: set[str] = set()


def _watched(name: str) -> Any:
    def method(self: Watched, *args: Any) -> Any:
        self.used.add(name)
        if not self.watch():
            self.unguarded.add(name)
        return getattr(dict, name)(self, *args)

    return method


for _name in ("get", "update", "pop", "clear", "__len__", "__contains__"):
    setattr(Watched, _name, _watched(_name))


def test_a_mapping_is_used_under_the_lock_only() -> None:
    """Every access to the user's mapping is made with the lock of its cache held."""
    mapping = Watched()
    proxy = BatchingMapProxy[int, str](2, cache=mapping)
    cache = proxy._engine.cache
    mapping.watch = lambda: is_held(cache._table.flights.lock)
    assert proxy.map([1, 2, 3], lambda items: [str(item) for item in items]) == ["1", "2", "3"]
    cache.prime({4: "4"})
    cache.invalidate([1])
    assert (len(cache), 4 in cache) == (3, True)
    cache.clear()
    assert mapping.used == {"get", "update", "pop", "clear", "__len__", "__contains__"}
    assert mapping.unguarded == set()


def test_a_forgotten_call_may_end_inside_the_lock() -> None:
    """The collector may end one, in whatever uses the table: that has the lock already."""

    class Collecting(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            table.flights.end(forgotten)
            return super().get(key, default)

    table = Table(Mapped(Collecting()))
    forgotten = Flight(None)
    table.flights.claim(forgotten, [1])
    assert table.lookup([2]) is None
    assert len(table.flights) == 0


def test_of_two_that_close_a_ring_at_once_the_second_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody comes between the look for a ring and the note of what is waited for."""
    block, alone = _rings.block, list[bool]()

    def watched(*args: Any) -> None:
        alone.append(is_held(_rings._lock))
        block(*args)

    monkeypatch.setattr(_rings, "block", watched)
    node = object()
    _rings.block_checked("token", [node], {Flight(None): [1]})
    _rings.unblock("token", [node])
    assert alone == [True]


# --- Interrupts in bad moments ---


def test_a_claim_that_is_cut_short_can_be_released() -> None:
    """An interrupt between two keys of a claim leaves none of them in flight."""

    class Interrupted(dict[Hashable, Flight]):
        def __setitem__(self, key: Hashable, flight: Flight) -> None:
            super().__setitem__(key, flight)
            raise KeyboardInterrupt

    flights, flight = Flights(), Flight(None)
    flights._table = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        flights.claim(flight, [1, 2])
    assert len(flights) == 1
    flights.end(flight)
    assert len(flights) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("how_many", [1, 2])
async def test_a_release_that_is_cut_short_is_made_again(
    how_many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt as the keys of a failing call are released, and one more, leave none held."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    interrupts = [KeyboardInterrupt() for _ in range(how_many)]
    end = Flights.end

    def interrupted(flights: Flights, flight: Flight) -> None:
        if interrupts:
            raise interrupts.pop()
        end(flights, flight)

    async def fail(items: list[int]) -> list[str]:
        raise ValueError

    monkeypatch.setattr(Flights, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await proxy.map([1], fail)
    assert_idle(proxy)
    assert await proxy.map([1], Calls()) == ["1"]


# --- Answers and values ---


@pytest.mark.anyio
async def test_a_list_that_a_function_answered_with_is_its_own() -> None:
    """A function may change its list after the call: who waited gets what was answered."""
    proxy = AsyncBatchingMapProxy[int, str]()
    answer: list[str] = []
    gate = anyio.Event()

    async def owner(items: list[int]) -> list[str]:
        await gate.wait()
        answer.extend(map(str, items))
        return answer

    async def own() -> list[str]:
        results = await proxy.map([1, 2], owner)
        answer[:] = ["changed", "changed"]  # before the one who waits can have come to run
        return results

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", own)
        await settle()
        callers.start("waiter", proxy.map, [2], Calls())
        await settle()
        gate.set()
    assert callers.results == {"owner": ["1", "2"], "waiter": ["2"]}
    assert_idle(proxy)


def test_keys_put_back_twice_stay_in_order() -> None:
    """What is put back last was drawn last, and comes first again."""
    keys: list[Hashable] = [0, 1, 2]
    plan = Plan(keys, keys)
    plan.draw_back(plan.draw(3))
    plan.draw_back(plan.draw(1))
    assert plan.draw(3) == keys


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
    batches: list[list[int]] = []

    def fetch(items: list[int]) -> list[None]:
        batches.append(items)
        return [None] * len(items)

    proxy.map([1], fetch)
    assert proxy.map([1, 2], fetch) == [None, None]
    assert proxy.map([2, 1], fetch) == [None, None]
    assert batches == [[1], [2]]


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


@pytest.mark.anyio
async def test_a_task_left_behind_keeps_no_results_alive() -> None:
    """A task that a function started, and that outlives the call, does not hold its results."""

    class Result:
        pass

    proxy = AsyncBatchingMapProxy[int, Result](cache=Cache(max_size=0))
    ended = anyio.Event()
    async with anyio.create_task_group() as group:

        async def fetch(items: list[int]) -> list[Result]:
            group.start_soon(ended.wait)
            return [Result()]

        gone = weakref.ref((await proxy.map([1], fetch))[0])
        await settle()
        gc.collect()
        assert gone() is None
        ended.set()


@pytest.mark.anyio
async def test_clear_is_a_checkpoint_after_everything_is_forgotten() -> None:
    """A caller that is cancelled notices, and has cleared the cache all the same."""
    proxy = AsyncBatchingMapProxy[int, str]()
    await proxy.map([1], Calls())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await proxy.clear()
    assert scope.cancelled_caught
    assert proxy.statistics().cached == 0


# --- Slots ---


@pytest.mark.anyio
async def test_a_nested_call_of_another_proxy_takes_a_slot_of_that() -> None:
    """The slot that the outer call has of its own proxy is none of the other's."""
    outer_proxy = AsyncBatchingMapProxy[int, int](1, 2)
    inner_proxy = AsyncBatchingMapProxy[int, int](1, 1)
    inner = Calls(int, gated=True)

    async def outer(items: list[int]) -> list[int]:
        return await inner_proxy.map(items, inner)

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("caller", outer_proxy.map, [1, 2], outer)
        await settle()
        assert inner.running == 1
        inner.open()
    assert callers.results == {"caller": [1, 2]}
    assert inner.most_running == 1
    assert_idle(outer_proxy, inner_proxy)


@pytest.mark.anyio
async def test_a_nested_call_under_way_keeps_the_slot_of_its_parent() -> None:
    """If the parent ends first, its slot is free when the nested call has ended, too."""
    proxy = AsyncBatchingMapProxy[str, str](None, 1)
    inner, later = Calls(gated=True), Calls()
    async with anyio.create_task_group() as group:

        async def outer(items: list[str]) -> list[str]:
            group.start_soon(proxy.map, ["left behind"], inner)
            await settle()
            return items

        assert await proxy.map(["outer"], outer) == ["outer"]
        group.start_soon(proxy.map, ["later"], later)
        await settle()
        assert (inner.running, later.batches) == (1, [])
        inner.open()
    assert later.batches == [["later"]]
    assert_idle(proxy)


# --- Rings ---


@pytest.mark.anyio
async def test_after_a_map_its_caller_is_inside_no_call() -> None:
    """Whether it succeeded or failed; and inside one while the function runs."""
    proxy = AsyncBatchingMapProxy[int, str]()
    inside: list[bool] = []

    async def fetch(items: list[int]) -> list[str]:
        inside.append(innermost.get() is not None)
        return [str(1 // item) for item in items]

    await proxy.map([1], fetch)
    assert innermost.get() is None
    with pytest.raises(ZeroDivisionError):
        await proxy.map([0], fetch)
    assert innermost.get() is None
    assert inside == [True, True]


def test_after_a_synchronous_map_its_thread_is_inside_no_call() -> None:
    """Whether it succeeded or failed; and inside one while the function runs."""
    proxy = BatchingMapProxy[int, str]()
    inside: list[bool] = []

    def fetch(items: list[int]) -> list[str]:
        inside.append(innermost.get() is not None)
        return [str(1 // item) for item in items]

    proxy.map([1], fetch)
    assert innermost.get() is None
    with pytest.raises(ZeroDivisionError):
        proxy.map([0], fetch)
    assert innermost.get() is None
    assert inside == [True, True]


@pytest.mark.anyio
async def test_who_was_left_behind_by_a_nested_call_is_still_inside_the_outer_one() -> None:
    """A task that a nested call left behind gets an error for a key of the call around that."""
    proxy = AsyncBatchingMapProxy[str, str]()
    nested_has_ended = anyio.Event()
    flights: list[object] = []

    async def outer(items: list[str]) -> list[str]:
        await proxy.map(["nested"], nested)
        nested_has_ended.set()
        await settle()  # not until the task left behind has ended: that may wait for this call
        assert isinstance(callers.results["left behind"], CircularWaitError)
        return items

    async def nested(items: list[str]) -> list[str]:
        nest = innermost.get()
        assert nest is not None
        flights.append(nest.flight())  # as a waiter does that has not looked yet
        callers.start("left behind", left_behind)
        return items

    async def left_behind() -> list[str]:
        await nested_has_ended.wait()
        return await proxy.map(["outer"], Calls())

    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        assert await proxy.map(["outer"], outer) == ["outer"]
    assert "'outer' is being computed" in str(callers.results["left behind"])
    assert_idle(proxy)


# --- Worker threads and the portal ---

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@both
def test_a_worker_does_not_take_the_loop_of_its_caller_for_its_own(backend: str) -> None:
    """Inside an event loop the function of a worker thread can still run a loop of its own."""
    proxy = BatchingMapProxy[int, str](None, 1)

    async def answer(items: list[int]) -> list[str]:
        return [str(item) for item in items]

    async def main() -> list[str]:
        return proxy.map([1], lambda items: anyio.run(answer, items))

    assert anyio.run(main, backend=backend) == ["1"]


def test_more_workers_than_the_default_limit_of_threads() -> None:
    """`max_concurrency` alone says how many: not anyio's own limit of 40 for an application."""
    proxy = BatchingMapProxy[int, int](1, 41)
    all_at_once = threading.Barrier(41, timeout=10)

    def meet(items: list[int]) -> list[int]:
        all_at_once.wait()
        return items

    assert proxy.map(range(41), meet) == list(range(41))


async def refuse() -> None:
    raise AssertionError("this work was not to begin")


class FakePortal:
    """A portal without a loop and a thread: a subclass says what becomes of what is posted."""

    def __init__(self) -> None:
        self.calls: set[_portal.PortalCall] = set()
        self.tasks: anyio.abc.TaskGroup
        self.posted = 0

    def post(self, function: Callable[[], object]) -> None:
        raise NotImplementedError


def call_in(portal: Any) -> _portal.PortalCall:
    return _portal.PortalCall(portal)


def test_a_call_is_registered_before_it_is_posted() -> None:
    """A portal that dies as soon as it is asked tells the one who asked."""

    class Dying(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            assert self.calls, "nobody is there to be told"
            for call in self.calls:
                call.end()

    portal = Dying()
    with pytest.raises(PortalError):
        call_in(portal).run(refuse)
    assert not portal.calls


def test_an_interrupt_while_cancelling_does_not_lose_the_cancellation() -> None:
    """Ctrl-C as the task is posted, and again as its cancellation is: that is posted once more."""

    class Interrupted(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            self.posted += 1
            if self.posted < 3:
                raise KeyboardInterrupt
            function()

    portal = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        call_in(portal).run(refuse)
    assert portal.posted == 3


@both
def test_what_is_cancelled_before_its_first_step_does_not_begin(backend: str) -> None:
    """The cancellation may overtake a task that was started and has not run yet."""
    portal = FakePortal()
    call = call_in(portal)

    async def main() -> None:
        async with anyio.create_task_group() as portal.tasks:
            call._start(copy_context(), refuse)
            call._cancel()

    anyio.run(main, backend=backend)
    assert call._receive() is None
    assert call._error is None


def test_a_call_keeps_no_error() -> None:
    """Its frame is in the traceback of what it raised: each would keep the other alive."""

    class Failing(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            for call in self.calls:
                call._error = ValueError("boom")
                call.end()

    call = call_in(Failing())
    with pytest.raises(ValueError, match="boom"):
        call.run(refuse)
    assert call._error is None


@pytest.mark.parametrize("ready", ["before the bell was there", "and told everybody"])
def test_a_portal_that_becomes_ready_meanwhile(ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is about to wait looks again, so that it does not wait for a bell that has rung."""
    portal = _portal.get_portal("asyncio")

    class Bells(list[Any]):
        def append(self, bell: Any) -> None:
            super().append(bell)
            portal._ready = True
            if ready == "and told everybody":
                portal._announce()

    monkeypatch.setattr(portal, "_ready", False)
    monkeypatch.setattr(portal, "_bells", Bells())
    portal.wait_until_ready()
    assert portal._ready
