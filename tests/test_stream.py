"""Point 23 of the contract: streams of either proxy, and what tasks do with those of one."""

import asyncio
import contextvars
import gc
import signal
import sys
import tracemalloc
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, NamedTuple, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint
from memory_store import MemoryStore
from store_tools import OTHER, released
from tools import (
    FREE_THREADED,
    Incomparable,
    Interrupt,
    Outcomes,
    Thing,
    each_way,
    freed_at_once,
    naive,
    settle,
    step,
    together,
)

from batchproxy import (
    AsyncBatchingMapProxy,
    AsyncStream,
    BatchingMapProxy,
    Cache,
    CircularWaitError,
    ClosedError,
    Limit,
    Progress,
    SplitBatch,
    StoreError,
    Stream,
)
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, Calls, assert_idle, look


class Source:
    """Counts what is read of it; raises at the end, if it is to."""

    def __init__(self, items: Any, error: Any = None) -> None:
        self.items = items
        self.error = error
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.read += 1
            yield item
        if self.error is not None:
            raise self.error

    async def gen(self) -> AsyncIterator[Any]:
        try:
            for item in self:
                await checkpoint()
                yield item
        finally:
            self.closed = True


class Face(NamedTuple):
    """A kind of proxies, what they are made with, and the functions and sources that they take."""

    proxy: Any
    calls: Any
    options: Any
    source: Any


FACES = [
    pytest.param(Face(AsyncBatchingMapProxy, AsyncCalls, {}, lambda source: source), id="tasks"),
    pytest.param(Face(AsyncBatchingMapProxy, AsyncCalls, {}, Source.gen), id="asynchronous source"),
    *(
        pytest.param(Face(BatchingMapProxy, Calls, way.values[0], iter), id=way.id, marks=way.marks)
        for way in each_way.args[1]
    ),
]
faces = pytest.mark.parametrize("face", FACES)
"""The asynchronous proxy and the synchronous one, which blocks the event loop."""

in_either_order = pytest.mark.parametrize("ordered", [True, False])


def pairs(items: Any) -> list[tuple[Any, str]]:
    return list(zip(items, naive(items)))


def batches_of(size: int, number: int) -> list[list[int]]:
    """So many items in full batches."""
    return [[*range(first, min(first + size, number))] for first in range(0, number, size)]


class Blocking:
    """A synchronous stream that is iterated as an asynchronous one."""

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self.stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        for pair in self.stream:
            return pair
        raise StopAsyncIteration

    async def chunks(self) -> AsyncIterator[Any]:
        for chunk in self.stream.chunks():
            yield chunk


@asynccontextmanager
async def entered(stream: Any) -> AsyncIterator[Any]:
    """A stream of either kind."""
    if isinstance(stream, AsyncStream):
        async with stream as results:
            yield results
    else:
        with stream as results:
            yield Blocking(results)


async def all_of(stream: Any) -> tuple[list[Any], Any]:
    """What a stream of either kind gives, and then raises, which comes once."""
    got: list[Any] = []
    raised = None
    async with entered(stream) as results:
        try:
            await drain(results, got)
        except Exception as error:
            raised = error
        assert [pair async for pair in results] == []
        assert [chunk async for chunk in results.chunks()] == []
    return got, raised


async def drain(results: AsyncIterable[Any], got: list[Any]) -> None:
    """Take all that there is."""
    async for pair in results:
        got.append(pair)


async def taken(results: AsyncStream[Any, Any], count: int) -> list[Any]:
    """The next pairs, so many."""
    return [await anext(results) for _ in range(count)]


@faces
@pytest.mark.parametrize("window", [1, 3, 10, 1000])
async def test_items_come_with_their_results_in_order(face: Face, window: int) -> None:
    """Whatever the source is, and however small the window."""
    proxy, calls = face.proxy(4, **face.options), face.calls()
    items = [*range(30), *range(10)]
    stream = proxy.stream(face.source(Source(items)), calls, window=window)
    assert await all_of(stream) == (pairs(items), None)
    assert sorted(calls.keys) == list(range(30))
    now = proxy.statistics()
    assert (now.maps, now.items, now.computed) == (1, 40, 30)
    assert_idle(proxy)


@in_either_order
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("bound", [None, 0])
async def test_repeated_items_share_one_result(
    ordered: bool, keyed: bool, bound: int | None
) -> None:
    """A key that is in the window is computed once, and each item comes as itself."""
    calls = AsyncCalls(gated=True)
    key = (lambda item: str(item).lower()) if keyed else None
    proxy = AsyncBatchingMapProxy[str, str](2, 2, key=key, cache=Cache(bound))
    items = ["a", "b", "a", "c", "b", "A" if keyed else "a"]
    async with proxy.stream(items, calls, ordered=ordered) as results:
        await settle()
        calls.open()
        got = [pair async for pair in results]
    assert sorted(calls.batches) == [["a", "b"], ["c"]]
    expected = [(item, item.lower()) for item in items]
    assert got == expected if ordered else sorted(got) == sorted(expected)
    assert_idle(proxy)


@in_either_order
@pytest.mark.parametrize(
    ("size", "items"), [(2, [1, 2, 3, 1, 2, 3, 1]), (1, [1, 2, 3, 4, 3, 4, 4])]
)
async def test_an_answered_key_comes_again(size: int, items: list[int], ordered: bool) -> None:
    """What has its result, and waits to be taken, is not computed again; also if it was alone."""
    proxy = AsyncBatchingMapProxy[int, str](size, cache=Cache(0))
    calls, got = AsyncCalls(), []
    async with proxy.stream(items, calls, window=4, ordered=ordered) as results:
        for _ in items:
            await settle()
            got.append(await anext(results))
    assert got == pairs(items) if ordered else sorted(got) == sorted(pairs(items))
    if ordered and size == 1:
        assert calls.batches == [[1], [2], [3], [4]]
    assert_idle(proxy)


