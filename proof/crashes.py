"""Points 16 and 17 of the contract: `kill -9` at random moments, and what is left behind.

`python proof/crashes.py` kills real processes, starts them again, kills them, and at last lets them
finish; 50 times in each of four modes:

- ``command``: `batchproxy map` on a file with a store, run again after each kill;
- ``sqlite``: four programs that map the same list on one SQLite file, of which all are killed, or
  one while the others go on;
- ``postgres``: the same on a server, which is shut down, too, ten times (a crash of it would cost
  claims); programs that have a `StoreError` then are started again;
- ``redis``: the same on a server that writes everything to the disk at once, and is killed.

Each process has a log of its own, in which the function notes each batch that it begins and each
that it ends. A batch is **open** from its beginning until its process is *told* of it, and may be
lost with the process. A result is **acknowledged** once a process has been told of it: the function
was called for another batch by the same sequential caller, or ``map()`` has returned, or the
command has written the row to its output. After each kill:

- The database passes its own integrity check, or the server starts.
- What is acknowledged, or was there before, is there, and right; nothing else is but keys that some
  process has begun.
- No batch is there in part: each key that is there belongs to a batch of which all are.
- What is there is not computed again.

And when all have finished:

- The output of the command is that of an uninterrupted run, byte for byte, and what it had written
  of it when it was killed was the beginning of that. The programs had the right lists.
- A key was computed once, and once more at most for each process that was lost with it open.
- The batches are as many as in an uninterrupted run, and one for each that was open in a process
  that was lost. Where several processes share the work, each of them may find too few keys left for
  a full batch, so there may be that many more.

Prints a table, and exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from batchproxy import BatchingMapProxy, Cache, StoreError
from batchproxy._backing.codecs import Codecs
from batchproxy._backing.digests import digests
from batchproxy.stores import PostgresStore, RedisStore, open_store

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))  # for redis_server.py

NAMESPACE = "crashes"
BATCH = 20
LEASE = 2.0  # seconds, of the programs; the command has that of the library
PER_STORE = 5  # kills, then the processes finish, and another store is begun
STORES_AT_A_TIME = {
    "command": 4,
    "sqlite": 2,
    "postgres": 2,
    "redis": 2,
}  # the command waits for leases, mostly
ROWS = 14_000  # of the file that the command maps: two windows
KEYS = [f"item {number}" for number in range(15_000)]  # of the list that the programs map

START = 0.4  # seconds in which a process comes as far as the first call, or nearly
WORK = 0.4  # seconds until a process that calls is killed, at most
PATIENCE = 60.0  # seconds until what does not end is taken for a hang

STORE_FAILED = 3  # the exit status of a program that had a StoreError
LOG = "CRASHES_LOG"  # the environment variable that names the log of a process

BEFORE, INSIDE, BETWEEN = "without a call", "in a call", "between calls"


# --- What the processes run ---


def note(*line: str) -> None:
    """Write a line to the log of this process. One that is cut off by a kill does not count."""
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(line).encode() + b"\n")
    os.close(file)


def value_of(key: str) -> str:
    return f"value of {key}"


def compute(items: list[str]) -> list[str]:
    note("begin", *items)
    time.sleep(random.uniform(0.004, 0.016))
    note("end")
    return [value_of(item) for item in items]


def program(place: str) -> None:
    """Map the list on the store at `place`."""
    try:
        store = type(open_store(place))(place, lease=LEASE)
        with Cache[str](store=store, namespace=NAMESPACE) as cache:
            answer = BatchingMapProxy[str, str](BATCH, cache=cache).map(KEYS, compute)
            note("told")
    except StoreError:
        traceback.print_exc()
        sys.exit(STORE_FAILED)
    assert answer == list(map(value_of, KEYS))


# --- The processes, and what is known of them ---


class Batch(NamedTuple):
    keys: frozenset[str]
    told: bool  # the process has gone on since


class Process:
    """One process with its log, and with a file for what it prints."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        self._printed = log.with_suffix(".txt")
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._printed.open("wb") as printed:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=printed,
                stderr=printed,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), LOG: str(log)},
                process_group=0,  # a Ctrl-C in the terminal is for the parent
            )

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._popen.poll()

    def batches(self) -> list[Batch]:
        """What it has begun to compute, in this order; all but the last it has been told of."""
        found: list[Batch] = []
        for what, *keys in self._lines():
            if what != "end":
                found[-1:] = [Batch(batch.keys, told=True) for batch in found[-1:]]
            if what == "begin":
                found.append(Batch(frozenset(keys), told=False))
        return found

    def open(self) -> list[Batch]:
        """The batch which it began and was not told of, if there is one."""
        return [batch for batch in self.batches() if not batch.told]

    def has_called(self) -> bool:
        """Whether it has begun a batch."""
        return self._log.exists()

    def place(self) -> str:
        """Where it is, or was when it was killed."""
        last = BEFORE  # while it started, or waited for leases
        for what, *_ in self._lines():
            last = INSIDE if what == "begin" else BETWEEN
        return last

    def kill(self) -> None:
        self._popen.kill()

    def wait(self) -> None:
        self._popen.wait(PATIENCE)

    def printed(self) -> str:
        return self._printed.read_text()

    def _lines(self) -> Iterator[list[str]]:
        if self._log.exists():
            for line in self._log.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield json.loads(line)


