"""Values known and calls under way, changed together under one lock: what is behind a `Cache`."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Any

from ._alive import Alive
from ._flights import Flight, Flights
from ._plan import Plan
from ._values import Unbounded, Values


class Table:
    """What a ``map()`` asks: is this key known, is it in flight, or may I have it?"""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.flights = Flights()
        _alive.add(self)

    def __len__(self) -> int:
        with self.flights.lock:
            return len(self._values)

    def __contains__(self, key: object) -> bool:
        with self.flights.lock:
            return key in self._values

    def lookup(self, keys: list[Hashable]) -> list[Any] | None:
        """The values of all `keys`, or None if one is missing."""
        if type(self._values) is Unbounded:  # a dict can be read while others write
            return self._values.every(keys)
        with self.flights.lock:
            answers = self._values.every(keys)
            if answers is not None:
                self._values.use(keys)
            return answers

    def open(self, plan: Plan) -> None:
        """Tell `plan` what is known and what is in flight; what is left is to be computed."""
        with self.flights.lock:
            known = self._values.known(plan.distinct)
            if known:
                self._values.use(list(known))
            missing = self._missing(plan, plan.distinct, known)
            if missing is not plan.distinct:
                plan.start(missing)

    def look(self, plan: Plan, size: int) -> bool:
        """Whether `plan` still has anything to compute, as seen now. Claims nothing."""
        with self.flights.lock:
            batch = self._next_batch(plan, size)
            plan.draw_back(batch)
            return bool(batch)

    def claim(self, plan: Plan, size: int, flight: Flight) -> bool:
        """Claim the next batch of `plan` for `flight`; False if nothing is left. *Locked.*

        In the same step the cache is checked again, and who else computes what.
        """
        batch = self._next_batch(plan, size)
        if not batch:
            return False
        flight.unkept = plan.unkept
        self.flights.claim(flight, batch)
        return True

    def _next_batch(self, plan: Plan, size: int) -> list[Hashable]:
        drawn = plan.draw(size)
        batch = self._missing(plan, drawn, self._values.known(drawn))
        while plan.left and len(batch) < size:
            drawn = plan.draw(size - len(batch))
            batch += self._missing(plan, drawn, self._values.known(drawn))
        return batch

    def _missing(
        self, plan: Plan, keys: list[Hashable], known: dict[Hashable, Any]
    ) -> list[Hashable]:
        """Those of `keys` that nobody knows or computes; `plan` is told of the others."""
        flying = self.flights.meet(keys)
        if not known and not flying:
            return keys
        plan.learn(known, flying)
        return [key for key in keys if key not in known and key not in flying]

    def settle(self, flight: Flight) -> None:
        """Keep the results of `flight`, but for keys forgotten since, and release it. *Locked.*"""
        self.keep(flight)
        self.flights.release(flight)

    def keep(self, flight: Flight) -> None:
        """The first half of `settle`. *Locked.*"""
        keys, results = flight.keys, flight.results
        if flight.failures or flight.unkept or not flight.intact:
            values, unkept = flight.values(), flight.unkept
            current = self.flights.current(flight)
            keys = [key for key in current if key in values and key not in unkept]
            results = [values[key] for key in keys]
        self._values.store(keys, results)

    def found(self, flight: Flight, values: dict[Hashable, Any], *, keep: bool) -> None:
        """Answer those who wait for `flight` with `values`, which a store had. *Locked.*"""
        flight.answer(values)
        if keep:
            keys = [key for key in self.flights.current(flight) if key in values]
            self._values.store(keys, [values[key] for key in keys])

    def prime(self, answers: dict[Hashable, Any]) -> None:
        """Keep `answers`, which are newer than those of any call under way."""
        with self.flights.lock:
            self.flights.forget(answers)
            self._values.store(answers.keys(), answers.values())

    def invalidate(self, keys: Iterable[Hashable]) -> None:
        """Forget `keys`, also what calls under way are about to answer for them."""
        with self.flights.lock:
            self.flights.forget(keys)
            self._values.drop(keys)

    def clear(self) -> None:
        """`invalidate` everything."""
        with self.flights.lock:
            self.flights.forget_all()
            self._values.clear()


_alive = Alive[Table]()


def _reset_after_fork() -> None:
    for table in _alive.all():
        table.flights.reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_reset_after_fork)
