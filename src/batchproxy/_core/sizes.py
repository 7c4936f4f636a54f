"""How many keys a call may have: what the user said, or less where batches were too large."""

from __future__ import annotations

FULL = 8
"""After so many full batches that were answered, they may be larger again."""


class Size:
    """The size of the batches of one proxy.

    Threads: It is read and changed in any, without a lock. One change may be lost to another of the
    same moment, which costs a call or two.
    """

    __slots__ = ("_full", "_given", "now", "reduced")

    def __init__(self, given: int) -> None:
        self._given = given
        self.now = given
        """The most keys of the next call."""
        self.reduced = False
        """Whether that is, or was a moment ago, less than the user said."""
        self._full = 0

    def too_large(self, half: int) -> None:
        """Of a batch that was refused both halves were answered, of which the larger is `half`."""
        self.now = min(self.now, half)
        self.reduced = True
        self._full = 0

    def answered(self, count: int) -> None:
        """A whole batch of `count` keys was answered while batches are `reduced`."""
        if count < self.now:
            return
        self._full += 1
        if self._full >= FULL:  # or more, if two threads have counted at once
            self.now, self._full = min(self._given, self.now + -(-self.now // 8)), 0
            self.reduced = self.now < self._given
