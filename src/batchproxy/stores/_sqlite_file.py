"""One SQLite file: opened, recognised as ours, and what its errors mean to a user."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
import time
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from .._errors import StoreError

_APPLICATION = int.from_bytes(b"bpxy", "big")
_VERSION = 1

# A value is in a row of its own with a number; in a table `WITHOUT ROWID` values of this size would
# be part of the tree of the keys, which is 4.6 times slower and 3.3 times larger. It comes last: so
# nothing is behind a large one, which would have to be in memory to be written. Claims are few at
# a time: a row has all that a call was granted at once, instead of a row and an index for each key.
# A lease ends in two halves, as `SharedStore` says. The first begins when it is renewed, the second
# when it is doubted; `ends` is the end of the present one, on the monotonic clock of that boot.
_SCHEMA = f"""
CREATE TABLE namespaces (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key BLOB NOT NULL,
    expires REAL,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX results_key ON results (namespace, key);
CREATE INDEX results_expires ON results (expires) WHERE expires IS NOT NULL;
CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    process TEXT NOT NULL UNIQUE,
    boot TEXT NOT NULL,
    ends REAL NOT NULL,
    half REAL NOT NULL,
    doubted INTEGER NOT NULL
);
CREATE TABLE claims (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    call INTEGER NOT NULL,
    keys BLOB NOT NULL
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""

_PAGE_SIZE = 8192  # of values of 1 KiB it holds 7, where the usual 4096 hold 3: a quarter faster
_CACHE_SIZE = 16 * 1024  # KiB for each connection, filled as needed; the keys of 500,000 values

# A connection that is closed lets go of the file when the last of its statements is freed. In a
# free-threaded build that is when the thread which has made it runs next, and that may sleep. There
# none is kept: each is freed by its thread before another one gets the connection.
_STATEMENTS = 0 if "free-threading" in sys.version else 128

_NETWORK = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.ceph",
    "fuse.davfs2",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.mount-s3",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
}


