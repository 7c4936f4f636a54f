"""Points 8 and 14 of the contract where they need a process: Ctrl-C, exit, fork, multiprocessing.

Each test runs a script in a process of its own, which must end well and print no error. Nothing in
the scripts waits for a length of time: functions that hang do so for ever, and are interrupted once
it is known that they hang.
"""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from process_tools import IGNORED, IMPORTS, needs_fork, needs_posix, run_prepared
from tools import both, modes

pytestmark = needs_posix


# --- Ctrl-C ---


@both
def test_interrupt_in_the_function(backend: str) -> None:
    """Ctrl-C in map_func, in the calling thread, arrives as it is; finished batches are kept."""
    script = """
proxy = BatchingMapProxy(2, backend=sys.argv[1])
calls = Calls(3)
interrupt_when(lambda: calls.hanging)
error = interrupted(proxy.map, [1, 2, 3, 4, 5], calls)
print("__call__" in [frame.name for frame in traceback.extract_tb(error.__traceback__)])
assert_idle(proxy)
again = Calls()
print(proxy.map([1, 2, 3, 4, 5], again), again.batches)
"""
    assert run_prepared(script, backend) == "True\n['1', '2', '3', '4', '5'] [[3, 4], [5]]\n"


@both
def test_interrupt_while_waiting_for_another_thread(backend: str) -> None:
    """Ctrl-C ends a map() that waits for another thread's call, which goes on undisturbed."""
    script = """
proxy = BatchingMapProxy(backend=sys.argv[1])
calls, answers = Calls(1), []
owner = start(lambda: answers.append(proxy.map([1], calls)))
until(lambda: calls.hanging)
interrupt_when(lambda: proxy.statistics().waiting)
interrupted(proxy.map, [1], never)
now = proxy.statistics()
print(now.in_flight, now.waiting, now.running)
calls.gate.set()
owner.join()
print(answers, proxy.map([1], never))
assert_idle(proxy)
"""
    assert run_prepared(script, backend) == "1 0 1\n[['1']] ['1']\n"


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
interrupted(proxy.map, [*items, "more"], calls)
assert not look(proxy).in_flight  # the keys are free

answers, later = [], Calls()
other = start(lambda: answers.append(proxy.map([0], later)))
until(lambda: later.batches or look(proxy).queueing)
print(later.batches, look(proxy).slots)  # every slot is taken

calls.gate.set()
other.join()
print(answers, later.batches)
until(lambda: not look(proxy).slots)
print(proxy.statistics().cached)  # the late answers were thrown away
assert ["more"] not in calls.batches
assert_idle(proxy)
"""
    assert run_prepared(script, backend, max_concurrency) == (
        f"[] {max_concurrency}\n[['0']] [[0]]\n1\n"
    )


@both
@modes
@pytest.mark.parametrize("wrapped", [False, True], ids=["async def", "wrapper"])
def test_interrupt_with_an_asynchronous_function(
    backend: str, max_concurrency: object, wrapped: bool
) -> None:
    """Ctrl-C cancels its calls, which have ended when map() does; finished batches are kept."""
    script = """
