"""Processes that map the same list at the same time: do they share the work, and how well?

    python benchmarks/sharing.py                      print the tables
    python benchmarks/sharing.py --write docs/speed   keep them there, for the docs

Each process maps 20,000 keys in batches of 100, with a call that takes 50 ms, synchronously, all
through one store, which is empty; what a process does is in `sharing_worker`. Their time is from
the moment when all of them were ready to the one when the last has its answer. In the second table
four of them begin; in the middle one is killed and one is stopped for longer than its lease.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import stores
from servers import has_postgres, has_redis, postgres_server, redis_server
from sharing_worker import BATCH, CALL, KEYS, LEASE

WORKER = Path(__file__).with_name("sharing_worker.py")
ROUNDS = 3
PROCESSES = [1, 2, 4, 8, 16]
IDEAL = len(KEYS) / BATCH * CALL  # seconds, of one process


class Worker:
    """A process that is ready to begin."""

    def __init__(self, place: str, log: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, WORKER, place, log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, float]:
        """What came of it; waits until it has ended."""
        output, _ = self._process.communicate(timeout=120)
        answer: dict[str, float] = json.loads(output)
        assert answer["correct"]
        return answer

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def working(number: int, place: str, log: Path) -> Iterator[list[Worker]]:
    """So many processes, which are ready; afterwards none is left."""
    with ExitStack() as stack:
        workers = []
        for _ in range(number):
            workers.append(Worker(place, log))
            stack.callback(workers[-1].end)
        for worker in workers:
            worker.wait_until_ready()
        yield workers


class Outcome(NamedTuple):
    """Of one round."""

    wall: float
    calls: int
    keys: int
    again: int  # keys that were in more than one call
    busy: float  # seconds of a processor that a process used, on average


def called(log: Path) -> list[list[int]]:
    """The keys of each call that has begun; of the last line perhaps not all is there."""
    text, _, _ = log.read_text().rpartition("\n") if log.exists() else ("", "", "")
    return [json.loads(line) for line in text.splitlines()]


def outcome(wall: float, answers: list[dict[str, float]], log: Path) -> Outcome:
    calls = called(log)
    times = Counter(key for call in calls for key in call)
    return Outcome(
        wall,
        len(calls),
        len(times),
        sum(number > 1 for number in times.values()),
        statistics.mean(answer["busy"] for answer in answers),
    )


def together(number: int, place: str, log: Path) -> Outcome:
    """All of them to the end."""
    with working(number, place, log) as workers:
        start = time.monotonic()  # of the machine: it is the same clock in all processes
        for worker in workers:
            worker.begin()
        answers = [worker.answer() for worker in workers]
    return outcome(max(answer["end"] for answer in answers) - start, answers, log)


def with_losses(place: str, log: Path) -> Outcome:
    """Of four one is killed and one stopped, in the middle."""
    with working(4, place, log) as workers:
        start = time.monotonic()
        for worker in workers:
            worker.begin()
        killed, stopped, *_ = workers
        while len(called(log)) < len(KEYS) / BATCH / 2:
            assert killed.is_alive()
            time.sleep(0.01)
        killed.signal(signal.SIGKILL)
        stopped.signal(signal.SIGSTOP)
        time.sleep(3 * LEASE)
        stopped.signal(signal.SIGCONT)
        answers = [worker.answer() for worker in workers if worker is not killed]
    return outcome(max(answer["end"] for answer in answers) - start, answers, log)


def on_each_store(work: Callable[[str, Path], Outcome]) -> Iterator[tuple[str, Outcome]]:
    """What becomes of it on new stores of each kind, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        yield "SQLite", work(f"{folder}/shared.db", Path(folder, "calls"))
    if has_redis():
        with tempfile.TemporaryDirectory() as folder, redis_server() as url:
            yield "Redis", work(url, Path(folder, "calls"))
    if has_postgres():
        with tempfile.TemporaryDirectory() as folder, postgres_server() as url:
            yield "PostgreSQL", work(url, Path(folder, "calls"))


def splitting() -> Iterator[str]:
    """The first table."""
    found: dict[tuple[str, int], list[Outcome]] = {}
    for _ in range(ROUNDS):
        for number in PROCESSES:
            for store, it in on_each_store(partial(together, number)):
                found.setdefault((store, number), []).append(it)
    yield (
        "| store, processes | seconds | range | speed-up | of the ideal | calls | distinct keys "
        "| computed twice | busy, each |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    order = list(dict.fromkeys(store for store, _ in found))
    for (store, number), outcomes in sorted(found.items(), key=lambda of: order.index(of[0][0])):
        walls = [it.wall for it in outcomes]
        wall = statistics.median(walls)
        alone = statistics.median(it.wall for it in found[store, 1])
        busy = statistics.median(it.busy for it in outcomes)
        yield (
            f"| {store}, {number} | {wall:.2f} | {min(walls):.2f} to {max(walls):.2f} "
            f"| {alone / wall:.2f} | {IDEAL / number / wall:.0%} "
            f"| {_each(it.calls for it in outcomes)} | {_each(it.keys for it in outcomes)} "
            f"| {_each(it.again for it in outcomes)} | {busy:.2f} s |"
        )


def losing() -> Iterator[str]:
    """The second table."""
    found: dict[str, list[Outcome]] = {}
    for _ in range(ROUNDS):
        for store, it in on_each_store(with_losses):
            found.setdefault(store, []).append(it)
    yield (
        "| of four one is killed, one stopped | seconds | calls | distinct keys | computed twice "
        "| in batches |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for store, outcomes in found.items():
        yield (
            f"| {store} | {statistics.median(it.wall for it in outcomes):.2f} "
            f"| {_each(it.calls for it in outcomes)} | {_each(it.keys for it in outcomes)} "
            f"| {_each(it.again for it in outcomes)} "
            f"| {_each(it.again / BATCH for it in outcomes)} |"
        )


def _each(numbers: Iterable[float]) -> str:
    """One number if all rounds agree."""
    ordered = sorted(set(numbers))
    ends = [ordered[0]] if len(ordered) == 1 else [ordered[0], ordered[-1]]
    return " to ".join(f"{number:,.6g}" for number in ends)


def tables() -> Iterator[str]:
    yield stores.environment()
    yield ""
    yield from splitting()
    yield ""
    yield from losing()
    yield ""


if __name__ == "__main__":
    stores.main(tables(), "sharing.md", __doc__ or "")
