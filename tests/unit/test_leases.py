"""Claims as one process holds and gives them back, and the thread that does it."""

from __future__ import annotations

import threading

import pytest
from memory_store import MemoryStore

from batchproxy import StoreError
from batchproxy._backing import leases as _leases
from batchproxy._backing.keeper import Owner
from batchproxy.testing import names_in_store, wait_released


def lease_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "batchproxy leases"}


def test_a_fork_gives_no_claims_of_its_parent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that it finds half done, and that the collector ends, are not its own."""
    store = MemoryStore()
    hold = _leases.Hold(store, "n", Owner())
    hold.add(store.claim_many("n", names_in_store(1), hold.begin(), 1).claimed)
    with monkeypatch.context() as child:
        child.setattr(_leases, "_this", _leases._Process())
        hold.release()
        hold._process.flush(10)
    assert len(store.claims) == 1
    hold.release()
    wait_released()
    assert store.claims == {}


def test_giving_back_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And done again: nothing is forgotten before it is done."""
    store = MemoryStore()
    process = _leases.this_process()
    hold = _leases.Hold(store, "n", Owner())
    hold.add(store.claim_many("n", names_in_store(1), hold.begin(), 1).claimed)
    for method in ("release", "end"):
        with monkeypatch.context() as interrupted:
            interrupted.setattr(process, method, interrupt)
            with pytest.raises(KeyboardInterrupt):
                hold.release()
    hold.release()
    hold.release()
    process.flush(10)
    assert store.claims == {}
    assert not process._claiming


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lease_thread_that_does_not_start_or_dies_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the next call that needs it."""
    store = MemoryStore()
    monkeypatch.setattr(_leases, "_this", process := _leases._Process())
    others = lease_threads()
    with monkeypatch.context() as none_left:
        none_left.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(StoreError, match="can't start"):
            _leases.Hold(store, "n", Owner()).begin()
    hold = _leases.Hold(store, "n", Owner())
    hold.add(store.claim_many("n", names_in_store(1), hold.begin(), 1).claimed)
    (thread,) = lease_threads() - others
    store.fail["release_many"] = SystemExit()  # type: ignore[assignment] # worse than it may be
    hold.release()
    thread.join(10)
    store.fail.clear()
    hold.add(names_in_store(1))
    hold.release()
    process.flush(10)
    assert store.claims == {}


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")
