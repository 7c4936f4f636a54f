"""Points 16 to 18 of the contract on real stores that fail: what the user of a proxy sees.

Disks that are full, files that are deleted or damaged, clocks that are set, servers that are gone.
What the stores themselves do then is in `test_sqlite.py` and `test_redis.py`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from process_tools import run
from redis_server import RedisServer, needs_redis
from test_sqlite import mountable as mountable  # a fixture

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.stores import RedisStore, SQLiteStore

posix = pytest.mark.skipif(os.name != "posix", reason="files and signals as POSIX has them")


class Mapper:
    """A proxy of either kind that calls for ten keys at a time, and the batches of its calls."""

    def __init__(self, how: str, cache: Cache[str]) -> None:
        self.how = how
        self.cache = cache
        self.batches: list[list[int]] = []
        self.during: dict[int, Callable[[], object]] = {}  # by the number of the call, from 1
        self._sync = BatchingMapProxy[int, str](10, cache=cache)
        self._async = AsyncBatchingMapProxy[int, str](10, 1, cache=cache)

    def map(self, items: Sequence[int]) -> list[str]:
        if self.how == "sync":
            return self._sync.map(items, self._call)
        return anyio.run(self._async.map, items, self._call_async, backend=self.how)

    def fails(self, items: Sequence[int]) -> str:
        """What the StoreError says that ends the map()."""
        try:
            self.map(items)
        except StoreError as error:
            return str(error)
        raise AssertionError("no StoreError")

    def computed(self) -> list[int]:
        """The keys of all calls, in this order."""
        return [item for batch in self.batches for item in batch]

    def _call(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        self.during.get(len(self.batches), bool)()
        return naive(items)

    async def _call_async(self, items: list[int]) -> list[str]:
        return self._call(items)


def naive(items: Sequence[int]) -> list[str]:
    """The right answer; a kilobyte for each item."""
    return [f"{item:01000}" for item in items]


hows = pytest.mark.parametrize("how", ["sync", "asyncio", "trio"])
policies = pytest.mark.parametrize("policy", ["raise", "continue"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def open_cache() -> Iterator[Callable[..., Cache[str]]]:
    """Makes caches, each as another process would have it; all are closed at the end."""
    with ExitStack() as stack:

        def make(place: Path | str, **options: Any) -> Cache[str]:
            store = SQLiteStore(place) if isinstance(place, Path) else RedisStore(place)
            return stack.enter_context(Cache(store=store, namespace="n", **options))

        yield make


Open = Callable[..., Cache[str]]


# Scripts, for what would harm this process.

PRELUDE = """
from __future__ import annotations
import logging, os, resource, subprocess, sys, warnings
from pathlib import Path
import anyio
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.stores import SQLiteStore
from batchproxy.testing import wait_released

logging.disable()
how, path = sys.argv[1], Path(sys.argv[2])

{mapper}

{naive}

def check(holds):  # also under -O
    if not holds:
        raise AssertionError

def new_mapper(file, **options):
    return Mapper(how, Cache(store=SQLiteStore(file), namespace="n", **options))
"""


def run_prepared(script: str, *arguments: object, before: tuple[str, ...] = ()) -> str:
    prelude = PRELUDE.format(mapper=inspect.getsource(Mapper), naive=inspect.getsource(naive))
    return run(script, *arguments, prelude=prelude, before=before)


# The disk is full

# There is room for half a megabyte or so.
FULL = """
items = range(1_000)
mapper = new_mapper(path / "results.db")
print(mapper.fails(items))
done = mapper.computed()
check(0 < len(done) < len(items) and len(done) % 10 == 0)
check(mapper.map(done[:-10]) == naive(done[:-10]))
check(mapper.computed() == done)
print(mapper.fails(items))
done = mapper.computed()
check(done == list(items[:len(done)]) and len(done) < len(items))
carefree = new_mapper(path / "results.db", on_store_error="continue")
check(carefree.map(items[-200:]) == naive(items[-200:]))

free()
if sys.argv[3] == "map":
    check(mapper.map([9_000]) == naive([9_000]))
else:
    mapper.cache.close()
again = new_mapper(path / "results.db")
check(again.map(done) == naive(done))
check(again.batches == [])
check(again.map(items) == naive(items))
"""


@hows
@pytest.mark.parametrize("then", ["map", "close"])
def test_a_full_disk(mountable: tuple[Path, tuple[str, ...]], how: str, then: str) -> None:
    """What could not be written is kept, told to nobody, and written by a map() or close()."""
    directory, before = mountable
    mount = """
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", path], check=True)
filler = path / "filler"
filler.write_bytes(bytes(19_500_000))
free = filler.unlink
"""
    errors = run_prepared(mount + FULL, how, directory, then, before=before).splitlines()
    assert ["the disk is full" in error for error in errors] == [True, True]


@posix
@hows
def test_a_limit_on_the_size_of_files(tmp_path: Path, how: str) -> None:
    """The same."""
    limit = """
