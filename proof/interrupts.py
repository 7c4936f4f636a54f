"""Points 8 and 14 of the contract: Ctrl-C at thousands of random moments.

`python proof/interrupts.py` sends a real SIGINT while the main thread is in ``map()``, again and
again, in each of several modes. After each one: `KeyboardInterrupt` came out before two seconds had
passed (which is there to notice a hang; all stacks are shown then), no key is in flight, nobody
waits, every slot comes back, and the next ``map()`` of the same keys gives the right answer.

Prints a table, and exits with 1 if anything failed. Interrupts that came elsewhere, and those that
Python or trio could not cope with themselves, are counted apart. All happen in child processes; one
that dies counts as a failure, and another takes its place.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any, Literal

import anyio

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy._engine import portal as _portal
from batchproxy.testing import assert_idle, look

Backend = Literal["asyncio", "trio"]

LANDED = "in map()"
ELSEWHERE = "elsewhere"  # beside map(), in this script or in the event loop
THROWN_AWAY = "thrown away"  # by Python: it came in a finaliser, or in a callback of a weakref
FAILED = "failed"
# An interrupt can cut short trio's Nursery.start_soon, or anyio on its way into or out of one; trio
# then waits for a child that never runs, or gives up. Every program with task groups has that, so
# it is counted apart.
IN_NURSERY = "in a nursery of trio"

HEADINGS = {
    "landed (in map)": LANDED,
    "elsewhere": ELSEWHERE,
    "thrown away by Python": THROWN_AWAY,
    "broke a nursery of trio": IN_NURSERY,
    "failures": FAILED,
}

KEYS = list(range(8))
RIGHT = [f"value of {key}" for key in KEYS]
DELAY = 0.004  # seconds at most before an interrupt; a map() takes about as long
PATIENCE = 2.0  # seconds until what does not go on is taken for a hang

# On trio it may come between the making of a coroutine and its start, which Python remarks on.
IGNORED = ["-W", "ignore:coroutine:RuntimeWarning"]

rng = random.Random()
pause = 0.0  # seconds that a call takes; with 0 the interrupt comes while the library is at work


def must_go_on() -> None:
    """Unless this is called again in time, all stacks are shown and the process dies."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.0001)


