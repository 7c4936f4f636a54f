"""Who calls map(): from where, inside which other calls, and how its map_func is called."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, ClassVar, TypeAlias
from weakref import ref

from ._flights import Flight
from ._plan import Plan
from ._progress import Progress, Reporting, snapshot

Nest: TypeAlias = "tuple[ref[Flight], Nest | None]"
"""The calls that some code is inside of: the innermost, and the others around it.

Weak: a task that a ``map_func`` left behind must not keep the results of that call alive.
"""

innermost: ContextVar[Nest | None] = ContextVar("batchproxy_innermost_call", default=None)


class Caller(ABC):
    """Who calls ``map()``: from where, and how its `map_func` is called."""

    __slots__ = ("ancestors", "blocked", "home", "loop", "map_func", "nest", "reporting")

    interruptible: ClassVar[bool] = True
    """Whether calls can be cancelled; if not, those of a failing ``map()`` run to their end."""

    def __init__(
        self,
        map_func: Callable[[list[Any]], Any],
        loop: Any,
        *,
        home: object = None,
        holding: object = None,
        reporting: Reporting | None = None,
    ) -> None:
        self.map_func = map_func
        self.reporting = reporting
        self.loop = loop  # where the engine runs
        self.home = home  # where the calls of map_func run, if they are tasks
        # The calls that this map() is nested in, the innermost first, and the link to that one.
        self.ancestors: list[Flight] = []
        self.nest: Nest | None = None
        # What stands still until this map() returns: the event loop whose thread it holds, and the
        # call that it is nested in.
        self.blocked: list[object] = [] if holding is None else [holding]
        nest = innermost.get()
        while nest is not None:
            if (flight := nest[0]()) is not None:
                self.ancestors.append(flight)
                self.nest = self.nest or nest
            nest = nest[1]
        for flight in self.ancestors:
            if not flight.done:
                self.blocked.append(flight)
                break

    @abstractmethod
    def call(self, flight: Flight, items: list[Any]) -> Awaitable[Any]:
        """Call `map_func` with `items`, inside `flight`.

        Gives the answer; what the function raised is raised, or given as a `Failure` (a function of
        another thread may raise what no coroutine can pass on, such as `StopIteration`).
        """

    def tell(self, plan: Plan) -> None:
        """Report how far `plan` has come, if that is wanted."""
        if self.reporting is not None:
            self.report(self.reporting, snapshot(plan))

    def report(self, reporting: Reporting, now: Progress) -> None:
        """Pass a snapshot on, in the thread that called ``map()``."""
        reporting(now)


def is_async(map_func: Callable[..., object]) -> bool:
    """Whether calling `map_func` gives what has to be awaited."""
    return inspect.iscoroutinefunction(map_func) or inspect.iscoroutinefunction(
        type(map_func).__call__
    )
