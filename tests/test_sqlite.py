"""`SQLiteStore`: the file, its failures, and processes that share, fork and die.

What every store must do is in `batchproxy.testing`; here is what only this one can do wrong. Disks
that are full, damaged files and `kill -9` are in `test_store_failures` and `test_crashes`.
"""

import contextlib
import gc
import inspect
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from process_tools import Process, needs_fork, needs_posix, run
from store_tools import every_method
from tools import Clock

from batchproxy import StoreError
from batchproxy.stores import Claimant, Claims, SQLiteStore, Usage
from batchproxy.stores._sqlite_file import File, network_file_system

FILES = "/proc/self/fd"

A, B = Claimant("a", 1), Claimant("b", 1)


def keys(count: int, start: int = 0) -> list[bytes]:
    return [number.to_bytes(20, "big") for number in range(start, start + count)]


def batch(count: int, start: int = 0) -> dict[bytes, bytes]:
    return {key: key * 10 for key in keys(count, start)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def opened(path: Path | str, **options: Any) -> SQLiteStore:
    """A store that was used; without that nothing is opened."""
    store = SQLiteStore(path, **options)
    store.usage()
    return store


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with opened(path) as store:
        yield store


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the same file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What ``time.time()`` tells."""
    wall = Clock()
    monkeypatch.setattr("time.time", wall)
    return wall


PRELUDE = f"""
import os, signal, sqlite3, subprocess, sys, threading
from pathlib import Path
from typing import Any
from batchproxy import StoreError
from batchproxy.stores import SQLiteStore

path = Path(sys.argv[1])

{"".join(inspect.getsource(function) for function in (keys, batch, opened))}

def error_of(function, *args):
    try:
        function(*args)
    except StoreError as error:
        assert isinstance(error.__cause__, sqlite3.Error)
        return str(error)
    raise AssertionError("no StoreError")
"""


# Opening


@pytest.mark.parametrize("name", ["", ":memory:"])
def test_a_database_in_memory(name: str) -> None:
    """It is refused, with the reason."""
    with pytest.raises(ValueError, match=r"belongs to one connection.* Cache\(\) without a store"):
        SQLiteStore(name)


def test_no_directory(tmp_path: Path) -> None:
    """A directory that is missing is to be created; one instead of a file is none."""
    with pytest.raises(StoreError, match=r"has no directory: create .*missing' first"):
        opened(tmp_path / "missing" / "results.db")
    with pytest.raises(StoreError, match=r"is a directory: name a file in it"):
        opened(tmp_path)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the directory in which the store was made, for all connections."""
    monkeypatch.chdir(tmp_path)
    with SQLiteStore("results.db") as store:
        assert repr(store) == f"<SQLiteStore {str(tmp_path / 'results.db')!r}>"
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        drop_idle(store)
        store.set_many("n", batch(1), None)
        assert os.listdir() == []


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE people (name)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"],
)
def test_a_foreign_database(path: Path, statement: str) -> None:
    """A database of another program is left as it is, also one without tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    content = path.read_bytes()
    said = r"another program \(application_id 0x[07]\); name another"
    with pytest.raises(StoreError, match=said):
        opened(path)
    assert path.read_bytes() == content
    assert files(path) == [path.name]


def test_a_newer_database(store: SQLiteStore, raw: sqlite3.Connection, path: Path) -> None:
    """One of a later version is refused, with the remedy."""
    raw.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match=r"schema version 2, this one knows 1\); upgrade batchpr"):
        opened(path)


def test_the_layout(store: SQLiteStore, raw: sqlite3.Connection) -> None:
    """The file is recognised by its number, and has a write-ahead log."""
    assert raw.execute("PRAGMA application_id").fetchone() == (0x62707879,)
    assert raw.execute("PRAGMA user_version").fetchone() == (1,)
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_durable(path: Path) -> None:
    """Every connection writes through to the disk, or leaves that to the system."""
    for durable, level in ((False, 1), (True, 2)):
        with SQLiteStore(path, durable=durable) as store:
            for _ in range(2):
                with store._pool.connection() as connection:
                    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
                drop_idle(store)


def test_several_open_a_new_file_at_once(tmp_path: Path) -> None:
    """All of them succeed, however they meet."""
    script = """
