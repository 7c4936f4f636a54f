"""Why do some rows of `speed.py` stand above their limit? Where the time goes, and what waits.

    python benchmarks/breakdown.py                  print it
    python benchmarks/breakdown.py --write docs/speed   keep it there, for the documentation

*A one-key miss*: the profiler's own time per room of the library, as shares, and how many Python
functions each calls. *Through the portal*: how often a thread falls asleep, and how long both work.
*Sleeping*: what the loops need for the same sleeps without a proxy.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
from anyio.from_thread import start_blocking_portal
from limits import AT_A_TIME, CALLS, IDEAL, LATENCY, nothing
from work import BACKENDS, Backend, fetch, fetch_async, items

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy

SINGLES = [[item] for item in items(5_000)]
ROOMS = {
    "_async": "the face, and calling the function",
    "_engine": "the engine",
    "_plan": "the plan, and checking the answer",
    "_table": "the table of values and flights",
    "_flights": "the flights",
    "_values": "the values",
    "_slots": "the slot, on top of anyio's limiter",
    "_loops": "finding the event loop",
}


async def one_key_misses(backend: Backend) -> Iterator[str]:
    """A table: per ``map()`` of one new key, whose time it is."""
    proxy = AsyncBatchingMapProxy[str, str]()
    profiler = cProfile.Profile(builtins=False)
    profiler.enable()
    for single in SINGLES:
        await proxy.map(single, fetch_async)
    profiler.disable()
    time_in: Counter[str] = Counter()
    calls_in: Counter[str] = Counter()
    statistics_by_function = pstats.Stats(profiler).stats  # type: ignore[attr-defined] # typeshed
    for (file, _, _), (_, calls, own, _, _) in statistics_by_function.items():
        path = Path(file)
        room = path.stem if path.parent.name == "batchproxy" else "the scheduler and the function"
        time_in[ROOMS.get(room, room)] += own
        calls_in[ROOMS.get(room, room)] += calls
    total = sum(time_in.values())
    lines = [f"| {backend}: a one-key miss | share of the time | calls |", "|---|---:|---:|"]
    for room, own in time_in.most_common():
        lines.append(f"| {room} | {own / total:.0%} | {calls_in[room] / len(SINGLES):.0f} |")
    return iter(lines)


def through_the_portal(backend: Backend) -> Iterator[str]:
    """A table: how often a thread falls asleep per trip, and the time of both on a processor."""

    def per_trip(trips: Callable[[], object]) -> str:
        asleep, busy = [], []
        for _ in range(7):
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, time.process_time()
            trips()
            busy.append((time.process_time() - start) / 500 * 1e6)
            asleep.append((resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before) / 500)
        return f"{statistics.median(asleep):.1f} | {statistics.median(busy):.0f}"

    yield f"| {backend}: one trip | threads fall asleep | µs of both, busy |"
    yield "|---|---:|---:|"
    proxy = BatchingMapProxy[str, str](backend=backend)
    new = iter(SINGLES)
    with start_blocking_portal(backend) as portal:
        plain = per_trip(lambda: [portal.call(int) for _ in range(500)])
        coroutine = per_trip(lambda: [portal.call(nothing) for _ in range(500)])
    misses = per_trip(lambda: [proxy.map(next(new), fetch) for _ in range(500)])
    yield f"| portal.call of a plain function | {plain} |"
    yield f"| portal.call of a coroutine function | {coroutine} |"
    yield f"| one-key miss | {misses} |"


async def sleeping(backend: Backend) -> Iterator[str]:
    """A line: the makespan of as many sleeps in as many tasks, and nothing else."""

    async def in_turn() -> None:
        for _ in range(CALLS // AT_A_TIME):
            await anyio.sleep(LATENCY)

    spans = []
    for _ in range(7):
        start = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(AT_A_TIME):
                group.start_soon(in_turn)
        spans.append((time.perf_counter() - start) / IDEAL)
    return iter([f"| {backend} | {statistics.median(spans):.2f} |"])


def lines() -> Iterator[str]:
    for backend in BACKENDS:
        yield from anyio.run(one_key_misses, backend, backend=backend)
        yield ""
        yield from through_the_portal(backend)
        yield ""
    yield "| 200 sleeps of 10 ms in 20 bare tasks | of the ideal makespan |"
    yield "|---|---:|"
    for backend in BACKENDS:
        yield from anyio.run(sleeping, backend, backend=backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the tables")
    options = parser.parse_args()
    text = "\n".join([*lines(), ""])
    print(text)
    if options.write:
        (options.write / "breakdown.md").write_text(text)


if __name__ == "__main__":
    main()