@in_either_order
async def test_what_is_done_first(ordered: bool) -> None:
    """It is given first with ordered=False; else when all before it has been."""
    proxy = AsyncBatchingMapProxy[int, str](2, 2)
    calls = AsyncCalls(gated=True)
    async with proxy.stream(range(4), calls, ordered=ordered) as results, together() as callers:
        await callers.begin("first", results.__anext__)
        await step(calls.finish, 1)
        assert callers.results == ({} if ordered else {"first": (2, "2")})
        await step(calls.finish, 0)
        assert callers.results == {"first": (0, "0") if ordered else (2, "2")}
        assert await taken(results, 3) == pairs([1, 2, 3] if ordered else [3, 0, 1])
        with pytest.raises(StopAsyncIteration):
            await anext(results)


@pytest.mark.parametrize("asynchronous", [True, False])
@in_either_order
async def test_a_slow_consumer_holds_up_the_reading(asynchronous: bool, ordered: bool) -> None:
    """At most so many items as the window has are read and not taken."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    calls, source = AsyncCalls(), Source(range(100))
    read: Any = source.gen() if asynchronous else source
    async with proxy.stream(read, calls, window=6, ordered=ordered) as results:
        await settle()
        assert source.read == 6
        assert len(calls.keys) == 6
        for number in range(5):
            await anext(results)
            await settle()
            assert source.read <= number + 1 + 6
            assert source.read >= number + 6
        await settle()
    assert_idle(proxy)


@faces
@pytest.mark.parametrize(
    ("size", "window", "items", "batches"),
    [
        pytest.param(4, 10, range(22), batches_of(4, 22), id="over the window"),
        pytest.param(None, 10, range(25), batches_of(10, 25), id="no size"),
        pytest.param(50, 10, range(25), batches_of(10, 25), id="larger than the window"),
        pytest.param(3, 3, [1, 30, 33, 2, 4, 5], [[1], [2, 4, 5]], id="nothing else can come"),
    ],
)
async def test_batches_are_full(
    face: Face, size: int | None, window: int, items: list[int], batches: list[list[int]]
) -> None:
    """Or as full as the window lets them be: what does not fill one waits for more."""
    cache = Cache[str]()
    cache.prime({30: "30", 33: "33"})
    proxy, calls = face.proxy(size, cache=cache, **face.options), face.calls()
    stream = proxy.stream(face.source(Source(items)), calls, window=window)
    assert await all_of(stream) == (pairs(items), None)
    assert sorted(calls.batches) == batches


async def test_known_keys_do_not_thin_a_batch() -> None:
    """Nor do repeated ones, and those that somebody else is computing."""
    cache = Cache[str]()
    cache.prime({key: str(key) for key in range(0, 30, 3)})
    proxy = AsyncBatchingMapProxy[int, str](5, 2, cache=cache)
    other, calls = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("other", proxy.map, range(1, 30, 6), other)
        async with proxy.stream([*range(30), *range(30)], calls, window=60) as results:
            await settle()
            other.open()
            assert [pair async for pair in results] == pairs([*range(30), *range(30)])
    assert [len(batch) for batch in calls.batches] == [5, 5, 5]
    assert len(set(calls.keys)) == 15
    assert proxy.statistics().shared == 5


async def test_a_full_window_waits_for_what_others_compute() -> None:
    """What comes of that makes room for more: so no thin batch goes out meanwhile."""
    proxy = AsyncBatchingMapProxy[int, str](4, 2)
    other, calls = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("other", proxy.map, [0], other)
        async with proxy.stream(range(9), calls, window=4) as results:
            await callers.begin("first", results.__anext__)
            assert calls.batches == []
            other.open()
            await settle()
            assert callers.results["first"] == (0, "0")
            assert [pair async for pair in results] == pairs(range(1, 9))
    assert calls.batches == [[1, 2, 3, 4], [5, 6, 7, 8]]


async def test_progress_of_what_others_compute() -> None:
    """Their results are told of, too, when they are the last that come."""
    proxy, seen = AsyncBatchingMapProxy[int, str](1, 2), list[Progress]()
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers:
        await callers.begin("other", proxy.map, [1], calls)
        async with proxy.stream([1], calls, progress=seen.append) as results:
            await settle()
            calls.open()
            assert [pair async for pair in results] == pairs([1])
    assert (seen[-1].done, seen[-1].total, seen[-1].shared) == (1, 1, 1)


async def test_as_many_calls_as_there_may_be() -> None:
    """Not more than max_concurrency at a time, of all that the proxy is asked for."""
    proxy = AsyncBatchingMapProxy[int, str](1, 3)
    calls = AsyncCalls(gated=True)
    async with together(proxy) as callers, proxy.stream(range(9), calls) as results:
        await settle()
        assert calls.running == 3
        await callers.begin("small", proxy.map, [100], calls)
        calls.open()
        assert [pair async for pair in results] == pairs(range(9))
    assert calls.most_running == 3
    assert callers.results == {"small": ["100"]}
    assert calls.keys.index(100) < 6  # first come, first served


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        pytest.param(2, {}, id="by count"),
        pytest.param(4, {"weight": lambda item: 3, "max_weight": 7}, id="by weight"),
    ],
)
async def test_keys_that_others_give_up(size: int, weights: dict[str, Any]) -> None:
    """They are computed here, if who computed them leaves, and weighed as before."""
    proxy = AsyncBatchingMapProxy[int, str](size, 2, **weights)
    other, calls = AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("other", proxy.map, [0, 1], other)
        async with proxy.stream(range(9), calls, window=5) as results:
            await settle()
            assert calls.batches == [[2, 3]]
            callers.scopes["other"].cancel()
            assert [pair async for pair in results] == pairs(range(9))
    assert max(map(len, calls.batches)) == 2
    assert sorted(calls.keys) == list(range(9))


async def test_more_calls_of_others_are_met_while_some_are_waited_for() -> None:
    """Each of them is waited for, whenever it was met."""
    proxy = AsyncBatchingMapProxy[int, str](1, 8)
    first, second, calls = AsyncCalls(gated=True), AsyncCalls(gated=True), AsyncCalls()
    async with together(proxy) as callers:
        await callers.begin("first", proxy.map, [0], first)
        async with proxy.stream([0, 1, 2], calls, window=2, ordered=False) as results:
            await settle()
            await callers.begin("second", proxy.map, [2], second)
            assert await anext(results) == (1, "1")
            await callers.begin("next", results.__anext__)
            await step(second.open)
            assert callers.results["next"] == (2, "2")
            first.open()
            assert await anext(results) == (0, "0")
    assert calls.batches == [[1]]


@pytest.mark.parametrize("how", ["break", "return", "exception", "cancellation", "at the end"])
async def test_leaving_frees_the_keys(how: str) -> None:
    """However the block is left: its calls have ended then, and its keys are free."""
    proxy = AsyncBatchingMapProxy[int, str](2, 2)
    calls = AsyncCalls(gated=True)
    boom = ValueError("body")
    left = False

    async def consume() -> None:
        nonlocal left
        try:
            async with proxy.stream(range(100), calls, window=8) as results:
                await settle()
                assert calls.running == 2
                if how == "cancellation":
                    scope.cancel()
                    async for _ in results:
                        raise AssertionError
                if how == "exception":
                    raise boom
                if how == "return":
                    return
                calls.finish(0)
                async for _ in results:
                    if how == "break":
                        break
                    calls.open()
        finally:
            left = calls.running == 0 and not look(proxy).in_flight

    with anyio.CancelScope() as scope:
        if how == "exception":
            with pytest.raises(ValueError, match="body") as caught:
                await consume()
            assert caught.value is boom
            assert boom.__context__ is None
        else:
            await consume()
    assert left
    assert_idle(proxy)
    assert await proxy.map([50, 51], AsyncCalls()) == ["50", "51"]


@faces
@pytest.mark.parametrize("how", ["end", "exception", "cancellation"])
async def test_leaving_before_anything_could_begin(face: Face, how: str) -> None:
    """There is nothing to be ended yet; and what the block raised comes out of it as it is."""
    proxy, calls = face.proxy(2, **face.options), face.calls()
    boom, source = ValueError("body"), Source(range(100))
    with anyio.CancelScope() as scope:
        if how == "cancellation":
            scope.cancel()
        with pytest.raises(ValueError, match="body") if how == "exception" else nullcontext():
            async with entered(proxy.stream(face.source(source), calls)):
                if how == "exception":
                    raise boom
    assert calls.batches == []
    assert source.read == 0
    assert_idle(proxy)


async def test_a_failing_call_ends_the_stream() -> None:
    """What was there before it still comes; the exception is the very object, and comes once."""
    proxy = AsyncBatchingMapProxy[int, str](2, 3)
    calls = AsyncCalls(gated=True)
    boom = ValueError("boom")
    async with proxy.stream(range(10), calls) as results:
        await settle()
        await step(calls.finish, 0)
        await step(calls.fail, 1, boom)
        assert calls.running == 0  # the others were cancelled, though nobody has looked
        assert not look(proxy).in_flight
        got: list[Any] = []
        with pytest.raises(ValueError, match="boom") as caught:
            await drain(results, got)
        assert caught.value is boom
        assert got == pairs([0, 1])
        assert [pair async for pair in results] == []
    assert_idle(proxy)
    assert proxy.statistics().maps == 0


async def test_a_failing_call_does_not_disturb_the_body() -> None:
    """What the body waits for is not cancelled by it."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    calls = AsyncCalls(gated=True)
    calls.fail(0, ValueError("boom"))
    calls.open()
    async with proxy.stream(range(4), calls):
        await settle()
        await anyio.sleep(0.01)
        await checkpoint()
    assert_idle(proxy)


