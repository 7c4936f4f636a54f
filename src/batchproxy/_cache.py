"""Cache: results by key, as users see it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

from ._table import Table
from ._values import Bounded, Expiring, Mapped, Unbounded

T = TypeVar("T")


class Cache(Generic[T]):
    """Results by key, and the calls under way, for one or several proxies.

    Proxies that are given the same `Cache` share results *and* work under way: a key is computed
    once among them, whether they are synchronous or not and whatever event loop or thread they are
    used from. A cache belongs to one question: give each ``map_func`` a cache of its own.

    Calls under way never count towards `max_size`, and nothing that the cache forgets is lost to a
    ``map()`` already waiting for it: a bound costs recomputations, never answers.

    Args:
        max_size: The most values kept, 0 or more; None (the default) for no bound. With 0 nothing
            is kept and only work under way is shared. A full cache replaces its oldest value that
            was not used lately. A list larger than the cache, mapped again and again, finds as much
            of itself as there is room for: mapped whole, or page by page if it is not larger than
            four times the cache.
        ttl: Seconds, 0 or more, after which a value is forgotten, counted from the end of the call
            that gave it, on the monotonic clock; None (the default) for never.

    Raises:
        TypeError: `max_size` is no integer, or `ttl` no number.
        ValueError: one of them is negative, or `ttl` is NaN.

    Threads: every method may be called from any thread; none is a checkpoint or blocks, except as
    long as another thread is inside one.
    """

    def __init__(self, max_size: int | None = None, ttl: float | None = None) -> None:
        _check_bounds(max_size, ttl)
        values = Unbounded({}) if max_size is None else Bounded(max_size)
        self._table = Table(values if ttl is None else Expiring(values, ttl))

    @classmethod
    def _over(cls, mapping: MutableMapping[Any, T]) -> Cache[T]:
        """A cache that keeps its values in the user's `mapping`, and claims of its own."""
        cache = cls.__new__(cls)
        # Only a real dict is known to have no __missing__ and to be readable while others write.
        cache._table = Table(Unbounded(mapping) if type(mapping) is dict else Mapped(mapping))
        return cache

    def prime(self, mapping: Mapping[Any, T]) -> None:
        """Put results in that are known from elsewhere.

        A primed value is newer than every call that is under way: callers already waiting for such
        a call get its result, but everybody else the primed one.

        Args:
            mapping: Results by key (by what ``key=`` gives, where a proxy has one).

        Raises:
            TypeError: `mapping` is no mapping.
            ValueError: one of its values is an exception; those are never cached.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"prime() takes a mapping from key to result, got {type(mapping).__qualname__!r}; "
                "dict(zip(keys, results)) makes one"
            )
        answers: dict[Hashable, Any] = dict(mapping)
        for key, value in answers.items():
            if isinstance(value, Exception):
                raise ValueError(f"prime() got an exception for {key!r}: exceptions are not cached")
        self._table.prime(answers)

    def invalidate(self, keys: Iterable[Any]) -> None:
        """Forget the results of `keys`, also those that calls under way are about to give.

        When it returns, no later ``map()`` gets a result whose computation began before. Callers
        already waiting for a call under way still get its result.

        Args:
            keys: Any iterable of keys; those that are not cached are no error.

        Raises:
            TypeError: `keys` is a single string or bytes object, or no iterable.
        """
        if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
            raise TypeError(
                f"invalidate() takes an iterable of keys, got the {type(keys).__qualname__} "
                f"{keys!r}; put a single key into a list: invalidate([{keys!r}])"
            )
        self._table.invalidate(list(keys))

    def clear(self) -> None:
        """`invalidate` everything."""
        self._table.clear()

    def __len__(self) -> int:
        """The number of values; calls under way do not count."""
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        """Whether there is a value for `key`; a call under way is none."""
        return key in self._table

    def __repr__(self) -> str:
        flights = self._table.flights
        under_way = f"{len(flights)} keys in flight, {flights.waiting()} waiting"
        return f"<Cache: {len(self)} values, {under_way}>"


def _check_bounds(max_size: object, ttl: object) -> None:
    if max_size is not None:
        if isinstance(max_size, bool) or not isinstance(max_size, int):
            raise TypeError(f"max_size must be an integer or None, got {max_size!r}")
        if max_size < 0:
            raise ValueError(f"max_size must be 0 or more, or None for no bound, got {max_size}")
    if ttl is not None:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            raise TypeError(f"ttl must be a number of seconds or None, got {ttl!r}")
        if ttl < 0 or math.isnan(ttl):
            raise ValueError(f"ttl must be 0 seconds or more, or None for no end, got {ttl}")