number, backend, wrapped = eval(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
proxy = BatchingMapProxy(1, number, backend=backend)
hanging, cancelled = [], []

async def fetch(items):
    if items == [0]:
        return ["0"]
    try:
        hanging.append(items)
        await anyio.sleep_forever()
    except BaseException as error:
        cancelled.append(type(error).__name__)
        raise

interrupt_when(lambda: len(hanging) == (number or 1))
error = interrupted(proxy.map, range(10), (lambda items: fetch(items)) if wrapped else fetch)
print(error.__context__, len(cancelled), *set(cancelled))
assert_idle(proxy)
print(proxy.map(range(3), Calls()), proxy.statistics().calls)
assert_idle(proxy)
"""
    calls = 2 if max_concurrency else 1
    cancelled = {"asyncio": "CancelledError", "trio": "Cancelled"}[backend]
    assert run_prepared(script, max_concurrency, backend, wrapped) == (
        f"None {calls} {cancelled}\n['0', '1', '2'] {calls + 3}\n"
    )


@both
def test_a_coroutine_that_comes_after_the_interrupt(backend: str) -> None:
    """The late answer of a worker thread is thrown away, and Python warns of no coroutine."""
    script = """
import gc
proxy = BatchingMapProxy(1, 1, backend=sys.argv[1])
gate, hanging = threading.Event(), []

async def fetch(items):
    raise AssertionError("nobody awaits this")

def late(items):
    hanging.append(items)
    gate.wait()
    return fetch(items)

interrupt_when(lambda: hanging)
interrupted(proxy.map, [1], late)
gate.set()
print(proxy.map([1], Calls()))  # in the one slot
gc.collect()
assert_idle(proxy)
"""
    assert run_prepared(script, backend) == "['1']\n"


@both
def test_interrupt_while_the_event_loop_is_imported(backend: str) -> None:
    """Ctrl-C does not cut an import short, of which half would stay: the next map() has it."""
    script = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == f"anyio._backends._{sys.argv[1]}":
            threads.append(threading.get_ident())
            interrupt()

threads = []
sys.meta_path.insert(0, Finder())
proxy = BatchingMapProxy(backend=sys.argv[1])
interrupted(proxy.map, [1], never)
print(main_thread in threads, len(threads), proxy.map([1], Calls()))
assert_idle(proxy)
"""
    assert run_prepared(script, backend) == "False 1 ['1']\n"


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
interrupted(lambda: anyio.run(main, backend=backend))
print(*seen)
assert_idle(proxy)

for again in (backend, {"trio": "asyncio", "asyncio": "trio"}[backend]):
    print(anyio.run(proxy.map, [1, 2, 3, 4, 5], answer, backend=again))
"""
    inside = {"asyncio": "CancelledError", "trio": "KeyboardInterrupt"}[backend]
    assert run_prepared(script, backend, batch_size, how) == (
        f"{inside}\n" + "['1', '2', '3', '4', '5']\n" * 2
    )


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
    assert not look(proxy, other).in_flight
    until(lambda: look(proxy, other).idle)  # threads that were left behind have slots
    assert proxy.map(range(8), compute) == expected
    assert_idle(proxy, other)
print(interrupted > 0)
"""


@both
@pytest.mark.parametrize("mode", ["calling thread", "workers", "waiting"])
def test_interrupts_at_random_moments(backend: str, mode: str) -> None:
    """Whenever Ctrl-C comes, nothing stays in flight and the next map() is right."""
    assert run_prepared(_AT_RANDOM, mode, backend) == "True\n"


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
    assert run_prepared(script, backend) == "True\n"


# --- Exit ---


@both
@modes
def test_exit_with_work_under_way(backend: str, max_concurrency: int | None) -> None:
    """Neither proxies that are never closed, nor calls that hang, those who wait for them, or
    threads left by a Ctrl-C keep the process alive, or make it complain."""
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
interrupted(other.map, [1], left_behind)
"""
    assert run_prepared(script, backend, max_concurrency) == ""


@both
@modes
def test_exit_waits_for_a_thread_of_the_user(backend: str, max_concurrency: int | None) -> None:
    """A thread that is no daemon can go on with its map()s when the main thread has ended."""
    script = """
proxy = BatchingMapProxy(1, eval(sys.argv[2]), backend=sys.argv[1])
calls = Calls(1)
def work():
    print(proxy.map([1, 2, 3], calls), proxy.map([3, 4], calls))
threading.Thread(target=work).start()
until(lambda: calls.hanging)
def open_at_the_end():
    until(lambda: not threading.main_thread().is_alive())
    calls.gate.set()
start(open_at_the_end)
"""
    assert run_prepared(script, backend, max_concurrency) == "['1', '2', '3'] ['3', '4']\n"


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
    hits, error = run_prepared(script, backend).splitlines()
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
    lines = run_prepared(script, backend, when).splitlines()
    errors = [line for line in lines if line.startswith("the interpreter is shutting down: ")]
    assert len(errors) == 2
    assert lines == (["['2', '1']", errors[0]] * 2 if when == "after use" else errors)


# --- Fork ---


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
    assert run_prepared(IMPORTS + script) == "[1]\n[] 0\n"


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
    assert run_prepared(script, backend) == "['1', '2', '3']\n"


@needs_fork
def test_a_fork_waits_for_the_first_event_loop() -> None:
    """asyncio has a lock for that, which would stay locked in the child."""
    script = """
import asyncio
beginning, forked, made = threading.Event(), threading.Event(), asyncio.new_event_loop
def slowly():
    beginning.set()
    assert not forked.wait(0.2)
    return made()
asyncio.new_event_loop = slowly
thread = start(BatchingMapProxy(1).map, [1], Calls())
assert beginning.wait(10)
child = os.fork()
forked.set()
asyncio.new_event_loop = made
if child == 0:
    os._exit(BatchingMapProxy(1).map([2], Calls()) != ["2"])
assert os.waitpid(child, 0)[1] == 0
thread.join()
assert_idle()
print("fine")
"""
    assert run_prepared(script) == "fine\n"


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
    assert run_prepared(script, backend, max_concurrency) == "['1', '2', '3'] [[3]]\n"


@needs_fork
@both
def test_fork_inside_map_func(backend: str) -> None:
    """In the middle of a call the child can map(), even the same key; its outer map() is over."""
    script = """
outer = BatchingMapProxy(backend=sys.argv[1])
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
    answer = outer.map(["nested"], lambda items: [proxy.map([1, 3], fork)])
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
    assert run_prepared(script, backend) == "[['1', '3']]\n"


@needs_fork
@both
@pytest.mark.parametrize("where", ["worker thread", "async map"])
def test_fork_inside_another_call(backend: str, where: str) -> None:
    """In a worker thread with the only slot taken, or an async call, which the child has no more:
    it can map(), even the same key, before it exits."""
    script = """
backend, where = sys.argv[1:]
cache = Cache()
asynchronous = AsyncBatchingMapProxy(cache=cache)
number = 1 if where == "worker thread" else None
proxy = BatchingMapProxy(None, number, cache=cache, backend=backend)

def child():
    assert_idle(proxy, asynchronous)
    assert proxy.map([1, 2], Calls()) == ["1", "2"]

def fork(items):
    forked(child, os._exit)
    return items

async def fork_in_loop(items):
    return fork(items)

if where == "worker thread":
    print(proxy.map([1], fork))
else:
    print(anyio.run(asynchronous.map, [1], fork_in_loop, backend=backend))
assert_idle(proxy, asynchronous)
"""
    assert run_prepared(script, backend, where) == "[1]\n"


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
        [sys.executable, "-W", IGNORED, script, method], capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
