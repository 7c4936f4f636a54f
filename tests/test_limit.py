"""Points 9 and 10 of the contract: slots that several proxies share."""

from typing import Any

import anyio
import pytest
from tools import Backend, Thread, naive, step, together, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Limit
from batchproxy.testing import AsyncCalls, Calls, assert_idle, look

FACES: list[Any] = [AsyncBatchingMapProxy, BatchingMapProxy]
faces = pytest.mark.parametrize("face", FACES)


@faces
def test_a_limit_takes_the_place_of_max_concurrency(face: Any) -> None:
    """It is one or the other, also if that is the number which is the default."""
    proxy = face(limit=Limit(3))
    assert proxy.max_concurrency == 3
    for number in (3, 8):
        with pytest.raises(ValueError, match="limit= takes the place of max_concurrency="):
            face(max_concurrency=number, limit=Limit(3))
    assert face(10, 8).max_concurrency == 8
    assert AsyncBatchingMapProxy().max_concurrency == 8
    assert BatchingMapProxy().max_concurrency is None


@faces
@pytest.mark.parametrize("wrong", [3, "3", Limit, object()])
def test_what_is_no_limit(face: Any, wrong: Any) -> None:
    """A number is none: it could be shared with nobody."""
    with pytest.raises(TypeError, match=r"limit must be a batchproxy.Limit, as in Limit\(8\), got"):
        face(limit=wrong)


def test_numbers_of_a_limit() -> None:
    """1 or more; it says how many, and where."""
    limit = Limit(2)
    assert (limit.total, repr(limit)) == (2, "Limit(2)")
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="total must be 1 or more, got"):
            Limit(wrong)
    for other in ("2", 2.0, True, None):
        with pytest.raises(TypeError, match="total must be an integer of 1 or more, got"):
            Limit(other)  # type: ignore[arg-type] # that is it


async def test_proxies_share_its_slots() -> None:
    """Over all of them there are never more calls at a time, and first come, first served."""
    limit = Limit(2)
    one, other = (AsyncBatchingMapProxy[int, str](1, limit=limit) for _ in range(2))
    calls = AsyncCalls(gated=True)
    async with together(one, other) as callers:
        await callers.begin("one", one.map, range(5), calls)
        await callers.begin("other", other.map, range(5, 10), calls)
        assert calls.batches == [[0], [1]]
        assert (look(one, other).slots, look(one, other).queueing) == (2, 2)
        await step(calls.finish, 0)
        assert len(calls.batches) == 3
        calls.open()
    assert calls.most_running == 2
    assert callers.results == {"one": naive(range(5)), "other": naive(range(5, 10))}


async def test_calls_of_one_inside_those_of_the_other() -> None:
    """They use the slot of the call around them: the only one is enough, whoever nests in whom."""
    limit = Limit(1)
    outer, inner = (AsyncBatchingMapProxy[int, int](1, limit=limit) for _ in range(2))

    async def below(items: list[int]) -> list[int]:
        if items == [0]:
            return [0]
        proxy = inner if items[0] % 2 else outer
        return [value + 1 for value in await proxy.map([items[0] - 1], below)]

    with anyio.fail_after(10):
        assert await outer.map([6], below) == [6]
    assert_idle(outer, inner)


def test_event_loops_have_as_many_each(sync_backend: Backend) -> None:
    """A limit is one per event loop, one after another or at once."""
    limit = Limit(1)
    proxy = AsyncBatchingMapProxy[int, str](limit=limit)
    calls = AsyncCalls()
    for number in range(2):
        assert anyio.run(proxy.map, [number], calls, backend=sync_backend) == [str(number)]
    assert_idle(proxy)


def test_synchronous_proxies_share_its_slots(sync_backend: Backend) -> None:
    """Calls run in worker threads, so many at a time over all of the proxies."""
    limit = Limit(1)
    one, other = (BatchingMapProxy[int, str](limit=limit, backend=sync_backend) for _ in range(2))
    calls = Calls(gated=True)
    threads = [Thread(one.map, [1], calls), Thread(other.map, [2], calls)]
    until(lambda: look(one, other).queueing == 1)
    calls.wait_begun()
    assert len(calls.batches) == 1
    calls.open()
    assert [thread.outcome() for thread in threads] == [["1"], ["2"]]
    assert calls.most_running == 1
    until(lambda: look(one, other).idle)
