"""Ways to keep values beyond the process: this library, the bare drivers, and other libraries.

All do the same: in a first run 100,000 values of 1 KiB are computed, in batches of 1,000, and kept,
batch by batch; in a second one they are there. Each run opens the place, which is a file or the URL
of a server, and closes it.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from anyio.from_thread import BlockingPortal
from work import BATCH, ITEMS

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.stores import Store

NAMESPACE = "kept"

_random = random.Random(0)
VALUES = {item: _random.randbytes(1024) for item in ITEMS}


def fetch_value(items: list[str]) -> list[bytes]:
    return [VALUES[item] for item in items]


async def fetch_value_async(items: list[str]) -> list[bytes]:
    return [VALUES[item] for item in items]


Run = Callable[[str, list[str]], list[bytes]]


class Way(NamedTuple):
    """How values are kept at a place: in a first run computed and written, in a second read."""

    write: Run
    read: Run


Place = Callable[[Path], str]
"""Gives a place where nothing is yet; a file in the folder, if it is one."""


def new_file(folder: Path) -> str:
    return str(folder / f"{len(list(folder.iterdir()))}.db")


def emptied_redis(url: str) -> Place:
    import redis

    def empty(_: Path) -> str:
        with redis.Redis.from_url(url) as client:
            client.flushall()
        return url

    return empty


def emptied_postgres(url: str) -> Place:
    import psycopg

    def empty(_: Path) -> str:
        with psycopg.connect(url) as client:
            client.execute("DROP TABLE IF EXISTS kept")
            client.execute("DROP SCHEMA IF EXISTS batchproxy CASCADE")
        return url

    return empty


def ours(store: Callable[[str], Store]) -> Way:
    """The synchronous proxy, with a new cache in each run."""

    def run(place: str, items: list[str]) -> list[bytes]:
        with Cache[bytes](store=store(place), namespace=NAMESPACE) as cache:
            return BatchingMapProxy[str, bytes](BATCH, cache=cache).map(items, fetch_value)

    return Way(run, run)


def ours_async(store: Callable[[str], Store], portal: BlockingPortal) -> Way:
    """The asynchronous proxy, with a new cache in each run, in the event loop of `portal`.

    A loop of each run's own would have new worker threads, whose memory is new, too: a run would
    take a sixth longer, be it of this library or of the bare driver.
    """

    async def map_all(place: str, items: list[str]) -> list[bytes]:
        with Cache[bytes](store=store(place), namespace=NAMESPACE) as cache:
            proxy = AsyncBatchingMapProxy[str, bytes](BATCH, cache=cache)
            return await proxy.map(items, fetch_value_async)

    def run(place: str, items: list[str]) -> list[bytes]:
        return portal.call(map_all, place, items)

    return Way(run, run)


def batches(items: list[str]) -> Iterator[list[str]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def digests(items: list[str]) -> list[bytes]:
    """Keys of one length that are the same in every process, which nobody can do without."""
    return [hashlib.blake2b(item.encode(), digest_size=20).digest() for item in items]


# --- The bare drivers ----------------------------------------------------------------------------


class Bare(NamedTuple):
    """A driver with a plain table, and with what is done to that in one go."""

    connect: Callable[[str], Any]
    insert: Callable[[Any, Sequence[bytes], Sequence[bytes]], None]
    select: Callable[[Any, Sequence[bytes]], dict[bytes, bytes]]

    def way(self) -> Way:
        def write(place: str, items: list[str]) -> list[bytes]:
            kept = []
            with closing(self.connect(place)) as connection:
                for batch in batches(items):
                    values = fetch_value(batch)
                    self.insert(connection, digests(batch), values)
                    kept += values
            return kept

        def read(place: str, items: list[str]) -> list[bytes]:
            with closing(self.connect(place)) as connection:
                names = digests(items)
                found = self.select(connection, names)
                return [found[name] for name in names]

        return Way(write, read)


def _sqlite_connection(place: str) -> sqlite3.Connection:
    """A plain table with a unique key, and the pragmas of `SQLiteStore`."""
    connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS kept (key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"
    )
    return connection


def _sqlite_select(connection: sqlite3.Connection, names: Sequence[bytes]) -> dict[bytes, bytes]:
    """As `SQLiteStore`: what is quickest; `IN (?, ?, ...)` sorts them first."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(names), 250):
        chunk = names[start : start + 250]
        marks = ", ".join(["(?)"] * len(chunk))
        found.update(
            connection.execute(
                f"WITH wanted (name) AS (VALUES {marks}) "
                "SELECT key, value FROM wanted CROSS JOIN kept WHERE key = name",
                chunk,
            )
        )
    return found