class Presser:
    """Presses Ctrl-C when asked to, from a thread of its own."""

    def __init__(self) -> None:
        self.thrown_away = False
        self._delays: SimpleQueue[float] = SimpleQueue()
        sys.unraisablehook = self._note
        threading.Thread(target=self._run, daemon=True).start()

    def press_soon(self) -> None:
        self.thrown_away = False
        self._delays.put(rng.uniform(0, DELAY))

    def _run(self) -> None:
        while True:
            time.sleep(self._delays.get())
            must_go_on()
            os.kill(os.getpid(), signal.SIGINT)

    def _note(self, unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            self.thrown_away = True
        else:
            sys.__unraisablehook__(unraisable)


def place(error: BaseException) -> str:
    """Where the interrupt came: LANDED or ELSEWHERE."""
    codes = {BatchingMapProxy.map.__code__, AsyncBatchingMapProxy.map.__code__}
    frames = traceback.walk_tb(error.__traceback__)
    return LANDED if any(frame.f_code in codes for frame, _ in frames) else ELSEWHERE


# --- What is mapped ---


def compute(items: list[Any]) -> list[str]:
    time.sleep(pause)
    return [f"value of {item}" for item in items]


async def compute_async(items: list[Any]) -> list[str]:
    await anyio.sleep(pause)
    return [f"value of {item}" for item in items]


# --- How ---


class Mode(ABC):
    """A way to call ``map()``, to be interrupted."""

    def __init__(self, presser: Presser) -> None:
        self.presser = presser
        self.cache = Cache[str]()

    @abstractmethod
    def interrupt(self) -> str:
        """Call ``map()`` until an interrupt comes; says where it came."""

    @abstractmethod
    def check(self) -> None:
        """Nothing is left behind, and the next ``map()`` is right."""


class Sync(Mode):
    """The synchronous proxy; an interrupt is only raised while ``map()`` is called."""

    def __init__(
        self, presser: Presser, max_concurrency: int | None = None, backend: Backend = "asyncio"
    ) -> None:
        super().__init__(presser)
        self.proxy = BatchingMapProxy[Any, str](
            2, max_concurrency, cache=self.cache, backend=backend
        )
        self.armed = self.handled = self.raised = False
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.handled = True
        if self.armed:
            self.raised = True
            raise KeyboardInterrupt

    def interrupt(self) -> str:
        self.handled = self.raised = False
        self.presser.press_soon()
        function = rng.choice(self.functions())
        while not self.handled:
            self.cache.clear()
            self.before()
            try:
                self.armed = True
                answer = RIGHT if self.handled else self.proxy.map(KEYS, function)
                self.armed = False
            except KeyboardInterrupt as error:
                self.armed = False
                must_go_on()
                self.after()
                return place(error)
            self.after()
            assert answer == RIGHT, answer
        if not self.raised:
            return ELSEWHERE
        assert self.presser.thrown_away, "the interrupt was swallowed"
        return THROWN_AWAY

    def functions(self) -> list[Callable[[list[Any]], list[str]]]:
        if self.proxy.max_concurrency is not None:
            return [compute]  # what is nested in a worker thread goes on as it does
        return [compute, self.nested]

    def nested(self, items: list[Any]) -> list[str]:
        self.proxy.map([("part", item) for item in items], compute)
        return compute(items)

    def before(self) -> None:
        pass

    def after(self) -> None:
        self.assert_idle()

    def check(self) -> None:
        assert self.proxy.map(KEYS, compute) == RIGHT
        self.assert_idle()
        until(lambda: not look(self.proxy).slots)

    def assert_idle(self) -> None:
        now = look(self.proxy)
        left = len(now.in_flight), now.waiting, now.running, now.blocked
        assert left == (0, 0, 0, 0), now
        assert not any(portal.calls for portal in _portal._portals.values())


class Waiting(Sync):
    """The synchronous proxy while another thread, which nobody interrupts, computes the keys."""

    def __init__(self, presser: Presser) -> None:
        super().__init__(presser)
        self.other = BatchingMapProxy[Any, str](cache=self.cache)
        self.asked: SimpleQueue[None] = SimpleQueue()
        self.begun: SimpleQueue[None] = SimpleQueue()
        self.answers: SimpleQueue[list[str]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.asked.get()
            self.answers.put(self.other.map(KEYS, self._compute))

    def _compute(self, items: list[Any]) -> list[str]:
        self.begun.put(None)
        time.sleep(rng.uniform(0, DELAY))
        return compute(items)

    def before(self) -> None:
        self.asked.put(None)
        self.begun.get()

    def after(self) -> None:
        assert self.proxy.statistics().waiting == 0
        assert self.answers.get() == RIGHT
        self.assert_idle()


class Async(Mode):
    """`anyio.run` of the asynchronous proxy: of one call, of several in tasks, of nested ones."""

    def __init__(self, presser: Presser, backend: Backend) -> None:
        super().__init__(presser)
        self.backend = backend
        self.proxies = [
            AsyncBatchingMapProxy[Any, str](batch_size, 3, cache=self.cache)
            for batch_size in (None, 2)
        ]

    def interrupt(self) -> str:
        where = ELSEWHERE
        proxy = rng.choice(self.proxies)

        async def nested(items: list[Any]) -> list[str]:
            await proxy.map([("part", item) for item in items], compute_async)
            return await compute_async(items)

        function = rng.choice([compute_async, nested])

        async def main() -> None:
            nonlocal where
            if self.backend == "trio":
                handle = signal.getsignal(signal.SIGINT)
                signal.signal(signal.SIGINT, partial(self._look, handle))
            self.presser.press_soon()
            while not self.presser.thrown_away:
                self.cache.clear()
                try:
                    answer = await proxy.map(KEYS, function)
                except BaseException as error:
                    where = place(error)
                    raise
                assert answer == RIGHT, answer
            where = THROWN_AWAY

        try:
            anyio.run(main, backend=self.backend)
        except KeyboardInterrupt:
            must_go_on()
        else:
            assert where == THROWN_AWAY, "the interrupt was swallowed"
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.assert_idle()
        return where

    def _look(self, handle: Any, number: int, frame: FrameType | None) -> None:
        """Tell the parent if trio, or anyio on top of it, was just busy with a nursery."""
        for inner, _ in traceback.walk_stack(frame):
            name, file = inner.f_code.co_name, inner.f_code.co_filename
            if name in ("start_soon", "__aenter__", "__aexit__") and (
                "trio" in file or "anyio" in file
            ):
                os.write(1, f"{IN_NURSERY}\n".encode())
                break
        handle(number, frame)

    def check(self) -> None:
        for proxy in self.proxies:
            assert anyio.run(proxy.map, KEYS, compute_async, backend=self.backend) == RIGHT
        self.assert_idle()

    def assert_idle(self) -> None:
        assert_idle(*self.proxies)


MODES: dict[str, Callable[[Presser], Mode]] = {
    "calling-thread": Sync,
    "waiting": Waiting,
    "workers": partial(Sync, max_concurrency=3),
    "asyncio": partial(Async, backend="asyncio"),
    "trio": partial(Async, backend="trio"),
    "trio-portal": partial(Sync, backend="trio"),
    "trio-portal-workers": partial(Sync, max_concurrency=3, backend="trio"),
}


# --- Child and parent ---


def interrupt_again_and_again(mode: str, times: int) -> None:
    """The child: prints for each interrupt where it came, or that what had to hold did not."""
    global pause
    # A shell that starts this with & has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    must_go_on()
    subject = MODES[mode](Presser())
    for _ in range(times):
        must_go_on()
        pause = rng.choice([0, 0, 0.0003])
        try:
            where = subject.interrupt()
            must_go_on()
            subject.check()
        except BaseException:
            traceback.print_exc()
            print(FAILED, flush=True)
            break  # who knows in what state this is
        print(where, flush=True)
    must_go_on()  # and exit


def count(mode: str, times: int, seed: str) -> Counter[str]:
    """Where the interrupts came, over as many children as it takes."""
    counted: Counter[str] = Counter()
    while (left := times - counted.total()) > 0:
        arguments = ["--child", "--mode", mode, "--times", str(left)]
        child = subprocess.Popen(
            [sys.executable, *IGNORED, __file__, *arguments, "--seed", f"{seed} {mode} {left}"],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # a Ctrl-C in the terminal is for the parent
        )
        assert child.stdout is not None
        kind = FAILED
        try:
            for line in child.stdout:
                where = line.rstrip("\n")
                if where == IN_NURSERY:
                    kind = IN_NURSERY
                else:
                    counted[kind if where == FAILED else where] += 1
                    kind = FAILED
            status = child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        finally:
            child.kill()
        if status != 0:
            print(f"{mode}: a child ended with {status}", file=sys.stderr)
            counted[kind] += 1
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description="Ctrl-C at random moments of map().")
    parser.add_argument("--times", type=int, default=500, help="interrupts in each mode")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES), metavar="NAME")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        rng.seed(given.seed)
        interrupt_again_and_again(given.mode[0], given.times)
        return
    print(f"seed: {given.seed}\n")
    print("| mode | interrupts |", " | ".join(HEADINGS), "|")
    print("|---|--:" + "|--:" * len(HEADINGS) + "|", flush=True)
    failures = 0
    for mode in given.mode:
        counted = count(mode, given.times, given.seed)
        failures += counted[FAILED]
        cells = (counted[where] for where in HEADINGS.values())
        print("|", " | ".join(map(str, (mode, counted.total(), *cells))), "|", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
