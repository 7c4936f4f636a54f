"""Bad input is a clear error, before any work where it can be known; nothing is cached or held."""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterator, Callable, Hashable
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from tools import Outcomes, naive, settle

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


def mapped(
    proxy: Any, items: Any, answer: Callable[[list[Any]], Any] = naive, **options: Any
) -> list[Any]:
    """What `map()` gives for a batch function of the proxy's kind that answers so."""
    if isinstance(proxy, BatchingMapProxy):
        return proxy.map(items, answer, **options)

    async def fetch(batch: list[Any]) -> Any:
        return answer(batch)

    async def main() -> Any:
        return await proxy.map(items, fetch, **options)

    result: list[Any] = anyio.run(main)
    return result


def refuse(batch: list[Any]) -> Any:
    raise AssertionError(f"the function was called with {batch}")


def assert_untouched(proxy: Any) -> None:
    now = proxy.statistics()
    assert (now.cached, now.in_flight, now.waiting, now.running) == (0, 0, 0, 0)


@both
@pytest.mark.parametrize(
    "options", [{}, {"cache": Cache(max_size=3)}, {"cache": type("M", (dict,), {})()}]
)
def test_unhashable_items(face: Proxy, options: Any) -> None:
    """They are refused before any call, with the advice to give key=."""
    proxy = face(**options)
    with pytest.raises(TypeError, match=r"item 1 is an unhashable 'dict'.*key="):
        mapped(proxy, ["fine", {"id": 1}], refuse)
    assert_untouched(proxy)


@both
def test_unhashable_keys(face: Proxy) -> None:
    """What key= gives has to be hashable; and what it raises arrives as it is."""
    proxy = face(key=lambda item: [item])  # type: ignore[arg-type, return-value] # unhashable
    with pytest.raises(TypeError, match="key= function gave the unhashable 'list' for item 0"):
        mapped(proxy, [1], refuse)
    assert_untouched(proxy)
    with pytest.raises(KeyError, match="id"):
        mapped(face(key=lambda item: item["id"]), [{}], refuse)


