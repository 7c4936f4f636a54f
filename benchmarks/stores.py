"""What does a store cost? Ratios to the bare driver, and to other libraries that keep values.

    python benchmarks/stores.py                      print the tables
    python benchmarks/stores.py --write docs/speed   keep them there, for the docs

As in `speed.py` a row is the median of the ratios of several rounds. Each round has new files, or a
server that was emptied. What is kept, and how, is in `keeping`. The second table says how late an
event loop wakes a task while all this goes on. Peers that are not installed are left out, and so is
Redis where there is no ``redis-server``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import re
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import peers
import speed
from anyio.from_thread import start_blocking_portal
from keeping import (
    BARE_REDIS,
    BARE_SQLITE,
    DISKCACHE,
    NAMESPACE,
    OPENAIVEC,
    Place,
    Run,
    Way,
    bare_connection,
    bare_insert,
    bare_select,
    digests,
    emptied_server,
    fetch_value,
    fetch_value_async,
    new_file,
    ours,
    ours_async,
)
from measuring import HEADING, Row, collector_off, ratios_async, seconds
from servers import has_postgres, has_redis, redis_server
from work import BACKENDS, BATCH, ITEMS, Backend

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.stores import RedisStore, SQLiteStore, Store

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


def in_bulk() -> Iterator[Row]:
    """100,000 values against the bare driver of each store."""
    for name, way in faces(SQLiteStore):
        writes, reads = first_and_second(way, BARE_SQLITE, new_file)
        yield Row(f"{name}, SQLite: write 100,000 values", "bare sqlite3", 1.5, writes)
        yield Row(f"{name}, SQLite: read 100,000 values", "bare sqlite3", 1.5, reads)
    if not has_redis():
        return
    with redis_server() as url:
        for name, way in faces(RedisStore):
            writes, reads = first_and_second(way, BARE_REDIS, emptied_server(url))
            yield Row(f"{name}, Redis: write 100,000 values", "bare MSET", None, writes)
            yield Row(f"{name}, Redis: read 100,000 values", "bare MGET", None, reads)


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


async def small(backend: Backend, folder: Path) -> list[Row]:
    """``map()`` of ten keys that memory does not have, against one bare trip to a thread."""
    store = SQLiteStore(folder / "small.db")

    async def map_tens(fetch: Callable[[list[str]], Awaitable[list[bytes]]]) -> None:
        cache = Cache[bytes](store=store, namespace=NAMESPACE)
        proxy = AsyncBatchingMapProxy[str, bytes](cache=cache)
        for ten in TENS:
            await proxy.map(ten, fetch)

    async def unexpected(items: list[str]) -> list[bytes]:
        raise AssertionError(f"{items} should have been there")

    with store, closing(bare_connection(str(folder / "bare.db"))) as connection:

        def forget() -> None:
            store.delete_many(NAMESPACE, None)
            connection.execute("DELETE FROM kept")

        async def insert_tens() -> None:
            for ten in TENS:
                values = await fetch_value_async(ten)
                await anyio.to_thread.run_sync(bare_insert, connection, digests(ten), values)

        async def select_tens() -> None:
            for ten in TENS:
                await anyio.to_thread.run_sync(bare_select, connection, digests(ten))

        misses = await ratios_async(lambda: map_tens(fetch_value_async), insert_tens, before=forget)
        hits = await ratios_async(lambda: map_tens(unexpected), select_tens)
    return [
        Row(
            f"{backend}, SQLite: map() of 10 keys that are in the store alone",
            "one SELECT in a worker thread",
            None,
            hits,
        ),
        Row(
            f"{backend}, SQLite: map() of 10 keys that are nowhere",
            "one INSERT in a worker thread",
            None,
            misses,
        ),
    ]


def rows() -> Iterator[Row]:
    yield from in_bulk()
    yield from against_peers()
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            yield from anyio.run(small, backend, Path(folder), backend=backend)


async def lateness(work: Callable[[], Awaitable[object]]) -> list[float]:
    """How many ms late a task that sleeps 1 ms at a time is woken while `work` is done."""
    late: list[float] = []

    async def sleep_on() -> None:
        while True:
            start = time.perf_counter()
            await anyio.sleep(0.001)
            late.append((time.perf_counter() - start) * 1000 - 1)

    async with anyio.create_task_group() as group:
        group.start_soon(sleep_on)
        await work()
        group.cancel_scope.cancel()
    return late


async def late_loop(backend: Backend) -> Iterator[str]:
    """Lines of the table `LATENESS`."""

    async def map_all(cache: Cache[bytes]) -> None:
        proxy = AsyncBatchingMapProxy[str, bytes](BATCH, cache=cache)
        await proxy.map(ITEMS, fetch_value_async)

    async def in_memory() -> None:
        """For about as long as with a store."""
        for _ in range(10):
            await map_all(Cache())

    async def stored(path: Path) -> None:
        with SQLiteStore(path) as store:
            await map_all(Cache(store=store, namespace=NAMESPACE))

    rounds: dict[str, list[list[float]]] = {}
    with collector_off():
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                work: dict[str, Callable[[], Awaitable[object]]] = {
                    "nothing is done": partial(anyio.sleep, 1),
                    "100,000 are mapped without a store": in_memory,
                    "100,000 are written to SQLite": partial(stored, Path(folder, "late.db")),
                    "100,000 are read from SQLite": partial(stored, Path(folder, "late.db")),
                }
                for what, do in work.items():
                    rounds.setdefault(what, []).append(await lateness(do))
    return (_late_line(f"{backend}: while {what}", late) for what, late in rounds.items())


LATENESS = """\
| how late a task is woken, in ms | median | p99 | range of p99 | latest |
|---------------------------------|-------:|----:|-------------:|-------:|"""


def _late_line(what: str, rounds: list[list[float]]) -> str:
    together = list(itertools.chain.from_iterable(rounds))
    p99s = [statistics.quantiles(late, n=100, method="inclusive")[-1] for late in rounds]
    return (
        f"| {what} | {statistics.median(together):.2f} | {statistics.median(p99s):.1f} "
        f"| {min(p99s):.1f} to {max(p99s):.1f} | {max(together):.1f} |"
    )


def tables() -> Iterator[str]:
    yield environment()
    yield ""
    yield HEADING
    yield from map(str, rows())
    yield ""
    yield LATENESS
    for backend in BACKENDS:
        yield from anyio.run(late_loop, backend, backend=backend)
    yield ""


def print_and_keep(lines: Iterable[str], name: str, description: str) -> None:
    """Print `lines`; with ``--write FOLDER`` they are kept there, in the file `name`."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the tables")
    options = parser.parse_args()
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    if options.write:
        options.write.mkdir(exist_ok=True)
        (options.write / name).write_text("\n".join(printed))


if __name__ == "__main__":
    print_and_keep(tables(), "stores.md", __doc__ or "")
