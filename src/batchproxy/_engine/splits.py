"""A batch that its function has refused: halved, down to the items that are refused alone.

All of it is one flight, in the slot that it has. Each half is a call of its own; what it gave
leaves the flight at once, and the keys of the other half wait in it. So who waits for a key follows
it into its half, and a half that would wait for the other is in a ring.
"""

from __future__ import annotations

from .._core.claims import Claims
from .._core.counters import Counters
from .._core.flights import Flight
from .._core.outcome import Answers, Failure, GivenUp, Outcome, Refused
from .._core.plan import Plan
from .._core.sizes import Size
from .._loops import checkpoint
from .caller import Caller
from .calls import call

OUTAGE = 3
"""So many items refused alone, and the last one too, with nothing answered: the rest is not tried.

What was refused before and never kept comes first in the next ``map()``, all of it together. So the
first items say little of those behind them, and the last one is asked.
"""


class _Halves:
    """The two halves of a batch that was refused."""

    __slots__ = ("answered", "larger")

    def __init__(self, larger: int = 0) -> None:
        self.larger = larger  # how many keys it has; nobody asks where there are no two
        self.answered = 0  # how many of the two were, without being halved


class Split:
    """What has become of a batch that was refused."""

    __slots__ = (
        "_ahead",
        "_alone",
        "_answered",
        "_caller",
        "_claims",
        "_flight",
        "_plan",
        "_refused",
        "_size",
    )

    def __init__(
        self, plan: Plan, caller: Caller, claims: Claims, size: Size, flight: Flight
    ) -> None:
        self._plan = plan
        self._caller = caller
        self._claims = claims
        self._size = size
        self._flight = flight
        # Of the next calls the place, how many keys, and which halves: the next one comes last.
        self._ahead: list[tuple[int, int, _Halves]] = []
        self._refused: list[Failure] = []  # those of single items, to be raised or noted
        self._alone = 0  # how many items were refused alone
        self._answered = False  # whether anything of the batch was

    async def carry_out(self, outcome: Outcome, counters: Counters[Flight]) -> None:
        """Go on from the refusal that `outcome` is, until nothing is left, or a failure ends it.

        (Or from a call that was given up: that is the end of it, as it is of a half.)

        Items that are refused are failures of single items: their neighbours are kept, so it is
        only when all of the batch has been tried that they end the ``map()``.
        """
        plan, flight, halves = self._plan, self._flight, _Halves()
        try:
            while True:
                if isinstance(outcome, Refused):
                    await self._refuse(outcome)
                else:
                    await self._take(outcome, halves)
                self._caller.tell(plan)
                if not flight.rest or plan.over:
                    break
                if isinstance(outcome, GivenUp):  # with exceptions returned its map() goes on
                    plan.again(flight.rest)
                    break
                await checkpoint(self._caller.loop)
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    break
                place, count, halves = self._ahead.pop()
                self._claims.table.proceed(flight, place, count, counters)
                plan.calls += 1
                outcome = await call(self._caller, plan, flight)
            self._fail()
        finally:
            del self, plan, flight, outcome  # this frame is in the traceback: a cycle

    async def _refuse(self, refused: Refused) -> None:
        flight, table = self._flight, self._claims.table
        count, place = len(flight.keys), flight.place
        if count > 1:
            half, halves = count // 2, _Halves(count - count // 2)
            self._ahead += [(place + half, halves.larger, halves), (place, half, halves)]
            table.refuse(flight, refused)
            return
        failure = refused.of_one()
        self._refused.append(failure)
        self._alone += 1
        await self._settle_refused(failure)
        if flight.rest and self._alone >= OUTAGE and not self._answered:
            if self._alone == OUTAGE:
                self._last_first()
                return
            table.proceed(flight, self._ahead[-1][0], len(flight.rest), None)
            await self._settle_refused(failure)

    def _last_first(self) -> None:
        """Have the last item called for next, alone."""
        place, count, halves = self._ahead[0]
        self._ahead[:1] = [(place, count - 1, halves)] if count > 1 else []
        self._ahead.append((place + count - 1, 1, _Halves()))
        self._claims.table.last_first(self._flight)

    async def _settle(self, outcome: Outcome) -> Outcome:
        settling = self._claims.settle(self._flight, outcome)
        return outcome if settling is None else await settling

    async def _settle_refused(self, failure: Failure) -> None:
        await self._settle(failure)
        self._plan.take_refused(self._flight, failure)

    async def _take(self, outcome: Outcome, halves: _Halves) -> None:
        if not isinstance(outcome, GivenUp):
            outcome = await self._settle(outcome)
        if isinstance(outcome, Answers):
            self._answered |= len(outcome.failures) < len(outcome.results)
            halves.answered += 1
            if halves.answered == 2:
                self._size.too_large(halves.larger)
        if isinstance(outcome, Failure) or outcome.failures:
            self._fail()  # those came before
        self._plan.take(self._flight, outcome)

    def _fail(self) -> None:
        for failure in self._refused:
            self._plan.fail(failure)
        self._refused = []
