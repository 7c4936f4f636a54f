"""The portal: one event loop per backend in a thread of its own, for all synchronous callers.

It is started by the first ``map()`` that has to compute something, shared by all sync proxies, and
never stopped: its thread is a daemon. anyio's `start_blocking_portal` is not used since it joins
its thread for ever if Ctrl-C lands while it starts, and since posting a task to it blocks for a
round trip between the threads.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter
from anyio.abc import TaskGroup

from .. import _loops
from .._errors import PortalError, set_context
from .._forks import at_fork, unforked

T = TypeVar("T")

_SLICE = 0.1  # seconds


def _wait_for(queue: SimpleQueue[T]) -> T:
    """The next of `queue`. In slices of time in the main thread, which alone Ctrl-C interrupts.

    A signal that arrives in the instant before it falls asleep, or in another thread, does not wake
    it; nor does any on Windows.
    """
    patience = _SLICE if threading.current_thread() is threading.main_thread() else None
    while True:
        with suppress(Empty):
            return queue.get(timeout=patience)


_DEATH = "the event loop behind the synchronous proxies has died; the next map() starts another"
_CANCELLED = """map() was cancelled inside the event loop behind it: that has died, and the next \
map() starts another; or what runs in it has cancelled its own task"""
_NO_THREAD = "no thread could be started for the synchronous proxies; the next map() tries again"
_EXIT = """the interpreter is shutting down: map() gives what is in memory, but computes nothing \
any more, as threads may not start; call it before the end of the main thread"""


class Portal:
    """An event loop in a daemon thread, where synchronous callers have their tasks run."""

    loop: Any
    tasks: TaskGroup
    threads: CapacityLimiter
    """For worker threads; it never limits, unlike the default one, which is the application's."""
    variables: list[tuple[ContextVar[Any], Any]]
    """Those that say which event loop this is, and are not the caller's."""

    def __init__(self, backend: str) -> None:
        self.forked = self.dead = False
        self.calls: set[PortalCall] = set()  # that may wait for something from here
        self._backend = backend
        self._error: BaseException | None = None
        self._started = self._ready = False
        # What wakes those who wait for that; no Event, whose lock an interrupt can leave locked.
        self._bells: list[SimpleQueue[None]] = []
        self._thread = threading.Thread(
            target=Context().run,  # of its own: a thread may inherit the context of its starter
            args=(self._run,),
            name=f"batchproxy portal ({backend})",
            daemon=True,
        )
        with thread_errors():
            self._thread.start()

    def wait_until_ready(self) -> None:
        """Wait until tasks can be posted. May be interrupted, and called again."""
        if not self._ready:
            bell: SimpleQueue[None] = SimpleQueue()
            self._bells.append(bell)
            while not self._ready:  # it may have become so before the bell was there
                _wait_for(bell)
        if not self._started:
            raise PortalError(
                f"no {self._backend} event loop could be started for the synchronous proxies"
            ) from self._error
        if threading.current_thread() is self._thread:
            raise PortalError(
                "map() was called in the portal's own thread, which it would block; in an "
                "asynchronous function await the map() of an AsyncBatchingMapProxy that shares the "
                "Cache, or call this one in a worker thread; the cache's mapping and the "
                "finalisers of objects must not call synchronous proxies"
            )

    def post(self, function: Callable[[], object]) -> None:
        """Have `function` called in the portal's thread, soon. Does not wait.

        Raises:
            PortalError: The portal has died, or lives in the process that this one was forked from.
        """
        if self.forked:
            raise PortalError(
                "this process was forked while map() was running; the map() goes on in the parent "
                "process, and a new one can be begun here"
            )
        try:
            self._post(self._context.run, function)
        except RuntimeError as error:
            raise PortalError(_DEATH) from error

    def _run(self) -> None:
        try:
            # In this thread: an interrupt would leave half of it behind, for good. And what one
            # thread imports, or asyncio locks to make its first event loop, while another one
            # forks, stays locked in the child for ever.
            with unforked():
                import_module(f"anyio._backends._{self._backend}")
                if self._backend == "asyncio":
                    import_module("asyncio").new_event_loop().close()
            anyio.run(self._main, backend=self._backend)
        except BaseException as error:
            self._error = error
        finally:
            self.dead = True
            self._announce()
            # A loop that closes may have accepted what it never ran.
            for call in self.calls.copy():
                call.end()

    def _announce(self) -> None:
        self._ready = True
        for bell in self._bells.copy():
            bell.put(None)

    async def _main(self) -> None:
        async with anyio.create_task_group() as self.tasks:
            self.loop = _loops.running_loop()
            self._post = _loops.poster(self.loop)
            # Where sniffio is installed, tasks can only be started where it knows the loop.
            self._context = copy_context()
            self.variables = list(self._context.items())
            self.threads = CapacityLimiter(math.inf)
            self._started = True
            self._announce()
            try:
                await anyio.sleep_forever()
            finally:
                self.dead = True  # though it may take its time: it waits for its worker threads


