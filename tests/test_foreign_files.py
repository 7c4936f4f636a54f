"""A file that somebody else has made, or changed, does no harm; and nobody else reads a new one."""

import contextlib
import os
import shutil
import sqlite3
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sqlite import drop_idle

from batchproxy import BatchingMapProxy, Cache, StoreError
from batchproxy.stores import Claimant, SQLiteStore, Usage

posix = pytest.mark.skipif(os.name != "posix", reason="files as POSIX has them")

KEY, OTHER = bytes(20), b"k" * 20
OWN = r"is no store as batchproxy makes it: its tables are others, or there is more than these"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a value."""
    with SQLiteStore(tmp_path / "results.db") as store:
        store.set_many("n", {KEY: b"value"}, None)
        store.claim_many("n", [OTHER], Claimant("p", 1), 1)
    return tmp_path / "results.db"


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def refused(path: Path, match: str, raw: sqlite3.Connection | None = None) -> None:
    """Nothing is read from it, and nothing written."""
    if raw is not None:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    for _ in range(2):
        with SQLiteStore(path) as store, pytest.raises(StoreError, match=match):
            store.get_many("n", [KEY])
    assert path.read_bytes() == before


ENDLESS = (
    "WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) "
    "SELECT id, 1 namespace, x'00' key, x'62' value, NULL expires FROM c"
)
LARGE = "SELECT 1 id, 1 namespace, x'00' key, zeroblob(900000000) value, NULL expires"
COLUMNS = "id INTEGER PRIMARY KEY, namespace INTEGER NOT NULL, key BLOB NOT NULL"


@pytest.mark.parametrize(
    "script",
    [
        f"DROP TABLE results; CREATE VIEW results AS {ENDLESS}",
        f"DROP TABLE results; CREATE VIEW results AS {LARGE}",
        "CREATE TRIGGER t AFTER INSERT ON leases BEGIN DELETE FROM results; END",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more (x)",
        "CREATE INDEX more ON results (value)",
        "CREATE INDEX more ON results (value) WHERE length(zeroblob(900000000)) > 1",
        "DROP INDEX results_expires",
        "DROP INDEX results_key; CREATE INDEX results_key ON results (namespace, key)",
        "ALTER TABLE results ADD COLUMN more",
        (
            f"DROP TABLE results; CREATE TABLE results ({COLUMNS}, value BLOB NOT NULL, "
            "expires REAL, CHECK (length(zeroblob(900000000)) > 1))"
        ),
        (
            f"DROP TABLE results; CREATE TABLE results ({COLUMNS}, expires REAL, "
            "value BLOB AS (zeroblob(900000000)))"
        ),
        "ANALYZE",
        # Too long to be read.
        f"CREATE TABLE more (x DEFAULT '{'x' * 20_000}')",
    ],
    ids=lambda script: script[:80],
)
def test_what_is_no_table_of_ours_is_not_used(
    path: Path, raw: sqlite3.Connection, script: str
) -> None:
    """Views, triggers and expressions would run inside every statement."""
    raw.executescript(script)
    refused(path, OWN, raw)


def test_more_tables_than_anybody_needs(path: Path, raw: sqlite3.Connection) -> None:
    """They are not all read, which would take as much time and memory as somebody likes."""
    tables = "".join(f"CREATE TABLE t{number} (x);" for number in range(2_000))
    raw.executescript(f"BEGIN; {tables} COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
    tracemalloc.start()
    try:
        with SQLiteStore(path) as store, pytest.raises(StoreError, match=OWN):
            store.usage()
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    refused(path, OWN, raw)
    raw.execute("PRAGMA application_id = 7")
    refused(path, "of another program", raw)
    raw.executescript("PRAGMA application_id = 0; PRAGMA user_version = 0")
    refused(path, "of another program", raw)


def test_tables_are_looked_at_by_every_connection(path: Path, raw: sqlite3.Connection) -> None:
    """Also those that are opened later."""
    with SQLiteStore(path) as store:
        assert store.get_many("n", [KEY]) == {KEY: b"value"}
        drop_idle(store)
        raw.execute("CREATE TRIGGER t AFTER INSERT ON leases BEGIN DELETE FROM results; END")
        with pytest.raises(StoreError, match=OWN):
            store.get_many("n", [KEY])


def test_tables_that_cannot_be_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a failure of the file, and not one of its tables."""

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("sqlite_master", "missing"), *parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Failing))
    refused(path, r"results.db' failed \(SQLITE_ERROR: no such table")


