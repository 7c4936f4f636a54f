"""The thread that looks after the claims of this process in one store.

It renews leases there, so that no ``map_func``, however long it blocks, loses the claim on what it
is computing, and gives back the claims of calls that failed or were cancelled, since nobody may
wait for a store in clean-up. It ends when nothing is left to do, and keeps no store alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol
from uuid import uuid4
from weakref import ref

from .._errors import StoreError
from .._messages import describe, short
from .._store import Claimant, SharedStore
from .workers import daemon

_logger = logging.getLogger("batchproxy")

BEATS = 4
"""How often a lease is renewed in its time. Others doubt it after half of that."""

_LONGEST = 60.0
"""The most seconds between two beats, however long the lease is."""


class Owner:
    """A cache as the owner of claims in a namespace: a process, as the store sees it."""

    def __init__(self) -> None:
        self.name = uuid4().hex

    def retire(self, name: str) -> None:
        """Claim by another name from now on, if that is the present one: its lease has to end."""
        if self.name == name:
            self.name = uuid4().hex


class _Release:
    """Keys that one call had claimed, to be given back."""

    def __init__(self, grant: Claiming) -> None:
        self.store: SharedStore | None = grant.store  # until it has been tried
        self.namespace, self.owner = grant.namespace, grant.owner
        self.keys: set[bytes] = set()
        self.since = self.due = time.monotonic()  # when it is to be tried


class Claiming(Protocol):
    """A call that has claims."""

    store: SharedStore
    namespace: str
    owner: Owner
    claimant: Claimant


class Keeper:
    """The claims of this process in one store, and the thread that looks after them."""

    def __init__(
        self,
        store: SharedStore,
        lock: threading.RLock,
        claiming: Mapping[str, Iterable[Claiming]],
        gone: Callable[[], object],
    ) -> None:
        wakes: SimpleQueue[None] = SimpleQueue()

        def forgotten(_: object) -> None:
            gone()
            wakes.put(None)

        self._store = ref(store, forgotten)
        self._wakes = wakes
        self._lease = store.lease
        self._interval = min(store.lease / BEATS, _LONGEST)
        self._lock = lock  # of the process
        self._claiming = (
            claiming  # the calls that have claims there, by the name that they claim in
        )
        # When the next heartbeat of a name is due, on the monotonic clock.
        self._beats: dict[str, float] = {}
        self._releases: dict[Claimant, _Release] = {}
        self._releasing: _Release | None = None  # the one that the thread is giving back
        self._flushing: list[threading.Event] = []
        self._thread: threading.Thread | None = None

    # With the lock of the process.

    def renew(self, name: str) -> None:
        """Renew the lease of `name` from now on, as long as calls claim by it."""
        if name not in self._beats:
            self._beats[name] = time.monotonic() + self._interval  # it looks before that
        if self._thread is None:
            self._start()

    def release(self, grant: Claiming, keys: Collection[bytes]) -> None:
        """Give claims back, soon."""
        self._give_up(grant)
        release = self._releases.setdefault(grant.claimant, _Release(grant))
        release.keys.update(keys)
        release.due, release.store = time.monotonic(), grant.store
        if self._thread is None:
            with suppress(StoreError):  # then the next call that needs the thread starts one
                self._start()
        self._wake()

    def flush(self) -> threading.Event:
        """Is set when all that is to be released was, or was tried once more at least."""
        done = threading.Event()
        for claimant in list(self._releases):  # as in `_give_up`; also what has failed before
            release = self._releases[claimant]
            release.due, release.store = time.monotonic(), self._store()
        if self._thread is None:
            done.set()
        else:
            self._flushing.append(done)
            self._wake()
        return done

    def _start(self) -> None:
        thread = daemon("batchproxy leases", self._run)
        try:
            thread.start()
        except RuntimeError as error:
            raise StoreError(
                f"nothing can be claimed without a thread that renews the lease: {error}"
            ) from error
        self._thread = thread  # not before: perhaps no thread is to be had

    def _wake(self) -> None:
        if self._wakes.empty():
            self._wakes.put(None)

    def _give_up(self, ending: Claiming | None = None) -> None:
        """Forget what could not be released for as long as a lease: it ends with that.

        It does not as long as calls other than `ending` renew it. Later ones claim by another name.
        """
        now = time.monotonic()
        for claimant in list(self._releases):  # which the collector cannot change meanwhile
            release = self._releases[claimant]
            renewing = self._claiming.get(claimant.process, ())
            if now - release.since > self._lease and all(each is ending for each in renewing):
                del self._releases[claimant]
                release.owner.retire(claimant.process)

    # In the thread.

    def _run(self) -> None:
        try:
            while self._work():
                pass
        except BaseException:  # whatever a store has raised: the next call starts another one
            with self._lock:
                self._thread = None
            raise

    def _work(self) -> bool:
        with self._lock:
            self._give_up()
            releases = [self._releases[claimant] for claimant in list(self._releases)]
            if not [release for release in releases if release.store is not None]:
                while self._flushing:
                    self._flushing.pop().set()
            due = [*self._beats.values(), *[release.due for release in releases]]
            if not due or self._store() is None:
                self._thread = None
                return False
        with suppress(Empty):
            self._wakes.get(timeout=max(0.0, min(due) - time.monotonic()))
        if (store := self._store()) is not None:
            self._beat(store)
            self._release(store)
        return True

    def _beat(self, store: SharedStore) -> None:
        now = time.monotonic()
        with self._lock:
            due = [name for name in list(self._beats) if self._beats[name] <= now]
            grants = {}
            for name in due:
                del self._beats[name]
                if name in self._claiming:  # else nobody has claimed for one beat: often one is
                    grants[name] = next(iter(self._claiming[name]))
                    self._beats[name] = now + self._interval
        for name, grant in grants.items():
            try:
                store.heartbeat(grant.namespace, name)
            except Exception as error:
                _logger.warning(
                    "the lease in %s could not be renewed: %s", short(store), describe(error)
                )

    def _release(self, store: SharedStore) -> None:
        now = time.monotonic()
        with self._lock:
            for claimant in list(self._releases):
                release = self._releases[claimant]
                if release.due <= now:
                    break
            else:
                return
            del self._releases[claimant]  # what is given back meanwhile is another one
            self._releasing = release
        try:
            store.release_many(release.namespace, list(release.keys), claimant)
        except Exception as error:  # a store that was closed, say
            _logger.debug("claims were not released: %s", describe(error))
            release.store = None  # only the first try keeps alive what is forgotten
            release.due = now + self._interval
            with self._lock:
                self._releases.setdefault(claimant, release).keys.update(release.keys)
        finally:
            self._releasing = None
