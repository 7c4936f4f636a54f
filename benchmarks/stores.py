"""What does a store cost? Ratios to the bare driver, and to other libraries that keep values.

    python benchmarks/stores.py                      print the tables
    python benchmarks/stores.py --write docs/speed   keep them there, for the docs

As in `speed.py` a row is the median of the ratios of several rounds. Each round has new files, or a
server that was emptied. What is kept, and how, is in `keeping`. Further tables say what of it is
the store's part, what memory a large value takes, and how late an event loop wakes a task while all
this goes on. Peers that are not installed are left out, and so is
Redis where there is no ``redis-server``, and PostgreSQL where that is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import peers
import speed
from anyio.from_thread import start_blocking_portal
from keeping import (
    DISKCACHE,
    NAMESPACE,
    OPENAIVEC,
    POSTGRES,
    REDIS,
    SQLITE,
    Bare,
    Place,
    Run,
    Way,
    digests,
    emptied_postgres,
    emptied_redis,
    fetch_value,
    fetch_value_async,
    new_file,
    ours,
    ours_async,
)
from late_loops import LATENESS, late_loop
from measuring import HEADING, Row, collector_off, print_and_keep, ratios_async, seconds
from memory import MEMORY, memory
from servers import has_postgres, has_redis, postgres_server, postgres_version, redis_server
from shares import SHARES, shares
from work import BACKENDS, ITEMS

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.stores import PostgresStore, RedisStore, SQLiteStore, Store

TENS = [ITEMS[start : start + 10] for start in range(0, 2_000, 10)]


def environment() -> str:
    """As in `speed.py`, and what is below the stores."""
    versions = {"SQLite": sqlite3.sqlite_version}
    if "openaivec" in peers.installed():
        versions["duckdb"] = importlib.metadata.version("duckdb")
    if has_redis():
        versions["redis"] = importlib.metadata.version("redis")
        said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True)
        versions["redis-server"] = re.findall(r"v=(\S+)", said.stdout)[0]
    if has_postgres():
        versions["psycopg"] = importlib.metadata.version("psycopg")
        versions["PostgreSQL"] = postgres_version()
    below = "".join(f", {name} {version}" for name, version in versions.items())
    return f"{speed.environment().removesuffix('.')}{below}."


def first_and_second(
    contender: Way, limit: Way, place: Place, *, count: int = len(ITEMS), rounds: int = 7
) -> tuple[list[float], list[float]]:
    """For each round the ratio of the first runs, which write, and of the second, which read."""
    items = ITEMS[:count]
    expected = fetch_value(items)
    answers: list[bytes] = []

    def took(run: Run, where: str) -> float:
        def run_it() -> None:
            answers[:] = run(where, items)

        duration = seconds(run_it)
        assert answers == expected
        answers.clear()
        return duration

    writes, reads = [], []
    with collector_off():
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                here = place(Path(folder))
                written, read = took(contender.write, here), took(contender.read, here)
                here = place(Path(folder))
                writes.append(written / took(limit.write, here))
                reads.append(read / took(limit.read, here))
    return writes, reads


def faces(store: Callable[[str], Store]) -> Iterator[tuple[str, Way]]:
    yield "sync", ours(store)
    for backend in BACKENDS:
        with start_blocking_portal(backend) as portal:
            yield backend, ours_async(store, portal)


def in_bulk(
    name: str,
    store: Callable[[str], Store],
    limit: Way,
    place: Place,
    limits: tuple[str, str],
    at_most: tuple[float | None, float | None] = (None, None),
) -> Iterator[Row]:
    """100,000 values against the bare driver of a store."""
    for face, way in faces(store):
        writes, reads = first_and_second(way, limit, place)
        yield Row(f"{face}, {name}: write 100,000 values", limits[0], at_most[0], writes)
        yield Row(f"{face}, {name}: read 100,000 values", limits[1], at_most[1], reads)


def against_peers() -> Iterator[Row]:
    """The same with libraries that keep values in files, each as it is fastest."""
    here = peers.installed()
    for name, way, count, rounds in (
        ("diskcache", DISKCACHE, 100_000, 5),
        ("openaivec", OPENAIVEC, 20_000, 3),  # half a second for every thousand
    ):
        if name in here:
            writes, reads = first_and_second(
                ours(SQLiteStore), way, new_file, count=count, rounds=rounds
            )
            peer = "openaivec on DuckDB" if name == "openaivec" else name
            yield Row(f"sync, SQLite: write {count:,} values", peer, None, writes)
            yield Row(f"sync, SQLite: read {count:,} values", peer, None, reads)


def few_keys(
    name: str,
    store: Callable[[str], Store],
    bare: Bare,
    places: tuple[str, str],
    at_most: float | None = None,
) -> Iterator[Row]:
    """``map()`` of ten keys that memory does not have, against one bare trip to a thread."""
    for backend in BACKENDS:
        with store(places[0]) as opened, closing(bare.connect(places[1])) as connection:
            misses, hits = anyio.run(tens, opened, bare, connection, backend=backend)
        what = f"{backend}, {name}: map() of 10 keys that are"
        yield Row(f"{what} in the store alone", "one SELECT in a worker thread", None, hits)
        yield Row(f"{what} nowhere", "one INSERT in a worker thread", at_most, misses)


async def tens(store: Store, bare: Bare, connection: Any) -> tuple[list[float], list[float]]:
    """The ratios when they are nowhere, and then when they are in the store."""

    async def map_tens(fetch: Callable[[list[str]], Awaitable[list[bytes]]]) -> None:
        cache = Cache[bytes](store=store, namespace=NAMESPACE)
        proxy = AsyncBatchingMapProxy[str, bytes](cache=cache)
        for ten in TENS:
            await proxy.map(ten, fetch)

    async def unexpected(items: list[str]) -> list[bytes]:
        raise AssertionError(f"{items} should have been there")

    def forget() -> None:
        store.delete_many(NAMESPACE, None)
        connection.execute("DELETE FROM kept")

    async def insert_tens() -> None:
        for ten in TENS:
            values = await fetch_value_async(ten)
            await anyio.to_thread.run_sync(bare.insert, connection, digests(ten), values)

    async def select_tens() -> None:
        for ten in TENS:
            await anyio.to_thread.run_sync(bare.select, connection, digests(ten))

    misses = await ratios_async(lambda: map_tens(fetch_value_async), insert_tens, before=forget)
    return misses, await ratios_async(lambda: map_tens(unexpected), select_tens)


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        bare = ("bare sqlite3", "bare sqlite3")
        yield from in_bulk("SQLite", SQLiteStore, SQLITE.way(), new_file, bare, (1.4, 1.4))
        if has_redis():
            place = emptied_redis(stack.enter_context(redis_server()))
            bare = ("bare MSET", "bare MGET")
            yield from in_bulk("Redis", RedisStore, REDIS, place, bare, (2, 1.4))
        if has_postgres():
            url = stack.enter_context(postgres_server())
            place, bare = emptied_postgres(url), ("bare INSERT", "bare SELECT")
            yield from in_bulk("PostgreSQL", PostgresStore, POSTGRES.way(), place, bare)
        yield from against_peers()
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        files = f"{folder}/ours.db", f"{folder}/theirs.db"
        yield from few_keys("SQLite", SQLiteStore, SQLITE, files, 2.5)
        if has_postgres():
            yield from few_keys("PostgreSQL", PostgresStore, POSTGRES, (url, url))


def parts() -> Iterator[str]:
    """Lines of the table `SHARES`."""
    with ExitStack() as stack:
        yield from shares("SQLite", SQLiteStore, SQLITE.way(), new_file)
        if has_redis():
            place = emptied_redis(stack.enter_context(redis_server()))
            yield from shares("Redis", RedisStore, REDIS, place)
        if has_postgres():
            place = emptied_postgres(stack.enter_context(postgres_server()))
            yield from shares("PostgreSQL", PostgresStore, POSTGRES.way(), place)


def tables() -> Iterator[str]:
    yield environment()
    yield ""
    yield HEADING
    yield from map(str, rows())
    yield ""
    yield SHARES
    yield from parts()
    yield ""
    yield MEMORY
    yield from memory()
    yield ""
    yield LATENESS
    for backend in BACKENDS:
        yield from anyio.run(late_loop, backend, backend=backend)
    yield ""


def main(lines: Iterable[str], name: str, description: str) -> None:
    """Print `lines`; with ``--write FOLDER`` they are kept there, in the file `name`."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the tables")
    print_and_keep(lines, name, parser.parse_args().write)


if __name__ == "__main__":
    main(tables(), "stores.md", __doc__ or "")
