"""How late an event loop wakes a task, while values are mapped, written and read."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
from keeping import NAMESPACE, fetch_value_async
from measuring import collector_off
from work import BATCH, ITEMS, Backend

from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore


async def lateness(work: Callable[[], Awaitable[object]]) -> list[float]:
    """How many ms late a task that sleeps 1 ms at a time is woken while `work` is done."""
    late: list[float] = []

    async def sleep_on() -> None:
        while True:
            start = time.perf_counter()
            await anyio.sleep(0.001)
            late.append((time.perf_counter() - start) * 1000 - 1)

    async with anyio.create_task_group() as group:
        group.start_soon(sleep_on)
        await work()
        group.cancel_scope.cancel()
    return late


async def late_loop(backend: Backend) -> Iterator[str]:
    """Lines of the table `LATENESS`."""

    async def map_all(cache: Cache[bytes]) -> None:
        proxy = AsyncBatchingMapProxy[str, bytes](BATCH, cache=cache)
        await proxy.map(ITEMS, fetch_value_async)

    async def in_memory() -> None:
        """For about as long as with a store."""
        for _ in range(10):
            await map_all(Cache())

    async def stored(path: Path) -> None:
        with SQLiteStore(path) as store:
            await map_all(Cache(store=store, namespace=NAMESPACE))

    rounds: dict[str, list[list[float]]] = {}
    with collector_off():
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                work: dict[str, Callable[[], Awaitable[object]]] = {
                    "nothing is done": partial(anyio.sleep, 1),
                    "100,000 are mapped without a store": in_memory,
                    "100,000 are written to SQLite": partial(stored, Path(folder, "late.db")),
                    "100,000 are read from SQLite": partial(stored, Path(folder, "late.db")),
                }
                for what, do in work.items():
                    rounds.setdefault(what, []).append(await lateness(do))
    return (_line(f"{backend}: while {what}", late) for what, late in rounds.items())


LATENESS = """\
| how late a task is woken, in ms | median | p99 | range of p99 | latest |
|---------------------------------|-------:|----:|-------------:|-------:|"""


def _line(what: str, rounds: list[list[float]]) -> str:
    together = list(itertools.chain.from_iterable(rounds))
    p99s = [statistics.quantiles(late, n=100, method="inclusive")[-1] for late in rounds]
    return (
        f"| {what} | {statistics.median(together):.2f} | {statistics.median(p99s):.1f} "
        f"| {min(p99s):.1f} to {max(p99s):.1f} | {max(together):.1f} |"
    )
