"""What `statistics()` counts, and that it adds up."""

from __future__ import annotations

import dataclasses
from typing import Any

import anyio
import pytest
from tools import Calls, Outcomes, settle

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache

pytestmark = pytest.mark.anyio


def counted(proxy: Any) -> dict[str, int]:
    """All that is not zero."""
    return {name: n for name, n in dataclasses.asdict(proxy.statistics()).items() if n}


async def test_a_life() -> None:
    """Every call and every key is counted once, where it belongs."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](2, cache=cache)
    assert counted(proxy) == {}
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [1, 2, 1, 3], calls)
        await settle()
        callers.start("waiter", proxy.map, [2], calls)
        await settle()
        assert counted(proxy) == {"calls": 2, "running": 2, "in_flight": 3, "waiting": 1}
        calls.open()
    done = {"maps": 2, "items": 5, "calls": 2, "completed": 2, "computed": 3, "shared": 1}
    assert counted(proxy) == done | {"cached": 3}
    await proxy.map([1, 1, 3], calls)
    assert counted(proxy) == done | {"cached": 3, "maps": 3, "items": 8}
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    assert counted(other) == {"cached": 3}


async def test_failed_and_cancelled_calls() -> None:
    """A call that fails is told from one that is given up; their maps return no list."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)
    calls = Calls(gated=True)
    async with anyio.create_task_group() as group:
        callers = Outcomes(group)
        callers.start("owner", proxy.map, [1, 2], calls)
        await settle()
        calls.fail(0, ValueError("boom"))
    assert counted(proxy) == {"calls": 2, "failed": 1, "cancelled": 1}


def test_items_that_fail_alone() -> None:
    """Their call is completed, and they are not computed."""
    proxy = BatchingMapProxy[int, str]()
    answers = proxy.map([1, 2], lambda items: ["1", KeyError(2)], return_exceptions=True)
    assert isinstance(answers[1], KeyError)
    assert counted(proxy) == {
        "maps": 1,
        "items": 2,
        "calls": 1,
        "completed": 1,
        "computed": 1,
        "cached": 1,
    }


def test_a_snapshot_cannot_be_changed() -> None:
    """Statistics are a frozen dataclass, equal by what they say."""
    proxy = BatchingMapProxy[int, str]()
    before = proxy.statistics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.calls = 1  # type: ignore[misc] # frozen
    assert proxy.statistics() == before
