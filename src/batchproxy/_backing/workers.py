"""Worker threads of a cache with a store: a few, and what they are given belongs to them at once.

Not anyio's: a job waits there for a token of its limiter, and is dropped if its caller leaves; and
asyncio gives the token of an abandoned job back while its thread still runs, so that callers with a
time limit and a slow store make threads without end.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TypeAlias

_IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends."""

_Queue: TypeAlias = "SimpleQueue[Callable[[], None] | None]"


def daemon(name: str, run: Callable[..., object], *args: object) -> threading.Thread:
    """A thread for ``run(*args)``, to be started, which does not keep the interpreter alive."""
    # With a context of its own: a thread may inherit that of its starter.
    return threading.Thread(target=Context().run, args=(run, *args), name=name, daemon=True)


class Workers:
    """At most `most` daemon threads that do jobs in the order in which these came.

    They end when nothing has come for a while, and when these `Workers` are forgotten and all has
    been done.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._state = _State()
        weakref.finalize(self, self._state.end, most).atexit = False

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job`, which raises nothing, done by a thread. Does not wait.

        Raises:
            RuntimeError: there is no thread, and none can be started; `job` will not be done.
        """
        state = self._state
        with state.lock:
            state.jobs += 1
            if state.threads < min(self._most, state.jobs):
                try:
                    state.start()
                except BaseException as error:
                    if not state.threads or not isinstance(error, RuntimeError):
                        state.jobs -= 1
                        raise
        state.queue.put(job)


class _State:
    """What the threads share; they do not keep their `Workers` alive."""

    def __init__(self) -> None:
        self.queue: _Queue = SimpleQueue()
        self.lock = threading.RLock()
        self.threads = 0
        self.jobs = 0  # that have not ended: there is a thread for each, as far as there may be

    def start(self) -> None:
        """One more thread. *Locked.*"""
        thread = daemon("batchproxy store", self._run)
        try:
            self.threads += 1
            thread.start()
        except BaseException:
            if thread.ident is None:  # an interrupt may come when it has started
                self.threads -= 1
            raise

    def end(self, most: int) -> None:
        """Let the threads end when all is done."""
        for _ in range(most):
            self.queue.put(None)

    def _run(self) -> None:
        while True:
            try:
                job = self.queue.get(timeout=_IDLE)
            except Empty:
                with self.lock:
                    if self.jobs < self.threads:  # else one is on its way into the queue
                        self.threads -= 1
                        return
                continue
            if job is None:
                return
            job()
            del job  # while this thread waits it keeps nothing alive
            with self.lock:
                self.jobs -= 1
