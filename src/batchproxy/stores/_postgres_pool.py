"""Connections to a PostgreSQL server, used by any thread, one at a time; a fork inherits none."""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from .._errors import StoreError
from .._forks import Alive
from .._messages import describe

if TYPE_CHECKING:
    from psycopg import Connection

_MOST = 4
"""Connections of one store, each a process of the server; that for leases is not counted."""

_BRIEFLY = 0.05
"""Seconds to wait for a connection before another one is made, which takes about as long."""

_CANCEL = 1.0
"""Seconds to tell the server that nobody waits any more."""

R = TypeVar("R")


class Many(list[bytes]):
    """Bytes, one at least, that are one parameter of a statement."""


class Pool:
    """Idle connections, the last used first: so no more are open than are needed at a time.

    A pool that is forgotten, and at exit every pool, closes the idle ones.

    Args:
        options: What psycopg is given to connect.
        timeout: Seconds to wait for a connection, beside the slack of those who have one, and for a
            sign of an answer.
        prepare: What is done before the first statement, and before the next after a failure.
        name: Who it is for, in messages.
    """

    def __init__(
        self,
        options: dict[str, Any],
        timeout: float,
        prepare: Callable[[Connection[Any]], object],
        name: str,
    ) -> None:
        self._options = options
        self._timeout = timeout
        self._prepare = prepare
        self._prepared = False
        self._name = name
        self._closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[Connection[Any]] = []
        self._open = 0
        self._ends: list[float] = []  # of the slack of those who have a connection
        self._over = -math.inf  # the last end of those who had one
        self._finalizer = finalize(self, _close_all, self._idle)

    def begin_process(self) -> None:
        """In a fork: nothing of the parent's is used, nor closed, which would end it there."""
        self._finalizer.detach()
        _inherited.extend(self._idle)
        self._begin()

    def run(
        self,
        statement: bytes,
        parameters: Sequence[object] = (),
        *,
        urgent: bool = False,
        slack: float = 0.0,
    ) -> list[Any]:
        """The rows that a statement answers. It is a transaction of its own.

        If the connection was lost it is run once more, with a new one: all that a store does comes
        to the same when it is done twice. If there is no answer in time it is not.

        Args:
            statement: What to run.
            parameters: For its placeholders.
            urgent: Whether it may have a connection more than others.
            slack: Seconds that the answer may take longer than others.
        """
        from psycopg import Error, OperationalError

        self.check()
        patience = self._timeout + slack
        connection = None
        try:
            connection = self._take(urgent)
            with self._granted(slack):
                try:
                    rows = self._answer(connection, statement, parameters, patience)
                except OperationalError:
                    if not connection.broken:
                        raise
                    connection = self._connect()  # what is idle may have been lost as well
                    rows = self._answer(connection, statement, parameters, patience)
        except BaseException as error:
            if connection is not None:
                connection.close()
                self._leave()
            if isinstance(error, Error | TimeoutError):
                self._prepared = False  # perhaps that is gone, or the server is another one
                raise StoreError(f"{self._name} failed: {describe(error)}") from error
            raise
        self._give_back(connection)
        return rows

    def check(self) -> None:
        """Raise if it was closed."""
        if self._closed:
            raise StoreError(f"{self._name} is closed; make another one")

    def close(self) -> None:
        """Close all connections, those in use as soon as they come back."""
        with self._changed:
            self._closed = True
            _close_all(self._idle)
            self._changed.notify_all()  # whoever waits for one waits in vain

    def _take(self, urgent: bool) -> Connection[Any]:
        start = now = time.monotonic()
        with self._changed:
            while not self._idle:
                self.check()
                if not self._open or (now >= start + _BRIEFLY and (urgent or self._open < _MOST)):
                    self._open += 1
                    break
                if now < start + _BRIEFLY:
                    until = start + _BRIEFLY
                else:
                    until = max(start, self._over, *self._ends) + self._timeout
                if now >= until:
                    raise TimeoutError(f"no connection was free for {self._timeout:g} s")
                self._changed.wait(min(until - now, self._timeout))
                now = time.monotonic()
            else:
                return self._idle.pop()
        try:
            return self._connect()
        except BaseException:
            self._leave()
            raise

    @contextmanager
    def _granted(self, slack: float) -> Iterator[None]:
        """Inside, who waits for a connection has no less time than whoever uses this one."""
        end = time.monotonic() + slack if slack else -math.inf
        with self._changed:
            self._ends.append(end)
        try:
            yield
        finally:
            with self._changed:
                self._ends.remove(end)
                self._over = max(self._over, min(time.monotonic(), end))

    def _connect(self) -> Connection[Any]:
        options = {**self._options, "autocommit": True, "prepare_threshold": None}
        return _patient_connection().connect(**options)  # type: ignore[no-any-return] # it is one

    def _answer(
        self, connection: Any, statement: bytes, parameters: Sequence[object], patience: float
    ) -> list[Any]:
        if not self._prepared:
            connection.patience = self._timeout
            self._prepare(connection)
            self._prepared = True
        return _fetch(connection, statement, parameters, patience)

    def _give_back(self, connection: Connection[Any]) -> None:
        with self._changed:
            self._idle.append(connection)
            if self._closed:
                _close_all(self._idle)
            self._changed.notify()

    def _leave(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()


def _fetch(
    connection: Any, statement: bytes, parameters: Sequence[object], patience: float
) -> list[Any]:
    connection.patience = patience
    with connection.cursor(binary=True) as cursor:
        try:
            cursor.execute(statement, parameters)
        except TimeoutError:
            _cancel(connection, min(patience, _CANCEL))
            raise
        rows: list[Any] = cursor.fetchall()
        return rows


def _cancel(connection: Connection[Any], timeout: float) -> None:
    """Otherwise a server goes on with what nobody waits for, in more processes with every try."""
    from psycopg import Error, capabilities

    # Where libpq is older it might wait for ever for that.
    if capabilities.has_cancel_safe():  # pragma: no branch - as it is where this is tested
        with suppress(Error):  # a server that stands still does not hear it either
            connection.cancel_safe(timeout=timeout)


@cache
def _patient_connection() -> Any:
    """The class of connections that wait for `patience`, which psycopg does for any time.

    They take a `Many` as an array of `bytea`.
    """
    from psycopg import Connection
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class ManyDumper(Dumper):
        oid = 1001
        format = Format.BINARY

        def dump(self, obj: Any) -> bytes:
            """In one go: psycopg goes through lists in Python."""
            head = struct.pack("!5i", 1, 0, 17, len(obj), 1)
            sizes = map(struct.Struct("!i").pack, map(len, obj))
            return head + b"".join(chain.from_iterable(zip(sizes, obj)))

    class PatientConnection(Connection[Any]):
        patience = math.inf

        def wait(self, gen: Generator[Any, Any, R], *args: Any, **options: Any) -> R:
            return super().wait(_patiently(gen, self.patience), *args, **options)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.adapters.register_dumper(Many, ManyDumper)

    return PatientConnection


def _patiently(gen: Generator[Any, Any, R], patience: float) -> Generator[Any, Any, R]:
    """As `gen`, but for a TimeoutError when nothing was sent or received for so long.

    Whoever drives it looks every tenth of a second whether something else has happened.
    """
    last = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                last = time.monotonic()
            elif time.monotonic() > last + patience:
                raise TimeoutError(f"the server has not answered for {patience:g} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return] # it is what `gen` returns


def _close_all(idle: list[Connection[Any]]) -> None:
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # pragma: no cover - another thread closes them, too
            return
        connection.close()


_pools = Alive[Pool](Pool.begin_process)
_inherited: list[Connection[Any]] = []
"""Connections of the parent, never to be closed, nor told by the collector that they were not."""
