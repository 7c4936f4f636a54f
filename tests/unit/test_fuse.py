"""The fuse of a store while the process is forked."""

import os

import pytest
from process_tools import run

FORK = """
import os, sys, threading, types
from memory_store import MemoryStore
from batchproxy import BatchingMapProxy, Cache
from batchproxy._backing import fuse as _fuse

store = MemoryStore()
proxy = BatchingMapProxy(cache=Cache(store=store, namespace="n", on_store_error="continue"))
proxy.map([0], list)
inside, go = threading.Event(), threading.Event()
monotonic = _fuse.time.monotonic

def stops():
    if threading.current_thread() is not threading.main_thread() and not inside.is_set():
        inside.set()
        go.wait()
    return monotonic()

_fuse.time = types.SimpleNamespace(monotonic=stops)
thread = threading.Thread(target=proxy.map, args=([1], list))
thread.start()
inside.wait()
child = os.fork()
if not child:
    print(proxy.map([2], list), flush=True)
    os._exit(0)
os.waitpid(child, 0)
go.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_in_the_middle_of_a_decision() -> None:
    """The child decides anew: who was deciding does not live there."""
    assert run(FORK) == "[2]\n"
