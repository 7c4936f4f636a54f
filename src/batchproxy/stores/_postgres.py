"""PostgresStore: values and claims on a PostgreSQL server."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Self
from uuid import UUID

from .._messages import cut, short
from .._recipes import Travels, enlist
from .._store import Claimant, Claims, SharedStore, Usage, check_seconds
from ._postgres_make import make
from ._postgres_pool import Many, Pool
from ._postgres_url import options_of, place_of
from ._steps import STEP_BYTES, steps

_PAGE = 10_000  # keys in a statement, where nothing is promised of all of them together
_ROWS = 1_000  # values that `scan` has in memory
_PACE = 2**23  # bytes that a server writes in a second, at least; it compresses them

_FOREVER = 10**11  # seconds; timestamps go on for longer
_LEAST = 2  # seconds to connect; libpq knows no less


class PostgresStore(Travels, SharedStore):
    """Values and claims on a PostgreSQL server, for processes on any number of machines.

    All of it is in one schema, which is made when it is first used: tables, and functions, so that
    each step is one statement. Leases and expiry follow the server's clock.

    A crash of a process loses nothing that was written. One of the server may lose the last moment,
    though never a part of a batch, unless the store is `durable`. Claims and leases are in unlogged
    tables, which a crash of the server empties (a restart does not): then two processes may compute
    the same keys, and the first result wins, as ever.

    A batch is written in one step if it has at most 100,000 values and 256 MiB; a larger one in
    several, each of them whole. What has expired is never found, and is removed by later writes, up
    to twice as many values as they write.

    It connects when it is first used, and has at most five connections, of one process; who needs
    one more waits. Nothing is kept in them from one statement to the next. Whatever the server or a
    connection fails with is a `StoreError`. What a lost connection was used for is tried once more,
    with a new one, so a server that was restarted is found again.

    Args:
        server: A URL, ``postgresql://user@host/database``, or ``key=value`` pairs; all that libpq
            knows may be in it. What is not is as libpq finds it in the environment. Passwords are
            in no message and no `repr`.
        schema: What keeps these values apart from others in the database; ASCII letters, digits and
            ``_``, 63 at most. A schema with anything else in it is refused, and left as it is.
        durable: Whether a write waits for as long as the server's ``synchronous_commit`` says,
            until it is on the disk, usually. That costs time with every batch.
        lease: Seconds for which a process is believed to be alive after it was last heard of; a day
            at most.
        timeout: Seconds to wait for a connection, at least 2 for a new one, and for the server to
            begin or to go on with an answer; a day at most. What it is given to write, 8 MiB
            may take a second more; `scan`, `usage` and removing a namespace any time. Who has to
            wait for the connection of one of these waits as much longer.

    Raises:
        ImportError: psycopg is not installed.
        TypeError: `server` or `schema` is no text, or `lease` or `timeout` no number.
        ValueError: One of the arguments is not as it should be.

    Threads: every method may be called from any thread. After a ``fork`` the child connects anew.

    Pickling: As `server`, with the password that is in it, and the other arguments. In another
    process that is one store, however often it arrives.
    """

    _stays = True

    max_value_size: int = STEP_BYTES
    """What is written in one step, at most."""

    def __init__(
        self,
        server: str,
        *,
        schema: str = "batchproxy",
        durable: bool = False,
        lease: float = 10.0,
        timeout: float = 5.0,
    ) -> None:
        if not isinstance(server, str):
            raise TypeError(
                "PostgresStore takes a URL such as 'postgresql://user@localhost/database', got "
                f"{cut(f'{type(server).__module__}.{type(server).__qualname__}')}"
            )
        if not re.fullmatch(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
            raise ValueError(
                "schema must be ASCII letters, digits and '_', 63 at most, beginning with no digit "
                f"and not with 'pg_', got {short(schema)}"
            )
        check_seconds("lease", lease)
        check_seconds("timeout", timeout)
        options = options_of(server)
        self.lease = lease
        self._durable = durable
        self._schema = schema
        self._place = place_of(options)
        self._recipe = (server, schema, durable, lease, timeout)
        connecting = {
            "connect_timeout": max(_LEAST, math.ceil(timeout)),
            "fallback_application_name": "batchproxy",
        }
        self._pool = Pool(
            connecting | options | {"client_encoding": "utf8"},
            timeout,
            lambda connection: make(connection, schema),
            repr(self),
        )
        enlist(self)

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for page in self._pages(keys):
            found.update(
                self._run("SELECT * FROM {}.get(%b, %b)", _space(namespace), Many(sorted(page)))
            )
        return found

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        self._write(namespace, values, ttl, None, None)

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        """As in `Store.delete_many`. Claims stay: who has them is still computing."""
        for page in self._pages(keys or ()):
            self._run("SELECT {}.delete(%b, %b, NULL)", _space(namespace), page)
        last: bytes | None = b""
        while keys is None and last is not None:
            # In a large schema it has a long way from one key of the namespace to the next.
            [(last,)] = self._run(
                "SELECT {}.clear(%b, %b, %s)", _space(namespace), last, _PAGE, slack=math.inf
            )

    @property
    def identity(self) -> Hashable:
        """The server, its database, and the schema."""
        return self._place, self._schema

    def close(self) -> None:
        """As in `Store.close`; what other threads are doing ends as usual."""
        self._closing = True
        self._pool.close()

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        claims = Claims({}, [], [])
        for page in self._pages(keys):
            found: dict[bytes, tuple[bytes | None, bool]] = {}
            left = limit - len(claims.claimed)
            for key, value, held in self._run(
                "SELECT * FROM {}.claim(%b, %b, %b, %s, %s, %s, %s)",
                *(_space(namespace), Many(sorted(page)), page if left else None),
                *(*claimant, self._half, left),
            ):
                found[key] = value, held
            for key in page:
                value, held = found.get(key, (None, None))
                if value is not None:
                    claims.values[key] = value
                elif held is not None:
                    (claims.held if held else claims.claimed).append(key)
        return claims

    def publish_many(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        claimant: Claimant,
        ttl: float | None,
    ) -> dict[bytes, bytes]:
        return self._write(namespace, values, ttl, *claimant)

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        for keys, data in self._steps(values):
            self._run("SELECT {}.delete(%b, %b, %b)", _space(namespace), keys, data)

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        for page in self._pages(keys):
            self._run("SELECT {}.release(%b, %b, %s, %s)", _space(namespace), page, *claimant)

    def heartbeat(self, namespace: str, process: str) -> None:
        statement = self._statement("SELECT {}.renew(%b, %s, %s)")
        self._pool.run(statement, (_space(namespace), process, self._half), urgent=True)

    def usage(self) -> dict[str, Usage]:
        """What is stored in the schema, by namespace. Reads all of it, however long that takes."""
        rows = self._pool.run(
            self._statement(
                "SELECT name, count(*), sum(octet_length(value)) "
                "FROM {0}.results JOIN {0}.namespaces USING (namespace) "
                "WHERE expires IS NULL OR expires > clock_timestamp() GROUP BY name"
            ),
            slack=math.inf,
        )
        return {_decoded(name): Usage(count, int(size)) for name, count, size in rows}

    def scan(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """The keys of `namespace` and their values, in the order of the keys, a page at a time.

        Those that are written or deleted meanwhile may be among them, or not. Reads the keys of all
        namespaces.

        Args:
            namespace: Where to look.
        """
        last = b""
        while rows := self._run(
            "SELECT * FROM {}.scan(%b, %b, %s)", _space(namespace), last, _ROWS, slack=math.inf
        ):
            yield from rows
            last = rows[-1][0]

    @classmethod
    def _make(cls, server: str, schema: str, durable: bool, lease: float, timeout: float) -> Self:
        return cls(server, schema=schema, durable=durable, lease=lease, timeout=timeout)

    def __repr__(self) -> str:
        return f"<PostgresStore: {self._place}, schema {self._schema!r}>"

    @property
    def _half(self) -> str:
        """Half of the lease, as the server takes it."""
        return f"{self.lease / 2:f} s"

    def _statement(self, statement: str) -> bytes:
        return statement.format(f'"{self._schema}"').encode()

    def _run(self, statement: str, *parameters: object, slack: float = 0.0) -> list[Any]:
        return self._pool.run(self._statement(statement), parameters, slack=slack)

    def _write(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        ttl: float | None,
        process: str | None,
        call: int | None,
    ) -> dict[bytes, bytes]:
        seconds = None if ttl is None or ttl > _FOREVER else float(ttl)
        there: dict[bytes, bytes] = {}
        for keys, data in self._steps(values):
            rows = self._run(
                "SELECT * FROM {}.write(%b, %b, %b, %b, %s, %s, %s, %s)",
                *(_space(namespace), _encoded(namespace), keys, data),
                *(seconds, self._durable, process, call),
                slack=sum(map(len, data)) / _PACE,
            )
            there.update(rows)
        return there

    def _pages(self, keys: Sequence[bytes]) -> Iterator[Many]:
        self._pool.check()
        return (Many(keys[start : start + _PAGE]) for start in range(0, len(keys), _PAGE))

    def _steps(self, values: Mapping[bytes, bytes]) -> Iterator[tuple[Many, Many]]:
        """Keys with values, in the order of the keys, in which everybody locks them."""
        self._pool.check()
        ordered = {key: values[key] for key in sorted(values)}
        return ((Many(step), Many(step.values())) for step in steps(ordered))


def _encoded(namespace: str) -> bytes:
    return namespace.encode("utf-8", "surrogatepass")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _space(namespace: str) -> UUID:
    """What a namespace is called on the server."""
    return UUID(bytes=hashlib.blake2b(_encoded(namespace), digest_size=16).digest())
