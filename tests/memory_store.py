"""Stores in memory that can be held up, made to fail, and asked what was asked of them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio.to_thread

from batchproxy.stores import Claimant, Claims, SharedStore, Store


@dataclass
class Gate:
    """Holds up the next use of one method, in the worker thread that runs it."""

    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    async def wait_entered(self) -> None:
        """Wait until the method is being held up."""
        assert await anyio.to_thread.run_sync(self.entered.wait, 10)

    def open(self) -> None:
        """Let it go on."""
        self.opened.set()


class PlainStore(Store):
    """A store that processes cannot share."""

    # The methods that are used when a map() begins, and before and after a call.
    reads, asks, writes = "get_many", "get_many", "set_many"

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.values: dict[tuple[str, bytes], bytes] = {}
        self.ttls: dict[tuple[str, bytes], float | None] = {}
        # Methods, and with how many keys; heartbeats, which come when it is time, are but counted.
        self.asked: list[tuple[str, int]] = []
        self.beats = 0
        self.fail: dict[str, Exception] = {}  # what a method raises from now on
        self.refuses: Callable[[bytes], bool] = lambda value: False  # which values are not taken
        self.closed = False
        self._gates: dict[str, list[Gate]] = {}

    def gate(self, method: str) -> Gate:
        """Hold up the next use of `method`, before it does anything."""
        gate = Gate()
        self._gates.setdefault(method, []).append(gate)
        return gate

    def refuse_writes(self) -> None:
        """From now on; reading works."""
        self.fail["set_many"] = self.fail["publish_many"] = OSError("full")

    @property
    def uses(self) -> Counter[str]:
        """How often each method was used."""
        return Counter(method for method, _ in self.asked)

    @contextmanager
    def _method(self, name: str, keys: int) -> Iterator[None]:
        with self.lock:
            if name == "heartbeat":
                self.beats += 1
            else:
                self.asked.append((name, keys))
            gate = self._gates[name].pop(0) if self._gates.get(name) else None
        if gate is not None:
            gate.entered.set()
            assert gate.opened.wait(10)
        if name in self.fail:
            error = self.fail[name]
            raise type(error)(*error.args)  # a new one: it is not to keep this store alive
        with self.lock:
            yield

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self._method("get_many", len(keys)):
            return self._found(namespace, keys)

    def _found(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        there = [key for key in keys if (namespace, key) in self.values]
        return {key: self.values[namespace, key] for key in there}

    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        with self._method("set_many", len(values)):
            self._set(namespace, values, ttl)

    def _set(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        if any(map(self.refuses, values.values())):
            raise OSError("full")
        self.values.update({(namespace, key): value for key, value in values.items()})
        self.ttls.update({(namespace, key): ttl for key in values})

    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        with self._method("delete_many", -1 if keys is None else len(keys)):
            for space, key in list(self.values):
                if space == namespace and (keys is None or key in keys):
                    del self.values[space, key]

    def close(self) -> None:
        self.closed = True


class MemoryStore(PlainStore, SharedStore):
    """A store that processes can share; `now` is its clock, which stands still."""

    asks, writes = "claim_many", "publish_many"

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.claims: dict[tuple[str, bytes], Claimant] = {}
        self.leases: dict[str, float] = {}
        self.looks = 0  # uses of claim_many that can claim nothing: as many as there is time for

    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        self.looks += limit == 0
        with self._method("claim_many", len(keys)):
            self._renew(claimant.process)
            claims = Claims(self._found(namespace, keys), [], [])
            for key in [key for key in keys if key not in claims.values]:
                other = self.claims.get((namespace, key), claimant).process
                if other != claimant.process and self.leases.get(other, 0) > self.now:
                    claims.held.append(key)
                elif len(claims.claimed) < limit:
                    claims.claimed.append(key)
                    self.claims[namespace, key] = claimant
            return claims

    def publish_many(
        self, namespace: str, values: Mapping[bytes, bytes], claimant: Claimant, ttl: float | None
    ) -> dict[bytes, bytes]:
        with self._method("publish_many", len(values)):
            there = self._found(namespace, list(values))
            self._set(namespace, {key: values[key] for key in values.keys() - there.keys()}, ttl)
            self._release(namespace, list(values), claimant)
            return there

    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        with self._method("discard_many", len(values)):
            for key, value in values.items():
                if self.values.get((namespace, key)) == value:
                    del self.values[namespace, key]

    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        with self._method("release_many", len(keys)):
            self._release(namespace, keys, claimant)

    def _release(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        for key in keys:
            if self.claims.get((namespace, key)) == claimant:
                del self.claims[namespace, key]

    def heartbeat(self, namespace: str, process: str) -> None:
        with self._method("heartbeat", 0):
            self._renew(process)

    def _renew(self, process: str) -> None:
        self.leases[process] = self.now + self.lease
