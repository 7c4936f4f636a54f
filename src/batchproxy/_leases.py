"""This process as the owner of claims: its heartbeat, and the claims it gives back.

One thread per process renews the leases, so that no ``map_func``, however long it blocks, loses
the claim on what it is computing. The same thread releases the claims of calls that failed or were
cancelled, since nobody may wait for a store in clean-up.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from contextvars import Context
from itertools import count
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ._store import Claimant, SharedStore

_logger = logging.getLogger("batchproxy")

BEATS = 4
"""How often a lease is renewed before it would run out."""


class _Release(NamedTuple):
    store: SharedStore
    namespace: str
    keys: Sequence[bytes]
    claimant: Claimant


class _Process:
    """The claims of this process, in all stores."""

    def __init__(self) -> None:
        self.calls = count(1)
        self._lock = threading.RLock()  # re-entrant: the collector may end a forgotten call in it
        # The calls that have claims, by the name that they claim in, which is that of one cache and
        # so of one store; and when its next heartbeat is due, on the monotonic clock.
        self._claiming: dict[str, set[Hold]] = {}
        self._beats: dict[str, float] = {}
        self._work: SimpleQueue[_Release | threading.Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def claim(self, hold: Hold) -> None:
        """A call begins to claim: from now on its lease is renewed. Twice is fine."""
        name = hold.claimant.process
        with self._lock:
            self._claiming.setdefault(name, set()).add(hold)
            if name not in self._beats:
                self._wake(None)  # first: it fails where no thread is to be had
                self._beats[name] = time.monotonic() + hold.store.lease / BEATS

    def end(self, hold: Hold) -> None:
        """A call has no claims any more. Twice is fine."""
        name = hold.claimant.process
        with self._lock:
            holds = self._claiming.get(name, set())
            holds.discard(hold)
            if not holds:  # the next beat finds out; often a new call is first
                self._claiming.pop(name, None)

    def release(
        self, store: SharedStore, namespace: str, keys: Sequence[bytes], claimant: Claimant
    ) -> None:
        """Have claims released, soon. Does not wait."""
        with self._lock:
            self._wake(_Release(store, namespace, keys, claimant))

    def flush(self, seconds: float) -> None:
        """Wait until what was to be released is, or until so much time has passed."""
        with self._lock:
            if self._thread is None:
                return
            done = threading.Event()
            self._work.put(done)
        done.wait(seconds)

    def _wake(self, work: _Release | None) -> None:
        self._work.put(work)
        if self._thread is None:
            thread = threading.Thread(
                target=Context().run,  # of its own: a thread may inherit that of its starter
                args=(self._run,),
                name="batchproxy leases",
                daemon=True,
            )
            thread.start()
            self._thread = thread  # not before: perhaps no thread is to be had

    def _run(self) -> None:
        try:
            while True:
                self._work_once()
        finally:  # whatever a store has raised: the next call starts another one
            self._thread = None

    def _work_once(self) -> None:
        with self._lock:
            due = min(self._beats.values(), default=None)
        try:
            work = self._work.get(timeout=due and max(0.0, due - time.monotonic()))
        except Empty:
            work = None
        self._beat()
        if isinstance(work, _Release):
            try:
                work.store.release_many(work.namespace, work.keys, work.claimant)
            except Exception as error:  # a store that was closed, say
                _logger.debug("claims were not released, and end with the lease: %r", error)
        elif work is not None:
            work.set()

    def _beat(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [name for name, beat in self._beats.items() if beat <= now]
            for name in due:
                del self._beats[name]
            stores = {
                name: next(iter(self._claiming[name])).store
                for name in due
                if name in self._claiming
            }
            self._beats.update((name, now + store.lease / BEATS) for name, store in stores.items())
        for name, store in stores.items():
            try:
                store.heartbeat(name)
            except Exception as error:
                _logger.warning("the lease in %r could not be renewed: %r", store, error)


class Hold:
    """What one call has claimed in a store, to be given back whatever becomes of the call.

    It may be given back while a worker thread is still claiming: then that thread does it again.
    """

    __slots__ = ("_keys", "_lock", "_namespace", "_process", "_renewed", "claimant", "store")

    def __init__(self, store: SharedStore, namespace: str, name: str) -> None:
        self.store = store
        self._namespace = namespace
        self._process = _this
        self.claimant = Claimant(name, next(_this.calls))
        self._keys: set[bytes] = set()
        self._renewed = False  # whether the lease is, on behalf of this call
        self._lock = threading.RLock()

    def begin(self) -> Claimant:
        """Who is to claim; from now on, until `release`, the lease is renewed."""
        with self._lock:
            if not self._renewed:
                self._renewed = True
                self._process.claim(self)
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
                self._process.release(self.store, self._namespace, list(self._keys), self.claimant)
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
