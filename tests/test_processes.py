"""Points 8 and 14 of the contract where they need a process: Ctrl-C, exit, fork, multiprocessing.

Each test runs a script in a process of its own, which must end well and print no error. Nothing in
the scripts waits for a length of time: functions that hang do so for ever, and are interrupted once
it is known that they hang.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
modes = pytest.mark.parametrize(
    "max_concurrency", [pytest.param(None, id="calling thread"), pytest.param(2, id="workers")]
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

# Python 3.12 says that forking with threads is dangerous; that is what is tested.
_IGNORED = "ignore:This process:DeprecationWarning"

_PRELUDE = """
import os, random, signal, sys, threading, time, traceback
import anyio
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, PortalError
from batchproxy import _portal, _rings

main_thread = threading.main_thread().ident

def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def until(condition):
    while not condition():
        time.sleep(0.001)

def interrupt():
    signal.pthread_kill(main_thread, signal.SIGINT)

def interrupt_when(condition):
    # A signal that comes in the instant before a thread falls asleep does not wake it. So another
    # one, which does nothing else, is sent after it until it has been handled, and so the first.
    handled = []
    def wait_and_interrupt():
        until(condition)
        interrupt()
        while not handled:
            time.sleep(0.01)
            signal.pthread_kill(main_thread, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    start(wait_and_interrupt)

def assert_idle(*proxies):
    for proxy in proxies:
        now = proxy.statistics()
        assert (now.in_flight, now.waiting, now.running) == (0, 0, 0), now

def never(items):
    raise AssertionError(f"called with {items}")

class Calls:
    # Records its batches; the batch that begins with `hangs` waits until it is opened.
    def __init__(self, *hangs):
        self.batches, self.hanging, self.hangs, self.gate = [], 0, hangs, threading.Event()
    def __call__(self, items):
        self.batches.append(items)
        if items[0] in self.hangs:
            self.hanging += 1
            self.gate.wait()
        return [str(item) for item in items]

def forked(child):
    # Run `child` in a forked process that then exits as processes do; it must end well.
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
"""


def run(script: str, *args: object) -> str:
    """What `script` printed. It must end well and print nothing to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", _IGNORED, "-c", _PRELUDE + script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


# --- Ctrl-C ---


@both
def test_interrupt_in_the_function(backend: str) -> None:
    """Ctrl-C in map_func, in the calling thread, arrives as it is; finished batches are kept."""
    script = """
proxy = BatchingMapProxy(2, backend=sys.argv[1])
calls = Calls(3)
interrupt_when(lambda: calls.hanging)
try:
    proxy.map([1, 2, 3, 4, 5], calls)
except KeyboardInterrupt as error:
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    print("__call__" in names)
assert_idle(proxy)
again = Calls()
print(proxy.map([1, 2, 3, 4, 5], again), again.batches)
"""
    assert run(script, backend) == "True\n['1', '2', '3', '4', '5'] [[3, 4], [5]]\n"


@both
def test_interrupt_while_waiting_for_another_thread(backend: str) -> None:
    """Ctrl-C ends a map() that waits for another thread's call, which goes on undisturbed."""
    script = """
proxy = BatchingMapProxy(backend=sys.argv[1])
calls, answers = Calls(1), []
owner = start(lambda: answers.append(proxy.map([1], calls)))
until(lambda: calls.hanging)
interrupt_when(lambda: proxy.statistics().waiting)
try:
    proxy.map([1], never)
except KeyboardInterrupt:
    print("interrupted")
now = proxy.statistics()
print(now.in_flight, now.waiting, now.running)
calls.gate.set()
owner.join()
print(answers, proxy.map([1], never))
assert_idle(proxy)
"""
    assert run(script, backend) == "interrupted\n1 0 1\n[['1']] ['1']\n"


@both
@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_interrupt_with_workers(backend: str, max_concurrency: int) -> None:
    """map() ends while its threads run on; the keys are free at once, the slots when they end."""
    script = """
backend, number = sys.argv[1], int(sys.argv[2])
proxy = BatchingMapProxy(1, number, backend=backend)
items = list(range(number))
calls = Calls(*items)
interrupt_when(lambda: calls.hanging == number)
try:
    proxy.map([*items, "more"], calls)
except KeyboardInterrupt:
    print("interrupted")
assert_idle(proxy)  # the keys are free

answers, later = [], Calls()
other = start(lambda: answers.append(proxy.map([0], later)))
[limiter] = proxy._engine._slots._limiters.values()
until(lambda: later.batches or limiter.statistics().tasks_waiting)
print(later.batches, limiter.borrowed_tokens)  # every slot is taken

calls.gate.set()
other.join()
print(answers, later.batches)
until(lambda: limiter.borrowed_tokens == 0)
print(proxy.statistics().cached)  # the late answers were thrown away
assert ["more"] not in calls.batches
assert_idle(proxy)
"""
    assert run(script, backend, max_concurrency) == (
        f"interrupted\n[] {max_concurrency}\n[['0']] [[0]]\n1\n"
    )


@both
def test_a_second_interrupt(backend: str) -> None:
    """If the first Ctrl-C is not heeded, the portal being busy, the second one leaves at once."""
    script = """
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
try:
    proxy.map([1], never)
except KeyboardInterrupt as error:
    print("interrupted", type(error.__context__).__name__)
print(proxy.statistics().waiting)  # the portal does not know yet
busy.set()
until(lambda: not proxy.statistics().waiting)
calls.gate.set()
owner.join()
print(proxy.map([2, 1], never))
assert_idle(proxy)
"""
    assert run(script, backend) == "interrupted KeyboardInterrupt\n1\n['2', '1']\n"


@both
def test_interrupt_while_the_portal_starts(backend: str) -> None:
    """Ctrl-C before the portal is ready leaves it to start, for the next map() to use."""
    script = """
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
try:
    proxy.map([1], never)
except KeyboardInterrupt:
    print("interrupted")
ready.set()
print(proxy.map([1], Calls()))
print(len(set(waiting)))
assert_idle(proxy)
"""
    assert run(script, backend) == "interrupted\n['1']\n1\n"


@both
@pytest.mark.parametrize("asleep", ["starting the portal", "in the portal"])
def test_an_interrupt_that_wakes_nobody(backend: str, asleep: str) -> None:
    """Ctrl-C ends map() also where the signal does not wake the main thread from its sleep.

    So it is when it arrives in the instant before the thread falls asleep, and, which can be had
    for certain, when the system hands it to another thread.
    """
    script = """
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
try:
    proxy.map([1], never)
except KeyboardInterrupt:
    print("interrupted")
gate.set()
calls.gate.set()
print(proxy.map([1, 2], Calls()))
"""
    assert run(script, backend, asleep) == "interrupted\n['1', '2']\n"


@pytest.mark.needs_trio
@both
@pytest.mark.parametrize("batch_size", [None, 1], ids=["one call", "group"])
@pytest.mark.parametrize("how", ["while asleep", "in the function"])
def test_interrupt_of_an_async_map(backend: str, batch_size: int | None, how: str) -> None:
    """Ctrl-C during `anyio.run` of an async map() leaves nothing in flight, and comes bare."""
    script = """
backend, batch_size, how = sys.argv[1], {"None": None, "1": 1}[sys.argv[2]], sys.argv[3]
proxy = AsyncBatchingMapProxy(batch_size, 3)
batches, seen = [], []

async def hang(items):
    batches.append(items)
    if how == "in the function" and 2 in items:
        signal.raise_signal(signal.SIGINT)
    await anyio.sleep_forever()

async def main():
    try:
        await proxy.map([1, 2, 3, 4, 5], hang)
    except BaseException as error:
        seen.append(type(error).__name__)
        raise

if how == "while asleep":
    interrupt_when(lambda: len(batches) == (3 if batch_size else 1))
try:
    anyio.run(main, backend=backend)
except KeyboardInterrupt as error:
    print(type(error).__name__, *seen)
assert_idle(proxy)

async def answer(items):
    return [str(item) for item in items]
for again in (backend, {"trio": "asyncio", "asyncio": "trio"}[backend]):
    print(anyio.run(proxy.map, [1, 2, 3, 4, 5], answer, backend=again))
"""
    inside = {"asyncio": "CancelledError", "trio": "KeyboardInterrupt"}[backend]
    assert run(script, backend, batch_size, how) == (
        f"KeyboardInterrupt {inside}\n" + "['1', '2', '3', '4', '5']\n" * 2
    )


@both
@pytest.mark.parametrize("batch_size", [None, 1], ids=["one call", "group"])
def test_interrupt_of_an_async_release(backend: str, batch_size: int | None) -> None:
    """Ctrl-C in the very moment in which an async map() ends a call leaves nothing held.

    (On asyncio only the second Ctrl-C is raised where it comes. Where the call has failed, its keys
    are released in that moment: test_gaps.py.)
    """
    script = """
from batchproxy._flights import Flights
backend, batch_size = sys.argv[1], eval(sys.argv[2])
proxy = AsyncBatchingMapProxy(batch_size, 3)
end, pressed = Flights.end, []

def interrupted_end(self, flight):
    if not pressed:
        pressed.append(flight)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        print("not interrupted")
    end(self, flight)

async def answer(items):
    return [str(item) for item in items]

Flights.end = interrupted_end
try:
    anyio.run(proxy.map, [1, 2, 3], answer, backend=backend)
except KeyboardInterrupt:
    print("interrupted")
assert_idle(proxy)
print(anyio.run(proxy.map, [1, 2, 3], answer, backend=backend))
"""
    assert run(script, backend, batch_size) == "interrupted\n['1', '2', '3']\n"


_AT_RANDOM = """
mode, backend = sys.argv[1:]
random.seed(mode + backend)
armed, handled, interrupted = False, 0, 0

def handler(number, frame):
    global handled
    handled += 1
    if armed:
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)

def press(delay):
    time.sleep(delay)
    interrupt()

def compute(items):
    time.sleep(0.0001)
    return [str(item) for item in items]

# Python cannot go on with trio once an interrupt has come while it was imported, whoever did so.
__import__("anyio._backends._" + backend)
cache = Cache()
proxy = BatchingMapProxy(1, 2 if mode == "workers" else None, cache=cache, backend=backend)
other = BatchingMapProxy(1, cache=cache)
expected = [str(item) for item in range(8)]
number = -1
while number < 100 or not interrupted:  # on a slow machine it takes more until one comes inside
    number += 1
    cache.clear()
    if mode == "waiting":  # for the calls of another thread, which are not interrupted
        thread = start(other.map, range(8), compute)
    presser = threading.Thread(target=press, args=(10 ** random.uniform(-5, -2.3),))
    presser.start()
    try:
        armed = True
        proxy.map(range(8), compute)
        armed = False
    except KeyboardInterrupt:
        armed = False
        interrupted += 1
    presser.join()
    until(lambda: handled == number + 1)
    if mode == "waiting":
        thread.join()
    assert_idle(proxy, other)
    assert proxy.map(range(8), compute) == expected
    assert_idle(proxy, other)
print(interrupted > 0)
"""


@both
@pytest.mark.parametrize("mode", ["calling thread", "workers", "waiting"])
def test_interrupts_at_random_moments(backend: str, mode: str) -> None:
    """Whenever Ctrl-C comes, nothing stays in flight and the next map() is right."""
    assert run(_AT_RANDOM, mode, backend) == "True\n"


@both
def test_interrupts_of_an_async_map_at_random_moments(backend: str) -> None:
    """The same while `anyio.run` carries out an async map() of several calls at a time.

    (On trio of one: an interrupt of trio's own opening of a nursery can make trio hang, with any
    program; proof/interrupts.py counts those.)
    """
    script = """
random.seed(sys.argv[1])
proxy = AsyncBatchingMapProxy({"asyncio": 1, "trio": None}[sys.argv[1]], 3)
expected = [str(item) for item in range(8)]
interrupted = 0

async def compute(items):
    await anyio.sleep(0.0001)
    return [str(item) for item in items]

def press(delay):
    time.sleep(delay)
    interrupt()

async def main():
    global interrupted
    presser = start(press, 10 ** random.uniform(-5, -2.3))
    try:
        await proxy.map(range(8), compute)
    except BaseException:
        interrupted += 1
        raise
    while True:  # until it is pressed, so that it is the map() or this, and not anyio.run itself
        await anyio.sleep(0)

number = -1
while number < 100 or not interrupted:  # as above
    number += 1
    anyio.run(proxy.clear)
    try:
        anyio.run(main, backend=sys.argv[1])
    except KeyboardInterrupt:
        assert_idle(proxy)
        assert anyio.run(proxy.map, range(8), compute, backend=sys.argv[1]) == expected
        assert_idle(proxy)
print(interrupted > 0)
"""
    assert run(script, backend) == "True\n"


# --- Exit ---


@both
@modes
def test_exit_with_an_unclosed_proxy(backend: str, max_concurrency: int | None) -> None:
    """A proxy that is never closed neither keeps the process alive nor makes it complain."""
    script = """
proxy = BatchingMapProxy(2, eval(sys.argv[2]), backend=sys.argv[1])
print(proxy.map([1, 2, 3], Calls()))
"""
    assert run(script, backend, max_concurrency) == "['1', '2', '3']\n"


@both
@modes
def test_exit_with_work_under_way(backend: str, max_concurrency: int | None) -> None:
    """Neither do calls that hang, those who wait for them, and threads left by a Ctrl-C."""
    script = """
proxy = BatchingMapProxy(1, eval(sys.argv[2]), backend=sys.argv[1])
calls = Calls(1, 2)
start(proxy.map, [1, 2, 3], calls)
until(lambda: calls.hanging)
start(proxy.map, [1], never)
until(lambda: proxy.statistics().waiting)
other = BatchingMapProxy(1, 1, backend=sys.argv[1])
left_behind = Calls(1)
interrupt_when(lambda: left_behind.hanging)
try:
    other.map([1], left_behind)
except KeyboardInterrupt:
    print("done")
"""
    assert run(script, backend, max_concurrency) == "done\n"


@both
@modes
def test_exit_waits_for_a_thread_of_the_user(backend: str, max_concurrency: int | None) -> None:
    """A thread that is no daemon can go on with its map() when the main thread has ended."""
    script = """
proxy = BatchingMapProxy(1, eval(sys.argv[2]), backend=sys.argv[1])
calls = Calls(1)
def work():
    print(proxy.map([1, 2, 3], calls))
threading.Thread(target=work).start()
until(lambda: calls.hanging)
def open_at_the_end():
    until(lambda: not threading.main_thread().is_alive())
    calls.gate.set()
start(open_at_the_end)
"""
    assert run(script, backend, max_concurrency) == "['1', '2', '3']\n"


@both
def test_a_finaliser_that_runs_when_all_threads_are_gone(backend: str) -> None:
    """While the interpreter shuts down a map() has its hits, and an error instead of a hang."""
    script = """
class Last:
    def __init__(self, proxy):
        self.proxy = proxy
    def __del__(self, PortalError=PortalError, print=print):
        print(self.proxy.map([1], None))
        try:
            self.proxy.map([2], lambda items: items)
        except PortalError as error:
            print(error)

proxy = BatchingMapProxy(backend=sys.argv[1])
proxy.map([1], Calls())
import builtins
builtins.last = Last(proxy)  # goes after everything else
"""
    hits, error = run(script, backend).splitlines()
    assert hits == "['1']"
    assert error.startswith("the interpreter is shutting down: ")


@both
@pytest.mark.parametrize("when", ["after use", "unused"])
def test_map_in_an_exit_handler(backend: str, when: str) -> None:
    """There, too, whether threads could start (3.11, 3.13) or could not, and run already or not."""
    script = """
import atexit
proxies = [BatchingMapProxy(1, number, backend=sys.argv[1]) for number in (None, 2)]
if sys.argv[2] == "after use":
    for proxy in proxies:
        proxy.map([1, 2], Calls())
def at_exit():
    for proxy in proxies:
        if sys.argv[2] == "after use":
            print(proxy.map([2, 1], never))
        try:
            proxy.map([3, 4], never)
        except PortalError as error:
            print(error)
        assert_idle(proxy)
atexit.register(at_exit)
"""
    lines = run(script, backend, when).splitlines()
    errors = [line for line in lines if line.startswith("the interpreter is shutting down: ")]
    assert len(errors) == 2
    assert lines == (["['2', '1']", errors[0]] * 2 if when == "after use" else errors)


# --- Fork ---


_IMPORTS = """
# Notes what other threads than the main one import; `in_thread` is called while they do.
imported = []
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if threading.get_ident() != main_thread:
            imported.append(f"{threading.current_thread().name}: {name}")
            in_thread()
def in_thread():
    pass
sys.meta_path.insert(0, Finder)
"""


@both
@pytest.mark.parametrize("how", ["plain", "SQLite", "asynchronous"])
def test_no_thread_of_ours_imports_anything(backend: str, how: str) -> None:
    """What another thread is importing at a fork stays locked in the child: so none does."""
    script = """
import tempfile
backend, how = sys.argv[1:]

def fetch(items):
    return [{"a": item} if item != 3 else KeyError(item) for item in items]

async def fetch_in_loop(items):
    return fetch(items)

def cache():
    if how == "plain":
        return Cache()
    from batchproxy.stores import SQLiteStore
    return Cache(store=SQLiteStore(os.path.join(folder, "results.db")), namespace="n")

with tempfile.TemporaryDirectory() as folder:
    for _ in range(2):  # the second time it reads what the first has stored
        for number in (None, 2) if how != "asynchronous" else (1,):
            with cache() as one:
                if how == "asynchronous":
                    proxy = AsyncBatchingMapProxy(2, number, cache=one)
                    map_ = lambda *args: anyio.run(proxy.map, *args, backend=backend)
                    function = fetch_in_loop
                else:
                    proxy = BatchingMapProxy(2, number, cache=one, backend=backend)
                    map_, function = proxy.map, fetch
                for items in ([1, 2, 3, 4], [5, 6]):
                    try:
                        map_(items, function)
                    except KeyError:
                        pass
                one.invalidate([1])
                one.prime({7: 8})
print(imported)
"""
    assert run(_IMPORTS + script, backend, how) == "[]\n"


@needs_fork
def test_a_fork_waits_for_what_is_imported_late() -> None:
    """Whichever thread first reads an array from a store imports NumPy, and the fork waits."""
    pytest.importorskip("numpy")
    script = """
import tempfile
from batchproxy.stores import SQLiteStore
path = os.path.join(tempfile.mkdtemp(), "results.db")
def fetch(items):
    import numpy
    return [numpy.array([1]) for item in items]
def map_(function):
    with Cache(store=SQLiteStore(path), namespace="n") as cache:
        return BatchingMapProxy(cache=cache).map([1], function)
def write():
    map_(fetch)
forked(write)

begun, forking, early = threading.Event(), threading.Event(), []
def in_thread():
    if not begun.is_set():
        begun.set()
        forking.wait()
        time.sleep(0.1)  # the fork, if nothing holds it up, takes less
        early.extend(done)
done = []
def fork():
    begun.wait()
    os.register_at_fork(before=forking.set)  # it runs first
    if (child := os.fork()) == 0:  # not the main thread, so it has to leave by _exit()
        try:
            map_(never)
        finally:
            os._exit(0 if sys.exception() is None else 1)
    done.append(child)
forker = start(fork)
print(map_(never)[0])
forker.join()
_, status = os.waitpid(done[0], 0)
print(early, status)
"""
    assert run(_IMPORTS + script) == "[1]\n[] 0\n"


@needs_fork
def test_what_is_imported_late_may_log() -> None:
    """A fork that waits for it does not hold the lock of logging meanwhile: that were a ring."""
    script = """
import logging
from batchproxy._forks import unforked
main = threading.main_thread().ident
inside = threading.Event()
def imports():
    with unforked():
        inside.set()
        until(lambda: sys._current_frames()[main].f_code.co_name == "_before_fork")
        print(logging._lock.acquire(timeout=5))
        logging._lock.release()
thread = start(imports)
inside.wait()
if not (child := os.fork()):
    os._exit(0)
os.waitpid(child, 0)
thread.join()
"""
    assert run(script) == "True\n"


@needs_fork
@both
def test_forks_while_the_first_maps_begin(backend: str) -> None:
    """Children forked while other threads start the portal can start one of their own."""
    script = """
proxy = BatchingMapProxy(1, backend=sys.argv[1])
begin = threading.Barrier(4)
def first():
    begin.wait()
    proxy.map([1, 2, 3], Calls())
threads = [start(first) for _ in range(3)]
begin.wait()
for number in range(4):
    if (child := os.fork()) == 0:
        os._exit(proxy.map([number + 10], Calls()) != [str(number + 10)])
    assert os.waitpid(child, 0)[1] == 0
for thread in threads:
    thread.join()
print(proxy.map([1, 2, 3], never))
"""
    assert run(script, backend) == "['1', '2', '3']\n"


@needs_fork
@both
@modes
def test_fork_after_use(backend: str, max_concurrency: int | None) -> None:
    """The child has the results, computes others, and exits; so does its own child; the parent
    goes on."""
    script = """
proxy = BatchingMapProxy(2, eval(sys.argv[2]), backend=sys.argv[1])
proxy.map([1, 2], Calls())

def child():
    calls = Calls()
    assert proxy.map([1, 2, 3, 4, 5], calls) == ["1", "2", "3", "4", "5"]
    assert sorted(calls.batches) == [[3, 4], [5]]
    assert_idle(proxy)

def child_with_child():
    child()
    forked(lambda: proxy.map([5, 6], Calls()))

forked(child_with_child)
calls = Calls()
print(proxy.map([1, 2, 3], calls), calls.batches)
assert_idle(proxy)
"""
    assert run(script, backend, max_concurrency) == "['1', '2', '3'] [[3]]\n"


@pytest.mark.needs_trio
@needs_fork
@both
@modes
def test_fork_while_other_threads_are_in_map(backend: str, max_concurrency: int | None) -> None:
    """The child has none of the calls under way, and none of their keys, slots and locks."""
    script = """
cache = Cache()
proxy = BatchingMapProxy(1, eval(sys.argv[2]), cache=cache, backend=sys.argv[1])
asynchronous = AsyncBatchingMapProxy(cache=cache)
calls, answers = Calls(1, 2), []
owner = start(lambda: answers.append(proxy.map([1, 2], calls)))
until(lambda: calls.hanging == (proxy.max_concurrency or 1))
waiter = start(lambda: answers.append(proxy.map([1], never)))
until(lambda: proxy.statistics().waiting)

async def answer(items):
    return [f"async {item}" for item in items]

def child():
    for lock in (cache._table.flights.lock, _portal._lock, _rings._lock):
        assert lock.acquire(blocking=False)
        lock.release()
    assert_idle(proxy)
    assert proxy.map([1], Calls()) == ["1"]
    for backend in ("asyncio", "trio"):
        assert anyio.run(asynchronous.map, [1, backend], answer, backend=backend) == [
            "1", f"async {backend}"]
    assert proxy.map([2, 1], Calls()) == ["2", "1"]
    assert_idle(proxy)

locked = threading.Event()
def hold_the_locks():
    with cache._table.flights.lock, _portal._lock, _rings._lock:
        locked.set()
        threading.Event().wait(0.05)  # this thread is gone in the child; in the parent it lets go
start(hold_the_locks)
locked.wait()
forked(child)
calls.gate.set()
owner.join()
waiter.join()
print(sorted(answers))
assert_idle(proxy)
"""
    assert run(script, backend, max_concurrency) == "[['1'], ['1', '2']]\n"


@needs_fork
def test_an_import_that_waits_for_a_fork(tmp_path: Path) -> None:
    """A fork waits for what is imported late, but not for ever: the import may wait for it."""
    pytest.importorskip("numpy")
    (tmp_path / "numpy.py").write_text(
        "import sys, __main__\n"
        "__main__.start(__main__.forked, lambda: print('forked', flush=True)).join()\n"
        "sys.path.remove(__main__.folder)\n"
        "del sys.modules['numpy']\n"
        "import numpy\n"
    )
    script = """
from batchproxy import _forks
from batchproxy.stores import SQLiteStore
folder = sys.argv[1]

def fetch(items):
    import numpy
    return [numpy.array([item]) for item in items]

def map_(function):
    with Cache(store=SQLiteStore(os.path.join(folder, "results.db")), namespace="n") as cache:
        return BatchingMapProxy(cache=cache).map([1], function)

forked(lambda: map_(fetch))
_forks._PATIENCE = 0.01
sys.path.insert(0, folder)
print(map_(never))
"""
    assert run(script, tmp_path) == "forked\n[array([1])]\n"


@needs_fork
@both
def test_fork_inside_map_func(backend: str) -> None:
    """In the middle of a call the child can map(), even the same key; its outer map() is over."""
    script = """
proxy = BatchingMapProxy(backend=sys.argv[1])
parent = os.getpid()

def nested(items):
    return [f"{item} of the child" for item in items]

def fork(items):
    pid = os.fork()
    if pid == 0:
        assert_idle(proxy)
        assert proxy.map([1, 2], nested) == ["1 of the child", "2 of the child"]
    else:
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
    return [str(item) for item in items]

try:
    answer = proxy.map([1, 3], fork)
except PortalError as error:
    assert os.getpid() != parent
    assert "forked" in str(error)
    assert proxy.map([1, 3], nested) == ["1 of the child", "3 of the child"]
    assert_idle(proxy)
    sys.exit(0)
assert os.getpid() == parent
print(answer)
assert_idle(proxy)
"""
    assert run(script, backend) == "['1', '3']\n"


@needs_fork
@both
def test_fork_inside_a_worker_thread(backend: str) -> None:
    """In a worker thread with the only slot taken, the child can map() before it exits."""
    script = """
proxy = BatchingMapProxy(None, 1, backend=sys.argv[1])

def fork(items):
    pid = os.fork()
    if pid == 0:
        try:
            assert proxy.map([1, 2], Calls()) == ["1", "2"]
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return [f"{item}: {status}" for item in items]

print(proxy.map([1], fork))
assert_idle(proxy)
"""
    assert run(script, backend) == "['1: 0']\n"


@needs_fork
@both
def test_fork_inside_an_async_map(backend: str) -> None:
    """A child forked inside an async call has that call no more, and may compute its key."""
    script = """
asynchronous = AsyncBatchingMapProxy()
synchronous = BatchingMapProxy(cache=asynchronous._engine.cache, backend=sys.argv[1])

async def fork(items):
    pid = os.fork()
    if pid == 0:
        try:
            assert synchronous.map([1, 2], Calls()) == ["1", "2"]
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return [f"{item}: {status}" for item in items]

print(anyio.run(asynchronous.map, [1], fork, backend=sys.argv[1]))
assert_idle(asynchronous)
"""
    assert run(script, backend) == "['1: 0']\n"


_POOL = """
import multiprocessing, sys
from batchproxy import BatchingMapProxy

proxy = BatchingMapProxy(2)

def fetch(items):
    return [str(item) for item in items]

def work(number):
    return proxy.map(range(number, number + 5), fetch)

if __name__ == "__main__":
    proxy.map(range(3), fetch)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(pool.map(work, range(10)) == [work(number) for number in range(10)])
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    """A proxy in a module serves the workers of a process pool, however they are started."""
    script = tmp_path / "pool.py"
    script.write_text(_POOL)
    done = subprocess.run(
        [sys.executable, "-W", _IGNORED, script, method],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
