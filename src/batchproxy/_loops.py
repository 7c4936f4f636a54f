"""Event loops of either kind: which one runs here, what needs one, how to post to another."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any

import anyio.lowlevel
from anyio import current_effective_deadline, get_cancelled_exc_class

_NO_ASYNCIO = (KeyError, AttributeError, RuntimeError)
"""It is not imported, or another thread is just doing so; or it runs nothing here."""


def running_loop() -> Any:
    """The asyncio event loop, or the token of the trio run, that this runs in; None outside."""
    modules = sys.modules
    sniffio = modules.get("sniffio") if "trio" in modules else None
    try:  # as anyio tells them apart, whose current_token() would do at three times the cost
        if sniffio is not None and sniffio.current_async_library() == "trio":
            return modules["trio"].lowlevel.current_trio_token()
    except RuntimeError:
        pass  # there is none, or this is a bare callback of an asyncio loop
    try:
        return modules["asyncio"].get_running_loop()
    except _NO_ASYNCIO:
        return None


def checkpoint(loop: Any) -> Awaitable[None]:
    """That of anyio in `loop`, which runs here, and need not be found."""
    if loop is None:
        return anyio.lowlevel.checkpoint()  # which says so
    if hasattr(loop, "run_sync_soon"):
        return sys.modules["trio"].lowlevel.checkpoint()  # type: ignore[no-any-return]
    return sys.modules["asyncio"].sleep(0)  # type: ignore[no-any-return]


def is_closed(loop: Any) -> bool:
    """Whether `loop` was closed. A trio run has no such moment: its tasks end before it does."""
    return hasattr(loop, "is_closed") and bool(loop.is_closed())


def is_cancellation(error: BaseException) -> bool:
    """Whether `error` ends a task from outside, and has to be let through."""
    if isinstance(error, GeneratorExit):  # a coroutine is closed, of a loop that may be gone
        return True
    return isinstance(error, get_cancelled_exc_class())


def is_torn_down(error: BaseException, loop: Any) -> bool:
    """Whether `error` closes a coroutine of `loop`, which does not run it any more."""
    return isinstance(error, GeneratorExit) and running_loop() is not loop


def cancellations(loop: Any) -> int:
    """How often ``cancel()`` was called of the task that runs in `loop`, those undone not counted.

    It stays as it is when a task catches what comes of that, and goes on.
    """
    if loop is None or hasattr(loop, "run_sync_soon"):  # trio knows scopes only
        return 0
    task = sys.modules["asyncio"].current_task(loop)
    return 0 if task is None else int(task.cancelling())


def is_being_cancelled(loop: Any, before: int = 0) -> bool:
    """Whether the task that runs in `loop` was asked to end: by a scope, or its ``cancel()``.

    Of ``cancel()`` more often than it was `before`.
    """
    return current_effective_deadline() == -math.inf or cancellations(loop) > before


def poster(loop: Any) -> Callable[..., object]:
    """What has a function called in the thread of `loop`, soon: from any thread, without waiting.

    It takes the function, and what that is called with, and raises a RuntimeError if that loop is
    closed.
    """
    kind = "run_sync_soon" if hasattr(loop, "run_sync_soon") else "call_soon_threadsafe"
    post: Callable[..., object] = getattr(loop, kind)
    return post


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling `function` gives what has to be awaited."""
    if isinstance(function, FunctionType):  # as most are, and what is to be said of them is known
        return inspect.iscoroutinefunction(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )
