"""What a proxy has done so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .._forks import Alive
from .outcome import Answers, Outcome


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of what a proxy has done, and of what is under way in its cache.

    ``calls == completed + failed + cancelled + running`` holds in every snapshot.
    """

    maps: int
    """``map()`` calls that returned a list, ``load()`` calls that returned, and streams that came
    to their end."""
    items: int
    """Items in those lists, and taken from streams, repetitions included; one for each
    ``load()``."""
    calls: int
    """Calls of a ``map_func`` begun."""
    completed: int
    """Calls whose answer was accepted (single items in it may have failed)."""
    failed: int
    """Calls that raised (also `SplitBatch`), or whose answer could not be used."""
    cancelled: int
    """Calls given up, since the caller was cancelled, interrupted, or another call of it failed."""
    running: int
    """Calls of this proxy under way now."""
    computed: int
    """Keys whose result came from the calls of this proxy."""
    shared: int
    """Keys that a ``map()``, or a stream, got from the call of another one, instead of computing
    them, also from one of another process that was under way. Of several ``load()`` of one key that
    gathered, all but one share it."""
    stored: int
    """Keys whose result the store of the cache had."""
    in_flight: int
    """Keys in flight now, counted over everybody who shares the cache; with a store also those that
    another process computes and somebody here waits for."""
    waiting: int
    """``map()`` calls asleep now until somebody else's call ends, over everybody who shares it.
    Those in ``load()`` of one bound function and event loop who wait for one call count as one."""
    cached: int
    """Values in the cache now."""


class _Call(Protocol):
    done: bool


C = TypeVar("C", bound=_Call)


class Counters(Generic[C]):
    """Counts for one proxy. Its table changes them, and calls `statistics`, under its lock.

    But a call that begins is added to those `running` without, which costs less, and is counted
    when it is among them no more.
    """

    def __init__(self) -> None:
        self.running: set[C] = set()
        self.completed = self.failed = self.cancelled = self.computed = 0
        # What returned: how many map() calls, items, and keys shared and stored; added up now and
        # then.
        # Appending is atomic; to take the lock would cost a quarter of what a hit costs.
        self.returned: list[tuple[int, int, int, int]] = []
        self._maps = self._items = self._shared = self._stored = 0
        _alive.add(self)

    def settle(self, call: C, outcome: Outcome) -> None:
        """A call has an outcome."""
        self.running.discard(call)
        if isinstance(outcome, Answers):
            self.completed += 1
            self.computed += len(outcome.results) - len(outcome.failures)
        else:
            self.failed += 1

    def give_up(self, call: C) -> None:
        """A call is released; if it was running, it has come to nothing."""
        if call in self.running:
            self.running.discard(call)
            self.cancelled += 1

    def reset_after_fork(self) -> None:
        """In the child: none of the calls that were running does here."""
        self.cancelled += len(self.running)
        self.running.clear()

    def add_up(self) -> None:
        """Add up what has returned."""
        returned = self.returned
        count = len(returned)  # others append meanwhile
        sums = [
            *map(sum, zip((self._maps, self._items, self._shared, self._stored), *returned[:count]))
        ]
        del returned[:count]
        self._maps, self._items, self._shared, self._stored = sums

    def statistics(self, in_flight: int, waiting: int, cached: int) -> Statistics:
        """All of it, and what is said of the cache."""
        self.add_up()
        running = sum(not call.done for call in self.running.copy())
        return Statistics(
            maps=self._maps,
            items=self._items,
            calls=running + self.completed + self.failed + self.cancelled,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            running=running,
            computed=self.computed,
            shared=self._shared,
            stored=self._stored,
            in_flight=in_flight,
            waiting=waiting,
            cached=cached,
        )


_alive = Alive[Counters[Any]](Counters.reset_after_fork)
