"""Bad input is a clear error, before any work where it can be known; nothing is cached or held."""

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from tools import naive, together

from batchproxy import (
    AnswerTypeError,
    AnswerValueError,
    AsyncBatchingMapProxy,
    BatchingMapProxy,
    Cache,
    ClosedError,
)
from batchproxy.testing import AsyncCalls, assert_idle

Proxy = type[AsyncBatchingMapProxy[Any, Any]] | type[BatchingMapProxy[Any, Any]]
both = pytest.mark.parametrize("face", [AsyncBatchingMapProxy, BatchingMapProxy])


def run(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method of either kind of proxy gives."""
    function = method.func if isinstance(method, functools.partial) else method
    asynchronous = inspect.iscoroutinefunction(function)
    return anyio.run(method, *arguments) if asynchronous else method(*arguments)


def mapped(
    proxy: Any, items: Any, answer: Callable[[list[Any]], Any] = naive, **options: Any
) -> list[Any]:
    """What `map()` gives for a batch function of the proxy's kind that answers so."""

    async def fetch(batch: list[Any]) -> Any:
        return answer(batch)

    function = answer if isinstance(proxy, BatchingMapProxy) else fetch
    results: list[Any] = run(functools.partial(proxy.map, **options), items, function)
    return results


def refuse(batch: list[Any]) -> Any:
    raise AssertionError(f"the function was called with {batch}")


def assert_untouched(proxy: Any) -> None:
    now = proxy.statistics()
    assert (now.cached, now.in_flight, now.waiting, now.running) == (0, 0, 0, 0)


class Odd:
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise TypeError("not to be compared")


async def asynchronous() -> AsyncIterator[int]:
    yield 1


async def asynchronous_key(item: Any) -> Hashable:
    raise AssertionError


class Raising:
    def __iter__(self) -> Iterator[int]:
        yield 1
        raise TypeError("of the iterator")


class Hiding(list[Any]):
    """It is longer than what it gives."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self[1:])


class Awaited:
    def __await__(self) -> Iterator[None]:
        raise AssertionError


def no_key(item: object) -> Hashable:
    raise TypeError("of the key function")


UNHASHABLE = r"item 1 is an unhashable 'dict'.*key="
NO_ITERABLE = r"map\(\) takes an iterable of items.*put a single item"


@both
@pytest.mark.parametrize(
    ("options", "items", "message"),
    [
        ({}, ["fine", {"id": 1}], UNHASHABLE),
        ({"cache": Cache(max_size=3)}, ["fine", {"id": 1}], UNHASHABLE),
        ({}, [*range(30_000), {"id": 1}], "item 30000 is an unhashable 'dict'"),
        ({"cache": type("M", (dict,), {})()}, ["fine", {"id": 1}], UNHASHABLE),
        ({"key": lambda item: [item]}, [1], "key= function gave the unhashable 'list' for item 0"),
        ({}, None, NO_ITERABLE),
        ({}, 3, NO_ITERABLE),
        ({}, object(), NO_ITERABLE),
        ({}, asynchronous(), "'async_generator'.*collect an asynchronous iterable"),
        # A TypeError of another origin arrives as it is.
        ({}, [Odd(), Odd()], "not to be compared"),
        ({}, [*range(30_000), Odd(), Odd()], "not to be compared"),
        ({}, Raising(), "of the iterator"),
        ({"key": no_key}, [1], "of the key function"),
    ],
)
def test_items(face: Proxy, options: Any, items: Any, message: str) -> None:
    """Those that cannot be used are refused before any call, with what to write instead."""
    proxy = face(**options)
    for more in ({}, {"return_exceptions": True}):  # no item of the list has failed
        with pytest.raises(TypeError, match=message):
            mapped(proxy, items, refuse, **more)
    assert_untouched(proxy)
    assert proxy.statistics().calls == proxy.statistics().maps == 0


@both
@pytest.mark.parametrize("map_func", [None, "name", [1]])
def test_functions_that_cannot_be_called(face: Proxy, map_func: Any) -> None:
    """They are refused on both faces."""
    with pytest.raises(TypeError, match=r"map\(\) takes a function"):
        run(face().map, [1], map_func)


def test_a_sync_function_for_the_async_proxy() -> None:
    """It is told from an async one when it has been called; nothing is kept of it."""
    proxy = AsyncBatchingMapProxy[int, str]()
    with pytest.raises(AnswerTypeError, match=r"not asynchronous.*'list'.*async def"):
        anyio.run(proxy.map, [1], naive)  # type: ignore[arg-type] # not async
    assert_untouched(proxy)


@both
def test_async_generator_functions(face: Proxy) -> None:
    """They fit neither face: what they give can be awaited as little as it can be counted."""
    asked: list[int] = []

    async def generate(batch: list[int]) -> AsyncIterator[str]:
        asked.extend(batch)
        yield "1"

    proxy = face()
    remedy = ".*return a list instead" if face is AsyncBatchingMapProxy else ""
    with pytest.raises(AnswerTypeError, match=f"'async_generator'{remedy}"):
        run(proxy.map, [1], generate)
    assert asked == []
    assert_untouched(proxy)


def generator(batch: list[int]) -> Any:
    yield from batch


class Unsized:
    """Like an array of no dimension."""

    def __len__(self) -> int:
        raise TypeError("len() of unsized object")

    def __getitem__(self, index: int) -> None:
        raise IndexError


class Promise:
    """Can be awaited, and cannot be closed."""

    def __await__(self) -> Any:
        yield from ()
        return self


class Table:
    """One whose length is that of its rows, but which gives its columns."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> None: ...

    def __iter__(self) -> Any:
        return iter(["id", "name", "text"])


def kind(name: str) -> str:
    return f"answered with '?{name}'?, expected a list"


@both
@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda batch: None, AnswerTypeError, kind("None")),
        (lambda batch: "ab", AnswerTypeError, kind("str")),
        (lambda batch: b"ab", AnswerTypeError, kind("bytes")),
        (lambda batch: bytearray(2), AnswerTypeError, kind("bytearray")),
        (lambda batch: {"a", "b"}, AnswerTypeError, kind("set")),
        (lambda batch: memoryview(b"ab"), AnswerTypeError, kind("memoryview")),
        (lambda batch: {1: "a", 2: "b"}.keys(), AnswerTypeError, kind("dict_keys")),
        (lambda batch: {1: "a", 2: "b"}.values(), AnswerTypeError, kind("dict_values")),
        (lambda batch: {1: "a", 2: "b"}.items(), AnswerTypeError, kind("dict_items")),
        (generator, AnswerTypeError, kind("generator")),
        (lambda batch: 3, AnswerTypeError, kind("int")),
        (lambda batch: Unsized(), AnswerTypeError, kind("Unsized")),
        (lambda batch: Promise(), AnswerTypeError, kind("Promise")),
        (lambda batch: ["a"], AnswerValueError, "1 results to a batch of 2 items"),
        (lambda batch: ("a", "b", "c"), AnswerValueError, "3 results to a batch of 2 items"),
        (lambda batch: [], AnswerValueError, "0 results to a batch of 2 items"),
        (lambda batch: {1: "a"}, AnswerValueError, "lacks 1 of its 2 keys: 2"),
        (lambda batch: {}, AnswerValueError, "lacks 2 of its 2 keys: 1, 2"),
        (lambda batch: Table(), AnswerValueError, "3 results to a batch of 2 items"),
        (lambda batch: Hiding(batch), AnswerValueError, "1 results to a batch of 2 items"),
    ],
)
def test_answers(face: Proxy, answer: Any, error: type[Exception], message: str) -> None:
    """The error names what came and what was expected; nothing is cached, no key is held."""
    proxy = face()
    with pytest.raises(error, match=message):
        mapped(proxy, [1, 2], answer)
    assert_untouched(proxy)
    assert mapped(proxy, [1, 2]) == ["1", "2"]


