"""One map() of four keys in two batches: the functions that it calls, and its ways between rooms.

    python proof/walk.py            # both, with and without a store
    python proof/walk.py --trace    # and every call, indented

A room is a module of the package. Counted are the calls of its functions, in all threads that the
``map()`` uses, and how many of them one room makes of another. With a store a thread more may be
started where one has not quite ended its work: so it is walked five times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Self

import anyio

import batchproxy
from batchproxy import AsyncBatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore

PACKAGE = str(Path(batchproxy.__file__).parent) + "/"


class Walk(NamedTuple):
    """What one ``map()`` took."""

    calls: int
    changes: int  # of room


class Walker:
    """Watches the functions of the package, in this thread and in those that begin meanwhile."""

    def __init__(self, trace: bool) -> None:
        self._trace = trace
        self.calls = 0
        self.changes = 0
        self._inside: dict[int, list[FrameType]] = defaultdict(list)  # by thread
        self._begun: set[FrameType] = set()  # kept alive, so that none is taken for another

    def hook(self, frame: FrameType, event: str, _: object) -> None:
        """What `sys.setprofile` takes."""
        room = frame.f_code.co_filename
        if not room.startswith(PACKAGE):
            return
        inside = self._inside[threading.get_ident()]
        if event == "return":
            del inside[-1:]
        elif event == "call":
            if frame not in self._begun:
                self._begun.add(frame)
                self.calls += 1
                self.changes += bool(inside) and inside[-1].f_code.co_filename != room
                if self._trace:
                    name = frame.f_code.co_qualname
                    print("  " * len(inside), room.removeprefix(PACKAGE), name)
            inside.append(frame)

    def __enter__(self) -> Self:
        threading.setprofile(self.hook)
        sys.setprofile(self.hook)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)


async def fetch(items: list[int]) -> list[str]:
    """A function without any await of its own."""
    return [str(item) for item in items]


def walk(cache: Cache[str], trace: bool = False) -> Walk:
    """Count a ``map()`` of four keys in two batches over `cache`."""
    proxy = AsyncBatchingMapProxy[int, str](2, cache=cache)

    async def main() -> None:
        with walker:
            await proxy.map([1, 2, 3, 4], fetch)

    walker = Walker(trace)
    anyio.run(main)
    return Walk(walker.calls, walker.changes)


def stored(path: Path, trace: bool) -> Walk:
    """`walk` with a store that is opened for it."""
    with Cache[str](store=SQLiteStore(path), namespace="walk") as cache:
        return walk(cache, trace)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trace", action="store_true", help="print every call, too")
    trace = parser.parse_args().trace
    print("memory: {} calls, {} changes of room".format(*walk(Cache(), trace)))
    with tempfile.TemporaryDirectory() as folder:
        walks = [stored(Path(folder, f"{number}.db"), trace) for number in range(5)]
    least, most = min(walks), max(walks)
    print(f"store: {least.calls} to {most.calls} calls, {least.changes} changes of room")


if __name__ == "__main__":
    main()
