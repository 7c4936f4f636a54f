"""The next batch of a map(): keys that nobody knows or computes. Inside the lock of the table."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .flights import Flights
from .plan import Plan
from .values import Values


def next_batch(values: Values, flights: Flights, plan: Plan, size: int) -> list[Hashable]:
    """Draw the next keys of `plan` that are missing: `size` of them, or all that are left."""
    drawn = plan.draw(size)
    batch = missing(drawn, values.known(drawn), flights, plan)
    while plan.left and len(batch) < size:
        drawn = plan.draw(size - len(batch))
        batch += missing(drawn, values.known(drawn), flights, plan)
    return batch


def missing(
    keys: list[Hashable], known: dict[Hashable, Any], flights: Flights, plan: Plan
) -> list[Hashable]:
    """Those of `keys` that are neither `known` nor computed; `plan` is told of the others."""
    flying = flights.meet(keys)
    if not known and not flying:
        return keys
    plan.learn(known, flying)
    return [key for key in keys if key not in known and key not in flying]
