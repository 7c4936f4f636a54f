"""The portal and the calls in it: what dies, is dropped, or is interrupted in a bad moment.

(Points 8, 13 and 14 of the contract. What any user can see of it is in test_sync.py.)
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import anyio
import pytest
from tools import Backend, Thread, both, never

from batchproxy import BatchingMapProxy, PortalError
from batchproxy._engine import portal as _portal
from batchproxy.testing import Calls, assert_idle


def kill(portal: _portal.Portal, how: str) -> None:
    """Have the loop of `portal` end, in one of the ways in which somebody could do so."""

    def leave() -> None:
        raise SystemExit

    portal.post(leave if how == "exit" else portal.tasks.cancel_scope.cancel)


def is_gone(portal: _portal.Portal) -> bool:
    portal._thread.join(30)
    return not portal._thread.is_alive()


@pytest.fixture
def mortal_portals() -> Iterator[None]:
    """Portals that a test may kill."""
    before = dict(_portal._portals)
    _portal._portals.clear()
    yield
    for portal in _portal._portals.values():
        if not portal.dead:
            kill(portal, "cancelled")
        assert is_gone(portal)
    _portal._portals.clear()
    _portal._portals.update(before)


deaths = pytest.mark.parametrize("how", ["cancelled", "exit"])


@both
@deaths
@pytest.mark.usefixtures("mortal_portals")
def test_a_portal_that_dies(backend: Backend, how: str) -> None:
    """Whoever is under way when the portal dies gets a PortalError; the next map() works."""
    proxy = BatchingMapProxy[int, str](1, backend=backend)
    calls = Calls(gated=True)
    owner = Thread(proxy.map, [1, 2], calls).until(lambda: calls.running)
    waiter = Thread(proxy.map, [1], never).until(lambda: proxy.statistics().waiting)
    portal = _portal._portals[backend]
    kill(portal, how)
    assert type(waiter.outcome()) is PortalError
    assert is_gone(portal)
    calls.open()
    assert type(owner.outcome()) is PortalError
    gc.collect()  # of a loop that could not end in order this closes the coroutines
    assert_idle(proxy)
    assert Thread(proxy.map, [1, 2], Calls()).outcome() == ["1", "2"]
    assert _portal._portals[backend] is not portal


@both
@deaths
@pytest.mark.usefixtures("mortal_portals")
def test_a_portal_that_is_dying(backend: Backend, how: str) -> None:
    """A dead loop may wait for its worker threads, but its callers and the next map() do not."""
    proxy = BatchingMapProxy[int, str](1, max_concurrency=2, backend=backend)
    calls = Calls(gated=True)
    caller = Thread(proxy.map, [1, 2], calls).until(lambda: calls.running == 2)
    portal = _portal._portals[backend]
    kill(portal, how)
    assert type(caller.outcome()) is PortalError
    assert Thread(proxy.map, [1, 2], Calls()).outcome() == ["1", "2"]
    calls.open()
    assert is_gone(portal)
    assert_idle(proxy)


@both
@pytest.mark.usefixtures("mortal_portals")
def test_a_portal_that_drops_what_is_posted(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that accepts a task while it closes, and never runs it, does not hang its caller."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    proxy.map([1], Calls())
    portal = _portal._portals[backend]
    post = portal._post

    def drop(*dropped: Any) -> None:
        post(portal.tasks.cancel_scope.cancel)

    monkeypatch.setattr(portal, "_post", drop)
    assert type(Thread(proxy.map, [2], never).outcome()) is PortalError
    monkeypatch.undo()
    assert Thread(proxy.map, [2], Calls()).outcome() == ["2"]
    assert is_gone(portal)


@both
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ((anyio, "run"), "no {} event loop could be started"),
        ((threading.Thread, "start"), "no thread could be started"),
    ],
    ids=["loop", "thread"],
)
@pytest.mark.usefixtures("mortal_portals")
def test_a_portal_that_cannot_start(
    backend: Backend, target: tuple[object, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is told, instead of a hang; the next map() tries again, and works."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    refused = RuntimeError("can't start new thread")

    def refuse(*args: object, **options: object) -> None:
        raise refused

    monkeypatch.setattr(*target, refuse)
    with pytest.raises(PortalError, match=message.format(backend)) as caught:
        proxy.map([1], never)
    assert caught.value.__cause__ is refused
    monkeypatch.undo()
    assert proxy.map([1], Calls()) == ["1"]
    assert_idle(proxy)


@both
def test_an_interrupt_that_takes_the_last_word_along(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the instant in which the end is received does not make map() wait for another."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    receive = _portal.PortalCall._receive
    interrupts = [KeyboardInterrupt()]

    def receive_and_lose(call: _portal.PortalCall) -> Any:
        job = receive(call)
        if job is None and interrupts:
            raise interrupts.pop()
        return job

    monkeypatch.setattr(_portal.PortalCall, "_receive", receive_and_lose)
    with pytest.raises(KeyboardInterrupt):
        proxy.map([1], Calls())
    assert proxy.map([1], never) == ["1"]  # it had been finished
    assert_idle(proxy)


@both
@pytest.mark.parametrize("posted", [False, True])
def test_an_interrupt_while_posting(
    backend: Backend, posted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before or after the task is on its way: it is not begun, or ended."""
    proxy = BatchingMapProxy[int, str](backend=backend)
    proxy.map([0], Calls())
    post = _portal.Portal.post
    interrupts = [KeyboardInterrupt()]

    def post_and_interrupt(portal: _portal.Portal, function: Any) -> None:
        if interrupts and not posted:
            raise interrupts.pop()
        post(portal, function)
        if interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(_portal.Portal, "post", post_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        proxy.map([1], Calls())
    assert_idle(proxy)
    assert proxy.map([1], Calls()) == ["1"]


async def refuse() -> None:
    raise AssertionError("this work was not to begin")


class FakePortal:
    """A portal without a loop and a thread: a subclass says what becomes of what is posted."""

    def __init__(self) -> None:
        self.calls: set[_portal.PortalCall] = set()
        self._error = None
        self.variables = list(copy_context().items())
        self.tasks: anyio.abc.TaskGroup
        self.posted = 0

    def post(self, function: Callable[[], object]) -> None:
        raise NotImplementedError


def call_in(portal: Any) -> _portal.PortalCall:
    return _portal.PortalCall(portal)


def test_a_call_is_registered_before_it_is_posted() -> None:
    """A portal that dies as soon as it is asked tells the one who asked."""

    class Dying(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            assert self.calls, "nobody is there to be told"
            for call in self.calls:
                call.end()

    portal = Dying()
    with pytest.raises(PortalError):
        call_in(portal).run(refuse)
    assert not portal.calls


def test_an_interrupt_while_cancelling_does_not_lose_the_cancellation() -> None:
    """Ctrl-C as the task is posted, and again as its cancellation is: that is posted once more."""

    class Interrupted(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            self.posted += 1
            if self.posted < 3:
                raise KeyboardInterrupt
            function()

    portal = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        call_in(portal).run(refuse)
    assert portal.posted == 3


@both
def test_what_is_cancelled_before_its_first_step_does_not_begin(backend: str) -> None:
    """The cancellation may overtake a task that was started and has not run yet."""
    portal = FakePortal()
    call = call_in(portal)

    async def main() -> None:
        async with anyio.create_task_group() as portal.tasks:
            call._start(copy_context(), refuse)
            call._cancel()

    anyio.run(main, backend=backend)
    assert call._receive() is None
    assert call._error is None


def test_a_call_keeps_no_error() -> None:
    """Its frame is in the traceback of what it raised: each would keep the other alive."""

    class Failing(FakePortal):
        def post(self, function: Callable[[], object]) -> None:
            for call in self.calls:
                call._error = ValueError("boom")
                call.end()

    call = call_in(Failing())
    with pytest.raises(ValueError, match="boom"):
        call.run(refuse)
    assert call._error is None


@pytest.mark.parametrize("ready", ["before the bell was there", "and told everybody"])
def test_a_portal_that_becomes_ready_meanwhile(ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is about to wait looks again, so that it does not wait for a bell that has rung."""
    portal = _portal.get_portal("asyncio")

    class Bells(list[Any]):
        def append(self, bell: Any) -> None:
            super().append(bell)
            portal._ready = True
            if ready == "and told everybody":
                portal._announce()

    monkeypatch.setattr(portal, "_ready", False)
    monkeypatch.setattr(portal, "_bells", Bells())
    portal.wait_until_ready()
    assert portal._ready
