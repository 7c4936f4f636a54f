"""Forks while locks are held, and while something is imported."""

from pathlib import Path

import pytest
from process_tools import IMPORTS, needs_fork, run_prepared
from tools import both, modes


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
    assert run_prepared(script) == "True\n"


@pytest.mark.needs_trio
@needs_fork
@both
@modes
def test_fork_while_other_threads_are_in_map(backend: str, max_concurrency: int | None) -> None:
    """The child has none of the calls under way, and none of their keys, slots and locks."""
    script = """
from batchproxy._engine import portal as _portal
from batchproxy._core import waits as _rings
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
    for lock in (cache._table._lock, _portal._lock, _rings._lock):
        assert lock.acquire(blocking=False)
        lock.release()
    inside = look(proxy)
    assert (inside.in_flight, inside.running, inside.waiting) == (frozenset(), 0, 0)
    assert proxy.map([1], Calls()) == ["1"]
    for backend in ("asyncio", "trio"):
        assert anyio.run(asynchronous.map, [1, backend], answer, backend=backend) == [
            "1", f"async {backend}"]
    assert proxy.map([2, 1], Calls()) == ["2", "1"]
    assert not look(proxy).in_flight

locked = threading.Event()
def hold_the_locks():
    with cache._table._lock, _portal._lock, _rings._lock:
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
    assert run_prepared(script, backend, max_concurrency) == "[['1'], ['1', '2']]\n"


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
    assert run_prepared(script, tmp_path) == "forked\n[array([1])]\n"


@both
@pytest.mark.parametrize("how", ["plain", "SQLite", "asynchronous"])
def test_a_fork_waits_for_all_that_threads_of_ours_import(backend: str, how: str) -> None:
    """What another thread is importing at a fork stays locked in the child: so a fork waits."""
    script = """
import tempfile
from batchproxy._forks import unforked

def in_thread():
    if unforked()._is_owned():
        imported.pop()

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
    assert run_prepared(IMPORTS + script, backend, how) == "[]\n"


@needs_fork
def test_a_child_runs_no_call_of_its_parent() -> None:
    """What was running there came to nothing here, also if its keys were forgotten."""
    script = """
cache = Cache()
proxy = BatchingMapProxy(1, cache=cache)
calls = Calls(1)
thread = start(proxy.map, [1, 2], calls)
until(lambda: calls.hanging)
cache.invalidate([1])
if not (child := os.fork()):
    now = proxy.statistics()
    os._exit((now.calls, now.running, now.cancelled) != (1, 0, 1))
print(os.waitpid(child, 0)[1])
calls.gate.set()
thread.join()
assert_idle(proxy)
async def fork(items):
    return [os.fork()]
async def main():
    (child,) = await AsyncBatchingMapProxy(1).map([1], fork)
    return child or os._exit(0)
print(os.waitpid(anyio.run(main), 0)[1])
"""
    assert run_prepared(script) == "0\n0\n"
