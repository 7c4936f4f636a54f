"""Uses of a store on behalf of calls, in worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

from .._core.flights import Flight
from .._core.outcome import StoreFailure
from .._core.table import Table

R = TypeVar("R")


class Job(Generic[R]):
    """One use of a store, which a flight is handed over to until it has been made.

    So a caller that is cancelled can leave at once, and what it had begun is still brought to its
    end. Only then are the keys released in this process.
    """

    def __init__(
        self,
        table: Table,
        flight: Flight,
        post: Callable[[Callable[[], object]], object],
        work: Callable[[], R],
    ) -> None:
        self._table = table
        self._flight = flight
        self._post = post  # to where its caller waits
        self._work = work
        self.taken_over = False  # whether it is done even if nobody waits for it any more
        # Whoever gets it may do this, and nobody else: it is never given back.
        self.ticket = threading.Lock()
        self.ended = anyio.Event()
        # Of a failure nothing is raised, lest the frame of who waits be in its traceback.
        self.outcome: R | StoreFailure

    def __call__(self) -> None:
        """Do it, unless its caller has left before, or somebody else has its ticket."""
        if not self.ticket.acquire(blocking=False):
            return
        if not self.taken_over and not self._table.hand_over(self._flight):
            return
        try:
            self.outcome = self._work()
        except BaseException as error:
            self.outcome = StoreFailure.of(error)
        finally:
            self._table.take_back(self._flight)
            try:
                self._post(self.ended.set)
            except RuntimeError:  # that loop is closed: nobody waits there any more
                self._table.end(self._flight)
            del self  # as `Plan.forget`
