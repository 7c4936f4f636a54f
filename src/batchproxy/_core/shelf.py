"""The items of a stream that are read and not taken, with their keys, and the answers to these."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any, NamedTuple


class Pairs(NamedTuple):
    """What is given, side by side: whoever takes it zips it, and nobody keeps the tuples."""

    items: list[Any]
    results: list[Any]


NOWHERE = -sys.maxsize
"""No place, nor does any number of keys beyond it have one."""


class Shelf:
    """Items wait here for their answers, and are given out with them. Plain lists and dicts.

    Args:
        ordered: Whether items are given in the order in which they were added; else in that of
            their answers.
        keyed: Whether keys are something else than the items.
    """

    __slots__ = (
        "_blocks",
        "_called",
        "_gone",
        "_items",
        "_mixed",
        "_ordered",
        "_others",
        "_queue",
        "_repeats",
        "_start",
        "answers",
        "firsts",
        "wanted",
    )

    def __init__(self, *, ordered: bool, keyed: bool) -> None:
        self._ordered = ordered
        self.wanted: set[Hashable] = set()  # the keys of all items in here ...
        self._repeats: dict[Hashable, int] = {}  # ... and how many items beyond one have a key
        self.firsts: dict[Hashable, Any] | None = {} if keyed else None  # the first item of each
        self.answers: dict[Hashable, Any] = {}  # by key
        # Items as they are to be given, each with its key: in order all, else those that have an
        # answer. From `_start` on, before which there were `_gone` more.
        self._queue: list[Hashable] = []
        self._items: list[Any] = [] if keyed else self._queue  # mostly the same
        self._start = self._gone = 0
        self._others: dict[Hashable, list[Any]] = {}  # further items of keys that have no answer
        # Answers of calls, by the place of the first one's item, counted from the beginning: a
        # quicker way than by key, as long as no key is there twice.
        self._blocks: dict[int, list[Any]] = {}
        self._called = 0  # where the next of these is likely to begin
        self._mixed = False  # whether of what was added last not all was new

    def add_distinct(self, keys: list[Hashable]) -> bool:
        """Add items that are their own keys, if all of them are new; whether that was done."""
        if self._mixed or self._items is not self._queue:
            return False
        wanted, count = self.wanted, len(self.wanted)
        with suppress(Exception):  # one cannot be hashed, which is for others to say
            if self._ordered or wanted.isdisjoint(keys):
                wanted.update(keys)
                if len(wanted) == count + len(keys):
                    self._queue += keys if self._ordered else ()
                    return True
        self._mixed = True  # not to be tried again at once
        if self._ordered:
            self.wanted = set(self._queue[self._start :])
        elif len(wanted) > count:
            wanted.difference_update(keys)
        return False

    def add(
        self, items: list[Any], keys: list[Hashable], distinct: list[Hashable]
    ) -> list[Hashable]:
        """Add `items` with their keys; which of the `distinct` ones were not in here."""
        wanted = self.wanted
        self._mixed = len(distinct) < len(keys) or not wanted.isdisjoint(distinct)
        if self._items is self._queue and (keys is not items or not self._ordered):
            self._items = self._queue.copy()
        if self._mixed:
            self._spread()
            self._repeat(items, keys)
            distinct = [key for key in distinct if key not in wanted]
        wanted.update(distinct)
        if self._ordered:
            self._queue += keys
            if self._items is not self._queue:
                self._items += items
        return distinct

    def _repeat(self, items: list[Any], keys: list[Hashable]) -> None:
        wanted, repeats = self.wanted, self._repeats
        for key, count in Counter(keys).items():
            if more := count - (key not in wanted):
                repeats[key] = repeats.get(key, 0) + more
        if self._ordered:
            return
        seen: set[Hashable] = set()
        for key, item in zip(keys, items):
            if key in self.answers:
                self._items.append(item)
                self._queue.append(key)
            elif key in wanted or key in seen:
                self._others.setdefault(key, []).append(item)
            else:
                seen.add(key)

    def place_of(self, keys: list[Hashable]) -> int:
        """Where `keys`, about to be computed, follow each other; `NOWHERE` if it is not known."""
        if self._ordered and not self._repeats:
            at = max(self._called - self._gone, self._start)
            here = self._queue[at : at + len(keys)]
            with suppress(Exception):  # some cannot be compared
                if here == keys:  # mostly the same objects, of which that is a quick look
                    self._called = self._gone + at + len(keys)
                    return self._gone + at
        return NOWHERE

    def answer(self, place: int, keys: list[Hashable], results: list[Any]) -> None:
        """Add the results of a call, which has `keys` at that place."""
        if not self._ordered and not self._repeats:
            place = self._line_up(keys)
        if place >= 0 and not self._repeats:
            self._blocks[place] = results
        elif self._ordered:
            self.answers.update(zip(keys, results))
        else:
            self.sort(dict(zip(keys, results)))

    def _spread(self) -> None:
        for place, results in self._blocks.items():
            at = place - self._gone
            self.answers.update(zip(self._queue[at : at + len(results)], results))
        self._blocks.clear()

    def sort(self, news: Mapping[Hashable, Any]) -> None:
        """Where order does not matter: add `news`, whose items are given next."""
        self.answers.update(news)
        self._line_up(list(news))
        for key in self._others.keys() & news.keys():
            others = self._others.pop(key)
            self._items += others
            self._queue += [key] * len(others)

    def _line_up(self, keys: list[Hashable]) -> int:
        """Where order does not matter: have the first items of `keys` given next, and where."""
        place, firsts = self._gone + len(self._queue), self.firsts
        self._queue += keys
        if self._items is not self._queue:
            self._items += keys if firsts is None else [firsts[key] for key in keys]
        return place

    @property
    def ready(self) -> bool:
        """Whether there is an item to be given."""
        queue, start = self._queue, self._start
        if self._gone + start in self._blocks:
            return True
        return len(queue) > start and queue[start] in self.answers

    def pairs(
        self, most: int, only: Callable[[object], bool] | None
    ) -> tuple[Pairs, list[Hashable]]:
        """The next items with their answers, and the keys that nothing here has any more.

        Args:
            most: How many at most.
            only: Up to the first answer for which this is false.
        """
        if self._blocks and only is None:
            start = stop = self._start
            results: list[Any] = []
            while len(results) < most and (block := self._blocks.pop(self._gone + stop, None)):
                results += block
                stop = start + len(results)
            if len(results) > most:
                stop = start + most
                self._blocks[self._gone + stop] = results[most:]
            if results:
                return self._give(results, self._queue[start:stop], stop)
        self._spread()
        return self._pairs_by_key(most, only)

    def _pairs_by_key(
        self, most: int, only: Callable[[object], bool] | None
    ) -> tuple[Pairs, list[Hashable]]:
        answers, start = self.answers, self._start
        ready = self._queue[start : start + most]
        if self._ordered:
            ready = list(takewhile(answers.__contains__, ready))
        if only is not None:
            ready = list(takewhile(lambda key: only(answers[key]), ready))
        if not ready:
            return Pairs([], []), []
        if not self._repeats:
            return self._give(list(map(answers.pop, ready)), ready, start + len(ready))
        results = list(map(answers.__getitem__, ready))
        dropped = self._shed(ready)
        for key in dropped:
            del answers[key]
        return self._give(results, dropped, start + len(ready))

    def _shed(self, keys: list[Hashable]) -> list[Hashable]:
        repeats, dropped = self._repeats, []
        for key, count in Counter(keys).items():
            left = repeats.pop(key, 0) - count
            if left > 0:
                repeats[key] = left
            elif left < 0:
                dropped.append(key)
        return dropped

    def _give(
        self, results: list[Any], dropped: list[Hashable], stop: int
    ) -> tuple[Pairs, list[Hashable]]:
        pairs = Pairs(self._items[self._start : stop], results)
        self.wanted.difference_update(dropped)
        if self.firsts is not None:
            for key in dropped:
                del self.firsts[key]
        self._start = stop
        if stop > len(self._queue) // 2:
            del self._queue[:stop]
            if self._items is not self._queue:
                del self._items[:stop]
            self._gone += stop
            self._start = 0
        return pairs, dropped
