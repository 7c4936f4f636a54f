"""The one room that decides what is awaited: claim → call under a slot → settle → deliver.

Both proxies run this. What differs between them, how a ``map_func`` is called, is handed in as a
`Caller`. All state is in `Plan`, `Flight` and `Table`, changed by plain methods; whatever happens
at an ``await``, the ``finally`` of the call releases its keys and its slot without awaiting.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from . import _rings
from ._cache import Cache
from ._caller import Caller
from ._errors import ClosedError
from ._flights import Flight
from ._loops import is_being_cancelled, is_cancellation, post
from ._messages import short
from ._plan import Failure, Plan, check_answer, check_hashable, failures_in, listed
from ._progress import Progress, Reporting
from ._slots import Slots
from ._statistics import Statistics
from ._stored import WINDOW, Stored, pause


class Engine:
    """What a proxy is made of: its options, its cache, its slots and its counters."""

    def __init__(
        self,
        batch_size: int | None,
        max_concurrency: int | None,
        key: Callable[[Any], Hashable] | None,
        cache: Cache[Any] | MutableMapping[Any, Any] | None,
    ) -> None:
        _check_integer("batch_size", batch_size, "an integer, or None for one call per map()")
        if max_concurrency is not None:
            _check_integer("max_concurrency", max_concurrency, "an integer of 1 or more")
            if max_concurrency < 1:
                raise ValueError(f"max_concurrency must be 1 or more, got {short(max_concurrency)}")
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function from item to key, got {short(key)}")
        if cache is None:
            cache = Cache()
        elif isinstance(cache, MutableMapping):
            cache = Cache._over(cache)
        elif not isinstance(cache, Cache):
            raise TypeError(f"cache must be a Cache or a mutable mapping, got {short(cache)}")
        self.batch_size = batch_size
        self._size = sys.maxsize if batch_size is None or batch_size < 1 else batch_size
        self.max_concurrency = max_concurrency
        self._most_tasks = max_concurrency or 1
        self.cache = cache
        self.closed = False
        self._table = cache._table
        self._key = key
        self._slots = None if max_concurrency is None else Slots(max_concurrency)
        durable = cache._durable
        self._stored = None if durable is None else Stored(self._table, durable)
        # Counted under the lock of the cache; a call is in `_running` until it is released, so that
        # those cancelled need no count of their own.
        self._running: set[Flight] = set()
        self._calls = self._completed = self._failed = self._computed = 0
        # Items, and keys shared and stored, to be added up here:
        self._returned: list[tuple[int, int, int]] = []
        self._maps = self._items = self._shared = self._from_store = 0

    def __repr__(self) -> str:
        return (
            f"batch_size={self.batch_size} max_concurrency={self.max_concurrency}"
            f"{' closed' * self.closed} cache={self.cache!r}"
        )

    def statistics(self) -> Statistics:
        table = self._table
        with table.flights.lock:
            self._add_up()
            calls = self._calls
            # A copy, since flights leave without the lock. After a fork none is under way.
            running = sum(not flight.done for flight in self._running.copy())
            return Statistics(
                maps=self._maps,
                items=self._items,
                calls=calls,
                completed=self._completed,
                failed=self._failed,
                cancelled=calls - running - self._completed - self._failed,
                running=running,
                computed=self._computed,
                shared=self._shared,
                stored=self._from_store,
                in_flight=len(table.flights),
                waiting=table.flights.waiting(),
                cached=len(table),
            )

    def begin(
        self,
        items: Iterable[Any],
        map_func: object,
        *,
        keep_failures: bool,
        reporting: Reporting | None,
    ) -> list[Any] | Plan:
        """The answers if the cache has them all, else the plan that `run` is to carry out.

        Raises:
            ClosedError: the proxy is closed.
            TypeError: `items` is no iterable, an item (or its key) is not hashable, or there is
                something to compute and `map_func` cannot be called.
        """
        if self.closed:
            raise ClosedError("map() on a closed proxy; make a new one (they may share a Cache)")
        items = listed(items)
        keys = items if self._key is None else list(map(self._key, items))
        try:
            answers = self._table.lookup(keys)
            if answers is not None:
                if reporting is not None:
                    total = len(set(keys))
                    reporting(Progress(total, total, total, 0, 0, 0))
                    reporting.end()
                return answers
            plan = Plan(items, keys, keep_failures=keep_failures)
        except TypeError:
            check_hashable(keys, has_key=self._key is not None)
            raise
        if not callable(map_func):
            raise TypeError(
                "map() takes a function from a list of items to their results as its second "
                f"argument, got {short(map_func)}"
            )
        return plan

    async def run(self, plan: Plan, caller: Caller) -> None:
        """Carry out `plan`. A failure that ends it is left in ``plan.failure``, not raised.

        Raises:
            CircularWaitError: this ``map()`` would wait for itself.
        """
        try:
            self._table.open(plan)
            if plan.awaited:
                _rings.check(caller.blocked, plan.awaited)
            elif not plan.left:  # somebody was quicker
                await checkpoint()  # the only one here
            if self._stored is not None:
                plan.asking = self._stored.asking()
                await self._read(plan, caller)
            while not plan.over:
                caller.tell(plan)
                if plan.left > self._size and self._most_tasks > 1:
                    await self._call_in_tasks(plan, caller)
                else:
                    await self._call_batches(plan, caller)
                caller.tell(plan)
                held = plan.asking is not None and plan.asking.held
                if plan.over or not (plan.awaited or held):
                    break
                await self._sleep(plan, caller)
                plan.take_awaited()
                if held and not plan.over:
                    await self._read_held(plan, caller)
        except BaseException:
            plan.forget()
            raise
        finally:
            # Empty, unless Ctrl-C cut a release short: trio raises it anywhere in the main thread,
            # asyncio does the second time. That one is on its way out; no other may stop us.
            while plan.running:
                with suppress(KeyboardInterrupt):
                    self._release(plan, next(iter(plan.running)), caller)
            caller.blocked.clear()  # as `Plan.forget`

    async def _call_in_tasks(self, plan: Plan, caller: Caller) -> None:
        """`_call_batches` in no more tasks than there are batches."""
        tasks = min(math.ceil(plan.left / self._size), self._most_tasks)
        ended_by: list[BaseException] = []

        async def child() -> None:
            # A task group would wrap an exception, drop (on asyncio) a CancelledError that the
            # user's function raised, and leave a cancellation in a cycle with one of its frames;
            # and KeyboardInterrupt would leave the loop right from here. So it is noted here, and
            # raised bare below.
            try:
                await self._call_batches(plan, caller)
            except GeneratorExit:  # pragma: no cover - of a loop that was torn down
                raise
            except BaseException as error:
                if not (is_cancellation(error) and group.cancel_scope.cancel_called):
                    ended_by.append(error)
            if ended_by or (plan.over and caller.interruptible):
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                for _ in range(tasks):
                    group.start_soon(child)
            if group.cancel_scope.cancel_called:
                # On trio a host is cancelled by what its children let out, and these do not.
                await checkpoint_if_cancelled()
        except BaseExceptionGroup as group_error:  # how trio delivers an interrupt
            ended_by.extend(group_error.exceptions)
        except BaseException as host_error:
            ended_by.append(host_error)
        if not ended_by and not plan.over and group.cancel_scope.cancel_called:
            # On asyncio a child may be cancelled before its first step, and then notes nothing.
            ended_by.append(anyio.get_cancelled_exc_class()())
        if ended_by:
            error = min(ended_by, key=_gravity)
            ended_by.clear()
            try:
                raise error
            finally:
                del error  # this frame is in its traceback now: a cycle

    async def _call_batches(self, plan: Plan, caller: Caller) -> None:
        """Claim and call until nothing is left to compute, or a failure ends it."""
        table = self._table
        while (plan.left or (plan.asking is not None and plan.asking.flight)) and not plan.over:
            await checkpoint()
            flight, outcome = Flight(caller.home), None
            plan.running.add(flight)
            try:
                if self._slots is not None:
                    flight.slot = self._slots.slot(caller.loop, caller.around())
                    try:
                        flight.slot.acquire_nowait()
                    except anyio.WouldBlock:
                        # What others compute by now is not worth waiting for a slot; and who meets
                        # a call under way shares its failure instead of repeating it.
                        if plan.left and not table.look(plan, self._size):
                            break
                        await flight.slot.acquire()
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    continue
                if self._stored is None:
                    if not self._claim(plan, flight):
                        continue
                elif not await self._claim_stored(plan, flight, caller):
                    continue
                if caller.blocked:
                    _rings.block(flight, caller.blocked, (flight,))
                try:
                    outcome = await caller.call(flight, plan.items_of(flight.keys))
                except Exception as error:
                    outcome = Failure(error, error.__traceback__)
                    if _in_clean_up(error):
                        # To its own map() a failure; to those who wait, a call that was given up.
                        self._fail(plan, flight, outcome)
                        continue
                if self._accept(plan, flight, outcome):
                    if self._stored is None:
                        self._keep(flight)
                    else:
                        await self._stored.publish(plan, flight, caller.loop, self._keep)
                    plan.take(flight, flight.results)
                    if flight.failures:
                        plan.fail(next(iter(flight.failures.values())))
            finally:
                self._release(plan, flight, caller)
                del flight, outcome  # as `Plan.forget`
            caller.tell(plan)

    def _claim(self, plan: Plan, flight: Flight) -> bool:
        with self._table.flights.lock:
            if not self._table.claim(plan, self._size, flight):
                return False
            plan.claim(flight)
            self._begin_call(flight)
            return True

    async def _claim_stored(self, plan: Plan, flight: Flight, caller: Caller) -> bool:
        assert self._stored is not None
        claimed = await self._stored.claim(plan, flight, self._size, caller.loop)
        if isinstance(claimed, Failure):
            plan.fail(claimed)  # not raised here: calls that cannot be cancelled shall end
            return False
        if claimed:
            with self._table.flights.lock:
                self._begin_call(flight)
        return claimed

    def _begin_call(self, flight: Flight) -> None:
        """Count a call. *Locked.*"""
        self._calls += 1
        self._running.add(flight)

    def _accept(self, plan: Plan, flight: Flight, outcome: Any) -> bool:
        """Put the outcome of a call into its flight; False, and into `plan`, if it failed.

        A call that ended with a `BaseException` that is no `Exception` counts as given up.
        """
        if not isinstance(outcome, Failure):
            try:
                results = check_answer(outcome, flight.keys, plan.items_of)
                flight.failures = failures_in(flight.keys, results)
                flight.results = results
                return True
            except Exception as error:
                outcome = Failure(error, error.__traceback__)
        if isinstance(outcome.error, Exception):
            flight.failures = dict.fromkeys(flight.keys, outcome)
            with self._table.flights.lock:
                self._running.discard(flight)
                self._failed += 1
        self._fail(plan, flight, outcome)
        del flight, outcome  # as `Plan.forget`
        return False

    def _keep(self, flight: Flight) -> None:
        """Put the results of a call into the cache, and release its keys. From any thread."""
        with self._table.flights.lock:
            self._table.settle(flight)
            self._running.discard(flight)
            self._completed += 1
            self._computed += len(flight.results) - len(flight.failures)

    def _fail(self, plan: Plan, flight: Flight, failure: Failure) -> None:
        plan.take(flight, [failure.error] * len(flight.keys))
        plan.fail(failure)

    def _release(self, plan: Plan, flight: Flight, caller: Caller) -> None:
        """Release the keys and the slot of a call, whatever became of it; twice is fine."""
        self._table.flights.end(flight)
        if caller.blocked:
            _rings.unblock(flight, caller.blocked)
        if flight.slot is not None:
            flight.slot.release(flight.slot)
        self._running.discard(flight)
        plan.running.discard(flight)

    async def _read(self, plan: Plan, caller: Caller) -> None:
        """Ask the store for all that `plan` is to compute. Takes no slot."""
        assert self._stored is not None
        missing: list[Hashable] = []
        while plan.left:
            flight = Flight(caller.home)
            plan.running.add(flight)
            try:
                with self._table.flights.lock:
                    if not self._table.claim(plan, WINDOW, flight):
                        break
                unknown = await self._stored.read(plan, flight, caller.loop)
            finally:
                self._release(plan, flight, caller)
            if isinstance(unknown, Failure):
                plan.fail(unknown)
                return
            missing += unknown
            caller.tell(plan)
        plan.start(plan.distinct if len(missing) == len(plan.distinct) else missing)

    async def _read_held(self, plan: Plan, caller: Caller) -> None:
        """Look whether other processes have ended their calls; what is left is to be computed."""
        asking = plan.asking
        assert asking is not None
        held, asking.held = asking.held, []
        plan.again(held)
        before = plan.left
        await self._read(plan, caller)
        asking.polls = 0 if plan.left < before else asking.polls + 1

    async def _sleep(self, plan: Plan, caller: Caller) -> None:
        """Wait until one of the calls that `plan` awaits has ended.

        If other processes are computing some of it, then at most until they are to be asked again.
        """
        flights = tuple(plan.awaited)
        awaited: Mapping[Flight, Collection[Hashable]] = plan.awaited
        if plan.asking is not None and plan.asking.held and caller.blocked:
            assert self._stored is not None
            # Who computes them may be another cache of this process, and wait for this map().
            awaited = {**self._stored.elsewhere(plan.asking), **awaited}
        event = anyio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # that loop is closed: nobody sleeps there any more
                post(caller.loop, event.set)

        try:
            _rings.block_checked(wake, caller.blocked, awaited)
            if self._table.flights.join(flights, wake):
                if plan.asking is not None and plan.asking.held:
                    with anyio.move_on_after(pause(plan.asking.polls)):
                        await event.wait()
                else:
                    await event.wait()
            else:  # somebody was quicker
                await checkpoint()
        finally:
            self._table.flights.leave(flights, wake)
            _rings.unblock(wake, caller.blocked)
            del flights  # as `Plan.forget`

    def finish(self, plan: Plan) -> list[Any]:
        """The answers of `plan`, which `run` has carried out.

        Raises:
            BaseException: what ended it, as the object that the failing call raised.
        """
        if plan.over:
            assert plan.failure is not None
            error, traceback = plan.failure
            plan.annotate(error)
            plan.forget()
            try:
                raise error.with_traceback(traceback)
            finally:
                del error, traceback  # this frame is in the traceback now: a cycle
        self.count(len(plan.keys), plan.shared, plan.stored)
        answers = plan.deliver()
        if plan.failure is not None:
            plan.forget()
        return answers

    def count(self, items: int, shared: int = 0, stored: int = 0) -> None:
        """Count a ``map()`` that returns its list."""
        # Appending is atomic; to take the lock would cost a quarter of what a hit costs.
        self._returned.append((items, shared, stored))
        if len(self._returned) > 1000:
            with self._table.flights.lock:
                self._add_up()

    def _add_up(self) -> None:
        while self._returned:
            items, shared, stored = self._returned.pop()
            self._maps += 1
            self._items += items
            self._shared += shared
            self._from_store += stored


def unpicklable(proxy: object) -> TypeError:
    """The error for a `proxy`, or a method of it, that is to be pickled or copied."""
    return TypeError(
        f"a {type(proxy).__qualname__}, or a method of one, cannot be pickled or copied: it has "
        "the calls under way, which belong to this process. Make the proxy in each process, for "
        "instance at the top of a module; to share results between them, give it a Cache with a "
        "store"
    )


def _in_clean_up(error: BaseException) -> bool:
    """Whether `error` was raised instead of letting through a cancellation from outside."""
    if not is_being_cancelled():
        return False
    seen: set[int] = set()  # chains of contexts can be circular
    context = error.__context__
    while context is not None and id(context) not in seen:
        if is_cancellation(context):
            return True
        seen.add(id(context))
        context = context.__context__
    return False


def _gravity(error: BaseException) -> int:
    """Which of several exceptions is raised: interrupts come first, then cancellations."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return 0
    return 2 if isinstance(error, Exception) else 1


def _check_integer(name: str, value: object, expected: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be {expected}, got {short(value)}")
