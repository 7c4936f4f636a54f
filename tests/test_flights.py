"""Points 5, 8 and 10 of the contract at their root: flights and rings, without any event loop."""

from __future__ import annotations

import threading

import pytest

from batchproxy import CircularWaitError, _rings
from batchproxy._flights import Flight, Flights


def claimed(flights: Flights, *keys: int, home: object = None) -> Flight:
    flight = Flight(home)
    flights.claim(flight, list(keys))
    return flight


def test_a_flight_ends() -> None:
    """Its keys are free, everybody who waits is woken, once; ending it again does nothing."""
    flights, woken = Flights(), list[str]()
    flight = claimed(flights, 1, 2)
    assert flights.meet([0, 1, 2]) == {1: flight, 2: flight}
    assert flights.join([flight], wake := lambda: woken.append("woken"))
    assert repr(flight) == "<Flight under way: 2 keys, 1 waiting>"
    assert flights.waiting() == 1
    flights.end(flight)
    flights.end(flight)
    assert woken == ["woken"]
    assert len(flights) == flights.waiting() == 0
    assert not flights.join([flight], wake)
    assert repr(flight) == "<Flight done: 2 keys, 0 waiting>"


def test_whoever_left_is_not_woken() -> None:
    """Leaving is by identity, and may be done twice."""
    flights = Flights()
    flight = claimed(flights, 1)

    def wake() -> None:
        raise AssertionError("it has left")

    flights.join([flight], wake)
    flights.leave([flight], wake)
    flights.leave([flight], wake)
    flights.end(flight)


def test_an_end_that_is_cut_short_can_be_repeated() -> None:
    """An interrupt while waking loses nobody: the second time those are woken who were not."""
    flights, woken = Flights(), list[int]()
    flight = claimed(flights, 1)
    interrupts = [KeyboardInterrupt()]

    def wake() -> None:
        if interrupts:
            raise interrupts.pop()
        woken.append(1)

    flights.join([flight], wake)
    with pytest.raises(KeyboardInterrupt):
        flights.end(flight)
    assert len(flights) == 0
    flights.end(flight)
    assert woken == [1]


def test_a_claim_that_was_forgotten_is_not_released_again() -> None:
    """After an invalidation the key may be another's: the old flight leaves it alone."""
    flights = Flights()
    old = claimed(flights, 1, 2)
    flights.forget([1])
    new = claimed(flights, 1)
    assert list(flights.current(old)) == [2]
    flights.end(old)
    assert flights.meet([1, 2]) == {1: new}
    flights.forget_all()
    assert flights.current(new) == []
    flights.end(new)


def test_what_was_forgotten_stays_so_when_keys_move_on() -> None:
    """Of a call that gets keys piece by piece, those forgotten in between are not to be kept."""
    flights = Flights()
    call = Flight(None)
    for keys in ([1, 2], [3, 4]):
        flights.move(claimed(flights, *keys), call, keys)
        flights.forget([1])
    assert call.keys == [1, 2, 3, 4]
    assert list(flights.current(call)) == [2, 3, 4]
    assert flights.meet([1, 2, 3, 4]) == {2: call, 3: call, 4: call}


def test_a_claim_that_was_cut_short_releases_nothing_of_others() -> None:
    """A flight that has noted its keys and not entered them does not release another's claim."""
    flights = Flights()
    interrupted = Flight(None)
    interrupted.keys = [1]
    other = claimed(flights, 1)
    flights.end(interrupted)
    assert flights.meet([1]) == {1: other}


def test_the_lock_is_not_held_while_waking() -> None:
    """Another thread can use the table from inside a wake."""
    flights = Flights()
    flight = claimed(flights, 1)
    seen = []

    def wake() -> None:
        thread = threading.Thread(target=lambda: seen.append(flights.waiting()))
        thread.start()
        thread.join(10)

    flights.join([flight], wake)
    flights.end(flight)
    assert seen == [0]


def flight() -> Flight:
    return Flight(None)


def test_rings() -> None:
    """A wait is refused if the way from it leads back, by whatever way; else it is noted."""
    a, b, c, d = flight(), flight(), flight(), flight()
    _rings.block("1", [a], [b, c])  # a diamond, in which d is met twice
    _rings.block("2", [b], [d])
    _rings.block("3", [c], [d])
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
    _rings.block("token", [first], [second, ended])
    with pytest.raises(CircularWaitError):
        _rings.check([second], {first: [1]})
    _rings.unblock("token", [first])


def test_what_one_undoes_holds_for_another() -> None:
    """Of two that have blocked the same call, each takes back its own."""
    first, second, third = flight(), flight(), flight()
    _rings.block("one", [first], [second])
    _rings.block("two", [first], [third])
    _rings.unblock("one", [first])
    _rings.check([second], {first: [1]})
    with pytest.raises(CircularWaitError):
        _rings.check([third], {first: [1]})
    _rings.unblock("two", [first])


def test_rings_through_a_loop() -> None:
    """A call whose loop stands still for a synchronous caller is blocked on what that awaits."""
    loop, other_loop = object(), object()
    in_the_loop, elsewhere = Flight(loop), Flight(other_loop)
    with pytest.raises(CircularWaitError):
        _rings.check([loop], {in_the_loop: [1]})
    _rings.check([loop], {elsewhere: [1]})
    _rings.block("sync", [loop], [elsewhere])
    with pytest.raises(CircularWaitError):
        _rings.check([elsewhere], {in_the_loop: [1]})
    _rings.unblock("sync", [loop])
    _rings.check([elsewhere], {in_the_loop: [1]})
