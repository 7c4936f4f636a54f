"""SQLiteStore: values and claims in one file, for the processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice, repeat
from typing import Any, Self

from .._messages import short
from .._recipes import Travels, enlist
from .._store import Claimant, Claims, SharedStore, Usage, check_seconds
from ._sqlite_file import File
from ._sqlite_pool import Pool

_CHUNK = 250  # keys in a statement: from 50 to 1000 take the same time, and every SQLite takes 999
_PAGE = 250  # rows that `scan` has in memory

_LARGE = 2**20  # bytes of a value that is written in pieces of so many
_ROW = 1_000  # bytes of a row besides its value, of the key for the most part
_CLAIM = 2**22  # bytes of the keys in one row; what is longer is not ours, and not read
_NAME = 2**20  # bytes of a namespace, at most; as above
_UTF_8 = ("utf-8", "surrogatepass")  # text of any kind, and SQLite's is not

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# Anything may be in a file of others: that it is bytes, and not too many to read them.
_CLAIM_FITS = f"typeof(keys) = 'blob' AND length(keys) <= {_CLAIM}"
_NAME_FITS = f"typeof(name) = 'blob' AND length(name) <= {_NAME}"

# Not REPLACE: a row keeps its number, so that a scan does not meet it again.
_INSERT = """
INSERT INTO results (namespace, key, value, expires) VALUES (?, ?, {}, ?)
ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, expires = excluded.expires
WHERE ? OR results.expires <= ?"""

_LIVE = "(expires IS NULL OR expires > ?) AND typeof(value) = 'blob'"
_VERSION = "PRAGMA data_version"  # another number when anybody else has written

# Whether a lease does. One that ends later than it may is of an earlier boot, where there is no
# name for that. Its length is left since it may have been renewed after the clock was read.
_STANDS = "(boot = :boot AND (ends > :now OR NOT doubted) AND ends <= :now + 3 * half)"


class SQLiteStore(Travels, SharedStore):
    """Values and claims in an SQLite file, for any number of threads and processes of one machine.

    The file has a write-ahead log (the files ``-wal`` and ``-shm`` beside it, which belong to it
    while it is in use), so reading never waits for writing, and one process writes at a time, which
    takes as long as a batch does. The directory must be on a disk of this machine: network file
    systems are refused.

    A crash of the process, or of all, loses nothing that was written. One of the machine may lose
    the last seconds, though never a part of a batch, unless the store is `durable`.

    Leases follow the machine's monotonic clock, and end when it is booted; setting the clock does
    not touch them. Where the system does not tell one boot from another (all but Linux), claims of
    before may stand for up to three times `lease` once more. A `ttl` follows the clock of the wall.

    What has expired is never found, and is removed by later writes, up to twice as many values as
    they write. Removed values leave room for new ones in the file, which does not become smaller.

    It is opened when it is first used, and made if it is not there, for its owner alone. Then, and
    whenever it is used later, there is a `StoreError` if it cannot be opened for writing, is not
    one of this library, is of a newer version, or is where SQLite has no write-ahead log.

    Args:
        path: The file. Its directory must exist.
        durable: Whether a write is on the disk when it ends, which costs time with every batch.
        timeout: Seconds to wait while another process writes, 0 or more; a day at most.
        lease: Seconds for which a process is believed to be alive after it was last heard of; a day
            at most.

    Raises:
        TypeError: `path` is no path, or `timeout` or `lease` no number.
        ValueError: One of the arguments is not as it should be.

    Threads: every method may be called from any thread, and after a ``fork``, which waits until no
    thread is inside one.

    Pickling: As the file and the other arguments. In another process that is one store, however
    often it arrives. A relative `path` is the file that it named when the store was made.
    """

    _stays = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = False,
        timeout: float = 5.0,
        lease: float = 10.0,
    ) -> None:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be text or a pathlib.Path, got {short(path)}")
        if name in ("", ":memory:"):
            raise ValueError(
                f"path must name a file, got {name!r}: a database in memory belongs to one "
                "connection, and every thread has its own. Cache() without a store is in memory"
            )
        check_seconds("timeout", timeout, zero=True)
        check_seconds("lease", lease)
        self.lease = lease
        self.max_value_size: int = _LONGEST - _ROW
        self._path = os.path.abspath(name)
        self._boot = _boot_id()
        self._pool = Pool(File(self._path, durable, timeout))
        self._recipe = (self._path, durable, timeout, lease)
        enlist(self)

    @property
    def identity(self) -> Hashable:
        """The file, by whatever name it goes."""
        return os.path.normcase(os.path.realpath(self._path))

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """As in `Store.get_many`; waits for nobody."""
        with self._pool.connection() as connection:
            return _values(connection, _find(connection, namespace), keys)

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        """As in `Store.set_many`."""
        with self._pool.connection(writing=True) as connection:
            number = _find(connection, namespace) or _add(connection, namespace)
            _write(connection, number, values, ttl)

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        """As in `Store.delete_many`. Claims stay: who has them is still computing."""
        with self._pool.connection(writing=True) as connection:
            number = _find(connection, namespace)
            if keys is None:
                connection.execute("DELETE FROM results WHERE namespace = ?", (number,))
            for marks, chunk in _chunks(connection, keys or ()):
                connection.execute(
                    f"DELETE FROM results WHERE namespace = ? AND key IN (VALUES {marks})",
                    (number, *chunk),
                )

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        """As in `SharedStore.claim_many`.

        If there is nothing to claim, and no lease to be doubted, it writes nothing, not even to
        renew the lease, and waits for nobody.
        """
        with self._pool.connection() as connection:
            version = connection.execute(_VERSION).fetchone()
            number = _find(connection, namespace)
            values = _values(connection, number, keys)
            missing = [key for key in keys if key not in values]
            held, late = self._held(connection, number, missing, claimant)
            if not late and (not limit or len(held) == len(missing)):
                return Claims(values, [], [key for key in missing if key in held])
            connection.execute("BEGIN IMMEDIATE")  # now nobody else writes; who has, meanwhile?
            if number is None:
                number = _find(connection, namespace) or _add(connection, namespace)
            lease = self._renew(connection, claimant.process)
            self._bury(connection)
            if connection.execute(_VERSION).fetchone() != version:
                values.update(_values(connection, number, missing))
                missing = [key for key in keys if key not in values]
                held, _ = self._held(connection, number, missing, claimant)
            claimed = [key for key in missing if key not in held][:limit]
            if claimed:
                _release(connection, number, claimed, claimant.process, None)  # of other calls
                connection.executemany(
                    "INSERT INTO claims (namespace, lease, call, keys) VALUES (?, ?, ?, ?)",
                    [(number, lease, claimant.call, packed) for packed in _packed(claimed)],
                )
            connection.execute("COMMIT")
        return Claims(values, claimed, [key for key in missing if key in held])

    def publish_many(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        claimant: Claimant,
        ttl: float | None,
    ) -> dict[bytes, bytes]:
        """As in `SharedStore.publish_many`."""
        first: dict[bytes, bytes] = {}
        with self._pool.connection(writing=True) as connection:
            number = _find(connection, namespace) or _add(connection, namespace)
            if _write(connection, number, values, ttl, replace=False) < len(values):
                # Seldom. Which had a value can only be seen without the others: so once more.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                number = _find(connection, namespace) or _add(connection, namespace)
                first = _values(connection, number, values)
                new = {key: values[key] for key in values if key not in first}
                _write(connection, number, new, ttl)
            _release(connection, number, values, claimant.process, claimant.call)
        return first

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        """As in `SharedStore.discard_many`."""
        with self._pool.connection(writing=True) as connection:
            number = _find(connection, namespace)
            connection.executemany(
                "DELETE FROM results WHERE namespace = ? AND key = ? AND value = ?",
                [(number, key, value) for key, value in values.items()],
            )

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        """As in `SharedStore.release_many`."""
        with self._pool.connection(writing=True) as connection:
            number = _find(connection, namespace)
            _release(connection, number, keys, claimant.process, claimant.call)

    def heartbeat(self, namespace: str, process: str) -> None:
        """As in `SharedStore.heartbeat`; a process has one lease for all namespaces."""
        with self._pool.connection(writing=True) as connection:
            self._renew(connection, process)

    def usage(self) -> dict[str, Usage]:
        """What each namespace has, those left out that have nothing. Reads the whole file.

        Returns:
            The number of values, and their bytes, by namespace.
        """
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT name, count(*), sum(length(value)) FROM results "
                f"JOIN namespaces ON namespaces.id = namespace WHERE {_LIVE} "
                f"AND {_NAME_FITS} GROUP BY namespace",
                (time.time(),),
            ).fetchall()
        return {_decoded(name): Usage(count, size) for name, count, size in rows}

    def scan(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values of a namespace, in no order, a page at a time.

        Nobody waits for it, however long the caller takes. What is written or deleted meanwhile may
        be among them or not; what is there throughout is there once.

        Args:
            namespace: Where to look.

        Returns:
            An iterator of keys with their values.
        """
        last = 0
        while True:
            with self._pool.connection() as connection:
                rows = connection.execute(
                    # By the number of the row: in the order of the keys every row is a random read.
                    f"SELECT id, key, value FROM results WHERE id > ? AND +namespace = ? "
                    f"AND {_LIVE} ORDER BY id LIMIT {_PAGE}",
                    (last, _find(connection, namespace), time.time()),
                ).fetchall()
            for _, key, value in rows:
                yield key, value
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def close(self) -> None:
        """As in `Store.close`; what other threads are doing ends as usual."""
        self._closing = True
        self._pool.close()

    @classmethod
    def _make(cls, path: str, durable: bool, timeout: float, lease: float) -> Self:
        return cls(path, durable=durable, timeout=timeout, lease=lease)

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path!r}>"

    def _held(
        self,
        connection: sqlite3.Connection,
        namespace: int | None,
        keys: Sequence[bytes],
        claimant: Claimant,
    ) -> tuple[set[bytes], bool]:
        """Those of `keys` that another process has claimed, and whether any lease is to be doubted.

        That is one which has come to the end of its first half, and which nobody has doubted yet.
        """
        rows = connection.execute(
            "SELECT keys, NOT doubted AND ends <= :now FROM claims JOIN leases "
            "ON leases.id = lease WHERE namespace = :namespace AND process <> :process "
            f"AND {_STANDS} AND {_CLAIM_FITS}",
            {
                "namespace": namespace,
                "process": claimant.process,
                "boot": self._boot,
                "now": time.monotonic(),
            },
        )
        wanted = frozenset(keys)
        held: set[bytes] = set()
        late = False
        for packed, is_late in rows:
            found = wanted.intersection(_unpacked(packed))
            held |= found
            late = late or bool(found and is_late)
        return held, late

    def _renew(self, connection: sqlite3.Connection, process: str) -> int:
        connection.execute(
            "INSERT INTO leases (process, boot, ends, half, doubted) VALUES (?, ?, ?, ?, 0) "
            "ON CONFLICT (process) DO UPDATE "
            "SET boot = excluded.boot, ends = excluded.ends, half = excluded.half, doubted = 0",
            (process, self._boot, time.monotonic() + self.lease / 2, self.lease / 2),
        )
        (number,) = connection.execute(
            "SELECT id FROM leases WHERE process = ?", (process,)
        ).fetchone()
        return int(number)

    def _bury(self, connection: sqlite3.Connection) -> None:
        """Remove the leases that have run out, and their claims; doubt those that may have."""
        now = {"boot": self._boot, "now": time.monotonic()}
        dead = f"SELECT id FROM leases WHERE NOT {_STANDS}"
        connection.execute(f"DELETE FROM claims WHERE lease IN ({dead})", now)
        connection.execute(
            f"DELETE FROM leases WHERE id IN ({dead}) "
            "OR ends <= :now AND id NOT IN (SELECT lease FROM claims)",
            now,
        )
        # This transaction proves that whoever is alive can write from now on: before it, the file
        # may have been locked by somebody else for longer than any lease.
        connection.execute(
            "UPDATE leases SET ends = :now + half, doubted = 1 WHERE ends <= :now", now
        )


