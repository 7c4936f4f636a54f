"""Hours of mixed load: memory, threads and file descriptors stay flat, and nothing is left behind.

`python proof/soak.py` maps for an hour of virtual time on asyncio and again on trio: callers who
arrive at random, with lists, single keys and streams that they may leave half-way; overlapping
keys, calls of seconds to minutes, failures, refused batches, cancellations, timeouts, bounded and
expiring caches, nested maps. With ``--minutes`` it then does the same for as long in real time,
with synchronous proxies in six threads and event loops that are started and ended again and again,
all on one bounded `Cache`; and on two with a store that fails and comes back. Between the episodes
of such a load nothing may be in flight, and the last third of them may not need more than the first
(the warm-up does not count). At last, 1,000 successful ``map()`` calls of each kind must leave
nothing for the garbage collector.

Prints a table, and exits with 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import itertools
import math
import random
import statistics
import sys
import threading
import time
import tracemalloc
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from unittest import mock
from weakref import WeakSet

import anyio
import trio
from trio.testing import MockClock

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    SplitBatch,
    StoreError,
)
from batchproxy._engine import portal as _portal
from batchproxy.stores import MemoryStore
from batchproxy.testing import look

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tools import VirtualTimeLoop

AsyncProxy: TypeAlias = AsyncBatchingMapProxy[Any, str]
SyncProxy: TypeAlias = BatchingMapProxy[Any, str]

BACKENDS: dict[str, Callable[[], dict[str, Any]]] = {
    "asyncio": lambda: {"loop_factory": VirtualTimeLoop},
    "trio": lambda: {"clock": MockClock(autojump_threshold=0)},
}
KEYS = 300
DESCRIPTORS = Path("/proc/self/fd")

rng = random.Random()
maps_begun = itertools.count()  # its next() is atomic


class Expected(Exception):
    """How calls fail here."""


def value(key: Any) -> str:
    return f"value of {key}"


def some_keys() -> list[int]:
    """A list that has much in common with others."""
    start = rng.randrange(KEYS)
    return [(start + rng.randrange(40)) % KEYS for _ in range(rng.randint(1, 25))]


def answer(items: Sequence[Any]) -> list[Any]:
    """The results of a call; now and then it fails, is refused, or one of its items fails."""
    if rng.random() < 0.04:
        raise Expected
    if rng.random() < 0.04:
        raise SplitBatch from Expected()
    return [Expected() if rng.random() < 0.002 else value(item) for item in items]


def assert_right(keys: list[Any], answers: list[Any]) -> None:
    assert len(answers) == len(keys)
    for key, got in zip(keys, answers):
        assert got == value(key) or isinstance(got, Expected), (key, got)


def taken(keys: list[Any]) -> int:
    """How many pairs of a stream are taken before it is left."""
    return len(keys) if rng.random() < 0.7 else rng.randrange(len(keys))


async def ask(proxy: AsyncProxy, keys: list[Any], function: Callable[..., Any]) -> None:
    """Ask for `keys`: for all of them, for each in a task of its own, or in a stream."""
    how, keep = rng.random(), rng.random() < 0.3
    next(maps_begun)
    if how < 0.4:
        assert_right(keys, await proxy.map(keys, function, return_exceptions=keep))
    elif how < 0.7:
        bound = bound_to(proxy, function)

        async def one(key: Any) -> None:
            with suppress(Expected, StoreError):
                assert_right([key], [await bound.load(key)])

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(one, key)
    else:
        got, left = [], taken(keys)
        stream = proxy.stream(keys, function, window=12, return_exceptions=keep)
        async with stream as results:
            async for pair in results:
                got.append(pair)
                if len(got) == left:
                    break
        assert_right([key for key, _ in got], [result for _, result in got])


def ask_in_thread(proxy: SyncProxy, keys: list[Any], function: Callable[..., Any]) -> None:
    """The same in a thread."""
    how, keep = rng.random(), rng.random() < 0.3
    next(maps_begun)
    if how < 0.4:
        assert_right(keys, proxy.map(keys, function, return_exceptions=keep))
    elif how < 0.7:
        bound = bound_to(proxy, function)
        assert_right(keys[:5], [bound.load(key) for key in keys[:5]])
    else:
        with proxy.stream(keys, function, window=12, return_exceptions=keep) as results:
            got = list(itertools.islice(results, taken(keys)))
        assert_right([key for key, _ in got], [result for _, result in got])


_bound: dict[Any, Any] = {}


def bound_to(proxy: Any, function: Callable[..., Any]) -> Any:
    """`function` bound to `proxy`, the same each time: so loads gather."""
    if (proxy, function) not in _bound:
        _bound[proxy, function] = proxy.bind(function)
    return _bound[proxy, function]


class Failing(MemoryStore):
    """A store that fails in every third second, at half of what is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        if name.endswith("_many") and time.monotonic() % 3 < 1 and rng.random() < 0.5:
            raise OSError("the store is down")
        return super().__getattribute__(name)


# --- What is measured ---

# What the last third may need more than the first. How full the caches are varies a little; one
# small object kept for each map() would be several times as much.
TOLERANCES = {
    "memory, bytes": 65_536,
    "objects": 100,
    "threads": 0.5,
    "file descriptors": 0.5,
}

PATIENCE = 120.0  # seconds for an episode, until it is taken for a hang


def must_go_on() -> None:
    """Unless this is called again in time, all stacks are shown and the process dies."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)


@dataclass
class Row:
    """One line of the table."""

    what: str
    first: str
    last: str
    holds: bool

    def __str__(self) -> str:
        return f"| {self.what} | {self.first} | {self.last} | {'yes' if self.holds else 'NO'} |"


class Measures:
    """What is looked at between the episodes, in arrays, which hardly grow themselves."""

    def __init__(self, load: str, proxies: Iterable[AsyncProxy | SyncProxy]) -> None:
        self._load = load
        self._proxies = list(proxies)
        self._taken = {what: array("q") for what in [*TOLERANCES, "left behind"]}
        self.loops: WeakSet[Any] = WeakSet()  # those that have ended

    def take(self) -> None:
        """Measure; to be called when no load is on."""
        must_go_on()
        gc.collect()
        descriptors = len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
        for what, number in {
            "memory, bytes": tracemalloc.get_traced_memory()[0],
            "objects": len(gc.get_objects()),
            "threads": threading.active_count(),
            "file descriptors": descriptors,
            "left behind": sum(map(left_behind, self._proxies)) + len(self.loops) + calls_known(),
        }.items():
            self._taken[what].append(number)

    def rows(self) -> list[Row]:
        rows = []
        for what, numbers in self._taken.items():
            counted = numbers[len(numbers) // 4 :]  # after the warm-up
            third = max(1, len(counted) // 3)
            first, last = statistics.mean(counted[:third]), statistics.mean(counted[-third:])
            if what == "left behind":  # at no time
                holds = not any(numbers)
                what = "keys in flight, callers waiting, slots taken, ended loops alive"
            else:
                holds = last <= first + TOLERANCES[what]
            rows.append(Row(f"{self._load}: {what}", f"{first:,.0f}", f"{last:,.0f}", holds))
        return rows


def left_behind(proxy: AsyncProxy | SyncProxy) -> int:
    """Keys in flight, callers waiting, calls running, slots taken or waited for."""
    now = look(proxy)
    return len(now.in_flight) + now.waiting + now.running + now.slots + now.queueing


def calls_known() -> int:
    """What the rooms that all proxies share still know of calls."""
    return look().blocked + sum(len(portal.calls) for portal in _portal._portals.values())


def calls_of(proxies: Iterable[AsyncProxy | SyncProxy]) -> int:
    return sum(proxy.statistics().calls for proxy in proxies)


# --- Hours of virtual time ---


class VirtualLoad:
    """Callers who arrive at random, for a while, on proxies of several kinds."""

    EPISODE = 100.0  # seconds in which callers arrive; it ends when all of them are gone
    PAUSE = 0.4  # seconds between two callers, on average

    def __init__(self) -> None:
        shared = Cache[str](max_size=50, ttl=60)
        self.nesting = AsyncProxy(5, 8, cache=Cache(max_size=200))
        self.inner = AsyncProxy(5, 8, cache=Cache(max_size=100))
        self.proxies = [
            self.nesting,
            self.inner,
            AsyncProxy(3, 8, cache=Cache(ttl=120)),
            AsyncProxy(None, 4, cache=shared),
            AsyncProxy(7, 8, cache=shared),
            AsyncProxy(4, 8, cache=Cache(max_size=0)),
        ]
        self._callers: list[anyio.CancelScope] = []

    async def episode(self) -> None:
        end = anyio.current_time() + self.EPISODE
        async with anyio.create_task_group() as group:
            while anyio.current_time() < end:
                await anyio.sleep(rng.expovariate(1 / self.PAUSE))
                group.start_soon(self._caller)
                if self._callers and rng.random() < 0.1:
                    rng.choice(self._callers).cancel()

    async def _caller(self) -> None:
        proxy, keys = rng.choice(self.proxies), some_keys()
        function = self._nested if proxy is self.nesting else self._slow
        patience = rng.expovariate(1 / 20) if rng.random() < 0.2 else math.inf
        with anyio.move_on_after(patience) as scope:
            self._callers.append(scope)
            try:
                await ask(proxy, keys, function)
            except Expected:
                pass
            finally:
                self._callers.remove(scope)

    async def _slow(self, items: list[Any]) -> list[Any]:
        seconds = rng.expovariate(1 / 2) if rng.random() < 0.97 else rng.uniform(30, 120)
        await anyio.sleep(seconds)
        return answer(items)

    async def _nested(self, items: list[Any]) -> list[Any]:
        parts = [("part", item % 50) for item in items]
        await ask(rng.choice([self.nesting, self.inner]), parts, self._slow)
        return answer(items)


def virtual(backend: str, hours: float) -> tuple[list[Row], int]:
    """The rows of that load, and how many calls it took."""
    load = VirtualLoad()
    measures = Measures(f"{hours:g} h on {backend}", load.proxies)

    async def main() -> None:
        end = anyio.current_time() + hours * 3600
        while anyio.current_time() < end:
            await load.episode()
            measures.take()

    # Values expire in the same time as everything else takes place in.
    clock = SimpleNamespace(monotonic=anyio.current_time)
    with mock.patch("batchproxy._core.values.time", clock):
        anyio.run(main, backend=backend, backend_options=BACKENDS[backend]())
    return measures.rows(), calls_of(load.proxies)


# --- Minutes of real time ---


class RealLoad:
    """Synchronous proxies in six threads, and event loops that come and go.

    On one cache, or on two with a store.
    """

    EPISODE = 1.0  # seconds

    def __init__(self, store: MemoryStore | None = None) -> None:
        cache = other = Cache[str](max_size=100)
        if store is not None:
            cache = Cache(max_size=100, ttl=0.5, store=store, namespace="soak")
            other = Cache(
                max_size=50, store=store, namespace="soak", on_store_error="continue", ttl=0.5
            )
        self.calling = SyncProxy(4, cache=cache)
        self.workers = SyncProxy(3, 2, cache=other, backend="trio")
        self.asynchronous = AsyncProxy(4, 3, cache=cache)
        self.proxies: list[AsyncProxy | SyncProxy] = [self.calling, self.workers, self.asynchronous]
        self.loops: WeakSet[Any] = WeakSet()
        self._errors: list[BaseException] = []

    def episode(self) -> None:
        end = time.monotonic() + self.EPISODE
        threads = [
            threading.Thread(target=self._caller, args=(proxy, end))
            for proxy in [self.calling, self.workers] * 3
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            asyncio.run(self._callers())
            trio.run(self._callers)
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _caller(self, proxy: SyncProxy, end: float) -> None:
        try:
            while time.monotonic() < end:
                function = self._nested if rng.random() < 0.2 else self._quick
                with suppress(Expected, StoreError):
                    ask_in_thread(proxy, some_keys(), function)
        except BaseException as error:
            self._errors.append(error)

    def _quick(self, items: list[Any]) -> list[Any]:
        time.sleep(0.001)
        return answer(items)

    def _nested(self, items: list[Any]) -> list[Any]:
        try:
            ask_in_thread(self.calling, [("part", item % 50) for item in items], self._quick)
        except StoreError as error:  # which is to the outer one a failure of its function
            raise Expected from error
        return answer(items)

    async def _quick_async(self, items: list[Any]) -> list[Any]:
        await anyio.sleep(0.001)
        return answer(items)

    async def _callers(self) -> None:
        """What happens in one event loop: several callers, some of whom lose their patience."""

        async def caller() -> None:
            with anyio.move_on_after(0.002 if rng.random() < 0.2 else math.inf):
                with suppress(Expected, StoreError):
                    await ask(self.asynchronous, some_keys(), self._quick_async)

        try:
            self.loops.add(asyncio.get_running_loop())
        except RuntimeError:
            self.loops.add(trio.lowlevel.current_trio_token())
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(caller)


def real(minutes: float, store: MemoryStore | None = None) -> tuple[list[Row], int]:
    """The rows of that load, and how many calls it took."""
    load = RealLoad(store)
    what = "threads and loops" if store is None else "the same with a store that fails"
    measures = Measures(f"{minutes:g} min of {what}", load.proxies)
    measures.loops = load.loops
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        load.episode()
        patience = time.monotonic() + 10  # threads may still be writing what callers have left
        while not look(*load.proxies).idle and time.monotonic() < patience:
            time.sleep(0.001)
        measures.take()
    return measures.rows(), calls_of(load.proxies)


# --- Garbage ---

TIMES = 1_000
SOME = [1, 2, 3]


def echo(items: list[Any]) -> list[str]:
    return [value(item) for item in items]


async def echo_async(items: list[Any]) -> list[str]:
    await anyio.lowlevel.checkpoint()
    return echo(items)


def async_kinds() -> dict[str, Callable[[], Awaitable[object]]]:
    """Ways to call ``map()`` that succeed."""

    def cold(batch_size: int | None, max_concurrency: int = 2) -> AsyncProxy:
        return AsyncProxy(batch_size, max_concurrency, cache=Cache(max_size=0))

    known, whole, several, narrow = AsyncProxy(), cold(None), cold(1), cold(None, 1)
    blocking = SyncProxy(1, cache=Cache(max_size=0))

    async def nested(items: list[Any]) -> list[str]:
        await narrow.map([("part", item) for item in items], echo_async)
        return echo(items)

    async def blocked() -> None:
        blocking.map(SOME, echo)

    async def two(proxy: AsyncProxy, keys: list[int]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(proxy.map, SOME, echo_async)
            group.start_soon(proxy.map, keys, echo_async)

    return {
        "hits": lambda: known.map(SOME, echo_async),
        "one call": lambda: whole.map(SOME, echo_async),
        "calls in tasks": lambda: several.map(SOME, echo_async),
        "waiting for another's call": lambda: two(whole, SOME),
        "waiting for a slot": lambda: two(narrow, [4]),
        "nested": lambda: narrow.map(SOME, nested),
        "a synchronous proxy": blocked,
    }


def sync_kinds() -> dict[str, Callable[[], object]]:
    """The same for synchronous proxies."""

    def cold(max_concurrency: int | None) -> SyncProxy:
        return SyncProxy(1, max_concurrency, cache=Cache(max_size=0))

    known, calling, workers, shared = SyncProxy(), cold(None), cold(2), cold(None)

    def nested_in(proxy: SyncProxy) -> Callable[[list[Any]], list[str]]:
        def nested(items: list[Any]) -> list[str]:
            proxy.map([("part", item) for item in items], echo)
            return echo(items)

        return nested

    def in_two_threads() -> None:
        thread = threading.Thread(target=shared.map, args=(SOME, echo))
        thread.start()
        shared.map(SOME, echo)
        thread.join()

    return {
        "hits": lambda: known.map(SOME, echo),
        "in the calling thread": lambda: calling.map(SOME, echo),
        "in worker threads": lambda: workers.map(SOME, echo),
        "in two threads": in_two_threads,
        "nested in the calling thread": lambda: calling.map(SOME, nested_in(calling)),
        "nested in worker threads": lambda: workers.map(SOME, nested_in(workers)),
    }


async def garbage_async(call: Callable[[], Awaitable[object]]) -> int:
    """How many objects `TIMES` calls leave to the collector."""
    must_go_on()
    for _ in range(10):
        await call()
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            await call()
        return gc.collect()
    finally:
        gc.enable()


def garbage(call: Callable[[], object]) -> int:
    """How many objects `TIMES` calls leave to the collector."""

    async def call_async() -> None:
        call()

    coroutine = garbage_async(call_async)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return int(stop.value)
    raise AssertionError("nothing in it waits")


def garbage_rows() -> list[Row]:
    found = {}
    for backend in BACKENDS:
        for kind, call in async_kinds().items():
            found[f"{backend}, {kind}"] = anyio.run(garbage_async, call, backend=backend)
    for kind, sync_call in sync_kinds().items():
        found[f"synchronous, {kind}"] = garbage(sync_call)
    what = f"garbage of {TIMES:,} map() calls"
    return [Row(f"{what}: {kind}", "", str(left), left == 0) for kind, left in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Is everything flat under a long mixed load?")
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time")
    parser.add_argument("--minutes", type=float, default=0.0, help="of real time")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    given = parser.parse_args()
    rng.seed(given.seed)
    print(f"seed: {given.seed}\n")
    print("| what | first third | last third | holds |")
    print("|---|--:|--:|---|", flush=True)
    everything_holds, calls = True, 0

    def show(rows: list[Row]) -> None:
        nonlocal everything_holds
        for row in rows:
            print(row, flush=True)
            everything_holds &= row.holds

    show(garbage_rows())
    tracemalloc.start()
    for backend in BACKENDS:
        rows, made = virtual(backend, given.hours)
        show(rows)
        calls += made
    if given.minutes:
        for store in (None, Failing()):
            rows, made = real(given.minutes / 2, store)
            show(rows)
            calls += made
    print(f"\n{next(maps_begun):,} lists under load, {calls:,} calls of a function")
    sys.exit(not everything_holds)


if __name__ == "__main__":
    main()
