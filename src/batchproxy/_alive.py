"""The living objects of a kind, wherever they are: for what a fork or the exit does to all of them.

Not a WeakSet, which raises if another thread makes an object while one goes through it.
"""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class Alive(Generic[T]):
    """Objects that it does not keep alive. From any thread, without a lock."""

    def __init__(self) -> None:
        self._refs: set[ref[T]] = set()

    def add(self, each: T) -> None:
        """Know of `each` as long as it lives."""
        self._refs.add(ref(each, self._refs.discard))

    def all(self) -> list[T]:
        """Those that are alive now."""
        # A set is copied in one step, also without a GIL.
        return [each for known in self._refs.copy() if (each := known()) is not None]
