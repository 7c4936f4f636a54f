"""What a ``fork`` waits for, since the child could never end what another thread has begun.

A module that one thread is importing when another one forks stays locked in the child, where
nobody will ever have imported it. So whatever this library imports late, it imports in here.
"""

from __future__ import annotations

import logging  # noqa: F401 - see below
import os
import threading

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


# What is registered last comes first. A fork takes the lock of logging, too, and what is imported
# in here may want that: so it has to take this lock before.
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_reset_after_fork,
    )
