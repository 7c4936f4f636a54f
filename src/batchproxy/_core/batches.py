"""The next batch of a map(): keys that nobody knows or computes. Inside the lock of the table."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .flights import Flights
from .plan import Plan
from .values import Values
from .weights import Weights


def next_batch(
    values: Values, flights: Flights, plan: Plan, size: int, flight_keys: list[Hashable], least: int
) -> list[Hashable]:
    """Draw the next keys of `plan` that are missing: `size` of them, or all that are left.

    Where keys have weights, as many as fit in one batch with `flight_keys`; but so many at `least`.
    """
    if plan.weights is None:
        batch = _still_missing(plan.draw(size), values, flights, plan)
    else:
        batch = _fitting(values, flights, plan, plan.weights, size, flight_keys)
        size = least
    while plan.left and len(batch) < size:
        batch += _still_missing(plan.draw(size - len(batch)), values, flights, plan)
    return batch


def _fitting(
    values: Values,
    flights: Flights,
    plan: Plan,
    weights: Weights,
    size: int,
    beside: list[Hashable],
) -> list[Hashable]:
    batch: list[Hashable] = []
    weight = sum(weights.of_each(beside))
    while plan.left and len(batch) < size:
        count, with_them = plan.fitting(size - len(batch), weight)
        if not count and (batch or beside):
            key = [plan.next_key()]  # if others have it, it takes no room
            if _still_missing(key, values, flights, plan):
                break
            plan.draw(1)
            continue
        drawn = plan.draw(max(count, 1))  # what is too heavy goes alone
        found = _still_missing(drawn, values, flights, plan)
        batch += found
        weight = with_them if count and found is drawn else weight + sum(weights.of_each(found))
    return batch


def _still_missing(
    keys: list[Hashable], values: Values, flights: Flights, plan: Plan
) -> list[Hashable]:
    """Those of `keys` that are `missing`, as all were when `plan` looked at them first."""
    if plan.seen == flights.news and values.private:
        return keys
    return missing(keys, values.known(keys), flights, plan)


def missing(
    keys: list[Hashable], known: dict[Hashable, Any], flights: Flights, plan: Plan
) -> list[Hashable]:
    """Those of `keys` that are neither `known` nor computed; `plan` is told of the others."""
    if not known and not flights.by_key:
        return keys
    flying = flights.meet(keys)
    if not known and not flying:
        return keys
    plan.learn(known, flying)
    return [key for key in keys if key not in known and key not in flying]