def free():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
"""
    errors = run_prepared(limit + FULL, how, tmp_path, "map").splitlines()
    assert ["a limit on the size of files was reached" in error for error in errors] == [True, True]


# The file is not as it should be


@hows
def test_a_file_that_becomes_read_only(mountable: tuple[Path, tuple[str, ...]], how: str) -> None:
    """Nothing is computed for a store that takes no results; when it does again, all goes on."""
    directory, before = mountable
    script = """
def mount(*arguments):
    subprocess.run(["mount", *arguments, path], check=True)

mount("-t", "tmpfs", "none")
mapper = new_mapper(path / "results.db")
carefree = new_mapper(path / "results.db", on_store_error="continue")
mapper.map(range(10))
mount("--bind", path)
mount("-o", "remount,bind,ro")

def reopen():  # the next connection is to the file as it is now
    wait_released()
    with warnings.catch_warnings(action="ignore"):  # of threads
        if not os.fork():  # before which idle connections are closed
            os._exit(0)
    os.wait()

reopen()
print(mapper.fails(range(10, 20)))
check(carefree.map(range(20)) == naive(range(20)))
check(mapper.map(range(10)) == naive(range(10)))
reopen()
subprocess.run(["umount", path], check=True)
check(mapper.map(range(20)) == naive(range(20)))
check(mapper.computed() == list(range(20)))
check(new_mapper(path / "results.db").map(range(20)) == naive(range(20)))
"""
    assert "mounted read-only" in run_prepared(script, how, directory, before=before)


@posix
@hows
@pytest.mark.parametrize("then", ["nothing", "a foreign file"])
def test_a_file_that_is_deleted_under_way(
    path: Path, how: str, then: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error; what was computed is kept, and said to be lost when the cache is closed."""
    other = path.with_name("other.db")
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    foreign = other.read_bytes()
    cache = open_cache(path)
    mapper = Mapper(how, cache)

    def delete() -> None:
        for name in [file.name for file in path.parent.glob("results.db*")]:
            path.with_name(name).unlink()
        if then == "a foreign file":
            other.rename(path)

    mapper.during[3] = delete
    for last in (30, 30, 40):
        with pytest.raises(StoreError, match=r"results.db' was deleted or replaced"):
            mapper.map(range(last))
        assert mapper.computed() == list(range(30))
        assert mapper.map(range(20)) == naive(range(20))
    cache.close()
    assert "10 results could still not be written: " in caplog.text
    assert mapper.map(range(20)) == naive(range(20))
    if then == "a foreign file":
        assert path.read_bytes() == foreign
        other_mapper = Mapper(how, open_cache(path))
        with pytest.raises(StoreError, match="of another program"):
            other_mapper.map(range(10))
    else:
        assert not path.exists()


