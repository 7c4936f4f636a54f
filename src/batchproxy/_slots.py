"""Slots: at most so many calls at a time per event loop, and nested calls inside their parent's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary, ref

from anyio import CapacityLimiter

from ._forks import Alive
from ._messages import short


class Limit:
    """At most so many calls at a time, over all proxies that are given it as their ``limit=``.

    They share its slots in each event loop, first come, first served; two event loops have as many
    each, as with ``max_concurrency``. All synchronous proxies of one ``backend`` run in one event
    loop, which is none of your own: so they share slots with each other, and not with asynchronous
    ones. A call that is made inside another one, of whichever of these proxies, uses the slot of
    that.

    Args:
        total: How many calls at a time, 1 or more.

    Raises:
        TypeError: `total` is no integer.
        ValueError: `total` is less than 1.

    Threads: Proxies that share it may be used from any event loops and threads.
    """

    # One anyio `CapacityLimiter` per event loop. Not in anyio ``RunVar``s: those would live as long
    # as the loop, also after the proxy.
    __slots__ = ("__weakref__", "_latest", "_limiters", "_total")

    def __init__(self, total: int) -> None:
        check_positive("total", total)
        self._total = total
        self._limiters: WeakKeyDictionary[object, CapacityLimiter] = WeakKeyDictionary()
        # The loop that was asked for last, as most are, with its limiter.
        self._latest: tuple[ref[Any], CapacityLimiter] | None = None
        _alive.add(self)

    @property
    def total(self) -> int:
        """How many calls at a time there may be in one event loop."""
        return self._total

    def __repr__(self) -> str:
        return f"Limit({self._total})"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled or copied: the proxies that were given it share it in "
            "this process, and nothing could say which those are in another. Give a proxy that is "
            "to travel max_concurrency= instead: those that arrive with one cache and the same "
            "number share slots"
        )

    def _slot(self, loop: object, around: Iterable[Slot]) -> Slot:
        """A slot of `loop`, the running one, to be acquired.

        Borrowed from the first of `around` that is of the same limiter: those are of the calls that
        the one which needs it is nested in, the innermost first.
        """
        latest = self._latest
        if latest is None or latest[0]() is not loop:
            if (limiter := self._limiters.get(loop)) is None:
                limiter = self._limiters.setdefault(loop, CapacityLimiter(self._total))
            latest = self._latest = ref(loop), limiter
        limiter = latest[1]
        for slot in around:
            if slot.limiter is limiter and slot.in_use:
                return Slot(limiter, slot)
        return Slot(limiter, None)

    def _reset_after_fork(self) -> None:
        """In the child: none of the calls that had slots is here."""
        self._limiters = WeakKeyDictionary()
        self._latest = None


def check_positive(name: str, value: object) -> None:
    """Refuse what cannot be a number of calls, or of items, at a time.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer of 1 or more, got {short(value)}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, got {short(value)}")


class Slot:
    """The right to run one call: of a limiter, or borrowed from the call that this is nested in.

    A slot is kept as long as it has holders: the call itself, the worker thread that runs it (which
    a cancelled ``map()`` leaves behind), and calls that borrow it. All in the thread of its loop.

    A borrower that is left alone in it, the call having ended, takes its place. So tasks that are
    left behind and leave others behind, generation after generation, hold one slot and not a chain.
    """

    __slots__ = ("_borrowers", "_lender", "_source", "_token", "_users", "limiter", "parent")

    def __init__(self, limiter: CapacityLimiter, parent: Slot | None) -> None:
        self.limiter = limiter
        self.parent = parent
        self._source = limiter if parent is None else parent._lending()
        self._token = object()  # what it is known by where it comes from
        self._lender: CapacityLimiter | None = None
        # Who holds it: what runs in it, and, by their tokens, the calls that borrow it.
        self._users: set[object] = {self}
        self._borrowers: dict[object, Slot] = {}

    def _lending(self) -> CapacityLimiter:
        # Nested calls take turns in the one slot.
        if self._lender is None:
            self._lender = CapacityLimiter(1)
        return self._lender

    @property
    def in_use(self) -> bool:
        """Whether the call that it was for still runs, or its thread; borrowers do not count."""
        return bool(self._users)

    def acquire_nowait(self) -> None:
        """Take a free slot.

        Raises:
            anyio.WouldBlock: there is none, or others wait for one.
        """
        self._source.acquire_on_behalf_of_nowait(self._token)
        if self.parent is not None:
            self.parent._borrowers[self._token] = self

    async def acquire(self) -> None:
        """Wait for a slot, first come, first served. A checkpoint."""
        if self.parent is not None:  # already now: a parent that ends must not give it away
            self.parent._borrowers[self._token] = self
        await self._source.acquire_on_behalf_of(self._token)

    def hold(self, holder: object) -> None:
        """Keep the slot until `holder` too has released it."""
        self._users.add(holder)

    def release(self, holder: object) -> None:
        """Give the slot back if `holder` was the last to hold it; twice is fine."""
        slot: Slot | None = self
        while slot is not None:
            slot._users.discard(holder)
            slot._borrowers.pop(holder, None)
            if slot._users:
                return
            if slot._borrowers:
                slot._leave_to_borrower()
                return
            try:
                slot._source.release_on_behalf_of(slot._token)
            except RuntimeError:
                pass  # it was never got, or is back already, or its event loop is closed
            holder, slot = slot._token, slot.parent

    def _leave_to_borrower(self) -> None:
        """Let a borrower that is the only holder hold this slot from where it comes itself.

        It has its turn, or gets it without waiting for anybody: no other borrower is left.
        """
        if len(self._borrowers) > 1:
            return
        [borrower] = self._borrowers.values()
        token = self._token
        nobody: dict[object, Slot] = {}
        kept_by: dict[object, Slot] = {} if self.parent is None else self.parent._borrowers
        # They change places, in one statement without a call: an interrupt lands before or after.
        (
            kept_by[token],
            borrower._source,
            self._source,
            borrower._token,
            self._token,
            borrower.parent,
            self.parent,
            self._borrowers,
        ) = (
            borrower,
            self._source,
            borrower._source,
            token,
            borrower._token,
            self.parent,
            None,
            nobody,
        )


_alive = Alive[Limit](Limit._reset_after_fork)
