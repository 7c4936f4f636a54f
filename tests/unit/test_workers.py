"""The threads of a store: what they are given is done, also where no further one can be started."""

import threading
from collections.abc import Callable
from queue import Empty

import pytest
from tools import Interrupt, until

from batchproxy._backing.workers import Workers

start = threading.Thread.start


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def works(workers: Workers) -> None:
    """What it is given is done."""
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(30)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that have been started."""
    started: list[threading.Thread] = []

    def noted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return started


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be done is refused, and not done later; the next is."""
    workers = Workers(2)
    refused = threading.Event()
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                workers.submit(refused.set)
    works(workers)
    assert not refused.is_set()


def test_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then those that there are do everything, one after the other."""
    workers = Workers(2)
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def held_up() -> None:
        entered.set()
        assert leave.wait(30)

    workers.submit(held_up)
    assert entered.wait(30)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        workers.submit(done.set)
    assert not done.is_set()
    leave.set()
    assert done.wait(30)


def test_an_interrupt_when_a_thread_has_started(
    threads: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts, so that there are never more than there may be; the job is not done."""
    workers, never, noted = Workers(1), threading.Event(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        noted(thread)
        raise Interrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Interrupt):
        workers.submit(never.set)
    works(workers)  # starts no other
    assert len(threads) == 1
    assert not never.is_set()


def test_threads_end(threads: list[threading.Thread], monkeypatch: pytest.MonkeyPatch) -> None:
    """When they have had nothing to do for a while; then others are started."""
    monkeypatch.setattr("batchproxy._backing.workers._IDLE", 0.001)
    workers = Workers(1)
    for _ in range(3):
        works(workers)
        until(lambda: not any(each.is_alive() for each in threads))
    assert len(threads) == 3


def test_a_job_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has found nothing stays if a job is accepted that is not yet in the queue."""
    monkeypatch.setattr("batchproxy._backing.workers._IDLE", 0.001)
    workers = Workers(1)
    queue = workers._state.queue
    empty = threading.Event()

    class Slow:
        """Takes the job in when a thread has looked for it twice in vain."""

        def get(self, timeout: float) -> Callable[[], None] | None:
            try:
                return queue.get(timeout=timeout)
            except Empty:
                looked.append(None)
                if len(looked) == 2:
                    empty.set()
                raise

        def put(self, item: Callable[[], None] | None) -> None:
            assert empty.wait(30)
            queue.put(item)

    looked: list[None] = []
    monkeypatch.setattr(workers._state, "queue", Slow())
    works(workers)


def test_threads_end_with_their_workers(threads: list[threading.Thread]) -> None:
    """At once, and after all has been done."""
    workers = Workers(1)
    jobs = [threading.Event() for _ in range(20)]
    for job in jobs:
        workers.submit(job.set)
    del workers
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert all(job.is_set() for job in jobs)
