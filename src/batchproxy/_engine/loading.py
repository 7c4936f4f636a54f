"""load(): those who ask for single keys gather in a pool, and one of them calls for a batch.

Who finds its key in flight waits for that call. All others wait in a pool; with a store, first in
one of those who read. Who waits has no plan, caller or slot: they sleep together on a few events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

from .._core import waits
from .._core.flights import NOTHING, Flight
from .._core.gathered import Gathered
from .._core.keys import check_hashable, given
from .._core.outcome import MISSING, Failure, GivenUp
from .._core.pool import Meeting, Pool, Wanted
from .._forks import Alive
from .._loops import checkpoint, is_closed, running_loop
from .._messages import kind_of
from .._slots import Limit
from .caller import Caller, innermost, leave
from .callers import InTask
from .engine import Engine, closed
from .meetings import Bell, Here
from .run import Run

READS = 8
"""Reads of a store at a time; who comes later gathers meanwhile."""


class Loads:
    """Those who ask for single keys of one function."""

    def __init__(self, engine: Engine, function: Callable[[list[Any]], Any]) -> None:
        self.engine = engine
        self._function = function
        self._table = engine.cache._table
        self._reads = Limit(READS)
        self._heres: WeakKeyDictionary[object, Here] = WeakKeyDictionary()
        engine.loads.add(self)
        _alive.add(self)

    @property
    def under_way(self) -> int:
        """How many there are now, in all event loops."""
        return sum(here.loads for here in list(self._heres.values()))

    def reset_after_fork(self) -> None:
        """In the child: none of the loads that were under way is here."""
        self._heres = WeakKeyDictionary()

    def look(self, item: Any) -> tuple[Hashable, list[Any] | None]:
        """The key of `item`, and its result in a list, if it is in memory.

        Raises:
            ClosedError: the proxy is closed.
            TypeError: the key is not hashable.
        """
        engine = self.engine
        if engine.closed:
            raise closed("load")
        key = item if engine.key is None else given("key", engine.key, [item])[0]
        try:
            known = self._table.lookup([key])
        except TypeError:
            if engine.key is None and isinstance(item, list | set):
                raise TypeError(
                    f"load() takes one item, got an unhashable {kind_of(item)}: for several items "
                    "there is map(), and for items that cannot be hashed the proxy takes a key="
                ) from None
            check_hashable([key], has_key=engine.key is not None)
            raise
        return key, known

    def admit(self, key: Hashable, item: Any) -> float:
        """What `item`, which is to gather with others, weighs.

        Raises:
            TypeError: its key is one that the store of the cache cannot have, or its weight is no
                number.
            ValueError: that is negative, or NaN.
        """
        self.engine.cache._check(key)
        return self.engine.weigh(item)

    async def load(
        self, key: Hashable, item: Any, weight: float, loop: Any, caller: Caller | None
    ) -> Any:
        """The result of `key`, which was not in memory, or the `Failure` that it has.

        `caller` is None for one that is in no other call, and stops nothing.

        Raises:
            CircularWaitError: this load would wait for itself.
        """
        here = self._here(loop)
        place = () if caller is None else _place(caller)
        read = self.engine.cache._backing is None
        here.loads += 1
        try:
            while True:
                flight = self._in_flight(key)
                if flight is not None:
                    outcome = await self._meet(here, flight, key, caller)
                else:
                    outcome = await self._gather(
                        here, place, key, item, weight, caller, reading=not read
                    )
                read = True  # by whoever it was; a claim asks the store once more
                if outcome is not MISSING:
                    return outcome
                known = self._table.lookup([key])
                if known is not None:
                    self.engine.count(1)
                    return known[0]
        finally:
            here.loads -= 1
            if caller is not None:
                caller.blocked.clear()
            # As `Plan.forget`: the frames in here are in the traceback of a failure, and must not
            # have what has that.
            flight = outcome = None
            place = ()

    async def load_into(
        self, box: list[Any], key: Hashable, item: Any, weight: float, caller: Caller
    ) -> None:
        """`load` for another thread, which takes the outcome out of `box`."""
        box.append(await self.load(key, item, weight, caller.loop, caller))

    def _here(self, loop: Any) -> Here:
        try:
            return self._heres[loop]
        except KeyError:
            return self._heres.setdefault(loop, Here(loop, self._table))

    def _in_flight(self, key: Hashable) -> Flight | None:
        """The call that computes `key`, if somebody can end it."""
        for flight in self._table.who_computes((key,)):
            if flight.home is None or flight.handed_over or not is_closed(flight.home):
                return flight
        return None

    def _is_known(self, key: Hashable) -> bool:
        return self._table.lookup([key]) is not None or self._in_flight(key) is not None

    async def _meet(self, here: Here, flight: Flight, key: Hashable, caller: Caller | None) -> Any:
        meeting = here.meet(flight)
        meeting.loads += 1
        try:
            return await self._attend(meeting, key, caller)
        finally:
            meeting.leave()
            del meeting, flight

    async def _attend(self, meeting: Meeting, key: Hashable, caller: Caller | None) -> Any:
        """What comes of `key` in a call under way; `MISSING` if it is to be looked for again."""
        flight, token = meeting.flight, object()
        blocked = [] if caller is None else caller.blocked.copy()
        awaited = {flight: (key,)}
        try:
            waits.block_checked(token, blocked, awaited)
            if flight.done or key in flight.gone:  # somebody was quicker
                await checkpoint(running_loop())
            while not (flight.done or key in flight.gone):
                await meeting.wait()
            results, failures = flight.answers() if flight.done else (flight.gone, flight.failures)
            result = results.get(key, MISSING)
            if result is MISSING:
                return failures.get(key, MISSING)
            self.engine.count(1, shared=1)
            return result
        finally:
            waits.unblock(token, blocked)
            blocked.clear()
            awaited.clear()
            results = failures = NOTHING
            del flight, meeting

    async def _gather(
        self,
        here: Here,
        place: tuple[object, ...],
        key: Hashable,
        item: Any,
        weight: float,
        caller: Caller | None,
        *,
        reading: bool,
    ) -> Any:
        """What comes of `key` after waiting for it in a pool; `MISSING` as there."""
        pools = here.reading if reading else here.calling
        pool = pools.get(place)
        if pool is None:
            pool = pools[place] = Pool(Bell)
        wanted, me = pool.join(key, item, weight), object()
        given_up: Failure | None = None
        outcome: Any = MISSING
        try:
            while not wanted.settled and given_up is None:
                if pool.lead(wanted, me):
                    given_up = await self._lead(here, pool, wanted, me, caller, reading=reading)
                else:
                    await wanted.bell.wait()
            if given_up is not None:
                return given_up
            if wanted.meeting is not None:
                return await self._attend(wanted.meeting, key, caller)
            outcome = wanted.outcome
            if outcome is not MISSING and not isinstance(outcome, Failure):
                self.engine.count(1, *wanted.source)
                wanted.source = (1, 0)
            return outcome
        finally:
            pool.retire(wanted, me)
            pool.leave(wanted)
            if wanted.meeting is not None:
                wanted.meeting.leave()
            if place and pool.idle and pools.get(place) is pool:  # who left before may be back
                del pools[place]
            outcome = given_up = None
            del wanted, place

    async def _lead(
        self,
        here: Here,
        pool: Pool,
        wanted: Wanted,
        me: object,
        caller: Caller | None,
        *,
        reading: bool,
    ) -> Failure | None:
        """Call for a batch of those who wait; a failure that is nobody else's is given."""
        if caller is None:
            loop = here.loop()
            caller = InTask(self._function, loop)
        options = self.engine.options
        if len(pool) < options.size.now:
            await checkpoint(caller.loop)  # who asks in this tick comes along
        most = math.inf if reading else self.engine.max_weight
        plan = Gathered(pool, wanted, me, here.meet, self._is_known, most=most, reading=reading)
        run = Run(plan, caller, self.engine.cache._claims(caller.home, caller.loop), options)
        outside = innermost.set(caller.nest)
        try:
            if reading:
                await run.read(self._reads)
            else:
                await run.call_batches()
            return plan.failure if isinstance(plan.failure, GivenUp) else None
        finally:
            run.release_all()
            plan.end()
            leave(outside)
            del plan, run, wanted


def _place(caller: Caller) -> tuple[object, ...]:
    """What those have in common who may gather: whom they hold up, and whose slot they use."""
    inside = () if caller.nest is None else (caller.nest(),)
    return (*caller.blocked, *inside)


_alive = Alive[Loads](Loads.reset_after_fork)
