"""The steps of a map() that ask a store: read, claim, publish.

Each runs in a worker thread of the cache, which the flight is handed over to. So a caller that is
cancelled can leave at once, and what it had begun is still brought to its end: those who wait for
results wait until they are written; claims that nobody needs any more are given back. Only then are
the keys released in this process. The results of a call are handed over the moment they come:
whatever becomes of its caller, they are written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from ._durable import Claimed, Durable, Published
from ._errors import StoreError
from ._flights import Flight, Flights
from ._loops import post
from ._messages import describe
from ._plan import Asking, Failure, Plan, StoreFailure
from ._table import Table

R = TypeVar("R")

WINDOW = 10_000
"""The most keys that a store is asked for at once, if a batch is not larger."""


class Stored:
    """A cache with a store, as the engine uses it."""

    def __init__(self, table: Table, durable: Durable) -> None:
        self._table = table
        self._durable = durable
        # A value that was read may expire at any moment: only the store knows when.
        self._keep = durable.ttl is None

    @staticmethod
    def asking() -> Asking:
        """What a new plan needs to know of a store."""
        return Asking(anyio.Lock(fast_acquire=True))

    async def read(self, plan: Plan, flight: Flight, loop: Any) -> list[Hashable] | StoreFailure:
        """Tell `plan` what the store has of the keys of `flight`; which it has not are returned."""
        asking = plan.asking
        assert asking is not None

        def work() -> dict[Hashable, Any]:
            kept = [key for key in flight.keys if key not in flight.unkept]
            values = self._durable.read(kept, asking.names)
            with self._table.flights.lock:
                self._table.found(flight, values, keep=self._keep)
            return values

        values = await self._in_thread(flight, work, loop)
        if isinstance(values, StoreFailure):
            return values
        plan.learn_stored(values)
        return [key for key in flight.keys if key not in values]

    async def claim(self, plan: Plan, flight: Flight, size: int, loop: Any) -> bool | StoreFailure:
        """Claim the next batch of `plan` for `flight`, here and in the store.

        Keys that have a value by now, or that another process is computing, do not thin it: then
        more are asked for, and more at once, since there will be others next to those.

        Returns:
            Whether there is anything to compute.
        """
        asking = plan.asking
        assert asking is not None
        flight.hold = self._durable.hold()
        flight.unkept = plan.unkept
        async with asking.lock:
            while (wanted := size - len(flight.keys)) and not plan.over:
                asked = asking.flight = Flight(flight.home)
                plan.running.add(asked)
                try:
                    with self._table.flights.lock:
                        if not self._table.claim(plan, max(wanted, asking.size), asked):
                            break
                    work = partial(self._claim, asked, flight, asking.names, wanted)
                    claimed = await self._in_thread(asked, work, loop)
                finally:
                    self._table.flights.end(asked)
                    plan.running.discard(asked)
                    asking.flight = None
                if isinstance(claimed, StoreFailure):
                    return claimed
                if len(claimed.mine) < len(asked.keys):
                    got = claimed.values.keys() | set(claimed.mine) | set(claimed.held)
                    plan.draw_back([key for key in asked.keys if got and key not in got])
                    plan.learn_stored(claimed.values)
                    asking.hold(claimed.held if got else asked.keys)  # at least not again at once
                full = len(claimed.mine) == wanted
                asking.size = 0 if full else min(2 * len(asked.keys), WINDOW)
            if plan.awaited:
                plan.take_awaited()  # they may have failed meanwhile
            if plan.over or not flight.keys:
                return False
            plan.claim(flight)
            return True

    def _claim(
        self, asked: Flight, flight: Flight, names: dict[Hashable, bytes], limit: int
    ) -> Claimed:
        try:
            claimed = self._claimed(asked, flight, names, limit)
            with self._table.flights.lock:
                if not flight.done:
                    self._table.found(asked, claimed.values, keep=self._keep)
                    self._table.flights.move(asked, flight, claimed.mine)
            return claimed
        finally:
            if flight.done and flight.hold is not None:
                flight.hold.release()  # whoever asked has left

    def _claimed(
        self, asked: Flight, flight: Flight, names: dict[Hashable, bytes], limit: int
    ) -> Claimed:
        if not asked.unkept:
            return self._durable.claim(asked.keys, names, flight.hold, limit)
        # Nobody else has, or could have, what is not kept.
        unkept = {key for key in asked.keys[:limit] if key in asked.unkept}
        claimed = Claimed({}, [], [])
        kept = [key for key in asked.keys if key not in asked.unkept]
        if kept and len(unkept) < limit:
            claimed = self._durable.claim(kept, names, flight.hold, limit - len(unkept))
        mine = unkept.union(claimed.mine)
        return claimed._replace(mine=[key for key in asked.keys if key in mine])

    async def publish(
        self, plan: Plan, flight: Flight, loop: Any, keep: Callable[[Flight], None]
    ) -> None:
        """Write the results of `flight`, then `keep` it, and tell those who wait for it.

        Until they are written it has no outcome. What comes out may differ from what was computed:
        if another process was first, its results are taken; results that cannot be stored become
        failures; and if the store fails, all do: then the next who asks for them has them written.

        Cancellation: The caller leaves at once. The results were taken over before the first
        ``await``.
        """
        assert plan.asking is not None
        names = plan.asking.names
        outcome = flight.results, flight.failures
        flight.results, flight.failures = [], {}
        work = partial(self._publish, flight, outcome, names, keep)
        job = _Job(self._table.flights, flight, work, loop)
        try:
            self._durable.take_over(flight)
            job.take_over()
            self._durable.workers.submit(job)
        except BaseException as error:  # there is no thread, or this one was interrupted
            no_thread = isinstance(error, RuntimeError)
            if job.withdraw():  # and nobody will do it
                self._postpone(flight, outcome, names, keep if no_thread else None, error)
            if not no_thread:
                raise
        else:
            written = await job.wait()
            if isinstance(written, StoreFailure):
                plan.fail(written)

    def _publish(
        self,
        flight: Flight,
        outcome: tuple[list[Any], dict[Hashable, Failure]],
        names: dict[Hashable, bytes],
        keep: Callable[[Flight], None],
    ) -> None:
        durable = self._durable
        try:
            with durable.writing():
                with self._table.flights.lock:
                    results = self._wanted(flight, outcome)
                published = durable.publish(results, names, flight.hold)
        finally:
            durable.taken(flight)
        self._settle(flight, outcome, published, keep)
        del flight, outcome, published, results  # as `Plan.forget`

    def _postpone(
        self,
        flight: Flight,
        outcome: tuple[list[Any], dict[Hashable, Failure]],
        names: dict[Hashable, bytes],
        keep: Callable[[Flight], None] | None,
        error: BaseException,
    ) -> None:
        """What is done where nobody can write: without I/O. Without `keep` the call is given up."""
        try:
            with self._table.flights.lock:  # what is forgotten now is forgotten there, too
                results = self._wanted(flight, outcome)
                published = self._durable.postpone(results, names, _unusable(error))
            if keep is not None:
                self._settle(flight, outcome, published, keep)
        finally:
            self._durable.taken(flight)
            self._table.flights.take_back(flight)

    def _wanted(
        self, flight: Flight, outcome: tuple[list[Any], dict[Hashable, Failure]]
    ) -> dict[Hashable, Any]:
        """The results that are neither failures nor forgotten since the claim. *Locked.*"""
        results, failures = outcome
        computed = dict(zip(flight.keys, results))
        current = self._table.flights.current(flight)
        if not failures and not flight.unkept and len(current) == len(computed):
            return computed
        left_out = {*failures, *flight.unkept}
        return {key: computed[key] for key in current if key not in left_out}

    @staticmethod
    def _settle(
        flight: Flight,
        outcome: tuple[list[Any], dict[Hashable, Failure]],
        published: Published,
        keep: Callable[[Flight], None],
    ) -> None:
        flight.results, flight.failures = outcome
        refused = published.refused
        if published.failure is not None:
            refused = dict.fromkeys(flight.keys, published.failure)
        if published.adopted or refused:
            flight.correct(published.adopted, refused)
        keep(flight)

    def elsewhere(self, asking: Asking) -> dict[Flight, list[Hashable]]:
        """The calls of other caches of this process that compute what others hold."""
        return self._durable.elsewhere(asking.held)

    async def _in_thread(
        self, flight: Flight, work: Callable[[], R], loop: Any
    ) -> R | StoreFailure:
        """Run `work` in a worker thread, which ends `flight` when it is done.

        Checkpoints: At least one.

        Cancellation: The caller leaves at once. Work that has not begun does not begin.
        """
        job = _Job(self._table.flights, flight, work, loop)
        try:
            self._durable.workers.submit(job)
        except RuntimeError as error:
            failure = _unusable(error)
            if not self._durable.goes_on(failure):
                return StoreFailure(failure, None)
            job()  # it waits for nothing: the store is left alone now
        return await job.wait()


class _Job(Generic[R]):
    """One use of a store on behalf of a flight, in a worker thread."""

    def __init__(self, flights: Flights, flight: Flight, work: Callable[[], R], loop: Any) -> None:
        self._flights = flights
        self._flight = flight
        self._work = work
        self._loop = loop
        self._taken_over = False
        self._ticket = [None]
        self._ended = anyio.Event()
        self._outcome: R | StoreFailure

    def take_over(self) -> None:
        """Do it even if nobody waits for it any more."""
        self._taken_over = True
        self._flights.hand_over(self._flight)

    def withdraw(self) -> bool:
        """Take it from the others who may do it: whoever is told True does, and nobody else."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def __call__(self) -> None:
        if not self.withdraw():
            return
        if not self._taken_over and not self._flights.hand_over(self._flight):
            return
        try:
            self._outcome = _outcome(self._work)
        finally:
            self._flights.take_back(self._flight)
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                post(self._loop, self._ended.set)
            del self  # as `Plan.forget`

    async def wait(self) -> R | StoreFailure:
        """What came of it; of a failure nothing is raised, lest this frame be in its traceback."""
        await self._ended.wait()
        return self._outcome


def _outcome(work: Callable[[], R]) -> R | StoreFailure:
    try:
        return work()
    except BaseException as error:
        return StoreFailure(error, error.__traceback__)
    finally:
        del work  # as `Plan.forget`


def _unusable(error: BaseException) -> StoreError:
    why = "no thread can be started" if isinstance(error, RuntimeError) else "it was interrupted"
    failure = StoreError(f"the store could not be used, since {why}: {describe(error)}")
    failure.__cause__ = error.with_traceback(None)  # which would have the frame that has this
    return failure


def pause(polls: int) -> float:
    """Seconds until another process is asked again, after `polls` times in vain.

    They grow, so that long calls cost little, and are random, so that processes do not ask all at
    once.
    """
    return random.uniform(0.5, 1.5) * min(0.5, 0.01 * 1.5 ** min(polls, 10))
