"""Scripts for processes of their own, and what they have from the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)

needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


# Python 3.12 says that forking with threads is dangerous; that is what is tested.
IGNORED = "ignore:This process:DeprecationWarning"


PRELUDE = """
import os, random, signal, sys, threading, time, traceback
import anyio
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, PortalError
from batchproxy.testing import assert_idle, look

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

def interrupted(function, *args):
    # The KeyboardInterrupt that ends the call.
    try:
        function(*args)
    except KeyboardInterrupt as error:
        return error
    raise AssertionError("not interrupted")

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


def run(
    script: str,
    *arguments: object,
    prelude: str = "",
    before: tuple[str, ...] = (),
    warnings: tuple[str, ...] = ("error", IGNORED),
) -> str:
    """What `script` prints. It must end well, and print nothing to stderr.

    It can import what is beside this file. `before` is a command that runs the interpreter.
    """
    options = [option for each in warnings for option in ("-W", each)]
    done = subprocess.run(
        [*before, sys.executable, *options, "-c", prelude + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


IMPORTS = """
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


def run_prepared(script: str, *arguments: object) -> str:
    """`run`, after `PRELUDE`. An interrupt may leave a file to the collector, which may say so."""
    return run(script, *arguments, prelude=PRELUDE, warnings=(IGNORED,))
