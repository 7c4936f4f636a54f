"""What who recruits computes: the keys of its pool, drawn when they are claimed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from .flights import Flight
from .outcome import MISSING, Failure, GivenUp, Outcome, StoreFailure
from .plan import Plan
from .pool import Bell, Meeting, Pool, Wanted


class Gathered(Plan):
    """What a recruiter computes: keys of its pool, drawn when they are claimed.

    Who waits for one is told as soon as anything has come of it. Others' calls are not awaited
    here: whoever wants a key of such a call does that.
    """

    __slots__ = (
        "_drawn",
        "_known",
        "_leader",
        "_meet",
        "_most",
        "_pool",
        "_reading",
        "_unsettled",
        "_who",
    )

    def __init__(
        self,
        pool: Pool,
        leader: Wanted,
        who: object,
        meet: Callable[[Flight], Meeting],
        known: Callable[[Hashable], bool],
        *,
        most: float = math.inf,
        reading: bool = False,
    ) -> None:
        # Not that of `Plan`, which costs as much as all of this: it has no list, nor will have one.
        self._pool = pool
        self._leader = leader
        self._who = who
        self._meet = meet
        self._known = known  # whether a key is, or is in flight: then it takes no room
        self._most = most  # that a batch may weigh
        self._reading = reading  # only to look in a store: others may do so at the same time
        self._drawn: dict[Hashable, Wanted] = {}
        self._unsettled = 0  # of those drawn
        self.left = len(pool)
        self.seen = -1  # its keys are looked up when they are drawn
        self.spare = self.calls = 0
        self.weights = None  # they are in the pool
        self.over = False
        self.failure = None
        self.distinct = []
        self.unkept = ()
        self.awaited = {}
        self.running = set()
        self.elsewhere = set()

    def draw(self, size: int) -> list[Hashable]:
        # First its own, and others only if that is to be computed: else this is for one of them.
        # (A store may say that somebody computes it when others are claimed already.)
        if self._leader.settled and not self._unsettled:
            self.left = 0
            return []
        mine = self._leader.key not in self._drawn
        batch = self._pool.draw(1) if mine else self._pool.draw(size, self._room())
        if not batch and (heavy := self._pool.first()) and self._known(heavy.key):
            batch = self._pool.draw(1)
        fresh = [wanted for wanted in batch if wanted.key not in self._drawn]
        self.left = 0 if not batch else len(self._pool)  # none: the next one is too heavy
        if len(fresh) < len(batch):  # a key was forgotten since it was drawn: they want it anew
            self._pool.put_back([wanted for wanted in batch if wanted.key in self._drawn])
            self.left = 0
        for wanted in fresh:
            self._drawn[wanted.key] = wanted
        self._unsettled += len(fresh)
        if self._reading and not (mine and self.left):
            self._depart()
        return [wanted.key for wanted in fresh]

    def _room(self) -> float:
        """What others may weigh, beside those drawn of which nothing has come yet."""
        if self._most == math.inf:
            return math.inf
        # Summed up anew: what is subtracted from a sum leaves a rest, and inf leaves NaN.
        drawn = self._drawn.values()
        return self._most - sum(wanted.weight for wanted in drawn if not wanted.settled)

    def draw_back(self, batch: list[Hashable]) -> None:
        drawn = [self._drawn[key] for key in batch]
        outdone = self._pool.put_back(drawn)
        self._settle([(wanted.key, MISSING) for wanted in outdone])
        self._unsettled -= len(drawn) - len(outdone)
        for key in batch:
            del self._drawn[key]
        self.left = len(self._pool)

    def _depart(self) -> None:
        self.left = 0
        self._pool.retire(self._leader, self._who)

    def items_of(self, batch: list[Hashable]) -> list[Any]:
        return [self._drawn[key].item for key in batch]

    def claim(self, flight: Flight) -> bool:
        flight.place = 0  # its results have none here
        self._depart()
        return True

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        for key, flight in flying.items():
            wanted = self._drawn[key]
            if wanted.loads:  # else there is nobody who would leave it
                wanted.meeting = self._meet(flight)
                wanted.meeting.loads += wanted.loads
        self._settle([*known.items(), *dict.fromkeys(flying, MISSING).items()])

    def learn_stored(self, found: Mapping[Hashable, Any]) -> None:
        for key in found:
            self._drawn[key].source = (0, 1)
        self._settle(found.items())

    def take(self, flight: Flight, outcome: Outcome) -> None:
        if isinstance(outcome, GivenUp):
            self.fail(outcome)  # of the recruiter alone; its keys are computed anew
        elif isinstance(outcome, Failure):
            self._settle(dict.fromkeys(flight.keys, outcome).items())
        else:
            results, failures = outcome.results, outcome.failures
            if failures:
                self._settle(failures.items())
                kept = zip(flight.keys, results)
                self._settle([(key, result) for key, result in kept if key not in failures])
            else:
                self._settle(zip(flight.keys, results))

    def take_refused(self, flight: Flight, failure: Failure) -> None:
        self._settle(dict.fromkeys(flight.keys, failure).items())

    def fail(self, failure: Failure) -> None:
        if isinstance(failure, GivenUp | StoreFailure):  # others are those of keys, and settled
            self.failure = self.failure or failure
            self.over = True

    def end(self) -> None:
        """Let those look again of whose keys nothing has come, but for failures of a store."""
        self._pool.retire(self._leader, self._who)
        if self._unsettled:
            outcome = self.failure if isinstance(self.failure, StoreFailure) else MISSING
            rest = [key for key, wanted in self._drawn.items() if not wanted.settled]
            self._settle(dict.fromkeys(rest, outcome).items())
        self._drawn, self.failure = {}, None  # as `Plan.forget`
        del self._leader

    def _settle(self, outcomes: Iterable[tuple[Hashable, Any]]) -> None:
        drawn = self._drawn
        bells: set[Bell] = set()
        for key, outcome in outcomes:
            wanted = drawn[key]
            wanted.outcome = outcome
            wanted.settled = True
            bells.add(wanted.bell)
            self._unsettled -= 1
        for bell in bells:
            bell.ring()
