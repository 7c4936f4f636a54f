"""Ctrl-C in moments inside of the portal, or of the release of a call, that a script chooses."""

import pytest
from process_tools import needs_posix, run_prepared
from tools import both

pytestmark = needs_posix


@both
def test_a_second_interrupt(backend: str) -> None:
    """If the first Ctrl-C is not heeded, the portal being busy, the second one leaves at once."""
    script = """
from batchproxy._engine import portal as _portal
proxy = BatchingMapProxy(backend=sys.argv[1])
calls = Calls(1)
owner = start(proxy.map, [1, 2], calls)
until(lambda: calls.hanging)

busy = threading.Event()
received = []
receive = _portal.PortalCall._receive
def noted(self):
    if threading.get_ident() == main_thread:
        received.append(self)
    return receive(self)
_portal.PortalCall._receive = noted

def twice():
    until(lambda: proxy.statistics().waiting)
    _portal._portals[sys.argv[1]].post(busy.wait)
    interrupt()
    until(lambda: len(received) == 2)  # main waits for the portal to acknowledge
    interrupt()

start(twice)
print(type(interrupted(proxy.map, [1], never).__context__).__name__)
print(proxy.statistics().waiting)  # the portal does not know yet
busy.set()
until(lambda: not proxy.statistics().waiting)
calls.gate.set()
owner.join()
print(proxy.map([2, 1], never))
assert_idle(proxy)
"""
    assert run_prepared(script, backend) == "KeyboardInterrupt\n1\n['2', '1']\n"


@both
def test_interrupt_while_the_portal_starts(backend: str) -> None:
    """Ctrl-C before the portal is ready leaves it to start, for the next map() to use."""
    script = """
from batchproxy._engine import portal as _portal
ready = threading.Event()
main = _portal.Portal._main
async def slow(self):
    ready.wait()
    await main(self)
_portal.Portal._main = slow
waiting = []
wait_until_ready = _portal.Portal.wait_until_ready
def noted(self):
    waiting.append(self)
    wait_until_ready(self)
_portal.Portal.wait_until_ready = noted

proxy = BatchingMapProxy(backend=sys.argv[1])
interrupt_when(lambda: waiting)
interrupted(proxy.map, [1], never)
ready.set()
print(proxy.map([1], Calls()))
print(len(set(waiting)))
assert_idle(proxy)
"""
    assert run_prepared(script, backend) == "['1']\n1\n"


@both
@pytest.mark.parametrize("asleep", ["starting the portal", "in the portal"])
def test_an_interrupt_that_wakes_nobody(backend: str, asleep: str) -> None:
    """Ctrl-C ends map() also where the signal does not wake the main thread from its sleep.

    So it is when it arrives in the instant before the thread falls asleep, and, which can be had
    for certain, when the system hands it to another thread.
    """
    script = """
from batchproxy._engine import portal as _portal
backend, asleep = sys.argv[1:]
gate = threading.Event()
proxy = BatchingMapProxy(backend=backend)
calls = Calls(1)
main = _portal.Portal._main
async def slow(self):
    gate.wait()
    await main(self)
if asleep == "starting the portal":
    _portal.Portal._main = slow
else:
    start(proxy.map, [1], calls)
    until(lambda: calls.hanging)

def sleeps():
    frame, names = sys._current_frames()[main_thread], set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return "wait_until_ready" in names or proxy.statistics().waiting

def interrupt_elsewhere():
    until(sleeps)
    time.sleep(0.05)  # nothing tells when the thread is really asleep
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Event().wait()

start(interrupt_elsewhere)
interrupted(proxy.map, [1], never)
gate.set()
calls.gate.set()
print(proxy.map([1, 2], Calls()))
"""
    assert run_prepared(script, backend, asleep) == "['1', '2']\n"


@both
@pytest.mark.parametrize("batch_size", [None, 1], ids=["one call", "group"])
def test_interrupt_of_an_async_release(backend: str, batch_size: int | None) -> None:
    """Ctrl-C in the very moment in which an async map() ends a call leaves nothing held.

    (On asyncio only the second Ctrl-C is raised where it comes. Where the call has failed, its keys
    are released in that moment: test_gaps.py.)
    """
    script = """
from batchproxy._core.table import Table
backend, batch_size = sys.argv[1], eval(sys.argv[2])
proxy = AsyncBatchingMapProxy(batch_size, 3)
end, pressed = Table.end, []

def interrupted_end(self, flight):
    if not pressed:
        pressed.append(flight)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        print("not interrupted")
    end(self, flight)

Table.end = interrupted_end
interrupted(lambda: anyio.run(proxy.map, [1, 2, 3], answer, backend=backend))
assert_idle(proxy)
print(anyio.run(proxy.map, [1, 2, 3], answer, backend=backend))
"""
    assert run_prepared(script, backend, batch_size) == "['1', '2', '3']\n"


@both
def test_an_interrupt_while_the_main_thread_is_looked_at(backend: str) -> None:
    """Wherever Ctrl-C lands before the portal is asked, the interpreter is not taken for ending."""
    script = """
proxy = BatchingMapProxy(backend=sys.argv[1])
def trace(frame, event, arg):
    if frame.f_code.co_name == "_wait_for_tstate_lock":
        def line(frame, event, arg):
            if "acquire" in lines[frame.f_lineno - 1]:
                sys.settrace(None)
                raise KeyboardInterrupt
            return line
        return line
    return trace
lines = open(threading.__file__).readlines()
sys.settrace(trace)
try:
    proxy.map([1], lambda items: items)
except KeyboardInterrupt:
    pass
finally:
    sys.settrace(None)
print(threading.main_thread().is_alive())
print(proxy.map([2], lambda items: items))
"""
    assert run_prepared(script, backend) == "True\n[2]\n"