class File:
    """The file at `path`, from when it was first opened on.

    Args:
        path: Where it is, absolute.
        durable: Whether a write is on the disk when it ends.
        timeout: Seconds to wait for a lock.
    """

    def __init__(self, path: str, durable: bool, timeout: float) -> None:
        self.path = path
        self._synchronous = "FULL" if durable else "NORMAL"
        self._timeout = timeout
        # Which file it was when it was first opened. Threads may do that at once; one is first.
        self._first: dict[str, tuple[int, int] | None] = {}

    def open(self) -> sqlite3.Connection:
        """One more connection; the first one makes the file if there is none."""
        if self._first:
            self.check_still_there()
        else:
            self._make()
        connection = sqlite3.connect(
            f"{Path(self.path).as_uri()}?mode=rw",  # it makes no file
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise StoreError(f"{self.path!r} has no directory: create {directory!r} first")
        real = os.path.realpath(self.path)
        kind = network_file_system(real, _mounts())
        if kind is not None:
            raise StoreError(
                f"{self.path!r} is on a network file system ({kind}): SQLite's write-ahead log "
                "needs memory that all its users share, which machines do not; name a file on a "
                "local disk, or use a RedisStore or a PostgresStore to share results between "
                "machines"
            )
        with suppress(OSError):  # it is there, or SQLite says why it cannot be
            # Before SQLite does: readable by its owner only, which is also for what it puts beside.
            os.close(os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with suppress(OSError):
            found = os.stat(real)
            if stat.S_ISDIR(found.st_mode):
                raise StoreError(f"{self.path!r} is a directory: name a file in it")
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{self.path!r} is a device or a pipe: name a file")
            if found.st_nlink > 1:
                raise StoreError(
                    f"{self.path!r} has another name, a hard link: each would have a write-ahead "
                    "log of its own, and those who use one would destroy what others write; delete "
                    "the other name, or make a copy of it, or a symbolic link"
                )
            if 0 < found.st_size < 512:  # SQLite takes some of these for empty ones, and fills them
                raise StoreError(
                    f"{self.path!r} is no SQLite database; name another file, it was left as it is"
                )

    def check_still_there(self) -> None:
        """Raise if another file, or none, is now at `path`: SQLite would go on with the old one.

        Once it has been opened.
        """
        seen: tuple[int, int] | None = None
        with suppress(FileNotFoundError):
            found = os.stat(self.path)
            seen = found.st_dev, found.st_ino
        if self._first.setdefault("file", seen) != seen:
            raise StoreError(
                f"{self.path!r} was deleted or replaced while it was open, so what is written now "
                "would be lost; make a new SQLiteStore to go on with what is there"
            )

    def explain(self, error: sqlite3.Error) -> StoreError:
        """What `error` means, and what to do."""
        # Errors of the module's own have no such name.
        name = getattr(error, "sqlite_errorname", "")
        for prefix, meaning in {
            "SQLITE_BUSY": f"was locked by another process for more than {self._timeout:g} s; "
            "find out who holds it, or, in Python, give SQLiteStore a longer timeout",
            "SQLITE_CANTOPEN": "or a file beside it (-wal, -shm) cannot be opened for writing; see "
            "who may write there, and whether the disk is mounted read-only",
            "SQLITE_CORRUPT": "is damaged; `PRAGMA integrity_check` in the sqlite3 shell says how. "
            "To begin anew, move it away together with the files beside it (-wal, -shm)",
            "SQLITE_FULL": "cannot grow: the disk is full",
            "SQLITE_IOERR": "could not be read or written; perhaps a disk fails, or a quota or a "
            "limit on the size of files was reached",
            "SQLITE_NOTADB": "is no SQLite database; name another file, it was left as it is",
            "SQLITE_TOOBIG": "was given a value, or has one, that is larger than SQLite can take",
            "SQLITE_READONLY": "or its directory is read-only, and SQLite has to write there, "
            "also to read; see who may write there, and whether the disk is mounted read-only",
        }.items():
            if name.startswith(prefix):
                return StoreError(f"{self.path!r} {meaning} ({name}: {error})")
        return StoreError(f"{self.path!r} failed ({name}: {error})")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make it ready for use, after a look whether it is ours."""
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN")  # all that is looked at is of one moment
        self._is_empty(connection)  # before anything is written to what may not be ours
        connection.execute("COMMIT")
        if not self._first:
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a file that is empty
            self._set_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_SIZE}")
        if self._first:
            return
        connection.execute("BEGIN IMMEDIATE")
        if self._is_empty(connection):
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
        # Writes nothing, but fails if nothing may be written; to begin does not.
        connection.execute("DELETE FROM results WHERE FALSE")
        connection.execute("COMMIT")

    def _is_empty(self, connection: sqlite3.Connection) -> bool:
        """Whether nothing is there yet; raise if what is there is not ours."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        found = _objects(connection)
        if application == version == 0 and found == []:
            return True
        if application != _APPLICATION:
            raise StoreError(
                f"{self.path!r} is an SQLite database of another program (application_id "
                f"{application:#x}); name another file, it was left as it is"
            )
        if version > _VERSION:
            raise StoreError(
                f"{self.path!r} was written by a newer batchproxy (schema version {version}, this "
                f"one knows {_VERSION}); upgrade batchproxy, or name another file"
            )
        if found != _own_objects():
            # Views, triggers, expressions: reading it would run what somebody has put there.
            raise StoreError(
                f"{self.path!r} is no store as batchproxy makes it: its tables are others, or "
                "there is more than these; name another file, it was left as it is"
            )
        return False

    def _set_wal(self, connection: sqlite3.Connection) -> None:
        # Where several open a new file at once SQLite does not wait by itself.
        end = time.monotonic() + self._timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise StoreError(
                f"{self.path!r} is where SQLite can have no write-ahead log (its journal_mode "
                f"stays {mode!r}), as on some network and virtual file systems; name a file on a "
                "local disk"
            )


def _objects(connection: sqlite3.Connection) -> list[tuple[str, ...]] | None:
    """What a database consists of, in the words of SQL; None if that is more than any of ours is.

    SQLite reads all of it before it answers anything, and it may be of any size.
    """
    longest = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    connection.set_progress_handler(lambda: 1, 10_000)  # ends what takes so many steps
    try:
        return connection.execute(
            "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_master ORDER BY name"
        ).fetchall()
    except (sqlite3.DataError, sqlite3.OperationalError) as error:
        if error.sqlite_errorname not in ("SQLITE_TOOBIG", "SQLITE_INTERRUPT"):
            raise
        return None
    finally:
        connection.set_progress_handler(None, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)


@cache
def _own_objects() -> list[tuple[str, ...]] | None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _objects(connection)


def network_file_system(path: str, mountinfo: str) -> str | None:
    """The type of the file system that `path` is on, if that is one of several machines.

    Args:
        path: Absolute, without symbolic links.
        mountinfo: What Linux has in ``/proc/self/mountinfo``.
    """
    found, longest = "", -1
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        # Spaces and the like are written as backslash and three octal digits.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount.split(" ")[4])
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= longest:
            found, longest = rest.split(" ")[0], len(point)  # the later of two at one point counts
    return found if found in _NETWORK else None


def _mounts() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # pragma: no cover - not Linux
        return ""
