"""What a program that stands still is waiting for: every thread, task, call, waiter and slot.

`Watchdog(seconds)` is fed by a program as it goes on. If it is not fed for so long, it writes a
report to standard error and ends the process with status 3. `report()` can be had at any time, in a
test or from a debugger:

    with Watchdog(30) as watchdog:
        for program in programs:
            watchdog.feed(f"program {program}")
            run(program)

It rests on no name inside the library: shown is every living object of a class that one of its
modules defines (flights, slots, grants, plans, ...), each with what it refers to, and every
coroutine that is suspended, with all that it awaits.
"""

from __future__ import annotations

import gc
import os
import reprlib
import sys
import threading
import traceback
from collections.abc import Iterator
from types import CoroutineType, FrameType, TracebackType
from typing import Any, Self, TextIO

PACKAGE = "batchproxy"

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxdict = _short.maxlist = _short.maxset = 30
_short.maxother = _short.maxstring = 200


class Watchdog:
    """Ends a process that stands still, and says what everything in it waits for."""

    def __init__(self, seconds: float, *, file: TextIO | None = None) -> None:
        self._seconds = seconds
        self._file = file
        self._fed = threading.Event()
        self._over = False
        self._doing = "nothing yet"
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def feed(self, doing: str) -> None:
        """Note that the program goes on, and with what."""
        self._doing = doing
        self._fed.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._over = True
        self._fed.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._fed.wait(self._seconds):
            self._fed.clear()
            if self._over:
                return
        file = self._file or sys.stderr
        print(f"\nstands still for {self._seconds:g} s: {self._doing}\n{report()}", file=file)
        file.flush()
        os._exit(3)


def report() -> str:
    """Everything that may be waiting, or be waited for, in this process."""
    return "\n".join([*_threads(), *_tasks(), *_objects()])


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            yield f"\n== thread {names.get(ident, ident)}"
            yield from _stack(frame)


def _stack(frame: FrameType) -> Iterator[str]:
    for entry in traceback.extract_stack(frame):
        yield f"   {entry.filename}:{entry.lineno} {entry.name}: {entry.line}"


def _tasks() -> Iterator[str]:
    suspended = [
        each
        for each in gc.get_objects()
        if isinstance(each, CoroutineType) and each.cr_frame is not None and not each.cr_running
    ]
    inner = {id(each.cr_await) for each in suspended}
    for outermost in suspended:
        if id(outermost) in inner:
            continue
        yield f"\n== task {outermost.__qualname__}"
        awaited: Any = outermost
        while isinstance(awaited, CoroutineType) and awaited.cr_frame is not None:
            frame = awaited.cr_frame
            yield f"   {frame.f_code.co_filename}:{frame.f_lineno} {awaited.__qualname__}"
            awaited = awaited.cr_await
        yield f"   awaits {_shown(awaited)}"


def _objects() -> Iterator[str]:
    found: dict[str, list[object]] = {}
    for each in gc.get_objects():
        kind = type(each)
        if kind.__module__.partition(".")[0] == PACKAGE and not isinstance(each, type):
            found.setdefault(f"{kind.__module__}.{kind.__qualname__}", []).append(each)
    for name, objects in sorted(found.items()):
        yield f"\n== {name}: {len(objects)}"
        for each in objects[:200]:
            yield f"   {id(each):#x} {_shown(each)}"
            for attribute, value in _attributes(each):
                yield f"      {attribute} = {_shown(value)}"


def _attributes(each: object) -> Iterator[tuple[str, object]]:
    slots = [slot for kind in type(each).__mro__ for slot in getattr(kind, "__slots__", ())]
    for name in [*slots, *getattr(each, "__dict__", ())]:
        if name not in ("__weakref__", "__dict__") and hasattr(each, name):
            yield name, getattr(each, name)


def _shown(value: object) -> str:
    """`value` in short, with its address, by which the report names it elsewhere, too."""
    try:
        text = _short.repr(value)
    except Exception as error:  # of whatever is asked here
        text = f"<{type(value).__qualname__}, whose repr raises {type(error).__qualname__}>"
    mine = type(value).__module__.partition(".")[0] == PACKAGE
    return f"{text} at {id(value):#x}" if mine and " at 0x" not in text else text
