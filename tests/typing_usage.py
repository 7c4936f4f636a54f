"""Types from the user's chair. Never executed: mypy and pyright read it.

An expected error is marked with `type: ignore` and its code; mypy refuses a mark without an error.
"""

from array import array
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, assert_type

import polars as pl

from batchproxy import (
    AsyncBatchingMapProxy,
    AsyncBoundFunction,
    AsyncStream,
    BatchingMapProxy,
    BoundFunction,
    Cache,
    Limit,
    Progress,
    Statistics,
    Stream,
)
from batchproxy.codecs import PickleCodec, digests
from batchproxy.columns import map_column
from batchproxy.integrations.polars import map_expr, map_series
from batchproxy.stores import (
    MemoryStore,
    PostgresStore,
    RedisStore,
    SharedStore,
    SQLiteStore,
    Usage,
    open_store,
)


class Functions(Protocol):
    """Batch functions of all kinds."""

    def as_list(self, items: list[int]) -> list[str]: ...
    def of_a_sequence(self, items: Sequence[int]) -> tuple[str, ...]: ...
    def as_mapping(self, items: list[int]) -> dict[int, str]: ...
    def with_failures(self, items: list[int]) -> list[str | Exception]: ...
    def mapping_with_failures(self, items: list[int]) -> Mapping[int, str | ValueError]: ...
    def of_strings(self, items: list[str]) -> list[str]: ...
    def wrong_results(self, items: list[int]) -> list[bytes]: ...
    def numbers(self, items: list[int]) -> array[float]: ...
    async def asynchronous(self, items: list[int]) -> list[str]: ...
    async def wrong_asynchronous(self, items: list[int]) -> list[bytes]: ...
    def awaitable(self, items: list[int]) -> Awaitable[dict[int, str]]: ...


def synchronous_face(f: Functions, flag: bool) -> None:
    proxy = BatchingMapProxy[int, str](batch_size=3)
    assert_type(proxy, BatchingMapProxy[int, str])
    assert_type(proxy.map([1], f.as_list), list[str])
    assert_type(proxy.map((1, 2), f.of_a_sequence), list[str])
    assert_type(proxy.map(range(3), f.as_mapping), list[str])
    assert_type(proxy.map([1], f.with_failures), list[str])
    assert_type(proxy.map([1], f.mapping_with_failures), list[str])
    assert_type(proxy.map([1], f.asynchronous), list[str])
    assert_type(proxy.map([1], f.awaitable), list[str])
    assert_type(proxy.map([1], lambda items: f.asynchronous(items)), list[str])
    assert_type(proxy.map([1], f.asynchronous, return_exceptions=flag), list[str | Exception])
    assert_type(proxy.map([1], f.as_list, return_exceptions=False), list[str])
    assert_type(proxy.map([1], f.as_list, return_exceptions=True), list[str | Exception])
    assert_type(proxy.map([1], f.as_list, return_exceptions=flag), list[str | Exception])
    assert_type(BatchingMapProxy[int, float]().map([1], f.numbers), list[float])
    assert_type(proxy.statistics(), Statistics)
    assert_type(proxy.batch_size, int | None)
    assert_type(proxy.max_concurrency, int | None)
    with proxy as entered:
        assert_type(entered, BatchingMapProxy[int, str])

    proxy.map([1], f.of_strings)  # type: ignore[arg-type] # the wrong items
    proxy.map([1], f.wrong_results)  # type: ignore[arg-type] # the wrong results
    proxy.map([1], f.wrong_asynchronous)  # type: ignore[arg-type] # the wrong results
    proxy.map(["1"], f.as_list)  # type: ignore[list-item] # the wrong items
    proxy.map([1], f.as_list, True)  # type: ignore[call-overload] # options are keyword-only


