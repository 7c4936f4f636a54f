"""Points 16 and 17 of the contract with `MemoryStore`; what stores promise is in test_stores."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any

import pytest

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import Claimant, Claims, MemoryStore


def test_caches_of_one_process_share_the_work() -> None:
    """What one has computed is read by the other; while one computes, the other waits."""
    store = MemoryStore()
    begun, gate = threading.Event(), threading.Event()
    answers: list[list[str]] = []

    def slow(items: list[int]) -> list[str]:
        begun.set()
        assert gate.wait(30)
        return [str(item) for item in items]

    def never(items: list[int]) -> list[str]:
        raise AssertionError(f"called with {items}")

    with (
        Cache[str](store=store, namespace="n") as one,
        Cache[str](store=MemoryStore(store), namespace="n") as other,
    ):
        first = BatchingMapProxy[int, str](cache=one)
        second = BatchingMapProxy[int, str](cache=other)
        owner = threading.Thread(target=lambda: answers.append(first.map([1, 2], slow)))
        owner.start()
        assert begun.wait(30)
        waiter = threading.Thread(target=lambda: answers.append(second.map([2, 1], never)))
        waiter.start()
        gate.set()
        owner.join(30)
        waiter.join(30)
        assert sorted(answers) == [["1", "2"], ["2", "1"]]
        assert (first.statistics().calls, second.statistics().calls) == (1, 0)
        assert store.claim_many("n", [b"k"], Claimant("p", 1), 1) == Claims({}, [b"k"], [])


def test_identity() -> None:
    """Two are the same place if one was made from the other."""
    store = MemoryStore()
    assert MemoryStore(store).identity == store.identity != MemoryStore().identity


@pytest.mark.parametrize(
    ("other", "lease", "kind"),
    [({}, 10, TypeError), (None, 0, ValueError), (None, "1", TypeError)],
)
def test_wrong_arguments(other: Any, lease: Any, kind: type[Exception]) -> None:
    """They are refused as by other stores."""
    with pytest.raises(kind):
        MemoryStore(other, lease=lease)


def test_it_says_what_it_is() -> None:
    """It shows no values, and cannot be pickled."""
    store = MemoryStore()
    store.set_many("n", {b"key": b"secret"}, None)
    assert repr(store) == "<MemoryStore: 1 values>"
    with pytest.raises(TypeError, match="make a store in each process"):
        pickle.dumps(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_copy() -> None:
    """Also where another thread was using the store; neither sees what the other does."""
    store = MemoryStore()
    store.set_many("n", {b"a": b"1"}, None)
    inside, done = threading.Event(), threading.Event()

    class Slow(dict[bytes, bytes]):
        def __getitem__(self, key: bytes) -> bytes:
            inside.set()
            assert done.wait(30)
            return b"3"

    slow = Slow({b"c": b""})
    holder = threading.Thread(target=store.publish_many, args=("n", slow, Claimant("p", 1), None))
    holder.start()
    assert inside.wait(30)
    if (child := os.fork()) == 0:
        status = 1
        try:
            if store.get_many("n", [b"a"]) == {b"a": b"1"}:
                store.set_many("n", {b"b": b"2"}, None)
                status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    done.set()
    holder.join(30)
    assert status == 0
    assert store.get_many("n", [b"a", b"b", b"c"]) == {b"a": b"1", b"c": b"3"}