@in_either_order
async def test_an_item_that_failed_ends_the_stream(ordered: bool) -> None:
    """Its neighbours before it come, and it raises."""
    proxy, boom = AsyncBatchingMapProxy[int, Any](3), ValueError("boom")
    calls = AsyncCalls(lambda item: boom if item == 1 else str(item))
    assert await all_of(proxy.stream(range(3), calls, ordered=ordered)) == (pairs([0]), boom)
    assert await proxy.map([2], AsyncCalls(gated=True)) == ["2"]


@faces
@in_either_order
async def test_failures_as_results(face: Face, ordered: bool) -> None:
    """With return_exceptions=True failed items come with their exception, and all is called."""
    proxy, calls, boom = face.proxy(2, limit=Limit(1)), face.calls(), ValueError("boom")
    calls.fail(1, boom)
    options = {"ordered": ordered} if face.proxy is AsyncBatchingMapProxy else {}
    source = face.source(Source(range(6)))
    stream = proxy.stream(source, calls, window=4, return_exceptions=True, **options)
    expected = [(0, "0"), (1, "1"), (2, boom), (3, boom), (4, "4"), (5, "5")]
    assert await all_of(stream) == (expected, None)
    assert len(calls.batches) == 3
    assert proxy.statistics().maps == 1
    assert_idle(proxy)


@faces
async def test_a_failing_call(face: Face) -> None:
    """What was there before it comes first, then the very object, once."""
    proxy, calls, boom = face.proxy(2, **face.options), face.calls(), ValueError("boom")
    calls.fail(2, boom)
    got, raised = await all_of(proxy.stream(face.source(Source(range(20))), calls, window=8))
    assert raised is boom
    assert got == pairs(range(len(got)))
    if proxy.max_concurrency is None:
        assert got == pairs(range(4))
    assert_idle(proxy)


@faces
@pytest.mark.parametrize("window", [2, 100])
async def test_a_source_that_raises(face: Face, window: int) -> None:
    """What was read before comes first, and then the very exception, once."""
    proxy, boom = face.proxy(4), OSError("source")
    source = face.source(Source(range(7), boom))
    try:
        raise RuntimeError("what the body is handling")
    except RuntimeError as error:
        got, raised = await all_of(proxy.stream(source, face.calls(), window=window))
        outside = error if isinstance(proxy, BatchingMapProxy) else None  # there it is read in here
    assert (got, raised) == (pairs(range(7)), boom)
    assert boom.__context__ is outside
    assert_idle(proxy)


@faces
async def test_a_key_that_cannot_be_had(face: Face) -> None:
    """Whatever the key= function raises, or is not hashable, comes after all that was before."""
    keyed = face.proxy(2, key=lambda item: {}[item] if item == 3 else item)
    got, raised = await all_of(keyed.stream(face.source(Source(range(9))), face.calls()))
    assert got == pairs(range(3))
    assert isinstance(raised, KeyError)

    proxy = face.proxy(2)
    source = Source([*range(3), [], *range(2000)])
    got, raised = await all_of(proxy.stream(face.source(source), face.calls()))
    assert got == pairs(range(3))
    assert isinstance(raised, TypeError)
    assert "item 3 is an unhashable 'list': give the proxy a key=" in str(raised)
    assert source.closed == (face.source is Source.gen)
    assert_idle(proxy)


