"""This process as the owner of claims: its heartbeat, and the claims it gives back.

A thread for each store in use renews the leases there, so that no ``map_func``, however long it
blocks, loses the claim on what it is computing, and no store that stalls those in another. The same
thread releases the claims of calls that failed or were cancelled, since nobody may wait for a store
in clean-up. It ends when nothing is left to renew or release, and keeps no store alive until then.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import Context
from itertools import count
from queue import Empty, SimpleQueue
from uuid import uuid4
from weakref import ref

from .._errors import StoreError
from .._messages import describe
from .._store import Claimant, SharedStore, Store

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

    def __init__(self, hold: Hold) -> None:
        self.store: SharedStore | None = hold.store
        self.namespace, self.owner = hold.namespace, hold.owner
        self.keys: set[bytes] = set()
        self.since = self.due = time.monotonic()  # when it is to be tried
        self.tried = False


class _Keeper:
    """The claims of this process in one store, and the thread that looks after them."""

    def __init__(self, process: _Process, store: SharedStore, gone: Callable[[], object]) -> None:
        wakes: SimpleQueue[None] = SimpleQueue()

        def forgotten(_: object) -> None:
            gone()
            wakes.put(None)

        self._store = ref(store, forgotten)
        self._wakes = wakes
        self._lease = store.lease
        self._interval = min(store.lease / BEATS, _LONGEST)
        self._lock, self._claiming = process.lock, process._claiming
        # When the next heartbeat of a name is due, on the monotonic clock.
        self._beats: dict[str, float] = {}
        self._releases: dict[Claimant, _Release] = {}
        self._flushing: list[threading.Event] = []
        self._thread: threading.Thread | None = None

    # With the lock of the process.

    def renew(self, name: str) -> None:
        """Renew the lease of `name` from now on, as long as calls claim by it."""
        self._start()
        if name not in self._beats:
            self._beats[name] = time.monotonic() + self._interval
            self._wake()

    def release(self, hold: Hold, keys: Collection[bytes]) -> None:
        """Give claims back, soon."""
        self._give_up()
        release = self._releases.setdefault(hold.claimant, _Release(hold))
        release.keys.update(keys)
        release.due, release.tried = time.monotonic(), False
        with suppress(StoreError):  # then the next call that needs the thread starts one
            self._start()
        self._wake()

    def flush(self) -> threading.Event:
        """Is set when all that is to be released was, or was tried at least."""
        done = threading.Event()
        if self._thread is None:
            done.set()
        else:
            self._flushing.append(done)
            self._wake()
        return done

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(
                target=Context().run,  # of its own: a thread may inherit that of its starter
                args=(self._run,),
                name="batchproxy leases",
                daemon=True,
            )
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

    def _give_up(self) -> None:
        """Forget what could not be released for as long as a lease: it ends with that.

        It would not if other calls of that cache renewed it, so they claim by another name.
        """
        now = time.monotonic()
        for claimant in list(self._releases):  # which the collector cannot change meanwhile
            release = self._releases[claimant]
            if now - release.since > self._lease:
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
            if all(release.tried for release in releases):
                while self._flushing:
                    self._flushing.pop().set()
            due = [*self._beats.values(), *(release.due for release in releases)]
            if not due or self._store() is None:
                self._thread = None
                return False
            del releases
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
            holds = {}
            for name in due:
                del self._beats[name]
                if name in self._claiming:  # else nobody has claimed for one beat: often one is
                    holds[name] = next(iter(self._claiming[name]))
                    self._beats[name] = now + self._interval
        for name, hold in holds.items():
            try:
                store.heartbeat(hold.namespace, name)
            except Exception as error:
                _logger.warning("the lease in %r could not be renewed: %s", store, describe(error))

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
        try:
            store.release_many(release.namespace, list(release.keys), claimant)
        except Exception as error:  # a store that was closed, say
            _logger.debug("claims were not released: %s", describe(error))
            release.store = None  # only the first try keeps alive what is forgotten
            release.due, release.tried = now + self._interval, True
            with self._lock:
                self._releases.setdefault(claimant, release).keys.update(release.keys)


class _Process:
    """The claims of this process, in all stores."""

    def __init__(self) -> None:
        self.calls = count(1)
        self.lock = threading.RLock()  # re-entrant: the collector may end a forgotten call in it
        # The calls that have claims, by the name that they claim in, which is that of one cache.
        self._claiming: dict[str, set[Hold]] = {}
        self._keepers: dict[int, _Keeper] = {}  # by the id of the store, as long as there is one

    def claim(self, hold: Hold) -> None:
        """A call begins to claim: from now on its lease is renewed. Twice is fine."""
        name = hold.claimant.process
        with self.lock:
            self._keeper(hold.store).renew(name)  # first: it fails where no thread is to be had
            self._claiming.setdefault(name, set()).add(hold)

    def end(self, hold: Hold) -> None:
        """A call has no claims any more. Twice is fine."""
        name = hold.claimant.process
        with self.lock:
            holds = self._claiming.get(name, set())
            holds.discard(hold)
            if not holds:  # the next beat finds out; often a new call is first
                self._claiming.pop(name, None)

    def release(self, hold: Hold, keys: Collection[bytes]) -> None:
        """Have claims released, soon. Does not wait."""
        with self.lock:
            self._keeper(hold.store).release(hold, keys)

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

    def _keeper(self, store: SharedStore) -> _Keeper:
        keepers, key = self._keepers, id(store)
        if key not in keepers:
            keepers[key] = _Keeper(self, store, lambda: keepers.pop(key, None))
        return keepers[key]


class Hold:
    """What one call has claimed in a store, to be given back whatever becomes of the call.

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
            self.begin()
            self._keys.update(keys)

    def remove(self, keys: Collection[bytes]) -> None:
        """Note that they are not any more."""
        with self._lock:
            self._keys.difference_update(keys)

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
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_reset_after_fork)
