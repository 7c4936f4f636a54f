"""What the engine does in moments that no test can choose from outside."""

import pytest
from tools import Thread, naive, together

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy
from batchproxy._core.flights import Flight
from batchproxy._core.table import Table
from batchproxy.testing import AsyncCalls, assert_idle


async def test_a_call_that_ends_before_its_waiter_sleeps_is_a_checkpoint_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may have ended it in between: the waiter takes its answer, and a breath."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    async with together() as callers:
        await callers.begin("owner", proxy.map, [1], calls)
        monkeypatch.setattr(Table, "join", lambda *args: False)
        await callers.begin("waiter", proxy.map, [1], calls)
        monkeypatch.undo()
        calls.open()
    assert callers.results == {"owner": ["1"], "waiter": ["1"]}
    assert calls.batches == [[1]]


def test_many_hits_from_many_threads() -> None:
    """Not one is lost on the way into the sums, and what waits to be added up does not grow."""
    proxy = BatchingMapProxy[int, str]()
    proxy.map([1], naive)

    def hits() -> None:
        for _ in range(3000):
            proxy.map([1, 1], naive)

    threads = [Thread(hits) for _ in range(4)]
    assert [thread.outcome() for thread in threads] == [None] * 4
    assert len(proxy._engine._counters.returned) < 2000
    assert proxy.statistics().maps == 1 + 4 * 3000
    assert proxy.statistics().items == 1 + 4 * 6000


@pytest.mark.parametrize("how_many", [1, 2])
async def test_a_release_that_is_cut_short_is_made_again(
    how_many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt as the keys of a failing call are released, and one more, leave none held."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    interrupts = [KeyboardInterrupt() for _ in range(how_many)]
    end = Table.end

    def interrupted(table: Table, flight: Flight) -> None:
        if interrupts:
            raise interrupts.pop()
        end(table, flight)

    async def fail(items: list[int]) -> list[str]:
        raise ValueError

    monkeypatch.setattr(Table, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await proxy.map([1], fail)
    assert_idle(proxy)
    assert await proxy.map([1], AsyncCalls()) == ["1"]
