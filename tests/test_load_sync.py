"""Points 13, 14 and 21 of the contract: single keys that threads ask for."""

import random
import textwrap
import threading
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import anyio.to_thread
import pytest
from process_tools import PRELUDE, needs_fork, needs_posix, run
from tools import Backend, Interrupt, Thread, happens, never, until

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    ClosedError,
    Limit,
)
from batchproxy.testing import Calls, assert_idle, look


def asynchronous(function: Any) -> Any:
    """`function` as a coroutine function, which may block: nothing else runs in its loop."""

    async def called(keys: list[Any]) -> Any:
        return await anyio.to_thread.run_sync(function, keys)

    return called


kinds = pytest.mark.parametrize("kind", ["workers", "asynchronous"])


def bound(kind: str, function: Any, batch_size: int | None, backend: Backend) -> Any:
    """A function of that kind, of which one call at a time is made."""
    if kind == "asynchronous":
        function = asynchronous(function)
    return BatchingMapProxy[Any, Any](batch_size, 1, backend=backend).bind(function)


def loading(users: Any, calls: Calls, number: int) -> list[Thread]:
    """Threads that load so many keys: the first has begun its call, and the others wait."""
    threads = [Thread(users.load, 0)]
    calls.wait_begun()
    threads += [Thread(users.load, key) for key in range(1, number)]
    until(lambda: look(users.proxy).loading == number)
    return threads


def test_in_the_calling_thread() -> None:
    """There is nothing to wait for: it is a `map()` of one item."""
    threads: list[Any] = []

    def fetch(keys: list[int]) -> list[int]:
        threads.append((threading.current_thread(), keys))
        return keys

    users = BatchingMapProxy[int, int](10).bind(fetch)
    assert users.load(1) == 1
    assert users.load(1) == 1
    assert threads == [(threading.current_thread(), [1])]
    assert users.proxy.statistics().maps == 2
    assert_idle(users.proxy)


@kinds
def test_threads_gather(kind: str, sync_backend: Backend) -> None:
    """Those who wait for a slot go together in full batches; a lone one goes at once."""
    calls = Calls(gated=True)
    users = bound(kind, calls, 4, sync_backend)
    threads = loading(users, calls, 10)
    calls.open()
    assert [thread.outcome() for thread in threads] == list(map(str, range(10)))
    assert list(map(len, calls.batches)) == [1, 4, 4, 1]
    assert users.load(5) == "5"
    until(lambda: look(users.proxy).idle)


@kinds
def test_a_failing_call(kind: str, sync_backend: Backend) -> None:
    """All whose keys were in it get that very exception."""
    calls = Calls(gated=True)
    users = bound(kind, calls, 10, sync_backend)
    error = ValueError()
    threads = loading(users, calls, 5)
    calls.fail(1, error)
    calls.open()
    assert [thread.outcome() for thread in threads] == ["0", *[error] * 4]
    until(lambda: look(users.proxy).idle)


@kinds
def test_what_is_no_exception(kind: str, sync_backend: Backend) -> None:
    """It ends the thread whose call it was; another one makes the call anew."""
    calls = Calls(gated=True)
    users = bound(kind, calls, 10, sync_backend)
    threads = loading(users, calls, 4)
    calls.fail(1, Interrupt())
    calls.open()
    outcomes = [thread.outcome() for thread in threads]
    assert sum(isinstance(outcome, Interrupt) for outcome in outcomes) == 1
    assert {outcome for outcome in outcomes if not isinstance(outcome, Interrupt)} < set("0123")
    assert len(calls.batches) == 3
    until(lambda: look(users.proxy).idle)


def test_a_shared_limit(sync_backend: Backend) -> None:
    """It makes calls run in worker threads, and so threads gather."""
    calls = Calls(gated=True)
    limit = Limit(1)
    one, two = (
        BatchingMapProxy[int, str](10, limit=limit, backend=sync_backend).bind(calls)
        for _ in range(2)
    )
    first = Thread(one.load, 0)
    calls.wait_begun()
    threads = [Thread(users.load, number) for users in (one, two) for number in range(1, 4)]
    until(lambda: look(one.proxy, two.proxy).queueing == 2)
    until(lambda: look(one.proxy, two.proxy).loading == 7)
    calls.open()
    assert first.outcome() == "0"
    assert [thread.outcome() for thread in threads] == ["1", "2", "3"] * 2
    assert list(map(len, calls.batches)) == [1, 3, 3]
    assert calls.most_running == 1


