"""The function behind its proxy, called from the main thread, which alone sees Ctrl-C."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from anyio import current_effective_deadline

from .. import AnswerValueError, BatchingMapProxy, Cache, Progress, SplitBatch, Statistics, Stream
from .._loops import is_async
from ._answers import listed
from ._keys import key_of
from ._results import Results
from ._weights import BY_COUNT, Weighing

ASYNC_CONCURRENCY = 8

_MEANT = (Exception, KeyboardInterrupt, SystemExit)
"""What goes on into the map(): the last two end it, by the will of who raised them."""


class Ended(Exception):
    """The function raised, or answered with, what is no `Exception`: that is its ``__cause__``.

    A `CancelledError` of a client library, say. To a map() that would be the end; here it is the
    failure of some rows.
    """


class Calls:
    """Maps items through `function`, synchronous or not.

    Args:
        function: From a list of items to their results.
        cache: Where these are kept, ...
        results: ... and how.
        batch_size: Items in a call.
        max_concurrency: The most calls at a time; None for what is right for the function.
        backend: The kind of event loop.
        weighing: What limits batches beside their size.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        cache: Cache[Any],
        results: Results,
        batch_size: int,
        max_concurrency: int | None,
        backend: Literal["asyncio", "trio"],
        weighing: Weighing = BY_COUNT,
    ) -> None:
        self._function = function
        self._results = results
        self._map_func = self._call
        if is_async(function):
            self._map_func, max_concurrency = self._call_async, max_concurrency or ASYNC_CONCURRENCY
        self._proxy = BatchingMapProxy[Any, Any](
            batch_size,
            max_concurrency,
            key=key_of,
            cache=cache,
            backend=backend,
            **weighing._asdict(),
        )
        self.statistics: Callable[[], Statistics] = self._proxy.statistics
        """What has been done so far."""
        # What may end the stream under way, by identity, with the items that failed.
        self._blame: dict[int, tuple[BaseException, list[Any]]] = {}
        self._keep_failures = False

    def stream(
        self,
        items: Iterable[Any],
        window: int,
        *,
        keep_failures: bool,
        progress: Callable[[Progress], object],
    ) -> Stream[Any, Any]:
        """The results of `items`, as of ``proxy.stream()``."""
        self._blame, self._keep_failures = {}, keep_failures
        return self._proxy.stream(
            items,
            self._map_func,
            window=window,
            return_exceptions=keep_failures,
            progress=progress,
        )

    def items_of(self, error: BaseException) -> list[Any]:
        """Those that the call, or the item, that failed with `error` had; none if it is unknown."""
        return self._blame.get(id(error), (error, []))[1]

    def _call(self, items: list[Any]) -> Any:
        try:
            answer = self._function(items)
            if not inspect.isawaitable(answer):
                return self._listed(answer, items)
        except _MEANT as error:
            self._note(error, items)
            raise
        except BaseException as error:
            raise self._ended(items) from error
        return self._wait(answer, items)

    async def _call_async(self, items: list[Any]) -> Any:
        answer = self._call(items)
        return await answer if inspect.isawaitable(answer) else answer

    async def _wait(self, answer: Awaitable[Any], items: list[Any]) -> list[Any]:
        try:
            return self._listed(await answer, items)
        except _MEANT as error:
            self._note(error, items)
            raise
        except BaseException as error:
            if _from_outside(error):
                raise
            raise self._ended(items) from error

    def _listed(self, answer: Any, items: list[Any]) -> list[Any]:
        """A mapping is by item, and not by what `key_of` gives."""
        results = listed(answer, items)
        return [self._kept(result, item) for result, item in zip(results, items)]

    def _kept(self, result: Any, item: Any) -> Any:
        if not isinstance(result, BaseException):
            try:
                return self._results.kept(result)
            except (TypeError, AnswerValueError) as error:
                result = error
        elif not isinstance(result, Exception):
            ended = self._ended([item])
            ended.__cause__ = result
            return ended
        self._note(result, [item])
        return result

    def _ended(self, items: list[Any]) -> Ended:
        ended = Ended()
        self._note(ended, items)
        return ended

    def _note(self, error: BaseException, items: list[Any]) -> None:
        if isinstance(error, SplitBatch):  # which ends nothing, or its cause does
            if len(items) > 1:
                return
            error = error.__cause__ or error
        if not (self._keep_failures and isinstance(error, Exception)):
            self._blame.setdefault(id(error), (error, items))


def _from_outside(error: BaseException) -> bool:
    """Whether it is the task that ends, and not the function alone."""
    try:
        deadline = current_effective_deadline()
    except RuntimeError:  # no event loop: its coroutine is closed, as nobody awaits it any more
        return True
    return not isinstance(error, GeneratorExit) and deadline == -math.inf
