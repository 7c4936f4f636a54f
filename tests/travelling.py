"""Functions of a module, for `test_travel`: other processes import them from here."""

import os
import threading
from typing import Any

from batchproxy import BatchingMapProxy, BoundFunction, Cache
from batchproxy.stores import SQLiteStore

PLACE = "TRAVELLING_STORE"
"""The variable of the environment that says where the store of this module is."""

proxy = BatchingMapProxy[int, str](
    5, cache=Cache(store=SQLiteStore(os.environ.get(PLACE, "unused.db")), namespace="travelling")
)


def note(keys: list[int], file: str) -> None:
    """Note in a file what was computed, as a process does that dies without notice."""
    with open(file, "a", encoding="utf-8") as notes:
        notes.write("".join(f"{key}\n" for key in keys))


@proxy.bind
def decorated(keys: list[int]) -> list[str]:
    """Of a module."""
    note(keys, f"{os.environ[PLACE]}.notes")
    return list(map(str, keys))


in_memory = BatchingMapProxy[int, str]()


@in_memory.bind
def without_a_store(keys: list[int]) -> list[str]:
    """Found by its name, though its proxy cannot travel."""
    return list(map(str, keys))


def plain(keys: list[int]) -> list[str]:
    """Of a module, and bound elsewhere."""
    return list(map(str, keys))


async def plain_async(keys: list[int]) -> list[str]:
    """As `plain`."""
    return plain(keys)


def by_digit(key: int) -> str:
    """A ``key=``."""
    return str(key)


def computed(keys: list[int], file: str) -> list[str]:
    """What is done in a pool: `keys`, of which a file tells."""
    note(keys, file)
    return list(map(str, keys))


class Client:
    """A client of a service, with a method that is bound."""

    def fetch(self, keys: list[int]) -> list[str]:
        """As `plain`."""
        return plain(keys)


_start: Any = None


def begin(parties: int) -> None:
    """In a worker: threads begin at the same moment."""
    global _start
    _start = threading.Barrier(parties)


def task(pickled: BoundFunction[int, str], keys: list[int]) -> tuple[int, int, int, list[str]]:
    """What a task does that was given a bound function: map, and say what it was given."""
    cache = pickled.proxy.cache
    return os.getpid(), id(cache), id(pickled.proxy), pickled.map(keys)
