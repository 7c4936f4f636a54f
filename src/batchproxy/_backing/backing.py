"""A store as one cache uses it: keys become digests, values bytes, and failures follow a policy.

Everything here blocks, and is called in worker threads, or by users in threads of their own.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Literal

from .._core.flights import Flight
from .._core.outcome import StoreFailure
from .._core.table import Table
from .._errors import StoreError
from .._forks import Alive
from .._messages import short
from .._store import Claimant, Claims, SharedStore, Store
from .codecs import Codec
from .elsewhere import Lookout, Seen
from .encoding import Claimed, Encoding, Published
from .keeper import Owner
from .leases import Grant, this_process
from .policy import Continuing, Policy, Raising, strictly
from .unwritten import Unwritten
from .workers import Workers
from .writers import PATIENCE, Writers, undisturbed

THREADS = 8
"""The most worker threads of one cache."""


class Backing:
    """A store, and the namespace, codec, lifetime and policy with which a cache uses it."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        codec: Codec | None,
        ttl: float | None,
        on_error: Literal["raise", "continue"],
        table: Table,
    ) -> None:
        self.store = store
        self._shared = store if isinstance(store, SharedStore) else None
        self._namespace = namespace
        self._ttl = ttl
        # A value that was read may expire at any moment: only the store knows when.
        self.keeps = ttl is None
        self.encoding = Encoding(store, codec)
        self._table = table  # what this process is computing of it
        self.policy: Policy = Continuing() if on_error == "continue" else Raising()
        self._unwritten = Unwritten()
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._owner = Owner()  # in the store, where claims are this cache's in this process
        self.workers = Workers(THREADS)
        self.writers = Writers()
        self.lookout = Lookout(self._table, keep=self.keeps)

    def begin_process(self) -> None:
        """In a fork: another owner, without threads, and where locks may be taken for ever."""
        self._begin()
        self.policy.begin_process()
        self._unwritten.begin_process()

    def __repr__(self) -> str:
        text = f"store={short(self.store)} namespace={short(self._namespace)}"
        return f"{text} unwritten={count}" if (count := len(self._unwritten.results)) else text

    def grant(self) -> Grant | None:
        """What a call needs to claim in the store, if processes share that."""
        if self._shared is None:
            return None
        return Grant(self._shared, self._namespace, self._owner)

    def who_computes(self, keys: Collection[Hashable]) -> set[Flight]:
        """The calls of other caches of this process for `keys`. Readings wait for nobody."""
        place, flights = (self.store.identity, self._namespace), set[Flight]()
        for other in _alive.all():
            if other is not self and (other.store.identity, other._namespace) == place:
                flights |= other._table.who_computes(keys)
        return {flight for flight in flights if flight.counters is not None}

    def read(self, keys: Sequence[Hashable], names: dict[Hashable, bytes]) -> dict[Hashable, Any]:
        """Those of `keys` that the store has, with their values."""
        by_name = dict(zip(self.encoding.digests(keys, names), keys))

        def ask() -> dict[Hashable, Any]:
            if self._unwritten.results:
                self._write_wanted(by_name)
            stored = self.store.get_many(self._namespace, list(by_name))
            return self.encoding.decoded(stored, by_name)[0]

        return self.policy.ask("read", ask, {})

    def claim(
        self, keys: Sequence[Hashable], names: dict[Hashable, bytes], grant: Grant | None, most: int
    ) -> Claimed:
        """Look `keys` up once more, and claim at most `most` of those that nobody has."""
        by_name = dict(zip(self.encoding.digests(keys, names), keys))

        def ask() -> Claimed:
            if self._unwritten.results:
                self._write_wanted(by_name)
            if grant is None:
                stored = self.store.get_many(self._namespace, list(by_name))
                values = self.encoding.decoded(stored, by_name)[0]
                return Claimed(values, [key for key in keys if key not in values][:most], [])
            claims = self._claims(list(by_name), grant, most)
            if len(claims.claimed) == len(keys):  # as a rule
                return Claimed({}, list(keys), [])
            values, unreadable = self.encoding.decoded(claims.values, by_name)
            if unreadable:  # they make room; what was published in their place meanwhile stays
                grant.store.discard_many(self._namespace, unreadable)
                if left := most - len(claims.claimed):
                    more = self._claims(list(unreadable), grant, left)
                    values |= self.encoding.decoded(more.values, by_name)[0]
                    claims = Claims({}, claims.claimed + more.claimed, claims.held + more.held)
            mine = set(claims.claimed)
            return Claimed(
                values,
                [key for name, key in by_name.items() if name in mine],
                [by_name[name] for name in claims.held],
            )

        return self.policy.ask("asked", ask, Claimed({}, list(keys[:most]), []))

    def _claims(self, names: list[bytes], grant: Grant, limit: int) -> Claims:
        claimant = grant.begin()
        try:
            claims = grant.store.claim_many(self._namespace, names, claimant, limit)
        except BaseException:
            grant.add(names)  # the store may have granted them, and only its answer was lost
            raise
        grant.add(claims.claimed)
        return claims

    def look(self, names: dict[Hashable, bytes]) -> Seen:
        """What became of keys, with their names, that others had claimed. Claims nothing."""
        by_name = {name: key for key, name in names.items()}
        store = self._shared
        assert store is not None  # else nobody could have

        def ask() -> Seen:
            owner = Claimant(self._owner.name, 0)
            claims = store.claim_many(self._namespace, list(by_name), owner, 0)
            values = self.encoding.decoded(claims.values, by_name)[0]
            return Seen(values, {by_name[name] for name in claims.held})

        return self.policy.ask("asked", ask, Seen({}, ()))

    def publish(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes], grant: Grant | None
    ) -> Published:
        """Keep `results`: from then on they are never lost. Inside ``writers.writing``."""
        expires = self._expires()
        encoded, refused = self.encoding.encoded(results, names)
        by_name = {names[key]: key for key in results}
        del results  # the frames of what refused some lead here: their failures would keep them all

        def ask() -> dict[Hashable, Any]:
            return self._write(encoded, by_name, grant, self._ttl)

        try:
            adopted = self.policy.ask("written", ask, dict[Hashable, Any]())
        except BaseException as error:
            self._unwritten.keep(encoded, expires)
            # Returned as it is: a variable of this frame, which is in the traceback, were a cycle.
            return Published({}, refused, StoreFailure.of(error))
        else:
            if self._unwritten.results:
                self._unwritten.retry(self._write_late)
            return Published(adopted, refused)
        finally:
            del refused  # a cycle, for the same reason

    def postpone(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes], error: StoreError
    ) -> Published:
        """What `publish` does of `results` that cannot be written now, for the reason `error`."""
        expires = self._expires()
        encoded, refused = self.encoding.encoded(results, names)
        try:
            if self.policy.goes_on(error):
                return Published({}, refused)
            self._unwritten.keep(encoded, expires)
            return Published({}, refused, StoreFailure.of(error))
        finally:
            del refused, results  # as in `publish`

    def drop(self, keys: Collection[Hashable], names: dict[Hashable, bytes]) -> None:
        """Do not write results of `keys` that were postponed: they have been forgotten."""
        self._unwritten.forget([names[key] for key in keys])

    def _expires(self) -> float | None:
        """When what a call gave now is to be forgotten, on the monotonic clock."""
        return None if self._ttl is None else time.monotonic() + self._ttl

    def _write(
        self,
        encoded: Mapping[bytes, bytes],
        by_name: Mapping[bytes, Hashable],
        grant: Grant | None,
        ttl: float | None,
    ) -> dict[Hashable, Any]:
        """Write what is not there yet; the values of what is. Raises whatever the store raises."""
        if not encoded:
            return {}
        if grant is None:
            self.store.set_many(self._namespace, encoded, ttl)
            return {}
        there = self._publish(encoded, grant, ttl)
        differing = {name: data for name, data in there.items() if data != encoded[name]}
        if not differing:
            return {}
        adopted, unreadable = self.encoding.decoded(differing, by_name)
        if unreadable:  # ours take their place, unless others are quicker
            grant.store.discard_many(self._namespace, unreadable)
            ours = {name: encoded[name] for name in unreadable}
            adopted |= self.encoding.decoded(self._publish(ours, grant, ttl), by_name)[0]
        return adopted

    def _publish(
        self, encoded: Mapping[bytes, bytes], grant: Grant, ttl: float | None
    ) -> dict[bytes, bytes]:
        there = grant.store.publish_many(self._namespace, encoded, grant.claimant, ttl)
        grant.remove(encoded)
        return there

    def _write_late(self, encoded: Mapping[bytes, bytes], ttl: float | None) -> None:
        by_name, grant = {name: name for name in encoded}, self.grant()
        if grant is None:  # such a store replaces what others have published meanwhile
            stored = self.store.get_many(self._namespace, list(encoded))
            there = self.encoding.decoded(stored, by_name)[0]
            encoded = {name: data for name, data in encoded.items() if name not in there}
        self._write(encoded, by_name, grant, ttl)

    def _write_wanted(self, names: Collection[bytes]) -> None:
        """Write those of `names` that could not be written before.

        Raises:
            StoreError: they still could not.
        """
        with self.writers.writing():
            self._unwritten.write(names, self._write_late)

    def replace(self, encoded: Mapping[bytes, bytes]) -> None:
        """Keep values, whatever was there.

        Raises:
            StoreError: whatever the policy: who asked for it must know.
        """
        strictly("written", lambda: self.store.set_many(self._namespace, encoded, self._ttl))
        self._unwritten.forget(encoded)

    def delete(self, names: Sequence[bytes] | None) -> None:
        """Forget the keys of those `names`, or all of the namespace.

        Raises:
            StoreError: whatever the policy: it is not known what is still there.
        """
        self._unwritten.forget(names)
        strictly("written", lambda: self.store.delete_many(self._namespace, names))

    def close(self) -> None:
        """Write what is still to be written, give back all claims, and close the store."""
        undisturbed(self._close)

    def _close(self) -> None:
        self.writers.wait_until_taken()
        if self._unwritten.results:
            with self.writers.writing():
                self._unwritten.write_all(self._write_late, PATIENCE)
        this_process().flush(1.0, self.store)
        self.store.close()


_alive = Alive[Backing](Backing.begin_process)


def _finish_at_exit() -> None:
    """Let threads end what they are writing: those that are daemons die with the interpreter."""
    end = time.monotonic() + PATIENCE
    for backing in _alive.all():
        backing.writers.wait_until_taken(max(0.0, end - time.monotonic()))


# What runs last was registered first: claims are given back when all is written.
atexit.register(_finish_at_exit)
