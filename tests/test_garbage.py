"""Nothing is left to the garbage collector: what a map() is made of, event loops, failures.

A cycle on the way of every call would cost the collector as much as the call. A traceback has the
frames that the exception has passed, those the calls, and those their failures: a cycle would keep
prompts and answers.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet, ref

import anyio
import pytest
from anyio.lowlevel import checkpoint
from memory_store import MemoryStore, PlainStore
from store_tools import cache_on
from tools import FREE_THREADED, Thread, happens, naive, never, running_loop, settle, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.testing import AsyncCalls, Calls

# In a free-threaded build what the last call has left to the threads that made it is found, too:
# some eighty objects, however many calls there were.
TIMES = 200 if FREE_THREADED else 50
KEYS = [1, 2, 3]


@contextmanager
def assert_no_garbage() -> Iterator[None]:
    """What happens inside, `TIMES` times, leaves less than one object for each time."""
    for _ in range(3 if FREE_THREADED else 1):  # what threads of earlier tests have left there
        gc.collect()
    gc.disable()
    try:
        yield
        assert gc.collect() < TIMES  # something of the event loop's, perhaps
    finally:
        gc.enable()


async def answer(items: list[Any]) -> list[str]:
    await checkpoint()
    return naive(items)


Attempt = Callable[[], object]


def keeping_nothing(face: Any, *sizes: int | None) -> Any:
    return face(*sizes, cache=Cache(max_size=0))


cold = partial(keeping_nothing, AsyncBatchingMapProxy, None)
sync_cold = partial(keeping_nothing, BatchingMapProxy, 1)


# --- What a map() is made of ---


def mapping(proxy: Any, function: Any) -> Attempt:
    return lambda: proxy.map(KEYS, function)


def nesting(proxy: Any, function: Any) -> Attempt:
    def outer(items: list[Any]) -> Any:
        return proxy.map([f"part of {item}" for item in items], function)

    return mapping(proxy, outer)


def at_once(proxy: Any, more: list[Any], shared: int) -> Attempt:
    async def both() -> None:
        before = proxy.statistics().shared
        async with anyio.create_task_group() as group:
            group.start_soon(proxy.map, KEYS, answer)
            group.start_soon(proxy.map, more, answer)
        assert proxy.statistics().shared == before + shared

    return both


KINDS: dict[str, Callable[[], Attempt]] = {
    "hits": lambda: mapping(AsyncBatchingMapProxy(), answer),
    "a call": lambda: mapping(cold(2), answer),
    "calls in tasks": lambda: mapping(keeping_nothing(AsyncBatchingMapProxy, 1, 2), answer),
    "waiting for a call": lambda: at_once(cold(8), KEYS, shared=len(KEYS)),
    "waiting for a slot": lambda: at_once(cold(1), ["another"], shared=0),
    "nested": lambda: nesting(cold(1), answer),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_async_success(kind: Callable[[], Callable[[], Awaitable[object]]]) -> None:
    """A map() that succeeds, however it comes by its answers, makes no reference cycle."""
    call = kind()
    await call()
    with assert_no_garbage():
        for _ in range(TIMES):
            await call()


def waiting_for_a_thread() -> Attempt:
    proxy = sync_cold()

    def both() -> None:
        calls = Calls(gated=True)
        owner = Thread(proxy.map, [1], calls)
        calls.wait_begun()
        waiter = Thread(proxy.map, [1], never).until(lambda: proxy.statistics().waiting)
        calls.open()
        assert owner.outcome() == waiter.outcome() == ["1"]

    return both


SYNC_KINDS: dict[str, Callable[[], Attempt]] = {
    "hits": lambda: mapping(BatchingMapProxy(), naive),
    "calls": lambda: mapping(sync_cold(), naive),
    "calls in workers": lambda: mapping(sync_cold(2), naive),
    "nested": lambda: nesting(sync_cold(), naive),
    "nested in workers": lambda: nesting(sync_cold(2), naive),
    "waiting for a thread": waiting_for_a_thread,
}


@pytest.mark.parametrize("kind", SYNC_KINDS.values(), ids=SYNC_KINDS)
def test_sync_success(kind: Callable[[], Attempt]) -> None:
    """The same for the synchronous proxy."""
    call = kind()
    call()
    with assert_no_garbage():
        for _ in range(TIMES):
            call()


# --- Event loops ---


Proxy = AsyncBatchingMapProxy[Any, Any]


async def succeeding(proxy: Proxy, cache: Cache[Any]) -> None:
    async with anyio.create_task_group() as group:
        for start in range(4):
            group.start_soon(proxy.map, range(start, start + 6), answer)


async def failing(proxy: Proxy, cache: Cache[Any]) -> None:
    calls = AsyncCalls()
    calls.fail(1, ValueError())
    with pytest.raises(ValueError):  # noqa: PT011 - it is the only one
        await proxy.map(range(6), calls)


async def cancelled(proxy: Proxy, cache: Cache[Any]) -> None:
    async with anyio.create_task_group() as group:
        for start in range(4):
            group.start_soon(proxy.map, range(start, start + 6), AsyncCalls(gated=True))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def blocked(proxy: Proxy, cache: Cache[Any]) -> None:
    synchronous = BatchingMapProxy[Any, str](2, cache=cache)
    assert synchronous.map(range(6), naive) == naive(range(6))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("use", [succeeding, failing, cancelled, blocked])
def test_no_loop_is_kept_alive(
    backend: str, use: Callable[[Proxy, Cache[Any]], Awaitable[None]]
) -> None:
    """Of an event loop that has ended nothing stays, whatever the proxy was used for in it."""
    cache = Cache[Any]()
    proxy = Proxy(2, 2, cache=cache)
    loops: WeakSet[Any] = WeakSet()

    async def main() -> None:
        loops.add(running_loop())
        await use(proxy, cache)

    for _ in range(3):
        anyio.run(main, backend=backend)
        anyio.run(proxy.clear, backend=backend)
    gc.collect()
    assert not loops


# --- Failures ---


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
        if isinstance(error, StoreError):
            assert error.__cause__ is not None
            self.error(error.__cause__)

    def gone(self) -> bool:
        """Whether nothing is left.

        In a free-threaded build what threads have made is freed when they wake next, or by the
        collector. So there a cycle is not noticed here: that is left to the other builds.
        """
        if FREE_THREADED:
            gc.collect()
        return not any(each() is not None for each in self._refs)


@pytest.fixture
def watched() -> Iterator[Watched]:
    """No collector runs meanwhile."""
    gc.disable()
    try:
        yield Watched()
    finally:
        gc.enable()


def boom(*_: object) -> Any:
    raise Boom


def caught() -> Exception:
    try:
        raise Boom
    except Boom as error:
        return error


def broken_answer() -> Any:
    return type("Answer", (), {"__len__": len, "__getitem__": boom, "__iter__": boom})()


def raising(kind: type[BaseException]) -> Callable[[list[Any]], Any]:
    def fail(items: list[Any]) -> Any:
        raise kind

    return fail


# What a function does wrong.
WRONG: dict[str, Callable[[list[Any]], Any]] = {
    "raises": boom,
    "interrupts": raising(KeyboardInterrupt),
    "exits": raising(SystemExit),
    "answers too few": lambda items: [],
    "does not answer": lambda items: None,
    "answers what breaks": lambda items: broken_answer(),
    "answers with failures": lambda items: [caught() for _ in items],
}


def in_a_task(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Awaitable[Any]]:
    async def fetch(items: list[Any]) -> Any:
        await checkpoint()
        return function(items)

    return fetch


raises = in_a_task(boom)


def fails(function: Any, proxy: Any, watched: Watched) -> Any:
    return proxy.map(watched.items(), function)


async def fails_in_the_list(function: Any, proxy: Proxy, watched: Watched) -> None:
    for result in await proxy.map(watched.items(), function, return_exceptions=True):
        watched.error(result)
    del result


async def waits(proxy: Proxy, watched: Watched) -> None:
    """The owner and two who wait get one exception."""
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(noted, partial(fails, raises), proxy, watched)


async def nests(proxy: Proxy, watched: Watched) -> None:
    """The exception of the innermost function passes several map() calls."""

    async def outer(items: list[Any]) -> list[Any]:
        return await proxy.map([(item, item) for item in items], raises)

    await proxy.map(watched.items(), outer)


async def asks_for_itself(proxy: Proxy, watched: Watched) -> None:
    """A function lets the CircularWaitError of its own map() through."""

    async def fetch(items: list[Any]) -> list[Any]:
        return await proxy.map(items, fetch)

    await proxy.map(watched.items(), fetch)


async def waits_in_a_ring(proxy: Proxy, watched: Watched) -> None:
    """Through the call of another task."""
    under_way = anyio.Event()

    async def fetch(items: list[Any]) -> list[Any]:
        group.start_soon(noted, partial(other, items), proxy, watched)
        await under_way.wait()
        return await proxy.map(["other"], fetch)

    async def other(items: list[Any], *_: object) -> None:
        async def ask(others: list[Any]) -> list[Any]:
            under_way.set()
            return await proxy.map(items, fetch)

        await proxy.map(["other"], ask)

    async with anyio.create_task_group() as group:
        await noted(partial(fails, fetch), proxy, watched)


async def is_cancelled(cleaning: bool, proxy: Proxy, watched: Watched) -> None:
    """A time limit; also where the function raises something else in its clean-up."""

    async def slow(items: list[Any]) -> list[Any]:
        try:
            await anyio.sleep(10)
        finally:
            if cleaning:
                raise Boom
        return items

    with anyio.move_on_after(0.01):
        await proxy.map(watched.items(), slow)


async def noted(attempt: Any, proxy: Any, watched: Watched) -> None:
    try:
        await attempt(proxy, watched)
    except BaseException as error:
        watched.error(error)


ATTEMPTS = {
    **{name: partial(fails, in_a_task(function)) for name, function in WRONG.items()},
    "raises at once": partial(fails, boom),
    **{
        f"{name}, in the list": partial(fails_in_the_list, in_a_task(WRONG[name]))
        for name in ("raises", "answers too few", "answers with failures")
    },
    "raises at once, in the list": partial(fails_in_the_list, boom),
    "waits for a failing call": waits,
    "nests": nests,
    "asks for itself": asks_for_itself,
    "waits in a ring": waits_in_a_ring,
    "is cancelled": partial(is_cancelled, False),
    "is cancelled, and fails in its clean-up": partial(is_cancelled, True),
}
each_size = pytest.mark.parametrize("sizes", [(None, 8), (1, 1), (1, 3)])


@each_size
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_failures(watched: Watched, sizes: tuple[Any, Any], attempt: Any) -> None:
    """Neither exceptions nor items of a map() that fails are left."""
    proxy = Proxy(*sizes)
    await noted(attempt, proxy, watched)
    await settle()
    assert watched.gone()


async def test_misuse(watched: Watched) -> None:
    """What is wrong from the start."""
    closed = Proxy()
    await closed.aclose()
    attempts: list[tuple[Proxy, Callable[[], Any], Any, dict[str, Any]]] = [
        (Proxy(), lambda: [[item] for item in watched.items()], raises, {}),
        (Proxy(), lambda: 3, raises, {}),
        (Proxy(), watched.items, "no function", {}),
        (Proxy(), watched.items, raises, {"progress": 3}),
        (Proxy(), watched.items, lambda items: items, {}),
        (Proxy(key=boom), watched.items, raises, {}),
        (closed, watched.items, raises, {}),
    ]
    for proxy, items, function, options in attempts:
        try:
            await proxy.map(items(), function, **options)
        except Exception as error:
            watched.error(error)
        else:
            pytest.fail("nothing was raised")
    await settle()
    assert watched.gone()


# --- Failures of the synchronous proxy ---

SyncProxy = BatchingMapProxy[Any, Any]


def sync_fails_in_the_list(function: Any, proxy: SyncProxy, watched: Watched) -> None:
    for result in proxy.map(watched.items(), function, return_exceptions=True):
        watched.error(result)
    del result


def sync_nests(proxy: SyncProxy, watched: Watched) -> None:
    def outer(items: list[Any]) -> list[Any]:
        return proxy.map([(item, item) for item in items], boom)

    proxy.map(watched.items(), outer)


def sync_asks_for_itself(proxy: SyncProxy, watched: Watched) -> None:
    def ring(items: list[Any]) -> list[Any]:
        return proxy.map(items, ring)

    proxy.map(watched.items(), ring)


def sync_noted(attempt: Any, proxy: SyncProxy, watched: Watched) -> None:
    try:
        attempt(proxy, watched)
    except BaseException as error:
        watched.error(error)


SYNC_ATTEMPTS = {
    **{name: partial(fails, function) for name, function in WRONG.items()},
    "is asynchronous": partial(fails, raises),
    "is asynchronous, in the list": partial(sync_fails_in_the_list, raises),
    "answers with what is to be awaited": partial(fails, lambda items: raises(items)),
    **{
        f"{name}, in the list": partial(sync_fails_in_the_list, WRONG[name])
        for name in ("raises", "answers too few", "answers with failures")
    },
    "nests": sync_nests,
    "asks for itself": sync_asks_for_itself,
}
sync_sizes = pytest.mark.parametrize("sizes", [(None, None), (1, None), (None, 1), (1, 3)])


@sync_sizes
@pytest.mark.parametrize("attempt", SYNC_ATTEMPTS.values(), ids=SYNC_ATTEMPTS)
def test_failures_of_the_synchronous_proxy(
    watched: Watched, sync_backend: Any, sizes: tuple[Any, Any], attempt: Any
) -> None:
    """The same; threads let go of what they had a moment after the answer."""
    sync_noted(attempt, SyncProxy(*sizes, backend=sync_backend), watched)
    until(watched.gone)


def test_who_waits_in_another_thread(watched: Watched, sync_backend: Any) -> None:
    """Two threads get one exception."""
    proxy = SyncProxy(backend=sync_backend)

    def fetch(items: list[Any]) -> list[Any]:
        until(lambda: proxy.statistics().waiting)
        raise Boom

    for thread in [Thread(sync_noted, partial(fails, fetch), proxy, watched) for _ in range(2)]:
        thread.outcome()
    until(watched.gone)


@pytest.mark.parametrize("sizes", [(None, 1), (1, 3)])
def test_no_thread_to_be_had(
    watched: Watched, sync_backend: Any, sizes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker thread that cannot be started."""
    proxy = SyncProxy(*sizes, backend=sync_backend)
    proxy.map(["the portal is there"], naive)

    def refuse(*args: object, **kwargs: object) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    sync_noted(partial(fails, never), proxy, watched)
    until(watched.gone)