@posix
@hows
def test_going_on_without_a_file(
    path: Path, how: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Who does not mind gets all answers, each computed once; it is said once."""
    mapper = Mapper(how, open_cache(path, on_store_error="continue"))
    mapper.during[2] = path.unlink
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.computed() == list(range(50))
    assert caplog.text.count("goes on without its store") == 1
    assert "deleted or replaced" in caplog.text


@hows
@policies
def test_a_damaged_page(path: Path, how: str, policy: str, open_cache: Open) -> None:
    """No answer comes from a damaged file, nor is anything computed unless that was asked for."""
    first = Mapper(how, cache := open_cache(path))
    first.map(range(200))
    cache.close()
    with open(path, "r+b") as file:
        file.seek(3 * 8192)
        file.write(b"\xa5" * (path.stat().st_size - 3 * 8192))
    mapper = Mapper(how, open_cache(path, on_store_error=policy))
    if policy == "raise":
        with pytest.raises(StoreError, match=r"results.db' is damaged; .* move it away"):
            mapper.map(range(200))
        assert mapper.batches == []
    else:
        assert mapper.map(range(200)) == naive(range(200))
        assert mapper.computed() == list(range(200))


@pytest.mark.parametrize("content", [b"a,b\n1,2\n" * 100, b"SQLite format 3\0" + b"\xff" * 500])
def test_a_foreign_file(path: Path, content: bytes, open_cache: Open) -> None:
    """Nothing is computed with it, and it is left as it is."""
    path.write_bytes(content)
    mapper = Mapper("sync", open_cache(path))
    with pytest.raises(StoreError, match=r"results.db' is no SQLite database"):
        mapper.map(range(10))
    assert mapper.batches == []
    assert path.read_bytes() == content


# The clock of the wall is set back by an hour

BACK = """
from unittest import mock

def turn_back():
    now = time.time
    mock.patch("time.time", lambda: now() - 3600).start()
"""

RUN = (
    BACK
    + """
import time
if sys.argv[3] == "back":
    turn_back()
mapper = new_mapper(path, ttl=float(sys.argv[4]))
check(mapper.map(range(30)) == naive(range(30)))
print(len(mapper.batches))
"""
)


@pytest.mark.parametrize("ttl", ["inf", "60"])
def test_the_clock_is_set_back_between_two_runs(path: Path, ttl: str) -> None:
    """The second finds what the first has computed, though it was written in the future."""
    assert run_prepared(RUN, "sync", path, "as it is", ttl) == "3\n"
    assert run_prepared(RUN, "sync", path, "back", ttl) == "0\n"


WORKER = (
    BACK
    + """
import json, sys, time
from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import RedisStore, SQLiteStore

url, namespace = sys.argv[1:]
batches = []

def compute(items):
    batches.append(items)
    if len(batches) == 1:
        print("calling", flush=True)
        sys.stdin.readline()
        turn_back()
    return items

store = (RedisStore if "://" in url else SQLiteStore)(url, lease=1)
with Cache(store=store, namespace=namespace) as cache:
    answer = BatchingMapProxy(5, cache=cache).map(range(100), compute)
    if answer != list(range(100)):
        raise AssertionError(answer)
print(json.dumps(batches))
"""
)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A store, and a namespace of its own."""
    if request.param == "redis":
        return [request.getfixturevalue("redis_url"), uuid4().hex]
    return [str(tmp_path / "results.db"), "n"]


@posix
def test_the_clock_is_set_back_while_processes_share(place: list[str]) -> None:
    """Each key is computed once, but the batch of one that is killed, which nobody waits long for.

    All clocks go back while the lease of the dead has not run out yet.
    """
    with ExitStack() as stack:
        workers: list[subprocess.Popen[str]] = []
        for _ in range(3):
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER, *place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(worker.communicate)
            stack.callback(worker.kill)
            workers.append(worker)
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "calling\n"
        workers.pop().kill()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        computed: Counter[int] = Counter()
        for worker in workers:
            printed, _ = worker.communicate(timeout=40)
            for batch in json.loads(printed):
                computed.update(batch)
    assert computed == dict.fromkeys(range(100), 1)


# The server fails


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one's own, which keeps its data when it is killed."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@needs_redis
@hows
@policies
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "forgotten"])
def test_a_server_that_is_restarted_under_way(
    tmp_path: Path, how: str, policy: str, keeps: bool, open_cache: Open
) -> None:
    """Nobody notices: if it has kept its data all is there, and if not what was computed since."""
    options = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ()
    with RedisServer(tmp_path, *options) as server:
        mapper = Mapper(how, cache := open_cache(server.url, on_store_error=policy))

        def restart() -> None:
            server.kill()
            server.start()

        mapper.during[3] = restart
        assert mapper.map(range(50)) == naive(range(50))
        assert mapper.map(range(50)) == naive(range(50))
        assert mapper.computed() == list(range(50))
        again = Mapper(how, open_cache(server.url))
        assert again.map(range(50)) == naive(range(50))
        assert again.computed() == ([] if keeps else list(range(20)))
        cache.close()


@needs_redis
@hows
def test_a_server_that_is_gone_under_way(
    server: RedisServer, how: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """What was computed is kept, and written when the server is there again."""
    mapper = Mapper(how, open_cache(server.url))
    mapper.during[3] = server.kill
    for last in (50, 30, 40):
        with pytest.raises(StoreError, match="Connection") as raised:
            mapper.map(range(last))
        assert raised.value.__cause__ is not None
        assert mapper.computed() == list(range(30))
        assert mapper.map(range(20)) == naive(range(20))
    server.start()
    assert mapper.map(range(40)) == naive(range(40))
    assert mapper.computed() == list(range(40))
    again = Mapper(how, open_cache(server.url))
    assert again.map(range(40)) == naive(range(40))
    assert again.batches == []


@needs_redis
@hows
def test_going_on_without_a_server(
    server: RedisServer, how: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """All answers are right, computed once; it is said once. Later the server is used again."""
    mapper = Mapper(how, open_cache(server.url, on_store_error="continue"))
    mapper.during[3] = server.kill
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.computed() == list(range(50))
    assert caplog.text.count("goes on without its store") == 1
    server.start()
    again = Mapper(how, open_cache(server.url))
    first = 100
    while again.batches or first == 100:  # at first it is left alone for a while
        again.batches.clear()
        mapper.map(range(first, first + 10))
        assert again.map(range(first, first + 10)) == naive(range(first, first + 10))
        first += 10
        time.sleep(0.05)
