"""Points 16 and 17 of the contract with `MemoryStore`; what stores promise is in test_stores."""

import threading

import pytest
from process_tools import needs_fork, run_prepared
from tools import Thread, naive, never

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import Claimant, Claims, MemoryStore


def test_caches_of_one_process_share_the_work() -> None:
    """What one has computed is read by the other; while one computes, the other waits."""
    store = MemoryStore()
    begun, gate = threading.Event(), threading.Event()

    def slow(items: list[int]) -> list[str]:
        begun.set()
        assert gate.wait(30)
        return naive(items)

    with (
        Cache[str](store=store, namespace="n") as one,
        Cache[str](store=MemoryStore(store), namespace="n") as other,
    ):
        first = BatchingMapProxy[int, str](cache=one)
        second = BatchingMapProxy[int, str](cache=other)
        owner = Thread(first.map, [1, 2], slow)
        assert begun.wait(30)
        waiter = Thread(second.map, [2, 1], never)
        gate.set()
        assert (owner.outcome(), waiter.outcome()) == (["1", "2"], ["2", "1"])
        assert (first.statistics().calls, second.statistics().calls) == (1, 0)
        assert store.claim_many("n", [b"k"], Claimant("p", 1), 1) == Claims({}, [b"k"], [])


def test_identity() -> None:
    """Two are the same place if one was made from the other."""
    store = MemoryStore()
    assert MemoryStore(store).identity == store.identity != MemoryStore().identity


def test_what_it_is_made_from() -> None:
    """Another one, or nothing. (Wrong leases are in `test_stores`.)"""
    with pytest.raises(TypeError, match="other must be a MemoryStore, got 'dict'"):
        MemoryStore({})  # type: ignore[arg-type] # as here


def test_it_says_what_it_is() -> None:
    """It shows no values."""
    store = MemoryStore()
    store.set_many("n", {b"key": b"secret"}, None)
    assert repr(store) == "<MemoryStore: 1 values>"


@needs_fork
def test_a_forked_child_has_a_copy() -> None:
    """Also where another thread was using the store; neither sees what the other does."""
    script = """
from batchproxy.stores import Claimant, MemoryStore

store = MemoryStore()
store.set_many("n", {b"a": b"1"}, None)
inside, done = threading.Event(), threading.Event()

class Slow(dict):
    def __getitem__(self, key):
        inside.set()
        done.wait()
        return b"3"

def child():
    assert store.get_many("n", [b"a"]) == {b"a": b"1"}
    store.set_many("n", {b"b": b"2"}, None)

holder = start(store.publish_many, "n", Slow({b"c": b""}), Claimant("p", 1), None)
inside.wait()
forked(child)
done.set()
holder.join()
print(store.get_many("n", [b"a", b"b", b"c"]))
"""
    assert run_prepared(script) == "{b'a': b'1', b'c': b'3'}\n"
