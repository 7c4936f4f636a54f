"""What a ``fork`` waits for, and the objects that it has to go through in the child.

The child could never end what another thread has begun.

A module that one thread is importing when another one forks stays locked in the child, where
nobody will ever have imported it. So whatever this library imports late, it imports in here.
"""

from __future__ import annotations

import logging  # noqa: F401 - see below
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

_PATIENCE = 10.0
"""Seconds for which a fork waits, so that an import which itself waits for it is no deadlock."""

_lock = threading.RLock()
_forking = threading.local()


def unforked() -> threading.RLock:
    """Held by a ``with``, it keeps other threads from forking; for imports, which are short."""
    return _lock


def _before_fork() -> None:
    _forking.waited = _lock.acquire(timeout=_PATIENCE)


def _after_fork_in_parent() -> None:
    if _forking.waited:
        _lock.release()


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


def at_fork(**hooks: Callable[[], object]) -> None:
    """`os.register_at_fork`, where there are forks."""
    if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has none
        os.register_at_fork(**hooks)


# What is registered last comes first. A fork takes the lock of logging, too, and what is imported
# in here may want that: so it has to take this lock before.
at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_reset_after_fork
)


T = TypeVar("T")


class Alive(Generic[T]):
    """The living objects of a kind, wherever they are, for what a fork or the exit does to all.

    It does not keep them alive. From any thread, without a lock. Not a WeakSet, which raises if
    another thread makes an object while one goes through it.

    Args:
        reset: What is done with each of them after a fork, in the child.
    """

    def __init__(self, reset: Callable[[T], None] | None = None) -> None:
        self._refs: dict[ref[T], None] = {}
        if reset is not None:

            def reset_all() -> None:
                for each in self.all():
                    reset(each)

            at_fork(after_in_child=reset_all)

    def add(self, each: T) -> None:
        """Know of `each` as long as it lives. Twice is fine."""
        self._refs.setdefault(ref(each, self._refs.pop))

    def all(self) -> list[T]:
        """Those that are alive now, in the order in which they were added."""
        # A dict is copied in one step, also without a GIL.
        return [each for known in self._refs.copy() if (each := known()) is not None]
