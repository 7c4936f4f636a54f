"""RedisStore: values and claims on a Redis or Valkey server."""

from __future__ import annotations

import codecs
import hashlib
import math
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .._errors import StoreError
from .._forks import unforked
from .._messages import cut, describe, short
from .._recipes import Travels, enlist
from .._store import Claimant, Claims, SharedStore, Usage, check_seconds
from ._steps import steps

if TYPE_CHECKING:
    import redis

    _Client: TypeAlias = redis.Redis | redis.RedisCluster

# How much one command or script is given, as the server does nothing else meanwhile.
_PAGE = 1_000  # keys, where nothing is promised of all of them together
_CLAIMS = 10_000  # keys, to claim or release

_LARGE = 2**16  # bytes of a value that is sent as it is

# Bytes that are sent in one go. A timeout is for each, as Python counts it over all of a sendall().
_PIECE = 2**17

_CONNECTIONS = 1_000  # of one process; who needs one more waits for it

_FOREVER = 10**15  # milliseconds; more than any clock has left, and less than Redis takes


class _Script:
    def __init__(self, *parts: str) -> None:
        self.text = "".join(parts)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# What a namespace has on the server. `namespace` is percent-encoded, so that it has no braces and
# is the hash tag: all of it lies in one slot of a cluster, where scripts may use it together.
#
#   prefix:{namespace}:v:KEY    a value, with an expiry if it has a ttl
#   prefix:{namespace}:leases   a sorted set: process -> when the present half of its lease ends, by
#                               the server's clock in milliseconds. There is one per namespace since
#                               a script must see it; so a process has a lease in each
#   prefix:{namespace}:halves   a hash: process -> half of its lease in milliseconds, as long as
#                               nobody has doubted it, as `SharedStore` says
#   prefix:{namespace}:claims   a hash: name of a value -> "process call"
#
# A claim has no expiry: it lasts as long as its owner renews the lease, which costs the same
# however many claims there are. Those of the dead go when the next process claims. The last ones to
# die leave nothing either, as all three end a day after they were used, at the earliest: later than
# any lease, for if the server stands still they must not be gone when it goes on.

_RENEW = """
local leases, halves, claims, process, half = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', leases, now + half, process)
redis.call('HSET', halves, process, half)
local function last()
    for _, key in ipairs({leases, halves, claims}) do
        if redis.call('PTTL', key) < 86400000 then redis.call('PEXPIRE', key, 172800000) end
    end
end
"""

_heartbeat = _Script(_RENEW, "last()")

# Answers with a letter for each key (value, claimed, held, free) and the values. unpack() takes
# no more than some thousands, hence the pages.
_claim = _Script(
    _RENEW,
    """
local who, limit = process .. ' ' .. ARGV[3], tonumber(ARGV[4])
local alive = {[process] = false}  -- who claims may have what its own process has claimed
local function holds(claim)
    local owner = string.match(claim, '^%S+')
    if alive[owner] == nil then alive[owner] = redis.call('ZSCORE', leases, owner) end
    return alive[owner]
end
local dead = false
for _, late in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
    local rest = redis.call('HGET', halves, late)
    if rest then  -- doubted: if it is alive it can say so from now on, as this runs
        redis.call('HDEL', halves, late)
        redis.call('ZADD', leases, now + rest, late)
    else
        redis.call('ZREM', leases, late)
        dead = true
    end
end
if dead then
    local all = redis.call('HGETALL', claims)
    for i = 1, #all, 2 do
        local owner = string.match(all[i + 1], '^%S+')
        if owner ~= process and not holds(all[i + 1]) then redis.call('HDEL', claims, all[i]) end
    end
end
local letters, answer = {}, {''}
for first = 4, #KEYS, 1000 do
    local final = math.min(first + 999, #KEYS)
    local values = redis.call('MGET', unpack(KEYS, first, final))
    local claimed = redis.call('HMGET', claims, unpack(KEYS, first, final))
    local taken = {}
    for i = first, final do
        local value, claim, letter = values[i - first + 1], claimed[i - first + 1], 'f'
        if value then
            letter = 'v'
            answer[#answer + 1] = value
        elseif claim and holds(claim) then
            letter = 'h'
        elseif limit > 0 then
            letter = 'c'
            limit = limit - 1
            taken[#taken + 1] = KEYS[i]
            taken[#taken + 1] = who
        end
        letters[#letters + 1] = letter
    end
    if #taken > 0 then
        -- A hash is looked through field by field as long as it is small and has nothing long.
        redis.call('HSET', claims, '', string.rep(' ', 100), unpack(taken))
        redis.call('HDEL', claims, '')
    end
end
last()
answer[1] = table.concat(letters)
return answer
""",
)