# --- Failures of a store ---

METHODS = ["get_many", "set_many", "claim_many", "publish_many"]


def failing_store(method: str) -> Cache[Any]:
    """A cache on a store whose `method` raises."""
    store = PlainStore() if method == "set_many" else MemoryStore()
    store.fail[method] = OSError("unplugged")
    return cache_on(store)


@each_size
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_a_store_that_fails(
    watched: Watched, method: str, sizes: tuple[Any, Any], return_exceptions: bool
) -> None:
    """Whichever of its methods it is; also for who waits for another's call."""
    failed: list[bool] = []

    async def answers(items: list[Any]) -> list[Any]:
        await settle()
        return naive(items)

    async def one(proxy: Proxy) -> None:
        try:
            await proxy.map(watched.items(), answers, return_exceptions=return_exceptions)
        except StoreError as error:
            watched.error(error)
            failed.append(True)

    async def both() -> None:
        proxy = Proxy(*sizes, key=str, cache=failing_store(method))
        async with anyio.create_task_group() as group:
            group.start_soon(one, proxy)
            group.start_soon(one, proxy)

    await both()
    await happens(watched.gone)
    assert failed  # who only waited may have made the call anew


@pytest.mark.parametrize("max_concurrency", [None, 2])
@pytest.mark.parametrize("method", [*METHODS, "delete_many"])
def test_a_store_that_fails_a_synchronous_map(
    watched: Watched, method: str, max_concurrency: int | None
) -> None:
    """The same."""

    def one() -> None:
        proxy = SyncProxy(1, max_concurrency, key=str, cache=failing_store(method))
        try:
            proxy.map(watched.items(), naive)
            proxy.clear()
        except StoreError as error:
            watched.error(error)
        else:
            pytest.fail("the store has failed")

    one()
    until(watched.gone)


