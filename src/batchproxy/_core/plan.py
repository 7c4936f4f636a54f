"""What one map() asks for: distinct keys in order, the next batch, results put back in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._messages import describe
from .flights import Elsewhere, Flight
from .keys import unequal
from .outcome import MISSING, Answers, Failure, Outcome
from .weights import Weights

NOTE = "another call of the same map() failed too: "
MOST_NOTES = 10
"""Further failures that an exception names; the others are counted."""
PIECE = 10_000
"""So many keys of a long list are told apart at once, and then others have their turn."""


class Plan:
    """What one ``map()`` wants and what it knows so far. Belongs to one caller; takes no lock."""

    __slots__ = (
        "_claimed",
        "_computed",
        "_drawn_back",
        "_firsts",
        "_learned",
        "_next",
        "_notes",
        "_todo",
        "_weighed",
        "awaited",
        "calls",
        "computed",
        "distinct",
        "elsewhere",
        "failed",
        "failure",
        "further",
        "hits",
        "in_steps",
        "keep_failures",
        "keys",
        "left",
        "over",
        "running",
        "seen",
        "shared",
        "spare",
        "stored",
        "unkept",
        "weights",
    )

    def __init__(
        self,
        items: list[Any],
        keys: list[Hashable],
        keep_failures: bool = False,
        in_steps: bool = False,
    ) -> None:
        self.in_steps = in_steps  # whether `tell_apart` comes before all else
        keyed = keys is not items
        distinct = keys if in_steps else _distinct(keys)
        # Keys of which nothing is kept, neither here nor in a store.
        self.unkept: Collection[Hashable] = ()
        if same := unequal(distinct):
            self.unkept = frozenset(same.values())
            keys = [same.get(key, key) for key in keys]
            distinct = keys if in_steps else _distinct(keys)
        self.keys = keys  # one per item
        self.distinct = distinct  # in the order of first occurrence
        # The first item of each key; the keys are the items themselves unless key= is given.
        self._firsts = dict(zip(reversed(keys), reversed(items))) if keyed else None
        # What they weigh, if a batch of all of them would be too heavy.
        self.weights: Weights | None = None
        self._weighed: list[float]  # then, beside the keys that are missing
        self.seen = -1  # the `news` when it looked at all its keys, and its own ones since then
        self.start(self.distinct)
        # The only copies of the answers that deliver() reads, so that no cache can lose or change
        # one: those that this map() computes, beside their keys in the order of the claims ...
        self._claimed: list[Hashable] = []
        self._computed: list[Any] = []
        # ... and those that it gets from the cache and from somebody else's calls.
        self._learned: dict[Hashable, Any] = {}
        # Somebody else's calls under way, with the keys that this map() gets from each.
        self.awaited: dict[Flight, list[Hashable]] = {}
        # Those elsewhere that stay in flight as long as it lasts.
        self.elsewhere: set[Elsewhere] = set()
        # Its own calls under way.
        self.running: set[Flight] = set()
        self.keep_failures = keep_failures
        self.failure: Failure | None = None
        self.further = 0  # failing calls after that one
        self._notes: Sequence[str] = ()  # of the first of those
        self.over = False  # whether that failure ends this map()
        # Keys known from the cache, from a store, from other calls, from its own; keys that failed.
        self.hits = self.stored = self.shared = self.computed = self.failed = 0
        self.calls = 0  # of its own

    def tell_apart(self) -> Iterator[None]:
        """Find the distinct keys of a long list, in steps between which others may have turns."""
        keys, seen = self.keys, set[Hashable]()
        for piece in _pieces(keys):
            seen.update(piece)
            yield
        if len(seen) < len(keys):
            distinct: dict[Hashable, None] = {}
            for piece in _pieces(keys):
                distinct.update(dict.fromkeys(piece))
                yield
            self.distinct = list(distinct)
            self.start(self.distinct)

    def start(self, missing: list[Hashable]) -> None:
        """Set the keys to be computed, in the order of first occurrence."""
        self.left = len(missing)
        self.spare = 0  # keys that a store is asked for beyond a batch: they may be drawn back
        # Those put back by draw_back(), then those of the list from the next one on.
        self._drawn_back: list[Hashable] = []
        self._todo = missing
        self._next = 0
        if self.weights is not None:
            self._weighed = self.weights.of_each(missing)

    def weigh(self, weight: Callable[[Any], float], most: float) -> None:
        """Limit batches to so much, too, before anything was drawn.

        Raises:
            TypeError: `weight` gave something that is no number.
            ValueError: it gave something negative, NaN, or too large for a float.
        """
        weights = Weights(self.distinct, self.items_of(self.distinct), weight, most)
        if weights.bind:
            self.weights = weights
            self.start(self.distinct)

    def fitting(self, size: int, beside: float) -> tuple[int, float]:
        """How many of the next keys, at most `size`, fit into a batch that weighs so much already.

        Also what it weighs with them. There may be others that fit, after those put back.
        """
        assert self.weights is not None  # else all do
        if self._drawn_back:
            weights = self.weights.of_each(self._drawn_back[:size])
            return self.weights.fitting(weights, 0, size, beside)
        return self.weights.fitting(self._weighed, self._next, size, beside)

    def batches(self, size: int, most: int) -> int:
        """How many batches are left, while none is drawn; of more than `most`, so many."""
        if self.weights is None:
            return min(math.ceil(self.left / size), most)
        count, start = 0, self._next
        while start < len(self._weighed) and count < most:
            start += max(1, self.weights.fitting(self._weighed, start, size, 0)[0])
            count += 1
        return count

    def next_key(self) -> Hashable:
        """The next key, which stays there."""
        return self._drawn_back[0] if self._drawn_back else self._todo[self._next]

    @property
    def total(self) -> int:
        """How many distinct keys are wanted."""
        return len(self.distinct)

    @property
    def due(self) -> bool:
        """Whether there is, or may be, anything to compute."""
        return self.left > 0 or self.spare > 0

    def draw(self, size: int) -> list[Hashable]:
        """Take some of the next keys: `size` at most, and none only if none are left."""
        if self._drawn_back:
            batch = self._drawn_back[:size]
            del self._drawn_back[:size]
        else:
            batch = self._todo[self._next : self._next + size]
            self._next += len(batch)
        self.left -= len(batch)
        return batch

    def draw_back(self, batch: list[Hashable]) -> None:
        """Put `batch`, just drawn, back to the front."""
        self._drawn_back[:0] = batch
        self.left += len(batch)

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        """Note the answers of `known` keys, and who is computing those in flight."""
        self._learned.update(known)
        self.hits += len(known)
        for key, flight in flying.items():
            self.awaited.setdefault(flight, []).append(key)
            if isinstance(flight, Elsewhere):
                self.wait_elsewhere(flight)

    def wait_elsewhere(self, flight: Elsewhere) -> None:
        """Have `flight` stay in flight as long as this ``map()`` lasts."""
        flight.interested.add(self)
        self.elsewhere.add(flight)

    def learn_stored(self, found: Mapping[Hashable, Any]) -> None:
        """Note the answers that a store had."""
        self._learned.update(found)
        self.stored += len(found)

    def again(self, keys: Collection[Hashable]) -> None:
        """Have `keys`, and what is left, computed in the order of first occurrence."""
        wanted = set(keys)
        while self.left:
            wanted.update(self.draw(self.left))
        self.start([key for key in self.distinct if key in wanted])

    def claim(self, flight: Flight) -> bool:
        """Make room for the results of a call of this ``map()`` itself; whether it is to begin."""
        self.calls += 1
        flight.place = len(self._claimed)
        self._claimed += flight.keys
        self._computed += [MISSING] * len(flight.keys)
        return True

    def items_of(self, batch: list[Hashable]) -> list[Any]:
        """The first item of each key of `batch`, as a list of its own for ``map_func``."""
        firsts = self._firsts
        return batch.copy() if firsts is None else [firsts[key] for key in batch]

    def fail(self, failure: Failure) -> None:
        """Note a failing call of this ``map()``: the first is raised, the others are its notes.

        But one that ends all is for no list or note: an interrupt, say, or a store's failure.
        """
        if self.failure is None or (failure.ends_all and not self.failure.ends_all):
            self.failure = failure
            self.over = not self.keep_failures or failure.ends_all
        elif self.failure.error is not failure.error and not self.keep_failures:
            self.further += 1
            if len(self._notes) < MOST_NOTES:
                self._notes = [*self._notes, NOTE + describe(failure.error)]

    def annotate(self, error: BaseException) -> None:
        """Attach the further failures to `error`, the first, as notes; its own ones stay.

        They replace those of another ``map()``: functions may raise one object again and again.
        """
        if not self.further:
            return
        notes = self._notes
        if self.further > len(notes):
            notes = [*notes, f"{NOTE}... and {self.further - len(notes)} more"]
        with suppress(Exception):  # some refuse attributes
            others = [note for note in getattr(error, "__notes__", ()) if not _is_ours(note)]
            error.__notes__ = [*others, *notes]

    def take(self, flight: Flight, outcome: Outcome) -> None:
        """Take what came of a call of this ``map()`` itself."""
        count = len(flight.keys)
        if isinstance(outcome, Answers):
            results, failures = outcome.results, outcome.failures
            failed = len(failures)
            if failures:
                self.fail(next(iter(failures.values())))
        else:
            results, failed = [outcome.error] * count, count
            self.fail(outcome)
        self.failed += failed
        self.computed += count - failed
        self._computed[flight.place : flight.place + count] = results

    def take_refused(self, flight: Flight, failure: Failure) -> None:
        """Take that the items of `flight` were refused; `fail` with it is still to come."""
        count = len(flight.keys)
        self.failed += count
        self._computed[flight.place : flight.place + count] = [failure.error] * count

    def take_awaited(self) -> None:
        """Take what has come of somebody else's calls.

        Keys that were given up, or left such a call, are to be looked up, or computed, again.
        """
        lost: list[Hashable] = []
        for flight in [each for each in self.awaited if each.done or each.gone]:
            done, gone = flight.done, flight.gone
            results, failures = flight.answers() if done else (gone, flight.failures)
            waiting: list[Hashable] = []
            for key in self.awaited.pop(flight):
                if (result := results.get(key, MISSING)) is not MISSING:
                    self._learned[key] = result
                    self.shared += 1
                elif (failure := failures.get(key)) is not None:
                    self._learned[key] = failure.error
                    self.failed += 1
                    if self.failure is None or failure.ends_all:
                        self.fail(failure)
                elif done or key in gone:
                    lost.append(key)
                else:
                    waiting.append(key)
            if waiting:
                self.awaited[flight] = waiting
        if lost:
            self.again(lost)

    def forget(self) -> None:
        """Let go of every exception, now that this ``map()`` is over.

        Tracebacks have the frames that were inside of it, and those have this plan: a cycle.
        """
        self.failure = None
        self._computed, self._learned = [], {}
        self.awaited.clear()

    def deliver(self) -> list[Any]:
        """The answers, one per item, in the order of the items."""
        if self._todo is self.keys and len(self._claimed) == len(self.keys):
            return self._computed  # all computed here, in order, and none asked for twice
        answers = dict(zip(self._claimed, self._computed))
        answers.update(self._learned)
        return list(map(answers.__getitem__, self.keys))


def _pieces(keys: list[Hashable]) -> Iterator[list[Hashable]]:
    for start in range(0, len(keys), PIECE):
        yield keys[start : start + PIECE]


def _distinct(keys: list[Hashable]) -> list[Hashable]:
    if len(keys) == 1:  # a dict costs more than all else here
        return keys
    if len(set(keys)) == len(keys):  # a set takes half as long as a dict, which has an order
        return keys
    return list(dict.fromkeys(keys))


def _is_ours(note: object) -> bool:
    return isinstance(note, str) and note.startswith(NOTE)
