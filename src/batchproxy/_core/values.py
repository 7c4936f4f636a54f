"""Values known: unbounded, bounded and expiring, or kept in the user's own mapping.

Three kinds behind one set of bulk methods. Their owner, the `Table`, holds its lock around each of
them; only `Unbounded.every` is called without.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Hashable, Iterable, MutableMapping, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from typing import Any, Protocol

from .._messages import short_list, traced
from .outcome import MISSING

_logger = logging.getLogger("batchproxy")


class Values(Protocol):
    """What a `Table` needs of its values."""

    private: bool
    """Whether nobody but the table adds any."""

    def every(self, keys: Sequence[Hashable]) -> list[Any] | None:
        """The values of all of `keys` in their order, or None if one is missing."""

    def known(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        """Those of `keys` that are there, with their values."""

    def use(self, keys: Sequence[Hashable]) -> None:
        """Note that a ``map()`` found `keys` when it began. The sequence is kept."""

    def store(self, keys: Collection[Hashable], values: Iterable[Any]) -> None:
        """Keep a value for each of `keys`, all or none, as far as there is room."""

    def drop(self, keys: Iterable[Hashable]) -> None:
        """Forget `keys`; those that are not there are no error."""

    def clear(self) -> None:
        """Forget everything."""

    def __len__(self) -> int: ...

    def __contains__(self, key: object) -> bool: ...


class Unbounded:
    """A plain dict: the default, or a dict that the user gave."""

    def __init__(self, given: dict[Hashable, Any] | None = None) -> None:
        self.private = given is None
        self._data: dict[Hashable, Any] = {} if given is None else given

    def every(self, keys: Sequence[Hashable]) -> list[Any] | None:
        data = self._data
        if keys and keys[0] not in data:  # an exception costs as much as many look-ups
            return None
        try:
            return [data[key] for key in keys]
        except KeyError:
            return None

    def known(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        data = self._data
        if not data or data.keys().isdisjoint(keys):
            return {}
        get = data.get  # the dict may be the user's, and change under our hands
        return {key: value for key in keys if (value := get(key, MISSING)) is not MISSING}

    def use(self, keys: Sequence[Hashable]) -> None:
        pass

    def store(self, keys: Collection[Hashable], values: Iterable[Any]) -> None:
        if len(keys) == 1:  # to zip these costs more than to keep them
            [key], [value] = keys, values
            self._data[key] = value
        else:
            self._data.update(zip(keys, values))

    def drop(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._data.pop(key, None)

    def clear(self) -> None:
        self._data.clear()

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data


class Bounded(Unbounded):
    """At most `max_size` values. (benchmarks/eviction.py compares policies.)

    Time is divided into phases. A newcomer to a full cache takes the place of the oldest resident
    that was not hit in this phase; when all were hit, a new phase begins. But a key that had to
    leave without ever having been hit is not taken back while everything that is here is asked for:
    in that case a list larger than the cache is being mapped again, page by page, and replacing
    what is here would leave nothing of it to be found. A key never seen before is always taken.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size
        self._forget_history()

    def _forget_history(self) -> None:
        self._phase = 0
        self._hit: set[Hashable] = set()  # in this phase
        self._hit_before: set[Hashable] = set()  # in the last one
        self._latest_hit: Sequence[Hashable] = ()  # by one map(); still hit in a new phase
        # The residents at the beginning of the phase, the oldest at the end. Some have left since.
        self._victims: list[Hashable] = []
        # Hashes of keys that left without a hit, or were not taken back, with the phase when they
        # were last asked for; the latest at the end.
        self._gone: dict[int, int] = {}

    def use(self, keys: Sequence[Hashable]) -> None:
        self._hit.update(keys)
        self._latest_hit = keys

    def store(self, keys: Collection[Hashable], values: Iterable[Any]) -> None:
        if not self._max_size:
            return
        data, gone = self._data, self._gone
        if len(keys) <= self._max_size - len(data) and not gone:  # as the loop would, but faster
            data.update(zip(keys, values))
            return
        free = self._max_size - len(data)
        victims, hit, hit_before = self._victims, self._hit, self._hit_before
        for key, value in zip(keys, values):
            last_asked_for = gone.pop(hash(key), None)
            if key not in data:
                if free:
                    free -= 1
                else:
                    while not victims or (victim := victims[-1]) in hit or victim not in data:
                        if victims:
                            victims.pop()
                        else:
                            self._begin_phase()
                            victims, hit, hit_before = self._victims, self._hit, self._hit_before
                    if last_asked_for is not None and last_asked_for < self._phase:
                        gone[hash(key)] = self._phase
                        continue
                    del data[victims.pop()]
                    if victim not in hit_before:
                        gone[hash(victim)] = self._phase - 1
            data[key] = value
        if len(gone) > 3 * self._max_size:
            self._gone = dict(islice(gone.items(), len(gone) - self._max_size, None))

    def _begin_phase(self) -> None:
        self._hit_before, self._hit = self._hit, self._data.keys() & self._latest_hit
        self._latest_hit = ()
        self._victims = list(reversed(self._data))
        self._phase += 1

    def drop(self, keys: Iterable[Hashable]) -> None:
        keys = list(keys)
        super().drop(keys)
        self._hit.difference_update(keys)

    def clear(self) -> None:
        super().clear()
        self._forget_history()