# --- Results that a store refuses ---


def refused_answers(watched: Watched) -> Callable[[list[Any]], list[Any]]:
    """Gives text that no store keeps, since it is of a class of its own, but for one."""
    return lambda items: ["plain", *watched.items(len(items) - 1)]


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("on", [MemoryStore, PlainStore, partial(failing_store, "publish_many")])
async def test_results_that_a_store_refuses(
    watched: Watched, on: Callable[[], Any], return_exceptions: bool
) -> None:
    """Neither they nor their failures are left, also where the store fails besides."""

    async def one() -> None:
        made = on()
        proxy = Proxy(key=str, cache=made if isinstance(made, Cache) else cache_on(made))
        answers = in_a_task(refused_answers(watched))
        options = {"return_exceptions": return_exceptions}
        for result in await proxy.map(watched.items(), answers, **options):
            if isinstance(result, Exception):
                watched.error(result)

    await noted(lambda *_: one(), None, watched)
    await happens(watched.gone)


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_results_that_a_store_refuses_a_synchronous_map(
    watched: Watched, return_exceptions: bool
) -> None:
    """The same; and what is primed."""

    def one(*_: object) -> None:
        proxy = SyncProxy(key=str, cache=cache_on(MemoryStore()))
        options = {"return_exceptions": return_exceptions}
        for result in proxy.map(watched.items(), refused_answers(watched), **options):
            if isinstance(result, Exception):
                watched.error(result)

    def primed(*_: object) -> None:
        cache_on(MemoryStore()).prime(dict(enumerate(watched.items())))

    for attempt in (one, primed):
        sync_noted(attempt, SyncProxy(), watched)
    until(watched.gone)
