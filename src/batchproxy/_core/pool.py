"""Keys that wait for somebody to call for them: load() calls gather here. Plain methods, no await.

Whenever a pool is not empty it has exactly one *recruiter*, who is one of those who wait. The
recruiter gets a slot, draws a full batch, its own key included, and calls for it; another is named
the moment that call begins, or when the recruiter leaves, in whichever way. A pool belongs to one
event loop, so nothing here is locked.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from itertools import accumulate, islice
from typing import Any, Protocol

from .flights import Flight
from .outcome import MISSING

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

    __slots__ = (
        "bell",
        "item",
        "key",
        "led",
        "loads",
        "meeting",
        "outcome",
        "settled",
        "source",
        "weight",
    )

    def __init__(self, key: Hashable, item: Any, weight: float, bell: Bell) -> None:
        self.key = key
        self.item = item
        self.weight = weight
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

    def join(self, key: Hashable, item: Any, weight: float = 0) -> Wanted:
        """Wait for `key`, with others if it is waited for; the first to come is the recruiter."""
        wanted = self._waiting.get(key)
        if wanted is None:
            if self._bell is None or not self._room:
                self._bell, self._room = self._new_bell(), GROUP
            self._room -= 1
            wanted = self._waiting[key] = Wanted(key, item, weight, self._bell)
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
        self.recruiter = self.first()
        if self.recruiter is not None:
            self.recruiter.bell.ring()

    def first(self) -> Wanted | None:
        """Who has waited longest, if anybody waits."""
        return next(iter(self._waiting.values()), None)

    def draw(self, size: int, room: float = math.inf) -> list[Wanted]:
        """Take out the first `size` as far as they fit into `room`, or as many as there are."""
        waiting = self._waiting
        if size >= len(waiting) and room == math.inf:
            batch = list(waiting.values())
            waiting.clear()
            return batch
        batch = list(islice(waiting.values(), size))
        if room < math.inf:
            sums = [*accumulate([wanted.weight for wanted in batch])]
            del batch[bisect_right(sums, room) :]
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
