"""Who is blocked on whom, so that a map() that would wait for itself raises instead of hanging.

Nodes are flights, event loops and progress functions. A flight is blocked on the calls nested in
it, on those that a ``map()`` nested in it waits for, on the loop that it lives in, and, if it is
made in the thread that called ``map()``, on the progress function that is called there. A loop is
blocked while a synchronous ``map()`` occupies its thread, and such a function by what it calls.
Rings may run through several caches, so all share one graph and one lock. The search is the one of
importlib's module locks: before going to sleep, follow the edges from what one would wait for and
see whether they lead back to oneself.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from threading import RLock
from typing import TypeAlias

from .._errors import CircularWaitError
from .._forks import at_fork
from .._messages import short_list
from .flights import Elsewhere, Flight

Awaited: TypeAlias = Mapping[Flight, Collection[Hashable]]
"""Flights, with the keys that are wanted of each."""

_lock = RLock()
# node → {who added the edge: what the node is blocked on}
_blocked: dict[object, dict[object, Awaited]] = {}


def block(token: object, nodes: Collection[object], awaited: Awaited) -> None:
    """Note that each of `nodes` is blocked on all that is `awaited`, until `unblock`."""
    if not nodes:
        return
    with _lock:
        for node in nodes:
            _blocked.setdefault(node, {})[token] = awaited


def unblock(token: object, nodes: Collection[object]) -> None:
    """Undo ``block(token, nodes, ...)``; twice is fine."""
    if not nodes:
        return
    with _lock:
        for node in nodes:
            edges = _blocked.get(node, {})
            edges.pop(token, None)
            if not edges:
                _blocked.pop(node, None)


def block_checked(token: object, nodes: Collection[object], awaited: Awaited) -> None:
    """`check` and `block` in one step: of two that close a ring at once, the second sees it."""
    with _lock:
        check(nodes, awaited)
        block(token, nodes, awaited)


def check(nodes: Collection[object], awaited: Awaited) -> None:
    """Refuse to let `nodes` wait for a flight of `awaited` that is blocked on one of `nodes`.

    Raises:
        CircularWaitError: the error names the keys that were wanted of that flight.
    """
    if not nodes:
        return
    with _lock:
        ring = _ring(nodes, awaited)
    if ring is not None:
        raise CircularWaitError(_explain(ring))


def _ring(nodes: Collection[object], awaited: Awaited) -> Collection[Hashable] | None:
    """What is wanted of the first that leads back. (The frame of `check` is in a traceback.)"""
    for flight, keys in awaited.items():
        if _leads_to(nodes, flight, keys):
            return keys
    return None


def _leads_to(nodes: Collection[object], start: Flight, keys: Collection[Hashable]) -> bool:
    seen: set[object] = set()
    ahead: list[tuple[object, Collection[Hashable]]] = [(start, keys)]
    while ahead:
        node, wanted = ahead.pop()
        if isinstance(node, Flight):
            if node.done:  # an edge to a call that has ended says nothing any more
                continue
            if isinstance(node, Elsewhere):  # which may lead on for some keys, and not for others
                ahead.extend(node.behind(wanted).items())
                continue
        if node in seen:
            continue
        seen.add(node)
        if node in nodes:
            return True
        if isinstance(node, Flight):
            ahead += [(other, ()) for other in (node.home, node.after) if other is not None]
        for awaited in _blocked.get(node, {}).values():
            ahead.extend(awaited.items())
    return False


def _explain(keys: Collection[Hashable]) -> str:
    return (
        f"map() would wait for itself: {short_list(keys)} is being computed by a call that cannot "
        "end before this map() does. Do not ask, inside a map_func or progress function, for keys "
        "that its map() is computing, nor, in synchronous code inside an event loop, for keys that "
        "a task of it is computing"
    )


def _reset_after_fork() -> None:
    global _lock
    _lock = RLock()
    _blocked.clear()


at_fork(after_in_child=_reset_after_fork)
