"""All that a map() under way knows of its cache: what is known or in flight, and what it may have.

This is a cache without a store. One with a store does the same, and gives what is to be awaited:
here that is nothing, and to await nothing costs as much as the work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Hashable

from .flights import Flight
from .outcome import Outcome
from .plan import Plan
from .table import Table


class Claims:
    """The claims of one ``map()`` in a `Table`."""

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

    def claim(self, plan: Plan, flight: Flight, size: int) -> Awaitable[None] | None:
        """Claim at most `size` keys for a call; perhaps there is nothing to compute for it.

        A failure may be left in ``plan.failure``.
        """
        self.table.claim(plan, flight, size)
        return None

    def settle(self, flight: Flight, outcome: Outcome) -> Awaitable[Outcome] | None:
        """Keep what came of a call, and release its keys; what came of it in the end, if other."""
        self.table.settle(flight, outcome)
        return None
