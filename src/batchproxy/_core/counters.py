"""What a proxy has done so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from .outcome import Failure, Outcome


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of what a proxy has done, and of what is under way in its cache.

    ``calls == completed + failed + cancelled + running`` holds in every snapshot.
    """

    maps: int
    """``map()`` calls that returned a list."""
    items: int
    """Items in those, repetitions included."""
    calls: int
    """Calls of a ``map_func`` begun."""
    completed: int
    """Calls whose answer was accepted (single items in it may have failed)."""
    failed: int
    """Calls that raised, or whose answer could not be used."""
    cancelled: int
    """Calls given up: the caller was cancelled, interrupted, or another call of it failed."""
    running: int
    """Calls of this proxy under way now."""
    computed: int
    """Keys whose result came from the calls of this proxy."""
    shared: int
    """Keys that a ``map()`` got from the call of another one, instead of computing them, also from
    one of another process that was under way."""
    stored: int
    """Keys whose result the store of the cache had."""
    in_flight: int
    """Keys in flight now, counted over everybody who shares the cache."""
    waiting: int
    """``map()`` calls asleep now until somebody else's call ends, over everybody who shares it."""
    cached: int
    """Values in the cache now."""


class _Call(Protocol):
    done: bool


C = TypeVar("C", bound=_Call)


class Counters(Generic[C]):
    """Counts for one proxy. But for `returned` and `left`, its table locks around each method.

    A call is in `_running` until it is released, so that those cancelled need no count of theirs.
    """

    def __init__(self) -> None:
        self._running: set[C] = set()
        self._calls = self._completed = self._failed = self._computed = 0
        # Items, and keys shared and stored, of each map() that returned; added up now and then.
        self._returned: list[tuple[int, int, int]] = []
        self._maps = self._items = self._shared = self._stored = 0

    def begin(self, call: C) -> None:
        """A call of the function begins."""
        self._calls += 1
        self._running.add(call)

    def settle(self, call: C, outcome: Outcome) -> None:
        """It has ended by itself."""
        self._running.discard(call)
        if isinstance(outcome, Failure):
            self._failed += 1
        else:
            self._completed += 1
            self._computed += len(outcome.results) - len(outcome.failures)

    def left(self, call: C) -> None:
        """It is released, whatever became of it."""
        self._running.discard(call)

    def running(self) -> set[C]:
        """The calls under way, and perhaps some that have just ended."""
        return self._running.copy()  # since flights leave without the lock

    def returned(self, items: int, shared: int = 0, stored: int = 0) -> bool:
        """A ``map()`` returns its list. Whether it is time to `add_up`."""
        # Appending is atomic; to take the lock would cost a quarter of what a hit costs.
        self._returned.append((items, shared, stored))
        return len(self._returned) > 1000

    def add_up(self) -> None:
        """Add up what has returned."""
        while self._returned:
            items, shared, stored = self._returned.pop()
            self._maps += 1
            self._items += items
            self._shared += shared
            self._stored += stored

    def statistics(self, in_flight: int, waiting: int, cached: int) -> Statistics:
        """All of it, and what is said of the cache."""
        self.add_up()
        running = sum(not call.done for call in self.running())  # after a fork none is
        return Statistics(
            maps=self._maps,
            items=self._items,
            calls=self._calls,
            completed=self._completed,
            failed=self._failed,
            cancelled=self._calls - running - self._completed - self._failed,
            running=running,
            computed=self._computed,
            shared=self._shared,
            stored=self._stored,
            in_flight=in_flight,
            waiting=waiting,
            cached=cached,
        )
