"""Calls under way: claimed, settled, given up, waited for. Plain methods; nothing here awaits.

The state is two things: the table of one cache (key → flight), changed under that cache's lock,
and what each flight knows of itself. Everything that ends a flight may be done again, so that an
interrupt in the middle of it loses nothing: who has claimed calls `Flights.end` until it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from threading import RLock
from typing import TYPE_CHECKING, Any

from ._loops import is_closed

if TYPE_CHECKING:
    from ._leases import Hold
    from ._plan import Failure
    from ._slots import Slot


class Flight:
    """One call of a ``map_func`` under way. It keeps the outcome for those who wait for it."""

    __slots__ = (
        "__weakref__",
        "_values",
        "done",
        "failures",
        "handed_over",
        "hold",
        "home",
        "intact",
        "keys",
        "moved",
        "place",
        "results",
        "slot",
        "unkept",
        "waiters",
    )

    def __init__(self, home: object) -> None:
        self.keys: list[Hashable] = []
        # The outcome. A key that it says nothing of was given up: it is to be computed anew.
        self.results: list[Any] = []  # none, or one per key
        self.failures: dict[Hashable, Failure] = {}  # which of them are none
        self._values: dict[Hashable, Any] | None = None
        self.unkept: Collection[Hashable] = ()  # keys of which nothing is kept
        self.done = False
        self.intact = False  # whether the table has all its keys: then none need be looked for
        # What wakes each map() asleep until this flight is done.
        self.waiters: set[Callable[[], None]] = set()
        self.home = home  # the event loop without which this call cannot go on, if any
        self.slot: Slot | None = None  # what it holds of a limiter, for nested calls to borrow
        self.place = 0  # where its results go in the plan that it belongs to
        # Where there is a store: what is claimed there, ...
        self.hold: Hold | None = None
        # ... whether a worker thread is to end this flight, and not the map() that may be gone, ...
        self.handed_over = False
        # ... and which of its keys went on into the flight of a call, if it asked for them only.
        self.moved: tuple[Flight, Collection[Hashable]] | None = None

    def __repr__(self) -> str:
        state = "done" if self.done else "under way"
        return f"<Flight {state}: {len(self.keys)} keys, {len(self.waiters)} waiting>"

    @property
    def in_progress(self) -> bool:
        """Whether its function may still run: in the thread of a call given up it does."""
        return not self.done or (self.slot is not None and self.slot.in_use)

    def values(self) -> dict[Hashable, Any]:
        """The results by key, for those who do not get all of them. Made when first asked for."""
        if self._values is None:
            values = dict(zip(self.keys, self.results))
            for key in self.failures:
                values.pop(key, None)
            self._values = values
        return self._values

    def correct(self, adopted: Mapping[Hashable, Any], refused: Mapping[Hashable, Failure]) -> None:
        """Take `adopted` values instead of results, and `refused` results for failures."""
        self.failures = {**self.failures, **refused}
        errors = {key: failure.error for key, failure in refused.items()}
        corrections = {**adopted, **errors}
        self.results = [
            corrections.get(key, result) for key, result in zip(self.keys, self.results)
        ]
        self._values = None

    def answer(self, values: dict[Hashable, Any]) -> None:
        """Give `values`, those of some of its keys, as its outcome."""
        self._values = values


class Flights:
    """The calls under way of one cache.

    `lock` guards the table and the values of the cache together: methods marked *locked* are called
    with it held. It is held for plain work only, never over an await. It is re-entrant since the
    collector may, inside any of it, finish a forgotten coroutine that releases its keys.
    """

    __slots__ = ("_table", "lock")

    def __init__(self) -> None:
        self.lock = RLock()
        self._table: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._table)

    def meet(self, keys: Collection[Hashable]) -> dict[Hashable, Flight]:
        """Which of `keys` are in flight, and in which flight. *Locked.*"""
        table = self._table
        if not table or table.keys().isdisjoint(keys):
            return {}
        met = {key: table[key] for key in keys if key in table}
        # asyncio lets a loop be closed with tasks in it, which then neither end nor are collected
        # (anyio keeps them). Nobody will release their keys but who meets them.
        for flight in set(met.values()):
            if flight.home is not None and is_closed(flight.home):
                self.end(flight)
        return {key: flight for key, flight in met.items() if not flight.done}

    def claim(self, flight: Flight, keys: list[Hashable]) -> None:
        """Put `keys`, of which none is in flight, into `flight`. *Locked.*"""
        flight.keys = keys  # before the table, so that end() finds them whatever happens
        table = self._table
        for key in keys:
            table[key] = flight
        flight.intact = True

    def current(self, flight: Flight) -> Collection[Hashable]:
        """The keys of `flight` that nobody has invalidated or primed since its claim. *Locked.*"""
        if flight.intact:
            return flight.keys
        table = self._table
        return [key for key in flight.keys if table.get(key) is flight]

    def move(self, source: Flight, target: Flight, keys: Collection[Hashable]) -> None:
        """Put `keys` of `source` into `target`, so that they are in flight all the time. *Locked.*

        Those forgotten since their claim are `target`'s too, but not in the table.
        """
        whole = source.intact and (target.intact or not target.keys)
        target.keys = [*target.keys, *keys]
        source.moved = (target, frozenset(keys))
        table = self._table
        if source.intact:
            table.update(dict.fromkeys(keys, target))
        else:
            for key in keys:
                if table.get(key) is source:
                    table[key] = target
        source.intact = False
        target.intact = whole

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Let the calls under way for `keys` answer their waiters, but nobody else. *Locked.*"""
        for key in keys:
            if (flight := self._table.get(key)) is not None:
                flight.intact = False
                del self._table[key]

    def forget_all(self) -> None:
        """`forget` for every key. *Locked.*"""
        self.forget(list(self._table))

    def release(self, flight: Flight) -> None:
        """Release the keys of `flight`; those who wait for it are left to `end`. *Locked.*"""
        # By identity: after an invalidation the entry may be that of a newer call.
        current, table = self.current(flight), self._table
        flight.intact = False
        if len(current) == len(table):
            table.clear()
        else:
            for key in current:
                del table[key]
        flight.done = True

    def end(self, flight: Flight) -> None:
        """Release the keys of `flight`, here and in a store, and wake all who wait for it.

        Twice is fine.

        Its outcome, if it has one, was put into it before: without one its keys were given up.
        A flight that was handed over is left alone: whoever has it will end it.
        """
        if not flight.done:
            with self.lock:
                if flight.handed_over:
                    return
                self.release(flight)
        if flight.hold is not None:
            flight.hold.release()
        # Nobody joins a flight that is done, so this is everybody. All are woken, not one: each
        # looks again, and of those who find keys given up the first to come claims them.
        if flight.waiters:
            for wake in flight.waiters.copy():  # one step; others leave without the lock
                wake()
            flight.waiters.clear()

    def hand_over(self, flight: Flight) -> bool:
        """Let nobody but who calls this end `flight`; False if it has ended already."""
        with self.lock:
            flight.handed_over = not flight.done
            return flight.handed_over

    def take_back(self, flight: Flight) -> None:
        """Undo `hand_over`, and end the flight."""
        flight.handed_over = False
        self.end(flight)

    def join(self, flights: Iterable[Flight], wake: Callable[[], None]) -> bool:
        """Have `wake` called when one of `flights` is done; False if one already is."""
        with self.lock:
            for flight in flights:
                if flight.done:
                    return False
                flight.waiters.add(wake)
        return True

    def leave(self, flights: Iterable[Flight], wake: Callable[[], None]) -> None:
        """Undo `join`; twice is fine."""
        for flight in flights:
            flight.waiters.discard(wake)

    def waiting(self) -> int:
        """How many ``map()`` calls are asleep until a call in the table ends."""
        with self.lock:
            return len(set().union(*[flight.waiters for flight in set(self._table.values())]))

    def reset_after_fork(self) -> None:
        """In the child: nothing is under way here; whoever held the lock is gone."""
        self.lock = RLock()
        for flight in self._table.values():
            flight.done = True
        self._table = {}
