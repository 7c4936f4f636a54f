"""A store that failed is left alone for a while. (Point 18 of the contract, ``"continue"``.)"""

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from memory_store import PlainStore
from tools import Clock

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore, Store
from batchproxy.testing import assert_idle


def proxy_of(store: Store) -> BatchingMapProxy[int, int]:
    cache = Cache[int](store=store, namespace="n", on_store_error="continue")
    return BatchingMapProxy(1, cache=cache)


def break_down(store: PlainStore) -> None:
    for method in ("get_many", "set_many", "claim_many", "publish_many"):
        store.fail[method] = OSError("unplugged")


def test_one_failure_then_it_is_left_alone(
    clock: Clock, store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten batches ask a broken store once, and not for each batch again; it is said once."""
    proxy, batches = proxy_of(store), list[list[int]]()
    break_down(store)

    def compute(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    for size in (10, 11):
        assert proxy.map(range(size), compute) == list(range(size))
    assert batches == [[item] for item in range(11)]
    assert_idle(proxy)
    assert [method for method, _ in store.asked] == ["get_many"]
    assert caplog.text.count("goes on without its store") == 1
    assert "OSError: unplugged" in caplog.text


def test_pauses_grow_to_thirty_seconds(clock: Clock, store: PlainStore) -> None:
    """After each of them one call tries the store; when one works, all do."""
    proxy = proxy_of(store)
    break_down(store)
    proxy.map([0], list)
    tried = [clock.now]
    end = clock.now + 130
    item = 1
    while clock.now < end:
        clock.now += 1
        asked = len(store.asked)
        proxy.map([item], list)
        assert len(store.asked) <= asked + 1
        if len(store.asked) > asked:
            tried.append(clock.now)
        item += 1
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    store.fail.clear()
    clock.now += 30
    proxy.map([item, item + 1], list)
    assert len(store.values) == 2
    break_down(store)
    proxy.map([item + 2], list)
    store.fail.clear()
    clock.now += 1
    proxy.map([item + 3], list)  # a new outage begins with the shortest pause
    assert len(store.values) == 3


def test_a_store_that_stalls_costs_a_fifth_of_the_time(clock: Clock, store: PlainStore) -> None:
    """The pause is four times as long as the call that failed took."""
    proxy = proxy_of(store)

    def stalls(*arguments: Any) -> Any:
        clock.now += 5
        raise TimeoutError

    with pytest.MonkeyPatch.context() as context:
        context.setattr(store, "get_many", stalls)
        proxy.map([0], list)
    clock.now += 19
    proxy.map([1], list)
    assert store.asked == []
    clock.now += 1
    proxy.map([2], list)
    assert len(store.values) == 1


def test_one_call_tries_while_others_go_on(clock: Clock, store: PlainStore) -> None:
    """Who maps while it is tried does not wait for it."""
    proxy = proxy_of(store)
    break_down(store)
    proxy.map([0], list)
    store.fail.clear()
    clock.now += 1
    get_many = store.get_many

    def tries(*arguments: Any) -> Any:
        store.get_many = get_many  # type: ignore[method-assign]
        asked = len(store.asked)
        assert proxy.map([1], list) == [1]
        assert len(store.asked) == asked
        return get_many(*arguments)

    store.get_many = tries  # type: ignore[method-assign, assignment]
    proxy.map([2], list)
    proxy.map([3], list)
    assert len(store.values) == 2


def test_calls_that_fail_together_count_once(clock: Clock, store: PlainStore) -> None:
    """Each of them was under way when the first one failed."""
    proxy = proxy_of(store)

    def fails(*arguments: Any) -> Any:
        if depth := len(depths):
            depths.pop()
            assert proxy.map([depth], list) == [depth]
        raise OSError("unplugged")

    depths = [0] * 5
    with pytest.MonkeyPatch.context() as context:
        context.setattr(store, "get_many", fails)
        proxy.map([0], list)
    clock.now += 1
    proxy.map([10], list)
    assert len(store.values) == 1


def test_it_is_said_again_after_a_minute(
    clock: Clock, store: PlainStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of tomorrow is not passed over because there was one today."""
    proxy = proxy_of(store)
    for item in range(3):
        break_down(store)
        proxy.map([item], list)
        store.fail.clear()
        clock.now += 59
        proxy.map([item + 10], list)
    assert caplog.text.count("goes on without its store") == 2


def test_policies_are_those_of_a_cache(clock: Clock, tmp_path: Path) -> None:
    """A cache that minds asks the store that another one leaves alone."""
    path = tmp_path / "results.db"
    store = SQLiteStore(path, timeout=0)
    carefree = proxy_of(store)
    carefree.map([0], list)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        carefree.map([1], list)
        other.execute("ROLLBACK")
    minds = BatchingMapProxy[int, int](cache=Cache(store=store, namespace="n"))
    assert minds.map([2], list) == [2]
    assert carefree.map([3], list) == [3]
    assert store.usage()["n"].values == 2  # 0 and 2
