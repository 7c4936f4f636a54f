"""Batch functions that record their batches, and can be held up and made to fail."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import anyio


class _Gate(Protocol):
    def set(self) -> object: ...


G = TypeVar("G", bound=_Gate)


class _Recorder(ABC, Generic[G]):
    """What the two have in common. Their gates are events, of threads or of tasks."""

    def __init__(self, function: Callable[[Any], Any] = str, *, gated: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.running: int = 0
        self.most_running: int = 0
        self._function = function
        self._gated = gated
        self._gates: list[G] = []
        self._errors: dict[int, BaseException] = {}
        self._begun: list[tuple[int, G]] = []  # who waits for so many calls
        self._lock = threading.Lock()

    @abstractmethod
    def _gate(self) -> G:
        """A gate, closed."""

    def _begin(self, items: list[Any]) -> tuple[int, G]:
        gate = self._gate()
        with self._lock:
            number = len(self.batches)
            self.batches.append(list(items))  # callers may change theirs
            self._gates.append(gate)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            if not self._gated:
                gate.set()
            for calls, begun in self._begun:
                if calls <= len(self.batches):
                    begun.set()
        return number, gate

    def _end(self) -> None:
        with self._lock:
            self.running -= 1

    def _answer(self, number: int, items: list[Any]) -> list[Any]:
        if number in self._errors:
            raise self._errors[number]
        return [self._function(item) for item in items]

    def _begun_gate(self, calls: int) -> G:
        """Opens when there have been so many calls."""
        gate = self._gate()
        with self._lock:
            self._begun.append((calls, gate))
            if calls <= len(self.batches):
                gate.set()
        return gate

    @property
    def keys(self) -> list[Any]:
        """Everything that it was asked for, call after call."""
        return [item for batch in self.batches for item in batch]

    def open(self) -> None:
        """Let all calls answer, those to come too."""
        with self._lock:
            self._gated = False
            for gate in self._gates:
                gate.set()

    def finish(self, number: int) -> None:
        """Let one call that has begun answer.

        Args:
            number: Which, counted from 0.

        Raises:
            ValueError: `number` is negative.
            IndexError: There was no such call yet.
        """
        self._gates[_counted(number)].set()

    def fail(self, number: int, error: BaseException) -> None:
        """Let one call raise: at once if it is held up, else when it comes and is let go.

        Args:
            number: Which, counted from 0.
            error: What it raises.

        Raises:
            ValueError: `number` is negative.
        """
        with self._lock:
            self._errors[_counted(number)] = error
            if number < len(self._gates):
                self._gates[number].set()


def _counted(number: int) -> int:
    if number < 0:  # Python would count from the end, where calls are added
        raise ValueError(f"calls are counted from 0, got {number}: write len(calls.batches) - 1")
    return number


class Calls(_Recorder[threading.Event]):
    """A function for `BatchingMapProxy.map` that records its batches.

    Args:
        function: Its answer for one item; by default the text of it. What it raises, the call
            raises.
        gated: Whether every call waits, until `open` is called, or `finish` or `fail` for it.

    Attributes:
        batches: Copies of the lists that it was called with, in the order of the calls.
        running: How many calls are under way now.
        most_running: How many were at once, at most.

    Threads: May be called, and let go, in any.
    """

    patience: float = 30.0
    """Seconds that a call, or `wait_begun`, waits before it raises `TimeoutError`."""

    def _gate(self) -> threading.Event:
        return threading.Event()

    def __call__(self, items: list[Any]) -> list[Any]:
        number, gate = self._begin(items)
        try:
            self._wait(gate, "nobody lets this call go")
            return self._answer(number, items)
        finally:
            self._end()

    def _wait(self, gate: threading.Event, otherwise: str) -> None:
        if not gate.wait(self.patience):
            raise TimeoutError(otherwise)

    def wait_begun(self, calls: int = 1) -> None:
        """Wait until there have been so many calls.

        Args:
            calls: How many.

        Raises:
            TimeoutError: There were less for `patience`.
        """
        self._wait(self._begun_gate(calls), f"there were {len(self.batches)} calls, not {calls}")


class AsyncCalls(_Recorder[anyio.Event]):
    """A function for `AsyncBatchingMapProxy.map` that records its batches.

    The asynchronous twin of `Calls`: its arguments, attributes and methods are the same; but it
    waits without an end, as tasks can be cancelled, and has no ``patience``.

    Args:
        function: As there. It is no asynchronous function.
        gated: As there.

    Threads: For one event loop, if it is gated or waited for.
    """

    def _gate(self) -> anyio.Event:
        return anyio.Event()

    async def __call__(self, items: list[Any]) -> list[Any]:
        number, gate = self._begin(items)
        try:
            await gate.wait()
            return self._answer(number, items)
        finally:
            self._end()

    async def wait_begun(self, calls: int = 1) -> None:
        """Wait until there have been so many calls.

        Args:
            calls: How many.

        Checkpoints: One at least.
        """
        await self._begun_gate(calls).wait()
