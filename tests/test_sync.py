"""Point 14 of the contract, the sync face, and 13 where threads and loops meet it.

Ctrl-C, exit and fork need processes of their own: see test_processes.
"""

import asyncio
import concurrent.futures
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from process_tools import run
from tools import (
    Backend,
    Interrupt,
    Thread,
    both,
    contexts,
    each_way,
    modes,
    naive,
    never,
    settle,
    until,
)

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    PortalError,
)
from batchproxy.testing import AsyncCalls, Calls, assert_idle, look


class Located(Calls):
    """`Calls` that also record the threads that they ran in."""

    def __init__(self, *, gated: bool = False) -> None:
        super().__init__(gated=gated)
        self.threads: list[int] = []

    def __call__(self, items: list[Any]) -> list[str]:
        self.threads.append(threading.get_ident())
        return super().__call__(items)


def raising(errors: dict[Any, BaseException]) -> Callable[[Any], str]:
    """Answers as `str` does, but for items that there is an error for."""

    def answer(item: Any) -> str:
        if item in errors:
            raise errors[item]
        return str(item)

    return answer


def portal_of(backend: Backend) -> threading.Thread:
    """The thread of the portal."""
    [thread] = [
        each for each in threading.enumerate() if each.name == f"batchproxy portal ({backend})"
    ]
    return thread


# --- In the calling thread ---


@both
def test_reference_behaviour(backend: Backend) -> None:
    """Batches of distinct items, one after another, in the calling thread; then only hits."""
    proxy = BatchingMapProxy[int, str](batch_size=3, backend=backend)
    calls = Located()
    assert proxy.map([1, 2, 2, 3, 4, 4, 5], calls) == ["1", "2", "2", "3", "4", "4", "5"]
    assert proxy.map([5, 4, 3, 2, 1], calls) == ["5", "4", "3", "2", "1"]
    assert calls.batches == [[1, 2, 3], [4, 5]]
    assert calls.threads == [threading.get_ident()] * 2
    assert proxy.max_concurrency is None
    assert_idle(proxy)


@both
def test_calling_threads_do_not_hold_each_other_up(backend: Backend) -> None:
    """The functions of different calling threads run at the same time, each in its own thread."""
    proxy = BatchingMapProxy[int, int](backend=backend)
    barrier = threading.Barrier(4, timeout=30)

    def meet(items: list[int]) -> list[int]:
        barrier.wait()  # passes only if all four are in here at once
        return [threading.get_ident()] * len(items)

    callers = [Thread(proxy.map, [number], meet) for number in range(4)]
    assert [caller.outcome() for caller in callers] == [[caller.ident] for caller in callers]


# --- In worker threads ---


@both
def test_workers_of_one_map_run_at_once_and_answer_in_order(backend: Backend) -> None:
    """The batches of one map() overlap, and whichever ends first, answers are in order."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency=2, backend=backend)
    calls = Calls(gated=True)
    caller = Thread(proxy.map, [1, 2, 3, 4, 1], calls)
    calls.wait_begun(2)
    calls.finish(calls.batches.index([3, 4]))
    until(lambda: proxy.statistics().in_flight == 2)
    calls.open()
    assert caller.outcome() == ["1", "2", "3", "4", "1"]


# --- Threads together ---


@pytest.mark.needs_trio
@modes
def test_portals_of_both_backends_share_work(max_concurrency: int | None) -> None:
    """Proxies with different backends on one Cache wait for each other's calls."""
    cache = Cache[str]()
    owner = BatchingMapProxy[int, str](None, max_concurrency, cache=cache)
    waiter = BatchingMapProxy[int, str](None, max_concurrency, cache=cache, backend="trio")
    for first, second, key in ((owner, waiter, 1), (waiter, owner, 2)):
        calls = Calls(gated=True)
        owning = Thread(first.map, [key], calls)
        until(lambda: calls.running)  # noqa: B023 - called before the next round
        waiting = Thread(second.map, [key], never).until(lambda: look(cache).waiting)
        calls.open()
        assert owning.outcome() == waiting.outcome() == [str(key)]
    assert_idle(owner, waiter)