# --- One store, from its beginning until all is computed ---


@dataclass
class Tally:
    """What was tried, and what came of it."""

    kills: int = 0
    places: Counter[str] = field(default_factory=Counter)  # of each process that was killed
    servers: int = 0  # that were killed
    gave_up: int = 0  # programs that had a StoreError then
    stores: int = 0
    batches: int = 0
    needed: int = 0
    opened: int = 0  # batches that were open in a process that was lost
    again: int = 0  # keys that were computed once more
    failures: int = 0

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Subject(ABC):
    """Processes on one store, which are killed, started again, and finish at last.

    Args:
        folder: For the store and all that belongs to it.
        rng: Says when to kill, and what.
        kills: How often.
    """

    programs = 1
    statuses: tuple[int | None, ...] = (None, 0, -signal.SIGKILL)  # that are all right

    def __init__(self, folder: Path, rng: random.Random, kills: int, keys: Sequence[str]) -> None:
        self.folder = folder
        self.rng = rng
        self.tally = Tally(stores=1)
        self.names = dict(zip(digests(keys), keys))
        self._kills = kills
        self._processes: list[Process] = []  # all that there ever were
        self._there: AbstractSet[str] = frozenset()  # the keys that the store had at the last look
        self._begun: Counter[Process] = Counter()  # how many batches each had begun by then

    def run(self) -> None:
        """All of it.

        Raises:
            AssertionError: something that must hold does not.
        """
        try:
            while self.tally.kills < self._kills and self.start():
                self.wait_for_moment()
                self.strike()
                self.look()
            while running := self.start():
                for process in running:
                    process.wait()
            self.look()
            self.settle_up()
        except BaseException:
            for number, process in enumerate(self._processes):
                print(f"process {number}: {process.status}", process.printed(), file=sys.stderr)
            raise
        finally:
            for process in self._processes:
                process.kill()
                process.wait()

    @abstractmethod
    def arguments(self) -> list[str]:
        """Of Python, for one process."""

    @abstractmethod
    def values(self) -> dict[bytes, bytes]:
        """What the store has, all at one moment; by the way, the store itself is checked."""

    @abstractmethod
    def needed(self) -> int:
        """The batches of a run that nobody interrupts."""

    def start(self) -> list[Process]:
        """Start those that were lost again; all that are running, or none if all have finished."""
        statuses = [process.status for process in self._processes]
        for _ in range(self.programs - statuses.count(None) - statuses.count(0)):
            log = self.folder / f"{len(self._processes)}.log"
            self._processes.append(Process(self.arguments(), log))
        return self.running()

    def running(self) -> list[Process]:
        """What is running; all others have ended in a way that is all right."""
        statuses = [process.status for process in self._processes]
        assert set(statuses) <= set(self.statuses), statuses
        return [process for process, status in zip(self._processes, statuses) if status is None]

    def lost(self) -> list[Process]:
        """Those that ended without having finished."""
        return [process for process in self._processes if process.status not in (None, 0)]

    def wait_for_moment(self) -> None:
        """Until a random moment: while processes start, or when all of them have called."""
        if self.rng.random() < 0.2:
            time.sleep(self.rng.uniform(0, START))
            return
        end = time.monotonic() + 3 * START  # where all that is left is claimed, nobody calls
        while time.monotonic() < end and not all(each.has_called() for each in self.running()):
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, WORK))

    def strike(self) -> None:
        """Kill some that are running, if there still are any."""
        victims = self.choose()
        for process in victims:
            process.kill()
        for process in victims:
            process.wait()
        if places := [each.place() for each in victims if each.status == -signal.SIGKILL]:
            self.tally.kills += 1
            self.tally.places.update(places)

    def choose(self) -> list[Process]:
        """Which are to be killed."""
        return self.running()

    def acknowledged(self) -> set[str]:
        """The keys whose results some process has been told of."""
        return {key for batch in self._batches() if batch.told for key in batch.keys}

    def _batches(self) -> list[Batch]:
        return [batch for process in self._processes for batch in process.batches()]

    def look(self) -> None:
        """What must hold at any time. Processes may go on meanwhile: hence the order."""
        acknowledged = self.acknowledged()
        values = {self.names[name]: value for name, value in self.values().items()}
        there = values.keys()
        batches = self._batches()
        for key, value in values.items():
            assert value == encoded(key), f"the value of {key!r} is {value!r}"
        whole = set[str]().union(*(batch.keys for batch in batches if batch.keys <= there))
        assert not (lost := acknowledged - there), f"acknowledged and lost: {lost}"
        assert not (lost := self._there - there), f"it was there, and is lost: {lost}"
        assert not (parts := there - whole), f"a part of a batch is there: {parts}"
        # What could not be written may be written late, when another has begun it already.
        late = {
            key
            for process in self.lost()
            if process.status == STORE_FAILED
            for batch in process.open()
            for key in batch.keys
        }
        for process in self._processes:
            begun = process.batches()
            for batch in begun[self._begun[process] :]:
                again = batch.keys & self._there - late
                assert not again, f"it was there, and is computed again: {again}"
            self._begun[process] = len(begun)
        self._there = there

    def settle_up(self) -> None:
        """What must hold when all is computed."""
        opened = [batch.keys for process in self.lost() for batch in process.open()]
        batches = [batch.keys for batch in self._batches()]
        assert self._there == set(self.names.values())
        again = Counter(chain(*batches)) - Counter(self._there)
        assert not (more := again - Counter(chain(*opened))), f"computed too often: {more}"
        most = self.needed() + len(opened) + self.programs - 1
        assert len(batches) <= most, f"{len(batches)} batches, expected {most} at most"
        self.tally.batches = len(batches)
        self.tally.needed = self.needed()
        self.tally.opened = len(opened)
        self.tally.again = again.total()
        self.tally.gave_up = sum(each.status == STORE_FAILED for each in self._processes)


