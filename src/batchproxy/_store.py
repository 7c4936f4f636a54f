"""What a store is: the protocol, on bytes, that `_backing` runs in its threads and its users'."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from ._messages import short

DAY = 86_400
"""The most seconds of a lease, and of what a store waits for."""


def check_seconds(name: str, seconds: object, *, zero: bool = False) -> None:
    """Raise a TypeError or ValueError unless it is a number of seconds that can be waited for."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be a number of seconds, got {short(seconds)}")
    if not 0 <= seconds <= DAY or not (seconds or zero):
        least = "0 seconds or more" if zero else "more than 0 seconds"
        raise ValueError(
            f"{name} must be {least}, and a day (86,400) at most, got {short(seconds)}"
        )


class Store(ABC):
    """Values that outlive the process: bytes by key, in bulk.

    Keys are bytes of one fixed length, values bytes of any; both mean nothing to the store.
    `namespace` keeps the values of different functions apart: equal keys of two namespaces are
    different keys. A `Cache` gives text that can be printed, of 1,000 characters at most.

    Every method may be called from any thread, by several at once, and blocks. What it raises (an
    `Exception` of any kind) becomes a `StoreError`, of which it is the cause. After a ``fork`` the
    child uses the inherited object: a store has to notice, and open connections of its own.

    A store connects when it is first used, not when it is made: so the policy of the `Cache` that
    uses it covers what cannot be opened, too.

    `batchproxy.testing` has the tests that a store must pass.
    """

    max_value_size: int = sys.maxsize
    """The most bytes that one value may have. A larger one is the failure of its item. It is not
    given to the store, and its neighbours in the batch are kept."""

    @property
    def identity(self) -> Hashable:
        """What two stores have in common that keep their values in the same place.

        By default a store shares its place with no other. A `Cache` can be pickled if its store can
        be, and has an identity that is the same in other processes.
        """
        return id(self)

    @abstractmethod
    def get_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of `keys` that are there and have not expired, with their values.

        Args:
            namespace: Where to look.
            keys: Any number of distinct keys, also none.
        """

    @abstractmethod
    def set_many(self, namespace: str, values: Mapping[bytes, bytes], ttl: float | None) -> None:
        """Keep `values`, in one step: after a crash all of them are there, or none.

        Args:
            namespace: Where to keep them.
            values: By key; each replaces what was there.
            ttl: Seconds after which they are to be forgotten; None for never.
        """

    @abstractmethod
    def delete_many(self, namespace: str, keys: Sequence[bytes] | None) -> None:
        """Forget `keys`; those that are not there are no error.

        Args:
            namespace: Where to look.
            keys: None for all that the namespace has.
        """

    @abstractmethod
    def close(self) -> None:
        """Close connections and files. Deletes nothing; twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Claimant(NamedTuple):
    """Who claims: a process, which has a lease, and one of the calls in it."""

    process: str
    """Names the process among all that use the store; letters and digits. Two caches of one
    process are two processes here: they do not know of each other's calls."""
    call: int
    """Tells the call apart from others of that process."""


class Claims(NamedTuple):
    """What `SharedStore.claim_many` found and did. Keys in neither are free, and were left so."""

    values: dict[bytes, bytes]
    """Keys that have a value, with it."""
    claimed: list[bytes]
    """Keys that are now claimed by who asked, in the order in which they were asked for."""
    held: list[bytes]
    """Keys that are claimed by another process, whose lease has not run out."""


class SharedStore(Store):
    """A `Store` whose users, in several processes, share the work under way.

    A process that is about to compute keys claims them first. Its claims stand as long as its
    *lease* does, which every `claim_many` that claims something and every `heartbeat` renews for
    `lease` seconds.

    A lease that has run out proves nothing by itself: perhaps nobody could reach the store, which
    was locked, or stood still. So a lease ends in two steps. Half of it after it was last renewed
    it may be *doubted*, by the `claim_many` of another process, which leaves a mark: from now on
    the store can be reached. Half a lease after that it has run out, unless it was renewed, which
    removes the mark. Where others wait, and so ask again and again, the two are `lease` seconds.
    """

    lease: float = 10.0
    """Seconds for which a process is believed to be alive after it was last heard of; a day at
    most."""

    @abstractmethod
    def claim_many(
        self, namespace: str, keys: Sequence[bytes], claimant: Claimant, limit: int
    ) -> Claims:
        """Claim the first of `keys` that are free, at most `limit`, in one step.

        A key is free if it has no value (or an expired one) and no claim, or a claim of a process
        whose lease has run out, or one of any call of the claimant's own process: that claim is
        then the claimant's. Renews the lease of ``claimant.process`` if it claims anything, and
        doubts those of others that were not renewed for half of them.

        Args:
            namespace: Where the keys are.
            keys: Any number of distinct keys.
            claimant: Who is to have them.
            limit: The most keys to claim. With 0 it claims none, but doubts leases all the same: so
                looks who waits for others.
        """

    @abstractmethod
    def publish_many(
        self,
        namespace: str,
        values: Mapping[bytes, bytes],
        claimant: Claimant,
        ttl: float | None,
    ) -> dict[bytes, bytes]:
        """Keep `values`, in one step, but for keys that have a value by now; the first wins.

        The claims that `claimant` has on these keys end in the same step.

        Args:
            namespace: Where to keep them.
            values: By key.
            claimant: Who computed them. Claims may have been lost since; that does not matter.
            ttl: As in `set_many`.

        Returns:
            The keys that had a value already, with that value.
        """

    @abstractmethod
    def discard_many(self, namespace: str, values: Mapping[bytes, bytes]) -> None:
        """Forget those keys of `values` that still have this very value, in one step.

        So a value that cannot be read makes room, and never one that was published meanwhile.

        Args:
            namespace: Where to look.
            values: By key, as they were found.
        """

    @abstractmethod
    def release_many(self, namespace: str, keys: Sequence[bytes], claimant: Claimant) -> None:
        """End the claims on `keys`, as far as they are those of this very `claimant`.

        Args:
            namespace: Where the keys are.
            keys: Any number of keys; those that are not claimed, or by others, are no error.
            claimant: Who claimed them.
        """

    @abstractmethod
    def heartbeat(self, namespace: str, process: str) -> None:
        """Renew the lease of `process`: from now on it is `lease` seconds.

        It may do so in other namespaces, too.

        Args:
            namespace: Where it has claims. Who has some in several calls this for each.
            process: As in `Claimant`.
        """


class Usage(NamedTuple):
    """What one namespace of a store has."""

    values: int
    """How many there are, those not counted that have expired."""
    size: int
    """How many bytes they have together, without keys and what the store itself needs."""
