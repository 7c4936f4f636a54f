"""What a proxy has done so far."""

from dataclasses import dataclass


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
