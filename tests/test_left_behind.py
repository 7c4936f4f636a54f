"""Tasks that a function leaves behind, and that map again. (Points 9 and 10 of the contract.)"""

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import anyio
import pytest
from tools import collect, each_way, interrupted_when, settle, step, together, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.stores import MemoryStore
from batchproxy.testing import AsyncCalls, assert_idle

GENERATIONS = 400
MARGIN = 50


@pytest.fixture
def shallow() -> Iterator[None]:
    """Fewer frames may be on a stack than there are generations."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    yield
    sys.setrecursionlimit(limit)


def ours() -> int:
    """How many objects of the library there are."""
    collect()
    return sum(str(type(each).__module__).startswith("batchproxy") for each in gc.get_objects())


class Watch:
    """Sees what there is, and what a generation costs, near the beginning and near the end."""

    def __init__(self) -> None:
        self.objects: list[int] = []
        self.calls: list[int] = []

    def note(self, generation: int) -> None:
        """To be called by each generation."""
        if generation in (MARGIN, GENERATIONS - MARGIN):
            self.objects.append(ours())
            self.calls.append(0)
            sys.setprofile(self._count)
        elif generation in (MARGIN + 20, GENERATIONS - MARGIN + 20):
            sys.setprofile(None)

    def _count(self, frame: object, event: str, argument: object) -> None:
        self.calls[-1] += 1

    def assert_no_growth(self) -> None:
        first, last = self.objects
        assert last - first < 50
        first, last = self.calls
        assert last < 1.5 * first


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("overlap", [0, 3])
async def test_generations_without_end(overlap: int) -> None:
    """A task left behind holds nothing of the generations before it, and costs as much as they.

    Each call leaves a task behind that maps again, and ends when `overlap` more have begun.
    """
    proxy = AsyncBatchingMapProxy[int, str](1, 4, cache=Cache(max_size=0))
    begun = [anyio.Event() for _ in range(GENERATIONS)]
    watch = Watch()

    async def fetch(items: list[int]) -> list[str]:
        [generation] = items
        begun[generation].set()
        watch.note(generation)
        if generation + 1 < GENERATIONS:
            group.start_soon(proxy.map, [generation + 1], fetch)
            await begun[min(generation + overlap, GENERATIONS - 1)].wait()
        return [str(generation)]

    async with anyio.create_task_group() as group:
        group.start_soon(proxy.map, [0], fetch)
    watch.assert_no_growth()
    assert proxy.statistics().computed == GENERATIONS
    assert_idle(proxy)


@pytest.mark.usefixtures("shallow")
@each_way
def test_generations_of_threads_without_end(options: Any) -> None:
    """The same for threads that have the context of their starter; each ends after the next began.

    (What they cost is not seen: most of that is in the portal.)
    """
    proxy = BatchingMapProxy[int, str](1, cache=Cache(max_size=0), **options)
    begun = [threading.Event() for _ in range(GENERATIONS)]
    threads: list[threading.Thread] = []
    objects: list[int] = []

    def fetch(items: list[int]) -> list[str]:
        [generation] = items
        begun[generation].set()
        for thread in threads[-2:-1]:  # that of the generation before: two are there at a time
            thread.join()
        if generation in (MARGIN, GENERATIONS - MARGIN):
            objects.append(ours())
        if generation + 1 < GENERATIONS:
            thread = threading.Thread(
                target=copy_context().run, args=(proxy.map, [generation + 1], fetch), daemon=True
            )
            threads.append(thread)
            thread.start()
            assert begun[generation + 1].wait(20)
        return [str(generation)]

    proxy.map([0], fetch)
    until(lambda: proxy.statistics().computed == GENERATIONS)
    for thread in threads:
        thread.join()
    assert objects[1] - objects[0] < 50
    assert proxy.map([0], lambda items: ["0"]) == ["0"]  # no slot is lost


async def test_who_takes_the_place_of_its_parent_has_one_slot() -> None:
    """A map() left behind keeps the slot of its parent for its batch, and queues for the next."""
    proxy = AsyncBatchingMapProxy[str, str](1, 1)
    left_behind, other = AsyncCalls(gated=True), AsyncCalls(gated=True)
    async with together(proxy) as callers:

        async def outer(items: list[str]) -> list[str]:
            await callers.begin("first", proxy.map, ["first", "second"], left_behind)
            return items

        await proxy.map(["outer"], outer)
        await callers.begin("other", proxy.map, ["other"], other)
        assert (left_behind.running, other.running) == (1, 0)
        await step(left_behind.finish, 0)
        assert (left_behind.running, other.running) == (0, 1)
        await step(other.finish, 0)
        assert (left_behind.running, other.running) == (1, 0)
        left_behind.open()
    assert left_behind.batches == [["first"], ["second"]]


async def test_who_takes_the_place_of_its_parent_is_in_the_slot_of_its_grandparent() -> None:
    """That call has ended; the slot comes back when the last of both generations has."""
    proxy = AsyncBatchingMapProxy[str, str](1, 1)
    left_behind, sibling, other = AsyncCalls(gated=True), AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:

        async def outer(items: list[str]) -> list[str]:
            await proxy.map(["nested"], nested)
            await callers.begin("sibling", proxy.map, ["sibling"], sibling)
            return items

        async def nested(items: list[str]) -> list[str]:
            await callers.begin(
                "left behind", proxy.map, ["left behind", "another", "a third"], left_behind
            )
            return items

        await proxy.map(["outer"], outer)
        await callers.begin("other", proxy.map, ["other"], other)
        assert (left_behind.running, sibling.running, other.batches) == (1, 0, [])
        await step(left_behind.finish, 0)
        assert (left_behind.running, sibling.running, other.batches) == (0, 1, [])
        await step(sibling.finish, 0)
        assert (left_behind.running, other.batches) == (1, [["other"]])
        left_behind.open()


def test_a_call_given_up_still_lends_its_slot(sync_backend: Any) -> None:
    """Its thread runs on after Ctrl-C, in the slot that it has, and so does what it asks for."""
    proxy = BatchingMapProxy[str, str](1, 1, backend=sync_backend)
    begun, interrupted, ended = threading.Event(), threading.Event(), threading.Event()
    answers: list[list[str]] = []

    def slow(items: list[str]) -> list[str]:
        begun.set()
        interrupted.wait()
        answers.append(proxy.map(["part"], lambda items: items))
        ended.set()
        return items

    with interrupted_when(begun.is_set):
        proxy.map(["whole"], slow)
    interrupted.set()
    assert ended.wait(10)
    assert answers == [["part"]]


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


def test_nothing_is_known_of_caches_that_are_gone() -> None:
    """What a fork would have to go through is no more after many than after a few."""

    def known() -> int:
        collect()
        return sum(isinstance(each, weakref.ref) for each in gc.get_objects())

    def use() -> None:
        with MemoryStore() as store, Cache[int](store=store, namespace="n") as cache:
            BatchingMapProxy[int, int](cache=cache).bind(lambda keys: keys).load(1)

    use()
    before = known()
    for _ in range(100):
        use()
    assert known() < before + 50
