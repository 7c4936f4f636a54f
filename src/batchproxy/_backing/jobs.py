"""Uses of a store on behalf of calls, in worker threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio

from .._core.flights import Flight
from .._core.outcome import StoreFailure
from .._core.table import Table
from .._loops import post

R = TypeVar("R")


class Job(Generic[R]):
    """One use of a store, which a flight is handed over to until it has been made.

    So a caller that is cancelled can leave at once, and what it had begun is still brought to its
    end. Only then are the keys released in this process.
    """

    def __init__(self, table: Table, flight: Flight, loop: Any, work: Callable[[], R]) -> None:
        self._table = table
        self._flight = flight
        self._loop = loop  # where its caller waits
        self._work = work
        self._taken_over = False
        self._ticket = [None]
        self._ended = anyio.Event()
        self._outcome: R | StoreFailure

    def take_over(self) -> None:
        """Do it even if nobody waits for it any more."""
        self._taken_over = True
        self._table.hand_over(self._flight)

    def withdraw(self) -> bool:
        """Take it from the others who may do it: whoever is told True does, and nobody else."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def __call__(self) -> None:
        """Do it, unless its caller has left before, or it was withdrawn."""
        if not self.withdraw():
            return
        if not self._taken_over and not self._table.hand_over(self._flight):
            return
        try:
            self._outcome = outcome_of(self._work)
        finally:
            self._table.take_back(self._flight)
            try:
                post(self._loop, self._ended.set)
            except RuntimeError:  # that loop is closed: nobody waits there any more
                self._table.end(self._flight)
            del self  # as `Plan.forget`

    async def wait(self) -> R | StoreFailure:
        """What came of it; of a failure nothing is raised, lest this frame be in its traceback."""
        await self._ended.wait()
        return self._outcome


def outcome_of(work: Callable[[], R]) -> R | StoreFailure:
    """What `work` gives, or what it raises, of whatever kind."""
    try:
        return work()
    except BaseException as error:
        return StoreFailure(error, error.__traceback__)
    finally:
        del work  # as `Plan.forget`
