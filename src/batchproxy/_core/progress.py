"""How far one map() has come, for a bar or for a function of the user."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from .._forks import unforked
from .._loops import is_async
from .._messages import short, traced

if TYPE_CHECKING:
    from tqdm import tqdm

    from .plan import Plan

_logger = logging.getLogger("batchproxy")


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of how far one ``map()`` has come; all but `calls` count distinct keys."""

    done: int
    """Keys that have their answer, or have failed. The last snapshot has ``done == total``, unless
    a failure ended the ``map()``."""
    total: int
    """Distinct keys that were asked for; of a stream those so far."""
    hits: int
    """Keys whose result was in the cache, or in its store."""
    shared: int
    """Keys whose result came from a call of another ``map()``, also one of another process that was
    under way. (What another process had finished before is a hit.)"""
    calls: int
    """Calls of ``map_func`` that this ``map()`` began."""
    failures: int
    """Keys that failed."""


Report: TypeAlias = Callable[[Progress], object]


def reporting(progress: object) -> Reporting | None:
    """What is told of each snapshot, if that is wanted.

    Raises:
        TypeError: `progress` is neither a bool nor a plain function.
        ImportError: a bar is wanted, and tqdm is not installed.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return Reporting(_Bar())
    if not callable(progress) or is_async(progress):
        raise TypeError(
            "progress must be True for a bar, or a function that is not asynchronous and takes a "
            f"Progress, got {short(progress)}"
        )
    return Reporting(progress)


def snapshot(plan: Plan) -> Progress:
    """How far `plan` has come."""
    hits = plan.hits + plan.stored
    return Progress(
        done=hits + plan.shared + plan.computed + plan.failed,
        total=plan.total,
        hits=hits,
        shared=plan.shared,
        calls=plan.calls,
        failures=plan.failed,
    )


_inside: ContextVar[tuple[Reporting, ...]] = ContextVar("batchproxy_reports", default=())


def reports_around() -> list[object]:
    """Those whose functions this is inside of: what they leave behind is inside of none."""
    return [each for each in _inside.get() if each.busy]


class Reporting:
    """Passes snapshots on, until the function that takes them raises."""

    __slots__ = ("_last", "_report", "busy")

    def __init__(self, report: Report) -> None:
        self.busy: bool = False  # whether that function is being called
        self._report: Report | None = report
        self._last: Progress | None = None

    def __call__(self, now: Progress) -> None:
        """Pass a snapshot on, if it says anything new."""
        if self._report is None or now == self._last:
            return
        self._last = now
        self._try(partial(self._report, now))

    def end(self) -> None:
        """Nothing more will come."""
        if isinstance(self._report, _Bar):
            self._try(self._report.close)

    def _try(self, function: Callable[[], object]) -> None:
        outside = _inside.set((*_inside.get(), self))
        self.busy = True
        try:
            function()
        except Exception as error:
            self._report = None  # first: the log may be what cannot be written to
            _logger.error(
                "the progress function failed, and is not called again\n%s", traced(error)
            )
        finally:
            self.busy = False
            _inside.reset(outside)


class _Bar:
    def __init__(self) -> None:
        try:
            with unforked():
                from tqdm.auto import tqdm as make_bar  # it knows whether this is a notebook
        except ImportError as error:
            raise ImportError(
                "progress=True needs tqdm: pip install 'batchproxy[progress]'; or give a function "
                "that takes a batchproxy.Progress"
            ) from error
        self._make: Callable[..., tqdm[None]] = make_bar
        self._bar: tqdm[None] | None = None

    def __call__(self, now: Progress) -> None:
        if self._bar is None:
            self._bar = self._make(total=now.total)
        self._bar.set_postfix(
            hits=now.hits, shared=now.shared, calls=now.calls, failures=now.failures, refresh=False
        )
        self._bar.total = now.total  # that of a stream grows
        self._bar.update(now.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