class Expiring:
    """Values that are forgotten `ttl` seconds after they came, on the monotonic clock."""

    private = True

    def __init__(self, values: Unbounded, ttl: float) -> None:
        self._values = values
        self._ttl = ttl
        # In the order in which they came, so in that of the deadlines. May name keys that the
        # values have evicted since, for as long as there are not more of them than of others.
        self._deadlines: dict[Hashable, float] = {}
        self._earliest = 0.0

    def _purge(self) -> Unbounded:
        now = time.monotonic()
        if now >= self._earliest:
            deadlines = self._deadlines
            expired = list(takewhile(lambda key: deadlines[key] <= now, deadlines))
            self.drop(expired)
            self._earliest = next(iter(deadlines.values()), 0.0)
        return self._values

    def every(self, keys: Sequence[Hashable]) -> list[Any] | None:
        return self._purge().every(keys)

    def known(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        return self._purge().known(keys)

    def use(self, keys: Sequence[Hashable]) -> None:
        self._values.use(keys)

    def store(self, keys: Collection[Hashable], values: Iterable[Any]) -> None:
        inner, deadlines = self._purge(), self._deadlines
        for key in keys:
            deadlines.pop(key, None)  # to its new place at the end
        # Before the values: a value without a deadline would stay for ever.
        deadlines.update(dict.fromkeys(keys, time.monotonic() + self._ttl))
        inner.store(keys, values)
        if len(deadlines) > 2 * len(inner) + 1000:
            self._deadlines = {key: end for key, end in deadlines.items() if key in inner}

    def drop(self, keys: Iterable[Hashable]) -> None:
        keys = list(keys)
        self._values.drop(keys)
        for key in keys:
            self._deadlines.pop(key, None)

    def clear(self) -> None:
        self._values.clear()
        self._deadlines.clear()

    def __len__(self) -> int:
        return len(self._purge())

    def __contains__(self, key: object) -> bool:
        return key in self._purge()


def _say(what: str, error: Exception) -> None:
    """Log what the user's mapping raised, and where, but not at length what it says."""
    _logger.error("%s\n%s", what, traced(error))


class Mapped:
    """The user's own mapping. What it raises is logged and counts as a miss."""

    private = False

    def __init__(self, mapping: MutableMapping[Any, Any]) -> None:
        self._mapping = mapping

    def every(self, keys: Sequence[Hashable]) -> list[Any] | None:
        distinct = dict.fromkeys(keys)  # unhashable keys raise here, and not in the user's mapping
        known = self.known(list(distinct))
        return [known[key] for key in keys] if len(known) == len(distinct) else None

    def known(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        failed: list[Hashable] = []
        last: Exception | None = None
        for key in keys:
            try:  # not mapping[key], which a defaultdict would fill
                value = self._mapping.get(key, MISSING)
            except Exception as error:
                failed.append(key)
                last = error
            else:
                if value is not MISSING:
                    found[key] = value
        if last is not None:
            _say(f"reading {short_list(failed)} from the cache failed: that counts as a miss", last)
            last = None  # this frame is in its traceback: a cycle
        return found

    def use(self, keys: Sequence[Hashable]) -> None:
        pass

    def store(self, keys: Collection[Hashable], values: Iterable[Any]) -> None:
        try:
            for key, value in zip(keys, values):  # that of a Counter would add
                self._mapping[key] = value
        except Exception as error:
            _say(f"writing {len(keys)} results to the cache failed: none is kept", error)
            for key in keys:
                with suppress(Exception):  # it was logged that the mapping is broken
                    self._mapping.pop(key, None)

    def drop(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._mapping.pop(key, None)

    def clear(self) -> None:
        self._mapping.clear()

    def __len__(self) -> int:
        try:
            return len(self._mapping)
        except Exception as error:
            _say("the cache cannot tell its length: 0 is said instead", error)
            return 0

    def __contains__(self, key: object) -> bool:
        return key in self._mapping
