"""What load() calls sleep on: a few events in each event loop, whatever their number."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import ref

import anyio

from .._core.flights import Elsewhere, Flight
from .._core.pool import Pool
from .._core.table import Table
from .._loops import poster


class Bell:
    """What wakes all who sleep on it, in one event loop."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    async def wait(self) -> None:
        """Sleep until it rings."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def ring(self) -> None:
        """Wake all who sleep now."""
        event, self._event = self._event, None
        if event is not None:
            with suppress(RuntimeError):  # that loop is closed: nobody sleeps there any more
                event.set()


class Meeting:
    """Those in one event loop who wait for one call that was under way."""

    __slots__ = ("_bell", "_here", "_wake", "elsewhere", "flight", "loads")

    def __init__(self, here: Here, flight: Flight) -> None:
        self._here = here
        self.flight = flight
        self._bell = Bell()
        self.loads = 0
        self.elsewhere: set[Elsewhere] = set()
        if isinstance(flight, Elsewhere):
            flight.interested.add(self)
            self.elsewhere.add(flight)
        post, ring = poster(here.loop()), self._bell.ring

        def wake() -> None:
            with suppress(RuntimeError):  # as above
                post(ring)

        self._wake = wake
        here.table.join({flight: ()}, wake)

    async def wait(self) -> None:
        """Sleep until anything becomes of that call."""
        await self._bell.wait()

    def leave(self) -> None:
        """One of them goes."""
        self.loads -= 1
        if not self.loads:
            here = self._here
            here.meetings.pop(self.flight, None)
            here.table.leave([self.flight], self._wake)
            here.table.lose_interest(self)


class Here:
    """What the loads of one bound function have in one event loop."""

    __slots__ = ("calling", "loads", "loop", "meetings", "reading", "table")

    def __init__(self, loop: Any, table: Table) -> None:
        self.loop = ref(loop)  # which this goes with
        self.table = table
        # By what stands still until they return: those inside a call, which they hold up, gather
        # with others of that same call only, and not with those who may have to wait for it.
        self.reading: dict[tuple[object, ...], Pool] = {}
        self.calling: dict[tuple[object, ...], Pool] = {}
        self.meetings: dict[Flight, Meeting] = {}
        self.loads = 0  # under way

    def meet(self, flight: Flight) -> Meeting:
        """Where those gather who wait for `flight`."""
        meeting = self.meetings.get(flight)
        if meeting is None:
            meeting = self.meetings[flight] = Meeting(self, flight)
        return meeting