def _boot_id() -> str:
    """What is different after the machine was booted, where the system has such a thing."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _decoded(name: bytes) -> str:
    try:
        return name.decode(*_UTF_8)
    except UnicodeDecodeError:  # damaged
        return name.decode("utf-8", "backslashreplace")


def _find(connection: sqlite3.Connection, namespace: str) -> int | None:
    """The number of a namespace; None, which equals nothing in SQL, if nobody has written to it."""
    row = connection.execute(
        "SELECT id FROM namespaces WHERE name = ?", (namespace.encode(*_UTF_8),)
    ).fetchone()
    return None if row is None else int(row[0])


def _add(connection: sqlite3.Connection, namespace: str) -> int:
    """The number of a namespace that has none. *In a transaction.*"""
    added = connection.execute(
        "INSERT INTO namespaces (name) VALUES (?)", (namespace.encode(*_UTF_8),)
    )
    assert added.lastrowid is not None
    return added.lastrowid


def _chunks(
    connection: sqlite3.Connection, keys: Collection[bytes]
) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """As many of `keys` as a statement takes, besides eight parameters, with a (?) for each."""
    size = min(_CHUNK, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - 8)
    rest = iter(keys)
    while chunk := tuple(islice(rest, size)):
        yield ", ".join(["(?)"] * len(chunk)), chunk


def _values(
    connection: sqlite3.Connection, namespace: int | None, keys: Collection[bytes]
) -> dict[bytes, bytes]:
    now = time.time()
    found: dict[bytes, bytes] = {}
    if namespace is None:
        return found
    for marks, chunk in _chunks(connection, keys):
        found.update(
            connection.execute(
                # Not IN, which sorts them before it looks for the first.
                f"WITH wanted (name) AS (VALUES {marks}) SELECT key, value FROM wanted "
                f"CROSS JOIN results WHERE namespace = ? AND key = name AND {_LIVE}",
                (*chunk, namespace, now),
            )
        )
    return found


def _write(
    connection: sqlite3.Connection,
    namespace: int,
    values: Mapping[bytes, bytes],
    ttl: float | None,
    *,
    replace: bool = True,
) -> int:
    """Keep `values`, if not `replace` those that are not there; how many were written."""
    now = time.time()
    connection.execute(
        "DELETE FROM results WHERE id IN (SELECT id FROM results WHERE expires <= ? LIMIT ?)",
        (now, 2 * len(values)),
    )
    rest = (None if ttl is None else now + ttl, replace, now)
    if max(map(len, values.values()), default=0) > _LARGE:
        return sum(_write_large(connection, namespace, *each, rest) for each in values.items())
    rows = zip(repeat(namespace), values.keys(), values.values(), *map(repeat, rest))
    written = connection.executemany(_INSERT.format("?"), rows)
    return written.rowcount if values else 0


def _write_large(
    connection: sqlite3.Connection, namespace: int, key: bytes, value: bytes, rest: tuple[Any, ...]
) -> int:
    """As `_write`, in pieces: a value that SQLite is given whole is in memory twice more."""
    row = (namespace, key, len(value), *rest)
    if not connection.execute(_INSERT.format("zeroblob(?)"), row).rowcount:
        return 0
    (number,) = connection.execute(
        "SELECT id FROM results WHERE namespace = ? AND key = ?", (namespace, key)
    ).fetchone()
    with connection.blobopen("results", "value", number) as blob:
        for start in range(0, len(value), _LARGE):
            blob.write(memoryview(value)[start : start + _LARGE])
    return 1


def _release(
    connection: sqlite3.Connection,
    namespace: int | None,
    keys: Collection[bytes],
    process: str,
    call: int | None,
) -> None:
    """End the claims that `process` has on `keys`: those of one call, or of all (None)."""
    rows = connection.execute(
        "SELECT claims.id, keys FROM claims JOIN leases ON leases.id = lease "
        "WHERE namespace = ? AND process = ? AND call = ifnull(?, call) "
        f"AND {_CLAIM_FITS}",
        (namespace, process, call),
    ).fetchall()
    ended = frozenset(keys)
    for number, packed in rows:
        claimed = _unpacked(packed)
        rest = [key for key in claimed if key not in ended]
        if not rest:
            connection.execute("DELETE FROM claims WHERE id = ?", (number,))
        elif len(rest) < len(claimed):
            (packed,) = _packed(rest)
            connection.execute("UPDATE claims SET keys = ? WHERE id = ?", (packed, number))


def _packed(keys: Sequence[bytes]) -> Iterator[bytes]:
    """`keys`, which are of one length, with that in front; in as many pieces as it takes."""
    size = len(keys[0])
    most = (_CLAIM - 4) // size
    for start in range(0, len(keys), most):
        yield b"".join([size.to_bytes(4, "big"), *keys[start : start + most]])


def _unpacked(packed: bytes) -> list[bytes]:
    size = int.from_bytes(packed[:4], "big") or _CLAIM  # a damaged one may be 0
    return [packed[start : start + size] for start in range(4, len(packed), size)]


def _longest() -> int:
    """How many bytes a value may have, as SQLite was built."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)


# Now: a store may be made while another thread forks, which waits for what goes through the pool.
_LONGEST = _longest()