_RELEASE = """
local claims, who = KEYS[1], ARGV[1]
for first = 2, #KEYS, 1000 do
    local final = math.min(first + 999, #KEYS)
    local ended = {}
    for i, claim in ipairs(redis.call('HMGET', claims, unpack(KEYS, first, final))) do
        if claim == who then ended[#ended + 1] = KEYS[first + i - 1] end
    end
    if #ended > 0 then redis.call('HDEL', claims, unpack(ended)) end
end
"""

_release = _Script(_RELEASE)

_discard = _Script(
    """
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[i] then redis.call('UNLINK', key) end
end
"""
)

# For values with a ttl, which MSET does not know.
_set = _Script(
    "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1]) end"
)

# What follows an MSETNX of all values in one transaction: as every value that a script is given is
# copied twice, that takes half of the server's time. If it has written, every key is there. Else
# no claim may end yet, unless every key is there all the same.
_written = _Script(
    """
local there = 0
for first = 2, #KEYS, 1000 do
    there = there + redis.call('EXISTS', unpack(KEYS, first, math.min(first + 999, #KEYS)))
end
if there < #KEYS - 1 then return 0 end
""",
    _RELEASE,
    "return 1",
)

# Answers with the positions, from 0, of those that had a value, each followed by that value.
_publish = _Script(
    """
local answer, ttl = {}, ARGV[2]
local options = ttl == '' and {'NX'} or {'NX', 'PX', ttl}
for i = 2, #KEYS do
    if not redis.call('SET', KEYS[i], ARGV[i + 1], unpack(options)) then
        answer[#answer + 1] = i - 2
        answer[#answer + 1] = redis.call('GET', KEYS[i])
    end
end
""",
    _RELEASE,  # after the first write: that is the one which fails if memory is full
    "return answer",
)


