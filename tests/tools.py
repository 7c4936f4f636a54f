"""What the tests share: recorded batch functions, gates, virtual time, a settled event loop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import selectors
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from batchproxy import AsyncBatchingMapProxy, _digests, _rings

FREE_THREADED = "free-threading" in sys.version
"""Whether Python was built to run without a GIL, whether or not it has one now.

There an object whose last reference is dropped by another thread than the one that made it is freed
when the latter runs next, which may be much later if it waits for something, or by the collector;
what that object had, and a third thread has made, at the next opportunity.
"""


def collect() -> None:
    """Run the collector; in a free-threaded build as often as it may take, for the reason above."""
    for _ in range(20 if FREE_THREADED else 1):
        gc.collect()


async def settle(ticks: int = 30) -> None:
    """Let every task run until it waits for something. (No thread or timer takes part.)"""
    for _ in range(ticks):
        await checkpoint()


def _never() -> AssertionError:
    """What to raise for a condition that does not come; who may be why is in what pytest shows."""
    faulthandler.dump_traceback()
    threads = ", ".join(f"{each.name} of {id(each):x}" for each in threading.enumerate())
    return AssertionError(f"this never happens; there are the threads {threads}")


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another thread is about to do, and that tells nobody."""
    for _ in range(30_000):
        if condition():
            return
        time.sleep(0.001)
    raise _never()


async def happens(condition: Callable[[], object]) -> None:
    """As `until`, where the event loop has to go on. In real time: threads know no other."""
    for _ in range(30_000):
        if condition():
            return
        await checkpoint()
        time.sleep(0.001)  # noqa: ASYNC251 - there is nothing else for the loop to do
    raise _never()


def assert_idle(*proxies: AsyncBatchingMapProxy[Any, Any]) -> None:
    """Nothing is left behind: no key in flight, nobody waiting or queueing, no slot taken."""
    for proxy in proxies:
        now = proxy.statistics()
        assert (now.in_flight, now.waiting, now.running) == (0, 0, 0)
        assert now.calls == now.completed + now.failed + now.cancelled
        slots = proxy._engine._slots
        assert slots is not None
        for limiter in slots._limiters.values():
            assert limiter.borrowed_tokens == limiter.statistics().tasks_waiting == 0
    assert not _rings._blocked


class Calls:
    """A batch function that records its batches, and answers ``f(item)`` for each item.

    With `gated`, every call waits for `open()`, or for a `finish()` or `fail()` of its own.
    """

    def __init__(self, f: Callable[[Any], Any] = str, *, gated: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.running = 0
        self.most_running = 0
        self._f = f
        self._gated = gated
        self._gates: list[anyio.Event] = []
        self._errors: dict[int, BaseException] = {}

    async def __call__(self, items: list[Any]) -> list[Any]:
        number = len(self.batches)
        self.batches.append(items)
        gate = anyio.Event()
        self._gates.append(gate)
        if not self._gated:
            gate.set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await gate.wait()
        finally:
            self.running -= 1
        if number in self._errors:
            raise self._errors[number]
        return [self._f(item) for item in items]

    async def wait_begun(self, calls: int = 1) -> None:
        """Wait until there have been so many calls; for those that worker threads come before."""
        while len(self.batches) < calls:  # noqa: ASYNC110 - it is asked in a few tests only
            await anyio.sleep(0.001)

    def finish(self, number: int) -> None:
        """Let the call of that number answer."""
        self._gates[number].set()

    def fail(self, number: int, error: BaseException) -> None:
        """Let the call of that number, which is under way, raise `error`."""
        self.fail_at(number, error)
        self._gates[number].set()

    def fail_at(self, number: int, error: BaseException) -> None:
        """Let the call of that number raise `error` when it is let go."""
        self._errors[number] = error

    def open(self) -> None:
        """Let all calls answer, those to come too."""
        self._gated = False
        for gate in self._gates:
            gate.set()

    @property
    def keys(self) -> list[Any]:
        """Everything that was asked for, call after call."""
        return [item for batch in self.batches for item in batch]


class Outcomes:
    """Runs several callers at once, and keeps what each of them returned or raised."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self.results: dict[Any, Any] = {}
        self.scopes: dict[Any, anyio.CancelScope] = {}

    def start(self, name: Any, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a caller in a cancel scope of its own."""

        async def caller() -> None:
            with anyio.CancelScope() as self.scopes[name]:
                try:
                    self.results[name] = await function(*args)
                except Exception as error:
                    self.results[name] = error
            if self.scopes[name].cancelled_caught:
                self.results[name] = "cancelled"

        self._group.start_soon(caller)


class _VirtualTimeSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer it sets the clock to it."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if not (events := super().select(0)):
            self.loop.offset += timeout
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which an hour of sleep passes in no time. Not for threads."""

    def __init__(self) -> None:
        selector = _VirtualTimeSelector()
        selector.loop = self
        self.offset = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return super().time() + self.offset


def naive(items: Iterable[Any], f: Callable[[Any], Any] = str) -> list[Any]:
    """What any proxy must be equal to."""
    return [f(item) for item in items]


def names(*keys: Hashable) -> list[bytes]:
    """What `keys` are called in a store."""
    return _digests.digests(keys)
