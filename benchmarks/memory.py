"""How much memory does one value of 100 MB take beyond itself, on its way to a file and back?

    python benchmarks/memory.py

Each line is a process of its own, and says by how much the most that it ever had (``ru_maxrss``)
grew during the ``map()``, as a share of the value; a value that was read is not counted itself.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import SQLiteStore

SIZE = 100_000_000


def most() -> int:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def grown(what: str, path: str) -> float:
    """By how many times `SIZE` mapping one key has grown the process."""

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


def main() -> None:
    if sys.argv[1:]:
        print(f"| {sys.argv[1]} | {grown(*sys.argv[1:]):.2f} |")
        return
    print("| a value of 100 MB | memory beyond it, of its size |\n|---|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for what in ("written", "read"):
            subprocess.run([sys.executable, __file__, what, f"{folder}/large.db"], check=True)


if __name__ == "__main__":
    main()
