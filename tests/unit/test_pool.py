"""Those who wait for single keys: random programs of the state machine, and what is rare in it.

2,000 programs are run; 20,000 with `HYPOTHESIS_PROFILE=nightly` in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from random import Random
from typing import Any

import pytest

from batchproxy._core.flights import Flight
from batchproxy._core.gathered import Gathered
from batchproxy._core.outcome import MISSING, Answers, Failure, GivenUp, StoreFailure
from batchproxy._core.pool import GROUP, Pool, Wanted

PROGRAMS = 20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 2_000


class Bell:
    """What tasks of a `Program` sleep on."""

    def __init__(self) -> None:
        self.sleepers: list[Load] = []

    async def wait(self) -> None:
        raise AssertionError("nothing awaits here")

    def ring(self) -> None:
        for load in self.sleepers:
            load.asleep = False
        self.sleepers = []


def drawn(plan: Gathered, size: int) -> list[Any]:
    """A batch, as a table draws it."""
    keys = plan.draw(size)
    while plan.left and len(keys) < size:
        keys += plan.draw(size - len(keys))
    return keys


def refuse(flight: Flight) -> Any:
    raise AssertionError("nobody else computes anything")


class Load:
    """One who waits: what it does is that of `_engine.loading`, step by step."""

    def __init__(self, program: Program, key: int) -> None:
        self.program = program
        self.key = key
        self.asleep = False
        self.leading = False  # and has not begun its call
        self.outcome: Any = None
        self.steps = self.run()

    def run(self) -> Generator[Bell | None]:
        pool, me = self.program.pool, object()
        self.wanted = wanted = pool.join(self.key, str(self.key))
        try:
            while not wanted.settled:
                if not pool.lead(wanted, me):
                    yield wanted.bell  # type: ignore[misc] # it is one of these
                    continue
                self.leading = True
                plan = Gathered(pool, wanted, me, refuse)
                try:
                    yield None
                    yield from self.call(plan)
                finally:
                    self.leading = False
                    plan.end()
            self.outcome = wanted.outcome
        finally:
            pool.retire(wanted, me)
            pool.leave(wanted)

    def call(self, plan: Gathered) -> Generator[None]:
        program, size = self.program, self.program.size
        if program.random.random() < 0.3:  # no slot is free: is there any work?
            plan.draw_back(drawn(plan, size))
            yield None
        waiting = len(program.pool)
        flight = Flight(None)
        flight.keys = drawn(plan, size)
        assert len(flight.keys) == min(size, waiting), "a batch is thinner than it must be"
        assert self.key in flight.keys, "a recruiter is not one of them"
        assert plan.items_of(flight.keys) == list(map(str, flight.keys))
        if program.random.random() < 0.2:  # a store keeps it waiting, and gives some of it back
            yield None
            back = flight.keys[1:] if program.random.random() < 0.5 else []
            plan.draw_back(back)
            flight.keys = [key for key in flight.keys if key not in back]
        plan.claim(flight)
        self.leading = False
        while program.random.random() < 0.5:
            yield None
        plan.take(flight, program.outcome(flight.keys))


class Program:
    """Starts, resumes and cancels loads in a random order, and looks on."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.size = self.random.choice([1, 2, 3, 100])
        self.pool = Pool(Bell)
        self.loads: list[Load] = []

    def outcome(self, keys: list[Any]) -> Any:
        match self.random.randrange(6):
            case 0:
                return Failure(ValueError("all"), None)
            case 1:
                return GivenUp(ValueError("the recruiter's"), None)
            case 2:
                failures = {keys[0]: Failure(ValueError("one"), None)}
                return Answers([failures[keys[0]].error, *keys[1:]], failures)
            case _:
                return Answers(list(keys), {})

    def run(self) -> None:
        for _ in range(self.random.randrange(5, 40)):
            if self.random.random() < 0.4:
                self.start(Load(self, self.random.randrange(8)))
            elif self.loads:
                load = self.random.choice(self.loads)
                if self.random.random() < 0.2:
                    self.cancel(load)
                elif not load.asleep:
                    self.resume(load)
            self.check()
        steps = 0
        while self.loads:
            self.resume(self.random.choice([load for load in self.loads if not load.asleep]))
            self.check()
            steps += 1
            assert steps < 10_000, "it never ends"
        assert self.pool.idle
        assert self.pool.recruiter is None

    def start(self, load: Load) -> None:
        self.loads.append(load)
        self.resume(load)

    def resume(self, load: Load) -> None:
        try:
            bell = next(load.steps)
        except StopIteration:
            self.loads.remove(load)
            outcome = load.outcome
            if outcome is MISSING:  # nothing has come of it
                self.start(Load(self, load.key))
            elif not isinstance(outcome, Failure):
                assert outcome == load.key
        else:
            if bell is not None:
                load.asleep = True
                bell.sleepers.append(load)

    def cancel(self, load: Load) -> None:
        load.steps.close()
        self.loads.remove(load)
        for bell in {other.wanted.bell for other in [load, *self.loads]}:
            assert isinstance(bell, Bell)
            bell.sleepers = [other for other in bell.sleepers if other is not load]

    def check(self) -> None:
        waiting = self.pool._waiting
        leaders = [load for load in self.loads if load.leading]
        assert len(leaders) <= 1, "two recruiters"
        if not waiting and not leaders:
            assert self.pool.recruiter is None
            return
        recruiter = self.pool.recruiter
        assert recruiter is not None, "nobody recruits"
        if leaders:
            assert leaders[0].wanted is recruiter
        else:
            awake = [load for load in self.loads if load.wanted is recruiter and not load.asleep]
            assert awake, "the recruiter sleeps"
            assert waiting[recruiter.key] is recruiter
        for wanted in waiting.values():
            assert wanted.loads == sum(load.wanted is wanted for load in self.loads)
            assert wanted.loads
            assert not wanted.settled
        for load in self.loads:
            assert not (load.asleep and load.wanted.settled), "somebody is forgotten"


