"""One of the processes of `sharing.py`: maps the list, and notes every call that it begins.

    python benchmarks/sharing_worker.py STORE LOG

Says that it is ready, waits for a line, and answers with what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import time

from batchproxy import BatchingMapProxy, Cache
from batchproxy.stores import open_store

KEYS = list(range(20_000))
BATCH = 100
CALL = 0.05  # seconds
LEASE = 1.0  # seconds


def main() -> None:
    place, log = sys.argv[1:]
    kind = type(open_store(place))
    noted = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def square_slowly(keys: list[int]) -> list[str]:
        os.write(noted, (json.dumps(keys) + "\n").encode())  # one write, so no line is torn
        time.sleep(CALL)
        return [str(key * key) for key in keys]

    with Cache[str](store=kind(place, lease=LEASE), namespace="squares") as cache:
        proxy = BatchingMapProxy[int, str](BATCH, cache=cache)
        BatchingMapProxy[int, int]().map(KEYS[:1], list)  # imports what an event loop needs
        print("ready", flush=True)
        sys.stdin.readline()
        busy = time.process_time()
        answers = proxy.map(KEYS, square_slowly)
        end, busy = time.monotonic(), time.process_time() - busy
    correct = answers == [str(key * key) for key in KEYS]
    print(json.dumps({"end": end, "correct": correct, "busy": busy}))


if __name__ == "__main__":
    main()
