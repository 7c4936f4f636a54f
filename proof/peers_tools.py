"""What the scenarios of `peers.py` share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from proof.peers_library import Library

QUIET = 0.2  # seconds after which all tasks and threads wait for something

Scenario = Callable[[type[Library]], Coroutine[Any, Any, str | None] | None]

SCENARIOS: dict[str, tuple[Scenario, tuple[str, ...]]] = {}


def scenario(name: str, *needs: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario under its name, with what a library must have for it.

    It may return what is to be said of how it went right, such as the number of calls.
    """

    def enter(function: Scenario) -> Scenario:
        SCENARIOS[name] = function, needs
        return function

    return enter


class Calls:
    """A batch function: it records its batches, and answers "ITEM", or with `versions` "ITEM.CALL".

    With `gated`, every call waits until it is let go.
    """

    def __init__(self, *, gated: bool = False, versions: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.errors: dict[int, BaseException] = {}
        self.running = self.most_running = 0
        self._gated = gated
        self._versions = versions
        self._gates: list[asyncio.Event] = []

    async def call(self, items: list[Any]) -> list[str]:
        number = len(self.batches)
        self.batches.append(list(items))
        self._gates.append(asyncio.Event())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self._gates[number].wait() if self._gated else asyncio.sleep(0))
        finally:
            self.running -= 1
        if number in self.errors:
            raise self.errors[number]
        return [f"{item}.{number}" if self._versions else str(item) for item in items]

    def keys(self) -> list[Any]:
        """All that was paid for, in order."""
        return [item for batch in self.batches for item in batch]

    def count(self) -> str:
        calls = len(self.batches)
        return f"{calls} call{'s' * (calls > 1)}"

    def finish(self, number: int) -> None:
        self._gates[number].set()

    def fail(self, number: int, error: BaseException) -> None:
        self.errors[number] = error
        self.finish(number)

    def open(self) -> None:
        """Let all calls go, those to come too."""
        self._gated = False
        for gate in self._gates:
            gate.set()


async def settle() -> None:
    """Let every task and thread run until it waits for something, also on a busy machine."""
    worked = QUIET
    while worked > QUIET / 20:
        before = time.process_time()
        await asyncio.sleep(QUIET)
        worked = time.process_time() - before


async def start(library: Library, items: Iterable[Any]) -> asyncio.Task[list[Any]]:
    """Start a caller, and let it come as far as it can."""
    task = asyncio.create_task(library.map(items))
    await settle()
    return task


async def outcome(task: asyncio.Task[Any]) -> Any:
    """What a caller returned or raised."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def outcomes(tasks: Iterable[asyncio.Task[Any]]) -> list[Any]:
    """What callers returned or raised, in order."""
    return await asyncio.gather(*tasks, return_exceptions=True)


def ask(library: Library, keys: Iterable[Any]) -> list[asyncio.Task[Any]]:
    """A handler for each key, which knows nothing of the others; they start at once."""
    return [asyncio.create_task(library.load(key)) for key in keys]