@each_way
def test_twenty_threads_share_one_failure(options: Any) -> None:
    """Twenty callers of one failing key cost one call, and all get that very exception."""
    proxy = BatchingMapProxy[int, str](None, **options)
    boom = ValueError("boom")
    calls = Calls(raising({1: boom}), gated=True)
    callers = [Thread(proxy.map, [1], calls) for _ in range(20)]
    until(lambda: proxy.statistics().waiting == 19)
    calls.open()
    assert [caller.outcome() for caller in callers] == [boom] * 20
    assert calls.batches == [[1]]
    assert_idle(proxy)
    assert proxy.map([1], Calls()) == ["1"]


# --- Exceptions ---


def frames(trace: TracebackType | None) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(trace)]


@each_way
@pytest.mark.parametrize("kind", ["def", "async def", "wrapper"])
def test_exceptions_arrive_as_they_are(options: Any, kind: str) -> None:
    """The caller gets the object that was raised, with the traceback that leads to where."""
    proxy = BatchingMapProxy[int, str](1, **options)
    boom = ValueError("boom")

    def helper() -> None:
        raise boom

    def fail(items: list[int]) -> list[str]:
        helper()
        return naive(items)

    async def fail_later(items: list[int]) -> list[str]:
        await checkpoint()
        return fail(items)

    functions: dict[str, Any] = {
        "def": fail,
        "async def": fail_later,
        "wrapper": lambda items: fail_later(items),
    }
    assert proxy.map([1], Calls()) == ["1"]
    with pytest.raises(ValueError, match="boom") as caught:
        proxy.map([1, 2], functions[kind])
    assert caught.value is boom
    assert boom.__context__ is boom.__cause__ is None
    names = frames(boom.__traceback__)
    assert names[0] == "test_exceptions_arrive_as_they_are"
    assert names[-2:] == ["fail", "helper"]
    assert names.count("map") == 1
    assert proxy.map([1, 2], again := Calls()) == ["1", "2"]
    assert again.batches == [[2]]  # what had finished stays
    assert proxy.statistics().failed == 1
    assert_idle(proxy)


@each_way
@pytest.mark.parametrize("kind", [ValueError, Interrupt])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ask", ["map", "load", "stream"])
def test_exceptions_arrive_in_their_own_context(
    options: Any, kind: type[BaseException], asynchronous: bool, ask: str
) -> None:
    """It is what the call left, whatever the caller is handling."""
    proxy = BatchingMapProxy[int, str](**options)

    def fail(items: list[int]) -> list[str]:
        try:
            raise KeyError("cause")
        except KeyError:
            raise kind from None

    async def fail_later(items: list[int]) -> list[str]:
        return fail(items)

    users = proxy.bind(fail_later if asynchronous else fail)
    asks: dict[str, Callable[[], object]] = {
        "map": lambda: users.map([1]),
        "load": lambda: users.load(1),
        "stream": lambda: next(iter(stream)),
    }
    try:
        raise RuntimeError("what the caller is handling")
    except RuntimeError:
        with users.stream([1]) as stream, pytest.raises(kind) as raised:
            asks[ask]()
    assert contexts(raised.value) == ["'cause'"]
    assert_idle(proxy)


class Custom(BaseException):
    """Of no known kind."""


KINDS: list[type[BaseException]] = [
    KeyError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopAsyncIteration,
    Custom,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
]


@each_way
@pytest.mark.parametrize(
    ("recorder", "kind"),
    [(Calls, StopIteration), *((each, kind) for each in (Calls, AsyncCalls) for kind in KINDS)],
    ids=lambda each: f"{each.__module__}.{each.__name__}",
)
def test_whatever_the_function_raises_harms_nobody(
    options: Any, recorder: Any, kind: type[BaseException]
) -> None:
    """An exception that could kill a thread or a loop reaches its caller, and nobody else."""
    proxy = BatchingMapProxy[int, str](1, **options)
    error = kind("raised by the function")
    with bystander_in(options["backend"]):
        for items, keep in (([1], False), ([1, 2], not issubclass(kind, Exception))):
            with pytest.raises(kind) as caught:
                proxy.map(items, recorder(raising({1: error})), return_exceptions=keep)
            assert caught.value is error
        assert_idle(proxy)
        assert proxy.map([1], Calls()) == ["1"]
    assert_idle(proxy)


