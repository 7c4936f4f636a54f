"""Those who wait for single keys: what is rare in that state machine.

Random programs of it, through `load()`, are in `test_load_model`.
"""

from __future__ import annotations

from typing import Any

import pytest

from batchproxy._core.flights import Flight
from batchproxy._core.gathered import Gathered
from batchproxy._core.outcome import MISSING, Answers, StoreFailure
from batchproxy._core.pool import GROUP, Pool, Wanted


class Bell:
    """Of those who wait, none sleeps here."""

    async def wait(self) -> None:
        raise AssertionError("nothing awaits here")

    def ring(self) -> None: ...


def drawn(plan: Gathered, size: int) -> list[Any]:
    """A batch, as a table draws it."""
    keys = plan.draw(size)
    while plan.left and len(keys) < size:
        keys += plan.draw(size - len(keys))
    return keys


def refuse(flight: Flight) -> Any:
    raise AssertionError("nobody else computes anything")


def joined(pool: Pool, *keys: Any) -> list[Wanted]:
    return [pool.join(key, key) for key in keys]


def plan_of(pool: Pool, leader: Wanted, **options: Any) -> Gathered:
    assert pool.lead(leader, "leader")
    return Gathered(pool, leader, "leader", refuse, set[object]().__contains__, **options)


def recruited(*keys: Any, take: int = 0) -> tuple[Any, ...]:
    """A pool, the plan of who recruits in it, and all who wait; so many keys are drawn."""
    pool = Pool(Bell)
    wanted = joined(pool, *keys)
    plan = plan_of(pool, wanted[0])
    assert not take or drawn(plan, take) == [*keys[:take]]
    return pool, plan, *wanted


def test_who_recruits_does_so_until_it_retires() -> None:
    """Whoever else leaves, of those who wait for its own key or for another: nobody is named."""
    pool, _, one, two = recruited(1, 2, take=1)
    pool.leave(two)
    assert pool.recruiter is one
    pool.retire(one, "another")
    assert not pool.lead(one, "another")
    pool.retire(one, "leader")
    assert pool.recruiter is None


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
    plan = Gathered(pool, one, "leader", lambda flight: meeting, set[object]().__contains__)
    drawn(plan, 2)
    plan.learn(known, {2: Flight(None)})
    assert one.settled == bool(known)
    assert one.outcome == known.get(1, MISSING)
    assert (two.settled, two.meeting, meeting.loads) == (True, meeting, 2)
