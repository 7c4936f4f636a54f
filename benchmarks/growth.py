"""How do time and memory grow with the list, and with the number of callers at once?"""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from sys import getsizeof

import anyio
from anyio.lowlevel import checkpoint
from measuring import Row, collector_off, seconds, seconds_async
from work import BACKENDS, BATCH, Backend, cold_limit, fetch, fetch_async, hit_limit, items

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy

LENGTHS = [1_000, 10_000, 100_000, 1_000_000]
CALLERS = [1, 10, 100, 1_000]
KEYS_OF_EACH = 100

Series = dict[str, list[tuple[int, list[float]]]]
"""For each curve: how many, and the nanoseconds per item in every round."""


async def fetch_slowly(items: list[str]) -> list[str]:
    """Lets the others run, so that their calls overlap."""
    await checkpoint()
    return items.copy()


async def lengths(backend: Backend) -> Series:
    """Cold lists and cached ones, of growing length, and the limits of both."""
    curves: Series = {}
    for length in LENGTHS:
        keys = items(length)
        known = dict(zip(keys, keys))
        rounds: dict[str, list[float]] = {}
        with collector_off():
            for _ in range(max(5, min(51, 500_000 // length))):
                map_all = partial(AsyncBatchingMapProxy[str, str](BATCH).map, keys, fetch_async)
                for curve, took in {
                    "cold": await seconds_async(map_all),
                    "cold limit": seconds(partial(cold_limit, keys)),
                    "hits": await seconds_async(map_all),
                    "hit limit": seconds(partial(hit_limit, keys, known)),
                }.items():
                    rounds.setdefault(f"{backend}: {curve}", []).append(took / length * 1e9)
        for curve, values in rounds.items():
            curves.setdefault(curve, []).append((length, values))
    return curves


async def callers(backend: Backend) -> Series:
    """Ever more callers at once, each with keys of its own, all through one proxy."""
    points = []
    for count in CALLERS:
        lists = [[f"{caller}, {key}" for key in range(KEYS_OF_EACH)] for caller in range(count)]

        async def all_at_once() -> None:
            proxy = AsyncBatchingMapProxy[str, str](KEYS_OF_EACH)
            async with anyio.create_task_group() as group:
                for keys in lists:  # noqa: B023 - called before the next turn
                    group.start_soon(proxy.map, keys, fetch_slowly)

        with collector_off():
            rounds = [await seconds_async(all_at_once) for _ in range(max(7, 200 // count))]
        points.append((count, [took / count / KEYS_OF_EACH * 1e9 for took in rounds]))
    return {backend: points}


def memory() -> Iterator[Row]:
    """The most memory at any moment of a cold map(), beyond the result and the cache."""
    keys = items(1_000_000)

    def used(cached: object, result: list[str], start: int) -> list[float]:
        peak = tracemalloc.get_traced_memory()[1]
        return [(peak - start - getsizeof(cached) - getsizeof(result)) / len(keys)]

    for name in ("sync", "asyncio"):
        values: dict[str, str] = {}
        tracemalloc.start()
        start, _ = tracemalloc.get_traced_memory()
        if name == "sync":
            result = BatchingMapProxy[str, str](BATCH, cache=values).map(keys, fetch)
        else:
            proxy = AsyncBatchingMapProxy[str, str](BATCH, cache=values)
            result = anyio.run(proxy.map, keys, fetch_async)
        per_key = used(values, result, start)
        tracemalloc.stop()
        yield Row(
            f"{name}: peak memory of 1,000,000 cold, bytes per key",
            "the result and the cache",
            40,
            per_key,
        )


def measured() -> dict[str, Series]:
    """Everything that is drawn."""
    drawn: dict[str, Series] = {"items": {}, "callers": {}}
    for backend in BACKENDS:
        drawn["items"].update(anyio.run(lengths, backend, backend=backend))
        drawn["callers"].update(anyio.run(callers, backend, backend=backend))
    return drawn


def rows(drawn: dict[str, Series]) -> Iterator[Row]:
    """What the curves say, and the memory."""

    def growth(points: list[tuple[int, list[float]]], start: int, end: int) -> list[float]:
        """The cost per item at `end`, in every round, over the median one at `start`."""
        costs = dict(points)
        return [cost / statistics.median(costs[start]) for cost in costs[end]]

    for backend in BACKENDS:
        for curve in ("cold", "hits"):
            limit = f"{backend}: {'cold' if curve == 'cold' else 'hit'} limit"
            ours = growth(drawn["items"][f"{backend}: {curve}"], 10_000, 1_000_000)
            limits = growth(drawn["items"][limit], 10_000, 1_000_000)
            yield Row(f"{backend}: 1,000,000 {curve}, per item", "10,000, per item", 1.5, ours)
            yield Row(
                f"{backend}: how the cost of {curve} grows from 10,000 to 1,000,000",
                "how its limit does",
                1.5,
                [value / statistics.median(limits) for value in ours],
            )
        yield Row(
            f"{backend}: 1,000 callers at once, per item",
            "one caller, per item",
            1.5,
            growth(drawn["callers"][backend], 1, 1_000),
        )
    yield from memory()


def plot(drawn: dict[str, Series], path: Path) -> None:
    """Both curves, drawn with matplotlib as SVG."""
    import matplotlib  # its own environment has it; nothing else needs it

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "batchproxy", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (what, curves) in zip(axes, drawn.items()):
        for name, points in curves.items():
            axis.plot(
                [count for count, _ in points],
                [statistics.median(costs) for _, costs in points],
                "--" if "limit" in name else "-o",
                label=name,
                markersize=3,
            )
        axis.set(xscale="log", ylim=(0, None), xlabel=f"number of {what}", ylabel="ns per item")
        axis.legend(fontsize=7)
    axes[0].set_title("one map() of a growing list, batches of 1,000", fontsize=9)
    axes[1].set_title(f"map() calls at once, {KEYS_OF_EACH} keys each", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
