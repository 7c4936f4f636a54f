"""Random programs with stores that fail and are slow, and what must hold after each of them.

`python proof/fuzz.py` runs 20,000 programs on each of asyncio, uvloop, trio and threads (where the
callers are threads, and the proxies synchronous). A program is a handful of callers of proxies over
one or two caches of one store. They nest, forget, prime, fail, lose items, run out of time, and ask
for NaN; the store fails, also after it has done what was asked, and takes its time. Then holds:

- each answer is one of its own key, and no older than what was forgotten last;
- a store that fails shows as a `StoreError` only, and with the policy "raise" only;
- with that policy a result that a ``map()`` has returned is in the store then, and a key has one
  answer over all caches that share one;
- when all callers have gone, nothing is in flight, no slot is taken, no claim is left in the store,
  and the statistics are those that were counted outside.

Functions nest only into later stages, whose proxies and keys are others: rings through the slots of
different proxies are not promised to be noticed. So no `CircularWaitError` may come either.

A program that stands still for 30 seconds ends the process, with a report of what everything in it
waits for. Prints a table; exits with 1 if anything does not hold, and names the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from batchproxy import AnswerValueError, Cache, StoreError
from batchproxy.codecs import digests
from batchproxy.testing import look

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from memory_store import MemoryStore, PlainStore

from proof.faces import FACES, Face, unreliable
from proof.standstill import Watchdog

STAGES = 3
KEYS = 12  # of each stage
NANS = [float("nan") for _ in range(STAGES)]  # what is identical is one key
NAMESPACE = "fuzz"
PRIMED = 1_000_000  # the serial of what is primed, by whoever was last: no call is newer
STANDSTILL = 30.0  # seconds
HEADINGS = ("programs", "map()s that returned", "calls", "went wrong")
PATIENCE = 20.0  # seconds for what must come at the end of a program


class Planned(Exception):
    """How calls and items fail here."""


class Program:
    """One of them; `wrong` is what did not hold."""

    def __init__(self, face: Face, seed: int) -> None:
        self.face = face
        self.chance = chance = random.Random(seed)
        self.policy: Any = ("raise", "continue")[seed % 2]
        self.store = unreliable(chance.choice([MemoryStore, MemoryStore, PlainStore]), chance)
        self.caches = [self._cache() for _ in range(chance.choice([1, 2]))]
        outer = [face.proxy(chance, cache) for cache in self.caches * 2]
        later = [[face.proxy(chance, chance.choice(self.caches))] for _ in range(1, STAGES)]
        self.stages = [outer, *later]
        self.forgets = chance.random() < 0.3
        self.serials = itertools.count()  # its next() is atomic
        self.wrong: list[object] = []
        self.calls: list[Any] = []  # one entry for each
        self.returned: list[tuple[Any, int]] = []  # map() calls, with how many items
        self.forgotten: set[Any] = set()  # keys that somebody has begun to forget, or to prime
        self.floor: dict[Any, int] = {}  # answers of serials up to here must not come any more
        self.given: dict[Any, set[str]] = {}  # answers, by key
        shared = isinstance(self.store, MemoryStore) or len(self.caches) == 1
        self.one_answer = self.policy == "raise" and shared

    def _cache(self) -> Cache[str]:
        size, ttl = self.chance.choice([None, None, 0, 5]), self.chance.choice([None, None, 60])
        return Cache(size, ttl, store=self.store, namespace=NAMESPACE, on_store_error=self.policy)

    async def run(self) -> None:
        await self.face.together([self._caller] * self.chance.randint(2, 8))
        proxies = [proxy for stage in self.stages for proxy in stage]
        await self._until(lambda: all(look(proxy).idle for proxy in proxies))
        for proxy in proxies:
            self._check_statistics(proxy)
        self.store.calm = True
        for number, proxy in enumerate(proxies):
            await self._fill(proxy, number)
        for cache in self.caches:
            await self.face.block(cache.close)
        if isinstance(self.store, MemoryStore):
            await self._until(lambda: not self.store.claims)
            self._must(not self.store.claims, "claims are left", self.store.claims)

    def _must(self, holds: bool, *what: object) -> None:
        if not holds:
            self.wrong.append(what)

    async def _until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < end:
            await self.face.sleep(0.001)

    async def _caller(self) -> None:
        chance = self.chance
        for _ in range(chance.randint(1, 5)):
            try:
                with self.face.limit(chance.choice([math.inf, math.inf, 0.002, 0.006])):
                    await self._ask(chance.choice(self.stages[0]), 0)
                if self.forgets and chance.random() < 0.2:
                    await self._forget()
            except Planned:
                pass
            except Exception as error:  # to be told of, not to end the others
                self._must(False, "raised", error)

    async def _ask(self, proxy: Any, stage: int) -> None:
        """Map keys of `stage`, and look at what comes; raises what may be raised, as `Planned`."""
        chance, floor = self.chance, dict(self.floor)
        keys: list[Any] = [
            100 * stage + chance.randrange(KEYS) for _ in range(chance.randint(1, 8))
        ]
        if chance.random() < 0.05:
            keys.insert(chance.randrange(len(keys)), NANS[stage])
        keep = chance.random() < 0.4
        try:
            function = partial(self._compute, proxy, stage)
            answers = await self.face.map(proxy, keys, function, keep)
        except StoreError as error:
            self._must(self.store.fails and self.policy == "raise", "raised", error)
            raise Planned from error
        except (Planned, AnswerValueError) as error:
            self._must(not keep, "raised in spite of return_exceptions", error)
            raise Planned from error
        self.returned.append((proxy, len(keys)))
        self._must(len(answers) == len(keys), "length", keys, answers)
        for key, answer in zip(keys, answers):
            if isinstance(answer, str):
                self._check(key, answer, floor.get(key, -1))
            else:
                fits = keep and isinstance(answer, Planned | AnswerValueError)
                self._must(fits, "not an answer", key, answer)

    def _check(self, key: Any, answer: str, floor: int) -> None:
        owner, _, serial = answer.partition(":")
        self._must(owner == str(key), "an answer of another key", key, answer)
        self._must(int(serial) > floor, "an answer that was forgotten", key, answer, floor)
        if key != key or self.policy != "raise":
            return
        with self.store.lock:
            there = self.store.values.get((NAMESPACE, digests([key])[0]), b"")
        if key not in self.forgotten and self.one_answer:
            given = self.given.setdefault(key, set())
            given.add(answer)
            self._must(len(given) == 1, "two answers", key, given)
            self._must(answer.encode() in there, "not in the store", key, answer, there)

    async def _compute(self, proxy: Any, stage: int, items: list[Any]) -> list[Any]:
        chance, serial = self.chance, next(self.serials)
        self.calls.append(proxy)
        await self.face.sleep(chance.random() * 0.003)
        if stage + 1 < STAGES and chance.random() < 0.15:
            await self._ask(chance.choice([proxy, *self.stages[stage + 1]]), stage + 1)
        if chance.random() < 0.06:
            raise Planned
        answers: list[Any] = [f"{item}:{serial}" for item in items]
        if chance.random() < 0.1:
            answers = [Planned() if chance.random() < 0.3 else answer for answer in answers]
        return answers[1:] if chance.random() < 0.02 else answers

    async def _forget(self) -> None:
        cache, stage = self.chance.choice(self.caches), 100 * self.chance.randrange(STAGES)
        keys = [stage + self.chance.randrange(KEYS) for _ in range(3)]
        everything = [100 * each + key for each in range(STAGES) for key in range(KEYS)]
        how = self.chance.choice(["invalidate", "prime", "clear"])
        self.forgotten.update(everything if how == "clear" else keys)
        before = next(self.serials)
        work: dict[str, Callable[[], None]] = {
            "invalidate": lambda: cache.invalidate(keys),
            "prime": lambda: cache.prime({key: f"{key}:{PRIMED}" for key in keys}),
            "clear": cache.clear,
        }
        try:
            await self.face.block(work[how])
        except StoreError as error:
            self._must(self.store.fails, "raised", error)
            return
        if len(self.caches) == 1:  # another one still has them in memory
            self.floor |= dict.fromkeys(everything if how == "clear" else keys, before)

    def _check_statistics(self, proxy: Any) -> None:
        now = proxy.statistics()
        self._must(now.in_flight == now.running == now.waiting == 0, "left behind", now)
        self._must(now.calls == now.completed + now.failed + now.cancelled, "do not add up", now)
        returned = [items for each, items in self.returned if each is proxy]
        counted = len(returned), sum(returned), sum(each is proxy for each in self.calls)
        self._must((now.maps, now.items, now.calls) == counted, "counted", counted, now)

    async def _fill(self, proxy: Any, number: int) -> None:
        """Make as many calls at once as there are slots: none was kept."""
        slots = proxy.max_concurrency or 2
        under_way: list[Any] = []

        async def call(items: list[Any]) -> list[Any]:
            under_way.extend(items)
            await self._until(lambda: len(under_way) == slots)
            return [f"{item}:0" for item in items]

        async def caller(slot: int) -> None:
            await self.face.map(proxy, [f"slot {slot} of {number}"], call, False)

        await self.face.together([partial(caller, slot) for slot in range(slots)])
        self._must(len(under_way) == slots, "slots are taken", proxy, under_way)


def program(face: Face, seed: int) -> tuple[list[object], Counter[str]]:
    """Run one; what did not hold, and what took place."""
    one = Program(face, seed)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(one.chance.choice([interval, 1e-5]))
    # The pauses after a failure are short, so that there is something after them.
    try:
        with mock.patch.multiple("batchproxy._backing.fuse", _FIRST=0.002, _LONGEST=0.01):
            face.run(one.run)
    finally:
        sys.setswitchinterval(interval)
    done = dict(zip(HEADINGS, (1, len(one.returned), len(one.calls), bool(one.wrong))))
    return one.wrong, Counter(done)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", choices=FACES, action="append", help="by default all")
    parser.add_argument("--programs", type=int, default=20_000, help="on each (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (0)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="at most, on each")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = False
    print(
        "| backend |", " | ".join(HEADINGS), "|\n" + "|---" * (1 + len(HEADINGS)) + "|", flush=True
    )
    for backend in options.backend or FACES:
        face, total, end = FACES[backend](), Counter[str](), time.monotonic() + options.seconds
        with Watchdog(STANDSTILL) as watchdog:
            for seed in range(options.seed, options.seed + options.programs):
                if time.monotonic() > end:
                    break
                watchdog.feed(f"{backend}, seed {seed}")
                wrong, done = program(face, seed)
                total += done
                for each in wrong:
                    print(f"{backend}, seed {seed}: {each}", file=sys.stderr, flush=True)
        print(
            f"| {backend} |", " | ".join(f"{total[each]:,}" for each in HEADINGS), "|", flush=True
        )
        failed = failed or total["went wrong"] > 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