def test_random_programs() -> None:
    """There is one recruiter whenever anybody waits, nobody is forgotten, and batches are full."""
    for seed in range(PROGRAMS):
        try:
            Program(seed).run()
        except AssertionError as error:
            error.add_note(f"in program {seed}")
            raise


def joined(pool: Pool, *keys: Any) -> list[Wanted]:
    return [pool.join(key, key) for key in keys]


def plan_of(pool: Pool, leader: Wanted, **options: Any) -> Gathered:
    assert pool.lead(leader, "leader")
    return Gathered(pool, leader, "leader", refuse, **options)


def recruited(*keys: Any, take: int = 0) -> tuple[Any, ...]:
    """A pool, the plan of who recruits in it, and all who wait; so many keys are drawn."""
    pool = Pool(Bell)
    wanted = joined(pool, *keys)
    plan = plan_of(pool, wanted[0])
    assert not take or drawn(plan, take) == [*keys[:take]]
    return pool, plan, *wanted


def test_only_a_group_is_woken() -> None:
    """However many wait, to wake one of them wakes no more than share its bell."""
    pool = Pool(Bell)
    wanted = joined(pool, *range(2 * GROUP + 1))
    assert len({id(each.bell) for each in wanted}) == 3
    assert wanted[0].bell is wanted[GROUP - 1].bell


def test_a_failure_of_the_store_is_for_all_that_were_drawn() -> None:
    """But not for those who still wait."""
    pool, plan, one, two, three = recruited(1, 2, 3, take=2)
    failure = StoreFailure(OSError(), None)
    plan.fail(failure)
    plan.fail(StoreFailure(OSError("another"), None))
    assert plan.over
    plan.end()
    assert one.outcome is two.outcome is failure
    assert not three.settled
    assert pool.recruiter is three


def test_a_key_that_was_forgotten_and_asked_for_again() -> None:
    """Who asks anew gets no result of before: it is left to the next batch."""
    pool, plan, old = recruited(1, take=1)
    new, other = joined(pool, 1, 2)
    assert drawn(plan, 2) == [2]
    assert plan.left == 0
    assert list(pool._waiting.values()) == [new]
    flight = Flight(None)
    flight.keys = [1, 2]
    plan.claim(flight)
    assert pool.recruiter is new
    plan.take(flight, Answers(["a", "b"], {}))
    assert (old.outcome, other.outcome, new.settled) == ("a", "b", False)


def test_a_key_that_is_put_back_where_another_waits() -> None:
    """Who waited first looks again, and finds the other."""
    pool, plan, one, two = recruited(1, 2, take=2)
    [again] = joined(pool, 2)
    plan.draw_back([2])
    assert (two.settled, two.outcome) == (True, MISSING)
    assert list(pool._waiting.values()) == [again]
    plan.end()
    assert (one.settled, one.outcome) == (True, MISSING)


def test_what_is_put_back_where_another_waits_makes_no_room() -> None:
    """It weighs nothing any more, and not less than that."""
    pool = Pool(Bell)
    for key, weight in ((1, 1), (2, 3), (3, 2), (4, 2)):
        pool.join(key, key, weight)
    plan = plan_of(pool, pool._waiting[1], most=4)
    assert drawn(plan, 2) == [1, 2]
    pool.join(2, 2, 3)
    plan.draw_back([2])
    assert drawn(plan, 9) == [3]


def test_what_nobody_wants_any_more_is_not_put_back() -> None:
    """All who waited have left."""
    pool, plan, _, two = recruited(1, 2, take=2)
    pool.leave(two)
    plan.draw_back([1, 2])
    assert list(pool._waiting) == [1]


def test_who_reads_names_another_at_once() -> None:
    """Reading takes no slot of the proxy; what comes later is not added."""
    pool = Pool(Bell)
    [one] = joined(pool, 1)
    plan = plan_of(pool, one, reading=True)
    assert drawn(plan, 10) == [1]
    assert (pool.recruiter, plan.left) == (None, 0)
    [two] = joined(pool, 2)
    assert pool.recruiter is two
    plan.learn_stored({1: "a"})
    assert (one.outcome, one.source) == ("a", (0, 1))


def test_a_recruiter_that_needs_no_call() -> None:
    """It draws nobody else: whoever is named next calls for them, when it is time."""
    pool, plan, one, two = recruited(1, 2)
    assert plan.draw(2) == [1]
    plan.learn({1: "a"}, {})
    assert (plan.left, plan.draw(1), plan.left) == (1, [], 0)
    plan.end()
    assert (one.outcome, pool.recruiter) == ("a", two)


@pytest.mark.parametrize("known", [{1: "a"}, {}])
def test_what_was_found_meanwhile(known: dict[Any, Any]) -> None:
    """A result is given at once; for a call of somebody else it is said where to wait."""

    class Meeting:
        loads = 0

    meeting: Any = Meeting()
    pool = Pool(Bell)
    one, two = joined(pool, 1, 2)
    joined(pool, 2)
    assert pool.lead(one, "leader")
    plan = Gathered(pool, one, "leader", lambda flight: meeting)
    drawn(plan, 2)
    plan.learn(known, {2: Flight(None)})
    assert one.settled == bool(known)
    assert one.outcome == known.get(1, MISSING)
    assert (two.settled, two.meeting, meeting.loads) == (True, meeting, 2)
