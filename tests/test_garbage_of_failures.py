"""A map() that fails leaves nothing to the garbage collector: neither its exception nor its items.

A traceback has the frames that the exception has passed, those the calls, and those their failures.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import anyio
import pytest
from anyio.lowlevel import checkpoint
from memory_store import MemoryStore, PlainStore
from tools import FREE_THREADED, happens, settle

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError


class Boom(Exception):
    pass


class Item(str):
    """A text that can be referred to weakly."""

    __slots__ = ("__weakref__",)


class Watched:
    """The items and exceptions of one failing map(), as long as they are there."""

    def __init__(self) -> None:
        self._refs: list[ref[Any]] = []

    def items(self, count: int = 3) -> list[Any]:
        made = [Item(number) for number in range(count)]
        self._refs += map(ref, made)
        return made

    def error(self, error: BaseException) -> None:
        mark = Item(repr(error))
        error.mark = mark  # type: ignore[attr-defined] # most exceptions have no weak references
        self._refs.append(ref(mark))

    @property
    def left(self) -> list[object]:
        return [each() for each in self._refs if each() is not None]


@contextmanager
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


Proxy = AsyncBatchingMapProxy[Any, Any]
Options = dict[str, Any]
ONE_CALL, IN_TURN, IN_TASKS = (None, 8), (1, 1), (1, 3)


async def raises(items: list[Any]) -> list[Any]:
    await checkpoint()
    raise Boom


def raises_at_once(items: list[Any]) -> Any:
    raise Boom


async def too_few(items: list[Any]) -> list[Any]:
    await checkpoint()
    return []


async def no_answer(items: list[Any]) -> Any:
    await checkpoint()


async def broken_answer(items: list[Any]) -> Any:
    await checkpoint()
    return type("Answer", (), {"__len__": len, "__getitem__": broken_answer, "__iter__": boom})()


def boom(*_: object) -> Any:
    raise Boom


async def items_fail(items: list[Any]) -> list[Any]:
    await checkpoint()
    return [caught() for _ in items]


def caught() -> Exception:
    try:
        raise Boom
    except Boom as error:
        return error


async def interrupts(items: list[Any]) -> list[Any]:
    await checkpoint()
    raise BaseException("no Exception")


@pytest.mark.anyio
@pytest.mark.parametrize("options", [ONE_CALL, IN_TURN, IN_TASKS])
@pytest.mark.parametrize(
    "function",
    [raises, raises_at_once, too_few, no_answer, broken_answer, items_fail, boom, interrupts],
)
async def test_failing_calls(options: tuple[Any, Any], function: Callable[..., Any]) -> None:
    """Whatever the function does wrong."""
    watched = Watched()
    proxy = Proxy(*options)
    with no_collector():
        try:
            await proxy.map(watched.items(), function)
        except BaseException as error:
            watched.error(error)
        await settle()
        assert watched.left == []


@pytest.mark.anyio
@pytest.mark.parametrize("options", [ONE_CALL, IN_TURN, IN_TASKS])
@pytest.mark.parametrize("function", [raises, raises_at_once, too_few, items_fail])
async def test_exceptions_in_the_list(
    options: tuple[Any, Any], function: Callable[..., Any]
) -> None:
    """With return_exceptions=True, when the list is gone."""
    watched = Watched()
    with no_collector():
        results = await Proxy(*options).map(watched.items(), function, return_exceptions=True)
        for result in results:
            watched.error(result)
        del results, result
        await settle()
        assert watched.left == []


@pytest.mark.anyio
@pytest.mark.parametrize("options", [ONE_CALL, IN_TASKS])
async def test_who_waits_for_a_failing_call(options: tuple[Any, Any]) -> None:
    """The owner and two who wait get one exception."""
    watched = Watched()
    proxy = Proxy(*options)

    async def caller() -> None:
        try:
            await proxy.map(watched.items(), raises)
        except Boom as error:
            watched.error(error)

    with no_collector():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(caller)
        await settle()
        assert watched.left == []


@pytest.mark.anyio
async def test_rings() -> None:
    """A function lets the CircularWaitError of its own map() through."""
    watched = Watched()
    proxy = Proxy()

    async def asks_for_itself(items: list[Any]) -> list[Any]:
        await checkpoint()
        return await proxy.map(items, asks_for_itself)

    async def waits_for_another(items: list[Any]) -> list[Any]:
        group.start_soon(other, items)
        await under_way.wait()
        return await proxy.map(["other"], asks_for_itself)

    async def other(items: list[Any]) -> None:
        async def ask(others: list[Any]) -> list[Any]:
            under_way.set()
            return await proxy.map(items, asks_for_itself)

        try:
            await proxy.map(["other"], ask)
        except RuntimeError as error:
            watched.error(error)

    with no_collector():
        for function in (asks_for_itself, waits_for_another):
            under_way = anyio.Event()
            async with anyio.create_task_group() as group:
                try:
                    await proxy.map(watched.items(), function)
                except RuntimeError as error:
                    watched.error(error)
        await settle()
        assert watched.left == []


@pytest.mark.anyio
@pytest.mark.parametrize("options", [ONE_CALL, IN_TASKS])
async def test_nested_failures(options: tuple[Any, Any]) -> None:
    """The exception of the innermost function passes several map() calls."""
    watched = Watched()
    proxy = Proxy(*options)

    async def outer(items: list[Any]) -> list[Any]:
        return await proxy.map([(item, item) for item in items], raises)

    with no_collector():
        try:
            await proxy.map(watched.items(), outer)
        except Boom as error:
            watched.error(error)
        await settle()
        assert watched.left == []


@pytest.mark.anyio
@pytest.mark.parametrize("options", [ONE_CALL, IN_TURN, IN_TASKS])
@pytest.mark.parametrize("cleaning", [False, True])
async def test_cancellation(options: tuple[Any, Any], cleaning: bool) -> None:
    """A time limit; also where the function raises something else in its clean-up."""
    watched = Watched()
    proxy = Proxy(*options)

    async def slow(items: list[Any]) -> list[Any]:
        try:
            await anyio.sleep(10)
        finally:
            if cleaning:
                raise Boom
        return items

    with no_collector():
        try:
            with anyio.move_on_after(0.01):
                await proxy.map(watched.items(), slow)
        except Boom as error:
            watched.error(error)
        await settle()
        assert watched.left == []


@pytest.mark.anyio
async def test_misuse() -> None:
    """What is wrong from the start."""
    watched = Watched()
    closed = Proxy()
    await closed.aclose()

    def key(item: Any) -> Any:
        raise Boom

    attempts: list[tuple[Proxy, Callable[[], Any], Any, Options]] = [
        (Proxy(), lambda: [[item] for item in watched.items()], raises, {}),
        (Proxy(), lambda: 3, raises, {}),
        (Proxy(), watched.items, "no function", {}),
        (Proxy(), watched.items, raises, {"progress": 3}),
        (Proxy(), watched.items, lambda items: items, {}),
        (Proxy(key=key), watched.items, raises, {}),
        (closed, watched.items, raises, {}),
    ]
    with no_collector():
        for proxy, items, function, options in attempts:
            try:
                await proxy.map(items(), function, **options)
            except Exception as error:
                watched.error(error)
            else:
                pytest.fail("nothing was raised")
        await settle()
        assert watched.left == []


# --- The synchronous proxy ---


def sync_raises(items: list[Any]) -> list[Any]:
    raise Boom


def sync_interrupted(items: list[Any]) -> list[Any]:
    raise KeyboardInterrupt


def sync_exits(items: list[Any]) -> list[Any]:
    raise SystemExit


def sync_too_few(items: list[Any]) -> list[Any]:
    return []


def sync_items_fail(items: list[Any]) -> list[Any]:
    return [caught() for _ in items]


async def async_raises(items: list[Any]) -> list[Any]:
    await checkpoint()
    raise Boom


async def async_interrupted(items: list[Any]) -> list[Any]:
    await checkpoint()
    raise KeyboardInterrupt


async def async_too_few(items: list[Any]) -> list[Any]:
    return []


async def async_items_fail(items: list[Any]) -> list[Any]:
    return [caught() for _ in items]


def later_raises(items: list[Any]) -> Awaitable[list[Any]]:
    return async_raises(items)


def later_interrupted(items: list[Any]) -> Awaitable[list[Any]]:
    return async_interrupted(items)


each_way = pytest.mark.parametrize("options", [(None, None), (1, None), (None, 1), (1, 3)])


def wait_for(condition: Callable[[], bool]) -> None:
    """Threads of the portal let go of what they had a moment after the answer.

    In a free-threaded build what they have made is freed when they wake next, or by the collector.
    So there a cycle is not noticed here: that is left to the other builds.
    """
    for _ in range(2000):
        if condition():
            return
        if FREE_THREADED:
            gc.collect()
        threading.Event().wait(0.001)


def assert_nothing_is_left(watched: Watched) -> None:
    wait_for(lambda: not watched.left)
    assert watched.left == []


@each_way
@pytest.mark.parametrize(
    "function",
    [
        sync_raises,
        sync_interrupted,
        sync_exits,
        sync_too_few,
        sync_items_fail,
        async_raises,
        async_interrupted,
        async_too_few,
        async_items_fail,
        later_raises,
        later_interrupted,
    ],
)
def test_failing_calls_of_the_synchronous_proxy(
    sync_backend: Any, options: tuple[Any, Any], function: Callable[..., Any]
) -> None:
    """In the calling thread, in worker threads and in the event loop."""
    watched = Watched()
    proxy = BatchingMapProxy[Any, Any](*options, backend=sync_backend)
    with no_collector():
        try:
            proxy.map(watched.items(), function)
        except BaseException as error:
            watched.error(error)
        assert_nothing_is_left(watched)


@each_way
@pytest.mark.parametrize(
    "function",
    [sync_raises, sync_too_few, sync_items_fail, async_raises, async_items_fail, later_raises],
)
def test_exceptions_in_the_list_of_the_synchronous_proxy(
    sync_backend: Any, options: tuple[Any, Any], function: Callable[..., Any]
) -> None:
    """When the list is gone."""
    watched = Watched()
    proxy = BatchingMapProxy[Any, Any](*options, backend=sync_backend)
    with no_collector():
        results = proxy.map(watched.items(), function, return_exceptions=True)
        for result in results:
            watched.error(result)
        del results, result
        assert_nothing_is_left(watched)


@each_way
def test_nested_failures_of_the_synchronous_proxy(
    sync_backend: Any, options: tuple[Any, Any]
) -> None:
    """The innermost function fails, or there is a ring."""
    watched = Watched()
    proxy = BatchingMapProxy[Any, Any](*options, backend=sync_backend)

    def outer(items: list[Any]) -> list[Any]:
        return proxy.map([(item, item) for item in items], sync_raises)

    def ring(items: list[Any]) -> list[Any]:
        return proxy.map(items, ring)

    with no_collector():
        for function in (outer, ring):
            try:
                proxy.map(watched.items(), function)
            except Exception as error:
                watched.error(error)
        assert_nothing_is_left(watched)


def test_who_waits_in_another_thread(sync_backend: Any) -> None:
    """Two threads get one exception."""
    watched = Watched()
    proxy = BatchingMapProxy[Any, Any](backend=sync_backend)

    def fetch(items: list[Any]) -> list[Any]:
        wait_for(lambda: proxy.statistics().waiting == 1)
        raise Boom

    def caller() -> None:
        try:
            proxy.map(watched.items(), fetch)
        except Boom as error:
            watched.error(error)

    with no_collector():
        threads = [threading.Thread(target=caller) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert_nothing_is_left(watched)


@pytest.mark.parametrize("options", [(None, 1), (1, 3)])
def test_no_thread_to_be_had(
    sync_backend: Any, options: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker thread that cannot be started."""
    watched = Watched()
    proxy = BatchingMapProxy[Any, Any](*options, backend=sync_backend)
    proxy.map(["the portal is there"], lambda items: items)

    def refuse(*args: object, **kwargs: object) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    with no_collector():
        with pytest.raises(RuntimeError) as raised:
            proxy.map(watched.items(), lambda items: items)
        watched.error(raised.value)
        del raised
        assert_nothing_is_left(watched)


