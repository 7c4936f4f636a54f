"""The steps of a map() that ask a store: read, claim, publish.

Each runs in a worker thread that the flight is handed over to. So a caller that is cancelled can
leave at once, and what it had begun is still brought to its end: results that were paid for are
written, and those who wait for them wait until they are; claims that nobody needs any more are
given back. Only then are the keys released in this process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from ._durable import Claimed, Durable
from ._errors import StoreError
from ._flights import Flight
from ._plan import Asking, Failure, Plan, StoreFailure
from ._slots import Slots
from ._table import Table

R = TypeVar("R")

WINDOW = 10_000
"""The most keys that a store is asked for at once, if a batch is not larger."""

THREADS = 8
"""The most worker threads of one proxy in each event loop, those left behind not counted."""


class Stored:
    """A cache with a store, as the engine uses it."""

    def __init__(self, table: Table, durable: Durable) -> None:
        self._table = table
        self._durable = durable
        self._threads = Slots(THREADS)
        # A value that was read may expire at any moment: only the store knows when.
        self._keep = durable.ttl is None

    @staticmethod
    def asking() -> Asking:
        """What a new plan needs to know of a store."""
        return Asking(anyio.Lock(fast_acquire=True))

    async def read(self, plan: Plan, flight: Flight, loop: Any) -> list[Hashable]:
        """Tell `plan` what the store has of the keys of `flight`; which it has not are returned."""
        asking = plan.asking
        assert asking is not None

        def work() -> dict[Hashable, Any]:
            values = self._durable.read(flight.keys, asking.names)
            with self._table.flights.lock:
                self._table.found(flight, values, keep=self._keep)
            return values

        values = await self._in_thread(flight, work, loop)
        plan.learn_stored(values)
        return [key for key in flight.keys if key not in values]

    async def claim(self, plan: Plan, flight: Flight, size: int, loop: Any) -> bool:
        """Claim the next batch of `plan` for `flight`, here and in the store.

        Keys that have a value by now, or that another process is computing, do not thin it: then
        more are asked for, and more at once, since there will be others next to those.

        Returns:
            Whether there is anything to compute.
        """
        asking = plan.asking
        assert asking is not None
        flight.hold = self._durable.hold()
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
            claimed = self._durable.claim(asked.keys, names, flight.hold, limit)
            with self._table.flights.lock:
                if not flight.done:
                    self._table.found(asked, claimed.values, keep=self._keep)
                    self._table.flights.move(asked, flight, claimed.mine)
            return claimed
        finally:
            if flight.done and flight.hold is not None:
                flight.hold.release()  # whoever asked has left

    async def publish(
        self, plan: Plan, flight: Flight, loop: Any, keep: Callable[[Flight], None]
    ) -> None:
        """Write the results of `flight`, then `keep` it, and tell those who wait for it.

        Until they are written it has no outcome: if that does not begin, since its caller leaves
        just now, nobody is told of results that are in no store.

        What comes out may differ from what was computed: if another process was first, its results
        are taken; results that cannot be stored become failures; and if the store fails, all do,
        but for the cache of this process, which keeps what was computed.
        """
        assert plan.asking is not None
        outcome = flight.results, flight.failures
        flight.results, flight.failures = [], {}
        work = partial(self._publish, flight, outcome, plan.asking.names, keep)
        await self._in_thread(flight, work, loop)

    def _publish(
        self,
        flight: Flight,
        outcome: tuple[list[Any], dict[Hashable, Failure]],
        names: dict[Hashable, bytes],
        keep: Callable[[Flight], None],
    ) -> None:
        flights = self._table.flights
        computed = dict(zip(flight.keys, outcome[0]))
        try:
            with self._durable.writing():
                with flights.lock:
                    current = flights.current(flight)
                results = computed
                if outcome[1] or len(current) < len(computed):
                    results = {key: computed[key] for key in current if key not in outcome[1]}
                adopted, refused = self._durable.publish(results, names, flight.hold)
        except StoreError as error:
            flight.results, flight.failures = outcome
            with flights.lock:
                self._table.keep(flight)
                failure = StoreFailure(error, error.__traceback__)
                flight.correct({}, dict.fromkeys(flight.keys, failure))
        else:
            flight.results, flight.failures = outcome
            if adopted or refused:
                flight.correct(adopted, refused)
        keep(flight)

    async def _in_thread(self, flight: Flight, work: Callable[[], R], loop: Any) -> R:
        """Run `work` in a worker thread, which ends `flight` when it is done.

        Checkpoints: At least one.

        Cancellation: The caller leaves at once. Work that has not begun does not begin.
        """
        flights = self._table.flights

        def job() -> R:
            if not flights.hand_over(flight):
                raise StoreError("nobody waits for this any more")
            try:
                return work()
            finally:
                flights.take_back(flight)

        return await anyio.to_thread.run_sync(
            job, abandon_on_cancel=True, limiter=self._threads.limiter(loop)
        )


def pause(polls: int) -> float:
    """Seconds until another process is asked again, after `polls` times in vain.

    They grow, so that long calls cost little, and are random, so that processes do not ask all at
    once.
    """
    return random.uniform(0.5, 1.5) * min(0.5, 0.01 * 1.5 ** min(polls, 10))