class Unhashable:
    """Its hash raises what one is told."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __hash__(self) -> int:
        raise self.error


@faces
async def test_a_key_whose_hash_raises(face: Face) -> None:
    """As an object may whose row is not loaded: what came before it is given, and then that."""
    error = ValueError("not loaded")
    source = face.source(Source([1, 2, Unhashable(error), 4]))
    got, raised = await all_of(face.proxy(2, **face.options).stream(source, face.calls()))
    assert got == pairs([1, 2])
    assert raised is error


async def test_a_call_that_raises_generator_exit() -> None:
    """It comes where pairs are taken, as what else is no Exception; the body goes on."""

    async def fetch(items: list[int]) -> list[str]:
        raise GeneratorExit

    proxy = AsyncBatchingMapProxy[int, str](1)
    async with proxy.stream([1, 2], fetch) as results:
        await settle()
        with pytest.raises(GeneratorExit):
            await anext(results)
    assert_idle(proxy)


async def test_whose_context_variables_calls_have() -> None:
    """Those of who entered the block, whatever the body sets later."""
    name, seen = contextvars.ContextVar("name", default="nobody"), list[str]()

    async def fetch(items: list[int]) -> list[str]:
        seen.append(name.get())
        await checkpoint()
        return naive(items)

    name.set("who enters")
    items = [number // 4 for number in range(24)]  # the window is full of one
    async with AsyncBatchingMapProxy[int, str](3, 2).stream(items, fetch, window=4) as results:
        name.set("the body")
        assert [pair async for pair in results] == pairs(items)
    assert set(seen) == {"who enters"}


@faces
async def test_a_key_whose_comparison_raises(face: Face) -> None:
    """That is no question of hashing, and comes as it is."""
    proxy = face.proxy(2)
    source = face.source(Source([Incomparable(), Incomparable()]))
    got, raised = await all_of(proxy.stream(source, face.calls()))
    assert (got, str(raised)) == ([], "not with me")
    assert_idle(proxy)


class Apart(Incomparable):
    """One whose hash is no other's."""

    __hash__ = object.__hash__


@faces
async def test_keys_that_cannot_be_compared(face: Face) -> None:
    """Each is what it is, also where a batch has others than those that come next."""
    items = [Apart() for _ in range(7)]
    cache = Cache[str]()
    cache.prime({items[0]: str(items[0]), items[3]: str(items[3])})
    got, raised = await all_of(
        face.proxy(2, cache=cache).stream(face.source(Source(items)), face.calls())
    )
    assert got == [(item, str(item)) for item in items]
    assert raised is None


class Numbers:
    """An asynchronous iterator that is no generator; it says whether it was closed."""

    closed = False

    def __init__(self, end: int) -> None:
        self._rest = iter(range(end))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        for number in self._rest:
            return number
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("end", [3, 99], ids=["at the end", "left"])
@pytest.mark.parametrize("whose", ["own", "made"])
async def test_an_asynchronous_iterator_is_closed_if_it_was_made_here(whose: str, end: int) -> None:
    """It is what `aiter()` gives, and not if that is the source: somebody may go on with it."""
    numbers = Numbers(end)

    class Maker:
        def __aiter__(self) -> Numbers:
            return numbers

    source = numbers if whose == "own" else Maker()
    proxy = AsyncBatchingMapProxy[int, str](2)
    async with proxy.stream(source, AsyncCalls(), window=5) as results:
        async for _ in results:
            if end > 3:
                break
    assert numbers.closed == (whose == "made")


@pytest.mark.parametrize("left", ["while it waits", "while it has given"])
async def test_an_asynchronous_generator_is_closed(left: str) -> None:
    """When the block has been left it has run its clean-up, in the task that read it."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    closed_in_it: list[bool] = []

    async def read() -> AsyncIterator[int]:
        here = anyio.get_current_task().id
        try:
            with anyio.CancelScope():
                yield 1
                if left == "while it waits":
                    await anyio.sleep_forever()
                yield 2
        finally:
            closed_in_it.append(anyio.get_current_task().id == here)

    async with proxy.stream(read(), AsyncCalls(), window=1 if "given" in left else 5):
        await settle()
        assert closed_in_it == []
    assert closed_in_it == [True]
    assert_idle(proxy)


async def test_other_asynchronous_sources_stay_open() -> None:
    """Somebody else may go on with them; but what the stream has made of a source is closed."""
    send, receive = anyio.create_memory_object_stream[int](10)
    proxy = AsyncBatchingMapProxy[int, str](1)
    async with send, receive:
        for item in range(4):
            send.send_nowait(item)
        async with proxy.stream(receive, AsyncCalls(), window=2) as results:
            assert await anext(results) == (0, "0")
        assert receive.receive_nowait() in (2, 3)

    class Rows:
        closed = 0

        def __aiter__(self) -> Any:
            return Reading(self)

    class Reading:
        def __init__(self, rows: Rows) -> None:
            self.rows = rows

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            self.rows.closed += 1

    rows = Rows()
    async with proxy.stream(rows, AsyncCalls(), window=2) as results:
        assert await anext(results) == (1, "1")
    assert rows.closed == 1


@pytest.mark.parametrize("body", [None, KeyError()])
async def test_a_source_whose_clean_up_raises(body: Exception | None) -> None:
    """That comes out of the block, unless the body raises something itself."""
    proxy = AsyncBatchingMapProxy[int, str](2)

    async def read() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise OSError("clean-up")

    with pytest.raises(KeyError if body else OSError):  # noqa: PT012 - it is raised in the block
        async with proxy.stream(read(), AsyncCalls(), window=1):
            await settle()
            if body is not None:
                raise body
    assert_idle(proxy)


@faces
async def test_the_body_may_map(face: Face) -> None:
    """It waits for the call of the stream, which goes on by itself, or for nobody."""
    proxy, calls = face.proxy(2, **face.options), face.calls()
    async with entered(proxy.stream(face.source(Source(range(10))), calls, window=6)) as results:
        async for item, result in results:
            mapped = proxy.map([item, item + 1], calls)
            pair = await mapped if face.proxy is AsyncBatchingMapProxy else mapped
            assert pair == [result, str(item + 1)]
    assert_idle(proxy)


async def test_a_stream_inside_of_a_call() -> None:
    """It uses the slot of that call."""
    proxy = AsyncBatchingMapProxy[int, str](3, 1)
    calls = AsyncCalls()

    async def fetch(items: list[int]) -> list[str]:
        async with proxy.stream([item + 100 for item in items], calls, window=2) as results:
            return [f"{result}!" async for _, result in results]

    assert await proxy.map(range(3), fetch) == ["100!", "101!", "102!"]
    assert calls.most_running == 1
    assert_idle(proxy)


async def test_a_stream_that_would_wait_for_itself() -> None:
    """Asking, inside a call, for keys that it is computing is an error, and no hang."""
    proxy = AsyncBatchingMapProxy[int, str](1)

    async def fetch(items: list[int]) -> list[str]:
        async with proxy.stream([100, *items], AsyncCalls()) as results:
            async for _ in results:
                pass
        raise AssertionError

    with pytest.raises(CircularWaitError):
        await proxy.map([1], fetch)
    assert_idle(proxy)


async def test_context_variables() -> None:
    """Source and function see those of the task that entered the block."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    def read() -> Iterator[int]:
        seen.append(variable.get())
        yield 1

    async def fetch(items: list[int]) -> list[str]:
        seen.append(variable.get())
        return ["1"]

    proxy = AsyncBatchingMapProxy[int, str]()
    variable.set("here")
    async with proxy.stream(read(), fetch) as results:
        variable.set("later")
        assert [pair async for pair in results] == [(1, "1")]
    assert seen == ["here", "here"]


