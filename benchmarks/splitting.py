"""How many calls do refused batches cost? Counted, not timed: the same on every machine.

`python benchmarks/splitting.py` prints the table that docs/batches.md quotes; a few seconds.

Items that a service refuses are spread by chance, two hundred times over, with a seed. `most` is
the most calls of those, the first call of the batch included.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection
from random import Random
from typing import NamedTuple

from batchproxy import BatchingMapProxy, SplitBatch

TRIES = 200


class Counted(NamedTuple):
    """What mapping a list has cost."""

    calls: int
    refused: int
    failed: int  # items


def counted(count: int, size: int, refuses: Callable[[list[int]], bool]) -> Counted:
    """Map so many items in batches of `size`; every item that can be answered is, if not stated."""
    proxy = BatchingMapProxy[int, int](size)

    def service(items: list[int]) -> list[int]:
        if refuses(items):
            raise SplitBatch
        return items

    out = proxy.map(range(count), service, return_exceptions=True)
    now = proxy.statistics()
    return Counted(now.calls, now.failed, sum(isinstance(each, Exception) for each in out))


def isolated(size: int, bad: Collection[int]) -> int:
    """The calls that find the items which are refused in one batch."""
    cost = counted(size, size, lambda items: any(item in bad for item in items))
    assert cost.failed == len(bad)
    return cost.calls


def main() -> None:
    random = Random(0)
    print("| what is refused | calls, on average | most | items that fail |")
    print("|---|--:|--:|--:|")
    for size in (100, 1_000):
        for number in (1, 3, 10):
            calls = [isolated(size, {*random.sample(range(size), number)}) for _ in range(TRIES)]
            print(
                f"| {number} of a batch of {size:,} | {statistics.mean(calls):.1f} "
                f"| {max(calls)} | {number} |"
            )
    outage = counted(1_000, 1_000, lambda items: True)
    print(f"| everything, a batch of 1,000 | {outage.calls} | {outage.calls} | {outage.failed:,} |")
    limit, count, size = 130, 10_000, 500
    large = counted(count, size, lambda items: len(items) > limit)
    least = math.ceil(count / limit)
    print(
        f"| more than {limit} at once, {count:,} in batches of {size} | {large.calls} "
        f"({large.refused} refused) | {large.calls / least:.2f} x the least | {large.failed} |"
    )


if __name__ == "__main__":
    main()