def encoded(key: str) -> bytes:
    """What a store has for `key`."""
    return Codecs(None).dumps(value_of(key))


def read_file(path: Path, *, in_use: bool) -> dict[bytes, bytes]:
    """What an SQLite file has, at one moment. What processes left behind is looked at in a copy,
    so that the next process finds it as it was."""
    with tempfile.TemporaryDirectory() as folder:
        if not in_use:
            for file in path.parent.glob(f"{path.name}*"):
                if not file.name.endswith("-shm"):  # which belongs to the very file
                    shutil.copy(file, folder)
            path = Path(folder, path.name)
        if not path.exists():
            return {}
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not connection.execute("SELECT * FROM sqlite_master").fetchall():
                return {}  # killed before the tables were there
            return dict(connection.execute("SELECT key, value FROM results"))


# --- The command ---


class Example(NamedTuple):
    """A file, and what becomes of it when nobody interrupts."""

    path: Path
    items: list[str]  # of its rows
    output: bytes
    batches: int


class Command(Subject):
    """`batchproxy map`, as it is: with a lease of ten seconds."""

    def __init__(self, folder: Path, rng: random.Random, kills: int, example: Example) -> None:
        super().__init__(folder, rng, kills, list(dict.fromkeys(example.items)))
        self._example = example
        self._output = folder / "output.jsonl"
        self._left: set[Path] = set()
        self._store = folder / "results.db"

    @staticmethod
    def example(folder: Path, rng: random.Random) -> Example:
        """A new file, and an uninterrupted run."""
        items = [f"item {rng.randrange(1500) + row // 4}" for row in range(ROWS)]
        path = folder / "input.jsonl"
        # What is around the items is not as json.dumps would write it, and has to stay so.
        path.write_text(
            "".join(
                f'{{"row":{row},  "item" : "{item}", "much": 1.50}}\n'
                for row, item in enumerate(items)
            )
        )
        whole = Command(folder, rng, 0, Example(path, items, b"", sys.maxsize))
        process = whole.start()[0]
        process.wait()
        assert process.status == 0, process.printed()
        return Example(path, items, whole._output.read_bytes(), len(process.batches()))

    def arguments(self) -> list[str]:
        return [
            *("-m", "batchproxy", "map", "crashes:compute", str(self._example.path), "--quiet"),
            *("--field", "item", "--into", "value", "--batch-size", str(BATCH)),
            *("--store", str(self._store), "--namespace", NAMESPACE, "-o", str(self._output)),
        ]

    def values(self) -> dict[bytes, bytes]:
        return read_file(self._store, in_use=bool(self.running()))

    def needed(self) -> int:
        return self._example.batches

    def wait_for_moment(self) -> None:
        """Or when a part of the output has been written, which is after the first window."""
        if self.rng.random() < 0.8:
            super().wait_for_moment()
            return
        while self.running() and not self._has_written():
            time.sleep(0.005)
        time.sleep(self.rng.uniform(0, WORK))

    def acknowledged(self) -> set[str]:
        rows = 0
        for part in self._parts():
            written = part.read_bytes()
            assert self._example.output.startswith(written), "the rows written are wrong"
            rows = max(rows, written.count(b"\n"))
        return super().acknowledged() | set(self._example.items[:rows])

    def start(self) -> list[Process]:
        """Those of runs that were killed before stay where they are."""
        self._left = self._parts()
        return super().start()

    def _parts(self) -> set[Path]:
        return set(self.folder.glob(".batchproxy-*.part"))

    def _has_written(self) -> bool:
        with suppress(FileNotFoundError):  # it is complete
            return any(part.stat().st_size for part in self._parts() - self._left)
        return True

    def settle_up(self) -> None:
        assert self._output.read_bytes() == self._example.output, "the output is another one"
        assert len(self._parts()) <= self.tally.kills, "a run that was not killed left something"
        super().settle_up()