async def asynchronous_face(f: Functions, flag: bool) -> None:
    proxy = AsyncBatchingMapProxy[int, str](batch_size=3, max_concurrency=2)
    assert_type(await proxy.map([1], f.asynchronous), list[str])
    assert_type(await proxy.map([1], f.awaitable), list[str])
    assert_type(await proxy.map([1], f.asynchronous, return_exceptions=True), list[str | Exception])
    assert_type(await proxy.map([1], f.asynchronous, return_exceptions=flag), list[str | Exception])
    assert_type(proxy.batch_size, int | None)
    assert_type(proxy.max_concurrency, int)
    assert_type(await proxy.clear(), None)
    async with proxy as entered:
        assert_type(entered, AsyncBatchingMapProxy[int, str])

    await proxy.map([1], f.as_list)  # type: ignore[arg-type] # of the other face
    AsyncBatchingMapProxy[int, str](max_concurrency=None)  # type: ignore[arg-type] # 1 or more


def stores(redis: RedisStore) -> None:
    with SQLiteStore("results.db", durable=True) as store:
        assert_type(store, SQLiteStore)
        assert_type(store.usage(), dict[str, Usage])
        shared: SharedStore = store
    with Cache[str](store=shared, namespace="n", codec=PickleCodec()) as cache:
        assert_type(cache, Cache[str])
        BatchingMapProxy[int, str](cache=cache)
    Cache[str](10, 3600, store=redis, namespace="n", on_store_error="continue")

    Cache[str](store={}, namespace="n")  # type: ignore[arg-type] # a mapping is no store
    Cache[str](store=store, namespace="n", codec="json")  # type: ignore[arg-type] # nor this a codec
    Cache[str](store=store, namespace="n", on_store_error="no")  # type: ignore[arg-type] # unknown


def places(path: Path) -> None:
    assert_type(open_store("results.db"), SQLiteStore | RedisStore | PostgresStore)
    assert_type(open_store(path).usage(), dict[str, Usage])
    Cache[str](store=open_store("redis://localhost"), namespace="n")

    Cache[str](store=MemoryStore(MemoryStore(lease=1)), namespace="n")
    assert_type(digests([1, "a", (1, None)]), list[bytes])
    open_store(b"results.db")  # type: ignore[arg-type] # neither text nor a path


async def bound(f: Functions, flag: bool) -> None:
    proxy = AsyncBatchingMapProxy[int, str](batch_size=3)
    users = proxy.bind(f.asynchronous)
    assert_type(users, AsyncBoundFunction[int, str])
    assert_type(await users.load(1), str)
    assert_type(await users.map([1]), list[str])
    assert_type(await users.map([1], return_exceptions=True), list[str | Exception])
    assert_type(await users.map([1], return_exceptions=flag), list[str | Exception])
    assert_type(await users.map([1], progress=True), list[str])
    assert_type(users.proxy, AsyncBatchingMapProxy[int, str])
    assert_type(proxy.cache, Cache[str])

    @BatchingMapProxy[int, str](batch_size=3).bind
    def names(items: list[int]) -> list[str]:
        raise NotImplementedError

    assert_type(names, BoundFunction[int, str])
    assert_type(names.load(1), str)
    assert_type(names.map(range(3)), list[str])
    assert_type(names.map([1], return_exceptions=True), list[str | Exception])
    assert_type(BatchingMapProxy[int, str]().bind(f.asynchronous).load(1), str)

    await users.load("1")  # type: ignore[arg-type] # the wrong item
    await users.map([1], f.asynchronous)  # type: ignore[call-overload] # it is bound already
    proxy.bind(f.as_list)  # type: ignore[arg-type] # of the other face
    proxy.bind(f.wrong_asynchronous)  # type: ignore[arg-type] # the wrong results


