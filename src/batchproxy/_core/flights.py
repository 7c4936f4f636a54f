"""Calls under way, by the keys that they compute. Plain methods; nothing here awaits or locks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Protocol

from .._loops import is_closed
from .._slots import Slot
from .counters import Counters
from .keys import form_of, is_unequal, unequal
from .outcome import MISSING, Failure, Outcome

NOTHING: Mapping[Hashable, Any] = {}


class Claim(Protocol):
    """What a call has claimed outside of this process."""

    def release(self) -> None:
        """Give back what is still claimed. Does not wait; twice is fine."""


class Flight:
    """One call of a ``map_func`` under way. It keeps the outcome for those who wait for it.

    It may end in parts: some of its keys leave it, with an answer or without, before it is done. So
    it is one flight for all calls that come of a batch which was refused: `keys` are those of the
    call under way, and the `rest` waits for its turn.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "after",
        "counters",
        "done",
        "failures",
        "gone",
        "handed_over",
        "home",
        "intact",
        "keys",
        "outcome",
        "outside",
        "place",
        "released",
        "rest",
        "slot",
        "unkept",
        "waiters",
    )

    def __init__(
        self, home: object, counters: Counters[Flight] | None = None, after: object = None
    ) -> None:
        self.keys: list[Hashable] = []
        self.rest: Sequence[Hashable] = ()  # keys of the same batch, whose call is still to come
        self.outcome: Outcome | None = None  # without one, its keys are to be computed anew
        self.done = False
        # Keys that have left it before, with their result or `MISSING`; and the failures of some of
        # the latter. Replaced, never changed.
        self.gone: Mapping[Hashable, Any] = NOTHING
        self.failures: Mapping[Hashable, Failure] = NOTHING
        self._answers: tuple[Mapping[Hashable, Any], Mapping[Hashable, Failure]] | None = None
        self.unkept: Collection[Hashable] = ()  # keys of which nothing is kept
        self.intact = False  # whether the table has all its keys: then none need be looked for
        # What wakes each map() asleep until something becomes of this flight.
        self.waiters: set[Callable[[], None]] = set()
        self.home = home  # the event loop without which this call cannot go on, if any
        self.after = after  # what may have the thread in which it is made, if that is the caller's
        self.slot: Slot | None = None  # what it holds of a limiter, for nested calls to borrow
        # Of the proxy whose function it calls, if it calls one, until it is counted as settled.
        self.counters = counters
        self.place: int  # where its results go in the plan that it belongs to
        self.outside: Claim | None = None  # what is claimed for it where others can see that
        # Whether another thread is at it, and is to end it if its map() has released it meanwhile.
        self.handed_over = self.released = False

    def __repr__(self) -> str:
        state = "done" if self.done else "under way"
        keys = len(self.keys) + len(self.rest)
        return f"<Flight {state}: {keys} keys, {len(self.waiters)} waiting>"

    @property
    def in_progress(self) -> bool:
        """Whether its function may still run: in the thread of a call given up it does."""
        return not self.done or (self.slot is not None and self.slot.in_use)

    def answers(self) -> tuple[Mapping[Hashable, Any], Mapping[Hashable, Failure]]:
        """All its results and failures by key, now that it is done, for those who get some."""
        if self._answers is None:
            self._answers = self._by_key()
        return self._answers

    def _by_key(self) -> tuple[Mapping[Hashable, Any], Mapping[Hashable, Failure]]:
        outcome = self.outcome
        if outcome is None:
            return self.gone, self.failures
        if isinstance(outcome, Failure):
            return self.gone, {**self.failures, **dict.fromkeys(self.keys, outcome)}
        results = dict(zip(self.keys, outcome.results))
        for key in outcome.failures:
            results.pop(key, None)
        results.update(self.gone)
        return results, {**self.failures, **outcome.failures}

    def wake(self) -> None:
        """Let all who wait for it look again what has become of it.

        All, and not one: of those who find keys given up the first to come claims them.
        """
        if self.waiters:
            for wake in self.waiters.copy():  # one step; others leave without the lock
                wake()

    def finish(self) -> None:
        """What is to be done of a call that is done; twice is fine."""
        if (outside := self.outside) is not None:
            outside.release()
            self.outside = None  # not before: an interrupt in between must lose nothing
        if self.waiters:  # nobody joins a flight that is done, so this is everybody
            self.wake()
            self.waiters.clear()


class Interested(Protocol):
    """Who is to get keys that others compute."""

    elsewhere: set[Elsewhere]


class Elsewhere(Flight):
    """Keys that another cache is computing, of this process or of another one."""

    __slots__ = ("_seek", "interested")

    def __init__(self, seek: Callable[[Collection[Hashable]], Collection[Flight]]) -> None:
        super().__init__(None)
        self._seek = seek
        self.interested: set[object] = set()  # each map() that is to get any of these keys

    def behind(self, keys: Collection[Hashable]) -> Mapping[Flight, Collection[Hashable]]:
        """The calls of other caches of this process that compute any of `keys`."""
        return dict.fromkeys(self._seek(keys), keys)


