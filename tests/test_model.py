"""Points 1, 2, 4 to 11, 19 and 20 of the contract: random programs beside a model.

A program starts callers, ends their calls in one way or another, cancels, forgets, primes and lets
time pass. The model, which knows every state, follows it: which call has which key, or will have it
when its batch was refused, which value is cached, what each map() met and may therefore get. After
every step, and at each beginning of a call, proxy and model must agree exactly, so that a key
computed twice, a waiter of a call that has ended, a lost slot or a value of before the last
`clear()` shows where it arises and not only in some answer.

Forty programs are run on each backend; 2,000 with `HYPOTHESIS_PROFILE=nightly` in the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tools import BACKENDS, backend_options

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, CircularWaitError, SplitBatch
from batchproxy.testing import assert_idle, look

KEYS = range(6)


class Boom(Exception):
    """What the batch functions raise, or answer for one item."""


class Value(NamedTuple):
    """What the batch functions answer: the key, and when its computation began."""

    key: int
    born: int


@dataclass(frozen=True)
class Start:
    """A caller begins a map()."""

    items: list[int]
    proxy: int = 0
    return_exceptions: bool = False
    timeout: int | None = None  # seconds
    raises: bool = False  # whether the timeout is that of fail_after, or of move_on_after
    # What its calls ask of the same proxy, what the calls of that ask, and whether they mind if
    # that fails.
    nested: tuple[list[int], ...] = ()
    minds: bool = True


@dataclass(frozen=True)
class End:
    """A call ends: with an answer, one with a failed item, an exception, or a refusal."""

    call: int  # a position among those running
    how: str


@dataclass(frozen=True)
class Cancel:
    """A caller is cancelled: by its scope, or (on asyncio) by its task's ``cancel()``."""

    caller: int  # a position among those under way
    native: bool


@dataclass(frozen=True)
class Sleep:
    """Time passes, as soon as nothing else can happen."""

    seconds: int


@dataclass(frozen=True)
class Forget:
    """``clear()``, or ``invalidate()`` of some keys."""

    keys: frozenset[int] | None


@dataclass(frozen=True)
class Prime:
    """Newer values come from elsewhere."""

    keys: frozenset[int]


Step: TypeAlias = Start | End | Cancel | Sleep | Forget | Prime


@dataclass(frozen=True)
class Program:
    """What is to happen, each step with how many checkpoints follow; None: as many as it takes."""

    # batch_size, max_concurrency and max_weight of each proxy; a key weighs what it is.
    options: list[tuple[int | None, int, int | None]]
    max_size: int | None
    steps: list[tuple[Step, int | None]]


items = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6)
few_items = st.lists(st.sampled_from(KEYS), max_size=2)
some_keys = st.frozensets(st.sampled_from(KEYS), min_size=1, max_size=3)
numbers = st.integers(0, 7)
steps = (
    st.builds(Sleep, st.integers(0, 2))
    | st.builds(Start, items, numbers, st.booleans())
    | st.builds(Start, items, numbers, st.booleans(), st.integers(1, 3), st.booleans())
    | st.builds(
        Start,
        items,
        numbers,
        st.booleans(),
        nested=st.lists(few_items, min_size=1, max_size=2).map(tuple),
        minds=st.booleans(),
    )
    | st.builds(End, numbers, st.sampled_from(["answer", "mapping"]))
    | st.builds(End, numbers, st.sampled_from(["exception", "failed item"]))
    | st.builds(End, numbers, st.just("refused"))
    | st.builds(Cancel, numbers, st.booleans())
    | st.builds(Forget, st.none() | some_keys)
    | st.builds(Prime, some_keys)
)
programs = st.builds(
    Program,
    options=st.lists(
        st.tuples(st.none() | st.integers(1, 4), st.integers(1, 3), st.none() | st.integers(4, 8)),
        min_size=1,
        max_size=2,
    ),
    max_size=st.none() | st.integers(0, 3),
    # Left to itself, Hypothesis makes most lists empty or short; Sleep(0) is what it puts instead.
    steps=st.lists(st.tuples(steps, st.sampled_from([None, 1, 0, 0])), min_size=12, max_size=40),
)


