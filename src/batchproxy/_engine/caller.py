"""Who calls map(): from where, inside which other calls, and how its map_func is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from typing import Any, ClassVar
from weakref import ref

from .._core.flights import Flight
from .._core.plan import Plan
from .._core.progress import Progress, Reporting, reports_around, snapshot
from .._slots import Slot


class Nest(ref[Flight]):
    """The calls that some code is inside of: the innermost, and the others around it.

    Weak: a task that a ``map_func`` left behind must not keep the results of that call alive. And
    links to calls that have ended are taken out: such tasks may leave others behind, without end.
    """

    __slots__ = ("outer",)

    outer: Nest | None


def _under_way(nest: Nest | None, around: list[Flight]) -> Nest | None:
    """The first of these whose call still runs, which is added to `around`."""
    while nest is not None:
        if (flight := nest()) is not None and flight.in_progress:
            around.append(flight)
            return nest
        nest = nest.outer
    return None


innermost: ContextVar[Nest | None] = ContextVar("batchproxy_innermost_call", default=None)


def leave(outside: Token[Nest | None]) -> None:
    """Be where one was before `innermost` was set, which gave `outside`."""
    try:
        innermost.reset(outside)
    except ValueError:
        pass  # the loop was torn down, and the collector ends this in another context


class Caller(ABC):
    """Who calls ``map()``: from where, and how its `map_func` is called."""

    __slots__ = ("blocked", "home", "listens", "loop", "map_func", "nest", "reporting", "slots")

    interruptible: ClassVar[bool] = True
    """Whether calls can be cancelled; if not, those of a failing ``map()`` run to their end."""

    in_tasks: ClassVar[bool] = False
    """Whether a call is a task of `loop`, and goes on with it only."""

    hurried: ClassVar[bool] = False
    """Whether no checkpoint is due before a call, since each waits for another thread."""

    after_reports: ClassVar[bool] = False
    """Whether calls are made in the thread that reports are passed on in, after those."""

    def __init__(
        self,
        map_func: Callable[[list[Any]], Any],
        loop: Any,
        reporting: Reporting | None = None,
    ) -> None:
        self.map_func = map_func
        self.reporting = reporting
        self.listens = reporting is not None  # whether there is any need to `tell` it
        self.loop = loop  # where the engine runs
        self.home = loop if self.in_tasks else None  # where the calls of map_func run, if in tasks
        # The calls that this map() is nested in, the innermost first, and their slots.
        self.nest: Nest | None = None
        self.slots: Sequence[Slot] = ()
        # What stands still until this map() returns: the call that it is nested in, the event loop
        # whose thread it holds, and the progress functions that wait for it.
        self.blocked: list[object] = reports_around()
        if (inside := innermost.get()) is not None:
            around: list[Flight] = []
            self.nest = nest = _under_way(inside, around)
            while nest is not None:
                nest.outer = _under_way(nest.outer, around)
                nest = nest.outer
            self.slots = [flight.slot for flight in around if flight.slot is not None]
            self.blocked += [flight for flight in around if not flight.done][:1]

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
