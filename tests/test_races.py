"""Points 1, 5, 6, 7, 8 and 13 of the contract where threads race for every line of the library.

Two asyncio loops, two trio runs and four plain threads map overlapping keys through one `Cache`.
The interpreter changes threads as often as it can, and a tracer makes it change in the middle of
all modules but those of the command, at random lines: without the lock of the cache nothing here
would pass. Longer with `HYPOTHESIS_PROFILE=nightly`, as in test_model.py.
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import settings
from memory_store import MemoryStore
from tools import until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import assert_idle, wait_released

NIGHTLY = settings.get_current_profile_name() == "nightly"
ROUNDS = 500 if NIGHTLY else 60  # map() calls of each caller

LOOPS = ["asyncio", "asyncio", "trio", "trio"]
PACKAGE = Path(str(files("batchproxy")))
FILES = {str(path) for path in PACKAGE.rglob("_*.py") if not {"cli", "testing"} & {*path.parts}}


class Boom(Exception):
    """What the batch functions raise now and then."""


@contextmanager
def interference(seed: int) -> Iterator[None]:
    """Threads started inside it give up the GIL at random lines of FILES, and soon elsewhere."""
    chance = random.Random(seed).random

    def in_line(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and chance() < 0.2:
            time.sleep(0)
        return in_line

    def in_call(frame: FrameType, event: str, arg: Any) -> Any:
        return in_line if frame.f_code.co_filename in FILES else None

    interval, before = sys.getswitchinterval(), threading.gettrace()
    sys.setswitchinterval(1e-6)
    threading.settrace(in_call)
    try:
        yield
    finally:
        threading.settrace(before)
        sys.setswitchinterval(interval)


class Race:
    """Callers in eight threads, who check what they get and what their functions are asked for."""

    def __init__(self, seed: int, cache: Cache[int], *others: Cache[int]) -> None:
        self.cache = cache
        self.caches = [cache, *others]  # several share a store, as those of several processes do
        self.seed = seed
        self.wrong: list[object] = []
        self._start = threading.Barrier(8)
        self._lock = threading.Lock()
        self._under_way: Counter[int] = Counter()
        self._computed: set[int] = set()

    def run(self) -> None:
        with interference(self.seed), BatchingMapProxy[int, int](2, cache=self.cache) as proxy:
            loops = [AsyncBatchingMapProxy[int, int](3, 2, cache=cache) for cache in self.caches]
            functions = [
                *[
                    partial(anyio.run, self.loop, loops[n % len(loops)], n, backend=LOOPS[n])
                    for n in range(4)
                ],
                *[partial(self.thread, proxy, 4 + n) for n in range(4)],
            ]
            threads = [
                threading.Thread(target=self.guarded, args=[function], daemon=True)
                for function in functions
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30 if ROUNDS < 100 else 600)
                assert not thread.is_alive(), (f"{thread} hangs", self.wrong)
            assert self.wrong == []
            # What callers that have left had begun in a store is brought to its end by threads.
            until(lambda: not proxy.statistics().in_flight)
            until(lambda: not any(each.statistics().in_flight for each in loops))
            wait_released()
            assert_idle(proxy, *loops)
            assert proxy.map([1, 2, 3], lambda items: [-item for item in items]) == [-1, -2, -3]

    def guarded(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            self.wrong.append(error)

    @contextmanager
    def call(self, items: list[int]) -> Iterator[None]:
        """Inside a batch function: nobody else computes any of `items`, nor has done it in vain."""
        with self._lock:
            self._under_way.update(items)
            if twice := [item for item in items if self._under_way[item] > 1]:
                self.wrong.append(("computed twice at once", twice))
            if again := self.known().intersection(items):
                self.wrong.append(("computed again", again))
        try:
            yield
            with self._lock:
                self._computed.update(items)
        finally:
            with self._lock:
                self._under_way.subtract(items)

    def known(self) -> set[int]:
        """What nobody may compute any more."""
        return self._computed

    def check(self, items: list[int], answers: list[int]) -> None:
        if answers != [-item for item in items]:
            self.wrong.append((items, answers))

    def lists(self, chance: random.Random) -> Iterator[list[int]]:
        """Lists that overlap with those of the others, and move on to keys not yet known."""
        for number in range(ROUNDS):
            first = 4 * (number // 2)
            yield [first + chance.randrange(8) for _ in range(chance.randrange(8))]

    async def loop(self, proxy: AsyncBatchingMapProxy[int, int], number: int) -> None:
        self._start.wait(20)
        async with anyio.create_task_group() as group:
            for caller in range(2):
                chance = random.Random(f"{self.seed} {number} {caller}")
                group.start_soon(self.task, proxy, chance)

    async def task(self, proxy: AsyncBatchingMapProxy[int, int], chance: random.Random) -> None:
        async def fetch(items: list[int]) -> list[int]:
            with self.call(items):
                for _ in range(chance.randrange(4)):
                    await checkpoint()
                if chance.random() < 0.1:
                    raise Boom
                return [-item for item in items]

        async def cancel(scope: anyio.CancelScope, ticks: int) -> None:
            for _ in range(ticks):
                await checkpoint()
            scope.cancel()

        for items in self.lists(chance):
            async with anyio.create_task_group() as group:
                if chance.random() < 0.2:
                    group.start_soon(cancel, group.cancel_scope, chance.randrange(10))
                try:
                    self.check(items, await proxy.map(items, fetch))
                except Boom:
                    pass
                group.cancel_scope.cancel()

    def thread(self, proxy: BatchingMapProxy[int, int], number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")

        def fetch(items: list[int]) -> dict[int, int]:
            with self.call(items):
                if chance.random() < 0.1:
                    raise Boom
                return {item: -item for item in items}

        self._start.wait(20)
        for items in self.lists(chance):
            try:
                self.check(items, proxy.map(items, fetch))
            except Boom:
                pass


@pytest.mark.needs_trio
@pytest.mark.parametrize("max_size", [None, 0, 4])
def test_threads_that_race_for_every_line(max_size: int | None) -> None:
    """Loops and threads on one cache: right answers, nothing twice at once, nothing left behind."""
    race = Race(1, Cache[int](max_size=max_size))
    if max_size is not None:
        race.known = set  # type: ignore[method-assign] # what the cache has no room for, is forgotten
    race.run()


@pytest.mark.needs_trio
@pytest.mark.parametrize("max_size", [None, 0])
def test_caches_that_share_a_store_race_for_every_line(max_size: int | None) -> None:
    """As if they were of two processes: what one call has computed none computes again."""
    store = MemoryStore()
    race = Race(1, *[Cache[int](max_size, store=store, namespace="n") for _ in range(2)])
    race.run()
    assert store.claims == {}
