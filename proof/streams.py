"""Random programs of streams, and what must hold while they run and after each of them.

`python proof/streams.py` runs 20,000 programs on each of asyncio, uvloop, trio and threads (where
the proxies are synchronous, and their consumers threads). A program is a handful of consumers of
streams, and of callers of ``map()``, over one cache, now and then with a store, and with weights.
Sources are of both kinds, repeat themselves, take their time and raise; functions take their time,
raise, refuse batches, answer with failed items, and ask for further keys; consumers are slow, break
off, raise and are cancelled.
Then holds:

- each result is that of its item, in the order of the source if that was asked for; a stream that
  comes to its end has given each item once;
- at most so many items as the window has are read and not taken;
- a batch is full, unless the source has ended or the window is; no key is in two calls at once,
  and none is computed twice if everything is kept;
- what is raised is the very object that a function, a source or a body has raised;
- when a block has been left, no call of its stream is under way;
- at the end nothing is in flight, no slot is taken, and the statistics add up.

A program that stands still for 30 seconds ends the process, with a report of what everything in it
waits for. Prints a table; exits with 1 if anything does not hold, and names the seeds.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, SplitBatch
from batchproxy.testing import assert_idle, look

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from memory_store import MemoryStore, PlainStore

from proof.standstill import Watchdog

KEYS = 30
LATER = 1_000  # keys that functions ask for, which ask for nothing
STANDSTILL = 30.0  # seconds
PATIENCE = 20.0  # seconds for what must come at the end of a program
HEADINGS = ("programs", "streams", "to their end", "calls", "went wrong")


class Planned(Exception):
    """How functions, items, sources and bodies fail here."""


def weigh(item: int) -> int:
    return item % 4


class Stream:
    """What is known of one stream from outside."""

    def __init__(self, chance: random.Random, size: int | None) -> None:
        self.window = chance.choice([1, 2, 3, 5, 8, 20, 100])
        self.full = min(size or sys.maxsize, self.window)
        self.ordered = chance.random() < 0.6
        self.keep = chance.random() < 0.4
        length = chance.choice([0, 1, 5, 20, 60])
        keys = range(chance.choice([3, KEYS]))
        self.items = [chance.choice(keys) for _ in range(length)]
        if chance.random() < 0.3:
            self.items = sorted(set(self.items))
        self.raises = Planned("source") if chance.random() < 0.15 else None
        self.chunks = chance.random() < 0.3
        self.read = self.taken = self.running = 0
        self.over = self.left = False  # whether the source, the block has come to its end


class Program:
    """One of them; `wrong` is what did not hold."""

    def __init__(self, seed: int, *, sync: bool) -> None:
        self.chance = chance = random.Random(seed)
        store: Any = None
        if chance.random() < 0.2:
            store = chance.choice([MemoryStore, PlainStore])()
        self.kept = chance.random() < 0.6
        bound = None if self.kept else chance.choice([0, 4])
        self.stored = store is not None
        options: Any = {} if store is None else {"store": store, "namespace": "streams"}
        self.cache = Cache[Any](bound, **options)
        self.size = size = chance.choice([None, 1, 2, 3, 7])
        slots = chance.choice([1, 2, 3])
        self.heaviest = chance.choice([None, None, 4.0, 9.0])
        weights: Any = (
            {} if self.heaviest is None else {"weight": weigh, "max_weight": self.heaviest}
        )
        self.proxy: Any = (
            BatchingMapProxy(size, chance.choice([None, slots]), cache=self.cache, **weights)
            if sync
            else AsyncBatchingMapProxy(size, slots, cache=self.cache, **weights)
        )
        self.refuses = chance.choice([0, 0, 0.2])
        self.fails = chance.choice([0, 0, 0.1])
        self.lock = threading.Lock()
        self.busy: set[int] = set()  # keys in calls
        self.computed: Counter[int] = Counter()
        self.raised: set[int] = set()  # the ids of what was raised, all of which is kept ...
        self.errors: list[BaseException] = []  # ... here
        self.wrong: list[object] = []
        self.streams: list[Stream] = []
        self.calls = self.ended = 0

    def must(self, holds: bool, *what: object) -> None:
        if not holds:
            self.wrong.append(what)

    def planned(self, what: object) -> Planned:
        return self.note(Planned(what))

    def note(self, error: Planned) -> Planned:
        with self.lock:
            self.errors.append(error)
            self.raised.add(id(error))
        return error

    # What both kinds of functions have in common.

    def begin(self, stream: Stream | None, items: list[int]) -> None:
        with self.lock:
            self.calls += 1
            self.must(
                0 < len(items) == len(set(items)) <= (self.size or sys.maxsize), "size", items
            )
            self.must(self.busy.isdisjoint(items), "in two calls", items)
            self.busy.update(items)
            if stream is None:
                return
            stream.running += 1
            self.must(not stream.left, "called after the block was left", items)
            full = len(items) == stream.full or stream.over
            # A thin batch: the window is full, and all that was there has been taken. (While it
            # was claimed in a store more may have been.)
            waiting = stream.read - stream.taken >= stream.window or self.stored
            if self.heaviest is not None:
                weight = sum(map(weigh, items))
                self.must(weight <= self.heaviest or len(items) == 1, "too heavy", items)
                waiting = waiting or weight > self.heaviest - 3  # so much the next one may have
            waiting = waiting or self.refuses > 0  # then it may be a half
            self.must(full or waiting, "thin", items, vars(stream))

    def answer(self, items: list[int]) -> list[Any]:
        if self.chance.random() < self.refuses:
            raise SplitBatch from self.planned(items)
        if self.chance.random() < self.fails:
            raise self.planned(items)
        answers: list[Any] = [item * 10 for item in items]
        if self.chance.random() < self.fails:
            answers[-1] = self.planned(items[-1])
        return answers

    def end(self, stream: Stream | None, items: list[int], answers: list[Any]) -> None:
        with self.lock:
            self.busy.difference_update(items)
            if stream is not None:
                stream.running -= 1
            self.computed.update(
                item for item, answer in zip(items, answers) if not isinstance(answer, Exception)
            )

    # What both kinds of consumers have in common.

    def take(self, stream: Stream, given: list[Any], pairs: list[Any]) -> None:
        with self.lock:
            stream.taken += len(pairs)
            given += pairs
        for item, result in pairs:
            fine = result == item * 10 or (stream.keep and id(result) in self.raised)
            self.must(fine, "not the result", item, result)

    def reading(self, stream: Stream) -> None:
        with self.lock:
            stream.read += 1
            self.must(stream.read - stream.taken <= stream.window, "too far", vars(stream))

    def source(self, stream: Stream) -> Iterator[int]:
        for item in stream.items:
            self.reading(stream)
            yield item
        stream.over = True
        if stream.raises is not None:
            raise self.note(stream.raises)

    def check(self, stream: Stream, given: list[Any], whole: bool) -> None:
        items = [item for item, _ in given]
        if stream.ordered:
            self.must(items == stream.items[: len(items)], "order", items, vars(stream))
        else:
            self.must(Counter(items) <= Counter(stream.items), "items", items, vars(stream))
        if whole:
            self.ended += 1
            self.must(len(items) == len(stream.items), "not all", items, vars(stream))

    def check_error(self, error: BaseException) -> None:
        self.must(id(error) in self.raised, "raised", error)

    def finish(self) -> None:
        try:
            assert_idle(self.proxy)
        except AssertionError as error:
            self.must(False, "not idle", error)
        if self.kept and not self.fails and not self.refuses:
            self.must(all(count == 1 for count in self.computed.values()), "twice", self.computed)


class Asynchronous(Program):
    """Consumers are tasks."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, sync=False)

    async def main(self) -> None:
        chance = self.chance
        async with anyio.create_task_group() as group:
            for _ in range(chance.randint(1, 3)):
                self.streams.append(stream := Stream(chance, self.size))
                group.start_soon(self.consumer, stream)
            for _ in range(chance.choice([0, 0, 1, 2])):
                group.start_soon(self.caller)
        for _ in range(10_000):
            if look(self.proxy).idle:
                break
            await anyio.sleep(0.001)
        self.finish()

    async def pause(self, most: int) -> None:
        for _ in range(self.chance.randint(0, most)):
            await checkpoint()

    async def caller(self) -> None:
        await self.pause(20)
        keys = [self.chance.randrange(KEYS) for _ in range(self.chance.randint(1, 10))]
        with anyio.CancelScope() as scope:
            if self.chance.random() < 0.2:
                scope.cancel()
            try:
                answers = await self.proxy.map(keys, partial(self.compute, None))
            except Planned as error:
                self.check_error(error)
            else:
                self.must(answers == [key * 10 for key in keys], "map", keys, answers)

    async def consumer(self, stream: Stream) -> None:
        chance, given, whole = self.chance, list[Any](), False
        await self.pause(10)
        source: Any = self.source(stream) if chance.random() < 0.5 else self.async_source(stream)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                if chance.random() < 0.25:
                    group.start_soon(self.cancel_later, scope)
                try:
                    async with self.proxy.stream(
                        source,
                        partial(self.compute, stream),
                        window=stream.window,
                        ordered=stream.ordered,
                        return_exceptions=stream.keep,
                    ) as results:
                        whole = await self.consume(stream, results, given)
                except Planned as error:
                    self.check_error(error)
                finally:
                    stream.left = True
                    self.must(not stream.running, "running after the block", vars(stream))
                group.cancel_scope.cancel()
        self.check(stream, given, whole)

    async def cancel_later(self, scope: anyio.CancelScope) -> None:
        await self.pause(60)
        scope.cancel()

    async def consume(self, stream: Stream, results: Any, given: list[Any]) -> bool:
        chance = self.chance
        slow = chance.choice([0, 0, 3, 20])
        stops = chance.choice([None, None, chance.randrange(40)])
        async for part in results.chunks() if stream.chunks else results:
            self.take(stream, given, part if stream.chunks else [part])
            await self.pause(slow)
            if chance.random() < 0.05:
                key = chance.randrange(KEYS)
                answers = await self.proxy.map([key], partial(self.compute, None))
                self.must(answers == [key * 10], "map in the body", key, answers)
            if stops is not None and len(given) > stops:
                if chance.random() < 0.5:
                    raise self.planned("body")
                return False
        return True

    async def async_source(self, stream: Stream) -> AsyncIterator[int]:
        slow = self.chance.choice([0, 1, 5])
        for item in stream.items:
            await self.pause(slow)
            self.reading(stream)
            yield item
        stream.over = True
        if stream.raises is not None:
            raise self.note(stream.raises)

    async def compute(self, stream: Stream | None, items: list[int]) -> list[Any]:
        self.begin(stream, items)
        answers: list[Any] = [Planned()] * len(items)
        try:
            await self.pause(self.chance.choice([0, 2, 15]))
            if items[0] < LATER and self.chance.random() < 0.1:
                key = LATER + self.chance.randrange(3)
                await self.proxy.map([key], partial(self.compute, None))
            answers = self.answer(items)
        finally:
            self.end(stream, items, answers)
        return answers