@dataclass(eq=False)
class Request:
    """One map(): what it asks for, and what the model knows of it."""

    start: Start
    items: list[int]
    proxy: int
    parent: Call | None = None
    depth: int = 0
    met: dict[int, Batch] = field(default_factory=dict)  # what was in flight when it began
    oldest: dict[int, int] = field(default_factory=dict)  # values it may get: born when or later
    over: bool = False  # whether a call of its own has failed and ended it
    outcome: Any = None  # its list, the exception that it raised, or "cancelled"
    verified: bool = False
    scope: anyio.CancelScope | None = None
    task: Any = None
    cancelled: str = ""  # how, if it was

    @property
    def returned(self) -> bool:
        return isinstance(self.outcome, list)

    def met_itself(self) -> bool:
        """Whether it asks for a key that a call around it is computing."""
        around, met = self.parent, self.met.values()
        while around is not None and around.batch not in met:
            around = around.request.parent
        return around is not None


@dataclass(eq=False)
class Batch:
    """One call; or if it is refused, that and those of its halves."""

    request: Request
    ahead: list[list[int]]  # halves that are to be called, the next one last
    between: bool = False  # whether it is neither over nor called
    over: bool = False
    outcomes: dict[int, Value | Exception] = field(default_factory=dict)  # by key
    alone: int = 0  # items that were refused alone

    @property
    def failing(self) -> bool:
        return any(isinstance(end, Exception) for end in self.outcomes.values())


@dataclass(eq=False)
class Call:
    """One call of a batch function."""

    request: Request
    batch: Batch
    keys: list[int]
    born: int
    gate: anyio.Event = field(default_factory=anyio.Event)
    how: str = "answer"
    state: str = "running"  # then "completed", "failed" or "given up"
    outcomes: dict[int, Value | Exception] = field(default_factory=dict)  # by key


