"""Points 1 to 12 of the contract together: random programs, and what must hold of every one."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tools import naive, settle

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache


class Boom(Exception):
    """What the batch functions of these programs raise."""


@dataclass(frozen=True)
class Caller:
    """One map(): when it begins, and when it is cancelled, in checkpoints from the start."""

    start: int
    items: list[int]
    cancelled_after: int | None
    return_exceptions: bool
    nested: bool


@dataclass(frozen=True)
class Program:
    callers: list[Caller]
    lengths: list[int]  # of the calls of map_func, in checkpoints, again from the first
    failing: set[int]  # numbers of calls that fail
    broken: set[int]  # keys that fail, each alone
    forgets: list[tuple[int, int]]  # when which key is invalidated
    batch_size: int | None
    max_concurrency: int
    max_size: int | None


keys = st.integers(0, 12)
callers = st.builds(
    Caller,
    start=st.integers(0, 15),
    items=st.lists(keys, max_size=15),
    cancelled_after=st.none() | st.integers(0, 20),
    return_exceptions=st.booleans(),
    nested=st.sampled_from([False, False, True]),
)
programs = st.builds(
    Program,
    callers=st.lists(callers, min_size=1, max_size=6),
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=8),
    failing=st.sets(st.integers(0, 12), max_size=3),
    broken=st.sets(keys, max_size=2),
    forgets=st.lists(st.tuples(st.integers(0, 20), keys), max_size=3),
    batch_size=st.none() | st.integers(1, 5),
    max_concurrency=st.integers(1, 4),
    max_size=st.none() | st.integers(0, 6),
)


@dataclass
class Run:
    """Carries out a program, and checks at every step what can be checked there."""

    program: Program
    calls: int = 0
    under_way: Counter[int] = field(default_factory=Counter)
    depth: int = 0
    computed: Counter[int] = field(default_factory=Counter)
    most: int = 0
    running: int = 0

    def __post_init__(self) -> None:
        program = self.program
        self.cache = Cache[str](max_size=program.max_size)
        self.proxy = AsyncBatchingMapProxy[int, str](
            program.batch_size, program.max_concurrency, cache=self.cache
        )

    def map_func(self, caller: Caller) -> Any:
        async def fetch(items: list[int]) -> list[Any]:
            number = self.calls
            self.calls += 1
            assert len(set(items)) == len(items) > 0
            if self.program.batch_size:
                assert len(items) <= self.program.batch_size
            self.running += 1
            self.under_way.update(items)
            if not self.program.forgets:
                assert max(self.under_way.values()) == 1, "a key is computed twice at once"
            try:
                for _ in range(self.program.lengths[number % len(self.program.lengths)]):
                    await checkpoint()
                if caller.nested and min(items) < 100:  # keys of its own: no ring is possible
                    inner = [100 + item for item in items]
                    assert await self.proxy.map(inner, fetch) == naive(inner)
            finally:
                self.running -= 1
                self.under_way.subtract(items)
            if number in self.program.failing and min(items) < 100:
                raise Boom(number)
            self.computed.update(set(items) - self.program.broken)
            return [Boom(item) if item in self.program.broken else str(item) for item in items]

        async def limited(items: list[int]) -> list[Any]:
            # A nested call runs in the slot of its parent, which waits for it meanwhile.
            if min(items) < 100:
                self.depth += 1
                self.most = max(self.most, self.depth)
                try:
                    return await fetch(items)
                finally:
                    self.depth -= 1
            return await fetch(items)

        return limited

    async def caller(self, caller: Caller) -> None:
        for _ in range(caller.start):
            await checkpoint()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                if caller.cancelled_after is not None:
                    group.start_soon(self.cancel, scope, caller.cancelled_after)
                try:
                    answers = await self.proxy.map(
                        caller.items,
                        self.map_func(caller),
                        return_exceptions=caller.return_exceptions,
                    )
                except Boom:
                    assert not caller.return_exceptions
                else:
                    assert len(answers) == len(caller.items)
                    for item, answer in zip(caller.items, answers):
                        if caller.return_exceptions and isinstance(answer, Boom):
                            continue
                        assert answer == str(item)
                group.cancel_scope.cancel()

    async def cancel(self, scope: anyio.CancelScope, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        scope.cancel()

    async def forget(self, when: int, key: int) -> None:
        for _ in range(when):
            await checkpoint()
        self.cache.invalidate([key])

    async def main(self) -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for caller in self.program.callers:
                    group.start_soon(self.caller, caller)
                for when, key in self.program.forgets:
                    group.start_soon(self.forget, when, key)
        await settle(3)
        self.check_the_end()

    def check_the_end(self) -> None:
        program, statistics = self.program, self.proxy.statistics()
        assert (statistics.in_flight, statistics.waiting, statistics.running) == (0, 0, 0)
        assert self.most <= program.max_concurrency
        assert statistics.calls == self.calls
        assert statistics.calls == statistics.completed + statistics.failed + statistics.cancelled
        assert statistics.computed == sum(self.computed.values())
        if program.max_size is not None:
            assert len(self.cache) <= program.max_size
        elif not program.forgets:
            assert set(self.computed.values()) <= {1}, "a result was computed twice"
            assert len(self.cache) == len(self.computed)
        slots = self.proxy._engine._slots
        assert slots is not None
        assert all(limiter.borrowed_tokens == 0 for limiter in slots._limiters.values())


def eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined] # 3.12
    return loop


@pytest.mark.parametrize("backend", ["asyncio", "eager", "uvloop", "trio"])
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(program=programs)
def test_random_programs(backend: str, program: Program) -> None:
    """Callers that overlap, fail, are cancelled, forget and nest leave every invariant true."""
    options: dict[str, Any] = {}
    if backend == "eager":
        if sys.version_info < (3, 12):
            pytest.skip("eager tasks are of 3.12")
        options = {"loop_factory": eager_loop}
    elif backend == "uvloop":
        options = {"use_uvloop": True}
    anyio.run(
        Run(program).main,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options=options,
    )


@settings(max_examples=50)
@given(
    lists=st.lists(st.lists(keys, max_size=30), max_size=5),
    batch_size=st.none() | st.integers(-1, 7),
    max_concurrency=st.none() | st.integers(1, 3),
    max_size=st.none() | st.integers(0, 8),
    seconds=st.none() | st.just(3600.0),
)
def test_a_sync_proxy_equals_the_naive_loop(
    lists: list[list[int]],
    batch_size: int | None,
    max_concurrency: int | None,
    max_size: int | None,
    seconds: float | None,
) -> None:
    """Whatever the options: the answers of the naive loop, with full batches of distinct items."""
    cache = Cache[str](max_size, seconds)
    proxy = BatchingMapProxy[int, str](batch_size, max_concurrency, cache=cache)
    for items in lists:
        known = {item for item in items if item in cache}
        batches: list[list[int]] = []

        def fetch(batch: list[int], batches: list[list[int]] = batches) -> list[str]:
            batches.append(batch)
            return naive(batch)

        assert proxy.map(items, fetch) == naive(items)
        missing = [item for item in dict.fromkeys(items) if item not in known]
        size = batch_size if batch_size and batch_size > 0 else max(len(missing), 1)
        expected = [missing[i : i + size] for i in range(0, len(missing), size)]
        assert sorted(batches) == sorted(expected)
        assert max_size is None or len(cache) <= max_size