NO_CACHE = "cache must be a Cache or a mutable mapping"


@both
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": True}, TypeError, "batch_size must be an integer.*True"),
        ({"batch_size": "3"}, TypeError, "batch_size must be an integer.*3"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer.*1.5"),
        ({"max_concurrency": True}, TypeError, "max_concurrency must be an integer.*True"),
        ({"max_concurrency": "3"}, TypeError, "max_concurrency must be an integer.*3"),
        ({"max_concurrency": 1.5}, TypeError, "max_concurrency must be an integer.*1.5"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be 1 or more"),
        ({"max_concurrency": -1}, ValueError, "max_concurrency must be 1 or more"),
        ({"cache": [1]}, TypeError, NO_CACHE),
        ({"cache": Cache}, TypeError, f"{NO_CACHE}, got <class"),
        ({"cache": MappingProxyType({})}, TypeError, NO_CACHE),
        ({"key": "id"}, TypeError, "key must be a plain function from item to key"),
        ({"key": asynchronous_key}, TypeError, "key must be a plain function.*asynchronous_key"),
    ],
)
def test_options(face: Proxy, options: Any, error: type[Exception], message: str) -> None:
    """The error names what came and what was expected."""
    with pytest.raises(error, match=message):
        face(**options)
    with pytest.raises(TypeError):
        face(1, 1, *options.values())  # options are keyword-only


