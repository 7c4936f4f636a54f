"""A store as one cache uses it: keys become digests, values bytes, and failures follow a policy.

Everything here blocks, and is called in worker threads, or by users in threads of their own.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

from ._alive import Alive
from ._codecs import Codec, Codecs, UnreadableValue
from ._digests import digests
from ._errors import AnswerTypeError, AnswerValueError, StoreError
from ._flights import Flight, Flights
from ._fuse import Fuse
from ._leases import Hold, Owner, this_process
from ._messages import describe, short
from ._plan import Failure, StoreFailure
from ._store import Claims, SharedStore, Store
from ._workers import Workers

R = TypeVar("R")

_logger = logging.getLogger("batchproxy")

PATIENCE = 10.0
"""Seconds for which the end of the interpreter, and `close`, wait for results to be written."""

THREADS = 8
"""The most worker threads of one cache."""

_SILENCE = 60.0
"""Seconds for which it is not said again that a store fails."""

_TRIES = 3
"""How many writes in a row may fail before the rest is left for another time."""


class Claimed(NamedTuple):
    """What came of asking for keys: `Claims` by key instead of by digest, values decoded."""

    values: dict[Hashable, Any]
    mine: list[Hashable]
    held: list[Hashable]


class Published(NamedTuple):
    """What came of writing the results of a call."""

    adopted: dict[Hashable, Any]
    """Values that others had published before, which are to be taken instead."""
    refused: dict[Hashable, Failure]
    """The failures of those that cannot be stored."""
    failure: StoreFailure | None = None
    """Why nothing was written. The results are kept until they can be: they were paid for."""


class _Unwritten(NamedTuple):
    data: bytes
    expires: float | None  # on the monotonic clock
    call: int  # results of one call are written together


class Durable:
    """A store, and the namespace, codec, lifetime and policy with which a cache uses it."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        codec: Codec | None,
        ttl: float | None,
        on_error: Literal["raise", "continue"],
        flights: Flights,
    ) -> None:
        self.store = store
        self.flights = flights  # what this process is computing of it
        self._namespace = namespace
        self.ttl = ttl
        self._codecs = Codecs(codec)
        self._goes_on = on_error == "continue"
        self._said = -_SILENCE  # when it was last said that it fails
        self._calls = count()
        # Encoded results that could not be written. Nobody is told of them until they are.
        self._unwritten: dict[bytes, _Unwritten] = {}
        self._begin_process()
        _alive.add(self)

    def _begin_process(self) -> None:
        self._owner = Owner()  # in the store, where claims are this cache's in this process
        self.workers = Workers(THREADS)
        self._changed = threading.Condition()
        self._pending: set[object] = set()  # whose results are to be written, or are being written
        self._writing = 0  # how many are
        self._forgetting = 0  # who waits until none is, or is at it
        # What is done when the store fails: it is left alone for a while, or the failure is raised.
        self._fuse = Fuse() if self._goes_on else None
        self._retry = Fuse()  # of writing unwritten results that nobody asks for

    def __repr__(self) -> str:
        unwritten = f" unwritten={len(self._unwritten)}" if self._unwritten else ""
        return f"store={self.store!r} namespace={short(self._namespace)}{unwritten}"

    def hold(self) -> Hold | None:
        """What a call needs to claim in the store, if processes share that."""
        store = self.store
        return Hold(store, self._namespace, self._owner) if isinstance(store, SharedStore) else None

    def elsewhere(self, keys: Sequence[Hashable]) -> dict[Flight, list[Hashable]]:
        """Which of `keys`, claimed by others, are in flight in other caches of this process."""
        found: dict[Flight, list[Hashable]] = {}
        for other in _alive.all():
            if (
                other is not self
                and other.store.identity == self.store.identity
                and other._namespace == self._namespace
            ):
                with other.flights.lock:
                    met = other.flights.meet(keys)
                for key, flight in met.items():
                    found.setdefault(flight, []).append(key)
        return found

    def take_over(self, flight: Flight) -> None:
        """Results of a call have come, and will be written: the end of the process waits."""
        with self._changed:
            self._pending.add(flight)

    def taken(self, flight: Flight) -> None:
        """They are written, or it is known that they could not be. Twice is fine."""
        with self._changed:
            self._pending.discard(flight)
            self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, results are published. Many may be; `forgetting` waits for them."""
        with self._changed:
            while self._forgetting:
                self._changed.wait()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Inside, no result is being published: what is deleted stays so."""
        with self._changed:
            self._forgetting += 1
        try:
            with self._changed:
                while self._writing:
                    self._changed.wait()
            yield
        finally:
            with self._changed:
                self._forgetting -= 1
                self._changed.notify_all()

    def digests(self, keys: Sequence[Hashable], known: dict[Hashable, bytes]) -> list[bytes]:
        """What `keys` are called in the store; `known` is looked up first, and added to."""
        try:
            return [known[key] for key in keys]
        except KeyError:
            new = [key for key in keys if key not in known]
            known.update(zip(new, digests(new)))
            return [known[key] for key in keys]

    def read(self, keys: Sequence[Hashable], names: dict[Hashable, bytes]) -> dict[Hashable, Any]:
        """Those of `keys` that the store has, with their values."""
        by_name = dict(zip(self.digests(keys, names), keys))

        def ask() -> dict[Hashable, Any]:
            self._write_wanted(by_name)
            stored = self.store.get_many(self._namespace, list(by_name))
            return self._decoded(stored, by_name)[0]

        return self._ask("read", ask, {})

    def claim(
        self, keys: Sequence[Hashable], names: dict[Hashable, bytes], hold: Hold | None, limit: int
    ) -> Claimed:
        """Look `keys` up once more, and claim at most `limit` of those that nobody has."""
        by_name = dict(zip(self.digests(keys, names), keys))

        def ask() -> Claimed:
            self._write_wanted(by_name)
            if hold is None:
                stored = self.store.get_many(self._namespace, list(by_name))
                values = self._decoded(stored, by_name)[0]
                return Claimed(values, [key for key in keys if key not in values][:limit], [])
            claims = self._claims(list(by_name), hold, limit)
            values, unreadable = self._decoded(claims.values, by_name)
            if unreadable:  # they make room; what was published in their place meanwhile stays
                hold.store.discard_many(self._namespace, unreadable)
                if left := limit - len(claims.claimed):
                    more = self._claims(list(unreadable), hold, left)
                    values |= self._decoded(more.values, by_name)[0]
                    claims = Claims({}, claims.claimed + more.claimed, claims.held + more.held)
            mine = set(claims.claimed)
            return Claimed(
                values,
                [key for name, key in by_name.items() if name in mine],
                [by_name[name] for name in claims.held],
            )

        return self._ask("asked", ask, Claimed({}, list(keys[:limit]), []))

    def _claims(self, names: list[bytes], hold: Hold, limit: int) -> Claims:
        claimant = hold.begin()
        try:
            claims = hold.store.claim_many(self._namespace, names, claimant, limit)
        except BaseException:
            hold.add(names)  # the store may have granted them, and only its answer was lost
            raise
        hold.add(claims.claimed)
        return claims

    def publish(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes], hold: Hold | None
    ) -> Published:
        """Keep `results`: from then on they are never lost. Inside `writing`."""
        encoded, refused = self.encoded(results, names)

        def ask() -> dict[Hashable, Any]:
            there = self._write(encoded, hold, self.ttl)
            differing = {name: data for name, data in there.items() if data != encoded[name]}
            if not differing:
                return {}
            by_name = {names[key]: key for key in results}
            adopted, unreadable = self._decoded(differing, by_name)
            if unreadable and hold is not None:  # ours take their place, unless others are quicker
                hold.store.discard_many(self._namespace, unreadable)
                ours = {name: encoded[name] for name in unreadable}
                adopted |= self._decoded(self._write(ours, hold, self.ttl), by_name)[0]
            return adopted

        nothing: dict[Hashable, Any] = {}
        try:
            adopted = self._ask("written", ask, nothing)
        except BaseException as error:
            self._keep_unwritten(encoded)
            # Returned as it is: a variable of this frame, which is in the traceback, were a cycle.
            return Published({}, refused, StoreFailure(error, error.__traceback__))
        if self._unwritten and (attempt := self._retry.attempt()) is not None:
            self._retry.end(attempt, worked=self._write_all())
        return Published(adopted, refused)

    def postpone(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes], error: StoreError
    ) -> Published:
        """What `publish` does of `results` that cannot be written now, for the reason `error`."""
        encoded, refused = self.encoded(results, names)
        if self.goes_on(error):
            return Published({}, refused)
        self._keep_unwritten(encoded)
        return Published({}, refused, StoreFailure(error, error.__traceback__))

    def _keep_unwritten(self, encoded: Mapping[bytes, bytes]) -> None:
        expires = None if self.ttl is None else time.monotonic() + self.ttl
        call = next(self._calls)
        with self._changed:
            for name, data in encoded.items():
                self._unwritten[name] = _Unwritten(data, expires, call)

    def _write(
        self, encoded: Mapping[bytes, bytes], hold: Hold | None, ttl: float | None
    ) -> dict[bytes, bytes]:
        """Write what is not there yet; the values of what is. Raises whatever the store raises."""
        if not encoded:
            return {}
        if hold is None:
            self.store.set_many(self._namespace, encoded, ttl)
            return {}
        there = hold.store.publish_many(self._namespace, encoded, hold.claimant, ttl)
        hold.remove(encoded)
        return there

    def _write_wanted(self, names: Collection[bytes]) -> None:
        """Write those of `names` that could not be written before.

        Raises:
            StoreError: they still could not.
        """
        if self._unwritten:
            with self.writing(), _StoreErrors("written"):
                for unwritten in self._calls_unwritten(names):
                    self._write_again(unwritten)

    def _write_all(self, patience: float = 0.0) -> bool:
        """Write what could not be written before, call by call; whether all is. Inside `writing`.

        What one call gave may be what the store cannot take: the others are tried all the same. If
        a few in a row fail, and `patience` seconds are over, the rest is left for another time.
        """
        end = time.monotonic() + patience
        failed_in_a_row, failure = 0, ""
        for unwritten in self._calls_unwritten(list(self._unwritten)):
            try:
                with _StoreErrors("written"):
                    self._write_again(unwritten)
            except StoreError as error:
                failure = describe(error)
                with self._changed:  # next time the others come first
                    for name in unwritten.keys() & self._unwritten.keys():
                        self._unwritten[name] = self._unwritten.pop(name)
                failed_in_a_row += 1
                if failed_in_a_row >= _TRIES and time.monotonic() >= end:
                    break
            else:
                failed_in_a_row = 0
        if failure:
            _logger.warning(
                "%d results could still not be written: %s", len(self._unwritten), failure
            )
        return not failure

    def _calls_unwritten(self, names: Collection[bytes]) -> list[dict[bytes, _Unwritten]]:
        """Those of `names` that were not written, by the call that gave them."""
        calls: dict[int, dict[bytes, _Unwritten]] = {}
        with self._changed:
            for name in names:
                if (unwritten := self._unwritten.get(name)) is not None:
                    calls.setdefault(unwritten.call, {})[name] = unwritten
        return list(calls.values())

    def _write_again(self, unwritten: Mapping[bytes, _Unwritten]) -> None:
        """Write results of one call. Raises as `_write` does."""
        expires = next(iter(unwritten.values())).expires
        left = None if expires is None else expires - time.monotonic()
        if left is None or left > 0:
            hold = self.hold()
            encoded = {name: each.data for name, each in unwritten.items()}
            if hold is None:  # such a store replaces what others have published meanwhile
                for name in self.store.get_many(self._namespace, list(encoded)):
                    del encoded[name]
            self._write(encoded, hold, left)
        self._need_no_writing(unwritten)

    def encoded(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes]
    ) -> tuple[dict[bytes, bytes], dict[Hashable, Failure]]:
        """`results` as they are stored, and the failures of those that cannot be."""
        encoded, refused = {}, {}
        dumps = self._codecs.dumps
        for name, (key, value) in zip(self.digests(list(results), names), results.items()):
            try:
                data = dumps(value)
                if len(data) > self.store.max_value_size:
                    raise ValueError(
                        f"it has {len(data):,} bytes, and {self.store!r} takes values of at most "
                        f"{self.store.max_value_size:,}"
                    )
                encoded[name] = data
            except Exception as error:  # whatever the codec of a user raises
                kind = AnswerTypeError if isinstance(error, TypeError) else AnswerValueError
                refusal = kind(f"the result of {short(key)} cannot be stored: {error}")
                refusal.__cause__, refusal._key = error, key
                refused[key] = Failure(refusal, None)
        return encoded, refused

    def replace(self, encoded: Mapping[bytes, bytes]) -> None:
        """Keep values, whatever was there.

        Raises:
            StoreError: whatever the policy: who asked for it must know.
        """
        with _StoreErrors("written"):
            self.store.set_many(self._namespace, encoded, self.ttl)
        self._need_no_writing(encoded)

    def delete(self, names: Sequence[bytes] | None) -> None:
        """Forget the keys of those `names`, or all of the namespace.

        Raises:
            StoreError: whatever the policy: it is not known what is still there.
        """
        self._need_no_writing(list(self._unwritten) if names is None else names)
        with _StoreErrors("written"):
            self.store.delete_many(self._namespace, names)

    def close(self) -> None:
        """Write what is still to be written, give back all claims, and close the store."""
        self.undisturbed(self._close)

    def _close(self) -> None:
        self.wait_until_taken()
        if self._unwritten:
            with self.writing():
                self._write_all(PATIENCE)
        this_process().flush(1.0, self.store)
        self.store.close()

    def wait_until_taken(self, seconds: float = PATIENCE) -> None:
        """Wait until all results that have come are written, or could not be; not for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)

    def forget(self, work: Callable[[], None]) -> None:
        """Do `work` inside `forgetting`; what it raises is raised here."""

        def forgetting() -> None:
            with self.forgetting():
                work()

        self.undisturbed(forgetting)

    def undisturbed(self, work: Callable[[], None]) -> None:
        """Do `work` in a thread of its own; what it raises is raised here.

        An interrupt of this one, the main thread, could leave a lock of the store or of this object
        taken. It does not land there; the work goes on. Where no thread is to be had, as at the end
        of the interpreter, it is done here.
        """
        outcome: SimpleQueue[BaseException | None] = SimpleQueue()

        def job() -> None:
            try:
                work()
            except BaseException as error:
                outcome.put(error)
            else:
                outcome.put(None)

        try:
            _thread.start_new_thread(job, ())  # threading's start() waits for it: with such a lock
        except RuntimeError:
            job()
        if (error := outcome.get()) is not None:
            try:
                raise error
            finally:
                del error  # this frame is in its traceback now: a cycle

    def _decoded(
        self, stored: Mapping[bytes, bytes], by_name: Mapping[bytes, Hashable]
    ) -> tuple[dict[Hashable, Any], dict[bytes, bytes]]:
        """Values by key, and what cannot be read."""
        values: dict[Hashable, Any] = {}
        unreadable: dict[bytes, bytes] = {}
        loads = self._codecs.loads
        for name, data in stored.items():
            try:
                values[by_name[name]] = loads(data)
            except UnreadableValue as error:
                if not unreadable:
                    first = f"{short(by_name[name])}: {error}"
                unreadable[name] = data
        if unreadable:
            _logger.warning(
                "of %d stored values %d cannot be read and count as misses, such as that of %s",
                len(stored),
                len(unreadable),
                first,
            )
        return values, unreadable

    def _ask(self, what: str, ask: Callable[[], R], otherwise: R) -> R:
        """What `ask` gives; what it raises becomes a `StoreError`.

        With ``on_store_error="continue"`` it is `otherwise` that is given if the store fails, or if
        it did so a short time ago.
        """
        if self._fuse is None:
            with _StoreErrors(what):
                return ask()
        attempt = self._fuse.attempt()
        if attempt is None:
            return otherwise
        worked = False
        try:
            with _StoreErrors(what):
                given = ask()
            worked = True
            return given
        except StoreError as error:
            self._say(error)
            return otherwise
        finally:
            self._fuse.end(attempt, worked=worked)

    def goes_on(self, error: StoreError) -> bool:
        """Whether to go on without the store, which cannot be used: then it is left alone."""
        if self._fuse is None:
            return False
        if (attempt := self._fuse.attempt()) is not None:
            self._fuse.end(attempt, worked=False)
        self._say(error)
        return True

    def _say(self, error: StoreError) -> None:
        now = time.monotonic()
        if now - self._said >= _SILENCE:
            self._said = now
            _logger.warning("map() goes on without its store: %s", error)

    def _need_no_writing(self, names: Collection[bytes]) -> None:
        with self._changed:
            for name in names:
                self._unwritten.pop(name, None)


class _StoreErrors:
    """Inside, whatever a store raises becomes a `StoreError`.

    Not a generator: that could not tell a StopIteration of the store from its own.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreError):
            raise StoreError(f"the store could not be {self._what}: {describe(error)}") from error


_alive = Alive[Durable]()


def _reset_after_fork() -> None:
    for durable in _alive.all():
        durable._begin_process()


def _finish_at_exit() -> None:
    """Let threads end what they are writing: those that are daemons die with the interpreter."""
    end = time.monotonic() + PATIENCE
    for durable in _alive.all():
        durable.wait_until_taken(max(0.0, end - time.monotonic()))


# What runs last was registered first: claims are given back when all is written.
atexit.register(_finish_at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_reset_after_fork)
