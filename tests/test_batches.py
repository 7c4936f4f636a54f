"""Points 1 and 2 of the contract: order and identity, batches."""

from __future__ import annotations

import pytest
from tools import Calls, naive

from batchproxy import AsyncBatchingMapProxy, Cache

pytestmark = pytest.mark.anyio


async def test_reference_behaviour() -> None:
    """Distinct items once, in batches, in order; a second map() calls nothing."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size=3)
    calls = Calls()
    items = [1, 2, 2, 3, 4, 4, 5]
    assert await proxy.map(items, calls) == naive(items)
    assert calls.batches == [[1, 2, 3], [4, 5]]
    assert await proxy.map([5, 4, 3, 2, 1], calls) == ["5", "4", "3", "2", "1"]
    assert calls.batches == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize("batch_size", [None, 0, -1])
async def test_no_batch_size_is_one_call(batch_size: int | None) -> None:
    """None, 0 and less: one call with all distinct items that are missing."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls = Calls()
    await proxy.map([3], calls)
    await proxy.map([5, 4, 5, 3, 1], calls)
    assert calls.batches == [[3], [5, 4, 1]]


async def test_hits_never_thin_a_batch() -> None:
    """With 2, 5 and 8 known, the batches of 0…9 are full but for the last."""
    cache = Cache[str]()
    cache.prime({2: "2", 5: "5", 8: "8"})
    proxy = AsyncBatchingMapProxy[int, str](3, cache=cache)
    calls = Calls()
    assert await proxy.map(range(10), calls) == naive(range(10))
    assert calls.batches == [[0, 1, 3], [4, 6, 7], [9]]
