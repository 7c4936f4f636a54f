"""All that a map() under way knows of its cache: what is known or in flight, and what it may have.

This is a cache without a store. One with a store does the same, and awaits it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

from .flights import Flight
from .outcome import Outcome
from .plan import Plan
from .table import Table


class Claims:
    """The claims of one ``map()`` in a `Table`. None of it awaits."""

    __slots__ = ("table", "unread")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.unread = False  # whether there is more to look at than the table

    async def look(self, plan: Plan) -> None:
        """Tell `plan` what else is known, as long as anything is `unread`.

        A failure may be left in ``plan.failure``.
        """

    def read_on(self) -> None:
        """There is more to `look` at."""

    def forget(self, keys: Collection[Hashable]) -> None:
        """Nothing more will be asked of `keys`."""

    async def claim(self, plan: Plan, flight: Flight, size: int) -> bool:
        """Begin a call of at most `size` keys; False if there is nothing to compute for it."""
        self.table.claim(plan, flight, size)
        return self.table.begin(plan, flight)

    async def settle(self, flight: Flight, outcome: Outcome) -> Outcome:
        """Keep what came of a call, and release its keys; what came of it in the end."""
        self.table.settle(flight, outcome)
        return outcome
