"""Points 5, 8 and 10 of the contract at their root: flights and rings, without any event loop."""

from collections.abc import Callable, Hashable
from typing import Any

import pytest
from tools import is_held

from batchproxy import CircularWaitError
from batchproxy._core import waits as _rings
from batchproxy._core.flights import Elsewhere, Flight
from batchproxy._core.outcome import Answers, Failure
from batchproxy._core.table import Table
from batchproxy._core.values import Unbounded


def empty() -> Table:
    return Table(Unbounded())


def flight() -> Flight:
    return Flight(None)


def claimed(table: Table, *keys: int, home: object = None) -> Flight:
    flight = Flight(home)
    table._flights.claim(flight, list(keys))
    return flight


def test_a_flight_ends() -> None:
    """Its keys are free, everybody who waits is woken, once; ending it again does nothing."""
    table, woken = empty(), list[str]()
    flight = claimed(table, 1, 2)
    assert table._flights.meet([0, 1, 2]) == {1: flight, 2: flight}
    assert table.join({flight: flight.keys}, wake := lambda: woken.append("woken"))
    assert repr(flight) == "<Flight under way: 2 keys, 1 waiting>"
    assert table.waiting() == 1
    table.end(flight)
    table.end(flight)
    assert woken == ["woken"]
    assert (table.in_flight(), table.waiting()) == ([], 0)
    assert not table.join({flight: flight.keys}, wake)
    assert repr(flight) == "<Flight done: 2 keys, 0 waiting>"


def test_whoever_left_is_not_woken() -> None:
    """Leaving is by identity, and may be done twice."""
    table = empty()
    flight = claimed(table, 1)

    def wake() -> None:
        raise AssertionError("it has left")

    table.join({flight: flight.keys}, wake)
    table.leave([flight], wake)
    table.leave([flight], wake)
    table.end(flight)


def test_an_end_that_is_cut_short_can_be_repeated() -> None:
    """An interrupt while waking loses nobody: the second time those are woken who were not."""
    table, woken = empty(), list[int]()
    flight = claimed(table, 1)
    interrupts = [KeyboardInterrupt()]

    def wake() -> None:
        if interrupts:
            raise interrupts.pop()
        woken.append(1)

    table.join({flight: flight.keys}, wake)
    with pytest.raises(KeyboardInterrupt):
        table.end(flight)
    assert table.in_flight() == []
    table.end(flight)
    assert woken == [1]


def test_what_was_forgotten_stays_so_when_keys_are_added() -> None:
    """Of a call that gets keys piece by piece, those forgotten in between are not to be kept."""
    table, call = empty(), Flight(None)
    for keys in ([1, 2], [3, 4]):
        table._flights.claim(call, list(keys))
        table._flights.forget([1])
    assert call.keys == [1, 2, 3, 4]
    assert list(table.current(call)) == [2, 3, 4]
    assert table._flights.meet([1, 2, 3, 4]) == {2: call, 3: call, 4: call}


def test_what_was_forgotten_leaves_nothing_behind() -> None:
    """Neither when a call ends in parts, nor when that comes too late."""
    table = empty()
    call = claimed(table, 1, 2, 3)
    table.invalidate([1])
    other = claimed(table, 1)
    table.part(call, [3], {1: "one", 2: "two"}, keep=True)
    assert table._flights.meet([1, 2, 3]) == {1: other, 3: call}
    assert table.lookup([2]) == ["two"]
    assert table.lookup([1]) is None
    table.end(call)
    table.part(call, [], {3: "three"}, keep=True)
    table.settle(call, Answers(["three"], {}))
    assert table.lookup([3]) is None
    assert call.answers() == ({1: "one", 2: "two"}, {})
    failure = Failure(ValueError(), None)
    table.settle(other, failure)
    assert other.answers() == ({}, {1: failure})
    assert table.in_flight() == []


def test_a_key_may_come_back_into_a_call() -> None:
    """Who waits for it goes on waiting, and gets what the call has for it in the end."""
    table = empty()
    call = claimed(table, 1, 2, 3)
    table.part(call, [1], {3: "three"}, keep=True)
    table._flights.claim(call, [2])
    assert table.join({call: [2]}, lambda: None)
    table.settle(call, Answers(["one", "two"], {}))
    assert call.answers() == ({1: "one", 2: "two", 3: "three"}, {})


def test_nobody_may_want_what_is_elsewhere_any_more() -> None:
    """Who wanted it has left before it is known where it is: it is in flight nowhere."""
    table, onward = empty(), Elsewhere(lambda keys: ())
    call = claimed(table, 1, 2)
    table.end(onward)
    table.part(call, [1], {}, keep=True, onward=onward, held=[2])
    assert table.in_flight() == [1]


def test_what_is_elsewhere_leads_on_by_key() -> None:
    """Who waits for one of its keys is not blocked on the call that computes another."""
    calls: dict[Hashable, Flight] = {1: flight(), 2: flight()}
    onward = Elsewhere(lambda keys: {calls[key] for key in keys})
    _rings.check([calls[2]], {onward: [1]})
    with pytest.raises(CircularWaitError, match="2 is being computed"):
        _rings.check([calls[2]], {onward: [2]})
    _rings.block("token", [calls[1]], {onward: [2]})
    with pytest.raises(CircularWaitError):
        _rings.check([calls[2]], {calls[1]: [1]})
    _rings.unblock("token", [calls[1]])