class Flights:
    """The calls under way of one cache, which locks around each of these methods."""

    __slots__ = ("by_key", "news")

    def __init__(self) -> None:
        self.by_key: dict[Hashable, Flight] = {}
        # How often keys have come here, or become known otherwise: before a key is known that was
        # not, and not in flight either, this is another number.
        self.news = 0

    def __len__(self) -> int:
        return len(self.by_key)

    def meet(self, keys: Collection[Hashable]) -> dict[Hashable, Flight]:
        """Which of `keys` are in flight, and in which flight."""
        table = self.by_key
        if table.keys().isdisjoint(keys):
            return {}
        met = {key: table[key] for key in keys if key in table}
        # asyncio lets a loop be closed with tasks in it, which then neither end nor are collected
        # (anyio keeps them). Nobody will release their keys but who meets them.
        for flight in set(met.values()):
            if flight.home is not None and is_closed(flight.home) and not flight.handed_over:
                self.release(flight)
                flight.finish()
        return {key: flight for key, flight in met.items() if not flight.done}

    def claim(self, flight: Flight, keys: list[Hashable]) -> None:
        """Put `keys`, of which none is in flight, into `flight`."""
        intact = True
        # Before the table, so that release() finds them whatever happens.
        if flight.keys:
            intact, flight.intact = flight.intact, False  # while it is not
            flight.keys = [*flight.keys, *keys]
        else:
            flight.keys = keys
        if flight.gone:  # some may come back
            back = set(keys)
            flight.gone = {key: left for key, left in flight.gone.items() if key not in back}
        self.news += 1  # first, as above
        table = self.by_key
        for key in keys:
            table[key] = flight
        flight.intact = intact

    def current(self, flight: Flight) -> Collection[Hashable]:
        """The keys of `flight` that nobody has invalidated or primed since its claim."""
        if flight.intact:
            return flight.keys
        table = self.by_key
        return [key for key in flight.keys if table.get(key) is flight]

    def part(self, flight: Flight, stay: list[Hashable], found: Mapping[Hashable, Any]) -> None:
        """Let all keys but those that `stay` leave `flight`, some of them with a result.

        Those in `found` are answered.
        """
        intact, flight.intact, leaving = flight.intact, False, flight.keys
        if staying := set(stay):
            leaving = [key for key in leaving if key not in staying]
        lost = dict.fromkeys([key for key in leaving if key not in found], MISSING)
        flight.gone = {**flight.gone, **found, **lost}
        table = self.by_key
        for key in leaving:
            if intact or table.get(key) is flight:
                del table[key]
        flight.keys, flight.intact = stay, intact

    def refuse(self, flight: Flight) -> None:
        """Let all keys of `flight` wait for calls that have fewer."""
        flight.intact = False
        flight.rest = [*flight.keys, *flight.rest]  # first: `release` is to find them
        flight.keys = []

    def last_first(self, flight: Flight) -> None:
        """Let the last key that waits in `flight` be the next."""
        flight.rest = [*flight.rest[-1:], *flight.rest[:-1]]

    def proceed(self, flight: Flight, place: int, count: int) -> None:
        """Let `flight` go on with the next `count` of the keys that wait in it."""
        flight.outcome = None
        flight.place = place
        flight.keys = [*flight.rest[:count]]
        flight.rest = flight.rest[count:]

    def settle_part(self, flight: Flight, outcome: Outcome) -> None:
        """Let the keys of `flight` leave it with what came of them, while others wait in it."""
        for key in self.current(flight):
            del self.by_key[key]
        gone = dict[Hashable, Any].fromkeys(flight.keys, MISSING)
        if isinstance(outcome, Failure):
            failures: Mapping[Hashable, Failure] = dict.fromkeys(flight.keys, outcome)
        else:
            failures = outcome.failures
            gone.update(zip(flight.keys, outcome.results))
            gone.update(dict.fromkeys(failures, MISSING))
        flight.failures = {**flight.failures, **failures}  # first: it is read after the others
        flight.gone = {**flight.gone, **gone}

    def forget(self, keys: Collection[Hashable]) -> None:
        """Let the calls under way for `keys` answer their waiters, but nobody else."""
        if strange := unequal(keys):  # of which others in flight may be as good
            forms = {*map(form_of, strange)}
            others = [key for key in self.by_key if is_unequal(key) and form_of(key) in forms]
            keys = [*keys, *others]
        for key in keys:
            if (flight := self.by_key.get(key)) is not None:
                flight.intact = False
                del self.by_key[key]

    def forget_all(self) -> None:
        """`forget` for every key."""
        self.forget(list(self.by_key))

    def release(self, flight: Flight) -> None:
        """Release the keys of `flight`, which is done then; `Flight.finish` is still to come."""
        # By identity: after an invalidation the entry may be that of a newer call.
        table = self.by_key
        if flight.intact:
            current: Collection[Hashable] = flight.keys
        else:
            keys = dict.fromkeys([*flight.keys, *flight.rest])
            current = [key for key in keys if table.get(key) is flight]
        flight.intact = False
        if len(current) == len(table):
            table.clear()
        else:
            for key in current:
                del table[key]
        flight.done = True
        if flight.counters is not None:
            flight.counters.give_up(flight)

    def keys(self) -> list[Hashable]:
        """The keys in flight."""
        return list(self.by_key)

    def seen(self, keys: Collection[Hashable]) -> set[Flight]:
        """In which flights `keys` are, as seen without a lock."""
        table = self.by_key
        return {flight for key in keys if (flight := table.get(key)) is not None}

    def under_way(self) -> set[Flight]:
        """The flights that have a key here."""
        return set(self.by_key.values())