@faces
async def test_of_a_bound_function(face: Face) -> None:
    """It has its function."""
    calls = face.calls()
    users = face.proxy(3, **face.options).bind(calls)
    assert await all_of(users.stream(face.source(Source(range(7))), window=5)) == (
        pairs(range(7)),
        None,
    )
    assert sorted(calls.batches) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_chunks() -> None:
    """Lists of as many pairs as are there; what a loop has left comes first."""
    proxy = AsyncBatchingMapProxy[int, str](2, 1)
    calls = AsyncCalls()
    async with proxy.stream(range(100), calls, window=32) as results:
        await settle(200)
        assert await anext(results) == (0, "0")
        chunks = [chunk async for chunk in results.chunks()]
        assert [pair async for pair in results] == []
    assert chunks[0] == pairs([1, 2, 3])
    assert len(chunks[1]) == 28
    assert [pair for chunk in chunks for pair in chunk] == pairs(range(1, 100))
    assert all(chunks)
    assert len(calls.batches) == 50


async def test_several_consumers() -> None:
    """Each pair goes to one of them, and the end to all."""
    proxy = AsyncBatchingMapProxy[int, str](4, 2)
    got: list[list[Any]] = [[], [], []]

    async def consume(results: AsyncStream[int, str], mine: list[Any]) -> None:
        async for pair in results:
            mine.append(pair)
            await checkpoint()

    async with (
        proxy.stream(range(200), AsyncCalls(), window=64) as results,
        anyio.create_task_group() as group,
    ):
        for mine in got:
            group.start_soon(consume, results, mine)
    assert all(got)
    assert sorted(pair for mine in got for pair in mine) == pairs(range(200))
    assert_idle(proxy)


async def test_consumers_at_the_same_moment() -> None:
    """Who comes second takes what the first has left."""
    proxy = AsyncBatchingMapProxy[int, str](8)
    async with (
        anyio.create_task_group() as group,
        proxy.stream(range(64), AsyncCalls(), window=64) as results,
    ):
        await settle()
        callers = Outcomes(group)
        for name in range(3):
            callers.start(name, results.__anext__)
        await settle()
        assert sorted(callers.results.values()) == pairs(range(3))


