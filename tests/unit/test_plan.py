"""Points 1, 2 and 5 of the contract at their root: a plan and a table, without any event loop.

What is rare there; random programs, through `map()`, are in `test_model`.
"""

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from batchproxy._core.flights import Elsewhere, Flight
from batchproxy._core.outcome import Answers, Failure
from batchproxy._core.plan import Plan
from batchproxy._core.table import Table
from batchproxy._core.values import Bounded, Unbounded


def test_keys_given_up_are_drawn_in_order() -> None:
    """Also while others have been put back: what is lost takes its place among them."""
    keys: list[Hashable] = list(range(6))
    table, plan = Table(Unbounded()), Plan(keys, keys)
    elsewhere = Flight(None)
    table._flights.claim(elsewhere, [1, 2])
    table.open(plan)
    assert table.has_work(plan, 1)  # puts 0 back
    table.end(elsewhere)
    plan.take_awaited()
    assert table.claim(plan, Flight(None), 9) == keys


def test_a_call_ends_in_parts() -> None:
    """Who waits takes what has an answer, looks for the rest again, and waits for what stays."""
    keys: list[Hashable] = [0, 1, 2, 3]
    table, plan = Table(Unbounded()), Plan(keys, keys)
    call, onward, woken = Flight(None), Elsewhere(lambda keys: ()), list[int]()
    table._flights.claim(call, keys.copy())
    table.open(plan)
    assert table.join(plan.awaited, lambda: woken.append(1))
    table.part(call, [3], {0: "found"}, keep=True, onward=onward, held=[1])
    assert woken == [1]
    assert not table.join(plan.awaited, never)
    plan.take_awaited()
    assert plan.awaited == {call: [3]}
    assert table.join(plan.awaited, never)
    flight = Flight(None)
    assert table.claim(plan, flight, 9) == [2]
    assert plan.awaited == {call: [3], onward: [1]}
    assert plan.elsewhere == {onward}
    table.settle(call, Answers(["computed"], {}))
    plan.take_awaited()
    assert plan._learned == {0: "found", 3: "computed"}
    assert plan.shared == 2
    table.lose_interest(plan)
    table.end(flight)
    assert table.in_flight() == []


def never() -> None:
    raise AssertionError("it has left")


def test_keys_are_not_compared_to_be_delivered() -> None:
    """A key need only be hashable: that of an expression, say, has no truth in its ==."""

    class Expression:
        def __eq__(self, other: object) -> bool:
            raise TypeError("the truth of an expression is not known")

        __hash__ = object.__hash__

    keys: list[Hashable] = [Expression() for _ in range(4)]
    table, plan = Table(Unbounded()), Plan(keys, keys)
    elsewhere, flights = Flight(None), [Flight(None), Flight(None)]
    table._flights.claim(elsewhere, keys[:2])
    table.open(plan)
    assert table.claim(plan, flights[0], 2)
    assert plan.claim(flights[0])
    table.end(elsewhere)  # given up, so that those are claimed last
    plan.take_awaited()
    assert table.claim(plan, flights[1], 2)
    assert plan.claim(flights[1])
    for flight in flights:
        plan.take(flight, Answers([id(key) for key in flight.keys], {}))
    assert plan.deliver() == [id(key) for key in keys]


actions = st.sampled_from(["store", "store", "use", "drop"])


@given(st.integers(4, 6), st.lists(st.tuples(actions, st.lists(st.integers(0, 11), unique=True))))
def test_a_batch_is_stored_as_its_keys_would_be_one_by_one(
    size: int, program: list[tuple[str, list[int]]]
) -> None:
    """A bounded cache keeps and drops the same, whether results come in batches or singly.

    (Of so few keys it forgets none that has left, which it does between batches.)
    """
    whole, singly = Bounded(size), Bounded(size)
    for action, keys in program:
        match action:
            case "store":
                whole.store(keys, keys)
                for key in keys:
                    singly.store([key], [key])
            case "use":
                whole.use(list(whole.known(keys)))
                singly.use(list(singly.known(keys)))
            case "drop":
                whole.drop(keys)
                singly.drop(keys)
        assert list(whole._data.items()) == list(singly._data.items())
        assert whole._gone == singly._gone


def test_keys_put_back_twice_stay_in_order() -> None:
    """What is put back last was drawn last, and comes first again."""
    keys: list[Hashable] = [0, 1, 2]
    plan = Plan(keys, keys)
    plan.draw_back(plan.draw(3))
    plan.draw_back(plan.draw(1))
    assert plan.draw(3) == keys


def test_which_failure_ends_a_map() -> None:
    """The first; but first of all what is no `Exception`, and of those the first, too.

    The others are further failures, of which notes tell; one that is met again is none.
    """
    first, second = Failure(ValueError("one"), None), Failure(ValueError("two"), None)
    interrupt, another = Failure(KeyboardInterrupt(), None), Failure(SystemExit(), None)
    plan = Plan([1], [1])
    for failure, raised, further in [
        (first, first, 0),
        (first, first, 0),
        (second, first, 1),
        (interrupt, interrupt, 1),
        (another, interrupt, 2),
        (second, interrupt, 3),
    ]:
        plan.fail(failure)
        assert (plan.failure, plan.further) == (raised, further)
