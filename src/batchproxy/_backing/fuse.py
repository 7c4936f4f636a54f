"""When a store that has failed is left alone, and when it is tried again. Takes no part in I/O."""

from __future__ import annotations

import math
import threading
import time
from typing import NamedTuple

_FIRST, _LONGEST = 1.0, 30.0
"""Seconds of the shortest pause and of the longest."""

_SHARE = 4
"""A pause is so many times as long as the call that failed took: a store that stalls for its whole
time limit costs a fifth of the time at most, until the pause is the longest."""


class Attempt(NamedTuple):
    """A call that was let through."""

    blown: int
    begun: float


class Fuse:
    """Lets calls through until one fails; then, after a pause, one at a time until one works.

    Each pause is at least twice as long as the one before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pause = 0.0  # 0 while calls are let through
        self._next = -math.inf  # when the next may try
        self._blown = 0  # how often: of calls that were under way together one failure counts

    def attempt(self) -> Attempt | None:
        """What to `end` when the call has been made; None if none is to be made now."""
        with self._lock:
            now = time.monotonic()
            if self._pause:
                if now < self._next:
                    return None
                self._next = now + self._pause  # the others go on without meanwhile
            return Attempt(self._blown, now)

    def end(self, attempt: Attempt, *, worked: bool) -> None:
        """Say what came of a call."""
        with self._lock:
            if attempt.blown != self._blown:
                return
            if worked:
                self._pause = 0.0
                return
            now = time.monotonic()
            self._blown += 1
            pause = max(_FIRST, 2 * self._pause, _SHARE * (now - attempt.begun))
            self._pause = min(pause, _LONGEST)
            self._next = now + self._pause
