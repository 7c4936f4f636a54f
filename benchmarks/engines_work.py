"""What the jobs of `engines.py` map: a column, and a function that notes its calls in a file."""

from __future__ import annotations

import json
import os
import random
import time
from functools import partial

from batchproxy import BatchingMapProxy, BoundFunction, Cache
from batchproxy.stores import RedisStore, SQLiteStore

ROWS, DISTINCT = 200_000, 20_000
BATCH = 100
CALL = 0.05  # seconds
LEASE = 2.0  # seconds
WORKERS = 4
PARTITIONS = 8


def column() -> list[str]:
    """Each city as often as any other, in no order."""
    cities = [f"city {number % DISTINCT}" for number in range(ROWS)]
    random.Random(1).shuffle(cities)
    return cities


def locate(log: str, cities: list[str]) -> list[str]:
    """Note in `log` who calls, and with what; and answer after a while."""
    noted = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(noted, (json.dumps([os.getpid(), cities]) + "\n").encode())  # one write, never torn
    os.close(noted)
    time.sleep(CALL)
    return [city.upper() for city in cities]


def shared(place: str, log: str) -> BoundFunction[str, str]:
    """What a user binds: its results are in the store at `place`."""
    store = RedisStore if "://" in place else SQLiteStore
    cache = Cache[str](store=store(place, lease=LEASE), namespace="places", max_size=100_000)
    return BatchingMapProxy[str, str](BATCH, cache=cache).bind(partial(locate, log))


def in_batches(log: str, cities: list[str]) -> list[str]:
    """What one does without: all of it, batch by batch."""
    return [
        place
        for start in range(0, len(cities), BATCH)
        for place in locate(log, cities[start : start + BATCH])
    ]
