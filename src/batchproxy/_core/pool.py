"""Keys that wait for somebody to call for them: load() calls gather here. Plain methods, no await.

Whenever a pool is not empty it has exactly one *recruiter*, who is one of those who wait. The
recruiter gets a slot, draws a full batch, its own key included, and calls for it; another is named
the moment that call begins, or when the recruiter leaves, in whichever way. A pool belongs to one
event loop, so nothing here is locked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

from .flights import Flight
from .outcome import MISSING, Failure, GivenUp, Outcome, StoreFailure
from .plan import Plan

GROUP = 100
"""Keys that share a bell: to wake one of those who wait, no more than so many are woken."""


class Bell(Protocol):
    """What wakes all who sleep until it rings."""

    def wait(self) -> Awaitable[None]: ...

    def ring(self) -> None: ...


class Meeting(Protocol):
    """Those who wait for a call that was under way before."""

    loads: int
    flight: Flight

    def wait(self) -> Awaitable[None]: ...

    def leave(self) -> None: ...


class Wanted:
    """A key that is waited for in a pool, by one ``load()`` or by several."""

    __slots__ = ("bell", "item", "key", "led", "loads", "meeting", "outcome", "settled", "source")

    def __init__(self, key: Hashable, item: Any, bell: Bell) -> None:
        self.key = key
        self.item = item
        self.bell = bell
        self.loads = 0  # those who wait for it
        self.led: object = None  # who of them recruits
        # Whether its batch is through with it: then there is a result, or a Failure; or it is in
        # flight elsewhere; or nothing came of it, and whoever wants it looks again.
        self.settled = False
        self.outcome: Any = MISSING
        self.meeting: Meeting | None = None
        # Keys shared and stored, as the first of those who get it counts it; the others share.
        self.source: tuple[int, int] = (0, 0)


class Pool:
    """Those who wait for a call, in the order in which they came."""

    __slots__ = ("_bell", "_new_bell", "_room", "_waiting", "recruiter")

    def __init__(self, new_bell: Callable[[], Bell]) -> None:
        self._new_bell = new_bell
        self._bell: Bell | None = None  # of the last to come, for some more
        self._room = 0
        # In which the first can be taken out, again and again, without a walk over the gaps.
        self._waiting: OrderedDict[Hashable, Wanted] = OrderedDict()
        self.recruiter: Wanted | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nobody recruits."""
        return not self._waiting and self.recruiter is None

    def join(self, key: Hashable, item: Any) -> Wanted:
        """Wait for `key`, with others if it is waited for; the first to come is the recruiter."""
        wanted = self._waiting.get(key)
        if wanted is None:
            if self._bell is None or not self._room:
                self._bell, self._room = self._new_bell(), GROUP
            self._room -= 1
            wanted = self._waiting[key] = Wanted(key, item, self._bell)
            if self.recruiter is None:
                self.recruiter = wanted
        wanted.loads += 1
        return wanted

    def lead(self, wanted: Wanted, who: object) -> bool:
        """Whether `who` is to recruit now: the first to ask of those who wait for that key."""
        if self.recruiter is not wanted or wanted.led is not None:
            return False
        wanted.led = who
        return True

    def retire(self, wanted: Wanted, who: object) -> None:
        """Another is named if `who` recruits, who does so no more. Twice is fine."""
        if wanted.led is who:
            self._name()
            wanted.led = None

    def leave(self, wanted: Wanted) -> None:
        """One of those who wait for `wanted` goes; who has led retires before."""
        wanted.loads -= 1
        if not wanted.loads and self._waiting.get(wanted.key) is wanted:
            del self._waiting[wanted.key]
            if self.recruiter is wanted:
                self._name()
        if not self._waiting:
            self._bell = None  # which may know the event loop

    def _name(self) -> None:
        self.recruiter = next(iter(self._waiting.values()), None)
        if self.recruiter is not None:
            self.recruiter.bell.ring()

    def draw(self, size: int) -> list[Wanted]:
        """Take out the first `size`, or as many as there are."""
        waiting = self._waiting
        if size >= len(waiting):
            batch = list(waiting.values())
            waiting.clear()
            return batch
        batch = list(islice(waiting.values(), size))
        for wanted in batch:
            del waiting[wanted.key]
        return batch

    def put_back(self, batch: list[Wanted]) -> list[Wanted]:
        """Put `batch`, which was drawn, back to the front, but for what nobody wants any more.

        Gives those for whose key others have come to wait meanwhile.
        """
        outdone = []
        for wanted in reversed(batch):
            if wanted.key in self._waiting:
                outdone.append(wanted)
            elif wanted.loads:
                self._waiting[wanted.key] = wanted
                self._waiting.move_to_end(wanted.key, last=False)
        return outdone


class Gathered(Plan):
    """What a recruiter computes: keys of its pool, drawn when they are claimed.

    Who waits for one is told as soon as anything has come of it. Others' calls are not awaited
    here: whoever wants a key of such a call does that.
    """

    __slots__ = ("_drawn", "_leader", "_meet", "_pool", "_reading", "_unsettled", "_who")

    def __init__(
        self,
        pool: Pool,
        leader: Wanted,
        who: object,
        meet: Callable[[Flight], Meeting],
        *,
        reading: bool = False,
    ) -> None:
        # Not that of `Plan`, which costs as much as all of this: it has no list, nor will have one.
        self._pool = pool
        self._leader = leader
        self._who = who
        self._meet = meet
        self._reading = reading  # only to look in a store: others may do so at the same time
        self._drawn: dict[Hashable, Wanted] = {}
        self._unsettled = 0  # of those drawn
        self.left = len(pool)
        self.spare = 0
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
        batch = self._pool.draw(1 if mine else size)
        fresh = [wanted for wanted in batch if wanted.key not in self._drawn]
        self.left = len(self._pool)
        if len(fresh) < len(batch):  # a key was forgotten since it was drawn: they want it anew
            self._pool.put_back([wanted for wanted in batch if wanted.key in self._drawn])
            self.left = 0
        for wanted in fresh:
            self._drawn[wanted.key] = wanted
        self._unsettled += len(fresh)
        if self._reading and not (mine and self.left):
            self._depart()
        return [wanted.key for wanted in fresh]

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

    def claim(self, flight: Flight) -> None:
        self._depart()

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        for key, flight in flying.items():
            wanted = self._drawn[key]
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

    def fail(self, failure: Failure) -> None:
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
