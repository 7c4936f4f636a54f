"""How much memory one value of 100 MB takes beyond itself, on its way to a file and back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore

SIZE = 100_000_000

MEMORY = """\
| a value of 100 MB | memory beyond it, of its size |
|-------------------|------------------------------:|"""


def most() -> int:
    """The most bytes that this process has had; `getrusage` counts its parent's before it, too."""
    status = Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


def grown(what: str, path: str) -> float:
    """By how many times `SIZE` this process has grown to map one key, the value not counted."""

    def fetch(items: list[str]) -> list[bytes]:
        assert what == "written", f"{items} should have been there"
        return [value]

    value = os.urandom(SIZE) if what == "written" else b""
    with Cache[bytes](store=SQLiteStore(path), namespace="memory") as cache:
        cache.prime({"small": b""})  # opens the file
        before = most()
        answers = BatchingMapProxy[str, bytes](1, cache=cache).map(["large"], fetch)
        beside = 0 if what == "written" else len(answers[0])
        return (most() - before - beside) / SIZE


def memory() -> Iterator[str]:
    """Lines of the table `MEMORY`, from a process each."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("written", "read"):
            command = [sys.executable, __file__, what, f"{folder}/large.db"]
            yield subprocess.check_output(command, text=True).strip()


if __name__ == "__main__":
    print(f"| SQLite: {sys.argv[1]} | {grown(*sys.argv[1:]):.2f} |")
