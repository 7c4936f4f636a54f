"""What a library must have to be used in the scenarios of `peers.py`."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, ClassVar, NoReturn

Function = Callable[[list[Any]], Awaitable[Any]]


class Library(ABC):
    """One object of a library: it maps lists by `function`, and remembers the results.

    `lacks` says what scenarios need that it has no means for, and why; `remarks` what there is to
    say of how a scenario ends: mostly, that its documentation rules that use out.
    """

    distribution: ClassVar[str]
    module: ClassVar[str]
    lacks: ClassVar[dict[str, str]] = {}
    remarks: ClassVar[dict[str, str]] = {}

    def __init__(self, function: Function, **options: Any) -> None:
        self.function = function
        try:
            self.object = self.make(**options)
        except Exception:  # used wrongly, so that nothing can be said about it
            traceback.print_exc()
            os._exit(1)

    @abstractmethod
    def make(self, **options: Any) -> Any: ...

    @abstractmethod
    async def map(self, items: Iterable[Any]) -> list[Any]: ...

    async def load(self, key: Any) -> Any:
        """Ask for one key, together with whoever does so at the same time."""
        raise NotImplementedError

    @abstractmethod
    async def clear(self) -> None: ...

    async def forget(self, key: Any) -> None:
        await self.clear()

    async def close(self) -> None:
        raise NotImplementedError

    @staticmethod
    def store() -> Any:
        """Where two objects can keep their results together."""
        raise NotImplementedError

    @staticmethod
    def mapping(failures: int) -> Any:
        """A cache of the user's of which the first so many writes fail."""
        raise NotImplementedError

    @classmethod
    def unreliable(cls, failures: int) -> Any:
        """What its documentation says is to keep results, with the first so many writes failing."""
        return cls.mapping(failures)

    @staticmethod
    def refuse() -> NoReturn:
        """In the function: this batch cannot be done as it is."""
        raise NotImplementedError


class InThreads(Library):
    """A synchronous object: a thread for each caller, and `function` in the loop of all."""

    loop: asyncio.AbstractEventLoop

    def call(self, batch: list[Any]) -> Any:
        async def answer() -> Any:
            return await self.function(batch)

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result()

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        self.loop = asyncio.get_running_loop()
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(function(*args))
            except BaseException as error:
                outcome.set_exception(error)

        context = contextvars.copy_context()  # so that a nested map() knows what it is nested in
        threading.Thread(target=context.run, args=(run,), daemon=True).start()
        return await asyncio.wrap_future(outcome)

    async def map(self, items: Iterable[Any]) -> list[Any]:
        answers: list[Any] = await self.in_thread(self.object.map, items, self.call)
        return answers


def failing(kind: type, method: str, failures: int) -> Any:
    """A `kind` of which the first so many calls of `method` fail."""
    left = failures

    def fails(self: Any, *args: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise OSError("no space left on device")
        return getattr(kind, method)(self, *args)

    return type("Failing", (kind,), {method: fails})()