user: ContextVar[int] = ContextVar("user")


@kinds
def test_whose_context_a_call_has(kind: str, sync_backend: Backend) -> None:
    """That of one of those who wait."""
    seen: list[int] = []

    def fetch(keys: list[int]) -> list[int]:
        seen.append(user.get())
        return keys

    users = bound(kind, fetch, 10, sync_backend)

    def handler(number: int) -> Any:
        user.set(number)
        return users.load(number)

    threads = [Thread(copy_context().run, handler, number) for number in range(4)]
    assert [thread.outcome() for thread in threads] == [0, 1, 2, 3]
    assert set(seen) <= {0, 1, 2, 3}


def test_loads_inside_of_a_call(sync_backend: Backend) -> None:
    """They use its slot; one that waits for its own call raises."""
    outcomes: list[Any] = []

    def fetch(keys: list[int]) -> list[int]:
        if keys == [0]:
            outcomes.append(users.load(10))
            try:
                users.load(0)
            except CircularWaitError as error:
                outcomes.append(error)
        return keys

    users = BatchingMapProxy[int, int](10, 1, backend=sync_backend).bind(fetch)
    assert users.load(0) == 0
    assert outcomes[0] == 10
    assert "0 is being computed" in str(outcomes[1])
    until(lambda: look(users.proxy).idle)


