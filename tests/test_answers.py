"""What a function may answer with, and what not. (Point 3 of the contract; see test_misuse.py.)"""

import asyncio
import gc
from collections import UserList
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from tools import together

from batchproxy import AnswerTypeError, AsyncBatchingMapProxy, BatchingMapProxy, Cache
from batchproxy.testing import AsyncCalls, assert_idle


async def one(item: int) -> int:
    return item


GATHER = r"a coroutine as the result.*asyncio\.gather"


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (lambda items: [one(items[0]), *items[1:]], GATHER),
        (lambda items: (one(items[0]), *items[1:]), GATHER),
        (lambda items: {item: one(item) for item in items}, GATHER),
        (lambda items: one(1), "await it in map_func"),
    ],
    ids=["list", "tuple", "mapping", "coroutine"],
)
async def test_a_forgotten_await(answer: Callable[[list[int]], Any], remedy: str) -> None:
    """What is still to be awaited is no answer; it is closed, so Python is silent."""
    proxy = AsyncBatchingMapProxy[int, Any]()

    async def fetch(items: list[int]) -> Any:
        return answer(items)

    with pytest.raises(AnswerTypeError, match=remedy):
        await proxy.map([1, 2], fetch)
    gc.collect()
    assert proxy.statistics().cached == 0
    assert_idle(proxy)


def test_futures_are_no_results() -> None:
    """Nor is anything else that can be awaited; with return_exceptions it is a failure."""
    proxy = BatchingMapProxy[int, Any]()
    loop = asyncio.new_event_loop()
    [failure] = proxy.map([1], lambda items: [loop.create_future()], return_exceptions=True)
    loop.close()
    assert isinstance(failure, AnswerTypeError)
    assert "a Future as the result" in str(failure)


def test_a_mapping_by_item() -> None:
    """Where there is a key=, a mapping may be by item; by key if all the keys are there."""
    proxy = BatchingMapProxy[str, str](key=str.lower)
    assert proxy.map(["Paris", "PARIS"], lambda items: {"Paris": "one"}) == ["one", "one"]
    both = {"rome": "by key", "Rome": "by item"}
    assert proxy.map(["Rome"], lambda items: both) == ["by key"]
    some = {"oslo": "by key", "Oslo": "by item", "Bern": "by item"}
    assert proxy.map(["Oslo", "Bern"], lambda items: some) == ["by item"] * 2
    with pytest.raises(ValueError, match="lacks 1 of its 2 keys: 'lima'"):
        proxy.map(["Lima", "Riga"], lambda items: {"Riga": "by item", "riga": "by key"})
    unhashable = BatchingMapProxy[dict[str, int], str](key=lambda item: item["id"])
    assert unhashable.map([{"id": 1}], lambda items: {1: "one"}) == ["one"]
    with pytest.raises(ValueError, match="lacks 1 of its 1 keys: 2"):
        unhashable.map([{"id": 2}], lambda items: {1: "one"})


class Miscounted(UserList[int]):
    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_an_answer_that_is_not_as_long_as_it_says(rows: int) -> None:
    """Neither its length nor what is in it may differ from the batch."""
    proxy = BatchingMapProxy[int, Any]()
    for items in ([1], [1, 2], [1, 2, 3]):
        if len(items) == rows == 2:
            assert proxy.map(items, lambda _: Miscounted([7] * rows)) == [7, 7]
        else:
            with pytest.raises(ValueError, match="return exactly one result per item"):
                proxy.map(items, lambda _: Miscounted([7] * rows))
    assert_idle(proxy)


class DataFrame(UserList[int]):
    columns = ("a", "b")

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_table_is_no_answer(rows: int) -> None:
    """It gives its columns; the error says what came, and how to take one."""
    proxy = BatchingMapProxy[int, Any]()
    with pytest.raises(AnswerTypeError, match=r"DataFrame'.*list\(frame\['column'\]\)"):
        proxy.map(range(rows), DataFrame)


def test_arrays() -> None:
    """Of several dimensions, too: their rows are the results."""
    np = pytest.importorskip("numpy")
    proxy = BatchingMapProxy[int, Any]()
    results = proxy.map([1, 2, 1], lambda items: np.eye(2))
    assert [list(result) for result in results] == [[1, 0], [0, 1], [1, 0]]


def test_results_are_shared() -> None:
    """Who asks for one key gets one object, now and later."""
    proxy = BatchingMapProxy[str, list[str]]()
    one, two = proxy.map(["a", "a"], lambda items: [[] for _ in items])
    assert one is two is proxy.map(["a"], lambda items: [])[0]


def test_a_cache_is_true() -> None:
    """Also when it is empty."""
    assert Cache()
    assert Cache(max_size=0)


async def test_a_list_that_a_function_answered_with_is_its_own() -> None:
    """A function may change its list after the call: who waited gets what was answered."""
    proxy = AsyncBatchingMapProxy[int, str]()
    answer: list[str] = []
    gate = anyio.Event()

    async def owner(items: list[int]) -> list[str]:
        await gate.wait()
        answer.extend(map(str, items))
        return answer

    async def own() -> list[str]:
        results = await proxy.map([1, 2], owner)
        answer[:] = ["changed", "changed"]  # before the one who waits can have come to run
        return results

    async with together(proxy) as callers:
        await callers.begin("owner", own)
        await callers.begin("waiter", proxy.map, [2], AsyncCalls())
        gate.set()
    assert callers.results == {"owner": ["1", "2"], "waiter": ["2"]}
