"""Ratios: a contender and its limit, in turn, several rounds, with the collector off."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 11


@dataclass(frozen=True)
class Row:
    """One line of the table: how often its limit something costs, once per round."""

    what: str
    limit: str
    at_most: float | None  # what was aimed at, if anything
    values: list[float]
    steady: bool = True  # whether two runs are to have about the same median

    @property
    def name(self) -> str:
        return f"{self.what} / {self.limit}"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        aim = reached = ""
        if self.at_most is not None:
            aim, reached = f"{self.at_most:.3g}", "yes" if self.median <= self.at_most else "no"
        return (
            f"| {self.what} | {self.limit} | {aim} "
            f"| {self.median:.3g} | {low:.3g} to {high:.3g} | {reached} |"
        )


HEADING = """\
| what | compared with | at most | median | range | reached |
|------|---------------|--------:|-------:|------:|---------|"""


def medians(table: str) -> dict[str, float]:
    """The median of each row of a table that was printed, by the name of the row."""
    cells = [line.split(" | ") for line in table.splitlines() if line.count(" | ") == 5]
    return {f"{what[2:]} / {limit}": float(median) for what, limit, _, median, *_ in cells[1:]}


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _nothing() -> None:
    pass


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = function()
    end = time.perf_counter()
    del result  # not on the clock
    return end - start


async def seconds_async(function: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    result = await function()
    end = time.perf_counter()
    del result
    return end - start


def ratios(
    contender: Callable[[], object],
    limit: Callable[[], object],
    *,
    before: Callable[[], object] = _nothing,
    rounds: int = ROUNDS,
) -> list[float]:
    """Seconds of `contender` over those of `limit`, for each round; `before` is off the clock."""
    values = []
    with collector_off():
        for _ in range(rounds):
            before()
            values.append(seconds(contender) / seconds(limit))
    return values


async def ratios_async(
    contender: Callable[[], Awaitable[object]],
    limit: Callable[[], Awaitable[object]],
    *,
    before: Callable[[], object] = _nothing,
    rounds: int = ROUNDS,
) -> list[float]:
    """`ratios` of what has to be awaited."""
    values = []
    with collector_off():
        for _ in range(rounds):
            before()
            values.append(await seconds_async(contender) / await seconds_async(limit))
    return values


def print_and_keep(lines: Iterable[str], name: str, folder: Path | None) -> None:
    """Print `lines` as they come; with a `folder`, keep them there in the file `name`."""
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(printed))