class PortalCall:
    """One synchronous caller, blocked while a task of its own runs in the portal.

    The task has the context variables of the calling thread, and may ask for something to be done
    there, by `ask`. Whatever interrupts the calling thread, the task is cancelled and has ended
    before ``run()`` passes it on: this object exists, and its task looks whether it is cancelled,
    before anything is posted, so that no moment is left in which an interrupt could leave the task
    running with keys claimed.
    """

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._scope: CancelScope | None = None
        self._started = self._cancelled = self._finished = self._ended = False
        self._error: BaseException | None = None

    def ask(self, job: Callable[[], object]) -> None:
        """Have `job` called in the calling thread. Called in the portal's thread."""
        self._inbox.put(job)

    def run(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run ``work(*args)`` to its end; what it raises is raised here."""
        self.portal.calls.add(self)
        try:
            self.portal.post(partial(self._start, copy_context(), work, *args))
            while (job := self._receive()) is not None:
                job()
        except BaseException:
            posted = False
            while not posted:  # a Ctrl-C that lands in here must not lose the cancellation
                with suppress(KeyboardInterrupt):
                    self.portal.post(self._cancel)
                    posted = True
            while self._receive() is not None:  # a second Ctrl-C leaves at once
                pass
            raise
        finally:
            self.portal.calls.discard(self)
        if (error := self._error) is not None:
            self._error, context = None, error.__context__
            try:
                raise error
            finally:
                set_context(error, context)  # as `Failure.restore`
                del error, context  # this frame is in the traceback now: a cycle
        if not self._finished:
            raise PortalError(_DEATH) from self.portal._error

    def _receive(self) -> Callable[[], object] | None:
        return _wait_for(self._inbox)

    # In the portal's thread:

    def end(self) -> None:
        """Tell the calling thread that nothing more will come."""
        self._ended = True
        self._inbox.put(None)

    def _start(self, context: Context, work: Callable[..., Awaitable[None]], *args: object) -> None:
        self._started = True
        for variable, value in self.portal.variables:
            context.run(variable.set, value)
        context.run(self.portal.tasks.start_soon, self._main, work, *args)

    async def _main(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            with CancelScope() as self._scope:
                if not self._cancelled:
                    await work(*args)
                    self._finished = True
        except BaseException as error:
            # Of whatever kind it is, it is the caller's alone: the portal serves others, too.
            self._error = PortalError(_CANCELLED) if self._is_from_outside(error) else error
        finally:
            self.end()

    def _is_from_outside(self, error: BaseException) -> bool:
        """Whether `error` was not raised by what runs here, but ends its task."""
        # Elsewhere than in its loop: the collector closes a coroutine of a loop that is gone.
        return _loops.running_loop() is not self.portal.loop or (
            _loops.is_cancellation(error) and _loops.is_being_cancelled(_loops.running_loop())
        )

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None and not self._ended:
            self._scope.cancel()
        elif self._ended or not self._started:
            self.end()  # once more: the interrupt may have cost what end() sent before


@contextmanager
def thread_errors() -> Iterator[None]:
    """Inside, that the system, or an interpreter that ends, refuses a thread is a `PortalError`."""
    try:
        yield
    except RuntimeError as error:
        # The cause without its traceback: that has the frames in here, and those of worker threads
        # the flight whose outcome this becomes, a cycle.
        cause = error.with_traceback(None)
        raise PortalError(_EXIT if _is_exiting() else _NO_THREAD) from cause


def _is_exiting() -> bool:
    """Whether this is an ``atexit`` handler, or something that runs still later.

    Then some versions of Python let threads start, and others do not.
    """
    if sys.is_finalizing():  # pragma: no cover - tested, but after the measuring has ended
        return True
    main = threading.main_thread()
    # Until Python 3.12 a Ctrl-C inside of is_alive() has that thread taken for ended, for good.
    ended: bool | None = getattr(main, "_is_stopped", None)
    here = threading.current_thread() is main
    return here and (not main.is_alive() if ended is None else ended)


_lock = threading.RLock()
_portals: dict[str, Portal] = {}


def get_portal(backend: str) -> Portal:
    """The portal of `backend`; started if there is none, or if it died."""
    if _is_exiting():
        raise PortalError(_EXIT)
    with _lock:
        portal = _portals.get(backend)
        if portal is None or portal.dead:
            portal = _portals[backend] = Portal(backend)
    portal.wait_until_ready()
    return portal


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for portal in _portals.values():
        portal.forked = True
    _portals.clear()


at_fork(after_in_child=_reset_after_fork)