def test_a_copy_is_ours(path: Path, raw: sqlite3.Connection) -> None:
    """A backup, and what was cleaned up or restored from text, can be used."""
    with contextlib.closing(sqlite3.connect(path.with_name("restored.db"))) as restored:
        restored.executescript("\n".join(raw.iterdump()))
        restored.execute("PRAGMA application_id = 0x62707879")
        restored.execute("PRAGMA user_version = 1")
    raw.execute(f"VACUUM INTO '{path.with_name('vacuumed.db')}'")
    raw.execute("VACUUM")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, path.with_name("copied.db"))
    for name in ("results", "restored", "vacuumed", "copied"):
        with SQLiteStore(path.with_name(f"{name}.db")) as store:
            assert store.get_many("n", [KEY]) == {KEY: b"value"}


@pytest.mark.parametrize("size", [1, 16, 100, 511])
@pytest.mark.parametrize("start", [b"", b"SQLite format 3\0"])
def test_a_file_too_small_for_a_database(tmp_path: Path, size: int, start: bytes) -> None:
    """SQLite would take some for empty ones. They are left as they are."""
    path = tmp_path / "notes.txt"
    path.write_bytes((start + b"x" * 511)[:size])
    refused(path, "is no SQLite database; name another file")
    assert os.listdir(tmp_path) == ["notes.txt"]


@posix
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """It is refused, and nobody waits for its other end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with SQLiteStore(path) as store, pytest.raises(StoreError, match="is a device or a pipe"):
            store.usage()


def test_rows_that_nobody_of_ours_has_written(path: Path, raw: sqlite3.Connection) -> None:
    """They count as missing, are replaced, and hold up nobody."""
    row = "INSERT INTO results (namespace, key, value) VALUES (?, ?, ?)"
    raw.execute("UPDATE results SET value = 'text'")
    raw.execute("INSERT INTO namespaces VALUES (2, 'text'), (3, x'ff'), (4, zeroblob(2000000))")
    raw.execute("INSERT INTO namespaces VALUES (5, 7)")
    raw.executemany(row, [(number, OTHER, b"123") for number in (2, 3, 4, 5, 99)])
    raw.execute(row, (3, KEY, 7))
    raw.execute("UPDATE claims SET keys = x''")
    claim = "INSERT INTO claims (namespace, lease, call, keys) VALUES (1, 1, 1, ?)"
    for packed in (b"\0\0\0\0abc", b"\0", b"\xff" * 30, "text", bytes(5_000_000)):
        raw.execute(claim, (packed,))
    with SQLiteStore(path) as store:
        assert store.usage() == {"\\xff": Usage(1, 3)}
        assert list(store.scan("n")) == []
        assert store.get_many("n", [KEY]) == {}
        p, q = Claimant("p", 1), Claimant("q", 1)
        assert store.claim_many("n", [KEY, OTHER], q, 2).claimed == [KEY, OTHER]
        store.release_many("n", [OTHER], q)
        store.release_many("n", [OTHER], p)
        assert store.publish_many("n", {KEY: b"new"}, q, None) == {}
        assert store.get_many("n", [KEY]) == {KEY: b"new"}
    with Cache[str](store=SQLiteStore(path), namespace="n") as cache:
        proxy = BatchingMapProxy[int, str](cache=cache)
        assert proxy.map([1], lambda items: ["one"]) == ["one"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("linked", [False, True])
def test_a_new_file_is_for_its_owner_alone(tmp_path: Path, linked: bool) -> None:
    """As is what is beside it while it is in use; whatever the process usually does."""
    path = tmp_path / "results.db"
    if linked:
        (tmp_path / "link").symlink_to(path)
    before = os.umask(0)
    try:
        with SQLiteStore(tmp_path / "link" if linked else path) as store:
            store.set_many("n", {KEY: b"value"}, None)
            modes = {file.name: mode(file) for file in tmp_path.glob("results.db*")}
            beside = ("results.db", "results.db-shm", "results.db-wal")
            assert modes == dict.fromkeys(beside, 0o600)
    finally:
        os.umask(before)


@posix
@pytest.mark.parametrize("content", ["a store", "nothing"])
def test_a_file_that_is_there_stays_as_it_is_shared(path: Path, content: str) -> None:
    """Who may use it is up to its owner."""
    if content == "nothing":
        path.write_bytes(b"")
    path.chmod(0o664)
    with SQLiteStore(path) as store:
        store.set_many("n", {KEY: b"value"}, None)
        assert [mode(file) for file in path.parent.glob("results.db*")] == [0o664] * 3
