"""This process as the owner of claims: its heartbeat, and the claims it gives back.

Each store in use has a keeper, whose thread renews and releases, so that no store that stalls costs
another its claims.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Collection
from itertools import count

from .._errors import StoreError
from .._forks import at_fork
from .._store import Claimant, SharedStore, Store
from .keeper import Keeper, Owner


class _Process:
    """The claims of this process, in all stores."""

    def __init__(self) -> None:
        self.calls = count(1)
        self.lock = threading.RLock()  # re-entrant: the collector may end a forgotten call in it
        # The calls that have claims, by the name that they claim in, which is that of one cache.
        self._claiming: dict[str, set[Grant]] = {}
        self._keepers: dict[int, Keeper] = {}  # by the id of the store, as long as there is one

    def claim(self, grant: Grant) -> None:
        """A call begins to claim: from now on its lease is renewed. Twice is fine."""
        name = grant.claimant.process
        with self.lock:
            self._keeper(grant.store).renew(name)  # first: it fails where no thread is to be had
            self._claiming.setdefault(name, set()).add(grant)

    def end(self, grant: Grant) -> None:
        """A call has no claims any more. Twice is fine."""
        name = grant.claimant.process
        with self.lock:
            grants = self._claiming.get(name, set())
            grants.discard(grant)
            if not grants:  # the next beat finds out; often a new call is first
                self._claiming.pop(name, None)

    def release(self, grant: Grant, keys: Collection[bytes]) -> None:
        """Have claims released, soon. Does not wait."""
        with self.lock:
            self._keeper(grant.store).release(grant, keys)

    def flush(self, seconds: float, store: Store | None = None) -> None:
        """Wait until what was to be released is, or until so much time has passed.

        Args:
            seconds: How long, at most.
            store: Where; by default in all stores.
        """
        with self.lock:
            ids = list(self._keepers) if store is None else [id(store)]
            events = [self._keepers[each].flush() for each in ids if each in self._keepers]
        end = time.monotonic() + seconds
        for event in events:
            event.wait(max(0.0, end - time.monotonic()))

    def _keeper(self, store: SharedStore) -> Keeper:
        keepers, key = self._keepers, id(store)
        if key not in keepers:
            keepers[key] = Keeper(store, self.lock, self._claiming, lambda: keepers.pop(key, None))
        return keepers[key]


class Grant:
    """What a store has granted to one call, to be given back whatever becomes of the call.

    It may be given back while a worker thread is still claiming: then that thread does it again.
    """

    __slots__ = (
        "_keys",
        "_lock",
        "_process",
        "_renewed",
        "claimant",
        "namespace",
        "owner",
        "store",
    )

    def __init__(self, store: SharedStore, namespace: str, owner: Owner) -> None:
        self.store = store
        self.namespace = namespace
        self.owner = owner
        self._process = _this
        self.claimant = Claimant(owner.name, next(_this.calls))
        self._keys: set[bytes] = set()
        self._renewed = False  # whether the lease is, on behalf of this call
        self._lock = threading.RLock()

    def begin(self) -> Claimant:
        """Who is to claim; from now on, until `release`, the lease is renewed.

        Raises:
            StoreError: there is no thread for that.
        """
        with self._lock:
            if not self._renewed:
                self._renewed = True  # first: an interrupt in between must not renew it for ever
                try:
                    self._process.claim(self)
                except StoreError:
                    self._renewed = False
                    raise
            return self.claimant

    def add(self, keys: Collection[bytes]) -> None:
        """Note that `keys` are claimed."""
        with self._lock:
            self.begin()  # once more, if it was given back meanwhile
            self._keys.update(keys)

    def remove(self, keys: Collection[bytes]) -> None:
        """Note that they are not any more."""
        with self._lock:
            self._keys.difference_update(keys)

    def release_some(self, keys: Collection[bytes]) -> None:
        """Give back what is still claimed of `keys`; the call goes on with others."""
        with self._lock:  # in this order, as below
            if rest := self._keys.intersection(keys):
                self._process.release(self, rest)
                self._keys -= rest

    def release(self) -> None:
        """Give back what is still claimed. Does not wait; twice is fine."""
        if self._process is not _this:
            return  # this is a fork, and the claims are the parent's
        with self._lock:  # do it, then forget it: an interrupt in between must lose nothing
            if self._keys:
                self._process.release(self, list(self._keys))
                self._keys = set()
            if self._renewed:
                self._process.end(self)
                self._renewed = False


_this = _Process()


def this_process() -> _Process:
    """The process that runs this; after a ``fork`` the child is another one."""
    return _this


def _flush_at_exit() -> None:
    _this.flush(1.0)


def _reset_after_fork() -> None:
    global _this
    _this = _Process()


atexit.register(_flush_at_exit)
at_fork(after_in_child=_reset_after_fork)
