"""Keys that others who share a store are computing: one thread a cache asks what became of them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from .._core.flights import Elsewhere
from .._core.outcome import StoreFailure
from .._core.table import Table
from .workers import daemon


class Seen(NamedTuple):
    """What became of keys that others had claimed. Those in neither are free."""

    values: dict[Hashable, Any]
    held: Collection[Hashable]


Look: TypeAlias = Callable[[dict[Hashable, bytes]], Seen]


class Lookout:
    """Settles flights elsewhere, part by part, as long as any ``map()`` is interested in them.

    Args:
        table: Where they are.
        keep: Whether their values are kept in memory.
    """

    def __init__(self, table: Table, *, keep: bool) -> None:
        self._table = table
        self._keep = keep
        self._lock = threading.RLock()
        self._watched: dict[Elsewhere, dict[Hashable, bytes]] = {}
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def watch(self, flight: Elsewhere, names: dict[Hashable, bytes], look: Look) -> None:
        """Ask what became of the keys of `flight`, which have those `names`, from now on.

        Raises:
            RuntimeError: there is no thread for that.
        """
        with self._lock:
            if self._thread is None:
                thread = daemon("batchproxy lookout", self._run, look)
                thread.start()  # waits for nothing that is locked here
                self._thread = thread
            self._watched[flight] = names
        self._wakes.put(None)

    def _run(self, look: Look) -> None:
        polls, due = 0, time.monotonic() + _pause(0)
        while True:
            with suppress(Empty):
                self._wakes.get(timeout=max(0.0, due - time.monotonic()))
                polls, due = 0, min(due, time.monotonic() + _pause(0))
                continue
            watched = self._under_way()
            if not watched:
                return
            polls = 0 if self._poll(watched, look) else polls + 1
            due = time.monotonic() + _pause(polls)

    def _under_way(self) -> dict[Elsewhere, dict[Hashable, bytes]]:
        with self._lock:
            self._watched = {each: of for each, of in self._watched.items() if not each.done}
            if not self._watched:
                self._thread = None
            return self._watched.copy()

    def _poll(self, watched: dict[Elsewhere, dict[Hashable, bytes]], look: Look) -> bool:
        """Ask once for all; whether anything has become of any of them."""
        names = {key: of[key] for flight, of in watched.items() for key in flight.keys}
        seen = _outcome_of(look, names)
        progress = False
        for flight in watched:
            if isinstance(seen, StoreFailure):
                self._table.settle(flight, seen)
            else:
                progress |= self._part(flight, seen)
            if flight.done or not flight.keys:
                self._table.end(flight)
        return progress

    def _part(self, flight: Elsewhere, seen: Seen) -> bool:
        keys = flight.keys
        stay = [key for key in keys if key in seen.held]
        if len(stay) == len(keys):
            return False
        found = {key: seen.values[key] for key in keys if key in seen.values}
        self._table.part(flight, stay, found, keep=self._keep)
        return True


def _outcome_of(look: Look, names: dict[Hashable, bytes]) -> Seen | StoreFailure:
    try:
        return look(names)
    except BaseException as error:
        return StoreFailure.of(error)


def _pause(polls: int) -> float:
    """Seconds until others are asked again, after `polls` times in vain.

    They grow, so that long calls cost little, and are random, so that processes do not ask all at
    once.
    """
    return random.uniform(0.5, 1.5) * min(0.5, 0.01 * 1.5 ** min(polls, 10))
