"""The plan of a stream, which grows at one end, and sheds what has been taken at the other."""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable, Mapping
from typing import Any

from .flights import Flight
from .keys import form_of, unequal
from .outcome import Failure, Outcome
from .plan import Plan
from .shelf import Pairs, Shelf
from .sizes import Size
from .weights import PassingWeights


class Window(Plan):
    """What a stream has read and nobody has taken, with all that is known of it.

    Belongs to one stream; takes no lock. A batch may go out when it is full; a thinner one when the
    source has `ended`, or when nothing else can come (`flushing`).

    Args:
        most: The most items that are read and not taken.
        size: How many keys a batch has.
        max_weight: What it weighs at most, if that is limited, too.
        ordered: Whether results are given in the order of the items, or as they come.
        keyed: Whether keys are something else than the items.
        keep_failures: As for a `Plan`.
    """

    __slots__ = (
        "_counted",
        "_forms",
        "_most",
        "_ordered",
        "_shelf",
        "_size",
        "_total",
        "calling",
        "count",
        "dropped",
        "ended",
        "flushing",
        "passing",
    )

    def __init__(
        self,
        most: int,
        size: Size,
        max_weight: float | None,
        *,
        ordered: bool,
        keyed: bool,
        keep_failures: bool,
    ) -> None:
        keys: list[Any] = []  # those that are still to be drawn: what was, is not known here
        super().__init__(keys, keys, keep_failures=keep_failures)
        self._most = most
        self._size = size
        self.passing: PassingWeights | None = None  # its `weights`
        if max_weight is not None:
            self.weights = self.passing = PassingWeights(max_weight)
        self._weighed = []  # beside the keys that are to be drawn
        self._ordered = ordered
        self._shelf = shelf = Shelf(ordered=ordered, keyed=keyed)
        self._firsts = shelf.firsts
        if ordered:
            self._learned = shelf.answers  # else those are news, to be sorted
        self._forms: dict[Hashable, Hashable] = {}  # of keys that are not equal to themselves
        self._counted, self._total = (0, 0), 0
        self.count = 0  # items read and not taken
        self.ended = False  # whether all has been read, and looked at
        self.flushing = False  # whether the next batch may be thinner
        self.calling: set[Flight] = set()  # its own calls that have begun
        # Keys that nothing here has any more, if anybody wants to know.
        self.dropped: list[Hashable] | None = None

    @property
    def room(self) -> int:
        """How many items may be read."""
        return self._most - self.count

    @property
    def part(self) -> int:
        """A part of it that is worth doing something for, and at most a thousand items."""
        return max(1, min(self._most // 8, 1_000))

    @property
    def total(self) -> int:
        """How many distinct keys were read so far, as far as that is known."""
        return self._total

    @property
    def _full(self) -> int:
        """How many keys a full batch has, if it is not too heavy."""
        return min(self._size.now, self._most)

    @property
    def due(self) -> bool:
        """Whether there is a batch that may go out now."""
        return self.left > 0 and (self.ended or self.flushing or self._full_batches(1) > 0)

    def batches(self, size: int, most: int) -> int:
        """As there; but those that may go out now."""
        return self._full_batches(most) or int(self.due)

    def _full_batches(self, most: int) -> int:
        """How many full batches are left; of more than `most`, so many."""
        full = self._full
        if self.weights is None:
            return min(self.left // full, most)
        weights, start, count = self._weighed, self._next, 0
        if self._drawn_back:
            weights = [*self.weights.of_each(self._drawn_back), *weights[start:]]
            start = 0
        while count < most:
            start += max(1, self.weights.fitting(weights, start, full, 0)[0])
            if start >= len(weights):  # there may be room for more in the last one
                break
            count += 1
        return count

    @property
    def ready(self) -> bool:
        """Whether there is an item with its result to be taken."""
        self._sort()
        return self._shelf.ready

    @property
    def stuck(self) -> bool:
        """Whether nothing is under way or ready, and there is no room for more."""
        if not self.left or self.room or self.running or self.awaited:
            return False
        return not self.ready

    @property
    def finished(self) -> bool:
        """Whether all has been read and taken."""
        return self.ended and not self.count

    # At the one end, ...

    def named(self, keys: list[Hashable]) -> list[Hashable]:
        """`keys`; those not equal to themselves are called as one that is as good, and in here."""
        if not (same := unequal(keys)):
            return keys
        names = {key: self._forms.setdefault(form_of(key), first) for key, first in same.items()}
        return [names.get(key, key) for key in keys]

    def add(self, items: list[Any], keys: list[Hashable]) -> Portion:
        """Add what was just read. What is new of it is to be looked up, and then `want`ed.

        Raises:
            TypeError: a key cannot be hashed. Nothing was added.
        """
        new = named = self.named(keys)
        if named is not items or not self._shelf.add_distinct(named):
            new = self._add(Plan(items, named), items)
        self.count += len(items)
        self._total += len(new)
        return Portion(self, new)

    def _add(self, read: Plan, items: list[Any]) -> list[Hashable]:
        if read.unkept:
            self.unkept = frozenset([*self.unkept, *read.unkept])
        self._sort()
        new = self._shelf.add(items, read.keys, read.distinct)
        if self._firsts is not None and read._firsts is not None:
            firsts = read._firsts
            self._firsts.update(firsts if len(new) == len(firsts) else {k: firsts[k] for k in new})
        return new

    def want(self, portion: Portion) -> None:
        """Have what is left of `portion` computed."""
        new = portion.draw(portion.left)
        if self.seen < 0:
            self.seen = portion.seen
        if self._next > len(self._todo) // 2:
            del self._todo[: self._next], self._weighed[: self._next]
            self._next = 0
        self._todo += new
        if self.weights is not None:
            self._weighed += self.weights.of_each(new)
        self.left += len(new)

    # ... on the way, ...

    def again(self, keys: Collection[Hashable]) -> None:
        """Have `keys` computed next."""
        self.draw_back(list(keys))

    def claim(self, flight: Flight) -> bool:
        """As there; but a batch that has become too thin by now is put back."""
        flushing, self.flushing = self.flushing, False
        # If more are left, the next one would have made it too heavy.
        full = len(flight.keys) >= self._full or (self.weights is not None and self.left > 0)
        if not full and not self.ended and (self.ready or not flushing):
            self.draw_back(flight.keys)
            return False
        self.calls += 1
        self.calling.add(flight)
        flight.place = self._shelf.place_of(flight.keys)
        return True

    def take(self, flight: Flight, outcome: Outcome) -> None:
        """As there."""
        place, flight.place = flight.place, 0
        super().take(flight, outcome)  # into a list that is empty
        results, self._computed, flight.place = self._computed, [], place
        self._shelf.answer(place, flight.keys, results)

    def take_refused(self, flight: Flight, failure: Failure) -> None:
        """As there. Without `keep_failures` they have no result: what ends the stream comes."""
        self.failed += len(flight.keys)
        if self.keep_failures:
            self._learned.update(dict.fromkeys(flight.keys, failure.error))

    def take_awaited(self) -> None:
        """As there; and what has been settled elsewhere is of no interest any more."""
        super().take_awaited()
        for flight in self.elsewhere.copy():  # to which a worker thread may add
            if flight.done:
                flight.interested.discard(self)
                self.elsewhere.discard(flight)

    # ... and at the other.

    def pairs(self, most: int = sys.maxsize) -> Pairs:
        """The next items with their results, as far as they are there; they still count as read.

        After a failure that is all that was there before it; none if that is no `Exception`.
        """
        self._sort()
        pairs, dropped = self._shelf.pairs(most, self._is_result if self.over else None)
        if self.dropped is not None:
            self.dropped += dropped
        if self.passing is not None:
            self.passing.forget(dropped)
        if self.unkept:
            self.unkept = self._shelf.wanted.intersection(self.unkept)
            self._forms = {form: key for form, key in self._forms.items() if key in self.unkept}
        return pairs

    def _is_result(self, result: object) -> bool:
        if self.failure is None or not isinstance(self.failure.error, Exception):
            return False
        return not isinstance(result, Exception)

    def taken(self, count: int) -> None:
        """So many of the pairs given out have been taken."""
        self.count -= count

    def uncounted(self) -> tuple[int, int]:
        """How many keys were shared and stored since the last time."""
        before, self._counted = self._counted, (self.shared, self.stored)
        return self.shared - before[0], self.stored - before[1]

    def _sort(self) -> None:
        """Have what has got an answer given next, if order does not matter."""
        if not self._ordered and self._learned:
            news, self._learned = self._learned, {}
            self._shelf.sort(news)

    def forget(self) -> None:
        """As there."""
        super().forget()
        self._shelf = Shelf(ordered=self._ordered, keyed=False)


class Portion(Plan):
    """What a stream has just read, while it is looked up; it tells its window what is found."""

    __slots__ = ("_window",)

    def __init__(self, window: Window, keys: list[Hashable]) -> None:
        # Not that of `Plan`: it has nothing of its own but the keys, and they were looked at.
        self._window = window
        self.running = window.running
        self.unkept = window.unkept
        self.weights = None
        self.distinct = keys
        self.start(keys)

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        """As there, for the window."""
        self._window.learn(known, flying)

    def learn_stored(self, found: Mapping[Hashable, Any]) -> None:
        """As there, for the window."""
        self._window.learn_stored(found)

    def fail(self, failure: Failure) -> None:
        """As there, for the window."""
        self._window.fail(failure)