async def test_no_call_begins_while_all_are_ending() -> None:
    """Not even if somebody asks for results meanwhile."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    gate, begun = anyio.Event(), list[int]()

    async def fetch(items: list[int]) -> list[str]:
        begun.extend(items)
        try:
            await anyio.sleep_forever()
        finally:
            if items == [0]:
                with anyio.CancelScope(shield=True):
                    await gate.wait()
        raise AssertionError

    async def consume(scope: anyio.CancelScope, callers: Outcomes) -> None:
        with scope:
            async with proxy.stream(range(9), fetch) as results:
                await settle()
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await settle()
                    await callers.begin("asks", results.__anext__)
                    gate.set()

    async with together(proxy) as callers:
        await consume(anyio.CancelScope(), callers)
    assert begun == [0, 1]
    assert isinstance(callers.results["asks"], ClosedError)


async def test_a_consumer_that_never_waits_lets_others_run() -> None:
    """At least every thousand pairs there is a checkpoint: it can be cancelled, and others run."""
    proxy = AsyncBatchingMapProxy[int, str](500)
    await proxy.map(range(5000), AsyncCalls())
    got = 0
    with anyio.CancelScope() as scope:
        async with proxy.stream(range(5000), AsyncCalls()) as results:
            async for _ in results:
                got += 1
                scope.cancel()
    assert scope.cancelled_caught
    assert got <= 1000
    assert_idle(proxy)


@pytest.mark.parametrize("error", [Interrupt(), SystemExit(7)])
@pytest.mark.parametrize("taken", [True, False])
async def test_what_is_no_exception(error: BaseException, taken: bool) -> None:
    """It is raised where pairs are taken, or comes out of the block, whatever the body raises."""
    proxy, calls = AsyncBatchingMapProxy[int, str](2, 1), AsyncCalls()
    calls.fail(1, error)
    with pytest.raises(ValueError if taken else type(error)):  # noqa: PT012 - it is left so
        async with proxy.stream(range(6), calls) as results:
            await settle()
            if taken:
                with pytest.raises(type(error)):
                    await anext(results)
                with pytest.raises(StopAsyncIteration):
                    await anext(results)
            raise ValueError
    assert_idle(proxy)


async def test_a_native_cancellation(anyio_backend_name: str) -> None:
    """task.cancel() of the consumer ends it, wherever it is."""
    if anyio_backend_name == "trio":
        pytest.skip("trio has none")
    proxy = AsyncBatchingMapProxy[int, str](2)
    calls = AsyncCalls(gated=True)

    async def consume() -> None:
        async with proxy.stream(range(6), calls) as results:
            async for _ in results:
                raise AssertionError

    task = asyncio.ensure_future(consume())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls.running == 0
    assert_idle(proxy)


def test_a_loop_that_is_closed_with_a_stream_in_it() -> None:
    """Its keys are free for who asks for them then."""
    cache = Cache[str]()
    loop = asyncio.new_event_loop()

    async def consume() -> None:
        proxy = AsyncBatchingMapProxy[int, str](2, cache=cache)
        async with proxy.stream(range(6), AsyncCalls(gated=True)) as results:
            await anext(results)

    task = loop.create_task(consume())
    for _ in range(50):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert len(look(cache).in_flight) == 6
    task._log_destroy_pending = False  # type: ignore[attr-defined] # it is what is tried here
    for each in asyncio.all_tasks(loop):
        each._log_destroy_pending = False  # type: ignore[attr-defined] # as above
    loop.close()

    async def main() -> list[str]:
        return await AsyncBatchingMapProxy[int, str](cache=cache).map(range(6), AsyncCalls())

    assert asyncio.run(main()) == naive(range(6))
    del task
    gc.collect()
    assert_idle(cache)


@pytest.mark.parametrize("kind", [StopAsyncIteration, StopIteration])
async def test_a_function_that_raises_what_ends_loops(kind: type[Exception]) -> None:
    """It does not pass for the end of the stream."""
    proxy = AsyncBatchingMapProxy[Any, Any](2)
    calls, items = AsyncCalls(lambda item: kind()), [Unhashable(kind())]
    for stream in (proxy.stream(range(4), calls), proxy.stream(items, calls)):
        _, raised = await all_of(stream)
        assert isinstance(raised, RuntimeError)
        assert isinstance(raised.__cause__, kind)


async def test_batches_by_weight() -> None:
    """They are as heavy as may be; each key is weighed once; what is too heavy goes alone."""
    weighed: list[int] = []

    def weight(item: int) -> int:
        weighed.append(item)
        return item % 5

    proxy = AsyncBatchingMapProxy[int, str](6, 1, weight=weight, max_weight=6)
    calls = AsyncCalls()
    items = [*range(20), *range(20)]
    async with proxy.stream(items, calls, window=40) as results:
        assert [pair async for pair in results] == pairs(items)
    assert weighed == list(range(20))
    assert calls.keys == list(range(20))
    # The next item would have made it too heavy, or there is none.
    following = [batch[0] for batch in calls.batches[1:]]
    assert all(sum(key % 5 for key in batch) <= 6 for batch in calls.batches)
    for batch, key in zip(calls.batches, following):
        assert sum(each % 5 for each in [*batch, key]) > 6 or len(batch) == 6
    assert_idle(proxy)


async def test_items_that_are_too_heavy_do_not_wait_for_each_other() -> None:
    """Each is a batch of its own, also while more may come: so many calls as there may be."""
    heavy: Any = {"weight": lambda item: 9, "max_weight": 2}
    proxy, calls = AsyncBatchingMapProxy[int, str](4, 3, **heavy), AsyncCalls(gated=True)

    async def read() -> AsyncIterator[int]:
        for item in range(4):
            yield item
        await anyio.sleep_forever()

    async with proxy.stream(read(), calls, window=9):
        await settle()
        assert sorted(calls.batches) == [[0], [1], [2]]
    assert_idle(proxy)


@faces
@pytest.mark.parametrize("bad", [-1, float("nan"), "x", ZeroDivisionError()])
async def test_a_weight_that_cannot_be_had(face: Face, bad: Any) -> None:
    """What was read before comes first."""

    def weight(item: int) -> Any:
        if item == 3 and isinstance(bad, Exception):
            raise bad
        return bad if item == 3 else 1

    proxy = face.proxy(2, weight=weight, max_weight=2)
    got, raised = await all_of(proxy.stream(face.source(Source(range(9))), face.calls()))
    assert got == pairs(range(3))
    assert isinstance(raised, TypeError | ValueError | ZeroDivisionError)
    assert_idle(proxy)


@pytest.mark.parametrize("keep", [True, False])
@in_either_order
async def test_batches_that_are_refused(keep: bool, ordered: bool) -> None:
    """They are halved; what a half has given comes, and a refused item is a failure."""
    boom = ValueError("boom")
    calls = AsyncCalls()

    async def fetch(items: list[int]) -> list[str]:
        if 5 in items:
            raise SplitBatch from boom
        return await calls(items)

    proxy = AsyncBatchingMapProxy[int, str](8, 1)
    got: list[Any] = []
    async with proxy.stream(range(16), fetch, ordered=ordered, return_exceptions=keep) as results:
        if keep:
            await drain(results, got)
            expected = [(key, boom if key == 5 else str(key)) for key in range(16)]
            assert got == expected if ordered else sorted(got, key=str) == sorted(expected, key=str)
        else:
            with pytest.raises(ValueError, match="boom") as caught:
                await drain(results, got)
            assert caught.value is boom
            assert set(got) >= set(pairs(range(5)))
            assert not [result for _, result in got if isinstance(result, Exception)]
    assert_idle(proxy)


async def test_misuse() -> None:
    """Each error says what to write instead."""
    proxy = AsyncBatchingMapProxy[Any, str]()
    calls = AsyncCalls()
    with pytest.raises(TypeError, match="takes an iterable of items as its first argument, got"):
        proxy.stream(5, calls)  # type: ignore[call-overload] # that is tried here
    with pytest.raises(TypeError, match="stream\\(\\) takes a function from a list of items"):
        proxy.stream([], 5)  # type: ignore[call-overload] # that is tried here
    for window in (0, -1):
        with pytest.raises(ValueError, match="window must be 1 or more, got"):
            proxy.stream([], calls, window=window)
    wrongs: list[Any] = [True, 1.5, "10", None]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="window must be an integer"):
            proxy.stream([], calls, window=wrong)

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise TypeError("broken")

    with pytest.raises(TypeError, match="broken"):
        proxy.stream(Broken(), calls)

    stream = proxy.stream([1, 2], calls)
    with pytest.raises(ClosedError, match=r"async with proxy\.stream"):
        await anext(stream)
    async with stream as results:
        assert await anext(results) == (1, "1")
        with pytest.raises(ClosedError, match="entered once"):
            async with stream:
                pass
    with pytest.raises(ClosedError, match=r"async with proxy\.stream"):
        await anext(stream)
    with pytest.raises(ClosedError, match="entered once"):
        async with stream:
            pass
    await proxy.aclose()
    with pytest.raises(ClosedError, match="stream\\(\\) on a closed proxy"):
        proxy.stream([1], calls)


async def test_nothing_is_read_before_the_block_is_entered() -> None:
    """stream() alone does nothing."""
    source = Source(range(5))
    AsyncBatchingMapProxy[int, str]().stream(source, AsyncCalls())
    await settle()
    assert source.read == 0


@faces
@pytest.mark.parametrize("chunks", [True, False])
async def test_an_empty_source(face: Face, chunks: bool) -> None:
    """It is at its end at once."""
    stream = face.proxy(3).stream(face.source(Source([])), face.calls())
    async with entered(stream) as results:
        assert [each async for each in (results.chunks() if chunks else results)] == []


@faces
@pytest.mark.parametrize("bad", [frozenset(), [], (1, frozenset())])
async def test_a_key_that_no_store_can_have(face: Face, bad: Any) -> None:
    """What was read before it still comes."""
    cache = Cache[str](store=MemoryStore(), namespace="n")
    proxy, calls = face.proxy(2, **face.options, cache=cache), face.calls()
    source = face.source(Source([1, "2", (3,), bad, 5]))
    got, raised = await all_of(proxy.stream(source, calls))
    assert got == pairs([1, "2", (3,)])
    assert isinstance(raised, TypeError)
    assert len(calls.keys) == 3


@pytest.mark.parametrize(
    "options",
    [{}, {"key": lambda item: item + 0}, {"key": str, "weight": int, "max_weight": 9}],
    ids=["not hashable", "key=", "weight="],
)
@pytest.mark.parametrize("then", ["goes on", "raises"])
async def test_nothing_comes_behind_what_was_refused(options: Any, then: str) -> None:
    """Also of what an asynchronous source has given, or raised, before that was known."""

    async def source() -> AsyncIterator[Any]:
        yield 1
        yield []
        await checkpoint()
        if then == "raises":
            raise KeyError("later")
        yield 5

    calls = AsyncCalls()
    got, raised = await all_of(AsyncBatchingMapProxy(1, **options).stream(source(), calls))
    assert got == pairs([1])
    assert isinstance(raised, TypeError)
    assert calls.batches == [[1]]


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("weighed", [True, False])
@in_either_order
async def test_keys_that_equal_nothing(keyed: bool, weighed: bool, ordered: bool) -> None:
    """NaN is one key as long as one is in the window, and neither it nor its weight is kept."""
    nans, asked = [float("nan") for _ in range(6)], list[float]()

    def weight(item: float) -> float:
        asked.append(item)
        return 1

    key = (lambda item: (item, 1)) if keyed else None
    limit: Any = {"weight": weight, "max_weight": 2} if weighed else {}
    proxy = AsyncBatchingMapProxy[float, str](2, 1, key=key, **limit)
    calls = AsyncCalls(gated=True)
    free = sys.getrefcount(nans[-1])

    async def read() -> AsyncIterator[float]:
        for nan in nans:
            await settle(5)
            yield nan
            yield 1.0

    async with proxy.stream(read(), calls, window=20, ordered=ordered) as results:
        await settle(100)
        assert len(calls.batches) == 1
        calls.open()
        got = [pair async for pair in results]
        assert len(got) == 12
        assert len(asked) == 2 * weighed
        held = sys.getrefcount(nans[-1])
        assert held == free + 1 or FREE_THREADED  # beside its result
    assert all(result == str(item) for item, result in got)
    assert len(calls.keys) == 2
    assert proxy.statistics().cached == 1
    assert_idle(proxy)


@faces
async def test_progress(face: Face) -> None:
    """It is told how far the stream is; the total is what has been read."""
    seen: list[Progress] = []
    proxy = face.proxy(2, limit=Limit(1))
    source = face.source(Source(range(6)))
    await all_of(proxy.stream(source, face.calls(), window=4, progress=seen.append))
    assert [now.done for now in seen] == sorted(now.done for now in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].calls) == (6, 6, 3)


@faces
async def test_a_bar(face: Face, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It disturbs nothing, and is closed."""
    monkeypatch.delattr(pytest.importorskip("tqdm").tqdm, "__del__")  # which would close it, too
    proxy = face.proxy(2, limit=Limit(1))
    stream = proxy.stream(face.source(Source(range(8))), face.calls(), progress=True)
    assert await all_of(stream) == (pairs(range(8)), None)
    assert capsys.readouterr().err.endswith("\n")


