"""Scripts for processes of their own, and what they have from the start."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Self

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

async def answer(items):
    return [str(item) for item in items]

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

def forked(child, end=sys.exit):
    # Run `child` in a forked process that then exits as processes do; it must end well.
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except Exception:
            traceback.print_exc()
            os._exit(1)
        end(0)
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


class Process:
    """A script in a process of its own, which says when it waits, and is then let go on.

    That is a line that it prints, and one that it reads. It is killed if it is left behind.
    """

    def __init__(self, script: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.send_signal = self._process.send_signal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_for(self, line: str) -> None:
        """Wait until it says that."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n"

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def printed(self) -> str:
        """What else it prints until it ends, which must be well."""
        output, _ = self._process.communicate(timeout=50)
        assert self._process.returncode == 0
        return output


WORKER = """
import json, sys, time
from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import open_store

url, namespace, lease, rows, batch, seconds = json.loads(sys.argv[1])
kind = type(open_store(url))
calls = []

def compute(items):
    if not calls:
        print("calling", flush=True)
        sys.stdin.readline()
        then()
    calls.append(items)
    time.sleep(seconds)
    return [item * item for item in items]

with Cache(store=kind(url, lease=lease), namespace=namespace) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    out = BatchingMapProxy(batch, cache=cache).map(range(rows), compute)
if out != [item * item for item in range(rows)]:  # also under -O
    raise AssertionError(out)
print(json.dumps(calls), flush=True)
"""


class Worker(Process):
    """A process that maps the same list as others, and does `then` after its first wait."""

    def __init__(
        self, place: tuple[str, str], lease: float, *work: float, then: str = "then = bool"
    ) -> None:
        super().__init__(then + WORKER, json.dumps([*place, lease, *work]))

    def start(self) -> None:
        """Let it begin; its first call waits until it is let go on."""
        self.wait_for("ready")
        self.go_on()
        self.wait_for("calling")

    def calls(self) -> list[list[int]]:
        """The batches that it computed, when it has ended."""
        return json.loads(self.printed())  # type: ignore[no-any-return] # it prints such

    def computed(self) -> list[int]:
        """The keys of those batches."""
        return list(chain.from_iterable(self.calls()))


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