@both
def test_a_hash_that_raises_something_else(face: Proxy) -> None:
    """A TypeError of another origin is not mistaken for an unhashable item."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise TypeError("not to be compared")

    with pytest.raises(TypeError, match="not to be compared"):
        mapped(face(), [Odd(), Odd()], refuse)


@both
@pytest.mark.parametrize("items", [None, 3, object()])
def test_items_that_are_no_iterable(face: Proxy, items: Any) -> None:
    """The error says what came, and what to write instead."""
    with pytest.raises(TypeError, match=r"map\(\) takes an iterable of items.*put a single item"):
        mapped(face(), items, refuse)


@both
def test_asynchronous_iterables(face: Proxy) -> None:
    """They are to be collected first."""

    async def generate() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"'async_generator'.*collect an asynchronous iterable"):
        mapped(face(), generate(), refuse)


@both
def test_an_iterator_that_raises(face: Proxy) -> None:
    """What the iterator of the items raises arrives as it is, a TypeError too."""

    def items() -> Any:
        yield 1
        raise TypeError("of the iterator")

    with pytest.raises(TypeError, match="of the iterator"):
        mapped(face(), items(), refuse)


@pytest.mark.parametrize("map_func", [None, "name", [1]])
def test_functions_that_cannot_be_called(map_func: Any) -> None:
    """They are refused on both faces."""
    with pytest.raises(TypeError, match=r"map\(\) takes a function"):
        BatchingMapProxy[int, str]().map([1], map_func)
    with pytest.raises(TypeError, match=r"map\(\) takes a function"):
        anyio.run(AsyncBatchingMapProxy[int, str]().map, [1], map_func)


def test_a_sync_function_for_the_async_proxy() -> None:
    """It is told from an async one when it has been called; nothing is kept of it."""
    proxy = AsyncBatchingMapProxy[int, str]()
    with pytest.raises(AnswerTypeError, match=r"not asynchronous.*'list'.*async def"):
        anyio.run(proxy.map, [1], naive)  # type: ignore[arg-type] # not async
    assert_untouched(proxy)

    assert_untouched(proxy)


@both
def test_async_generator_functions(face: Proxy) -> None:
    """They fit neither face: what they give can be awaited as little as it can be counted."""
    asked: list[int] = []

    async def generate(batch: list[int]) -> AsyncIterator[str]:
        asked.extend(batch)
        yield "1"

    proxy: Any = face()
    run = proxy.map if face is BatchingMapProxy else functools.partial(anyio.run, proxy.map)
    remedy = ".*return a list instead" if face is AsyncBatchingMapProxy else ""
    with pytest.raises(AnswerTypeError, match=f"'async_generator'{remedy}"):
        run([1], generate)
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


WRONG_KINDS: dict[str, Callable[[list[int]], Any]] = {
    "None": lambda batch: None,
    "str": lambda batch: "ab",
    "bytes": lambda batch: b"ab",
    "bytearray": lambda batch: bytearray(2),
    "set": lambda batch: {"a", "b"},
    "memoryview": lambda batch: memoryview(b"ab"),
    "dict_keys": lambda batch: {1: "a", 2: "b"}.keys(),
    "dict_values": lambda batch: {1: "a", 2: "b"}.values(),
    "dict_items": lambda batch: {1: "a", 2: "b"}.items(),
    "generator": generator,
    "int": lambda batch: 3,
    "Unsized": lambda batch: Unsized(),
    "Promise": lambda batch: Promise(),
}


@both
@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_answers_of_a_wrong_kind(face: Proxy, kind: str) -> None:
    """The error names what came and what was expected; nothing is cached, no key is held."""
    proxy = face()
    with pytest.raises(AnswerTypeError, match=f"answered with '?{kind}'?, expected a list"):
        mapped(proxy, [1, 2], WRONG_KINDS[kind])
    assert_untouched(proxy)
    assert mapped(proxy, [1, 2]) == ["1", "2"]


@both
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["a"], "1 results to a batch of 2 items"),
        (("a", "b", "c"), "3 results to a batch of 2 items"),
        ([], "0 results to a batch of 2 items"),
        ({1: "a"}, "lacks 2 of its 2 keys"),
        ({}, "lacks 1, 2 of its 2 keys"),
    ],
)
def test_answers_of_a_wrong_length(face: Proxy, answer: Any, message: str) -> None:
    """As for a wrong kind, but that it is a ValueError."""
    proxy = face()
    with pytest.raises(AnswerValueError, match=message):
        mapped(proxy, [1, 2], lambda batch: answer)
    assert_untouched(proxy)
    assert mapped(proxy, [1, 2]) == ["1", "2"]


@both
def test_an_answer_that_lies_about_its_length(face: Proxy) -> None:
    """Such as a table whose length is that of its rows, but which gives its columns."""

    class Table:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, name: str) -> None: ...

        def __iter__(self) -> Any:
            return iter(["id", "name", "text"])

    with pytest.raises(AnswerValueError):
        mapped(face(), [1, 2], lambda batch: Table())


@both
def test_many_missing_keys_are_not_all_named(face: Proxy) -> None:
    """A message stays readable, however large the batch."""
    with pytest.raises(AnswerValueError, match="0, 1, 2, 3, 4 and 95 more of its 100 keys"):
        mapped(face(), range(100), lambda batch: {})


@both
@pytest.mark.parametrize("value", [True, "3", 1.5])
@pytest.mark.parametrize("name", ["batch_size", "max_concurrency"])
def test_numbers_of_a_wrong_type(face: Proxy, name: str, value: Any) -> None:
    """bool, str and float are no integers."""
    with pytest.raises(TypeError, match=f"{name} must be an integer.*{value}"):
        face(**{name: value})


@both
@pytest.mark.parametrize("value", [0, -1])
def test_max_concurrency_below_one(face: Proxy, value: int) -> None:
    """There is no proxy that never calls."""
    with pytest.raises(ValueError, match="max_concurrency must be 1 or more"):
        face(max_concurrency=value)


def test_max_concurrency_none() -> None:
    """None means the calling thread, which only the sync proxy has."""
    with pytest.raises(TypeError, match="max_concurrency must be an integer"):
        AsyncBatchingMapProxy[int, str](max_concurrency=None)  # type: ignore[arg-type] # wrong
    assert BatchingMapProxy[int, str](max_concurrency=None).max_concurrency is None


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": [1]}, "cache must be a Cache or a mutable mapping"),
        ({"cache": Cache}, "cache must be a Cache or a mutable mapping, got <class"),
        ({"cache": MappingProxyType({})}, "cache must be a Cache or a mutable mapping"),
        ({"key": "id"}, "key must be a function from item to key"),
    ],
)
def test_options_of_a_wrong_kind(face: Proxy, options: Any, message: str) -> None:
    """The error names what came and what was expected."""
    with pytest.raises(TypeError, match=message):
        face(**options)
    with pytest.raises(TypeError):
        face(1, 1, *options.values())  # options are keyword-only


def test_unknown_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend is asyncio or trio, and trio has to be there."""
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
    cache = Cache[Any]()
    cache.prime({"a": 1})
    with pytest.raises(TypeError, match=r"prime\(\) takes a mapping.*dict\(zip"):
        cache.prime([("b", 2)])  # type: ignore[arg-type] # wrong
    with pytest.raises(ValueError, match="exception for 'b': exceptions are not cached"):
        cache.prime({"a": 2, "b": ValueError()})
    with pytest.raises(TypeError, match=r"invalidate\(\) takes an iterable.*\['a'\]"):
        cache.invalidate("a")
    with pytest.raises(TypeError, match=r"invalidate\(\) takes an iterable.*\[b'a'\]"):
        cache.invalidate(b"a")
    with pytest.raises(TypeError, match=r"invalidate\(\) takes an iterable.*\[3\]"):
        cache.invalidate(3)  # type: ignore[arg-type] # wrong
    assert "a" in cache
    assert len(cache) == 1