def _sqlite_insert(
    connection: sqlite3.Connection, names: Sequence[bytes], values: Sequence[bytes]
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO kept VALUES (?, ?)", zip(names, values))
    connection.execute("COMMIT")


SQLITE = Bare(_sqlite_connection, _sqlite_insert, _sqlite_select)


def _postgres_connection(place: str) -> Any:
    """As `PostgresStore` it does not wait for the disk, and finds keys by the index."""
    import psycopg

    connection = psycopg.connect(place, autocommit=True, prepare_threshold=None)
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET enable_bitmapscan = off")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS kept (key bytea PRIMARY KEY, value bytea NOT NULL)"
    )
    return connection


def _postgres_insert(connection: Any, names: Sequence[bytes], values: Sequence[bytes]) -> None:
    """From two arrays: in one statement, as fast as COPY in its binary format."""
    connection.execute(
        "INSERT INTO kept SELECT * FROM unnest(%b::bytea[], %b::bytea[])", [names, values]
    )


def _postgres_select(connection: Any, names: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(names), BATCH):
        with connection.cursor(binary=True) as cursor:
            chunk = names[start : start + BATCH]
            found.update(cursor.execute("SELECT key, value FROM kept WHERE key = ANY(%b)", [chunk]))
    return found


POSTGRES = Bare(_postgres_connection, _postgres_insert, _postgres_select)


def _redis_write(place: str, items: list[str]) -> list[bytes]:
    import redis

    kept = []
    with redis.Redis.from_url(place) as client:
        for batch in batches(items):
            values = fetch_value(batch)
            client.mset(dict(zip(digests(batch), values)))
            kept += values
    return kept


def _redis_read(place: str, items: list[str]) -> list[bytes]:
    import redis

    values: list[bytes] = []
    with redis.Redis.from_url(place) as client:
        for batch in batches(items):
            values += client.mget(digests(batch))
    return values


REDIS = Way(_redis_write, _redis_read)


# --- Other libraries -----------------------------------------------------------------------------


def _diskcache(place: str, items: list[str]) -> list[bytes]:
    """No proxy: it has neither batches nor bulk reads, but transactions around many items."""
    answers: list[bytes] = []
    with importlib.import_module("diskcache").Cache(place, eviction_policy="none") as cache:
        for batch in batches(items):
            with cache.transact():
                found = {item: value for item in batch if (value := cache.get(item)) is not None}
            if missing := [item for item in batch if item not in found]:
                computed = dict(zip(missing, fetch_value(missing)))
                with cache.transact():
                    for item, value in computed.items():
                        cache.set(item, value)
                found.update(computed)
            answers += [found[item] for item in batch]
    return answers


DISKCACHE = Way(_diskcache, _diskcache)


def _openaivec(place: str, items: list[str]) -> list[bytes]:
    """Its synchronous proxy, with the backend that keeps values in a file of DuckDB."""
    caching = importlib.import_module("openaivec._cache")
    with closing(caching.DuckDBCacheBackend.of(place)) as backend:
        proxy = caching.BatchCache(batch_size=BATCH, show_progress=False, cache=backend)
        answers: list[bytes] = proxy.map(items, fetch_value)
        return answers


OPENAIVEC = Way(_openaivec, _openaivec)
