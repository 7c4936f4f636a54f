"""What the tests share: callers at once, virtual time, a settled event loop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import math
import random
import selectors
import signal
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from batchproxy.testing import assert_idle

Backend = Literal["asyncio", "trio"]

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
modes = pytest.mark.parametrize(
    "max_concurrency", [pytest.param(None, id="calling thread"), pytest.param(2, id="workers")]
)

each_way = pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"backend": backend, "max_concurrency": number},
            id=f"{backend}, max_concurrency={number}",
            marks=[pytest.mark.needs_trio] if backend == "trio" else [],
        )
        for backend in ("asyncio", "trio")
        for number in (None, 2)
    ],
)
"""What synchronous proxies are made with."""

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


async def step(function: Callable[..., object], *args: Any) -> None:
    """Do something that others wait for, and let them go on until they wait again."""
    function(*args)
    await settle()


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


def running_loop() -> object:
    """The event loop that runs this; of trio, what stands for it."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return sys.modules["trio"].lowlevel.current_trio_token()


def is_held(lock: Any) -> bool:
    """Whether this thread, or any, holds `lock`: another one cannot have it."""
    with ThreadPoolExecutor(1) as other:
        if taken := other.submit(lock.acquire, blocking=False).result():
            other.submit(lock.release).result()
    return not taken


class Interrupt(BaseException):
    """What a signal may raise anywhere."""


def contexts(error: BaseException) -> list[str]:
    """What was being handled where `error` was raised, and what was where that was raised."""
    found = []
    while (context := error.__context__) is not None:
        found.append(str(context))
        error = context
    return found


class Incomparable:
    """A key that cannot be compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise TypeError("not with me")


class Thing:
    """What may be referred to weakly."""


@contextmanager
def freed_at_once() -> Iterator[list[Any]]:
    """What the list refers to at the end of the block is freed without the collector.

    A free-threaded build may need that for what threads have made: there no cycle is noticed.
    """
    collect()
    gc.disable()
    left: list[weakref.ref[Any]] = []

    def freed() -> bool:
        if FREE_THREADED:
            gc.collect()
        return not [each for each in left if each() is not None]

    try:
        yield left
        assert left
        until(freed)  # a thread may have it
    finally:
        gc.enable()


class Outcomes:
    """Runs several callers at once, and keeps what each of them returned or raised."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self.results: dict[Any, Any] = {}
        self.scopes: dict[Any, anyio.CancelScope] = {}

    def start(
        self, name: Any, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> None:
        """Start a caller in a cancel scope of its own."""

        async def caller() -> None:
            with anyio.CancelScope() as self.scopes[name]:
                try:
                    self.results[name] = await function(*args, **options)
                except Exception as error:
                    self.results[name] = error
            if self.scopes[name].cancelled_caught:
                self.results[name] = "cancelled"

        self._group.start_soon(caller)

    def each(self, function: Callable[..., Awaitable[Any]], items: Iterable[Any]) -> None:
        """Start a caller for each item, which is its name, too."""
        for item in items:
            self.start(item, function, item)

    async def begin(
        self, name: Any, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> None:
        """Start a caller, and let it run until it waits for something."""
        self.start(name, function, *args, **options)
        await settle()

    async def cancel(self, name: Any) -> None:
        """Cancel a caller, and let it leave."""
        self.scopes[name].cancel()
        await settle()


@asynccontextmanager
async def together(*things: Any) -> AsyncIterator[Outcomes]:
    """Callers at once, who have all ended at the end of the block; then these things are idle."""
    async with anyio.create_task_group() as group:
        yield Outcomes(group)
    assert_idle(*things)


class Thread(threading.Thread):
    """A caller in a thread of its own. What it returned, or raised, is its `outcome`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._args = args
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._function(*self._args)
        except BaseException as error:
            self._outcome = error

    def until(self, condition: Callable[[], object]) -> Self:
        """This caller, as soon as it has come so far."""
        until(condition)
        return self

    def outcome(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "this thread hangs"
        return self._outcome


@contextmanager
def interrupted_when(condition: Callable[[], object]) -> Iterator[None]:
    """What the main thread does inside is ended by one Ctrl-C, as soon as `condition` holds.

    A signal that comes in the instant before a thread falls asleep does not wake it: it is sent
    again until it has been handled, and raises once.
    """
    handled: list[int] = []

    def handle(number: int, _: object) -> None:
        handled.append(number)
        if len(handled) == 1:
            raise KeyboardInterrupt

    def interrupt() -> None:
        until(condition)
        while not handled:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, handle)
    thread = Thread(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
        assert thread.outcome() is None
    finally:
        signal.signal(signal.SIGINT, before)


class Clock:
    """A monotonic clock that stands still."""

    def __init__(self) -> None:
        self.now = float(math.ceil(time.monotonic()))  # so that sums are exact

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What ``time.monotonic()`` tells."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


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


def eager_loop() -> asyncio.AbstractEventLoop:
    """Such a loop, in which tasks begin at once."""
    loop = VirtualTimeLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined] # 3.12
    return loop


class ShuffledLoop(VirtualTimeLoop):
    """What is ready at the same time runs in any order; seed `random` before."""

    _ready: Any

    def _run_once(self) -> None:
        random.shuffle(self._ready)
        super()._run_once()  # type: ignore[misc] # typeshed does not tell


def backend_options(name: str, *, debug: bool | None = None) -> dict[str, Any]:
    """What `anyio.run` needs for one of BACKENDS, or "shuffled". All but uvloop have virtual time.

    Only "asyncio" can `debug`; if that is not said, it does where Python is in development mode.
    """
    match name:
        case "asyncio":
            return {"debug": debug, "loop_factory": VirtualTimeLoop}
        case "shuffled":
            return {"loop_factory": ShuffledLoop}
        case "eager":
            return {"loop_factory": eager_loop}
        case "uvloop":
            return {"use_uvloop": True}
        case _:
            from trio.testing import MockClock

            return {"clock": MockClock(autojump_threshold=0)}


BACKENDS: list[Any] = [
    "asyncio",
    pytest.param(
        "eager",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of 3.12"),
    ),
    "uvloop",
    "trio",
]


def never(items: list[Any]) -> list[str]:
    """A batch function that is not to be called."""
    raise AssertionError(f"called with {items}, which was known, or another call was computing")


async def never_asked(items: list[Any]) -> list[str]:
    """The same for tasks."""
    return never(items)


async def all_at_once(function: Callable[..., Awaitable[Any]], items: Iterable[Any]) -> Any:
    """What came of a caller for each item."""
    async with together() as callers:
        callers.each(function, items)
    return callers.results


def naive(items: Iterable[Any], f: Callable[[Any], Any] = str) -> list[Any]:
    """What any proxy must be equal to."""
    return [f(item) for item in items]