@both
def test_return_exceptions_keeps_no_misuse(face: Proxy) -> None:
    """What is wrong with the arguments is raised: no item of the list has failed."""
    proxy = face()
    with pytest.raises(TypeError, match="item 0 is an unhashable 'list'"):
        mapped(proxy, [[1]], refuse, return_exceptions=True)
    with pytest.raises(TypeError, match="iterable of items"):
        mapped(proxy, None, refuse, return_exceptions=True)
    assert_untouched(proxy)
    assert proxy.statistics().calls == proxy.statistics().maps == 0


@both
def test_a_closed_proxy(face: Proxy) -> None:
    """After close() there is no map(); closing again is fine, and deletes nothing."""
    cache = Cache[str]()
    proxy: Any = face(cache=cache)
    assert mapped(proxy, [1]) == ["1"]
    for _ in range(2):
        anyio.run(proxy.aclose) if face is AsyncBatchingMapProxy else proxy.close()
    with pytest.raises(ClosedError, match="closed proxy"):
        mapped(proxy, [1], refuse)
    with pytest.raises(RuntimeError):
        mapped(proxy, [])
    assert 1 in cache
    assert " closed " in repr(proxy)


def test_context_managers() -> None:
    """Leaving the block closes; a map() under way goes on."""
    with BatchingMapProxy[int, str]() as proxy:
        assert proxy.map([1], naive) == ["1"]
    with pytest.raises(ClosedError):
        proxy.map([1], naive)

    async def main() -> None:
        calls = AsyncCalls(gated=True)
        async with anyio.create_task_group() as group:
            async with AsyncBatchingMapProxy[int, str](1, 1) as proxy:
                group.start_soon(proxy.map, [1, 2], calls)
                while not calls.batches:
                    await anyio.lowlevel.checkpoint()
            with pytest.raises(ClosedError):
                await proxy.map([1], calls)
            calls.open()
        assert calls.batches == [[1], [2]]
        await proxy.clear()
        assert proxy.statistics().cached == 0

    anyio.run(main)


@pytest.mark.anyio
async def test_closing_a_proxy_whose_calls_others_wait_for() -> None:
    """It deletes nothing of a shared cache, and who waits for its calls gets their answers."""
    cache = Cache[str]()
    closing, other = (AsyncBatchingMapProxy[int, str](1, 1, cache=cache) for _ in range(2))
    await closing.map([0], AsyncCalls())
    calls = AsyncCalls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", closing.map, [1, 2], calls)
        await settle()
        callers.start("waiter", other.map, [0, 1], calls)
        await settle()
        await closing.aclose()
        calls.open()
    assert callers.results == {"owner": ["1", "2"], "waiter": ["0", "1"]}
    assert await other.map([0, 1, 2], calls) == ["0", "1", "2"]
    assert calls.batches == [[1], [2]]
    assert_idle(closing, other)


@pytest.mark.anyio
@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_key_function_that_raises(bad: int) -> None:
    """Its error arrives, whichever item it is of; a call under way and its waiters go on."""

    def key(item: Any) -> Hashable:
        identity: Hashable = item["id"]
        return identity

    proxy = AsyncBatchingMapProxy[dict[str, int], int](key=key)
    calls = AsyncCalls(lambda item: item["id"], gated=True)
    good = [{"id": number} for number in range(3)]
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        for name in ("owner", "waiter"):
            callers.start(name, proxy.map, good, calls)
            await settle()
        with pytest.raises(KeyError, match="id"):
            await proxy.map([*good[:bad], {}, *good[bad:]], calls)
        assert proxy.statistics().in_flight == 3
        calls.open()
    assert callers.results == {"owner": [0, 1, 2], "waiter": [0, 1, 2]}
    assert calls.batches == [good]
    assert_idle(proxy)


def test_coroutines_made_of_generators() -> None:
    """They can be awaited, although their type does not say so."""

    @types.coroutine
    def fetch(batch: list[int]) -> Any:
        return naive(batch)
        yield

    proxy = AsyncBatchingMapProxy[int, str](2)
    assert anyio.run(proxy.map, [1, 2, 3], fetch) == ["1", "2", "3"]
