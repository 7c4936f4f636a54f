"""What part a store has in what it costs: its methods, and all else, beside the bare driver."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from keeping import Place, Run, Way, ours
from measuring import collector_off, seconds
from work import ITEMS

from batchproxy.stores import SharedStore

SHARES = """\
| as shares of the bare loop's time | first look | claim | publish | all else | together |
|-----------------------------------|-----------:|------:|--------:|---------:|---------:|"""

METHODS = ("get_many", "claim_many", "publish_many")


def _timed(name: str) -> Any:
    def method(self: Timed, *arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return getattr(self.store, name)(*arguments)
        finally:
            self.took[name] += time.perf_counter() - start

    return method


class Timed(SharedStore):
    """`store`, and how many seconds its methods took, all threads together."""

    def __init__(self, store: SharedStore, took: defaultdict[str, float]) -> None:
        self.store = store
        self.took = took
        self.lease, self.max_value_size = store.lease, store.max_value_size

    @property
    def identity(self) -> Hashable:
        return self.store.identity

    get_many, claim_many, publish_many = map(_timed, METHODS)
    set_many, delete_many = _timed("set_many"), _timed("delete_many")
    discard_many, release_many = _timed("discard_many"), _timed("release_many")
    heartbeat, close = _timed("heartbeat"), _timed("close")


def shares(
    name: str, store: Callable[[str], SharedStore], limit: Way, place: Place
) -> Iterator[str]:
    """Lines of the table `SHARES`: of a first run, which writes, and of a second, which reads."""
    took = defaultdict[str, float](float)
    way = ours(lambda where: Timed(store(where), took))
    rounds: dict[str, list[list[float]]] = {"write": [], "read": []}

    def timed(run: Run, where: str) -> float:
        took.clear()
        return seconds(lambda: run(where, ITEMS))

    with collector_off():
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                totals = []
                here = place(Path(folder))
                for run in way:
                    total = timed(run, here)
                    totals.append([*(took[method] for method in METHODS), total])
                here = place(Path(folder))
                for kind, times, run in zip(rounds, totals, limit):
                    bare = timed(run, here)
                    rounds[kind].append([each / bare for each in times])
    for kind, ratios in rounds.items():
        *parts, together = map(statistics.median, zip(*ratios))
        numbers = [*parts, together - sum(parts), together]
        cells = " | ".join(f"{number:.2f}" if number else "" for number in numbers)
        yield f"| {name}: {kind} 100,000 values | {cells} |"
