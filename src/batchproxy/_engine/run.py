"""One map() under way: claim → call under a slot → settle, until all is known or a failure ends it.

All state is in `Plan`, `Flight` and `Table`, changed by plain methods; whatever happens at an
``await``, the ``finally`` of the call releases its keys and its slot without awaiting.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import anyio

from .._core import waits
from .._core.claims import Claims
from .._core.counters import Counters
from .._core.flights import Flight
from .._core.outcome import Answers, Unsettled
from .._core.plan import Plan
from .._core.sizes import Size
from .._loops import checkpoint, poster
from .._slots import Limit
from .caller import Caller
from .calls import call
from .splits import Split
from .tasks import Tasks


class Options(NamedTuple):
    """What all runs of one proxy have in common."""

    size: Size  # of a batch
    tasks: int  # at most
    limit: Limit | None
    counters: Counters[Flight]


class Run:
    """What one ``map()`` needs to carry out its plan."""

    __slots__ = ("_alarm", "_caller", "_claims", "_options", "_plan")

    def __init__(self, plan: Plan, caller: Caller, claims: Claims, options: Options) -> None:
        self._plan = plan
        self._caller = caller
        self._claims = claims
        self._options = options
        self._alarm: anyio.Event  # what wakes it in `_sleep`

    async def carry_out(self) -> None:
        """Carry out the plan. A failure that ends it is left in ``plan.failure``, not raised.

        Raises:
            CircularWaitError: this ``map()`` would wait for itself.
        """
        plan, caller = self._plan, self._caller
        try:
            self._claims.table.open(plan)
            while self._claims.unread:
                await self._claims.look(plan)
                if self._claims.unread:
                    caller.tell(plan)
            if plan.awaited:
                waits.check(caller.blocked, plan.awaited)
            elif not plan.left:  # somebody was quicker
                await checkpoint(caller.loop)  # the only one here
            await self._compute()
        except BaseException:
            plan.forget()
            raise
        finally:
            if plan.running or plan.elsewhere:
                self.release_all()
            caller.blocked.clear()  # as `Plan.forget`

    async def _compute(self) -> None:
        """Call until nothing is left that could be, and nothing is awaited."""
        plan, caller, options = self._plan, self._caller, self._options
        while not plan.over:
            if caller.listens:
                caller.tell(plan)
            if options.tasks > 1 and (plan.left > options.size.now or plan.weights is not None):
                tasks = Tasks(plan, interruptible=caller.interruptible)
                count = plan.batches(options.size.now, options.tasks)  # no more than there are
                await tasks.run([self.call_batches] * count)
            else:
                await self.call_batches()
            if plan.over or not plan.awaited:
                if caller.listens:
                    caller.tell(plan)
                break
            await self._sleep()
            plan.take_awaited()

    async def read(self, limit: Limit) -> None:
        """Look once, in a slot of `limit`. `release_all` is still to come."""
        slot = limit._slot(self._caller.loop, ())
        try:
            await slot.acquire()
            await self._claims.look(self._plan)
        finally:
            slot.release(slot)

    def release_all(self) -> None:
        """Release whatever is left of this ``map()``; twice is fine."""
        # There is nothing, unless Ctrl-C cut a release short: trio raises it anywhere in the main
        # thread, asyncio does the second time. That one is on its way out; no other may stop us.
        plan = self._plan
        while plan.running or plan.elsewhere:
            with suppress(KeyboardInterrupt):
                if plan.running:
                    self._release(next(iter(plan.running)))
                else:
                    self._claims.table.lose_interest(plan)

    async def call_batches(self) -> None:
        """Claim and call until nothing is left to compute, or a failure ends it.

        Also by itself; then `release_all` is still to come.
        """
        plan, caller, claims = self._plan, self._caller, self._claims
        size, _, limit, counters = self._options
        after = caller.reporting if caller.after_reports else None
        while plan.due and not plan.over:
            if not caller.hurried:
                await checkpoint(caller.loop)
            if plan.over or not (plan.left or plan.spare):
                break  # others were quicker
            flight, outcome = Flight(caller.home, counters, after), None
            plan.running.add(flight)
            try:
                if limit is not None:
                    flight.slot = limit._slot(caller.loop, caller.slots)
                    try:
                        flight.slot.acquire_nowait()
                    except anyio.WouldBlock:
                        # What others compute by now is not worth waiting for a slot; and who meets
                        # a call under way shares its failure instead of repeating it.
                        if plan.left and not claims.table.has_work(plan, size.now):
                            break
                        await flight.slot.acquire()
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    continue
                if (claiming := claims.claim(plan, flight, size.now)) is not None:
                    await claiming
                if plan.over or not flight.keys or not plan.claim(flight):
                    continue
                counters.running.add(flight)
                if caller.blocked:
                    waits.block(flight, caller.blocked, {flight: ()})
                outcome = await call(caller, plan, flight)
                if not isinstance(outcome, Unsettled):
                    if (settling := claims.settle(flight, outcome)) is not None:
                        outcome = await settling
                else:  # refused, or given up, as any part of it may be
                    await Split(plan, caller, claims, size, flight).carry_out(outcome, counters)
                    continue
                plan.take(flight, outcome)
                if size.reduced and isinstance(outcome, Answers):
                    size.answered(len(flight.keys))
            finally:
                self._release(flight)
                del flight, outcome  # as `Plan.forget`
            if caller.listens:
                caller.tell(plan)

    def _release(self, flight: Flight) -> None:
        """Release the keys and the slot of a call, whatever became of it; twice is fine."""
        self._claims.table.end(flight)
        if self._caller.blocked:
            waits.unblock(flight, self._caller.blocked)
        if flight.slot is not None:
            flight.slot.release(flight.slot)
        self._plan.running.discard(flight)

    async def _sleep(self) -> None:
        """Wait until anything becomes of the calls that the plan awaits."""
        plan, caller, table = self._plan, self._caller, self._claims.table
        event, post = anyio.Event(), poster(caller.loop)
        self._alarm = event

        def wake() -> None:
            with suppress(RuntimeError):  # that loop is closed: nobody sleeps there any more
                post(event.set)

        awaited = dict(plan.awaited)  # a stream may meet others meanwhile
        try:
            waits.block_checked(wake, caller.blocked, awaited)
            if table.join(awaited, wake):
                await event.wait()
            else:  # somebody was quicker
                await checkpoint(caller.loop)
        finally:
            table.leave(awaited, wake)
            waits.unblock(wake, caller.blocked)
            del awaited  # as `Plan.forget`