class RedisStore(Travels, SharedStore):
    """Values and claims on a Redis or Valkey server, for processes on any number of machines.

    What it writes begins with ``prefix:{namespace}:``, so that a namespace lies in one slot of a
    cluster. Leases and expiry follow the server's clock; those of the machines may differ.

    Whether values outlive the server is up to its configuration: ``appendonly yes`` keeps them, but
    for those of the last second, and ``appendfsync always`` those, too. With a ``maxmemory-policy``
    that evicts, values that are evicted are computed again, and where claims or leases are evicted
    two processes may compute the same key; no answer is ever wrong. Without one, a server whose
    memory is full refuses to write, which is an error.

    A batch is written in one step if it has at most 100,000 values and 256 MiB; a larger one in
    several, each of them whole.

    It connects when it is first used. Whatever the server or the connection fails with, then and
    later, is a `StoreError`. Connections that `timeout` is for are tried once more when they fail,
    so a server that was restarted is found again, and one that is gone is an error after a few
    times `timeout`.

    Args:
        server: A URL (``redis://``, ``rediss://``, ``unix://``; options of redis-py may follow a
            question mark), or a client of redis-py: `redis.Redis`, `redis.RedisCluster`. A client
            stays yours: `close` leaves it open. Passwords are in no message and no `repr`.
        prefix: What keeps these values apart from others on the server; ASCII letters, digits,
            and ``_.:-``.
        lease: Seconds for which a process is believed to be alive after it was last heard of; a day
            at most.
        timeout: Seconds to wait for a connection and for an answer; a day at most. A client has its
            own. With ``max_connections`` in a URL, also to wait for one that is free.

    Raises:
        ImportError: redis-py is not installed.
        TypeError: `server` is neither, or `lease` or `timeout` no number.
        ValueError: One of the arguments is not as it should be, or an option of the URL.

    Threads: every method may be called from any thread. After a ``fork`` the child connects anew;
    but it is on the client, where that is yours, to be usable then.

    Pickling: As the URL, with the password that is in it, and the other arguments. In another
    process that is one store, however often it arrives. A store around a client cannot be pickled.
    """

    _stays = True
    _closed = False

    max_value_size: int = 512 * 2**20
    """What a server takes, unless its ``proto-max-bulk-len`` is another one."""

    def __init__(
        self,
        server: str | redis.Redis | redis.RedisCluster,
        *,
        prefix: str = "batchproxy",
        lease: float = 10.0,
        timeout: float = 5.0,
    ) -> None:
        try:
            with unforked():
                from redis import Redis, RedisCluster
        except ImportError as error:
            raise ImportError(
                "RedisStore needs redis-py: pip install 'batchproxy[redis]'"
            ) from error
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", prefix):
            raise ValueError(
                f"prefix must be ASCII letters, digits, and any of '_.:-', got {short(prefix)}"
            )
        check_seconds("lease", lease)
        check_seconds("timeout", timeout)
        self._own: _Connections | None = None
        self._client: _Client
        if isinstance(server, str):
            self._own = _Connections(server, timeout)
            self._client = self._own.client
        elif isinstance(server, Redis | RedisCluster):
            self._client = server
        else:
            kind = type(server)
            raise TypeError(
                "RedisStore takes a URL such as 'redis://localhost:6379/0', a redis.Redis or a "
                f"redis.RedisCluster, got {cut(f'{kind.__module__}.{kind.__qualname__}')}"
            )
        encoder = self._client.get_encoder()
        if encoder.decode_responses or not _is_utf8(encoder.encoding):
            raise ValueError(
                "RedisStore needs a client that answers in bytes and writes UTF-8, got one with "
                f"decode_responses={short(encoder.decode_responses)} and "
                f"encoding={short(encoder.encoding)}; leave both out"
            )
        self.lease = lease
        self._prefix = prefix
        self._place = _place(self._client)
        self._recipe = (server, prefix, lease, timeout)
        enlist(self)

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return dict(self._values(namespace, keys))

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        expiry = _milliseconds(ttl)
        for step in steps(values):
            names = self._names(namespace, step)
            if ttl is None:
                with self._connected() as client:
                    client.mset(dict(zip(names, step.values())))
            else:
                self._run(_set, names, [expiry, *step.values()])

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            pages = self._scan(quote(namespace, safe=""))
        else:
            pages = map(list, _pages(self._names(namespace, keys), _PAGE))
        with self._connected() as client:
            for page in pages:
                client.unlink(*page)

    @property
    def identity(self) -> Hashable:
        """The server, its database, and the prefix."""
        return self._place, self._prefix

    def close(self) -> None:
        self._closing = self._closed = True
        if self._own is not None:
            self._own.close()

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        claims = Claims({}, [], [])
        for page in _pages(keys, _CLAIMS):
            letters, *values = self._run(
                _claim,
                [*self._shared(namespace), *self._names(namespace, page)],
                [*self._lease(claimant.process), claimant.call, limit - len(claims.claimed)],
            )
            found = iter(values)
            for key, letter in zip(page, letters.decode()):
                if letter == "v":
                    claims.values[key] = next(found)
                elif letter == "c":
                    claims.claimed.append(key)
                elif letter == "h":
                    claims.held.append(key)
        return claims

    def publish_many(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        claimant: Claimant,
        ttl: float | None,
    ) -> dict[bytes, bytes]:
        expiry = _milliseconds(ttl)
        earlier: dict[bytes, bytes] = {}
        for step in steps(values):
            keys = list(step)
            names = [self._name(namespace, b"claims"), *self._names(namespace, keys)]
            if ttl is None and self._wrote_all(names, step.values(), claimant):
                continue
            answer = self._run(_publish, names, [_text(claimant), expiry, *step.values()])
            earlier |= zip((keys[at] for at in answer[::2]), answer[1::2])
        return earlier

    def _wrote_all(self, names: list[bytes], values: Iterable[bytes], claimant: Claimant) -> bool:
        """Publish in a transaction. If any has a value, or the server refuses, nothing is done."""
        from redis import Redis, ResponseError

        with self._connected() as client:
            if not isinstance(client, Redis):  # redis-py 5 has no transactions for a cluster
                return False
            with client.pipeline() as pipeline, suppress(ResponseError):
                pipeline.msetnx(dict(zip(names[1:], values)))
                pipeline.eval(_written.text, len(names), *names, _text(claimant))
                return all(pipeline.execute())
        return False

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        for step in steps(values):
            self._run(_discard, self._names(namespace, step), list(step.values()))

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        for page in _pages(keys, _CLAIMS):
            self._run(
                _release,
                [self._name(namespace, b"claims"), *self._names(namespace, page)],
                [_text(claimant)],
            )

    def heartbeat(self, namespace: str, process: str) -> None:
        self._run(_heartbeat, self._shared(namespace), self._lease(process))

    def usage(self) -> dict[str, Usage]:
        """What is stored under the prefix, by namespace.

        Looks at the name of everything that the server has. What others have put there is left out.
        """
        usage: dict[str, Usage] = {}
        for page in self._scan("*"):
            with self._connected() as client, client.pipeline(transaction=False) as pipeline:
                for name in page:
                    pipeline.strlen(name)
                sizes = pipeline.execute(raise_on_error=False)
            for name, size in zip(page, sizes):
                namespace = self._namespace(name)
                if namespace is not None and isinstance(size, int):  # else it is no string
                    values, total = usage.get(namespace, (0, 0))
                    usage[namespace] = Usage(values + 1, total + size)
        return usage

    def scan(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """The keys of `namespace` and their values, in no order.

        Those that are written or deleted meanwhile may be among them, or not. Looks at the name of
        everything that the server has.

        Args:
            namespace: Where to look.
        """
        start = len(self._name(namespace, b"v:"))
        for page in self._scan(quote(namespace, safe="")):
            yield from self._values(namespace, [name[start:] for name in page])

    def _check_travels(self) -> None:
        if self._own is None:
            raise TypeError(
                f"{self!r} cannot be pickled or copied, as its client is yours: make it from a URL "
                "instead, RedisStore('redis://...'), whose options stand for those of the client"
            )

    @classmethod
    def _make(cls, url: str, prefix: str, lease: float, timeout: float) -> Self:
        return cls(url, prefix=prefix, lease=lease, timeout=timeout)

    def __repr__(self) -> str:
        return f"<RedisStore: {self._place}, prefix {self._prefix!r}>"

    @contextmanager
    def _connected(self) -> Iterator[_Client]:
        """The client; what redis-py raises meanwhile becomes a `StoreError`."""
        from redis import RedisError

        if self._closed:
            raise StoreError(f"{self!r} is closed; make another one")
        if self._own is not None and self._own.process != os.getpid():
            self._own = self._own.again()
            self._client = self._own.client
        try:
            yield self._client
        except RedisError as error:
            raise StoreError(f"{self!r} failed: {describe(error)}") from error

    def _run(self, script: _Script, keys: list[bytes], arguments: list[Any]) -> Any:
        from redis.exceptions import NoScriptError

        with self._connected() as client:
            try:
                return client.evalsha(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:  # not seen before, or by a server that has restarted since
                return client.eval(script.text, len(keys), *keys, *arguments)

    def _namespace(self, name: bytes) -> str | None:
        """That of a value; None if the name is not one of ours."""
        start = len(self._prefix) + 2
        namespace = unquote(name[start : name.index(b"}", start)], errors="replace")
        return namespace if name.startswith(self._name(namespace, b"v:")) else None

    def _name(self, namespace: str, what: bytes) -> bytes:
        return f"{self._prefix}:{{{quote(namespace, safe='')}}}:".encode() + what

    def _names(self, namespace: str, keys: Iterable[bytes]) -> list[bytes]:
        start = self._name(namespace, b"v:")
        return [start + key for key in keys]

    def _shared(self, namespace: str) -> list[bytes]:
        return [self._name(namespace, what) for what in (b"leases", b"halves", b"claims")]

    def _lease(self, process: str) -> list[str | int]:
        return [process, math.ceil(self.lease * 500)]

    def _values(self, namespace: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for page in _pages(keys, _PAGE):
            with self._connected() as client:
                values: list[Any] = client.mget(self._names(namespace, page))
            for key, value in zip(page, values):
                if value is not None:
                    yield key, value

    def _scan(self, encoded: str) -> Iterator[list[bytes]]:
        """Names of values, page by page. The server may repeat some; here each comes once."""
        seen: set[bytes] = set()
        pattern = f"{self._prefix}:{{{encoded}}}:v:*"
        with self._connected() as client:
            names = iter(client.scan_iter(pattern, _PAGE))
        while True:
            with self._connected():
                page = list(islice(names, _PAGE))
            if not page:
                return
            new = set(page) - seen
            seen |= new
            if new:
                yield list(new)


class _Packer:
    """Writes commands: in few pieces, copied once at most, where redis-py has one for each 6 kB."""

    def pack(self, command: str, *arguments: bytes | str | int) -> list[bytes | memoryview]:
        words = command.encode().split()
        words += [each if type(each) is bytes else str(each).encode() for each in arguments]
        ready: list[bytes] = []
        pieces = [b"*%d\r\n" % len(words)]
        for word in words:
            pieces.append(b"$%d\r\n" % len(word))
            if len(word) > _LARGE:  # not copied
                ready += (b"".join(pieces), word)
                pieces = [b"\r\n"]
            else:
                pieces += (word, b"\r\n")
        ready.append(b"".join(pieces))
        return list(chain.from_iterable(map(_pieces, ready)))


def _pieces(data: bytes) -> Iterable[bytes | memoryview]:
    if len(data) <= _PIECE:
        return [data]
    view = memoryview(data)
    return (view[start : start + _PIECE] for start in range(0, len(data), _PIECE))


class _Connections:
    """What a store has of its own, to a URL."""

    def __init__(self, url: str, timeout: float) -> None:
        from redis import BlockingConnectionPool, Redis, exceptions
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.process = os.getpid()
        self._arguments = url, timeout
        wrong = _what_is_wrong(url)
        try:
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                # All that a store does comes to the same when it is done twice.
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[exceptions.ConnectionError, exceptions.TimeoutError],
                command_packer=_Packer(),
            )
            # Connects to nothing, but looks at the options; and not of the pool, which counts.
            self._pool.connection_class(**self._pool.connection_kwargs)
        except Exception as error:  # whatever it is that an option makes fail
            misquoted = "@" in url.partition("?")[2]  # then what it says may be of a password
            wrong = wrong or f"redis-py says: {'...' if misquoted else describe(error)}"
        if wrong:  # without the URL, nor an exception that may have a part of it
            raise ValueError(
                "RedisStore takes a URL such as 'redis://localhost:6379/0', 'rediss://...' or "
                f"'unix:///run/redis.sock', with options of redis-py; {wrong}"
            )
        # A client that was given its pool leaves it alone when it is collected. In a forked child
        # that may happen to one which it inherited.
        self.client = Redis(connection_pool=self._pool)

    def again(self) -> _Connections:
        """The same for a forked child.

        redis-py looks for a fork, too, but hangs if a thread of the parent was in its pool.
        """
        return _Connections(*self._arguments)

    def close(self) -> None:
        if self.process == os.getpid():
            self._pool.disconnect()


def _what_is_wrong(url: str) -> str:
    """What redis-py would not say, or with a part of the password in it; else nothing."""
    wrong = "its host, port or database is none, or / ? # or @ are not percent-encoded in it"
    try:
        parts = urlsplit(url)
        _ = parts.port
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        return wrong
    database = parts.scheme == "unix" or re.fullmatch(r"(/[0-9]*)?/?", parts.path)
    return wrong if parts.fragment or not database or "@" in "".join(options) else ""


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        return False


def _place(client: _Client) -> str:
    """Which server and database a client is for, and nothing else that it knows."""
    from redis import RedisCluster

    if isinstance(client, RedisCluster):
        return f"cluster of {', '.join(sorted(client.nodes_manager.startup_nodes))}"
    pool = client.connection_pool
    options = pool.connection_kwargs
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    if (service := getattr(pool, "service_name", None)) is not None:
        where = f"{service} of sentinels"
    return f"{where}/{options.get('db') or 0}"


def _text(claimant: Claimant) -> str:
    return f"{claimant.process} {claimant.call}"


def _milliseconds(ttl: float | None) -> str | int:
    return "" if ttl is None else max(1, math.ceil(min(ttl * 1000, _FOREVER)))


def _pages(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
