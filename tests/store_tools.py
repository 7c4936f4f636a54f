"""Caches on the stores of `memory_store`, and what must be left in those: nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from memory_store import MemoryStore, PlainStore
from postgres_server import needs_postgres
from redis_server import needs_redis

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.stores import Claimant, PostgresStore, RedisStore, SQLiteStore, Store
from batchproxy.testing import assert_idle, wait_released

OTHER = Claimant("other", 1)
"""Another process that uses the store."""


@pytest.fixture(params=[PlainStore, MemoryStore], ids=["plain", "shared"])
def store(request: pytest.FixtureRequest) -> Any:
    """A store of either kind."""
    return request.param()


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Where real processes share their work: a store, and a namespace of its own."""
    if request.param == "sqlite":
        return str(tmp_path / "db"), str(tmp_path)
    return request.getfixturevalue(f"{request.param}_url"), str(tmp_path)


# Servers of one's own, with `url`, `start()`, `stop()`, `kill()`, `restart()`, `standing_still()`.
SERVERS = [
    pytest.param("server", marks=needs_redis, id="redis"),
    pytest.param("own_postgres", marks=needs_postgres, id="postgres"),
]
FORGETFUL = pytest.param("forgetful", marks=needs_redis, id="forgetful redis")


@pytest.fixture(params=SERVERS)
def own(request: pytest.FixtureRequest) -> Any:
    """A server that tests may kill; it keeps its data."""
    return request.param and request.getfixturevalue(request.param)


def cache_on(store: Store, **options: Any) -> Cache[Any]:
    """A cache with a memory of its own, as another process would have it."""
    return Cache(store=store, namespace="n", **options)


def proxy_of(store: Store, *sizes: Any, **options: Any) -> AsyncBatchingMapProxy[Any, Any]:
    """A proxy with such a cache."""
    return cache_and_proxy(store, *sizes, **options)[1]


def cache_and_proxy(
    store: Store, *sizes: Any, **options: Any
) -> tuple[Cache[Any], AsyncBatchingMapProxy[Any, Any]]:
    """The same, and the cache."""
    cache = cache_on(store, **options)
    return cache, AsyncBatchingMapProxy(*sizes, cache=cache)


def shared(*sizes: Any, **options: Any) -> tuple[MemoryStore, AsyncBatchingMapProxy[Any, Any]]:
    """A store that processes share, and a proxy on it."""
    store = MemoryStore()
    return store, proxy_of(store, *sizes, **options)


async def used(store: PlainStore, method: str, times: int = 1) -> None:
    """Wait until `method` was used so often. (Two threads may have to do it, or a pause end.)"""
    while store.uses[method] < times:  # noqa: ASYNC110 - nobody says it
        await anyio.sleep(0.001)


async def released() -> None:
    """Wait until claims that were given up are released."""
    await anyio.to_thread.run_sync(wait_released)


async def all_released(store: PlainStore, *proxies: AsyncBatchingMapProxy[Any, Any]) -> None:
    """`nothing_left`, when claims that were given up are released."""
    await released()
    nothing_left(store, *proxies)


def nothing_left(store: PlainStore, *proxies: AsyncBatchingMapProxy[Any, Any]) -> None:
    """`assert_idle`; and no claim is left in `store`."""
    assert_idle(*proxies)
    if isinstance(store, MemoryStore):
        assert not {claim for claim in store.claims.values() if claim != OTHER}


def every_method(store: SQLiteStore | RedisStore | PostgresStore) -> list[Callable[[], object]]:
    """A call of each, of which none does harm to another."""
    key = bytes(20)
    return [
        lambda: store.get_many("n", [key]),
        lambda: store.set_many("n", {key: b"1"}, None),
        lambda: store.set_many("n", {key: b"1"}, 60),
        lambda: store.delete_many("n", [key]),
        lambda: store.delete_many("n", None),
        lambda: store.claim_many("n", [key], OTHER, 1),
        lambda: store.publish_many("n", {key: b"1"}, OTHER, None),
        lambda: store.discard_many("n", {key: b"1"}),
        lambda: store.release_many("n", [key], OTHER),
        lambda: store.heartbeat("n", OTHER.process),
        lambda: store.usage(),
        lambda: list(store.scan("n")),
    ]