class Synchronous(Program):
    """Consumers are threads."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, sync=True)

    def main(self) -> None:
        chance = self.chance
        threads = []
        for _ in range(chance.randint(1, 3)):
            self.streams.append(stream := Stream(chance, self.size))
            stream.ordered = True
            threads.append(threading.Thread(target=self.consumer, args=[stream]))
        for _ in range(chance.choice([0, 0, 1])):
            threads.append(threading.Thread(target=self.caller))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = time.monotonic() + PATIENCE
        while not look(self.proxy).idle and time.monotonic() < end:
            time.sleep(0.001)
        self.finish()

    def caller(self) -> None:
        keys = [self.chance.randrange(KEYS) for _ in range(self.chance.randint(1, 10))]
        try:
            answers = self.proxy.map(keys, partial(self.compute, None))
        except Planned as error:
            self.check_error(error)
        else:
            self.must(answers == [key * 10 for key in keys], "map", keys, answers)

    def consumer(self, stream: Stream) -> None:
        given: list[Any] = []
        whole = False
        try:
            with self.proxy.stream(
                self.source(stream),
                partial(self.compute, stream),
                window=stream.window,
                return_exceptions=stream.keep,
            ) as results:
                whole = self.consume(stream, results, given)
        except Planned as error:
            self.check_error(error)
        except BaseException as error:  # to be told of, not to end the others
            self.must(False, "raised", error)
        stream.left = True
        self.must(not stream.running, "running after the block", vars(stream))
        self.check(stream, given, whole)

    def consume(self, stream: Stream, results: Any, given: list[Any]) -> bool:
        chance = self.chance
        stops = chance.choice([None, None, chance.randrange(40)])
        for part in results.chunks() if stream.chunks else results:
            self.take(stream, given, part if stream.chunks else [part])
            self.must(not stream.running, "under way between two steps", vars(stream))
            if chance.random() < 0.05:
                key = chance.randrange(KEYS)
                answers = self.proxy.map([key], partial(self.compute, None))
                self.must(answers == [key * 10], "map in the body", key, answers)
            if stops is not None and len(given) > stops:
                if chance.random() < 0.5:
                    raise self.planned("body")
                return False
        return True

    def compute(self, stream: Stream | None, items: list[int]) -> list[Any]:
        self.begin(stream, items)
        answers: list[Any] = [Planned()] * len(items)
        try:
            if self.chance.random() < 0.2:
                time.sleep(0.0005)
            if items[0] < LATER and self.chance.random() < 0.1:
                key = LATER + self.chance.randrange(3)
                self.proxy.map([key], partial(self.compute, None))
            answers = self.answer(items)
        finally:
            self.end(stream, items, answers)
        return answers


def run_async(seed: int, backend: str) -> Program:
    program = Asynchronous(seed)
    options: Any = {"use_uvloop": True} if backend == "uvloop" else {}
    if backend == "trio":  # in which order tasks run
        vars(importlib.import_module("trio._core._run"))["_r"] = random.Random(seed)
    anyio.run(
        program.main,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options=options,
    )
    return program


def run_sync(seed: int) -> Program:
    program = Synchronous(seed)
    program.main()
    return program


FACES: dict[str, Callable[[int], Program]] = {
    "asyncio": partial(run_async, backend="asyncio"),
    "uvloop": partial(run_async, backend="uvloop"),
    "trio": partial(run_async, backend="trio"),
    "threads": run_sync,
}


def main() -> int:
    """Run them, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", choices=FACES, action="append", help="by default all")
    parser.add_argument("--programs", type=int, default=20_000, help="on each (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (0)")
    options = parser.parse_args()
    failed = False
    print(
        "| backend |", " | ".join(HEADINGS), "|\n" + "|---" * (1 + len(HEADINGS)) + "|", flush=True
    )
    for backend in options.backend or FACES:
        total = Counter[str]()
        with Watchdog(STANDSTILL) as watchdog:
            for seed in range(options.seed, options.seed + options.programs):
                watchdog.feed(f"{backend}, seed {seed}")
                program = FACES[backend](seed)
                found = (1, len(program.streams), program.ended, program.calls, bool(program.wrong))
                total.update(dict(zip(HEADINGS, found)))
                for each in program.wrong:
                    print(f"{backend}, seed {seed}: {each}", file=sys.stderr, flush=True)
        print(
            f"| {backend} |", " | ".join(f"{total[each]:,}" for each in HEADINGS), "|", flush=True
        )
        failed = failed or total["went wrong"] > 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