async def streams(proxy: AsyncBatchingMapProxy[int, str], f: Functions, flag: bool) -> None:
    async def read() -> AsyncIterator[int]:
        yield 1

    async with proxy.stream(read(), f.asynchronous, window=10, ordered=False) as results:
        assert_type(results, AsyncStream[int, str])
        async for item, result in results:
            assert_type((item, result), tuple[int, str])
        async for chunk in results.chunks():
            assert_type(chunk, list[tuple[int, str]])
    kept = proxy.stream([1], f.asynchronous, return_exceptions=True)
    assert_type(kept, AsyncStream[int, str | Exception])
    assert_type(proxy.bind(f.asynchronous).stream(read()), AsyncStream[int, str])
    with BatchingMapProxy[int, str]().stream(range(3), f.as_list) as pairs:
        assert_type(pairs, Stream[int, str])
        for pair in pairs:
            assert_type(pair, tuple[int, str])
        for chunk in pairs.chunks():
            assert_type(chunk, list[tuple[int, str]])
    some = BatchingMapProxy[int, str]().stream([1], f.as_list, return_exceptions=flag)
    assert_type(some, Stream[int, str | Exception])
    names = BatchingMapProxy[int, str]().bind(f.as_list)
    assert_type(names.stream(range(3), window=5), Stream[int, str])

    proxy.stream(["1"], f.asynchronous)  # type: ignore[list-item] # the wrong items
    proxy.stream([1], f.as_list)  # type: ignore[arg-type] # of the other face
    names.stream(read())  # type: ignore[call-overload] # nor is that


async def progress(proxy: AsyncBatchingMapProxy[int, str], f: Functions) -> None:
    def report(now: Progress) -> None:
        assert_type(now.done, int)

    assert_type(await proxy.map([1], f.asynchronous, progress=report), list[str])
    assert_type(await proxy.map([1], f.asynchronous, progress=True), list[str])
    BatchingMapProxy[int, str]().map([1], f.as_list, progress=report)

    await proxy.map([1], f.asynchronous, progress=print, return_exceptions=True)
    await proxy.map([1], f.asynchronous, progress="bar")  # type: ignore[call-overload] # no function


def options(strings: Cache[str], mapping: dict[int, str]) -> None:
    BatchingMapProxy[dict[str, int], str](key=lambda item: item["id"], cache=strings)
    BatchingMapProxy[int, str](cache=mapping, backend="trio")
    AsyncBatchingMapProxy[int, str](None, 3, key=str, cache=strings)
    AsyncBatchingMapProxy[int, str](limit=Limit(3))
    BatchingMapProxy[int, str](limit=Limit(total=3))
    AsyncBatchingMapProxy[int, str](limit=3)  # type: ignore[arg-type] # could be shared with nobody
    AsyncBatchingMapProxy[str, str](weight=len, max_weight=1000)
    BatchingMapProxy[str, str](weight=lambda item: len(item) / 4, max_weight=1000.0)
    BatchingMapProxy[int, str](weight=len, max_weight=1)  # type: ignore[arg-type]
    BatchingMapProxy[str, str](weight=str.upper, max_weight=1)  # type: ignore[arg-type]
    strings.prime({1: "one"})
    strings.invalidate([1, 2])
    assert_type(len(strings), int)
    assert_type(1 in strings, bool)
    assert_type(strings.get(1), str | None)
    assert_type(strings.get(1, 0), str | int)
    assert_type(strings.get(1, default=None), str | None)
    assert_type(strings.get_many(range(3)), dict[Any, str])

    strings.prime({1: 1})  # type: ignore[dict-item] # the wrong results
    BatchingMapProxy[int, bytes](cache=strings)  # type: ignore[arg-type] # of another proxy
    BatchingMapProxy[int, str](backend="curio")  # type: ignore[arg-type] # there is none
    BatchingMapProxy[int, str](3, 2, None)  # type: ignore[call-arg] # options are keyword-only


def columns(
    names: BoundFunction[int, str], asynchronous: AsyncBoundFunction[int, str], frame: pl.DataFrame
) -> None:
    map_column(names, [1, None], errors="column", progress=True)
    map_column(names, [1], errors="both")  # type: ignore[arg-type] # there is no such thing
    map_column(asynchronous, [1])  # type: ignore[arg-type] # of the other face

    map_series(names, frame["id"], errors="raise", progress=print)
    assert_type(map_expr(names, pl.col("id"), pl.String), pl.Expr)
    map_expr(names, "id", pl.String)  # type: ignore[arg-type] # no expression
    map_expr(names, pl.col("id"))  # type: ignore[call-arg] # without a type