# --- Programs ---


class Programs(Subject):
    """Several processes that map the same list, and share the work."""

    programs = 4

    def __init__(self, folder: Path, rng: random.Random, kills: int) -> None:
        super().__init__(folder, rng, kills, KEYS)
        self.place = str(folder / "results.db")

    def arguments(self) -> list[str]:
        return [__file__, "--program", self.place]

    def needed(self) -> int:
        return -(-len(KEYS) // BATCH)

    def choose(self) -> list[Process]:
        running = self.running()
        return running if self.rng.random() < 0.5 else self.rng.sample(running, len(running) and 1)

    def values(self) -> dict[bytes, bytes]:
        return read_file(Path(self.place), in_use=bool(self.running()))


class ServerPrograms(Programs):
    """The same on a server, which is stopped once, too."""

    statuses = (None, 0, -signal.SIGKILL, STORE_FAILED)

    def __init__(self, folder: Path, rng: random.Random, kills: int, server: Any) -> None:
        super().__init__(folder, rng, kills)
        self._server = server
        self.place = server.url
        self._server_stops = rng.randrange(kills)  # before the kill of that number

    def run(self) -> None:
        with self._server:
            super().run()

    def strike(self) -> None:
        if self.tally.kills < self._server_stops or self.tally.servers:
            super().strike()
            return
        self.tally.servers = 1
        self._server.stop()
        if self.rng.random() < 0.5:
            super().strike()
        time.sleep(self.rng.uniform(0, 0.3))  # some need the server now, others later
        self._server.start()


class PostgresPrograms(ServerPrograms):
    """On a PostgreSQL, which is shut down: a crash would cost claims."""

    def __init__(self, folder: Path, rng: random.Random, kills: int) -> None:
        from postgres_server import PostgresServer

        super().__init__(folder, rng, kills, PostgresServer())

    def values(self) -> dict[bytes, bytes]:
        with PostgresStore(self.place) as store:
            # In one step, unlike get_many.
            return dict(store._pool.run(store._statement("SELECT key, value FROM {}.results")))


class RedisPrograms(ServerPrograms):
    """On a Redis, which is killed."""

    def __init__(self, folder: Path, rng: random.Random, kills: int) -> None:
        from redis_server import RedisServer  # and pytest, which no process needs that is killed

        always = ("--appendonly", "yes", "--appendfsync", "always")
        super().__init__(folder, rng, kills, RedisServer(folder, *always))

    def values(self) -> dict[bytes, bytes]:
        with RedisStore(self.place) as store:
            names = list(self.names)
            # In one step, unlike get_many.
            found: list[Any] = store._client.mget(store._names(NAMESPACE, names))
        return {name: value for name, value in zip(names, found) if value is not None}


# --- All of them ---

HEADINGS: dict[str, Callable[[Tally], int]] = {
    "kills": lambda tally: tally.kills,
    "of servers": lambda tally: tally.servers,
    "processes killed": lambda tally: tally.places.total(),
    BEFORE: lambda tally: tally.places[BEFORE],
    INSIDE: lambda tally: tally.places[INSIDE],
    BETWEEN: lambda tally: tally.places[BETWEEN],
    "`StoreError`s": lambda tally: tally.gave_up,
    "stores": lambda tally: tally.stores,
    "batches needed": lambda tally: tally.needed,
    "open": lambda tally: tally.opened,
    "batches": lambda tally: tally.batches,
    "keys again": lambda tally: tally.again,
    "failures": lambda tally: tally.failures,
}


def maker(mode: str, folder: Path, rng: random.Random) -> Callable[..., Subject]:
    """What makes the subjects of a mode."""
    if mode == "command":
        return partial(Command, example=Command.example(folder, rng))
    return {"sqlite": Programs, "postgres": PostgresPrograms, "redis": RedisPrograms}[mode]


def attempt(mode: str, times: int, seed: str) -> Tally:
    """Kill so many times, on as many stores as it takes."""
    total = Tally()
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(STORES_AT_A_TIME[mode]) as threads,
    ):
        make = maker(mode, Path(name), random.Random(f"{seed} {mode}"))

        def on_one_store(kills: int, number: int) -> Tally:
            folder = Path(name, str(number))
            folder.mkdir()
            subject = make(folder, random.Random(f"{seed} {mode} {number}"), kills)
            try:
                subject.run()
            except Exception:
                print(f"{mode}, store {number}:", file=sys.stderr)
                traceback.print_exc()
                subject.tally.failures = 1
            return subject.tally

        numbers = count()
        while (left := times - total.kills) > 0 and not total.failures:
            kills = [min(PER_STORE, left - begun) for begun in range(0, left, PER_STORE)]
            for tally in threads.map(on_one_store, kills, numbers):
                total.add(tally)
    return total


def reason_to_skip(mode: str) -> str:
    """Why a mode cannot be tried here; empty if it can."""
    if mode == "redis" and shutil.which("redis-server") is None:
        return "there is no redis-server"
    if mode == "postgres":
        from postgres_server import WHY_NOT

        return WHY_NOT
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 at random moments.")
    parser.add_argument("--times", type=int, default=50, help="kills in each mode")
    parser.add_argument("--mode", nargs="+", choices=STORES_AT_A_TIME, metavar="NAME")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--program", metavar="PLACE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.program:
        program(given.program)
        return
    print(f"seed: {given.seed}\n")
    headings = [*HEADINGS, "seconds"]
    print("| mode |", " | ".join(headings), "|")
    print("|---|" + "--:|" * len(headings), flush=True)
    failures = 0
    for mode in given.mode or STORES_AT_A_TIME:
        if reason := reason_to_skip(mode):
            print(f"| {mode} | skipped: {reason} |", flush=True)
            continue
        begin = time.monotonic()
        tally = attempt(mode, given.times, given.seed)
        failures += tally.failures
        cells = [*(value(tally) for value in HEADINGS.values()), time.monotonic() - begin]
        print("|", " | ".join([mode, *(f"{cell:,.0f}" for cell in cells)]), "|", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
