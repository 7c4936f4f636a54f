"""MemoryStore: values and claims in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from threading import RLock
from typing import NoReturn

from .._forks import Alive
from .._messages import kind_of
from .._store import Claimant, Claims, SharedStore, check_seconds


class MemoryStore(SharedStore):
    """Values and claims in memory, as long as the process lives.

    For tests of code that is given a store, for several caches of one process that are to share the
    work, and as an example of a store: it is the smallest that does all that a `SharedStore` must.
    What has expired is never found, and is removed by later writes, up to twice as many values as
    they write.

    Args:
        other: Another one, whose values and claims this one has, too, as another process would that
            opens the same file.
        lease: Seconds for which a cache is believed to be alive after it was last heard of; a day
            at most.

    Raises:
        TypeError: `other` is no `MemoryStore`, or `lease` no number.
        ValueError: `lease` is not more than 0, or longer than a day.

    Threads: every method may be called from any thread. After a ``fork`` the child has a copy, and
    sees nothing of what the parent does.
    """

    def __init__(self, other: MemoryStore | None = None, *, lease: float = 10.0) -> None:
        if other is not None and not isinstance(other, MemoryStore):
            raise TypeError(f"other must be a MemoryStore, got {kind_of(other)}")
        check_seconds("lease", lease)
        self.lease = lease
        self._memory: _Memory = _Memory() if other is None else other._memory

    @property
    def identity(self) -> Hashable:
        """The memory that it has in common with others."""
        return id(self._memory)

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        values = self._memory.values
        now = time.monotonic()
        found = {}
        with self._memory.lock:
            for key in keys:
                value, end = values.get((namespace, key), (b"", now))
                if now < end:
                    found[key] = value
        return found

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        end = math.inf if ttl is None else time.monotonic() + ttl
        new = {(namespace, key): (value, end) for key, value in values.items()}
        with self._memory.lock:
            self._memory.keep(new, end)

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        values = self._memory.values
        with self._memory.lock:
            if keys is None:
                keys = [key for name, key in values if name == namespace]
            for key in keys:
                values.pop((namespace, key), None)

    def close(self) -> None:
        """Does nothing: the values are there as long as somebody has the store."""

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        memory = self._memory
        with memory.lock:
            memory.bury(claimant.process)
            claims = Claims(self.get_many(namespace, keys), [], [])
            for key in keys:
                if key in claims.values:
                    continue
                holder = memory.claims.get((namespace, key), claimant).process
                if holder != claimant.process and holder in memory.leases:
                    claims.held.append(key)
                elif len(claims.claimed) < limit:
                    memory.claims[namespace, key] = claimant
                    claims.claimed.append(key)
            if claims.claimed:
                memory.renew(claimant.process, self.lease)
        return claims

    def publish_many(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        claimant: Claimant,
        ttl: float | None,
    ) -> dict[bytes, bytes]:
        with self._memory.lock:
            there = self.get_many(namespace, list(values))
            self.set_many(namespace, {key: values[key] for key in values if key not in there}, ttl)
            self.release_many(namespace, list(values), claimant)
        return there

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        with self._memory.lock:
            there = self.get_many(namespace, list(values))
            self.delete_many(namespace, [key for key in there if there[key] == values[key]])

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        with self._memory.lock:
            claims = self._memory.claims
            for key in keys:
                if claims.get((namespace, key)) == claimant:
                    del claims[namespace, key]

    def heartbeat(self, namespace: str, process: str) -> None:
        with self._memory.lock:
            self._memory.renew(process, self.lease)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled or copied, as its memory is that of this process: use a "
            "SQLiteStore, a RedisStore or a PostgresStore, which other processes can share"
        )

    def __repr__(self) -> str:
        return f"<MemoryStore: {self._memory.count()} values>"


class _Memory:
    """What stores have in common of which one was made from the other."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.values: dict[tuple[str, bytes], tuple[bytes, float]] = {}  # with their end
        # Of those that will expire, the first one on top. May name what was written anew or deleted
        # since, for as long as there is not more of that than of others.
        self.ends: list[tuple[float, tuple[str, bytes]]] = []
        self.claims: dict[tuple[str, bytes], Claimant] = {}
        # By process: when the present half of its lease ends, and the half that is left: none if
        # somebody has doubted it.
        self.leases: dict[str, tuple[float, float]] = {}
        _memories.add(self)

    def reset_after_fork(self) -> None:
        """In the child: whoever held the lock is gone."""
        self.lock = RLock()

    def keep(self, new: Mapping[tuple[str, bytes], tuple[bytes, float]], end: float) -> None:
        """Keep values up to their `end`, and drop up to twice as many that have expired. *Locked.*

        So that those never grow in number, and nobody waits for them to be dropped all at once.
        """
        values, now = self.values, time.monotonic()
        for _ in range(2 * len(new)):
            if not self.ends or self.ends[0][0] > now:
                break
            _, place = heappop(self.ends)
            if values.get(place, (b"", math.inf))[1] <= now:
                del values[place]
        values.update(new)
        if end < math.inf:
            for place in new:
                heappush(self.ends, (end, place))
            if len(self.ends) > 2 * len(values) + 1000:
                self.ends = [(end, place) for place, (_, end) in values.items() if end < math.inf]
                heapify(self.ends)

    def count(self) -> int:
        """How many values have not expired."""
        with self.lock:
            now = time.monotonic()
            return sum(now < end for _, end in self.values.values())

    def renew(self, process: str, lease: float) -> None:
        """Begin the lease of `process` anew. *Locked.*"""
        self.leases[process] = time.monotonic() + lease / 2, lease / 2

    def bury(self, asking: str) -> None:
        """Doubt the leases that are to be, and remove those that have run out. *Locked.*

        With their claims; but not that of the process which is `asking`.
        """
        now = time.monotonic()
        late = [name for name, (end, _) in self.leases.items() if end <= now and name != asking]
        dead = {name for name in late if not self.leases[name][1]}
        for name in late:
            left = self.leases.pop(name)[1]
            if left:
                self.leases[name] = now + left, 0.0
        if dead:
            self.claims = {
                place: claimant
                for place, claimant in self.claims.items()
                if claimant.process not in dead
            }


_memories = Alive[_Memory](_Memory.reset_after_fork)