class Model:
    """Carries out a program, and knows what must be true of the proxies at every step."""

    def __init__(self, program: Program, backend: str) -> None:
        self.program = program
        self.native = backend != "trio"
        self.virtual_time = backend != "uvloop"
        self.cache = Cache[Value](max_size=program.max_size)
        self.proxies = [
            AsyncBatchingMapProxy[int, Value](
                size,
                concurrency,
                cache=self.cache,
                weight=None if max_weight is None else int,
                max_weight=max_weight,
            )
            for size, concurrency, max_weight in program.options
        ]
        self.reader = BatchingMapProxy[int, Value](cache=self.cache)
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.callers = 0
        self.table: dict[int, Batch] = {}  # keys in flight
        self.known: dict[int, Value] = {}  # values, as if the cache had no bound
        self.forgotten = dict.fromkeys(KEYS, 0)  # when each key was, the last time
        self.now = 0
        self.open = False  # whether all calls may end
        self.wrong: AssertionError | None = None

    # What the program does.

    async def main(self) -> None:
        async with anyio.create_task_group() as group:
            self.group = group
            try:
                for step, ticks in self.program.steps:
                    await self.take(step)
                    await self.settle() if ticks is None else await self.tick(ticks)
                    self.check_statistics()
                await self.finish()
            except AssertionError as error:
                self.wrong = self.wrong or error  # what a batch function saw came first
            group.cancel_scope.cancel()
        if self.wrong is not None:
            raise self.wrong

    async def take(self, step: Step) -> None:
        match step:
            case Start():
                proxy = step.proxy % len(self.proxies)
                self.start(Request(step, step.items, proxy))
            case End() if running := self.running():
                call = running[step.call % len(running)]
                call.how = step.how
                call.gate.set()
            case Cancel() if under_way := [
                request
                for request in self.requests
                if request.parent is None and request.outcome is None and not request.cancelled
            ]:
                self.cancel(under_way[step.caller % len(under_way)], step.native)
            case Sleep() if self.virtual_time:
                await anyio.sleep(step.seconds)
            case Forget(None):
                self.forget(KEYS)
                await self.proxies[0].clear()
            case Forget(keys):
                self.forget(keys or ())
                self.cache.invalidate(keys or ())
            case Prime(keys):
                self.forget(keys)
                primed = {key: Value(key, self.now) for key in keys}
                self.known |= primed
                self.cache.prime(primed)

    def start(self, request: Request) -> None:
        self.callers += 1
        self.group.start_soon(self.caller, request)

    def cancel(self, request: Request, native: bool) -> None:
        if native and self.native:
            request.cancelled = "natively"
            request.task.cancel()
        else:
            assert request.scope is not None
            request.cancelled = "by its scope"
            request.scope.cancel()

    def forget(self, keys: Iterable[int]) -> None:
        self.now += 1
        for key in keys:
            self.forgotten[key] = self.now
            self.table.pop(key, None)
            self.known.pop(key, None)

    async def finish(self) -> None:
        """Let everything end; then everything must be free, and the proxies work."""
        self.open = True
        await self.drain()
        assert_idle(*self.proxies)
        for number in range(len(self.proxies)):
            self.start(last := Request(Start([*KEYS]), [*KEYS], number))
            await self.drain()
            assert last.returned
        assert_idle(*self.proxies)
        self.check_statistics()

    async def drain(self) -> None:
        for call in self.running():
            call.gate.set()
        for _ in range(1000):
            if not self.callers:
                return
            await self.tick()
        hanging = [request for request in self.requests if request.outcome is None]
        raise AssertionError(f"these hang: {hanging}")

    async def tick(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            await checkpoint()
            self.check()

    async def settle(self) -> None:
        await self.tick(30)
        self.check_settled()

    # What the callers and the batch functions do.

    async def caller(self, request: Request) -> None:
        if self.native:
            request.task = asyncio.current_task()
        start = request.start
        scope = anyio.fail_after if start.raises else anyio.move_on_after
        # Half a second less: no two things happen at the same time.
        seconds = start.timeout - 0.5 if start.timeout and self.virtual_time else None
        try:
            with anyio.CancelScope() as request.scope, scope(seconds):
                await self.ask(request)
        except TimeoutError:
            assert start.raises
        except Exception:
            pass  # it is the outcome
        except anyio.get_cancelled_exc_class():
            if request.cancelled != "natively":
                raise
        finally:
            self.callers -= 1

    async def ask(self, request: Request) -> None:
        self.requests.append(request)
        request.met = {key: self.table[key] for key in request.items if key in self.table}
        request.oldest = dict(self.forgotten)
        try:
            request.outcome = await self.proxies[request.proxy].map(
                request.items,
                self.map_func(request),
                return_exceptions=request.start.return_exceptions,
            )
        except Exception as error:
            request.outcome = error
            raise
        except BaseException:
            request.outcome = "cancelled"
            raise

    def map_func(self, request: Request) -> Callable[[list[int]], Awaitable[Any]]:
        async def fetch(items: list[int]) -> Any:
            call = self.begin(request, items)
            try:
                if self.open:
                    call.gate.set()
                await self.nest(call)
                await call.gate.wait()
                if call.how == "exception":
                    raise Boom(items)
                if call.how == "refused":
                    raise SplitBatch(items)
            except SplitBatch as error:
                self.refuse(call, error)
                raise
            except Exception as error:
                self.end(call, "failed", dict.fromkeys(items, error))
                raise
            except BaseException:
                self.end(call, "given up", {})
                raise
            answer: dict[int, Any] = {key: Value(key, call.born) for key in items}
            if call.how == "failed item":
                answer[items[-1]] = Boom(items[-1])
            self.end(call, "completed", answer)
            return answer if call.how == "mapping" else list(answer.values())

        return fetch

    async def nest(self, call: Call) -> None:
        request = call.request
        if request.depth < len(request.start.nested):
            wanted = request.start.nested[request.depth]
            try:
                await self.ask(
                    Request(request.start, wanted, request.proxy, call, request.depth + 1)
                )
            except (Boom, SplitBatch, CircularWaitError):
                if request.start.minds:
                    raise

    # What must be true.

    def begin(self, request: Request, items: list[int]) -> Call:
        try:
            self.check_begin(request, items)
        except AssertionError as error:
            self.wrong = error
            raise
        self.now += 1
        if (batch := self.split_of(request, items)) is not None:
            batch.between = False
            batch.ahead.pop()
        else:
            batch = Batch(request, [])
            self.table |= dict.fromkeys(items, batch)
        call = Call(request, batch, items, self.now)
        self.calls.append(call)
        return call

    def split_of(self, request: Request, items: list[int]) -> Batch | None:
        """The batch that these are the next half of."""
        for batch in self.between():
            if batch.request is request and batch.ahead[-1] == items:
                return batch
        return None

    def between(self) -> list[Batch]:
        return [batch for batch in {call.batch: None for call in self.calls} if batch.between]

    def end(self, call: Call, state: str, outcomes: Mapping[int, Value | Exception]) -> None:
        batch = call.batch
        call.state = state
        call.outcomes = dict(outcomes)
        batch.outcomes |= outcomes
        for key in {*call.keys, *outcomes}:
            if self.table.get(key) is batch:  # not forgotten since
                del self.table[key]
                if isinstance(outcome := outcomes.get(key), Value):
                    self.known[key] = outcome
        ends_all = not call.request.start.return_exceptions
        failed = state == "given up" or (
            bool(failures(call)) and call.how != "refused" and ends_all
        )
        if failed or not batch.ahead:
            self.leave(batch)
            call.request.over |= batch.failing and ends_all
        else:
            batch.between = True

    def refuse(self, call: Call, error: SplitBatch) -> None:
        """Its halves are called next; but an item that was refused alone fails."""
        call.how, batch = "refused", call.batch
        if len(call.keys) > 1:
            half = len(call.keys) // 2
            batch.ahead += [call.keys[half:], call.keys[:half]]
            call.state, batch.between = "failed", True
            return
        batch.alone += 1
        failed = [*call.keys]
        if batch.alone == 3 and not any(isinstance(end, Value) for end in batch.outcomes.values()):
            while batch.ahead:
                failed += batch.ahead.pop()
        self.end(call, "failed", dict.fromkeys(failed, error))

    def leave(self, batch: Batch) -> None:
        """Nothing more of it is called, and what is left of it is free."""
        batch.between, batch.over = False, True
        batch.ahead = []
        for key in [key for key, other in self.table.items() if other is batch]:
            del self.table[key]

    def running(self, proxy: int | None = None) -> list[Call]:
        return [
            call
            for call in self.calls
            if call.state == "running" and proxy in (None, call.request.proxy)
        ]

    def check_begin(self, request: Request, items: list[int]) -> None:
        """A call may begin: its keys are free and unknown, and so is one of the slots."""
        keys = set(items)
        size, concurrency, max_weight = self.program.options[request.proxy]
        assert 0 < len(items) == len(keys) <= (size or len(KEYS))
        assert max_weight is None or len(items) == 1 or sum(items) <= max_weight
        assert keys <= set(request.items)
        if self.split_of(request, items) is None:
            self.see_who_left(keys)
            assert not keys & self.table.keys(), "a key is computed twice at once"
            assert not any(key in self.cache for key in keys), "a known key is computed"
        beside = [
            call for call in self.running(request.proxy) if call.request.parent is request.parent
        ]
        # A nested call runs in the slot of its parent; there is only that one.
        assert len(beside) < (concurrency if request.parent is None else 1), (
            "there is no slot for this"
        )
        assert not request.over, "its map() is over"
        assert not request.met_itself(), "it waits for itself"
        if not request.start.return_exceptions:
            failed = [
                key
                for key, batch in request.met.items()
                if isinstance(batch.outcomes.get(key), Exception)
            ]
            assert not failed, "it met a call that has failed"

    def check(self) -> None:
        """At any moment: what is in flight and what is cached is what the model says."""
        if self.wrong is not None:
            raise self.wrong
        in_flight = look(self.cache).in_flight
        self.see_who_left(self.table.keys() - in_flight)
        assert in_flight == self.table.keys()
        known = {key for key in KEYS if key in self.cache}
        if self.program.max_size is None:
            assert known == self.known.keys()
            # What is known needs no call, and no other thread.
            values = self.reader.map(known, refuse)
            assert values == [self.known[key] for key in known]
        else:
            assert len(known) <= self.program.max_size
            assert known <= self.known.keys()
        for request in self.requests:
            if request.outcome is not None and not request.verified:
                self.check_outcome(request)
                request.verified = True

    def see_who_left(self, free: Collection[int]) -> None:
        """A map() may end between two halves: then no function of its learns of it."""
        for batch in self.between():
            ended = batch.request.outcome is not None
            if ended or any(self.table.get(key) is batch for key in free):
                self.leave(batch)

    def check_statistics(self) -> None:
        """What is counted is what has happened."""
        self.check()
        for number, proxy in enumerate(self.proxies):
            now = proxy.statistics()
            calls = [call for call in self.calls if call.request.proxy == number]
            states = [call.state for call in calls]
            assert now.calls == len(calls)
            assert now.running == states.count("running")
            assert now.completed == states.count("completed")
            assert now.failed == states.count("failed")
            assert now.cancelled == states.count("given up")
            assert now.computed == sum(len(call.outcomes) - len(failures(call)) for call in calls)
            returned = [
                request for request in self.requests if request.proxy == number and request.returned
            ]
            assert now.maps == len(returned)
            assert now.items == sum(len(request.items) for request in returned)
            assert now.in_flight == len(self.table)

    def check_outcome(self, request: Request) -> None:
        """What a map() gave or raised is what the calls that it made or met have given."""
        outcome = request.outcome
        if isinstance(outcome, list):
            assert request.cancelled != "natively", "a cancellation was swallowed"
            assert len(outcome) == len(request.items)
            assert not request.over
            answers = dict(zip(request.items, outcome))
            for key, answer in zip(request.items, outcome):
                assert answer is answers[key]
                if isinstance(answer, Value):
                    assert answer.key == key
                    assert answer.born >= request.oldest[key], "a value that was forgotten"
                else:
                    assert request.start.return_exceptions
                    assert any(answer is failures(call).get(key) for call in self.calls)
            for key, batch in request.met.items():
                if (end := batch.outcomes.get(key)) is not None:
                    assert answers[key] is end or answers[key] == end
                else:
                    assert batch.over
        elif outcome == "cancelled":
            assert self.may_be_cancelled(request)
        elif request.parent is None or not isinstance(outcome, CircularWaitError):
            assert request.cancelled != "natively", "a cancellation was swallowed"
            assert not request.start.return_exceptions
            assert any(
                outcome is failures(call).get(key) for call in self.calls for key in request.items
            )

    def may_be_cancelled(self, request: Request) -> bool:
        if request.parent is None:
            return bool(request.cancelled) or request.start.timeout is not None
        # As the one around it may, or by a failure that has ended that one.
        outer = request.parent.request
        failed = any(key in failures(call) for call in self.calls for key in outer.items)
        return (failed and not outer.start.return_exceptions) or self.may_be_cancelled(outer)

    def check_settled(self) -> None:
        """When nothing moves: who should have left has left, and the others wait for something."""
        assert not self.between(), "the other half is not called"
        for number, proxy in enumerate(self.proxies):
            top = [call for call in self.running(number) if call.request.parent is None]
            assert look(proxy).slots == len(top), "a slot is lost"
        inside = look(*self.proxies)
        under_way = [request for request in self.requests if request.outcome is None]
        for request in under_way:
            assert not request.cancelled, "it was cancelled, and has not left"
            assert not request.over, "a call of it has failed, and it goes on"
        calling = {call.request for call in self.running()}
        idle = sum(request not in calling for request in under_way)
        # One map() may queue for several slots, while it makes calls too. Nobody waits for a call
        # that has ended, or for nothing.
        assert inside.waiting <= idle <= inside.waiting + inside.queueing


def refuse(items: list[int]) -> Any:
    raise AssertionError(f"{items} were known")


def failures(call: Call) -> dict[int, Exception]:
    return {key: end for key, end in call.outcomes.items() if isinstance(end, Exception)}


@pytest.mark.parametrize("backend", ["shuffled", *BACKENDS])
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(program=programs, seed=st.random_module())
def test_random_programs_agree_with_the_model(backend: str, program: Program, seed: object) -> None:
    """Whatever happens in whichever order: proxy and model agree at every step."""
    anyio.run(
        Model(program, backend).main,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options=backend_options(backend, debug=False),  # which takes as long as all else
    )