@pytest.mark.needs_trio
def test_an_old_cancellation_of_trio_harms_nobody() -> None:
    """Nor does one that a function has kept from a scope of its own, and raises later."""
    import trio

    kept: list[BaseException] = []

    async def fetch(items: list[int]) -> list[str]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except BaseException as error:
                kept.append(error)
                raise
        raise kept[0]

    with bystander_in("trio"):
        with pytest.raises(trio.Cancelled) as caught:
            map_in_portal("trio", fetch)
        assert caught.value is kept[0]


def test_a_function_that_cancels_the_task_it_runs_in() -> None:
    """Its caller gets a PortalError, which says that this may have happened."""

    async def fetch(items: list[int]) -> list[str]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await checkpoint()
        raise AssertionError("it was cancelled")

    with bystander_in("asyncio"), pytest.raises(PortalError, match="has cancelled its own task"):
        map_in_portal("asyncio", fetch)


@contextmanager
def bystander_in(backend: Backend) -> Iterator[None]:
    """Somebody's call in the portal of `backend`; at the end it, and the portal, are as before."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    calls = Calls(gated=True)
    bystander = Thread(proxy.map, [10], calls).until(lambda: calls.running)
    portal = portal_of(backend)
    yield
    calls.open()
    assert bystander.outcome() == ["10"]
    assert proxy.map([1], Calls()) == ["1"]
    assert portal_of(backend) is portal
    assert portal.is_alive()
    assert_idle(proxy)


def map_in_portal(backend: Backend, function: Any) -> None:
    """Map with an asynchronous `function`, which must leave nothing behind."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    try:
        proxy.map([1, 2, 3], function)
    finally:
        assert_idle(proxy)


@each_way
def test_waiters_take_over_after_a_base_exception(options: Any) -> None:
    """A call that ends with SystemExit is given up: of two waiters one makes it, both get it."""
    proxy = BatchingMapProxy[int, str](None, **options)
    error = SystemExit("enough")
    calls = Calls(raising({1: error}), gated=True)
    owner = Thread(proxy.map, [1], calls).until(lambda: calls.running)
    others = Calls()
    waiters = [Thread(proxy.map, [1], others) for _ in range(2)]
    until(lambda: proxy.statistics().waiting == 2)
    calls.open()
    assert owner.outcome() is error
    assert [waiter.outcome() for waiter in waiters] == [["1"], ["1"]]
    assert others.batches == [[1]]
    assert_idle(proxy)