async def test_memory_is_flat() -> None:
    """What has been taken is forgotten, whatever the source has more."""
    proxy = AsyncBatchingMapProxy[int, str](100, cache=Cache(0))

    async def fetch(items: list[int]) -> list[str]:
        return naive(items)

    sizes = []
    tracemalloc.start()
    try:
        async with proxy.stream(range(30_000), fetch, window=1000) as results:
            async for item, _ in results:
                if item % 10_000 == 5000:
                    gc.collect()
                    sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes) - min(sizes) < 300_000


@faces
@pytest.mark.parametrize("key", [None, str])
async def test_keys_that_were_taken_are_forgotten(face: Face, key: Any) -> None:
    """With a store, too, which knows them by other names."""
    keys = [f"key {number}" for number in range(100)]
    cache = Cache[str](0, store=MemoryStore(), namespace="n")
    proxy, calls = face.proxy(10, cache=cache, key=key, **face.options), face.calls(str)
    free, held = sys.getrefcount(keys[-1]), []
    async with entered(proxy.stream(face.source(Source(keys)), calls, window=20)) as results:
        async for _ in results:
            calls.batches.clear()
            held.append(sys.getrefcount(keys[0]))
    assert held[-1] == free < held[0] or FREE_THREADED  # where a thread may have it longer


