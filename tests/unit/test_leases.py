"""Claims as one process has and gives them back, and the thread that does it."""

import threading
from typing import Any

import pytest
from memory_store import MemoryStore
from tools import until

from batchproxy import BatchingMapProxy, Cache, StoreError
from batchproxy._backing import leases as _leases
from batchproxy._backing.keeper import Owner
from batchproxy.codecs import digests
from batchproxy.testing import Calls, wait_released


def lease_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "batchproxy leases"}


def test_a_fork_gives_no_claims_of_its_parent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that it finds half done, and that the collector ends, are not its own."""
    store = MemoryStore()
    store.lease = 86_400
    grant = _leases.Grant(store, "n", Owner())
    grant.add(store.claim_many("n", digests([1]), grant.begin(), 1).claimed)
    with monkeypatch.context() as child:
        child.setattr(_leases, "_this", _leases._Process())
        grant.release()
        grant._process.flush(10)
    assert len(store.claims) == 1
    grant.release()
    until(lambda: not store.claims)  # soon, though nobody waits for it


def test_giving_back_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And done again: nothing is forgotten before it is done."""
    store = MemoryStore()
    process = _leases.this_process()
    grant = _leases.Grant(store, "n", Owner())
    grant.add(store.claim_many("n", digests([1]), grant.begin(), 1).claimed)
    for method in ("release", "end"):
        with monkeypatch.context() as interrupted:
            interrupted.setattr(process, method, interrupt)
            with pytest.raises(KeyboardInterrupt):
                grant.release()
    grant.release()
    grant.release()
    process.flush(10)
    assert store.claims == {}
    assert not process._claiming


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_is_given_back_after_a_failure_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried at once, with what the same call had left, and what had failed once more."""
    caplog.set_level("DEBUG")
    store = MemoryStore()
    process = _leases.this_process()
    grant = _leases.Grant(store, "n", Owner())
    for error in (OSError("unplugged"), None):
        grant.add(store.claim_many("n", digests([str(error)]), grant.begin(), 1).claimed)
        if error:
            store.fail["release_many"] = error
        else:
            store.fail.clear()
        grant.release()
        process.flush(10)
        process.flush(10)
    assert store.claims == {}
    assert store.uses["release_many"] in (3, 4)
    assert "claims were not released: OSError: unplugged" in caplog.text


def test_what_cannot_be_given_back_is_forgotten() -> None:
    """Its lease has ended; and then there is nothing left to do."""
    store, others = MemoryStore(), lease_threads()
    store.lease = 0.04
    grant = _leases.Grant(store, "n", Owner())
    grant.add(store.claim_many("n", digests([1]), grant.begin(), 1).claimed)
    store.fail["release_many"] = OSError("unplugged")
    (thread,) = lease_threads() - others
    grant.release()
    thread.join(10)
    assert not thread.is_alive()


def test_what_another_call_keeps_claimed_is_tried_on() -> None:
    """Its lease goes on with that of the other call: nobody else could have it before that ends."""
    store, owner = MemoryStore(), Owner()
    store.lease = 0.04
    goes_on, failed = (_leases.Grant(store, "n", owner) for _ in range(2))
    for key, grant in enumerate((goes_on, failed)):
        grant.add(store.claim_many("n", digests([key]), grant.begin(), 1).claimed)
    store.fail["release_many"] = OSError("unplugged")
    failed.release()
    until(lambda: store.uses["release_many"] > 10)  # four in the time of a lease
    store.fail.clear()
    until(lambda: len(store.claims) == 1)
    goes_on.release()
    until(lambda: not store.claims)


def test_who_closes_a_store_waits_for_no_other() -> None:
    """Another one may stall."""
    stores = stalled, healthy = MemoryStore(), MemoryStore()
    process = _leases.this_process()
    flushed, waits = threading.Event(), list[bool]()
    stalled.release_many = lambda *_: waits.append(flushed.wait(3))  # type: ignore[method-assign] # it stalls
    for store in stores:
        grant = _leases.Grant(store, "n", Owner())
        grant.add(store.claim_many("n", digests([1]), grant.begin(), 1).claimed)
        grant.release()
    process.flush(10, healthy)
    assert healthy.claims == {}
    flushed.set()
    wait_released()
    assert waits == [True]


def test_closing_waits_for_what_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was closed might not take it."""
    store, left = MemoryStore(), list[int]()
    gate, flush = store.gate("release_many"), _leases._Process.flush

    def flushed(process: _leases._Process, *how: Any) -> None:
        gate.open()
        flush(process, *how)

    monkeypatch.setattr(_leases._Process, "flush", flushed)
    monkeypatch.setattr(store, "close", lambda: left.append(len(store.claims)))
    failing = Calls()
    failing.fail(0, LookupError())
    with Cache[str](store=store, namespace="n") as cache, pytest.raises(LookupError):
        BatchingMapProxy[int, str](cache=cache).map([1], failing)
    assert left == [0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lease_thread_that_does_not_start_or_dies_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the next call that needs it, be it to claim or to give back."""
    store = MemoryStore()
    monkeypatch.setattr(_leases, "_this", process := _leases._Process())
    others = lease_threads()
    first, second, third = grants = [_leases.Grant(store, "n", Owner()) for _ in range(3)]
    with monkeypatch.context() as none_left:
        none_left.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(StoreError, match="can't start"):
            first.begin()
    for key, grant in enumerate(grants):
        grant.add(store.claim_many("n", digests([key]), grant.begin(), 1).claimed)
    (thread,) = lease_threads() - others
    assert len(process._claiming) == 3  # the first one, too, that could not at first
    beats = process._keepers[id(store)]._beats.copy()
    _leases.Grant(store, "n", second.owner).begin()
    assert process._keepers[id(store)]._beats == beats  # none is put off by a further call
    store.fail["release_many"] = SystemExit()  # type: ignore[assignment] # worse than it may be
    first.release()
    thread.join(10)
    store.fail.clear()
    with monkeypatch.context() as none_left:
        none_left.setattr(threading.Thread, "start", no_thread)
        second.release()
    third.release()
    process.flush(10)
    assert set(store.claims) == {("n", digests([0])[0])}
    first.add(digests([0]))
    first.release()
    process.flush(10)
    assert store.claims == {}


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")
