"""Values known and calls under way, changed together under one lock: what is behind a `Cache`.

All that happens to them happens here, and nobody else takes the lock. It is held for plain work
only, never over an await. It is re-entrant since the collector may, inside any of it, finish a
forgotten coroutine that releases its keys. Everything that ends a call may be done again, so that
an interrupt in the middle of it loses nothing: who has claimed calls `end` until it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from threading import RLock
from typing import Any

from .._forks import Alive
from .batches import missing, next_batch
from .counters import Counters, Statistics
from .flights import Elsewhere, Flight, Flights, Interested
from .outcome import MISSING, Answers, Failure, Outcome
from .plan import Plan
from .values import Unbounded, Values


class Table:
    """What a ``map()`` asks: is this key known, is it in flight, or may I have it?"""

    def __init__(self, values: Values) -> None:
        self._lock = RLock()
        self._values = values
        self._flights = Flights()
        _alive.add(self)

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._values

    def lookup(self, keys: list[Hashable]) -> list[Any] | None:
        """The values of all `keys`, or None if one is missing."""
        if type(self._values) is Unbounded:  # a dict can be read while others write
            return self._values.every(keys)
        with self._lock:
            if (answers := self._values.every(keys)) is not None:
                self._values.use(keys)
            return answers

    def known(self, keys: list[Hashable]) -> dict[Hashable, Any]:
        """The values of those of `keys` that have one."""
        with self._lock:
            if known := self._values.known(keys):
                self._values.use(list(known))
            return known

    # Claimed, ...

    def open(self, plan: Plan) -> None:
        """Tell `plan` what is known and what is in flight; what is left is to be computed."""
        with self._lock:
            if known := self._values.known(plan.distinct):
                self._values.use(list(known))
            left = missing(plan.distinct, known, self._flights, plan)
            plan.seen = self._flights.news
            if left is not plan.distinct:
                plan.start(left)

    def has_work(self, plan: Plan, size: int) -> bool:
        """Whether `plan` still has anything to compute, as seen now. Claims nothing."""
        with self._lock:
            batch = next_batch(self._values, self._flights, plan, size, [], 0)
            plan.draw_back(batch)
            return bool(batch)

    def claim(self, plan: Plan, flight: Flight, size: int, least: int = 0) -> list[Hashable]:
        """Claim the next keys of `plan` for `flight`, at most `size`; none if nothing is left.

        In the same step the cache is checked again, and who else computes what. Where keys have
        weights it is as many as fit; but so many at `least`, whatever they weigh.
        """
        with self._lock:
            batch = next_batch(self._values, self._flights, plan, size, flight.keys, least)
            if batch:
                flight.unkept = plan.unkept
                self._flights.claim(flight, batch)
                plan.seen += 1  # its own are no news
            return batch

    # ... settled, ...

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        """Give `flight` its outcome, keep its results, but for keys forgotten since, release it."""
        with self._lock:
            if flight.done:
                return
            flight.outcome = outcome
            counters, flight.counters = flight.counters, None  # it is counted here, and once
            if counters is not None:
                counters.settle(flight, outcome)
            if isinstance(outcome, Answers):
                keys, results = flight.keys, outcome.results
                if outcome.failures or flight.unkept or not flight.intact:
                    values, unkept = dict(zip(keys, results)), {*outcome.failures, *flight.unkept}
                    keys = [key for key in self._flights.current(flight) if key not in unkept]
                    results = [values[key] for key in keys]
                self._values.store(keys, results)
            if not flight.rest:
                self._flights.release(flight)
                return
            self._flights.settle_part(flight, outcome)
        flight.wake()

    def refuse(self, flight: Flight, refused: Failure) -> None:
        """The call of `flight` was `refused`: its keys wait there for calls that have fewer."""
        with self._lock:
            counters, flight.counters = flight.counters, None
            assert counters is not None  # it was a call
            counters.settle(flight, refused)
            self._flights.refuse(flight)

    def last_first(self, flight: Flight) -> None:
        """Let the last key that waits in `flight` be the next."""
        with self._lock:
            self._flights.last_first(flight)

    def proceed(
        self, flight: Flight, place: int, count: int, counters: Counters[Flight] | None
    ) -> None:
        """Begin a call of the next `count` keys of `flight`, for `place`; without counters none."""
        with self._lock:
            self._flights.proceed(flight, place, count)
            flight.counters = counters
            if counters is not None:
                counters.running.add(flight)

    def part(
        self,
        flight: Flight,
        stay: list[Hashable],
        found: Mapping[Hashable, Any],
        *,
        keep: bool,
        onward: Elsewhere | None = None,
        held: Collection[Hashable] = (),
    ) -> None:
        """Let all keys but those that `stay` leave `flight`: some are `found`, some `held` onward.

        Those `found` are answered, and kept if they are to be. Those `held` are in flight all the
        time, then in `onward`. The others are free.
        """
        with self._lock:
            if flight.done:
                return
            current = self._flights.current(flight)
            if keep and found:
                kept = found if flight.intact else {k: found[k] for k in current if k in found}
                self._values.store(kept.keys(), kept.values())
            self._flights.part(flight, stay, found)
            if onward is not None and not onward.done:  # else whoever wanted them has left
                here = set(current)
                self._flights.claim(onward, [key for key in held if key in here])
                onward.gone = dict.fromkeys({*held}.difference(onward.keys), MISSING)
        flight.wake()

    def current(self, flight: Flight) -> Collection[Hashable]:
        """The keys of `flight` that nobody has invalidated or primed since its claim."""
        with self._lock:
            return self._flights.current(flight)

    # ... released.

    def end(self, flight: Flight) -> None:
        """Release the keys of `flight`, here and elsewhere, and wake all who wait for it.

        Twice is fine. Without an outcome, given before, its keys were given up. If it was handed
        over it is left alone: whoever has it will end it.
        """
        if not flight.done:
            with self._lock:
                if flight.handed_over:
                    flight.released = True
                    return
                self._flights.release(flight)
        if flight.outside is not None or flight.waiters:
            flight.finish()

    def hand_over(self, flight: Flight) -> bool:
        """Let nobody but who calls this end `flight`; False if it has ended already."""
        with self._lock:
            flight.handed_over = not flight.done
            return flight.handed_over

    def take_back(self, flight: Flight) -> None:
        """Undo `hand_over`, and end the flight if its ``map()`` has left it meanwhile."""
        with self._lock:
            flight.handed_over = False
        if flight.released or flight.done:
            self.end(flight)

    # Those who wait.

    def join(
        self, awaited: Mapping[Flight, Collection[Hashable]], wake: Callable[[], None]
    ) -> bool:
        """Have `wake` called when anything becomes of those flights; False if it has already."""
        with self._lock:
            for flight, keys in awaited.items():
                if flight.done or (flight.gone and not flight.gone.keys().isdisjoint(keys)):
                    return False
                flight.waiters.add(wake)
        return True

    def leave(self, flights: Iterable[Flight], wake: Callable[[], None]) -> None:
        """Undo `join`; twice is fine."""
        for flight in flights:
            flight.waiters.discard(wake)

    def lose_interest(self, who: Interested) -> None:
        """`who` is over: what others compute, and nobody else waits for, is not in flight here."""
        for flight in who.elsewhere.copy():  # to which a worker thread may add
            with self._lock:
                flight.interested.discard(who)
                wanted = bool(flight.interested)
            if not wanted:
                self.end(flight)
            who.elsewhere.discard(flight)

    # What users of the cache do, and see.

    def prime(self, answers: dict[Hashable, Any]) -> None:
        """Keep `answers`, which are newer than those of any call under way."""
        with self._lock:
            self._flights.news += 1
            self._flights.forget(answers)
            self._values.store(answers.keys(), answers.values())

    def invalidate(self, keys: Collection[Hashable]) -> None:
        """Forget `keys`, also what calls under way are about to answer for them."""
        with self._lock:
            self._flights.forget(keys)
            self._values.drop(keys)

    def clear(self) -> None:
        """`invalidate` everything."""
        with self._lock:
            self._flights.forget_all()
            self._values.clear()

    def in_flight(self) -> list[Hashable]:
        """The keys in flight."""
        with self._lock:
            return self._flights.keys()

    def under_way(self) -> set[Flight]:
        """The flights that have a key here."""
        with self._lock:
            return self._flights.under_way()

    def waiting(self) -> int:
        """How many ``map()`` calls are asleep until something becomes of a call in the table."""
        with self._lock:
            return len(set().union(*[flight.waiters for flight in self._flights.under_way()]))

    def statistics(self, counters: Counters[Flight]) -> Statistics:
        """What `counters` have, and what is true of this table at the same moment."""
        with self._lock:
            return counters.statistics(len(self._flights), self.waiting(), len(self._values))

    def add_up(self, counters: Counters[Flight]) -> None:
        """Have `counters` add up what has returned."""
        with self._lock:
            counters.add_up()

    def who_computes(self, keys: Collection[Hashable]) -> set[Flight]:
        """The calls that compute `keys`, as seen now. Without the lock: from anywhere."""
        return self._flights.seen(keys)

    def reset_after_fork(self) -> None:
        """In the child: nothing is under way here; whoever held the lock is gone."""
        self._lock = RLock()
        for flight in self._flights.under_way():
            flight.done = True
        self._flights.by_key = {}


_alive = Alive[Table](Table.reset_after_fork)
