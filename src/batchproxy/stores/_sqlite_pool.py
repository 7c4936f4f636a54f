"""Connections to one SQLite file, used by any thread, one at a time; none is open in a fork."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import finalize

from .._errors import StoreError
from .._forks import Alive, at_fork
from ._sqlite_file import File

_PATIENCE = 60.0
"""Seconds for which a fork waits for other threads; so that one that is stuck is no deadlock."""


class Pool:
    """Idle connections, the last used first: so no more are open than were in use at a time.

    A pool that is forgotten, and at exit every pool, closes the idle ones.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._finalizer = finalize(self, _close_all, self._idle)
        _pools.add(self)

    @contextmanager
    def connection(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses; closed if anything is raised meanwhile.

        Closing it rolls back what it had begun. Errors of SQLite become a `StoreError`.

        Args:
            writing: Whether it is in a transaction, and none but it writes.
        """
        gate, me = _gate, object()
        try:
            with gate.door:
                gate.inside.add(me)
            if self._closed:
                raise StoreError(
                    f"the store {self._file.path!r} was closed; make a new SQLiteStore to go on"
                )
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._file.open()
            try:
                self._file.check_still_there()
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                if writing:
                    connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            # Asked last: whoever closes at the same time finds it in the list, or is noticed here.
            if not self._finalizer.alive:
                _close_all(self._idle)
        except sqlite3.ProgrammingError:
            raise  # a key that is no bytes, say
        except sqlite3.Error as error:
            raise self._file.explain(error) from error
        finally:
            gate.inside.discard(me)

    def close(self) -> None:
        """Close all connections, those in use as soon as they come back."""
        gate, me = _gate, object()
        try:
            with gate.door:
                gate.inside.add(me)
            self._closed = True
            self._finalizer()
        finally:
            gate.inside.discard(me)

    def before_fork(self) -> None:
        _close_all(self._idle)

    def reset_after_fork(self) -> None:
        _inherited.extend(self._idle)
        self._idle.clear()


def _close_all(idle: list[sqlite3.Connection]) -> None:
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # pragma: no cover - another thread closes them, too
            return
        connection.close()


class _Gate:
    """Nobody is inside SQLite while the process forks.

    SQLite keeps lists of its own of the locks that a process has. A child that inherits them takes
    them for its locks, and gets none: when the parent closes the file, the journal is deleted under
    the child, and what the child writes is lost. So before a fork all connections are closed, and
    for that their users are waited for.

    The lock is re-entrant since the collector may run a finalizer, which uses a store, in the
    middle of anything.
    """

    def __init__(self) -> None:
        self.door = threading.RLock()  # through which one goes in
        self.inside: set[object] = set()

    def before_fork(self) -> None:
        self.door.acquire()
        end = time.monotonic() + _PATIENCE
        while self.inside and time.monotonic() < end:
            time.sleep(0.001)  # nobody else waits, and this is seldom
        for pool in _pools.all():
            pool.before_fork()

    def after_fork_in_parent(self) -> None:
        self.door.release()


_gate = _Gate()
_pools = Alive[Pool]()
_inherited: list[sqlite3.Connection] = []
"""Connections of the parent, if it forked in a way that asks nobody before: never to be closed."""


def _reset_after_fork() -> None:
    global _gate
    _gate = _Gate()
    for pool in _pools.all():
        pool.reset_after_fork()


at_fork(
    before=lambda: _gate.before_fork(),
    after_in_parent=lambda: _gate.after_fork_in_parent(),
    after_in_child=_reset_after_fork,
)