def test_a_claim_that_was_cut_short_releases_nothing_of_others() -> None:
    """A flight that has noted its keys and not entered them does not release another's claim."""
    table = empty()
    interrupted = Flight(None)
    interrupted.keys = [1]
    other = claimed(table, 1)
    table.end(interrupted)
    assert table._flights.meet([1]) == {1: other}


def test_the_lock_is_not_held_while_waking() -> None:
    """Another thread can use the table from inside a wake."""
    table, held = empty(), list[bool]()
    flight = claimed(table, 1)
    table.join({flight: flight.keys}, lambda: held.append(is_held(table._lock)))
    table.end(flight)
    assert held == [False]


def test_rings() -> None:
    """A wait is refused if the way from it leads back, by whatever way; else it is noted."""
    a, b, c, d = flight(), flight(), flight(), flight()
    _rings.block("1", [a], dict.fromkeys([b, c], ()))  # a diamond, in which d is met twice
    _rings.block("2", [b], dict.fromkeys([d], ()))
    _rings.block("3", [c], dict.fromkeys([d], ()))
    other = flight()
    _rings.check([other], {a: [1]})
    with pytest.raises(CircularWaitError, match="1, 2, 3, 4, 5 and 1 more is being computed"):
        _rings.block_checked("4", [d], {other: [0], a: [1, 2, 3, 4, 5, 6]})
    assert d not in _rings._blocked
    b.done = True  # one way is gone
    with pytest.raises(CircularWaitError):
        _rings.check([d], {a: [1]})
    c.done = True  # the other, too
    _rings.block_checked("4", [d], {a: [1]})
    for token, node in (("1", a), ("2", b), ("3", c), ("4", d), ("4", d)):
        _rings.unblock(token, [node])
    assert not {a, b, c, d} & _rings._blocked.keys()


def test_a_call_that_has_ended_hides_no_ring() -> None:
    """The search goes on past it."""
    first, second, ended = flight(), flight(), flight()
    ended.done = True
    _rings.block("token", [first], dict.fromkeys([second, ended], ()))
    with pytest.raises(CircularWaitError):
        _rings.check([second], {first: [1]})
    _rings.unblock("token", [first])


def test_what_one_undoes_holds_for_another() -> None:
    """Of two that have blocked the same call, each takes back its own."""
    first, second, third = flight(), flight(), flight()
    _rings.block("one", [first], dict.fromkeys([second], ()))
    _rings.block("two", [first], dict.fromkeys([third], ()))
    _rings.unblock("one", [first])
    _rings.check([second], {first: [1]})
    with pytest.raises(CircularWaitError):
        _rings.check([third], {first: [1]})
    _rings.unblock("two", [first])


def test_a_ring_beyond_what_was_seen() -> None:
    """A call that is met twice does not end the search."""
    a, ahead, twice, again, target = (flight() for _ in range(5))
    edges = {a: [ahead, twice, again], again: [twice], ahead: [target]}
    for node, flights in edges.items():
        _rings.block("token", [node], dict.fromkeys(flights, ()))
    with pytest.raises(CircularWaitError):
        _rings.check([target], {a: [1]})
    for node in edges:
        _rings.unblock("token", [node])


def test_of_two_that_close_a_ring_at_once_the_second_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody comes between the look for a ring and the note of what is waited for."""
    block, alone = _rings.block, list[bool]()

    def watched(*args: Any) -> None:
        alone.append(is_held(_rings._lock))
        block(*args)

    monkeypatch.setattr(_rings, "block", watched)
    node = object()
    _rings.block_checked("token", [node], {Flight(None): [1]})
    _rings.unblock("token", [node])
    assert alone == [True]


@pytest.mark.parametrize("before", [[], [0]])
def test_a_claim_that_is_cut_short_can_be_released(before: list[int]) -> None:
    """An interrupt between two keys of a claim leaves none of them in flight, nor earlier ones."""

    class Interrupted(dict[Hashable, Flight]):
        def __setitem__(self, key: Hashable, flight: Flight) -> None:
            super().__setitem__(key, flight)
            raise KeyboardInterrupt

    table = empty()
    flight = claimed(table, *before) if before else Flight(None)
    table._flights.by_key = Interrupted(table._flights.by_key)
    with pytest.raises(KeyboardInterrupt):
        table._flights.claim(flight, [1, 2])
    assert table.in_flight() == [*before, 1]
    table.end(flight)
    assert table.in_flight() == []


@pytest.mark.parametrize(
    "leave",
    [
        lambda table, flight: table.end(flight),
        lambda table, flight: table.part(flight, [], {}, keep=True),
        lambda table, flight: table.invalidate(flight.keys),
    ],
    ids=["end", "part", "invalidate"],
)
def test_a_release_that_is_cut_short_can_be_repeated(
    leave: Callable[[Table, Flight], None],
) -> None:
    """An interrupt between two keys that leave loses none, nor those of others."""

    class Interrupted(dict[Hashable, Flight]):
        def __delitem__(self, key: Hashable) -> None:
            super().__delitem__(key)
            if interrupts:
                raise interrupts.pop()

    table, interrupts = empty(), [KeyboardInterrupt()]
    flight, other = claimed(table, 1, 2), claimed(table, 3)
    table._flights.by_key = Interrupted(table._flights.by_key)
    with pytest.raises(KeyboardInterrupt):
        leave(table, flight)
    assert table.in_flight() == [2, 3]
    table.end(flight)
    assert table._flights.meet([1, 2, 3]) == {3: other}
