"""Points 14 and 23 of the contract: streams of the synchronous proxy."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from tools import Backend, Interrupt, Thread, both, interrupted_when, modes, naive, until

from batchproxy import (
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    ClosedError,
)
from batchproxy.testing import AsyncCalls, Calls, assert_idle, look


def pairs(items: Any) -> list[tuple[Any, str]]:
    return list(zip(items, naive(items)))


@pytest.mark.parametrize("most", [{"batch_size": 4}, {"weight": lambda _: 2, "max_weight": 9}])
def test_one_window_at_a_time(most: Any) -> None:
    """It is read when all that was there has been taken; nothing is under way in between."""
    proxy = BatchingMapProxy[int, str](**most)
    calls, read = Calls(), list[tuple[int, int]]()

    def source() -> Iterator[int]:
        for item in range(22):
            read.append((item, threading.get_ident()))
            yield item

    with proxy.stream(source(), calls, window=10) as results:
        assert not calls.batches
        assert not read
        for item, _ in results:
            assert len(read) <= item + 10
            assert calls.running == 0
            assert not look(proxy).in_flight
    # What does not fill a batch waits for the next window.
    assert [len(batch) for batch in calls.batches] == [4, 4, 4, 4, 4, 2]
    assert {thread for _, thread in read} == {threading.get_ident()}


def test_known_items_need_no_thread() -> None:
    """What is in memory is given here, in the portal's own thread, too."""
    cache = Cache[str]()
    cache.prime({key: str(key) for key in range(20)})
    proxy = BatchingMapProxy[int, str](3, cache=cache)
    seen: list[Any] = []

    async def fetch(items: list[int]) -> list[str]:  # in the portal
        with proxy.stream(range(20), Calls(gated=True), window=6) as results:
            seen.extend(results)
        return naive(items)

    assert BatchingMapProxy[int, str]().map([1], fetch) == ["1"]
    assert seen == pairs(range(20))


def test_chunks() -> None:
    """All that is there at a time; what a loop has left comes first."""
    proxy = BatchingMapProxy[int, str](5)
    with proxy.stream(range(30), Calls(), window=12) as results:
        assert next(results) == (0, "0")
        chunks = list(results.chunks())
        assert list(results) == []
    assert [len(chunk) for chunk in chunks] == [9, 10, 10]
    assert [pair for chunk in chunks for pair in chunk] == pairs(range(1, 30))


def test_a_loop_goes_on_where_another_has_left_off() -> None:
    """No pair is lost between two loops."""
    proxy = BatchingMapProxy[int, str](5)
    got = []
    with proxy.stream(range(30), Calls(), window=12) as results:
        for number in range(1, 5):
            for pair in results:
                got.append(pair)
                if len(got) >= 7 * number:
                    break
        got += results
    assert got == pairs(range(30))


def test_leaving_early() -> None:
    """Nothing is under way then, and nothing more is given."""
    proxy = BatchingMapProxy[int, str](4)
    with proxy.stream(range(100), Calls(), window=20) as results:
        iterator = iter(results)
        assert next(iterator) == (0, "0")
    with pytest.raises(ClosedError, match=r"with proxy\.stream"):
        next(iterator)
    with pytest.raises(ClosedError, match=r"with proxy\.stream"):
        next(results)
    with pytest.raises(ClosedError, match="entered once"):
        results.__enter__()
    assert_idle(proxy)


def test_misuse() -> None:
    """Each error says what to write instead."""
    proxy = BatchingMapProxy[Any, str]()
    stream = proxy.stream([1], Calls())
    with pytest.raises(ClosedError, match=r"with proxy\.stream"):
        iter(stream)
    with stream as results:
        assert list(results) == [(1, "1")]

    async def read() -> Any:
        yield 1

    with pytest.raises(TypeError, match=r"for the stream\(\) of an AsyncBatchingMapProxy"):
        proxy.stream(read(), Calls())
    with pytest.raises(TypeError, match="put a single item into a list"):
        proxy.stream(5, Calls())  # type: ignore[call-overload] # that is tried here
    proxy.close()
    with pytest.raises(ClosedError, match=r"stream\(\) on a closed proxy"):
        proxy.stream([1], Calls())