print("ready", flush=True)
sys.stdin.readline()
for number in range(30):
    SQLiteStore(path / f"{number}.db").set_many("n", {b"%d" % os.getpid(): b"v"}, None)
"""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Process(PRELUDE + script, tmp_path)) for _ in range(4)]
        for process in processes:
            process.wait_for("ready")
        for process in processes:
            process.go_on()
        assert [process.printed() for process in processes] == [""] * 4
    for number in range(30):
        with SQLiteStore(tmp_path / f"{number}.db") as store:
            assert store.usage() == {"n": Usage(4, 4)}


def test_one_makes_the_tables(
    path: Path, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds the file empty, to fill it, has locked it before."""
    is_empty, locked = File._is_empty, []

    def look(file: File, connection: sqlite3.Connection) -> bool:
        try:
            raw.executescript("BEGIN IMMEDIATE; ROLLBACK")
            locked.append(False)
        except sqlite3.OperationalError:
            locked.append(True)
        return is_empty(file, connection)

    monkeypatch.setattr(File, "_is_empty", look)
    opened(path).close()
    assert locked == [False, True]


def test_the_log_is_being_made_by_another(
    path: Path, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening waits for that, though SQLite does not; but no longer than the timeout."""
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked by another process for more than 0 s"):
        opened(path, timeout=0)
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        raw.execute("ROLLBACK")

    monkeypatch.setattr("batchproxy.stores._sqlite_file.time.sleep", sleep)
    opened(path, timeout=0.1).close()
    assert waited == [0.01]


def test_no_write_ahead_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite answers that it goes on without one, the store is refused."""

    class Without(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", "journal_mode"), *parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Without))
    with pytest.raises(StoreError, match=r"journal_mode stays 'delete'\).*name a file on a local"):
        opened(path)


MOUNTS = r"""22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:30 / /home rw shared:9 - nfs4 server:/home rw,vers=4.2
31 30 254:2 / /home/ada rw - ext4 /dev/vdb rw
32 22 0:32 / /mnt/two\040words rw - cifs //server/share rw
33 22 0:33 / /srv rw - nfs server:/srv rw
34 33 254:3 / /srv rw - xfs /dev/vdc rw
35 22 0:35 / /run/user/1000/box rw master:2 - fuse.sshfs box: rw
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/results.db", None),
        ("/home/results.db", "nfs4"),
        ("/homes/results.db", None),
        ("/home/ada/results.db", None),
        ("/home/adam/results.db", "nfs4"),
        ("/mnt/two words/results.db", "cifs"),
        ("/srv/results.db", None),
        ("/run/user/1000/box/a/results.db", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_path(name: str, expected: str | None) -> None:
    """The innermost mount decides, and of two at one point the later."""
    assert network_file_system(name, MOUNTS) == expected
    assert network_file_system(name, "") is None


def test_a_network_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with the reason, and no file is made, also through a symbolic link."""
    mounts = f"30 1 0:30 / {os.path.realpath(path.parent)} rw - nfs4 server:/home rw"
    monkeypatch.setattr("batchproxy.stores._sqlite_file._mounts", lambda: mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\): .* use a RedisStore"):
        opened(path)
    assert not path.exists()


def test_a_file_with_two_names(path: Path) -> None:
    """By a hard link it is refused, by either name, as long as there are two."""
    other = path.with_name("other.db")
    with SQLiteStore(path) as store:
        store.set_many("n", batch(2), None)
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(StoreError, match=r"has another name, a hard link: .*symbolic link"):
            opened(name)
    path.unlink()
    with SQLiteStore(other) as store:
        assert store.get_many("n", keys(2)) == batch(2)


# Closing


def drop_idle(store: SQLiteStore) -> None:
    """Close what the pool has, so that it has to open a new connection."""
    store._pool.before_fork()


def files(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_closing(path: Path) -> None:
    """Afterwards the file is all there is, and every method says what happened."""
    store = SQLiteStore(path)
    store.set_many("n", batch(2), None)
    assert len(files(path)) == 3
    store.close()
    store.close()
    assert files(path) == [path.name]
    for use in every_method(store):
        with pytest.raises(StoreError, match=r"was closed; make a new SQLiteStore"):
            use()
    with SQLiteStore(path) as store:
        assert store.get_many("n", keys(3)) == batch(2)


@pytest.mark.skipif(not os.path.exists(FILES), reason="there is no list of open files")
@pytest.mark.parametrize("close", [SQLiteStore.close, drop_idle])
def test_closing_what_other_threads_have_used(
    path: Path, close: Callable[[SQLiteStore], None]
) -> None:
    """Nothing of it is open, though they are still there, and sleep. (A fork relies on that.)"""

    def open_files() -> list[str]:
        links = [os.path.join(FILES, name) for name in os.listdir(FILES)]
        return [name for name in map(os.path.realpath, links) if name.startswith(str(path))]

    def work(start: int) -> None:
        store.claim_many("n", keys(3, start), A, 3)
        store.publish_many("n", batch(2, start), A, None)
        store.get_many("n", keys(3, start))
        barrier.wait(30)

    with SQLiteStore(path) as store, ThreadPoolExecutor(2) as pool:
        for start in (0, 3, 6):
            barrier = threading.Barrier(2)
            list(pool.map(work, (start, start)))
        assert open_files()
        close(store)
        assert open_files() == []


class Slow(dict[bytes, bytes]):
    """Values that are complete once they may be."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        super().__init__(values)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def values(self) -> Any:
        self.reached.set()
        assert self.go_on.wait(30)
        return super().values()


def test_closing_while_another_thread_writes(path: Path) -> None:
    """The thread finishes what it does; then its connection is closed, too."""
    store = SQLiteStore(path)
    values = Slow(batch(3))
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(store.set_many, "n", values, None)
        assert values.reached.wait(30)
        store.close()
        values.go_on.set()
        writing.result(30)
    assert files(path) == [path.name]
    with SQLiteStore(path) as store:
        assert store.get_many("n", keys(3)) == batch(3)


def test_a_store_that_is_forgotten(path: Path) -> None:
    """It is closed quietly when it is collected."""
    store = SQLiteStore(path)
    store.set_many("n", batch(1), None)
    del store
    gc.collect()
    assert files(path) == [path.name]


def test_a_program_that_does_not_close(path: Path) -> None:
    """It ends without a warning, and nothing is left beside the file, even if exit uses it."""
    script = """
import atexit
atexit.register(lambda: store.set_many("n", batch(1, 1), None))  # after the store's own
store = SQLiteStore(path)
store.set_many("n", batch(1), None)
"""
    run(PRELUDE + script, path)
    assert files(path) == [path.name]
    with SQLiteStore(path) as store:
        assert store.get_many("n", keys(3)) == batch(2)


def test_nothing_is_opened_before_it_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is SQLite asked what it can take, for which a fork would not wait."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        longest = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    monkeypatch.setattr(sqlite3, "connect", None)
    assert longest - 1_000 <= SQLiteStore(path).max_value_size < longest


# Threads and forks


def test_threads_share_the_connections(store: SQLiteStore) -> None:
    """Threads come and go; there are never more connections than threads were inside at once."""
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait(30)
        for start in range(number * 100, number * 100 + 100, 10):
            store.claim_many("n", keys(10, start), A, 10)
            store.publish_many("n", batch(10, start), A, None)
            assert store.get_many("n", keys(10, start)) == batch(10, start)

    for _ in range(3):
        store.delete_many("n", None)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(list(store.scan("n"))) == 400
        assert len(store._pool._idle) <= 4


@needs_fork
def test_a_child_outlives_its_parent(path: Path) -> None:
    """What a child writes is kept although the parent closes the file meanwhile."""
    script = """
store = SQLiteStore(path)
store.set_many("n", batch(1), None)
to_parent, to_child = os.pipe(), os.pipe()
child = os.fork()
if not child:
    store.set_many("n", batch(1, 1), None)
    os.write(to_parent[1], b"x")
    os.read(to_child[0], 1)
    store.set_many("n", batch(1, 2), None)
    os._exit(0)  # as a process that is killed: without closing
os.read(to_parent[0], 1)
store.close()
os.write(to_child[1], b"x")
assert os.waitpid(child, 0)[1] == 0
"""
    run(PRELUDE + script, path)
    with SQLiteStore(path) as store:
        assert store.get_many("n", keys(4)) == batch(3)


@needs_fork
def test_fork_waits_for_threads_inside(path: Path) -> None:
    """At the moment of the fork nobody is inside, and no connection is open; then all go on."""
    script = """
class Slow(dict):
    def values(self):
        reached.set()
        go_on.wait()
        return super().values()

def look():  # registered before the store's hook, so it runs after it
    from batchproxy.stores import _sqlite_pool
    seen.append((len(_sqlite_pool._gate.inside), store._pool._idle[:]))

reached, go_on, seen = threading.Event(), threading.Event(), []
os.register_at_fork(before=lambda: go_on.set())  # the last one registered runs first
store = SQLiteStore(path)
writing = threading.Thread(target=store.set_many, args=("n", Slow(batch(5)), None))
writing.start()
reached.wait()
child = os.fork()
if not child:
    assert store.get_many("n", keys(5)) == batch(5)
    other = threading.Thread(target=store.set_many, args=("n", batch(1, 5), None))
    other.start()
    other.join()
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
writing.join()
assert seen == [(0, [])]
assert store.get_many("n", keys(7)) == batch(6)
"""
    early = "import os\nos.register_at_fork(before=lambda: look())\n"
    run(early + PRELUDE + script, path)


@needs_fork
def test_a_fork_that_asks_nobody_before(path: Path) -> None:
    """Then the child keeps what it inherited aside, neither used nor closed."""
    script = """
from batchproxy.stores import _sqlite_pool
store = SQLiteStore(path)
store.usage()
(inherited,) = store._pool._idle
_sqlite_pool._reset_after_fork()
store.set_many("n", batch(1), None)
assert _sqlite_pool._inherited == [inherited] and inherited not in store._pool._idle
assert inherited.execute("PRAGMA user_version").fetchone() == (1,)
os._exit(0)
"""
    run(PRELUDE + script, path)


# Claims and clocks


def rows(raw: sqlite3.Connection, table: str) -> int:
    (count,) = raw.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def test_a_lease_runs_out(store: SQLiteStore, raw: sqlite3.Connection, clock: Clock) -> None:
    """Until that moment claims are held, then free; whoever takes over removes all that is dead."""
    store.claim_many("n", keys(3), A, 3)
    clock.now += 2
    store.heartbeat("n", "a")
    clock.now += 5  # who waits doubts it as soon as that may be
    assert store.claim_many("n", keys(3), B, 9) == Claims({}, [], keys(3))
    clock.now += 4.75
    assert store.claim_many("n", keys(3), B, 9) == Claims({}, [], keys(3))
    clock.now += 0.25
    assert store.claim_many("n", keys(1), B, 9) == Claims({}, keys(1), [])
    assert (rows(raw, "claims"), rows(raw, "leases")) == (1, 1)


def test_nobody_waits_for_the_lease_of_what_is_not_claimed(
    store: SQLiteStore, raw: sqlite3.Connection, clock: Clock
) -> None:
    """A lease without claims goes as soon as it is not renewed."""
    store.claim_many("n", keys(1), A, 1)
    store.publish_many("n", batch(1), A, None)
    clock.now += 5
    store.claim_many("n", keys(1, 1), B, 1)
    assert rows(raw, "leases") == 1


def test_setting_the_clock(store: SQLiteStore, clock: Clock, wall: Clock) -> None:
    """It has no effect on claims, in either direction."""
    store.claim_many("n", keys(1), A, 1)
    for step in (-1e6, +3e6):
        wall.now += step
        assert store.claim_many("n", keys(1), B, 1) == Claims({}, [], keys(1))
    wall.now = 0
    for _ in range(2):
        store.claim_many("n", keys(1), B, 0)
        clock.now += 5
    assert store.claim_many("n", keys(1), B, 1) == Claims({}, keys(1), [])


def test_another_boot(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of before are dead, whatever the clock shows."""
    name = path.with_name("boot_id")
    monkeypatch.setattr("batchproxy.stores._sqlite._BOOT_ID", str(name))
    for boot, claimant in (("1", A), ("2", B)):
        name.write_text(f"{boot}\n")
        with SQLiteStore(path) as store:
            assert store.claim_many("n", keys(1), claimant, 1).claimed == keys(1)


def test_a_boot_without_a_name(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that ends too late is of an earlier boot; one renewed a moment later is not."""
    monkeypatch.setattr("batchproxy.stores._sqlite._BOOT_ID", str(path.with_name("missing")))
    with SQLiteStore(path) as store:
        store.claim_many("n", keys(1), A, 1)
        clock.now -= 10  # this clock was read before the other one
        assert store.claim_many("n", keys(1), B, 1) == Claims({}, [], keys(1))
        clock.now -= 0.001
        assert store.claim_many("n", keys(1), B, 1) == Claims({}, keys(1), [])


def test_a_look_writes_nothing(store: SQLiteStore, raw: sqlite3.Connection) -> None:
    """Where no key is free a claim waits for nobody, nor does reading."""
    store.set_many("n", batch(1), None)
    store.claim_many("n", keys(1, 1), A, 1)
    raw.execute("BEGIN IMMEDIATE")
    assert store.claim_many("n", keys(2), B, 2) == Claims(batch(1), [], keys(1, 1))
    assert store.get_many("n", keys(2)) == batch(1)
    assert dict(store.scan("n")) == batch(1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(1, Claims(batch(1), keys(1, 2), keys(1, 1)), id="some"),
        pytest.param(3, Claims(batch(3), [], []), id="all"),
    ],
)
def test_another_process_is_faster(
    path: Path, raw: sqlite3.Connection, monkeypatch: Any, values: int, expected: Claims
) -> None:
    """Between a look and a claim keys may get a value or an owner; that is seen."""
    held = SQLiteStore._held

    def look(store: SQLiteStore, *args: Any) -> Any:
        monkeypatch.undo()
        found = held(store, *args)
        with SQLiteStore(path) as other:
            other.set_many("n", batch(values), None)
            other.claim_many("n", keys(1, 1), B, 1)
        return found

    monkeypatch.setattr(SQLiteStore, "_held", look)
    with SQLiteStore(path) as store:
        assert store.claim_many("n", keys(3), A, 3) == expected
    assert rows(raw, "claims") == len(expected.claimed) + len(expected.held)


def test_a_call_gives_back_some_of_its_keys(store: SQLiteStore, raw: sqlite3.Connection) -> None:
    """Those that it was granted with them stay claimed, and others of its process, too."""
    other_call = Claimant(A.process, A.call + 1)
    store.claim_many("n", keys(3), A, 3)
    store.claim_many("n", keys(2, 2), other_call, 2)  # takes one over
    store.release_many("n", keys(1), A)
    assert store.claim_many("n", keys(4), B, 4) == Claims({}, keys(1), keys(3, 1))
    store.release_many("n", keys(2, 1), A)
    assert store.claim_many("n", keys(4), B, 4) == Claims({}, keys(2), keys(2, 2))
    assert rows(raw, "claims") == 2
    store.publish_many("n", batch(4), other_call, None)
    assert rows(raw, "claims") == 1


def test_deleting_leaves_claims(store: SQLiteStore) -> None:
    """Who has claimed is still computing."""
    store.set_many("n", batch(1), None)
    store.claim_many("n", keys(2), A, 2)
    store.delete_many("n", None)
    store.delete_many("n", keys(2))
    assert store.claim_many("n", keys(2), B, 2) == Claims({}, keys(1), keys(1, 1))


# Values


def test_expired_values_are_removed(
    store: SQLiteStore, raw: sqlite3.Connection, wall: Clock
) -> None:
    """Not found and not counted at once; removed by later writes, two for each value written."""
    store.set_many("n", batch(10), 5)
    wall.now += 5
    assert store.get_many("n", keys(10)) == {}
    assert (store.usage(), list(store.scan("n"))) == ({}, [])
    assert rows(raw, "results") == 10
    store.set_many("other", batch(3), None)
    assert rows(raw, "results") == 10 - 6 + 3
    store.publish_many("other", batch(2, 3), A, None)
    assert rows(raw, "results") == 5
    plan = raw.execute(
        "EXPLAIN QUERY PLAN DELETE FROM results "
        "WHERE id IN (SELECT id FROM results WHERE expires <= ? LIMIT ?)",
        (0, 0),
    ).fetchall()
    assert "results_expires" in str(plan)


def test_more_keys_than_a_statement_takes(store: SQLiteStore) -> None:
    """Every method takes any number, whatever SQLite was built to take."""
    with store._pool.connection() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 20)
    many, values = keys(1001), batch(1001)
    assert store.claim_many("n", many, A, 2000) == Claims({}, many, [])
    assert store.claim_many("n", many, B, 2000) == Claims({}, [], many)
    store.release_many("n", many, A)
    assert store.claim_many("n", many, B, 2000) == Claims({}, many, [])
    assert store.publish_many("n", values, B, None) == {}
    assert store.publish_many("n", values, A, None) == values
    assert store.claim_many("n", many, A, 1) == Claims(values, [], [])
    assert store.get_many("n", many) == values
    assert store.usage() == {"n": Usage(1001, 1001 * 200)}
    store.delete_many("n", many)
    store.set_many("n", values, None)
    assert len(store._pool._idle) == 1


def test_scan_while_others_write(store: SQLiteStore, path: Path) -> None:
    """What is there throughout comes once, also if it is replaced; no lock is held meanwhile."""
    store.set_many("other", batch(300), None)
    store.set_many("n", batch(600), None)
    scan = store.scan("n")
    found = [next(scan)]
    store.set_many("n", dict.fromkeys(keys(600), b"new"), None)
    store.delete_many("n", keys(1, 599))
    with SQLiteStore(path, timeout=0) as other:
        other.set_many("other", batch(1), None)
        drop_idle(other)
    found += scan
    assert sorted(key for key, _ in found) == keys(599)
    assert {value for _, value in found[250:]} == {b"new"}
    assert store.usage() == {"n": Usage(599, 599 * 3), "other": Usage(300, 300 * 200)}


# Failures


def test_locked_for_too_long(path: Path) -> None:
    """The error names the seconds; reading goes on, and so does writing when the lock is gone."""
    with (
        opened(path, timeout=0.01) as store,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"results.db' was locked .* than 0.01 s;.*longer"):
            store.set_many("n", batch(1), None)
        assert store.get_many("n", keys(1)) == {}
        other.execute("ROLLBACK")
        store.set_many("n", batch(1), None)


class Interrupted(dict[bytes, bytes]):
    """Ctrl-C comes in the middle of writing."""

    def values(self) -> Any:
        yield b"first"
        raise KeyboardInterrupt


def test_an_interrupt(store: SQLiteStore, path: Path) -> None:
    """It comes out, nothing of the batch is written, and no transaction is left open."""
    with pytest.raises(KeyboardInterrupt):
        store.set_many("n", Interrupted(batch(3)), None)
    assert store.get_many("n", keys(3)) == {}
    with SQLiteStore(path, timeout=0) as other:
        other.set_many("n", batch(1), None)
    assert store.get_many("n", keys(3)) == batch(1)


def test_keys_that_are_none(store: SQLiteStore) -> None:
    """A mistake of the caller is no failure of the file, and does no harm to the store."""
    store.set_many("n", batch(1), None)
    with pytest.raises(sqlite3.ProgrammingError, match=r"type 'object'"):
        store.get_many("n", [object()])  # type: ignore[list-item] # as here
    assert store.get_many("n", keys(1)) == batch(1)


def test_large_values(store: SQLiteStore, wall: Clock) -> None:
    """They are written in pieces, beside small ones; and replaced only where that is asked for."""
    first, second, third, _ = keys(4)
    before = {first: b"a" * 3_000_001, second: b"small"}
    store.set_many("n", before, None)
    other = dict.fromkeys(keys(4), b"b" * 2**21)
    assert store.publish_many("n", other, A, 10) == before
    assert store.get_many("n", keys(4)) == {**other, **before}
    wall.now += 11
    assert store.get_many("n", keys(4)) == before
    store.publish_many("n", {third: b"c" * 2**21}, A, None)  # which has expired
    after = {first: b"d", second: b"e" * 2_000_000}
    store.set_many("n", after, None)
    assert store.get_many("n", keys(4)) == {**after, third: b"c" * 2**21}
    assert store.usage() == {"n": Usage(3, 1 + 2_000_000 + 2**21)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory as Linux tells it")
@pytest.mark.parametrize("ttl", [None, 60])
def test_the_memory_that_a_large_value_takes(path: Path, ttl: float | None) -> None:
    """Little beside the value itself; SQLite makes two copies of what it is given whole."""
    script = f"""
def most():
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

store, value = opened(path), b"x" * 60_000_000
before = most()
store.set_many("n", {{b"k": value}}, {ttl})
assert most() - before < 30_000_000
"""
    run(PRELUDE + script, path)


def test_any_other_failure(store: SQLiteStore, raw: sqlite3.Connection) -> None:
    """What SQLite says is passed on with the name of the file."""
    store.set_many("n", batch(1), None)
    raw.execute("DROP TABLE results")
    with pytest.raises(StoreError, match=r"results.db' failed \(SQLITE_ERROR: no such table"):
        store.get_many("n", keys(1))


@needs_posix
@pytest.mark.parametrize("then", ["nothing", "a new store", "a new file"])
def test_a_file_that_is_deleted(path: Path, then: str) -> None:
    """Results are never written to where nobody finds them; the error stays, and says so."""
    with SQLiteStore(path) as store:
        store.set_many("n", batch(1), None)
        for name in files(path):
            path.with_name(name).unlink()
        if then == "a new store":
            opened(path).close()
        elif then == "a new file":
            path.write_bytes(b"")
        before = files(path)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"was deleted or replaced.*would be lost; make a"):
                store.set_many("n", batch(1), None)
            with pytest.raises(StoreError, match=r"was deleted or replaced"):
                store.get_many("n", keys(1))
            drop_idle(store)
        assert files(path) == before


def test_a_header_that_is_overwritten(store: SQLiteStore, path: Path) -> None:
    """It is noticed by the next connection, which is closed again."""
    drop_idle(store)
    with open(path, "r+b") as file:
        file.write(b"overwritten " * 20)
    with pytest.raises(StoreError, match=r"is no SQLite database"):
        store.get_many("n", keys(1))
    gc.collect()  # an open connection would be a warning


@pytest.fixture
def run_mounted(tmp_path: Path) -> Callable[..., str]:
    """`run`, with mounts of the script's own, in `tmp_path`."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare")
    before = (unshare, "--mount", "--map-root-user")
    mount = subprocess.run(
        [*before, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"nothing can be mounted here: {mount.stderr.strip()}")
    return partial(run, before=before)


def test_what_is_read_only(run_mounted: Callable[..., str], tmp_path: Path) -> None:
    """Neither a store nor a new file can be opened, though the first can be read; each error says
    what SQLite needs."""
    script = """
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

mount("-t", "tmpfs", "none", path)
opened(path / "results.db").close()
mount("--bind", path / "results.db", path / "results.db")
mount("-o", "remount,bind,ro", path / "results.db")
print(error_of(opened, path / "results.db"))
subprocess.run(["umount", path / "results.db"], check=True)
mount("-o", "remount,ro", path)
for name in ("results.db", "new.db"):
    print(error_of(opened, path / name))
"""
    file, disk, new = run_mounted(PRELUDE + script, tmp_path).splitlines()
    assert "or its directory is read-only, and SQLite has to write there" in file
    assert "mounted read-only" in disk
    assert "new.db' or a file beside it (-wal, -shm) cannot be opened for writing" in new
