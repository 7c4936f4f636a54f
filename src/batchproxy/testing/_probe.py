"""What is under way inside of proxies and caches. This alone knows the rooms that it looks into."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from .._backing import leases
from .._backing.backing import Backing
from .._cache import Cache
from .._core import waits
from .._engine.engine import Engine
from .._faces.async_proxy import AsyncBatchingMapProxy
from .._faces.proxy import BatchingMapProxy

Looked: TypeAlias = AsyncBatchingMapProxy[Any, Any] | BatchingMapProxy[Any, Any] | Cache[Any]


@dataclass(frozen=True, slots=True)
class Inside:
    """What proxies and caches have under way at one moment: a snapshot, which `look` takes."""

    in_flight: frozenset[Hashable]
    """Keys that are being read or computed, over everybody who shares the caches."""
    running: int
    """Calls of a ``map_func`` under way; those of the proxies that were looked at."""
    waiting: int
    """``map()`` calls asleep until a call of somebody else ends."""
    slots: int
    """Slots that the proxies have given to calls and threads."""
    queueing: int
    """Calls that wait for a slot, nested ones also for that of the call around them."""
    claiming: int
    """Calls that have claims in the store of a cache, or had, and have not given them back yet."""
    writing: int
    """Calls whose results are on their way into the store."""
    forgetting: int
    """``prime()``, ``invalidate()`` and ``clear()`` at work on a store, or waiting to be."""
    unwritten: int
    """Results that the store did not take, and that are kept until it does. They may stay."""
    blocked: int
    """Calls and event loops that cannot go on before a nested ``map()`` does, in this process."""
    loading: int = 0
    """``load()`` calls under way whose key was not in memory; those of the proxies."""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way; `unwritten` results may be there."""
        under_way = [each.name for each in fields(self) if each.name != "unwritten"]
        return not any(getattr(self, name) for name in under_way)


def look(*things: Looked) -> Inside:
    """See what is under way.

    Args:
        things: Proxies of both kinds, and caches. What several of them share counts once.

    Returns:
        A snapshot, in which calls of other threads may be half-way from one state to the next.

    Threads: May be called in any. No checkpoint.
    """
    engines = [each._engine for each in things if not isinstance(each, Cache)]
    caches = list(
        dict.fromkeys(each if isinstance(each, Cache) else each._engine.cache for each in things)
    )
    backings = [cache._backing for cache in caches if cache._backing is not None]
    slots, queueing = _slots(engines)
    return Inside(
        in_flight=frozenset(key for cache in caches for key in cache._table.in_flight()),
        running=sum(engine.statistics().running for engine in engines),
        waiting=_waiting(engines, caches),
        slots=slots,
        queueing=queueing,
        loading=sum(loads.under_way for engine in engines for loads in engine.loads.all()),
        claiming=sum(map(_claiming, backings)),
        writing=sum(len(backing.writers._pending) for backing in backings),
        forgetting=sum(backing.writers._forgetting for backing in backings),
        unwritten=sum(len(backing._unwritten.results) for backing in backings),
        blocked=len(waits._blocked),
    )


def _waiting(engines: list[Engine], caches: list[Cache[Any]]) -> int:
    # The calls of which keys are in flight, and those whose keys were all forgotten.
    flights = {flight for engine in engines for flight in engine._counters.running.copy()}
    for cache in caches:
        flights |= cache._table.under_way()
    # After a fork there are calls of the parent among them, which are done here.
    waiters = [flight.waiters.copy() for flight in flights if not flight.done]
    return len(set[object]().union(*waiters))


def _slots(engines: list[Engine]) -> tuple[int, int]:
    """How many are taken, and how many calls wait for one."""
    limits = {engine.limit for engine in engines if engine.limit is not None}
    limiters = [limiter for limit in limits for limiter in list(limit._limiters.values())]
    lenders = [
        flight.slot._lender
        for engine in engines
        for flight in engine._counters.running.copy()
        if flight.slot is not None and flight.slot._lender is not None
    ]
    queueing = sum(each.statistics().tasks_waiting for each in limiters + lenders)
    return sum(each.borrowed_tokens for each in limiters), queueing


def _claiming(backing: Backing) -> int:
    process = leases.this_process()
    owner = backing._owner
    with process.lock:
        owners = [grant.owner for group in process._claiming.values() for grant in group]
        for keeper in process._keepers.values():
            owners += [release.owner for release in keeper._releases.values()]
            if keeper._releasing is not None:
                owners.append(keeper._releasing.owner)
        return owners.count(owner)


def assert_idle(*things: Looked) -> None:
    """Fail unless nothing is under way, and what the proxies have counted adds up.

    Claims in a store are given back by a thread: for that it waits, two seconds at most.

    Args:
        things: As `look` takes them.

    Raises:
        AssertionError: Something is under way; the message says what.

    Threads: May be called in any. No checkpoint.
    """
    end, inside = time.monotonic() + 2, look(*things)
    while inside.claiming and time.monotonic() < end:  # a thread may be giving them back
        time.sleep(0.01)
        inside = look(*things)
    if not inside.idle:
        raise AssertionError(f"something is left: {inside}")
    for each in things:
        if not isinstance(each, Cache):
            now = each.statistics()
            if now.calls != now.completed + now.failed + now.cancelled:
                raise AssertionError(f"the calls do not add up: {now}")


def wait_released(seconds: float = 10.0) -> None:
    """Wait until the claims that calls have left in stores are given back, or the store has failed.

    That is done by threads, since nobody waits for a store in clean-up.

    Args:
        seconds: The longest to wait.

    Threads: Blocks: in an event loop, call it in a worker thread.
    """
    leases.this_process().flush(seconds)
