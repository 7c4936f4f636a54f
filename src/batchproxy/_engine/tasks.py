"""Tasks that end together: the first exception of one ends the others, and is raised bare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .._core.outcome import Failure
from .._core.plan import Plan
from .._loops import is_cancellation, is_torn_down
from .caller import Caller


class Tasks:
    """The tasks of one ``map()``, or of one stream.

    Args:
        plan: What they carry out; when it is over they are cancelled, ...
        caller: ... if calls of this one can be.

    They all have the context variables of the task that makes this.
    """

    __slots__ = ("_caller", "_context", "_ended_by", "_ending", "_group", "_plan")

    def __init__(self, plan: Plan, caller: Caller) -> None:
        self._plan = plan
        self._caller = caller
        self._context = copy_context()
        self._ended_by: list[BaseException] = []
        self._ending = False
        self._group = anyio.create_task_group()

    def start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start another one, inside `run`, unless all are ending."""
        if not self._ending:
            # Into a copy, since a task that is eager may start another one in here.
            self._context.copy().run(self._group.start_soon, self._child, function)

    def cancel(self) -> None:
        """Cancel them all."""
        self._ending = True  # so nothing is started any more, should `run` still be to come
        if (scope := self._group.cancel_scope) is not None:  # trio's has none before
            scope.cancel()

    async def run(self, functions: Iterable[Callable[[], Awaitable[None]]]) -> None:
        """Start `functions`, and wait until all tasks have ended.

        Raises:
            BaseException: what one of them raised; of several an interrupt, or a cancellation.
        """
        ended_by, scope = self._ended_by, self._group.cancel_scope
        try:
            async with self._group as group:
                scope = group.cancel_scope  # trio's has none before
                for function in functions:
                    self.start(function)
            if scope.cancel_called:
                # On trio a host is cancelled by what its children let out, and these do not.
                await checkpoint_if_cancelled()
        except BaseExceptionGroup as group_error:  # how trio delivers an interrupt
            ended_by.extend(group_error.exceptions)
        except BaseException as host_error:
            ended_by.append(host_error)
        if not ended_by and not self._plan.over and scope.cancel_called:
            # On asyncio a child may be cancelled before its first step, and then notes nothing.
            ended_by.append(anyio.get_cancelled_exc_class()())
        if ended_by:
            failure = Failure.of(min(ended_by, key=_gravity))
            ended_by.clear()
            try:
                raise failure.error
            finally:
                failure.restore()
                del failure  # this frame is in its traceback now: a cycle

    async def _child(self, function: Callable[[], Awaitable[None]]) -> None:
        # A task group would wrap an exception, drop (on asyncio) a CancelledError that the user's
        # function raised, and leave a cancellation in a cycle with one of its frames; and
        # KeyboardInterrupt would leave the loop right from here. So it is noted here, and raised
        # bare by `run`.
        try:
            await function()
        except BaseException as error:
            if is_torn_down(error, self._caller.loop):  # pragma: no cover - while there is none
                raise
            self._ending = True
            if not (is_cancellation(error) and self._group.cancel_scope.cancel_called):
                self._ended_by.append(error)
        if self._ended_by or (self._plan.over and self._caller.interruptible):
            self.cancel()


def _gravity(error: BaseException) -> int:
    """Which of several exceptions is raised: interrupts come first, then cancellations."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return 0
    return 2 if isinstance(error, Exception) else 1
