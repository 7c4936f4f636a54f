"""Slots: at most so many calls at a time per event loop, and nested calls inside their parent's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter

if TYPE_CHECKING:
    from ._flights import Flight


class Slots:
    """One anyio `CapacityLimiter` per event loop that a proxy is used in.

    Not in anyio ``RunVar``s: those would live as long as the loop, also after the proxy.
    """

    __slots__ = ("_limiters", "_total")

    def __init__(self, total: int) -> None:
        self._total = total
        self._limiters: WeakKeyDictionary[object, CapacityLimiter] = WeakKeyDictionary()

    def limiter(self, loop: object) -> CapacityLimiter:
        """The limiter of `loop`, which is the running one."""
        try:
            return self._limiters[loop]
        except KeyError:
            limiter = self._limiters[loop] = CapacityLimiter(self._total)
            return limiter

    def slot(self, loop: object, ancestors: Iterable[Flight]) -> Slot:
        """A slot to acquire: that of the nearest of `ancestors` with one, else of the limiter."""
        limiter = self.limiter(loop)
        for flight in ancestors:
            if flight.slot is not None and flight.slot.limiter is limiter and flight.slot.held:
                return Slot(limiter, flight.slot)
        return Slot(limiter, None)


class Slot:
    """The right to run one call: of a limiter, or borrowed from the call that this is nested in.

    A slot is kept as long as it has holders: the call itself, the worker thread that runs it (which
    a cancelled ``map()`` leaves behind), and calls that borrow it. All in the thread of its loop.
    """

    __slots__ = ("_holders", "_lender", "_source", "limiter", "parent")

    def __init__(self, limiter: CapacityLimiter, parent: Slot | None) -> None:
        self.limiter = limiter
        self.parent = parent
        self._source = limiter if parent is None else parent._lending()
        self._lender: CapacityLimiter | None = None
        self._holders: set[object] = {self}

    def _lending(self) -> CapacityLimiter:
        # Nested calls take turns in the one slot.
        if self._lender is None:
            self._lender = CapacityLimiter(1)
        return self._lender

    @property
    def held(self) -> bool:
        """Whether anybody still runs in this slot."""
        return bool(self._holders)

    def acquire_nowait(self) -> None:
        """Take a free slot.

        Raises:
            anyio.WouldBlock: there is none, or others wait for one.
        """
        self._source.acquire_on_behalf_of_nowait(self)
        if self.parent is not None:
            self.parent.hold(self)

    async def acquire(self) -> None:
        """Wait for a slot, first come, first served. A checkpoint."""
        if self.parent is not None:
            self.parent.hold(self)  # already now: a parent that ends must not give it away
        await self._source.acquire_on_behalf_of(self)

    def hold(self, holder: object) -> None:
        """Keep the slot until `holder` too has released it."""
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        """Give the slot back if `holder` was the last to hold it; twice is fine."""
        self._holders.discard(holder)
        if not self._holders:
            try:
                self._source.release_on_behalf_of(self)
            except RuntimeError:
                pass  # it was never got, or is back already, or its event loop is closed
            if self.parent is not None:
                self.parent.release(self)
