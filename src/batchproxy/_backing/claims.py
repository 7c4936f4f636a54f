"""The claims of one map() whose cache has a store: the steps that ask it, in worker threads.

What a call gave is handed over the moment it comes: whatever becomes of its caller, it is written,
and those who wait for it wait until it is. Claims that nobody needs any more are given back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import TypeVar

import anyio

from .._core.claims import Claims
from .._core.flights import Elsewhere, Flight
from .._core.outcome import Answers, Failure, Outcome, StoreFailure
from .._core.plan import Plan
from .._core.table import Table
from .._loops import poster
from .backing import Backing
from .encoding import Claimed, Published
from .jobs import Job
from .leases import Grant
from .policy import unusable

R = TypeVar("R")

MOST_ASKED = 10_000
"""The most keys that a store is asked for at once, if a batch is not larger."""


class BackedClaims(Claims):
    """`Claims` in memory and in a store. Of one ``map()``."""

    __slots__ = (
        "_backing",
        "_home",
        "_missing",
        "_names",
        "_post",
        "_size",
        "_turn",
    )

    def __init__(self, table: Table, backing: Backing, home: object, loop: object) -> None:
        super().__init__(table)
        self._backing = backing
        self._home = home
        self._post = poster(loop)
        self.unread = True
        self._missing: list[Hashable] = []  # what was looked for in vain
        self._names: dict[Hashable, bytes] = {}  # what keys are called in the store
        # One call at a time asks for its keys: those that it does not get come back.
        self._turn = anyio.Lock(fast_acquire=True)
        self._size = 0  # how many keys are asked for at once, if a batch is not larger

    async def look(self, plan: Plan) -> None:
        """As there; reads a part of what is missing in memory. Takes no slot."""
        flight = Flight(self._home)
        plan.running.add(flight)
        try:
            # By count, whatever they weigh.
            if asked := self.table.claim(plan, flight, MOST_ASKED, MOST_ASKED):
                found = await self._in_thread(flight, partial(self._read, flight))
                if isinstance(found, StoreFailure):
                    self.unread = False
                    plan.fail(found)
                    return
                if found:
                    plan.learn_stored(found)
                self._missing += [key for key in asked if key not in found]
        finally:
            self.table.end(flight)
            plan.running.discard(flight)
        if not plan.left:
            self.unread = False
            whole = len(self._missing) == len(plan.distinct)
            plan.start(plan.distinct if whole else self._missing)

    def read_on(self) -> None:
        """As there."""
        self.unread = True
        self._missing = []

    def forget(self, keys: Collection[Hashable]) -> None:
        """As there."""
        for key in keys:
            self._names.pop(key, None)

    def _read(self, flight: Flight) -> dict[Hashable, object]:
        kept = [key for key in flight.keys if key not in flight.unkept]
        found = self._backing.read(kept, self._names) if kept else {}
        if found:
            stay = [key for key in flight.keys if key not in found]
            self.table.part(flight, stay, found, keep=self._backing.keeps)
        return found

    async def claim(self, plan: Plan, flight: Flight, size: int) -> None:
        """As there; claims in the store, too.

        Keys that have a value by now, or that another process is computing, do not thin a batch:
        then more are asked for, and more at once, since there will be others next to those.
        """
        flight.outside = grant = self._backing.grant()
        async with self._turn:
            while (room := size - len(flight.keys)) and not plan.over:
                if (weights := plan.weights) is None:
                    asked = self.table.claim(plan, flight, max(room, self._size))
                else:  # so many are claimed of those as fit, whichever they are
                    beside = flight.keys
                    asked = self.table.claim(plan, flight, room, max(1, self._size))
                    room = min(room, weights.surely(asked, beside))
                if not asked:
                    break
                plan.spare = max(0, len(asked) - room)
                try:
                    work = partial(self._ask, plan, flight, asked, grant, room)
                    got = await self._in_thread(flight, work)
                finally:
                    plan.spare = 0
                if isinstance(got, StoreFailure):
                    plan.fail(got)
                    return
                claimed, onward = got
                if len(claimed.mine) < len(asked):
                    known = {*claimed.mine, *claimed.values, *claimed.held}
                    plan.draw_back([key for key in asked if key not in known])
                    plan.learn_stored(claimed.values)
                    plan.learn({}, {key: onward for key in claimed.held if onward})
                passed = bool(claimed.values or claimed.held)
                if not (room or passed or self._size):
                    break  # the next key does not fit
                full = len(claimed.mine) == room and (room or not passed)
                self._size = 0 if full else min(2 * len(asked), MOST_ASKED)
        if plan.awaited:
            plan.take_awaited()  # they may have failed meanwhile

    def _ask(
        self, plan: Plan, flight: Flight, asked: list[Hashable], grant: Grant | None, room: int
    ) -> tuple[Claimed, Elsewhere | None]:
        if flight.unkept:
            claimed = self._claim_kept(asked, flight, grant, room)
        else:
            claimed = self._backing.claim(asked, self._names, grant, room)
        if len(claimed.mine) == len(asked):
            return claimed, None
        if room and not (claimed.mine or claimed.values or claimed.held):
            # At least not again at once.
            claimed = claimed._replace(held=[key for key in asked if key not in flight.unkept])
        stay = [*flight.keys[: -len(asked)], *claimed.mine]
        onward: Elsewhere | None = None
        if claimed.held:
            onward = Elsewhere(self._backing.who_computes)
            plan.wait_elsewhere(onward)
        self.table.part(
            flight,
            stay,
            claimed.values,
            keep=self._backing.keeps,
            onward=onward,
            held=claimed.held,
        )
        if onward is not None:
            self._watch(onward)
            if flight.released:  # too late for who has left: nobody else would do it
                self.table.lose_interest(plan)
        return claimed, onward

    def _claim_kept(
        self, asked: list[Hashable], flight: Flight, grant: Grant | None, limit: int
    ) -> Claimed:
        # Nobody else has, or could have, what is not kept.
        unkept = {key for key in asked[:limit] if key in flight.unkept}
        claimed = Claimed({}, [], [])
        kept = [key for key in asked if key not in flight.unkept]
        if kept and (len(unkept) < limit or not limit):
            claimed = self._backing.claim(kept, self._names, grant, limit - len(unkept))
        mine = unkept.union(claimed.mine)
        return claimed._replace(mine=[key for key in asked if key in mine])

    def _watch(self, onward: Elsewhere) -> None:
        try:
            names = {key: self._names[key] for key in onward.keys}
            self._backing.lookout.watch(onward, names, self._backing.look)
        except RuntimeError as error:
            failure = unusable(error)
            if not self._backing.policy.goes_on(failure):
                self.table.settle(onward, StoreFailure(failure, None))
            self.table.end(onward)

    async def settle(self, flight: Flight, outcome: Outcome) -> Outcome:
        """As there, when it is written: until then the call has no outcome.

        What comes out may differ from what was computed: if another process was first, its results
        are taken; results that cannot be stored become failures; and if the store fails, all do:
        then the next who asks for them has them written.

        Cancellation: The caller leaves at once. The results were taken over before the first
        ``await``.
        """
        if isinstance(outcome, Failure):
            self.table.settle(flight, outcome)
            if flight.rest:
                self._release_part(flight)
            return outcome
        backing = self._backing
        job = Job(self.table, flight, self._post, partial(self._publish, flight, outcome))
        job.taken_over = True
        try:
            backing.writers.take_over(flight)
            self.table.hand_over(flight)
            backing.workers.submit(job)
        except BaseException as error:  # there is no thread, or this one was interrupted
            no_thread = isinstance(error, RuntimeError)
            if job.ticket.acquire(blocking=False):  # and nobody will do it
                self._postpone(flight, outcome, error, settle=no_thread)
            if not no_thread:
                raise
        else:
            await job.ended.wait()
            if isinstance(job.outcome, StoreFailure):
                return job.outcome
        return flight.outcome or outcome

    def _publish(self, flight: Flight, answers: Answers) -> None:
        backing, grant = self._backing, flight.outside
        assert grant is None or isinstance(grant, Grant)  # which `claim` gave it
        with backing.writers.writing(flight):
            wanted = self._wanted(flight, answers)
            published = backing.publish(wanted, self._names, grant)
        self._settle(flight, answers, published)
        del flight, answers, published, wanted  # as `Plan.forget`

    def _postpone(
        self, flight: Flight, answers: Answers, error: BaseException, *, settle: bool
    ) -> None:
        """What is done where nobody can write: without I/O. Else the call is given up."""
        try:
            wanted = self._wanted(flight, answers)
            published = self._backing.postpone(wanted, self._names, unusable(error))
            # What was forgotten meanwhile; what is from now on, is forgotten there, too.
            forgotten = wanted.keys() - set(self.table.current(flight))
            self._backing.drop(forgotten, self._names)
            if settle:
                self._settle(flight, answers, published)
            del answers, published, wanted  # as in `_publish`
        finally:
            self._backing.writers.taken(flight)
            self.table.take_back(flight)

    def _wanted(self, flight: Flight, answers: Answers) -> dict[Hashable, object]:
        """The results that are neither failures nor forgotten since the claim."""
        computed = dict(zip(flight.keys, answers.results))
        if flight.intact and not answers.failures and not flight.unkept:
            return computed
        left_out = {*answers.failures, *flight.unkept}
        current = self.table.current(flight)
        return {key: computed[key] for key in current if key not in left_out}

    def _settle(self, flight: Flight, answers: Answers, published: Published) -> None:
        refused = published.refused
        if published.failure is not None:
            refused = dict.fromkeys(flight.keys, published.failure)
        if published.adopted or refused:
            answers = answers.corrected(flight.keys, published.adopted, refused)
            if not self._backing.keeps:  # only the store knows when they expire
                flight.unkept = {*flight.unkept, *published.adopted}
        self.table.settle(flight, answers)
        if flight.rest:
            self._release_part(flight)

    def _release_part(self, flight: Flight) -> None:
        """Give back the claims on keys that have left `flight` without being written."""
        if isinstance(grant := flight.outside, Grant):
            grant.release_some([self._names[key] for key in flight.keys if key in self._names])

    async def _in_thread(self, flight: Flight, work: Callable[[], R]) -> R | StoreFailure:
        """Run `work` in a worker thread, which `flight` is handed over to.

        Checkpoints: At least one.

        Cancellation: The caller leaves at once. Work that has not begun does not begin.
        """
        job = Job(self.table, flight, self._post, work)
        try:
            self._backing.workers.submit(job)
        except RuntimeError as error:
            failure = unusable(error)
            if not self._backing.policy.goes_on(failure):
                return StoreFailure(failure, None)
            job()  # it waits for nothing: the store is left alone now
        await job.ended.wait()
        return job.outcome
