"""What the programs of fuzz.py run in and on: tasks or threads, and unreliable stores."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from memory_store import PlainStore

Function: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class InTasks:
    """Callers are tasks of one event loop."""

    def __init__(self, backend: str, **options: Any) -> None:
        self.run = partial(anyio.run, backend=backend, backend_options=options)

    sleep = staticmethod(anyio.sleep)
    limit = staticmethod(anyio.move_on_after)
    block = staticmethod(anyio.to_thread.run_sync)

    def proxy(self, chance: random.Random, cache: Cache[str]) -> Any:
        size, slots = chance.choice([1, 2, 3, None]), chance.choice([1, 2, 4])
        return AsyncBatchingMapProxy[Any, str](size, slots, cache=cache)

    async def map(self, proxy: Any, keys: list[Any], function: Function, keep: bool) -> Any:
        return await proxy.map(keys, function, return_exceptions=keep)

    async def together(self, functions: list[Function]) -> None:
        async with anyio.create_task_group() as group:
            for function in functions:
                group.start_soon(function)


class InThreads:
    """Callers are threads, in which coroutines never have to wait for anything."""

    def run(self, function: Function, *args: Any) -> Any:
        try:
            function(*args).send(None)
        except StopIteration as end:
            return end.value

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    def limit(self, seconds: float) -> Any:
        return nullcontext()  # a thread cannot be cancelled

    async def block(self, function: Callable[[], None]) -> None:
        function()

    def proxy(self, chance: random.Random, cache: Cache[str]) -> Any:
        size, slots = chance.choice([1, 2, 3, None]), chance.choice([None, 1, 2, 4])
        backend: Any = chance.choice(["asyncio", "trio"])
        return BatchingMapProxy[Any, str](size, slots, cache=cache, backend=backend)

    async def map(self, proxy: Any, keys: list[Any], function: Function, keep: bool) -> Any:
        return proxy.map(keys, partial(self.run, function), return_exceptions=keep)

    async def together(self, functions: list[Function]) -> None:
        threads = [threading.Thread(target=self.run, args=[each]) for each in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


Face: TypeAlias = InTasks | InThreads

FACES: dict[str, Callable[[], Face]] = {
    "asyncio": lambda: InTasks("asyncio"),
    "uvloop": lambda: InTasks("asyncio", use_uvloop=True),
    "trio": lambda: InTasks("trio"),
    "threads": InThreads,
}


def unreliable(kind: type[PlainStore], chance: random.Random) -> Any:
    """A store that is slow and fails now and then, before or after it has done what was asked.

    It does not fail to release: leases do not end in so short a time.
    """
    failing, slow = chance.choice([0, 0.02, 0.1, 0.3]), chance.choice([0, 0.3, 0.8])

    def method(name: str) -> Callable[..., Any]:
        def called(self: Any, *args: Any) -> Any:
            if not self.calm and chance.random() < slow:
                time.sleep(chance.random() * 0.004)
            fails = not self.calm and name != "release_many" and chance.random() < failing
            if fails and chance.random() < 0.5:
                raise OSError("before")
            result = getattr(kind, name)(self, *args)
            if fails:
                raise OSError("after")
            return result

        return called

    methods = [each for each in dir(kind) if each.endswith("_many") or each == "heartbeat"]
    namespace = {"fails": failing > 0, "calm": False, **{each: method(each) for each in methods}}
    return type("Unreliable", (kind,), namespace)()