@both
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_workers_still_running_are_waited_for(backend: Backend, kind: type[BaseException]) -> None:
    """After a failure map() waits for its other running calls, keeps them, and begins no more."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency=3, backend=backend)
    calls, boom = Calls(gated=True), kind("boom")
    caller = Thread(proxy.map, [1, 2, 3, 4, 5], calls)
    calls.wait_begun(3)
    calls.fail(calls.batches.index([1]), boom)
    until(lambda: proxy.statistics().in_flight == 2)
    assert caller.is_alive()
    calls.open()
    assert caller.outcome() is boom
    assert sorted(calls.batches) == [[1], [2], [3]]
    assert proxy.map([1, 2, 3, 4, 5], rest := Calls()) == ["1", "2", "3", "4", "5"]
    assert sorted(rest.keys) == [1, 4, 5]
    assert_idle(proxy)


@both
def test_a_failure_in_the_calling_thread_ends_the_map(backend: Backend) -> None:
    """Batches before the failing one stay cached; those after it are not called."""
    proxy = BatchingMapProxy[int, str](1, backend=backend)
    boom = ValueError("boom")
    calls = Calls(raising({2: boom}))
    with pytest.raises(ValueError, match="boom"):
        proxy.map([1, 2, 3], calls)
    assert calls.batches == [[1], [2]]
    assert proxy.map([1, 2, 3], again := Calls()) == ["1", "2", "3"]
    assert again.batches == [[2], [3]]


@each_way
@pytest.mark.parametrize("recorder", [Calls, AsyncCalls])
def test_return_exceptions(options: Any, recorder: type[Calls | AsyncCalls]) -> None:
    """Every batch is called, and failed items hold their exception, which is not cached."""
    proxy = BatchingMapProxy[int, str](2, **options)
    boom, alone = ValueError("boom"), KeyError("in an answer")
    stop = StopIteration("stop") if recorder is Calls else StopAsyncIteration("stop")
    answer = raising({1: boom, 5: stop})
    calls: Any = recorder(lambda item: alone if item == 4 else answer(item))
    answers = proxy.map(range(1, 8), calls, return_exceptions=True)
    assert answers == [boom, boom, "3", alone, stop, stop, "7"]
    assert len(calls.batches) == 4
    assert proxy.map(range(1, 8), again := Calls()) == naive(range(1, 8))
    assert sorted(again.keys) == [1, 2, 4, 5, 6]


@both
def test_a_worker_thread_that_cannot_start(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system refuses a thread, the caller is told so; nobody else is harmed."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency=1, backend=backend)
    refused = RuntimeError("can't start new thread")

    async def refuse(*args: object, **options: object) -> None:
        raise refused

    with bystander_in(backend):
        with monkeypatch.context() as context:
            context.setattr(anyio.to_thread, "run_sync", refuse)
            outcome = Thread(proxy.map, [1], never).outcome()
        assert type(outcome) is PortalError
        assert outcome.__cause__ is refused
    assert proxy.map([1], Calls()) == ["1"]
    assert_idle(proxy)


# --- Nested, and in a ring ---


@each_way
def test_nested_maps_with_every_slot_taken(options: Any) -> None:
    """Calls that fill all slots may each map() again, three deep, on the same proxy."""
    proxy = BatchingMapProxy[tuple[str, int], str](1, **options)
    barrier = threading.Barrier(2, timeout=30)

    def nest(items: list[tuple[str, int]]) -> list[str]:
        [(name, depth)] = items
        if depth == 3:
            return [name]
        if depth == 0:
            barrier.wait()  # every slot is taken
        return [f"{depth}{''.join(proxy.map([(name, depth + 1), (name, 3)], nest))}"]

    callers = [Thread(proxy.map, [(name, 0)], nest) for name in "ab"]
    assert [caller.outcome() for caller in callers] == [["012aaaa"], ["012bbbb"]]
    assert_idle(proxy)


@both
def test_nested_calls_use_no_slot_of_their_own(backend: Backend) -> None:
    """A nested map() of several batches takes turns in the one slot of its parent."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency=2, backend=backend)
    inner = Calls()

    def outer(items: list[int]) -> list[str]:
        return ["".join(proxy.map([1, 2, 3, 4], inner))]

    assert proxy.map([0], outer) == ["1234"]
    assert inner.most_running == 1
    assert_idle(proxy)


@each_way
@pytest.mark.parametrize("proxies", [1, 2])
@pytest.mark.parametrize("more", [[], ["more"]], ids=["seen at the start", "seen before sleeping"])
def test_two_threads_in_a_ring(options: Any, proxies: int, more: list[str]) -> None:
    """Two calls that nest each other's keys: one raises, naming the key, and both can end.

    With something more to compute, both have begun their nested map() before either has to wait.
    """
    first, second = [BatchingMapProxy[str, str](None, **options) for _ in range(2)]
    if proxies == 1:
        second = first
    both_in, both_begun = (threading.Barrier(2, timeout=30) for _ in range(2))
    refused: list[str] = []

    def begin(items: list[str]) -> list[str]:
        both_begun.wait()
        return items

    def ask(other: BatchingMapProxy[str, str], key: str, items: list[str]) -> list[str]:
        both_in.wait()
        try:
            answers = other.map([*(items[0] + name for name in more), key], begin)
            return [f"with {answers[-1]}"]
        except CircularWaitError as error:
            refused.append(str(error))
            return ["alone"]

    a = Thread(first.map, ["a"], partial(ask, second, "b"))
    b = Thread(second.map, ["b"], partial(ask, first, "a"))
    outcomes = (a.outcome(), b.outcome())
    assert outcomes in [(["alone"], ["with alone"]), (["with alone"], ["alone"])]
    assert len(refused) == 1
    assert ("'b'" if outcomes[0] == ["alone"] else "'a'") in refused[0]
    assert_idle(first, second)


# --- Inside a running event loop ---

loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@loops
@each_way
def test_inside_the_loop_that_computes_the_key(options: Any, loop: str) -> None:
    """Where a task of the loop that map() blocks computes a key, it raises at once."""
    cache = Cache[str]()
    asynchronous = AsyncBatchingMapProxy[int, str](cache=cache)
    synchronous = BatchingMapProxy[int, str](1, cache=cache, **options)
    calls = AsyncCalls(gated=True)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(asynchronous.map, [1], calls)
            await settle()
            for function in (never, AsyncCalls(never)):
                with pytest.raises(CircularWaitError, match="1 is being computed"):
                    synchronous.map([0, 1], function)
            assert synchronous.map([2], Calls()) == ["2"]
            calls.open()
        assert synchronous.map([1], never) == ["1"]

    anyio.run(main, backend=loop)
    assert_idle(asynchronous, synchronous)


@both
def test_inside_a_bare_callback_of_the_loop_that_computes_the_key(backend: Backend) -> None:
    """A callback that asyncio calls outside of any task blocks its loop no less."""
    cache = Cache[str]()
    asynchronous = AsyncBatchingMapProxy[int, str](cache=cache)
    synchronous = BatchingMapProxy[int, str](cache=cache, backend=backend)
    calls = AsyncCalls(gated=True)
    outcomes: list[object] = []

    def callback() -> None:
        outcomes.append(synchronous.map([2], Calls()))
        try:
            synchronous.map([1], never)
        except CircularWaitError as error:
            outcomes.append(type(error))

    async def main() -> None:
        task = asyncio.create_task(asynchronous.map([1], calls))
        await settle()
        asyncio.get_running_loop().call_soon(callback)
        await settle()
        calls.open()
        assert await task == ["1"]

    asyncio.run(main())
    assert outcomes == [["2"], CircularWaitError]


@both
@loops
def test_a_ring_through_the_loop_and_another_thread(backend: Backend, loop: str) -> None:
    """Blocking a loop for a thread whose call waits for a task of that loop raises, too."""
    cache = Cache[str]()
    asynchronous = AsyncBatchingMapProxy[str, str](cache=cache)
    synchronous = BatchingMapProxy[str, str](backend=backend)
    within = BatchingMapProxy[str, str](cache=cache, backend=backend)
    calls = AsyncCalls(gated=True)

    def wait_for_the_task(items: list[str]) -> list[str]:
        return within.map(["task"], never)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(asynchronous.map, ["task"], calls)
            await settle()
            thread = Thread(synchronous.map, ["thread"], wait_for_the_task)
            until(lambda: asynchronous.statistics().waiting)
            with pytest.raises(CircularWaitError, match="'thread'"):
                synchronous.map(["thread"], never)
            calls.open()
            assert await anyio.to_thread.run_sync(thread.outcome) == ["task"]

    anyio.run(main, backend=loop)
    assert_idle(asynchronous, synchronous)


@both
@loops
def test_a_loop_blocked_while_the_key_is_computed_elsewhere(backend: Backend, loop: str) -> None:
    """Inside a loop, map() waits for a call of another thread, and gets its answer."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    calls = Calls(gated=True)
    owner = Thread(proxy.map, [1], calls).until(lambda: calls.running)

    def release() -> None:
        until(lambda: proxy.statistics().waiting)
        calls.open()

    async def main() -> list[str]:
        Thread(release)
        return proxy.map([1], never)

    assert anyio.run(main, backend=loop) == owner.outcome() == ["1"]


@both
@loops
def test_worker_threads_of_an_event_loop(backend: Backend, loop: str) -> None:
    """A to_thread worker of somebody's loop may map(), and its function may call that loop."""
    proxy = BatchingMapProxy[int, str](backend=backend)

    async def answer(items: list[int]) -> list[str]:
        return naive(items)

    def in_worker() -> list[str]:
        return proxy.map([1, 2], lambda items: anyio.from_thread.run(answer, items))

    async def main() -> list[str]:
        return await anyio.to_thread.run_sync(in_worker)

    assert anyio.run(main, backend=loop) == ["1", "2"]


# --- Hits, the portal, closing ---

_ONLY_HITS = """
import threading
from batchproxy import BatchingMapProxy, Cache
cache = Cache()
cache.prime({1: "1", 2: "2"})
for max_concurrency in (None, 2):
    proxy = BatchingMapProxy(1, max_concurrency, cache=cache)
    assert proxy.map([2, 1, 2], None) == ["2", "1", "2"]
    assert proxy.map([], None) == []
    proxy.close()
assert threading.active_count() == 1
print("no portal")
BatchingMapProxy().map([1], lambda items: items)
assert [each.name for each in threading.enumerate()][1:] == ["batchproxy portal (asyncio)"]
"""


