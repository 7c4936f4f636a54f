"""Points 4 to 12 and 21 of the contract: random programs of load() and map(), and what must hold.

A program starts loads and maps, also inside of calls, ends calls in one way or another, cancels and
forgets. After every step it is looked whether a key is computed twice, a slot is lost, a batch is
thinner than it must be, somebody sleeps who could go on, or gets what no call has answered.

200 programs are run on each backend; 20,000 with `HYPOTHESIS_PROFILE=nightly` in the environment.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tools import BACKENDS, backend_options

from batchproxy import AsyncBatchingMapProxy, Cache, CircularWaitError
from batchproxy.testing import assert_idle, look

PROGRAMS = 20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 200
KEYS = range(8)
PATIENCE = 8
"""Ticks after which one who waits must have been seen by those who make batches."""


class Boom(Exception):
    """What calls raise, or answer for one item."""


class Exit(BaseException):
    """What is no `Exception`: it ends its caller, and nobody else."""


class Value(NamedTuple):
    key: int
    born: int


@dataclass(eq=False)
class Request:
    """One load(), or a map()."""

    keys: list[int]
    alone: bool  # a load
    parent: Call | None
    oldest: dict[int, int]
    since: int  # the tick when it began, or was last woken
    outcome: Any = None
    cancelled: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    task: Any = None


@dataclass(eq=False)
class Call:
    """One call of the function."""

    keys: list[int]
    born: int
    parent: Call | None
    gate: anyio.Event = field(default_factory=anyio.Event)
    how: str = "answer"
    ended: bool = False
    outcomes: dict[int, Any] = field(default_factory=dict)


around: ContextVar[Call | None] = ContextVar("around", default=None)
"""The call that some code is inside of."""

asking: ContextVar[Request] = ContextVar("asking")
"""The load or map in whose task some code runs."""


class Model:
    """Carries out the program of a seed."""

    def __init__(self, seed: int, backend: str) -> None:
        self.random = random.Random(seed)
        self.native = backend != "trio"
        choose = self.random.choice
        self.size = choose([None, 1, 2, 3])
        self.slots = choose([1, 2, 3])
        self.cache = Cache[Value](max_size=choose([None, None, 0, 2]))
        self.proxy = AsyncBatchingMapProxy[int, Value](self.size, self.slots, cache=self.cache)
        self.users = self.proxy.bind(self.function)
        self.nesting = choose([0, 0, 0.3])
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.forgotten = dict.fromkeys(KEYS, 0)
        self.now = self.tick_number = 0
        self.open = False
        self.wrong: AssertionError | None = None

    async def main(self) -> None:
        async with anyio.create_task_group() as self.group:
            try:
                for _ in range(self.random.randrange(10, 40)):
                    await self.step()
                    await self.tick(self.random.choice([0, 0, 1, 2, 3, 40]))
                await self.finish()
            except AssertionError as error:
                self.wrong = self.wrong or error
            self.group.cancel_scope.cancel()
        if self.wrong is not None:
            raise self.wrong

    async def step(self) -> None:
        running = [call for call in self.calls if not call.ended]
        under_way = [
            request
            for request in self.requests
            if request.outcome is None and request.parent is None and not request.cancelled
        ]
        number = self.random.random()
        if number < 0.5:
            for _ in range(self.random.choice([1, 1, 2, 5])):
                self.start([self.random.choice(KEYS)], alone=True)
        elif number < 0.55:
            self.start(self.random.sample(KEYS, 3), alone=False)
        elif number < 0.8 and running:
            call = self.random.choice(running)
            call.how = self.random.choice(["answer", "answer", "exception", "item", "exit"])
            call.gate.set()
        elif number < 0.95 and under_way:
            request = self.random.choice(under_way)
            request.cancelled, request.since = True, self.tick_number
            if self.native and request.task is not None and self.random.random() < 0.5:
                request.task.cancel()
            else:
                request.scope.cancel()
        elif number > 0.95:
            self.now += 1
            keys = self.random.sample(KEYS, 3)
            self.forgotten.update(dict.fromkeys(keys, self.now))
            self.cache.invalidate(keys)

    def start(self, keys: list[int], *, alone: bool, parent: Call | None = None) -> Request:
        request = Request(keys, alone, parent, dict(self.forgotten), self.tick_number)
        self.requests.append(request)
        self.group.start_soon(self.caller, request)
        return request

    async def caller(self, request: Request) -> None:
        try:
            with request.scope:
                await self.ask(request)
        except (Boom, CircularWaitError, Exit):
            pass  # it is the outcome
        except anyio.get_cancelled_exc_class():
            if not request.cancelled or not self.native:
                raise

    async def ask(self, request: Request) -> None:
        if self.native:
            request.task = asyncio.current_task()
        request.oldest = dict(self.forgotten)
        request.since = self.tick_number
        asking.set(request)
        try:
            if request.alone:
                answers = [await self.users.load(request.keys[0])]
            else:
                answers = await self.users.map(request.keys)
            request.outcome = answers
        except BaseException as error:
            request.outcome = error
            if not isinstance(error, Exception | Exit) and not self.excused(request):
                self.complain(f"{request} was cancelled by nobody")
            raise
        self.verify(request, answers)

    def excused(self, request: Request) -> bool:
        if request.cancelled or self.group.cancel_scope.cancel_called or self.wrong is not None:
            return True
        return request.parent is not None  # with the call that it is in

    def complain(self, what: str) -> None:
        self.wrong = self.wrong or AssertionError(what)

    def verify(self, request: Request, answers: list[Value]) -> None:
        for key, answer in zip(request.keys, answers, strict=True):
            if answer.key != key or answer.born < request.oldest[key]:
                self.complain(f"{request} got {answer}")

    async def function(self, keys: list[int]) -> list[Any]:
        parent = around.get()
        call = Call(keys, self.now, parent)
        self.check_beginning(call)
        self.calls.append(call)
        token = around.set(call)
        try:
            if not self.open and self.random.random() < self.nesting:
                await self.nested(call)
            if not self.open:
                await call.gate.wait()
            if call.how == "exception":
                error = Boom()
                call.outcomes = dict.fromkeys(keys, error)
                raise error
            if call.how == "exit":
                raise Exit
            call.outcomes = {key: Value(key, call.born) for key in keys}
            if call.how == "item":
                call.outcomes[keys[0]] = Boom()
            return list(call.outcomes.values())
        finally:
            around.reset(token)
            call.ended = True
            for request in self.requests:
                if not request.cancelled:
                    request.since = self.tick_number  # some look again

    async def nested(self, call: Call) -> None:
        """Loads inside of a call: some in vain, since the call itself computes what they want."""
        requests: list[Request] = []
        async with anyio.create_task_group() as group:
            for _ in range(self.random.randrange(1, 4)):
                key = self.random.choice(KEYS)
                request = Request([key], True, call, {}, self.tick_number)
                self.requests.append(request)
                requests.append(request)
                group.start_soon(self.caller, request)
        for request in requests:
            if isinstance(request.outcome, CircularWaitError):
                continue
            [key] = request.keys
            own = key in call.keys and self.forgotten[key] <= call.born
            if own and isinstance(request.outcome, list):
                self.complain(f"{call} got what it computes itself")

    def running(self) -> list[Call]:
        return [call for call in self.calls if not call.ended]

    def check_beginning(self, call: Call) -> None:
        """What must be true when a call begins."""
        running = self.running()
        if self.size is not None and len(call.keys) > self.size:
            self.complain("a batch is too large")
        if len(set(call.keys)) < len(call.keys):
            self.complain("a key is twice in a batch")
        top = [each for each in running if each.parent is None]
        if call.parent is None and len(top) >= self.slots:
            self.complain("there are more calls than slots")
        for each in running:
            both = set(each.keys) & set(call.keys)
            if any(self.forgotten[key] <= each.born for key in both):
                self.complain(f"{both} is computed twice")
        thin = len(call.keys) < (self.size or 100)
        if call.parent is None and asking.get().alone and thin:
            for request in self.waiting(PATIENCE):
                if request.keys[0] not in call.keys:
                    self.complain(f"{call} is thinner than it must be: there is {request}")

    def waiting(self, patience: int) -> list[Request]:
        """Loads outside of calls that have waited for so long, and for no call under way."""
        computed = {key for call in self.running() for key in call.keys}
        return [
            request
            for request in self.requests
            if request.alone
            and request.outcome is None
            and request.parent is None
            and not request.cancelled
            and self.tick_number - request.since > patience
            and request.keys[0] not in computed
            and request.keys[0] not in self.cache
        ]

    def check(self) -> None:
        if self.wrong is not None:
            raise self.wrong
        top = [call for call in self.running() if call.parent is None]
        if len(top) < self.slots and not any(call.parent is not None for call in self.running()):
            for request in self.waiting(2 * PATIENCE):
                raise AssertionError(f"{request} is forgotten")
        for request in self.requests:
            if request.cancelled and request.outcome is None and request.task is not None:
                left = self.tick_number - request.since < 30
                assert left, f"{request} was cancelled, and has not left"

    async def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            await checkpoint()
            self.tick_number += 1
            self.check()

    async def finish(self) -> None:
        self.open = True
        for _ in range(400):
            for call in self.running():
                call.gate.set()
            if all(request.outcome is not None or request.cancelled for request in self.requests):
                break
            await checkpoint()
        for _ in range(20):
            await checkpoint()
        hanging = [r for r in self.requests if r.outcome is None and not r.cancelled]
        assert not hanging, f"these hang: {hanging}"
        if self.wrong is not None:
            raise self.wrong
        assert_idle(self.proxy)
        assert look(self.proxy).loading == 0
        now = self.proxy.statistics()
        assert now.calls == len(self.calls)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["shuffled", *BACKENDS])
def test_random_programs(backend: str) -> None:
    """Nothing is left, nobody is forgotten, and no batch is thinner than it must be."""

    async def run_all() -> None:
        for seed in range(PROGRAMS):
            try:
                random.seed(seed)
                await Model(seed, backend).main()
            except BaseException as error:
                error.add_note(f"in program {seed}")
                raise

    anyio.run(
        run_all,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options=backend_options(backend, debug=False),
    )