@faces
@pytest.mark.parametrize("how", ["at the end", "call", "source", "untold", "left", "not entered"])
async def test_nothing_is_left_to_the_collector(face: Face, how: str) -> None:
    """A stream is freed when its last reference goes, whatever has become of it."""
    with freed_at_once() as made:
        things = [Thing() for _ in range(6)]
        made += [weakref.ref(thing) for thing in things]
        source: Any = Source(things, ValueError if how in ("source", "untold") else None)
        calls = face.calls(lambda item: 1 / 0 if how == "call" else str(item))
        proxy = face.proxy(2, **face.options, cache=Cache(0))
        del things
        stream: Any = proxy.stream(face.source(source), calls)
        results: Any = None
        with suppress(ValueError, ZeroDivisionError):
            if how != "not entered":
                async with entered(stream) as results:
                    async for _ in results:
                        await settle()
                        if how in ("untold", "left"):
                            break
        calls.batches.clear()
        results = _ = source = stream = None
        await settle()


@pytest.mark.parametrize("takes", [True, False])
async def test_nothing_is_left_of_a_ring(takes: bool) -> None:
    """What is raised where pairs are taken, or where the block is left, is in no cycle."""
    proxy = AsyncBatchingMapProxy[int, str](1)
    with freed_at_once() as made:

        async def fetch(items: list[int]) -> list[str]:
            try:
                async with proxy.stream(items, AsyncCalls()) as results:
                    while takes:
                        await anext(results)
                    await settle()
            except CircularWaitError as error:
                error.thing = thing = Thing()  # type: ignore[attr-defined] # goes with it
                made.append(weakref.ref(thing))
            return ["done"]

        assert await proxy.map([1], fetch) == ["done"]
        await settle()


@faces
async def test_with_a_store(face: Face) -> None:
    """It is read in bulk, what is in it thins no batch, and what is computed is written."""
    store = MemoryStore()
    cache = Cache[str](0, store=store, namespace="stream")
    cache.prime({key: str(key) for key in range(0, 40, 2)})
    store.asked.clear()
    proxy, calls = face.proxy(5, cache=cache, **face.options), face.calls()
    stream = proxy.stream(face.source(Source(range(40))), calls, window=40)
    assert await all_of(stream) == (pairs(range(40)), None)
    assert sorted(map(len, calls.batches)) == [5, 5, 5, 5]
    reads = [count for method, count in store.asked if method == "get_many"]
    assert sum(reads) == 40
    assert len(reads) == 1 or face.source is Source.gen  # which gives one at a time
    assert len(store.values) == 40
    assert proxy.statistics().stored == 20
    stream = proxy.stream(face.source(Source(range(40))), face.calls(gated=True), window=7)
    assert await all_of(stream) == (pairs(range(40)), None)
    assert proxy.statistics().stored == 60
    await released()
    assert_idle(proxy)


async def test_a_store_that_fails_ends_the_stream() -> None:
    """With a StoreError, also with return_exceptions=True."""
    store = MemoryStore()
    cache = Cache[str](0, store=store, namespace="stream")
    proxy = AsyncBatchingMapProxy[Any, str](5, 2, cache=cache)
    store.fail["get_many"] = OSError("gone")
    with pytest.raises(StoreError):
        async with proxy.stream(range(9), AsyncCalls(), return_exceptions=True) as results:
            await anext(results)
    assert_idle(proxy)


@faces
async def test_a_failure_while_another_process_computes(face: Face) -> None:
    """What that has is not in flight here any more: nobody waits for it."""
    store = MemoryStore()
    store.claim_many("stream", digests([1]), OTHER, 1)
    cache = Cache[str](store=store, namespace="stream")
    proxy, calls = face.proxy(1, cache=cache, **face.options), face.calls(lambda item: 1 / 0)
    taken, error = await all_of(proxy.stream(face.source([1, 2]), calls))
    assert (taken, type(error), calls.batches) == ([], ZeroDivisionError, [[2]])
    await released()
    assert_idle(proxy)


async def test_two_processes_share_the_work() -> None:
    """As of two caches of one store: what the other computes is waited for, and thins no batch."""
    store = MemoryStore()
    caches = [Cache[str](0, store=store, namespace="stream") for _ in range(2)]
    one, other = (AsyncBatchingMapProxy[int, str](4, 2, cache=cache) for cache in caches)
    theirs, calls = AsyncCalls(gated=True), AsyncCalls()
    async with together() as callers:
        callers.start("other", other.map, [0, 2, 4, 6], theirs)
        await theirs.wait_begun()
        async with one.stream(range(16), calls, window=16) as results:
            await calls.wait_begun(3)
            theirs.open()
            assert [pair async for pair in results] == pairs(range(16))
    assert [len(batch) for batch in calls.batches] == [4, 4, 4]
    assert one.statistics().shared == 4
    await released()
    assert_idle(one, other)


def test_an_interrupt_while_the_block_is_left() -> None:
    """Trio delivers it in a group; it comes out bare."""
    trio = pytest.importorskip("trio")

    @trio.lowlevel.enable_ki_protection  # type: ignore[untyped-decorator] # it is not imported
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    async def fetch(items: list[int]) -> list[str]:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                interrupt()
                await settle()
        raise AssertionError

    async def main() -> None:
        proxy = AsyncBatchingMapProxy[int, str](2)
        with pytest.raises(KeyboardInterrupt):
            async with proxy.stream(range(4), fetch):
                await settle()
        assert_idle(proxy)

    anyio.run(main, backend="trio")


async def test_who_waits_while_another_task_leaves_the_block() -> None:
    """That is no end of the stream: they are told."""
    proxy = AsyncBatchingMapProxy[int, str](2)
    stream = proxy.stream(range(4), AsyncCalls(gated=True))
    async with together(proxy) as callers, stream as results:
        await callers.begin("waits", results.__anext__)
    assert isinstance(callers.results["waits"], ClosedError)


async def test_an_asynchronous_source_that_never_waits() -> None:
    """Calls begin while it is read, and others run."""

    async def read() -> AsyncIterator[int]:
        for item in range(5000):
            yield item

    proxy = AsyncBatchingMapProxy[int, str](100, 1)
    calls = AsyncCalls(gated=True)
    async with proxy.stream(read(), calls) as results:
        await settle()
        assert len(calls.batches) == 1
        calls.open()
        assert [pair async for pair in results] == pairs(range(5000))