def test_hits_start_no_portal() -> None:
    """In a new process, map() of known items starts no thread and no event loop."""
    assert run(_ONLY_HITS) == "no portal\n"


class InPortal(dict[Any, str]):
    """A mapping that does something whenever the portal looks into it."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self._do = do

    def get(self, key: Any, default: Any = None) -> Any:
        if "portal" in threading.current_thread().name:
            self._do()
        return super().get(key, default)


@each_way
def test_closing(options: Any) -> None:
    """Leaving the block closes: a map() under way ends, no other begins. Twice is fine."""
    cache = Cache[str]()
    other = BatchingMapProxy[int, str](cache=cache, **options)
    calls = Calls(gated=True)
    with BatchingMapProxy[int, str](1, cache=cache, **options) as proxy:
        caller = Thread(proxy.map, [1, 2, 3], calls).until(lambda: calls.running)
    with pytest.raises(RuntimeError, match="closed"):
        proxy.map([4], never)
    proxy.close()
    calls.open()
    assert caller.outcome() == ["1", "2", "3"]
    with pytest.raises(RuntimeError, match="closed"):  # also what is known
        proxy.map([1], never)
    assert other.map([1, 2, 3, 4], rest := Calls()) == ["1", "2", "3", "4"]
    assert rest.batches == [[4]]


@both
def test_clear_while_a_call_is_under_way(backend: Backend) -> None:
    """Who waits gets the answer of the call; who comes after clear() does not."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    calls = Calls(gated=True)
    owner = Thread(proxy.map, [1], calls).until(lambda: calls.running)
    waiter = Thread(proxy.map, [1], never).until(lambda: proxy.statistics().waiting)
    proxy.clear()
    assert proxy.map([1], lambda items: ["newer"]) == ["newer"]
    calls.open()
    assert owner.outcome() == waiter.outcome() == ["1"]
    assert proxy.map([1], never) == ["newer"]


@both
def test_inside_the_portal_itself(backend: Backend) -> None:
    """A mapping that calls map() in the portal's thread gets an error instead of a deadlock."""
    inner = BatchingMapProxy[int, str](backend=backend)
    errors: list[PortalError] = []

    def map_in_there() -> None:
        try:
            inner.map([1], never)
        except PortalError as error:
            errors.append(error)

    proxy = BatchingMapProxy[int, str](cache=InPortal(map_in_there), backend=backend)
    assert Thread(proxy.map, [1], Calls()).outcome() == ["1"]
    assert errors
    assert "the portal's own thread" in str(errors[0])


@each_way
@pytest.mark.parametrize("return_exceptions", [False, True])
def test_an_interrupt_after_a_failure_is_not_swallowed(
    options: Any, return_exceptions: bool
) -> None:
    """It is raised although the map() has failed before, and although it was to keep failures."""
    proxy = BatchingMapProxy[int, str](1, **options)
    failed = threading.Event()

    def fetch(items: list[int]) -> list[str]:
        if items == [1]:
            failed.set()
            raise ValueError("first")
        failed.wait()
        raise SystemExit("second")

    expected = SystemExit if return_exceptions or options["max_concurrency"] else ValueError
    with pytest.raises(expected):
        proxy.map([1, 2], fetch, return_exceptions=return_exceptions)
    assert_idle(proxy)


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


@both
def test_the_limit_in_threads(backend: Backend) -> None:
    """200 batches of one key, wanted by four threads: never more than 3 calls at a time."""
    proxy = BatchingMapProxy[int, str](1, 3, backend=backend)
    calls = Located(gated=True)
    lists = [range(start, start + 80) for start in (0, 40, 80, 120)]  # each overlaps the next
    callers = [Thread(proxy.map, items, calls) for items in lists]
    # Each map() would like three slots.
    until(lambda: (look(proxy).queueing, calls.running) == (9, 3))
    calls.open()
    assert [caller.outcome() for caller in callers] == [naive(items) for items in lists]
    assert calls.most_running == 3
    assert not {caller.ident for caller in callers} & set(calls.threads)
    assert proxy.statistics().calls == proxy.statistics().computed == 200
    assert_idle(proxy)