@both
def test_an_asynchronous_function(backend: Backend) -> None:
    """It runs in the event loop, as many calls at a time as there may be."""
    proxy = BatchingMapProxy[int, str](2, 3, backend=backend)
    running = most = 0

    async def fetch(items: list[int]) -> list[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.001)
        running -= 1
        return naive(items)

    with proxy.stream(range(20), fetch, window=10) as results:
        assert list(results) == pairs(range(20))
    assert most == 3
    assert_idle(proxy)


def consumed(proxy: BatchingMapProxy[int, str], number: int, calls: Calls, window: int) -> Thread:
    """A thread that takes all of a stream."""

    def consume() -> list[Any]:
        with proxy.stream(range(number), calls, window=window) as results:
            return list(results)

    return Thread(consume)


@modes
def test_what_others_compute_is_waited_for(max_concurrency: int | None) -> None:
    """And thins no batch."""
    cache = Cache[str]()
    other = BatchingMapProxy[int, str](cache=cache)
    proxy = BatchingMapProxy[int, str](2, max_concurrency, cache=cache)
    theirs, calls = Calls(gated=True), Calls()
    owner = Thread(other.map, [0, 5], theirs)
    theirs.wait_begun()
    consumer = consumed(proxy, 8, calls, 6)
    calls.wait_begun(2)
    theirs.open()
    assert consumer.outcome() == pairs(range(8))
    assert owner.outcome() == ["0", "5"]
    assert sorted(calls.batches) == [[1, 2], [3, 4], [6, 7]]
    assert_idle(proxy)


def test_what_others_give_up() -> None:
    """It is computed here, be the batch as full as it can be."""
    cache = Cache[str]()
    cache.prime({1: "1"})
    other = BatchingMapProxy[int, str](cache=cache)
    proxy = BatchingMapProxy[int, str](3, cache=cache)
    theirs, calls = Calls(gated=True), Calls()
    owner = Thread(other.map, [0], theirs)
    theirs.wait_begun()
    consumer = consumed(proxy, 4, calls, 3)
    until(lambda: other.statistics().waiting)
    theirs.fail(0, Interrupt())
    assert consumer.outcome() == pairs(range(4))
    assert isinstance(owner.outcome(), Interrupt)
    assert calls.batches == [[0, 2], [3]]
    assert_idle(proxy, other)


def test_a_stream_that_would_wait_for_itself() -> None:
    """For a key that the call around it is computing, it raises."""
    proxy = BatchingMapProxy[int, str](1)

    def fetch(items: list[int]) -> list[str]:
        options: Any = {"window": 1, "return_exceptions": True}
        with proxy.stream([0, *items], Calls((1).__floordiv__), **options) as results:
            try:
                return [result for _, result in results]
            finally:
                assert list(results.chunks()) == []  # it was told, and is no news later on

    with pytest.raises(CircularWaitError):
        proxy.map([1], fetch)
    assert_idle(proxy)


def test_inside_a_running_event_loop() -> None:
    """It blocks that loop while it waits, and only then."""

    async def main() -> None:
        cache = Cache[str]()
        proxy = BatchingMapProxy[int, str](2, cache=cache)
        other = AsyncBatchingMapProxy[int, str](cache=cache)
        with proxy.stream(range(4), Calls(), window=2) as results:
            assert next(results) == (0, "0")
            assert await other.map([0, 3], AsyncCalls()) == ["0", "3"]
            assert list(results) == pairs(range(1, 4))

    asyncio.run(main())


@modes
def test_ctrl_c(max_concurrency: int | None) -> None:
    """It ends the stream promptly, and frees its keys; the proxy goes on."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency)
    begun, go = threading.Event(), threading.Event()

    def fetch(items: list[int]) -> list[str]:
        begun.set()
        while not go.is_set():
            time.sleep(0.001)
        return naive(items)

    with proxy.stream(range(8), fetch) as results:
        with interrupted_when(begun.is_set):
            next(results)
        assert list(results.chunks()) == []
    go.set()
    assert proxy.map([0, 1], Calls()) == ["0", "1"]
