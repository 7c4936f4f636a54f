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
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, NamedTuple
from uuid import uuid4
from weakref import WeakSet

from ._codecs import Codec, Codecs, UnreadableValue
from ._digests import digests
from ._errors import AnswerTypeError, AnswerValueError, StoreError
from ._leases import Hold, this_process
from ._plan import Failure
from ._store import Claims, SharedStore, Store

_logger = logging.getLogger("batchproxy")

PATIENCE = 10.0
"""Seconds for which the end of the interpreter waits for results that are being written."""


class Claimed(NamedTuple):
    """What came of asking for keys: `Claims` by key instead of by digest, values decoded."""

    values: dict[Hashable, Any]
    mine: list[Hashable]
    held: list[Hashable]


class Durable:
    """A store, and the namespace, codec, lifetime and policy with which a cache uses it."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        codec: Codec | None,
        ttl: float | None,
        on_error: Literal["raise", "continue"],
    ) -> None:
        self.store = store
        self._namespace = namespace
        self.ttl = ttl
        self._codecs = Codecs(codec)
        self._on_error = on_error
        self._said = False  # that the store fails, and what is done about it
        # Encoded results that could not be written. Kept until they can be: they were paid for.
        self._unsaved: dict[bytes, bytes] = {}
        self._begin_process()
        _alive.add(self)

    def _begin_process(self) -> None:
        self._name = uuid4().hex  # in the store, where claims are this cache's in this process
        self._changed = threading.Condition()
        self._writing = 0  # calls that publish
        self._forgetting = 0  # who waits until none does, or is at it

    def __repr__(self) -> str:
        return f"store={self.store!r} namespace={self._namespace!r}"

    def hold(self) -> Hold | None:
        """What a call needs to claim in the store, if processes share that."""
        store = self.store
        return Hold(store, self._namespace, self._name) if isinstance(store, SharedStore) else None

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
        with self._changed:
            unsaved = {name: self._unsaved[name] for name in by_name.keys() & self._unsaved.keys()}
        try:
            with _StoreErrors("read"):
                stored = self.store.get_many(self._namespace, list(by_name))
                return self._decoded({**unsaved, **stored}, by_name)[0]
        except StoreError as error:
            self._follow_policy(error)
            return self._decoded(unsaved, by_name)[0]

    def claim(
        self, keys: Sequence[Hashable], names: dict[Hashable, bytes], hold: Hold | None, limit: int
    ) -> Claimed:
        """Look `keys` up once more, and claim at most `limit` of those that nobody has."""
        by_name = dict(zip(self.digests(keys, names), keys))
        try:
            with _StoreErrors("asked"):
                if hold is None:
                    stored = self.store.get_many(self._namespace, list(by_name))
                    claims = Claims(stored, list(by_name), [])
                else:
                    claims = self._claims(list(by_name), hold, limit)
                values, unreadable = self._decoded(claims.values, by_name)
                if unreadable and hold is not None:
                    # Nobody could ever claim them: what is there is adopted, not replaced.
                    self.store.delete_many(self._namespace, unreadable)
                    if left := limit - len(claims.claimed):
                        more = self._claims(unreadable, hold, left)
                        claims = Claims({}, claims.claimed + more.claimed, claims.held + more.held)
        except StoreError as error:
            self._follow_policy(error)
            return Claimed({}, list(keys[:limit]), [])
        mine = set(claims.claimed)
        return Claimed(
            values,
            [key for name, key in by_name.items() if name in mine and key not in values][:limit],
            [by_name[name] for name in claims.held],
        )

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
    ) -> tuple[dict[Hashable, Any], dict[Hashable, Failure]]:
        """Keep `results`: from then on they are never lost.

        Returns:
            The values that others had published for some of the keys before, which are to be taken
            instead; and the failures of those that cannot be stored.
        """
        encoded, refused = self.encoded(results, names)
        try:
            there = self._write(encoded, hold)
            if self._unsaved:
                self._save()
            with _StoreErrors("written"):
                adopted = {name: value for name, value in there.items() if value != encoded[name]}
        except StoreError as error:
            self._follow_policy(error)
            return {}, refused
        if not adopted:
            return {}, refused
        return self._decoded(adopted, {names[key]: key for key in results})[0], refused

    def _write(self, encoded: Mapping[bytes, bytes], hold: Hold | None) -> dict[bytes, bytes]:
        """Write what is not there yet; the values of what is. What fails is kept for later."""
        if not encoded:
            return {}
        try:
            with _StoreErrors("written"):
                if hold is None:
                    self.store.set_many(self._namespace, encoded, self.ttl)
                    return {}
                there = hold.store.publish_many(self._namespace, encoded, hold.begin(), self.ttl)
        except StoreError:
            if self._on_error == "raise" and self.ttl is None:  # else it would come back too late
                with self._changed:
                    self._unsaved = {**encoded, **self._unsaved}
            raise
        hold.remove(encoded)
        return there

    def encoded(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes]
    ) -> tuple[dict[bytes, bytes], dict[Hashable, Failure]]:
        """`results` as they are stored, and the failures of those that cannot be."""
        encoded, refused = {}, {}
        dumps = self._codecs.dumps
        for name, (key, value) in zip(self.digests(list(results), names), results.items()):
            try:
                encoded[name] = dumps(value)
            except Exception as error:  # whatever the codec of a user raises
                kind = AnswerTypeError if isinstance(error, TypeError) else AnswerValueError
                refusal = kind(f"the result of {key!r} cannot be stored: {error}")
                refusal.__cause__ = error
                refused[key] = Failure(refusal, None)
        return encoded, refused

    def replace(self, encoded: Mapping[bytes, bytes]) -> None:
        """Keep values, whatever was there.

        Raises:
            StoreError: whatever the policy: who asked for it must know.
        """
        with _StoreErrors("written"):
            self.store.set_many(self._namespace, encoded, self.ttl)
        self._need_no_saving(encoded)

    def delete(self, names: Sequence[bytes] | None) -> None:
        """Forget the keys of those `names`, or all of the namespace.

        Raises:
            StoreError: whatever the policy: it is not known what is still there.
        """
        self._need_no_saving(list(self._unsaved) if names is None else names)
        with _StoreErrors("written"):
            self.store.delete_many(self._namespace, names)

    def close(self) -> None:
        """Write what could not be written before, give back all claims, and close the store."""
        self.undisturbed(self._close)

    def _close(self) -> None:
        if self._unsaved:
            with self.writing():
                self._save()
        this_process().flush(1.0)
        self.store.close()

    def forget(self, work: Callable[[], None]) -> None:
        """Do `work` inside `forgetting`; what it raises is raised here."""

        def forgetting() -> None:
            with self.forgetting():
                work()

        self.undisturbed(forgetting)

    def undisturbed(self, work: Callable[[], None]) -> None:
        """Do `work` in a thread of its own; what it raises is raised here.

        An interrupt of this one, the main thread, could leave a lock of the store or of this object
        taken. It does not land there; the work goes on.
        """
        outcome: SimpleQueue[BaseException | None] = SimpleQueue()

        def job() -> None:
            try:
                work()
            except BaseException as error:
                outcome.put(error)
            else:
                outcome.put(None)

        _thread.start_new_thread(job, ())  # threading's start() waits for it: with such a lock
        if (error := outcome.get()) is not None:
            try:
                raise error
            finally:
                del error  # this frame is in its traceback now: a cycle

    def _decoded(
        self, stored: Mapping[bytes, bytes], by_name: Mapping[bytes, Hashable]
    ) -> tuple[dict[Hashable, Any], list[bytes]]:
        """Values by key, and the names of those that cannot be read."""
        values, unreadable = {}, []
        loads = self._codecs.loads
        for name, data in stored.items():
            try:
                values[by_name[name]] = loads(data)
            except UnreadableValue as error:
                _logger.warning("the stored value of %r counts as a miss: %s", by_name[name], error)
                unreadable.append(name)
        return values, unreadable

    def _follow_policy(self, error: StoreError) -> None:
        """Raise `error`, or go on without the store."""
        if self._on_error == "raise":
            raise error
        if not self._said:
            self._said = True
            _logger.warning("map() goes on without its store (this is said once): %s", error)

    def _save(self) -> None:
        """Write what could not be written before, if it can be now."""
        with self._changed:
            unsaved = self._unsaved.copy()
        hold = self.hold()
        try:
            self._write(unsaved, hold)
        except StoreError as error:
            _logger.warning("%d results could still not be written: %s", len(unsaved), error)
        else:
            self._need_no_saving(unsaved)
        finally:
            if hold is not None:
                hold.release()

    def _need_no_saving(self, names: Iterable[bytes]) -> None:
        with self._changed:
            for name in names:
                self._unsaved.pop(name, None)


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
            raise StoreError(
                f"the store could not be {self._what}: {type(error).__qualname__}: {error}"
            ) from error


_alive: WeakSet[Durable] = WeakSet()


def _reset_after_fork() -> None:
    for durable in list(_alive):
        durable._begin_process()


def _finish_at_exit() -> None:
    """Let threads end what they are writing: those that are daemons die with the interpreter."""
    end = time.monotonic() + PATIENCE
    for durable in list(_alive):
        with durable._changed:
            while durable._writing and (left := end - time.monotonic()) > 0:
                durable._changed.wait(left)


# What runs last was registered first: claims are given back when all is written.
atexit.register(_finish_at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_reset_after_fork)
