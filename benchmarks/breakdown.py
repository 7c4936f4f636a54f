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

import batchproxy
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy

SINGLES = [[item] for item in items(5_000)]
ROOMS = {
    "_faces": "the face, and calling the function",
    "_engine": "the engine",
    "_core.plan": "the plan",
    "_core.answers": "checking the answer",
    "_core.table": "the table of values and flights",
    "_core.flights": "the flights",
    "_core.values": "the values",
    "_core": "the rest of what decides",
    "_slots": "the slot, on top of anyio's limiter",
    "_loops": "finding the event loop",
    "": "the scheduler and the function",
}
PACKAGE = Path(batchproxy.__file__).parent


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
        inside = Path(file).is_relative_to(PACKAGE)
        name = ".".join(Path(file).relative_to(PACKAGE).with_suffix("").parts) if inside else ""
        room = next(ROOMS[each] for each in (name, name.partition(".")[0], "") if each in ROOMS)
        time_in[room] += own
        calls_in[room] += calls
    total = sum(time_in.values())
    lines = [f"| {backend}: a one-key miss | share of the time | calls |", "|---|---:|---:|"]
    for room, own in time_in.most_common():
        lines.append(f"| {room} | {own / total:.0%} | {calls_in[room] / len(SINGLES):.0f} |")
    return iter(lines)


def through_the_portal(backend: Backend) -> Iterator[str]:
    """A table: how often a thread falls asleep per trip, and the time of both on a processor."""

    asleep: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    proxy = BatchingMapProxy[str, str](backend=backend)
    new = iter(SINGLES)
    with start_blocking_portal(backend) as portal:
        trips: dict[str, Callable[[], object]] = {
            "portal.call of a plain function": lambda: portal.call(int),
            "portal.call of a coroutine function": lambda: portal.call(nothing),
            "one-key miss": lambda: proxy.map(next(new), fetch),
        }
        for _ in range(9):
            for trip, take in trips.items():
                slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
                start = time.process_time()
                for _ in range(500):
                    take()
                worked = time.process_time() - start
                slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - slept
                asleep.setdefault(trip, []).append(slept / 500)
                busy.setdefault(trip, []).append(worked / 500 * 1e6)
    yield f"| {backend}: one trip | threads fall asleep | µs of both, busy |"
    yield "|---|---:|---:|"
    for trip in trips:
        slept_median, busy_median = statistics.median(asleep[trip]), statistics.median(busy[trip])
        yield f"| {trip} | {slept_median:.1f} | {busy_median:.0f} |"


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


def tables() -> dict[str, list[str]]:
    """The lines of each table, by the name of the file that is to keep it."""
    one_key: list[str] = []
    portal: list[str] = []
    sleeps = ["| 200 sleeps of 10 ms in 20 bare tasks | of the ideal makespan |", "|---|---:|"]
    for backend in BACKENDS:
        one_key += [*anyio.run(one_key_misses, backend, backend=backend), ""]
        portal += [*through_the_portal(backend), ""]
        sleeps += anyio.run(sleeping, backend, backend=backend)
    return {"one-key-miss": one_key, "portal": portal, "sleeping": [*sleeps, ""]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the tables")
    options = parser.parse_args()
    for name, lines in tables().items():
        print(*lines, sep="\n")
        if options.write:
            (options.write / f"{name}.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
