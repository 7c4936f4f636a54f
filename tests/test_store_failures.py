"""Points 16 to 18 of the contract on real stores that fail: what the user of a proxy sees.

Disks that are full, files that are deleted or damaged, clocks that are set, servers that are gone.
What the stores themselves do then is in `test_sqlite.py` and `test_servers.py`.
"""

import contextlib
import inspect
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from process_tools import Worker, needs_posix, run
from store_tools import FORGETFUL, SERVERS
from test_sqlite import run_mounted as run_mounted  # a fixture

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.stores import open_store


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
    namespace = uuid4().hex
    with ExitStack() as stack:

        def make(place: Path | str, **options: Any) -> Cache[str]:
            cache = Cache[str](store=open_store(place), namespace=namespace, **options)
            return stack.enter_context(cache)

        yield make


Open = Callable[..., Cache[str]]
Run = Callable[..., str]


# Scripts, for what would harm this process.

PRELUDE = f"""
from __future__ import annotations
import contextlib, logging, os, resource, sqlite3, subprocess, sys, warnings
from pathlib import Path
import anyio
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.stores import SQLiteStore
from batchproxy.testing import wait_released

logging.disable()
how, path = sys.argv[1], Path(sys.argv[2])

{inspect.getsource(Mapper)}

{inspect.getsource(naive)}

def check(holds):  # also under -O
    if not holds:
        raise AssertionError

def new_mapper(file, **options):
    return Mapper(how, Cache(store=SQLiteStore(file), namespace="n", **options))
"""


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
with contextlib.closing(sqlite3.connect(path / "results.db")) as connection:
    check(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
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
def test_a_full_disk(run_mounted: Run, tmp_path: Path, how: str, then: str) -> None:
    """What could not be written is kept, told to nobody, and written by a map() or close()."""
    mount = """
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", path], check=True)
filler = path / "filler"
filler.write_bytes(bytes(19_500_000))
free = filler.unlink
"""
    errors = run_mounted(PRELUDE + mount + FULL, how, tmp_path, then).splitlines()
    said = "results.db' cannot grow: the disk is full (SQLITE_FULL:"
    assert [said in error for error in errors] == [True, True]


@needs_posix
@hows
def test_a_limit_on_the_size_of_files(tmp_path: Path, how: str) -> None:
    """The same."""
    limit = """
def free():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
"""
    errors = run(PRELUDE + limit + FULL, how, tmp_path, "map").splitlines()
    said = "results.db' could not be read or written; perhaps a disk fails, or a quota or a limit"
    assert [said in error for error in errors] == [True, True]


# The file is not as it should be


@hows
def test_a_file_that_becomes_read_only(run_mounted: Run, tmp_path: Path, how: str) -> None:
    """Nothing is computed for a store that takes no results; when it does again, all goes on."""
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
    assert "mounted read-only" in run_mounted(PRELUDE + script, how, tmp_path)


@needs_posix
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
    mapper = Mapper(how, cache := open_cache(path))

    def delete() -> None:
        for file in list(path.parent.glob("results.db*")):
            file.unlink()
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
        with pytest.raises(StoreError, match="of another program"):
            Mapper(how, open_cache(path)).map(range(10))
    else:
        assert not path.exists()


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
        for _ in range(2):
            said = r"is damaged; `PRAGMA integrity_check`.*move it away .*-wal, -shm"
            with pytest.raises(StoreError, match=rf"results.db' {said}"):
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
    said = r"results.db' is no SQLite database; name another file"
    with pytest.raises(StoreError, match=said) as caught:
        mapper.map(range(10))
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert mapper.batches == []
    assert path.read_bytes() == content


# The clock of the wall is set back by an hour

BACK = """
import time
from unittest import mock

def turn_back():
    now = time.time
    mock.patch("time.time", lambda: now() - 3600).start()
"""

RUN = """
if sys.argv[3] == "back":
    turn_back()
mapper = new_mapper(path, ttl=float(sys.argv[4]))
check(mapper.map(range(30)) == naive(range(30)))
print(len(mapper.batches))
"""


@pytest.mark.parametrize("ttl", ["inf", "60"])
def test_the_clock_is_set_back_between_two_runs(path: Path, ttl: str) -> None:
    """The second finds what the first has computed, though it was written in the future."""
    for clock, calls in (("as it is", 3), ("back", 0)):
        assert run(PRELUDE + BACK + RUN, "sync", path, clock, ttl) == f"{calls}\n"


@needs_posix
def test_the_clock_is_set_back_while_processes_share(place: tuple[str, str]) -> None:
    """Each key is computed once, but the batch of one that is killed, which nobody waits long for.

    All clocks go back while the lease of the dead has not run out yet.
    """
    with ExitStack() as stack:
        then = BACK + "then = turn_back"
        workers = [stack.enter_context(Worker(place, 1, 100, 5, 0, then=then)) for _ in range(3)]
        for worker in workers:
            worker.start()
        workers.pop().send_signal(signal.SIGKILL)
        for worker in workers:
            worker.go_on()
        computed = Counter(chain.from_iterable(worker.computed() for worker in workers))
    assert computed == dict.fromkeys(range(100), 1)


# The server fails


@hows
@policies
@pytest.mark.parametrize("own", [*SERVERS, FORGETFUL], indirect=True)
def test_a_server_that_is_restarted_under_way(
    own: Any, how: str, policy: str, open_cache: Open
) -> None:
    """Nobody notices: if it has kept its data all is there, and if not what was computed since."""
    mapper = Mapper(how, cache := open_cache(own.url, on_store_error=policy))
    mapper.during[3] = own.restart
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.map(range(50)) == naive(range(50))
    assert mapper.computed() == list(range(50))
    again = Mapper(how, open_cache(own.url))
    assert again.map(range(50)) == naive(range(50))
    assert again.computed() == ([] if own.keeps else list(range(20)))
    cache.close()


@hows
def test_a_server_that_is_gone_under_way(
    own: Any, how: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """What was computed is kept, and written when the server is there again."""
    mapper = Mapper(how, open_cache(own.url))
    mapper.during[3] = own.stop
    for last in (50, 30, 40):
        with pytest.raises(StoreError, match=r"(?i)connection") as raised:
            mapper.map(range(last))
        assert raised.value.__cause__ is not None
        assert mapper.computed() == list(range(30))
        assert mapper.map(range(20)) == naive(range(20))
    own.start()
    assert mapper.map(range(40)) == naive(range(40))
    assert mapper.computed() == list(range(40))
    again = Mapper(how, open_cache(own.url))
    assert again.map(range(40)) == naive(range(40))
    assert again.batches == []


@hows
@pytest.mark.parametrize(
    "own", [pytest.param(None, marks=needs_posix, id="file"), SERVERS[0]], indirect=True
)
def test_going_on_without_a_store(
    own: Any, path: Path, how: str, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """All answers are right, computed once; it is said once. Later a server is used again."""
    mapper = Mapper(how, open_cache(own.url if own else path, on_store_error="continue"))
    mapper.during[2] = own.stop if own else path.unlink
    for _ in range(2):
        assert mapper.map(range(50)) == naive(range(50))
    assert mapper.computed() == list(range(50))
    assert caplog.text.count("goes on without its store") == 1
    assert ("Connection" if own else "deleted or replaced") in caplog.text
    if own is None:
        return
    own.start()
    again = Mapper(how, open_cache(own.url))
    first = 100
    while again.batches or first == 100:  # at first it is left alone for a while
        again.batches.clear()
        mapper.map(range(first, first + 10))
        assert again.map(range(first, first + 10)) == naive(range(first, first + 10))
        first += 10
        time.sleep(0.05)
