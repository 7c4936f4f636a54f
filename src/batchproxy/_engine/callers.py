"""How a map_func is called: in a task, in the portal, in the calling thread, in a worker thread."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from inspect import isawaitable, iscoroutine
from typing import Any

import anyio
import anyio.to_thread

from .._core.flights import Flight
from .._core.outcome import Failure
from .._core.plan import Plan
from .._core.progress import Progress, Reporting
from .._errors import AnswerTypeError
from .._loops import running_loop
from .caller import Caller, Nest, innermost
from .portal import PortalCall, thread_errors


class InTask(Caller):
    """Calls an asynchronous ``map_func`` in the task that asks for it."""

    __slots__ = ()

    in_tasks = True

    def call(self, flight: Flight, items: list[Any]) -> Awaitable[Any]:
        nest = Nest(flight)
        nest.outer = self.nest
        innermost.set(nest)  # until the next call, or the end of the map()
        del flight  # as `Plan.forget`
        answer = self.map_func(items)
        if not hasattr(type(answer), "__await__") and not inspect.isawaitable(answer):
            raise AnswerTypeError(
                f"map_func is not asynchronous: calling it gave {type(answer).__qualname__!r}, "
                "which cannot be awaited; "
                + (
                    "return a list instead of yielding results"
                    if inspect.isasyncgen(answer)
                    else "write it as `async def`, or use BatchingMapProxy"
                )
            )
        return answer  # type: ignore[no-any-return] # it was tested


class InStream(InTask):
    """The same for a stream, which has something to do whenever anything has come of a call."""

    __slots__ = ("changed",)

    changed: Callable[[], None]

    def __init__(
        self,
        map_func: Callable[[list[Any]], Any],
        loop: Any,
        reporting: Reporting | None,
    ) -> None:
        super().__init__(map_func, loop, reporting)
        self.listens = True

    def tell(self, plan: Plan) -> None:
        super().tell(plan)
        self.changed()


class FromThread(Caller):
    """A caller that is blocked in ``map()`` while the engine runs in the portal."""

    __slots__ = ("_portal_call",)

    def __init__(
        self,
        map_func: Callable[[list[Any]], Any],
        portal_call: PortalCall,
        report: Reporting | None,
    ) -> None:
        super().__init__(map_func, portal_call.portal.loop, report)
        if (held := running_loop()) is not None:
            self.blocked.append(held)
        self._portal_call = portal_call

    def report(self, reporting: Reporting, now: Progress) -> None:
        self._portal_call.ask(partial(reporting, now))


class InPortal(FromThread):
    """Calls an asynchronous ``map_func`` in the task that asks for it."""

    __slots__ = ()

    async def call(self, flight: Flight, items: list[Any]) -> Any:
        nest = Nest(flight)
        nest.outer = self.nest
        innermost.set(nest)  # until the next call, or the end of the map()
        del flight  # as `Plan.forget`
        answer = self.map_func(items)
        return await answer if isawaitable(answer) else answer


class InCallingThread(FromThread):
    """Calls a ``map_func`` in the thread that is blocked in ``map()``."""

    __slots__ = ()

    hurried = True
    after_reports = True

    async def call(self, flight: Flight, items: list[Any]) -> Any:
        nest = Nest(flight)
        nest.outer = self.nest
        answer = await self._answer(flight, nest, items)
        del flight  # as `Plan.forget`
        if type(answer) is not list and isawaitable(answer):  # which takes longer to find out
            innermost.set(nest)
            answer = await answer
        return answer

    async def _answer(self, flight: Flight, nest: Nest, items: list[Any]) -> Any:
        """What the function answers, perhaps with something to be awaited, or a `Failure`."""
        answered = anyio.Event()
        answers: list[Any] = []

        def job() -> None:
            answers.append(self._outcome(nest, items))
            self._portal_call.portal.post(answered.set)

        self._portal_call.ask(job)
        await answered.wait()
        return answers.pop()  # not to be left in that function, as `Plan.forget`

    def _outcome(self, nest: Nest, items: list[Any]) -> Any:
        """What the function answers, or what it raises, of whatever kind, in a `Failure`.

        Nothing raised by a user's function may reach the portal: some kinds would kill it.
        """
        token, outside = innermost.set(nest), sys.exception()
        try:
            return self.map_func(items)
        except BaseException as error:
            return Failure.of(error, outside)
        finally:
            innermost.reset(token)
            del outside  # this frame is in the traceback, and that may lead here: a cycle


class InWorkerThread(InCallingThread):
    """Calls a ``map_func`` in a worker thread, which a cancelled ``map()`` leaves to itself."""

    __slots__ = ("_context",)

    interruptible = False
    after_reports = False
    hurried = False  # who has been cancelled begins no further call

    def __init__(
        self,
        map_func: Callable[[list[Any]], Any],
        portal_call: PortalCall,
        report: Reporting | None,
    ) -> None:
        super().__init__(map_func, portal_call, report)
        self._context = copy_context()

    async def _answer(self, flight: Flight, nest: Nest, items: list[Any]) -> Any:
        slot = flight.slot
        assert slot is not None  # worker threads come with a max_concurrency
        portal = self._portal_call.portal
        answered = anyio.Event()
        answers: list[Any] = []

        def job() -> None:  # gives nothing back: the frames of a thread that is idle would keep it
            answers.append(self._outcome(nest, items))

        async def in_thread() -> None:
            context = self._context.copy()
            # The worker does not run the caller's event loop, which sniffio would believe.
            if "sniffio" in sys.modules:  # pragma: no branch - it comes with trio, for the tests
                context.run(sys.modules["sniffio"].current_async_library_cvar.set, None)
            try:
                with thread_errors():
                    await anyio.to_thread.run_sync(context.run, job, limiter=portal.threads)
            except Exception as error:  # there is no thread to be had
                # Without its traceback: the flight is in the frames of that.
                answers.append(Failure.of(error.with_traceback(None)))
            finally:
                slot.release(answered)
                answered.set()
                if flight.done:  # it was given up, but has lent its slot as long as its thread ran
                    for answer in answers:
                        if iscoroutine(answer):
                            answer.close()  # it will never be awaited
                    answers.clear()

        slot.hold(answered)
        portal.tasks.start_soon(in_thread)
        await answered.wait()
        return answers.pop()
