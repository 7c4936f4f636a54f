"""What a proxy is made of, and what a map() is before it has to wait, and afterwards.

Both proxies run this. What differs between them, how a ``map_func`` is called, is handed in as a
`Caller`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, MutableMapping
from typing import Any, NoReturn

from .._cache import Cache
from .._core import weights
from .._core.counters import Counters, Statistics
from .._core.flights import Flight
from .._core.keys import check_hashable, given, listed
from .._core.plan import PIECE, Plan
from .._core.progress import Progress, Reporting
from .._core.sizes import Size
from .._core.window import Portion, Window
from .._errors import ClosedError
from .._forks import Alive
from .._loops import is_async
from .._messages import short
from .._slots import Limit, check_positive
from .caller import Caller
from .callers import InStream
from .feed import Feed
from .run import Options, Run
from .stream import Flow, Steps


class Engine:
    """What a proxy is made of: its options, its cache, its limit and its counters."""

    def __init__(
        self,
        batch_size: int | None,
        max_concurrency: int | None,
        limit: Limit | None,
        key: Callable[[Any], Hashable] | None,
        cache: Cache[Any] | MutableMapping[Any, Any] | None,
        weight: Callable[[Any], float] | None,
        max_weight: float | None,
    ) -> None:
        _check_integer("batch_size", batch_size, "an integer, or None for one call per map()")
        if max_concurrency is not None:
            check_positive("max_concurrency", max_concurrency)
        if limit is None:
            limit = None if max_concurrency is None else Limit(max_concurrency)
        elif not isinstance(limit, Limit):
            raise TypeError(f"limit must be a batchproxy.Limit, as in Limit(8), got {short(limit)}")
        elif max_concurrency is not None:
            raise ValueError(
                "limit= takes the place of max_concurrency=: give one of the two; a Limit has the "
                "number of calls at a time"
            )
        if key is not None and (not callable(key) or is_async(key)):
            raise TypeError(f"key must be a plain function from item to key, got {short(key)}")
        weights.check(weight, max_weight)
        if cache is None:
            cache = Cache()
        elif isinstance(cache, MutableMapping):
            cache = Cache._over(cache)
        elif not isinstance(cache, Cache):
            raise TypeError(f"cache must be a Cache or a mutable mapping, got {short(cache)}")
        # By which it travels; the limit that was made here is none that others have.
        given = None if max_concurrency is not None else limit
        self.recipe = (batch_size, max_concurrency, given, key, cache, weight, max_weight)
        self.batch_size = batch_size
        self.limit = limit
        self.cache = cache
        self.closed = False
        self._table = cache._table
        self.key = key
        self._weight = weight
        self.max_weight = math.inf if max_weight is None else max_weight
        self._counters = Counters[Flight]()
        self.loads = Alive[Any]()  # of the functions that are bound to it
        size = sys.maxsize if batch_size is None or batch_size < 1 else batch_size
        self.options = Options(Size(size), limit.total if limit else 1, limit, self._counters)

    @property
    def max_concurrency(self) -> int | None:
        """The most calls at a time in one event loop; None for one after another."""
        return None if self.limit is None else self.limit.total

    def __repr__(self) -> str:
        return (
            f"batch_size={self.batch_size} max_concurrency={self.max_concurrency}"
            f"{' closed' * self.closed} cache={self.cache!r}"
        )

    def statistics(self) -> Statistics:
        """What the proxy has done so far."""
        return self._table.statistics(self._counters)

    def begin(
        self,
        items: Iterable[Any],
        map_func: object,
        *,
        keep_failures: bool,
        reporting: Reporting | None,
        in_steps: bool = False,  # whether a long list may be left to `prepare`
    ) -> list[Any] | Plan:
        """The answers if the cache has them all, else the plan that `run` is to carry out.

        Raises:
            ClosedError: the proxy is closed.
            TypeError: `items` is no iterable, an item (or its key) is not hashable, or there is
                something to compute and `map_func` cannot be called, or a weight is no number.
            ValueError: a weight is negative, or NaN.
        """
        if self.closed:
            raise closed("map")
        items = listed(items)
        keys = items if self.key is None else given("key", self.key, items)
        try:
            if (answers := self._table.lookup(keys)) is not None:
                if reporting is not None:
                    total = len(set(keys))
                    reporting(Progress(total, total, total, 0, 0, 0))
                    reporting.end()
                return answers
            plan = Plan(items, keys, keep_failures, in_steps and len(keys) > PIECE)
        except TypeError:
            check_hashable(keys, has_key=self.key is not None)
            raise
        if not callable(map_func):
            raise _uncallable("map", map_func)
        if self._weight is not None and not plan.in_steps:
            plan.weigh(self._weight, self.max_weight)
        return plan

    def prepare(self, plan: Plan) -> Iterator[None]:
        """Do what `begin` has left, and raise as that, in steps between which others have turns."""
        try:
            yield from plan.tell_apart()
        except TypeError:
            check_hashable(plan.keys, has_key=self.key is not None)
            raise
        if self._weight is not None:
            plan.weigh(self._weight, self.max_weight)

    def weigh(self, item: Any) -> float:
        """What `item` weighs; 0 without a limit of that.

        Raises:
            TypeError: its weight is no number.
            ValueError: it is negative, or NaN.
        """
        if self._weight is None:
            return 0
        return weights.checked(item, given("weight", self._weight, [item])[0])

    def run(self, plan: Plan, caller: Caller) -> Awaitable[None]:
        """Carry out `plan`. A failure that ends it is left in ``plan.failure``, not raised.

        Raises:
            CircularWaitError: this ``map()`` would wait for itself.
        """
        claims = self.cache._claims(caller.home, caller.loop)
        return Run(plan, caller, claims, self.options).carry_out()

    def open(
        self,
        source: object,
        map_func: object,
        window: int,
        *,
        ordered: bool,
        keep_failures: bool,
        may_be_async: bool,
    ) -> tuple[Feed, Window]:
        """What a stream reads from, and its plan.

        Raises:
            ClosedError: the proxy is closed.
            TypeError: `source` is no iterable, `map_func` cannot be called, or `window` is no
                integer.
            ValueError: `window` is less than 1.
        """
        if self.closed:
            raise closed("stream")
        check_positive("window", window)
        if not callable(map_func):
            raise _uncallable("stream", map_func)
        check = None if self.cache._backing is None else self.cache._check
        return Feed(source, self.key, self._weight, check, may_be_async=may_be_async), Window(
            window,
            self.options.size,
            None if self._weight is None else self.max_weight,
            ordered=ordered,
            keyed=self.key is not None,
            keep_failures=keep_failures,
        )

    def flow(self, window: Window, caller: InStream, feed: Feed) -> Flow:
        """A stream that goes on by itself in the event loop of `caller`."""
        claims = self.cache._claims(caller.home, caller.loop)
        return Flow(window, caller, claims, self.options, feed)

    def look(self, portion: Portion) -> bool:
        """Look up in memory what a stream has read; whether there is more to look at."""
        self._table.open(portion)
        return portion.left > 0 and self.cache._backing is not None

    def step(self, window: Window, caller: Caller, portion: Portion | None) -> Awaitable[None]:
        """Take a step in the stream of `window`, as `Steps.step`."""
        claims = self.cache._claims(caller.home, caller.loop)
        return Steps(window, caller, claims, self.options).step(portion)

    def end(self, window: Window, feed: Feed) -> None:
        """A stream has given all that there was; if a failure ended it, that is raised, once.

        Raises:
            BaseException: that failure, as the object that a call, or the source, raised.
        """
        over, window.over = window.over, True
        if over:
            if window.failure is not None:
                self.fail(window)
            return
        window.failure = None  # one that was kept has been given in its place
        feed.raise_error()
        self.count(0)

    def count_given(self, window: Window, items: int) -> None:
        """Count what a stream gives."""
        if items:
            self.count(items, *window.uncounted(), maps=0)

    def finish(self, plan: Plan) -> list[Any]:
        """The answers of `plan`, which `run` has carried out.

        Raises:
            BaseException: what ended it, as the object that the failing call raised.
        """
        if plan.over:
            self.fail(plan)
        self.count(len(plan.keys), plan.shared, plan.stored)
        answers = plan.deliver()
        if plan.failure is not None:
            plan.forget()
        return answers

    def fail(self, plan: Plan) -> NoReturn:
        """Raise what ended `plan`, as the object that the failing call raised."""
        failure = plan.failure
        assert failure is not None
        plan.annotate(failure.error)
        plan.forget()
        try:
            raise failure.error.with_traceback(failure.traceback)
        finally:
            failure.restore()
            del failure  # this frame is in the traceback now: a cycle

    def count(self, items: int, shared: int = 0, stored: int = 0, maps: int = 1) -> None:
        """Count a ``map()`` that returns its list, or what a stream has given."""
        returned = self._counters.returned
        returned.append((maps, items, shared, stored))
        if len(returned) > 1000:
            self._table.add_up(self._counters)


def closed(method: str) -> ClosedError:
    """The error for a `method` of a proxy that is closed."""
    return ClosedError(f"{method}() on a closed proxy; make a new one (they may share a Cache)")


def _uncallable(method: str, map_func: object) -> TypeError:
    return TypeError(
        f"{method}() takes a function from a list of items to their results as its second "
        f"argument, got {short(map_func)}"
    )


def _check_integer(name: str, value: object, expected: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be {expected}, got {short(value)}")
