"""Results on their way into a store, and those who delete there: neither disturbs the other."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

PATIENCE = 10.0
"""Seconds for which the end of the interpreter, and `Cache.close`, wait for what is written."""


class Writers:
    """Who is writing, or will, for one cache."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: set[object] = set()  # whose results are to be written, or are being written
        self._writing = 0  # how many are
        self._forgetting = 0  # who waits until none is, or is at it

    def take_over(self, call: object) -> None:
        """Results of a call have come, and will be written: the end of the process waits."""
        with self._changed:
            self._pending.add(call)

    def taken(self, call: object) -> None:
        """They are written, or it is known that they could not be. Twice is fine."""
        with self._changed:
            self._pending.discard(call)
            self._changed.notify_all()

    def wait_until_taken(self, seconds: float = PATIENCE) -> None:
        """Wait until all results that have come are written, or could not be; not for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)

    @contextmanager
    def writing(self, call: object = None) -> Iterator[None]:
        """Inside, results are published. Many may be; `forget` waits for them.

        Those of a `call` that were taken over are `taken` then.
        """
        with self._changed:
            while self._forgetting:
                self._changed.wait()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._pending.discard(call)
                self._changed.notify_all()

    def forget(self, *steps: Callable[[], None]) -> None:
        """Take `steps` while no result is being published: what they delete stays so.

        What one raises is raised here, and the others are not taken.
        """

        def forgetting() -> None:
            with self._forgetting_alone():
                for step in steps:
                    step()

        undisturbed(forgetting)

    @contextmanager
    def _forgetting_alone(self) -> Iterator[None]:
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


def undisturbed(work: Callable[[], None]) -> None:
    """Do `work` in a thread of its own; what it raises is raised here.

    An interrupt of this one, the main thread, could leave a lock of the store or of the cache
    taken. It does not land there; the work goes on. Where no thread is to be had, as at the end of
    the interpreter, it is done here.
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
