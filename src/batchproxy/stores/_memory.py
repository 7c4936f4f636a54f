"""MemoryStore: values and claims in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from threading import RLock
from typing import NoReturn

from .._forks import Alive
from .._messages import kind_of
from .._store import Claimant, Claims, SharedStore, check_seconds


class MemoryStore(SharedStore):
    """Values and claims in memory, as long as the process lives.

    For tests of code that is given a store, for several caches of one process that are to share the
    work, and as an example of a store: it is the smallest that does all that a `SharedStore` must.

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
            self._memory.values.update(new)

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
            claims = Claims(self.get_many(namespace, keys), [], [])
            for key in keys:
                if key in claims.values:
                    continue
                holder = memory.claims.get((namespace, key), claimant).process
                if holder != claimant.process and memory.is_alive(holder):
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
        claims = self._memory.claims
        with self._memory.lock:
            for key in keys:
                if claims.get((namespace, key)) == claimant:
                    del claims[namespace, key]

    def heartbeat(self, namespace: str, process: str) -> None:
        with self._memory.lock:
            self._memory.renew(process, self.lease)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled or copied, as its memory is that of this process: use a "
            "SQLiteStore or a RedisStore, which other processes can share"
        )

    def __repr__(self) -> str:
        return f"<MemoryStore: {len(self._memory.values)} values>"


class _Memory:
    """What stores have in common of which one was made from the other."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.values: dict[tuple[str, bytes], tuple[bytes, float]] = {}  # with their end
        self.claims: dict[tuple[str, bytes], Claimant] = {}
        # By process: when the present half of its lease ends, and the half that is left: none if
        # somebody has doubted it.
        self.leases: dict[str, tuple[float, float]] = {}
        _memories.add(self)

    def reset_after_fork(self) -> None:
        """In the child: whoever held the lock is gone."""
        self.lock = RLock()

    def renew(self, process: str, lease: float) -> None:
        """Begin the lease of `process` anew. *Locked.*"""
        self.leases[process] = time.monotonic() + lease / 2, lease / 2

    def is_alive(self, process: str) -> bool:
        """Whether its lease stands, which is doubted if that is to be. *Locked.*"""
        now = time.monotonic()
        end, left = self.leases.get(process, (now, 0.0))
        if now < end:
            return True
        if left:
            self.leases[process] = now + left, 0.0
        else:
            self.leases.pop(process, None)
        return left > 0


_memories = Alive[_Memory](_Memory.reset_after_fork)