async def test_inside_of_a_running_loop() -> None:
    """It works, and blocks the loop; for a key that a task of that loop computes it raises."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](cache=cache)
    users = BatchingMapProxy[int, str](10, 2, cache=cache).bind(lambda keys: list(map(str, keys)))
    raised: list[Exception] = []
    begun = anyio.Event()

    async def fetch(keys: list[int]) -> list[str]:
        await begun.wait()
        return list(map(str, keys))

    async with anyio.create_task_group() as group:
        group.start_soon(proxy.map, [1], fetch)
        await happens(lambda: look(proxy).in_flight)
        assert users.load(2) == "2"
        try:
            users.load(1)
        except CircularWaitError as error:
            raised.append(error)
        begun.set()
    assert len(raised) == 1
    until(lambda: look(proxy, users.proxy).idle)
    assert_idle(proxy, users.proxy)


def test_misuse() -> None:
    """As with the asynchronous one."""
    proxy = BatchingMapProxy[Any, Any](10, 2)
    users = proxy.bind(never)
    with pytest.raises(TypeError, match="unhashable 'list'"):
        users.load([1])
    assert proxy.bind(lambda keys: keys).load(nan := float("nan")) is nan
    proxy.close()
    with pytest.raises(ClosedError, match=r"load\(\) on a closed proxy"):
        users.load(1)


@needs_posix
def test_ctrl_c() -> None:
    """It ends the thread that it interrupts, and another one makes its call."""
    script = textwrap.dedent(
        """
        batches, begun = [], threading.Event()
        async def fetch(keys):
            batches.append(sorted(keys))
            if len(batches) == 1:
                begun.set()
                await anyio.sleep(60)
            return keys
        users = BatchingMapProxy(10, 1).bind(fetch)
        results = []
        def others():
            begun.wait()
            load = lambda number: results.append(users.load(number))
            threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        helper = threading.Thread(target=others)
        helper.start()
        interrupt_when(lambda: look(users.proxy).loading == 4)
        try:
            users.load(0)
        except KeyboardInterrupt:
            print("interrupted")
        helper.join()
        print(sorted(results), batches)
        assert_idle(users.proxy)
        """
    )
    interrupted, rest = run(script, prelude=PRELUDE).splitlines()
    assert interrupted == "interrupted"
    # Who had waited for the call that was interrupted may look again when the others call.
    assert rest in ("[0, 1, 2] [[0], [0, 1, 2]]", "[0, 1, 2] [[0], [1, 2], [0]]")


@needs_posix
def test_loads_of_a_call_that_was_left_behind() -> None:
    """A thread that was left to itself has the slot, and need not wait for who waits for that."""
    script = textwrap.dedent(
        """
        begun, interrupted, results = threading.Event(), threading.Event(), []
        def fetch(keys):
            if keys == [0]:
                begun.set()
                interrupted.wait()
                results.append(users.load(7))
            return keys
        users = BatchingMapProxy(10, 1).bind(fetch)
        interrupt_when(begun.is_set)
        try:
            users.load(0)
        except KeyboardInterrupt:
            pass
        waiting = start(users.load, 5)
        until(lambda: look(users.proxy).queueing == 1)
        interrupted.set()
        waiting.join()
        until(lambda: results and look(users.proxy).idle)
        print(results)
        """
    )
    assert run(script, prelude=PRELUDE) == "[7]\n"


@needs_fork
def test_after_a_fork() -> None:
    """The child has none of the loads that were under way, and can load what it wants."""
    script = textwrap.dedent(
        """
        begun, go = threading.Event(), threading.Event()
        def fetch(keys):
            if os.getpid() == parent:
                begun.set()
                go.wait()
            return keys
        parent = os.getpid()
        users = BatchingMapProxy(10, 1).bind(fetch)
        threads = [start(users.load, number) for number in range(3)]
        begun.wait()
        until(lambda: look(users.proxy).loading == 3)
        if child := os.fork():
            go.set()
            assert os.waitpid(child, 0)[1] == 0
            for thread in threads:
                thread.join()
            assert users.load(2) == 2
            assert_idle(users.proxy)
        else:
            assert look(users.proxy).loading == 0
            assert users.load(2) == 2
            assert look(users.proxy).loading == 0
            os._exit(0)
        """
    )
    assert run(script, prelude=PRELUDE) == ""


def test_threads_and_loops_at_random(sync_backend: Backend) -> None:
    """Random loads and maps of threads and event loops, with failures: all is right, and ends."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    cache = Cache[int](max_size=chance.choice([None, 0, 5]))
    broken: list[Any] = []

    def answer(keys: list[int]) -> list[Any]:
        draw = random.random()
        if draw < 0.2:
            raise ValueError(keys)
        return [KeyError(key) if random.random() < 0.1 else key for key in keys]

    async def answer_async(keys: list[int]) -> list[Any]:
        await anyio.sleep(random.choice([0, 0.001]))
        return answer(keys)

    sync = BatchingMapProxy[int, int](3, 2, cache=cache, backend=sync_backend)
    bounds = [sync.bind(answer), sync.bind(answer_async)]
    loops = AsyncBatchingMapProxy[int, int](3, 2, cache=cache).bind(answer_async)

    def thread(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(30):
            users, key = chance.choice(bounds), chance.randrange(20)
            try:
                if chance.random() < 0.8:
                    results = {key: users.load(key)}
                else:
                    keys = chance.sample(range(20), 4)
                    results = dict(zip(keys, users.map(keys)))
            except (ValueError, KeyError):
                continue
            broken.extend((key, result) for key, result in results.items() if key != result)

    async def handler(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            key = chance.randrange(20)
            with anyio.move_on_after(chance.choice([0.0005, 5])):
                try:
                    result = await loops.load(key)
                except (ValueError, KeyError):
                    continue
                if result != key:
                    broken.append((key, result))

    async def handlers(seed: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(handler, seed + number)

    threads = [Thread(thread, seed + number) for number in range(6)]
    threads += [
        Thread(lambda number=number: anyio.run(handlers, seed + number, backend=sync_backend))
        for number in range(2)
    ]
    outcomes = [thread.outcome() for thread in threads]
    assert outcomes == [None] * len(threads), seed
    assert not broken, seed
    until(lambda: look(sync, loops.proxy).idle)
    assert_idle(sync, loops.proxy)