def test_options_of_one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread and a backend, which has to be there, are for the sync proxy alone."""
    with pytest.raises(TypeError, match="max_concurrency must be an integer"):
        AsyncBatchingMapProxy[int, str](max_concurrency=None)  # type: ignore[arg-type] # wrong
    assert BatchingMapProxy[int, str](max_concurrency=None).max_concurrency is None
    with pytest.raises(ValueError, match="backend must be 'asyncio' or 'trio', got 'curio'"):
        BatchingMapProxy[int, str](backend="curio")  # type: ignore[arg-type] # wrong
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"batchproxy\[trio\]"):
        BatchingMapProxy[int, str](backend="trio")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ttl": -1}, ValueError, "ttl must be 0 seconds or more"),
        ({"ttl": float("nan")}, ValueError, "ttl must be 0 seconds or more"),
        ({"ttl": "1"}, TypeError, "ttl must be a number of seconds"),
        ({"ttl": True}, TypeError, "ttl must be a number of seconds"),
        ({"max_size": -1}, ValueError, "max_size must be 0 or more"),
        ({"max_size": True}, TypeError, "max_size must be an integer"),
        ({"max_size": 1.5}, TypeError, "max_size must be an integer"),
        ({"max_size": "3"}, TypeError, "max_size must be an integer or None, got '3'"),
    ],
)
def test_bounds(options: Any, error: type[Exception], message: str) -> None:
    """A bound that cannot be meant is refused."""
    with pytest.raises(error, match=message):
        Cache(**options)


def test_prime_and_invalidate() -> None:
    """They take a mapping, and an iterable of keys; nothing is changed by what is refused."""
    cache: Any = Cache[Any]()
    cache.prime({"a": 1})
    with pytest.raises(TypeError, match=r"prime\(\) takes a mapping.*dict\(zip"):
        cache.prime([("b", 2)])
    for error in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(ValueError, match="exception for 'b': exceptions are not cached"):
            cache.prime({"a": 2, "b": error})
    with pytest.raises(AnswerTypeError, match="'Awaited' for 'b', which is still to be awaited"):
        cache.prime({"a": 2, "b": Awaited()})
    for key in ("a", b"a", 3):
        with pytest.raises(TypeError, match=rf"invalidate\(\) takes an iterable.*\[{key!r}\]"):
            cache.invalidate(key)
    with pytest.raises(TypeError, match=r"invalidate\(\) takes keys.*not hashable"):
        cache.invalidate(["a", [2]])
    assert ("a" in cache, len(cache)) == (True, 1)


@both
def test_a_closed_proxy(face: Proxy) -> None:
    """After close() there is no map(); closing again is fine, and deletes nothing."""
    cache = Cache[str]()
    proxy: Any = face(cache=cache)
    assert mapped(proxy, [1]) == ["1"]
    for _ in range(2):
        run(proxy.aclose if face is AsyncBatchingMapProxy else proxy.close)
    with pytest.raises(ClosedError, match="closed proxy"):
        mapped(proxy, [1], refuse)
    with pytest.raises(RuntimeError):
        mapped(proxy, [])
    assert 1 in cache
    assert " closed " in repr(proxy)


async def test_closing_a_proxy_whose_calls_others_wait_for() -> None:
    """It deletes nothing of a shared cache, and who waits for its calls gets their answers."""
    cache = Cache[str]()
    closing, other = (AsyncBatchingMapProxy[int, str](1, 1, cache=cache) for _ in range(2))
    await closing.map([0], AsyncCalls())
    calls = AsyncCalls(gated=True)
    async with together(closing, other) as callers:
        async with closing:
            await callers.begin("owner", closing.map, [1, 2], calls)
            await callers.begin("waiter", other.map, [0, 1], calls)
        with pytest.raises(ClosedError):
            await closing.map([1], calls)
        calls.open()
    assert callers.results == {"owner": ["1", "2"], "waiter": ["0", "1"]}
    assert await other.map([0, 1, 2], calls) == ["0", "1", "2"]
    assert calls.batches == [[1], [2]]
    await closing.clear()
    assert other.statistics().cached == 0


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_key_function_that_raises(bad: int) -> None:
    """Its error arrives, whichever item it is of; a call under way and its waiters go on."""
    proxy = AsyncBatchingMapProxy[dict[str, int], int](key=lambda item: item["id"])
    calls = AsyncCalls(lambda item: item["id"], gated=True)
    good = [{"id": number} for number in range(3)]
    async with together(proxy) as callers:
        for name in ("owner", "waiter"):
            await callers.begin(name, proxy.map, good, calls)
        with pytest.raises(KeyError, match="id"):
            await proxy.map([*good[:bad], {}, *good[bad:]], calls)
        assert proxy.statistics().in_flight == 3
        calls.open()
    assert callers.results == {"owner": [0, 1, 2], "waiter": [0, 1, 2]}
    assert calls.batches == [good]


@both
@pytest.mark.parametrize("option", ["key", "weight"])
@pytest.mark.parametrize("bad", [0, 2])
def test_functions_of_items_that_raise_stop_iteration(face: Proxy, option: str, bad: int) -> None:
    """It is a failure as others are, and not the end of the items."""
    items = [{"tags": [number] * (number != bad)} for number in range(3)]
    rest: Any = {"weight": {"key": str, "max_weight": 1}, "key": {}}[option]
    rest[option] = lambda item: next(iter(item["tags"]))
    proxy = face(**rest)
    message = f"the {option}= function raised StopIteration for item {bad}"
    with pytest.raises(RuntimeError, match=message):
        mapped(proxy, items, refuse)
    with pytest.raises(RuntimeError, match=f"the {option}= function raised StopIteration$"):
        run(proxy.bind(refuse).load, {"tags": []})
    assert_untouched(proxy)


def test_coroutines_made_of_generators() -> None:
    """They can be awaited, although their type does not say so."""

    @types.coroutine
    def fetch(batch: list[int]) -> Any:
        return naive(batch)
        yield

    proxy = AsyncBatchingMapProxy[int, str](2)
    assert anyio.run(proxy.map, [1, 2, 3], fetch) == ["1", "2", "3"]


def test_without_an_event_loop() -> None:
    """It is told as by everything that has to be awaited, and nothing is asked for."""
    proxy = AsyncBatchingMapProxy[int, str]()
    with pytest.raises(RuntimeError, match="event loop"):
        proxy.bind(AsyncCalls()).load(1).send(None)
    with pytest.raises(RuntimeError, match="event loop"):
        proxy.map([1], AsyncCalls()).send(None)
    assert_idle(proxy)