# With a store


METHODS = ["get_many", "set_many", "claim_many", "publish_many"]


def failing_store(method: str) -> Cache[Any]:
    """A cache on a store whose `method` raises."""
    store = PlainStore() if method == "set_many" else MemoryStore()
    store.fail[method] = OSError("unplugged")
    return Cache(store=store, namespace="n")


def keep_watching(watched: Watched, error: StoreError) -> None:
    watched.error(error)
    assert error.__cause__ is not None
    watched.error(error.__cause__)


async def gone(watched: Watched) -> None:
    """Nothing is left, when the threads have let go, too. (As for `wait_for`.)"""

    def freed() -> bool:
        if FREE_THREADED:
            gc.collect()  # the threads of the cache sleep for ten seconds, one after another
        return not watched.left

    await happens(freed)


@pytest.mark.anyio
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [ONE_CALL, IN_TURN, IN_TASKS])
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_a_store_that_fails(
    method: str, options: tuple[int | None, int], return_exceptions: bool
) -> None:
    """Whichever of its methods it is; also for who waits for another's call."""
    watched = Watched()

    async def answers(items: list[Any]) -> list[Any]:
        await settle()
        return [str(item) for item in items]

    async def one(proxy: Proxy) -> None:
        try:
            await proxy.map(watched.items(), answers, return_exceptions=return_exceptions)
        except StoreError as error:
            keep_watching(watched, error)
            failed.append(True)

    failed: list[bool] = []

    async def both() -> None:
        proxy = Proxy(*options, key=str, cache=failing_store(method))
        async with anyio.create_task_group() as group:
            group.start_soon(one, proxy)
            group.start_soon(one, proxy)

    with no_collector():
        await both()
        await gone(watched)
    assert failed  # who only waited may have made the call anew


@pytest.mark.anyio
@pytest.mark.parametrize("max_concurrency", [None, 2])
@pytest.mark.parametrize("method", METHODS)
async def test_a_store_that_fails_a_synchronous_map(
    method: str, max_concurrency: int | None
) -> None:
    """The same."""
    watched = Watched()

    def one() -> None:
        proxy = BatchingMapProxy[Any, Any](1, max_concurrency, key=str, cache=failing_store(method))
        try:
            proxy.map(watched.items(), lambda items: [str(item) for item in items])
        except StoreError as error:
            keep_watching(watched, error)
        else:
            pytest.fail("the store has failed")

    with no_collector():
        one()
        await gone(watched)
